//! A page as of an LSN: the newest image that counts, and the records since.

use std::sync::Arc;

use aurora_page::{Lsn, Page, PageId, PageKind, SealedRef, sealed_header, unseal};
use aurora_redo::{History, Op, Record, RedoError, apply, apply_reference};
use bytes::Bytes;

use crate::error::StoreError;
use crate::layer::{ImageEntry, Layer};
use crate::layermap::LayerSet;
use crate::memlayer::MemLayer;
use crate::node::NodeStore;

/// What a page is made from.
struct Chain {
    image: Option<(Arc<Layer>, ImageEntry)>,
    /// Ascending; empty when the image is the page.
    records: Vec<Record>,
}

/// A page as a scan wants it: the leaf as it was sealed, if nothing has changed it since, or the plain page.
#[derive(Debug)]
pub enum ScanPage {
    /// A leaf in the sealed form of its image or bulk load.
    Sealed {
        /// The leaf.
        leaf: SealedRef<'static>,
        /// The record that made it.
        lsn: Lsn,
    },
    /// The page as records have made it.
    Plain(Page),
}

impl ScanPage {
    /// The newest record of the page.
    pub fn lsn(&self) -> Lsn {
        match self {
            ScanPage::Sealed { lsn, .. } => *lsn,
            ScanPage::Plain(page) => page.lsn(),
        }
    }
}

