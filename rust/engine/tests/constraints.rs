//! Checks, foreign keys and auto-increment columns: what holds after any transactions that run at the same time.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use aurora_engine::{
    CheckSpec, EngineError, Mode, OnDelete, RangeSpec, ReferenceSpec, Table, TableSpec, Txn,
};
use aurora_page::{DataType, Geometry, KeyBuf, Schema, Value};
use aurora_scan::expr::{Comparison, Expr};
use common::{Db, Random, check, column, key};
use proptest::prelude::*;

const PARENTS: u64 = 6;
const CHILDREN: u64 = 20;

fn parent_spec() -> TableSpec {
    TableSpec::new(
        Schema::new(1, vec![column(1, "id", DataType::Int64, false)], key(&[0])).unwrap(),
    )
}

fn child_spec(on_delete: OnDelete) -> TableSpec {
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "parent", DataType::Int64, true),
        column(3, "sibling", DataType::Int64, true),
        column(4, "count", DataType::Int64, true),
    ];
    let reference = |name: &str, column, parent: &str, on_delete| ReferenceSpec {
        name: name.into(),
        columns: vec![column],
        parent: parent.into(),
        on_delete,
    };
    TableSpec {
        references: vec![
            reference("to_parent", 1, "parents", on_delete),
            reference("to_sibling", 2, "children", OnDelete::SetNull),
        ],
        checks: vec![CheckSpec {
            name: "not_negative".into(),
            condition: Expr::column("count").compare(Comparison::Ge, Expr::int(0)),
        }],
        ..TableSpec::new(Schema::new(1, columns, key(&[0])).unwrap())
    }
}

struct World {
    db: Db,
    parents: Arc<Table>,
    children: Arc<Table>,
}

impl World {
    fn new(on_delete: OnDelete, evict_percent: u64) -> World {
        let mut db = Db::new(Geometry::new(1024, 64));
        db.evict_percent = evict_percent;
        let make = |name: &str, spec: &TableSpec| {
            let made = db.run(|engine| engine.create_table_with(name, spec, false, db.now()));
            made.unwrap().0
        };
        let parents = make("parents", &parent_spec());
        let children = make("children", &child_spec(on_delete));
        db.volume.set_instant(false);
        World {
            db,
            parents,
            children,
        }
    }

    fn begin(&self) -> Txn {
        self.db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap()
    }

    fn commit(&self, mut txn: Txn) -> Result<(), EngineError> {
        let now = self.db.now();
        self.db
            .run(|engine| engine.commit(&mut txn, now, None))
            .map(drop)
    }

    fn id(table: &Table, id: u64) -> KeyBuf {
        table.key(&[Value::Int(id as i64)]).unwrap()
    }

    fn change(&self, txn: &mut Txn, random: &mut Random) -> Result<(), EngineError> {
        let (parent, id) = (random.below(PARENTS), random.below(CHILDREN));
        let nullable = |value: u64, random: &mut Random| match random.below(4) {
            0 => Value::Null,
            _ => Value::Int(value as i64),
        };
        match random.below(6) {
            0 => {
                let row = vec![Value::Int(parent as i64)];
                self.db
                    .run(|engine| engine.upsert(txn, &self.parents, row.clone()))
            }
            1 => {
                let key = World::id(&self.parents, parent);
                self.db
                    .run(|engine| engine.delete(txn, &self.parents, &key))
                    .map(drop)
            }
            2 | 3 => {
                let sibling = random.below(CHILDREN);
                let row = vec![
                    Value::Int(id as i64),
                    nullable(parent, random),
                    nullable(sibling, random),
                    nullable(random.0 % 9, random),
                ];
                self.db
                    .run(|engine| engine.upsert(txn, &self.children, row.clone()))
            }
            4 => {
                let key = World::id(&self.children, id);
                let count = random.below(10) as i64 - 1;
                let changes = vec![(1, nullable(parent, random)), (3, Value::Int(count))];
                self.db
                    .run(|engine| engine.update(txn, &self.children, &key, changes.clone()))
                    .map(drop)
            }
            _ => {
                let key = World::id(&self.children, id);
                self.db
                    .run(|engine| engine.delete(txn, &self.children, &key))
                    .map(drop)
            }
        }
    }

