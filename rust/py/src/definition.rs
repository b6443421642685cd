//! Which definition of a table an operation uses: that of what it reads, not that of when the handle was made.
//!
//! A handle stays usable when its table changes. If its row class still describes the table, or was made from the
//! table's schema in the first place, the handle goes on with the new definition; a class of the program's that does
//! not describe the table any more is refused, because nobody but the program knows what to do about it.

use std::sync::Arc;

use aurora_engine::Table;
use aurora_page::Lsn;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::db::{Db, Engine};
use crate::errors::Raise;
use crate::schema::PySchema;
use crate::table::PyTable;

/// The handle for what is durable now.
pub fn readable<'py>(db: &Db, table: &Bound<'py, PyTable>) -> PyResult<Bound<'py, PyTable>> {
    let engine = db.cluster(table.py())?.engine();
    match engine.newer_definition(&table.get().table) {
        None => Ok(table.clone()),
        Some(_) => seen_at(table, engine, engine.readable()),
    }
}

/// The handle for the newest state that is numbered: what changes are made by.
pub fn newest<'py>(db: &Db, table: &Bound<'py, PyTable>) -> PyResult<Bound<'py, PyTable>> {
    let engine = db.cluster(table.py())?.engine();
    match engine.newer_definition(&table.get().table) {
        None => Ok(table.clone()),
        Some(newest) => successor(table, newest),
    }
}

/// The handle for a read point.
pub fn seen_at<'py>(
    table: &Bound<'py, PyTable>,
    engine: &Engine,
    at: Lsn,
) -> PyResult<Bound<'py, PyTable>> {
    let mine = &table.get().table;
    let seen = engine.definition_at(mine, at);
    if seen.since == mine.since {
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
    let found = made
        .iter()
        .find(|later| later.get().table.since == definition.since);
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
