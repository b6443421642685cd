//! Awaitables that are complete when they are made: awaiting one never goes through the event loop.

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The result of an operation that needed no waiting. `await` gives its value at once.
#[pyclass(module = "aurora_engine._engine", frozen, generic, freelist = 256)]
pub struct Ready(Option<Py<PyAny>>);

static NOTHING: PyOnceLock<Py<Ready>> = PyOnceLock::new();

impl Ready {
    /// An awaitable of this object.
    pub fn with<'py>(py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if value.is_none() {
            return Ready::nothing(py);
        }
        Ok(Bound::new(py, Ready(Some(value.unbind())))?.into_any())
    }

    /// The awaitable of `None`; there is one for all.
    pub fn nothing(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let ready = NOTHING.get_or_try_init(py, || Py::new(py, Ready(None)))?;
        Ok(ready.bind(py).clone().into_any())
    }
}

#[pymethods]
impl Ready {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match &self.0 {
            // The end of the iteration, without a value: what awaiting None is.
            None => Ok(None),
            // A tuple holds the value, since an exception's argument that is itself a tuple would be spread.
            Some(value) => Err(PyStopIteration::new_err((value.clone_ref(py),))),
        }
    }
}