    fn rows(&self, txn: &Txn, table: &Arc<Table>) -> Vec<Vec<Value>> {
        let mut cursor = self
            .db
            .run(|engine| engine.range(txn, table, RangeSpec::default()))
            .unwrap();
        let mut rows = vec![];
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

    /// Every row that is referred to is there, and no check is false: in what a transaction sees, its own changes included.
    fn holds(&self, txn: &Txn) {
        let ids = |table| -> BTreeSet<i64> {
            let id = |row: Vec<Value>| match row[0] {
                Value::Int(id) => id,
                _ => panic!("{row:?}"),
            };
            self.rows(txn, table).into_iter().map(id).collect()
        };
        let (parents, children) = (ids(&self.parents), ids(&self.children));
        for row in self.rows(txn, &self.children) {
            for (column, there) in [(1, &parents), (2, &children)] {
                if let Value::Int(id) = row[column] {
                    assert!(
                        there.contains(&id),
                        "{row:?} refers to {id}, which is not there"
                    );
                }
            }
            assert!(!matches!(row[3], Value::Int(count) if count < 0), "{row:?}");
        }
    }

    fn race(&self, seed: u64) {
        let mut random = Random(seed);
        let mut txns = [self.begin(), self.begin()];
        for _ in 0..1 + random.below(12) {
            let txn = &mut txns[random.below(2) as usize];
            match self.change(txn, &mut random) {
                Ok(()) => {}
                Err(
                    EngineError::ParentMissing { .. }
                    | EngineError::ParentReferenced { .. }
                    | EngineError::CheckViolation { .. }
                    | EngineError::WriteConflict { .. }
                    // The other one has it: this one does not wait, and goes on.
                    | EngineError::LockTimeout { .. },
                ) => self.holds(txn),
                Err(other) => panic!("{other}"),
            }
        }
        for txn in txns {
            self.holds(&txn);
            match self.commit(txn) {
                Ok(()) | Err(EngineError::WriteConflict { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            self.holds(&self.begin());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_row_is_left_without_its_parent(
        seeds in prop::collection::vec(any::<u64>(), 1..30),
        on_delete in prop::sample::select(vec![OnDelete::Restrict, OnDelete::Cascade, OnDelete::SetNull]),
        evict in prop_oneof![Just(0u64), Just(30)],
    ) {
        let world = World::new(on_delete, evict);
        for seed in seeds {
            world.race(seed);
        }
        check::everything(&world.db);
    }
}

fn child(id: i64, parent: Option<i64>, count: i64) -> Vec<Value> {
    vec![
        Value::Int(id),
        parent.map_or(Value::Null, Value::Int),
        Value::Null,
        Value::Int(count),
    ]
}

/// Write skew across two tables: each transaction is right by itself.
#[test]
fn a_parent_does_not_go_while_its_first_child_comes() {
    for parent_first in [true, false] {
        let world = World::new(OnDelete::Restrict, 0);
        let mut txn = world.begin();
        world
            .db
            .run(|engine| engine.insert(&mut txn, &world.parents, vec![Value::Int(1)]))
            .unwrap();
        world.commit(txn).unwrap();
        let (mut goes, mut comes) = (world.begin(), world.begin());
        let key = World::id(&world.parents, 1);
        world
            .db
            .run(|engine| engine.delete(&mut goes, &world.parents, &key))
            .unwrap();
        world
            .db
            .run(|engine| engine.insert(&mut comes, &world.children, child(7, Some(1), 0)))
            .unwrap();
        let (first, second) = if parent_first {
            (goes, comes)
        } else {
            (comes, goes)
        };
        world.commit(first).unwrap();
        assert!(matches!(
            world.commit(second),
            Err(EngineError::WriteConflict { .. })
        ));
        world.holds(&world.begin());
    }
}

#[test]
fn each_violation_says_what_and_where_and_leaves_the_transaction_usable() {
    let world = World::new(OnDelete::Restrict, 0);
    let mut txn = world.begin();
    let insert = |txn: &mut Txn, row: Vec<Value>| {
        world
            .db
            .run(|engine| engine.insert(txn, &world.children, row.clone()))
    };
    world
        .db
        .run(|engine| engine.insert(&mut txn, &world.parents, vec![Value::Int(1)]))
        .unwrap();
    insert(&mut txn, child(1, Some(1), 5)).unwrap();
    assert_eq!(
        insert(&mut txn, child(2, Some(9), 5))
            .unwrap_err()
            .to_string(),
        "table \"children\", foreign key \"to_parent\": expected a row of table \"parents\" with key (9), got none"
    );
    assert_eq!(
        insert(&mut txn, child(2, None, -5))
            .unwrap_err()
            .to_string(),
        "table \"children\", check \"not_negative\", key (2): expected count >= 0, got count = -5"
    );
    let key = World::id(&world.parents, 1);
    let refused = world
        .db
        .run(|engine| engine.delete(&mut txn, &world.parents, &key))
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "table \"parents\", key (1): expected no row of table \"children\" that refers to it (foreign key \
         \"to_parent\", on delete restrict), got one"
    );
    // A null passes a check.
    insert(
        &mut txn,
        vec![Value::Int(3), Value::Null, Value::Null, Value::Null],
    )
    .unwrap();
    assert_eq!(world.rows(&txn, &world.children).len(), 2);
    world.commit(txn).unwrap();
    world.holds(&world.begin());
}

#[test]
fn a_row_may_refer_to_itself_and_takes_a_chain_with_it() {
    let db = Db::new(Geometry::new(1024, 64));
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "boss", DataType::Int64, false),
    ];
    let spec = TableSpec {
        references: vec![ReferenceSpec {
            name: "boss".into(),
            columns: vec![1],
            parent: "people".into(),
            on_delete: OnDelete::Cascade,
        }],
        ..TableSpec::new(Schema::new(1, columns, key(&[0])).unwrap())
    };
    let (table, _) = db
        .run(|engine| engine.create_table_with("people", &spec, false, db.now()))
        .unwrap();
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    for (id, boss) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 5)] {
        let row = vec![Value::Int(id), Value::Int(boss)];
        db.run(|engine| engine.insert(&mut txn, &table, row.clone()))
            .unwrap();
    }
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    let one = table.key(&[Value::Int(1)]).unwrap();
    assert!(
        db.run(|engine| engine.delete(&mut txn, &table, &one))
            .unwrap()
    );
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
    assert_eq!(check::row_count(&db, &table), 1);
    check::everything(&db);
    // The table refers to itself only: it can be dropped.
    db.run(|engine| engine.drop_table("people", db.now()))
        .unwrap()
        .unwrap();
    check::everything(&db);
}

#[test]
fn a_parent_is_dropped_after_its_children() {
    let world = World::new(OnDelete::Cascade, 0);
    let drop = |name: &str| {
        world
            .db
            .run(|engine| engine.drop_table(name, world.db.now()))
    };
    assert!(
        matches!(drop("parents"), Err(EngineError::TableReferenced { by, .. }) if by == "children")
    );
    let refused = world
        .db
        .run(|engine| engine.drop_index(&world.children, "to_parent", world.db.now()));
    assert!(matches!(refused, Err(EngineError::IndexSpec { .. })));
    drop("children").unwrap().unwrap();
    drop("parents").unwrap().unwrap();
    check::everything(&world.db);
}

#[test]
fn constraints_that_cannot_be_are_refused() {
    let db = Db::new(Geometry::new(1024, 64));
    let create = |name: &str, spec: &TableSpec| {
        db.run(|engine| engine.create_table_with(name, spec, false, db.now()))
            .map(drop)
    };
    assert!(matches!(
        create("children", &child_spec(OnDelete::Restrict)),
        Err(EngineError::UnknownTable { .. })
    ));
    create("parents", &parent_spec()).unwrap();
    let mut spec = child_spec(OnDelete::Restrict);
    spec.references[0].columns = vec![1, 2];
    let refused = create("children", &spec).unwrap_err().to_string();
    assert!(
        refused.contains("expected as many columns as the key of table \"parents\" has, 1, got 2"),
        "{refused}"
    );
    let mut spec = child_spec(OnDelete::SetNull);
    spec.references[0].columns = vec![0];
    let refused = create("children", &spec).unwrap_err().to_string();
    assert!(refused.contains("nullable"), "{refused}");
    let mut spec = child_spec(OnDelete::Restrict);
    spec.checks[0].condition = Expr::column("amount");
    let refused = create("children", &spec).unwrap_err().to_string();
    assert!(
        refused.contains("not_negative") && refused.contains("amount"),
        "{refused}"
    );
    create("children", &child_spec(OnDelete::Restrict)).unwrap();
    check::everything(&db);
}

fn numbered(db: &Db) -> Arc<Table> {
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "n", DataType::Int64, true),
    ];
    let spec = TableSpec {
        auto: Some(0),
        ..TableSpec::new(Schema::new(1, columns, key(&[0])).unwrap())
    };
    db.run(|engine| engine.create_table_with("numbered", &spec, true, db.now()))
        .unwrap()
        .0
}

