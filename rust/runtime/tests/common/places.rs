//! Nodes on two devices: some below the cluster's directory, the others in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use aurora_runtime::{NodePlacement, OpenOptions};

/// A directory in memory: another device than the disk.
pub struct ShmDir(pub PathBuf);

impl ShmDir {
    pub fn new() -> ShmDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!(
            "/dev/shm/aurora-runtime-{}-{n}",
            std::process::id()
        ));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        ShmDir(path)
    }
}

impl Drop for ShmDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Zone 1 below the cluster's directory, zones 2 and 3 elsewhere.
pub fn options(dir: &Path, elsewhere: &Path) -> OpenOptions {
    let place = |n: usize| {
        let (az, node) = (format!("az{}", n / 2 + 1), format!("node{}", n + 1));
        let path = if n < 2 {
            PathBuf::from(&az).join(node)
        } else {
            elsewhere.join(&az).join(node)
        };
        NodePlacement { az, path }
    };
    OpenOptions {
        segment_bytes: Some(4 << 20),
        nodes: Some((0..6).map(place).collect()),
        ..OpenOptions::at(dir)
    }
}
