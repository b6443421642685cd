//! What the store asks of a file system. The shell brings one that calls the operating system, tests and
//! `memory=True` bring [`MemDisk`](crate::MemDisk): the same code runs above both.
//!
//! Assumed of a disk: what was written before a successful `sync_data` stays; what was not may be there in part, in
//! sectors of 512 bytes, each of which is old or new; a name is durable after `sync_dir` of its directory; a rename
//! replaces in one step. Nothing is assumed about the order of unsynced writes, nor that bytes read are those written.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file, for reading and writing; an error when the name is taken.
    Create,
}

/// A file system, or the part of one that a cluster uses.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory and those above it; what exists is left alone.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing the target in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; an error when that name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name; the file goes with its last one.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory (files and directories), sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether a file or directory has this name.
    fn exists(&self, path: &Path) -> bool;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be written below this path.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Which device a path lies on: equal numbers fail together.
    fn device_of(&self, path: &Path) -> io::Result<u64>;
}

/// An open file; positions are given with every call, so that threads share one.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Fills the buffer from `offset`; an error when the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all bytes at `offset`, growing the file when needed.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and length durable. After a failure nothing is known, and the file must not be trusted again.
    fn sync_data(&self) -> io::Result<()>;
    /// Writes all bytes at `offset` and makes them durable: `write_all_at` and `sync_data` in one, which a disk may have
    /// a shorter way for. The same holds after a failure.
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(buf, offset)?;
        self.sync_data()
    }
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file, or extends it by zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Whether the file still has a name: false once it was unlinked, also by someone else.
    fn is_linked(&self) -> io::Result<bool>;
    /// Fills a new file with zeros up to `len`, so that writing there later needs no new blocks: it neither fails for
    /// lack of space nor changes metadata that a sync would have to write.
    fn allocate(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0u8; 1 << 20];
        let mut at = 0;
        while at < len {
            let n = zeros.len().min((len - at) as usize);
            self.write_all_at(&zeros[..n], at)?;
            at += n as u64;
        }
        Ok(())
    }
}
