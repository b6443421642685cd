//! Rows through record batches and back: out of leaves, sealed leaves and rows, whatever the schema.

#[path = "../../page/tests/typed/mod.rs"]
mod typed;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use aurora_page::{
    Column, Compression, DataType, KeyPart, LeafMut, LeafRef, ObjectId, OverflowRef, Page, PageId,
    Schema, SealedRef, Value, ValueRef, encode_key, encode_row, format_leaf, leaf_capacity,
    leaf_layout, seal_with,
};
use aurora_scan::{AppendError, BatchBuilder, BatchRows, ToArrowError, to_arrow_schema};
use proptest::prelude::*;

const PAGE_BYTES: usize = 32 * 1024;
const ID: PageId = PageId(9);

fn leaf_of(schema: &Schema, rows: &[Vec<Value>]) -> Page {
    let mut page = Page::empty(ID, PAGE_BYTES);
    let capacity = leaf_capacity(schema, PAGE_BYTES, 40).unwrap().min(400);
    format_leaf(&mut page, ObjectId(1), &leaf_layout(schema, capacity)).unwrap();
    for row in rows {
        let Ok(key) = encode_key(schema, row) else {
            continue;
        };
        let bytes = encode_row(schema, row);
        let mut leaf = LeafMut::new(&mut page).unwrap();
        if let Err(rank) = leaf.view().search(&key)
            && leaf.view().fits(&bytes)
        {
            leaf.insert(rank, &bytes).unwrap();
        }
    }
    page
}

fn schema_and_rows() -> impl Strategy<Value = (Schema, Vec<Vec<Value>>)> {
    typed::schema(7).prop_flat_map(|schema| {
        let rows = prop::collection::vec(typed::row(&schema), 0..80);
        (Just(schema), rows)
    })
}

fn no_overflow(reference: OverflowRef) -> Result<Vec<u8>, String> {
    Err(format!("{reference:?} was asked for"))
}

/// All batches of a builder that is fed by `append`, which gets the rank to go on from.
fn batches(
    builder: &mut BatchBuilder,
    rows: usize,
    mut append: impl FnMut(&mut BatchBuilder, usize) -> usize,
) -> Vec<RecordBatch> {
    let (mut batches, mut rank) = (Vec::new(), 0);
    while rank < rows {
        rank += append(builder, rank);
        if builder.is_full() {
            batches.push(builder.finish().unwrap());
        }
    }
    batches.push(builder.finish().unwrap());
    batches
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rows_come_back((schema, rows) in schema_and_rows(), rows_max in 1..50usize) {
        let page = leaf_of(&schema, &rows);
        let leaf = LeafRef::new(&page).unwrap();
        let mut builder = BatchBuilder::new(&schema, None, rows_max).unwrap();
        let out = batches(&mut builder, leaf.len(), |builder, rank| {
            builder.append_leaf(&leaf, rank..leaf.len(), &mut no_overflow).unwrap()
        });
        prop_assert!(out.iter().all(|batch| batch.num_rows() <= rows_max));
        let mut rank = 0;
        for batch in &out {
            prop_assert_eq!(batch.schema_ref().as_ref(), &to_arrow_schema(&schema));
            let back = BatchRows::new(&schema, batch, rank as u64).unwrap();
            for (index, row) in back.iter().enumerate() {
                let row = row.unwrap();
                prop_assert_eq!(&row.key, &leaf.key_at(rank));
                prop_assert_eq!(row.row, leaf.row_bytes(rank));
                prop_assert_eq!(back.values(index).unwrap().len(), schema.columns().len());
                rank += 1;
            }
        }
        prop_assert_eq!(rank, leaf.len());

        // The same batches from the sealed leaf, and row by row.
        let sealed = seal_with(&page, Compression::Never);
        let sealed = SealedRef::new(&sealed, ID).unwrap();
        let packed = batches(&mut builder, leaf.len(), |builder, rank| {
            builder.append_sealed(&sealed, rank..leaf.len(), &mut no_overflow).unwrap()
        });
        let single = batches(&mut builder, leaf.len(), |builder, rank| {
            let row: Vec<ValueRef<'_>> = leaf.row_values(rank).collect();
            usize::from(builder.append_row(&row, &mut no_overflow).unwrap())
        });
        // Arrow compares floats as numbers, so NaN would not be itself.
        let encoded = |batches: &[RecordBatch]| -> Vec<_> {
            let rows = |batch| BatchRows::new(&schema, batch, 0).unwrap().iter().collect::<Result<Vec<_>, _>>();
            batches.iter().flat_map(|batch| rows(batch).unwrap()).collect()
        };
        prop_assert_eq!(encoded(&packed), encoded(&out));
        prop_assert_eq!(encoded(&single), encoded(&out));
    }

    #[test]
    fn projections_keep_the_order_asked_for((schema, rows) in schema_and_rows(), reversed: bool) {
        let page = leaf_of(&schema, &rows);
        let leaf = LeafRef::new(&page).unwrap();
        let mut wanted: Vec<u16> = (0..schema.columns().len() as u16).step_by(2).collect();
        if reversed {
            wanted.reverse();
        }
        let mut slots: Vec<u16> = leaf.slots().collect();
        slots.reverse();
        let mut builder = BatchBuilder::new(&schema, Some(&wanted), 1000).unwrap();
        let taken = builder.append_slots(&leaf, &slots, &mut no_overflow).unwrap();
        let batch = builder.finish().unwrap();
        prop_assert_eq!((taken, batch.num_rows()), (leaf.len(), leaf.len()));
        let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        let expected: Vec<&str> =
            wanted.iter().map(|index| schema.columns()[usize::from(*index)].name.as_str()).collect();
        prop_assert_eq!(names, expected);
        for (position, index) in wanted.iter().enumerate() {
            for rank in 0..leaf.len() {
                let is_null = leaf.value_at(leaf.len() - 1 - rank, (*index).into()).is_null();
                prop_assert_eq!(batch.column(position).is_null(rank), is_null);
            }
        }
    }
}

