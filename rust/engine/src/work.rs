//! A mini-transaction in the making: pages being changed, and the records that change them.
//!
//! Nothing of it is visible before [`Work::append`]; dropping it undoes it. Every change goes through
//! `redo::apply_op`, the function by which storage nodes replay it, so what is published here is what storage will
//! have [5].

use std::ops::Deref;
use std::sync::Arc;

use aurora_page::{Lsn, Page, PageId, VolumeId};
use aurora_proto::{Numbered, Refused, Volume};
use aurora_redo::{Mtr, MtrRecord, Op, Prev, Record, apply_op};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::error::{Attempt, EngineError, Stop};
use crate::pool::Pool;

/// LSNs of records that have no number yet: this plus their index in the MTR. No volume gives so many.
const UNNUMBERED: u64 = 1 << 63;

/// A page that this MTR changes.
struct Draft {
    page: Page,
    /// The head that the MTR began with; `None` where it starts the page's life.
    before: Option<Arc<Page>>,
}

/// A page as the MTR sees it: its own draft, or the head.
pub(crate) enum PageRef<'w> {
    /// Changed by this MTR.
    Draft(&'w Page),
    /// Not changed by it.
    Head(Arc<Page>),
}

impl Deref for PageRef<'_> {
    type Target = Page;

    #[inline]
    fn deref(&self) -> &Page {
        match self {
            PageRef::Draft(page) => page,
            PageRef::Head(page) => page,
        }
    }
}

/// Drafts and records of one MTR. Lives under the commit lock.
pub(crate) struct Work<'p> {
    pool: &'p Pool,
    vdl: Lsn,
    origin: VolumeId,
    page_bytes: usize,
    drafts: FxHashMap<PageId, Draft>,
    records: Vec<MtrRecord>,
}

impl<'p> Work<'p> {
    /// Nothing changed yet.
    pub fn new(pool: &'p Pool, vdl: Lsn, origin: VolumeId, page_bytes: usize) -> Work<'p> {
        let (drafts, records) = (FxHashMap::default(), Vec::new());
        Work {
            pool,
            vdl,
            origin,
            page_bytes,
            drafts,
            records,
        }
    }

    /// The page as this MTR has left it so far.
    #[inline]
    pub fn page(&self, id: PageId) -> Attempt<PageRef<'_>> {
        if let Some(draft) = self.drafts.get(&id) {
            return Ok(PageRef::Draft(&draft.page));
        }
        self.pool.head(id, self.vdl).map(PageRef::Head)
    }

    /// The newest change of the page before this MTR; [`Lsn::MAX`] if the MTR has started the page's life anew, so
    /// that nothing can be said.
    #[inline]
    pub fn seen(&self, id: PageId, page: &Page) -> Lsn {
        match self.drafts.get(&id) {
            Some(draft) => draft
                .before
                .as_ref()
                .map_or(Lsn::MAX, |before| before.lsn()),
            None => page.lsn(),
        }
    }

    /// Changes a page.
    pub fn change(&mut self, id: PageId, op: &Op<'_>) -> Attempt<()> {
        if !self.drafts.contains_key(&id) {
            let (before, page) = self.pool.draft(id, self.vdl)?;
            let before = Some(before);
            self.drafts.insert(id, Draft { page, before });
        }
        self.record(id, op)
    }

    /// Starts a page's life; what it was before need not be here.
    pub fn start(&mut self, id: PageId, op: &Op<'_>) -> Attempt<()> {
        debug_assert!(op.starts_life());
        self.drafts.insert(
            id,
            Draft {
                page: Page::empty(id, self.page_bytes),
                before: None,
            },
        );
        self.record(id, op)
    }