#[test]
fn numbers_are_never_given_twice_also_after_a_crash() {
    let mut db = Db::new(Geometry::new(1024, 64));
    db.volume.set_instant(false);
    let mut given = BTreeSet::new();
    for round in 0..6 {
        let table = numbered(&db);
        for _ in 0..700 {
            let mut row = vec![Value::Null, Value::Null];
            db.run(|engine| engine.number_row(&table, &mut row, db.now()))
                .unwrap();
            let Value::Int(number) = row[0] else {
                panic!("{row:?}")
            };
            assert!(given.insert(number), "{number} again, in round {round}");
        }
        // A row that brings its own number.
        let brought = given.last().unwrap() + [5, 1500][round % 2];
        let mut row = vec![Value::Int(brought), Value::Null];
        db.run(|engine| engine.number_row(&table, &mut row, db.now()))
            .unwrap();
        given.insert(brought);
        let mut row = vec![Value::Null, Value::Null];
        db.run(|engine| engine.number_row(&table, &mut row, db.now()))
            .unwrap();
        assert_eq!(row[0], Value::Int(brought + 1));
        given.insert(brought + 1);
        db = db.crash();
        db.volume.set_instant(false);
    }
    check::everything(&db);
}

#[test]
fn a_column_of_few_bits_runs_out_of_numbers() {
    let db = Db::new(Geometry::new(1024, 64));
    let spec = TableSpec {
        auto: Some(0),
        ..TableSpec::new(
            Schema::new(1, vec![column(1, "id", DataType::Int8, false)], key(&[0])).unwrap(),
        )
    };
    let (table, _) = db
        .run(|engine| engine.create_table_with("small", &spec, false, db.now()))
        .unwrap();
    for expected in 1..=127 {
        let mut row = vec![Value::Null];
        db.run(|engine| engine.number_row(&table, &mut row, db.now()))
            .unwrap();
        assert_eq!(row[0], Value::Int(expected));
    }
    let ended = db
        .run(|engine| engine.number_row(&table, &mut [Value::Null], db.now()))
        .unwrap_err();
    assert!(ended.to_string().contains("after 127"), "{ended}");
}
