//! The redo stream from a writer to its replicas: one bounded log for all of them.
//!
//! ```text
//!   writer: append -> [ MTR | MTR | MTR | MTR | MTR ]          newest on the right
//!                       ^ trimmed    ^ replica b   ^ VDL      replica a has everything up to the VDL
//! ```
//! - A replica takes MTRs in the order of their LSNs, each as a whole, and none above the VDL [15].
//! - The log has a budget. What falls out of it a slow replica never sees: it drops its cache and goes on from the newest
//!   MTR, which is right, because a page that is not cached is read from storage. So nobody waits for a slow replica.
//!
//! The driver's duties: [`RedoLog::push`] every MTR under the lock that numbers it; give each replica what
//! [`RedoLog::next`] says; [`RedoLog::trim`] what the slowest has taken; [`RedoLog::cut`] when a branch ends a History.

use std::collections::VecDeque;
use std::sync::Arc;

use aurora_page::planted::{self, Fault};
use aurora_page::{Lsn, VolumeId};
use aurora_redo::{Mtr, Record};

use crate::volume::Numbered;

/// An MTR with its LSNs, shared by all who follow.
#[derive(Debug)]
pub struct Redo {
    /// Its first and last LSN.
    pub numbered: Numbered,
    /// The origin of its records.
    pub origin: VolumeId,
    mtr: Mtr,
    weight: usize,
}

impl Redo {
    /// An MTR that was numbered.
    pub fn new(numbered: Numbered, origin: VolumeId, mtr: Mtr) -> Redo {
        let weight = size_of::<Redo>() + mtr.len() * size_of::<Record>() + mtr.op_bytes();
        Redo {
            numbered,
            origin,
            mtr,
            weight,
        }
    }

    /// Its commit time in microseconds.
    pub fn time_us(&self) -> i64 {
        self.mtr.time_us
    }

    /// Its records in order. The link within the protection group, which no page needs, is left out.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let Numbered { base, last } = self.numbered;
        self.mtr.records.iter().enumerate().map(move |(n, record)| {
            let lsn = base.offset(n as u64);
            Record {
                lsn,
                origin: self.origin,
                prev_pg: Lsn::NONE,
                prev_page: self.mtr.prev_page(n, base),
                page: record.page,
                cpl: (lsn == last).then_some(self.mtr.time_us),
                op: record.op.clone(),
            }
        })
    }
}

/// What a replica does next.
#[derive(Debug)]
pub enum Next {
    /// Apply these, in order.
    Apply(Vec<Arc<Redo>>),
    /// It has everything that is durable.
    Nothing,
    /// It is too far behind: drop the cache and go on after this LSN.
    Rejoin(Lsn),
}

/// The MTRs that some replica may still want.
#[derive(Debug)]
pub struct RedoLog {
    mtrs: VecDeque<Arc<Redo>>,
    bytes: usize,
    bytes_max: usize,
    /// Some MTR at or below it is not here.
    lost: Lsn,
    /// The newest LSN that this log knows to be given out.
    tip: Lsn,
}

impl RedoLog {
    /// A log that begins after `tip`, the newest LSN that was given out.
    pub fn new(bytes_max: usize, tip: Lsn) -> RedoLog {
        RedoLog {
            mtrs: VecDeque::new(),
            bytes: 0,
            bytes_max,
            lost: tip,
            tip,
        }
    }

