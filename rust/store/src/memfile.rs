//! A file of a [`MemDisk`](crate::MemDisk): sparse chunks, and what was written since the last sync.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::disk::DiskFile;
use crate::memdisk::{Coin, FaultState};

const CHUNK_BYTES: usize = 16 << 10;
const SECTOR_BYTES: usize = 512;
/// Some disks lose runs of sectors together.
const RUN_BYTES: usize = 4096;

/// Content that is mostly zeros costs nothing.
#[derive(Clone, Debug, Default)]
struct Sparse {
    chunks: Vec<Option<Box<[u8]>>>,
    len: u64,
}

impl Sparse {
    fn read(&self, buf: &mut [u8], offset: u64) {
        let mut done = 0;
        while done < buf.len() {
            let at = offset as usize + done;
            let (chunk, within) = (at / CHUNK_BYTES, at % CHUNK_BYTES);
            let n = (CHUNK_BYTES - within).min(buf.len() - done);
            match self.chunks.get(chunk) {
                Some(Some(bytes)) => {
                    buf[done..done + n].copy_from_slice(&bytes[within..within + n])
                }
                _ => buf[done..done + n].fill(0),
            }
            done += n;
        }
    }

    fn write(&mut self, buf: &[u8], offset: u64) {
        let mut done = 0;
        while done < buf.len() {
            let at = offset as usize + done;
            let (chunk, within) = (at / CHUNK_BYTES, at % CHUNK_BYTES);
            let n = (CHUNK_BYTES - within).min(buf.len() - done);
            if self.chunks.len() <= chunk {
                self.chunks.resize_with(chunk + 1, || None);
            }
            let bytes =
                self.chunks[chunk].get_or_insert_with(|| vec![0; CHUNK_BYTES].into_boxed_slice());
            bytes[within..within + n].copy_from_slice(&buf[done..done + n]);
            done += n;
        }
        self.len = self.len.max(offset + buf.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.chunks.truncate((len as usize).div_ceil(CHUNK_BYTES));
            let within = len as usize % CHUNK_BYTES;
            if let Some(Some(last)) = self.chunks.get_mut(len as usize / CHUNK_BYTES) {
                last[within..].fill(0);
            }
        }
        self.len = len;
    }
}

#[derive(Debug)]
enum Unsynced {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Debug, Default)]
struct Content {
    live: Sparse,
    durable: Sparse,
    unsynced: Vec<Unsynced>,
}

/// A file apart from its names.
#[derive(Debug, Default)]
pub(crate) struct Inode {
    content: Mutex<Content>,
    names: AtomicU32,
}

impl Inode {
    pub(crate) fn len(&self) -> u64 {
        self.content.lock().live.len
    }

