//! Several layers as one run of records or images, in order of page, LSN, origin; what is in two of them comes once.

use std::collections::BTreeSet;
use std::sync::Arc;

use aurora_page::{Lsn, PageId, VolumeId};
use aurora_redo::Record;

use super::entry::{ImageEntry, RecordReader};
use super::{Layer, Meta};
use crate::error::StoreError;
use crate::types::CommitPoint;

type Key = (PageId, Lsn, VolumeId);

pub(crate) fn key_of(record: &Record) -> Key {
    (record.page, record.lsn, record.origin)
}

/// One source of sorted items.
pub(crate) trait Source {
    type Item;
    fn key(item: &Self::Item) -> Key;
    fn next(&mut self) -> Result<Option<Self::Item>, StoreError>;
}

/// Records of a delta layer from a page on.
#[derive(Debug)]
pub(crate) struct LayerRecords {
    layer: Arc<Layer>,
    meta: Arc<Meta>,
    block: usize,
    from: PageId,
    reader: Option<(u64, RecordReader)>,
    /// Offsets of blocks known to be damaged, passed over: their pages come from another copy.
    skip: Arc<BTreeSet<u64>>,
}

impl LayerRecords {
    pub(crate) fn new(
        layer: Arc<Layer>,
        from: PageId,
        skip: Arc<BTreeSet<u64>>,
    ) -> Result<LayerRecords, StoreError> {
        let meta = layer.meta()?;
        let block = meta.blocks.partition_point(|b| b.last_page < from.0);
        Ok(LayerRecords {
            layer,
            meta,
            block,
            from,
            reader: None,
            skip,
        })
    }
}

/// Records of a delta layer, or of memory.
#[derive(Debug)]
pub(crate) enum Records {
    Layer(LayerRecords),
    Memory(std::vec::IntoIter<Record>),
}

impl Source for Records {
    type Item = Record;

    fn key(item: &Record) -> Key {
        key_of(item)
    }

    fn next(&mut self) -> Result<Option<Record>, StoreError> {
        let source = match self {
            Records::Memory(records) => return Ok(records.next()),
            Records::Layer(source) => source,
        };
        loop {
            if let Some((offset, reader)) = &mut source.reader {
                while let Some(record) = reader.next() {
                    let record = record.map_err(|e| source.layer.unreadable(*offset, &e))?;
                    if record.page >= source.from {
                        return Ok(Some(record));
                    }
                }
            }
            let Some(entry) = source.meta.blocks.get(source.block) else {
                return Ok(None);
            };
            source.block += 1;
            source.reader = None;
            if !source.skip.contains(&entry.offset) {
                source.reader = Some((
                    entry.offset,
                    RecordReader::new(source.layer.block(entry.offset, entry.len)?),
                ));
            }
        }
    }
}

/// Images of an image layer from a page on: where they are, not their bytes.
#[derive(Debug)]
pub(crate) struct Images {
    layer: Arc<Layer>,
    meta: Arc<Meta>,
    block: usize,
    from: PageId,
    listing: std::vec::IntoIter<ImageEntry>,
    skip: Arc<BTreeSet<u64>>,
}

impl Images {
    pub(crate) fn new(
        layer: Arc<Layer>,
        from: PageId,
        skip: Arc<BTreeSet<u64>>,
    ) -> Result<Images, StoreError> {
        let meta = layer.meta()?;
        let block = meta.blocks.partition_point(|b| b.last_page < from.0);
        Ok(Images {
            layer,
            meta,
            block,
            from,
            listing: Vec::new().into_iter(),
            skip,
        })
    }
}

impl Source for Images {
    type Item = (Arc<Layer>, ImageEntry);

    fn key(item: &Self::Item) -> Key {
        item.1.key()
    }

    fn next(&mut self) -> Result<Option<Self::Item>, StoreError> {
        loop {
            for entry in self.listing.by_ref() {
                if entry.page >= self.from && !self.skip.contains(&entry.offset) {
                    return Ok(Some((self.layer.clone(), entry)));
                }
            }
            let Some(block) = self.meta.blocks.get(self.block) else {
                return Ok(None);
            };
            self.block += 1;
            if !self.skip.contains(&block.offset) {
                self.listing = self.layer.listing(block)?.into_iter();
            }
        }
    }
}

/// Sources merged.
#[derive(Debug)]
pub(crate) struct Merge<S: Source> {
    sources: Vec<S>,
    heads: Vec<Option<S::Item>>,
    last: Option<Key>,
    primed: bool,
}

impl<S: Source> Merge<S> {
    pub(crate) fn new(sources: Vec<S>) -> Merge<S> {
        let heads = sources.iter().map(|_| None).collect();
        Merge {
            sources,
            heads,
            last: None,
            primed: false,
        }
    }

    pub(crate) fn next(&mut self) -> Result<Option<S::Item>, StoreError> {
        if !self.primed {
            for (head, source) in self.heads.iter_mut().zip(&mut self.sources) {
                *head = source.next()?;
            }
            self.primed = true;
        }
        loop {
            let keys = self
                .heads
                .iter()
                .enumerate()
                .filter_map(|(i, h)| h.as_ref().map(|h| (S::key(h), i)));
            let Some((key, i)) = keys.min() else {
                return Ok(None);
            };
            let item = std::mem::replace(&mut self.heads[i], self.sources[i].next()?);
            if self.last.replace(key) != Some(key) {
                return Ok(item);
            }
        }
    }
}

/// Commits of several layers, ascending, each once.
pub(crate) fn merged_commits(
    layers: &[Arc<Layer>],
    keep: impl Fn(&CommitPoint) -> bool,
) -> impl Iterator<Item = Result<CommitPoint, StoreError>> {
    let mut sources: Vec<_> = layers
        .iter()
        .map(|layer| Commits {
            layer,
            block: 0,
            some: Vec::new().into_iter(),
        })
        .collect();
    let mut heads: Vec<Option<CommitPoint>> = Vec::new();
    let mut last: Option<(Lsn, VolumeId)> = None;
    std::iter::from_fn(move || {
        if heads.is_empty() {
            for source in &mut sources {
                match source.next() {
                    Ok(head) => heads.push(head),
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        loop {
            let keys = heads
                .iter()
                .enumerate()
                .filter_map(|(i, h)| h.map(|h| (h.lsn, h.origin, i)));
            let (lsn, origin, i) = keys.min()?;
            let next = match sources[i].next() {
                Ok(next) => next,
                Err(error) => return Some(Err(error)),
            };
            let commit = std::mem::replace(&mut heads[i], next)?;
            if last.replace((lsn, origin)) != Some((lsn, origin)) && keep(&commit) {
                return Some(Ok(commit));
            }
        }
    })
}

struct Commits<'a> {
    layer: &'a Layer,
    block: usize,
    some: std::vec::IntoIter<CommitPoint>,
}

impl Commits<'_> {
    fn next(&mut self) -> Result<Option<CommitPoint>, StoreError> {
        loop {
            if let Some(commit) = self.some.next() {
                return Ok(Some(commit));
            }
            let meta = self.layer.meta()?;
            let Some(block) = meta.commits.get(self.block) else {
                return Ok(None);
            };
            self.block += 1;
            self.some = self.layer.commits(block)?.into_iter();
        }
    }
}
