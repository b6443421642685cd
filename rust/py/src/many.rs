//! `insert_many` and `upsert_many`: many rows by one call, from an iterable of rows or an Arrow stream.

use std::collections::VecDeque;

use aurora_engine::{NewRows, Txn};
use aurora_page::Value;
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
    table: Py<PyTable>,
    rows: NewRows,
    /// Rows of a table with an auto-increment column, before they have their numbers.
    unnumbered: VecDeque<Vec<Value>>,
    upsert: bool,
    count: usize,
}

impl WriteMany {
    /// Rows that must not be there.
    pub fn insert(table: &Bound<'_, PyTable>, rows: &Bound<'_, PyAny>) -> PyResult<WriteMany> {
        WriteMany::new(table, rows, false)
    }

    /// Rows that take the place of those with their keys.
    pub fn upsert(table: &Bound<'_, PyTable>, rows: &Bound<'_, PyAny>) -> PyResult<WriteMany> {
        WriteMany::new(table, rows, true)
    }

    fn new(
        table: &Bound<'_, PyTable>,
        objects: &Bound<'_, PyAny>,
        upsert: bool,
    ) -> PyResult<WriteMany> {
        let (py, this) = (objects.py(), table.get());
        let rows = this.db.cluster(py)?.engine().new_rows(&this.table);
        let mut made = WriteMany {
            table: table.clone().unbind(),
            rows,
            unnumbered: VecDeque::new(),
            upsert,
            count: 0,
        };
        if objects.hasattr(intern!(py, "__arrow_c_stream__"))? {
            made.take_stream(this, objects)?;
        } else {
            made.take_objects(this, objects)?;
        }
        made.count = made.rows.len() + made.unnumbered.len();
        Ok(made)
    }

    fn take_objects(&mut self, table: &PyTable, objects: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = objects.py();
        let iterator = objects.try_iter().map_err(|_| no_rows(table, objects))?;
        for (index, object) in iterator.enumerate() {
            let at = |error| at_row(py, error, index as u64);
            let values = row_values(table, &object?).map_err(at)?;
            if table.table.auto.is_some() {
                self.unnumbered.push_back(values);
            } else {
                let pushed = self.rows.push(values);
                pushed.map_err(|error| at(raise_engine(py, &error)))?;
            }
        }
        Ok(())
    }

    fn take_stream(&mut self, table: &PyTable, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, schema) = (data.py(), table.stream_schema());
        let mut first = 0;
        for batch in stream(data)? {
            let batch = batch.map_err(|error| raise_stream(py, &error))?;
            let rows =
                BatchRows::new(&schema, &batch, first).map_err(|error| raise_rows(py, &error))?;
            if table.table.auto.is_some() {
                for row in 0..rows.len() {
                    let values = rows.values(row).map_err(|error| raise_rows(py, &error))?;
                    self.unnumbered.push_back(values);
                }
            } else {
                for (index, row) in rows.iter().enumerate() {
                    let row = row.map_err(|error| raise_rows(py, &error))?;
                    let pushed = self.rows.push_encoded(row.key, row.row);
                    pushed.map_err(|error| {
                        at_row(py, raise_engine(py, &error), first + index as u64)
                    })?;
                }
            }
            first += rows.len() as u64;
        }
        Ok(())
    }

    /// Numbers rows. What a stop finds numbered stays so.
    fn number(&mut self, py: Python<'_>, engine: &Engine) -> Tried<()> {
        let table = self.table.get();
        while let Some(row) = self.unnumbered.front_mut() {
            engine.number_row(&table.table, row, table.db.cluster(py)?.now_us())?;
            let values = self.unnumbered.pop_front().unwrap_or_default();
            let index = self.rows.len() as u64;
            let pushed = self.rows.push(values);
            pushed.map_err(|error| at_row(py, raise_engine(py, &error), index))?;
        }
        Ok(())
    }
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
        self.number(py, engine)?;
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
