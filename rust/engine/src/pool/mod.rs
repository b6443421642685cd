//! The buffer pool: page versions in memory, within a byte budget.
//!
//! Readers ask for a page *as of a read point* and writers for its *head*, the newest numbered version. What is not
//! here is fetched by the shell (`Stop::NeedPage`) and installed.
//!
//! - A version that was fetched at `at` is known to be right for the read points from its own LSN to `at`. It is the
//!   head only if nothing can have changed the page after `at`: no frame of the page is here (a changed page stays
//!   here until its head is durable), and no head above `at` was dropped since the engine started (each shard keeps
//!   the highest such LSN, its *floor*).
//! - A page is never dropped while its head is above the VDL: storage could not give it back [15].
//! - Everything but the head is only a shortcut, dropped under pressure: storage serves any read point.
//!
//! Locks: one reader-writer lock per shard, held for a lookup or an exchange of pointers and never while anything
//! else is called; rebuilding an older version happens outside.

mod frame;
mod shard;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_page::{Lsn, Page, PageId};
use aurora_redo::{History, Record, apply};
use parking_lot::RwLock;

use crate::error::{Attempt, EngineError, Stop};
use frame::Lookup;
use shard::{Base, Follow, Shard};

/// Fewest pages that a pool holds, whatever its budget: paths of a tree and of its extent maps, for several threads.
const PAGES_MIN: usize = 64;
/// Pages per shard from which on more shards are worth it.
const SHARD_PAGES_MIN: usize = 128;
/// Most shards.
const SHARDS_MAX: usize = 64;

/// What the pool has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheStats {
    /// Lookups that were answered from memory.
    pub hits: u64,
    /// Lookups that had to ask storage.
    pub misses: u64,
    /// Bytes of all versions held.
    pub bytes: u64,
    /// Pages of which a version is held.
    pub pages: u64,
    /// The budget.
    pub bytes_max: u64,
}

/// Page versions, by page and read point.
pub(crate) struct Pool {
    shards: Box<[Slot]>,
    page_bytes: usize,
}

