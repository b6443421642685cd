//! A log device: the log that the nodes on one disk share, and the queue of its thread where there are several.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aurora_proto::{Fresh, NodeSet};
use aurora_redo::PgBatch;
use aurora_store::{LogDevice, LogEntry};
use parking_lot::Mutex;

use crate::node::Node;
use crate::volume::EmbeddedVolume;
use crate::waiters::Parker;

/// Batches a slow device may be behind before the oldest are dropped: its copies get them by gossip.
const QUEUE_MAX: usize = 4096;

/// How often a device's thread looks at its stop flag.
const IDLE: Duration = Duration::from_millis(200);

/// What copies have taken and the device must write: entries with tickets, and what is then read from which node's store.
#[derive(Default)]
pub(crate) struct Offered {
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) taken: Vec<(Arc<PgBatch>, Arc<Node>, Fresh)>,
}

/// One log device.
pub(crate) struct Device {
    pub(crate) log: LogDevice,
    pub(crate) nodes: NodeSet,
    /// Held from the append to the end of the ingest: a position read under it has everything before it in the page stores.
    pub(crate) io: Mutex<()>,
    /// Taken by the copies, and refused for lack of space.
    held: Mutex<Offered>,
    queue: Mutex<VecDeque<Arc<PgBatch>>>,
    thread: Mutex<Option<Arc<Parker>>>,
}

impl Device {
    pub(crate) fn new(log: LogDevice) -> Device {
        let nodes = log.nodes();
        Device { log, nodes, io: Mutex::new(()), held: Mutex::default(), queue: Mutex::default(), thread: Mutex::new(None) }
    }

    pub(crate) fn has_held(&self) -> bool {
        !self.held.lock().entries.is_empty()
    }

    pub(crate) fn take_held(&self) -> Offered {
        std::mem::take(&mut self.held.lock())
    }

    pub(crate) fn hold(&self, offered: Offered) {
        *self.held.lock() = offered;
    }

    /// Gives batches to the device's thread.
    pub(crate) fn enqueue(&self, batches: &[Arc<PgBatch>]) {
        let mut queue = self.queue.lock();
        queue.extend(batches.iter().cloned());
        let excess = queue.len().saturating_sub(QUEUE_MAX);
        queue.drain(..excess);
        drop(queue);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.lock().as_ref() {
            thread.wake();
        }
    }

    /// The body of the device's thread: one append for everything that is queued.
    pub(crate) fn run(&self, volume: &EmbeddedVolume, stop: &AtomicBool) {
        let parker = Parker::current();
        *self.thread.lock() = Some(parker.clone());
        while !stop.load(Ordering::Acquire) {
            let batches: Vec<_> = self.queue.lock().drain(..).collect();
            if batches.is_empty() {
                parker.park(IDLE);
                continue;
            }
            // A failure is on record with the volume; without room the copies miss these and gossip brings them.
            let _ = volume.write(self, &batches);
            volume.wake_waiters();
        }
    }
}
