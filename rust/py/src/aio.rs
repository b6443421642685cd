//! The cluster for asyncio: awaitable operations, and commits that wait without a thread.
//!
//! - An operation is tried at once, on the loop's thread. If it is done, its awaitable is complete ([`Ready`]) and the
//!   loop is not involved; what it does otherwise is in `pending`.
//! - A commit is numbered at once and registered with the volume under an id. The volume's eventfd is a reader of
//!   the loop: one wake-up takes every commit that the VDL has passed and resolves their futures.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::cluster::Cluster;
use crate::commit::PyCommit;
use crate::db::Db;
use crate::errors::Raise;
use crate::in_flight::InFlight;
use crate::index::{GetBy, IndexGet, PyIndex, get_for_update_of, table_of};
use crate::many::WriteMany;
use crate::ops::{Delete, Get, GetMany, Insert, Operation, Update, Upsert};
use crate::pending::{AsyncCore, require_loop};
use crate::range::{NextRow, RangeArgs, RowIterator};
use crate::ready::Ready;
use crate::savepoint::{self, AsyncSavepoint};
use crate::table::PyTable;
use crate::txn::{Call, Core, Progress};
use crate::waiting::{LockTimeout, Options, isolation_name, locking};

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
    #[pyo3(signature = (*, isolation="snapshot", read_only=false, token=None, lock_timeout=LockTimeout::default()))]
    fn transaction(
        &self,
        py: Python<'_>,
        isolation: &str,
        read_only: bool,
        token: Option<String>,
        lock_timeout: LockTimeout,
    ) -> PyResult<AsyncTransaction> {
        let options = Options::new(py, isolation, read_only, lock_timeout)?;
        let core = Core::new(self.db.clone(), token, options, None);
        Ok(AsyncTransaction(AsyncCore::new(
            core,
            self.in_flight.clone(),
        )))
    }

    /// The row of a key as it is durable now, or None.
    #[pyo3(signature = (table, key, *, columns=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        columns: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(index) = table.cast::<PyIndex>() {
            let handle = crate::definition::readable(&self.db, &index.get().handle(py))?;
            return self.read(py, IndexGet::new(&handle, index.get(), key, columns)?);
        }
        let handle = crate::definition::readable(&self.db, table_of(table)?)?;
        let get = Get::new(&handle, key, columns)?;
        match get.quick(py, &self.db.cluster(py)?.engine())? {
            Some(row) => Ready::with(py, row),
            None => self.read(py, get),
        }
    }

    /// The rows of many keys as they are durable now.
    #[pyo3(signature = (table, keys, *, columns=None))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        keys: &Bound<'py, PyAny>,
        columns: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.read(
            py,
            GetMany::new(
                &crate::definition::readable(&self.db, table)?,
                keys,
                columns,
            )?,
        )
    }
}

impl Aio {
    fn read<'py>(&self, py: Python<'py>, op: impl Operation) -> PyResult<Bound<'py, PyAny>> {
        let (core, _) = Core::view(py, self.db.clone(), None, None)?;
        let mut call = Call::new(op);
        match core.try_call(py, &mut call)? {
            Progress::Done(row) => Ready::with(py, row),
            _ => later(py, move |py| {
                core.run_call(py, &mut call).map(Bound::unbind)
            }),
        }
    }
}

/// A transaction on an event loop. Leaving its `async with` statement commits it, or rolls it back on an error.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct AsyncTransaction(Arc<AsyncCore>);

impl AsyncTransaction {
    fn run<'py>(&self, py: Python<'py>, op: impl Operation) -> PyResult<Bound<'py, PyAny>> {
        self.0.run(py, op)
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.check_loop(py)?;
        let core = &self.0.core;
        if self.0.is_busy() {
            self.0.roll_back(py)?;
            let message = "an operation of the transaction was not awaited before its end; it was rolled back";
            return Err(Raise::new(py, "AsyncMisuse", message).err());
        }
        match core.try_number(py)? {
            Some(numbered) if core.db.cluster(py)?.is_told(numbered.after) => {
                core.acknowledged(numbered.commit);
                Ready::nothing(py)
            }
            Some(numbered) => self.0.in_flight.wait(&require_loop(py)?, core, numbered),
            None => {
                let core = core.clone();
                later(py, move |py| core.commit(py).map(|()| py.None()))
            }
        }
    }
}

#[pymethods]
impl AsyncTransaction {
    fn __repr__(&self) -> String {
        self.0.core.describe("AsyncTransaction")
    }

    fn __aenter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        this.0.settle_here(py)?;
        if this.0.core.try_begin(py)? {
            return Ready::with(py, slf.into_any());
        }
        let (core, entered) = (this.0.core.clone(), slf.unbind().into_any());
        later(py, move |py| {
            core.begin(py)?;
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
            self.0.roll_back(py)?;
            return Ready::nothing(py);
        }
        if self.0.core.is_open() {
            self.finish(py)
        } else {
            Ready::nothing(py)
        }
    }

