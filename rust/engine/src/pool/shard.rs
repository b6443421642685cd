//! A part of the pool under one lock: frames by page, and the clock that decides which go.

use std::sync::Arc;

use aurora_page::planted::{self, Fault};
use aurora_page::{Lsn, Page, PageId};
use aurora_redo::{History, Record};
use rustc_hash::FxHashMap;

use super::CacheStats;
use super::frame::{Frame, Lookup};
use crate::error::EngineError;

/// Frames that may be dropped and yet stay while others that may not take the whole budget.
const KEEP_MIN: usize = 12;

/// An older version with the records that lead to the head.
pub(super) type Base = (Page, Vec<Record>);

/// What redo finds of a page.
pub(super) enum Follow {
    /// No head, or one that has the change already.
    Absent,
    /// The head, and what a draft of it can be made of without copying it.
    Change(Arc<Page>, Option<Base>),
}

/// Frames of the pages that hash here.
pub(super) struct Shard {
    index: FxHashMap<PageId, usize>,
    frames: Vec<Frame>,
    /// Pages that must not go, with how often that was asked; also of pages that are yet to come.
    pins: FxHashMap<PageId, u32>,
    hand: usize,
    bytes: usize,
    bytes_max: usize,
    /// The last sweep could not get down to the budget.
    starved: bool,
    /// No page that hashes here has a version above this one that is not here.
    floor: Lsn,
    /// Pages whose newest version, of this LSN, never was here. Kept until it is durable, when the floor takes over.
    superseded: FxHashMap<PageId, Lsn>,
    /// The branch of the volume that the pages are of.
    branch: u64,
    /// What counts in it, where it is not the one that the pool began with: other read points are refused.
    history: Option<Arc<History>>,
}

impl Shard {
    pub fn new(bytes_max: usize, floor: Lsn) -> Shard {
        Shard {
            index: FxHashMap::default(),
            frames: Vec::new(),
            pins: FxHashMap::default(),
            hand: 0,
            bytes: 0,
            bytes_max,
            starved: false,
            floor,
            superseded: FxHashMap::default(),
            branch: 0,
            history: None,
        }
    }

    /// Refuses a read point that was left when the pool went over to another branch.
    #[inline]
    pub fn check(&self, at: Lsn) -> Result<(), EngineError> {
        match &self.history {
            Some(history) if at < history.first_new_lsn() => check_in(history, at),
            _ => Ok(()),
        }
    }

    /// Drops what is not of another branch, and goes over to it.
    pub fn rebranch(&mut self, branch: u64, history: &Arc<History>, kept: Option<Lsn>, at: Lsn) {
        (self.branch, self.history) = (branch, Some(history.clone()));
        self.superseded.clear();
        let mut index = 0;
        while let Some(frame) = self.frames.get_mut(index) {
            // A page that was never written has LSN 0, so no LSN would keep none.
            let stays = |head: &Arc<Page>| kept.is_some_and(|kept| head.lsn() <= kept);
            if frame.head().is_some_and(stays) {
                frame.shed();
                self.bytes = self.bytes + frame.weight() - frame.rebook();
                index += 1;
            } else {
                self.remove(index);
            }
        }
        // Whatever was dropped was of the other branch: here, nothing is newer than what is fetched at the branch point.
        self.floor = at;
    }

    #[inline]
    fn frame(&self, page: PageId) -> Option<&Frame> {
        let frame = &self.frames[*self.index.get(&page)?];
        frame.mark();
        Some(frame)
    }

    #[inline]
    pub fn lookup(&self, page: PageId, at: Lsn) -> Lookup {
        self.frame(page)
            .map_or(Lookup::Miss, |frame| frame.lookup(at))
    }

    #[inline]
    pub fn head(&self, page: PageId) -> Option<Arc<Page>> {
        self.frame(page)?.head().cloned()
    }

