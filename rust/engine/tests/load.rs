//! Bulk load: rows appear all at once, or never; pages come from blobs; nothing is left over.

mod common;

use std::sync::Arc;

use aurora_engine::{EngineError, Load, Mode, RangeSpec, Table};
use aurora_page::{Geometry, Lsn, Value, unseal};
use aurora_proto::Volume;
use common::{Db, check, people};

fn row(id: i64) -> Vec<Value> {
    let len = if id % 97 == 0 { 900 } else { id % 37 };
    vec![
        Value::Int(id),
        Value::Text("x".repeat(len as usize)),
        Value::Int(id * 2),
    ]
}

fn table(db: &Db, name: &str) -> Arc<Table> {
    db.run(|engine| engine.create_table(name, people(), false, db.now()))
        .unwrap()
        .0
}

/// What the shell does with the blobs that are ready.
fn store(db: &Db, load: &mut Load) {
    while let Some(blob) = load.take_blob() {
        let pages: Vec<_> = blob
            .seal()
            .iter()
            .zip(&blob.pages)
            .map(|(sealed, page)| unseal(sealed, page.id(), page.bytes().len()).unwrap())
            .collect();
        let geometry = db.engine.geometry();
        assert!(
            blob.pages
                .iter()
                .all(|page| geometry.segment_of(page.id()) == blob.segment)
        );
        db.volume.put_blob(blob.id, pages);
        db.run(|engine| engine.load_stored(load, blob.id, db.now()))
            .unwrap();
    }
}

fn push(db: &Db, load: &mut Load, ids: std::ops::Range<i64>) {
    for id in ids {
        db.run(|engine| engine.load_push(load, &row(id), db.now()))
            .unwrap();
        store(db, load);
    }
}