/// A shard with its counters on cache lines of their own.
#[repr(align(128))]
struct Slot {
    shard: RwLock<Shard>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Pool {
    /// An empty pool. Everything up to `floor` may have been changed by someone else before now.
    pub fn new(cache_bytes: u64, page_bytes: usize, floor: Lsn) -> Pool {
        let pages = usize::try_from(cache_bytes).unwrap_or(usize::MAX) / page_bytes;
        let pages = pages.max(PAGES_MIN);
        let count = (pages / SHARD_PAGES_MIN).clamp(1, SHARDS_MAX);
        let count = if count.is_power_of_two() {
            count
        } else {
            count.next_power_of_two() / 2
        };
        let bytes_max = pages / count * page_bytes;
        let slot = || Slot {
            shard: RwLock::new(Shard::new(bytes_max, floor)),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        };
        Pool {
            shards: (0..count).map(|_| slot()).collect(),
            page_bytes,
        }
    }

    #[inline]
    fn slot(&self, page: PageId) -> &Slot {
        // Fibonacci hashing: neighbours, which are read together, lie in different shards.
        let hash = page.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        &self.shards[hash as usize & (self.shards.len() - 1)]
    }

    /// The page as of read point `at`. `vdl` bounds what may be asked of storage.
    pub fn at(&self, page: PageId, at: Lsn, vdl: Lsn) -> Attempt<Arc<Page>> {
        let slot = self.slot(page);
        let found = {
            let shard = slot.shard.read();
            shard.check(at)?;
            shard.lookup(page, at)
        };
        match found {
            Lookup::Hit(version) => {
                slot.hits.fetch_add(1, Ordering::Relaxed);
                Ok(version)
            }
            Lookup::Rebuild {
                base,
                records,
                upto,
            } => {
                slot.hits.fetch_add(1, Ordering::Relaxed);
                let version = self.rebuild(page, base, &records)?;
                slot.shard.write().keep(page, at, version.clone(), upto);
                Ok(version)
            }
            Lookup::Miss => {
                slot.misses.fetch_add(1, Ordering::Relaxed);
                Err(Stop::NeedPage {
                    page,
                    at: at.min(vdl),
                })
            }
        }
    }

    /// Whether the page as of a read point is here, or can be made of what is.
    pub fn has(&self, page: PageId, at: Lsn) -> bool {
        let shard = self.slot(page).shard.read();
        !matches!(shard.lookup(page, at), Lookup::Miss)
    }

    /// The newest numbered version. Only right while no commit can be numbered: under the commit lock.
    pub fn head(&self, page: PageId, vdl: Lsn) -> Attempt<Arc<Page>> {
        let slot = self.slot(page);
        let head = slot.shard.read().head(page);
        match head {
            Some(head) => {
                slot.hits.fetch_add(1, Ordering::Relaxed);
                Ok(head)
            }
            None => {
                slot.misses.fetch_add(1, Ordering::Relaxed);
                Err(Stop::NeedPage { page, at: vdl })
            }
        }
    }

    /// The head, and a copy of it to change. For commits: under the commit lock.
    pub fn draft(&self, page: PageId, vdl: Lsn) -> Attempt<(Arc<Page>, Page)> {
        let slot = self.slot(page);
        let Some((head, base)) = slot.shard.write().draft(page, vdl) else {
            slot.misses.fetch_add(1, Ordering::Relaxed);
            return Err(Stop::NeedPage { page, at: vdl });
        };
        if let Some((mut draft, records)) = base {
            let replayed = records
                .iter()
                .try_for_each(|record| apply(&mut draft, record));
            if replayed.is_ok() && draft.lsn() == head.lsn() {
                return Ok((head, draft));
            }
        }
        let draft = (*head).clone();
        Ok((head, draft))
    }

    /// The LSN of the page's newest version here, if that is above the VDL.
    pub fn newest_above(&self, page: PageId, vdl: Lsn) -> Option<Lsn> {
        self.slot(page)
            .shard
            .read()
            .head(page)
            .map(|head| head.lsn())
            .filter(|lsn| *lsn > vdl)
    }

    fn rebuild(
        &self,
        page: PageId,
        base: Option<Arc<Page>>,
        records: &[Record],
    ) -> Attempt<Arc<Page>> {
        let mut version = match base {
            Some(base) => (*base).clone(),
            None => Page::empty(page, self.page_bytes),
        };
        for record in records {
            apply(&mut version, record)?;
        }
        Ok(Arc::new(version))
    }

    /// Takes in a page that the shell fetched as of `at` when the pool was of this `branch`; drops it if it is of another now.
    pub fn install(
        &self,
        page: PageId,
        version: Page,
        at: Lsn,
        vdl: Lsn,
        branch: u64,
    ) -> Result<(), EngineError> {
        if version.id() != page || version.bytes().len() != self.page_bytes || version.lsn() > at {
            let expected = format!(
                "page {page} of {} bytes, no newer than {at}",
                self.page_bytes
            );
            let got = format!(
                "page {} of {} bytes, LSN {}",
                version.id(),
                version.bytes().len(),
                version.lsn()
            );
            return Err(EngineError::corrupt(page, at, expected, got));
        }
        self.slot(page)
            .shard
            .write()
            .install(page, Arc::new(version), at, vdl, branch);
        Ok(())
    }

    /// Makes `new` the head of its page. `old` is what the commit began with, `None` where a life starts; `records`
    /// lead from it to `new`.
    pub fn publish(&self, old: Option<Arc<Page>>, new: Arc<Page>, records: Vec<Record>, vdl: Lsn) {
        self.slot(new.id())
            .shard
            .write()
            .publish(old, new, records, vdl);
    }

    /// Notes that `page` was changed by record `lsn` without its content passing through here. Its head so far must be
    /// durable.
    pub fn supersede(&self, page: PageId, lsn: Lsn, vdl: Lsn) {
        self.slot(page).shard.write().supersede(page, lsn, vdl);
    }

    /// Applies the records of one MTR to a page that is cached; whether it was. They are durable. What was there before stays for
    /// older read points. A page to which they do not apply is dropped: storage has it as it should be.
    pub fn apply(&self, page: PageId, records: Vec<Record>) -> bool {
        let Some((first, last)) = records
            .first()
            .zip(records.last())
            .map(|(a, b)| (a.lsn, b.lsn))
        else {
            return false;
        };
        let slot = self.slot(page);
        // Of a page's older life nothing is needed.
        let begins = records.iter().rposition(Record::starts_life);
        let (head, base) = match slot.shard.write().follow(page, first, last) {
            Follow::Absent => return false,
            Follow::Change(head, base) => (head, base),
        };
        let made = match begins {
            Some(start) => replay(Page::empty(page, self.page_bytes), &records[start..]),
            None => replay(draft_of(&head, base), &records),
        };
        match made {
            Some(new) => {
                slot.shard
                    .write()
                    .publish(Some(head), Arc::new(new), records, last);
                true
            }
            None => {
                slot.shard.write().drop_page(page, last);
                false
            }
        }
    }

    /// Drops a page that was changed by record `lsn`, with all its versions.
    pub fn forget(&self, page: PageId, lsn: Lsn) {
        self.slot(page).shard.write().drop_page(page, lsn);
    }

    /// This new pool is of the branch that another one is of.
    pub fn join(&self, other: &Pool) {
        let of = other.shards[0].shard.read().branch();
        for slot in &self.shards {
            slot.shard.write().join(&of);
        }
    }

    /// Drops everything; everything up to `floor` may have been changed by someone else.
    pub fn restart(&self, floor: Lsn) {
        self.shards
            .iter()
            .for_each(|slot| slot.shard.write().restart(floor));
    }

    /// Nothing above `floor` exists: what was said about later changes is void.
    pub fn lower_floor(&self, floor: Lsn) {
        self.shards
            .iter()
            .for_each(|slot| slot.shard.write().lower_floor(floor));
    }

    /// Keeps the page here, or keeps it once it comes, until as many calls of [`Pool::unpin`].
    pub fn pin(&self, page: PageId) {
        self.slot(page).shard.write().pin(page);
    }

    /// Ends one [`Pool::pin`].
    pub fn unpin(&self, page: PageId) {
        self.slot(page).shard.write().unpin(page);
    }

    /// Goes over to another branch of the volume, `branch`, of this History: what does not count there is dropped, and reads of
    /// it are refused from now on. Of the present History everything up to `kept` is all that there is up to `at` in the new one.
    pub fn rebranch(&self, branch: u64, history: &Arc<History>, kept: Option<Lsn>, at: Lsn) {
        self.shards
            .iter()
            .for_each(|slot| slot.shard.write().rebranch(branch, history, kept, at));
    }

    /// Drops all that may be dropped.
    pub fn evict_all(&self, vdl: Lsn) {
        self.shards
            .iter()
            .for_each(|slot| slot.shard.write().evict_all(vdl));
    }

    /// Counters and sizes.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::default();
        for slot in &self.shards {
            stats.hits += slot.hits.load(Ordering::Relaxed);
            stats.misses += slot.misses.load(Ordering::Relaxed);
            slot.shard.read().add_to(&mut stats);
        }
        stats
    }

