//! Savepoints: a part of a transaction that can be taken back.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::ready::Ready;
use crate::txn::Core;

/// A savepoint, shared by its blocking and its asynchronous face.
struct Place {
    core: Arc<Core>,
    savepoint: aurora_engine::Savepoint,
    name: Option<String>,
}

impl Place {
    fn new(py: Python<'_>, core: &Arc<Core>, name: Option<String>) -> PyResult<Place> {
        let savepoint = core.edit(py, |txn| txn.savepoint(name.clone()))?;
        Ok(Place {
            core: core.clone(),
            savepoint,
            name,
        })
    }

    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        self.core.edit(py, |txn| txn.rollback_to(self.savepoint))
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.core.edit(py, |txn| txn.release(self.savepoint))
    }

    /// The end of a with statement. What the block has ended itself, the transaction or the savepoint, stays as it is.
    fn leave(&self, py: Python<'_>, failed: bool) -> PyResult<()> {
        if !self.core.is_open() {
            return Ok(());
        }
        self.core.edit(py, |txn| {
            if !txn.has_savepoint(self.savepoint) {
                return Ok(());
            }
            if failed {
                txn.rollback_to(self.savepoint)?;
            }
            txn.release(self.savepoint)
        })
    }

    fn describe(&self, class: &str) -> String {
        match &self.name {
            Some(name) => format!("<{class} {name:?}>"),
            None => format!("<{class}>"),
        }
    }
}

/// Takes back what the transaction has changed since the newest savepoint of this name.
pub fn rollback_to(py: Python<'_>, core: &Core, name: &str) -> PyResult<()> {
    core.edit(py, |txn| {
        let savepoint = txn.savepoint_named(name)?;
        txn.rollback_to(savepoint)
    })
}

/// Forgets the newest savepoint of this name, and those made after it.
pub fn release(py: Python<'_>, core: &Core, name: &str) -> PyResult<()> {
    core.edit(py, |txn| {
        let savepoint = txn.savepoint_named(name)?;
        txn.release(savepoint)
    })
}

/// A savepoint of a transaction: `with tx.savepoint()`.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Savepoint(Place);

impl Savepoint {
    pub fn new(py: Python<'_>, core: &Arc<Core>, name: Option<String>) -> PyResult<Savepoint> {
        Place::new(py, core, name).map(Savepoint)
    }
}

#[pymethods]
impl Savepoint {
    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
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
        self.0.leave(py, !kind.is_none())?;
        Ok(false)
    }

    /// Takes back what was changed since. The savepoint stays.
    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        self.0.rollback(py)
    }

    /// Forgets the savepoint; the changes stay.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.0.release(py)
    }

    /// Its name, if it has one.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    fn __repr__(&self) -> String {
        self.0.describe("Savepoint")
    }
}

/// A savepoint of a transaction on an event loop: `async with tx.savepoint()`.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct AsyncSavepoint(Place);

impl AsyncSavepoint {
    pub fn new(py: Python<'_>, core: &Arc<Core>, name: Option<String>) -> PyResult<AsyncSavepoint> {
        Place::new(py, core, name).map(AsyncSavepoint)
    }
}

#[pymethods]
impl AsyncSavepoint {
    fn __aenter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Ready::with(slf.py(), slf.into_any())
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
        self.0.leave(py, !kind.is_none())?;
        Ready::nothing(py)
    }

    /// Takes back what was changed since. The savepoint stays.
    fn rollback<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.rollback(py)?;
        Ready::nothing(py)
    }

    /// Forgets the savepoint; the changes stay.
    fn release<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.release(py)?;
        Ready::nothing(py)
    }

    /// Its name, if it has one.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    fn __repr__(&self) -> String {
        self.0.describe("AsyncSavepoint")
    }
}
