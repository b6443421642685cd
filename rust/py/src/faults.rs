//! Injected faults; `aurora_engine.faults` gives them their shape.

use std::sync::Arc;
use std::time::Duration;

use aurora_runtime::{CommitCrash, Fault};
use pyo3::prelude::*;

use crate::cluster::Cluster;
use crate::db::Db;
use crate::errors::invalid_option;
use crate::failure::raise;

/// The faults of one cluster.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Faults {
    db: Arc<Db>,
}

#[pymethods]
impl Faults {
    #[new]
    fn new(cluster: &Bound<'_, Cluster>) -> Faults {
        Faults {
            db: cluster.get().db.clone(),
        }
    }

    /// Name, Availability Zone and directory of every storage node.
    fn nodes(&self, py: Python<'_>) -> PyResult<Vec<(String, String, String)>> {
        let names = self.db.cluster(py)?.node_names();
        Ok(names.into_iter().map(|n| (n.name, n.az, n.path)).collect())
    }

    /// Has something break; gives its number and what it is in words.
    #[pyo3(signature = (kind, node, *, percent=100, least_ms=0.0, most_ms=0.0))]
    fn start(
        &self,
        py: Python<'_>,
        kind: &str,
        node: Option<String>,
        percent: u8,
        least_ms: f64,
        most_ms: f64,
    ) -> PyResult<(u64, String)> {
        let named = || {
            node.clone().ok_or_else(|| {
                let expected = "a storage node or an Availability Zone";
                invalid_option(py, "node", expected, "None")
            })
        };
        let fault = match kind {
            "node_down" => Fault::NodeDown { node: named()? },
            "partition" => Fault::Partition { node: named()? },
            "pause" => Fault::Pause { node },
            "disk_congestion" => Fault::DiskCongestion {
                node,
                least: milliseconds(py, "min_ms", least_ms)?,
                most: milliseconds(py, "max_ms", most_ms)?,
            },
            "disk_failure" => Fault::DiskFailure { node, percent },
            "disk_full" => Fault::DiskFull { node },
            "replica_failure" => Fault::ReplicaFailure { to: node },
            other => return Err(invalid_option(py, "kind", "a fault", other)),
        };
        let cluster = self.db.cluster(py)?;
        let started = py.detach(|| cluster.start_fault(fault));
        let info = started.map_err(|error| raise(py, error))?;
        Ok((info.id, info.text))
    }

    /// Has it work again; False when it does already.
    fn end(&self, py: Python<'_>, number: u64) -> PyResult<bool> {
        let cluster = self.db.cluster_any(py)?;
        Ok(py.detach(|| cluster.end_fault(number)))
    }

    /// Ends every fault.
    fn end_all(&self, py: Python<'_>) -> PyResult<()> {
        let cluster = self.db.cluster_any(py)?;
        py.detach(|| cluster.end_faults());
        Ok(())
    }

    /// What is on: number and words.
    fn active(&self, py: Python<'_>) -> PyResult<Vec<(u64, String)>> {
        let faults = self.db.cluster_any(py)?.faults();
        Ok(faults.into_iter().map(|f| (f.id, f.text)).collect())
    }

    /// Whether a crash waits for the next commit.
    #[getter]
    fn crash_is_armed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.db.cluster_any(py)?.crash_is_armed())
    }

    /// Ends the writer as a crash would: now, or with ``"lost"`` or ``"kept"`` during the next commit.
    #[pyo3(signature = (during_commit=None))]
    fn crash_writer(&self, py: Python<'_>, during_commit: Option<&str>) -> PyResult<()> {
        let cluster = self.db.cluster(py)?;
        let crash = match during_commit {
            None => None,
            Some("lost") => Some(CommitCrash::Lost),
            Some("kept") => Some(CommitCrash::Kept),
            Some(other) => {
                let expected = "\"lost\", \"kept\" or None";
                return Err(invalid_option(py, "during_commit", expected, other));
            }
        };
        let crashed = py.detach(|| match crash {
            None => cluster.crash_writer(),
            Some(crash) => cluster.crash_writer_at_commit(crash),
        });
        crashed.map_err(|error| raise(py, error))
    }

    /// Ends a replica as a crash would.
    fn crash_replica(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let cluster = self.db.cluster(py)?;
        cluster
            .crash_replica(name)
            .map_err(|error| raise(py, error))
    }

    /// Spoils a sector on a node's disk; gives the file, the offset and the number of bytes.
    fn corrupt_page(&self, py: Python<'_>, node: &str) -> PyResult<(String, u64, u64)> {
        let cluster = self.db.cluster(py)?;
        let done = py.detach(|| cluster.corrupt_page(node));
        let done = done.map_err(|error| raise(py, error))?;
        Ok((done.path.display().to_string(), done.offset, done.bytes))
    }

    /// Has all dice fall from a seed on.
    fn seed(&self, py: Python<'_>, seed: u64) -> PyResult<()> {
        self.db.cluster(py)?.seed_faults(seed);
        Ok(())
    }
}

fn milliseconds(py: Python<'_>, option: &str, count: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(count / 1000.0).map_err(|_| {
        let got = count.to_string();
        invalid_option(py, option, "a time that is not negative", &got)
    })
}
