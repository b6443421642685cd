//! The engine: what is shared by all transactions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use aurora_page::planted::{self, Fault};
use aurora_page::{Geometry, KeyBuf, Lsn, Page, PageId};
use aurora_proto::Volume;
use aurora_redo::History;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashSet;

use crate::ahead::Prefetch;
use crate::catalogue::Names;
use crate::conflicts::Conflicts;
use crate::edit::{Edit, View};
use crate::error::{Attempt, EngineError, Stop};
use crate::locks::{Held, Locks};
use crate::pool::{CacheStats, Pins, Pool};
use crate::readpoints::{ReadPoint, ReadPoints};
use crate::reads::Reads;
use crate::replica::{Role, RoleCell};
use crate::sequence::Sequences;
use crate::space::Space;
use crate::statistics::RowCounts;
use crate::table::System;
use crate::txn::{Commit, Isolation, Mode, Txn};
use crate::work::Work;

/// Limits of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    /// Bytes of page versions in memory.
    pub cache_bytes: u64,
    /// Most bytes in a transaction's write buffer; well below what the volume has in flight.
    pub tx_bytes_max: u64,
    /// Most rows that a transaction changes; well below the LAL window, as a change can be several records.
    pub tx_records_max: u64,
    /// Bytes for remembering which keys were changed lately.
    pub conflict_bytes: u64,
    /// The latest commit time in any kept History: commits are later.
    pub last_time_us: i64,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            cache_bytes: 128 * 1024 * 1024,
            tx_bytes_max: 128 * 1024 * 1024,
            tx_records_max: 1_000_000,
            conflict_bytes: 16 * 1024 * 1024,
            last_time_us: 0,
        }
    }
}

/// What commits need one at a time.
pub(crate) struct Committing {
    pub space: Space,
    pub conflicts: Conflicts,
    pub last_time_us: i64,
    pub counts: RowCounts,
    /// Bulk loads that are under way in this engine.
    pub loads: FxHashSet<u32>,
    /// Rules that were begun to be checked; each has a watch of its own.
    pub rules: u64,
    /// Where the next round of background work begins.
    pub purge_from: KeyBuf,
    pub sweep_from: KeyBuf,
    /// Which branch of the volume commits are of.
    pub branch: u64,
}

impl Committing {
    /// What an engine knows that begins to write when everything up to `newest` was numbered by others.
    pub fn new(config: &EngineConfig, newest: Lsn, last_time_us: i64, branch: u64) -> Committing {
        Committing {
            space: Space::default(),
            conflicts: Conflicts::new(config.conflict_bytes, newest),
            last_time_us,
            counts: RowCounts::default(),
            loads: FxHashSet::default(),
            rules: 0,
            purge_from: KeyBuf::new(),
            sweep_from: KeyBuf::new(),
            branch,
        }
    }
}

/// What the engines of one volume share: open read points, and definitions, which go by LSN.
#[derive(Default)]
struct Known {
    points: ReadPoints,
    names: Arc<RwLock<Names>>,
    altered: Arc<AtomicU64>,
    branch: Arc<AtomicU64>,
    locks: Arc<Locks>,
}

/// Pages kept at most for steps outside of transactions that wait for others, while steps that find nothing to do come through.
const SYSTEM_PINS_MAX: usize = 256;