    /// Changes a frame, making it first if need be, and keeps the books.
    fn change(&mut self, page: PageId, change: impl FnOnce(&mut Frame)) {
        let frames = &mut self.frames;
        let at = *self.index.entry(page).or_insert_with(|| {
            frames.push(Frame::new(page));
            frames.len() - 1
        });
        let frame = &mut self.frames[at];
        change(frame);
        frame.mark();
        self.bytes = self.bytes + frame.weight() - frame.rebook();
    }

    /// The head, and what a draft of it can be made of without copying it.
    pub fn draft(&mut self, page: PageId, vdl: Lsn) -> Option<(Arc<Page>, Option<Base>)> {
        let head = self.head(page)?;
        let mut base = None;
        self.change(page, |frame| base = frame.take_base(vdl));
        Some((head, base))
    }

    /// Keeps an older version, if the page is still here.
    pub fn keep(&mut self, page: PageId, at: Lsn, version: Arc<Page>, upto: Lsn) {
        if self.check(at).is_ok() && self.index.contains_key(&page) {
            self.change(page, |frame| frame.keep(version, upto));
        }
    }

    pub fn install(&mut self, page: PageId, version: Arc<Page>, at: Lsn, vdl: Lsn, branch: u64) {
        if branch != self.branch {
            return;
        }
        let floor = self
            .superseded
            .get(&page)
            .map_or(self.floor, |lsn| self.floor.max(*lsn));
        self.change(page, |frame| match frame.head() {
            // What was fetched is what is here.
            Some(head) if head.lsn() <= at => {}
            None if at >= floor || planted::is(Fault::FetchOverNewer) => frame.set_head(version),
            _ => frame.keep(version, at),
        });
        self.sweep(vdl);
    }

    pub fn publish(
        &mut self,
        old: Option<Arc<Page>>,
        new: Arc<Page>,
        records: Vec<Record>,
        vdl: Lsn,
    ) {
        self.change(new.id(), |frame| frame.publish(old, new, records, vdl));
        self.sweep(vdl);
    }

    pub fn supersede(&mut self, page: PageId, lsn: Lsn, vdl: Lsn) {
        if let Some(&at) = self.index.get(&page) {
            self.remove(at);
        }
        let floor = &mut self.floor;
        self.superseded.retain(|_, lsn| {
            let durable = *lsn <= vdl;
            if durable {
                *floor = (*floor).max(*lsn);
            }
            !durable
        });
        self.superseded.insert(page, lsn);
    }

    /// Redo passes with records `first` to `last` of a page. That it has passed is noted where there is no head, so that a
    /// version that was asked for before is not taken for the newest one.
    pub fn follow(&mut self, page: PageId, first: Lsn, last: Lsn) -> Follow {
        match self.head(page) {
            Some(head) if head.lsn() >= last => Follow::Absent,
            Some(head) => {
                let mut base = None;
                self.change(page, |frame| base = frame.take_base(first));
                Follow::Change(head, base)
            }
            None => {
                if !planted::is(Fault::RedoNotNoted) {
                    self.floor = self.floor.max(last);
                }
                Follow::Absent
            }
        }
    }

    /// Drops a page that was changed by record `lsn`.
    pub fn drop_page(&mut self, page: PageId, lsn: Lsn) {
        if let Some(&at) = self.index.get(&page) {
            self.remove(at);
        }
        self.floor = self.floor.max(lsn);
    }

    /// The branch of the volume, and what counts in it.
    pub fn branch(&self) -> (u64, Option<Arc<History>>) {
        (self.branch, self.history.clone())
    }

    /// It is of this branch.
    pub fn join(&mut self, (branch, history): &(u64, Option<Arc<History>>)) {
        (self.branch, self.history) = (*branch, history.clone());
    }

    /// Drops everything.
    pub fn restart(&mut self, floor: Lsn) {
        if planted::is(Fault::RejoinKeepsPages) {
            return;
        }
        self.index.clear();
        self.frames.clear();
        self.superseded.clear();
        (self.hand, self.bytes, self.starved) = (0, 0, false);
        self.floor = floor;
    }

