//! A cluster inside this process: what a caller holds, and the loop that serves the engine's stops.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aurora_engine::{Attempt, Engine, EngineConfig, EngineError, Mode, Stop, Txn};
use aurora_page::{Geometry, Lsn};
use aurora_proto::{Manifest, MetaStore, Refused, Volume, Writer};
use aurora_redo::{History, PgId};
use aurora_store::Disk;
use parking_lot::Mutex;

use crate::Error;
use crate::backup::Backups;
use crate::clock::wall_us;
use crate::completions::CompletionQueue;
use crate::faults::Faults;
use crate::fetch::Fetcher;
use crate::instance::{Instance, InstanceSpec};
use crate::instances::{CLASS_DEFAULT, Instances, ReplicaSpec, TIER_DEFAULT};
use crate::load::Loading;
use crate::lock::DirectoryLock;
use crate::lockwait::{LOCK_TIMEOUT_DEFAULT, LockWaiters};
use crate::maintenance::Maintenance;
use crate::metastore::DirMetaStore;
use crate::open;
use crate::options::{OpenOptions, VOLUME_BYTES_MAX};
use crate::rebuild::Rebuilds;
use crate::recover::first_acks;
use crate::scan::PqCounters;
use crate::scan_cache::ScanCache;
use crate::threads;
use crate::volume::{EmbeddedVolume, Failure};
use crate::waiters::Parker;

/// For how long a segment that was added and is not used yet serves everybody who asks for one.
const GROWN_LATELY: Duration = Duration::from_millis(200);
/// How long a step waits under back-pressure before it asks again.
const PRESSURE_WAIT: Duration = Duration::from_millis(2);

/// The manifest as this owner last wrote it, and where to write the next.
pub(crate) struct Meta {
    pub(crate) store: DirMetaStore,
    pub(crate) manifest: Manifest,
}

/// What the handle and the threads share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    /// Removed with the last handle.
    _borrowed: Option<crate::clone::Borrowed>,
    pub(crate) dir: PathBuf,
    pub(crate) in_memory: bool,
    pub(crate) options: OpenOptions,
    pub(crate) volume: Arc<EmbeddedVolume>,
    pub(crate) instances: Instances,
    pub(crate) control_thread: Mutex<Option<Arc<Parker>>>,
    pub(crate) locks: Arc<LockWaiters>,
    pub(crate) fetcher: Fetcher,
    pub(crate) meta: Mutex<Meta>,
    pub(crate) read_only: Option<String>,
    pub(crate) maintenance: Maintenance,
    /// Nodes that are lost, and what is done about them.
    pub(crate) rebuilds: Rebuilds,
    pub(crate) loading: Loading,
    pub(crate) backups: Backups,
    pub(crate) stop: AtomicBool,
    /// Held by whoever does background work: one at a time, and nobody once the cluster is closed.
    pub(crate) work: Mutex<()>,
    /// The window that was chosen by whoever has it open.
    pub(crate) window_set: Mutex<Option<Duration>>,
    /// Leaves that scans have read.
    pub(crate) scans: ScanCache,
    pub(crate) pq: PqCounters,
    /// What was injected.
    pub(crate) faults: Faults,
    /// When the volume grew last.
    grown: Mutex<Option<Instant>>,
}

/// The last handle closes the cluster.
struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    closing: AtomicBool,
    lock: Mutex<Option<Arc<DirectoryLock>>>,
    pid: u32,
}

/// An open cluster. Cheap to clone; the cluster closes when [`Cluster::close`] is called or the last clone is dropped.
#[derive(Clone)]
pub struct Cluster {
    handle: Arc<Handle>,
}

impl Cluster {
    /// Opens a cluster, or makes it; see [`OpenOptions`].
    ///
    /// # Errors
    /// [`Error::NotACluster`], [`Error::AlreadyOpen`], [`Error::NewerFormat`], [`Error::QuorumLost`], [`Error::DiskFull`],
    /// [`Error::InvalidOption`], [`Error::Corrupt`]: each says what was expected and what was found, and has changed nothing that
    /// a later open needs.
    pub fn open(options: OpenOptions) -> Result<Cluster, Error> {
        let opened = open::open(&options)?;
        Cluster::start(options, opened)
    }

