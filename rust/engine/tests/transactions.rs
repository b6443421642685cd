//! Transactions beside each other: locks, what each isolation level sees, savepoints, tables that go away.

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use aurora_engine::{
    Attempt, EngineError, ErrorClass, Isolation, LockWaiting, LockWaker, LockingCursor, Mode,
    RangeSpec, RowView, Savepoint, Stop, Table, Txn, TxnId,
};
use aurora_page::{Geometry, KeyBuf, Lsn, Value, ValueRef};
use aurora_proto::Volume;
use common::{Db, Random, check, people};
use parking_lot::Mutex;
use proptest::prelude::*;

const LEVELS: [Isolation; 3] = [
    Isolation::ReadCommitted,
    Isolation::Snapshot,
    Isolation::Serializable,
];

struct World {
    db: Db,
    table: Arc<Table>,
}

fn person(id: i64, count: i64) -> Vec<Value> {
    vec![Value::Int(id), Value::Null, Value::Int(count)]
}

impl World {
    /// Ten people, each with a count of 100.
    fn new() -> World {
        World::with(common::config())
    }

    fn with(config: aurora_engine::EngineConfig) -> World {
        let db = Db::with(Geometry::new(1024, 64), config);
        let (table, _) = db
            .run(|engine| engine.create_table("people", people(), false, db.now()))
            .unwrap();
        let world = World { db, table };
        let mut setup = world.begin(Isolation::Snapshot);
        for id in 0..10 {
            world.insert(&mut setup, id, 100).unwrap();
        }
        world.commit(&mut setup).unwrap();
        world
    }

    fn begin(&self, isolation: Isolation) -> Txn {
        self.db.engine.begin_isolated(isolation, true).unwrap()
    }

    fn key(&self, id: i64) -> KeyBuf {
        self.table.key(&[Value::Int(id)]).unwrap()
    }

    /// One operation: what a shell does around it.
    fn run<T>(
        &self,
        txn: &mut Txn,
        mut step: impl FnMut(&aurora_engine::Engine<common::MemVolume>, &mut Txn) -> Attempt<T>,
    ) -> Result<T, EngineError> {
        self.db.engine.begin_statement(txn);
        self.db.run(|engine| step(engine, txn))
    }

    fn insert(&self, txn: &mut Txn, id: i64, count: i64) -> Result<(), EngineError> {
        let row = person(id, count);
        self.run(txn, |engine, txn| {
            engine.insert(txn, &self.table, row.clone())
        })
    }

    fn upsert(&self, txn: &mut Txn, id: i64, count: i64) -> Result<(), EngineError> {
        let row = person(id, count);
        self.run(txn, |engine, txn| {
            engine.upsert(txn, &self.table, row.clone())
        })
    }

    fn set(&self, txn: &mut Txn, id: i64, count: i64) -> Result<bool, EngineError> {
        let (key, changes) = (self.key(id), vec![(2, Value::Int(count))]);
        self.run(txn, |engine, txn| {
            engine.update(txn, &self.table, &key, changes.clone())
        })
    }

    fn delete(&self, txn: &mut Txn, id: i64) -> Result<bool, EngineError> {
        let key = self.key(id);
        self.run(txn, |engine, txn| engine.delete(txn, &self.table, &key))
    }

    fn get(&self, txn: &mut Txn, id: i64) -> Result<Option<i64>, EngineError> {
        let key = self.key(id);
        let row = self.run(txn, |engine, txn| engine.get(txn, &self.table, &key))?;
        Ok(row.map(|row| count(&row)))
    }

    fn lock(
        &self,
        txn: &mut Txn,
        id: i64,
        waiting: LockWaiting,
    ) -> Result<Option<i64>, EngineError> {
        let key = self.key(id);
        let row = self.run(txn, |engine, txn| {
            engine.get_for_update(txn, &self.table, &key, waiting)
        })?;
        Ok(row.map(|row| count(&row)))
    }

