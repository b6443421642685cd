//! Many rows by one call: what single inserts and upserts would give, or nothing; under locks, with indexes and constraints.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_engine::{
    CheckSpec, EngineError, IndexSpec, Isolation, Mode, NewRows, OnDelete, RangeSpec,
    ReferenceSpec, Stop, Table, TableSpec, Txn,
};
use aurora_page::{DataType, Geometry, Schema, Value};
use aurora_scan::expr::{Comparison, Expr};
use common::{Db, Random, check, column, key, people};
use proptest::prelude::*;

type Model = BTreeMap<i64, (i64, Option<i64>)>;

/// id, a number that is unique and not negative, and another row's id or null.
fn spec() -> TableSpec {
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "number", DataType::Int64, false),
        column(3, "boss", DataType::Int64, true),
    ];
    TableSpec {
        indexes: vec![IndexSpec::by("by_number", &[(1, false)], true)],
        checks: vec![CheckSpec {
            name: "not_negative".into(),
            condition: Expr::column("number").compare(Comparison::Ge, Expr::int(0)),
        }],
        references: vec![ReferenceSpec {
            name: "boss".into(),
            columns: vec![2],
            parent: "people".into(),
            on_delete: OnDelete::Restrict,
        }],
        ..TableSpec::new(Schema::new(1, columns, key(&[0])).unwrap())
    }
}

struct World {
    db: Db,
    table: Arc<Table>,
}

fn values(id: i64, (number, boss): (i64, Option<i64>)) -> Vec<Value> {
    let boss = boss.map_or(Value::Null, Value::Int);
    vec![Value::Int(id), Value::Int(number), boss]
}

fn person(id: i64, count: i64) -> Vec<Value> {
    vec![Value::Int(id), Value::Null, Value::Int(count)]
}

impl World {
    fn new(spec: &TableSpec) -> World {
        let db = Db::new(Geometry::new(1024, 64));
        let (table, _) = db
            .run(|engine| engine.create_table_with("people", spec, false, db.now()))
            .unwrap();
        World { db, table }
    }

    fn begin(&self, isolation: Isolation) -> Txn {
        self.db.engine.begin_isolated(isolation, true).unwrap()
    }

    fn rows(&self, rows: impl IntoIterator<Item = Vec<Value>>) -> NewRows {
        let mut new = self.db.engine.new_rows(&self.table);
        rows.into_iter().for_each(|row| new.push(row).unwrap());
        new
    }

    fn write(&self, txn: &mut Txn, rows: &mut NewRows, upsert: bool) -> Result<(), EngineError> {
        self.db.engine.begin_statement(txn);
        self.db.run(|engine| match upsert {
            true => engine.upsert_many(txn, rows),
            false => engine.insert_many(txn, rows),
        })
    }

    fn insert(&self, txn: &mut Txn, rows: &[Vec<Value>]) -> Result<(), EngineError> {
        self.write(txn, &mut self.rows(rows.iter().cloned()), false)
    }

    fn commit(&self, txn: &mut Txn) -> Result<(), EngineError> {
        let now = self.db.now();
        self.db
            .run(|engine| engine.commit(txn, now, None))
            .map(drop)
    }

    fn seen(&self, txn: &Txn) -> Vec<Vec<Value>> {
        let spec = RangeSpec::default();
        let mut cursor = self
            .db
            .run(|engine| engine.range(txn, &self.table, spec.clone()))
            .unwrap();
        let mut rows = Vec::new();
        while let Some(block) = self.db.run(|engine| cursor.next_block(engine)).unwrap() {
            rows.extend(
                block
                    .rows()
                    .unwrap()
                    .iter()
                    .map(|row| row.values().unwrap()),
            );
        }
        rows
    }

    fn now(&self) -> Vec<Vec<Value>> {
        self.seen(&self.begin(Isolation::Snapshot))
    }