    /// The same on a disk that is handed in, for tests and simulators: faults can be injected below a whole cluster. No lock is
    /// taken, so whoever hands in the disk sees to it that one cluster at a time is open on it.
    ///
    /// # Errors
    /// As [`Cluster::open`].
    pub fn open_on(options: OpenOptions, disk: Arc<dyn Disk>) -> Result<Cluster, Error> {
        let opened = open::open_on(&options, disk)?;
        Cluster::start(options, opened)
    }

    pub(crate) fn start(options: OpenOptions, opened: open::Opened) -> Result<Cluster, Error> {
        let manifest = opened.manifest;
        let mut writer = Writer::new(opened.writer);
        first_acks(&mut writer, &opened.nodes);
        let answers = |id| {
            opened
                .nodes
                .iter()
                .any(|node| node.id() == id && node.acknowledges())
        };
        writer.set_lost(
            manifest
                .nodes
                .iter()
                .map(|info| info.id)
                .filter(|id| !answers(*id))
                .collect(),
        );
        let geometry = Geometry::new(manifest.page_bytes as usize, manifest.segment_pages);
        let history = Arc::new(manifest.history.clone());
        let volume = EmbeddedVolume::new(
            writer,
            geometry,
            history.clone(),
            opened.nodes,
            opened.devices,
            &manifest.nodes,
        )?;
        if let Some(reason) = &opened.read_only {
            volume.fail(Failure::ReadOnly {
                reason: reason.clone(),
            });
        }
        let volume = Arc::new(volume);
        let mut last_time_us = manifest.created_us;
        for history in manifest.histories() {
            last_time_us = last_time_us.max(last_commit_us(&volume, history)?);
        }
        let config = EngineConfig {
            cache_bytes: options.cache_bytes,
            conflict_bytes: options.conflict_bytes,
            last_time_us,
            ..EngineConfig::default()
        };
        let engine = Engine::new(volume.clone(), config)?;
        let scan_cache_bytes = usize::try_from(options.scan_cache_bytes()).unwrap_or(usize::MAX);
        let locks = Arc::new(LockWaiters::new(volume.clone()));
        // All instances share one table of locks.
        engine.set_lock_waker(locks.clone());
        let numbered = volume.numbered();
        let writer = Instance::new(0, first_instance(), engine, numbered);
        let replicas = options.replicas;
        let site = opened.site;
        if opened.read_only.is_none() && site.lock.is_some() {
            crate::clone::clear_borrowed(&*site.disk, &site.dir);
        }
        let shared = Arc::new(Shared {
            disk: site.disk,
            _borrowed: opened.borrowed,
            dir: site.dir,
            in_memory: options.path.is_none(),
            window_set: Mutex::new(options.window),
            options,
            volume,
            instances: Instances::new(writer),
            control_thread: Mutex::new(None),
            locks,
            fetcher: Fetcher::new(),
            meta: Mutex::new(Meta {
                store: opened.meta,
                manifest,
            }),
            read_only: opened.read_only,
            maintenance: Maintenance::new(opened.jobs),
            rebuilds: Rebuilds::default(),
            loading: Loading::default(),
            backups: Backups::default(),
            stop: AtomicBool::new(false),
            work: Mutex::new(()),
            scans: ScanCache::new(scan_cache_bytes),
            pq: PqCounters::default(),
            faults: Faults::new(site.disk_faults),
            grown: Mutex::new(None),
        });
        let threads = Mutex::new(threads::start(&shared)?);
        let lock = site.lock.map(Arc::new);
        if let Some(lock) = &lock {
            shared.volume.set_owner(lock, &shared.dir);
        }
        let lock = Mutex::new(lock);
        let cluster = Cluster {
            handle: Arc::new(Handle {
                shared,
                threads,
                closing: AtomicBool::new(false),
                lock,
                pid: std::process::id(),
            }),
        };
        if cluster.read_only().is_none() {
            // A reader reads what is durable: it must find the system tables.
            if let Some(made) = cluster.run(&|| false, |engine| engine.bootstrap(wall_us()))? {
                cluster.wait_durable(made.lsn, &|| false)?;
            }
            for _ in 0..replicas {
                cluster.add_replica(ReplicaSpec::default())?;
            }
        }
        Ok(cluster)
    }

