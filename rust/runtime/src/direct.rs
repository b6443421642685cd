//! Durable writes past the page cache.
//!
//! A group commit writes whole blocks and needs them on disk at once. Through the page cache that is a copy, a write-back and a wait
//! for each of two calls; `O_DIRECT` with `O_DSYNC` hands the blocks to the disk in one. Where a file system has no such writes, or
//! the bytes are no whole blocks, the caller takes the long way.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::fs::OFlags;

/// What address, offset and length are multiples of: no disk in use has larger blocks.
const ALIGN: usize = 4096;
/// Larger writes gain nothing by it, and their buffer would stay.
const BYTES_MAX: usize = 512 << 10;

/// The second, direct way into an open file: opened with the first write that can use it.
#[derive(Debug, Default)]
pub(crate) struct Direct {
    /// None when the file system refused.
    file: OnceLock<Option<File>>,
    /// Holds an aligned copy of what is being written.
    buffer: Mutex<Vec<u8>>,
}

impl Direct {
    /// Writes and makes durable; false when nothing was written because this way cannot be taken.
    pub(crate) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<bool> {
        let whole = bytes.len().is_multiple_of(ALIGN) && offset.is_multiple_of(ALIGN as u64);
        if !whole || bytes.is_empty() || bytes.len() > BYTES_MAX {
            return Ok(false);
        }
        let Some(direct) = self.file.get_or_init(|| reopen(file).ok()) else {
            return Ok(false);
        };
        let mut buffer = self.buffer.lock();
        if buffer.len() < bytes.len() + ALIGN {
            buffer.resize(bytes.len() + ALIGN, 0);
        }
        let start = buffer.as_ptr().align_offset(ALIGN);
        let aligned = &mut buffer[start..start + bytes.len()];
        aligned.copy_from_slice(bytes);
        match direct.write_all_at(aligned, offset) {
            Ok(()) => Ok(true),
            // Refused before anything was written: some file systems say so only here.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// The same file, opened anew: flags belong to an opening, and its name may have changed since.
fn reopen(file: &File) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags((OFlags::DIRECT | OFlags::DSYNC).bits() as i32)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(name: &str) -> (std::path::PathBuf, File) {
        let path =
            std::env::temp_dir().join(format!("aurora-direct-{}-{name}", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("a file in the directory for temporary files");
        file.write_all_at(&vec![7; 8 * ALIGN], 0).expect("written");
        (path, file)
    }

    /// Whichever way the file system allows, both see the same bytes.
    #[test]
    fn what_was_written_directly_is_read_through_the_cache() {
        let (path, file) = temporary("reads");
        let direct = Direct::default();
        for round in 1..=3u8 {
            let bytes = vec![round; 2 * ALIGN];
            let offset = u64::from(round) * ALIGN as u64;
            if !direct.write(&file, &bytes, offset).expect("written") {
                file.write_all_at(&bytes, offset).expect("written");
            }
        }
        let mut read = vec![0; 8 * ALIGN];
        file.read_exact_at(&mut read, 0).expect("read");
        let firsts: Vec<u8> = read.chunks(ALIGN).map(|block| block[0]).collect();
        assert_eq!(firsts, [7, 1, 2, 3, 3, 7, 7, 7]);
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn parts_of_blocks_are_left_to_the_caller() {
        let (path, file) = temporary("parts");
        let direct = Direct::default();
        for (len, offset) in [(ALIGN - 1, 0), (ALIGN, 512), (0, 0), (BYTES_MAX + ALIGN, 0)] {
            assert!(!direct.write(&file, &vec![1; len], offset).expect("refused"));
        }
        let mut read = vec![0; 8 * ALIGN];
        file.read_exact_at(&mut read, 0).expect("read");
        assert!(read.iter().all(|byte| *byte == 7));
        std::fs::remove_file(path).expect("removed");
    }
}
