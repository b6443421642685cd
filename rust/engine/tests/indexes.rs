//! Indexes against a model: after any transactions, conflicts, builds under load and crashes, table and indexes agree.

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use aurora_engine::{
    Engine, EngineError, IndexBuild, IndexSource, IndexSpec, Mode, RangeSpec, RowView, Table,
    TableSpec, Txn,
};
use aurora_page::{DataType, Geometry, KeyBuf, Schema, Value};
use common::{Db, Random, check, column, key};
use proptest::prelude::*;

type Rows = BTreeMap<i64, Vec<Value>>;

const IDS: u64 = 300;

/// id, a group of few values or null, an email of many values or null, a text that may be long.
fn schema() -> Schema {
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "group", DataType::Int32, true),
        column(3, "email", DataType::Text, true),
        column(4, "note", DataType::Text, false),
    ];
    Schema::new(1, columns, key(&[0])).unwrap()
}

fn spec(name: &str, columns: &[(u16, bool)], unique: bool) -> IndexSpec {
    IndexSpec::by(name, columns, unique)
}

fn by_group() -> IndexSpec {
    spec("by_group", &[(1, true), (2, false)], false)
}

fn by_email() -> IndexSpec {
    spec("by_email", &[(2, false)], true)
}

fn row(random: &mut Random, id: i64) -> Vec<Value> {
    let nullable = |value, odds: u64, random: &mut Random| {
        if random.below(odds) == 0 {
            Value::Null
        } else {
            value
        }
    };
    let group = Value::Int(random.below(5) as i64);
    let email = Value::Text(format!("{:03}@x", random.below(400)));
    let note = "n".repeat(random.below(40) as usize + if random.below(20) == 0 { 900 } else { 0 });
    vec![
        Value::Int(id),
        nullable(group, 6, random),
        nullable(email, 4, random),
        Value::Text(note),
    ]
}

/// Whether another row has the email.
fn taken(rows: &Rows, id: i64, email: &Value) -> bool {
    *email != Value::Null
        && rows
            .iter()
            .any(|(other, row)| *other != id && row[2] == *email)
}

struct World {
    db: Db,
    table: Arc<Table>,
    rows: Rows,
    builds: Vec<IndexBuild>,
}

#[derive(Clone, Debug)]
enum Step {
    Txn {
        seed: u64,
        changes: u8,
        commit: bool,
    },
    /// Two transactions at once; whoever commits second may be refused.
    Race {
        seed: u64,
    },
    Begin {
        group: bool,
    },
    Build {
        steps: u8,
    },
    Drop {
        group: bool,
    },
    Evict,
    Durable,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<u64>(), 1..30u8, prop::bool::weighted(0.85))
            .prop_map(|(seed, changes, commit)| Step::Txn { seed, changes, commit }),
        4 => any::<u64>().prop_map(|seed| Step::Race { seed }),
        3 => any::<bool>().prop_map(|group| Step::Begin { group }),
        5 => (1..4u8).prop_map(|steps| Step::Build { steps }),
        1 => any::<bool>().prop_map(|group| Step::Drop { group }),
        2 => Just(Step::Evict),
        1 => Just(Step::Durable),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

impl World {
    fn new(geometry: Geometry, evict_percent: u64, declared: bool) -> World {
        let mut db = Db::new(geometry);
        db.evict_percent = evict_percent;
        let indexes = if declared {
            vec![by_group(), by_email()]
        } else {
            vec![]
        };
        let spec = TableSpec {
            indexes,
            ..TableSpec::new(schema())
        };
        let made = db.run(|engine| engine.create_table_with("t", &spec, false, db.now()));
        let (table, rows) = (made.unwrap().0, Rows::new());
        db.volume.set_instant(false);
        World {
            db,
            table,
            rows,
            builds: vec![],
        }
    }

    fn begin(&self) -> Txn {
        self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap()
    }

    fn head(&self) -> Arc<Table> {
        let at = self.db.engine.published();
        self.db
            .run(|engine| engine.table("t", at))
            .unwrap()
            .unwrap()
    }

    fn is_unique(&self) -> bool {
        self.head().index("by_email").is_some()
    }

