//! Rows in key order: an iterator that fetches a leaf's worth at a time.

use std::ops::Bound as Limit;
use std::sync::Arc;
use std::vec::IntoIter;

use aurora_engine::{RangeSpec, RowView, Txn};
use aurora_page::KeyBuf;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::db::{Engine, Tried};
use crate::errors::invalid_option;
use crate::fork::ForkSafe;
use crate::index::{Order, Place, PyIndex, table_of};
use crate::lock::lock;
use crate::ops::{LongValues, make_row};
use crate::table::PyTable;
use crate::txn::Core;

/// The arguments of a range as they come from Python.
#[derive(Clone, Copy)]
pub struct RangeArgs<'a, 'py> {
    pub lo: Option<&'a Bound<'py, PyAny>>,
    pub hi: Option<&'a Bound<'py, PyAny>>,
    pub prefix: Option<&'a Bound<'py, PyAny>>,
    pub limit: Option<usize>,
    pub reverse: bool,
}

impl RangeArgs<'_, '_> {
    /// The encoded range: `lo <= key < hi` in the order of the key, or every key that begins with `prefix`.
    pub fn encode(&self, py: Python<'_>, table: &PyTable) -> PyResult<RangeSpec> {
        self.encode_by(py, |object| table.bound(object))
    }

    /// The same by bounds that are encoded so.
    fn encode_by(
        &self,
        py: Python<'_>,
        encode: impl Fn(&Bound<'_, PyAny>) -> PyResult<KeyBuf>,
    ) -> PyResult<RangeSpec> {
        let limit = self.limit;
        if let Some(prefix) = self.prefix {
            if self.lo.is_some() || self.hi.is_some() {
                return Err(invalid_option(
                    py,
                    "range",
                    "lo and hi, or a prefix",
                    "both",
                ));
            }
            let prefix = encode(prefix)?;
            let (low, high) = (Limit::Included(prefix.clone()), Limit::Included(prefix));
            return Ok(RangeSpec {
                low,
                high,
                reverse: self.reverse,
                limit,
            });
        }
        let bound = |object: Option<&Bound<'_, PyAny>>| object.map(&encode).transpose();
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

struct Position {
    cursor: Option<ForkSafe<Place>>,
    rows: ForkSafe<IntoIter<RowView>>,
    next: Option<RowView>,
    long: LongValues,
    done: bool,
}

/// The rows of a range. Close it, or read it to its end, before its transaction ends.
#[pyclass(module = "aurora_engine._engine", frozen, generic)]
pub struct RowIterator {
    core: Arc<Core>,
    table: Py<PyTable>,
    order: Order,
    spec: RangeSpec,
    position: Mutex<Position>,
}

impl RowIterator {
    /// An iterator before its first row. `of` is a table or an index.
    pub fn new(
        core: Arc<Core>,
        of: &Bound<'_, PyAny>,
        args: RangeArgs<'_, '_>,
    ) -> PyResult<RowIterator> {
        let py = of.py();
        let (table, order, spec) = match of.cast::<PyIndex>() {
            Ok(index) => {
                let this = index.get();
                let spec = args.encode_by(py, |object| this.bound(object))?;
                (core.table(&this.handle(py))?, this.order(), spec)
            }
            Err(_) => {
                let table = core.table(table_of(of)?)?;
                let spec = args.encode(py, table.get())?;
                (table, Order::Key, spec)
            }
        };
        let rows = RowIterator::of(core, table.unbind(), spec);
        Ok(RowIterator { order, ..rows })
    }

    /// An iterator over an encoded range.
    pub fn of(core: Arc<Core>, table: Py<PyTable>, spec: RangeSpec) -> RowIterator {
        let position = Position {
            cursor: None,
            rows: ForkSafe::new(Vec::new().into_iter()),
            next: None,
            long: LongValues::default(),
            done: false,
        };
        RowIterator {
            core,
            table,
            order: Order::Key,
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
        loop {
            if position.next.is_none() {
                position.next = position.rows.get_mut().next();
            }
            if let Some(row) = &position.next {
                return make_row(py, engine, txn, table, row, &mut position.long).map(Some);
            }
            let cursor = match &mut position.cursor {
                Some(cursor) => cursor,
                place => {
                    let spec = self.spec.clone();
                    let opened = Place::open(engine, txn, &table.table, &self.order, spec)?;
                    place.insert(ForkSafe::new(opened))
                }
            };
            match cursor.get_mut().next_rows(engine, txn)? {
                Some(rows) => position.rows = ForkSafe::new(rows.into_iter()),
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
        self.done = !given;
    }
}

#[pymethods]
impl RowIterator {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
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
