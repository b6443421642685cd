//! Constraints that come to a table with rows: what commits between the steps counts, and one that was given up is nowhere.

mod common;

use std::sync::Arc;

use aurora_engine::{
    CheckSpec, EngineError, IndexSpec, Mode, NewRule, OnDelete, ReferenceSpec, RuleBuild, Table,
    TableSpec,
};
use aurora_page::{DataType, Geometry, Schema, Value};
use aurora_scan::expr::{Comparison, Expr};
use common::{Db, check, column, key};

const ROWS: i64 = 2_000;

fn table(db: &Db, name: &str) -> Arc<Table> {
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "n", DataType::Int64, true),
    ];
    let spec = TableSpec {
        indexes: vec![IndexSpec::by("n_fk", &[(1, false)], false)],
        ..TableSpec::new(Schema::new(1, columns, key(&[0])).unwrap())
    };
    let made = db.run(|engine| engine.create_table_with(name, &spec, false, db.now()));
    made.unwrap().0
}

fn put(
    db: &Db,
    table: &Arc<Table>,
    rows: impl Iterator<Item = (i64, Value)>,
) -> Result<(), EngineError> {
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite))?;
    for (id, n) in rows {
        db.run(|engine| engine.upsert(&mut txn, table, vec![Value::Int(id), n.clone()]))?;
    }
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .map(drop)
}

fn delete(db: &Db, table: &Arc<Table>, id: i64) {
    let mut txn = db.run(|engine| engine.begin(Mode::ReadWrite)).unwrap();
    let key = table.key(&[Value::Int(id)]).unwrap();
    assert!(
        db.run(|engine| engine.delete(&mut txn, table, &key))
            .unwrap()
    );
    db.run(|engine| engine.commit(&mut txn, db.now(), None))
        .unwrap();
}

fn filled() -> (Db, Arc<Table>, Arc<Table>) {
    let db = Db::new(Geometry::new(1024, 64));
    let (parents, rows) = (table(&db, "parents"), table(&db, "rows"));
    put(&db, &parents, (0..50).map(|id| (id, Value::Null))).unwrap();
    for chunk in 0..ROWS / 500 {
        let ids = chunk * 500..(chunk + 1) * 500;
        put(&db, &rows, ids.map(|id| (id, Value::Int(id % 50)))).unwrap();
    }
    (db, parents, rows)
}

fn not_negative() -> NewRule {
    NewRule::Check(CheckSpec {
        name: "not_negative".into(),
        condition: Expr::column("n").compare(Comparison::Ge, Expr::int(0)),
    })
}

fn to_parents() -> NewRule {
    NewRule::Reference(ReferenceSpec {
        name: "n_fk".into(),
        columns: vec![1],
        parent: "parents".into(),
        on_delete: OnDelete::Restrict,
    })
}

/// Looks at all rows; `between` runs after every step.
fn look(db: &Db, build: &mut RuleBuild, mut between: impl FnMut(u64)) -> Result<(), EngineError> {
    loop {
        let progress = db.run(|engine| engine.rule_step(build))?;
        between(progress.rows);
        if progress.done
            && db
                .run(|engine| engine.finish_rule(build, db.now()))?
                .is_some()
        {
            return Ok(());
        }
    }
}

fn broken_key(error: EngineError) -> String {
    match error {
        EngineError::RowBreaks { key, .. } => key,
        other => panic!("expected a row that breaks it, got {other}"),
    }
}

