//! The order of encoded keys is the order of the typed values.

mod typed;

use aurora_page::{
    Column, DataType, KEY_BYTES_MAX, KeyBuf, KeyError, KeyPart, Schema, Value, decode_key,
    encode_key, encode_key_values, encode_part, prefix_end,
};
use proptest::prelude::*;

use typed::{compare, compare_keys, key_values, row, schema, value};

/// A schema and two rows of it, the second sharing a random part of the first.
fn two_rows() -> impl Strategy<Value = (Schema, Vec<Value>, Vec<Value>)> {
    schema(6).prop_flat_map(|schema| {
        let kept = prop::collection::vec(any::<bool>(), schema.columns().len());
        (row(&schema), row(&schema), kept, Just(schema)).prop_map(
            |(left, mut right, kept, schema)| {
                for (index, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
                    right[index] = left[index].clone();
                }
                (schema, left, right)
            },
        )
    })
}

fn fits(key: &Result<KeyBuf, KeyError>) -> bool {
    !matches!(key, Err(KeyError::TooLong { .. }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn order_of_bytes_is_order_of_values((schema, left, right) in two_rows()) {
        let (left_key, right_key) = (encode_key(&schema, &left), encode_key(&schema, &right));
        prop_assume!(fits(&left_key) && fits(&right_key));
        let (left, right) = (key_values(&schema, &left), key_values(&schema, &right));
        prop_assert_eq!(left_key.unwrap().cmp(&right_key.unwrap()), compare_keys(&schema, &left, &right));
    }

    #[test]
    fn keys_decode_to_their_values((schema, row, _) in two_rows()) {
        let key = encode_key(&schema, &row);
        prop_assume!(fits(&key));
        let key = key.unwrap();
        let values = decode_key(&schema, &key).unwrap();
        for (decoded, given) in values.iter().zip(key_values(&schema, &row)) {
            prop_assert!(compare(decoded, &given).is_eq(), "{decoded:?} for {given:?}");
        }
        prop_assert_eq!(encode_key_values(&schema, &values).unwrap(), key);
    }

    #[test]
    fn a_prefix_bounds_the_keys_that_begin_with_it((schema, left, right) in two_rows(), parts in 0usize..4) {
        let (left, right) = (key_values(&schema, &left), key_values(&schema, &right));
        let parts = parts.min(left.len());
        let bound = encode_key_values(&schema, &left[..parts]);
        let key = encode_key_values(&schema, &right);
        prop_assume!(fits(&bound) && fits(&key));
        let (bound, key) = (bound.unwrap(), key.unwrap());
        let order = compare_keys(&schema, &right[..parts], &left[..parts]);
        prop_assert_eq!(key.starts_with(&bound), order.is_eq());
        prop_assert_eq!(key < bound, order.is_lt());
        let after = prefix_end(&bound).is_some_and(|end| key >= end);
        prop_assert_eq!(after, order.is_gt());
    }

    #[test]
    fn damaged_keys_are_errors_or_other_keys(
        (schema, row, _) in two_rows(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let key = encode_key(&schema, &row);
        prop_assume!(fits(&key));
        let mut key = key.unwrap();
        let at = at.index(key.len());
        if cut {
            key.truncate(at);
        } else {
            key[at] = byte;
        }
        if let Ok(values) = decode_key(&schema, &key) {
            prop_assert_eq!(values.len(), schema.key().len());
            prop_assert!(encode_key_values(&schema, &values).is_ok());
        }
    }

    #[test]
    fn one_part_is_never_a_prefix_of_another(
        (column, left, right) in typed::data_type().prop_flat_map(|data_type| {
            let column = Column { id: 1, name: "c".into(), data_type, nullable: true };
            (value(&column), value(&column), Just(column)).prop_map(|(left, right, column)| (column, left, right))
        }),
        descending in any::<bool>(),
    ) {
        let encode = |value: &Value| {
            let mut out = KeyBuf::new();
            encode_part(&mut out, column.data_type, value.as_ref(), true, descending);
            out
        };
        let (left_part, right_part) = (encode(&left), encode(&right));
        prop_assert_eq!(left_part.starts_with(&right_part), compare(&left, &right).is_eq());
    }
}

fn one_column(data_type: DataType, nullable: bool, descending: bool) -> Schema {
    let column = Column {
        id: 1,
        name: "k".into(),
        data_type,
        nullable,
    };
    Schema::new(
        1,
        vec![column],
        vec![KeyPart {
            column: 0,
            descending,
        }],
    )
    .unwrap()
}

fn hex(schema: &Schema, value: Value) -> String {
    let key = encode_key_values(schema, &[value]).unwrap();
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn bytes_stay_what_they_are_on_disk() {
    let ascending = |data_type| one_column(data_type, false, false);
    assert_eq!(hex(&ascending(DataType::Bool), Value::Bool(true)), "01");
    assert_eq!(hex(&ascending(DataType::Int8), Value::Int(-1)), "7f");
    assert_eq!(hex(&ascending(DataType::Int16), Value::Int(1)), "8001");
    assert_eq!(hex(&ascending(DataType::Int32), Value::Int(-2)), "7ffffffe");
    assert_eq!(
        hex(&ascending(DataType::Int64), Value::Int(258)),
        "8000000000000102"
    );
    assert_eq!(
        hex(&ascending(DataType::Float32), Value::Float32(-0.0)),
        "80000000"
    );
    assert_eq!(
        hex(&ascending(DataType::Float64), Value::Float64(-1.0)),
        "400fffffffffffff"
    );
    assert_eq!(
        hex(&ascending(DataType::Float64), Value::Float64(-f64::NAN)),
        "fff8000000000000"
    );
    let decimal = DataType::Decimal {
        precision: 38,
        scale: 2,
    };
    assert_eq!(
        hex(&ascending(decimal), Value::Decimal(5)),
        "80000000000000000000000000000005"
    );
    assert_eq!(hex(&ascending(DataType::Date), Value::Date(0)), "80000000");
    assert_eq!(
        hex(&ascending(DataType::Time), Value::Time(1)),
        "8000000000000001"
    );
    assert_eq!(
        hex(&ascending(DataType::Text), Value::Text("a\0b".into())),
        "6100ff620000"
    );
    assert_eq!(
        hex(&ascending(DataType::Bytes), Value::Bytes(vec![])),
        "0000"
    );
    assert_eq!(
        hex(&one_column(DataType::Int8, true, false), Value::Null),
        "00"
    );
    assert_eq!(
        hex(&one_column(DataType::Int8, true, false), Value::Int(0)),
        "0180"
    );
    assert_eq!(
        hex(&one_column(DataType::Int8, true, true), Value::Null),
        "ff"
    );
    assert_eq!(
        hex(
            &one_column(DataType::Text, false, true),
            Value::Text("a".into())
        ),
        "9effff"
    );
}

#[test]
fn errors_say_expected_and_got() {
    let text = one_column(DataType::Text, false, false);
    let long = Value::Text("x".repeat(KEY_BYTES_MAX - 1));
    assert_eq!(
        encode_key_values(&text, &[long]),
        Err(KeyError::TooLong {
            got: KEY_BYTES_MAX + 1
        })
    );
    let most = Value::Text("x".repeat(KEY_BYTES_MAX - 2));
    assert_eq!(
        encode_key_values(&text, &[most]).unwrap().len(),
        KEY_BYTES_MAX
    );

    let int = one_column(DataType::Int8, false, false);
    let message = |values: &[Value]| encode_key_values(&int, values).unwrap_err().to_string();
    assert_eq!(
        message(&[Value::Int(128)]),
        "key: column \"k\": expected int8 (-128 to 127), got int 128"
    );
    assert_eq!(
        message(&[Value::Null]),
        "key: column \"k\": expected int8 (-128 to 127), got null"
    );
    assert_eq!(
        message(&[Value::Int(1), Value::Int(2)]),
        "expected at most 1 key values, got 2"
    );
    assert_eq!(
        decode_key(&int, &[1, 2]).unwrap_err().to_string(),
        "encoded key, byte 1 (column \"k\"): expected the end, got 1 bytes more"
    );
    assert_eq!(
        decode_key(&text, &[0x61, 0, 7]).unwrap_err().to_string(),
        "encoded key, byte 2 (column \"k\"): expected 00 or FF after 00, got 07"
    );
}

#[test]
fn the_end_of_a_prefix() {
    assert_eq!(prefix_end(&[1, 2]).as_deref(), Some(&[1, 3][..]));
    assert_eq!(prefix_end(&[1, 0xFF, 0xFF]).as_deref(), Some(&[2][..]));
    assert_eq!(prefix_end(&[0xFF]), None);
    assert_eq!(prefix_end(&[]), None);
}
