//! A replica against a dictionary: redo late and in pieces, misses in flight while it passes, caches dropped, promotion.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_engine::{Engine, EngineError, Mode, Role, Stop, Table, Txn};
use aurora_page::{Geometry, Lsn, Page, PageId, Value};
use aurora_proto::{Next, RedoLog, Volume};
use common::{Db, MemVolume, Random, config, people};
use proptest::prelude::*;

type Model = BTreeMap<i64, i64>;

#[derive(Clone, Debug)]
enum Step {
    /// The writer commits so many changes.
    Write { seed: u64, changes: u8 },
    /// The VDL moves to here, of 100.
    Durable { percent: u8 },
    /// The replica applies up to so many MTRs.
    Follow { count: u8 },
    /// The replica reads everything, and compares.
    Read,
    /// A view begins, to be read again later.
    View,
    /// A page is fetched for the replica and arrives later.
    Late { page: u8 },
    /// What was fetched arrives.
    Arrive,
    /// The replica drops what it may.
    Evict,
    /// The stream forgets what the replica has not taken: it must rejoin.
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<u64>(), 1..30u8).prop_map(|(seed, changes)| Step::Write { seed, changes }),
        4 => (0..=100u8).prop_map(|percent| Step::Durable { percent }),
        5 => (1..6u8).prop_map(|count| Step::Follow { count }),
        4 => Just(Step::Read),
        1 => Just(Step::View),
        3 => (0..40u8).prop_map(|page| Step::Late { page }),
        2 => Just(Step::Arrive),
        1 => Just(Step::Evict),
        1 => Just(Step::Forget),
    ];
    prop::collection::vec(step, 1..120)
}

struct World {
    db: Db,
    replica: Engine<MemVolume>,
    log: RedoLog,
    /// What the log was told so far, and what the replica has taken.
    pushed: Lsn,
    taken: Lsn,
    table: Arc<Table>,
    history: Vec<(Lsn, Model)>,
    late: Vec<(PageId, Page, Lsn)>,
    views: Vec<Txn>,
}

impl World {
    fn new() -> World {
        let db = Db::new(Geometry::new(1024, 4096));
        let table = db
            .run(|engine| engine.create_table("people", people(), false, db.now()))
            .unwrap()
            .0;
        db.volume.set_instant(false);
        db.volume.advance_all();
        let joined = db.volume.numbered();
        let replica = db.engine.replica(config(), "first", joined).unwrap();
        World {
            log: RedoLog::new(1 << 30, joined),
            history: vec![(joined, Model::new())],
            pushed: joined,
            taken: joined,
            late: Vec::new(),
            views: Vec::new(),
            db,
            replica,
            table,
        }
    }

    fn serve<T>(
        &self,
        mut step: impl FnMut(&Engine<MemVolume>) -> aurora_engine::Attempt<T>,
    ) -> Result<T, EngineError> {
        for _ in 0..1000 {
            match step(&self.replica) {
                Ok(done) => return Ok(done),
                Err(Stop::NeedPage { page, at }) => {
                    assert!(at <= self.db.volume.vdl(), "above the VDL [15]");
                    let version = self.db.volume.page_at(page, at);
                    self.replica.install(page, version, at)?;
                }
                Err(Stop::Failed(error)) => return Err(error),
                Err(other) => panic!("{other:?}"),
            }
        }
        panic!("no progress");
    }

    fn write(&mut self, seed: u64, changes: u8) {
        let mut random = Random(seed);
        let mut model = self.history.last().unwrap().1.clone();
        let mut txn = self.db.run(|e| e.begin(Mode::ReadWrite)).unwrap();
        for _ in 0..changes {
            let id = random.below(300) as i64;
            let key = self.table.key(&[Value::Int(id)]).unwrap();
            if random.below(4) == 0 {
                self.db
                    .run(|e| e.delete(&mut txn, &self.table, &key))
                    .unwrap();
                model.remove(&id);
            } else {
                let count = random.below(1000) as i64;
                let name = Value::Text("n".repeat(random.below(60) as usize));
                let row = vec![Value::Int(id), name, Value::Int(count)];
                self.db
                    .run(|e| e.upsert(&mut txn, &self.table, row.clone()))
                    .unwrap();
                model.insert(id, count);
            }
        }
        let now = self.db.now();
        let commit = self.db.run(|e| e.commit(&mut txn, now, None)).unwrap();
        for redo in self.db.volume.redo_since(self.pushed) {
            self.pushed = redo.numbered.last;
            self.log.push(redo);
        }
        if commit.lsn > self.history.last().unwrap().0 {
            self.history.push((commit.lsn, model));
        }
    }

    fn follow(&mut self, count: usize) {
        match self.log.next(self.taken, self.db.volume.vdl(), count) {
            Next::Nothing => self.replica.advance(self.db.volume.vdl()),
            Next::Rejoin(tip) => {
                self.replica.rejoin(tip);
                self.taken = tip;
            }
            Next::Apply(mtrs) => {
                for redo in mtrs {
                    self.replica.apply(&redo);
                    self.taken = redo.numbered.last;
                }
            }
        }
    }

    fn model_at(&self, at: Lsn) -> &Model {
        let end = self.history.partition_point(|(lsn, _)| *lsn <= at);
        &self.history[end - 1].1
    }

    fn check(&self, txn: &Txn) {
        let model = self.model_at(txn.snapshot());
        for id in 0..300 {
            let key = self.table.key(&[Value::Int(id)]).unwrap();
            let row = self.serve(|e| e.get(txn, &self.table, &key)).unwrap();
            let count = row.map(|row| row.values().unwrap()[2].clone());
            let expected = model.get(&id).map(|count| Value::Int(*count));
            assert_eq!(count, expected, "row {id} at {}", txn.snapshot());
        }
    }