    fn ids(&self, txn: &mut Txn, low: i64, high: i64) -> Result<Vec<i64>, EngineError> {
        let spec = self.spec(low, high, None);
        let mut cursor = self.run(txn, |engine, txn| {
            engine.range(txn, &self.table, spec.clone())
        })?;
        let mut ids = Vec::new();
        while let Some(block) = self.db.run(|engine| cursor.next_block(engine))? {
            ids.extend(block.rows().unwrap().iter().map(id));
        }
        Ok(ids)
    }

    fn spec(&self, low: i64, high: i64, limit: Option<usize>) -> RangeSpec {
        RangeSpec {
            low: Bound::Included(self.key(low)),
            high: Bound::Excluded(self.key(high)),
            reverse: false,
            limit,
        }
    }

    fn lock_range(
        &self,
        txn: &mut Txn,
        spec: RangeSpec,
        waiting: LockWaiting,
    ) -> Result<Vec<(i64, i64)>, EngineError> {
        let mut cursor = LockingCursor::new(self.table.clone(), spec, waiting);
        self.db.engine.begin_statement(txn);
        let mut rows = Vec::new();
        while let Some(row) = self.db.run(|engine| cursor.next(engine, txn))? {
            rows.push((id(&row), count(&row)));
        }
        Ok(rows)
    }

    fn commit(&self, txn: &mut Txn) -> Result<Lsn, EngineError> {
        let commit = self
            .db
            .run(|engine| engine.commit(txn, self.db.now(), None))?;
        Ok(commit.lsn)
    }

    /// Changes one row in a transaction of its own.
    fn set_alone(&self, id: i64, count: i64) -> Lsn {
        let mut txn = self.begin(Isolation::Snapshot);
        assert!(self.set(&mut txn, id, count).unwrap());
        self.commit(&mut txn).unwrap()
    }
}

fn id(row: &RowView) -> i64 {
    number(row, 0)
}

fn count(row: &RowView) -> i64 {
    number(row, 2)
}

fn number(row: &RowView, column: usize) -> i64 {
    let ValueRef::Int(number) = row.value(column).unwrap() else {
        panic!("{row:?}")
    };
    number
}

#[derive(Default)]
struct Woken(Mutex<Vec<TxnId>>);

impl LockWaker for Woken {
    fn wake(&self, granted: &[TxnId]) {
        self.0.lock().extend(granted);
    }
}

#[test]
fn a_lock_is_handed_over_in_order_when_the_commit_is_numbered() {
    let world = World::new();
    let woken = Arc::new(Woken::default());
    world.db.engine.set_lock_waker(woken.clone());
    // Nothing becomes durable: locks do not wait for the disk.
    world.db.volume.set_instant(false);
    let engine = &world.db.engine;
    let mut txns: Vec<Txn> = (0..3).map(|_| world.begin(Isolation::Snapshot)).collect();
    let key = world.key(1);
    let bump = |txn: &mut Txn, by: i64| -> Attempt<()> {
        let row = engine.get_for_update(txn, &world.table, &key, LockWaiting::Wait)?;
        let now = count(&row.unwrap());
        engine
            .update(txn, &world.table, &key, vec![(2, Value::Int(now + by))])
            .map(|found| assert!(found))
    };
    bump(&mut txns[0], 1).unwrap();
    for at in [1, 2] {
        let stop = bump(&mut txns[at], 10).unwrap_err();
        let Stop::WaitLock(wait) = stop else {
            panic!("{stop:?}")
        };
        assert_eq!(wait.txn, txns[at].id());
        assert!(engine.is_lock_awaited(&wait));
    }
    for at in [0, 1, 2] {
        engine.commit(&mut txns[at], world.db.now(), None).unwrap();
        let next: Vec<TxnId> = txns.get(at + 1).map(Txn::id).into_iter().collect();
        assert_eq!(std::mem::take(&mut *woken.0.lock()), next);
        // Who waited reads what it waited for.
        if let Some(txn) = txns.get_mut(at + 1) {
            bump(txn, 10).unwrap();
        }
    }
    assert_eq!(engine.locks_held(), 0);
    world.db.volume.advance_all();
    assert_eq!(
        world.get(&mut world.begin(Isolation::Snapshot), 1).unwrap(),
        Some(121)
    );
}

