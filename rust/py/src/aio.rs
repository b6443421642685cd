//! The cluster for asyncio: awaitable operations, and commits that wait without a thread.
//!
//! - An operation is tried at once, on the loop's thread. If it is done, its awaitable is complete ([`Ready`]) and the
//!   loop is not involved; if it must wait for a page, it goes on in the loop's thread pool.
//! - A commit is numbered at once and registered with the volume under an id. The volume's eventfd is a reader of
//!   the loop: one wake-up takes every commit that the VDL has passed and resolves their futures.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aurora_engine::Mode;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::cluster::Cluster;
use crate::commit::PyCommit;
use crate::db::Db;
use crate::errors::Raise;
use crate::in_flight::InFlight;
use crate::index::{GetBy, IndexGet, PyIndex, table_of};
use crate::ops::{Delete, Get, GetMany, Insert, Operation, Update, Upsert};
use crate::range::{RangeArgs, RowIterator};
use crate::ready::Ready;
use crate::table::PyTable;
use crate::transaction::running_loop;
use crate::txn::Core;

type Job = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// An operation that goes on in the loop's thread pool.
#[pyclass(module = "aurora_engine._engine", frozen)]
struct Later(Mutex<Option<Job>>);

#[pymethods]
impl Later {
    fn __call__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.0.lock().take() {
            Some(job) => job(py),
            None => Err(PyRuntimeError::new_err("an operation runs once")),
        }
    }
}

fn later<'py>(
    py: Python<'py>,
    job: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    let event_loop = require_loop(py)?;
    let later = Bound::new(py, Later(Mutex::new(Some(Box::new(job)))))?;
    event_loop.call_method1(intern!(py, "run_in_executor"), (py.None(), later))
}

fn require_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    running_loop(py)?.ok_or_else(|| {
        let message = "no event loop is running in this thread: await this in a coroutine, or use db.transaction()";
        Raise::new(py, "AsyncMisuse", message).err()
    })
}

/// The asynchronous side of a cluster.
#[pyclass(module = "aurora_engine._engine", subclass, frozen)]
pub struct Aio {
    cluster: Py<Cluster>,
    db: Arc<Db>,
    in_flight: Arc<InFlight>,
}

#[pymethods]
impl Aio {
    #[new]
    fn new(cluster: &Bound<'_, Cluster>) -> Aio {
        let this = cluster.get();
        Aio {
            cluster: cluster.clone().unbind(),
            db: this.db.clone(),
            in_flight: this.in_flight.clone(),
        }
    }

    /// The cluster keeps its asynchronous side, which keeps the cluster: the collector must see that.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cluster)
    }

    /// The cluster.
    #[getter]
    fn cluster<'py>(&self, py: Python<'py>) -> Bound<'py, Cluster> {
        self.cluster.bind(py).clone()
    }

    /// A transaction: `async with db.aio.transaction() as tx`.
    #[pyo3(signature = (*, isolation="snapshot", read_only=false, token=None))]
    fn transaction(
        &self,
        py: Python<'_>,
        isolation: &str,
        read_only: bool,
        token: Option<String>,
    ) -> PyResult<AsyncTransaction> {
        crate::cluster::check_isolation(py, isolation)?;
        Ok(AsyncTransaction {
            core: Arc::new(Core::new(self.db.clone(), token)),
            in_flight: self.in_flight.clone(),
            read_only,
            running: Arc::new(AtomicUsize::new(0)),
        })
    }

    /// The row of a key as it is durable now, or None.
    fn get<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(index) = table.cast::<PyIndex>() {
            let handle = crate::definition::readable(&self.db, &index.get().handle(py))?;
            return self.read(py, IndexGet::new(&handle, index.get(), key)?);
        }
        let get = Get::new(
            &crate::definition::readable(&self.db, table_of(table)?)?,
            key,
        )?;
        match get.quick(py, &self.db.cluster(py)?.engine())? {
            Some(row) => Ready::with(py, row),
            None => self.read(py, get),
        }
    }

    /// The rows of many keys as they are durable now.
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        keys: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.read(
            py,
            GetMany::new(&crate::definition::readable(&self.db, table)?, keys)?,
        )
    }
}

impl Aio {
    fn read<'py>(&self, py: Python<'py>, mut op: impl Operation) -> PyResult<Bound<'py, PyAny>> {
        let core = Core::new(self.db.clone(), None);
        core.begin(py, Mode::ReadOnly { at: None })?;
        match core.try_once(py, &mut op)? {
            Some(row) => Ready::with(py, row),
            None => later(py, move |py| core.run(py, &mut op).map(Bound::unbind)),
        }
    }
}

/// A transaction on an event loop. Leaving its `async with` statement commits it, or rolls it back on an error.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct AsyncTransaction {
    core: Arc<Core>,
    in_flight: Arc<InFlight>,
    read_only: bool,
    /// Operations that are in the thread pool.
    running: Arc<AtomicUsize>,
}

