//! The volume of an embedded cluster, and its group commit.
//!
//! ```text
//!   append (in the engine's commit section)   numbers an MTR, no I/O
//!   wait                                      one waiting thread leads: it takes every pending batch, offers it to the copies,
//!                                             writes and syncs each log device once, hands the store's tokens to the copies, and
//!                                             their acknowledgements to the writer; the VDL moves; everybody it covers wakes
//! ```
//! With one log device the leader writes it itself: a commit then costs one write and one sync, and no thread hop. With several,
//! each has a thread, and the commit waits for the quorum and not for the slowest [9].

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use aurora_page::{Geometry, Lsn, PageId, VolumeId};
use aurora_proto::{
    Ack, Membership, NodeId, NodeInfo, NodeSet, Numbered, Points, Refuse, Refused, Volume, Writer,
};
use aurora_redo::{BlobId, History, Mtr, PgBatch, PgId};
use aurora_store::{LogEntry, LogError, Ticket};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::Error;
use crate::changes::ChangeClock;
use crate::completions::CompletionQueue;
use crate::device::{Device, Offered};
use crate::faults::fates::{Fate, Fates};
use crate::faults::late::Late;
use crate::hydrate::referenced;
use crate::lock::{DirectoryLock, LOCK_FILE};
use crate::node::Node;
use crate::recover::first_acks;
use crate::removals::Removals;
use crate::stream::Stream;
use crate::waiters::{Parker, Waiters};

/// How long a thread waits before it asks its interrupt again.
pub(crate) const INTERRUPT_EVERY: Duration = Duration::from_millis(50);

/// Why no more commits become durable.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// A newer epoch owns the volume.
    Fenced { by: u64 },
    /// Too few copies are left.
    QuorumLost,
    /// No room for the log; goes on when there is.
    DiskFull { path: std::path::PathBuf },
    /// The log device failed and is not written again.
    LogFailed { detail: String },
    /// It was opened for reading.
    ReadOnly { reason: String },
    /// The cluster was closed.
    Closed,
}

/// What makes this process the owner of the directory.
pub(crate) struct Owner {
    pub(crate) lock: Weak<DirectoryLock>,
    pub(crate) file: PathBuf,
}

/// Why a node is lost whose directory, or the identity in it, has no name any more.
pub(crate) const GONE: &str = "its directory is gone";

/// The volume: protocol cores and the devices they are written to.
pub struct EmbeddedVolume {
    origin: VolumeId,
    /// The volume epoch; it changes with the branch, under the writer's lock.
    epoch: AtomicU64,
    geometry: Geometry,
    /// Gone once the cluster has given the directory up; none on memory disks.
    pub(crate) owner: OnceLock<Owner>,
    /// Of the lock and of the nodes' identity files.
    pub(crate) removals: Removals,
    pub(crate) writer: Mutex<Writer>,
    /// Changed under the writer's lock.
    vdl: AtomicU64,
    /// What became of every LSN at or below it is known, though the VDL may lie below it since a branch.
    settled: AtomicU64,
    /// A branch is under way: nothing is numbered.
    branching: AtomicBool,
    numbered: AtomicU64,
    segments: AtomicU64,
    /// The writer has crashed: no acknowledgement counts until the next one is there. Changed under the writer's lock.
    halted: AtomicBool,
    /// Who is told of a commit, where a crash came between.
    pub(crate) fates: Fates,
    /// Batches on their way to nodes whose disks are slow.
    pub(crate) late: Late,
    history: RwLock<Arc<History>>,
    /// The nodes that are here. One that was lost stays until another making of it takes its place.
    pub(crate) nodes: RwLock<Arc<[Arc<Node>]>>,
    /// The nodes there should be.
    pub(crate) members: Vec<NodeInfo>,
    pub(crate) devices: Vec<Arc<Device>>,
    /// Held by the one thread that sends.
    lead: Mutex<()>,
    waiters: Waiters,
    pub(crate) completions: CompletionQueue,
    /// What replicas follow.
    pub(crate) stream: Stream,
    failure: RwLock<Option<Failure>>,
    failed: AtomicBool,
    /// When pages changed last, for caches of scans.
    pub(crate) changes: ChangeClock,
    /// The thread that leads for commits that no thread waits for.
    log_thread: Mutex<Option<Arc<Parker>>>,
}

