//! A leaf of an earlier schema is read through a map, and upgraded by a record: both must give the same rows, on every
//! copy, however often the definition has changed in between.

mod typed;

use aurora_page::{
    ColumnMap, DataType, EvolveError, LeafMut, LeafRef, Lsn, ObjectId, Page, PageError, PageId,
    Schema, Value, VolumeId, canonical, encode_key, encode_row, format_leaf, leaf_capacity,
    leaf_layout, leaf_upgrade, seal, unseal, upgrade_leaf, widens,
};
use proptest::prelude::*;

use typed::{data_type, row, same, schema, value_of};

const PAGE_BYTES: usize = 64 * 1024;
const ID: PageId = PageId(77);

fn leaf(schema: &Schema, rows: &[Vec<Value>]) -> Page {
    let mut page = Page::empty(ID, PAGE_BYTES);
    let capacity = leaf_capacity(schema, PAGE_BYTES, 40).unwrap().min(300);
    format_leaf(&mut page, ObjectId(5), &leaf_layout(schema, capacity)).unwrap();
    for row in rows {
        let Ok(key) = encode_key(schema, row) else {
            continue;
        };
        let mut leaf = LeafMut::new(&mut page).unwrap();
        if let Err(rank) = leaf.view().search(&key) {
            leaf.insert(rank, &encode_row(schema, row)).unwrap();
        }
    }
    page.stamp(VolumeId(3), Lsn(100));
    page.stamp(VolumeId(3), Lsn(140));
    page
}

/// A change of a definition; which column it means is found when the schema is known.
#[derive(Clone, Debug)]
enum Change {
    Add(DataType, bool, Value),
    Drop(prop::sample::Index),
    Rename(prop::sample::Index),
    Widen(prop::sample::Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let add = data_type().prop_flat_map(|kind| {
        (value_of(kind), any::<bool>(), any::<bool>()).prop_map(move |(value, nullable, null)| {
            let value = if nullable && null { Value::Null } else { value };
            Change::Add(kind, nullable, value)
        })
    });
    let change = prop_oneof![
        2 => add,
        1 => any::<prop::sample::Index>().prop_map(Change::Drop),
        1 => any::<prop::sample::Index>().prop_map(Change::Rename),
        2 => any::<prop::sample::Index>().prop_map(Change::Widen),
    ];
    prop::collection::vec(change, 1..8)
}

fn wider(data_type: DataType) -> DataType {
    match data_type {
        DataType::Int8 => DataType::Int32,
        DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::Float32 => DataType::Float64,
        DataType::Decimal { precision, scale } if precision < 37 => DataType::Decimal {
            precision: precision + 2,
            scale: scale + 1,
        },
        other => other,
    }
}

/// The changed schema and its rows, made one by one as a naive ALTER would.
fn change(
    schema: &Schema,
    rows: &[Vec<Value>],
    change: &Change,
    serial: usize,
) -> Result<(Schema, Vec<Vec<Value>>), EvolveError> {
    let at = |index: &prop::sample::Index| index.index(schema.columns().len());
    let name = |index: &prop::sample::Index| schema.columns()[at(index)].name.clone();
    let mut rows = rows.to_vec();
    let changed = match change {
        Change::Add(kind, nullable, value) => {
            rows.iter_mut().for_each(|row| row.push(value.clone()));
            schema.with_column(&format!("n{serial}"), *kind, *nullable, value)?
        }
        Change::Drop(index) => {
            rows.iter_mut().for_each(|row| drop(row.remove(at(index))));
            schema.without_column(&name(index))?
        }
        Change::Rename(index) => schema.with_name(&name(index), &format!("n{serial}"))?,
        Change::Widen(index) => {
            let (from, column) = (schema.columns()[at(index)].data_type, at(index));
            let to = wider(from);
            for row in &mut rows {
                row[column] = match (&row[column], from) {
                    (Value::Float32(value), _) => Value::Float64(f64::from(*value)),
                    (Value::Decimal(value), DataType::Decimal { .. }) if from != to => {
                        Value::Decimal(value * 10)
                    }
                    (value, _) => value.clone(),
                };
            }
            schema.with_type(&name(index), to)?
        }
    };
    Ok((changed, rows))
}

fn mapped(schema: &Schema, page: &Page) -> Vec<Vec<Value>> {
    let leaf = LeafRef::new(page).unwrap();
    let Some(map) = ColumnMap::needed(schema, &leaf).unwrap() else {
        return (0..leaf.len()).map(|rank| leaf.row(rank)).collect();
    };
    let row = |rank| {
        let value = |column| map.value(column, |at| leaf.value_at(rank, at)).to_owned();
        (0..map.len()).map(value).collect()
    };
    (0..leaf.len()).map(row).collect()
}

fn check_rows(got: &[Vec<Value>], expected: &[Vec<Value>]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        let equal =
            got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| same(a, b));
        assert!(equal, "{got:?} is not {expected:?}");
    }
}