    /// Closes the cluster: what was committed is durable already, so this only stops threads and gives the directory free. Later
    /// calls on any clone answer [`Error::Closed`]; closing twice is harmless.
    pub fn close(&self) -> Result<(), Error> {
        self.handle.close()
    }

    /// True after [`Cluster::close`].
    pub fn is_closed(&self) -> bool {
        self.handle.shared.stop.load(Ordering::Acquire)
    }

    /// The process that opened the cluster; a fork must not use it.
    pub fn pid(&self) -> u32 {
        self.handle.pid
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// The writer's engine, for calls that may be ready at once; what stops is served by [`Cluster::settle_on`].
    pub fn engine(&self) -> Arc<Instance> {
        self.handle.shared.instances.writer()
    }

    /// The volume durable LSN.
    pub fn vdl(&self) -> Lsn {
        self.handle.shared.volume.vdl()
    }

    /// The wall clock in microseconds since 1970.
    pub fn now_us(&self) -> i64 {
        wall_us()
    }

    /// Why nothing may be written, if so.
    pub fn read_only(&self) -> Option<&str> {
        self.handle.shared.read_only.as_deref()
    }

    /// Refuses a write to a cluster that cannot take it, before it buffers anything.
    pub fn check_writable(&self) -> Result<(), Error> {
        match &self.handle.shared.read_only {
            Some(reason) => Err(Error::ReadOnly {
                reason: reason.clone(),
            }),
            None => self.handle.shared.volume.check_or_retry(),
        }
    }

    /// Does what a step asks for that has stopped at an instance; the caller then tries again. A step of the writer's that finds that
    /// it is the writer no more waits for the next one: it is to be tried there.
    ///
    /// # Errors
    /// The step's own failure, or what storage answered. [`Error::Interrupted`] when `interrupt`, polled about every 50 ms while
    /// waiting, says so.
    pub fn settle_on(
        &self,
        instance: &Instance,
        stop: Stop,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.check_open()?;
        let seen = self.handle.shared.volume.segments();
        self.handle.shared.settle(instance, stop, seen, interrupt)
    }

    /// The same for work that belongs to whoever writes: it was tried at `writer`, which may have handed over meanwhile.
    ///
    /// # Errors
    /// As [`Cluster::settle_on`].
    pub fn settle(
        &self,
        writer: &Instance,
        stop: Stop,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.settle_on(writer, at_writer(stop), interrupt)
    }

    /// Runs a step to its end at one instance.
    ///
    /// # Errors
    /// As [`Cluster::settle_on`].
    pub fn run_on<T>(
        &self,
        instance: &Instance,
        interrupt: &dyn Fn() -> bool,
        mut step: impl FnMut(&Engine<EmbeddedVolume>) -> Attempt<T>,
    ) -> Result<T, Error> {
        loop {
            match step(instance) {
                Ok(done) => return Ok(done),
                Err(stop) => self.settle_on(instance, stop, interrupt)?,
            }
            if interrupt() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Runs a step to its end at the writer, whoever that is.
    ///
    /// # Errors
    /// As [`Cluster::settle_on`].
    pub fn run<T>(
        &self,
        interrupt: &dyn Fn() -> bool,
        step: impl FnMut(&Engine<EmbeddedVolume>) -> Attempt<T>,
    ) -> Result<T, Error> {
        self.check_open()?;
        self.handle.shared.run(interrupt, step)
    }

    /// Refuses work on a closed cluster.
    pub fn check_open(&self) -> Result<(), Error> {
        if self.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Waits until `lsn` is durable. The calling thread may lead the group commit meanwhile.
    ///
    /// # Errors
    /// The volume's failure or [`Error::Interrupted`]: what was numbered has an unknown fate then.
    pub fn wait_durable(&self, lsn: Lsn, interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        self.handle.shared.volume.wait(lsn, interrupt)
    }

    /// The same for whoever made the commit that ends at `lsn`.
    ///
    /// # Errors
    /// As [`Cluster::wait_durable`], and [`Error::WriterCrashed`] where the writer crashed before it could confirm the commit.
    pub fn wait_told(&self, lsn: Lsn, interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        self.handle.shared.volume.wait_told(lsn, interrupt)
    }

    /// Whether what ends at `lsn` is durable, and was not lost in a crash of the writer.
    #[inline]
    pub fn is_there(&self, lsn: Lsn) -> bool {
        self.handle.shared.volume.is_there(lsn)
    }

    /// Whether the committer of what ends at `lsn` may be told, without waiting, that it is durable.
    #[inline]
    pub fn is_told(&self, lsn: Lsn) -> bool {
        self.handle.shared.volume.is_told(lsn)
    }

    /// Has `id` appear in [`Cluster::completions`] when `lsn` is durable, or the volume has failed.
    pub fn notify_durable(&self, lsn: Lsn, id: u64) {
        self.handle.shared.volume.notify(lsn, id);
    }

    /// The commits that event loops wait for.
    pub fn completions(&self) -> &CompletionQueue {
        &self.handle.shared.volume.completions
    }

    /// The last commit at or before a time, in the present History.
    ///
    /// # Errors
    /// [`Error::OutsideWindow`] for a time in the future, or before the oldest that can still be read.
    pub fn lsn_at(&self, time_us: i64) -> Result<Lsn, Error> {
        self.handle.shared.lsn_at(time_us)
    }

    /// Repairs now what the background would repair by and by: copies that are behind, damage that was found.
    ///
    /// # Errors
    /// What stood in the way of the first repair that failed.
    pub fn repair_now(&self) -> Result<(), Error> {
        self.handle.shared.repair_all()
    }

    /// Puts what is in memory and in the hot log into layers now, as the background does when the log has grown.
    ///
    /// # Errors
    /// [`Error::DiskFull`] when there is no room: everything stays in the log, and can be read.
    pub fn flush_now(&self) -> Result<(), Error> {
        self.handle.shared.flush_all()
    }

    /// Begins a view of everything as it was at `at`, and keeps it readable until the view ends.
    ///
    /// # Errors
    /// [`Error::OutsideWindow`] when `at` lies before what is kept, or after what has been given out.
    pub fn begin_at(&self, at: Lsn, interrupt: &dyn Fn() -> bool) -> Result<Txn, Error> {
        self.begin_on(&self.writer(), at, interrupt)
    }

    /// The same at one instance.
    ///
    /// # Errors
    /// As [`Cluster::begin_at`].
    pub fn begin_on(
        &self,
        instance: &Instance,
        at: Lsn,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Txn, Error> {
        let (vdl, numbered) = (self.vdl(), self.handle.shared.volume.numbered());
        self.handle.shared.check_kept(at)?;
        if at > numbered {
            let expected = format!("{} to {vdl}", self.floor());
            return Err(Error::OutsideWindow {
                what: "LSN",
                expected,
                got: at.to_string(),
            });
        }
        let txn = self.run_on(instance, interrupt, |engine| {
            engine.begin(Mode::ReadOnly { at: Some(at) })
        })?;
        self.check_window(at)?;
        Ok(txn)
    }

    /// Refuses a read point below what is kept. To be asked once the read point is open: from then on the floor stays below it.
    pub fn check_window(&self, at: Lsn) -> Result<(), Error> {
        let floor = self.floor();
        if at >= floor {
            return Ok(());
        }
        let expected = format!("{floor} to {}", self.vdl());
        Err(Error::OutsideWindow {
            what: "LSN",
            expected,
            got: at.to_string(),
        })
    }

    /// The lowest LSN that can still be read.
    pub fn floor(&self) -> Lsn {
        self.handle.shared.floor()
    }
}

impl Shared {
    /// `seen` is the number of segments that the step may have known.
    fn settle(
        &self,
        instance: &Instance,
        stop: Stop,
        seen: u64,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        match stop {
            Stop::NeedPage { page, at } => {
                // Before the page is fetched: of another branch it is dropped, and asked for again.
                let branch = instance.branch();
                let found = self.fetcher.page(&self.volume, page, at)?;
                Ok(instance.install_of(branch, page, found, at)?)
            }
            Stop::NeedSegment => self.grow(seen),
            Stop::WaitLsn(lsn) if instance.is_writer() => self.volume.wait(lsn, interrupt),
            Stop::WaitLsn(lsn) => {
                self.volume.wait(lsn, interrupt)?;
                instance.wait_shown(lsn, None, interrupt)
            }
            Stop::WaitLock(wait) => self.wait_lock(&wait, Some(LOCK_TIMEOUT_DEFAULT), interrupt),
            Stop::Failed(error @ EngineError::WriterMoved { .. })
                if !(instance.is_writer() && instance.id == self.instances.writer().id) =>
            {
                self.wait_writer(error, interrupt)
            }
            Stop::Failed(error) => self.failed(error, interrupt),
        }
    }

    /// An error that rests on another's row is raised once that row is durable [15]; back-pressure is waited out.
    fn failed(&self, error: EngineError, interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        let rests_on = error.rests_on();
        match error {
            _ if !self.volume.is_there(rests_on) => {
                self.volume
                    .wait(rests_on.min(self.volume.numbered()), interrupt)?;
                Err(error.into())
            }
            EngineError::Volume(Refused::BackPressure { vdl, .. }) => {
                let relieved = self.volume.wait_past(vdl, PRESSURE_WAIT, interrupt);
                self.maintenance.wake();
                relieved
            }
            // The failure that lost the quorum says more than that it is lost.
            EngineError::Volume(Refused::QuorumLost { .. }) => Err(self
                .volume
                .check()
                .err()
                .unwrap_or_else(|| self.volume.quorum_lost())),
            EngineError::Volume(Refused::Fenced { by, .. }) => Err(Error::Fenced { by }),
            other => Err(other.into()),
        }
    }

    fn run<T>(
        &self,
        interrupt: &dyn Fn() -> bool,
        mut step: impl FnMut(&Engine<EmbeddedVolume>) -> Attempt<T>,
    ) -> Result<T, Error> {
        loop {
            let (seen, writer) = (self.volume.segments(), self.instances.writer());
            match step(&writer) {
                Ok(done) => return Ok(done),
                Err(stop) => self.settle(&writer, at_writer(stop), seen, interrupt)?,
            }
            if interrupt() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Runs a step of the background; it ends when the cluster closes.
    pub(crate) fn serve<T>(
        &self,
        step: impl FnMut(&Engine<EmbeddedVolume>) -> Attempt<T>,
    ) -> Result<T, Error> {
        self.run(&|| self.stop.load(Ordering::Acquire), step)
    }

    /// Grows the volume by a segment, unless it has grown since a step saw `seen` segments: one compare-and-swap of the manifest
    /// [4].
    fn grow(&self, seen: u64) -> Result<(), Error> {
        let mut meta = self.meta.lock();
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if self.volume.segments() > seen || self.has_just_grown() {
            return Ok(());
        }
        let segment_bytes = meta.manifest.segment_pages * u64::from(meta.manifest.page_bytes);
        let segments_max = segments_max(segment_bytes);
        if meta.manifest.pgs.len() as u64 >= segments_max {
            return Err(Error::VolumeFull {
                bytes_max: segments_max * segment_bytes,
            });
        }
        let members = meta.manifest.next_members();
        let next = meta
            .manifest
            .add_segment(members.clone())
            .map_err(|error| Error::Corrupt {
                detail: error.to_string(),
            })?;
        meta.store.cas(meta.manifest.version, &next)?;
        meta.manifest = next;
        self.volume.add_segment(members);
        *self.grown.lock() = Some(Instant::now());
        Ok(())
    }

    /// Whether another thread added a segment a moment ago that nobody uses yet. Who asked for one at the same time is served by
    /// it. After that moment the volume grows all the same, so that nobody who cannot use that segment waits for ever.
    fn has_just_grown(&self) -> bool {
        let newest = PgId((self.volume.segments() - 1) as u32);
        let moment_ago = self
            .grown
            .lock()
            .is_some_and(|grown| grown.elapsed() < GROWN_LATELY);
        moment_ago && self.volume.tail(newest).is_none()
    }

    /// Has the control thread look at once.
    pub(crate) fn wake_control(&self) {
        if let Some(thread) = self.control_thread.lock().as_ref() {
            thread.wake();
        }
    }

    /// True once nothing may be changed any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The lowest LSN that every living node can still serve.
    pub(crate) fn floor(&self) -> Lsn {
        self.meta.lock().manifest.collection_floor
    }
}

impl Handle {
    fn close(&self) -> Result<(), Error> {
        if self.pid != std::process::id() {
            // A fork: the threads and the lock are the parent's.
            self.shared.stop.store(true, Ordering::Release);
            return Ok(());
        }
        if self.closing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.shared.volume.flush_pending();
        self.shared.finish_backup();
        if self.shared.stop.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.shared.backups.stop();
        self.shared.end_faults();
        self.shared.volume.flush_pending();
        let healthy = self.shared.volume.failure().is_none();
        self.shared.volume.fail(Failure::Closed);
        self.shared.locks.close();
        self.shared.volume.wake_threads();
        self.shared.maintenance.wake();
        self.shared.wake_control();
        self.shared.instances.wake_all();
        // A change of instances that is under way ends; after it none begins.
        drop(self.shared.instances.changing.lock());
        self.shared.instances.join_threads();
        self.shared.volume.late.join();
        for thread in self.threads.lock().drain(..) {
            // A thread that panicked has been reported on standard error; closing goes on.
            let _ = thread.join();
        }
        // Whoever is in the middle of a write or a repair ends it; whoever comes later finds the cluster closed. Only then may
        // another owner come.
        drop(self.shared.work.lock());
        self.shared
            .volume
            .devices
            .iter()
            .for_each(|device| device.close());
        // A volume that has failed has told its callers so; closing it is no second failure, and the next open recovers.
        let closed = if healthy {
            self.shared.mark_closed()
        } else {
            Ok(())
        };
        *self.lock.lock() = None;
        closed
    }
}

impl Shared {
    /// The owner leaves in good order; the next one recovers all the same, so a failure here loses nothing.
    fn mark_closed(&self) -> Result<(), Error> {
        if self.read_only.is_some() || self.in_memory {
            return Ok(());
        }
        let mut meta = self.meta.lock();
        let Ok(next) = meta.manifest.closed() else {
            return Ok(());
        };
        match meta.store.cas(meta.manifest.version, &next) {
            Ok(()) => meta.manifest = next,
            // With so many directories gone every write has been refused already, and why is known.
            Err(_) if self.volume.lost().len() > meta.manifest.nodes.len() / 2 => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// What a step has stopped for that was to run at the writer: one that is a replica by now has handed over.
fn at_writer(stop: Stop) -> Stop {
    match stop {
        Stop::Failed(EngineError::ReadOnlyInstance { writer }) => {
            Stop::Failed(EngineError::WriterMoved {
                what: "has handed over",
                writer: Some(writer),
            })
        }
        other => other,
    }
}

/// The writer of a cluster that was just opened.
fn first_instance() -> InstanceSpec {
    InstanceSpec {
        name: "instance-1".into(),
        tier: TIER_DEFAULT,
        class: CLASS_DEFAULT.into(),
    }
}

/// Segments that a volume may have: as many as the largest volume holds, and as the manifest has room for.
fn segments_max(segment_bytes: u64) -> u64 {
    (VOLUME_BYTES_MAX / segment_bytes).min(Manifest::PGS_MAX)
}

/// The newest commit time that any copy knows; a copy that is damaged knows less than the others.
fn last_commit_us(volume: &EmbeddedVolume, history: &History) -> Result<i64, Error> {
    let mut failed = None;
    let mut answered = false;
    let mut last_us = i64::MIN;
    for node in volume.nodes().iter() {
        match node.store.latest(history) {
            Ok(latest) => {
                answered = true;
                last_us = latest.map_or(last_us, |latest| last_us.max(latest.time_us));
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if !answered => Err(error.into()),
        _ => Ok(last_us),
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to hear of an error, and the next open recovers.
        let _ = self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::SEGMENT_BYTES_DEFAULT;

    #[test]
    fn a_volume_of_small_segments_ends_where_its_manifest_does() {
        assert_eq!(segments_max(1 << 20), Manifest::PGS_MAX);
        assert_eq!(segments_max(SEGMENT_BYTES_DEFAULT), 13_107);
    }
}
