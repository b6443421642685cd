//! Reading a layer: which blocks may hold a page, and what they hold.

use std::path::PathBuf;
use std::sync::Arc;

use aurora_page::{Lsn, PageId};
use aurora_redo::{Record, RedoError};
use bytes::Bytes;
use parking_lot::Mutex;

use super::entry::{self, ImageEntry, RecordReader};
use super::footer::{BlockEntry, CommitBlock, Footer, Meta};
use super::frame;
use super::writer::LayerDir;
use crate::cache::BlockCache;
use crate::disk::{DiskFile, OpenMode};
use crate::error::StoreError;
use crate::types::{CommitPoint, Damage, LayerInfo, LayerKind};

/// An open layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) layer: u64,
    pub(crate) path: PathBuf,
    pub(crate) footer: Footer,
    pub(crate) bytes: u64,
    file: Arc<dyn DiskFile>,
    meta: Mutex<Option<Arc<Meta>>>,
}

impl Layer {
    pub(crate) fn new(
        layer: u64,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        footer: Footer,
        bytes: u64,
        meta: Option<Meta>,
    ) -> Layer {
        Layer {
            layer,
            path,
            footer,
            bytes,
            file,
            meta: Mutex::new(meta.map(Arc::new)),
        }
    }

    /// Opens a layer; of its content only the footer is read.
    pub(crate) fn open(dir: &LayerDir, layer: u64) -> Result<Layer, StoreError> {
        let path = dir.path(layer);
        let file = dir
            .disk
            .open(&path, OpenMode::Read)
            .map_err(StoreError::io(&path))?;
        let footer = Footer::read(&*file, &path)?;
        let bytes = file.len().map_err(StoreError::io(&path))?;
        Ok(Layer::new(layer, path, file, footer, bytes, None))
    }

    /// Are both footers on disk what the one in memory says? Without them the layer is nothing when the node opens again.
    pub(crate) fn check_footers(&self) -> Result<(), StoreError> {
        let (front, back) = (self.footer.encode_front(), self.footer.encode_back());
        let back_at = self.bytes.saturating_sub(back.len() as u64);
        let len = self.file.len().map_err(StoreError::io(&self.path))?;
        let mut same = len == self.bytes;
        for (expected, at) in [(front, 0), (back, back_at)] {
            let mut found = vec![0; expected.len()];
            let read = self.file.read_exact_at(&mut found, at);
            same &= read.is_ok() && found == expected;
        }
        match same {
            true => Ok(()),
            // Damage at the beginning stands for that of the whole layer.
            false => Err(StoreError::corrupt(
                &self.path,
                0,
                "both footers as they were written",
                "others",
            )),
        }
    }

    pub(crate) fn kind(&self) -> LayerKind {
        self.footer.kind
    }

    pub(crate) fn info(&self) -> LayerInfo {
        LayerInfo {
            layer: self.layer,
            kind: self.footer.kind,
            bytes: self.bytes,
            entries: self.footer.entries,
            pages: self.footer.first_page..=self.footer.last_page,
            lsns: self.footer.first_lsn..=self.footer.last_lsn,
        }
    }