    /// Random changes; `rows` follows. What a unique index refuses is refused, and leaves the transaction as it was.
    fn change(&self, txn: &mut Txn, rows: &mut Rows, random: &mut Random, readable: bool) {
        let id = random.below(IDS) as i64;
        let (db, table, key) = (
            &self.db,
            &self.table,
            self.table.key(&[Value::Int(id)]).unwrap(),
        );
        let new = row(random, id);
        let duplicate = |result: Result<(), EngineError>, email: &Value, rows: &Rows| match result {
            Ok(()) => true,
            Err(EngineError::DuplicateKey { index, .. }) => {
                assert_eq!(index.as_deref(), Some("by_email"));
                assert!(taken(rows, id, email), "{email:?} is not there");
                false
            }
            // The other of two has the row.
            Err(EngineError::LockTimeout { .. }) => false,
            Err(other) => panic!("{other}"),
        };
        match random.below(4) {
            0 if !rows.contains_key(&id) => {
                let result = db.run(|engine| engine.insert(txn, table, new.clone()));
                if duplicate(result, &new[2], rows) {
                    assert!(!(readable && taken(rows, id, &new[2])));
                    rows.insert(id, new);
                }
            }
            0 | 1 => {
                let result = db.run(|engine| engine.upsert(txn, table, new.clone()));
                if duplicate(result, &new[2], rows) {
                    assert!(!(readable && taken(rows, id, &new[2])));
                    rows.insert(id, new);
                }
            }
            2 => {
                let changes = match random.below(3) {
                    0 => vec![(1, new[1].clone())],
                    1 => vec![(2, new[2].clone())],
                    _ => vec![
                        (1, new[1].clone()),
                        (2, new[2].clone()),
                        (3, new[3].clone()),
                    ],
                };
                let email = changes.iter().find(|(column, _)| *column == 2);
                let email = email.map_or(Value::Null, |(_, email)| email.clone());
                let result = db.run(|engine| engine.update(txn, table, &key, changes.clone()));
                let result = result.map(|found| assert_eq!(found, rows.contains_key(&id)));
                if duplicate(result, &email, rows)
                    && let Some(row) = rows.get_mut(&id)
                {
                    for (column, value) in changes {
                        row[usize::from(column)] = value;
                    }
                }
            }
            _ => match db.run(|engine| engine.delete(txn, table, &key)) {
                Err(EngineError::LockTimeout { .. }) => {}
                found => assert_eq!(found.unwrap(), rows.remove(&id).is_some()),
            },
        }
    }

    /// Whether the unique index can be read by a transaction that begins now.
    fn unique_is_ready(&self) -> bool {
        self.head()
            .index("by_email")
            .is_some_and(|index| index.is_ready())
    }

