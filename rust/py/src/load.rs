//! Bulk load: an Arrow stream into an empty table, with the interpreter free.

use std::time::{Duration, Instant};

use arrow_array::RecordBatchReader;
use arrow_schema::ArrowError;
use aurora_page::Schema;
use aurora_runtime::{BulkLoad, Error};
use aurora_scan::{BatchRows, EncodedRow, FromArrowError};
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3_arrow::PyRecordBatchReader;

use crate::db::{Db, signalled};
use crate::errors::{Raise, describe};
use crate::failure::{raise, raise_key};
use crate::table::PyTable;

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Rows between two looks at the clock.
const ROWS_UNTOLD: usize = 4096;

enum Failure {
    Cluster(Error),
    Stream(ArrowError),
    Rows(FromArrowError),
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Cluster(error)
    }
}

impl From<FromArrowError> for Failure {
    fn from(error: FromArrowError) -> Failure {
        Failure::Rows(error)
    }
}

/// Loads a stream and returns its number of rows; `report` is told how many are done. With `sort` the rows are
/// collected and put into key order first.
pub fn load(
    py: Python<'_>,
    db: &Db,
    table: &PyTable,
    data: &Bound<'_, PyAny>,
    report: &Bound<'_, PyAny>,
    sort: bool,
) -> PyResult<u64> {
    let cluster = db.cluster(py)?;
    let reader = stream(data)?;
    let report = report.clone().unbind();
    let pending = Mutex::new(None);
    let loaded = py.detach(|| {
        let interrupt = || signalled(&pending);
        let load = cluster.bulk_load(&table.table, &interrupt)?;
        let mut job = Job {
            load,
            report,
            reported: Instant::now(),
            interrupt: &interrupt,
        };
        if sort {
            job.sorted(reader, &table.table.schema)?
        } else {
            job.streamed(reader, &table.table.schema)?
        }
        job.finish()
    });
    if let Some(signal) = pending.into_inner() {
        return Err(signal);
    }
    loaded.map_err(|failure| raise_failure(py, failure))
}

fn stream(data: &Bound<'_, PyAny>) -> PyResult<Box<dyn RecordBatchReader + Send>> {
    let py = data.py();
    if !data.hasattr(intern!(py, "__arrow_c_stream__"))? {
        let (expected, got) = ("an object with __arrow_c_stream__", describe(data));
        return Err(Raise::new(
            py,
            "TypeMismatch",
            format!("load: expected {expected}, got {got}"),
        )
        .with("expected", expected)
        .with("got", got)
        .err());
    }
    data.extract::<PyRecordBatchReader>()?.into_reader()
}

struct Job<'a> {
    load: BulkLoad,
    report: Py<PyAny>,
    reported: Instant,
    interrupt: &'a dyn Fn() -> bool,
}

impl Job<'_> {
    /// Rows as they come.
    fn streamed(
        &mut self,
        reader: Box<dyn RecordBatchReader + Send>,
        schema: &Schema,
    ) -> Result<(), Failure> {
        for batch in reader {
            let batch = batch.map_err(Failure::Stream)?;
            for (index, row) in BatchRows::new(schema, &batch, self.load.rows())?
                .iter()
                .enumerate()
            {
                self.push(&row?)?;
                if index % ROWS_UNTOLD == 0 {
                    self.tell()?;
                }
            }
        }
        Ok(())
    }

    /// Rows in the order of their keys, all of them in memory.
    fn sorted(
        &mut self,
        reader: Box<dyn RecordBatchReader + Send>,
        schema: &Schema,
    ) -> Result<(), Failure> {
        let mut rows: Vec<EncodedRow> = Vec::new();
        for batch in reader {
            let batch = batch.map_err(Failure::Stream)?;
            for row in BatchRows::new(schema, &batch, rows.len() as u64)?.iter() {
                rows.push(row?);
            }
            if (self.interrupt)() {
                return Err(Error::Interrupted.into());
            }
        }
        rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        for some in rows.chunks(ROWS_UNTOLD) {
            some.iter().try_for_each(|row| self.push(row))?;
            self.tell()?;
        }
        Ok(())
    }

    fn push(&mut self, row: &EncodedRow) -> Result<(), Failure> {
        Ok(self.load.push_encoded(&row.key, &row.row, self.interrupt)?)
    }

    /// Reports progress now and then.
    fn tell(&mut self) -> Result<(), Failure> {
        if self.reported.elapsed() < REPORT_EVERY {
            Ok(())
        } else {
            self.tell_now()
        }
    }

    fn tell_now(&mut self) -> Result<(), Failure> {
        self.reported = Instant::now();
        let rows = self.load.rows();
        Python::attach(|py| self.report.call1(py, (rows,)).map(drop)).map_err(Failure::Python)
    }

    fn finish(mut self) -> Result<u64, Failure> {
        self.tell_now()?;
        let rows = self.load.rows();
        self.load.finish(self.interrupt)?;
        Ok(rows)
    }
}

fn raise_failure(py: Python<'_>, failure: Failure) -> PyErr {
    match failure {
        Failure::Cluster(error) => raise(py, error),
        Failure::Python(error) => error,
        Failure::Stream(error) => Raise::new(
            py,
            "StreamFailed",
            format!("the Arrow stream failed: {error}; nothing was loaded"),
        )
        .err(),
        Failure::Rows(error) => raise_rows(py, &error),
    }
}

fn raise_rows(py: Python<'_>, error: &FromArrowError) -> PyErr {
    let message = error.to_string();
    match error {
        FromArrowError::UnknownColumn { got, .. } => Raise::new(py, "UnknownColumn", message)
            .with("column", got)
            .err(),
        FromArrowError::RepeatedColumn { column } => Raise::new(py, "SchemaError", message)
            .with("column", column)
            .err(),
        FromArrowError::MissingColumn { column } => Raise::new(py, "NullViolation", message)
            .with("column", column)
            .with("got", "no such column")
            .err(),
        FromArrowError::Type {
            column,
            expected,
            got,
        } => Raise::new(py, "TypeMismatch", message)
            .with("column", column)
            .with("expected", expected)
            .with("got", got)
            .err(),
        FromArrowError::Value {
            column,
            expected,
            got,
            ..
        } => {
            let class = if got == "null" {
                "NullViolation"
            } else {
                "ValueOutOfRange"
            };
            Raise::new(py, class, message)
                .with("column", column)
                .with("expected", expected)
                .with("got", got)
                .err()
        }
        FromArrowError::Key { source, .. } => raise_key(py, &message, source),
    }
}
