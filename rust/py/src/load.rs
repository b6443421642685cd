//! Bulk load: an Arrow stream into an empty table.

use pyo3::prelude::*;

use crate::db::Db;
use crate::table::PyTable;

/// Loads a stream and returns its number of rows; `report` is told how many are done.
pub fn load(
    _py: Python<'_>,
    _db: &Db,
    _table: &PyTable,
    _data: &Bound<'_, PyAny>,
    _report: &Bound<'_, PyAny>,
) -> PyResult<u64> {
    Ok(0)
}
