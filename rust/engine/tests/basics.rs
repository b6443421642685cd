//! One of everything, on small pages.

mod common;

use std::ops::Bound;

use aurora_engine::{EngineError, Mode, RangeSpec, Stop};
use aurora_page::{Geometry, Lsn, Value, ValueRef};
use aurora_proto::Volume;
use common::{Db, check, people};

const RW: Mode = Mode::ReadWrite;
const RO: Mode = Mode::ReadOnly { at: None };

fn small() -> Geometry {
    Geometry::new(1024, 64)
}

fn person(id: i64, name: &str, count: i64) -> Vec<Value> {
    vec![Value::Int(id), Value::Text(name.into()), Value::Int(count)]
}

#[test]
fn rows_come_back_and_survive_a_crash_once_durable() {
    let db = Db::new(small());
    db.volume.set_instant(false);
    let (people, _) = db
        .run(|engine| engine.create_table("people", people(), false, db.now()))
        .unwrap();
    let key = |id: i64| people.key(&[Value::Int(id)]).unwrap();
    let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
    db.run(|engine| engine.insert(&mut txn, &people, person(1, "Ann", 10)))
        .unwrap();
    db.run(|engine| engine.insert(&mut txn, &people, person(2, "Bob", 20)))
        .unwrap();
    assert!(
        db.run(|engine| engine.update(&mut txn, &people, &key(1), vec![(2, Value::Int(11))]))
            .unwrap()
    );
    let own = db
        .run(|engine| engine.get(&txn, &people, &key(1)))
        .unwrap()
        .unwrap();
    assert_eq!(own.values().unwrap(), person(1, "Ann", 11));
    let commit = db
        .run(|engine| engine.commit(&mut txn, db.now(), Some("token-1")))
        .unwrap();
    // Not durable: read-only work does not see it [15], read-write work does.
    assert!(db.volume.vdl() < commit.lsn);
    let txn = db.run(|engine| engine.begin(RO)).unwrap();
    let error = db
        .run(|engine| engine.get(&txn, &people, &key(1)))
        .unwrap_err();
    assert!(matches!(error, EngineError::UnknownTable { .. }), "{error}");
    let txn = db.run(|engine| engine.begin(RW)).unwrap();
    assert!(
        db.run(|engine| engine.get(&txn, &people, &key(1)))
            .unwrap()
            .is_some()
    );
    db.volume.advance_all();
    drop(txn);
    let db = db.crash();
    let txn = db.run(|engine| engine.begin(RO)).unwrap();
    let table = db
        .run(|engine| engine.table_in(&txn, "people"))
        .unwrap()
        .unwrap();
    assert_eq!(*table, *people);
    let row = db
        .run(|engine| engine.get(&txn, &table, &key(2)))
        .unwrap()
        .unwrap();
    assert_eq!(row.value(1).unwrap(), ValueRef::Text("Bob"));
    let status = db
        .run(|engine| engine.token_status("token-1"))
        .unwrap()
        .unwrap();
    assert!(status.lsn >= commit.lsn);
    assert_eq!(status.time_us, commit.time_us);
    assert_eq!(
        db.run(|engine| engine.token_status("token-2")).unwrap(),
        None
    );
    check::everything(&db);
}

#[test]
fn bad_calls_get_errors_that_say_what_is_wrong() {
    let db = Db::new(small());
    let (table, _) = db
        .run(|engine| engine.create_table("people", people(), false, db.now()))
        .unwrap();
    let key = |id: i64| table.key(&[Value::Int(id)]).unwrap();
    let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
    db.run(|engine| engine.insert(&mut txn, &table, person(1, "Ann", 1)))
        .unwrap();
    let mut failed = |row| {
        db.run(|engine| engine.insert(&mut txn, &table, Clone::clone(&row)))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        failed(person(1, "Ann", 1)),
        "table \"people\": expected no row with key (1), got one"
    );
    let text = vec![Value::Text("1".into()), Value::Null, Value::Int(1)];
    assert_eq!(
        failed(text),
        "table \"people\": column \"id\": expected int64 (-9223372036854775808 to 9223372036854775807), got text of 1 bytes"
    );
    assert!(failed(vec![Value::Int(1)]).contains("expected a row of 3 values, got 1"));
    let error = db
        .run(|engine| engine.update(&mut txn, &table, &key(1), vec![(0, Value::Int(2))]))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("column \"id\": expected a column outside the key"),
        "{error}"
    );
    let error = db
        .run(|engine| engine.update(&mut txn, &table, &key(1), vec![(7, Value::Int(2))]))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("expected a column index below 3, got 7"),
        "{error}"
    );
    let mut reader = db.run(|engine| engine.begin(RO)).unwrap();
    let error = db
        .run(|engine| engine.delete(&mut reader, &table, &key(1)))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a read-write transaction for delete, got a read-only one"
    );
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    let error = db
        .run(|engine| engine.get(&txn, &table, &key(1)).map(|_| ()))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected an open transaction for get, got one that is closed"
    );
    let error = db
        .run(|engine| engine.create_table("people", people(), false, db.now()))
        .unwrap_err();
    assert_eq!(
        error,
        EngineError::TableExists {
            table: "people".into()
        }
    );
    let (same, created) = db
        .run(|engine| engine.create_table("people", people(), true, db.now()))
        .unwrap();
    assert_eq!((&*same, created), (&*table, None));
    assert!(
        db.run(|engine| engine.create_table("aurora.x", people(), true, db.now()))
            .is_err()
    );
    assert!(matches!(
        db.engine.begin(Mode::ReadOnly { at: Some(Lsn::MAX) }),
        Err(Stop::WaitLsn(Lsn::MAX))
    ));
}

