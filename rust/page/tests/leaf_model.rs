//! A leaf against a `Vec` of rows in key order: random inserts, updates, deletes, truncates, until full and over.

mod common;

use aurora_page::*;
use common::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<Value>),
    Update {
        rank: prop::sample::Index,
        columns: Vec<(prop::sample::Index, Vec<Value>)>,
    },
    Delete(prop::sample::Index),
    Truncate(prop::sample::Index),
}

fn step(schema: &Schema) -> impl Strategy<Value = Step> + use<> {
    let row = row_for(schema);
    let columns = prop::collection::vec((any::<prop::sample::Index>(), row.clone()), 0..4);
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => row.prop_map(Step::Insert),
        6 => (index(), columns).prop_map(|(rank, columns)| Step::Update { rank, columns }),
        4 => index().prop_map(Step::Delete),
        1 => index().prop_map(Step::Truncate),
    ]
}

type Model = Vec<(KeyBuf, Vec<Value>)>;

fn heap_bytes(row: &[Value]) -> usize {
    let bytes = |value: &Value| match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Overflow(_) => OverflowRef::BYTES,
        _ => 0,
    };
    row.iter().map(bytes).sum()
}

/// Whether rows fit, told from live content alone.
fn model_fits(model: &[(KeyBuf, Vec<Value>)], leaf: &LeafRef<'_>) -> bool {
    let heap: usize = model.iter().map(|(_, row)| heap_bytes(row)).sum();
    model.len() <= leaf.capacity() && heap <= leaf.heap_capacity()
}

fn run(schema: &Schema, page: &mut Page, model: &mut Model, step: Step) {
    let before = page.clone();
    let mut after = model.clone();
    let result = match step {
        Step::Insert(row) => {
            let key = encode_key(schema, &row).unwrap();
            let found = LeafRef::new(page).unwrap().search(&key);
            assert_eq!(found, model.binary_search_by(|(other, _)| other.cmp(&key)));
            let Err(rank) = found else { return };
            after.insert(rank, (key, row.clone()));
            let bytes = encode_row(schema, &row);
            let fits = LeafRef::new(page).unwrap().fits(&bytes);
            let result = LeafMut::new(page).unwrap().insert(rank, &bytes);
            assert_eq!(fits, result.is_ok());
            result
        }
        Step::Update { rank, columns } => {
            if model.is_empty() {
                return;
            }
            let rank = rank.index(model.len());
            let is_key = |column: usize| {
                schema
                    .key()
                    .iter()
                    .any(|part| usize::from(part.column) == column)
            };
            let mut changes = Vec::new();
            for (column, row) in columns {
                let column = column.index(schema.columns().len());
                let value = if is_key(column) {
                    model[rank].1[column].clone()
                } else {
                    row[column].clone()
                };
                after[rank].1[column] = value.clone();
                changes.push((column as u16, value));
            }
            let bytes = encode_changes(schema, &changes);
            let fits = LeafRef::new(page).unwrap().fits_changes(rank, &bytes);
            let result = LeafMut::new(page).unwrap().update(rank, &bytes);
            assert_eq!(fits, result.is_ok());
            result
        }
        Step::Delete(rank) => {
            if model.is_empty() {
                return;
            }
            let rank = rank.index(model.len());
            after.remove(rank);
            LeafMut::new(page).unwrap().delete(rank)
        }
        Step::Truncate(rank) => {
            let rank = rank.index(model.len() + 1);
            after.truncate(rank);
            LeafMut::new(page).unwrap().truncate(rank)
        }
    };
    let expected = model_fits(&after, &LeafRef::new(page).unwrap());
    assert_eq!(result.is_ok(), expected, "{result:?}");
    match result {
        Ok(()) => *model = after,
        Err(error) => {
            assert!(matches!(error, PageError::Full { .. }), "{error}");
            assert!(
                *page == before,
                "a change that fails leaves the page as it was"
            );
        }
    }
}

fn compare(schema: &Schema, page: &Page, model: &Model) {
    let leaf = LeafRef::new(page).unwrap();
    leaf.verify().unwrap();
    assert_eq!(leaf.len(), model.len());
    for (rank, (key, row)) in model.iter().enumerate() {
        assert_eq!(&leaf.row(rank), row);
        assert_eq!(&leaf.key_at(rank), key);
        assert_eq!(leaf.search(key), Ok(rank));
        for end in 0..key.len() {
            let prefix = &key[..end];
            assert_eq!(leaf.lower_bound(prefix), rank_of_prefix(model, prefix));
        }
        let bytes = encode_row(schema, row);
        assert_eq!(leaf.row_bytes(rank), bytes);
        assert_eq!(&decode_row(schema, &bytes).unwrap(), row);
    }
}

