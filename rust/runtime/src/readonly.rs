//! A disk on which nothing is changed: what a cluster that is opened for reading works with.
//!
//! Opening a log or a node's store mends what an owner may have left unfinished: torn tails, blocks that differ, remains of files.
//! Here all of that happens in memory only. Making a file is refused, as it could not be read afterwards.

use std::io;
use std::path::Path;
use std::sync::Arc;

use aurora_store::{Disk, DiskFile, OpenMode};

/// Another disk, for reading only.
#[derive(Debug)]
pub(crate) struct ReadOnlyDisk(pub(crate) Arc<dyn Disk>);

#[derive(Debug)]
struct ReadOnlyFile(Arc<dyn DiskFile>);

fn refused() -> io::Error {
    io::Error::from(io::ErrorKind::ReadOnlyFilesystem)
}

impl Disk for ReadOnlyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match mode {
            OpenMode::Create => Err(refused()),
            OpenMode::Read | OpenMode::ReadWrite => {
                Ok(Arc::new(ReadOnlyFile(self.0.open(path, OpenMode::Read)?)))
            }
        }
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(refused())
    }

    /// What should go, the next owner will remove.
    fn remove_file(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }

    fn device_of(&self, path: &Path) -> io::Result<u64> {
        self.0.device_of(path)
    }
}

impl DiskFile for ReadOnlyFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn is_linked(&self) -> io::Result<bool> {
        self.0.is_linked()
    }
}
