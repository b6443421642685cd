//! Batches of other producers: wider and narrower types, dictionaries, views, other units; and what is refused.

use std::sync::Arc;

use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::*;
use aurora_page::{Column, DataType, KeyPart, Schema, Value, encode_key, encode_row};
use aurora_scan::{BatchRows, FromArrowError};

fn schema(columns: &[(&str, DataType, bool)]) -> Schema {
    let columns = (0..)
        .zip(columns)
        .map(|(id, (name, data_type, nullable))| Column {
            id,
            name: (*name).into(),
            data_type: *data_type,
            nullable: *nullable,
        })
        .collect();
    Schema::new(
        1,
        columns,
        vec![KeyPart {
            column: 0,
            descending: false,
        }],
    )
    .unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

/// What a column of this type makes of an array.
fn read(data_type: DataType, array: ArrayRef) -> Result<Vec<Value>, FromArrowError> {
    let schema = schema(&[("c", data_type, true)]);
    let batch = batch(vec![("c", array)]);
    let rows = BatchRows::new(&schema, &batch, 100)?;
    (0..rows.len())
        .map(|row| rows.values(row).map(|mut values| values.remove(0)))
        .collect()
}

fn message(data_type: DataType, array: ArrayRef) -> String {
    read(data_type, array).unwrap_err().to_string()
}

#[test]
fn integers_of_other_widths() {
    let values = || vec![Some(1), None, Some(-3)];
    let expected = Ok(vec![Value::Int(1), Value::Null, Value::Int(-3)]);
    assert_eq!(
        read(DataType::Int64, Arc::new(Int8Array::from(values()))),
        expected
    );
    assert_eq!(
        read(
            DataType::Int8,
            Arc::new(Int64Array::from(vec![Some(1), None, Some(-3)]))
        ),
        expected
    );
    let unsigned = UInt64Array::from(vec![u64::MAX]);
    let max = Value::Decimal(u64::MAX.into());
    assert_eq!(
        read(
            DataType::Decimal {
                precision: 20,
                scale: 0
            },
            Arc::new(unsigned.clone())
        ),
        Ok(vec![max])
    );
    assert_eq!(
        message(DataType::Int64, Arc::new(unsigned)),
        "row 100, column \"c\": expected int64, got int 18446744073709551615"
    );
    assert_eq!(
        message(DataType::Int8, Arc::new(Int16Array::from(vec![5, 128]))),
        "row 101, column \"c\": expected int8 (-128 to 127) or null, got int 128"
    );
}

#[test]
fn decimals_of_other_scales() {
    let target = DataType::Decimal {
        precision: 6,
        scale: 2,
    };
    let array = |values: Vec<i128>, precision, scale| {
        Arc::new(
            Decimal128Array::from(values)
                .with_precision_and_scale(precision, scale)
                .unwrap(),
        ) as ArrayRef
    };
    assert_eq!(
        read(target, array(vec![15], 5, 1)),
        Ok(vec![Value::Decimal(150)])
    );
    assert_eq!(
        read(target, array(vec![1500], 5, 4)),
        Ok(vec![Value::Decimal(15)])
    );
    assert_eq!(
        read(target, array(vec![3], 5, -2)),
        Ok(vec![Value::Decimal(30_000)])
    );
    assert_eq!(
        read(target, Arc::new(Int32Array::from(vec![-7]))),
        Ok(vec![Value::Decimal(-700)])
    );
    assert_eq!(
        message(target, array(vec![15], 5, 3)),
        "row 100, column \"c\": expected decimal(6, 2), got decimal 15 / 10^3"
    );
    assert_eq!(
        message(target, array(vec![10_000], 5, 0)),
        "row 100, column \"c\": expected decimal(6, 2) (at most 6 digits) or null, got decimal with digits 1000000"
    );
    let wide = Decimal256Array::from(vec![arrow_buffer::i256::MAX])
        .with_precision_and_scale(76, 0)
        .unwrap();
    assert!(
        message(target, Arc::new(wide)).contains("expected decimal(6, 2), got decimal 5789604")
    );
}

#[test]
fn times_of_other_units() {
    let naive = DataType::Timestamp { zoned: false };
    let zoned = DataType::Timestamp { zoned: true };
    let ns = |values: Vec<i64>| TimestampNanosecondArray::from(values);
    assert_eq!(
        read(naive, Arc::new(ns(vec![-2_000]))),
        Ok(vec![Value::Timestamp(-2)])
    );
    assert_eq!(
        read(
            zoned,
            Arc::new(TimestampSecondArray::from(vec![3]).with_timezone("Asia/Tokyo"))
        ),
        Ok(vec![Value::Timestamp(3_000_000)])
    );
    assert_eq!(
        message(naive, Arc::new(ns(vec![1]))),
        "row 100, column \"c\": expected timestamp, got 1 ns, which are no whole microseconds in range"
    );
    assert!(
        message(naive, Arc::new(TimestampSecondArray::from(vec![i64::MAX]))).contains("in range")
    );
    assert_eq!(
        message(naive, Arc::new(ns(vec![0]).with_timezone("UTC"))),
        "column \"c\": expected Arrow values for timestamp, got Timestamp(ns, \"UTC\")"
    );
    let day = 86_400_000;
    assert_eq!(
        read(DataType::Date, Arc::new(Date64Array::from(vec![-day]))),
        Ok(vec![Value::Date(-1)])
    );
    assert!(
        message(DataType::Date, Arc::new(Date64Array::from(vec![day + 1])))
            .contains("no whole days")
    );
    assert_eq!(
        read(DataType::Time, Arc::new(Time32SecondArray::from(vec![1]))),
        Ok(vec![Value::Time(1_000_000)])
    );
    assert_eq!(
        message(
            DataType::Time,
            Arc::new(Time64MicrosecondArray::from(vec![day * 1000]))
        ),
        "row 100, column \"c\": expected time (below 24 hours) or null, got time 86400000000 (us)"
    );
}

#[test]
fn texts_bytes_and_uuids_in_every_shape() {
    let text = || {
        Ok(vec![
            Value::Text("a".into()),
            Value::Null,
            Value::Text(String::new()),
        ])
    };
    let values = || vec![Some("a"), None, Some("")];
    assert_eq!(
        read(DataType::Text, Arc::new(StringArray::from(values()))),
        text()
    );
    assert_eq!(
        read(DataType::Text, Arc::new(LargeStringArray::from(values()))),
        text()
    );
    assert_eq!(
        read(DataType::Text, Arc::new(StringViewArray::from(values()))),
        text()
    );
    let dictionary: DictionaryArray<Int8Type> = values().into_iter().collect();
    assert_eq!(read(DataType::Text, Arc::new(dictionary)), text());
    assert_eq!(
        read(DataType::Json, Arc::new(StringArray::from(vec!["{}"]))),
        Ok(vec![Value::Json("{}".into())])
    );
    let bytes = || Ok(vec![Value::Bytes(vec![0, 255])]);
    let raw: Vec<&[u8]> = vec![&[0, 255]];
    assert_eq!(
        read(DataType::Bytes, Arc::new(BinaryArray::from(raw.clone()))),
        bytes()
    );
    assert_eq!(
        read(
            DataType::Bytes,
            Arc::new(LargeBinaryArray::from(raw.clone()))
        ),
        bytes()
    );
    assert_eq!(
        read(
            DataType::Bytes,
            Arc::new(BinaryViewArray::from(raw.clone()))
        ),
        bytes()
    );
    let fixed = FixedSizeBinaryArray::try_from_iter(raw.iter()).unwrap();
    assert_eq!(read(DataType::Bytes, Arc::new(fixed.clone())), bytes());
    assert_eq!(
        message(DataType::Uuid, Arc::new(fixed)),
        "row 100, column \"c\": expected uuid, got 2 bytes"
    );
    let texts = vec![
        "00000000-0000-0000-0000-00000000002a",
        "0000000000000000000000000000002A",
    ];
    let uuid = Value::Uuid(42u128.to_be_bytes());
    assert_eq!(
        read(DataType::Uuid, Arc::new(StringArray::from(texts))),
        Ok(vec![uuid.clone(), uuid])
    );
    assert_eq!(
        message(DataType::Uuid, Arc::new(StringArray::from(vec!["2a"]))),
        "row 100, column \"c\": expected uuid, got text \"2a\""
    );
    let uuids = FixedSizeBinaryArray::try_from_iter([[7u8; 16]].iter()).unwrap();
    assert_eq!(
        read(DataType::Uuid, Arc::new(uuids)),
        Ok(vec![Value::Uuid([7; 16])])
    );
}

#[test]
fn dictionaries_with_null_values_and_slices() {
    let values = Arc::new(Int32Array::from(vec![Some(10), None, Some(30)]));
    let keys = Int32Array::from(vec![Some(2), Some(1), None, Some(0)]);
    let dictionary = DictionaryArray::<Int32Type>::try_new(keys, values).unwrap();
    assert_eq!(
        read(DataType::Int64, Arc::new(dictionary.slice(0, 4))),
        Ok(vec![
            Value::Int(30),
            Value::Null,
            Value::Null,
            Value::Int(10)
        ])
    );
    assert_eq!(
        read(DataType::Int64, Arc::new(dictionary.slice(3, 1))),
        Ok(vec![Value::Int(10)])
    );
    let booleans = BooleanArray::from(vec![true, false, true]).slice(1, 2);
    assert_eq!(
        read(DataType::Bool, Arc::new(booleans)),
        Ok(vec![Value::Bool(false), Value::Bool(true)])
    );
    assert_eq!(
        read(DataType::Bool, Arc::new(NullArray::new(1))),
        Ok(vec![Value::Null])
    );
}

#[test]
fn floats_widen_but_never_narrow() {
    let narrow = Float32Array::from(vec![0.5]);
    assert_eq!(
        read(DataType::Float64, Arc::new(narrow)),
        Ok(vec![Value::Float64(0.5)])
    );
    assert_eq!(
        message(DataType::Float32, Arc::new(Float64Array::from(vec![0.5]))),
        "column \"c\": expected Arrow values for float32, got Float64"
    );
}

#[test]
fn columns_are_matched_by_name() {
    let schema = schema(&[
        ("id", DataType::Int32, false),
        ("note", DataType::Text, true),
        ("n", DataType::Int8, true),
    ]);
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![4, 5]));
    let notes: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
    let batch_of = |columns: Vec<(&str, &ArrayRef)>| {
        batch(
            columns
                .into_iter()
                .map(|(name, array)| (name, array.clone()))
                .collect(),
        )
    };
    let good = batch_of(vec![("note", &notes), ("id", &ids)]);
    let rows: Vec<_> = BatchRows::new(&schema, &good, 0)
        .unwrap()
        .iter()
        .map(Result::unwrap)
        .collect();
    let second = [Value::Int(5), Value::Text("y".into()), Value::Null];
    assert_eq!(rows[1].row, encode_row(&schema, &second));
    assert_eq!(rows[1].key, encode_key(&schema, &second).unwrap());

    let error = |columns| {
        BatchRows::new(&schema, &batch_of(columns), 0)
            .err()
            .unwrap()
            .to_string()
    };
    assert_eq!(
        error(vec![("note", &notes)]),
        "expected column \"id\" (not nullable), got none"
    );
    assert_eq!(
        error(vec![("id", &ids), ("other", &ids)]),
        "expected columns among [\"id\", \"note\", \"n\"], got \"other\""
    );
    assert_eq!(
        error(vec![("id", &ids), ("id", &ids)]),
        "expected column \"id\" once, got it twice"
    );
}

#[test]
fn keys_are_checked() {
    let schema = schema(&[("c", DataType::Text, false)]);
    let long = batch(vec![(
        "c",
        Arc::new(StringArray::from(vec!["a".repeat(2000)])),
    )]);
    let error = BatchRows::new(&schema, &long, 41)
        .unwrap()
        .encode(0)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "row 41: expected a key of at most 1024 bytes when encoded, got 2002"
    );
    let nulls = batch(vec![("c", Arc::new(StringArray::from(vec![None::<&str>])))]);
    let error = BatchRows::new(&schema, &nulls, 41)
        .unwrap()
        .encode(0)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "row 41, column \"c\": expected text, got null");
}