    /// Its file, readable for as long as it is held.
    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }

    pub(crate) fn is_indexed(&self) -> bool {
        self.meta.lock().is_some()
    }

    pub(crate) fn meta(&self) -> Result<Arc<Meta>, StoreError> {
        let mut loaded = self.meta.lock();
        if let Some(meta) = &*loaded {
            return Ok(meta.clone());
        }
        let raw = self.block(self.footer.meta_offset, self.footer.meta_len)?;
        let meta = Meta::decode(&raw).map_err(|e| self.unreadable(self.footer.meta_offset, &e))?;
        let meta = Arc::new(meta);
        *loaded = Some(meta.clone());
        Ok(meta)
    }

    /// Bytes that passed their checksum and do not parse.
    pub(crate) fn unreadable(&self, offset: u64, error: &RedoError) -> StoreError {
        StoreError::corrupt(&self.path, offset, "a block of this layer", error)
    }

    /// A block, past the cache: for what reads everything once.
    pub(crate) fn block(&self, offset: u64, len: u32) -> Result<Bytes, StoreError> {
        frame::read_block(&*self.file, &self.path, offset, len as usize)
    }

    fn cached(&self, cache: &BlockCache, offset: u64, len: u32) -> Result<Bytes, StoreError> {
        if let Some(block) = cache.get((self.layer, offset)) {
            return Ok(block);
        }
        let block = self.block(offset, len)?;
        cache.put((self.layer, offset), block.clone());
        Ok(block)
    }

    /// Could this layer have something of the page with an LSN in `(after, upto]`? Looks at the footer only.
    pub(crate) fn overlaps(&self, page: PageId, after: Lsn, upto: Lsn) -> bool {
        let f = &self.footer;
        f.first_page <= page && page <= f.last_page && f.last_lsn > after && f.first_lsn <= upto
    }

    /// The listing blocks that may hold something of the page with an LSN in `(after, upto]`.
    fn blocks_of(
        meta: &Meta,
        page: PageId,
        after: Lsn,
        upto: Lsn,
    ) -> impl Iterator<Item = &BlockEntry> {
        let start = meta.blocks.partition_point(|b| b.last_page < page.0);
        let blocks = if meta.bloom.may_contain(page) {
            &meta.blocks[start..]
        } else {
            &[]
        };
        blocks
            .iter()
            .take_while(move |b| b.first_page <= page.0)
            .filter(move |b| b.last_lsn > after.0 && b.first_lsn <= upto.0)
    }

    /// Adds the records of a page with an LSN in `(after, upto]`.
    pub(crate) fn records_of(
        &self,
        cache: &BlockCache,
        page: PageId,
        after: Lsn,
        upto: Lsn,
        out: &mut Vec<Record>,
    ) -> Result<(), StoreError> {
        let meta = self.meta()?;
        for entry in Layer::blocks_of(&meta, page, after, upto) {
            let mut reader = RecordReader::new(self.cached(cache, entry.offset, entry.len)?);
            while let Some(record) = reader.next() {
                let record = record.map_err(|e| self.unreadable(entry.offset, &e))?;
                if record.page > page {
                    break;
                }
                if record.page == page && record.lsn > after && record.lsn <= upto {
                    out.push(record);
                }
            }
        }
        Ok(())
    }

    /// Adds the images of a page with an LSN at or below `upto`.
    pub(crate) fn images_of(
        &self,
        cache: &BlockCache,
        page: PageId,
        upto: Lsn,
        out: &mut Vec<ImageEntry>,
    ) -> Result<(), StoreError> {
        let meta = self.meta()?;
        for entry in Layer::blocks_of(&meta, page, Lsn::NONE, upto) {
            let block = self.cached(cache, entry.offset, entry.len)?;
            let listing =
                entry::read_images(&block).map_err(|e| self.unreadable(entry.offset, &e))?;
            out.extend(
                listing
                    .into_iter()
                    .filter(|i| i.page == page && i.lsn <= upto),
            );
        }
        Ok(())
    }

    /// The sealed bytes of an image of this layer.
    pub(crate) fn image(&self, entry: &ImageEntry) -> Result<Bytes, StoreError> {
        self.block(entry.offset, entry.len)
    }

    pub(crate) fn listing(&self, entry: &BlockEntry) -> Result<Vec<ImageEntry>, StoreError> {
        let block = self.block(entry.offset, entry.len)?;
        entry::read_images(&block).map_err(|e| self.unreadable(entry.offset, &e))
    }

    pub(crate) fn commits(&self, block: &CommitBlock) -> Result<Vec<CommitPoint>, StoreError> {
        let raw = self.block(block.offset, block.len)?;
        entry::read_commits(&raw).map_err(|e| self.unreadable(block.offset, &e))
    }

    /// A damaged part of this layer: of one block, or all of it.
    pub(crate) fn damage(&self, block: Option<&BlockEntry>) -> Damage {
        let (offset, first, last) = match block {
            Some(b) => (b.offset, PageId(b.first_page), PageId(b.last_page)),
            None => (0, self.footer.first_page, self.footer.last_page),
        };
        Damage {
            layer: self.layer,
            path: self.path.clone(),
            offset,
            pages: first..=last,
        }
    }
}