#[test]
fn rows_that_were_committed_between_the_steps_are_held_against_it() {
    let (db, _, rows) = filled();
    let mut build = db
        .run(|engine| engine.begin_rule(&rows, &not_negative()))
        .unwrap();
    // Behind what was looked at already.
    let mut done = false;
    let between = |passed: u64| {
        if passed > 1_000 && !std::mem::replace(&mut done, true) {
            put(&db, &rows, [(3, Value::Int(-3))].into_iter()).unwrap();
        }
    };
    assert_eq!(
        broken_key(look(&db, &mut build, between).unwrap_err()),
        "(3)"
    );
    db.engine.abandon_rule(&build);
    put(&db, &rows, [(3, Value::Null)].into_iter()).unwrap();
    let mut build = db
        .run(|engine| engine.begin_rule(&rows, &not_negative()))
        .unwrap();
    let mut number = 0;
    look(&db, &mut build, |_| {
        number += 1;
        put(
            &db,
            &rows,
            [(number % ROWS, Value::Int(number % 50))].into_iter(),
        )
        .unwrap();
    })
    .unwrap();
    let refused = put(&db, &rows, [(4, Value::Int(-4))].into_iter());
    assert!(
        matches!(refused, Err(EngineError::SchemaChanged { .. })),
        "{refused:?}"
    );
    let head = db.run(|engine| engine.head_table(&rows)).unwrap();
    let refused = put(&db, &head, [(4, Value::Int(-4))].into_iter());
    assert!(
        matches!(refused, Err(EngineError::CheckViolation { .. })),
        "{refused:?}"
    );
    check::everything(&db);
}

#[test]
fn a_parent_that_goes_meanwhile_is_missed_and_one_that_nobody_needs_is_not() {
    let (db, parents, rows) = filled();
    put(&db, &parents, [(99, Value::Null)].into_iter()).unwrap();
    for (gone, lost) in [(99, None), (7, Some("(7)"))] {
        let mut build = db
            .run(|engine| engine.begin_rule(&rows, &to_parents()))
            .unwrap();
        let mut done = false;
        let between = |passed: u64| {
            if passed > 1_500 && !std::mem::replace(&mut done, true) {
                delete(&db, &parents, gone);
            }
        };
        let looked = look(&db, &mut build, between);
        assert_eq!(looked.err().map(broken_key).as_deref(), lost);
        db.engine.abandon_rule(&build);
        if lost.is_none() {
            let head = db.run(|engine| engine.head_table(&rows)).unwrap();
            db.run(|engine| engine.drop_constraint(&head, "n_fk", db.now()))
                .unwrap();
            assert_eq!(
                db.run(|engine| engine.head_table(&rows))
                    .unwrap()
                    .indexes
                    .len(),
                0
            );
            let begun = db.run(|engine| {
                engine.begin_index(
                    &head,
                    &IndexSpec::by("n_fk", &[(1, false)], false),
                    db.now(),
                )
            });
            let mut build = begun.unwrap();
            while !db
                .run(|engine| engine.index_step(&mut build, db.now()))
                .unwrap()
                .done
            {}
            db.run(|engine| engine.finish_index(&build, db.now()))
                .unwrap();
        }
    }
    check::everything(&db);
}

#[test]
fn a_rule_whose_engine_ended_is_nowhere_and_a_column_without_null_survives() {
    let (db, _, rows) = filled();
    let mut build = db
        .run(|engine| engine.begin_rule(&rows, &not_negative()))
        .unwrap();
    db.run(|engine| engine.rule_step(&mut build)).unwrap();
    drop(build);
    let db = db.crash();
    let rows = db
        .run(|engine| engine.table("rows", engine.published()))
        .unwrap()
        .unwrap();
    put(&db, &rows, [(4, Value::Int(-4))].into_iter()).unwrap();
    let not_null = NewRule::NotNull { column: "n".into() };
    let mut build = db
        .run(|engine| engine.begin_rule(&rows, &not_null))
        .unwrap();
    look(&db, &mut build, |_| {}).unwrap();
    let db = db.crash();
    let rows = db
        .run(|engine| engine.table("rows", engine.published()))
        .unwrap()
        .unwrap();
    let refused = put(&db, &rows, [(4, Value::Null)].into_iter());
    assert!(
        matches!(refused, Err(EngineError::Value { .. })),
        "{refused:?}"
    );
    // Leaves of before are upgraded, and the index is what it was.
    put(
        &db,
        &rows,
        (0..ROWS).step_by(3).map(|id| (id, Value::Int(id))),
    )
    .unwrap();
    delete(&db, &rows, 1);
    check::everything(&db);
}
