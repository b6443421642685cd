//! Loads into tables that have rows: the merged tree takes the place of the old one in one MTR, commits meanwhile are carried
//! over, and nothing leaks.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_engine::{EngineError, Load, Mode, OverflowReader, RangeSpec, Table, Txn};
use aurora_page::{Geometry, Value, unseal};
use common::{Db, Random, check, people};

type Model = BTreeMap<i64, Vec<Value>>;

fn row(id: i64, version: i64) -> Vec<Value> {
    let len = match id % 97 {
        0 => 3000,
        1 => 900,
        _ => id % 37,
    };
    vec![
        Value::Int(id),
        Value::Text(format!("{version}").repeat(len as usize)),
        Value::Int(version),
    ]
}

fn store(db: &Db, load: &mut Load) {
    while let Some(blob) = load.take_blob() {
        let pages: Vec<_> = blob
            .seal()
            .iter()
            .zip(&blob.pages)
            .map(|(sealed, page)| unseal(sealed, page.id(), page.bytes().len()).unwrap())
            .collect();
        db.volume.put_blob(blob.id, pages);
        db.run(|engine| engine.load_stored(load, blob.id, db.now()))
            .unwrap();
    }
}

/// The rows that a transaction sees, with their long values.
fn read(db: &Db, txn: &Txn, table: &Arc<Table>) -> Model {
    let mut cursor = db
        .run(|engine| engine.range(txn, table, RangeSpec::default()))
        .unwrap();
    let mut rows = Model::new();
    while let Some(block) = db.run(|engine| cursor.next_block(engine)).unwrap() {
        for row in block.rows().unwrap() {
            let mut values = row.values().unwrap();
            if let Value::Overflow(reference) = values[1] {
                let mut reader = OverflowReader::new(reference, txn.snapshot());
                let bytes = db
                    .run(|engine| engine.read_overflow_on(&mut reader))
                    .unwrap();
                values[1] = Value::Text(String::from_utf8(bytes).unwrap());
            }
            let Value::Int(id) = values[0] else {
                panic!("a key is an int")
            };
            rows.insert(id, values);
        }
    }
    rows
}

fn now(db: &Db, table: &Arc<Table>) -> Model {
    let txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    read(db, &txn, table)
}

fn write(db: &Db, table: &Arc<Table>, model: &mut Model, ids: &[i64], version: i64) {
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    for id in ids {
        if version < 0 {
            let key = table.key(&[Value::Int(*id)]).unwrap();
            db.run(|engine| engine.delete(&mut txn, table, &key))
                .unwrap();
            model.remove(id);
        } else {
            db.run(|engine| engine.upsert(&mut txn, table, row(*id, version)))
                .unwrap();
            model.insert(*id, row(*id, version));
        }
    }
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
}

/// What the shell does: the rows at the base and those of the load, which win, in key order.
fn merge(db: &Db, table: &Arc<Table>, new: &Model) -> (Load, Txn) {
    let mut load = db
        .run(|engine| engine.begin_load_over(table, db.now()))
        .unwrap();
    let at = load.base();
    assert!(at.is_some());
    let txn = db
        .run(|engine| engine.begin(Mode::ReadOnly { at }))
        .unwrap();
    let mut rows = read(db, &txn, table);
    for (id, row) in new {
        if rows.insert(*id, row.clone()).is_some() {
            load.note_overlap(&table.key(&[Value::Int(*id)]).unwrap());
        }
    }
    for row in rows.values() {
        db.run(|engine| engine.load_push(&mut load, row, db.now()))
            .unwrap();
        store(db, &mut load);
    }
    (load, txn)
}

fn link(db: &Db, load: &mut Load) -> Result<(), EngineError> {
    db.run(|engine| engine.load_finish(load, db.now()))?;
    store(db, load);
    let linked = db.run(|engine| engine.load_link(load, db.now()));
    linked.map(drop)
}

fn sweep(db: &Db) {
    for _ in 0..3 {
        while db.run(|engine| engine.sweep(db.now())).unwrap() {}
    }
}