    /// The row of a key, or None; locked if it is for an update.
    #[expect(clippy::too_many_arguments, reason = "each is an argument of Python's")]
    #[pyo3(signature = (table, key, *, columns=None, for_update=false, nowait=false, skip_locked=false))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        columns: Option<&Bound<'py, PyAny>>,
        for_update: bool,
        nowait: bool,
        skip_locked: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        match locking(py, for_update, nowait, skip_locked)? {
            None => self.run(py, GetBy::new(&self.0.core, table, key, columns)?),
            Some(waiting) => {
                let get = get_for_update_of(&self.0.core, table, key, columns, waiting)?;
                self.run(py, get)
            }
        }
    }

    /// The rows of many keys.
    #[pyo3(signature = (table, keys, *, columns=None))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        keys: &Bound<'py, PyAny>,
        columns: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, GetMany::new(&self.0.core.table(table)?, keys, columns)?)
    }

    /// Adds a row.
    fn insert<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        row: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, Insert::new(&self.0.core.table(table)?, row)?)
    }

    /// Adds a row, or replaces the one with its key.
    fn upsert<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        row: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, Upsert::new(&self.0.core.table(table)?, row)?)
    }

    /// Adds rows, all of them or none; how many.
    fn insert_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        rows: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, WriteMany::insert(&self.0.core.table(table)?, rows)?)
    }

    /// Adds rows, or replaces those with their keys; how many.
    fn upsert_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        rows: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, WriteMany::upsert(&self.0.core.table(table)?, rows)?)
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
        self.run(py, Update::new(&self.0.core.table(table)?, key, changes)?)
    }

    /// Removes the row of a key; whether there was one.
    fn delete<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, Delete::new(&self.0.core.table(table)?, key)?)
    }

    /// The rows from one key up to another: `async for row in tx.range(...)`.
    #[expect(clippy::too_many_arguments, reason = "each is an argument of Python's")]
    #[pyo3(signature = (
        table, lo=None, hi=None, *, prefix=None, limit=None, reverse=false, columns=None, r#where=None,
        for_update=false, nowait=false, skip_locked=false
    ))]
    fn range<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        lo: Option<&Bound<'py, PyAny>>,
        hi: Option<&Bound<'py, PyAny>>,
        prefix: Option<&Bound<'py, PyAny>>,
        limit: Option<&Bound<'py, PyAny>>,
        reverse: bool,
        columns: Option<&Bound<'py, PyAny>>,
        r#where: Option<&Bound<'py, PyAny>>,
        for_update: bool,
        nowait: bool,
        skip_locked: bool,
    ) -> PyResult<AsyncRowIterator> {
        let args = RangeArgs {
            lo,
            hi,
            prefix,
            limit,
            reverse,
            columns,
            condition: r#where,
        };
        let locking = locking(py, for_update, nowait, skip_locked)?;
        let rows = RowIterator::new(self.0.core.clone(), table, args)?;
        Ok(AsyncRowIterator {
            rows: Arc::new(rows.locking(py, locking)?),
            txn: self.0.clone(),
        })
    }

    /// A place to which the transaction can be rolled back: `async with tx.savepoint()`.
    #[pyo3(signature = (name=None))]
    fn savepoint(&self, py: Python<'_>, name: Option<String>) -> PyResult<AsyncSavepoint> {
        self.check_idle(py)?;
        AsyncSavepoint::new(py, &self.0.core, name)
    }

    /// Takes back what was changed since the newest savepoint of this name. The savepoint stays.
    fn rollback_to<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.check_idle(py)?;
        savepoint::rollback_to(py, &self.0.core, name)?;
        Ready::nothing(py)
    }

    /// Forgets the newest savepoint of this name, and those made after it; the changes stay.
    fn release<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.check_idle(py)?;
        savepoint::release(py, &self.0.core, name)?;
        Ready::nothing(py)
    }

    /// Its number in messages about locks; None before it was entered.
    #[getter]
    fn id(&self) -> Option<u64> {
        self.0.core.id()
    }

    /// What it is kept apart from.
    #[getter]
    fn isolation(&self) -> &'static str {
        isolation_name(self.0.core.options.isolation)
    }

    /// Gives up every change. The transaction ends.
    fn rollback<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.check_loop(py)?;
        self.0.roll_back(py)?;
        Ready::nothing(py)
    }

    /// Commits now, instead of at the end of the async with statement.
    fn commit<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.finish(py)
    }

    /// The commit, once it is durable.
    #[getter]
    fn committed(&self) -> Option<PyCommit> {
        self.0.core.committed()
    }
}

impl AsyncTransaction {
    /// Refuses what is done at once while operations are under way: it would overtake them.
    fn check_idle(&self, py: Python<'_>) -> PyResult<()> {
        self.0.check_loop(py)?;
        if !self.0.is_busy() {
            return Ok(());
        }
        let message = "expected every operation before a savepoint to have been awaited, got one that is under way";
        Err(Raise::new(py, "AsyncMisuse", message).err())
    }
}

/// The rows of a range, on an event loop.
#[pyclass(module = "aurora_engine._engine", frozen, generic)]
pub struct AsyncRowIterator {
    rows: Arc<RowIterator>,
    txn: Arc<AsyncCore>,
}

#[pymethods]
impl AsyncRowIterator {
    fn __aiter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.txn.run(py, NextRow(self.rows.clone()))
    }
}
