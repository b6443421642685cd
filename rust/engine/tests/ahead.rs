//! Readers that look ahead: which pages they tell the shell of, and that a scan of what is in memory tells of none.

mod common;

use std::ops::Bound;
use std::sync::Arc;

use aurora_engine::{IndexSpec, Mode, Prefetch, RangeSpec, Table, TableSpec};
use aurora_page::{DataType, Geometry, Lsn, PageId, Schema, Value};
use common::{Db, column, key};
use parking_lot::Mutex;

/// Keeps what it is told, and fetches nothing.
#[derive(Default)]
struct Told(Mutex<Vec<(PageId, Lsn)>>);

impl Prefetch for Told {
    fn prefetch(&self, pages: &[PageId], at: Lsn) {
        self.0.lock().extend(pages.iter().map(|page| (*page, at)));
    }
}

impl Told {
    fn take(&self) -> Vec<PageId> {
        let told = std::mem::take(&mut *self.0.lock());
        told.into_iter().map(|(page, _)| page).collect()
    }
}

const ROWS: i64 = 3_000;

/// A table of many leaves, with an index in another order.
fn filled() -> (Db, Arc<Table>) {
    let db = Db::new(Geometry::new(16 << 10, 4096));
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "other", DataType::Int64, false),
        column(3, "text", DataType::Text, false),
    ];
    let spec = TableSpec {
        indexes: vec![IndexSpec::by("by_other", &[(1, false)], false)],
        ..TableSpec::new(Schema::new(1, columns, key(&[0])).unwrap())
    };
    let make = |engine: &aurora_engine::Engine<common::MemVolume>| {
        engine.create_table_with("rows", &spec, false, db.now())
    };
    let table = db.run(make).unwrap().0;
    for chunk in 0..ROWS / 500 {
        let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
        for id in chunk * 500..(chunk + 1) * 500 {
            let row = vec![
                Value::Int(id),
                Value::Int(id * 7919 % ROWS),
                Value::Text("t".repeat(100)),
            ];
            db.run(|engine| engine.insert(&mut txn, &table, row.clone()))
                .unwrap();
        }
        db.run(|engine| engine.commit(&mut txn, db.now(), None))
            .unwrap();
    }
    (db, table)
}

/// Another engine over the same volume: nothing is in memory.
fn cold(db: Db) -> (Db, Arc<Told>) {
    let db = db.crash();
    let told = Arc::new(Told::default());
    db.engine.set_prefetch(told.clone());
    (db, told)
}

fn read(db: &Db, table: &Arc<Table>, spec: &RangeSpec) -> Vec<i64> {
    let txn = db
        .run(|engine| engine.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    let mut cursor = db
        .run(|engine| engine.range(&txn, table, spec.clone()))
        .unwrap();
    let mut ids = Vec::new();
    while let Some(block) = db.run(|engine| cursor.next_block(engine)).unwrap() {
        for row in block.rows().unwrap() {
            let Value::Int(id) = row.values().unwrap()[0] else {
                panic!("no id")
            };
            ids.push(id);
        }
    }
    ids
}

#[test]
fn a_cold_range_tells_of_the_leaves_that_come_and_a_warm_one_of_none() {
    for reverse in [false, true] {
        let (db, table) = filled();
        let (db, told) = cold(db);
        let spec = RangeSpec {
            reverse,
            ..RangeSpec::default()
        };
        let mut expected: Vec<i64> = (0..ROWS).collect();
        if reverse {
            expected.reverse();
        }
        assert_eq!(read(&db, &table, &spec), expected);
        let mut pages = told.take();
        pages.sort_unstable();
        pages.dedup();
        // Each leaf but the first, which the cursor came upon by itself.
        assert!(pages.len() > 20, "{} pages were told of", pages.len());
        assert_eq!(read(&db, &table, &spec), expected);
        assert_eq!(told.take(), []);
    }
}

#[test]
fn what_lies_beyond_the_end_or_the_limit_is_not_told_of() {
    let (db, table) = filled();
    let (db, told) = cold(db);
    let few = RangeSpec {
        limit: Some(20),
        ..RangeSpec::default()
    };
    assert_eq!(read(&db, &table, &few), (0..20).collect::<Vec<_>>());
    assert_eq!(told.take(), []);
    let (db, told) = cold(db);
    let bound = |id| table.key(&[Value::Int(id)]).unwrap();
    let short = RangeSpec {
        low: Bound::Included(bound(100)),
        high: Bound::Excluded(bound(300)),
        ..RangeSpec::default()
    };
    assert_eq!(read(&db, &table, &short), (100..300).collect::<Vec<_>>());
    assert!(told.take().len() < 8, "leaves beyond the end were told of");
}

#[test]
fn rows_of_an_index_are_told_of_a_round_at_a_time() {
    let (db, table) = filled();
    let (db, told) = cold(db);
    let table = db.run(|engine| engine.head_table(&table)).unwrap();
    let txn = db
        .run(|engine| engine.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    let index = db
        .run(|engine| engine.index_at(&txn, &table, "by_other"))
        .unwrap();
    let spec = RangeSpec {
        reverse: true,
        ..RangeSpec::default()
    };
    let mut cursor = db
        .run(|engine| engine.index_range(&txn, &table, &index, spec.clone()))
        .unwrap();
    let block = db
        .run(|engine| cursor.next_block(engine, &txn))
        .unwrap()
        .unwrap();
    assert!(block.is_reverse());
    // The rows of the first round lie all over the table.
    let mut pages = told.take();
    pages.sort_unstable();
    pages.dedup();
    assert!(pages.len() > 20, "{} pages were told of", pages.len());
    let mut others = Vec::new();
    let mut next = Some(block);
    while let Some(block) = next {
        for row in block.rows().unwrap() {
            let Value::Int(other) = row.values().unwrap()[1] else {
                panic!("no number")
            };
            others.push(other);
        }
        next = db.run(|engine| cursor.next_block(engine, &txn)).unwrap();
    }
    assert_eq!(others, (0..ROWS).rev().collect::<Vec<_>>());
}
