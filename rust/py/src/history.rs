//! Moments of a cluster: going back and forward, snapshots, how far back there is. Plain dictionaries; `aurora_engine.history` gives
//! them their shape.

use std::time::Duration;

use aurora_page::{DataType, Lsn};
use aurora_runtime::{Backtracked, SnapshotInfo, Target};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::commit::PyCommit;
use crate::db::{Db, interruptible};
use crate::errors::{describe, invalid_option};
use crate::failure::raise;
use crate::from_py::datetime_us;
use crate::pytypes::types;
use crate::to_py::timestamp_to_py;

const TIME: DataType = DataType::Timestamp { zoned: true };

/// The moment that a commit, an LSN, an aware time or a snapshot's name stands for.
pub fn target(option: &str, object: &Bound<'_, PyAny>) -> PyResult<Target> {
    let py = object.py();
    if let Ok(commit) = object.cast::<PyCommit>() {
        return Ok(Target::Lsn(commit.get().lsn()));
    }
    if let Ok(name) = object.extract::<String>() {
        return Ok(Target::Snapshot(name));
    }
    if let Ok(lsn) = object.extract::<u64>() {
        return Ok(Target::Lsn(Lsn(lsn)));
    }
    let types = types(py)?;
    let is_time = object.is_instance(types.datetime.bind(py))?;
    if is_time && !object.call_method0("utcoffset")?.is_none() {
        return Ok(Target::Time(datetime_us(object, types, true)?));
    }
    let expected = if is_time {
        "an aware datetime (with tzinfo)"
    } else {
        "a Commit, an LSN, an aware datetime or a snapshot"
    };
    Err(invalid_option(py, option, expected, &describe(object)))
}

/// The LSN and time of the commit that a moment means.
pub fn find<'py>(db: &Db, to: &Bound<'py, PyAny>) -> PyResult<(u64, Bound<'py, PyAny>)> {
    let py = to.py();
    let target = target("at", to)?;
    let cluster = db.cluster(py)?;
    let found = py.detach(|| cluster.find(&target));
    let (lsn, time_us) = found.map_err(|error| raise(py, error))?;
    Ok((lsn.0, timestamp_to_py(py, time_us, TIME)?))
}

/// Goes to a moment.
pub fn backtrack<'py>(
    db: &Db,
    to: &Bound<'py, PyAny>,
    use_earliest: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let py = to.py();
    let target = target("to", to)?;
    let cluster = db.cluster(py)?;
    let done = interruptible(py, |interrupt| {
        cluster.backtrack(&target, use_earliest, interrupt)
    })?;
    backtracked(py, &done)
}

fn backtracked<'py>(py: Python<'py>, done: &Backtracked) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("epoch", done.epoch)?;
    out.set_item("to_lsn", done.to.0)?;
    out.set_item("to", timestamp_to_py(py, done.to_us, TIME)?)?;
    out.set_item("from_lsn", done.from.0)?;
    out.set_item("from", timestamp_to_py(py, done.from_us, TIME)?)?;
    out.set_item("requested", timestamp_to_py(py, done.requested_us, TIME)?)?;
    out.set_item("took_s", done.took.as_secs_f64())?;
    Ok(out)
}

/// Keeps the present moment under a name.
pub fn snapshot<'py>(py: Python<'py>, db: &Db, name: &str) -> PyResult<Bound<'py, PyDict>> {
    let cluster = db.cluster(py)?;
    let made = py.detach(|| cluster.snapshot(name));
    info(py, &made.map_err(|error| raise(py, error))?)
}

/// The snapshots.
pub fn snapshots<'py>(py: Python<'py>, db: &Db) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let cluster = db.cluster(py)?;
    let known = py.detach(|| cluster.snapshots());
    let known = known.map_err(|error| raise(py, error))?;
    known.iter().map(|snapshot| info(py, snapshot)).collect()
}

fn info<'py>(py: Python<'py>, snapshot: &SnapshotInfo) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("name", &snapshot.name)?;
    out.set_item("lsn", snapshot.lsn.0)?;
    out.set_item("time", timestamp_to_py(py, snapshot.time_us, TIME)?)?;
    out.set_item("created", timestamp_to_py(py, snapshot.created_us, TIME)?)?;
    Ok(out)
}

/// How far back there is.
pub fn window<'py>(py: Python<'py>, db: &Db) -> PyResult<Bound<'py, PyDict>> {
    let cluster = db.cluster(py)?;
    let window = py.detach(|| cluster.backtrack_window());
    let window = window.map_err(|error| raise(py, error))?;
    let out = PyDict::new(py);
    out.set_item("target_s", window.target.as_secs_f64())?;
    out.set_item("allowed_s", window.allowed.as_secs_f64())?;
    out.set_item("earliest", timestamp_to_py(py, window.earliest_us, TIME)?)?;
    out.set_item("abandoned", window.abandoned)?;
    Ok(out)
}

/// Sets how far back there shall be.
pub fn set_window(py: Python<'_>, db: &Db, seconds: f64) -> PyResult<()> {
    let window = Duration::try_from_secs_f64(seconds)
        .map_err(|_| invalid_option(py, "window", "0 to 72 hours", &format!("{seconds} s")))?;
    let cluster = db.cluster(py)?;
    py.detach(|| cluster.set_backtrack_window(window))
        .map_err(|error| raise(py, error))
}
