//! Work in the background: flush, compact, collect, scrub, repair. It has a byte budget per second and yields.
//!
//! ```text
//!   hot log --flush--> delta layers --compact--> larger ones, images --collect--> below the floor, gone
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aurora_control::retention;
use aurora_page::Lsn;
use aurora_proto::{Job, MetaStore, NodeId, Volume, gossip};
use aurora_redo::{History, PgId};
use aurora_store::{Roots, StoreError};
use parking_lot::{Mutex, MutexGuard};

use crate::Error;
use crate::clock::wall_us;
use crate::cluster::Shared;
use crate::device::Device;
use crate::node::Node;
use crate::recover;
use crate::repair::Repair;
use crate::status::BackgroundStatus;
use crate::volume::GONE;
use crate::waiters::Parker;

/// How often there is a look at what is to be done.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// A device's log is put into layers when it has grown to this, so that opening never has more than 64 MiB to read.
const FLUSH_AT_BYTES: u64 = 40 << 20;
/// Scrub reads this share of the background budget.
const SCRUB_SHARE: u64 = 16;
/// The collection floor is moved this often: each move is a compare-and-swap of the manifest. A window shorter than a few times
/// this is followed more closely.
const FLOOR_EVERY: Duration = Duration::from_secs(5);
/// The floor is not moved more often than this.
const FLOOR_EVERY_MIN: Duration = Duration::from_millis(200);
/// How often the engine's own chores are done.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How long a commit's token is kept: a day.
const TOKEN_KEPT_US: i64 = 24 * 3600 * 1_000_000;

/// What the maintenance thread has to do and has done.
pub(crate) struct Maintenance {
    /// Changed by whoever does the background's work.
    pub(crate) jobs: Mutex<VecDeque<Repair>>,
    thread: Mutex<Option<Arc<Parker>>>,
    flushed_bytes: AtomicU64,
    compacted_bytes: AtomicU64,
    scrubbed_bytes: AtomicU64,
    repaired_records: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Maintenance {
    pub(crate) fn new(jobs: Vec<Job>) -> Maintenance {
        Maintenance {
            jobs: Mutex::new(jobs.into_iter().map(Repair::new).collect()),
            thread: Mutex::new(None),
            flushed_bytes: AtomicU64::new(0),
            compacted_bytes: AtomicU64::new(0),
            scrubbed_bytes: AtomicU64::new(0),
            repaired_records: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    /// Has the thread look at once.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.lock().as_ref() {
            thread.wake();
        }
    }

    /// The History has changed: what each copy lacks is found anew, by gossip.
    pub(crate) fn forget_jobs(&self) {
        self.jobs.lock().clear();
    }

    /// Whether a node is still being given what it lacks.
    pub(crate) fn repairs(&self, node: NodeId) -> bool {
        self.jobs.lock().iter().any(|repair| repair.job.to == node)
    }

    pub(crate) fn status(&self) -> BackgroundStatus {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BackgroundStatus {
            flushed_bytes: get(&self.flushed_bytes),
            compacted_bytes: get(&self.compacted_bytes),
            scrubbed_bytes: get(&self.scrubbed_bytes),
            repaired_records: get(&self.repaired_records),
            last_error: self.last_error.lock().clone(),
        }
    }

    pub(crate) fn note(&self, error: impl ToString) {
        *self.last_error.lock() = Some(error.to_string());
    }
}

/// What the thread remembers from one look to the next.
struct Turn {
    floor_moved: Instant,
    upkept: Instant,
    started: Instant,
    scrub_next: usize,
    /// Bytes that repairs have moved beyond the budget: chunks are whole.
    ahead: u64,
}

impl Shared {
    /// The body of the maintenance thread.
    pub(crate) fn maintain(&self) {
        let parker = Parker::current();
        *self.maintenance.thread.lock() = Some(parker.clone());
        let now = Instant::now();
        let mut turn = Turn {
            floor_moved: now,
            upkept: now,
            started: now,
            scrub_next: 0,
            ahead: 0,
        };
        while !self.is_closed() {
            if let Ok(_work) = self.working() {
                self.maintain_once(&mut turn);
            }
            parker.park(TICK);
        }
    }

