//! The engine against a dictionary: random transactions over small pages, random eviction, a VDL that lags, crashes.

mod common;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use aurora_engine::{EngineError, Mode, RangeSpec, RowView, Table, Txn};
use aurora_page::{DataType, Geometry, KeyBuf, KeyPart, Lsn, Schema, Value, ValueRef};
use aurora_proto::Volume;
use common::{Db, Random, check, column};
use proptest::prelude::*;

type Model = BTreeMap<KeyBuf, Vec<Value>>;

#[derive(Clone, Debug)]
enum Step {
    /// One transaction: so many random changes within a window of keys; `false` rolls it back.
    Txn {
        seed: u64,
        changes: u8,
        window: u16,
        bias: u8,
        commit: bool,
    },
    /// Inserts so many keys in ascending order.
    Ascend {
        seed: u64,
        count: u8,
    },
    /// Deletes a stretch of keys.
    Clear {
        seed: u64,
        count: u8,
    },
    /// The VDL moves to here, of 100.
    Durable {
        percent: u8,
    },
    /// A view is opened, to be read again at the end.
    View,
    Evict,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<u64>(), 1..40u8, 1..2000u16, 0..3u8, prop::bool::weighted(0.9))
            .prop_map(|(seed, changes, window, bias, commit)| Step::Txn { seed, changes, window, bias, commit }),
        3 => (any::<u64>(), 1..120u8).prop_map(|(seed, count)| Step::Ascend { seed, count }),
        3 => (any::<u64>(), 1..200u8).prop_map(|(seed, count)| Step::Clear { seed, count }),
        3 => (0..=100u8).prop_map(|percent| Step::Durable { percent }),
        1 => Just(Step::View),
        2 => Just(Step::Evict),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

/// A compound key with a descending text, texts of any length, nulls.
fn schema() -> Schema {
    let columns = vec![
        column(1, "body", DataType::Text, true),
        column(2, "id", DataType::Int32, false),
        column(3, "group", DataType::Text, false),
        column(4, "blob", DataType::Bytes, true),
        column(
            5,
            "amount",
            DataType::Decimal {
                precision: 20,
                scale: 2,
            },
            true,
        ),
    ];
    let part = |column, descending| KeyPart { column, descending };
    Schema::new(1, columns, vec![part(2, true), part(1, false)]).unwrap()
}

fn row(random: &mut Random, id: i32) -> Vec<Value> {
    let mut text = |odds_long: u64| {
        let len = match random.below(odds_long) {
            0 => 100 + random.below(3000),
            1..=3 => random.below(120),
            _ => random.below(12),
        };
        "abcdefgh"
            .chars()
            .cycle()
            .skip(random.below(8) as usize)
            .take(len as usize)
            .collect::<String>()
    };
    let (body, blob) = (text(12), text(30).into_bytes());
    let nullable = |value, null| if null { Value::Null } else { value };
    let nulls = random.below(8);
    vec![
        nullable(Value::Text(body), nulls == 0),
        Value::Int(i64::from(id)),
        Value::Text(format!("g{}", id.rem_euclid(3))),
        nullable(Value::Bytes(blob), nulls % 2 == 1),
        nullable(Value::Decimal(i128::from(random.next() as i32)), nulls == 2),
    ]
}

struct World {
    db: Db,
    table: Arc<Table>,
    /// What every committed state was, by LSN.
    history: Vec<(Lsn, Model)>,
    views: Vec<(Lsn, Model, Txn)>,
    ascending: i32,
}

impl World {
    fn new(geometry: Geometry, evict_percent: u64) -> World {
        let config = aurora_engine::EngineConfig {
            cache_bytes: 64 * 1024,
            ..common::config()
        };
        let mut db = Db::with(geometry, config);
        db.evict_percent = evict_percent;
        let (table, commit) = db
            .run(|engine| engine.create_table("t", schema(), false, db.now()))
            .unwrap();
        db.volume.set_instant(false);
        World {
            db,
            table,
            history: vec![(commit.unwrap().lsn, Model::new())],
            views: vec![],
            ascending: 0,
        }
    }

    fn model(&self) -> &Model {
        &self.history.last().unwrap().1
    }

    fn key(&self, id: i32) -> KeyBuf {
        self.table
            .key(&[
                Value::Text(format!("g{}", id.rem_euclid(3))),
                Value::Int(i64::from(id)),
            ])
            .unwrap()
    }

    fn values(&self, view: &RowView, at: Lsn) -> Vec<Value> {
        let resolve = |value: Value| {
            let Value::Overflow(reference) = value else {
                return value;
            };
            let mut reader = aurora_engine::OverflowReader::new(reference, at);
            Value::Bytes(
                self.db
                    .run(|engine| engine.read_overflow_on(&mut reader))
                    .unwrap(),
            )
        };
        let mut values: Vec<Value> = view.values().unwrap().into_iter().map(resolve).collect();
        if let Value::Bytes(text) = &values[0] {
            values[0] = Value::Text(String::from_utf8(text.clone()).unwrap());
        }
        values
    }