#[test]
fn a_rolled_back_transaction_gives_its_locks_and_its_place_back() {
    let world = World::new();
    let woken = Arc::new(Woken::default());
    world.db.engine.set_lock_waker(woken.clone());
    let engine = &world.db.engine;
    let key = world.key(1);
    let lock = |txn: &mut Txn| {
        engine
            .get_for_update(txn, &world.table, &key, LockWaiting::Wait)
            .map(drop)
    };
    let mut txns: Vec<Txn> = (0..4).map(|_| world.begin(Isolation::Snapshot)).collect();
    lock(&mut txns[0]).unwrap();
    for txn in &mut txns[1..] {
        lock(txn).unwrap_err();
    }
    let third = txns.remove(2);
    drop(third);
    drop(txns.remove(0));
    assert_eq!(std::mem::take(&mut *woken.0.lock()), [txns[0].id()]);
    // Handed over, and given back without ever having been looked at.
    drop(txns.remove(0));
    assert_eq!(*woken.0.lock(), [txns[0].id()]);
    lock(&mut txns[0]).unwrap();
    drop(txns);
    assert_eq!(engine.locks_held(), 0);
}

#[test]
fn locks_that_do_not_come() {
    let world = World::new();
    let mut holder = world.begin(Isolation::Snapshot);
    assert!(world.set(&mut holder, 1, 5).unwrap());
    let mut other = world.begin(Isolation::Snapshot);
    let error = world.lock(&mut other, 1, LockWaiting::NoWait).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "table \"people\", key (1): expected the row's lock to be free, got one held by {}",
            holder.id()
        )
    );
    assert_eq!(error.class(), ErrorClass::Retry);
    assert_eq!(world.lock(&mut other, 1, LockWaiting::Skip).unwrap(), None);
    let error = world.set(&mut other, 1, 6).unwrap_err();
    assert!(
        matches!(&error, EngineError::LockTimeout { holder: by, .. } if *by == holder.id()),
        "{error}"
    );
    // The transaction goes on with other rows, and gets the lock when it is free.
    assert!(world.set(&mut other, 2, 6).unwrap());
    drop(holder);
    assert!(world.set(&mut other, 1, 7).unwrap());
    world.commit(&mut other).unwrap();
    assert_eq!(
        world.get(&mut world.begin(Isolation::Snapshot), 1).unwrap(),
        Some(7)
    );
}

#[test]
fn who_closes_a_circle_is_told_of_it() {
    let world = World::new();
    let (mut a, mut b) = (
        world.begin(Isolation::Snapshot),
        world.begin(Isolation::Snapshot),
    );
    assert!(world.set(&mut a, 1, 1).unwrap() && world.set(&mut b, 2, 2).unwrap());
    let waits = |engine: &aurora_engine::Engine<_>, txn: &mut Txn, id: i64| {
        engine.get_for_update(txn, &world.table, &world.key(id), LockWaiting::Wait)
    };
    assert!(matches!(
        waits(&world.db.engine, &mut a, 2),
        Err(Stop::WaitLock(_))
    ));
    let error = world.lock(&mut b, 1, LockWaiting::Wait).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "deadlock: {b} waits for table \"people\", key (1), which {a} holds; \
             {a} waits for table \"people\", key (2), which {b} holds",
            a = a.id(),
            b = b.id()
        )
    );
    assert_eq!(error.class(), ErrorClass::Retry);
    drop(b);
    assert!(waits(&world.db.engine, &mut a, 2).unwrap().is_some());
}