fn documents() -> (Schema, Page) {
    let column = |id, name: &str, data_type| Column {
        id,
        name: name.into(),
        data_type,
        nullable: id > 0,
    };
    let columns = vec![
        column(0, "id", DataType::Int64),
        column(1, "text", DataType::Text),
    ];
    let schema = Schema::new(
        1,
        columns,
        vec![KeyPart {
            column: 0,
            descending: false,
        }],
    )
    .unwrap();
    let rows: Vec<Vec<Value>> = (0..6u64)
        .map(|id| {
            let large = OverflowRef {
                first: PageId(id),
                len: 1000,
            };
            let text = if id % 2 == 0 {
                Value::Overflow(large)
            } else {
                Value::Text("short".into())
            };
            vec![Value::Int(id as i64), text]
        })
        .collect();
    let page = leaf_of(&schema, &rows);
    (schema, page)
}

#[test]
fn overflow_values_are_fetched_and_end_batches() {
    let (schema, page) = documents();
    let leaf = LeafRef::new(&page).unwrap();
    let mut fetched = Vec::new();
    let mut fetch = |reference: OverflowRef| -> Result<Vec<u8>, String> {
        fetched.push(reference.first.0);
        Ok(vec![b'a' + reference.first.0 as u8; reference.len as usize])
    };
    let mut builder = BatchBuilder::new(&schema, None, 100)
        .unwrap()
        .with_var_bytes_max(1500);
    let (mut sizes, mut rank, mut texts) = (Vec::new(), 0, Vec::new());
    while rank < leaf.len() {
        rank += builder
            .append_leaf(&leaf, rank..leaf.len(), &mut fetch)
            .unwrap();
        let batch = builder.finish().unwrap();
        sizes.push(batch.num_rows());
        texts.extend(
            batch
                .column(1)
                .as_string::<i32>()
                .iter()
                .map(|text| text.unwrap().len()),
        );
    }
    assert_eq!(sizes, [2, 2, 2]);
    assert_eq!(texts, [1000, 5, 1000, 5, 1000, 5]);
    assert_eq!(fetched, [0, 2, 4]);
}