impl EmbeddedVolume {
    pub(crate) fn new(
        writer: Writer,
        geometry: Geometry,
        history: Arc<History>,
        nodes: Vec<Arc<Node>>,
        devices: Vec<Arc<Device>>,
        members: &[NodeInfo],
    ) -> Result<EmbeddedVolume, Error> {
        let completions =
            CompletionQueue::new().map_err(|source| Error::io("eventfd".as_ref(), source))?;
        let since = writer.vdl().max(writer.numbered());
        Ok(EmbeddedVolume {
            origin: writer.origin(),
            epoch: AtomicU64::new(writer.epoch()),
            geometry,
            owner: OnceLock::new(),
            removals: Removals::default(),
            vdl: AtomicU64::new(writer.vdl().0),
            settled: AtomicU64::new(0),
            branching: AtomicBool::new(false),
            numbered: AtomicU64::new(writer.numbered().0),
            segments: AtomicU64::new(writer.pgs() as u64),
            stream: Stream::new(writer.numbered()),
            writer: Mutex::new(writer),
            halted: AtomicBool::new(false),
            fates: Fates::default(),
            late: Late::default(),
            history: RwLock::new(history),
            nodes: RwLock::new(nodes.into()),
            members: members.to_vec(),
            devices,
            lead: Mutex::default(),
            waiters: Waiters::default(),
            completions,
            failure: RwLock::new(None),
            failed: AtomicBool::new(false),
            changes: ChangeClock::new(since),
            log_thread: Mutex::new(None),
        })
    }

    /// The present History.
    pub(crate) fn history(&self) -> Arc<History> {
        self.history.read().clone()
    }

    /// The volume epoch of this owner.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What became of everything up to here is known: it is durable, or was left by a branch.
    fn known(&self) -> Lsn {
        self.vdl().max(Lsn(self.settled.load(Ordering::Acquire)))
    }

    /// From now on nothing is numbered, until [`EmbeddedVolume::resume`]: whoever tries is told to begin again.
    pub(crate) fn pause(&self) {
        let _writer = self.writer.lock();
        self.branching.store(true, Ordering::Release);
    }

    /// Ends a pause.
    pub(crate) fn resume(&self) {
        let mut writer = self.writer.lock();
        self.branching.store(false, Ordering::Release);
        if self.halted.swap(false, Ordering::AcqRel) {
            // The crash did not come about: what was acknowledged meanwhile counts after all.
            first_acks(&mut writer, &self.nodes());
            self.vdl.fetch_max(writer.vdl().0, Ordering::AcqRel);
        }
    }

    /// The writer crashes: nothing more is numbered, and no acknowledgement counts any more, until [`EmbeddedVolume::switch`] or
    /// [`EmbeddedVolume::resume`]. Gives the VDL that stays.
    pub(crate) fn halt(&self) -> Lsn {
        let writer = self.writer.lock();
        self.branching.store(true, Ordering::Release);
        self.halted.store(true, Ordering::Release);
        writer.vdl()
    }

    /// Whether the writer is crashing.
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// Numbers a commit after which the writer crashes. Whether anybody hears of it is then open; with `lost` it does not even
    /// reach storage. False for a commit that has nothing to make durable.
    pub(crate) fn crash_within<T, E>(
        &self,
        lost: bool,
        commit: impl FnOnce() -> Result<T, E>,
        place: impl FnOnce(&T) -> Lsn,
    ) -> Result<(T, bool), E> {
        // Nothing is sent as long as the lead is held.
        let _lead = self.lead.lock();
        let before = self.numbered();
        let made = commit()?;
        let last = place(&made);
        if last <= before {
            return Ok((made, false));
        }
        self.fates.hold(before.next(), last);
        if lost {
            self.halt();
        }
        Ok((made, true))
    }

