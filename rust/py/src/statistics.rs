//! What is known of a table's rows, for `aurora_engine.statistics` to give a face.

use aurora_engine::{ColumnStatistics, Mode};
use aurora_page::{Column, DataType, Value};
use aurora_runtime::Error;
use pyo3::prelude::*;

use crate::cluster::{Cluster, unknown_table};
use crate::failure::raise;
use crate::to_py::{timestamp_to_py, to_py};

/// Reads a whole table and keeps what it finds in the catalogue.
#[pyfunction]
pub fn analyze(py: Python<'_>, cluster: &Cluster, table: &str) -> PyResult<()> {
    let db = &cluster.db;
    let open = db.cluster(py)?;
    open.check_writable().map_err(|error| raise(py, error))?;
    let commit = crate::db::interruptible(py, |interrupt| {
        let txn = open.run(interrupt, |engine| {
            engine.begin(Mode::ReadOnly { at: None })
        })?;
        let mut analysis = open.run(interrupt, |engine| engine.begin_analysis(&txn, table))?;
        while open.run(interrupt, |engine| engine.analysis_step(&mut analysis))? {
            if interrupt() {
                return Err(Error::Interrupted);
            }
        }
        let now_us = open.now_us();
        let (_, commit) = open.run(interrupt, |engine| engine.keep_analysis(&analysis, now_us))?;
        Ok(commit)
    })?;
    commit.map_or(Ok(()), |commit| db.wait(py, commit.lsn))
}

type Object<'py> = Bound<'py, PyAny>;
/// Name, nulls, distinct values, least, greatest.
type ColumnFigures<'py> = (String, u64, u64, Object<'py>, Object<'py>);
/// Rows, bytes, bytes of indexes; then LSN, time and columns of the last analysis.
type Figures<'py> = (
    Option<u64>,
    u64,
    u64,
    Option<(u64, Object<'py>, Vec<ColumnFigures<'py>>)>,
);

/// What is known of a table.
#[pyfunction]
pub fn statistics<'py>(py: Python<'py>, cluster: &Cluster, table: &str) -> PyResult<Figures<'py>> {
    let found = cluster.db.call(py, |engine| {
        let at = engine.readable();
        match engine.table(table, at)? {
            Some(found) => Ok(Some((engine.table_size(&found, at)?, found))),
            None => Ok(None),
        }
    })?;
    let Some((size, found)) = found else {
        return Err(unknown_table(py, table));
    };
    let analysed = match &found.definition.statistics {
        None => None,
        Some(statistics) => {
            let zoned = DataType::Timestamp { zoned: true };
            let time = timestamp_to_py(py, statistics.time_us, zoned)?;
            let mut columns = Vec::new();
            for column in found.schema.columns() {
                let of = |known: &&ColumnStatistics| known.column == column.id;
                if let Some(known) = statistics.columns.iter().find(of) {
                    columns.push(figures(py, column, known)?);
                }
            }
            Some((statistics.at.0, time, columns))
        }
    };
    Ok((size.rows, size.bytes, size.index_bytes, analysed))
}

fn figures<'py>(
    py: Python<'py>,
    column: &Column,
    known: &ColumnStatistics,
) -> PyResult<ColumnFigures<'py>> {
    let object = |value: &Value| to_py(py, value.as_ref(), known.data_type);
    let (least, greatest) = (object(&known.least())?, object(&known.greatest())?);
    Ok((
        column.name.clone(),
        known.nulls,
        known.distinct,
        least,
        greatest,
    ))
}
