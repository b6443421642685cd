//! Blobs: sealed pages of a bulk load, before and after a log record refers to them.
//!
//! ```text
//!   blob    | head, 64 | block of page 0 | block of page 1 | ... | table |       blocks as in layers: each has its CRC
//!   head    magic "AUbl" | crc u32 of what follows | format u16 | zero u16 | pages u32 | id u128 | epoch u64
//!           | table offset u64 | table length u32 | digest u32 | zeros
//!   table   one block: offset u64, length u32 for each page
//! ```
//! The digest is the CRC-32C of the sealed pages one after another: equal in all copies. A blob that no record refers to
//! is the remains of a load: it is removed when it is older than the present epoch.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use aurora_page::planted::{self, Fault};
use aurora_page::{PageId, crc32c, crc32c_append};
use aurora_redo::BlobId;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::StoreError;
use crate::layer::frame;

const MAGIC: &[u8; 4] = b"AUbl";
const FORMAT: u16 = 1;
const HEAD_BYTES: usize = 64;
const TABLE_ENTRY_BYTES: usize = 12;
const NAME: &str = "blob-";
const TEMP: &str = "new-";
/// Files kept open.
const OPEN_MAX: usize = 32;

/// An open blob.
#[derive(Debug)]
struct Blob {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    head: Head,
    table: Bytes,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    pages: u32,
    id: BlobId,
    epoch: u64,
    table_offset: u64,
    table_len: u32,
    digest: u32,
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

impl Head {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[0..4].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&self.pages.to_le_bytes());
        out[16..32].copy_from_slice(&self.id.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        out[40..48].copy_from_slice(&self.table_offset.to_le_bytes());
        out[48..52].copy_from_slice(&self.table_len.to_le_bytes());
        out[52..56].copy_from_slice(&self.digest.to_le_bytes());
        let crc = crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; HEAD_BYTES], path: &std::path::Path) -> Result<Head, StoreError> {
        let (stored, got) = (u32_at(bytes, 4), crc32c(&bytes[8..]));
        if bytes[0..4] != *MAGIC || stored != got {
            return Err(StoreError::corrupt(
                path,
                0,
                format!("AUbl, crc {stored:08x}"),
                format!("crc {got:08x}"),
            ));
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        if format != FORMAT {
            return Err(StoreError::NewerFormat {
                path: path.to_path_buf(),
                expected: FORMAT,
                got: format,
            });
        }
        Ok(Head {
            pages: u32_at(bytes, 12),
            id: BlobId(u128::from(u64_at(bytes, 16)) | u128::from(u64_at(bytes, 24)) << 64),
            epoch: u64_at(bytes, 32),
            table_offset: u64_at(bytes, 40),
            table_len: u32_at(bytes, 48),
            digest: u32_at(bytes, 52),
        })
    }
}

impl Blob {
    fn open(disk: &dyn Disk, path: PathBuf) -> Result<Blob, StoreError> {
        let file = disk
            .open(&path, OpenMode::Read)
            .map_err(StoreError::io(&path))?;
        let mut bytes = [0; HEAD_BYTES];
        let len = file.len().map_err(StoreError::io(&path))?;
        if len < HEAD_BYTES as u64 {
            return Err(StoreError::corrupt(
                &path,
                0,
                format!("{HEAD_BYTES} bytes"),
                len,
            ));
        }
        file.read_exact_at(&mut bytes, 0)
            .map_err(StoreError::io(&path))?;
        let head = Head::decode(&bytes, &path)?;
        let table = frame::read_block(&*file, &path, head.table_offset, head.table_len as usize)?;
        if table.len() != head.pages as usize * TABLE_ENTRY_BYTES {
            let expected = format!("a table of {} pages", head.pages);
            return Err(StoreError::corrupt(
                &path,
                head.table_offset,
                expected,
                format!("{} bytes", table.len()),
            ));
        }
        Ok(Blob {
            path,
            file,
            head,
            table,
        })
    }