impl AsyncTransaction {
    fn run<'py>(&self, py: Python<'py>, mut op: impl Operation) -> PyResult<Bound<'py, PyAny>> {
        match self.core.try_once(py, &mut op)? {
            Some(done) => Ready::with(py, done),
            None => {
                let core = self.core.clone();
                self.later(py, move |py| core.run(py, &mut op).map(Bound::unbind))
            }
        }
    }

    fn later<'py>(
        &self,
        py: Python<'py>,
        job: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        let running = self.running.clone();
        running.fetch_add(1, Ordering::Relaxed);
        later(py, move |py| {
            let result = job(py);
            running.fetch_sub(1, Ordering::Relaxed);
            result
        })
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.running.load(Ordering::Relaxed) > 0 {
            self.core.roll_back(py);
            let message = "an operation of the transaction was not awaited before its end; it was rolled back";
            return Err(Raise::new(py, "AsyncMisuse", message).err());
        }
        match self.core.try_number(py)? {
            Some(numbered) if numbered.after <= self.core.db.cluster(py)?.vdl() => {
                self.core.acknowledged(numbered.commit);
                Ready::nothing(py)
            }
            Some(numbered) => self
                .in_flight
                .wait(&require_loop(py)?, &self.core, numbered),
            None => {
                let core = self.core.clone();
                later(py, move |py| core.commit(py).map(|()| py.None()))
            }
        }
    }
}

#[pymethods]
impl AsyncTransaction {
    fn __repr__(&self) -> String {
        self.core.describe("AsyncTransaction")
    }

    fn __aenter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let mode = if this.read_only {
            Mode::ReadOnly { at: None }
        } else {
            Mode::ReadWrite
        };
        if this.core.try_begin(py, mode)? {
            return Ready::with(py, slf.into_any());
        }
        let (core, entered) = (this.core.clone(), slf.unbind().into_any());
        later(py, move |py| {
            core.begin(py, mode)?;
            Ok(entered)
        })
    }

    #[pyo3(signature = (kind, error, traceback, /))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        kind: &Bound<'py, PyAny>,
        error: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (error, traceback);
        if !kind.is_none() {
            self.core.roll_back(py);
            return Ready::nothing(py);
        }
        if self.core.is_open() {
            self.finish(py)
        } else {
            Ready::nothing(py)
        }
    }

    /// The row of a key, or None.
    fn get<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, GetBy::new(&self.core, table, key)?)
    }

    /// The rows of many keys.
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        keys: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, GetMany::new(&self.core.table(table)?, keys)?)
    }

    /// Adds a row.
    fn insert<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        row: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, Insert::new(&self.core.table(table)?, row)?)
    }

    /// Adds a row, or replaces the one with its key.
    fn upsert<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        row: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, Upsert::new(&self.core.table(table)?, row)?)
    }

    /// Changes columns of a row.
    #[pyo3(signature = (table, key, /, **changes))]
    fn update<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        key: &Bound<'py, PyAny>,
        changes: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, Update::new(&self.core.table(table)?, key, changes)?)
    }

    /// Removes the row of a key; whether there was one.
    fn delete<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, Delete::new(&self.core.table(table)?, key)?)
    }

    /// The rows from one key up to another: `async for row in tx.range(...)`.
    #[pyo3(signature = (table, lo=None, hi=None, *, prefix=None, limit=None, reverse=false))]
    fn range<'py>(
        &self,
        table: &Bound<'py, PyAny>,
        lo: Option<&Bound<'py, PyAny>>,
        hi: Option<&Bound<'py, PyAny>>,
        prefix: Option<&Bound<'py, PyAny>>,
        limit: Option<usize>,
        reverse: bool,
    ) -> PyResult<AsyncRowIterator> {
        let args = RangeArgs {
            lo,
            hi,
            prefix,
            limit,
            reverse,
        };
        Ok(AsyncRowIterator(Arc::new(RowIterator::new(
            self.core.clone(),
            table,
            args,
        )?)))
    }

    /// Gives up every change. The transaction ends.
    fn rollback<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.core.roll_back(py);
        Ready::nothing(py)
    }

    /// Commits now, instead of at the end of the async with statement.
    fn commit<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.finish(py)
    }

    /// The commit, once it is durable.
    #[getter]
    fn committed(&self) -> Option<PyCommit> {
        self.core.committed()
    }
}

/// The rows of a range, on an event loop.
#[pyclass(module = "aurora_engine._engine", frozen, generic)]
pub struct AsyncRowIterator(Arc<RowIterator>);

#[pymethods]
impl AsyncRowIterator {
    fn __aiter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(step) = self.0.try_advance(py)? {
            return match step {
                Some(row) => Ready::with(py, row),
                None => Err(PyStopAsyncIteration::new_err(())),
            };
        }
        let rows = self.0.clone();
        later(py, move |py| match rows.advance(py)? {
            Some(row) => Ok(row.unbind()),
            None => Err(PyStopAsyncIteration::new_err(())),
        })
    }
}