    fn contents(&self, txn: &Txn, spec: RangeSpec) -> Vec<(KeyBuf, Vec<Value>)> {
        let mut cursor = self
            .db
            .run(|engine| engine.range(txn, &self.table, spec.clone()))
            .unwrap();
        let mut rows = vec![];
        while let Some(block) = self.db.run(|engine| cursor.next_block(engine)).unwrap() {
            for view in block.rows().unwrap() {
                let values = self.values(&view, txn.snapshot());
                rows.push((self.table.key_of(&values).unwrap(), values));
            }
        }
        rows
    }

    fn check_txn(&self, txn: &Txn, model: &Model, random: &mut Random) {
        let keys: Vec<&KeyBuf> = model.keys().collect();
        for _ in 0..4 {
            let id = random.below(2000) as i32;
            let key = if keys.is_empty() || random.below(2) == 0 {
                self.key(id)
            } else {
                keys[random.below(keys.len() as u64) as usize].clone()
            };
            let got = self
                .db
                .run(|engine| engine.get(txn, &self.table, &key))
                .unwrap();
            assert_eq!(
                got.map(|view| self.values(&view, txn.snapshot())).as_ref(),
                model.get(&key)
            );
        }
        let (a, b) = (
            self.key(random.below(2000) as i32),
            self.key(random.below(2000) as i32),
        );
        let (low, high) = (
            Bound::Included(a.clone().min(b.clone())),
            Bound::Excluded(a.max(b)),
        );
        let spec = RangeSpec {
            low: low.clone(),
            high: high.clone(),
            reverse: false,
            limit: None,
        };
        let expected: Vec<_> = match (&low, &high) {
            (Bound::Included(a), Bound::Excluded(b)) if a >= b => vec![],
            _ => model
                .range((low, high))
                .map(|(key, row)| (key.clone(), row.clone()))
                .collect(),
        };
        assert_eq!(self.contents(txn, spec.clone()), expected);
        let limit = random.below(20) as usize;
        let mut back = self.contents(
            txn,
            RangeSpec {
                reverse: true,
                limit: Some(limit),
                ..spec
            },
        );
        back.reverse();
        assert_eq!(back[..], expected[expected.len().saturating_sub(limit)..]);
    }

    fn change(&self, txn: &mut Txn, model: &mut Model, random: &mut Random, id: i32, bias: u8) {
        let (db, table, key) = (&self.db, &self.table, self.key(id));
        match (random.below(6) as u8).max(bias) {
            0 | 1 => {
                let row = row(random, id);
                let result = db.run(|engine| engine.insert(txn, table, row.clone()));
                match model.entry(key) {
                    Entry::Occupied(_) => {
                        assert!(
                            matches!(result, Err(EngineError::DuplicateKey { .. })),
                            "{result:?}"
                        );
                    }
                    Entry::Vacant(free) => {
                        result.unwrap();
                        free.insert(row);
                    }
                }
            }
            2 => {
                let row = row(random, id);
                db.run(|engine| engine.upsert(txn, table, row.clone()))
                    .unwrap();
                model.insert(key, row);
            }
            3 => {
                let new = row(random, id);
                let columns: &[u16] =
                    [&[0][..], &[4], &[0, 3], &[3, 4, 0]][random.below(4) as usize];
                let changes: Vec<_> = columns
                    .iter()
                    .map(|c| (*c, new[usize::from(*c)].clone()))
                    .collect();
                let found = db
                    .run(|engine| engine.update(txn, table, &key, changes.clone()))
                    .unwrap();
                assert_eq!(found, model.contains_key(&key));
                if let Some(row) = model.get_mut(&key) {
                    changes
                        .into_iter()
                        .for_each(|(column, value)| row[usize::from(column)] = value);
                }
            }
            _ => {
                let found = db.run(|engine| engine.delete(txn, table, &key)).unwrap();
                assert_eq!(found, model.remove(&key).is_some());
            }
        }
    }

