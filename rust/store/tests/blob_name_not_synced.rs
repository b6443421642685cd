//! A blob was written, and the sync of its name failed. The next try found it there and whole, and answered for it without syncing the
//! name: a crash took away what a copy had told that it has (found when bulk loads came into the simulator).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_proto::{ClusterId, NodeId};
use aurora_redo::BlobId;
use aurora_store::{Disk, DiskFile, MemDisk, NodeConfig, NodeIdentity, NodeStore, OpenMode};
use bytes::Bytes;

const CLUSTER: ClusterId = ClusterId(7);
const BLOB: BlobId = BlobId(3);

/// A disk on which one sync of a directory fails.
#[derive(Clone, Debug)]
struct Failing {
    disk: MemDisk,
    due: Arc<AtomicBool>,
}

impl Disk for Failing {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path, mode)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.due.swap(false, Ordering::Relaxed) {
            true => Err(io::Error::other("the sync of a directory failed")),
            false => self.disk.sync_dir(dir),
        }
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
    fn device_of(&self, path: &Path) -> io::Result<u64> {
        self.disk.device_of(path)
    }
}

#[test]
fn a_blob_that_was_answered_for_is_there_after_a_crash() {
    for seed in 0..32 {
        let disk = Failing {
            disk: MemDisk::faulty(),
            due: Arc::default(),
        };
        let identity = NodeIdentity {
            cluster: CLUSTER,
            node: NodeId(0),
            incarnation: 1,
        };
        let (dir, config) = (Path::new("node"), NodeConfig::new(4096, 64));
        let node = NodeStore::create(Arc::new(disk.clone()), dir, identity, config);
        let node = node.expect("a node");
        let pages = [Bytes::from_static(b"a sealed page")];
        disk.due.store(true, Ordering::Relaxed);
        node.put_blob(BLOB, 1, &pages)
            .expect_err("its name is not synced");
        node.put_blob(BLOB, 1, &pages).expect("it is there");
        drop(node);
        let crashed = Arc::new(disk.disk.crash(seed));
        let node = NodeStore::open(crashed, dir, CLUSTER, NodeId(0), config).expect("a node");
        assert!(node.has_blob(BLOB), "seed {seed}");
        assert_eq!(node.blob_pages(BLOB).expect("its pages"), pages);
    }
}
