//! Which definition of a table an operation uses: that of what it reads, not that of when the handle was made.
//!
//! A handle stays usable when its table changes. If its row class still describes the table, or was made from the
//! table's schema in the first place, the handle goes on with the new definition; a class of the program's that does
//! not describe the table any more is refused, because nobody but the program knows what to do about it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aurora_engine::Table;
use aurora_page::Lsn;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::db::{Db, Engine};
use crate::errors::Raise;
use crate::schema::PySchema;
use crate::table::PyTable;

/// Whether the handle's definition may not be the one that counts.
#[inline]
pub fn may_differ(engine: &Engine, table: &PyTable) -> bool {
    engine.newer_definition(&table.table).is_some()
        || engine.branch() != table.branch.load(Ordering::Acquire)
}

/// The handle for what is durable now.
pub fn readable<'py>(db: &Db, table: &Bound<'py, PyTable>) -> PyResult<Bound<'py, PyTable>> {
    let engine = db.cluster(table.py())?.engine();
    readable_on(db, &engine, table)
}

/// The handle for what an instance shows now.
pub fn readable_on<'py>(
    db: &Db,
    engine: &Engine,
    table: &Bound<'py, PyTable>,
) -> PyResult<Bound<'py, PyTable>> {
    if may_differ(engine, table.get()) {
        seen_at(db, table, engine.readable())
    } else {
        Ok(table.clone())
    }
}

/// The handle for the newest state that is numbered: what changes are made by.
pub fn newest<'py>(db: &Db, table: &Bound<'py, PyTable>) -> PyResult<Bound<'py, PyTable>> {
    let engine = db.cluster(table.py())?.engine();
    if may_differ(&engine, table.get()) {
        seen_at(db, table, engine.published())
    } else {
        Ok(table.clone())
    }
}

/// The handle for a read point.
pub fn seen_at<'py>(
    db: &Db,
    table: &Bound<'py, PyTable>,
    at: Lsn,
) -> PyResult<Bound<'py, PyTable>> {
    let (py, this) = (table.py(), table.get());
    let engine = db.cluster(py)?.engine();
    let branch = engine.branch();
    let mine = &this.table;
    let seen = if branch == this.branch.load(Ordering::Acquire) {
        engine.definition_at(mine, at)
    } else {
        // The volume went back since the handle was made: what came after the branch point has not happened.
        let found = db.call(py, |engine| engine.table(&mine.name, at))?;
        found.ok_or_else(|| crate::cluster::unknown_table(py, &mine.name))?
    };
    if seen.since == mine.since && seen.id == mine.id {
        if seen.since <= at {
            this.branch.store(branch, Ordering::Release);
        }
        return Ok(table.clone());
    }
    successor(table, seen)
}

/// A handle like this one for another definition of its table. Made once.
fn successor<'py>(
    table: &Bound<'py, PyTable>,
    definition: Arc<Table>,
) -> PyResult<Bound<'py, PyTable>> {
    let (py, this) = (table.py(), table.get());
    let made = this.successors.lock();
    let found = made.iter().find(|later| {
        let later = &later.get().table;
        (later.id, later.since) == (definition.id, definition.since)
    });
    if let Some(found) = found {
        return Ok(found.bind(py).clone());
    }
    // Making a class runs Python code, under which no lock may be held.
    drop(made);
    let class = class_for(py, this, &definition)?;
    let handle = Bound::new(py, PyTable::new(this.db.clone(), definition, &class)?)?;
    this.successors.lock().push(handle.clone().unbind());
    Ok(handle)
}

/// The row class for another definition.
fn class_for<'py>(
    py: Python<'py>,
    table: &PyTable,
    definition: &Table,
) -> PyResult<Bound<'py, PyType>> {
    let schema = PySchema(Arc::new(definition.schema.clone()));
    let class = table.shape.class(py);
    if schema == PySchema(Arc::new(table.table.schema.clone())) {
        return Ok(class.clone());
    }
    if class.hasattr(intern!(py, "__generated__"))? {
        return row_class(py, &definition.name, schema);
    }
    let name = class.name()?;
    let message = format!(
        "table {:?}: expected a row class that describes its present columns, got {name}: the table was altered at LSN {}; open \
         it with db.table({:?}, row class)",
        definition.name, definition.since, definition.name
    );
    Err(Raise::new(py, "SchemaMismatch", message)
        .with("table", &definition.name)
        .with("expected", schema.describe())
        .with("got", name.to_string())
        .err())
}

/// The row class that is made from a schema.
pub fn row_class<'py>(
    py: Python<'py>,
    name: &str,
    schema: PySchema,
) -> PyResult<Bound<'py, PyType>> {
    let make = py
        .import(intern!(py, "aurora_engine.rows"))?
        .getattr(intern!(py, "row_class"))?;
    Ok(make.call1((name, schema))?.cast_into()?)
}
