//! Bulk load: Arrow streams and rows in any order into any table, with the interpreter free but for rows that are its objects.

use std::time::{Duration, Instant};

use arrow_array::RecordBatchReader;
use arrow_schema::ArrowError;
use aurora_page::KeyBuf;
use aurora_runtime::{Error, Ingest, LoadOptions, LoadPhase, OnConflict};
use aurora_scan::{BatchRows, FromArrowError};
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3_arrow::PyRecordBatchReader;

use crate::db::{Db, signalled};
use crate::errors::{Raise, at_row, describe, invalid_option};
use crate::failure::{raise, raise_engine, raise_key};
use crate::input::row_values;
use crate::table::PyTable;

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Rows between two looks at the clock, and rows that are made of Python objects at one time.
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

/// How to load, as Python says it.
pub fn options(
    py: Python<'_>,
    sort: Option<bool>,
    on_conflict: &str,
    memory_bytes: usize,
) -> PyResult<LoadOptions> {
    let on_conflict = match on_conflict {
        "error" => OnConflict::Error,
        "replace" => OnConflict::Replace,
        "skip" => OnConflict::Skip,
        other => {
            let expected = "\"error\", \"replace\" or \"skip\"";
            return Err(invalid_option(
                py,
                "on_conflict",
                expected,
                &format!("{other:?}"),
            ));
        }
    };
    Ok(LoadOptions {
        sort,
        on_conflict,
        memory_bytes,
    })
}

/// Loads what the parts hold - each an Arrow stream or an iterable of rows - and returns how many rows were put into the
/// table, replaced and skipped. `report` is told the phase, rows and bytes that are done.
pub fn load(
    py: Python<'_>,
    db: &Db,
    table: &PyTable,
    parts: &Bound<'_, PyAny>,
    report: &Bound<'_, PyAny>,
    options: LoadOptions,
) -> PyResult<(u64, u64, u64)> {
    let cluster = db.cluster(py)?;
    let (report, parts) = (report.clone().unbind(), parts.try_iter()?.unbind());
    let pending = Mutex::new(None);
    let failed = Mutex::new(None);
    let loaded = py.detach(|| {
        let interrupt = || signalled(&pending);
        let mut job = Job {
            table,
            load: cluster.ingest(&table.table, options, &interrupt)?,
            report: &report,
            reported: Instant::now(),
            interrupt: &interrupt,
        };
        while let Some(part) = Python::attach(|py| Part::next(py, &parts))? {
            job.take(part)?;
        }
        job.tell_now()?;
        let told = Mutex::new(Instant::now());
        let tell = |phase: LoadPhase, rows: u64, bytes: u64| {
            let mut told = told.lock();
            if told.elapsed() < REPORT_EVERY {
                return false;
            }
            *told = Instant::now();
            let told = call_report(&report, phase, rows, bytes);
            told.map_err(|error| *failed.lock() = Some(error)).is_err()
        };
        Ok(job.load.finish(&tell, &interrupt)?)
    });
    if let Some(error) = pending.into_inner().or(failed.into_inner()) {
        return Err(error);
    }
    loaded
        .map(|loaded| (loaded.rows, loaded.replaced, loaded.skipped))
        .map_err(|failure| raise_failure(py, failure))
}

/// Rows from one place.
enum Part {
    Stream(Box<dyn RecordBatchReader + Send>),
    Objects(Py<PyAny>),
}

impl Part {
    fn next(py: Python<'_>, parts: &Py<pyo3::types::PyIterator>) -> Result<Option<Part>, Failure> {
        let next = || {
            let Some(part) = parts.bind(py).clone().next() else {
                return Ok(None);
            };
            let part = part?;
            if part.hasattr(intern!(py, "__arrow_c_stream__"))? {
                return stream(&part).map(|stream| Some(Part::Stream(stream)));
            }
            match part.try_iter() {
                Ok(objects) => Ok(Some(Part::Objects(objects.into_any().unbind()))),
                Err(_) => Err(no_source(&part)),
            }
        };
        next().map_err(Failure::Python)
    }
}

fn no_source(got: &Bound<'_, PyAny>) -> PyErr {
    let expected = "an Arrow stream, an iterable of rows, or paths of files";
    let got_text = describe(got);
    let message = format!("load: expected {expected}, got {got_text}");
    Raise::new(got.py(), "TypeMismatch", message)
        .with("expected", expected)
        .with("got", got_text)
        .err()
}

struct Job<'a> {
    table: &'a PyTable,
    load: Ingest,
    report: &'a Py<PyAny>,
    reported: Instant,
    interrupt: &'a dyn Fn() -> bool,
}

