//! Rows in key order: an iterator that fetches a leaf's worth at a time.

use std::ops::Bound as Limit;
use std::sync::Arc;
use std::vec::IntoIter;

use aurora_engine::{Cursor, IndexCursor, LockWaiting, LockingCursor, RangeSpec, RowView, Txn};
use aurora_page::{KeyBuf, Lsn};
use parking_lot::Mutex;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::db::{Engine, Halt, Tried};
use crate::errors::{describe, invalid_option};
use crate::filter::Filter;
use crate::fork::ForkSafe;
use crate::index::{Order, PyIndex, table_of};
use crate::lock::lock;
use crate::ops::{LongValues, Operation, make_row};
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
        self.encode_by(py, |object| table.bound(object))
    }

    /// What a table or an index is read by: the handle of the table, the order, and the encoded range.
    pub fn resolve<'py>(
        &self,
        core: &Core,
        of: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyTable>, Order, RangeSpec)> {
        let py = of.py();
        match of.cast::<PyIndex>() {
            Ok(index) => {
                let this = index.get();
                let spec = self.encode_by(py, |object| this.bound(object))?;
                Ok((core.table(&this.handle(py))?, this.order(), spec))
            }
            Err(_) => {
                let table = core.table(table_of(of)?)?;
                let spec = self.encode(py, table.get())?;
                Ok((table, Order::Key, spec))
            }
        }
    }

    /// The same by bounds that are encoded so.
    fn encode_by(
        &self,
        py: Python<'_>,
        encode: impl Fn(&Bound<'_, PyAny>) -> PyResult<KeyBuf>,
    ) -> PyResult<RangeSpec> {
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

/// What gives the rows.
enum Source {
    Plain(Cursor),
    Index(Box<IndexCursor>),
    Locking(Box<LockingCursor>),
}

impl Source {
    /// The next rows, and the read point that they are of; `None` at the end. Rows that are not wanted are not locked; where
    /// none are locked, they may be among the others.
    fn next_rows(
        &mut self,
        engine: &Engine,
        txn: &mut Txn,
        wanted: &mut dyn FnMut(&RowView, Lsn) -> Tried<bool>,
    ) -> Tried<Option<(Vec<RowView>, Lsn)>> {
        Ok(match self {
            Source::Plain(cursor) => match cursor.next_block(engine)? {
                Some(block) => Some((block.rows()?, cursor.at())),
                None => None,
            },
            Source::Index(cursor) => cursor
                .next_rows(engine, txn)?
                .map(|rows| (rows, txn.snapshot())),
            Source::Locking(cursor) => cursor
                .next_if(engine, txn, wanted)?
                .map(|row| (vec![row], txn.snapshot())),
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
    cursor: Option<ForkSafe<Source>>,
    rows: ForkSafe<IntoIter<RowView>>,
    /// Where those rows were read.
    at: Lsn,
    /// The next row, and where it was read.
    next: Option<(RowView, Lsn)>,
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
    order: Order,
    part: Part,
    filter: Option<Filter>,
    spec: RangeSpec,
    /// Whether its rows are locked, and what about those that others have locked.
    locking: Option<LockWaiting>,
    position: Mutex<Position>,
}

impl RowIterator {
    /// An iterator before its first row. `of` is a table or an index.
    pub fn new(
        core: Arc<Core>,
        of: &Bound<'_, PyAny>,
        args: RangeArgs<'_, '_>,
    ) -> PyResult<RowIterator> {
        let (table, order, spec) = args.resolve(&core, of)?;
        let part = table.get().part(args.columns)?;
        let filter = Filter::of(table.get(), args.condition)?;
        let rows = RowIterator::of(core, table.unbind(), part, filter, spec);
        Ok(rows.in_order(order))
    }

    /// The same in the order of an index.
    pub fn in_order(self, order: Order) -> RowIterator {
        RowIterator { order, ..self }
    }

    /// The same, which locks each row before it gives it.
    pub fn locking(
        mut self,
        py: Python<'_>,
        locking: Option<LockWaiting>,
    ) -> PyResult<RowIterator> {
        if locking.is_some() && matches!(self.order, Order::Index(_)) {
            return Err(invalid_option(py, "for_update", "a table", "an index"));
        }
        self.locking = locking;
        Ok(self)
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
            at: Lsn::NONE,
            next: None,
            left,
            long: LongValues::default(),
            done: left == 0,
        };
        RowIterator {
            core,
            table,
            order: Order::Key,
            part,
            filter,
            spec,
            locking: None,
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

    fn find<'py>(
        &self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
        position: &mut Position,
    ) -> Tried<Option<Bound<'py, PyAny>>> {
        let table = self.table.get();
        let shape = self.part.as_deref().unwrap_or(&table.shape);
        loop {
            if let Some((row, at)) = &position.next {
                let met = match &self.filter {
                    Some(filter) => filter.test(py, engine, *at, table, row, &mut position.long)?,
                    None => true,
                };
                if met {
                    let long = &mut position.long;
                    return make_row(py, engine, *at, table, shape, row, long).map(Some);
                }
                position.next = None;
                position.long.clear();
                continue;
            }
            position.next = position.rows.get_mut().next().map(|row| (row, position.at));
            if position.next.is_some() {
                continue;
            }
            // A condition that few rows meet must not keep Ctrl-C away.
            py.check_signals()?;
            let source = match &mut position.cursor {
                Some(source) => source.get_mut(),
                place => {
                    engine.begin_statement(txn);
                    place
                        .insert(ForkSafe::new(self.source(engine, txn)?))
                        .get_mut()
                }
            };
            let long = &mut position.long;
            let mut wanted = |row: &RowView, at: Lsn| {
                let Some(filter) = &self.filter else {
                    return Ok(true);
                };
                py.check_signals()?;
                let met = filter.test(py, engine, at, table, row, long)?;
                long.clear();
                Ok(met)
            };
            match source.next_rows(engine, txn, &mut wanted)? {
                Some((rows, at)) => {
                    position.rows = ForkSafe::new(rows.into_iter());
                    position.at = at;
                }
                None => return Ok(None),
            }
        }
    }

    fn source(&self, engine: &Engine, txn: &Txn) -> Tried<Source> {
        let (table, spec) = (&self.table.get().table, self.spec.clone());
        Ok(match (&self.order, self.locking) {
            (Order::Key, None) => Source::Plain(engine.range(txn, table, spec)?),
            (Order::Key, Some(waiting)) => {
                Source::Locking(Box::new(LockingCursor::new(table.clone(), spec, waiting)))
            }
            (Order::Index(name), _) => {
                let index = engine.index_at(txn, table, name)?;
                Source::Index(Box::new(engine.index_range(txn, table, &index, spec)?))
            }
        })
    }
}

/// The next row of an iterator, for event loops; the end is `StopAsyncIteration`.
pub struct NextRow(pub Arc<RowIterator>);

impl Operation for NextRow {
    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        let mut position = lock(py, &self.0.position);
        let row = if position.done {
            None
        } else {
            self.0.find(py, engine, txn, &mut position)?
        };
        position.moved(row.is_some());
        row.ok_or_else(|| Halt::Python(PyStopAsyncIteration::new_err(())))
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
