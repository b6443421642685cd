//! Callers that wait for a row's lock: threads are parked, event loops get a completion.
//!
//! No wake-up is lost: a caller makes itself known here, then asks the engine whether it still has to wait. Whoever gives the
//! lock back hands it over in the engine first, then looks here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aurora_engine::{LockWait, LockWaker, TxnId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::Error;
use crate::cluster::{Cluster, Shared};
use crate::volume::{EmbeddedVolume, INTERRUPT_EVERY};
use crate::waiters::Parker;

/// How long a step waits for a lock unless its caller says otherwise.
pub const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

enum Waiter {
    Thread(Arc<Parker>),
    /// The id of a completion.
    Event(u64),
}

/// Who waits for a lock, by transaction.
pub(crate) struct LockWaiters {
    volume: Arc<EmbeddedVolume>,
    waiting: Mutex<FxHashMap<TxnId, Waiter>>,
}

impl LockWaiters {
    pub(crate) fn new(volume: Arc<EmbeddedVolume>) -> LockWaiters {
        LockWaiters {
            volume,
            waiting: Mutex::default(),
        }
    }

    fn register(&self, txn: TxnId, waiter: Waiter) {
        self.waiting.lock().insert(txn, waiter);
    }

    /// True if it was still registered: nobody has woken it or will.
    fn unregister(&self, txn: TxnId) -> bool {
        self.waiting.lock().remove(&txn).is_some()
    }

    /// Ends every wait: the cluster closes.
    pub(crate) fn close(&self) {
        let all = std::mem::take(&mut *self.waiting.lock());
        self.notify(all.into_values().collect(), || Err(Error::Closed));
    }

    fn notify(&self, waiters: Vec<Waiter>, outcome: impl Fn() -> Result<(), Error>) {
        let mut events = Vec::new();
        for waiter in waiters {
            match waiter {
                Waiter::Thread(parker) => parker.wake(),
                Waiter::Event(id) => events.push((id, outcome())),
            }
        }
        self.volume.completions.push(events);
    }
}

impl LockWaker for LockWaiters {
    fn wake(&self, granted: &[TxnId]) {
        let mut waiting = self.waiting.lock();
        let waiters = granted.iter().filter_map(|txn| waiting.remove(txn));
        let waiters: Vec<Waiter> = waiters.collect();
        drop(waiting);
        self.notify(waiters, || Ok(()));
    }
}

impl Shared {
    /// Waits until the lock has come; `limit` is how long at the most, `None` for ever.
    pub(crate) fn wait_lock(
        &self,
        wait: &LockWait,
        limit: Option<Duration>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        let parker = Parker::current();
        loop {
            self.locks
                .register(wait.txn, Waiter::Thread(parker.clone()));
            if !self.instances.writer().is_lock_awaited(wait) {
                self.locks.unregister(wait.txn);
                return Ok(());
            }
            let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()));
            let woken = parker.park(left.unwrap_or(INTERRUPT_EVERY).min(INTERRUPT_EVERY));
            self.locks.unregister(wait.txn);
            if woken {
                continue;
            }
            let failed = if self.is_closed() {
                Some(Error::Closed)
            } else if interrupt() {
                Some(Error::Interrupted)
            } else if limit.is_some_and(|limit| begun.elapsed() >= limit) {
                return self.leave_lock(wait, begun.elapsed());
            } else {
                None
            };
            if let Some(error) = failed {
                let _ = self.instances.writer().leave_lock(wait, 0);
                return Err(error);
            }
        }
    }

    fn leave_lock(&self, wait: &LockWait, waited: Duration) -> Result<(), Error> {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        match self.instances.writer().leave_lock(wait, waited_ms) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

impl Cluster {
    /// Waits until the lock has come, for at most `limit`; `None` waits for ever.
    ///
    /// # Errors
    /// `EngineError::LockTimeout`, [`Error::Interrupted`] or [`Error::Closed`]; the place in the queue is given up then.
    pub fn wait_lock(
        &self,
        wait: &LockWait,
        limit: Option<Duration>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.check_open()?;
        self.shared().wait_lock(wait, limit, interrupt)
    }

    /// Has `id` appear in [`Cluster::completions`] when the lock has come, or the cluster closes.
    pub fn notify_lock(&self, wait: &LockWait, id: u64) {
        let shared = self.shared();
        shared.locks.register(wait.txn, Waiter::Event(id));
        let outcome = if self.is_closed() {
            Err(Error::Closed)
        } else if shared.instances.writer().is_lock_awaited(wait) {
            return;
        } else {
            Ok(())
        };
        if shared.locks.unregister(wait.txn) {
            shared.volume.completions.push(vec![(id, outcome)]);
        }
    }

    /// Ends a wait of [`Cluster::notify_lock`] that has lasted for `waited`. `Ok` means that the lock has come after all, and
    /// its completion is on the way.
    ///
    /// # Errors
    /// `EngineError::LockTimeout`: the place in the queue is given up, and no completion comes.
    pub fn leave_lock(&self, wait: &LockWait, waited: Duration) -> Result<(), Error> {
        let shared = self.shared();
        shared.leave_lock(wait, waited).inspect_err(|_| {
            shared.locks.unregister(wait.txn);
        })
    }

    /// Ends a wait of [`Cluster::notify_lock`] that nobody is interested in any more. If the lock has just come, it stays the
    /// transaction's.
    pub fn forget_lock(&self, wait: &LockWait) {
        let shared = self.shared();
        let _ = shared.instances.writer().leave_lock(wait, 0);
        shared.locks.unregister(wait.txn);
    }
}
