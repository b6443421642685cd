//! One page in the pool: its head, and what leads back to older versions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_page::{Lsn, Page, PageId};
use aurora_redo::Record;
use smallvec::SmallVec;

/// Older versions kept per page.
const OLD_MAX: usize = 3;

/// Records that are applied faster than a page is copied.
const REPLAY_MAX: usize = 8;

/// A version that is right for the read points from its LSN to `upto`.
struct Version {
    page: Arc<Page>,
    upto: Lsn,
}

/// What the pool knows of a page at a read point.
pub(super) enum Lookup {
    /// The version.
    Hit(Arc<Page>),
    /// The version is `base` (an empty page if `None`) with these records, right up to `upto`.
    Rebuild {
        /// Where to start.
        base: Option<Arc<Page>>,
        /// What to apply.
        records: Vec<Record>,
        /// The last read point that the result serves.
        upto: Lsn,
    },
    /// Storage must be asked.
    Miss,
}

/// The versions of one page.
///
/// ```text
///   old (loose)      base ---- tail: record, record, record ----> head
///   each with its    a version that was     numbered since        the newest numbered version; serves every
///   range            durable when it        it was durable        read point from its LSN on
///                    became the base
/// ```
pub(super) struct Frame {
    page: PageId,
    head: Option<Arc<Page>>,
    /// `None` while the tail is empty, or where the tail starts the page's life.
    base: Option<Arc<Page>>,
    tail: Vec<Record>,
    old: SmallVec<[Version; OLD_MAX]>,
    /// Set by readers, cleared by the clock hand.
    used: AtomicBool,
    /// Bytes that the shard has counted for this frame.
    booked: usize,
}

impl Frame {
    pub fn new(page: PageId) -> Frame {
        Frame {
            page,
            head: None,
            base: None,
            tail: Vec::new(),
            old: SmallVec::new(),
            used: AtomicBool::new(false),
            booked: 0,
        }
    }

    pub fn page(&self) -> PageId {
        self.page
    }

    #[inline]
    pub fn head(&self) -> Option<&Arc<Page>> {
        self.head.as_ref()
    }

    /// Readers mark; a store only where it changes something keeps the cache line shared.
    #[inline]
    pub fn mark(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// The clock hand takes the mark away and says whether there was one.
    pub fn unmark(&mut self) -> bool {
        std::mem::take(self.used.get_mut())
    }

    #[inline]
    pub fn lookup(&self, at: Lsn) -> Lookup {
        match &self.head {
            Some(head) if head.lsn() <= at => Lookup::Hit(head.clone()),
            _ => self.lookup_older(at),
        }
    }

    fn lookup_older(&self, at: Lsn) -> Lookup {
        let right = |version: &&Version| version.page.lsn() <= at && at <= version.upto;
        if let Some(version) = self.old.iter().find(right) {
            return Lookup::Hit(version.page.clone());
        }
        let end = self.tail.partition_point(|record| record.lsn <= at);
        let upto = self
            .tail
            .get(end)
            .map_or(Lsn::MAX, |record| record.lsn.prev());
        if let Some(start) = self.tail[..end].iter().rposition(Record::starts_life) {
            return Lookup::Rebuild {
                base: None,
                records: self.tail[start..end].to_vec(),
                upto,
            };
        }
        match &self.base {
            Some(base) if base.lsn() <= at && end == 0 => Lookup::Hit(base.clone()),
            Some(base) if base.lsn() <= at => Lookup::Rebuild {
                base: Some(base.clone()),
                records: self.tail[..end].to_vec(),
                upto,
            },
            _ => Lookup::Miss,
        }
    }

    /// Keeps an older version beside the others; the one with the lowest range gives way.
    pub fn keep(&mut self, page: Arc<Page>, upto: Lsn) {
        if let Some(same) = self
            .old
            .iter_mut()
            .find(|version| version.page.lsn() == page.lsn())
        {
            same.upto = same.upto.max(upto);
            return;
        }
        if self.old.len() == OLD_MAX {
            let lowest = (0..OLD_MAX).min_by_key(|&n| self.old[n].upto).unwrap_or(0);
            self.old.swap_remove(lowest);
        }
        self.old.push(Version { page, upto });
    }

    /// Takes a fetched version as the head: the caller knows that nothing newer exists.
    pub fn set_head(&mut self, page: Arc<Page>) {
        debug_assert!(self.head.is_none());
        self.old.retain(|version| version.page.lsn() != page.lsn());
        self.head = Some(page);
    }

    pub fn publish(
        &mut self,
        old: Option<Arc<Page>>,
        new: Arc<Page>,
        records: Vec<Record>,
        vdl: Lsn,
    ) {
        let first = records.first().map_or(new.lsn(), |record| record.lsn);
        // The new version can be durable and fetched by a reader before it is published: then the fetched head says
        // nothing about what came before.
        let before = match self.head.take() {
            Some(head) if head.lsn() < first => Some(head),
            _ => {
                self.base = None;
                self.tail.clear();
                old
            }
        };
        if let Some(before) = before
            && (before.lsn() <= vdl || self.tail.is_empty())
        {
            self.base = Some(before);
            self.tail.clear();
        }
        self.tail.extend(records);
        self.head = Some(new);
    }

    /// Takes the base out, with the records that lead from it to the head: brought up to date it is a draft for the next
    /// change, for which the head then need not be copied. Only where the next change would drop the base anyway, and
    /// nobody else holds it.
    pub fn take_base(&mut self, vdl: Lsn) -> Option<(Page, Vec<Record>)> {
        let durable = self.head.as_ref().is_some_and(|head| head.lsn() <= vdl);
        if !durable || self.tail.is_empty() || self.tail.len() > REPLAY_MAX {
            return None;
        }
        match Arc::try_unwrap(self.base.take()?) {
            Ok(base) => Some((base, std::mem::take(&mut self.tail))),
            Err(shared) => {
                self.base = Some(shared);
                None
            }
        }
    }

    /// Drops all but the head.
    pub fn shed(&mut self) {
        self.old.clear();
        if self.head.is_some() {
            self.base = None;
            self.tail = Vec::new();
        }
    }

    /// Whether there are loose older versions.
    pub fn has_old(&self) -> bool {
        !self.old.is_empty()
    }

    /// Drops loose older versions.
    pub fn shed_old(&mut self) {
        self.old.clear();
    }

    /// Whether storage can give back everything that is here.
    pub fn is_durable(&self, vdl: Lsn) -> bool {
        self.head.as_ref().is_none_or(|head| head.lsn() <= vdl)
    }

    /// Bytes that are on the shard's books.
    pub fn booked(&self) -> usize {
        self.booked
    }

    /// Books the present weight, and gives what was booked before.
    pub fn rebook(&mut self) -> usize {
        let weight = self.weight();
        std::mem::replace(&mut self.booked, weight)
    }

    /// Bytes, for the budget.
    pub fn weight(&self) -> usize {
        let pages = self
            .head
            .iter()
            .chain(&self.base)
            .map(|page| page.bytes().len());
        let old = self.old.iter().map(|version| version.page.bytes().len());
        let tail = self.tail.iter().map(Record::weight);
        size_of::<Frame>() + pages.sum::<usize>() + old.sum::<usize>() + tail.sum::<usize>()
    }
}
