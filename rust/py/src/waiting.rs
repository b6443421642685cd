//! What a caller says about isolation and locks, as the engine takes it.

use std::time::Duration;

use aurora_engine::{Isolation, LockWaiting};
use aurora_runtime::LOCK_TIMEOUT_DEFAULT;
use pyo3::prelude::*;

use crate::errors::{describe, invalid_option};

/// How a transaction is kept apart from others, and for how long it waits for them.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub isolation: Isolation,
    pub read_only: bool,
    /// For how long it waits for a lock; `None` for ever.
    pub lock_timeout: Option<Duration>,
}

impl Options {
    /// As a caller gives them.
    pub fn new(
        py: Python<'_>,
        isolation: &str,
        read_only: bool,
        lock_timeout: LockTimeout,
    ) -> PyResult<Options> {
        Ok(Options {
            isolation: self::isolation(py, isolation)?,
            read_only,
            lock_timeout: lock_timeout.0,
        })
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            isolation: Isolation::Snapshot,
            read_only: true,
            lock_timeout: Some(LOCK_TIMEOUT_DEFAULT),
        }
    }
}

/// The argument `lock_timeout`: seconds, a `timedelta`, or `None` for ever.
pub struct LockTimeout(pub Option<Duration>);

impl Default for LockTimeout {
    fn default() -> LockTimeout {
        LockTimeout(Some(LOCK_TIMEOUT_DEFAULT))
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for LockTimeout {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<LockTimeout> {
        if object.is_none() {
            return Ok(LockTimeout(None));
        }
        let refuse = || {
            let expected = "seconds, a timedelta, or None to wait for ever";
            invalid_option(object.py(), "lock_timeout", expected, &describe(&object))
        };
        let seconds = match object.call_method0("total_seconds") {
            Ok(seconds) => seconds.extract::<f64>(),
            Err(_) => object.extract::<f64>(),
        };
        match seconds.map(Duration::try_from_secs_f64) {
            Ok(Ok(limit)) => Ok(LockTimeout(Some(limit))),
            // As long as anybody waits.
            Ok(Err(_)) if seconds_are_endless(&object) => Ok(LockTimeout(None)),
            _ => Err(refuse()),
        }
    }
}

fn seconds_are_endless(object: &Bound<'_, PyAny>) -> bool {
    object
        .extract::<f64>()
        .is_ok_and(|seconds| seconds == f64::INFINITY)
}

/// The isolation level of this name.
pub fn isolation(py: Python<'_>, name: &str) -> PyResult<Isolation> {
    let plain: String = name
        .chars()
        .map(|c| if matches!(c, '_' | '-') { ' ' } else { c })
        .collect();
    match plain.trim().to_ascii_lowercase().as_str() {
        "read committed" => Ok(Isolation::ReadCommitted),
        "snapshot" | "repeatable read" => Ok(Isolation::Snapshot),
        "serializable" => Ok(Isolation::Serializable),
        _ => {
            let expected = "\"read committed\", \"snapshot\" (also called \"repeatable read\") or \"serializable\"";
            Err(invalid_option(
                py,
                "isolation",
                expected,
                &format!("{name:?}"),
            ))
        }
    }
}

/// The name of a level.
pub fn isolation_name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadCommitted => "read committed",
        Isolation::Snapshot => "snapshot",
        Isolation::Serializable => "serializable",
    }
}

/// What `for_update`, `nowait` and `skip_locked` come to; `None` for reading without a lock.
pub fn locking(
    py: Python<'_>,
    for_update: bool,
    nowait: bool,
    skip_locked: bool,
) -> PyResult<Option<LockWaiting>> {
    match (for_update, nowait, skip_locked) {
        (false, false, false) => Ok(None),
        (true, false, false) => Ok(Some(LockWaiting::Wait)),
        (true, true, false) => Ok(Some(LockWaiting::NoWait)),
        (true, false, true) => Ok(Some(LockWaiting::Skip)),
        (true, true, true) => Err(invalid_option(
            py,
            "for_update",
            "nowait or skip_locked",
            "both",
        )),
        (false, _, _) => Err(invalid_option(
            py,
            "nowait and skip_locked",
            "for_update=True beside them",
            "for_update=False",
        )),
    }
}
