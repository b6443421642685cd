//! Writing a layer: blocks as they come, then the meta block and both footers, one sync, a rename.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use aurora_page::planted::{self, Fault};
use aurora_page::{Lsn, PageId};
use aurora_redo::{BlobId, Op, Record};
use bytes::Bytes;

use super::bloom::Bloom;
use super::entry::{self, ImageEntry};
use super::footer::{BlockEntry, CommitBlock, FRONT_BYTES, Footer, Heavy, Meta};
use super::{Layer, frame};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::StoreError;
use crate::types::{CommitPoint, LayerKind};

/// Records are cut into blocks of about this size before compression.
const BLOCK_BYTES: usize = 16 << 10;
const IMAGES_PER_BLOCK: usize = 128;
const COMMITS_PER_BLOCK: usize = 4096;
const BUFFER_BYTES: usize = 256 << 10;
/// Pages with fewer bytes of records than this in a layer are not candidates for an image because of it.
pub(crate) const HEAVY_BYTES_MIN: u64 = 1024;

const TEMP: &str = "new-";
const NAME: &str = "layer-";

/// Where a node keeps its layers.
#[derive(Clone, Debug)]
pub(crate) struct LayerDir {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
}

impl LayerDir {
    fn temp(&self, layer: u64) -> PathBuf {
        self.dir.join(format!("{TEMP}{layer:016}"))
    }

    pub(crate) fn path(&self, layer: u64) -> PathBuf {
        self.dir.join(format!("{NAME}{layer:016}"))
    }

    /// Numbers of the layers that are there, ascending; unfinished files are removed.
    pub(crate) fn list(&self) -> Result<Vec<u64>, StoreError> {
        let mut layers = Vec::new();
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
            layers.extend(name.strip_prefix(NAME).and_then(|n| n.parse::<u64>().ok()));
        }
        layers.sort_unstable();
        Ok(layers)
    }

    pub(crate) fn remove(&self, layer: u64) -> Result<(), StoreError> {
        let path = self.path(layer);
        self.disk.remove_file(&path).map_err(StoreError::io(&path))
    }

    /// Makes the removal of layers durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.disk
            .sync_dir(&self.dir)
            .map_err(StoreError::io(&self.dir))
    }
}

/// Bytes on their way to a new file. Dropped unfinished, the file is removed.
#[derive(Debug)]
struct Output {
    dir: LayerDir,
    layer: u64,
    temp: PathBuf,
    file: Arc<dyn DiskFile>,
    buf: Vec<u8>,
    flushed: u64,
    done: bool,
}

impl Output {
    fn create(dir: &LayerDir, layer: u64) -> Result<Output, StoreError> {
        let temp = dir.temp(layer);
        let file = dir
            .disk
            .open(&temp, OpenMode::Create)
            .map_err(StoreError::io(&temp))?;
        let mut buf = Vec::with_capacity(BUFFER_BYTES);
        buf.resize(FRONT_BYTES, 0);
        Ok(Output {
            dir: dir.clone(),
            layer,
            temp,
            file,
            buf,
            flushed: 0,
            done: false,
        })
    }

    fn at(&self) -> u64 {
        self.flushed + self.buf.len() as u64
    }

    fn block(&mut self, raw: &[u8], compress: bool) -> Result<(u64, u32), StoreError> {
        let offset = self.at();
        frame::put_block(&mut self.buf, raw, compress);
        let len = (self.at() - offset) as u32;
        if self.buf.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok((offset, len))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.file
            .write_all_at(&self.buf, self.flushed)
            .map_err(StoreError::io(&self.temp))?;
        self.flushed += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    fn finish(mut self, mut footer: Footer, meta: Meta) -> Result<Layer, StoreError> {
        (footer.meta_offset, footer.meta_len) = self.block(&meta.encode(), true)?;
        let back = footer.encode_back();
        self.buf.extend_from_slice(&back);
        self.flush()?;
        self.file
            .write_all_at(&footer.encode_front(), 0)
            .map_err(StoreError::io(&self.temp))?;
        if !planted::is(Fault::LayerNotSynced) {
            self.file.sync_data().map_err(StoreError::io(&self.temp))?;
        }
        let path = self.dir.path(self.layer);
        self.dir
            .disk
            .rename(&self.temp, &path)
            .map_err(StoreError::io(&path))?;
        self.done = true;
        self.dir
            .disk
            .sync_dir(&self.dir.dir)
            .map_err(StoreError::io(&path))?;
        Ok(Layer::new(
            self.layer,
            path,
            self.file.clone(),
            footer,
            self.flushed,
            Some(meta),
        ))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.done {
            // Also removed at the next open; failing to remove it now changes nothing.
            let _ = self.dir.disk.remove_file(&self.temp);
        }
    }
}

/// Smallest and largest of what was seen.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    last: u64,
}

