//! The redo stream inside this process: the writer's MTRs on their way to the replicas' threads.
//!
//! The writer does two things for it: while it holds the lock that numbers an MTR it puts the MTR into the log, and when the VDL has
//! moved it wakes *one* sleeping replica, which wakes the next. So fifteen replicas cost a commit no more than one does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_page::{Lsn, VolumeId};
use aurora_proto::{Next, Numbered, Redo, RedoLog};
use aurora_redo::Mtr;
use parking_lot::Mutex;

use crate::waiters::Parker;

/// Bytes of MTRs that are kept for replicas that are behind.
const STREAM_BYTES_MAX: usize = 64 << 20;

struct Inner {
    log: RedoLog,
    /// Who follows, and what each has taken.
    followers: Vec<(u64, Lsn)>,
}

/// The stream of one volume.
pub(crate) struct Stream {
    /// Whether anybody follows: without a follower nothing is kept.
    on: AtomicBool,
    inner: Mutex<Inner>,
    /// Who sleeps longest is woken first: else those who have just gone to sleep would wake each other.
    sleepers: Mutex<VecDeque<Arc<Parker>>>,
}

impl Stream {
    pub(crate) fn new(tip: Lsn) -> Stream {
        Stream {
            on: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                log: RedoLog::new(STREAM_BYTES_MAX, tip),
                followers: Vec::new(),
            }),
            sleepers: Mutex::default(),
        }
    }

    /// Whether MTRs are wanted. Asked under the lock that numbers them.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Takes an MTR, under the lock that numbered it.
    pub(crate) fn push(&self, numbered: Numbered, origin: VolumeId, mtr: Mtr) {
        let redo = Arc::new(Redo::new(numbered, origin, mtr));
        self.inner.lock().log.push(redo);
    }

    /// Somebody follows from now on: everything after `tip` will be told. Called under the lock that numbers MTRs.
    pub(crate) fn join(&self, id: u64, tip: Lsn) {
        let mut inner = self.inner.lock();
        if !self.on.swap(true, Ordering::AcqRel) {
            inner.log.restart(tip);
        }
        inner.followers.push((id, tip));
    }

    /// Somebody follows no more.
    pub(crate) fn leave(&self, id: u64) {
        let mut inner = self.inner.lock();
        inner.followers.retain(|(follower, _)| *follower != id);
        if inner.followers.is_empty() {
            self.on.store(false, Ordering::Release);
            let tip = inner.log.tip();
            inner.log.restart(tip);
        }
    }

    /// The volume has gone over to another branch at `at`, and every follower with it. Nothing is numbered meanwhile.
    pub(crate) fn rebranch(&self, at: Lsn) {
        let mut inner = self.inner.lock();
        inner.log.restart(at);
        inner
            .followers
            .iter_mut()
            .for_each(|(_, taken)| *taken = at);
    }

    /// What a follower that has everything up to `applied` does next.
    pub(crate) fn next(&self, applied: Lsn, vdl: Lsn, count_max: usize) -> Next {
        self.inner.lock().log.next(applied, vdl, count_max)
    }

    /// A follower has everything up to `applied`; what all have is dropped.
    pub(crate) fn took(&self, id: u64, applied: Lsn) {
        let mut inner = self.inner.lock();
        if let Some((_, taken)) = inner.followers.iter_mut().find(|(other, _)| *other == id) {
            *taken = applied;
        }
        let slowest = inner.followers.iter().map(|(_, taken)| *taken).min();
        let done = slowest.map(|slowest| inner.log.trim(slowest));
        drop(inner);
        drop(done);
    }

    /// The commit time of the oldest durable MTR that a follower lacks.
    pub(crate) fn behind(&self, applied: Lsn, vdl: Lsn) -> Option<i64> {
        self.inner.lock().log.behind(applied, vdl)
    }

    /// Wakes one who sleeps, if anybody does.
    pub(crate) fn wake(&self) {
        if self.is_on()
            && let Some(sleeper) = self.sleepers.lock().pop_front()
        {
            sleeper.wake();
        }
    }

    /// Registers a sleeper. It looks once more for work before it parks.
    pub(crate) fn register(&self, parker: &Arc<Parker>) {
        self.sleepers.lock().push_back(parker.clone());
    }

    /// It sleeps no more.
    pub(crate) fn unregister(&self, parker: &Arc<Parker>) {
        self.sleepers
            .lock()
            .retain(|other| !Arc::ptr_eq(other, parker));
    }
}
