//! A disk below a cluster whose nodes' directories can be made slow, failing or full. Nothing is on: one atomic load an operation.
//!
//! Logs are left alone: nodes share one, and a node's share of it fails at the node's [`Gate`](super::gate::Gate). What happens
//! here is what a node's own files meet: layers, blobs, its state and its copy of the manifest.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aurora_store::{Disk, DiskFile, OpenMode};
use parking_lot::RwLock;

use super::dice::Dice;
use crate::layout::LOG_DIR;

/// What the files below a directory meet.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskRule {
    pub(crate) dir: PathBuf,
    pub(crate) delay: Option<(Duration, Duration)>,
    pub(crate) percent: u8,
    pub(crate) full: bool,
}

/// The faults of one disk.
#[derive(Debug, Default)]
pub(crate) struct DiskFaults {
    on: AtomicBool,
    rules: RwLock<Vec<DiskRule>>,
    pub(crate) dice: Dice,
}

impl DiskFaults {
    /// From now on these hold, and no others.
    pub(crate) fn set(&self, rules: Vec<DiskRule>) {
        let mut place = self.rules.write();
        self.on.store(!rules.is_empty(), Ordering::Release);
        *place = rules;
    }

    fn check(&self, path: &Path, writes: bool) -> io::Result<()> {
        if self.on.load(Ordering::Relaxed) {
            self.meet(path, writes)
        } else {
            Ok(())
        }
    }

    #[cold]
    fn meet(&self, path: &Path, writes: bool) -> io::Result<()> {
        let of = |rule: &&DiskRule| match path.strip_prefix(&rule.dir) {
            Ok(inside) => !inside.starts_with(LOG_DIR),
            Err(_) => false,
        };
        // Copied out: nobody waits for the rules while a slow disk is slow.
        let Some(rule) = self.rules.read().iter().find(of).cloned() else {
            return Ok(());
        };
        if let Some(delay) = rule.delay {
            std::thread::sleep(self.dice.between(delay));
        }
        if rule.full && writes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.dice.percent(rule.percent) {
            return Err(io::Error::other("injected disk failure"));
        }
        Ok(())
    }
}

/// The disk of a cluster with its faults.
#[derive(Debug)]
pub(crate) struct FaultDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<DiskFaults>,
}

impl FaultDisk {
    /// A disk that can be told to fail, and who tells it.
    pub(crate) fn over(inner: Arc<dyn Disk>) -> (Arc<dyn Disk>, Arc<DiskFaults>) {
        let faults = Arc::new(DiskFaults::default());
        let disk = FaultDisk {
            inner,
            faults: faults.clone(),
        };
        (Arc::new(disk), faults)
    }
}

impl Disk for FaultDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.check(path, mode == OpenMode::Create)?;
        Ok(Arc::new(FaultFile {
            inner: self.inner.open(path, mode)?,
            path: path.to_path_buf(),
            faults: self.faults.clone(),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.faults.check(path, true)?;
        self.inner.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.check(to, false)?;
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.check(to, true)?;
        self.inner.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.faults.check(path, false)?;
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
        self.faults.check(dir, false)?;
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }

    fn device_of(&self, path: &Path) -> io::Result<u64> {
        self.inner.device_of(path)
    }
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn DiskFile>,
    path: PathBuf,
    faults: Arc<DiskFaults>,
}

impl DiskFile for FaultFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.faults.check(&self.path, false)?;
        self.inner.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.faults.check(&self.path, true)?;
        self.inner.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.check(&self.path, false)?;
        self.inner.sync_data()
    }

    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.faults.check(&self.path, true)?;
        self.inner.write_durable_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.check(&self.path, true)?;
        self.inner.set_len(len)
    }

    fn is_linked(&self) -> io::Result<bool> {
        self.inner.is_linked()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.faults.check(&self.path, true)?;
        self.inner.allocate(len)
    }
}