#[test]
fn limits_name_themselves_and_leave_the_transaction_usable() {
    let config = aurora_engine::EngineConfig {
        tx_records_max: 3,
        ..common::config()
    };
    let db = Db::with(small(), config);
    let (table, _) = db
        .run(|engine| engine.create_table("people", people(), false, db.now()))
        .unwrap();
    let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
    for id in 0..3 {
        db.run(|engine| engine.insert(&mut txn, &table, person(id, "x", id)))
            .unwrap();
    }
    let error = db
        .run(|engine| engine.insert(&mut txn, &table, person(3, "x", 3)))
        .unwrap_err();
    assert_eq!(
        error,
        EngineError::TransactionTooLarge {
            what: "changes",
            limit: 3,
            got: 4
        }
    );
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    assert_eq!(check::row_count(&db, &table), 3);
}

#[test]
fn ranges_go_both_ways_with_bounds_limits_and_own_changes() {
    let db = Db::new(small());
    let (table, _) = db
        .run(|engine| engine.create_table("people", people(), false, db.now()))
        .unwrap();
    let key = |id: i64| table.key(&[Value::Int(id)]).unwrap();
    let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
    for id in 0..500 {
        db.run(|engine| {
            engine.insert(
                &mut txn,
                &table,
                person(id * 2, &"n".repeat(id as usize % 40), id),
            )
        })
        .unwrap();
    }
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
    assert!(
        db.run(|engine| engine.delete(&mut txn, &table, &key(100)))
            .unwrap()
    );
    db.run(|engine| engine.insert(&mut txn, &table, person(101, "new", 0)))
        .unwrap();
    db.run(|engine| engine.upsert(&mut txn, &table, person(102, "changed", 0)))
        .unwrap();
    let ids = |spec: RangeSpec| {
        let mut cursor = db
            .run(|engine| engine.range(&txn, &table, spec.clone()))
            .unwrap();
        let mut ids = Vec::new();
        while let Some(block) = db.run(|engine| cursor.next_block(engine)).unwrap() {
            for row in block.rows().unwrap() {
                let ValueRef::Int(id) = row.value(0).unwrap() else {
                    panic!()
                };
                ids.push(id);
            }
        }
        ids
    };
    let (low, high) = (Bound::Included(key(96)), Bound::Included(key(104)));
    let spec = RangeSpec {
        low: low.clone(),
        high: high.clone(),
        ..RangeSpec::default()
    };
    assert_eq!(ids(spec.clone()), [96, 98, 101, 102, 104]);
    assert_eq!(
        ids(RangeSpec {
            reverse: true,
            ..spec.clone()
        }),
        [104, 102, 101, 98, 96]
    );
    assert_eq!(
        ids(RangeSpec {
            reverse: true,
            limit: Some(2),
            ..spec.clone()
        }),
        [104, 102]
    );
    assert_eq!(
        ids(RangeSpec {
            low: Bound::Excluded(key(96)),
            high: Bound::Excluded(key(104)),
            ..spec
        }),
        [98, 101, 102]
    );
    assert_eq!(ids(RangeSpec::default()).len(), 500);
    let mut all = ids(RangeSpec {
        reverse: true,
        ..RangeSpec::default()
    });
    all.reverse();
    assert_eq!(all, ids(RangeSpec::default()));
    assert_eq!(
        ids(RangeSpec {
            low: high,
            high: low,
            ..RangeSpec::default()
        }),
        []
    );
}