impl Job<'_> {
    fn take(&mut self, part: Part) -> Result<(), Failure> {
        match part {
            Part::Stream(stream) => self.take_stream(stream),
            Part::Objects(objects) => self.take_objects(&objects),
        }
    }

    fn take_stream(&mut self, stream: Box<dyn RecordBatchReader + Send>) -> Result<(), Failure> {
        let schema = self.table.stream_schema();
        for batch in stream {
            let batch = batch.map_err(Failure::Stream)?;
            let rows = BatchRows::new(&schema, &batch, self.load.rows())?;
            if self.table.table.auto.is_some() {
                self.take_unnumbered(&rows)?;
                continue;
            }
            let mut untold = 0;
            rows.for_each(|row| {
                self.load.push(&row.key, &row.row, self.interrupt)?;
                untold += 1;
                if untold == ROWS_UNTOLD {
                    untold = 0;
                    self.tell()?;
                }
                Ok::<_, Failure>(())
            })?;
        }
        Ok(())
    }

    /// Rows of a batch in which the auto-increment column may be missing.
    fn take_unnumbered(&mut self, rows: &BatchRows<'_>) -> Result<(), Failure> {
        let table = &self.table.table;
        for row in 0..rows.len() {
            let mut values = rows.values(row)?;
            self.load.number(&mut values, self.interrupt)?;
            let key = table.key_of(&values).map_err(Error::from)?;
            let row = aurora_page::encode_row(&table.schema, &values);
            self.load.push(&key, &row, self.interrupt)?;
            if self.load.rows().is_multiple_of(ROWS_UNTOLD as u64) {
                self.tell()?;
            }
        }
        Ok(())
    }

    fn take_objects(&mut self, objects: &Py<PyAny>) -> Result<(), Failure> {
        let mut rows: Vec<(KeyBuf, Vec<u8>)> = Vec::new();
        loop {
            rows.clear();
            let (table, first) = (self.table, self.load.rows());
            Python::attach(|py| encode_some(py, table, objects, first, &mut rows))
                .map_err(Failure::Python)?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, row) in &rows {
                self.load.push(key, row, self.interrupt)?;
            }
            self.tell()?;
        }
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
        let (rows, bytes) = (self.load.rows(), self.load.bytes());
        call_report(self.report, LoadPhase::Reading, rows, bytes).map_err(Failure::Python)
    }
}

fn call_report(report: &Py<PyAny>, phase: LoadPhase, rows: u64, bytes: u64) -> PyResult<()> {
    let phase = match phase {
        LoadPhase::Reading => "read",
        LoadPhase::Writing => "write",
    };
    Python::attach(|py| report.call1(py, (phase, rows, bytes)).map(drop))
}

/// Some more of an iterator's rows, encoded.
fn encode_some(
    py: Python<'_>,
    table: &PyTable,
    objects: &Py<PyAny>,
    first: u64,
    rows: &mut Vec<(KeyBuf, Vec<u8>)>,
) -> PyResult<()> {
    let named = |source| {
        let table = table.table.name.clone();
        raise_engine(py, &aurora_engine::EngineError::Value { table, source })
    };
    let schema = &table.table.schema;
    for object in objects.bind(py).try_iter()?.take(ROWS_UNTOLD) {
        let at = |error| at_row(py, error, first + rows.len() as u64);
        let mut values = row_values(table, &object?).map_err(at)?;
        if table.table.auto.is_some() {
            let now_us = table.db.cluster(py)?.now_us();
            table.db.call(py, |engine| {
                engine.number_row(&table.table, &mut values, now_us)
            })?;
        }
        schema
            .check_row(&values)
            .map_err(|error| at(named(error)))?;
        let key = table.table.key_of(&values);
        let key = key.map_err(|error| at(raise_engine(py, &error)))?;
        rows.push((key, aurora_page::encode_row(schema, &values)));
    }
    Ok(())
}

/// The record batches of an object that gives an Arrow stream.
pub fn stream(data: &Bound<'_, PyAny>) -> PyResult<Box<dyn RecordBatchReader + Send>> {
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

/// An Arrow stream that broke off.
pub fn raise_stream(py: Python<'_>, error: &ArrowError) -> PyErr {
    let message = format!("the Arrow stream failed: {error}; nothing was loaded");
    Raise::new(py, "StreamFailed", message).err()
}

fn raise_failure(py: Python<'_>, failure: Failure) -> PyErr {
    match failure {
        Failure::Cluster(error) => raise(py, error),
        Failure::Python(error) => error,
        Failure::Stream(error) => raise_stream(py, &error),
        Failure::Rows(error) => raise_rows(py, &error),
    }
}

/// Arrow data that does not fit the table.
pub fn raise_rows(py: Python<'_>, error: &FromArrowError) -> PyErr {
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
            row,
            column,
            expected,
            got,
        } => {
            let class = if got == "null" {
                "NullViolation"
            } else {
                "ValueOutOfRange"
            };
            Raise::new(py, class, message)
                .with("row", row)
                .with("column", column)
                .with("expected", expected)
                .with("got", got)
                .err()
        }
        FromArrowError::Key { source, .. } => raise_key(py, &message, source),
    }
}