    /// Adds the newest MTR; the oldest go when the budget is exceeded.
    pub fn push(&mut self, redo: Arc<Redo>) {
        debug_assert!(redo.numbered.base > self.tip);
        self.tip = redo.numbered.last;
        self.bytes += redo.weight;
        self.mtrs.push_back(redo);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.pop() else { break };
            self.lost = oldest.numbered.last;
        }
    }

    fn pop(&mut self) -> Option<Arc<Redo>> {
        let oldest = self.mtrs.pop_front()?;
        self.bytes -= oldest.weight;
        Some(oldest)
    }

    /// What a replica that has everything up to `applied` does next, at most `count_max` MTRs of it.
    pub fn next(&self, applied: Lsn, vdl: Lsn, count_max: usize) -> Next {
        if applied < self.lost {
            return Next::Rejoin(self.tip);
        }
        let start = self
            .mtrs
            .partition_point(|redo| redo.numbered.last <= applied);
        let due = self
            .mtrs
            .range(start..)
            .take(count_max)
            .take_while(|redo| redo.numbered.last <= vdl || planted::is(Fault::RedoAboveVdl));
        let due: Vec<_> = due.cloned().collect();
        if due.is_empty() {
            Next::Nothing
        } else {
            Next::Apply(due)
        }
    }

    /// Every replica has everything up to `slowest`. Gives what is not needed any more, to be dropped without a lock.
    pub fn trim(&mut self, slowest: Lsn) -> Vec<Arc<Redo>> {
        let count = self
            .mtrs
            .partition_point(|redo| redo.numbered.last <= slowest);
        (0..count).filter_map(|_| self.pop()).collect()
    }

    /// A branch has ended the History at `vdl`: what was numbered above it never happened.
    pub fn cut(&mut self, vdl: Lsn) {
        while self
            .mtrs
            .back()
            .is_some_and(|redo| redo.numbered.last > vdl)
        {
            if let Some(redo) = self.mtrs.pop_back() {
                self.bytes -= redo.weight;
            }
        }
        self.tip = self.tip.min(vdl);
        self.lost = self.lost.min(vdl);
    }

    /// Forgets everything: whoever follows begins again after `tip`.
    pub fn restart(&mut self, tip: Lsn) {
        self.mtrs.clear();
        self.bytes = 0;
        self.lost = tip;
        self.tip = tip;
    }

    /// The newest LSN that was given out.
    pub fn tip(&self) -> Lsn {
        self.tip
    }

    /// Bytes of the MTRs that are here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of them are above `applied` and durable, and the commit time of the oldest: how far a replica is behind.
    pub fn behind(&self, applied: Lsn, vdl: Lsn) -> Option<i64> {
        let start = self
            .mtrs
            .partition_point(|redo| redo.numbered.last <= applied);
        let oldest = self.mtrs.get(start)?;
        (oldest.numbered.last <= vdl).then(|| oldest.time_us())
    }
}

#[cfg(test)]
mod tests {
    use aurora_page::PageId;
    use aurora_redo::Prev;
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn redo(base: u64, count: u64) -> Arc<Redo> {
        let mut mtr = Mtr::new(base as i64);
        for n in 0..count {
            mtr.push(PageId(n), Prev::Lsn(Lsn::NONE), Bytes::from_static(b"op"));
        }
        let numbered = Numbered {
            base: Lsn(base),
            last: Lsn(base + count - 1),
        };
        Arc::new(Redo::new(numbered, VolumeId(7), mtr))
    }

    fn lasts(next: Next) -> Vec<u64> {
        match next {
            Next::Apply(mtrs) => mtrs.iter().map(|redo| redo.numbered.last.0).collect(),
            Next::Nothing => Vec::new(),
            Next::Rejoin(tip) => panic!("rejoin at {tip}"),
        }
    }

    #[test]
    fn records_get_the_numbers_and_the_time_of_their_mtr() {
        let mut mtr = Mtr::new(5);
        mtr.push(PageId(1), Prev::Lsn(Lsn(3)), Bytes::from_static(b"a"));
        mtr.push(PageId(1), Prev::InMtr(0), Bytes::from_static(b"b"));
        let numbered = Numbered {
            base: Lsn(10),
            last: Lsn(11),
        };
        let redo = Redo::new(numbered, VolumeId(7), mtr);
        let records: Vec<_> = redo
            .records()
            .map(|r| (r.lsn.0, r.prev_page.0, r.cpl))
            .collect();
        assert_eq!(records, [(10, 3, None), (11, 10, Some(5))]);
    }

