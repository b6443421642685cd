//! Rows in key order: an iterator that fetches a leaf's worth at a time.

use std::ops::Bound as Limit;
use std::sync::Arc;
use std::vec::IntoIter;

use aurora_engine::{Cursor, RangeSpec, RowView, Txn};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::db::{Engine, Tried};
use crate::errors::{describe, invalid_option};
use crate::filter::Filter;
use crate::fork::ForkSafe;
use crate::lock::lock;
use crate::ops::{LongValues, make_row};
use crate::table::{Part, PyTable};
use crate::txn::Core;

/// The arguments of a range as they come from Python.
#[derive(Clone, Copy)]
pub struct RangeArgs<'a, 'py> {
    pub lo: Option<&'a Bound<'py, PyAny>>,
    pub hi: Option<&'a Bound<'py, PyAny>>,
    pub prefix: Option<&'a Bound<'py, PyAny>>,
    pub limit: Option<&'a Bound<'py, PyAny>>,
    pub reverse: bool,
    pub columns: Option<&'a Bound<'py, PyAny>>,
    pub condition: Option<&'a Bound<'py, PyAny>>,
}

impl RangeArgs<'_, '_> {
    /// The encoded range: `lo <= key < hi` in the order of the key, or every key that begins with `prefix`.
    pub fn encode(&self, py: Python<'_>, table: &PyTable) -> PyResult<RangeSpec> {
        let limit = self.limit.map(row_limit).transpose()?;
        if let Some(prefix) = self.prefix {
            if self.lo.is_some() || self.hi.is_some() {
                return Err(invalid_option(
                    py,
                    "range",
                    "lo and hi, or a prefix",
                    "both",
                ));
            }
            let prefix = table.bound(prefix)?;
            let (low, high) = (Limit::Included(prefix.clone()), Limit::Included(prefix));
            return Ok(RangeSpec {
                low,
                high,
                reverse: self.reverse,
                limit,
            });
        }
        let bound = |object: Option<&Bound<'_, PyAny>>| {
            object.map(|object| table.bound(object)).transpose()
        };
        let low = bound(self.lo)?.map_or(Limit::Unbounded, Limit::Included);
        let high = bound(self.hi)?.map_or(Limit::Unbounded, Limit::Excluded);
        Ok(RangeSpec {
            low,
            high,
            reverse: self.reverse,
            limit,
        })
    }
}

fn row_limit(limit: &Bound<'_, PyAny>) -> PyResult<usize> {
    let number = limit.extract::<usize>();
    match number {
        Ok(number) if !limit.is_instance_of::<PyBool>() => Ok(number),
        _ => {
            let expected = "a number of rows from 0 up, or None";
            Err(invalid_option(
                limit.py(),
                "limit",
                expected,
                &describe(limit),
            ))
        }
    }
}

struct Position {
    cursor: Option<ForkSafe<Cursor>>,
    rows: ForkSafe<IntoIter<RowView>>,
    next: Option<RowView>,
    /// Rows that are still to be given.
    left: usize,
    long: LongValues,
    done: bool,
}

/// The rows of a range. Close it, or read it to its end, before its transaction ends.
#[pyclass(module = "aurora_engine._engine", frozen, generic)]
pub struct RowIterator {
    core: Arc<Core>,
    table: Py<PyTable>,
    part: Part,
    filter: Option<Filter>,
    spec: RangeSpec,
    position: Mutex<Position>,
}

impl RowIterator {
    /// An iterator before its first row.
    pub fn new(
        core: Arc<Core>,
        table: &Bound<'_, PyTable>,
        args: RangeArgs<'_, '_>,
    ) -> PyResult<RowIterator> {
        let table = core.table(table)?;
        let spec = args.encode(table.py(), table.get())?;
        let part = table.get().part(args.columns)?;
        let filter = Filter::of(table.get(), args.condition)?;
        let table = table.unbind();
        Ok(RowIterator::of(core, table, part, filter, spec))
    }