    fn count(&self, txn: &mut Txn, id: i64) -> Option<i64> {
        let key = self.table.key(&[Value::Int(id)]).unwrap();
        let row = self.db.run(|engine| engine.get(txn, &self.table, &key));
        row.unwrap().map(|row| match row.values().unwrap()[2] {
            Value::Int(count) => count,
            ref other => panic!("a count is an int, not {other:?}"),
        })
    }
}

fn plain() -> World {
    World::new(&TableSpec::new(people()))
}

#[test]
fn a_call_that_waits_for_a_lock_has_changed_nothing_and_goes_on() {
    for (isolation, upsert) in [
        (Isolation::ReadCommitted, false),
        (Isolation::ReadCommitted, true),
        (Isolation::Snapshot, false),
        (Isolation::Snapshot, true),
    ] {
        let world = plain();
        let mut first = world.begin(Isolation::Snapshot);
        world.insert(&mut first, &[person(3, 30)]).unwrap();
        let mut second = world.begin(isolation);
        let mut rows = world.rows((1..6).map(|id| person(id, 1)));
        let engine = &world.db.engine;
        engine.begin_statement(&mut second);
        let mut attempt = |rows: &mut NewRows| match upsert {
            true => engine.upsert_many(&mut second, rows),
            false => engine.insert_many(&mut second, rows),
        };
        let Err(Stop::WaitLock(wait)) = attempt(&mut rows) else {
            panic!("the key is locked");
        };
        assert!(engine.is_lock_awaited(&wait));
        assert_eq!(rows.len(), 5);
        world.commit(&mut first).unwrap();
        assert!(!engine.is_lock_awaited(&wait));
        // It has read nothing before it waited, so it sees what it waited for.
        let done = attempt(&mut rows);
        if upsert {
            done.unwrap();
            assert!(rows.is_empty());
            world.commit(&mut second).unwrap();
            assert_eq!(world.now().len(), 5);
            assert_eq!(world.now()[2], person(3, 1));
        } else {
            assert!(matches!(
                done,
                Err(Stop::Failed(EngineError::DuplicateKey { .. }))
            ));
            assert_eq!(second.changes(), 0);
            assert_eq!(world.now(), [person(3, 30)]);
        }
    }
}

#[test]
fn whoever_changes_a_row_first_wins() {
    let world = plain();
    let mut setup = world.begin(Isolation::Snapshot);
    let all: Vec<_> = (0..100).map(|id| person(id, 0)).collect();
    world.insert(&mut setup, &all).unwrap();
    world.commit(&mut setup).unwrap();
    for (isolation, count) in [(Isolation::Snapshot, 10), (Isolation::Serializable, 20)] {
        for upsert in [false, true] {
            // Not what is there: that would change nothing.
            let count = count + i64::from(upsert);
            let mut late = world.begin(isolation);
            assert!(world.count(&mut late, 0).is_some());
            let mut first = world.begin(Isolation::Snapshot);
            let mut rows = world.rows([person(50, count), person(200, count)]);
            world.write(&mut first, &mut rows, true).unwrap();
            world.commit(&mut first).unwrap();
            // Of the same leaf, and not changed by anybody since.
            let mut others = world.rows([person(49, 8), person(51, 8)]);
            world.write(&mut late, &mut others, true).unwrap();
            let before = late.changes();
            let mut rows = world.rows([person(1, 9), person(200, 9)]);
            let result = world.write(&mut late, &mut rows, upsert);
            let conflict = result.expect_err(&format!("{isolation:?} {upsert} {}", rows.len()));
            match upsert {
                true => assert!(matches!(conflict, EngineError::WriteConflict { .. })),
                // The first of the rows is there for long.
                false => assert!(matches!(
                    conflict,
                    EngineError::WriteConflict { .. } | EngineError::DuplicateKey { .. }
                )),
            }
            assert_eq!(late.changes(), before);
            world.commit(&mut late).unwrap();
        }
    }
    let mut late = world.begin(Isolation::ReadCommitted);
    assert_eq!(world.count(&mut late, 50), Some(21));
    let mut first = world.begin(Isolation::Snapshot);
    let mut rows = world.rows([person(50, 70)]);
    world.write(&mut first, &mut rows, true).unwrap();
    world.commit(&mut first).unwrap();
    let mut rows = world.rows([person(50, 71)]);
    world.write(&mut late, &mut rows, true).unwrap();
    world.commit(&mut late).unwrap();
    assert_eq!(world.now()[50], person(50, 71));
    check::everything(&world.db);
}

