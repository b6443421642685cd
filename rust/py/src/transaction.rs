//! A transaction in a thread: `with db.transaction() as tx`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_engine::Isolation;
use aurora_page::Lsn;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};

use crate::commit::PyCommit;
use crate::errors::Raise;
use crate::index::{GetBy, get_for_update_of};
use crate::many::WriteMany;
use crate::ops::{Delete, GetMany, Insert, Operation, Update, Upsert};
use crate::query::PqMode;
use crate::range::{RangeArgs, RowIterator};
use crate::savepoint::{self, Savepoint};
use crate::scan::Scan;
use crate::table::PyTable;
use crate::txn::Core;
use crate::view::View;
use crate::waiting::{isolation_name, locking};

/// A transaction. Leaving its `with` statement commits it, or rolls it back on an error.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Transaction {
    core: Arc<Core>,
    /// Set when an event loop ran something else while the transaction was open on its thread.
    awaited: AtomicBool,
}

impl Transaction {
    pub fn new(core: Core) -> Transaction {
        Transaction {
            core: Arc::new(core),
            awaited: AtomicBool::new(false),
        }
    }

    fn run<'py>(&self, py: Python<'py>, op: impl Operation) -> PyResult<Bound<'py, PyAny>> {
        self.check_loop(py)?;
        self.core.run(py, op)
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
        this.core.begin(py)?;
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
            None => self.run(py, GetBy::new(&self.core, table, key, columns)?),
            Some(waiting) => {
                let get = get_for_update_of(&self.core, table, key, columns, waiting)?;
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
    ) -> PyResult<Bound<'py, PyList>> {
        Ok(self
            .run(py, GetMany::new(&self.core.table(table)?, keys, columns)?)?
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

    /// Adds rows, all of them or none; how many.
    fn insert_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        rows: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, WriteMany::insert(&self.core.table(table)?, rows)?)
    }

    /// Adds rows, or replaces those with their keys; how many.
    fn upsert_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        rows: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, WriteMany::upsert(&self.core.table(table)?, rows)?)
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
    ) -> PyResult<RowIterator> {
        self.check_loop(py)?;
        let locking = locking(py, for_update, nowait, skip_locked)?;
        let rows = RowIterator::new(
            self.core.clone(),
            table,
            RangeArgs {
                lo,
                hi,
                prefix,
                limit,
                reverse,
                columns,
                condition: r#where,
            },
        )?;
        rows.locking(py, locking)
    }

    /// A place to which the transaction can be rolled back: `with tx.savepoint()`.
    #[pyo3(signature = (name=None))]
    fn savepoint(&self, py: Python<'_>, name: Option<String>) -> PyResult<Savepoint> {
        self.check_loop(py)?;
        Savepoint::new(py, &self.core, name)
    }

    /// Takes back what was changed since the newest savepoint of this name. The savepoint stays.
    fn rollback_to(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.check_loop(py)?;
        savepoint::rollback_to(py, &self.core, name)
    }

    /// Forgets the newest savepoint of this name, and those made after it; the changes stay.
    fn release(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.check_loop(py)?;
        savepoint::release(py, &self.core, name)
    }

    /// Its number in messages about locks; None before it was entered.
    #[getter]
    fn id(&self) -> Option<u64> {
        self.core.id()
    }

    /// What it is kept apart from.
    #[getter]
    fn isolation(&self) -> &'static str {
        isolation_name(self.core.options.isolation)
    }

    /// The rows of a table or of a range of its keys as the transaction sees them, its own changes among them.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the keywords that Python sees"
    )]
    #[pyo3(signature = (table, lo=None, hi=None, *, prefix=None, reverse=false, parallel_query=None))]
    fn scan<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        lo: Option<&Bound<'py, PyAny>>,
        hi: Option<&Bound<'py, PyAny>>,
        prefix: Option<&Bound<'py, PyAny>>,
        reverse: bool,
        parallel_query: Option<&str>,
    ) -> PyResult<Scan> {
        let asked = parallel_query
            .map(|mode| PqMode::parse(py, mode))
            .transpose()?;
        // What storage nodes read is not noted for the check at the commit.
        let mode = match self.core.options.isolation {
            Isolation::Serializable => Some(PqMode::Off),
            _ => asked,
        };
        let args = RangeArgs {
            lo,
            hi,
            prefix,
            limit: None,
            reverse,
            columns: None,
            condition: None,
        };
        Scan::new(self.core.clone(), table, args).map(|scan| scan.with_mode(mode))
    }

    /// Makes rows of a table what they were at a moment.
    #[pyo3(signature = (table, from_, r#where=None))]
    fn restore_rows<'py>(
        slf: &Bound<'py, Self>,
        table: &Bound<'py, PyTable>,
        from_: &Bound<'py, PyAny>,
        r#where: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let db = slf.get().core.db.clone();
        let (lsn, _) = crate::history::find(&db, from_)?;
        let view = Bound::new(py, View::new(py, db, None, Some(Lsn(lsn)))?)?;
        let policy = py.import(intern!(py, "aurora_engine.history"))?;
        policy.call_method1(intern!(py, "put_back"), (slf, table, view, r#where))
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