    /// An iterator over an encoded range.
    pub fn of(
        core: Arc<Core>,
        table: Py<PyTable>,
        part: Part,
        filter: Option<Filter>,
        mut spec: RangeSpec,
    ) -> RowIterator {
        // Rows are counted once they have met the condition.
        let left = match &filter {
            Some(_) => spec.limit.take().unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let position = Position {
            cursor: None,
            rows: ForkSafe::new(Vec::new().into_iter()),
            next: None,
            left,
            long: LongValues::default(),
            done: left == 0,
        };
        RowIterator {
            core,
            table,
            part,
            filter,
            spec,
            position: Mutex::new(position),
        }
    }

    /// The next row, `None` at the end.
    pub fn advance<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut position = lock(py, &self.position);
        if position.done {
            return Ok(None);
        }
        let row = self.core.step(py, |py, engine, txn| {
            self.find(py, engine, txn, &mut position)
        })?;
        position.moved(row.is_some());
        Ok(row)
    }

    /// As [`RowIterator::advance`], if that needs no waiting; `None` otherwise.
    #[expect(
        clippy::option_option,
        reason = "no answer yet, and the answer that there is none, are two things"
    )]
    pub fn try_advance<'py>(&self, py: Python<'py>) -> PyResult<Option<Option<Bound<'py, PyAny>>>> {
        let Some(mut position) = self.position.try_lock() else {
            return Ok(None);
        };
        if position.done {
            return Ok(Some(None));
        }
        let row = self.core.try_step(py, |py, engine, txn| {
            self.find(py, engine, txn, &mut position)
        })?;
        if let Some(row) = &row {
            position.moved(row.is_some());
        }
        Ok(row)
    }

    fn find<'py>(
        &self,
        py: Python<'py>,
        engine: &Engine,
        txn: &Txn,
        position: &mut Position,
    ) -> Tried<Option<Bound<'py, PyAny>>> {
        let table = self.table.get();
        let shape = self.part.as_deref().unwrap_or(&table.shape);
        loop {
            if position.next.is_none() {
                position.next = position.rows.get_mut().next();
            }
            if let Some(row) = &position.next {
                let met = match &self.filter {
                    Some(filter) => filter.test(py, engine, txn, table, row, &mut position.long)?,
                    None => true,
                };
                if met {
                    let long = &mut position.long;
                    return make_row(py, engine, txn, table, shape, row, long).map(Some);
                }
                position.next = None;
                position.long.clear();
                continue;
            }
            // A condition that few rows meet must not keep Ctrl-C away.
            py.check_signals()?;
            let cursor = match &mut position.cursor {
                Some(cursor) => cursor,
                place => place.insert(ForkSafe::new(engine.range(
                    txn,
                    &table.table,
                    self.spec.clone(),
                )?)),
            };
            match cursor.get_mut().next_block(engine)? {
                Some(block) => position.rows = ForkSafe::new(block.rows()?.into_iter()),
                None => return Ok(None),
            }
        }
    }
}

impl Position {
    /// The row was given, or there was none.
    fn moved(&mut self, given: bool) {
        self.next = None;
        self.long.clear();
        self.left = self.left.saturating_sub(1);
        self.done = !given || self.left == 0;
    }
}

#[pymethods]
impl RowIterator {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __repr__(&self) -> String {
        let name = &self.table.get().table.name;
        let state = match self.position.try_lock() {
            Some(position) if position.done => " (ended)",
            _ => "",
        };
        format!("<RowIterator over table {name:?}{state}>")
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.advance(py)
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, py: Python<'_>, _exc: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
    }

    /// Ends the iteration and frees the pages it holds.
    fn close(&self, py: Python<'_>) {
        let mut position = lock(py, &self.position);
        position.cursor = None;
        position.rows = ForkSafe::new(Vec::new().into_iter());
        position.moved(false);
    }
}
