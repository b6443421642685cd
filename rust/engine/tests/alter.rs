//! Tables that change, against a model that rewrites every row at once: random definitions among writes, splits, merges,
//! crashes, and views of every earlier state with the definition of that time.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_engine::{
    Alter, EngineError, IndexSpec, Mode, RangeSpec, RowView, Table, TableSpec, Txn,
};
use aurora_page::{DataType, Geometry, Lsn, Schema, Value};
use common::{Db, Random, check, column, key};
use proptest::prelude::*;

/// A row by column name: what an application sees.
type Row = BTreeMap<String, Value>;
type Rows = BTreeMap<i64, Row>;

#[derive(Clone, Debug)]
enum Step {
    Write { seed: u64, changes: u8 },
    Clear { seed: u64, count: u8 },
    Alter { seed: u64 },
    Truncate,
    Evict,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (any::<u64>(), 1..60u8).prop_map(|(seed, changes)| Step::Write { seed, changes }),
        2 => (any::<u64>(), 1..120u8).prop_map(|(seed, count)| Step::Clear { seed, count }),
        6 => any::<u64>().prop_map(|seed| Step::Alter { seed }),
        1 => Just(Step::Truncate),
        2 => Just(Step::Evict),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

fn schema() -> Schema {
    let columns = vec![
        column(0, "id", DataType::Int64, false),
        column(1, "text", DataType::Text, true),
        column(2, "small", DataType::Int8, false),
    ];
    Schema::new(1, columns, key(&[0])).unwrap()
}

fn value(random: &mut Random, data_type: DataType) -> Value {
    match data_type {
        DataType::Int8 => Value::Int(random.next() as i8 as i64),
        DataType::Int16 => Value::Int(random.next() as i16 as i64),
        DataType::Int32 => Value::Int(random.next() as i32 as i64),
        DataType::Int64 => Value::Int(random.next() as i64),
        DataType::Float32 => Value::Float32(random.next() as i16 as f32 / 4.0),
        DataType::Float64 => Value::Float64(random.next() as i32 as f64 / 8.0),
        DataType::Decimal { precision, .. } => {
            let max = aurora_page::decimal_max(precision.min(18));
            Value::Decimal(i128::from(random.next() as i64) % max)
        }
        DataType::Text => {
            let len = match random.below(12) {
                0 => 200 + random.below(2500),
                _ => random.below(30),
            };
            Value::Text("abcdefg".chars().cycle().take(len as usize).collect())
        }
        other => panic!("no values of {other}"),
    }
}

fn wider(data_type: DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int8 => DataType::Int16,
        DataType::Int16 => DataType::Int64,
        DataType::Float32 => DataType::Float64,
        DataType::Decimal {
            precision: 10,
            scale: 2,
        } => DataType::Decimal {
            precision: 20,
            scale: 5,
        },
        _ => return None,
    })
}

fn widened(value: &Value, from: DataType, to: DataType) -> Value {
    match (value, from, to) {
        (Value::Float32(value), ..) => Value::Float64(f64::from(*value)),
        (
            Value::Decimal(unscaled),
            DataType::Decimal { scale, .. },
            DataType::Decimal { scale: finer, .. },
        ) => Value::Decimal(unscaled * 10i128.pow(u32::from(finer - scale))),
        (value, ..) => value.clone(),
    }
}