/// A database engine over a volume. Shared by threads; no method blocks or does I/O ([`Stop`]).
///
/// Locks, in the order in which they may be taken: the commit lock, or that of the pins; then one of: a pool shard, the
/// names, the read points, the sequences, the row locks' table, what a serializable transaction has read. Under the latter
/// nothing else is locked or called. Readers never take the commit lock.
pub struct Engine<V: Volume> {
    pub(crate) volume: Arc<V>,
    pub(crate) config: EngineConfig,
    pub(crate) geometry: Geometry,
    pub(crate) pool: Arc<Pool>,
    pub(crate) system: System,
    /// What all instances of the volume know of tables.
    pub(crate) names: Arc<RwLock<Names>>,
    /// The newest [`crate::Table::since`] of a definition that this engine has made: older ones may be out of date.
    pub(crate) altered: Arc<AtomicU64>,
    pub(crate) points: ReadPoints,
    pub(crate) locks: Arc<Locks>,
    /// The last LSN whose commit, and every one before it, is in the pool as a whole.
    pub(crate) published: AtomicU64,
    /// The branch of the volume, of all its instances; raised last when it changes.
    pub(crate) branch: Arc<AtomicU64>,
    pub(crate) role: RoleCell,
    pub(crate) committing: Mutex<Committing>,
    /// Who fetches pages that will be wanted soon.
    pub(crate) prefetch: OnceLock<Arc<dyn Prefetch>>,
    /// Pages that a change outside of transactions is waiting for.
    pins: Mutex<Pins>,
    /// Numbers of auto-increment columns that are reserved and not given yet.
    pub(crate) sequences: Sequences,
}

impl<V: Volume> Engine<V> {
    /// An engine over a volume that nobody else writes. Reads nothing: pages come when they are needed.
    pub fn new(volume: Arc<V>, config: EngineConfig) -> Result<Engine<V>, EngineError> {
        let (vdl, numbered) = (volume.vdl(), volume.numbered());
        let shared = Known::default();
        Engine::with(volume, config, Role::Writer, shared, (vdl, numbered))
    }

    /// An engine over the volume of another one, which writes it under this name. It will be told of every MTR after `joined`,
    /// and of none before.
    pub fn replica(
        &self,
        config: EngineConfig,
        writer: &str,
        joined: Lsn,
    ) -> Result<Engine<V>, EngineError> {
        let role = Role::Replica {
            writer: writer.into(),
        };
        let readable = self.volume.vdl();
        let known = Known {
            points: self.points.clone(),
            names: self.names.clone(),
            altered: self.altered.clone(),
            branch: self.branch.clone(),
            locks: self.locks.clone(),
        };
        let made = Engine::with(self.volume.clone(), config, role, known, (joined, readable))?;
        made.pool.join(&self.pool);
        Ok(made)
    }

    fn with(
        volume: Arc<V>,
        config: EngineConfig,
        role: Role,
        known: Known,
        (floor, published): (Lsn, Lsn),
    ) -> Result<Engine<V>, EngineError> {
        let Known {
            points,
            names,
            altered,
            branch,
            locks,
        } = known;
        let geometry = volume.geometry();
        let began = branch.load(Ordering::Acquire);
        let committing = Committing::new(&config, published, config.last_time_us, began);
        let pool = Arc::new(Pool::new(config.cache_bytes, geometry.page_bytes, floor));
        Ok(Engine {
            pins: Mutex::new(Pins::new(pool.clone())),
            sequences: Sequences::default(),
            pool,
            system: System::new(geometry)?,
            volume,
            config,
            geometry,
            names,
            altered,
            points,
            locks,
            published: AtomicU64::new(published.0),
            branch,
            role: RoleCell::new(role),
            committing: Mutex::new(committing),
            prefetch: OnceLock::new(),
        })
    }

    /// The volume.
    pub fn volume(&self) -> &Arc<V> {
        &self.volume
    }

    /// Sizes of pages, segments and extents.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The newest state that is numbered and whole in memory: what read-write transactions read.
    pub fn published(&self) -> Lsn {
        Lsn(self.published.load(Ordering::Acquire))
    }

    /// The newest state that is durable, and whole in memory: what read-only work reads [15]. A commit can be durable
    /// a moment before the last of its pages is published; until then readers stay before it.
    pub fn readable(&self) -> Lsn {
        // In this order: publishing comes after numbering, so what is published now is no older than the VDL was.
        let published = self.published();
        if planted::is(Fault::ReadOnlyAtNumbered) {
            return published;
        }
        self.volume.vdl().min(published)
    }