fn rank_of_prefix(model: &Model, prefix: &[u8]) -> usize {
    model.partition_point(|(key, _)| key.as_slice() < prefix)
}

fn check(schema: &Schema, page_bytes: usize, capacity: u16, steps: Vec<Step>) {
    let mut page = leaf(schema, page_bytes, capacity);
    let mut model = Model::new();
    for step in steps {
        run(schema, &mut page, &mut model, step);
    }
    compare(schema, &page, &model);
    let read = Page::from_disk(page.to_disk(), page.id()).unwrap();
    compare(schema, &read, &model);
    // Another page with another heap gets the same rows, and agrees on what fits.
    let rows: Vec<_> = (0..model.len())
        .map(|rank| encode_row(schema, &model[rank].1))
        .collect();
    let mut copy = Page::empty(page.id(), page_bytes);
    format_leaf(
        &mut copy,
        page.object(),
        &LeafRef::new(&page).unwrap().layout(),
    )
    .unwrap();
    LeafMut::new(&mut copy)
        .unwrap()
        .append_rows(rows.iter().map(Vec::as_slice))
        .unwrap();
    compare(schema, &copy, &model);
    assert_eq!(
        LeafRef::new(&copy).unwrap().live_bytes(),
        LeafRef::new(&page).unwrap().live_bytes()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_type(steps in prop::collection::vec(step(&wide_schema()), 1..60)) {
        check(&wide_schema(), 4096, 20, steps);
    }

    #[test]
    fn compound_keys_and_a_heap_that_runs_full(steps in prop::collection::vec(step(&compound_schema()), 1..120)) {
        check(&compound_schema(), 1024, 24, steps);
    }

    #[test]
    fn rows_that_are_not_rows_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), rank in 0usize..3) {
        let schema = wide_schema();
        let mut page = leaf(&schema, 4096, 20);
        let before = page.clone();
        let insert = LeafMut::new(&mut page).unwrap().insert(rank, &bytes);
        prop_assert_eq!(insert.is_err(), page == before);
        if page != before {
            LeafRef::new(&page).unwrap().verify().unwrap();
        }
        let _ = LeafMut::new(&mut page).unwrap().update(0, &bytes);
        LeafRef::new(&page).unwrap().verify().unwrap();
        let _ = format_leaf(&mut page, ObjectId(1), &bytes);
    }

    #[test]
    fn a_leaf_with_wrong_insides_is_read_without_a_panic(at in 64usize..4096, with in any::<[u8; 4]>(), len in 1usize..5) {
        let schema = wide_schema();
        let mut page = leaf(&schema, 4096, 20);
        let rows = [3, 4, 5].map(|id| encode_row(&schema, &sample_row(id)));
        LeafMut::new(&mut page).unwrap().append_rows(rows.iter().map(Vec::as_slice)).unwrap();
        let mut bytes = page.to_disk();
        let end = (at + len).min(bytes.len());
        bytes[at..end].copy_from_slice(&with[..end - at]);
        let crc = crc32c_append(crc32c(&bytes[..60]), &bytes[64..]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        let page = Page::from_disk(bytes, page.id()).unwrap();
        if let Ok(leaf) = LeafRef::new(&page) {
            let _ = leaf.verify();
            let _ = leaf.search(&[1; 8]);
            for rank in 0..leaf.len() {
                drop((leaf.row(rank), leaf.key_at(rank)));
            }
        }
    }
}

fn sample_row(id: i64) -> Vec<Value> {
    vec![
        Value::Int(id),
        Value::Bool(true),
        Value::Int(-5),
        Value::Null,
        Value::Int(1 << 20),
        Value::Float32(1.5),
        Value::Float64(-2.25),
        Value::Decimal(-123_456_789_012_345_678_901_234_567_890),
        Value::Date(-1),
        Value::Null,
        Value::Timestamp(1_700_000_000_000_000),
        Value::Uuid([9; 16]),
        Value::Text("text".into()),
        Value::Null,
        Value::Json("{}".into()),
    ]
}
