//! The instances of an open cluster: one writer, up to fifteen replicas that follow it.
//!
//! ```text
//!   writer ── append ──> volume ──> stream ──> replica's thread ──> pages in its cache, readers up to what it has applied
//!                          '── VDL moves: one sleeper is woken, and wakes the next
//! ```
//! A replica's thread takes nothing that the writer waits for but the stream's lock, for as long as it takes to copy a few pointers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use aurora_control::balance::{self, Reader};
use aurora_control::{CLASSES, Candidate, TIER_MAX, class_rank};
use aurora_engine::{EngineConfig, EngineError, Role};
use aurora_page::Lsn;
use aurora_proto::{Next, Volume};
use parking_lot::{Mutex, RwLock};

use crate::Error;
use crate::clock::wall_us;
use crate::cluster::{Cluster, Shared};
use crate::events::Events;
use crate::instance::{Instance, InstanceSpec};
use crate::waiters::{Parker, Waiters};

/// Most replicas of a cluster.
pub const REPLICAS_MAX: usize = 15;
/// The class whose cache is what the cluster was opened with; each step doubles or halves it.
pub const CLASS_DEFAULT: &str = "large";
/// The tier of an instance unless the caller says otherwise.
pub const TIER_DEFAULT: u8 = 1;
/// MTRs that a replica takes at a time.
const TAKE: usize = 64;
/// How often a thread that waits looks whether it should end.
const IDLE: Duration = Duration::from_millis(50);
/// For how long work waits for a writer when there is none.
const WRITER_WAIT: Duration = Duration::from_secs(60);

/// Which of these becomes the writer; no answer, and the built-in rule decides.
pub type Choose = Arc<dyn Fn(&[Candidate]) -> Option<String> + Send + Sync>;

/// The instances, and what is remembered of them.
pub(crate) struct Instances {
    writer: RwLock<Arc<Instance>>,
    replicas: RwLock<Vec<Arc<Instance>>>,
    next_id: AtomicU64,
    turn: AtomicUsize,
    /// Held while instances come, go or change places: one change at a time.
    pub(crate) changing: Mutex<()>,
    /// Who waits for a writer.
    waiters: Waiters,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) choose: Mutex<Option<Choose>>,
    pub(crate) events: Events,
}

impl Instances {
    pub(crate) fn new(writer: Instance) -> Instances {
        Instances {
            next_id: AtomicU64::new(writer.id + 1),
            writer: RwLock::new(Arc::new(writer)),
            replicas: RwLock::default(),
            turn: AtomicUsize::new(0),
            changing: Mutex::default(),
            waiters: Waiters::default(),
            threads: Mutex::default(),
            choose: Mutex::new(None),
            events: Events::default(),
        }
    }

    /// The writer, or who was it last.
    #[inline]
    pub(crate) fn writer(&self) -> Arc<Instance> {
        self.writer.read().clone()
    }

    pub(crate) fn replicas(&self) -> Vec<Arc<Instance>> {
        self.replicas.read().clone()
    }