    /// Begins a transaction, at [`Isolation::Snapshot`]. A read point above what is readable answers `WaitLsn`.
    pub fn begin(&self, mode: Mode) -> Attempt<Txn> {
        match mode {
            Mode::ReadWrite => self.begin_isolated(Isolation::Snapshot, true),
            Mode::ReadOnly { at: None } => self.begin_isolated(Isolation::Snapshot, false),
            Mode::ReadOnly { at: Some(at) } if at > self.readable() => Err(Stop::WaitLsn(at)),
            Mode::ReadOnly { at: Some(at) } => {
                Ok(self.begin_txn(Isolation::Snapshot, false, || at))
            }
        }
    }

    /// Begins a transaction that reads the newest state: what is numbered if it may write, what is durable if not.
    pub fn begin_isolated(&self, isolation: Isolation, writable: bool) -> Attempt<Txn> {
        if writable {
            self.check_begin()?;
        }
        if isolation == Isolation::Serializable && writable {
            return Ok(self.begin_serializable());
        }
        Ok(self.begin_txn(isolation, writable, || {
            if writable {
                self.published()
            } else {
                self.readable()
            }
        }))
    }

    /// From before its read point is chosen, changes are kept so that its ranges can be checked.
    fn begin_serializable(&self) -> Txn {
        let watch = self.committing.lock().conflicts.watch(self.published());
        let mut txn = self.begin_txn(Isolation::Serializable, true, || self.published());
        txn.reads = Some(Arc::new(Reads::new(self.config.tx_bytes_max, watch)));
        txn
    }

    fn begin_txn(&self, isolation: Isolation, writable: bool, choose: impl FnOnce() -> Lsn) -> Txn {
        let (pins, locks) = (Pins::new(self.pool.clone()), Held::new(&self.locks));
        // Before the read point is chosen: it can only be too old, and is refused then.
        let branch = self.branch();
        let point = self.points.open(writable, choose);
        Txn::new(point, isolation, writable, pins, locks, branch)
    }

    /// Gives the engine a page that the shell fetched because of [`Stop::NeedPage`].
    pub fn install(&self, page: PageId, version: Page, at: Lsn) -> Result<(), EngineError> {
        self.install_of(self.branch(), page, version, at)
    }

    /// The same, when [`Engine::branch`] was `branch` before the page was fetched: what was fetched of another branch is dropped.
    pub fn install_of(
        &self,
        branch: u64,
        page: PageId,
        version: Page,
        at: Lsn,
    ) -> Result<(), EngineError> {
        self.pool
            .install(page, version, at, self.volume.vdl(), branch)
    }

    /// Which branch of the volume this is: the number of [`Engine::rebranch`]es.
    pub fn branch(&self) -> u64 {
        self.branch.load(Ordering::Acquire)
    }

    /// Goes over to another branch of the volume. No commit is numbered meanwhile: `switch` has the volume go over, under the
    /// commit lock, when nothing of what was left can be read any more; everything that was numbered must be durable.
    ///
    /// Transactions that write, and reads of what does not count in `history`, get [`EngineError::Branched`] from then on. Cached
    /// pages up to `kept` stay: in the present History and in the new one they are the same, up to the branch point `at`. With
    /// none, no page stays.
    pub fn rebranch(
        &self,
        history: &Arc<History>,
        kept: Option<Lsn>,
        at: Lsn,
        switch: impl FnOnce(),
    ) {
        let mut committing = self.committing.lock();
        let branch = committing.branch + 1;
        self.names.write().rebranch(at);
        self.pool.rebranch(branch, history, kept, at);
        switch();
        let numbered = self.volume.numbered();
        // How many rows came and went on the way back is not known: an analysis counts anew.
        *committing = Committing::new(&self.config, numbered, committing.last_time_us, branch);
        // Once more: what was read before the pool went over may have been noted since.
        self.names.write().rebranch(at);
        // Reserved on a branch that was left: the catalogue of this one says where to go on.
        self.sequences.lock().clear();
        self.published.store(numbered.0, Ordering::Release);
        self.branch.store(branch, Ordering::Release);
    }

    /// The oldest read point in use (PGMRPL): storage must serve it, and everything after it.
    pub fn oldest_read_point(&self) -> Lsn {
        let readable = self.readable();
        if planted::is(Fault::ReadPointIgnored) {
            return readable;
        }
        self.points
            .oldest()
            .map_or(readable, |oldest| oldest.min(readable))
    }