/// What a copy has that kept the page sealed for a while.
fn resealed(page: &Page) -> Page {
    unseal(&seal(page), ID, PAGE_BYTES).unwrap()
}

fn upgraded(page: &Page, schema: &Schema) -> Page {
    let len = LeafRef::new(page).unwrap().len();
    let capacity = leaf_capacity(schema, PAGE_BYTES, 100)
        .unwrap()
        .max(len as u16);
    let mut page = page.clone();
    upgrade_leaf(&mut page, &leaf_upgrade(schema, capacity)).unwrap();
    page
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn read_through_a_map_or_upgraded_the_rows_are_the_same(
        (schema, rows) in schema(5).prop_flat_map(|schema| {
            let rows = prop::collection::vec(row(&schema), 0..12);
            (Just(schema), rows)
        }),
        changes in changes(),
        upgrade_at in any::<prop::sample::Index>(),
    ) {
        let first = leaf(&schema, &rows);
        let (mut schema, mut rows) = (schema.clone(), mapped(&schema, &first));
        let (mut page, mut sealed) = (first.clone(), resealed(&first));
        for (serial, wanted) in changes.iter().enumerate() {
            let Ok((changed, expected)) = change(&schema, &rows, wanted, serial) else { continue };
            prop_assert_eq!(changed.version, schema.version + 1);
            prop_assert_eq!(&Schema::decode(&changed.encode()).unwrap(), &changed);
            (schema, rows) = (changed, expected);
            check_rows(&mapped(&schema, &first), &rows);
            check_rows(&mapped(&schema, &page), &rows);
            if serial >= upgrade_at.index(changes.len()) {
                (page, sealed) = (upgraded(&page, &schema), resealed(&upgraded(&sealed, &schema)));
            }
        }
        let (last, also) = (upgraded(&page, &schema), upgraded(&sealed, &schema));
        check_rows(&mapped(&schema, &last), &rows);
        // A copy that had the page in sealed form has the same content.
        prop_assert_eq!(canonical(&last), canonical(&also));
        let leaf = LeafRef::new(&last).unwrap();
        leaf.verify().unwrap();
        prop_assert_eq!(leaf.schema_version(), schema.version);
        prop_assert_eq!((last.lsn(), last.prev_lsn(), last.origin()), (Lsn(140), Lsn(100), VolumeId(3)));
        prop_assert_eq!((last.id(), last.object()), (ID, ObjectId(5)));
        for rank in 0..leaf.len() {
            prop_assert_eq!(leaf.search(&leaf.key_at(rank)), Ok(rank));
        }
    }

    #[test]
    fn bytes_that_are_no_upgrade_leave_the_page_as_it_was(
        (schema, rows) in schema(4).prop_flat_map(|schema| {
            let rows = prop::collection::vec(row(&schema), 1..6);
            (Just(schema), rows)
        }),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
        cut in any::<prop::sample::Index>(),
    ) {
        let page = leaf(&schema, &rows);
        let content = leaf_upgrade(&schema.next_version(), 300);
        for damaged in [
            { let mut bytes = content.clone(); bytes[at.index(content.len())] ^= flip; bytes },
            content[..cut.index(content.len())].to_vec(),
        ] {
            let mut copy = page.clone();
            match upgrade_leaf(&mut copy, &damaged) {
                Err(_) => prop_assert!(copy == page),
                Ok(()) => LeafRef::new(&copy).unwrap().verify().unwrap(),
            }
        }
    }
}