    pub(crate) fn named(&self) {
        self.names.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a name away; true when it was the last.
    pub(crate) fn unnamed(&self) -> bool {
        self.names.fetch_sub(1, Ordering::Relaxed) == 1
    }

    pub(crate) fn flip(&self, offset: u64, mask: u8) -> io::Result<()> {
        let mut content = self.content.lock();
        if offset >= content.live.len {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let content = &mut *content;
        for sparse in [&mut content.live, &mut content.durable] {
            let mut byte = [0];
            sparse.read(&mut byte, offset);
            sparse.write(&[byte[0] ^ mask], offset);
        }
        Ok(())
    }

    /// The file after a power cut.
    pub(crate) fn crash(&self, coin: &mut Coin) -> Inode {
        let content = self.content.lock();
        let mut kept = content.durable.clone();
        for change in &content.unsynced {
            match change {
                Unsynced::SetLen(len) => {
                    if coin.next() & 1 == 0 {
                        kept.set_len(*len);
                    }
                }
                Unsynced::Write { offset, bytes } => tear(&mut kept, *offset, bytes, coin),
            }
        }
        let content = Content {
            live: kept.clone(),
            durable: kept,
            unsynced: Vec::new(),
        };
        Inode {
            content: Mutex::new(content),
            names: AtomicU32::new(0),
        }
    }
}

/// Keeps all, none, or some sectors of a write: single ones, runs as long as a block, a front or a back part.
fn tear(kept: &mut Sparse, offset: u64, bytes: &[u8], coin: &mut Coin) {
    let mode = coin.below(6);
    let cut = coin.below(bytes.len() as u64 + 1) as usize;
    let (mut at, mut run, mut toss) = (0, usize::MAX, false);
    while at < bytes.len() {
        let place = offset as usize + at;
        let n = (SECTOR_BYTES - place % SECTOR_BYTES).min(bytes.len() - at);
        let granule = if mode == 2 { SECTOR_BYTES } else { RUN_BYTES };
        if place / granule != run {
            run = place / granule;
            toss = coin.next() & 1 == 0;
        }
        let keep = match mode {
            0 => false,
            1 => true,
            2 | 3 => toss,
            4 => at < cut,
            _ => at >= cut,
        };
        if keep {
            kept.write(&bytes[at..at + n], offset + at as u64);
        }
        at += n;
    }
}

/// An open file of a memory disk.
#[derive(Debug)]
pub(crate) struct MemFile {
    inode: Arc<Inode>,
    faults: Arc<FaultState>,
    writable: bool,
}

impl MemFile {
    pub(crate) fn new(inode: Arc<Inode>, faults: Arc<FaultState>, writable: bool) -> MemFile {
        MemFile {
            inode,
            faults,
            writable,
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "opened for reading",
        ))
    }

    fn grow(&self, content: &mut Content, len: u64) -> io::Result<()> {
        self.faults.grow(len.saturating_sub(content.live.len))
    }
}

impl DiskFile for MemFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.inode.content.lock();
        if offset.saturating_add(buf.len() as u64) > content.live.len {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        content.live.read(buf, offset);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut content = self.inode.content.lock();
        let stopped = self.faults.change();
        self.grow(&mut content, offset + buf.len() as u64)?;
        self.faults
            .written
            .fetch_add(buf.len() as u64, Ordering::Relaxed);
        if self.faults.track {
            // The write during which the machine stops may reach the medium in part.
            content.unsynced.push(Unsynced::Write {
                offset,
                bytes: buf.to_vec(),
            });
        }
        stopped?;
        content.live.write(buf, offset);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.change()?;
        self.faults.sync()?;
        if !self.faults.track {
            return Ok(());
        }
        let mut guard = self.inode.content.lock();
        let content = &mut *guard;
        let mut dirty = BTreeSet::new();
        for change in content.unsynced.drain(..) {
            match change {
                Unsynced::SetLen(len) => content.durable.set_len(len),
                Unsynced::Write { offset, bytes } => {
                    let last = offset as usize + bytes.len().max(1) - 1;
                    dirty.extend(offset as usize / CHUNK_BYTES..=last / CHUNK_BYTES);
                }
            }
        }
        content.durable.set_len(content.live.len);
        content
            .durable
            .chunks
            .resize_with(content.live.chunks.len(), || None);
        for chunk in dirty {
            if let Some(bytes) = content.live.chunks.get(chunk) {
                content.durable.chunks[chunk] = bytes.clone();
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.faults.change()?;
        let mut content = self.inode.content.lock();
        self.grow(&mut content, len)?;
        self.faults.shrink(content.live.len.saturating_sub(len));
        content.live.set_len(len);
        if self.faults.track {
            content.unsynced.push(Unsynced::SetLen(len));
        }
        Ok(())
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.inode.names.load(Ordering::Relaxed) > 0)
    }

    /// Zeros need no chunks.
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_reads_back_what_was_written_across_chunks() {
        let mut sparse = Sparse::default();
        let data: Vec<u8> = (0..CHUNK_BYTES * 2 + 7).map(|i| i as u8).collect();
        sparse.write(&data, 1000);
        let mut back = vec![1; data.len()];
        sparse.read(&mut back, 1000);
        assert_eq!(back, data);
        sparse.set_len(2000);
        sparse.set_len(5000);
        let mut tail = vec![1; 3000];
        sparse.read(&mut tail, 2000);
        assert!(tail.iter().all(|b| *b == 0));
    }

    #[test]
    fn a_torn_write_is_old_or_new_by_sector() {
        for seed in 0..50 {
            let mut kept = Sparse::default();
            kept.write(&[1; 4096], 0);
            tear(&mut kept, 0, &[2; 4096], &mut Coin(seed));
            let mut back = [0; 4096];
            kept.read(&mut back, 0);
            for sector in back.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|b| *b == 1) || sector.iter().all(|b| *b == 2));
            }
        }
    }
}