#[test]
fn long_values_live_in_overflow_pages_and_go_with_their_rows() {
    let mut db = Db::new(small());
    db.evict_percent = 10;
    let (table, _) = db
        .run(|engine| engine.create_table("people", people(), false, db.now()))
        .unwrap();
    let key = |id: i64| table.key(&[Value::Int(id)]).unwrap();
    let long: String = (0..50_000u32)
        .map(|n| char::from(b'a' + (n % 26) as u8))
        .collect();
    let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
    db.run(|engine| engine.insert(&mut txn, &table, person(1, &long, 1)))
        .unwrap();
    db.run(|engine| engine.insert(&mut txn, &table, person(2, "short", 1)))
        .unwrap();
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    let read = |id: i64| {
        let txn = db.run(|engine| engine.begin(RO)).unwrap();
        let row = db
            .run(|engine| engine.get(&txn, &table, &key(id)))
            .unwrap()
            .unwrap();
        match row.value(1).unwrap() {
            ValueRef::Overflow(reference) => {
                let mut reader = aurora_engine::OverflowReader::new(reference, txn.snapshot());
                String::from_utf8(
                    db.run(|engine| engine.read_overflow_on(&mut reader))
                        .unwrap(),
                )
                .unwrap()
            }
            ValueRef::Text(text) => text.to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert!(read(1) == long && read(2) == "short");
    check::everything(&db);
    let pages = check::page_count(&db, &table);
    assert!(pages > 50);
    for (id, name) in [(1, "now short"), (2, long.as_str())] {
        let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
        let changes = vec![(1, Value::Text(name.into()))];
        assert!(
            db.run(|engine| engine.update(&mut txn, &table, &key(id), changes.clone()))
                .unwrap()
        );
        db.run(|engine| engine.commit(&mut txn, db.now(), None))
            .unwrap();
        assert_eq!(read(id), name);
        check::everything(&db);
    }
    let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
    assert!(
        db.run(|engine| engine.delete(&mut txn, &table, &key(2)))
            .unwrap()
    );
    db.run(|engine| engine.upsert(&mut txn, &table, person(1, &long[1..], 5)))
        .unwrap();
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    assert!(read(1) == long[1..]);
    check::everything(&db);
    db.run(|engine| engine.drop_table("people", db.now()))
        .unwrap()
        .unwrap();
    check::everything(&db);
    let free = check_free(&db);
    assert!(free > 0);
}

/// Extents that are free after everything was dropped: all but those of the system tables.
fn check_free(db: &Db) -> usize {
    let geometry = db.engine.geometry();
    let mut free = 0;
    for segment in 0..db.volume.segments() {
        for (map, _, _) in geometry.map_layout(segment) {
            let page = db.volume.page_at(map, Lsn::MAX);
            if let Ok(map) = aurora_page::ExtentRef::new(&page) {
                free += map
                    .entries()
                    .filter(|entry| entry.as_ref().unwrap().used == 0)
                    .count();
            }
        }
    }
    free
}

#[test]
fn tokens_make_a_commit_happen_once_and_are_purged_by_age() {
    let db = Db::new(small());
    let (table, _) = db
        .run(|engine| engine.create_table("people", people(), false, db.now()))
        .unwrap();
    let mut purge_before = 0;
    for id in 0..200 {
        let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
        db.run(|engine| engine.insert(&mut txn, &table, person(id, "x", id)))
            .unwrap();
        let token = format!("token-{id}");
        db.run(|engine| engine.commit(&mut txn, db.now(), Some(&token)))
            .unwrap();
        if id == 99 {
            purge_before = db.now();
        }
    }
    let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
    db.run(|engine| engine.insert(&mut txn, &table, person(1000, "x", 0)))
        .unwrap();
    let error = db
        .run(|engine| engine.commit(&mut txn, db.now(), Some("token-150")))
        .unwrap_err();
    assert!(matches!(error, EngineError::TokenUsed { .. }), "{error}");
    let mut purged = 0;
    loop {
        let step = db
            .run(|engine| engine.purge_tokens(purge_before, db.now()))
            .unwrap();
        purged += step.tokens;
        if step.done {
            break;
        }
    }
    assert_eq!(purged, 100);
    assert_eq!(
        db.run(|engine| engine.token_status("token-99")).unwrap(),
        None
    );
    assert!(
        db.run(|engine| engine.token_status("token-100"))
            .unwrap()
            .is_some()
    );
    check::everything(&db);
}

#[test]
fn back_pressure_waits_and_changes_nothing() {
    let db = Db::new(small());
    let (table, _) = db
        .run(|engine| engine.create_table("people", people(), false, db.now()))
        .unwrap();
    db.volume.set_instant(false);
    let commit = |id: i64| {
        let mut txn = db.run(|engine| engine.begin(RW)).unwrap();
        db.run(|engine| engine.insert(&mut txn, &table, person(id, "x", 0)))
            .unwrap();
        db.run(|engine| engine.commit(&mut txn, db.now(), None))
    };
    commit(1).unwrap();
    db.volume.set_pressure(1);
    let records = db.volume.record_count();
    commit(2).unwrap();
    assert_eq!(db.volume.record_count(), records + 1);
    db.volume.advance_all();
    db.volume.set_pressure(1);
    // With nothing in flight waiting would be for ever.
    let error = commit(3).unwrap_err();
    assert!(matches!(error, EngineError::Volume(_)), "{error}");
    check::everything(&db);
}
