//! A transaction in a thread: `with db.transaction() as tx`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_engine::Mode;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};

use crate::commit::PyCommit;
use crate::errors::Raise;
use crate::index::GetBy;
use crate::ops::{Delete, GetMany, Insert, Operation, Update, Upsert};
use crate::query::PqMode;
use crate::range::{RangeArgs, RowIterator};
use crate::scan::Scan;
use crate::table::PyTable;
use crate::txn::Core;

/// A transaction. Leaving its `with` statement commits it, or rolls it back on an error.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Transaction {
    core: Arc<Core>,
    read_only: bool,
    /// Set when an event loop ran something else while the transaction was open on its thread.
    awaited: AtomicBool,
}

impl Transaction {
    pub fn new(core: Core, read_only: bool) -> Transaction {
        Transaction {
            core: Arc::new(core),
            read_only,
            awaited: AtomicBool::new(false),
        }
    }

    fn run<'py>(&self, py: Python<'py>, mut op: impl Operation) -> PyResult<Bound<'py, PyAny>> {
        self.check_loop(py)?;
        self.core.run(py, &mut op)
    }

    fn check_loop(&self, py: Python<'_>) -> PyResult<()> {
        if !self.awaited.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.core.roll_back(py);
        let message = "the coroutine awaited something inside a blocking transaction, which was rolled back: \
                       use `async with db.aio.transaction()` on an event loop";
        Err(Raise::new(py, "AsyncMisuse", message).err())
    }
}

#[pymethods]
impl Transaction {
    fn __enter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let this = slf.get();
        let py = slf.py();
        let mode = if this.read_only {
            Mode::ReadOnly { at: None }
        } else {
            Mode::ReadWrite
        };
        this.core.begin(py, mode)?;
        if let Some(event_loop) = running_loop(py)? {
            // Runs only if the coroutine gives the loop a turn before the transaction has ended.
            event_loop.call_method1(
                intern!(py, "call_soon"),
                (slf.getattr(intern!(py, "_on_loop_turn"))?,),
            )?;
        }
        Ok(slf)
    }

    #[pyo3(signature = (kind, error, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let _ = (error, traceback);
        if !kind.is_none() {
            self.core.roll_back(py);
            return Ok(false);
        }
        if self.core.is_open() {
            self.check_loop(py)?;
            self.core.commit(py)?;
        }
        Ok(false)
    }

    fn __repr__(&self) -> String {
        self.core.describe("Transaction")
    }

    fn _on_loop_turn(&self) {
        if self.core.is_open() {
            self.awaited.store(true, Ordering::Relaxed);
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
    ) -> PyResult<Bound<'py, PyList>> {
        Ok(self
            .run(py, GetMany::new(&self.core.table(table)?, keys)?)?
            .cast_into()?)
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
    fn upsert(
        &self,
        py: Python<'_>,
        table: &Bound<'_, PyTable>,
        row: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.run(py, Upsert::new(&self.core.table(table)?, row)?)
            .map(drop)
    }

    /// Changes columns of a row.
    #[pyo3(signature = (table, key, /, **changes))]
    fn update(
        &self,
        py: Python<'_>,
        table: &Bound<'_, PyTable>,
        key: &Bound<'_, PyAny>,
        changes: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.run(py, Update::new(&self.core.table(table)?, key, changes)?)
            .map(drop)
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

    /// The rows from one key up to another, in the order of the key.
    #[expect(clippy::too_many_arguments, reason = "each is an argument of Python's")]
    #[pyo3(signature = (table, lo=None, hi=None, *, prefix=None, limit=None, reverse=false))]
    fn range<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        lo: Option<&Bound<'py, PyAny>>,
        hi: Option<&Bound<'py, PyAny>>,
        prefix: Option<&Bound<'py, PyAny>>,
        limit: Option<usize>,
        reverse: bool,
    ) -> PyResult<RowIterator> {
        self.check_loop(py)?;
        RowIterator::new(
            self.core.clone(),
            table,
            RangeArgs {
                lo,
                hi,
                prefix,
                limit,
                reverse,
            },
        )
    }

    /// The rows of a table or of a range of its keys as the transaction sees them, its own changes among them.
    #[pyo3(signature = (table, lo=None, hi=None, *, prefix=None, parallel_query=None))]
    fn scan<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        lo: Option<&Bound<'py, PyAny>>,
        hi: Option<&Bound<'py, PyAny>>,
        prefix: Option<&Bound<'py, PyAny>>,
        parallel_query: Option<&str>,
    ) -> PyResult<Scan> {
        let mode = parallel_query
            .map(|mode| PqMode::parse(py, mode))
            .transpose()?;
        let args = RangeArgs {
            lo,
            hi,
            prefix,
            limit: None,
            reverse: false,
        };
        Scan::new(py, self.core.clone(), table, args).map(|scan| scan.with_mode(mode))
    }

    /// Gives up every change. The transaction ends.
    fn rollback(&self, py: Python<'_>) {
        self.core.roll_back(py);
    }

    /// Commits now, instead of at the end of the with statement.
    fn commit(&self, py: Python<'_>) -> PyResult<Option<PyCommit>> {
        self.check_loop(py)?;
        self.core.commit(py)?;
        Ok(self.core.committed())
    }

    /// The commit, once it is durable.
    #[getter]
    fn committed(&self) -> Option<PyCommit> {
        self.core.committed()
    }
}

static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The event loop that is running in this thread.
pub fn running_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let get = RUNNING_LOOP.get_or_try_init(py, || {
        // Without asyncio loaded there is no loop; loading it here would cost every program 50 ms.
        py.import("_asyncio")?
            .getattr("_get_running_loop")
            .map(Bound::unbind)
    })?;
    let running = get.bind(py).call0()?;
    Ok(if running.is_none() {
        None
    } else {
        Some(running)
    })
}