#[test]
fn a_savepoint_takes_back_what_a_call_has_written() {
    for world in [plain(), World::new(&spec())] {
        let row = |id: i64| match world.table.indexes.is_empty() {
            true => person(id, 0),
            false => values(id, (id, None)),
        };
        let mut txn = world.begin(Isolation::Snapshot);
        world.insert(&mut txn, &[row(1), row(2)]).unwrap();
        let (changes, bytes) = (txn.changes(), txn.bytes());
        let savepoint = txn.savepoint(None).unwrap();
        world.insert(&mut txn, &[row(3), row(4)]).unwrap();
        assert!(world.insert(&mut txn, &[row(5), row(4)]).is_err());
        let mut again = world.rows([row(1), row(6)]);
        world.write(&mut txn, &mut again, true).unwrap();
        assert_eq!(world.seen(&txn).len(), 5);
        txn.rollback_to(savepoint).unwrap();
        assert_eq!((txn.changes(), txn.bytes()), (changes, bytes));
        world.insert(&mut txn, &[row(3)]).unwrap();
        world.commit(&mut txn).unwrap();
        assert_eq!(world.now(), [row(1), row(2), row(3)]);
        check::everything(&world.db);
    }
}

#[test]
fn rows_of_one_call_may_refer_to_each_other_in_any_order() {
    let world = World::new(&spec());
    let mut txn = world.begin(Isolation::Snapshot);
    // A ring, and one that refers to itself.
    let ring = [(1, Some(2)), (2, Some(3)), (3, Some(1)), (4, Some(4))];
    let rows: Vec<_> = ring.map(|(id, boss)| values(id, (id, boss))).into();
    world.insert(&mut txn, &rows).unwrap();
    let refused = |txn: &mut Txn, id: i64, row| {
        let before = (txn.changes(), txn.bytes());
        let error = world
            .insert(txn, &[values(30, (30, None)), values(id, row)])
            .unwrap_err();
        assert_eq!((txn.changes(), txn.bytes()), before);
        error
    };
    assert!(matches!(
        refused(&mut txn, 9, (9, Some(8))),
        EngineError::ParentMissing { .. }
    ));
    assert!(matches!(
        refused(&mut txn, 9, (-1, None)),
        EngineError::CheckViolation { .. }
    ));
    assert!(matches!(
        refused(&mut txn, 9, (3, None)),
        EngineError::DuplicateKey { index: Some(_), .. }
    ));
    assert!(matches!(
        refused(&mut txn, 9, (30, None)),
        EngineError::DuplicateKey { index: Some(_), .. }
    ));
    world.commit(&mut txn).unwrap();
    assert_eq!(world.now(), rows);
    // A parent that goes while its first child comes.
    let mut child = world.begin(Isolation::Snapshot);
    world
        .insert(&mut child, &[values(10, (10, Some(4)))])
        .unwrap();
    let mut other = world.begin(Isolation::Snapshot);
    let four = world.table.key(&[Value::Int(4)]).unwrap();
    let unbound = vec![(2, Value::Null)];
    world
        .db
        .run(|engine| engine.update(&mut other, &world.table, &four, unbound.clone()))
        .unwrap();
    world
        .db
        .run(|engine| engine.delete(&mut other, &world.table, &four))
        .unwrap();
    world.commit(&mut other).unwrap();
    assert!(world.commit(&mut child).is_err());
    check::everything(&world.db);
}

