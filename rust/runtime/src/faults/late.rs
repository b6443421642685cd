//! Batches that reach a node late, because its disk is slow: they wait here, and a thread delivers them when they are due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use aurora_proto::NodeId;
use aurora_redo::PgBatch;
use parking_lot::Mutex;

use crate::Error;
use crate::cluster::Shared;
use crate::faults::dice::Dice;
use crate::waiters::Parker;

/// How often the thread looks at its stop flag.
const IDLE: Duration = Duration::from_millis(50);
/// Batches that wait at most; the oldest are dropped, for gossip brings them.
const LATE_MAX: usize = 4096;

type Due = BTreeMap<(Instant, u64), (NodeId, Arc<PgBatch>)>;

/// What is to be delivered, and who does it.
#[derive(Default)]
pub(crate) struct Late {
    dice: Dice,
    due: Mutex<(u64, Due)>,
    has_thread: AtomicBool,
    parker: Mutex<Option<Arc<Parker>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Late {
    /// The dice that say what arrives, and when.
    pub(crate) fn dice(&self) -> &Dice {
        &self.dice
    }

    /// Has a batch reach a node after a while.
    pub(crate) fn put(&self, node: NodeId, batch: Arc<PgBatch>, after: Duration) {
        {
            let (number, due) = &mut *self.due.lock();
            *number += 1;
            due.insert((Instant::now() + after, *number), (node, batch));
            if due.len() > LATE_MAX {
                due.pop_first();
            }
        }
        if let Some(parker) = self.parker.lock().as_ref() {
            parker.wake();
        }
    }

    /// Whether something is on its way to a node.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        let due = &self.due.lock().1;
        due.values().any(|(to, _)| *to == node)
    }

    /// Takes what is due; otherwise says how long the next one takes.
    fn take(&self) -> Result<Vec<(NodeId, Arc<PgBatch>)>, Duration> {
        let due = &mut self.due.lock().1;
        let now = Instant::now();
        let mut ready = Vec::new();
        while let Some(first) = due.first_entry() {
            let at = first.key().0;
            if at > now && ready.is_empty() {
                return Err(at - now);
            }
            if at > now {
                break;
            }
            ready.push(first.remove());
        }
        if ready.is_empty() {
            Err(IDLE)
        } else {
            Ok(ready)
        }
    }

    /// Waits for the thread, which has been told to end.
    pub(crate) fn join(&self) {
        if let Some(thread) = self.thread.lock().take() {
            // A thread that panicked has been reported on standard error.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Has somebody deliver what comes late.
    pub(crate) fn deliver_late(self: &Arc<Self>) -> Result<(), Error> {
        let late = &self.volume.late;
        if late.has_thread.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let shared = self.clone();
        let started = Builder::new()
            .name("aurora-late".into())
            .spawn(move || shared.run_late());
        match started {
            Ok(thread) => {
                *late.thread.lock() = Some(thread);
                Ok(())
            }
            Err(source) => {
                late.has_thread.store(false, Ordering::Release);
                Err(Error::io("aurora-late".as_ref(), source))
            }
        }
    }

    fn run_late(&self) {
        let (parker, late) = (Parker::current(), &self.volume.late);
        *late.parker.lock() = Some(parker.clone());
        while !self.is_closed() {
            match late.take() {
                Ok(ready) => {
                    for (id, batch) in ready {
                        if let Some(node) = self.volume.node(id) {
                            self.volume.deliver(&node, &[batch]);
                        }
                    }
                    self.volume.wake_waiters();
                }
                Err(wait) => drop(parker.park(wait.min(IDLE))),
            }
        }
    }
}