    /// The head of every page that is here, for checks.
    pub fn heads(&self) -> Vec<Arc<Page>> {
        self.shards
            .iter()
            .flat_map(|slot| slot.shard.read().heads())
            .collect()
    }
}

/// A copy of the head to change, made of the base before it where that spares copying.
fn draft_of(head: &Arc<Page>, base: Option<Base>) -> Page {
    let rebuilt = base.and_then(|(draft, records)| replay(draft, &records));
    let rebuilt = rebuilt.filter(|draft| draft.lsn() == head.lsn());
    rebuilt.unwrap_or_else(|| (**head).clone())
}

/// The page after these records; `None` where they do not follow it.
fn replay(mut page: Page, records: &[Record]) -> Option<Page> {
    let applied = records
        .iter()
        .try_for_each(|record| apply(&mut page, record));
    applied.is_ok().then_some(page)
}

/// Pages that must stay until a commit that is being retried has come through.
pub(crate) struct Pins {
    pool: Arc<Pool>,
    pages: Vec<PageId>,
}

impl Pins {
    /// None yet.
    pub fn new(pool: Arc<Pool>) -> Pins {
        Pins {
            pool,
            pages: Vec::new(),
        }
    }

    /// The same for another pool: the transaction goes on at another instance.
    pub fn of(&mut self, pool: &Arc<Pool>) -> &mut Pins {
        if !Arc::ptr_eq(&self.pool, pool) {
            self.release();
            self.pool = pool.clone();
        }
        self
    }

    /// One more.
    pub fn add(&mut self, page: PageId) {
        if !self.pages.contains(&page) {
            self.pool.pin(page);
            self.pages.push(page);
        }
    }

    /// No more, if there are more than so many.
    pub fn release_above(&mut self, most: usize) {
        if self.pages.len() > most {
            self.release();
        }
    }

    /// No more.
    pub fn release(&mut self) {
        self.pages.drain(..).for_each(|page| self.pool.unpin(page));
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.release();
    }
}