    fn begin(&self) -> Txn {
        let txn = self
            .serve(|e| e.begin(Mode::ReadOnly { at: None }))
            .unwrap();
        assert!(txn.snapshot() <= self.db.volume.vdl());
        txn
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { seed, changes } => self.write(seed, changes),
            Step::Durable { percent } => {
                let (vdl, numbered) = (self.db.volume.vdl(), self.db.volume.numbered());
                let lsn = vdl.0 + (numbered.0 - vdl.0) * u64::from(percent) / 100;
                self.db.volume.advance(Lsn(lsn));
            }
            Step::Follow { count } => self.follow(count.into()),
            Step::Read => self.check(&self.begin()),
            Step::View => {
                let view = self.begin();
                self.views.push(view);
            }
            Step::Late { page } => {
                let (page, at) = (PageId(page.into()), self.replica.readable());
                let version = self.db.volume.page_at(page, at);
                self.late.push((page, version, at));
            }
            Step::Arrive => {
                for (page, version, at) in std::mem::take(&mut self.late) {
                    self.replica.install(page, version, at).unwrap();
                }
            }
            Step::Evict => self.replica.evict_all(),
            Step::Forget => self.log.restart(self.pushed),
        }
    }

    /// Every page in the replica's cache is what storage has.
    fn check_heads(&self) {
        for head in self.replica.cached_heads() {
            let stored = self
                .db
                .volume
                .page_at(head.id(), self.replica.readable().max(head.lsn()));
            assert_eq!(*head, stored, "page {}", head.id());
        }
    }

    /// The replica takes over, with or without what the writer hands over, and writes.
    fn promote(mut self, hand_over: bool) {
        let mut open = self.db.run(|e| e.begin(Mode::ReadWrite)).unwrap();
        let row = |id, count| vec![Value::Int(id), Value::Null, Value::Int(count)];
        self.db
            .run(|e| e.upsert(&mut open, &self.table, row(7, 77)))
            .unwrap();
        let role = Role::Fenced {
            writer: "second".into(),
        };
        let handed = self.db.engine.retire(role);
        let refused = self.db.run(|e| e.begin(Mode::ReadWrite));
        assert!(
            matches!(refused, Err(EngineError::WriterMoved { writer: Some(by), .. }) if by == "second")
        );
        self.db.volume.advance_all();
        while self.replica.readable() < self.db.volume.vdl() {
            self.follow(usize::MAX);
        }
        self.check_heads();
        let last_time_us = handed.last_time_us();
        self.replica
            .promote(hand_over.then_some(handed), last_time_us);
        // The transaction that was open goes on at the new writer.
        let now = self.db.now();
        let moved = self.serve(|e| e.commit(&mut open, now, None));
        let mut model = self.history.last().unwrap().1.clone();
        match moved {
            Ok(_) => drop(model.insert(7, 77)),
            Err(error) => assert!(
                !hand_over && matches!(error.class(), aurora_engine::ErrorClass::Retry),
                "{error}"
            ),
        }
        let mut txn = self.serve(|e| e.begin(Mode::ReadWrite)).unwrap();
        for id in (0..300).step_by(3) {
            self.serve(|e| e.upsert(&mut txn, &self.table, row(id, -id)))
                .unwrap();
            model.insert(id, -id);
        }
        let now = self.db.now();
        let commit = self.serve(|e| e.commit(&mut txn, now, None)).unwrap();
        self.db.volume.advance_all();
        self.history.push((commit.lsn, model));
        self.check(&self.begin());
        self.check_heads();
        // And the old one follows.
        let at = self.db.volume.numbered();
        self.db.engine.rejoin(at);
        self.db.engine.become_replica("second", at);
        let refused = self.db.run(|e| e.begin(Mode::ReadWrite));
        assert!(
            matches!(refused, Err(EngineError::ReadOnlyInstance { writer }) if writer == "second")
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_replica_shows_what_was_durable_and_nothing_else(steps in steps(), hand_over in any::<bool>()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        for view in &world.views {
            world.check(view);
        }
        world.check_heads();
        world.promote(hand_over);
    }
}

/// A page that was fetched before a change passed must not be taken for the newest one.
#[test]
fn a_miss_in_flight_while_redo_passes_is_read_again() {
    let mut world = World::new();
    world.write(1, 29);
    world.db.volume.advance_all();
    world.follow(9);
    (0..40).for_each(|page| world.step(Step::Late { page }));
    world.write(1, 29);
    world.write(2, 29);
    world.db.volume.advance_all();
    world.follow(9);
    world.step(Step::Arrive);
    world.check(&world.begin());
    assert_eq!(world.replica.readable(), world.db.volume.vdl());
}

#[test]
fn a_replica_refuses_to_write_and_names_the_writer() {
    let world = World::new();
    let refused = world.serve(|e| e.begin(Mode::ReadWrite));
    assert!(matches!(refused, Err(EngineError::ReadOnlyInstance { writer }) if writer == "first"));
    let refused = world.serve(|e| e.create_table("t", people(), false, 1));
    assert!(matches!(refused, Err(EngineError::WriterMoved { .. })));
}

#[test]
fn a_crashed_engine_writes_no_more() {
    let world = World::new();
    world.db.engine.crash();
    assert!(world.db.engine.is_crashed() && !world.db.engine.is_writer());
    let refused = world.db.run(|e| e.begin(Mode::ReadWrite));
    assert!(matches!(
        refused,
        Err(EngineError::WriterMoved { writer: None, .. })
    ));
}