    /// The writer first.
    pub(crate) fn all(&self) -> Vec<Arc<Instance>> {
        let mut all = vec![self.writer()];
        all.extend(self.replicas());
        all
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Instance>, Error> {
        let all = self.all();
        let found = all.iter().find(|instance| instance.name() == name);
        found.cloned().ok_or_else(|| Error::UnknownInstance {
            instance: name.to_owned(),
            there: all
                .iter()
                .map(|instance| instance.name().to_owned())
                .collect(),
        })
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The oldest read point that any instance needs (PGMRPL).
    pub(crate) fn oldest_read_point(&self) -> Lsn {
        let oldest = self
            .all()
            .iter()
            .map(|instance| instance.oldest_read_point())
            .min();
        oldest.unwrap_or(Lsn::NONE)
    }

    /// One instance in the place of another, whose name it may have; `None` adds it.
    pub(crate) fn put(&self, instance: Arc<Instance>, in_place_of: Option<u64>) {
        let mut replicas = self.replicas.write();
        if let Some(id) = in_place_of {
            replicas.retain(|other| other.id != id);
        }
        replicas.push(instance);
    }

    pub(crate) fn drop_replica(&self, id: u64) {
        self.replicas.write().retain(|other| other.id != id);
    }

    /// From now on this one is the writer.
    pub(crate) fn set_writer(&self, instance: Arc<Instance>) {
        *self.writer.write() = instance;
        self.waiters.wake_all();
    }

    pub(crate) fn wake_all(&self) {
        self.waiters.wake_all();
        self.all().iter().for_each(|instance| instance.wake_all());
    }

    /// Waits for the threads of all replicas, which have been told to end.
    pub(crate) fn join_threads(&self) {
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A thread that panicked has been reported on standard error.
            let _ = thread.join();
        }
    }

    /// A name that nobody has.
    fn free_name(&self) -> String {
        let all = self.all();
        let name = |n: usize| format!("instance-{n}");
        let free = (1..)
            .map(name)
            .find(|name| all.iter().all(|other| other.name() != name));
        free.unwrap_or_default()
    }
}

/// A replica that is to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// Its name; `instance-N` with the first free number if none is given.
    pub name: Option<String>,
    /// Its promotion tier.
    pub tier: Option<u8>,
    /// Its class.
    pub class: Option<String>,
    /// The region it is to be in, which must be the cluster's.
    pub region: Option<String>,
}

fn refused(option: &'static str, expected: String, got: impl ToString) -> Error {
    Error::InvalidOption {
        option,
        expected,
        got: got.to_string(),
    }
}

impl Shared {
    fn check_spec(&self, spec: ReplicaSpec) -> Result<InstanceSpec, Error> {
        let region = self.meta.lock().manifest.region.clone();
        if let Some(got) = spec.region.filter(|got| *got != region) {
            let expected = format!(
                "{region}: a replica lives in the region of its cluster, whose storage it reads"
            );
            return Err(refused("region", expected, got));
        }
        let tier = spec.tier.unwrap_or(TIER_DEFAULT);
        if tier > TIER_MAX {
            return Err(refused("tier", format!("0 to {TIER_MAX}"), tier));
        }
        let class = spec.class.unwrap_or_else(|| CLASS_DEFAULT.to_owned());
        if class_rank(&class).is_none() {
            return Err(refused("instance_class", CLASSES.join(", "), class));
        }
        let count = self.instances.replicas().len();
        if count >= REPLICAS_MAX {
            let expected = format!("at most {REPLICAS_MAX} replicas of one volume");
            return Err(refused("replicas", expected, count + 1));
        }
        let name = spec.name.unwrap_or_else(|| self.instances.free_name());
        if name.is_empty() || name.len() > 63 {
            return Err(refused("name", "1 to 63 bytes".into(), name.len()));
        }
        if self.instances.find(&name).is_ok() {
            let expected = "a name that no instance of the cluster has".into();
            return Err(refused("name", expected, name));
        }
        Ok(InstanceSpec { name, tier, class })
    }

    /// The configuration of an engine of a class.
    fn config(&self, class: &str) -> EngineConfig {
        let rank = i32::from(class_rank(class).unwrap_or(0));
        let usual = i32::from(class_rank(CLASS_DEFAULT).unwrap_or(0));
        let cache_bytes = match rank - usual {
            up @ 0.. => self.options.cache_bytes.saturating_mul(1 << up),
            down => self.options.cache_bytes >> -down,
        };
        EngineConfig {
            cache_bytes,
            ..EngineConfig::default()
        }
    }

    /// An instance that follows the writer from here on, with an empty cache. Its thread is yet to be started.
    pub(crate) fn follower(&self, spec: InstanceSpec) -> Result<Arc<Instance>, Error> {
        let id = self.instances.next_id();
        let writer = self.instances.writer();
        let joined = self.volume.join_stream(id);
        let made = writer.replica(self.config(&spec.class), writer.name(), joined);
        match made {
            Ok(engine) => {
                let instance = Arc::new(Instance::new(id, spec, engine, joined));
                self.prefetcher.serve(&instance);
                Ok(instance)
            }
            Err(error) => {
                self.volume.stream.leave(id);
                Err(error.into())
            }
        }
    }