    /// Goes over to another branch: its writer, and the copies, which `install` has take epoch and History under the writer's
    /// lock, so that no acknowledgement of the one is counted for the other. Nothing is in flight, and nothing is numbered.
    pub(crate) fn switch(&self, history: Arc<History>, install: impl FnOnce() -> Writer) {
        {
            let mut writer = self.writer.lock();
            let was_numbered = writer.numbered();
            *writer = install();
            // Under the lock: what is newer must not be overwritten by what is older.
            writer.set_lost(self.mute());
            if self.halted.swap(false, Ordering::AcqRel) {
                // Before anything above them is durable.
                self.fates.forget(writer.vdl().next(), was_numbered);
            }
            self.settled
                .fetch_max(history.first_new_lsn().prev().0, Ordering::AcqRel);
            *self.history.write() = history;
            self.vdl.store(writer.vdl().0, Ordering::Release);
            self.numbered.store(writer.numbered().0, Ordering::Release);
            self.epoch.store(writer.epoch(), Ordering::Release);
        }
        self.completions.advance(self.known(), &self.fates);
        self.waiters.wake_all();
    }

    /// VDL, VCL, allocated and LAL.
    pub(crate) fn points(&self) -> Points {
        self.writer.lock().points()
    }

    /// The members of a group that can serve a read at `at`.
    pub(crate) fn readable(&self, pg: PgId, at: Lsn) -> NodeSet {
        self.writer.lock().readable(pg, at)
    }

    /// Whether these nodes are a write quorum of a group.
    pub(crate) fn is_write_quorum(&self, pg: PgId, nodes: NodeSet) -> bool {
        self.writer
            .lock()
            .membership(pg)
            .is_some_and(|members| members.write_quorum().satisfied(nodes))
    }

    /// Up to where a write quorum of a group has everything.
    pub(crate) fn pgcl(&self, pg: PgId) -> Lsn {
        self.writer.lock().pgcl(pg)
    }

    /// The newest record of a group.
    pub(crate) fn tail(&self, pg: PgId) -> Lsn {
        self.writer.lock().tail(pg)
    }

    /// The volume grew: the manifest with the new group is written.
    pub(crate) fn add_segment(&self, members: Membership) {
        let history = self.history();
        let mut writer = self.writer.lock();
        let pg = PgId(writer.pgs() as u32);
        for node in self.nodes().iter() {
            node.add_copy(pg, self.epoch(), &history);
        }
        writer.add_pg(members);
        self.segments.store(writer.pgs() as u64, Ordering::Release);
    }

    /// Why the volume takes no commits, if it does not.
    pub(crate) fn failure(&self) -> Option<Failure> {
        if self.failed.load(Ordering::Acquire) {
            self.failure.read().clone()
        } else {
            None
        }
    }

    fn is_read_only(&self) -> bool {
        matches!(self.failure(), Some(Failure::ReadOnly { .. }))
    }