    /// The right to work in the background, or why there is nothing to be done.
    pub(crate) fn working(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let work = self.work.lock();
        match &self.read_only {
            _ if self.is_closed() => Err(Error::Closed),
            Some(reason) => Err(Error::ReadOnly {
                reason: reason.clone(),
            }),
            None => Ok(work),
        }
    }

    fn maintain_once(&self, turn: &mut Turn) {
        let elapsed = turn.started.elapsed().min(Duration::from_secs(1));
        turn.started = Instant::now();
        let budget =
            ((self.options.background_bytes_per_s as f64 * elapsed.as_secs_f64()) as u64).max(1);
        self.find_lost();
        self.prepare_and_flush();
        self.volume.flush_pending();
        self.rebuild_lost(false);
        turn.ahead = turn.ahead.saturating_sub(budget);
        let repaired = if turn.ahead == 0 {
            self.repair_some(budget)
        } else {
            0
        };
        turn.ahead += repaired.saturating_sub(budget);
        self.gossip();
        self.send_again();
        self.repair_damage();
        let floor_every = (self.window() / 4).clamp(FLOOR_EVERY_MIN, FLOOR_EVERY);
        if turn.floor_moved.elapsed() >= floor_every {
            turn.floor_moved = Instant::now();
            self.move_floor()
                .unwrap_or_else(|error| self.maintenance.note(error));
        }
        if turn.upkept.elapsed() >= UPKEEP_EVERY {
            turn.upkept = Instant::now();
            self.engine_upkeep();
        }
        // Repairs come first, and do not keep layers from being merged.
        self.rewrite(budget.saturating_sub(repaired).max(budget / 2));
        self.scrub(budget / SCRUB_SHARE, turn);
    }

    /// Does every repair that is pending, now and in the calling thread.
    pub(crate) fn repair_all(&self) -> Result<(), Error> {
        let _work = self.working()?;
        self.find_lost();
        // Once for what the others lack, once for who is lost, once to see that it is done.
        for _ in 0..2 {
            self.gossip();
            self.rebuild_lost(true);
            self.repair_pending()?;
        }
        self.gossip();
        self.repair_damage();
        self.rebuild_lost(true);
        Ok(())
    }

    /// Puts everything into layers, now and in the calling thread.
    pub(crate) fn flush_all(&self) -> Result<(), Error> {
        let _work = self.working()?;
        self.volume
            .devices
            .iter()
            .try_for_each(|device| self.flush(device))
    }

    /// Notices directories that are gone while nothing is committed.
    pub(crate) fn find_lost(&self) {
        for node in self.living() {
            if !node.is_alive() {
                self.volume.lose(&node, GONE);
            }
        }
    }

    /// The nodes that can be read.
    pub(crate) fn living(&self) -> Vec<Arc<Node>> {
        let nodes = self.volume.nodes();
        let living = nodes.iter().filter(|node| !node.is_lost());
        living.cloned().collect()
    }

    /// Keeps spare log files ready and the log within its bound.
    pub(crate) fn prepare_and_flush(&self) {
        for device in &self.volume.devices {
            if let Err(error) = device.log().prepare() {
                self.maintenance.note(error);
            }
            if device.log().used_bytes() >= FLUSH_AT_BYTES
                && let Err(error) = self.flush(device)
            {
                self.maintenance.note(error);
            }
        }
    }

