//! A new cluster whose directory was gone after a crash, with every commit that had been acknowledged (found in review): its files
//! were synced, and the name of the directory that they lie in was not.

mod common;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aurora_runtime::{Cluster, OpenOptions};
use aurora_store::{Disk, DiskFile, MemDisk, OpenMode};
use common::{accounts, put};

/// A disk that notes which directories were synced.
#[derive(Debug)]
struct Noting {
    inner: MemDisk,
    synced: Mutex<BTreeSet<PathBuf>>,
}

impl Disk for Noting {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open(path, mode)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }
    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.synced.lock().unwrap().insert(dir.to_path_buf());
        self.inner.sync_dir(dir)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }
    fn device_of(&self, path: &Path) -> io::Result<u64> {
        self.inner.device_of(path)
    }
}

#[test]
fn every_directory_above_a_new_cluster_and_in_it_is_synced() {
    let disk = Arc::new(Noting {
        inner: MemDisk::new(),
        synced: Mutex::default(),
    });
    let options = OpenOptions {
        segment_bytes: Some(4 << 20),
        ..OpenOptions::at("/data/deep/cluster")
    };
    let cluster = Cluster::open_on(options, disk.clone()).unwrap();
    put(&cluster, &accounts(&cluster), &[(1, 1)]).unwrap();
    let synced = disk.synced.lock().unwrap();
    for holds in [
        "/",
        "/data",
        "/data/deep",
        "/data/deep/cluster",
        "/data/deep/cluster/az1",
        "/data/deep/cluster/az3/node6",
    ] {
        assert!(synced.contains(Path::new(holds)), "{holds} of {synced:?}");
    }
}