    fn page(&self, index: u32) -> Option<Result<Bytes, StoreError>> {
        let at = index as usize * TABLE_ENTRY_BYTES;
        let entry = self.table.get(at..at + TABLE_ENTRY_BYTES)?;
        Some(frame::read_block(
            &*self.file,
            &self.path,
            u64_at(entry, 0),
            u32_at(entry, 8) as usize,
        ))
    }
}

/// The blobs of a node.
#[derive(Debug)]
pub(crate) struct Blobs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: Mutex<VecDeque<(BlobId, Arc<Blob>)>>,
}

impl Blobs {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Blobs {
        Blobs {
            disk,
            dir,
            open: Mutex::default(),
        }
    }

    pub(crate) fn path(&self, id: BlobId) -> PathBuf {
        self.dir.join(format!("{NAME}{:032x}", id.0))
    }

    /// Removes unfinished files.
    pub(crate) fn clean(&self) -> Result<(), StoreError> {
        for name in self
            .disk
            .list(&self.dir)
            .map_err(StoreError::io(&self.dir))?
        {
            if name.starts_with(TEMP) {
                let path = self.dir.join(&name);
                self.disk
                    .remove_file(&path)
                    .map_err(StoreError::io(&path))?;
            }
        }
        Ok(())
    }

    pub(crate) fn list(&self) -> Result<Vec<BlobId>, StoreError> {
        let names = self
            .disk
            .list(&self.dir)
            .map_err(StoreError::io(&self.dir))?;
        let ids = names
            .iter()
            .filter_map(|n| u128::from_str_radix(n.strip_prefix(NAME)?, 16).ok());
        Ok(ids.map(BlobId).collect())
    }

    /// Writes a blob and syncs it; one that is there and sound stays. True when it was written.
    pub(crate) fn put(&self, id: BlobId, epoch: u64, pages: &[Bytes]) -> Result<bool, StoreError> {
        if self.has(id) && self.check(id).is_ok() {
            // Whoever wrote it may have failed to sync its name.
            self.disk
                .sync_dir(&self.dir)
                .map_err(StoreError::io(&self.dir))?;
            return Ok(false);
        }
        let temp = self.dir.join(format!("{TEMP}{:032x}", id.0));
        if self.disk.exists(&temp) {
            self.disk
                .remove_file(&temp)
                .map_err(StoreError::io(&temp))?;
        }
        let written = self.write(&temp, id, epoch, pages);
        if written.is_err() {
            // Also removed at the next open; failing to remove it now changes nothing.
            let _ = self.disk.remove_file(&temp);
        }
        written.map(|()| true)
    }

    fn write(
        &self,
        temp: &std::path::Path,
        id: BlobId,
        epoch: u64,
        pages: &[Bytes],
    ) -> Result<(), StoreError> {
        let file = self
            .disk
            .open(temp, OpenMode::Create)
            .map_err(StoreError::io(temp))?;
        let (mut table, mut buf, mut digest, mut flushed) =
            (Vec::new(), vec![0; HEAD_BYTES], 0, 0u64);
        for page in pages {
            let offset = flushed + buf.len() as u64;
            let before = buf.len();
            frame::put_block(&mut buf, page, false);
            table.extend_from_slice(&offset.to_le_bytes());
            table.extend_from_slice(&((buf.len() - before) as u32).to_le_bytes());
            digest = crc32c_append(digest, page);
            if buf.len() > 1 << 20 {
                file.write_all_at(&buf, flushed)
                    .map_err(StoreError::io(temp))?;
                flushed += buf.len() as u64;
                buf.clear();
            }
        }
        let table_offset = flushed + buf.len() as u64;
        frame::put_block(&mut buf, &table, true);
        let table_len = (flushed + buf.len() as u64 - table_offset) as u32;
        file.write_all_at(&buf, flushed)
            .map_err(StoreError::io(temp))?;
        let head = Head {
            pages: pages.len() as u32,
            id,
            epoch,
            table_offset,
            table_len,
            digest,
        };
        file.write_all_at(&head.encode(), 0)
            .map_err(StoreError::io(temp))?;
        let synced = !planted::is(Fault::BlobNotSynced);
        if synced {
            file.sync_data().map_err(StoreError::io(temp))?;
        }
        let path = self.path(id);
        self.disk
            .rename(temp, &path)
            .map_err(StoreError::io(&path))?;
        self.open.lock().retain(|(open, _)| *open != id);
        match synced {
            true => self.disk.sync_dir(&self.dir),
            false => Ok(()),
        }
        .map_err(StoreError::io(&self.dir))
    }

