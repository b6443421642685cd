//! Backups: where they go, how they do, what can be restored. Plain dictionaries; `aurora_engine.backup` gives them their shape.

use std::time::Duration;

use aurora_page::{DataType, Lsn};
use aurora_runtime::{
    BackupKey, BackupList, BackupOptions, BackupSnapshot, BackupStatus, PlannedObject, RestoreAt,
    RestorePlan, TableProof, Target,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::db::{Db, interruptible};
use crate::errors::invalid_option;
use crate::failure::raise;
use crate::to_py::timestamp_to_py;

const TIME: DataType = DataType::Timestamp { zoned: true };

/// Address, days, key and bytes per second.
pub type Place = (String, u32, Option<Vec<u8>>, u64);

/// Where backups go.
pub fn options(py: Python<'_>, place: Place) -> PyResult<BackupOptions> {
    let (url, retention_days, key, bytes_per_s) = place;
    let mut options = BackupOptions::new(url);
    options.retention_days = retention_days;
    options.bytes_per_s = bytes_per_s;
    options.key = backup_key(py, key)?;
    Ok(options)
}

fn backup_key(py: Python<'_>, key: Option<Vec<u8>>) -> PyResult<Option<BackupKey>> {
    let key = key.map(|bytes| BackupKey::new(&bytes)).transpose();
    key.map_err(|error| raise(py, error))
}

/// Where a backup lies that is read.
pub fn source(py: Python<'_>, url: String, key: Option<Vec<u8>>) -> PyResult<BackupOptions> {
    let mut options = BackupOptions::new(url);
    options.key = backup_key(py, key)?;
    Ok(options)
}

/// The moment that a restore is to; the latest without one.
pub fn moment(at: Option<&Bound<'_, PyAny>>) -> PyResult<RestoreAt> {
    let Some(at) = at else {
        return Ok(RestoreAt::Latest);
    };
    Ok(match crate::history::target("at", at)? {
        Target::Time(time_us) => RestoreAt::Time(time_us),
        Target::Lsn(lsn) => RestoreAt::Lsn(lsn),
        Target::Snapshot(name) => RestoreAt::Snapshot(name),
    })
}

fn time(py: Python<'_>, at: Option<(Lsn, i64)>) -> PyResult<Option<Bound<'_, PyAny>>> {
    at.map(|(_, us)| timestamp_to_py(py, us, TIME)).transpose()
}

/// How a backup is doing.
pub fn status<'py>(py: Python<'py>, status: &BackupStatus) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("url", &status.url)?;
    out.set_item("state", status.state)?;
    out.set_item("last_error", &status.last_error)?;
    out.set_item("restorable_lsn", status.restorable.map(|(lsn, _)| lsn.0))?;
    out.set_item("latest_restorable_time", time(py, status.restorable)?)?;
    out.set_item("earliest_restorable_time", time(py, status.earliest)?)?;
    out.set_item("lag_s", status.lag.as_secs_f64())?;
    out.set_item("uploaded_bytes", status.uploaded_bytes)?;
    out.set_item("stored_bytes", status.stored_bytes)?;
    out.set_item("manifest", status.manifest)?;
    out.set_item("retention_days", status.retention_days)?;
    out.set_item("base_in_progress", status.base_in_progress)?;
    out.set_item("snapshots", &status.snapshots)?;
    Ok(out)
}

fn limit(py: Python<'_>, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        let got = format!("{seconds} s");
        invalid_option(py, "timeout", "a time that is not negative", &got)
    })
}

/// Waits until a commit, or all that are durable, can be restored.
pub fn wait(py: Python<'_>, db: &Db, lsn: Option<u64>, seconds: f64) -> PyResult<u64> {
    let limit = limit(py, seconds)?;
    let cluster = db.cluster(py)?;
    let done = interruptible(py, |interrupt| {
        cluster.backup_wait(lsn.map(Lsn), limit, interrupt)
    })?;
    Ok(done.0)
}

/// Takes a base and waits for it.
pub fn base(py: Python<'_>, db: &Db, seconds: f64) -> PyResult<u64> {
    let limit = limit(py, seconds)?;
    let cluster = db.cluster(py)?;
    let done = interruptible(py, |interrupt| cluster.backup_base(limit, interrupt))?;
    Ok(done.0)
}