#[test]
fn the_merged_tree_takes_the_place_of_the_old_one() {
    for (geometry, seed) in [
        (Geometry::new(1024, 64), 1),
        (Geometry::new(1024, 8), 2),
        (Geometry::new(16 * 1024, 256), 3),
    ] {
        for (before, new) in [(0, 500), (3, 2), (1500, 1), (1500, 1500), (400, 0)] {
            let mut db = Db::new(geometry);
            db.evict_percent = 5;
            let mut random = Random(seed);
            let table = db
                .run(|engine| engine.create_table("t", people(), false, db.now()))
                .unwrap()
                .0;
            let mut model = Model::new();
            let ids: Vec<i64> = (0..before).map(|_| random.below(3000) as i64).collect();
            for some in ids.chunks(100) {
                write(&db, &table, &mut model, some, 1);
            }
            let old = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
            let old_rows = read(&db, &old, &table);
            assert_eq!(old_rows, model);
            let added: Model = (0..new)
                .map(|_| random.below(3000) as i64)
                .map(|id| (id, row(id, 2)))
                .collect();
            let (mut load, base) = merge(&db, &table, &added);
            // Keys that the load has nothing to say of: new ones, changed ones, gone ones.
            let free: Vec<i64> = (0..4000).filter(|id| !added.contains_key(id)).collect();
            let mut some = |count: usize| -> Vec<i64> {
                (0..count)
                    .map(|_| free[random.below(free.len() as u64) as usize])
                    .collect()
            };
            write(&db, &table, &mut model, &some(40), 3);
            write(&db, &table, &mut model, &some(40), -1);
            write(&db, &table, &mut model, &[97 * 50, 97 * 51], 4);
            link(&db, &mut load).unwrap();
            model.extend(added);
            assert_eq!(now(&db, &table), model);
            // Who reads as of before sees what was there before.
            assert_eq!(read(&db, &old, &table), old_rows);
            drop((old, base));
            sweep(&db);
            assert_eq!(check::row_count(&db, &table), model.len());
            check::everything(&db);
            // Pages like any other: changed, loaded over once more, dropped.
            let ids: Vec<i64> = model.keys().copied().step_by(3).collect();
            write(&db, &table, &mut model, &ids, -1);
            let (mut load, base) = merge(&db, &table, &Model::from([(5, row(5, 9))]));
            link(&db, &mut load).unwrap();
            drop(base);
            model.insert(5, row(5, 9));
            assert_eq!(now(&db, &table), model);
            let db = db.crash();
            sweep(&db);
            assert_eq!(now(&db, &table), model);
            check::everything(&db);
            db.run(|engine| engine.drop_table("t", db.now())).unwrap();
            sweep(&db);
            check::everything(&db);
        }
    }
}

#[test]
fn what_both_have_changed_is_a_conflict() {
    let changes: [(&[i64], i64); 4] = [(&[10], 3), (&[10], -1), (&[777], 3), (&[20, 10, 30], 3)];
    for (ids, version) in changes {
        let db = Db::new(Geometry::new(1024, 64));
        let table = db
            .run(|engine| engine.create_table("t", people(), false, db.now()))
            .unwrap()
            .0;
        let mut model = Model::new();
        write(&db, &table, &mut model, &(0..300).collect::<Vec<_>>(), 1);
        // 10 is there and in the load, 777 only in the load, 20 and 30 only there.
        let added = Model::from([(10, row(10, 2)), (777, row(777, 2))]);
        let (mut load, base) = merge(&db, &table, &added);
        write(&db, &table, &mut model, ids, version);
        let error = link(&db, &mut load).unwrap_err();
        assert_eq!(error, EngineError::LoadConflict { table: "t".into() });
        db.engine.load_abort(&mut load);
        drop(base);
        assert_eq!(now(&db, &table), model);
        sweep(&db);
        check::everything(&db);
        // Merged again it goes.
        let (mut load, _base) = merge(&db, &table, &added);
        link(&db, &mut load).unwrap();
        model.extend(added);
        assert_eq!(now(&db, &table), model);
    }
}

#[test]
fn a_transaction_from_before_the_load_does_not_overwrite_it_and_two_loads_do_not_either() {
    let db = Db::new(Geometry::new(1024, 64));
    let table = db
        .run(|engine| engine.create_table("t", people(), false, db.now()))
        .unwrap()
        .0;
    let mut model = Model::new();
    write(&db, &table, &mut model, &(0..300).collect::<Vec<_>>(), 1);
    let mut blind = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    db.run(|engine| engine.upsert(&mut blind, &table, row(50, 3)))
        .unwrap();
    let (mut first, _a) = merge(&db, &table, &Model::from([(1000, row(1000, 2))]));
    let (mut second, _b) = merge(&db, &table, &Model::from([(2000, row(2000, 2))]));
    link(&db, &mut first).unwrap();
    let error = db
        .run(|engine| engine.commit(&mut blind, db.now(), None))
        .unwrap_err();
    assert!(
        matches!(error, EngineError::WriteConflict { .. }),
        "{error}"
    );
    let error = link(&db, &mut second).unwrap_err();
    assert_eq!(error, EngineError::LoadConflict { table: "t".into() });
    db.engine.load_abort(&mut second);
    model.insert(1000, row(1000, 2));
    assert_eq!(now(&db, &table), model);
    // A crash in the middle of a load leaves nothing of it.
    let (third, base) = merge(&db, &table, &Model::from([(3000, row(3000, 2))]));
    drop((third, base));
    let db = db.crash();
    sweep(&db);
    assert_eq!(now(&db, &table), model);
    check::everything(&db);
}

#[test]
fn more_changes_than_are_carried_over_are_a_conflict() {
    let db = Db::new(Geometry::new(16 * 1024, 256));
    let table = db
        .run(|engine| engine.create_table("t", people(), false, db.now()))
        .unwrap()
        .0;
    let mut model = Model::new();
    write(&db, &table, &mut model, &[1, 2, 3], 1);
    let (mut load, _base) = merge(&db, &table, &Model::from([(20_000, row(20_000, 2))]));
    write(&db, &table, &mut model, &(0..10_001).collect::<Vec<_>>(), 1);
    let error = link(&db, &mut load).unwrap_err();
    assert_eq!(error, EngineError::LoadConflict { table: "t".into() });
}