    fn commit(&mut self, mut txn: Txn, model: Model) {
        let now = self.db.now();
        let commit = self
            .db
            .run(|engine| engine.commit(&mut txn, now, None))
            .unwrap();
        if commit.lsn > self.history.last().unwrap().0 {
            self.history.push((commit.lsn, model));
        } else {
            assert_eq!(model, *self.model());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Txn {
                seed,
                changes,
                window,
                bias,
                commit,
            } => {
                let mut random = Random(seed);
                let mut txn = self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
                let mut model = self.model().clone();
                let from = random.below(2000) as i32;
                for _ in 0..changes {
                    let id = (from + random.below(u64::from(window)) as i32) % 2000;
                    self.change(&mut txn, &mut model, &mut random, id, bias);
                }
                self.check_txn(&txn, &model, &mut random);
                if commit {
                    self.commit(txn, model);
                }
            }
            Step::Ascend { seed, count } => {
                let mut random = Random(seed);
                let mut txn = self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
                let mut model = self.model().clone();
                for _ in 0..count {
                    self.ascending += 3;
                    let row = row(&mut random, 2000 + self.ascending);
                    self.db
                        .run(|engine| engine.upsert(&mut txn, &self.table, row.clone()))
                        .unwrap();
                    model.insert(self.table.key_of(&row).unwrap(), row);
                }
                self.commit(txn, model);
            }
            Step::Clear { seed, count } => {
                let mut txn = self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
                let mut model = self.model().clone();
                let keys: Vec<KeyBuf> = model.keys().cloned().collect();
                let from = if keys.is_empty() {
                    0
                } else {
                    Random(seed).below(keys.len() as u64) as usize
                };
                for key in keys.iter().skip(from).take(count.into()) {
                    assert!(
                        self.db
                            .run(|engine| engine.delete(&mut txn, &self.table, key))
                            .unwrap()
                    );
                    model.remove(key);
                }
                self.commit(txn, model);
            }
            Step::Durable { percent } => {
                let (vdl, numbered) = (self.db.volume.vdl().0, self.db.volume.numbered().0);
                self.db
                    .volume
                    .advance(Lsn(vdl + (numbered - vdl) * u64::from(percent) / 100));
            }
            Step::View => {
                let txn = self
                    .db
                    .run(|engine| engine.begin(Mode::ReadOnly { at: None }))
                    .unwrap();
                assert!(txn.snapshot() <= self.db.volume.vdl(), "[15]");
                let state = self
                    .history
                    .iter()
                    .rev()
                    .find(|(lsn, _)| *lsn <= txn.snapshot())
                    .unwrap();
                let (at, model) = (txn.snapshot(), state.1.clone());
                assert_eq!(
                    self.contents(&txn, RangeSpec::default()),
                    Vec::from_iter(model.clone())
                );
                self.views.push((at, model, txn));
            }
            Step::Evict => self.db.engine.evict_all(),
            Step::Crash => self.crash(),
        }
    }

    fn crash(&mut self) {
        self.check_views();
        self.views.clear();
        let vdl = self.db.volume.vdl();
        self.history.retain(|(lsn, _)| *lsn <= vdl);
        let fresh = Db::new(Geometry::new(1024, 64));
        self.db = std::mem::replace(&mut self.db, fresh).crash();
        let at = self.db.engine.readable();
        self.table = self
            .db
            .run(|engine| engine.table("t", at))
            .unwrap()
            .unwrap();
    }

    /// A view at an LSN always reads the same.
    fn check_views(&self) {
        for (_, model, txn) in &self.views {
            assert_eq!(
                self.contents(txn, RangeSpec::default()),
                Vec::from_iter(model.clone())
            );
        }
        // And so does a new one at an old LSN.
        if let Some((at, model)) = self
            .history
            .iter()
            .rev()
            .nth(3)
            .filter(|(at, _)| *at <= self.db.engine.readable())
        {
            let txn = self
                .db
                .run(|engine| engine.begin(Mode::ReadOnly { at: Some(*at) }))
                .unwrap();
            assert_eq!(
                self.contents(&txn, RangeSpec::default()),
                Vec::from_iter(model.clone())
            );
        }
    }

    fn check_all(&self) {
        self.check_views();
        let txn = self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
        let contents = self.contents(&txn, RangeSpec::default());
        assert_eq!(contents, Vec::from_iter(self.model().clone()));
        for (_, row) in contents {
            assert!(!matches!(row[0].as_ref(), ValueRef::Overflow(_)));
        }
        check::everything(&self.db);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_is_a_dictionary(steps in steps(), evict in prop_oneof![Just(0u64), Just(5), Just(40)]) {
        // 1 KiB pages: a handful of rows per leaf, trees of four levels, segments of 64 pages.
        let mut world = World::new(Geometry::new(1024, 64), evict);
        for step in steps {
            world.step(step);
        }
        world.check_all();
        world.crash();
        world.check_all();
    }

    #[test]
    fn the_engine_is_a_dictionary_on_real_pages(steps in steps()) {
        let mut world = World::new(Geometry::new(16 * 1024, 256), 10);
        for step in steps {
            world.step(step);
        }
        world.check_all();
    }
}

#[test]
fn an_empty_database_survives_a_crash_under_constant_eviction() {
    let mut world = World::new(Geometry::new(1024, 64), 40);
    world.check_all();
    world.crash();
    world.check_all();
}