    fn commit(&mut self, mut txn: Txn, rows: Rows) -> Result<(), EngineError> {
        let now = self.db.now();
        self.db.run(|engine| engine.commit(&mut txn, now, None))?;
        self.rows = rows;
        Ok(())
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Txn {
                seed,
                changes,
                commit,
            } => {
                let mut random = Random(seed);
                let (mut txn, mut rows) = (self.begin(), self.rows.clone());
                let ready = self.unique_is_ready();
                for _ in 0..changes {
                    self.change(&mut txn, &mut rows, &mut random, ready);
                }
                self.agree(&txn, &rows);
                if commit {
                    // While the unique index is built, its duplicates are found at the commit.
                    let duplicates = self.is_unique() && has_duplicates(&rows);
                    match self.commit(txn, rows) {
                        Ok(()) => {}
                        Err(EngineError::DuplicateKey { .. }) => assert!(duplicates && !ready),
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            Step::Race { seed } => self.race(seed),
            Step::Begin { group } => {
                let spec = if group { by_group() } else { by_email() };
                let (table, now) = (self.table.clone(), self.db.now());
                match self.db.run(|engine| engine.begin_index(&table, &spec, now)) {
                    Ok(build) => self.builds.push(build),
                    Err(EngineError::IndexExists { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Build { steps } => self.build(steps),
            Step::Drop { group } => {
                let name = if group { "by_group" } else { "by_email" };
                let (table, now) = (self.table.clone(), self.db.now());
                self.db
                    .run(|engine| engine.drop_index(&table, name, now))
                    .unwrap();
            }
            Step::Evict => self.db.engine.evict_all(),
            Step::Durable => self.db.volume.advance_all(),
            Step::Crash => self.crash(),
        }
    }

    /// Two transactions from one snapshot: the rows of one may be refused because of the other, never both wrong.
    fn race(&mut self, seed: u64) {
        let mut random = Random(seed);
        let ready = self.unique_is_ready();
        let (mut first, mut second) = (self.begin(), self.begin());
        let (mut a, mut b) = (self.rows.clone(), self.rows.clone());
        for _ in 0..4 {
            self.change(&mut first, &mut a, &mut random, ready);
            self.change(&mut second, &mut b, &mut random, ready);
        }
        let before = self.rows.clone();
        for (txn, rows) in [(first, a), (second, b)] {
            // What this one changed, on top of what is there.
            let mut merged = self.rows.clone();
            for id in 0..IDS as i64 {
                if before.get(&id) != rows.get(&id) {
                    match rows.get(&id) {
                        Some(row) => merged.insert(id, row.clone()),
                        None => merged.remove(&id),
                    };
                }
            }
            let unique = self.is_unique();
            let duplicates = has_duplicates(&merged);
            match self.commit(txn, merged) {
                Ok(()) => assert!(!(ready && duplicates), "two rows of one email"),
                Err(EngineError::WriteConflict { .. }) => {}
                Err(EngineError::DuplicateKey { .. }) => assert!(unique && duplicates && !ready),
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn build(&mut self, steps: u8) {
        let Some(mut build) = self.builds.pop() else {
            return;
        };
        for _ in 0..steps {
            let now = self.db.now();
            let result = self.db.run(|engine| engine.index_step(&mut build, now));
            match result {
                Ok(progress) if progress.done => {
                    let now = self.db.now();
                    let finished = self.db.run(|engine| engine.finish_index(&build, now));
                    // A build of an index that was dropped, and perhaps made anew, may see so only here.
                    match finished {
                        Ok(_) | Err(EngineError::UnknownIndex { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                    return;
                }
                Ok(_) => {}
                Err(EngineError::UnknownIndex { .. }) => return,
                Err(EngineError::DuplicateKey { index, .. }) => {
                    assert_eq!(index.as_deref(), Some("by_email"));
                    assert!(has_duplicates(&self.rows));
                    let now = self.db.now();
                    self.db
                        .run(|engine| engine.abandon_index(&build, now))
                        .unwrap();
                    return;
                }
                Err(other) => panic!("{other}"),
            }
        }
        self.builds.push(build);
    }

    fn crash(&mut self) {
        self.db.volume.advance_all();
        self.builds.clear();
        let fresh = Db::new(Geometry::new(1024, 64));
        self.db = std::mem::replace(&mut self.db, fresh).crash();
        while self.db.run(|engine| engine.sweep(self.db.now())).unwrap() {}
        self.table = self.head();
        assert!(self.table.indexes.iter().all(|index| index.is_ready()));
    }

    /// Every index that can be read gives the rows in its order, as sorting them does.
    fn agree(&self, txn: &Txn, rows: &Rows) {
        let head = self.head();
        for index in &head.indexes {
            let opened = self
                .db
                .run(|engine| engine.index_range(txn, &head, index, RangeSpec::default()));
            if !index.is_ready() {
                assert!(matches!(opened, Err(EngineError::UnknownIndex { .. })));
                continue;
            }
            let mut expected: Vec<(KeyBuf, Vec<Value>)> = rows
                .values()
                .map(|row| {
                    let mut entry: Vec<Value> = index
                        .parts()
                        .map(|(source, _)| match source {
                            IndexSource::Column(column) => row[usize::from(*column)].clone(),
                            IndexSource::Expr(_) => panic!("an index by columns"),
                        })
                        .collect();
                    entry.push(row[0].clone());
                    (index.tree.key(&entry).unwrap(), row.clone())
                })
                .collect();
            expected.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            self.compare(txn, &head, index.name(), &expected, RangeSpec::default());
            let Some((middle, _)) = expected.get(expected.len() / 2) else {
                continue;
            };
            let spec = RangeSpec {
                low: Bound::Included(middle.clone()),
                reverse: true,
                limit: Some(7),
                ..RangeSpec::default()
            };
            let mut tail = expected[expected.len() / 2..].to_vec();
            tail.reverse();
            tail.truncate(7);
            self.compare(txn, &head, index.name(), &tail, spec);
            if index.def.unique {
                let (_, row) = &expected[expected.len() / 2];
                if row[2] != Value::Null {
                    let prefix = index.tree.key(&row[2..3]).unwrap();
                    let got = self
                        .db
                        .run(|engine| engine.index_get(txn, &head, index, &prefix))
                        .unwrap();
                    assert_eq!(self.values(txn, &got.unwrap()), *row);
                }
            }
        }
    }

    fn compare(
        &self,
        txn: &Txn,
        head: &Arc<Table>,
        index: &str,
        expected: &[(KeyBuf, Vec<Value>)],
        spec: RangeSpec,
    ) {
        let index = head.index(index).unwrap();
        let mut cursor = self
            .db
            .run(|engine| engine.index_range(txn, head, index, spec.clone()))
            .unwrap();
        let mut got = vec![];
        while let Some(rows) = self.db.run(|engine| cursor.next_rows(engine, txn)).unwrap() {
            got.extend(rows.iter().map(|row| self.values(txn, row)));
        }
        let expected: Vec<_> = expected.iter().map(|(_, row)| row.clone()).collect();
        assert_eq!(got, expected, "{spec:?} of {}", index.name());
    }

    fn values(&self, txn: &Txn, row: &RowView) -> Vec<Value> {
        let long = |value: Value| match value {
            Value::Overflow(reference) => {
                let bytes = self
                    .db
                    .run(|engine| engine.read_overflow(txn.snapshot(), reference));
                Value::Text(String::from_utf8(bytes.unwrap()).unwrap())
            }
            value => value,
        };
        row.values().unwrap().into_iter().map(long).collect()
    }

    fn check_all(&mut self) {
        while !self.builds.is_empty() {
            self.build(200);
        }
        let txn = self.begin();
        self.agree(&txn, &self.rows);
        let head = self.head();
        for index in &head.indexes {
            assert!(index.is_ready());
            assert_eq!(check::row_count(&self.db, &index.tree), self.rows.len());
        }
        if self.is_unique() {
            assert!(!has_duplicates(&self.rows));
        }
        drop(txn);
        check::everything(&self.db);
    }
}

fn has_duplicates(rows: &Rows) -> bool {
    rows.iter().any(|(id, row)| taken(rows, *id, &row[2]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn table_and_indexes_agree(steps in steps(), evict in prop_oneof![Just(0u64), Just(5), Just(40)], declared: bool) {
        let mut world = World::new(Geometry::new(1024, 64), evict, declared);
        for step in steps {
            world.step(step);
        }
        world.check_all();
        world.crash();
        world.check_all();
    }
}

fn person(id: i64, email: &str) -> Vec<Value> {
    vec![
        Value::Int(id),
        Value::Null,
        Value::Text(email.into()),
        Value::Text(String::new()),
    ]
}

/// Neither sees the other's row, which was not there; only one may commit.
#[test]
fn two_concurrent_inserts_of_one_unique_value_do_not_both_commit() {
    let mut world = World::new(Geometry::new(1024, 64), 0, true);
    let (mut first, mut second) = (world.begin(), world.begin());
    for (txn, id) in [(&mut first, 1), (&mut second, 2)] {
        world
            .db
            .run(|engine| engine.insert(txn, &world.table, person(id, "ann@x")))
            .unwrap();
    }
    world.commit(first, Rows::new()).unwrap();
    let refused = world.commit(second, Rows::new()).unwrap_err();
    assert!(
        matches!(&refused, EngineError::WriteConflict { key, .. } if key.contains("by_email")),
        "{refused}"
    );
    let mut again = world.begin();
    let refused = world
        .db
        .run(|engine| engine.insert(&mut again, &world.table, person(2, "ann@x")))
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "table \"t\", index \"by_email\": expected no row with key (\"ann@x\"), got one"
    );
    // And the transaction goes on.
    world
        .db
        .run(|engine| engine.insert(&mut again, &world.table, person(2, "bob@x")))
        .unwrap();
    world.commit(again, Rows::new()).unwrap();
}

/// A unique value may move from one row to another within a transaction.
#[test]
fn a_unique_value_can_change_hands_in_one_transaction() {
    let mut world = World::new(Geometry::new(1024, 64), 0, true);
    let mut txn = world.begin();
    for (id, email) in [(1, "a"), (2, "b")] {
        world
            .db
            .run(|engine| engine.insert(&mut txn, &world.table, person(id, email)))
            .unwrap();
    }
    world.commit(txn, Rows::new()).unwrap();
    let mut txn = world.begin();
    for (id, email) in [(2, "c"), (1, "b"), (2, "a")] {
        let key = world.table.key(&[Value::Int(id)]).unwrap();
        let changes = vec![(2, Value::Text(email.into()))];
        world
            .db
            .run(|engine| engine.update(&mut txn, &world.table, &key, changes.clone()))
            .unwrap();
    }
    let rows = Rows::from([(1, person(1, "b")), (2, person(2, "a"))]);
    world.commit(txn, rows).unwrap();
    world.check_all();
}

/// The state at which it became ready is the first at which it can be read.
#[test]
fn an_old_snapshot_does_not_read_an_index_that_is_younger() {
    let mut world = World::new(Geometry::new(1024, 64), 0, false);
    let old = world.begin();
    world.step(Step::Begin { group: true });
    world.build(200);
    let head = world.head();
    let index = head.index("by_group").unwrap();
    let refused = world
        .db
        .run(|engine| engine.index_range(&old, &head, index, RangeSpec::default()));
    assert!(matches!(refused, Err(EngineError::UnknownIndex { .. })));
    let new = world.begin();
    world
        .db
        .run(|engine| engine.index_range(&new, &head, index, RangeSpec::default()))
        .unwrap();
}

/// An index that is dropped between two changes of a transaction has entries of the first one only.
#[test]
fn an_index_without_entries_of_all_changes_is_not_read() {
    let world = World::new(Geometry::new(1024, 64), 0, true);
    let mut txn = world.begin();
    let index = world.head().index("by_email").unwrap().clone();
    let read = |txn: &Txn| {
        world.db.run(|engine| {
            let mut cursor = engine.index_range(txn, &world.table, &index, RangeSpec::default())?;
            Ok(cursor.next_rows(engine, txn)?.map_or(0, |rows| rows.len()))
        })
    };
    let insert = |txn: &mut Txn, id, email| {
        let row = person(id, email);
        world
            .db
            .run(|engine| engine.insert(txn, &world.table, row.clone()))
            .unwrap();
    };
    insert(&mut txn, 1, "ann@x");
    let now = world.db.now();
    let drop = |engine: &_| Engine::drop_index(engine, &world.table, "by_email", now);
    world.db.run(drop).unwrap().unwrap();
    // The snapshot is older, and everything that it has is in the index.
    assert_eq!(read(&txn), Ok(1));
    insert(&mut txn, 2, "bob@x");
    assert!(matches!(read(&txn), Err(EngineError::UnknownIndex { .. })));
}

#[test]
fn dropping_a_table_gives_back_the_extents_of_its_indexes() {
    let mut world = World::new(Geometry::new(1024, 64), 0, true);
    for seed in 0..20 {
        world.step(Step::Txn {
            seed,
            changes: 29,
            commit: true,
        });
    }
    let table = world.head();
    assert!(
        table
            .indexes
            .iter()
            .all(|index| check::page_count(&world.db, &index.tree) > 3)
    );
    let now = world.db.now();
    world
        .db
        .run(|engine| engine.drop_table("t", now))
        .unwrap()
        .unwrap();
    while world.db.run(|engine| engine.sweep(world.db.now())).unwrap() {}
    let at = world.db.engine.published();
    for index in &table.indexes {
        assert!(
            world
                .db
                .run(|engine| engine.extents_of(&index.tree, at))
                .unwrap()
                .is_empty()
        );
    }
    check::everything(&world.db);
}

#[test]
fn values_too_long_for_a_key_are_refused_and_named() {
    let world = World::new(Geometry::new(16 * 1024, 64), 0, true);
    let mut txn = world.begin();
    let long = "x".repeat(2000);
    let refused = world
        .db
        .run(|engine| engine.insert(&mut txn, &world.table, person(1, &long)))
        .unwrap_err();
    assert!(
        refused.to_string().starts_with("table \"t\", index \"by_"),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("at most 1024 bytes"),
        "{refused}"
    );
    world
        .db
        .run(|engine| engine.insert(&mut txn, &world.table, person(1, "short")))
        .unwrap();
}

/// A row that no key takes fails the build; until then writers go on, also with that row.
#[test]
fn a_build_over_a_value_too_long_fails_and_leaves_nothing() {
    let mut world = World::new(Geometry::new(1024, 64), 0, false);
    let mut txn = world.begin();
    world
        .db
        .run(|engine| engine.insert(&mut txn, &world.table, person(1, &"x".repeat(2000))))
        .unwrap();
    world.commit(txn, Rows::new()).unwrap();
    world.step(Step::Begin { group: false });
    let mut txn = world.begin();
    let key = world.table.key(&[Value::Int(1)]).unwrap();
    let changes = vec![(1, Value::Int(4))];
    let refused = world
        .db
        .run(|engine| engine.update(&mut txn, &world.table, &key, changes.clone()));
    assert!(matches!(refused, Err(EngineError::IndexKey { .. })));
    world
        .db
        .run(|engine| engine.delete(&mut txn, &world.table, &key))
        .unwrap();
    drop(txn);
    let (mut build, now) = (world.builds.pop().unwrap(), world.db.now());
    let failed = world
        .db
        .run(|engine| engine.index_step(&mut build, now))
        .unwrap_err();
    assert!(matches!(failed, EngineError::IndexKey { .. }), "{failed}");
    world
        .db
        .run(|engine| engine.abandon_index(&build, now))
        .unwrap();
    assert!(world.head().indexes.is_empty());
    check::everything(&world.db);
}