fn count(db: &Db, table: &Arc<Table>) -> usize {
    let txn = db
        .run(|engine| engine.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    let mut cursor = db
        .run(|engine| engine.range(&txn, table, RangeSpec::default()))
        .unwrap();
    let mut rows = 0;
    while let Some(block) = db.run(|engine| cursor.next_block(engine)).unwrap() {
        rows += block.len();
    }
    rows
}

#[test]
fn loads_of_any_size_appear_at_once() {
    for geometry in [
        Geometry::new(1024, 64),
        Geometry::new(1024, 8),
        Geometry::new(16 * 1024, 256),
    ] {
        for rows in [0, 1, 5, 300, 5000] {
            let mut db = Db::new(geometry);
            db.evict_percent = 5;
            let table = table(&db, "t");
            db.volume.set_instant(false);
            let mut load = db
                .run(|engine| engine.begin_load(&table, db.now()))
                .unwrap();
            push(&db, &mut load, 0..rows);
            db.run(|engine| engine.load_finish(&mut load, db.now()))
                .unwrap();
            store(&db, &mut load);
            db.volume.advance_all();
            assert_eq!(count(&db, &table), 0, "not linked yet");
            let commit = db
                .run(|engine| engine.load_link(&mut load, db.now()))
                .unwrap();
            db.volume.advance(commit.lsn);
            assert_eq!(count(&db, &table), rows as usize);
            let txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
            for id in [0, 1, 97, rows / 2, rows - 1, rows] {
                let key = table.key(&[Value::Int(id)]).unwrap();
                let found = db.run(|engine| engine.get(&txn, &table, &key)).unwrap();
                assert_eq!(found.is_some(), (0..rows).contains(&id));
                if let Some(found) = found {
                    assert_eq!(found.value(2).unwrap(), row(id)[2].as_ref());
                }
            }
            assert_eq!(check::row_count(&db, &table), rows as usize);
            check::everything(&db);
            // Loaded pages are pages like any other.
            let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
            for id in (0..rows).step_by(3) {
                let key = table.key(&[Value::Int(id)]).unwrap();
                assert!(
                    db.run(|engine| engine.delete(&mut txn, &table, &key))
                        .unwrap()
                );
                db.run(|engine| engine.upsert(&mut txn, &table, row(id + rows)))
                    .unwrap();
            }
            db.run(|engine| engine.commit(&mut txn, db.now(), None))
                .unwrap();
            check::everything(&db);
            db.run(|engine| engine.drop_table("t", db.now())).unwrap();
            while db.run(|engine| engine.sweep(db.now())).unwrap() {}
            check::everything(&db);
        }
    }
}

#[test]
fn a_load_that_never_ended_is_swept_by_the_next_engine() {
    let db = Db::new(Geometry::new(1024, 64));
    let table = table(&db, "t");
    let mut load = db
        .run(|engine| engine.begin_load(&table, db.now()))
        .unwrap();
    push(&db, &mut load, 0..2000);
    // Not while it is under way.
    while db.run(|engine| engine.sweep(db.now())).unwrap() {}
    push(&db, &mut load, 2000..3000);
    drop(load);
    let db = db.crash();
    while db.run(|engine| engine.sweep(db.now())).unwrap() {}
    check::everything(&db);
    assert_eq!(count(&db, &table), 0);
    // The same in one engine, given up.
    let mut load = db
        .run(|engine| engine.begin_load(&table, db.now()))
        .unwrap();
    push(&db, &mut load, 0..500);
    db.engine.load_abort(&mut load);
    while db.run(|engine| engine.sweep(db.now())).unwrap() {}
    check::everything(&db);
}

#[test]
fn loads_meet_writers_and_bad_rows() {
    let db = Db::new(Geometry::new(1024, 64));
    let table = table(&db, "t");
    let mut load = db
        .run(|engine| engine.begin_load(&table, db.now()))
        .unwrap();
    push(&db, &mut load, 0..100);
    let error = db
        .run(|engine| engine.load_push(&mut load, &row(99), db.now()))
        .unwrap_err();
    assert!(
        error.to_string().ends_with("got key (99) after (99)"),
        "{error}"
    );
    let error = db
        .run(|engine| engine.load_link(&mut load, db.now()))
        .unwrap_err();
    assert!(matches!(error, EngineError::LoadStep { .. }), "{error}");
    // A transaction that began before the load was linked does not overwrite what came.
    let mut blind = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    db.run(|engine| engine.upsert(&mut blind, &table, row(50)))
        .unwrap();
    db.run(|engine| engine.load_finish(&mut load, db.now()))
        .unwrap();
    store(&db, &mut load);
    db.run(|engine| engine.load_link(&mut load, db.now()))
        .unwrap();
    let error = db
        .run(|engine| engine.commit(&mut blind, db.now(), None))
        .unwrap_err();
    assert!(
        matches!(error, EngineError::WriteConflict { .. }),
        "{error}"
    );
    let error = db
        .run(|engine| engine.begin_load(&table, db.now()).map(|_| ()))
        .unwrap_err();
    assert_eq!(error, EngineError::TableNotEmpty { table: "t".into() });
    // A row that comes in during the load wins.
    let other = self::table(&db, "u");
    let mut load = db
        .run(|engine| engine.begin_load(&other, db.now()))
        .unwrap();
    push(&db, &mut load, 0..100);
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    db.run(|engine| engine.insert(&mut txn, &other, row(7)))
        .unwrap();
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    db.run(|engine| engine.load_finish(&mut load, db.now()))
        .unwrap();
    store(&db, &mut load);
    let error = db
        .run(|engine| engine.load_link(&mut load, db.now()))
        .unwrap_err();
    assert_eq!(error, EngineError::LoadConflict { table: "u".into() });
    db.engine.load_abort(&mut load);
    while db.run(|engine| engine.sweep(db.now())).unwrap() {}
    // A table that is dropped during its load: no page of it is written any more.
    let third = self::table(&db, "v");
    let mut load = db
        .run(|engine| engine.begin_load(&third, db.now()))
        .unwrap();
    push(&db, &mut load, 0..10);
    db.run(|engine| engine.drop_table("v", db.now())).unwrap();
    db.run(|engine| engine.load_finish(&mut load, db.now()))
        .unwrap();
    let error = db
        .run(|engine| engine.load_link(&mut load, db.now()))
        .unwrap_err();
    assert!(
        matches!(
            error,
            EngineError::UnknownTable { .. } | EngineError::LoadStep { .. }
        ),
        "{error}"
    );
    assert!(db.volume.vdl() > Lsn::NONE);
    check::everything(&db);
}

/// What a load builds goes out as it goes on, however small segments are. Of segments that hold less than a blob nothing went out before
/// the end: the whole load was in memory (found by a test that waited for its first blob).
#[test]
fn a_load_keeps_a_few_blobs_in_memory_at_the_most() {
    for geometry in [
        Geometry::new(1024, 8),
        Geometry::new(1024, 64),
        Geometry::new(1024, 256),
        Geometry::new(1024, 100_000),
    ] {
        let db = Db::new(geometry);
        let table = table(&db, "t");
        let mut load = db
            .run(|engine| engine.begin_load(&table, db.now()))
            .unwrap();
        let (mut built, mut gone) = (0, 0);
        for id in 0..30_000 {
            db.run(|engine| engine.load_push(&mut load, &row(id), db.now()))
                .unwrap();
            while let Some(blob) = load.take_blob() {
                gone += blob.pages.len();
            }
            built = built.max(gone + load.held_pages());
            assert!(
                load.held_pages() <= 8 * 128,
                "{geometry:?}: {} of {built} pages are held",
                load.held_pages()
            );
        }
        assert!(built > 1000, "{geometry:?}: {built}");
        load_abort(&db, &mut load);
    }
}

fn load_abort(db: &Db, load: &mut Load) {
    db.engine.load_abort(load);
}