#[test]
fn numbers_that_rows_bring_along_are_passed() {
    let spec = TableSpec {
        auto: Some(0),
        ..TableSpec::new(people())
    };
    let world = World::new(&spec);
    let mut txn = world.begin(Isolation::Snapshot);
    let mut rows = world.rows([person(5_000, 0), person(7, 0)]);
    let now = world.db.now();
    world
        .db
        .run(|engine| engine.pass_numbers(&rows, now))
        .unwrap();
    world.write(&mut txn, &mut rows, false).unwrap();
    let mut row = vec![Value::Null, Value::Null, Value::Int(0)];
    let now = world.db.now();
    world
        .db
        .run(|engine| engine.number_row(&world.table, &mut row, now))
        .unwrap();
    assert_eq!(row[0], Value::Int(5_001));
}

/// What the rows make of the model; `None` if they are refused.
fn applied(model: &Model, rows: &[(i64, (i64, Option<i64>))], upsert: bool) -> Option<Model> {
    let mut after = model.clone();
    // Of rows with one key, only the last is ever there.
    let is_last = |at: usize| !upsert || !rows[at + 1..].iter().any(|(id, _)| *id == rows[at].0);
    let last = rows.iter().enumerate().filter(|(at, _)| is_last(*at));
    for (id, row) in last.map(|(_, row)| row) {
        let taken =
            |(other, (number, _)): (&i64, &(i64, Option<i64>))| other != id && *number == row.0;
        // In the order of the rows, each beside those before it.
        if after.iter().any(taken) || after.insert(*id, *row).is_some() && !upsert {
            return None;
        }
    }
    let is_there =
        |(_, boss): &(i64, Option<i64>)| boss.is_none_or(|boss| after.contains_key(&boss));
    after.values().all(is_there).then_some(after)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Batches of rows, some refused, from a cache that forgets: as a model has them, with all indexes.
    #[test]
    fn many_rows_are_what_a_model_says(seed: u64, evict_percent in 0_u64..8) {
        let mut world = World::new(&spec());
        world.db.evict_percent = evict_percent;
        let (world, mut random) = (world, Random(seed));
        let mut committed = Model::new();
        for _ in 0..12 {
            let isolation = [Isolation::ReadCommitted, Isolation::Snapshot][random.below(2) as usize];
            let mut txn = world.begin(isolation);
            let mut model = committed.clone();
            for _ in 0..random.below(4) {
                let upsert = random.below(2) == 0;
                let batch: Vec<_> = (0..random.below(12))
                    .map(|_| {
                        let boss = (random.below(4) == 0).then(|| random.below(40) as i64);
                        (random.below(40) as i64, (random.below(400) as i64, boss))
                    })
                    .collect();
                let mut rows = world.rows(batch.iter().map(|(id, row)| values(*id, *row)));
                let before = (txn.changes(), txn.bytes());
                match (world.write(&mut txn, &mut rows, upsert), applied(&model, &batch, upsert)) {
                    (Ok(()), Some(after)) => model = after,
                    (Err(_), None) => {
                        prop_assert_eq!((txn.changes(), txn.bytes()), before);
                        prop_assert_eq!(rows.len(), batch.len());
                    }
                    (got, expected) => panic!("{got:?}, model {expected:?}, {upsert} {batch:?} over {model:?}"),
                }
                let seen: Vec<_> = model.iter().map(|(id, row)| values(*id, *row)).collect();
                prop_assert_eq!(world.seen(&txn), seen);
            }
            if random.below(4) > 0 {
                world.commit(&mut txn).unwrap();
                committed = model;
            }
        }
        let index = world.table.index("by_number").unwrap().clone();
        let txn = world.db.run(|engine| engine.begin(Mode::ReadOnly { at: None })).unwrap();
        let mut entries = 0;
        let spec = RangeSpec::default();
        let mut cursor = world
            .db
            .run(|engine| engine.index_range(&txn, &world.table, &index, spec.clone()))
            .unwrap();
        while let Some(rows) = world.db.run(|engine| cursor.next_rows(engine, &txn)).unwrap() {
            entries += rows.len();
        }
        prop_assert_eq!(entries, committed.len());
        check::everything(&world.db);
    }
}