    fn record(&mut self, id: PageId, op: &Op<'_>) -> Attempt<()> {
        let Some(draft) = self.drafts.get_mut(&id) else {
            return Err(Stop::Failed(EngineError::corrupt(
                id, self.vdl, "a draft", "none",
            )));
        };
        let prev = match draft.page.lsn().0.checked_sub(UNNUMBERED) {
            _ if op.starts_life() => Prev::Lsn(Lsn::NONE),
            Some(index) => Prev::InMtr(index as u32),
            None => Prev::Lsn(draft.page.lsn()),
        };
        // As `redo::apply` does it: freeing clears the header too, but the chain of one life goes to its last record.
        let before = draft.page.lsn();
        apply_op(&mut draft.page, op)?;
        if matches!(op, Op::Free) {
            draft.page.stamp(self.origin, before);
        }
        draft
            .page
            .stamp(self.origin, Lsn(UNNUMBERED + self.records.len() as u64));
        let op = op.encode();
        self.records.push(MtrRecord { page: id, prev, op });
        Ok(())
    }

    /// Logs that the page's content is that of a blob. The content itself does not pass through here.
    pub fn reference(&mut self, id: PageId, op: &Op<'_>) {
        let op = op.encode();
        self.records.push(MtrRecord {
            page: id,
            prev: Prev::Lsn(Lsn::NONE),
            op,
        });
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The pages that this MTR changes, each with what it was before if its life did not start here.
    pub fn drafted(&self) -> impl Iterator<Item = (&Page, Option<&Page>)> {
        self.drafts
            .values()
            .map(|draft| (&draft.page, draft.before.as_deref()))
    }

    /// Numbers the records, hands them to the volume and makes the new versions the heads of their pages.
    /// A refusal changes nothing.
    pub fn append<V: Volume + ?Sized>(&mut self, volume: &V, time_us: i64) -> Attempt<Numbered> {
        let mtr = Mtr {
            records: self.records.clone(),
            time_us,
        };
        let numbered = volume
            .append(mtr)
            .map_err(|refused| refusal(refused, volume))?;
        self.publish(numbered, volume.vdl(), time_us);
        Ok(numbered)
    }

    fn publish(&mut self, numbered: Numbered, vdl: Lsn, time_us: i64) {
        let mut by_page: SmallVec<[(PageId, Vec<Record>); 4]> = SmallVec::new();
        let mut place: FxHashMap<PageId, usize> = FxHashMap::default();
        for (index, record) in std::mem::take(&mut self.records).into_iter().enumerate() {
            let lsn = numbered.base.offset(index as u64);
            let prev_page = match record.prev {
                Prev::Lsn(lsn) => lsn,
                Prev::InMtr(earlier) => numbered.base.offset(u64::from(earlier)),
            };
            let cpl = (lsn == numbered.last).then_some(time_us);
            let (origin, page, op) = (self.origin, record.page, record.op);
            let record = Record {
                lsn,
                origin,
                prev_pg: Lsn::NONE,
                prev_page,
                page,
                cpl,
                op,
            };
            let at = *place.entry(page).or_insert_with(|| {
                by_page.push((page, Vec::new()));
                by_page.len() - 1
            });
            by_page[at].1.push(record);
        }
        for (id, records) in by_page {
            match self.drafts.remove(&id) {
                Some(mut draft) => {
                    self.number(&mut draft.page, numbered.base);
                    self.pool
                        .publish(draft.before, Arc::new(draft.page), records, vdl);
                }
                // Only a reference has no draft.
                None => self.pool.supersede(id, numbered.last, vdl),
            }
        }
    }

    /// Replaces the provisional LSNs of a page's header: what stamping each record with its number would have left.
    fn number(&self, page: &mut Page, base: Lsn) {
        let number = |lsn: Lsn| {
            lsn.0
                .checked_sub(UNNUMBERED)
                .map_or(lsn, |index| base.offset(index))
        };
        let (prev, last) = (number(page.prev_lsn()), number(page.lsn()));
        page.stamp(self.origin, prev);
        page.stamp(self.origin, last);
    }
}

fn refusal<V: Volume + ?Sized>(refused: Refused, volume: &V) -> Stop {
    match refused {
        Refused::NeedSegment => Stop::NeedSegment,
        // With nothing in flight no waiting helps: the change itself is too large.
        Refused::BackPressure { vdl, .. } if vdl < volume.numbered() => Stop::WaitLsn(vdl.next()),
        refused => Stop::Failed(EngineError::Volume(refused)),
    }
}
