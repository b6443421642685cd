//! A log device: the log that the nodes on one disk share, and the queue of its thread where there are several.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aurora_page::Lsn;
use aurora_proto::{Fresh, NodeSet};
use aurora_redo::PgBatch;
use aurora_store::{Appended, LogDevice, LogEntry, LogError};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::Error;
use crate::node::Node;
use crate::volume::EmbeddedVolume;
use crate::waiters::Parker;

/// Batches a slow device may be behind before the oldest are dropped: its copies get them by gossip.
const QUEUE_MAX: usize = 4096;

/// A disk that takes longer than this for a write stands still, as far as the background is concerned.
const STALLED: Duration = Duration::from_secs(1);
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
    /// Another one after that of a node on a disk of its own was made anew.
    log: RwLock<Arc<LogDevice>>,
    pub(crate) nodes: NodeSet,
    /// Held from the append to the end of the ingest: a position read under it has everything before it in the page stores.
    pub(crate) io: Mutex<()>,
    /// The cluster was closed: the log may have another owner by now.
    closed: AtomicBool,
    /// An injected fault: there is no room.
    full: AtomicBool,
    /// Taken by the copies, and refused for lack of space.
    held: Mutex<Offered>,
    queue: Mutex<VecDeque<Arc<PgBatch>>>,
    thread: Mutex<Option<Arc<Parker>>>,
}

impl Device {
    pub(crate) fn new(log: LogDevice) -> Device {
        let nodes = log.nodes();
        Device {
            log: RwLock::new(Arc::new(log)),
            nodes,
            io: Mutex::new(()),
            closed: AtomicBool::new(false),
            full: AtomicBool::new(false),
            held: Mutex::default(),
            queue: Mutex::default(),
            thread: Mutex::new(None),
        }
    }

    /// Appends, unless the cluster was closed or an injected fault says that there is no room. The caller holds `io`, or is alone.
    pub(crate) fn append(&self, entries: &[LogEntry]) -> Result<Appended, LogError> {
        if self.full.load(Ordering::Acquire) {
            return Err(LogError::Full {
                path: self.log().dir().to_path_buf(),
                needed: 0,
                source: io::ErrorKind::StorageFull.into(),
            });
        }
        self.append_always(entries)
    }

    /// The same for what decides over the volume, which an injected fault does not keep out.
    pub(crate) fn append_always(&self, entries: &[LogEntry]) -> Result<Appended, LogError> {
        if self.closed.load(Ordering::Acquire) {
            let reason = "the cluster was closed".into();
            return Err(LogError::Poisoned {
                path: Default::default(),
                reason,
            });
        }
        self.log().append(entries)
    }

    /// The log as it is now.
    pub(crate) fn log(&self) -> Arc<LogDevice> {
        self.log.read().clone()
    }

    /// Another log in the place of one that was lost with its node: nothing that was meant for that one is written to it.
    pub(crate) fn renew(&self, log: LogDevice) -> Result<(), Error> {
        let _io = self.io_unless_stalled()?;
        self.queue.lock().clear();
        drop(self.take_held());
        *self.log.write() = Arc::new(log);
        Ok(())
    }

    /// Has the device refuse everything for lack of room, or no more.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Release);
    }

    /// Ends the device for this owner: when this returns, nothing is written any more.
    pub(crate) fn close(&self) {
        let _io = self.io.lock();
        self.closed.store(true, Ordering::Release);
    }

    /// Takes `io`, unless the disk stands still: the background goes on with other devices then.
    pub(crate) fn io_unless_stalled(&self) -> Result<MutexGuard<'_, ()>, Error> {
        self.io.try_lock_for(STALLED).ok_or_else(|| {
            let source = io::Error::new(
                io::ErrorKind::TimedOut,
                format!("a write has taken longer than {STALLED:?}"),
            );
            Error::io(self.log().dir(), source)
        })
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

    /// Gives batches to the device's thread. What is durable elsewhere may be dropped, for gossip brings it; what is not yet
    /// durable may not: should every device be slow, nobody would have it. The writer's limit on what is in flight bounds that.
    pub(crate) fn enqueue(&self, batches: &[Arc<PgBatch>], vdl: Lsn) {
        let mut queue = self.queue.lock();
        queue.extend(batches.iter().cloned());
        while queue.len() > QUEUE_MAX && queue.front().is_some_and(|batch| batch.last_lsn() <= vdl)
        {
            queue.pop_front();
        }
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
            // What there was no room for goes first. Nothing more is taken until there is: the queue is bounded, so memory is.
            let held = self.has_held();
            let batches: Vec<_> = if held {
                Vec::new()
            } else {
                self.queue.lock().drain(..).collect()
            };
            if batches.is_empty() && !held {
                parker.park(IDLE);
                continue;
            }
            // A failure is on record with the volume.
            let written = volume.write(self, &batches);
            volume.wake_waiters();
            if let Err(LogError::Full { path, .. }) = written {
                volume.device_full(path);
                parker.park(IDLE);
            }
        }
    }
}
