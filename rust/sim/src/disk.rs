//! The disk of a simulated machine: a [`MemDisk`], which loses unsynced writes in a crash, behind switches.
//!
//! One makes syncs lie. That is a planted fault: it is what a node does that acknowledges before its records are on disk. The
//! other sends a write to another place of its file, as disks do now and then.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_store::{Disk, DiskFile, MemDisk, OpenMode};
use parking_lot::Mutex;

/// A memory disk whose syncs can be made to do nothing.
#[derive(Clone, Debug)]
pub struct LyingDisk {
    disk: MemDisk,
    lies: Arc<AtomicBool>,
    astray: Arc<Mutex<Option<Astray>>>,
    /// Files in which one did.
    strayed: Arc<Mutex<Vec<PathBuf>>>,
}

/// A write that will land elsewhere.
#[derive(Debug)]
struct Astray {
    below: PathBuf,
    /// Writes before it.
    after: u64,
    by: u64,
}

impl LyingDisk {
    /// An honest disk, for now.
    pub fn new(disk: MemDisk) -> LyingDisk {
        LyingDisk {
            disk,
            lies: Arc::new(AtomicBool::new(false)),
            astray: Arc::default(),
            strayed: Arc::default(),
        }
    }

    /// From now on, do syncs only pretend?
    pub fn lie(&self, lies: bool) {
        self.lies.store(lies, Ordering::Relaxed);
    }

    /// Of the files below a path, one write after so many more will be off by so many bytes.
    pub fn misdirect(&self, below: PathBuf, after: u64, by: u64) {
        *self.astray.lock() = Some(Astray { below, after, by });
    }

    /// No write goes astray any more.
    pub fn disarm(&self) {
        *self.astray.lock() = None;
    }

    /// Is there a write below this path that is still to go astray, or that did in a file that is still in the making?
    /// What reads all files that are in use does not see that one.
    pub fn is_armed(&self, below: &Path, in_use: impl Fn(&Path) -> bool) -> bool {
        let mut strayed = self.strayed.lock();
        strayed.retain(|path| self.disk.exists(path) && !(path.starts_with(below) && in_use(path)));
        let astray = self.astray.lock();
        astray.as_ref().is_some_and(|astray| astray.below == below)
            || strayed.iter().any(|path| path.starts_with(below))
    }

    /// The disk itself.
    pub fn mem(&self) -> &MemDisk {
        &self.disk
    }

    fn honest(&self) -> bool {
        !self.lies.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct LyingFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    lies: Arc<AtomicBool>,
    astray: Arc<Mutex<Option<Astray>>>,
    strayed: Arc<Mutex<Vec<PathBuf>>>,
}

impl LyingFile {
    /// Where a write to `offset` really goes.
    fn place(&self, offset: u64) -> u64 {
        let mut astray = self.astray.lock();
        let Some(due) = astray
            .as_mut()
            .filter(|due| self.path.starts_with(&due.below))
        else {
            return offset;
        };
        if due.after > 0 {
            due.after -= 1;
            return offset;
        }
        let by = due.by;
        *astray = None;
        self.strayed.lock().push(self.path.clone());
        offset.checked_sub(by).unwrap_or(offset + by)
    }
}

impl Disk for LyingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(LyingFile {
            file,
            path: path.to_path_buf(),
            lies: self.lies.clone(),
            astray: self.astray.clone(),
            strayed: self.strayed.clone(),
        }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        let mut strayed = self.strayed.lock();
        let moved = strayed.iter_mut().filter(|path| *path == from);
        moved.for_each(|path| *path = to.to_path_buf());
        Ok(())
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
        if self.honest() {
            self.disk.sync_dir(dir)
        } else {
            Ok(())
        }
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
    fn device_of(&self, path: &Path) -> io::Result<u64> {
        self.disk.device_of(path)
    }
}

impl DiskFile for LyingFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, self.place(offset))
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.lies.load(Ordering::Relaxed) {
            Ok(())
        } else {
            self.file.sync_data()
        }
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn is_linked(&self) -> io::Result<bool> {
        self.file.is_linked()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
}

impl fmt::Display for LyingDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.honest() {
            "honest disk"
        } else {
            "lying disk"
        })
    }
}
