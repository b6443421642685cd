//! The footer of a layer, which is all that opening a node reads of it, and the meta block, read at the first use.
//!
//! ```text
//!   footer   magic "AUly" | format u16 | kind u8 | then varints: entries, first page, last page - first,
//!            first lsn, last lsn - first, weight, floor, meta offset, meta length, count, count x replaced layer
//!   meta     then varints: count, count x (first page, pages, first lsn, lsns, offset, length)    listing blocks
//!            count, count x (first lsn, lsns, first time, times, offset, length)                  commit blocks
//!            count, count x (page, bytes, first lsn, lsns)                                        pages with long chains
//!            count, count x blob u128                                                             blobs referred to
//!            length, filter
//! ```

use std::path::Path;

use aurora_page::{Lsn, PageId, crc32c};
use aurora_redo::varint::{Reader, put_i64, put_u64};
use aurora_redo::{BlobId, RedoError};

use super::bloom::Bloom;
use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::types::LayerKind;

pub(crate) const FORMAT: u16 = 1;
pub(crate) const FRONT_BYTES: usize = 512;
const MAGIC: &[u8; 4] = b"AUly";
/// So many replaced layers fit the front footer beside everything else.
pub(crate) const REPLACED_MAX: usize = 32;

/// What a layer holds, in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) kind: LayerKind,
    pub(crate) entries: u64,
    pub(crate) first_page: PageId,
    pub(crate) last_page: PageId,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
    /// Bytes of its records before compression, or of its images.
    pub(crate) weight: u64,
    /// What was dropped when it was written is not needed at this LSN or above.
    pub(crate) floor: Lsn,
    pub(crate) meta_offset: u64,
    pub(crate) meta_len: u32,
    pub(crate) replaced: Vec<u64>,
}

impl Footer {
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.push(match self.kind {
            LayerKind::Delta => 1,
            LayerKind::Image => 2,
        });
        let numbers = [
            self.entries,
            self.first_page.0,
            self.last_page.0.wrapping_sub(self.first_page.0),
            self.first_lsn.0,
            self.last_lsn.0.wrapping_sub(self.first_lsn.0),
            self.weight,
            self.floor.0,
            self.meta_offset,
            u64::from(self.meta_len),
            self.replaced.len() as u64,
        ];
        numbers
            .into_iter()
            .chain(self.replaced.iter().copied())
            .for_each(|n| put_u64(&mut out, n));
        out
    }

    pub(crate) fn encode_front(&self) -> Vec<u8> {
        let content = self.encode();
        let mut out = (content.len() as u32).to_le_bytes().to_vec();
        out.extend_from_slice(&crc32c(&content).to_le_bytes());
        out.extend_from_slice(&content);
        assert!(
            out.len() <= FRONT_BYTES,
            "a footer replaces at most {REPLACED_MAX} layers"
        );
        out.resize(FRONT_BYTES, 0);
        out
    }

    pub(crate) fn encode_back(&self) -> Vec<u8> {
        let mut out = self.encode();
        let (len, crc) = (out.len() as u32, crc32c(&out));
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out
    }

    /// Reads the footer at the back, or else at the front.
    pub(crate) fn read(file: &dyn DiskFile, path: &Path) -> Result<Footer, StoreError> {
        let len = file.len().map_err(StoreError::io(path))?;
        if len < FRONT_BYTES as u64 {
            return Err(StoreError::corrupt(
                path,
                0,
                "a layer of at least 512 bytes",
                len,
            ));
        }
        let mut back = vec![0; FRONT_BYTES];
        let at = len - FRONT_BYTES as u64;
        file.read_exact_at(&mut back, at)
            .map_err(StoreError::io(path))?;
        let number = |b: &[u8], i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let content_len = number(&back, FRONT_BYTES - 4) as usize;
        if content_len <= FRONT_BYTES - 8 {
            let content = &back[FRONT_BYTES - 8 - content_len..FRONT_BYTES - 8];
            if crc32c(content) == number(&back, FRONT_BYTES - 8) {
                return Footer::decode(content, path, at, len);
            }
        }
        let mut front = vec![0; FRONT_BYTES];
        file.read_exact_at(&mut front, 0)
            .map_err(StoreError::io(path))?;
        let content_len = number(&front, 0) as usize;
        if content_len <= FRONT_BYTES - 8 {
            let content = &front[8..8 + content_len];
            if crc32c(content) == number(&front, 4) {
                return Footer::decode(content, path, 0, len);
            }
        }
        Err(StoreError::corrupt(
            path,
            at,
            "a footer at the back or front",
            "neither",
        ))
    }

    fn decode(content: &[u8], path: &Path, at: u64, file_len: u64) -> Result<Footer, StoreError> {
        if content.len() < 7 || content[0..4] != *MAGIC {
            return Err(StoreError::corrupt(
                path,
                at,
                "magic AUly",
                format!("{:02x?}", content.get(0..4)),
            ));
        }
        let format = u16::from_le_bytes([content[4], content[5]]);
        if format != FORMAT {
            return Err(StoreError::NewerFormat {
                path: path.to_path_buf(),
                expected: FORMAT,
                got: format,
            });
        }
        let kind = match content[6] {
            1 => LayerKind::Delta,
            2 => LayerKind::Image,
            got => return Err(StoreError::corrupt(path, at, "kind 1 or 2", got)),
        };
        let footer = Footer::numbers(kind, &content[7..])
            .map_err(|e| StoreError::corrupt(path, at, "the numbers of a footer", e))?;
        if footer
            .meta_offset
            .saturating_add(u64::from(footer.meta_len))
            > file_len
        {
            let expected = format!(
                "meta of {} bytes at {}",
                footer.meta_len, footer.meta_offset
            );
            return Err(StoreError::corrupt(
                path,
                at,
                expected,
                format!("a file of {file_len}"),
            ));
        }
        Ok(footer)
    }

    fn numbers(kind: LayerKind, bytes: &[u8]) -> Result<Footer, RedoError> {
        let mut r = Reader::new("layer footer", bytes);
        let entries = r.u64()?;
        let first_page = r.u64()?;
        let last_page = first_page.wrapping_add(r.u64()?);
        let first_lsn = r.u64()?;
        let last_lsn = first_lsn.wrapping_add(r.u64()?);
        let weight = r.u64()?;
        let floor = Lsn(r.u64()?);
        let (meta_offset, meta_len) = (r.u64()?, r.narrow("meta length")?);
        let count: usize = r.narrow("replaced layers")?;
        let replaced = (0..count.min(REPLACED_MAX))
            .map(|_| r.u64())
            .collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(Footer {
            kind,
            entries,
            first_page: PageId(first_page),
            last_page: PageId(last_page),
            first_lsn: Lsn(first_lsn),
            last_lsn: Lsn(last_lsn),
            weight,
            floor,
            meta_offset,
            meta_len,
            replaced,
        })
    }
}