#[test]
fn the_first_committer_wins() {
    let world = World::new();
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let mut slow = world.begin(isolation);
        assert!(world.get(&mut slow, 5).unwrap().is_some());
        let first = world.set_alone(1, 7);
        for attempt in [
            world.set(&mut slow, 1, 8),
            world.delete(&mut slow, 1),
            world.upsert(&mut slow, 1, 8).map(|()| true),
            world.lock(&mut slow, 1, LockWaiting::Wait).map(|_| true),
        ] {
            let error = attempt.unwrap_err();
            assert!(
                matches!(&error, EngineError::WriteConflict { by, .. } if *by == first),
                "{error}"
            );
            assert!(error.to_string().contains("\"people\", key (1)"), "{error}");
        }
        // Another row of the same page is no conflict, nor is one that was inserted and is not there at the snapshot.
        assert!(world.set(&mut slow, 2, 8).unwrap());
        world.commit(&mut slow).unwrap();
    }
    // A row that came after the snapshot: neither there, nor to be inserted.
    let mut slow = world.begin(Isolation::Snapshot);
    assert_eq!(world.get(&mut slow, 50).unwrap(), None);
    let mut other = world.begin(Isolation::Snapshot);
    world.insert(&mut other, 50, 1).unwrap();
    world.commit(&mut other).unwrap();
    assert_eq!(world.get(&mut slow, 50).unwrap(), None);
    assert!(matches!(
        world.insert(&mut slow, 50, 2),
        Err(EngineError::WriteConflict { .. })
    ));
    check::everything(&world.db);
}

#[test]
fn a_transaction_that_has_read_nothing_never_meets_the_past() {
    let world = World::new();
    for isolation in LEVELS {
        let mut late = world.begin(isolation);
        world.set_alone(1, 55);
        assert_eq!(
            world.lock(&mut late, 1, LockWaiting::Wait).unwrap(),
            Some(55)
        );
        assert!(world.set(&mut late, 1, 56).unwrap());
        world.commit(&mut late).unwrap();
    }
}

#[test]
fn each_operation_of_read_committed_sees_the_newest_state() {
    let world = World::new();
    let mut txn = world.begin(Isolation::ReadCommitted);
    assert_eq!(world.get(&mut txn, 1).unwrap(), Some(100));
    let by = world.set_alone(1, 7);
    assert_eq!(world.get(&mut txn, 1).unwrap(), Some(7));
    assert!(txn.newest_read() >= by);
    assert!(world.set(&mut txn, 1, 8).unwrap());
    world.set_alone(2, 9);
    assert_eq!(world.get(&mut txn, 1).unwrap(), Some(8));
    assert_eq!(world.get(&mut txn, 2).unwrap(), Some(9));
    world.commit(&mut txn).unwrap();
}

#[test]
fn reads_of_a_cursor_opened_earlier_count_for_the_commit() {
    let world = World::new();
    world.db.volume.set_instant(false);
    let mut txn = world.begin(Isolation::ReadCommitted);
    let by = world.set_alone(9, 7);
    world.db.engine.begin_statement(&mut txn);
    let mut cursor = world
        .db
        .run(|engine| engine.range(&txn, &world.table, RangeSpec::default()))
        .unwrap();
    world.db.engine.begin_statement(&mut txn);
    while world
        .db
        .run(|engine| cursor.next_block(engine))
        .unwrap()
        .is_some()
    {}
    let commit = world
        .db
        .run(|engine| engine.commit(&mut txn, world.db.now(), None))
        .unwrap();
    assert!(commit.after >= by, "[15]");
}

/// Two take from a common good after having looked that there is enough for one: write skew, G2-item.
fn write_skew(world: &World, isolation: Isolation) -> Result<Lsn, EngineError> {
    let (mut a, mut b) = (world.begin(isolation), world.begin(isolation));
    for txn in [&mut a, &mut b] {
        let sum = world.get(txn, 1)?.unwrap() + world.get(txn, 2)?.unwrap();
        assert_eq!(sum, 200);
    }
    assert!(world.set(&mut a, 1, -100)?);
    assert!(world.set(&mut b, 2, -100)?);
    world.commit(&mut a).unwrap();
    world.commit(&mut b)
}

