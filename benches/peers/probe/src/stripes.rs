//! The file: zero-filled beforehand, written as stripes of one block per copy, the tail stripe again until it is full.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub struct Stripes {
    file: File,
    file_bytes: u64,
    block_bytes: usize,
    copies: usize,
    /// What the tail block holds already.
    tail: Vec<u8>,
    /// Where the tail stripe begins.
    position: u64,
    buffer: Vec<u8>,
}

impl Stripes {
    pub fn create(
        path: &Path,
        file_bytes: u64,
        copies: usize,
        block_bytes: usize,
    ) -> io::Result<Self> {
        let stripe_bytes = (copies * block_bytes) as u64;
        if stripe_bytes == 0 || file_bytes < stripe_bytes {
            return Err(io::Error::other(
                "a file holds at least one stripe of at least one byte",
            ));
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        let zeros = vec![0; 1 << 20];
        let mut written = 0;
        while written < file_bytes {
            let n = zeros.len().min((file_bytes - written) as usize);
            file.write_all_at(&zeros[..n], written)?;
            written += n as u64;
        }
        file.sync_all()?;
        let (tail, buffer) = (Vec::with_capacity(block_bytes), Vec::new());
        Ok(Stripes {
            file,
            file_bytes,
            block_bytes,
            copies,
            tail,
            position: 0,
            buffer,
        })
    }

    /// Writes `bytes` behind what is there, once per copy, in one write, and syncs once.
    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        let start = self.position;
        let mut next = start;
        loop {
            let n = bytes.len().min(self.block_bytes - self.tail.len());
            self.tail.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            for _ in 0..self.copies {
                self.buffer.extend_from_slice(&self.tail);
                self.buffer
                    .resize(self.buffer.len() + self.block_bytes - self.tail.len(), 0);
            }
            if self.tail.len() == self.block_bytes {
                self.tail.clear();
                next += (self.copies * self.block_bytes) as u64;
            }
            if bytes.is_empty() {
                break;
            }
        }
        self.write(start)?;
        self.position = if next + self.buffer.len() as u64 > self.file_bytes {
            0
        } else {
            next
        };
        self.file.sync_data()
    }

    /// One positioned write; what goes past the end of the recycled file goes on at its start.
    fn write(&self, start: u64) -> io::Result<()> {
        let room = (self.file_bytes - start).min(self.buffer.len() as u64) as usize;
        self.file.write_all_at(&self.buffer[..room], start)?;
        let rest = &self.buffer[room..];
        let again = rest.len().min(self.file_bytes as usize);
        self.file.write_all_at(&rest[..again], 0)
    }
}
