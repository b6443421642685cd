//! A view: everything as it was at one LSN.

use std::sync::Arc;

use aurora_page::Lsn;
use aurora_runtime::Connection;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::db::Db;
use crate::definition::row_class;
use crate::index::GetBy;
use crate::ops::GetMany;
use crate::query::PqMode;
use crate::range::{RangeArgs, RowIterator};
use crate::scan::Scan;
use crate::schema::PySchema;
use crate::table::PyTable;
use crate::txn::Core;

/// A consistent view of the cluster at one LSN. Close it, or use it in a `with` statement: it keeps old versions.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct View {
    core: Arc<Core>,
    lsn: Lsn,
}

impl View {
    /// A view at an LSN, which must be durable and still kept; or at the newest durable one.
    pub fn new(
        py: Python<'_>,
        db: Arc<Db>,
        via: Option<Connection>,
        at: Option<Lsn>,
    ) -> PyResult<View> {
        let (core, lsn) = Core::view(py, db, via, at)?;
        Ok(View {
            core: Arc::new(core),
            lsn,
        })
    }
}

#[pymethods]
impl View {
    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, py: Python<'_>, _exc: &Bound<'_, PyTuple>) {
        self.core.roll_back(py);
    }

    fn __repr__(&self) -> String {
        let closed = if self.core.is_open() { "" } else { " (closed)" };
        format!("<View at LSN {}{closed}>", self.lsn)
    }

    /// Ends the view and gives its LSN free.
    fn close(&self, py: Python<'_>) {
        self.core.roll_back(py);
    }

    /// What the view sees: everything up to this LSN.
    #[getter]
    fn lsn(&self) -> u64 {
        self.lsn.0
    }

    /// A table as the view sees it, with rows of a class made from its schema of that time.
    fn table(&self, py: Python<'_>, name: &str) -> PyResult<PyTable> {
        let found = self
            .core
            .step(py, |_, engine, txn| Ok(engine.table_in(txn, name)?))?;
        let table = found.ok_or_else(|| crate::cluster::unknown_table(py, name))?;
        let schema = PySchema(Arc::new(table.schema.clone()));
        let class = row_class(py, name, schema)?;
        PyTable::new(self.core.db.clone(), table, &class)
    }

    /// The row of a key, or None.
    #[pyo3(signature = (table, key, *, columns=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        columns: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.core
            .run(py, GetBy::new(&self.core, table, key, columns)?)
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
            .core
            .run(py, GetMany::new(&self.core.table(table)?, keys, columns)?)?
            .cast_into()?)
    }

    /// The rows from one key up to another, in the order of the key.
    #[expect(clippy::too_many_arguments, reason = "each is an argument of Python's")]
    #[pyo3(signature = (table, lo=None, hi=None, *, prefix=None, limit=None, reverse=false, columns=None, r#where=None))]
    fn range<'py>(
        &self,
        table: &Bound<'py, PyAny>,
        lo: Option<&Bound<'py, PyAny>>,
        hi: Option<&Bound<'py, PyAny>>,
        prefix: Option<&Bound<'py, PyAny>>,
        limit: Option<&Bound<'py, PyAny>>,
        reverse: bool,
        columns: Option<&Bound<'py, PyAny>>,
        r#where: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<RowIterator> {
        RowIterator::new(
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
        )
    }

    /// The rows of a range, as rows or as an Arrow stream.
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
        let mode = parallel_query
            .map(|mode| PqMode::parse(py, mode))
            .transpose()?;
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
}
