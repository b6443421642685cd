//! What a commit costs when there is no engine: the yardstick of `make bench`.
//!
//! Python threads call `commit`; whoever comes first leads, the others wait, as in any group commit.
//! The bytes on disk are those of six copies on one log device: a stripe of six 4 KiB blocks, rewritten until full.

mod group;
mod stripes;

use std::path::PathBuf;
use std::time::Instant;

use pyo3::prelude::*;

use crate::group::GroupCommit;
use crate::stripes::Stripes;

/// A bare group commit to one zero-filled file.
#[pyclass(frozen)]
struct Probe {
    group: GroupCommit,
}

#[pymethods]
impl Probe {
    #[new]
    #[pyo3(signature = (path, *, file_bytes = 64 << 20, copies = 6, block_bytes = 4096))]
    fn new(path: PathBuf, file_bytes: u64, copies: usize, block_bytes: usize) -> PyResult<Self> {
        let stripes = Stripes::create(&path, file_bytes, copies, block_bytes)?;
        Ok(Probe {
            group: GroupCommit::new(stripes),
        })
    }

    /// Returns once `payload` is on disk, in every copy.
    fn commit(&self, py: Python<'_>, payload: &[u8]) -> PyResult<()> {
        Ok(py.detach(|| self.group.commit(payload))?)
    }

    /// Commits `count` payloads one after the other, without Python between them: nanoseconds of each.
    fn latencies_ns(&self, py: Python<'_>, payload: &[u8], count: usize) -> PyResult<Vec<u64>> {
        py.detach(|| {
            let mut latencies = Vec::with_capacity(count);
            for _ in 0..count {
                let start = Instant::now();
                self.group.commit(payload)?;
                latencies.push(start.elapsed().as_nanos() as u64);
            }
            Ok(latencies)
        })
    }

    /// How many times the file was synced so far.
    #[getter]
    fn syncs(&self) -> u64 {
        self.group.syncs()
    }
}

#[pymodule]
mod aurora_bench_probe {
    #[pymodule_export]
    use super::Probe;
}