    pub(crate) fn has(&self, id: BlobId) -> bool {
        self.disk.exists(&self.path(id))
    }

    fn get(&self, id: BlobId) -> Result<Arc<Blob>, StoreError> {
        let mut open = self.open.lock();
        if let Some((_, blob)) = open.iter().find(|(o, _)| *o == id) {
            return Ok(blob.clone());
        }
        let blob = Arc::new(Blob::open(&*self.disk, self.path(id))?);
        if blob.head.id != id {
            return Err(StoreError::corrupt(&blob.path, 16, id, blob.head.id));
        }
        open.push_back((id, blob.clone()));
        if open.len() > OPEN_MAX {
            open.pop_front();
        }
        Ok(blob)
    }

    /// Sealed page `index` of a blob, for page `page`.
    pub(crate) fn page(&self, id: BlobId, index: u32, page: PageId) -> Result<Bytes, StoreError> {
        if !self.has(id) {
            return Err(StoreError::BlobMissing { page, blob: id });
        }
        let blob = self.get(id)?;
        blob.page(index).unwrap_or_else(|| {
            Err(StoreError::corrupt(
                &blob.path,
                0,
                format!("a page {index}"),
                format!("{} pages", blob.head.pages),
            ))
        })
    }

    pub(crate) fn pages(&self, id: BlobId) -> Result<Vec<Bytes>, StoreError> {
        let blob = self.get(id)?;
        (0..blob.head.pages).filter_map(|i| blob.page(i)).collect()
    }

    pub(crate) fn digest(&self, id: BlobId) -> Result<u32, StoreError> {
        Ok(self.get(id)?.head.digest)
    }

    pub(crate) fn epoch(&self, id: BlobId) -> Result<u64, StoreError> {
        Ok(self.get(id)?.head.epoch)
    }

    /// Reads everything of a blob and compares the digest; gives its bytes. What an open blob has in memory says nothing about the
    /// disk, so it is opened anew.
    pub(crate) fn check(&self, id: BlobId) -> Result<u64, StoreError> {
        let blob = Blob::open(&*self.disk, self.path(id))?;
        if blob.head.id != id {
            return Err(StoreError::corrupt(&blob.path, 16, id, blob.head.id));
        }
        let mut digest = 0;
        for page in (0..blob.head.pages).filter_map(|i| blob.page(i)) {
            digest = crc32c_append(digest, &page?);
        }
        if digest != blob.head.digest {
            let (expected, got) = (
                format!("digest {:08x}", blob.head.digest),
                format!("{digest:08x}"),
            );
            return Err(StoreError::corrupt(&blob.path, 52, expected, got));
        }
        blob.file.len().map_err(StoreError::io(&blob.path))
    }

    pub(crate) fn bytes(&self, id: BlobId) -> Result<u64, StoreError> {
        let blob = self.get(id)?;
        blob.file.len().map_err(StoreError::io(&blob.path))
    }

    pub(crate) fn remove(&self, id: BlobId) -> Result<(), StoreError> {
        self.open.lock().retain(|(open, _)| *open != id);
        let path = self.path(id);
        self.disk.remove_file(&path).map_err(StoreError::io(&path))
    }
}