#[test]
fn serializable_transactions_notice_that_what_they_read_has_changed() {
    write_skew(&World::new(), Isolation::ReadCommitted).unwrap();
    write_skew(&World::new(), Isolation::Snapshot).unwrap();
    let error = write_skew(&World::new(), Isolation::Serializable).unwrap_err();
    assert!(
        matches!(error, EngineError::SerializationFailure { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("table \"people\", key (1): expected no change of what"),
        "{error}"
    );
    assert_eq!(error.class(), ErrorClass::Retry);
}

#[test]
fn serializable_transactions_notice_new_rows_in_ranges_they_read() {
    for (isolation, inside, fails) in [
        (Isolation::Snapshot, 25, false),
        (Isolation::Serializable, 25, true),
        (Isolation::Serializable, 35, false),
    ] {
        let world = World::new();
        let mut txn = world.begin(isolation);
        assert!(world.ids(&mut txn, 20, 30).unwrap().is_empty());
        let mut other = world.begin(isolation);
        world.insert(&mut other, inside, 1).unwrap();
        world.commit(&mut other).unwrap();
        assert!(world.set(&mut txn, 1, 5).unwrap());
        let done = world.commit(&mut txn);
        assert_eq!(done.is_err(), fails, "{isolation:?} {inside}: {done:?}");
        if let Err(error) = done {
            assert!(
                error.to_string().contains("range from (20) to (30)"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_range_that_ends_with_its_limit_was_not_read_beyond() {
    for (reverse, touched, fails) in [
        (false, 2, true),
        (false, 3, false),
        (true, 7, true),
        (true, 6, false),
    ] {
        let world = World::new();
        let mut txn = world.begin(Isolation::Serializable);
        let spec = RangeSpec {
            reverse,
            limit: Some(3),
            ..RangeSpec::default()
        };
        let mut cursor = world
            .run(&mut txn, |engine, txn| {
                engine.range(txn, &world.table, spec.clone())
            })
            .unwrap();
        while world
            .db
            .run(|engine| cursor.next_block(engine))
            .unwrap()
            .is_some()
        {}
        world.set_alone(touched, 1);
        world.insert(&mut txn, 40, 1).unwrap();
        assert_eq!(
            world.commit(&mut txn).is_err(),
            fails,
            "{reverse} {touched}"
        );
    }
}

#[test]
fn a_serializable_transaction_that_only_reads_never_fails() {
    let world = World::new();
    let mut txn = world.begin(Isolation::Serializable);
    assert_eq!(world.ids(&mut txn, 0, 100).unwrap().len(), 10);
    world.set_alone(1, 7);
    assert_eq!(world.get(&mut txn, 1).unwrap(), Some(100));
    world.commit(&mut txn).unwrap();
}

#[test]
fn a_snapshot_is_too_old_once_changes_are_forgotten() {
    let config = aurora_engine::EngineConfig {
        conflict_bytes: 64 * 20,
        ..common::config()
    };
    let world = World::with(config);
    let (mut old, mut reader) = (
        world.begin(Isolation::Snapshot),
        world.begin(Isolation::Serializable),
    );
    assert_eq!(world.get(&mut old, 1).unwrap(), Some(100));
    assert_eq!(world.get(&mut reader, 1).unwrap(), Some(100));
    assert!(world.set(&mut old, 2, 0).unwrap());
    assert!(world.set(&mut reader, 8, 0).unwrap());
    for round in 0..30 {
        world.set_alone(3, round);
    }
    let error = world.set(&mut old, 1, 0).unwrap_err();
    assert!(
        matches!(error, EngineError::SnapshotTooOld { .. }),
        "{error}"
    );
    // What was locked before is known to be as it was; the snapshot still reads.
    assert_eq!(world.get(&mut old, 3).unwrap(), Some(100));
    world.commit(&mut old).unwrap();
    assert!(matches!(
        world.commit(&mut reader),
        Err(EngineError::SnapshotTooOld { .. })
    ));
}

#[test]
fn ranges_for_update_lock_skip_and_count() {
    let world = World::new();
    let mut first = world.begin(Isolation::ReadCommitted);
    let rows = world
        .lock_range(&mut first, world.spec(0, 100, Some(2)), LockWaiting::Skip)
        .unwrap();
    assert_eq!(rows, [(0, 100), (1, 100)]);
    let mut second = world.begin(Isolation::ReadCommitted);
    let rows = world
        .lock_range(&mut second, world.spec(0, 100, Some(3)), LockWaiting::Skip)
        .unwrap();
    assert_eq!(rows, [(2, 100), (3, 100), (4, 100)]);
    let mut third = world.begin(Isolation::ReadCommitted);
    assert!(matches!(
        world.lock_range(&mut third, world.spec(0, 100, None), LockWaiting::NoWait),
        Err(EngineError::LockNotAvailable { .. })
    ));
    assert!(world.delete(&mut first, 0).unwrap());
    assert!(world.set(&mut first, 1, 5).unwrap());
    world.commit(&mut first).unwrap();
    let mut again = world.begin(Isolation::ReadCommitted);
    let back = RangeSpec {
        reverse: true,
        ..world.spec(0, 3, None)
    };
    assert_eq!(
        world
            .lock_range(&mut again, back, LockWaiting::Skip)
            .unwrap(),
        [(1, 5)]
    );
}

/// A worker of a queue found a job, and by the time it had its lock, another had done the job. At a snapshot that was a
/// conflict although the worker had been given nothing yet.
#[test]
fn the_first_row_of_a_locked_range_moves_the_snapshot() {
    let world = World::new();
    for isolation in LEVELS {
        let mut worker = world.begin(isolation);
        let mut first = world.begin(Isolation::Snapshot);
        let low = world.lock_range(&mut first, world.spec(0, 100, Some(1)), LockWaiting::Wait);
        let (low, _) = low.unwrap()[0];
        let mut cursor = LockingCursor::new(
            world.table.clone(),
            world.spec(0, 100, Some(1)),
            LockWaiting::Wait,
        );
        let stop = cursor.next(&world.db.engine, &mut worker).unwrap_err();
        assert!(matches!(stop, Stop::WaitLock(_)), "{stop:?}");
        assert!(world.delete(&mut first, low).unwrap());
        world.commit(&mut first).unwrap();
        let row = world
            .db
            .run(|engine| cursor.next(engine, &mut worker))
            .unwrap();
        assert_eq!(row.map(|row| id(&row)), Some(low + 1));
        world.commit(&mut worker).unwrap();
    }
}

#[test]
fn a_dropped_table_says_so() {
    let world = World::new();
    let (mut open, mut wrote) = (
        world.begin(Isolation::Snapshot),
        world.begin(Isolation::Snapshot),
    );
    let mut committed = world.begin(Isolation::ReadCommitted);
    assert_eq!(world.get(&mut open, 1).unwrap(), Some(100));
    assert!(world.set(&mut wrote, 1, 1).unwrap());
    let dropped = world
        .db
        .run(|engine| engine.drop_table("people", world.db.now()))
        .unwrap()
        .unwrap();
    let says_so = |result: Result<(), EngineError>| {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, EngineError::TableDropped { table, dropped: at }
                if table == "people" && *at == dropped.lsn),
            "{error}"
        );
    };
    // A snapshot still has the table, but nothing can be changed in it.
    assert_eq!(world.get(&mut open, 1).unwrap(), Some(100));
    says_so(world.set(&mut open, 1, 2).map(drop));
    says_so(world.commit(&mut wrote).map(drop));
    says_so(world.get(&mut committed, 1).map(drop));
    says_so(
        world
            .ids(&mut world.begin(Isolation::Snapshot), 0, 9)
            .map(drop),
    );
    says_so(
        world
            .db
            .run(|engine| engine.get_readable(&world.table, &world.key(1)))
            .map(drop),
    );
    let keys = [world.key(1)];
    says_so(
        world
            .run(&mut world.begin(Isolation::Snapshot), |engine, txn| {
                engine.get_many(txn, &world.table, &keys)
            })
            .map(drop),
    );
    // One of the same name is another table.
    let (again, _) = world
        .db
        .run(|engine| engine.create_table("people", people(), false, world.db.now()))
        .unwrap();
    let txn = world.begin(Isolation::Snapshot);
    assert!(
        world
            .db
            .run(|engine| engine.get(&txn, &again, &world.key(1)))
            .unwrap()
            .is_none()
    );
    says_so(
        world
            .get(&mut world.begin(Isolation::Snapshot), 1)
            .map(drop),
    );
}

#[test]
fn savepoints_that_are_not_there() {
    let world = World::new();
    let mut txn = world.begin(Isolation::Snapshot);
    let outer = txn.savepoint(Some("a".into())).unwrap();
    let inner = txn.savepoint(Some("a".into())).unwrap();
    assert_eq!(txn.savepoint_named("a").unwrap(), inner);
    txn.rollback_to(outer).unwrap();
    let gone = txn.rollback_to(inner).unwrap_err();
    assert_eq!(
        gone.to_string(),
        "savepoint number 2: expected one of this transaction, got none"
    );
    txn.release(outer).unwrap();
    assert!(!txn.has_savepoint(outer));
    assert!(txn.savepoint_named("a").is_err());
    world.commit(&mut txn).unwrap();
    assert!(matches!(
        txn.savepoint(None),
        Err(EngineError::TransactionClosed { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random changes with savepoints nested in each other, against copies of a dictionary.
    #[test]
    fn savepoints_are_copies_of_a_dictionary(seed in any::<u64>(), steps in 1..120usize) {
        let world = World::new();
        let mut random = Random(seed);
        let mut txn = world.begin(Isolation::Snapshot);
        let mut model: BTreeMap<i64, i64> = (0..10).map(|id| (id, 100)).collect();
        let mut saved: Vec<(Savepoint, BTreeMap<i64, i64>)> = Vec::new();
        for _ in 0..steps {
            let (id, count) = (random.below(14) as i64, random.below(1000) as i64);
            match random.below(9) {
                0 | 1 => {
                    let done = world.insert(&mut txn, id, count).is_ok();
                    prop_assert_eq!(done, !model.contains_key(&id));
                    model.entry(id).or_insert(count);
                }
                2 => {
                    world.upsert(&mut txn, id, count).unwrap();
                    model.insert(id, count);
                }
                3 | 4 => {
                    let done = world.set(&mut txn, id, count).unwrap();
                    prop_assert_eq!(done, model.contains_key(&id));
                    model.entry(id).and_modify(|old| *old = count);
                }
                5 => {
                    let done = world.delete(&mut txn, id).unwrap();
                    prop_assert_eq!(done, model.remove(&id).is_some());
                }
                6 => saved.push((txn.savepoint(None).unwrap(), model.clone())),
                kind => {
                    if saved.is_empty() {
                        continue;
                    }
                    let at = random.below(saved.len() as u64) as usize;
                    if kind == 7 {
                        txn.rollback_to(saved[at].0).unwrap();
                        model = saved[at].1.clone();
                        saved.truncate(at + 1);
                    } else {
                        txn.release(saved[at].0).unwrap();
                        saved.truncate(at);
                    }
                }
            }
            if random.below(8) == 0 {
                let ids: Vec<i64> = model.keys().copied().collect();
                prop_assert_eq!(world.ids(&mut txn, 0, 100).unwrap(), ids);
            }
        }
        for id in 0..14 {
            prop_assert_eq!(world.get(&mut txn, id).unwrap(), model.get(&id).copied());
        }
        while let Some((savepoint, _)) = saved.pop() {
            txn.release(savepoint).unwrap();
        }
        world.commit(&mut txn).unwrap();
        let ids: Vec<i64> = model.keys().copied().collect();
        prop_assert_eq!(world.ids(&mut world.begin(Isolation::Snapshot), 0, 100).unwrap(), ids);
    }

    /// Serializable transactions in any interleaving have the outcome of some order: that of their commits.
    #[test]
    fn serializable_transactions_are_as_if_one_after_the_other(seed in any::<u64>()) {
        let world = World::new();
        let mut random = Random(seed);
        struct Run { txn: Txn, read: Vec<(i64, Option<i64>)>, ranges: Vec<(i64, i64, Vec<i64>)>, wrote: BTreeMap<i64, Option<i64>> }
        let mut open: Vec<Run> = Vec::new();
        let mut state: BTreeMap<i64, i64> = (0..10).map(|id| (id, 100)).collect();
        for _ in 0..150 {
            if open.len() < 4 {
                let txn = world.begin(Isolation::Serializable);
                open.push(Run { txn, read: vec![], ranges: vec![], wrote: BTreeMap::new() });
            }
            let at = random.below(open.len() as u64) as usize;
            let run = &mut open[at];
            let (id, count) = (random.below(14) as i64, random.below(1000) as i64);
            match random.below(8) {
                0..=2 => {
                    let got = world.get(&mut run.txn, id).unwrap();
                    match run.wrote.get(&id) {
                        Some(own) => prop_assert_eq!(got, *own),
                        None => run.read.push((id, got)),
                    }
                }
                3 if run.wrote.is_empty() => {
                    let high = id + random.below(5) as i64;
                    run.ranges.push((id, high, world.ids(&mut run.txn, id, high).unwrap()));
                }
                4 | 5 => {
                    match world.upsert(&mut run.txn, id, count) {
                        Ok(()) => { run.wrote.insert(id, Some(count)); }
                        Err(error) => {
                            prop_assert_eq!(error.class(), ErrorClass::Retry);
                            open.remove(at);
                        }
                    }
                }
                6 => {
                    match world.delete(&mut run.txn, id) {
                        Ok(_) => { run.wrote.insert(id, None); }
                        Err(error) => {
                            prop_assert_eq!(error.class(), ErrorClass::Retry);
                            open.remove(at);
                        }
                    }
                }
                _ => {
                    let mut run = open.remove(at);
                    let changes = run.txn.changes();
                    match world.commit(&mut run.txn) {
                        Err(error) => prop_assert_eq!(error.class(), ErrorClass::Retry),
                        // It changed nothing: its place in the order is that of its snapshot.
                        Ok(_) if changes == 0 => {}
                        Ok(_) => {
                            for (id, got) in run.read {
                                prop_assert_eq!(state.get(&id).copied(), got);
                            }
                            for (low, high, got) in run.ranges {
                                let now: Vec<i64> = state.range(low..high).map(|(id, _)| *id).collect();
                                prop_assert_eq!(now, got);
                            }
                            for (id, count) in run.wrote {
                                match count {
                                    Some(count) => { state.insert(id, count); }
                                    None => { state.remove(&id); }
                                }
                            }
                        }
                    }
                }
            }
        }
        drop(open);
        let ids: Vec<i64> = state.keys().copied().collect();
        prop_assert_eq!(world.ids(&mut world.begin(Isolation::Snapshot), 0, 100).unwrap(), ids);
        prop_assert_eq!(world.db.engine.locks_held(), 0);
    }
}

#[test]
fn a_read_only_transaction_locks_nothing() {
    let world = World::new();
    let mut txn = world
        .db
        .run(|engine| engine.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    assert!(matches!(
        world.lock(&mut txn, 1, LockWaiting::Wait),
        Err(EngineError::ReadOnlyTransaction { .. })
    ));
    // At READ COMMITTED it moves on with what is durable.
    world.db.volume.set_instant(false);
    let mut txn = world
        .db
        .engine
        .begin_isolated(Isolation::ReadCommitted, false)
        .unwrap();
    world.set_alone(1, 7);
    assert_eq!(world.get(&mut txn, 1).unwrap(), Some(100), "[15]");
    world.db.volume.advance_all();
    assert_eq!(world.get(&mut txn, 1).unwrap(), Some(7));
    assert!(txn.snapshot() <= world.db.volume.vdl());
}