#[test]
fn a_failed_fetch_leaves_the_batch_as_it_was() {
    let (schema, page) = documents();
    let leaf = LeafRef::new(&page).unwrap();
    let mut builder = BatchBuilder::new(&schema, None, 100).unwrap();
    let mut fetch = |reference: OverflowRef| match reference.first {
        PageId(0) => Ok(vec![b'x'; 1000]),
        other => Err(format!("page {other} cannot be read")),
    };
    assert_eq!(builder.append_leaf(&leaf, 0..2, &mut fetch).unwrap(), 2);
    let error = builder.append_leaf(&leaf, 1..6, &mut fetch).unwrap_err();
    assert_eq!(error.to_string(), "page 2 cannot be read");
    assert_eq!(builder.len(), 2);
    let batch = builder.finish().unwrap();
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(batch.column(1).as_string::<i32>().value(0).len(), 1000);
}

#[test]
fn foreign_rows_are_refused() {
    let (schema, page) = documents();
    let other = Schema::new(
        2,
        vec![Column {
            data_type: DataType::Int32,
            ..schema.columns()[0].clone()
        }],
        schema.key().to_vec(),
    );
    let mut builder = BatchBuilder::new(&other.unwrap(), None, 10).unwrap();
    let leaf = LeafRef::new(&page).unwrap();
    let error = builder
        .append_leaf(&leaf, 0..1, &mut no_overflow)
        .unwrap_err();
    assert_eq!(error.to_string(), "column 0: expected int32, got int64");
    let error = builder
        .append_row(&[ValueRef::Bool(true)], &mut no_overflow)
        .unwrap_err();
    assert_eq!(error.to_string(), "column 0: expected int32, got bool");
    let error = builder.append_row(&[], &mut no_overflow).unwrap_err();
    assert!(
        matches!(
            error,
            AppendError::Rows(ToArrowError::Column { column: 0, .. })
        ),
        "{error}"
    );
    let error = BatchBuilder::new(&schema, Some(&[2]), 10).err().unwrap();
    assert_eq!(error.to_string(), "expected column indexes below 2, got 2");
}

#[test]
fn no_columns_still_count_rows() {
    let (schema, page) = documents();
    let leaf = LeafRef::new(&page).unwrap();
    let mut builder = BatchBuilder::new(&schema, Some(&[]), 10).unwrap();
    builder.append_leaf(&leaf, 0..6, &mut no_overflow).unwrap();
    assert_eq!(builder.finish().unwrap().num_rows(), 6);
}

/// Values of every packed width narrower than the type, constants and dictionaries: each is unpacked by its own loop.
#[test]
fn packed_columns_are_unpacked_from_any_rank() {
    let types = [
        DataType::Int64,
        DataType::Int64,
        DataType::Int64,
        DataType::Int64,
        DataType::Int32,
    ];
    let others = [
        DataType::Int16,
        DataType::Decimal {
            precision: 18,
            scale: 2,
        },
        DataType::Float64,
        DataType::Bool,
    ];
    let columns = (0..)
        .zip(types.into_iter().chain(others))
        .map(|(id, data_type)| Column {
            id,
            name: format!("c{id}"),
            data_type,
            nullable: false,
        })
        .collect();
    let schema = Schema::new(
        1,
        columns,
        vec![KeyPart {
            column: 0,
            descending: false,
        }],
    )
    .unwrap();
    let rows: Vec<Vec<Value>> = (0..100i64)
        .map(|n| {
            vec![
                Value::Int(n - 50),
                Value::Int(n * 500 - 7),
                Value::Int(n * 40_000_000),
                Value::Int(-3),
                Value::Int(n * 600),
                Value::Int(-n),
                Value::Decimal(i128::from(n) * 1000 - 50_000),
                Value::Float64((n % 3) as f64 / 7.0),
                Value::Bool(n % 2 == 1),
            ]
        })
        .collect();
    let page = leaf_of(&schema, &rows);
    let sealed = seal_with(&page, Compression::Never);
    let sealed = SealedRef::new(&sealed, ID).unwrap();
    for range in [0..100, 1..100, 37..64, 99..100, 5..5] {
        let mut builder = BatchBuilder::new(&schema, None, 1000).unwrap();
        let taken = builder
            .append_sealed(&sealed, range.clone(), &mut no_overflow)
            .unwrap();
        assert_eq!(taken, range.len());
        let batch = builder.finish().unwrap();
        let back = BatchRows::new(&schema, &batch, 0).unwrap();
        for (index, rank) in range.enumerate() {
            assert_eq!(back.values(index).unwrap(), rows[rank]);
        }
    }
}
