//! The read points in use: what keeps old versions and conflict notes alive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_page::Lsn;
use parking_lot::Mutex;

/// How many read at one point.
#[derive(Clone, Copy, Default)]
struct Count {
    readers: usize,
    writers: usize,
}

type Open = Mutex<BTreeMap<Lsn, Count>>;

/// Counts the open snapshots by read point. The lock is held for a few instructions and nothing is called under it.
#[derive(Clone, Default)]
pub(crate) struct ReadPoints {
    open: Arc<Open>,
}

/// An open read point: a transaction's, shared with its cursors. Dropping the last share gives it free.
pub(crate) struct ReadPoint {
    pub at: Lsn,
    writes: bool,
    /// The newest change of any page that was read through it, or through an earlier point of the same transaction.
    newest: Arc<AtomicU64>,
    open: Arc<Open>,
}

impl ReadPoints {
    /// Opens the read point that `choose` names. It is asked under the lock, so that whoever looks for the oldest open
    /// point afterwards sees this one, or knows that it is not older than what `choose` read.
    pub fn open(&self, writes: bool, choose: impl FnOnce() -> Lsn) -> Arc<ReadPoint> {
        self.open_noting(writes, Arc::default(), choose)
    }

    /// Opens a later read point of the transaction that has this one.
    pub fn reopen(&self, point: &ReadPoint, choose: impl FnOnce() -> Lsn) -> Arc<ReadPoint> {
        self.open_noting(point.writes, point.newest.clone(), choose)
    }

    fn open_noting(
        &self,
        writes: bool,
        newest: Arc<AtomicU64>,
        choose: impl FnOnce() -> Lsn,
    ) -> Arc<ReadPoint> {
        let mut open = self.open.lock();
        let at = choose();
        let count = open.entry(at).or_default();
        *(if writes {
            &mut count.writers
        } else {
            &mut count.readers
        }) += 1;
        drop(open);
        Arc::new(ReadPoint {
            at,
            writes,
            newest,
            open: self.open.clone(),
        })
    }

    /// The oldest open read point, if any is open.
    pub fn oldest(&self) -> Option<Lsn> {
        self.open.lock().keys().next().copied()
    }

    /// The oldest read point of a transaction that may write; `newest`, read before, if there is none.
    pub fn oldest_writer(&self, newest: Lsn) -> Lsn {
        let open = self.open.lock();
        let writer = open.iter().find(|(_, count)| count.writers > 0);
        writer.map_or(newest, |(at, _)| (*at).min(newest))
    }
}

impl ReadPoint {
    /// Notes that a page with a change at `lsn` was read. Only transactions that write need it: what they read may not
    /// be durable yet.
    #[inline]
    pub fn note(&self, lsn: Lsn) {
        if self.writes && self.newest.load(Ordering::Relaxed) < lsn.0 {
            self.newest.fetch_max(lsn.0, Ordering::Relaxed);
        }
    }

    /// The newest change that was read.
    pub fn newest(&self) -> Lsn {
        Lsn(self.newest.load(Ordering::Relaxed))
    }
}

impl Drop for ReadPoint {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.at) {
            *(if self.writes {
                &mut count.writers
            } else {
                &mut count.readers
            }) -= 1;
            if count.readers + count.writers == 0 {
                open.remove(&self.at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_points_are_those_still_open() {
        let points = ReadPoints::default();
        let reader = points.open(false, || Lsn(5));
        let writer = points.open(true, || Lsn(7));
        assert_eq!(
            (points.oldest(), points.oldest_writer(Lsn(9))),
            (Some(Lsn(5)), Lsn(7))
        );
        drop(reader);
        assert_eq!(points.oldest(), Some(Lsn(7)));
        drop(writer);
        assert_eq!(
            (points.oldest(), points.oldest_writer(Lsn(9))),
            (None, Lsn(9))
        );
    }

    #[test]
    fn what_was_read_through_an_earlier_point_counts() {
        let points = ReadPoints::default();
        let first = points.open(true, || Lsn(5));
        let second = points.reopen(&first, || Lsn(9));
        first.note(Lsn(4));
        assert_eq!((second.at, second.newest()), (Lsn(9), Lsn(4)));
        assert_eq!(points.oldest_writer(Lsn(20)), Lsn(5));
        drop(first);
        assert_eq!(points.oldest_writer(Lsn(20)), Lsn(9));
    }

    #[test]
    fn only_writers_note_what_they_read() {
        let points = ReadPoints::default();
        let (reader, writer) = (points.open(false, || Lsn(5)), points.open(true, || Lsn(5)));
        for point in [&reader, &writer] {
            point.note(Lsn(4));
            point.note(Lsn(3));
        }
        assert_eq!((reader.newest(), writer.newest()), (Lsn::NONE, Lsn(4)));
    }
}
