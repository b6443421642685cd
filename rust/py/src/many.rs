//! `insert_many` and `upsert_many`: many rows by one call, from an iterable of rows or an Arrow stream.

use aurora_engine::{NewRows, Txn};
use aurora_scan::BatchRows;
use pyo3::intern;
use pyo3::prelude::*;

use crate::db::{Engine, Tried};
use crate::errors::{Raise, at_row, describe};
use crate::failure::raise_engine;
use crate::input::row_values;
use crate::load::{raise_rows, raise_stream, stream};
use crate::ops::Operation;
use crate::table::PyTable;

/// Rows that are written together: all of them, or none.
pub struct WriteMany {
    rows: NewRows,
    upsert: bool,
    count: usize,
}

impl WriteMany {
    /// Rows that must not be there.
    pub fn insert(table: &Bound<'_, PyTable>, rows: &Bound<'_, PyAny>) -> PyResult<WriteMany> {
        WriteMany::new(table.get(), rows, false)
    }

    /// Rows that take the place of those with their keys.
    pub fn upsert(table: &Bound<'_, PyTable>, rows: &Bound<'_, PyAny>) -> PyResult<WriteMany> {
        WriteMany::new(table.get(), rows, true)
    }

    fn new(table: &PyTable, objects: &Bound<'_, PyAny>, upsert: bool) -> PyResult<WriteMany> {
        let py = objects.py();
        let mut rows = table.db.cluster(py)?.engine().new_rows(&table.table);
        if objects.hasattr(intern!(py, "__arrow_c_stream__"))? {
            take_stream(table, objects, &mut rows)?;
        } else {
            take_objects(table, objects, &mut rows)?;
        }
        let count = rows.len();
        Ok(WriteMany {
            rows,
            upsert,
            count,
        })
    }
}

fn take_objects(table: &PyTable, objects: &Bound<'_, PyAny>, rows: &mut NewRows) -> PyResult<()> {
    let py = objects.py();
    let iterator = objects.try_iter().map_err(|_| no_rows(table, objects))?;
    for (index, object) in iterator.enumerate() {
        let at = |error| at_row(py, error, index as u64);
        let values = row_values(table, &object?).map_err(at)?;
        rows.push(values)
            .map_err(|error| at(raise_engine(py, &error)))?;
    }
    Ok(())
}

fn take_stream(table: &PyTable, data: &Bound<'_, PyAny>, rows: &mut NewRows) -> PyResult<()> {
    let py = data.py();
    for batch in stream(data)? {
        let batch = batch.map_err(|error| raise_stream(py, &error))?;
        let first = rows.len() as u64;
        let batch = BatchRows::new(&table.table.schema, &batch, first)
            .map_err(|error| raise_rows(py, &error))?;
        for (index, row) in batch.iter().enumerate() {
            let row = row.map_err(|error| raise_rows(py, &error))?;
            rows.push_encoded(row.key, row.row)
                .map_err(|error| at_row(py, raise_engine(py, &error), first + index as u64))?;
        }
    }
    Ok(())
}

fn no_rows(table: &PyTable, objects: &Bound<'_, PyAny>) -> PyErr {
    let (expected, got) = ("an iterable of rows or an Arrow stream", describe(objects));
    let message = format!(
        "table {:?}: expected {expected}, got {got}",
        table.table.name
    );
    Raise::new(objects.py(), "TypeMismatch", message)
        .with("expected", expected)
        .with("got", got)
        .err()
}

impl Operation for WriteMany {
    const WRITES: bool = true;

    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        if self.upsert {
            engine.upsert_many(txn, &mut self.rows)?;
        } else {
            engine.insert_many(txn, &mut self.rows)?;
        }
        Ok(self
            .count
            .into_pyobject(py)
            .map_err(PyErr::from)?
            .into_any())
    }
}