/// A block that lists records or images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub(crate) first_page: u64,
    pub(crate) last_page: u64,
    pub(crate) first_lsn: u64,
    pub(crate) last_lsn: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// A block of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitBlock {
    pub(crate) first_lsn: u64,
    pub(crate) last_lsn: u64,
    pub(crate) first_time: i64,
    pub(crate) last_time: i64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// A page with a long chain in this layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heavy {
    pub(crate) page: PageId,
    pub(crate) bytes: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
}

impl Heavy {
    /// About how many of its bytes belong to records at or below an LSN.
    pub(crate) fn bytes_upto(&self, lsn: Lsn) -> u64 {
        if lsn >= self.last_lsn {
            return self.bytes;
        }
        let (below, all) = (
            lsn.0.saturating_sub(self.first_lsn.0),
            self.last_lsn.0 - self.first_lsn.0,
        );
        (u128::from(self.bytes) * u128::from(below) / u128::from(all.max(1))) as u64
    }
}

/// Where things are in a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) blocks: Vec<BlockEntry>,
    pub(crate) commits: Vec<CommitBlock>,
    pub(crate) heavy: Vec<Heavy>,
    pub(crate) blobs: Vec<BlobId>,
    pub(crate) bloom: Bloom,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, self.blocks.len() as u64);
        for b in &self.blocks {
            let numbers = [
                b.first_page,
                b.last_page - b.first_page,
                b.first_lsn,
                b.last_lsn - b.first_lsn,
                b.offset,
            ];
            numbers
                .into_iter()
                .chain([u64::from(b.len)])
                .for_each(|n| put_u64(&mut out, n));
        }
        put_u64(&mut out, self.commits.len() as u64);
        for c in &self.commits {
            put_u64(&mut out, c.first_lsn);
            put_u64(&mut out, c.last_lsn - c.first_lsn);
            put_i64(&mut out, c.first_time);
            put_i64(&mut out, c.last_time.wrapping_sub(c.first_time));
            put_u64(&mut out, c.offset);
            put_u64(&mut out, u64::from(c.len));
        }
        put_u64(&mut out, self.heavy.len() as u64);
        for h in &self.heavy {
            [
                h.page.0,
                h.bytes,
                h.first_lsn.0,
                h.last_lsn.0.wrapping_sub(h.first_lsn.0),
            ]
            .into_iter()
            .for_each(|n| put_u64(&mut out, n));
        }
        put_u64(&mut out, self.blobs.len() as u64);
        self.blobs
            .iter()
            .for_each(|b| out.extend_from_slice(&b.0.to_le_bytes()));
        put_u64(&mut out, self.bloom.bytes().len() as u64);
        out.extend_from_slice(self.bloom.bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Meta, RedoError> {
        let mut r = Reader::new("layer meta", bytes);
        let mut meta = Meta::default();
        for _ in 0..r.u64()? {
            let (first_page, pages, first_lsn, lsns) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
            meta.blocks.push(BlockEntry {
                first_page,
                last_page: first_page.wrapping_add(pages),
                first_lsn,
                last_lsn: first_lsn.wrapping_add(lsns),
                offset: r.u64()?,
                len: r.narrow("block length")?,
            });
        }
        for _ in 0..r.u64()? {
            let (first_lsn, lsns, first_time, times) = (r.u64()?, r.u64()?, r.i64()?, r.i64()?);
            meta.commits.push(CommitBlock {
                first_lsn,
                last_lsn: first_lsn.wrapping_add(lsns),
                first_time,
                last_time: first_time.wrapping_add(times),
                offset: r.u64()?,
                len: r.narrow("block length")?,
            });
        }
        for _ in 0..r.u64()? {
            let (page, bytes, first) = (PageId(r.u64()?), r.u64()?, r.u64()?);
            let last_lsn = Lsn(first.saturating_add(r.u64()?));
            meta.heavy.push(Heavy {
                page,
                bytes,
                first_lsn: Lsn(first),
                last_lsn,
            });
        }
        for _ in 0..r.u64()? {
            let mut id = [0; 16];
            id.copy_from_slice(r.bytes(16)?);
            meta.blobs.push(BlobId(u128::from_le_bytes(id)));
        }
        let len = r.length()?;
        meta.bloom = Bloom::from_bytes(r.bytes(len)?);
        r.finish()?;
        Ok(meta)
    }
}