    /// What the buffer pool has done and holds.
    pub fn cache_stats(&self) -> CacheStats {
        self.pool.stats()
    }

    /// Drops every page that may be dropped, to give memory back.
    pub fn evict_all(&self) {
        self.pool.evict_all(self.volume.vdl());
    }

    /// The head of every page in memory, for checks against storage.
    pub fn cached_heads(&self) -> Vec<Arc<Page>> {
        self.pool.heads()
    }

    #[inline]
    pub(crate) fn view(&self, at: Lsn) -> View<'_> {
        View {
            pool: &self.pool,
            at,
            vdl: self.volume.vdl(),
        }
    }

    #[inline]
    pub(crate) fn view_of(&self, point: &ReadPoint) -> View<'_> {
        self.view(point.at)
    }

    /// [`Engine::mutate`] for changes outside of transactions. The pages that they had to wait for stay until one of
    /// them has come through.
    pub(crate) fn mutate_system<T>(
        &self,
        now_us: i64,
        make: impl FnOnce(&mut Edit<'_>, &Conflicts) -> Attempt<T>,
        noted: impl FnOnce(&mut Conflicts, Lsn, &T),
    ) -> Attempt<(T, Option<Commit>)> {
        let made = self.mutate(now_us, make, noted);
        match &made {
            Ok((_, Some(_))) => self.pins.lock().release(),
            // Others may have more to do than a step that found nothing: a sweep of a small pool read two extent maps in turn
            // without end when that took away what the one after it had fetched (found by the simulator).
            Ok((_, None)) => self.pins.lock().release_above(SYSTEM_PINS_MAX),
            Err(Stop::NeedPage { page, .. }) => self.pins.lock().add(*page),
            Err(_) => {}
        }
        made
    }

    /// Makes one MTR under the commit lock: `make` fills it, `noted` is told its LSN before the lock is given back. An
    /// MTR with no records is not appended and has no commit.
    pub(crate) fn mutate<T>(
        &self,
        now_us: i64,
        make: impl FnOnce(&mut Edit<'_>, &Conflicts) -> Attempt<T>,
        noted: impl FnOnce(&mut Conflicts, Lsn, &T),
    ) -> Attempt<(T, Option<Commit>)> {
        let mut committing = self.committing.lock();
        let making = self.begin_change()?;
        let Committing {
            space,
            conflicts,
            last_time_us,
            branch,
            counts,
            ..
        } = &mut *committing;
        let vdl = self.volume.vdl();
        let time_us = match planted::is(Fault::ClockTrusted) {
            true => now_us,
            false => now_us.max(last_time_us.saturating_add(1)),
        };
        let mut edit = Edit {
            work: Work::new(
                &self.pool,
                vdl,
                self.volume.origin(),
                self.geometry.page_bytes,
            ),
            space,
            system: &self.system,
            names: &self.names,
            geometry: self.geometry,
            segments: self.volume.segments(),
            at: self.published(),
            counted: Vec::new(),
            time_us,
            branch: *branch,
        };
        let made = make(&mut edit, conflicts).and_then(|made| {
            if edit.work.is_empty() {
                return Ok((made, None));
            }
            let numbered = edit.work.append(&*self.volume, time_us)?;
            *last_time_us = time_us;
            counts.add(&edit.counted);
            Ok((
                made,
                Some(Commit {
                    lsn: numbered.last,
                    time_us,
                    after: numbered.last,
                }),
            ))
        });
        let (made, commit) = match made {
            Ok(made) => made,
            Err(stop) => {
                edit.abandon();
                making.ended();
                return Err(stop);
            }
        };
        if let Some(commit) = commit {
            noted(conflicts, commit.lsn, &made);
            // From here on transactions begin after this commit: all its pages are in the pool.
            self.published.store(commit.lsn.0, Ordering::Release);
        }
        making.ended();
        Ok((made, commit))
    }
}
