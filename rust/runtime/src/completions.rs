//! Durable commits reported to an event loop: one wake-up per advance of the VDL, however many commits it covers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use aurora_page::Lsn;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::Error;
use crate::faults::fates::{Fate, Fates};

/// Outcome of one awaited commit: its caller's id, and whether it is durable.
pub type Completion = (u64, Result<(), Error>);

#[derive(Default)]
struct Inner {
    /// Waiting for the VDL, in no order: (commit LSN, caller's id).
    waiting: Vec<(Lsn, u64)>,
    ready: Vec<Completion>,
}

/// The commits an event loop waits for, and an eventfd that is readable while some are done.
pub struct CompletionQueue {
    inner: Mutex<Inner>,
    event: OwnedFd,
}

impl CompletionQueue {
    /// An empty queue.
    ///
    /// # Errors
    /// The error of `eventfd(2)`, when the process has no file descriptor left.
    pub fn new() -> io::Result<CompletionQueue> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(CompletionQueue {
            inner: Mutex::new(Inner::default()),
            event,
        })
    }

    /// A descriptor that polls readable while [`CompletionQueue::drain`] has something to give.
    pub fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Takes every outcome that is ready, and makes the descriptor unreadable.
    pub fn drain(&self) -> Vec<Completion> {
        let mut inner = self.inner.lock();
        let mut counter = [0_u8; 8];
        // EAGAIN: nothing was signalled since the last drain.
        let _ = rustix::io::read(&self.event, &mut counter);
        std::mem::take(&mut inner.ready)
    }

    /// True when a commit waits for the VDL to pass it.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.inner.lock().waiting.is_empty()
    }

    /// Registers a commit. The caller has checked that it is not yet durable, and checks once more afterwards.
    pub(crate) fn register(&self, lsn: Lsn, id: u64) {
        self.inner.lock().waiting.push((lsn, id));
    }

    /// Adds outcomes of other things that an event loop waits for, and signals once.
    pub(crate) fn push(&self, outcomes: Vec<Completion>) {
        if outcomes.is_empty() {
            return;
        }
        self.inner.lock().ready.extend(outcomes);
        // A full counter (EAGAIN) is readable all the same.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Moves every commit at or below `vdl` to the ready list and signals once.
    pub(crate) fn advance(&self, vdl: Lsn, fates: &Fates) {
        self.complete(|lsn| match fates.of(lsn) {
            _ if lsn > vdl => None,
            Fate::Told => Some(Ok(())),
            Fate::Untold | Fate::Gone => Some(Err(Error::WriterCrashed)),
            Fate::Later => None,
        });
    }

    /// Fails every commit above `vdl`: their fate is unknown until the cluster is opened again.
    pub(crate) fn fail(&self, vdl: Lsn, fates: &Fates, error: impl Fn() -> Error) {
        self.advance(vdl, fates);
        self.complete(|_| Some(Err(error())));
    }

    fn complete(&self, outcome: impl Fn(Lsn) -> Option<Result<(), Error>>) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let had = inner.ready.len();
        let ready = &mut inner.ready;
        inner.waiting.retain(|&(lsn, id)| match outcome(lsn) {
            Some(result) => {
                ready.push((id, result));
                false
            }
            None => true,
        });
        if inner.ready.len() > had {
            // A full counter (EAGAIN) is readable all the same.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_signal_covers_every_commit_at_or_below_the_vdl() {
        let queue = CompletionQueue::new().unwrap();
        for lsn in 1..=10 {
            queue.register(Lsn(lsn), lsn);
        }
        let fates = Fates::default();
        queue.advance(Lsn(7), &fates);
        let mut ids: Vec<u64> = queue.drain().into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=7).collect::<Vec<_>>());
        assert!(queue.is_waiting());
        queue.fail(Lsn(8), &fates, || Error::Closed);
        let failed = queue
            .drain()
            .iter()
            .filter(|(_, outcome)| outcome.is_err())
            .count();
        assert_eq!((failed, queue.is_waiting()), (2, false));
    }
}
