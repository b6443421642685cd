//! Many threads on one engine: money moves, and readers never see any of it missing or doubled.

#![allow(clippy::disallowed_methods, reason = "this test is about threads")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aurora_engine::{EngineError, ErrorClass, Mode, RangeSpec, Table};
use aurora_page::{Geometry, Lsn, Value, ValueRef};
use aurora_proto::Volume;
use common::{Db, Random, check, people};

const ACCOUNTS: i64 = 200;
const EACH: i64 = 100;

fn total(db: &Db, table: &Arc<Table>, mode: Mode) -> (Lsn, i64) {
    let txn = db.run(|engine| engine.begin(mode)).unwrap();
    let mut cursor = db
        .run(|engine| engine.range(&txn, table, RangeSpec::default()))
        .unwrap();
    let mut sum = 0;
    while let Some(block) = db.run(|engine| cursor.next_block(engine)).unwrap() {
        for row in block.rows().unwrap() {
            let ValueRef::Int(count) = row.value(2).unwrap() else {
                panic!()
            };
            sum += count;
        }
    }
    (txn.snapshot(), sum)
}

fn transfer(db: &Db, table: &Arc<Table>, random: &mut Random) -> Result<bool, EngineError> {
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite))?;
    let (from, to) = (
        random.below(ACCOUNTS as u64) as i64,
        random.below(ACCOUNTS as u64) as i64,
    );
    if from == to {
        return Ok(false);
    }
    for (id, change) in [(from, -1), (to, 1)] {
        let key = table.key(&[Value::Int(id)])?;
        let row = db.run(|engine| engine.get(&txn, table, &key))?.unwrap();
        let Ok(ValueRef::Int(count)) = row.value(2) else {
            panic!()
        };
        let changes = vec![
            (2, Value::Int(count + change)),
            (1, Value::Text("n".repeat(random.below(60) as usize))),
        ];
        assert!(db.run(|engine| engine.update(&mut txn, table, &key, changes.clone()))?);
    }
    db.run(|engine| engine.commit(&mut txn, db.now(), None))?;
    Ok(true)
}

#[test]
fn transfers_lose_nothing_while_readers_sum() {
    let config = aurora_engine::EngineConfig {
        cache_bytes: 64 * 1024,
        ..common::config()
    };
    let mut db = Db::with(Geometry::new(1024, 64), config);
    db.evict_percent = 2;
    db.lock_looks = u64::MAX;
    let (table, _) = db
        .run(|engine| engine.create_table("t", people(), false, db.now()))
        .unwrap();
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    for id in 0..ACCOUNTS {
        let row = vec![Value::Int(id), Value::Null, Value::Int(EACH)];
        db.run(|engine| engine.insert(&mut txn, &table, row.clone()))
            .unwrap();
    }
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    db.volume.set_instant(false);
    let (stop, committed, conflicts) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (db, table) = (&db, &table);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|seed| {
                let (committed, conflicts) = (&committed, &conflicts);
                scope.spawn(move || {
                    let mut random = Random(seed);
                    for _ in 0..400 {
                        match transfer(db, table, &mut random) {
                            Ok(done) => committed.fetch_add(u64::from(done), Ordering::Relaxed),
                            Err(error) => {
                                assert_eq!(error.class(), ErrorClass::Retry, "{error}");
                                conflicts.fetch_add(1, Ordering::Relaxed)
                            }
                        };
                    }
                })
            })
            .collect();
        for mode in [Mode::ReadOnly { at: None }, Mode::ReadWrite] {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let (at, sum) = total(db, table, mode);
                    assert_eq!(sum, ACCOUNTS * EACH, "at {at}");
                    if mode != Mode::ReadWrite {
                        assert!(at <= db.volume.vdl(), "[15]");
                        // The same LSN reads the same later.
                        assert_eq!(total(db, table, Mode::ReadOnly { at: Some(at) }), (at, sum));
                    }
                }
            });
        }
        // The disk: durability comes now and then.
        let durable = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                db.volume.advance_all();
                std::thread::yield_now();
            }
        });
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        durable.join().unwrap();
    });
    assert!(
        committed.load(Ordering::Relaxed) > 800,
        "{committed:?} committed, {conflicts:?} conflicts"
    );
    db.volume.advance_all();
    assert_eq!(
        total(db, table, Mode::ReadOnly { at: None }).1,
        ACCOUNTS * EACH
    );
    check::everything(db);
}
