//! Row locks: exclusive, first come first served, held until the transaction's commit is numbered or it is rolled back.
//!
//! `table` is the state machine. Here is what the engine puts around it: one mutex, held for a few instructions; what a
//! transaction has ([`Held`]); and the shell's [`LockWaker`], which is told who got a lock, outside of the mutex.
//!
//! A step that must wait answers `Stop::WaitLock`, and has its place in the queue from then on. The shell blocks or awaits,
//! and calls the step again when it is woken, or [`Engine::leave_lock`] when its patience is at an end.

mod table;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use aurora_page::planted::{self, Fault};
use aurora_proto::Volume;
use parking_lot::Mutex;

use crate::engine::Engine;
use crate::error::{EngineError, Stop};

pub(crate) use table::{Asked, LockTable, Place};
pub use table::{LockName, TxnId, WaitsFor};

/// What to do about a row that another transaction has locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LockWaiting {
    /// Wait for it.
    #[default]
    Wait,
    /// Fail with [`EngineError::LockNotAvailable`].
    NoWait,
    /// Go on as if the row were not there.
    Skip,
}

/// A wait for a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockWait {
    /// Who waits.
    pub txn: TxnId,
}

/// The shell's part: it hears who may go on.
pub trait LockWaker: Send + Sync {
    /// These transactions have got the locks that they waited for. Called by whoever gave them back, with no lock of the
    /// engine held: it should only wake.
    fn wake(&self, granted: &[TxnId]);
}

/// The locks of a volume: all its instances share them, so that a transaction keeps its locks when another one becomes the
/// writer.
#[derive(Default)]
pub(crate) struct Locks {
    table: Mutex<LockTable>,
    waker: OnceLock<Arc<dyn LockWaker>>,
    next: AtomicU64,
}

impl Locks {
    fn wake(&self, granted: &[TxnId]) {
        if !granted.is_empty()
            && let Some(waker) = self.waker.get()
        {
            waker.wake(granted);
        }
    }
}

/// What taking a lock came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It is the transaction's from now on.
    Now,
    /// It was already.
    Before,
    /// Another transaction has it, and nobody waits.
    Skipped,
}

/// The locks of one transaction. Dropping it gives them back.
pub(crate) struct Held {
    locks: Arc<Locks>,
    txn: TxnId,
    places: Vec<Place>,
    /// The lock for which it waits, or which it has been handed since it last looked.
    waiting: Option<Place>,
}

impl Held {
    pub fn new(locks: &Arc<Locks>) -> Held {
        Held {
            txn: TxnId(1 + locks.next.fetch_add(1, Ordering::Relaxed)),
            locks: locks.clone(),
            places: Vec::new(),
            waiting: None,
        }
    }

    pub fn txn(&self) -> TxnId {
        self.txn
    }

    /// Takes a lock, or a place in its queue.
    pub fn take(
        &mut self,
        place: Place,
        waiting: LockWaiting,
        name: impl Fn() -> LockName,
    ) -> Result<Taken, Stop> {
        if planted::is(Fault::LockNotKept) {
            self.give_back(None);
        }
        let mut table = self.locks.table.lock();
        if let Some(earlier) = self.waiting.take_if(|earlier| *earlier != place) {
            // The step that waited was given up.
            table.leave(self.txn);
            if table.holds(self.txn, earlier) {
                self.places.push(earlier);
            }
        }
        let is_new = self.waiting.is_some() || !table.holds(self.txn, place);
        let queue_as: Option<&dyn Fn() -> LockName> =
            (waiting == LockWaiting::Wait).then_some(&name);
        let asked = table.ask(self.txn, place, queue_as);
        drop(table);
        match asked {
            Asked::Granted => {
                self.waiting = None;
                if is_new {
                    self.places.push(place);
                    Ok(Taken::Now)
                } else {
                    Ok(Taken::Before)
                }
            }
            Asked::Queued => {
                self.waiting = Some(place);
                Err(Stop::WaitLock(LockWait { txn: self.txn }))
            }
            Asked::Busy(_) if waiting == LockWaiting::Skip => Ok(Taken::Skipped),
            Asked::Busy(holder) => {
                let LockName { table, key } = name();
                Err(EngineError::LockNotAvailable { table, key, holder }.into())
            }
            Asked::Deadlock(cycle) => Err(EngineError::Deadlock { cycle }.into()),
        }
    }

    /// Gives everything back.
    pub fn release(&mut self) {
        if self.places.is_empty() && self.waiting.is_none() {
            return;
        }
        let waiting = self.waiting.take();
        if waiting.is_some() {
            self.locks.table.lock().leave(self.txn);
        }
        self.give_back(waiting);
    }

    /// Gives back what it has, and one more.
    fn give_back(&mut self, waiting: Option<Place>) {
        let mut table = self.locks.table.lock();
        let granted = table.release(self.txn, self.places.drain(..).chain(waiting));
        drop(table);
        self.locks.wake(&granted);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

impl<V: Volume> Engine<V> {
    /// Has the shell hear of locks that are handed over. To be set once, before the first transaction waits.
    pub fn set_lock_waker(&self, waker: Arc<dyn LockWaker>) {
        let _ = self.locks.waker.set(waker);
    }

    /// Whether the lock is still to come. A shell asks after it has made itself known to its waker, so that no wake-up is
    /// lost between.
    pub fn is_lock_awaited(&self, wait: &LockWait) -> bool {
        self.locks.table.lock().is_waiting(wait.txn)
    }

    /// Ends a wait without the lock, and says what to tell the caller; `None` if the lock has come after all.
    pub fn leave_lock(&self, wait: &LockWait, waited_ms: u64) -> Option<EngineError> {
        let (LockName { table, key }, holder) = self.locks.table.lock().leave(wait.txn)?;
        Some(EngineError::LockTimeout {
            table,
            key,
            holder,
            waited_ms,
        })
    }

    /// Row locks that are held now.
    pub fn locks_held(&self) -> usize {
        self.locks.table.lock().len()
    }
}
