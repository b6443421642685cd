//! A disk with moods.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aurora_store::{Disk, DiskFile, OpenMode};

/// Another disk, of which what lies below some paths stands still or refuses while it is told to.
#[derive(Debug)]
pub struct Moody {
    inner: Arc<dyn Disk>,
    below: PathBuf,
    pub stalled: Arc<AtomicBool>,
    pub full: Arc<AtomicBool>,
    pub broken: Arc<AtomicBool>,
}

#[derive(Debug)]
struct MoodyFile {
    inner: Arc<dyn DiskFile>,
    stalled: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

impl MoodyFile {
    fn wait(&self) {
        while self.stalled.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Disk for Moody {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if !path.starts_with(&self.below) {
            return self.inner.open(path, mode);
        }
        if mode == OpenMode::Create && self.full.load(Ordering::Acquire) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (stalled, broken) = (self.stalled.clone(), self.broken.clone());
        Ok(Arc::new(MoodyFile {
            inner: self.inner.open(path, mode)?,
            stalled,
            broken,
        }))
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
        self.inner.sync_dir(dir)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }
    fn device_of(&self, path: &Path) -> io::Result<u64> {
        self.inner.device_of(path)
    }
}

impl DiskFile for MoodyFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.wait();
        self.inner.write_all_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.wait();
        if self.broken.load(Ordering::Acquire) {
            return Err(io::Error::other("the device is broken"));
        }
        self.inner.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn is_linked(&self) -> io::Result<bool> {
        self.inner.is_linked()
    }
}

pub fn moody(inner: Arc<dyn Disk>, below: PathBuf) -> Arc<Moody> {
    Arc::new(Moody {
        inner,
        below,
        stalled: Arc::default(),
        full: Arc::default(),
        broken: Arc::default(),
    })
}
