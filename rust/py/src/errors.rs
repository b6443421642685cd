//! Raising the exceptions of `aurora_engine.exceptions`: one tree, defined once, in Python.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

static EXCEPTIONS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// An exception being put together: its class, its message, then each attribute.
pub struct Raise<'py> {
    class: &'static str,
    message: String,
    details: Bound<'py, PyDict>,
}

impl<'py> Raise<'py> {
    /// An exception of the class of this name.
    pub fn new(py: Python<'py>, class: &'static str, message: impl Into<String>) -> Raise<'py> {
        Raise {
            class,
            message: message.into(),
            details: PyDict::new(py),
        }
    }

    /// Adds an attribute; one that cannot be made into a Python object is left out.
    pub fn with(self, name: &str, value: impl IntoPyObject<'py>) -> Raise<'py> {
        // The error being reported matters more than one of its attributes.
        let _ = self.details.set_item(name, value);
        self
    }

    /// The finished exception.
    pub fn err(self) -> PyErr {
        let py = self.details.py();
        match self.build(py) {
            Ok(error) | Err(error) => error,
        }
    }

    fn build(self, py: Python<'py>) -> PyResult<PyErr> {
        let module = EXCEPTIONS.get_or_try_init(py, || {
            py.import("aurora_engine.exceptions").map(Bound::unbind)
        })?;
        let class = module.bind(py).getattr(self.class)?;
        let exception = class.call((self.message,), Some(&self.details))?;
        Ok(PyErr::from_value(exception))
    }
}

/// The same error, saying which of many rows it is about.
pub fn at_row(py: Python<'_>, error: PyErr, row: u64) -> PyErr {
    with_detail(py, error, &format!("row {row}: "), "row", row)
}

/// The same error, with one more attribute, and something before its message.
pub fn with_detail<'py>(
    py: Python<'py>,
    error: PyErr,
    before: &str,
    name: &str,
    detail: impl IntoPyObject<'py>,
) -> PyErr {
    let value = error.value(py);
    let (Ok(message), Ok(details)) = (
        value
            .getattr("message")
            .and_then(|it| it.extract::<String>()),
        value
            .getattr("details")
            .and_then(|it| it.cast_into::<PyDict>()?.copy()),
    ) else {
        return error;
    };
    let told = details.set_item(name, detail).and_then(|()| {
        value
            .get_type()
            .call((format!("{before}{message}"),), Some(&details))
    });
    told.map_or(error, PyErr::from_value)
}

/// An argument that is not accepted.
pub fn invalid_option(py: Python<'_>, option: &str, expected: &str, got: &str) -> PyErr {
    Raise::new(
        py,
        "InvalidOption",
        format!("{option}: expected {expected}, got {got}"),
    )
    .with("option", option)
    .with("expected", expected)
    .with("got", got)
    .err()
}

/// How a Python object is called in a message: its type, and its value where that is short.
pub fn describe(value: &Bound<'_, PyAny>) -> String {
    const SHORT: usize = 60;
    let kind = value
        .get_type()
        .name()
        .map_or_else(|_| "object".to_owned(), |name| name.to_string());
    match value.repr() {
        Ok(repr) if value.is_none() => repr.to_string(),
        Ok(repr) => match repr.to_str() {
            Ok(text) if text.chars().count() <= SHORT => format!("{kind} {text}"),
            Ok(text) => format!("{kind} {}...", text.chars().take(SHORT).collect::<String>()),
            Err(_) => kind,
        },
        Err(_) => kind,
    }
}
