//! The layer in memory: batches as they were logged, shared by the nodes of a process.
//!
//! Taking a batch is one push. The index by page is built by the first read that wants it, behind a lock of its own, so
//! that no commit ever waits for a reader.

use std::sync::Arc;

use aurora_page::{Lsn, PageId};
use aurora_redo::{PgBatch, Record};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::layer::iter::key_of;
use crate::types::CommitPoint;

#[derive(Debug, Default)]
pub(crate) struct MemLayer {
    batches: Mutex<Batches>,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Batches {
    list: Vec<Arc<PgBatch>>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Index {
    seen: Vec<Arc<PgBatch>>,
    by_page: FxHashMap<PageId, SmallVec<[(u32, u32); 3]>>,
}

impl MemLayer {
    pub(crate) fn push(&self, batch: Arc<PgBatch>) {
        let bytes = batch.weight() as u64;
        let mut batches = self.batches.lock();
        batches.bytes += bytes;
        batches.list.push(batch);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.batches.lock().bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.lock().list.is_empty()
    }

    fn batches(&self) -> Vec<Arc<PgBatch>> {
        self.batches.lock().list.clone()
    }

    /// Adds the records of a page with an LSN in `(after, upto]`.
    pub(crate) fn records_of(&self, page: PageId, after: Lsn, upto: Lsn, out: &mut Vec<Record>) {
        let mut index = self.index.lock();
        let index = &mut *index;
        let new = {
            let batches = self.batches.lock();
            batches.list[index.seen.len()..].to_vec()
        };
        for batch in new {
            for (i, record) in batch.records.iter().enumerate() {
                index
                    .by_page
                    .entry(record.page)
                    .or_default()
                    .push((index.seen.len() as u32, i as u32));
            }
            index.seen.push(batch);
        }
        let places = index.by_page.get(&page).into_iter().flatten();
        let records = places.map(|(batch, i)| &index.seen[*batch as usize].records[*i as usize]);
        out.extend(records.filter(|r| r.lsn > after && r.lsn <= upto).cloned());
    }

    /// All records that `keep` wants, in order of page, LSN, origin.
    pub(crate) fn sorted(&self, keep: impl Fn(&Record) -> bool) -> Vec<Record> {
        let batches = self.batches();
        let mut records: Vec<Record> = batches
            .iter()
            .flat_map(|b| b.records.iter())
            .filter(|r| keep(r))
            .cloned()
            .collect();
        records.sort_by_key(key_of);
        records.dedup_by_key(|r| key_of(r));
        records
    }

    /// Calls `each` for every record, in no order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&Record)) {
        self.batches()
            .iter()
            .flat_map(|b| b.records.iter())
            .for_each(&mut each);
    }

    /// Calls `each` for every record above an LSN, in no order. Batches that end at or below it are passed over.
    pub(crate) fn for_each_above(&self, after: Lsn, mut each: impl FnMut(&Record)) {
        let batches = self.batches();
        let newer = batches.iter().filter(|batch| batch.last_lsn() > after);
        newer
            .flat_map(|batch| batch.records.iter())
            .filter(|record| record.lsn > after)
            .for_each(&mut each);
    }

    /// The newest commit that `wanted` accepts. Batches come nearly in the order of their LSNs: what is found in one of the last passes
    /// over the others without a look at their records.
    pub(crate) fn newest_commit(
        &self,
        wanted: impl Fn(&CommitPoint) -> bool,
    ) -> Option<CommitPoint> {
        let mut newest: Option<CommitPoint> = None;
        for batch in self.batches().iter().rev() {
            if newest.is_none_or(|newest| batch.last_lsn() >= newest.lsn) {
                let commits = batch.records.iter().rev().filter_map(commit_of);
                // Of commits of one LSN the newest origin counts, so that the rest of the batch is looked at too.
                newest = newest_of(
                    newest,
                    commits.filter(&wanted).max_by_key(|c| (c.lsn, c.origin)),
                );
            }
        }
        newest
    }

    /// The oldest commit that `wanted` accepts.
    pub(crate) fn oldest_commit(
        &self,
        wanted: impl Fn(&CommitPoint) -> bool,
    ) -> Option<CommitPoint> {
        let mut oldest: Option<CommitPoint> = None;
        for batch in self.batches().iter() {
            let first = batch.records.first().map_or(Lsn::MAX, |record| record.lsn);
            if oldest.is_none_or(|oldest| first < oldest.lsn) {
                let mut commits = batch.records.iter().filter_map(commit_of);
                let found = commits.find(&wanted);
                oldest = oldest.into_iter().chain(found).min_by_key(|c| c.lsn);
            }
        }
        oldest
    }
}

pub(crate) fn commit_of(record: &Record) -> Option<CommitPoint> {
    record.cpl.map(|time_us| CommitPoint {
        lsn: record.lsn,
        origin: record.origin,
        time_us,
    })
}

pub(crate) fn newest_of(a: Option<CommitPoint>, b: Option<CommitPoint>) -> Option<CommitPoint> {
    a.into_iter().chain(b).max_by_key(|c| (c.lsn, c.origin))
}
