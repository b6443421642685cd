//! Leaves that scans have read, sealed or plain, by extent: what a scan need not read and unpack again.
//!
//! An extent's pages are good for a read point if nothing has changed them between the read point that they were read for and
//! this one; the volume's change clock tells, for all commits of this owner go through it. A read point before a page's newest
//! record is not served from here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_page::{Lsn, PageId};
use aurora_redo::History;
use aurora_store::ScanPage;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::changes::ChangeClock;

/// One page and what it was read as.
#[derive(Clone)]
pub(crate) struct CachedPage {
    pub(crate) id: PageId,
    pub(crate) page: Arc<ScanPage>,
}

/// The pages of an extent that were in use.
pub(crate) struct CachedExtent {
    history: Arc<History>,
    used: u64,
    pub(crate) pages: Vec<CachedPage>,
    /// The newest record of any of them.
    newest: Lsn,
    /// The highest read point that they are known to be good for.
    good_to: AtomicU64,
    bytes: usize,
    /// The scan that used it last.
    used_by: AtomicU64,
}

impl CachedExtent {
    pub(crate) fn new(
        history: Arc<History>,
        used: u64,
        pages: Vec<CachedPage>,
        at: Lsn,
    ) -> CachedExtent {
        let newest = pages.iter().map(|cached| cached.page.lsn()).max();
        let bytes = pages.iter().map(|cached| bytes_of(&cached.page)).sum();
        CachedExtent {
            history,
            used,
            newest: newest.unwrap_or(Lsn::NONE),
            pages,
            good_to: AtomicU64::new(at.0),
            bytes,
            used_by: AtomicU64::new(0),
        }
    }

    /// Whether the pages are those of the read point.
    pub(crate) fn serves(
        &self,
        history: &Arc<History>,
        used: u64,
        at: Lsn,
        clock: &ChangeClock,
    ) -> bool {
        if self.used != used || self.newest > at || !Arc::ptr_eq(&self.history, history) {
            return false;
        }
        let good_to = Lsn(self.good_to.load(Ordering::Acquire));
        if at <= good_to {
            return true;
        }
        if self
            .pages
            .iter()
            .any(|cached| clock.newest(cached.id) > good_to)
        {
            return false;
        }
        // Whatever is up to `at` is in the clock already, so none of it changed them.
        self.good_to.fetch_max(at.0, Ordering::AcqRel);
        true
    }

    /// The page, if it is that of the read point though others are not.
    pub(crate) fn page(
        &self,
        id: PageId,
        history: &Arc<History>,
        at: Lsn,
        clock: &ChangeClock,
    ) -> Option<CachedPage> {
        if !Arc::ptr_eq(&self.history, history) {
            return None;
        }
        let good_to = Lsn(self.good_to.load(Ordering::Acquire));
        let found = self.pages.iter().find(|cached| cached.id == id)?;
        let unchanged = at <= good_to || clock.newest(id) <= good_to;
        (unchanged && found.page.lsn() <= at).then(|| found.clone())
    }
}

fn bytes_of(page: &ScanPage) -> usize {
    match page {
        ScanPage::Sealed { leaf, .. } => leaf.body_bytes() + 200,
        ScanPage::Plain(page) => page.bytes().len() + 200,
    }
}

#[derive(Default)]
struct Extents {
    by_number: FxHashMap<u64, Arc<CachedExtent>>,
    bytes: usize,
}

/// See the module.
pub(crate) struct ScanCache {
    bytes_max: usize,
    extents: Mutex<Extents>,
    scans: AtomicU64,
}

impl ScanCache {
    pub(crate) fn new(bytes_max: usize) -> ScanCache {
        ScanCache {
            bytes_max,
            extents: Mutex::default(),
            scans: AtomicU64::new(0),
        }
    }

    /// A scan begins: its number.
    pub(crate) fn begin(&self) -> u64 {
        self.scans.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn get(&self, extent: u64, scan: u64) -> Option<Arc<CachedExtent>> {
        let found = self.extents.lock().by_number.get(&extent).cloned()?;
        found.used_by.store(scan, Ordering::Relaxed);
        Some(found)
    }

    /// Keeps an extent if there is room, or what has not been used lately makes some: a scan of more than fits keeps what it has,
    /// where throwing out the oldest would serve the next scan nothing.
    pub(crate) fn put(&self, extent: u64, entry: &Arc<CachedExtent>, scan: u64) {
        entry.used_by.store(scan, Ordering::Relaxed);
        let mut extents = self.extents.lock();
        if let Some(old) = extents.by_number.remove(&extent) {
            extents.bytes -= old.bytes;
        }
        if extents.bytes + entry.bytes > self.bytes_max {
            let mut freed = 0;
            extents.by_number.retain(|_, old| {
                let kept = old.used_by.load(Ordering::Relaxed) + 1 >= scan;
                freed += if kept { 0 } else { old.bytes };
                kept
            });
            extents.bytes -= freed;
        }
        if extents.bytes + entry.bytes <= self.bytes_max {
            extents.bytes += entry.bytes;
            extents.by_number.insert(extent, entry.clone());
        }
    }

    /// Bytes kept.
    pub(crate) fn bytes(&self) -> usize {
        self.extents.lock().bytes
    }
}
