//! What a commit was.

use aurora_page::{DataType, Lsn};
use pyo3::prelude::*;

use crate::to_py::timestamp_to_py;

/// A durable commit.
#[pyclass(name = "Commit", module = "aurora_engine._engine", frozen, eq, hash)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PyCommit {
    /// Where it is in the volume's history.
    #[pyo3(get)]
    pub lsn: u64,
    pub time_us: i64,
    /// How many copies are known to have it.
    #[pyo3(get)]
    pub copies: u32,
    /// The caller's token.
    #[pyo3(get)]
    pub token: Option<String>,
}

#[pymethods]
impl PyCommit {
    #[getter]
    fn time<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        timestamp_to_py(py, self.time_us, DataType::Timestamp { zoned: true })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let token = self
            .token
            .as_ref()
            .map_or_else(String::new, |token| format!(", token={token:?}"));
        let time = self.time(py)?;
        Ok(format!(
            "Commit(lsn={}, time={}, copies={}{token})",
            self.lsn,
            time.str()?,
            self.copies
        ))
    }
}

impl PyCommit {
    /// The commit's place.
    pub fn lsn(&self) -> Lsn {
        Lsn(self.lsn)
    }
}