impl Span {
    const EMPTY: Span = Span {
        first: u64::MAX,
        last: 0,
    };

    fn add(&mut self, n: u64) {
        self.first = self.first.min(n);
        self.last = self.last.max(n);
    }

    fn first(&self) -> u64 {
        self.first.min(self.last)
    }
}

/// What both kinds of layers count.
#[derive(Debug)]
struct Counts {
    entries: u64,
    weight: u64,
    pages: Span,
    lsns: Span,
    block_pages: Span,
    block_lsns: Span,
    distinct: Vec<u64>,
    blocks: Vec<BlockEntry>,
}

impl Counts {
    fn new() -> Counts {
        Counts {
            entries: 0,
            weight: 0,
            pages: Span::EMPTY,
            lsns: Span::EMPTY,
            block_pages: Span::EMPTY,
            block_lsns: Span::EMPTY,
            distinct: Vec::new(),
            blocks: Vec::new(),
        }
    }

    fn add(&mut self, page: PageId, lsn: Lsn, weight: u64) {
        debug_assert!(
            self.distinct.last().is_none_or(|p| *p <= page.0),
            "a layer is written in page order"
        );
        self.entries += 1;
        self.weight += weight;
        self.pages.add(page.0);
        self.lsns.add(lsn.0);
        self.block_pages.add(page.0);
        self.block_lsns.add(lsn.0);
        if self.distinct.last() != Some(&page.0) {
            self.distinct.push(page.0);
        }
    }

    fn end_block(&mut self, (offset, len): (u64, u32)) {
        self.blocks.push(BlockEntry {
            first_page: self.block_pages.first(),
            last_page: self.block_pages.last,
            first_lsn: self.block_lsns.first(),
            last_lsn: self.block_lsns.last,
            offset,
            len,
        });
        self.block_pages = Span::EMPTY;
        self.block_lsns = Span::EMPTY;
    }

    fn footer(&self, kind: LayerKind, floor: Lsn, replaced: &[u64]) -> Footer {
        Footer {
            kind,
            entries: self.entries,
            first_page: PageId(self.pages.first()),
            last_page: PageId(self.pages.last),
            first_lsn: Lsn(self.lsns.first()),
            last_lsn: Lsn(self.lsns.last),
            weight: self.weight,
            floor,
            meta_offset: 0,
            meta_len: 0,
            replaced: replaced.to_vec(),
        }
    }
}

/// Writes records, given in order of page, LSN, origin.
#[derive(Debug)]
pub(crate) struct DeltaWriter {
    out: Output,
    block: Vec<u8>,
    last: entry::Last,
    counts: Counts,
    heavy: Vec<Heavy>,
    page: Option<Heavy>,
    blobs: BTreeSet<BlobId>,
}

impl DeltaWriter {
    pub(crate) fn create(dir: &LayerDir, layer: u64) -> Result<DeltaWriter, StoreError> {
        Ok(DeltaWriter {
            out: Output::create(dir, layer)?,
            block: Vec::with_capacity(BLOCK_BYTES * 2),
            last: entry::Last::default(),
            counts: Counts::new(),
            heavy: Vec::new(),
            page: None,
            blobs: BTreeSet::new(),
        })
    }