    #[test]
    fn a_replica_gets_whole_mtrs_up_to_the_vdl() {
        let mut log = RedoLog::new(1 << 20, Lsn(9));
        [redo(10, 1), redo(11, 3), redo(14, 2)]
            .into_iter()
            .for_each(|redo| log.push(redo));
        assert_eq!(lasts(log.next(Lsn(9), Lsn(9), 9)), [] as [u64; 0]);
        assert_eq!(lasts(log.next(Lsn(9), Lsn(13), 9)), [10, 13]);
        assert_eq!(lasts(log.next(Lsn(9), Lsn(15), 2)), [10, 13]);
        assert_eq!(lasts(log.next(Lsn(13), Lsn(15), 2)), [15]);
        assert_eq!(log.behind(Lsn(10), Lsn(15)), Some(11));
        assert_eq!(log.behind(Lsn(13), Lsn(13)), None);
        assert_eq!(log.trim(Lsn(13)).len(), 2);
        assert_eq!(lasts(log.next(Lsn(13), Lsn(15), 2)), [15]);
    }

    #[test]
    fn who_missed_something_rejoins_at_the_tip() {
        let mut log = RedoLog::new(2 * redo(1, 1).weight, Lsn(9));
        assert!(matches!(log.next(Lsn(8), Lsn(9), 9), Next::Rejoin(Lsn(9))));
        (10..14).for_each(|lsn| log.push(redo(lsn, 1)));
        assert!(matches!(
            log.next(Lsn(10), Lsn(13), 9),
            Next::Rejoin(Lsn(13))
        ));
        assert_eq!(lasts(log.next(Lsn(11), Lsn(13), 9)), [12, 13]);
        log.cut(Lsn(12));
        assert_eq!(
            (lasts(log.next(Lsn(11), Lsn(99), 9)), log.tip()),
            (vec![12], Lsn(12))
        );
        log.push(redo(100, 1));
        assert_eq!(lasts(log.next(Lsn(12), Lsn(100), 9)), [100]);
        log.restart(Lsn(100));
        assert!(matches!(
            log.next(Lsn(12), Lsn(100), 9),
            Next::Rejoin(Lsn(100))
        ));
        assert_eq!(log.bytes(), 0);
    }

    proptest! {
        /// Whatever the budget: a replica sees every MTR once and in order, or is told that it has missed some.
        #[test]
        fn nothing_is_skipped_in_silence(
            budget in 1_usize..20, steps in prop::collection::vec((0_u8..3, 1_u64..4), 1..200)
        ) {
            let mut log = RedoLog::new(budget * redo(1, 1).weight, Lsn(0));
            let (mut all, mut applied, mut vdl) = (Vec::new(), 0, 0);
            let mut next_lsn = 1;
            for (what, n) in steps {
                match what {
                    0 => {
                        log.push(redo(next_lsn, n));
                        next_lsn += n;
                        all.push(next_lsn - 1);
                    }
                    1 => vdl = all.iter().copied().filter(|last| *last <= vdl + n * 3).max().unwrap_or(0).max(vdl),
                    _ => match log.next(Lsn(applied), Lsn(vdl), n as usize) {
                        Next::Rejoin(tip) => {
                            prop_assert_eq!(tip.0, next_lsn - 1);
                            applied = tip.0;
                        }
                        Next::Nothing => prop_assert!(!all.iter().any(|last| *last > applied && *last <= vdl)),
                        Next::Apply(mtrs) => for redo in mtrs {
                            let expected = all.iter().copied().find(|last| *last > applied);
                            prop_assert_eq!(Some(redo.numbered.last.0), expected);
                            prop_assert!(redo.numbered.last.0 <= vdl);
                            applied = redo.numbered.last.0;
                        },
                    },
                }
            }
        }
    }
}