impl NodeStore {
    /// As [`materialise`](Self::materialise), without unsealing what can be scanned as it is.
    pub fn scan_page(
        &self,
        page: PageId,
        at: Lsn,
        history: &History,
    ) -> Result<ScanPage, StoreError> {
        let floor = self.floor();
        if at < floor {
            return Err(StoreError::BelowFloor { page, at, floor });
        }
        let memory = self.memory();
        let set = self.map.set();
        let chain = self
            .chain(&memory, &set, page, at, history)
            .inspect_err(|e| self.note(e))?;
        let found = match self.sealed_of(page, &chain) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => self.build(page, chain).map(ScanPage::Plain),
            Err(error) => Err(error),
        };
        found.inspect_err(|e| self.note(e))
    }

    /// The sealed leaf that a chain is, if it is one and nothing more.
    fn sealed_of(&self, page: PageId, chain: &Chain) -> Result<Option<ScanPage>, StoreError> {
        let (sealed, lsn): (Bytes, Lsn) = match (&chain.image, &chain.records[..]) {
            (Some((layer, image)), []) => (layer.image(image)?, image.lsn),
            (None, [record]) => {
                let op = Op::parse(&record.op);
                let Ok(Op::Reference { blob, index, .. }) = op else {
                    return Ok(None);
                };
                (self.blobs.page(blob, index, page)?, record.lsn)
            }
            _ => return Ok(None),
        };
        let wrong = |source| StoreError::Page { page, source };
        let header = sealed_header(&sealed, page).map_err(wrong)?;
        if header.kind != PageKind::Leaf {
            return Ok(None);
        }
        if let Some((layer, image)) = &chain.image
            && (header.lsn != image.lsn || header.origin != image.origin)
        {
            let expected = format!("page {page} at {}", image.lsn);
            let got = header.lsn;
            return Err(StoreError::corrupt(
                &layer.path,
                image.offset,
                expected,
                got,
            ));
        }
        let leaf = SealedRef::new(&sealed, page).map_err(wrong)?.into_owned();
        Ok(Some(ScanPage::Sealed { leaf, lsn }))
    }

    /// The page as of `at` in `history`; a page that was never written is [`Page::empty`].
    ///
    /// It answers from this copy alone: whether the copy is complete up to `at` is for the caller to know (its SCL).
    pub fn materialise(
        &self,
        page: PageId,
        at: Lsn,
        history: &History,
    ) -> Result<Page, StoreError> {
        let floor = self.floor();
        // Where nothing of the History lies between, the page is what it is at the floor.
        if at < floor && history.next_after(at).is_some_and(|next| next <= floor) {
            return Err(StoreError::BelowFloor { page, at, floor });
        }
        // Memory before layers: a flush adds a layer before it lets the memory go.
        let memory = self.memory();
        let set = self.map.set();
        let chain = self
            .chain(&memory, &set, page, at, history)
            .inspect_err(|e| self.note(e))?;
        self.build(page, chain).inspect_err(|e| self.note(e))
    }

    fn chain(
        &self,
        memory: &[Arc<MemLayer>],
        set: &LayerSet,
        page: PageId,
        at: Lsn,
        history: &History,
    ) -> Result<Chain, StoreError> {
        if let Some(broken) = set.broken.iter().find(|d| d.pages.contains(&page)) {
            return Err(StoreError::corrupt(
                &broken.path,
                0,
                "a readable layer",
                "damage",
            ));
        }
        let image = set.image(&self.map.cache, page, at, |origin, lsn| {
            history.contains(origin, lsn)
        })?;
        let after = image.as_ref().map_or(Lsn::NONE, |(_, image)| image.lsn);
        let mut records = Vec::new();
        memory
            .iter()
            .for_each(|m| m.records_of(page, after, at, &mut records));
        settle(&mut records, history);
        for layer in &set.deltas {
            if !layer.overlaps(page, after, at) {
                continue;
            }
            // Later layers in this order have nothing newer, and nothing is missing in between.
            if records
                .last()
                .is_some_and(|r| layer.footer.last_lsn <= r.lsn)
                && linked(&records, after)
            {
                break;
            }
            let before = records.len();
            layer.records_of(&self.map.cache, page, after, at, &mut records)?;
            if records.len() > before {
                settle(&mut records, history);
            }
        }
        // A page's newest life is all that counts.
        if let Some(start) = records.iter().rposition(Record::starts_life) {
            records.drain(..start);
            return Ok(Chain {
                image: None,
                records,
            });
        }
        Ok(Chain { image, records })
    }

    fn build(&self, page: PageId, chain: Chain) -> Result<Page, StoreError> {
        let mut built = match &chain.image {
            None => Page::empty(page, self.config.page_bytes),
            Some((layer, image)) => {
                let sealed = layer.image(image)?;
                let unsealed = unseal(&sealed, page, self.config.page_bytes);
                let unsealed = unsealed.map_err(|source| StoreError::Page { page, source })?;
                if unsealed.lsn() != image.lsn || unsealed.origin() != image.origin {
                    let expected = format!("page {page} at {}", image.lsn);
                    return Err(StoreError::corrupt(
                        &layer.path,
                        image.offset,
                        expected,
                        unsealed.lsn(),
                    ));
                }
                unsealed
            }
        };
        for record in &chain.records {
            self.apply(&mut built, record)?;
        }
        Ok(built)
    }

    /// Applies a record; a reference brings the page out of its blob.
    fn apply(&self, page: &mut Page, record: &Record) -> Result<(), StoreError> {
        let id = record.page;
        let wrong = |source| match source {
            RedoError::WrongPrev {
                lsn, expected, got, ..
            } => StoreError::Gap {
                page: id,
                lsn,
                expected,
                got,
            },
            source => StoreError::Redo { page: id, source },
        };
        if record.starts_life()
            && let Op::Reference { blob, index, .. } = Op::parse(&record.op).map_err(wrong)?
        {
            let sealed = self.blobs.page(blob, index, id)?;
            let content = unseal(&sealed, id, self.config.page_bytes);
            let content = content.map_err(|source| StoreError::Page { page: id, source })?;
            return apply_reference(page, record, content).map_err(wrong);
        }
        apply(page, record).map_err(wrong)
    }
}

/// Sorts, drops what did not happen and what came twice.
fn settle(records: &mut Vec<Record>, history: &History) {
    records.retain(|r| history.contains(r.origin, r.lsn));
    records.sort_by_key(|r| r.lsn);
    records.dedup_by_key(|r| r.lsn);
}

/// Do the records follow one another without a gap, from `after` or from the start of a life?
fn linked(records: &[Record], after: Lsn) -> bool {
    let mut next: Option<Lsn> = None;
    for record in records.iter().rev() {
        if next.is_some_and(|prev| prev != record.lsn) {
            return false;
        }
        if record.starts_life() {
            return true;
        }
        next = Some(record.prev_page);
    }
    next.is_none_or(|prev| prev == after)
}