    pub(crate) fn push(&mut self, record: &Record) -> Result<(), StoreError> {
        let before = self.block.len();
        entry::put_record(&mut self.block, record, &mut self.last);
        let bytes = (self.block.len() - before) as u64;
        self.counts.add(record.page, record.lsn, bytes);
        self.weigh(record, bytes);
        self.blobs.extend(referenced(record));
        if self.block.len() >= BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    fn weigh(&mut self, record: &Record, bytes: u64) {
        match &mut self.page {
            Some(heavy) if heavy.page == record.page => {
                heavy.bytes += bytes;
                heavy.last_lsn = record.lsn;
            }
            page => {
                let new = Heavy {
                    page: record.page,
                    bytes,
                    first_lsn: record.lsn,
                    last_lsn: record.lsn,
                };
                self.heavy
                    .extend(page.replace(new).filter(|h| h.bytes >= HEAVY_BYTES_MIN));
            }
        }
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if !self.block.is_empty() {
            let place = self.out.block(&self.block, true)?;
            self.counts.end_block(place);
            self.block.clear();
            self.last = entry::Last::default();
        }
        Ok(())
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.out.at()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.entries == 0
    }

    /// Adds the commits, ascending by LSN, and makes the layer durable.
    pub(crate) fn finish(
        mut self,
        commits: impl Iterator<Item = Result<CommitPoint, StoreError>>,
        floor: Lsn,
        replaced: &[u64],
    ) -> Result<Layer, StoreError> {
        self.end_block()?;
        self.heavy
            .extend(self.page.take().filter(|h| h.bytes >= HEAVY_BYTES_MIN));
        let commits = self.commits(commits)?;
        let footer = self.counts.footer(LayerKind::Delta, floor, replaced);
        let meta = Meta {
            blocks: self.counts.blocks,
            commits,
            heavy: self.heavy,
            blobs: self.blobs.into_iter().collect(),
            bloom: Bloom::build(&self.counts.distinct),
        };
        self.out.finish(footer, meta)
    }

    fn commits(
        &mut self,
        mut commits: impl Iterator<Item = Result<CommitPoint, StoreError>>,
    ) -> Result<Vec<CommitBlock>, StoreError> {
        let mut blocks = Vec::new();
        loop {
            let some: Vec<CommitPoint> = commits
                .by_ref()
                .take(COMMITS_PER_BLOCK)
                .collect::<Result<_, _>>()?;
            let (Some(first), Some(last)) = (some.first(), some.last()) else {
                return Ok(blocks);
            };
            let mut raw = Vec::new();
            entry::put_commits(&mut raw, &some);
            let (offset, len) = self.out.block(&raw, true)?;
            blocks.push(CommitBlock {
                first_lsn: first.lsn.0,
                last_lsn: last.lsn.0,
                first_time: some
                    .iter()
                    .map(|c| c.time_us)
                    .min()
                    .unwrap_or(first.time_us),
                last_time: some.iter().map(|c| c.time_us).max().unwrap_or(last.time_us),
                offset,
                len,
            });
        }
    }
}

/// The blob that a record refers to.
pub(crate) fn referenced(record: &Record) -> Option<BlobId> {
    if !record.starts_life() {
        return None;
    }
    match Op::parse(&record.op) {
        Ok(Op::Reference { blob, .. }) => Some(blob),
        _ => None,
    }
}

/// Writes sealed pages, given in order of page, LSN, origin.
#[derive(Debug)]
pub(crate) struct ImageWriter {
    out: Output,
    listing: Vec<ImageEntry>,
    counts: Counts,
}

impl ImageWriter {
    pub(crate) fn create(dir: &LayerDir, layer: u64) -> Result<ImageWriter, StoreError> {
        Ok(ImageWriter {
            out: Output::create(dir, layer)?,
            listing: Vec::new(),
            counts: Counts::new(),
        })
    }

    /// Writes one; of `image` only the key counts, its place is where it comes to lie.
    pub(crate) fn push(&mut self, image: &ImageEntry, sealed: &Bytes) -> Result<(), StoreError> {
        let (offset, len) = self.out.block(sealed, false)?;
        self.listing.push(ImageEntry {
            offset,
            len,
            ..*image
        });
        self.counts.add(image.page, image.lsn, u64::from(len));
        if self.listing.len() >= IMAGES_PER_BLOCK {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if !self.listing.is_empty() {
            let mut raw = Vec::new();
            entry::put_images(&mut raw, &self.listing);
            let place = self.out.block(&raw, true)?;
            self.counts.end_block(place);
            self.listing.clear();
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.out.at()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.entries == 0
    }

    /// Makes the layer durable.
    pub(crate) fn finish(mut self, floor: Lsn, replaced: &[u64]) -> Result<Layer, StoreError> {
        self.end_block()?;
        let footer = self.counts.footer(LayerKind::Image, floor, replaced);
        let bloom = Bloom::build(&self.counts.distinct);
        let meta = Meta {
            blocks: self.counts.blocks,
            bloom,
            ..Meta::default()
        };
        self.out.finish(footer, meta)
    }
}