    /// The failure as an error for a caller.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.failure() {
            None => Ok(()),
            Some(failure) => Err(self.error_of(&failure)),
        }
    }

    fn error_of(&self, failure: &Failure) -> Error {
        match failure {
            Failure::Fenced { by } => Error::Fenced { by: *by },
            Failure::QuorumLost => self.quorum_lost(),
            Failure::DiskFull { path } => Error::DiskFull { path: path.clone() },
            Failure::LogFailed { detail } => Error::LogFailed {
                detail: detail.clone(),
            },
            Failure::ReadOnly { reason } => Error::ReadOnly {
                reason: reason.clone(),
            },
            Failure::Closed => Error::Closed,
        }
    }

    /// Ends the volume: every waiter gets an error, nothing more becomes durable. The first reason stays.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut place = self.failure.write();
        if place.is_none() || matches!(*place, Some(Failure::DiskFull { .. })) {
            *place = Some(failure);
            self.failed.store(true, Ordering::Release);
        }
        let reason = place.clone();
        drop(place);
        if let Some(reason) = reason {
            self.completions
                .fail(self.vdl(), &self.fates, || self.error_of(&reason));
        }
        self.waiters.wake_all();
    }

    /// Refuses when no commit can become durable; after a full disk, tries the disk first.
    pub(crate) fn check_or_retry(&self) -> Result<(), Error> {
        if matches!(self.failure(), Some(Failure::DiskFull { .. })) {
            self.flush_pending();
        }
        self.check()
    }

    /// Waits a little for the VDL to pass `vdl`, leading if it must: how back-pressure is waited out.
    pub(crate) fn wait_past(
        &self,
        vdl: Lsn,
        limit: Duration,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.check()?;
        if self.known() > vdl || self.try_lead() {
            return Ok(());
        }
        let parker = Parker::current();
        self.waiters.register(vdl.next(), &parker);
        if self.known() <= vdl {
            parker.park(limit);
        }
        self.waiters.unregister(&parker);
        if interrupt() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }

    /// One of several devices is full. Commits go on while the others make a write quorum.
    pub(crate) fn device_full(&self, path: std::path::PathBuf) {
        if self.is_blocked_without(self.mute().union(self.full())) {
            self.fail(Failure::DiskFull { path });
        }
    }

    /// The nodes on devices that hold back what they had no room for.
    fn full(&self) -> NodeSet {
        let full = self.devices.iter().filter(|device| device.has_held());
        full.fold(NodeSet::EMPTY, |set, device| set.union(device.nodes))
    }

    pub(crate) fn is_blocked_without(&self, nodes: NodeSet) -> bool {
        let writer = self.writer.lock();
        (0..writer.pgs()).any(|pg| {
            let members = writer.membership(PgId(pg as u32));
            members.is_some_and(|members| members.write_quorum().blocked(nodes))
        })
    }

    /// Room was found again, on a device at least.
    fn recovered(&self) {
        if !self.failed.load(Ordering::Acquire) || self.is_blocked_without(self.full()) {
            return;
        }
        let mut place = self.failure.write();
        if matches!(*place, Some(Failure::DiskFull { .. })) {
            *place = None;
            self.failed.store(false, Ordering::Release);
        }
    }

    /// Waits until `lsn` is durable; the calling thread may lead the group commit meanwhile.
    ///
    /// # Errors
    /// The failure of the volume, or [`Error::Interrupted`]; the commit's fate is then unknown until the cluster is opened again.
    pub(crate) fn wait(&self, lsn: Lsn, interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        self.wait_for(lsn, interrupt, false)
    }

    /// The same for whoever made the commit: of one that the writer crashed on, nobody is told.
    pub(crate) fn wait_told(&self, lsn: Lsn, interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        self.wait_for(lsn, interrupt, true)
    }

    /// Whether a committer may be told, without waiting, that everything up to `lsn` is durable.
    #[inline]
    pub(crate) fn is_told(&self, lsn: Lsn) -> bool {
        self.vdl() >= lsn && self.fates.of(lsn) == Fate::Told
    }

    /// Whether what ends at `lsn` is durable, and was not lost in a crash of the writer.
    #[inline]
    pub(crate) fn is_there(&self, lsn: Lsn) -> bool {
        self.vdl() >= lsn && self.fates.of(lsn) != Fate::Gone
    }

    /// What is known of an LSN, for its committer or for others; `None` as long as it is open.
    fn outcome(&self, lsn: Lsn, committer: bool) -> Option<Result<(), Error>> {
        if self.known() < lsn {
            return None;
        }
        match self.fates.of(lsn) {
            Fate::Gone => Some(Err(Error::WriterCrashed)),
            Fate::Untold if committer => Some(Err(Error::WriterCrashed)),
            Fate::Later if committer => None,
            _ => Some(Ok(())),
        }
    }

    fn wait_for(
        &self,
        lsn: Lsn,
        interrupt: &dyn Fn() -> bool,
        committer: bool,
    ) -> Result<(), Error> {
        loop {
            if let Some(outcome) = self.outcome(lsn, committer) {
                return outcome;
            }
            self.check()?;
            if self.try_lead() {
                continue;
            }
            let parker = Parker::current();
            self.waiters.register(lsn, &parker);
            // The second look: whatever a leader did before the registration shows here.
            let led = self.known() < lsn && !self.failed.load(Ordering::Acquire) && self.try_lead();
            let told = self.outcome(lsn, committer).is_some();
            let woken = led || told || parker.park(INTERRUPT_EVERY);
            self.waiters.unregister(&parker);
            if !woken && interrupt() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Reports `lsn` to the completion queue under `id` when it is durable.
    pub(crate) fn notify(&self, lsn: Lsn, id: u64) {
        self.completions.register(lsn, id);
        if self.known() >= lsn {
            self.completions.advance(self.known(), &self.fates);
        } else if let Some(failure) = self.failure() {
            self.completions
                .fail(self.vdl(), &self.fates, || self.error_of(&failure));
        } else if let Some(thread) = self.log_thread.lock().as_ref() {
            thread.wake();
        }
    }

    /// The body of the log thread: leads whenever commits are pending that an event loop waits for.
    pub(crate) fn run_log_thread(&self, stop: &AtomicBool) {
        let parker = Parker::current();
        *self.log_thread.lock() = Some(parker.clone());
        while !stop.load(Ordering::Acquire) {
            if !self.completions.is_waiting()
                || self.failure().is_some()
                || self.numbered() <= self.vdl()
            {
                parker.park(INTERRUPT_EVERY);
                continue;
            }
            let lead = self.lead.lock();
            let sent = self.round();
            drop(lead);
            self.waiters.advance(self.vdl());
            if !sent {
                parker.park(INTERRUPT_EVERY);
            }
        }
    }

    /// Wakes every thread of the volume, so that it looks at its stop flag.
    pub(crate) fn wake_threads(&self) {
        self.wake_log_thread();
        self.devices.iter().for_each(|device| device.wake());
    }

    /// Wakes the log thread, so that it looks at its stop flag.
    fn wake_log_thread(&self) {
        if let Some(thread) = self.log_thread.lock().as_ref() {
            thread.wake();
        }
    }

    /// Sends everything pending and waits for none: what closes a cluster, and what tries again after a full disk.
    pub(crate) fn flush_pending(&self) {
        let lead = self.lead.lock();
        self.round();
        drop(lead);
        self.waiters.advance(self.vdl());
    }

    /// Leads one round if no other thread does; true when something was sent.
    fn try_lead(&self) -> bool {
        let Some(lead) = self.lead.try_lock() else {
            return false;
        };
        let sent = self.round();
        drop(lead);
        self.waiters.advance(self.vdl());
        sent
    }

    /// Sends every pending batch to every device. With one device, its acknowledgements are in when this returns.
    fn round(&self) -> bool {
        // What was numbered on a volume that may not be written, by whoever did not ask, goes nowhere.
        if self.is_read_only() {
            return false;
        }
        let mut batches = Vec::new();
        {
            let mut writer = self.writer.lock();
            while let Some(batch) = writer.poll_send() {
                batches.push(batch);
            }
        }
        match self.devices.as_slice() {
            [only] if batches.is_empty() && !only.has_held() => false,
            [only] => match self.write(only, &batches) {
                Err(LogError::Full { path, .. }) => {
                    self.fail(Failure::DiskFull { path });
                    false
                }
                _ => true,
            },
            devices => {
                let vdl = self.vdl();
                devices
                    .iter()
                    .for_each(|device| device.enqueue(&batches, vdl));
                !batches.is_empty()
            }
        }
    }

    /// Writes batches to one device and acknowledges them: offer, persist, ingest, acknowledge, in this order [8].
    ///
    /// What the device had no room for is held with its tickets, and goes before everything else at the next attempt.
    pub(crate) fn write(&self, device: &Device, batches: &[Arc<PgBatch>]) -> Result<(), LogError> {
        self.write_to(device, batches, None)
    }

    /// The same for one of the device's nodes alone, unless the device stands still; or for all of them.
    pub(crate) fn write_to(
        &self,
        device: &Device,
        batches: &[Arc<PgBatch>],
        only: Option<NodeId>,
    ) -> Result<(), LogError> {
        if !self.removals.none() && !self.is_owner() {
            return Ok(());
        }
        let io = match only {
            None => device.io.lock(),
            // By whoever does the background's work: a disk that stands still must not hold up what is done for the others.
            Some(_) => match device.io_unless_stalled() {
                Ok(io) => io,
                Err(_) => return Ok(()),
            },
        };
        let nodes = self.nodes();
        let mut offered = device.take_held();
        self.offer(&nodes, device, batches, only, &mut offered);
        let appended = match device.append(&offered.entries) {
            Ok(appended) => appended,
            Err(error @ LogError::Full { .. }) => {
                device.hold(offered);
                return Err(error);
            }
            Err(error) => {
                drop(io);
                self.device_failed(&nodes, device, &error);
                return Err(error);
            }
        };
        for (batch, node, fresh) in &offered.taken {
            node.ingest(batch, fresh);
        }
        drop(io);
        self.recovered();
        // Once more: what was removed during the write may have let a second owner in.
        let complete = self.removals.none();
        if !complete && !self.is_owner() {
            return Ok(());
        }
        let alive: SmallVec<[NodeId; 6]> = match complete {
            true => logged(&nodes, device).map(|node| node.id()).collect(),
            false => self.living(&nodes, device).map(|node| node.id()).collect(),
        };
        let mut acks: SmallVec<[(&Node, Ack); 12]> = SmallVec::new();
        for token in appended.tokens {
            if alive.contains(&token.node())
                && let Some(node) = nodes.iter().find(|node| node.id() == token.node())
            {
                acks.extend(node.persisted(token).map(|ack| (&**node, ack)));
            }
        }
        self.acknowledge(&acks);
        Ok(())
    }

    /// Whether this process still owns the directory; if not, nothing is acknowledged from now on.
    fn is_owner(&self) -> bool {
        let held = self
            .owner
            .get()
            .is_none_or(|owner| owner.lock.upgrade().is_some_and(|lock| lock.is_held()));
        if !held {
            let reason = format!(
                "{LOCK_FILE} was removed while the cluster was open, so another process may own the directory"
            );
            self.fail(Failure::ReadOnly { reason });
        }
        held
    }

    /// Offers batches to the copies on a device, and notes what they took.
    fn offer(
        &self,
        nodes: &[Arc<Node>],
        device: &Device,
        batches: &[Arc<PgBatch>],
        only: Option<NodeId>,
        offered: &mut Offered,
    ) {
        for batch in batches {
            let mut tickets: SmallVec<[Ticket; 6]> = SmallVec::new();
            let blobs: SmallVec<[BlobId; 2]> = referenced(&batch.records).collect();
            let takers = self.takers(nodes, device, only, batch);
            for node in takers.filter(|node| !node.lacks(&blobs)) {
                match node.receive(batch) {
                    // A copy that has all of it already waits for the token of the first time.
                    Ok(accepted) if accepted.is_duplicate() => {}
                    Ok(accepted) => {
                        tickets.push(Ticket {
                            node: node.id(),
                            pg: batch.pg,
                            number: accepted.ticket,
                        });
                        offered
                            .taken
                            .push((batch.clone(), node.clone(), accepted.fresh));
                    }
                    // Sent before the volume went over to another branch, to a device that is slow: others have it.
                    Err(Refuse::StaleEpoch { have, .. }) if have <= self.epoch() => {}
                    Err(Refuse::StaleEpoch { have, .. }) => self.fenced(have),
                    Err(refuse) => self.lose(node, &format!("it refused {}: {refuse}", batch.pg)),
                }
            }
            if !tickets.is_empty() {
                offered
                    .entries
                    .push(LogEntry::batch(batch.clone(), tickets));
            }
        }
    }

    /// The nodes of a device that a batch reaches now.
    fn takers<'a>(
        &'a self,
        nodes: &'a [Arc<Node>],
        device: &'a Device,
        only: Option<NodeId>,
        batch: &'a Arc<PgBatch>,
    ) -> impl Iterator<Item = &'a Arc<Node>> {
        logged(nodes, device).filter(move |node| match only {
            None => self.comes_through(node, batch),
            // What comes late, or once more, has been through that.
            Some(id) => node.id() == id && !node.gate.is_closed() && !node.gate.is_stalled(),
        })
    }

    /// The nodes of a device whose directories are still there; those found gone are lost from now on.
    fn living<'a>(
        &'a self,
        nodes: &'a [Arc<Node>],
        device: &'a Device,
    ) -> impl Iterator<Item = &'a Arc<Node>> {
        logged(nodes, device).filter(|node| {
            let alive = node.is_alive();
            if !alive {
                self.lose(node, GONE);
            }
            alive
        })
    }

    fn acknowledge(&self, acks: &[(&Node, Ack)]) {
        let mut writer = self.writer.lock();
        if self.halted.load(Ordering::Acquire) {
            return;
        }
        // Under the lock: what a lost node has said must not count for the one that is made in its place.
        for (_, ack) in acks.iter().filter(|(node, _)| node.has_log()) {
            writer.on_ack(ack.node, ack);
        }
        let fenced = writer.fenced_by();
        let vdl = writer.vdl();
        // Under the lock: a branch may set it back.
        let moved = self.vdl.fetch_max(vdl.0, Ordering::AcqRel) < vdl.0;
        drop(writer);
        if let Some(by) = fenced {
            self.fenced(by);
        }
        if moved {
            self.completions.advance(vdl, &self.fates);
            self.stream.wake();
        }
    }

    /// What a copy of this node acknowledges outside a round: after gossip or hydration.
    pub(crate) fn acknowledge_one(&self, node: &Node, ack: Ack) {
        self.acknowledge(&[(node, ack)]);
        self.waiters.advance(self.vdl());
    }

    /// What committers are told has changed.
    pub(crate) fn wake_committers(&self) {
        self.completions.advance(self.known(), &self.fates);
        self.waiters.wake_all();
    }

    /// After the VDL has moved on another thread.
    pub(crate) fn wake_waiters(&self) {
        self.waiters.advance(self.vdl());
    }

    /// Somebody follows the writer from here on; gives the newest LSN before what will be told.
    pub(crate) fn join_stream(&self, id: u64) -> Lsn {
        let writer = self.writer.lock();
        let tip = writer.numbered();
        self.stream.join(id, tip);
        tip
    }

    fn fenced(&self, by: u64) {
        self.writer.lock().on_fenced(by);
        self.fail(Failure::Fenced { by });
    }

    /// What a node may have missed of what is on its way to a quorum. What is there, it gets from its peers.
    pub(crate) fn missed(&self, node: &Node) -> Vec<Arc<PgBatch>> {
        let scls = node.with_copies(|copies| {
            let scl = |copy: &aurora_proto::Copy| (copy.state().pg, copy.scl());
            copies.iter().map(scl).collect::<Vec<_>>()
        });
        let writer = self.writer.lock();
        let missed = scls.into_iter().map(|(pg, scl)| writer.resend(pg, scl));
        missed.flatten().collect()
    }
}