/// Keeps what the tables of a snapshot are: name, rows and digest of each.
pub fn record_tables(
    py: Python<'_>,
    db: &Db,
    snapshot: &str,
    tables: Vec<(String, u64, String)>,
) -> PyResult<()> {
    let table = |(name, rows, digest)| TableProof { name, rows, digest };
    let tables = tables.into_iter().map(table).collect();
    let kept = db.cluster(py)?.record_tables(snapshot, tables);
    kept.map_err(|error| raise(py, error))
}

/// What a restore reads, or has read.
pub fn plan<'py>(py: Python<'py>, plan: &RestorePlan) -> PyResult<Bound<'py, PyDict>> {
    let object = |object: &PlannedObject| {
        (
            object.name.clone(),
            object.bytes,
            object.raw,
            object.sha256.clone(),
        )
    };
    let out = PyDict::new(py);
    out.set_item("lsn", plan.lsn.0)?;
    out.set_item("time", timestamp_to_py(py, plan.time_us, TIME)?)?;
    out.set_item("base_lsn", plan.base_lsn.0)?;
    out.set_item("base_node", plan.base_node)?;
    let log: Vec<(u64, u64)> = plan.log.iter().map(|(from, to)| (from.0, to.0)).collect();
    out.set_item("log", log)?;
    let table = |table: &TableProof| (table.name.clone(), table.rows, table.digest.clone());
    let tables = plan.tables.as_ref();
    let tables = tables.map(|tables| tables.iter().map(table).collect::<Vec<_>>());
    out.set_item("tables", tables)?;
    out.set_item(
        "objects",
        plan.objects.iter().map(object).collect::<Vec<_>>(),
    )?;
    Ok(out)
}

fn snapshot<'py>(py: Python<'py>, snapshot: &BackupSnapshot) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("name", &snapshot.name)?;
    out.set_item("lsn", snapshot.lsn.0)?;
    out.set_item("time", timestamp_to_py(py, snapshot.time_us, TIME)?)?;
    out.set_item("created", timestamp_to_py(py, snapshot.created_us, TIME)?)?;
    out.set_item(
        "state",
        if snapshot.available {
            "available"
        } else {
            "copying"
        },
    )?;
    Ok(out)
}

fn list<'py>(py: Python<'py>, list: &BackupList) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("cluster", &list.cluster)?;
    out.set_item("earliest_lsn", list.earliest.map(|(lsn, _)| lsn.0))?;
    out.set_item("earliest", time(py, list.earliest)?)?;
    out.set_item("latest_lsn", list.latest.map(|(lsn, _)| lsn.0))?;
    out.set_item("latest", time(py, list.latest)?)?;
    let snapshots: PyResult<Vec<_>> = list.snapshots.iter().map(|s| snapshot(py, s)).collect();
    out.set_item("snapshots", snapshots?)?;
    out.set_item("stored_bytes", list.stored_bytes)?;
    out.set_item("manifest", list.manifest)?;
    out.set_item("retention_days", list.retention_days)?;
    out.set_item("encrypted", list.encrypted)?;
    Ok(out)
}

/// What a restore to a moment would read.
#[pyfunction]
#[pyo3(signature = (url, key, at))]
pub fn explain_restore<'py>(
    py: Python<'py>,
    url: String,
    key: Option<Vec<u8>>,
    at: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (from, to) = (source(py, url, key)?, moment(at)?);
    let found = py.detach(|| aurora_runtime::Cluster::explain_restore(&from, &to));
    plan(py, &found.map_err(|error| raise(py, error))?)
}

/// What a backup can give back.
#[pyfunction]
#[pyo3(signature = (url, key))]
pub fn backups(py: Python<'_>, url: String, key: Option<Vec<u8>>) -> PyResult<Bound<'_, PyDict>> {
    let from = source(py, url, key)?;
    let found = py.detach(|| aurora_runtime::Cluster::backups(&from));
    list(py, &found.map_err(|error| raise(py, error))?)
}