#[test]
fn what_cannot_be() {
    let schema = Schema::new(
        1,
        vec![
            typed_column(0, "id", DataType::Int32),
            typed_column(1, "n", DataType::Int64),
        ],
        vec![aurora_page::KeyPart {
            column: 0,
            descending: false,
        }],
    )
    .unwrap();
    let in_key = |result: Result<Schema, EvolveError>| {
        assert!(
            matches!(result, Err(EvolveError::InKey { .. })),
            "{result:?}"
        );
    };
    in_key(schema.without_column("id"));
    in_key(schema.with_type("id", DataType::Int64));
    assert!(matches!(
        schema.with_type("n", DataType::Int32),
        Err(EvolveError::NotWider { .. })
    ));
    assert!(matches!(
        schema.without_column("none"),
        Err(EvolveError::UnknownColumn { .. })
    ));
    assert!(matches!(
        schema.with_column("m", DataType::Text, false, &Value::Null),
        Err(EvolveError::NoInitial { .. })
    ));
    assert!(matches!(
        schema.with_column("m", DataType::Int8, false, &Value::Int(300)),
        Err(EvolveError::Initial(_))
    ));
    // An id is never given again, so that a column of before is not taken for one of now.
    let again = schema.without_column("n").unwrap();
    let again = again
        .with_column("n", DataType::Int64, true, &Value::Null)
        .unwrap();
    assert_eq!(again.columns()[1].id, 2);
    let page = leaf(&schema, &[vec![Value::Int(1), Value::Int(9)]]);
    check_rows(&mapped(&again, &page), &[vec![Value::Int(1), Value::Null]]);
    // A leaf of a later version cannot be read by an earlier definition once a column that it needs is gone.
    let later = upgraded(&page, &again);
    assert!(ColumnMap::needed(&schema, &LeafRef::new(&later).unwrap()).is_err());
    // Too small a capacity is an error, and nothing has happened.
    let rows: Vec<Vec<Value>> = (0..5).map(|n| vec![Value::Int(n), Value::Int(n)]).collect();
    let (page, mut copy) = (leaf(&schema, &rows), leaf(&schema, &rows));
    let error = upgrade_leaf(&mut copy, &leaf_upgrade(&again, 4)).unwrap_err();
    assert!(matches!(error, PageError::Full { .. }), "{error}");
    assert!(copy == page);
}

fn typed_column(id: u16, name: &str, data_type: DataType) -> aurora_page::Column {
    aurora_page::Column {
        id,
        name: name.to_owned(),
        data_type,
        nullable: false,
    }
}

#[test]
fn widening_keeps_every_value() {
    use DataType::*;
    let decimal = |precision, scale| Decimal { precision, scale };
    for (from, to, wider) in [
        (Int8, Int64, true),
        (Int64, Int32, false),
        (Int8, Int8, false),
        (Float32, Float64, true),
        (Float64, Float32, false),
        (decimal(10, 2), decimal(12, 2), true),
        (decimal(10, 2), decimal(12, 4), true),
        (decimal(10, 2), decimal(11, 4), false),
        (decimal(10, 2), decimal(10, 1), false),
        (decimal(10, 2), decimal(10, 2), false),
        (decimal(38, 0), decimal(38, 1), false),
        (Timestamp { zoned: false }, Timestamp { zoned: true }, false),
        (Text, Json, false),
        (Int32, Float64, false),
    ] {
        assert_eq!(widens(from, to), wider, "{from} to {to}");
    }
}