    /// Nothing above `floor` exists.
    pub fn lower_floor(&mut self, floor: Lsn) {
        let superseded = self.superseded.drain().map(|(_, lsn)| lsn);
        self.floor = superseded.fold(self.floor, Lsn::max).min(floor);
    }

    pub fn pin(&mut self, page: PageId) {
        *self.pins.entry(page).or_insert(0) += 1;
    }

    pub fn unpin(&mut self, page: PageId) {
        if let Some(count) = self.pins.get_mut(&page) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&page);
            }
        }
    }

    /// The clock: goes round until the budget holds, taking marks away first and frames without one after. What is
    /// pinned, or newer than what is durable, stays; of a pinned one only the shortcuts go.
    ///
    /// Where pages that are not durable fill the budget, the last few others stay beyond it: a descent needs its path
    /// at one time, and would be fetched page after page without end.
    fn sweep(&mut self, vdl: Lsn) {
        let (first_round, mut steps) = (self.frames.len(), 0);
        let mut spare = if self.starved {
            self.droppable(vdl).saturating_sub(KEEP_MIN)
        } else {
            usize::MAX
        };
        while self.bytes > self.bytes_max && steps < 2 * first_round && !self.frames.is_empty() {
            if steps == first_round {
                spare = self.droppable(vdl).saturating_sub(KEEP_MIN);
            }
            steps += 1;
            self.hand %= self.frames.len();
            let frame = &mut self.frames[self.hand];
            if frame.unmark() || spare == 0 {
                self.hand += 1;
                continue;
            }
            let durable = frame.is_durable(vdl);
            let pinned = !self.pins.is_empty() && self.pins.contains_key(&frame.page());
            spare -= usize::from(!pinned && (durable || frame.has_old()));
            if durable && !pinned {
                // The last frame takes this place and is looked at next.
                self.remove(self.hand);
                continue;
            }
            if durable {
                frame.shed()
            } else {
                frame.shed_old()
            }
            self.bytes = self.bytes + frame.weight() - frame.rebook();
            self.hand += 1;
        }
        self.starved = self.bytes > self.bytes_max;
    }

    /// Frames of which something may be dropped.
    fn droppable(&self, vdl: Lsn) -> usize {
        let may = |frame: &&Frame| {
            (frame.is_durable(vdl) || frame.has_old()) && !self.pins.contains_key(&frame.page())
        };
        self.frames.iter().filter(may).count()
    }

    fn remove(&mut self, at: usize) {
        let frame = self.frames.swap_remove(at);
        self.index.remove(&frame.page());
        if let Some(moved) = self.frames.get(at) {
            self.index.insert(moved.page(), at);
        }
        self.bytes -= frame.booked();
        if let Some(head) = frame.head() {
            self.floor = self.floor.max(head.lsn());
        }
    }

    pub fn evict_all(&mut self, vdl: Lsn) {
        let mut at = 0;
        while let Some(frame) = self.frames.get(at) {
            if frame.is_durable(vdl) && !self.pins.contains_key(&frame.page()) {
                self.remove(at);
            } else {
                at += 1;
            }
        }
    }

    pub fn add_to(&self, stats: &mut CacheStats) {
        stats.bytes += self.bytes as u64;
        stats.pages += self.frames.len() as u64;
        stats.bytes_max += self.bytes_max as u64;
    }

    pub fn heads(&self) -> Vec<Arc<Page>> {
        self.frames
            .iter()
            .filter_map(|frame| frame.head().cloned())
            .collect()
    }
}

#[cold]
fn check_in(history: &History, at: Lsn) -> Result<(), EngineError> {
    if at.is_none() || history.origin_of(at).is_some() {
        Ok(())
    } else {
        Err(EngineError::Branched { at })
    }
}