    /// Starts the thread of a follower.
    pub(crate) fn start_following(self: &Arc<Self>, instance: &Arc<Instance>) -> Result<(), Error> {
        let (shared, followed) = (self.clone(), instance.clone());
        let body = move || {
            let run = catch_unwind(AssertUnwindSafe(|| shared.run_instance(&followed)));
            if run.is_err() {
                // It beats no more, and is found.
                followed.crash();
            }
            shared.volume.stream.leave(followed.id);
            followed.set_thread(false);
        };
        let thread = Builder::new().name("aurora-replica".into()).spawn(body);
        let thread = thread.map_err(|source| Error::io(Path::new("a replica's thread"), source))?;
        instance.set_thread(true);
        let mut threads = self.instances.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    fn add_replica(self: &Arc<Self>, spec: ReplicaSpec) -> Result<Arc<Instance>, Error> {
        let _changing = self.instances.changing.lock();
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if let Some(reason) = &self.read_only {
            return Err(Error::ReadOnly {
                reason: reason.clone(),
            });
        }
        let spec = self.check_spec(spec)?;
        let instance = self.follower(spec)?;
        if let Err(error) = self.start_following(&instance) {
            self.volume.stream.leave(instance.id);
            return Err(error);
        }
        self.instances.put(instance.clone(), None);
        self.instances
            .events
            .note("replica added", instance.name(), None, None);
        Ok(instance)
    }

    fn remove_replica(&self, name: &str) -> Result<(), Error> {
        let _changing = self.instances.changing.lock();
        let instance = self.instances.find(name)?;
        if instance.id == self.instances.writer().id {
            let expected = "a replica (fail over first)".into();
            return Err(refused("name", expected, format!("the writer {name}")));
        }
        self.instances.drop_replica(instance.id);
        instance.remove();
        self.volume.stream.leave(instance.id);
        self.instances
            .events
            .note("replica removed", name, None, None);
        Ok(())
    }

    /// The body of an instance's thread. A writer's has nothing to do, and waits to be a replica again.
    fn run_instance(&self, instance: &Arc<Instance>) {
        let parker = Parker::current();
        while !self.is_closed() && !instance.is_removed() && instance.beats() {
            // Whoever was woken wakes the next.
            self.volume.stream.wake();
            if !instance.is_paused() && self.follow(instance, TAKE) {
                continue;
            }
            self.volume.stream.register(&parker);
            if instance.is_paused()
                || instance.is_writer()
                || instance.readable() >= self.volume.vdl()
            {
                parker.park(IDLE);
            }
            self.volume.stream.unregister(&parker);
        }
    }

    /// Applies what is due; false when there was nothing.
    pub(crate) fn follow(&self, instance: &Instance, count_max: usize) -> bool {
        let _applying = instance.applying.lock();
        if !matches!(instance.role(), Role::Replica { .. }) {
            return false;
        }
        let vdl = self.volume.vdl();
        let worked = match self.volume.stream.next(instance.taken(), vdl, count_max) {
            Next::Nothing => {
                // What was taken so far is all there is up to the VDL.
                let news = instance.readable() < vdl;
                instance.advance(vdl);
                news
            }
            Next::Rejoin(tip) => {
                instance.rejoin(tip);
                instance.take(tip);
                instance.rejoined();
                true
            }
            Next::Apply(mtrs) => {
                for redo in &mtrs {
                    let pages = instance.apply(redo);
                    instance.take(redo.numbered.last);
                    instance.applied(pages, wall_us() - redo.time_us());
                }
                true
            }
        };
        if worked {
            self.volume.stream.took(instance.id, instance.taken());
            instance.wake_readers();
        }
        worked
    }

    /// How far an instance is behind, in microseconds: the age of the oldest durable commit that it does not show.
    pub(crate) fn lag_us(&self, instance: &Instance) -> i64 {
        let behind = self
            .volume
            .stream
            .behind(instance.taken(), self.volume.vdl());
        match behind {
            Some(time_us) if !instance.is_writer() => (wall_us() - time_us).max(0),
            _ => 0,
        }
    }

    /// The instance that a read of these goes to; the writer when there is none.
    fn reader(&self, among: &[Arc<Instance>]) -> Arc<Instance> {
        let living: Vec<_> = among.iter().filter(|instance| instance.beats()).collect();
        let readers: Vec<_> = living
            .iter()
            .map(|instance| Reader {
                connections: instance.connections(),
                lag_us: self.lag_us(instance),
            })
            .collect();
        let turn = self.instances.turn.fetch_add(1, Ordering::Relaxed);
        match balance::pick(&readers, turn) {
            Some(index) => living[index].clone(),
            None => self.instances.writer(),
        }
    }

    /// Waits until there is a writer: the one that was asked is it no more, or not yet.
    pub(crate) fn wait_writer(
        &self,
        error: EngineError,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let (begun, parker) = (Instant::now(), Parker::current());
        while !self.instances.writer().is_writer() {
            if self.is_closed() {
                return Err(Error::Closed);
            }
            if begun.elapsed() > WRITER_WAIT {
                return Err(error.into());
            }
            self.instances.waiters.register(Lsn::MAX, &parker);
            let woken = self.instances.writer().is_writer() || parker.park(IDLE);
            self.instances.waiters.unregister(&parker);
            if !woken && interrupt() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}

impl Cluster {
    /// The instance that writes.
    pub fn writer(&self) -> Arc<Instance> {
        self.shared().instances.writer()
    }

    /// All instances, the writer first.
    pub fn instances(&self) -> Vec<Arc<Instance>> {
        self.shared().instances.all()
    }

    /// The instance of this name.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`].
    pub fn instance(&self, name: &str) -> Result<Arc<Instance>, Error> {
        self.shared().instances.find(name)
    }

    /// Adds a replica: an instance with a cache of its own that reads this cluster's storage and follows its writer.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for the sixteenth, for another region, for a name that is taken.
    pub fn add_replica(&self, spec: ReplicaSpec) -> Result<Arc<Instance>, Error> {
        self.check_open()?;
        self.shared().add_replica(spec)
    }

    /// Removes a replica. What is open there can still be read.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::InvalidOption`] for the writer.
    pub fn remove_replica(&self, name: &str) -> Result<(), Error> {
        self.check_open()?;
        self.shared().remove_replica(name)
    }

    /// The instance that a connection of the reader endpoint goes to: the replica with the fewest connections that keeps up, or
    /// the writer when there is none.
    pub fn reader(&self) -> Arc<Instance> {
        let shared = self.shared();
        shared.reader(&shared.instances.replicas())
    }

    /// The same among instances of these names; those that are gone are left out.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`] when none of them is left.
    pub fn reader_among(&self, names: &[String]) -> Result<Arc<Instance>, Error> {
        let shared = self.shared();
        let mut among = shared.instances.all();
        among.retain(|instance| names.iter().any(|name| name == instance.name()));
        if among.is_empty() {
            return Err(Error::UnknownInstance {
                instance: names.join(", "),
                there: shared
                    .instances
                    .all()
                    .iter()
                    .map(|i| i.name().to_owned())
                    .collect(),
            });
        }
        Ok(shared.reader(&among))
    }

    /// How far an instance is behind: milliseconds and LSNs.
    pub fn lag(&self, instance: &Instance) -> (f64, u64) {
        let shared = self.shared();
        let lsns = shared.volume.vdl().0.saturating_sub(instance.readable().0);
        let lsns = if instance.is_writer() { 0 } else { lsns };
        (shared.lag_us(instance) as f64 / 1000.0, lsns)
    }

    /// Waits until an instance shows everything up to `lsn`.
    ///
    /// # Errors
    /// [`Error::ReplicaLag`] after `limit`, [`Error::InstanceGone`], the volume's failure, [`Error::Interrupted`].
    pub fn wait_shown(
        &self,
        instance: &Instance,
        lsn: Lsn,
        limit: Option<Duration>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.check_open()?;
        self.shared().volume.wait(lsn, interrupt)?;
        let vdl = self.vdl();
        if lsn > vdl {
            // It was durable, and a backtrack has left it.
            return Err(Error::OutsideWindow {
                what: "LSN",
                expected: format!("{} to {vdl}", self.floor()),
                got: lsn.to_string(),
            });
        }
        instance.wait_shown(lsn, limit, interrupt)
    }
}