    /// Puts what the nodes of a device hold in memory into layers, then gives up that part of the log.
    pub(crate) fn flush(&self, device: &Device) -> Result<(), Error> {
        let mut nodes = self.living();
        nodes.retain(|node| device.nodes.contains(node.id()));
        let (position, states) = {
            // Everything before a position that is read under this lock has reached the page stores.
            let _io = device.io_unless_stalled()?;
            // Copies hear of the VDL with the next batch, and of the last one never.
            let vdl = self.volume.vdl();
            let states: Vec<_> = nodes
                .iter()
                .map(|node| {
                    node.with_copies(|copies| {
                        copies.iter_mut().for_each(|copy| copy.hear_vdl(vdl))
                    });
                    node.states()
                })
                .collect();
            (device.log().position(), states)
        };
        for (node, (states, unsettled)) in nodes.iter().zip(&states) {
            match node.store.flush_settled(states, *unsettled) {
                Ok(bytes) => drop(
                    self.maintenance
                        .flushed_bytes
                        .fetch_add(bytes, Ordering::Relaxed),
                ),
                Err(error @ StoreError::Full { .. }) => return Err(error.into()),
                // A fault that was injected ends, and the log keeps everything until then.
                Err(error) if node.gate.is_on() => return Err(error.into()),
                Err(error) => {
                    // A node that cannot write its layers has lost them; its peers have theirs.
                    self.volume.lose(node, &error.to_string());
                    self.maintenance.note(error);
                }
            }
        }
        Ok(device.log().trim(position)?)
    }

    /// What collection must keep.
    fn roots(&self) -> Roots {
        let histories: Vec<Arc<History>> = self
            .meta
            .lock()
            .manifest
            .histories()
            .cloned()
            .map(Arc::new)
            .collect();
        Roots {
            histories,
            vdl: self.volume.vdl(),
            floor: self.floor(),
        }
    }

    /// Compacts and collects each node within its share of the budget.
    fn rewrite(&self, budget: u64) {
        let roots = self.roots();
        let share = budget / self.volume.nodes().len().max(1) as u64;
        for node in self.living() {
            let written = node.store.compact(share, &roots).and_then(|compacted| {
                node.store
                    .collect(share.saturating_sub(compacted), &roots)
                    .map(|collected| compacted + collected)
            });
            match written {
                Ok(bytes) => drop(
                    self.maintenance
                        .compacted_bytes
                        .fetch_add(bytes, Ordering::Relaxed),
                ),
                Err(error) => self.maintenance.note(error),
            }
        }
    }

    fn scrub(&self, budget: u64, turn: &mut Turn) {
        let nodes = self.living();
        let Some(node) = nodes.get(turn.scrub_next % nodes.len().max(1)) else {
            return;
        };
        match node.store.scrub(budget) {
            Ok(report) => {
                self.maintenance
                    .scrubbed_bytes
                    .fetch_add(report.bytes, Ordering::Relaxed);
                if report.finished {
                    turn.scrub_next += 1;
                }
                for blob in report.blobs {
                    self.refetch_blob(node, blob);
                }
            }
            Err(error) => self.maintenance.note(error),
        }
    }

    /// Gives each copy that lacks records what a peer has of them.
    fn gossip(&self) {
        for pg in (0..self.volume.segments() as u32).map(PgId) {
            let complete = self.volume.pgcl(pg).min(self.volume.vdl());
            let behind = |node: &&Arc<Node>| {
                node.acknowledges() && !node.gate.is_stalled() && self.scl(node, pg) < complete
            };
            let living = self.living();
            let behind: Vec<_> = living.iter().filter(behind).collect();
            for node in behind.iter().filter(|node| !self.is_filled_by_pages(node)) {
                if let Err(error) = self.gossip_to(node, pg) {
                    self.maintenance.note(error);
                }
            }
        }
    }

    /// Whether a node gets its pages in the background: gossip would bring all of them at once.
    fn is_filled_by_pages(&self, node: &Node) -> bool {
        let waits = || self.rebuilds.waits(node.id());
        self.maintenance.repairs(node.id()) || waits()
    }

    pub(crate) fn scl(&self, node: &Node, pg: PgId) -> Lsn {
        node.with_copies(|copies| {
            copies
                .get(pg.0 as usize)
                .map_or(Lsn::NONE, |copy| copy.scl())
        })
    }