/// The nodes of a device whose log is there, as far as is known.
fn logged<'a>(nodes: &'a [Arc<Node>], device: &'a Device) -> impl Iterator<Item = &'a Arc<Node>> {
    let here = nodes.iter().filter(|node| device.nodes.contains(node.id()));
    here.filter(|node| node.has_log())
}

impl Volume for EmbeddedVolume {
    fn origin(&self) -> VolumeId {
        self.origin
    }

    fn vdl(&self) -> Lsn {
        Lsn(self.vdl.load(Ordering::Acquire))
    }

    fn numbered(&self) -> Lsn {
        Lsn(self.numbered.load(Ordering::Acquire))
    }

    fn spent(&self) -> Lsn {
        self.numbered().max(self.history().first_new_lsn().prev())
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn segments(&self) -> u64 {
        self.segments.load(Ordering::Acquire)
    }

    fn append(&self, mtr: Mtr) -> Result<Numbered, Refused> {
        // A reader has fenced nobody: it would number what the owner numbers. Asked why, the volume says that it is read-only.
        if self.is_read_only() {
            return Err(Refused::QuorumLost {
                missing: NodeSet::EMPTY,
            });
        }
        let pages: SmallVec<[PageId; 8]> = mtr.records.iter().map(|record| record.page).collect();
        let mut writer = self.writer.lock();
        if self.branching.load(Ordering::Acquire) {
            return Err(Refused::Branching);
        }
        let followed = self.stream.is_on().then(|| mtr.clone());
        let numbered = writer.append(mtr)?;
        // Under the lock: before any of it can be durable, and a scan's read point beyond it.
        self.changes.mark(&pages, numbered.last);
        self.numbered.store(numbered.last.0, Ordering::Release);
        if let Some(mtr) = followed.filter(|mtr| !mtr.is_empty()) {
            self.stream.push(numbered, self.origin, mtr);
        }
        Ok(numbered)
    }
}
