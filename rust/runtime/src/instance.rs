//! One instance of a cluster: an engine with its own cache, writer or replica.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aurora_engine::{Engine, Role};
use aurora_page::Lsn;
use parking_lot::Mutex;

use crate::Error;
use crate::volume::EmbeddedVolume;
use crate::waiters::{Parker, Waiters};

/// How long a thread waits before it asks its interrupt again.
const INTERRUPT_EVERY: Duration = Duration::from_millis(50);
/// Lags that are remembered.
const LAGS: usize = 4096;

/// What an instance is called and how it ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Its promotion tier, from 0, which is first, to 15.
    pub tier: u8,
    /// Its class, one of [`aurora_control::CLASSES`]: the larger, the larger its cache.
    pub class: String,
}

/// The latest lags: from a commit's number to the moment at which a replica shows it.
#[derive(Default)]
struct Lags {
    us: Vec<u32>,
    next: usize,
}

impl Lags {
    fn add(&mut self, us: u32) {
        if self.us.len() < LAGS {
            self.us.push(us);
        } else {
            self.us[self.next] = us;
            self.next = (self.next + 1) % LAGS;
        }
    }

    fn percentile(&self, percent: usize) -> u32 {
        let mut sorted = self.us.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or(0)
    }
}

/// What a replica has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// MTRs that were applied.
    pub mtrs: u64,
    /// Pages that they changed in the cache.
    pub pages: u64,
    /// How often it was too far behind, dropped its cache and went on from the newest MTR.
    pub rejoins: u64,
}

/// One instance.
pub struct Instance {
    /// Tells it from others that had its name.
    pub(crate) id: u64,
    spec: InstanceSpec,
    engine: Engine<EmbeddedVolume>,
    /// Its place in the redo stream: it has, or need not have, everything up to here.
    taken: AtomicU64,
    /// Held by whoever applies redo: the instance's thread, or a failover that cannot wait for it.
    pub(crate) applying: Mutex<()>,
    waiters: Waiters,
    lags: Mutex<Lags>,
    mtrs: AtomicU64,
    pages: AtomicU64,
    rejoins: AtomicU64,
    connections: AtomicUsize,
    removed: AtomicBool,
    has_thread: AtomicBool,
    paused: AtomicBool,
    /// An injected fault: nothing comes from the writer.
    cut: AtomicBool,
}

impl Deref for Instance {
    type Target = Engine<EmbeddedVolume>;

    fn deref(&self) -> &Engine<EmbeddedVolume> {
        &self.engine
    }
}

impl Instance {
    pub(crate) fn new(
        id: u64,
        spec: InstanceSpec,
        engine: Engine<EmbeddedVolume>,
        joined: Lsn,
    ) -> Instance {
        Instance {
            id,
            spec,
            engine,
            taken: AtomicU64::new(joined.0),
            applying: Mutex::default(),
            waiters: Waiters::default(),
            lags: Mutex::default(),
            mtrs: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            rejoins: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            removed: AtomicBool::new(false),
            has_thread: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            cut: AtomicBool::new(false),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its promotion tier: 0 is first.
    pub fn tier(&self) -> u8 {
        self.spec.tier
    }

    /// Its class.
    pub fn class(&self) -> &str {
        &self.spec.class
    }

    pub(crate) fn spec(&self) -> &InstanceSpec {
        &self.spec
    }

    /// Views and transactions that are open through an endpoint of this instance.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether it was removed from its cluster; what is open there still reads.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    /// Whether a thread of its own follows, or waits to.
    pub(crate) fn has_thread(&self) -> bool {
        self.has_thread.load(Ordering::Acquire)
    }

    pub(crate) fn set_thread(&self, runs: bool) {
        self.has_thread.store(runs, Ordering::Release);
    }

    /// Has it apply nothing until told otherwise: a replica that is slow, for tests.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire) || self.cut.load(Ordering::Acquire)
    }

    pub(crate) fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Release);
    }

    /// Its place in the redo stream.
    pub(crate) fn taken(&self) -> Lsn {
        Lsn(self.taken.load(Ordering::Acquire))
    }

    /// Moves its place; by whoever applies.
    pub(crate) fn take(&self, upto: Lsn) {
        self.taken.store(upto.0, Ordering::Release);
    }

    /// An MTR was applied, so long after its commit was numbered.
    pub(crate) fn applied(&self, pages: usize, lag_us: i64) {
        self.mtrs.fetch_add(1, Ordering::Relaxed);
        self.pages.fetch_add(pages as u64, Ordering::Relaxed);
        let lag_us = u32::try_from(lag_us.max(0)).unwrap_or(u32::MAX);
        self.lags.lock().add(lag_us);
    }

    pub(crate) fn rejoined(&self) {
        self.rejoins.fetch_add(1, Ordering::Relaxed);
    }

    /// What it has done as a replica.
    pub fn progress(&self) -> Progress {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            mtrs: get(&self.mtrs),
            pages: get(&self.pages),
            rejoins: get(&self.rejoins),
        }
    }

    /// Percentiles, in microseconds, of the time from a commit's number to the moment at which this replica showed it.
    pub fn lag_us(&self, percent: usize) -> u32 {
        self.lags.lock().percentile(percent)
    }

    /// Wakes who waits for what can be read now.
    pub(crate) fn wake_readers(&self) {
        self.waiters.advance(self.readable());
    }

    /// Wakes everybody: something else has changed.
    pub(crate) fn wake_all(&self) {
        self.waiters.wake_all();
    }

    /// Waits until this instance shows `lsn`, which is durable.
    ///
    /// # Errors
    /// [`Error::ReplicaLag`] after `limit`; [`Error::InstanceGone`] when it was removed; [`Error::Interrupted`].
    pub(crate) fn wait_shown(
        &self,
        lsn: Lsn,
        limit: Option<Duration>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        let parker = Parker::current();
        loop {
            if self.readable() >= lsn {
                return Ok(());
            }
            if self.is_removed() {
                return Err(self.gone());
            }
            let left = limit.map_or(INTERRUPT_EVERY, |limit| {
                limit.saturating_sub(begun.elapsed())
            });
            if left.is_zero() {
                return Err(Error::ReplicaLag {
                    instance: self.name().to_owned(),
                    expected: lsn,
                    got: self.readable(),
                });
            }
            self.waiters.register(lsn, &parker);
            let woken = self.readable() >= lsn || parker.park(left.min(INTERRUPT_EVERY));
            self.waiters.unregister(&parker);
            if !woken && interrupt() {
                return Err(Error::Interrupted);
            }
        }
    }

    fn gone(&self) -> Error {
        Error::InstanceGone {
            instance: self.name().to_owned(),
        }
    }

    /// Whether it lives, as far as a heartbeat tells.
    pub(crate) fn beats(&self) -> bool {
        !matches!(self.role(), Role::Crashed)
    }
}

/// A view or transaction that is open at an instance.
pub struct Connection(Arc<Instance>);

impl Connection {
    /// One more at this instance.
    pub fn open(instance: &Arc<Instance>) -> Connection {
        instance.connections.fetch_add(1, Ordering::Relaxed);
        Connection(instance.clone())
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