    fn gossip_to(&self, node: &Arc<Node>, pg: PgId) -> Result<(), Error> {
        let mut failed = None;
        for peer in self.peers(node) {
            // The one on record: a node that was away has perhaps not heard of it yet.
            let floor = self.floor();
            let summary = peer.with_copies(|copies| {
                copies
                    .get(pg.0 as usize)
                    .map(|copy| gossip::summary(copy, floor))
            });
            let Some(summary) = summary else { continue };
            let asks = node.with_copies(|copies| {
                copies
                    .get(pg.0 as usize)
                    .map(|copy| gossip::asks(copy, &summary))
            });
            for ask in asks.into_iter().flatten() {
                let gap = ask.gap;
                // Above the VDL the writer's own batches may still be on their way.
                let upto = gap.upto.min(self.volume.vdl());
                // And a peer speaks only for what it has on disk.
                let vouched = peer.with_copies(|copies| {
                    copies
                        .get(pg.0 as usize)
                        .and_then(|copy| copy.vouches(&gap))
                });
                let Some(upto) = vouched
                    .map(|vouched| upto.min(vouched))
                    .filter(|upto| *upto > gap.after)
                else {
                    continue;
                };
                let job = Job {
                    pg,
                    from: peer.id(),
                    to: node.id(),
                    after: gap.after,
                    upto,
                    pages: gap.after < floor,
                };
                let manifest = self.meta.lock().manifest.clone();
                let volume = &self.volume;
                match recover::hydrate(
                    &manifest,
                    &volume.nodes(),
                    &volume.devices,
                    &job,
                    volume.vdl(),
                    false,
                ) {
                    Ok(ack) => {
                        self.maintenance
                            .repaired_records
                            .fetch_add(upto.0 - gap.after.0, Ordering::Relaxed);
                        volume.acknowledge_one(node, ack);
                    }
                    // Another peer may have it whole.
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Moves the collection floor to what the window and the open read points allow. The manifest first, then the nodes: a floor
    /// that is not on record must not be collected to.
    fn move_floor(&self) -> Result<(), Error> {
        let window_us = i64::try_from(self.window().as_micros()).unwrap_or(i64::MAX);
        let mut meta = self.meta.lock();
        // Under the manifest's lock: a view that begins later asks for the floor, and finds the new one.
        let oldest = self.instances.oldest_read_point();
        let start_us = wall_us().saturating_sub(window_us);
        if start_us <= meta.manifest.created_us {
            return Ok(());
        }
        // Histories that a snapshot lies on stay: they know which nodes have all of it.
        if let Some(next) = meta.manifest.forgetting(start_us) {
            meta.store.cas(meta.manifest.version, &next)?;
            meta.manifest = next;
        }
        let history = self.volume.history();
        let points = self
            .living()
            .into_iter()
            .filter_map(|node| node.store.lsn_at(start_us, &history).ok().flatten());
        let Some(window_start) = points.map(|point| point.lsn).max() else {
            return Ok(());
        };
        let roots = retention::Roots {
            vdl: self.volume.vdl(),
            open_reads: vec![oldest],
            window_start,
            pinned: self.pinned(),
        };
        let floor = retention::collection_floor(&meta.manifest, &roots);
        if let Some(next) = meta.manifest.with_floor(floor) {
            meta.store.cas(meta.manifest.version, &next)?;
            meta.manifest = next;
        }
        Ok(())
    }

    /// What is to be uploaded yet.
    fn pinned(&self) -> Vec<Lsn> {
        let backup = self.options.backup.as_ref();
        backup.map(|_| self.backups.pinned()).into_iter().collect()
    }

    /// The engine's own chores: old commit tokens, extents of loads that never ended.
    fn engine_upkeep(&self) {
        let before_us = wall_us() - TOKEN_KEPT_US;
        let chores = [
            self.serve(|engine| engine.purge_tokens(before_us, wall_us()).map(|_| ())),
            self.serve(|engine| engine.sweep(wall_us()).map(|_| ())),
        ];
        for error in chores.into_iter().filter_map(Result::err) {
            self.maintenance.note(error);
        }
    }
}
