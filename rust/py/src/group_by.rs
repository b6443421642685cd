//! `scan.group_by(...).agg(...)`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::scan::Scan;

/// Rows in groups, before it is said what is wanted of each.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct GroupBy {
    pub scan: Py<Scan>,
    pub keys: Vec<(String, aurora_scan::expr::Expr)>,
}

#[pymethods]
impl GroupBy {
    /// A row for each group: its keys, and what is computed from its rows.
    #[pyo3(signature = (**aggregates))]
    fn agg(&self, py: Python<'_>, aggregates: Option<&Bound<'_, PyDict>>) -> PyResult<Scan> {
        self.scan.get().grouped(py, self.keys.clone(), aggregates)
    }

    fn __repr__(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|(name, _)| name.as_str()).collect();
        format!("<GroupBy {}>", keys.join(", "))
    }
}