struct World {
    db: Db,
    table: Arc<Table>,
    name: String,
    /// Every committed state, by LSN, with the name and the columns that the table had.
    history: Vec<(Lsn, String, Vec<String>, Rows)>,
    columns_made: u32,
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
        let mut world = World {
            db,
            table,
            name: "t".into(),
            history: vec![],
            columns_made: 0,
        };
        world.note(commit.unwrap().lsn, Rows::new());
        world
    }

    fn rows(&self) -> Rows {
        self.history.last().unwrap().3.clone()
    }

    fn names(&self) -> Vec<String> {
        let columns = self.table.schema.columns().iter();
        columns.map(|column| column.name.clone()).collect()
    }

    fn note(&mut self, lsn: Lsn, rows: Rows) {
        self.history
            .push((lsn, self.name.clone(), self.names(), rows));
    }

    fn resolve(&self, view: &RowView, at: Lsn) -> Vec<Value> {
        let resolve = |value: Value| {
            let Value::Overflow(reference) = value else {
                return value;
            };
            let mut reader = aurora_engine::OverflowReader::new(reference, at);
            let bytes = self.db.run(|engine| engine.read_overflow_on(&mut reader));
            Value::Text(String::from_utf8(bytes.unwrap()).unwrap())
        };
        view.values().unwrap().into_iter().map(resolve).collect()
    }

    fn contents(&self, txn: &Txn, table: &Arc<Table>) -> Rows {
        let spec = RangeSpec::default();
        let mut cursor = self
            .db
            .run(|engine| engine.range(txn, table, spec.clone()))
            .unwrap();
        let mut rows = Rows::new();
        while let Some(block) = self.db.run(|engine| cursor.next_block(engine)).unwrap() {
            if let Some((page, _)) = block.leaf() {
                assert_eq!(page.schema_version(), table.schema.version);
            }
            for view in block.rows().unwrap() {
                let values = self.resolve(&view, txn.snapshot());
                let names = table
                    .schema
                    .columns()
                    .iter()
                    .map(|column| column.name.clone());
                let Value::Int(id) = values[0] else { panic!() };
                rows.insert(id, names.zip(values).collect());
            }
        }
        rows
    }

    fn write(&mut self, seed: u64, changes: u8) {
        let mut random = Random(seed);
        let mut txn = self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
        let mut rows = self.rows();
        let columns = self.table.schema.columns().to_vec();
        for _ in 0..changes {
            let id = random.below(400) as i64;
            let key = self.table.key(&[Value::Int(id)]).unwrap();
            if random.below(8) == 0 {
                let found = self
                    .db
                    .run(|engine| engine.delete(&mut txn, &self.table, &key))
                    .unwrap();
                assert_eq!(found, rows.remove(&id).is_some());
                continue;
            }
            let mut new: Vec<Value> = columns
                .iter()
                .map(|column| match random.below(5) {
                    0 if column.nullable => Value::Null,
                    _ => value(&mut random, column.data_type),
                })
                .collect();
            new[0] = Value::Int(id);
            if random.below(2) == 0 && columns.len() > 1 && rows.contains_key(&id) {
                let at = 1 + random.below(columns.len() as u64 - 1) as usize;
                let change = vec![(at as u16, new[at].clone())];
                let found = self
                    .db
                    .run(|engine| engine.update(&mut txn, &self.table, &key, change.clone()));
                assert!(found.unwrap());
                let row = rows.get_mut(&id).unwrap();
                row.insert(columns[at].name.clone(), new[at].clone());
            } else {
                self.db
                    .run(|engine| engine.upsert(&mut txn, &self.table, new.clone()))
                    .unwrap();
                let names = columns.iter().map(|column| column.name.clone());
                rows.insert(id, names.zip(new).collect());
            }
        }
        assert_eq!(self.contents(&txn, &self.table), rows);
        self.commit(txn, rows);
    }

    fn clear(&mut self, seed: u64, count: u8) {
        let mut rows = self.rows();
        let mut txn = self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
        let skip = Random(seed).below(rows.len() as u64 + 1) as usize;
        let ids: Vec<i64> = rows.keys().copied().skip(skip).take(count.into()).collect();
        for id in ids {
            let key = self.table.key(&[Value::Int(id)]).unwrap();
            let found = self
                .db
                .run(|engine| engine.delete(&mut txn, &self.table, &key));
            assert!(found.unwrap());
            rows.remove(&id);
        }
        self.commit(txn, rows);
    }

    fn commit(&mut self, mut txn: Txn, rows: Rows) {
        let now = self.db.now();
        let commit = self
            .db
            .run(|engine| engine.commit(&mut txn, now, None))
            .unwrap();
        if commit.lsn > self.history.last().unwrap().0 {
            self.note(commit.lsn, rows);
        }
    }

    /// A change of the definition, and what it makes of the rows.
    fn change(&mut self, seed: u64) -> (Alter, Rows) {
        let mut random = Random(seed);
        let mut rows = self.rows();
        let columns = self.table.schema.columns();
        let chosen = &columns[random.below(columns.len() as u64) as usize];
        let name = chosen.name.clone();
        self.columns_made += 1;
        let fresh = format!("c{}", self.columns_made);
        match random.below(6) {
            0 if chosen.id != 0 => {
                rows.values_mut().for_each(|row| drop(row.remove(&name)));
                (Alter::DropColumn { name }, rows)
            }
            1 => {
                for row in rows.values_mut() {
                    let value = row.remove(&name).unwrap();
                    row.insert(fresh.clone(), value);
                }
                (Alter::RenameColumn { name, to: fresh }, rows)
            }
            2 if chosen.id != 0 && wider(chosen.data_type).is_some() => {
                let (from, to) = (chosen.data_type, wider(chosen.data_type).unwrap());
                for row in rows.values_mut() {
                    let value = widened(&row[&name], from, to);
                    row.insert(name.clone(), value);
                }
                (Alter::WidenColumn { name, to }, rows)
            }
            3 => (Alter::Rename { to: fresh }, rows),
            _ => {
                let types = [
                    DataType::Int8,
                    DataType::Float32,
                    DataType::Decimal {
                        precision: 10,
                        scale: 2,
                    },
                    DataType::Text,
                    DataType::Int64,
                ];
                let data_type = types[random.below(types.len() as u64) as usize];
                let nullable = random.below(2) == 0;
                let initial = match (nullable, data_type) {
                    (true, _) if random.below(2) == 0 => Value::Null,
                    (_, DataType::Text) => Value::Text("new".into()),
                    (_, DataType::Decimal { .. }) => Value::Decimal(150),
                    _ => value(&mut random, data_type),
                };
                for row in rows.values_mut() {
                    row.insert(fresh.clone(), initial.clone());
                }
                let name = fresh;
                (
                    Alter::AddColumn {
                        name,
                        data_type,
                        nullable,
                        initial,
                    },
                    rows,
                )
            }
        }
    }

    fn alter(&mut self, seed: u64) {
        // A table of 1 KiB pages has room for few columns.
        if self.table.schema.columns().len() > 7 && seed % 6 > 2 {
            return;
        }
        let (change, rows) = self.change(seed);
        let now = self.db.now();
        let stale = self.table.clone();
        let mut open = self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
        let old_row = |id: i64| {
            let columns = stale.schema.columns().iter();
            columns
                .map(|column| match column.data_type {
                    _ if column.id == 0 => Value::Int(id),
                    data_type => value(&mut Random(seed), data_type),
                })
                .collect::<Vec<Value>>()
        };
        self.db
            .run(|engine| engine.upsert(&mut open, &stale, old_row(401)))
            .unwrap();
        let altered = self
            .db
            .run(|engine| engine.alter_table(&self.name, &change, now));
        let (table, commit) = match altered {
            Ok(altered) => altered,
            Err(EngineError::SchemaTooWide { .. } | EngineError::InitialsTooLarge { .. }) => return,
            Err(error) => panic!("{change:?}: {error}"),
        };
        assert_eq!(table.schema.version, stale.schema.version + 1);
        self.name.clone_from(&table.name);
        self.table = table;
        self.note(commit.unwrap().lsn, rows);
        // What was written by the older definition does not go in, and the older definition reads nothing new.
        let result = self
            .db
            .run(|engine| engine.commit(&mut open, self.db.now(), None));
        assert!(
            matches!(result, Err(EngineError::SchemaChanged { .. })),
            "{result:?}"
        );
        let txn = self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
        let key = stale.key(&[Value::Int(1)]).unwrap();
        let result = self.db.run(|engine| engine.get(&txn, &stale, &key));
        assert!(
            matches!(result, Err(EngineError::SchemaChanged { .. })),
            "{:?}",
            result.is_ok()
        );
        assert_eq!(self.contents(&txn, &self.table), self.rows());
    }

    fn truncate(&mut self) {
        let (now, stale) = (self.db.now(), self.table.clone());
        let mut open = self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
        let key = stale.key(&[Value::Int(1)]).unwrap();
        let there = self
            .db
            .run(|engine| engine.delete(&mut open, &stale, &key))
            .unwrap();
        let (table, commit) = self
            .db
            .run(|engine| engine.truncate_table(&self.name, now))
            .unwrap();
        self.table = table;
        self.note(commit.unwrap().lsn, Rows::new());
        let result = self
            .db
            .run(|engine| engine.commit(&mut open, self.db.now(), None));
        assert!(
            !there || matches!(result, Err(EngineError::SchemaChanged { .. })),
            "{result:?}"
        );
        while self.db.run(|engine| engine.sweep(self.db.now())).unwrap() {}
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { seed, changes } => self.write(seed, changes),
            Step::Clear { seed, count } => self.clear(seed, count),
            Step::Alter { seed } => self.alter(seed),
            Step::Truncate => self.truncate(),
            Step::Evict => self.db.engine.evict_all(),
            Step::Crash => self.crash(),
        }
    }

    fn crash(&mut self) {
        let fresh = Db::new(Geometry::new(1024, 64));
        self.db = std::mem::replace(&mut self.db, fresh).crash();
        let at = self.db.engine.readable();
        let found = self.db.run(|engine| engine.table(&self.name, at)).unwrap();
        let found = found.unwrap();
        assert_eq!(*found, *self.table);
        self.table = found;
    }

    /// Every state, with the definition of its time and with the present one.
    fn check_views(&self) {
        for (at, name, columns, rows) in self.history.iter().rev().step_by(3).take(12) {
            let txn = self
                .db
                .run(|engine| engine.begin(Mode::ReadOnly { at: Some(*at) }))
                .unwrap();
            let table = self.db.run(|engine| engine.table_in(&txn, name)).unwrap();
            let table = table.unwrap();
            let names: Vec<&str> = table.schema.columns().iter().map(|c| &*c.name).collect();
            assert_eq!(names, *columns);
            assert_eq!(self.contents(&txn, &table), *rows, "at {at}");
            if table.id == self.table.id {
                let ids: Vec<i64> = self.contents(&txn, &self.table).into_keys().collect();
                assert_eq!(ids, rows.keys().copied().collect::<Vec<_>>());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn definitions_change_among_writes(steps in steps(), evict in prop_oneof![Just(0u64), Just(20)], large in any::<bool>()) {
        let geometry = if large { Geometry::new(16 * 1024, 256) } else { Geometry::new(1024, 64) };
        let mut world = World::new(geometry, evict);
        for step in steps {
            world.step(step);
        }
        world.check_views();
        check::everything(&world.db);
        world.crash();
        world.check_views();
        check::everything(&world.db);
    }
}

/// A table with an index on leaves of an earlier definition: entries are made from the rows as the definition has them.
#[test]
fn indexes_follow_rows_of_earlier_definitions() {
    let db = Db::new(Geometry::new(1024, 64));
    let index = |name: &str, column| IndexSpec::by(name, &[(column, false)], true);
    let mut spec = TableSpec::new(schema());
    spec.indexes = vec![index("by_text", 1)];
    let (table, _) = db
        .run(|engine| engine.create_table_with("t", &spec, false, db.now()))
        .unwrap();
    let row = |id: i64| {
        vec![
            Value::Int(id),
            Value::Text(format!("text {id:03}")),
            Value::Int(id % 100),
        ]
    };
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    for id in 0..200 {
        db.run(|engine| engine.insert(&mut txn, &table, row(id)))
            .unwrap();
    }
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    for change in [
        Alter::DropColumn {
            name: "text".into(),
        },
        Alter::WidenColumn {
            name: "id".into(),
            to: DataType::Int64,
        },
    ] {
        let refused = db.run(|engine| engine.alter_table("t", &change, db.now()));
        assert!(
            matches!(
                refused,
                Err(EngineError::ColumnInUse { .. } | EngineError::Alter { .. })
            ),
            "{refused:?}"
        );
    }
    let drop = Alter::DropColumn {
        name: "small".into(),
    };
    db.run(|engine| engine.alter_table("t", &drop, db.now()))
        .unwrap();
    let add = Alter::AddColumn {
        name: "extra".into(),
        data_type: DataType::Int16,
        nullable: false,
        initial: Value::Int(9),
    };
    let (table, _) = db
        .run(|engine| engine.alter_table("t", &add, db.now()))
        .unwrap();
    // Changes on leaves of before move their entries.
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    for id in (0..200).step_by(20) {
        let key = table.key(&[Value::Int(id)]).unwrap();
        let change = vec![(1, Value::Text(format!("moved {id:03}")))];
        db.run(|engine| engine.update(&mut txn, &table, &key, change.clone()))
            .unwrap();
        let key = table.key(&[Value::Int(id + 1)]).unwrap();
        db.run(|engine| engine.delete(&mut txn, &table, &key))
            .unwrap();
    }
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    let find = |table: &Arc<Table>, text: &str| {
        let txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
        let index = table.index("by_text").unwrap();
        let prefix = index.tree.key(&[Value::Text(text.into())]).unwrap();
        db.run(|engine| engine.index_get(&txn, table, index, &prefix))
            .unwrap()
            .map(|row| row.values().unwrap())
    };
    let moved = [
        Value::Int(40),
        Value::Text("moved 040".into()),
        Value::Int(9),
    ];
    assert_eq!(find(&table, "moved 040").unwrap(), moved);
    assert_eq!(find(&table, "text 040"), None);
    assert_eq!(find(&table, "text 041"), None);
    let stays = [
        Value::Int(42),
        Value::Text("text 042".into()),
        Value::Int(9),
    ];
    assert_eq!(find(&table, "text 042").unwrap(), stays);
    check::everything(&db);
    // An emptied table has empty indexes, which go on.
    let (table, _) = db
        .run(|engine| engine.truncate_table("t", db.now()))
        .unwrap();
    assert_eq!(find(&table, "text 042"), None);
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    db.run(|engine| engine.insert(&mut txn, &table, stays.to_vec()))
        .unwrap();
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    assert_eq!(find(&table, "text 042").unwrap(), stays);
    check::everything(&db);
}
