//! The thread that keeps a backup up to date: log ranges and manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aurora_control::backup::{self as decide, Era};
use aurora_page::Lsn;
use aurora_proto::{Manifest, Volume};
use aurora_redo::{BlobId, History, PgId};
use aurora_store::{LogRange, StoreError};

use super::base::BaseJob;
use super::format::{
    BackupManifest, CHANGES_MAX, EraEntry, FORMAT_NAME, FormatObject, LogEntry, ObjectEntry,
    Restorable, SnapshotEntry, VolumeFacts, manifest_name, manifest_number,
};
use super::pack::{self, FORMAT, pack, unpack};
use super::place::{ObjectPlace, PlaceError, PlaceFault};
use super::{BackupOptions, State};
use crate::Error;
use crate::clock::wall_us;
use crate::cluster::Shared;
use crate::create::random_u64;
use crate::node::Node;
use crate::waiters::Parker;

/// A look while there is something to upload; what is committed meanwhile goes together.
const EVERY: Duration = Duration::from_secs(1);
/// After a failure, twice as long each time.
const BACK_OFF: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// A manifest is written after this time in any case: a time up to it can be restored, though nothing was committed.
const HEARTBEAT_US: i64 = 60_000_000;
/// Records of one range in memory, at most.
const RANGE_BYTES: u64 = 64 << 20;
/// What nobody needs any more is looked for this often.
const RETIRE_EVERY: Duration = Duration::from_secs(60);

/// Why a step of the backup did not go well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{name}: {error}")]
    Place { name: String, error: PlaceError },
    #[error("object {name} is damaged {damage}")]
    Damaged { name: String, damage: pack::Damaged },
    /// Whatever lies there must not be written to.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Cluster(#[from] Error),
    #[error("packing: {0}")]
    Pack(#[from] std::io::Error),
}

impl Failed {
    /// For whoever asked for this backup.
    pub(crate) fn of(self, options: &BackupOptions) -> Error {
        match self {
            Failed::Cluster(error) => error,
            other => options.failed(other),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        Failed::Cluster(error.into())
    }
}

impl From<aurora_redo::RedoError> for Failed {
    fn from(error: aurora_redo::RedoError) -> Failed {
        Failed::Refused(format!("a History in a manifest: {error}"))
    }
}

pub(crate) fn at(name: &str) -> impl FnOnce(PlaceError) -> Failed + '_ {
    move |error| Failed::Place {
        name: name.into(),
        error,
    }
}

/// What the cluster is at one moment.
pub(super) struct Moment {
    pub(super) manifest: Manifest,
    pub(super) vdl: Lsn,
}

/// The backup of one cluster, as its owner sees it.
pub(super) struct Uploader<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) options: &'a BackupOptions,
    pub(super) place: Arc<dyn ObjectPlace>,
    /// What the newest manifest says, in full.
    pub(super) known: BackupManifest,
    /// The newest one that is whole.
    pub(super) whole: BackupManifest,
    pub(super) base: Option<BaseJob>,
    retired: Option<Instant>,
    swept: bool,
    /// Objects that no manifest names since then. Whoever restores with an earlier manifest may still read them.
    doomed: Vec<(Instant, String)>,
}

impl Shared {
    /// The body of the backup thread.
    pub(crate) fn back_up(self: &Arc<Shared>) {
        let Some(options) = &self.options.backup else {
            return;
        };
        let parker = Parker::current();
        *self.backups.thread.lock() = Some(parker.clone());
        let mut uploader = None;
        let mut failures = 0_u32;
        while !self.is_closed() {
            let done = Shared::look(self, options, &mut uploader);
            if self.is_closed() {
                break;
            }
            let wait = match &done {
                Ok(()) => EVERY,
                Err(_) => BACK_OFF_MAX.min(BACK_OFF * 2_u32.saturating_pow(failures.min(16))),
            };
            self.tell(options, &done, &mut failures);
            if let Err(Failed::Refused(_)) = done {
                return;
            }
            parker.park(wait);
        }
        if let Some(mut uploader) = uploader {
            uploader.end();
        }
    }

    fn look<'a>(
        shared: &'a Arc<Shared>,
        options: &'a BackupOptions,
        uploader: &mut Option<Uploader<'a>>,
    ) -> Result<(), Failed> {
        let uploader = match uploader {
            Some(uploader) => uploader,
            None => uploader.insert(Uploader::connect(shared, options)?),
        };
        uploader.step()
    }

    /// Shows how a round went.
    fn tell(&self, options: &BackupOptions, done: &Result<(), Failed>, failures: &mut u32) {
        let events = &self.instances.events;
        let (state, error) = match done {
            Ok(()) => (State::Running, None),
            Err(error @ Failed::Refused(_)) => (State::Refused, Some(error.to_string())),
            Err(error) => (State::Failing, Some(error.to_string())),
        };
        match (&error, *failures) {
            (Some(error), 0) => {
                events.note("backup failed", &options.url, Some(error.clone()), None)
            }
            (None, 1..) => events.note("backup goes on", &options.url, None, None),
            _ => {}
        }
        *failures = error.as_ref().map_or(0, |_| failures.saturating_add(1));
        self.backups.update(|reached| {
            reached.state = state;
            reached.last_error = error;
            reached.rounds += 1;
            // What is never uploaded need not be kept for it.
            if state == State::Refused {
                reached.pinned = Some(Lsn::MAX);
            }
        });
    }
}

impl<'a> Uploader<'a> {
    /// Reads what is there, or begins.
    fn connect(
        shared: &'a Arc<Shared>,
        options: &'a BackupOptions,
    ) -> Result<Uploader<'a>, Failed> {
        let place = options.place(true)?;
        *shared.backups.place.lock() = Some(place.clone());
        if shared.is_closed() {
            place.stop();
        }
        let moment = moment(shared);
        let wanted = format_object(&moment.manifest, options);
        let found = match place.get(FORMAT_NAME) {
            Ok(bytes) => read_format(&bytes)?,
            Err(error) if error.what == PlaceFault::NotFound => begin(&*place, &wanted)?,
            Err(error) => return Err(at(FORMAT_NAME)(error)),
        };
        check_format(&found, &wanted)?;
        let mut uploader = Uploader {
            shared,
            options,
            place,
            known: BackupManifest::begin(wanted.cluster, facts(&moment.manifest)),
            whole: BackupManifest::begin(String::new(), facts(&moment.manifest)),
            base: None,
            retired: None,
            swept: false,
            doomed: Vec::new(),
        };
        uploader.reload(&moment)?;
        Ok(uploader)
    }

    /// Reads the newest manifest.
    fn reload(&mut self, moment: &Moment) -> Result<(), Failed> {
        let (known, whole) = match newest(&*self.place, self.options)? {
            Some(found) => found,
            None => {
                let empty = BackupManifest::begin(
                    moment.manifest.cluster.to_string(),
                    facts(&moment.manifest),
                );
                (empty.clone(), empty)
            }
        };
        if known.epoch > moment.manifest.epoch {
            return Err(Failed::Refused(format!(
                "manifest {} is of epoch {}, this owner has {}: another one has the cluster open",
                known.number, known.epoch, moment.manifest.epoch
            )));
        }
        (self.known, self.whole) = (known, whole);
        self.show(Instant::now());
        Ok(())
    }

    /// One round: log, base, merges, a manifest, and then what goes.
    fn step(&mut self) -> Result<(), Failed> {
        self.shared.volume.check()?;
        let begun = Instant::now();
        let moment = moment(self.shared);
        let mut next = self.known.clone();
        self.describe(&moment, &mut next)?;
        self.take_base(&moment, &mut next)?;
        let complete = self.take_log(&moment, &mut next)?;
        self.merge(&moment, &mut next)?;
        let retires = self.retired.is_none_or(|at| at.elapsed() >= RETIRE_EVERY);
        // What a base on its way needs is known to it alone.
        if retires && self.base.is_none() {
            super::retire::retire(&mut next, wall_us())?;
            self.retired = Some(begun);
        }
        self.settle(&moment, &mut next)?;
        let before = self.known.objects.keys().cloned().collect::<BTreeSet<_>>();
        let silent = wall_us().saturating_sub(self.known.written_us) >= HEARTBEAT_US;
        if silent || next != self.known {
            self.write(next, &moment)?;
        }
        let gone = before
            .into_iter()
            .filter(|name| !self.known.objects.contains_key(name));
        let gone: Vec<_> = gone.map(|name| (begun, name)).collect();
        self.doomed.extend(gone);
        self.delete_doomed()?;
        self.show(if complete {
            begun
        } else {
            self.caught_up(begun)
        });
        if !complete {
            self.shared.backups.wake();
        }
        self.sweep()
    }

    fn delete_doomed(&mut self) -> Result<(), Failed> {
        while let Some((since, name)) = self.doomed.first() {
            if since.elapsed() < self.options.delete_after {
                break;
            }
            // One that has come to be needed again meanwhile stays.
            let wanted = self
                .base
                .iter()
                .flat_map(BaseJob::objects)
                .any(|needed| needed == name);
            if !wanted && !self.known.objects.contains_key(name) {
                self.place.delete(name).map_err(at(name))?;
            }
            self.doomed.remove(0);
        }
        Ok(())
    }

    fn caught_up(&self, begun: Instant) -> Instant {
        self.shared
            .backups
            .reached
            .lock()
            .caught_up
            .unwrap_or(begun)
    }

    /// What a manifest says of the cluster besides what it holds.
    fn describe(&self, moment: &Moment, next: &mut BackupManifest) -> Result<(), Failed> {
        let manifest = &moment.manifest;
        next.volume = facts(manifest);
        next.epoch = manifest.epoch;
        next.retention_days = self.options.retention_days;
        let era = |history: &History, since_us, until_us| Era {
            history: history.clone(),
            since_us,
            until_us,
        };
        let abandoned = manifest.abandoned.iter();
        let abandoned: Vec<Era> = abandoned
            .map(|past| era(&past.history, past.since_us, Some(past.until_us)))
            .collect();
        let present = era(&manifest.history, manifest.history_since_us, None);
        let eras = decide::eras(&self.known.eras()?, &abandoned, &present);
        next.eras = eras.iter().map(EraEntry::from).collect();
        let known: BTreeMap<&str, &SnapshotEntry> = self
            .known
            .snapshots
            .iter()
            .map(|known| (&*known.name, known))
            .collect();
        let mut snapshots = Vec::with_capacity(manifest.snapshots.len());
        for snapshot in &manifest.snapshots {
            let same = known
                .get(&*snapshot.name)
                .filter(|known| known.lsn == snapshot.lsn.0);
            snapshots.push(match same {
                Some(known) => (*known).clone(),
                None => SnapshotEntry {
                    name: snapshot.name.clone(),
                    history: (&snapshot.history).into(),
                    lsn: snapshot.lsn.0,
                    time_us: self.shared.time_of(snapshot.lsn, &snapshot.history)?,
                    created_us: snapshot.created_us,
                    tables: None,
                },
            });
        }
        let counted = self.shared.backups.counted.lock();
        for snapshot in &mut snapshots {
            let tables = counted.get(&snapshot.name).cloned();
            snapshot.tables = tables.or(snapshot.tables.take());
        }
        drop(counted);
        next.snapshots = snapshots;
        Ok(())
    }

    /// Uploads what has come since the last range; false when there is more.
    fn take_log(&self, moment: &Moment, next: &mut BackupManifest) -> Result<bool, Failed> {
        let Some(from) = self.log_from(moment, next) else {
            return Ok(true);
        };
        let upto = upto(moment);
        if upto <= from {
            return Ok(true);
        }
        let Some(node) = self.source(moment, from) else {
            return Err(Failed::Cluster(self.shared.volume.quorum_lost()));
        };
        let histories: Vec<History> = moment.manifest.histories().cloned().collect();
        let (records, to) = node.store.records_in(from, upto, &histories, RANGE_BYTES)?;
        if records.is_empty() {
            return Ok(true);
        }
        let range = LogRange::of(records)?;
        self.put_range(next, &node, (from, to), &range, 0)?;
        Ok(to >= upto)
    }

    /// Where the next range begins. None as long as no base is there, or on its way, that it could go on from.
    fn log_from(&self, moment: &Moment, next: &BackupManifest) -> Option<Lsn> {
        let floor = moment.manifest.collection_floor;
        let last = next.log.iter().map(|log| Lsn(log.to)).max();
        let bases = next.bases.iter().map(|base| Lsn(base.lsn));
        let bases = bases.chain(self.base.iter().map(BaseJob::lsn));
        match last {
            Some(last) if last >= floor => Some(last),
            // What came after the last range is collected in part: it goes on after a newer base.
            _ => bases.filter(|lsn| *lsn >= floor).min(),
        }
    }

    /// A node that has everything up to the VDL, and of what backtracks have left above `from`.
    pub(super) fn source(&self, moment: &Moment, from: Lsn) -> Option<Arc<Node>> {
        let shared = self.shared;
        let has_all = |node: &Arc<Node>| {
            let tail = |pg| shared.volume.tail(pg).min(moment.vdl);
            let pgs = (0..moment.manifest.pgs.len() as u32).map(PgId);
            let complete = pgs.into_iter().all(|pg| shared.scl(node, pg) >= tail(pg));
            complete && node.acknowledges() && !shared.maintenance.repairs(node.id())
        };
        let knows = |node: &Arc<Node>| {
            let left = moment
                .manifest
                .abandoned
                .iter()
                .filter(|past| end_of(&past.history) > from);
            let known = (node.id(), node.info.incarnation);
            left.into_iter().all(|past| past.complete.contains(&known))
        };
        let mut living = shared.living();
        living.retain(|node| has_all(node));
        // Where nobody knows all of what was left, that is lost with its nodes; the present is not.
        let best = living.iter().find(|node| knows(node));
        best.or(living.first()).cloned()
    }

    /// Uploads a range and the blobs that it refers to.
    fn put_range(
        &self,
        next: &mut BackupManifest,
        node: &Node,
        (from, to): (Lsn, Lsn),
        range: &LogRange,
        level: u8,
    ) -> Result<(), Failed> {
        let blobs = self.put_blobs(next, node, &range.blobs)?;
        let name = format!("log/{:020}-{:020}-{:016x}", from.0, to.0, random_u64()?);
        self.put(next, &name, &range.bytes)?;
        next.log.push(LogEntry {
            object: name,
            from: from.0,
            to: to.0,
            first_us: range.commits.first().map_or(0, |commit| commit.time_us),
            last_us: range.commits.last().map_or(0, |commit| commit.time_us),
            records: range.records,
            commits: range.commits.len() as u64,
            level,
            blobs,
        });
        next.log.sort_by_key(|log| (log.from, log.to));
        Ok(())
    }

    fn put_blobs(
        &self,
        next: &mut BackupManifest,
        node: &Node,
        blobs: &BTreeSet<BlobId>,
    ) -> Result<Vec<String>, Failed> {
        let mut names = Vec::with_capacity(blobs.len());
        for blob in blobs {
            let name = format!("blob/{:032x}", blob.0);
            if !next.objects.contains_key(&name) {
                let file = node.store.sealed_blob(*blob)?;
                let mut raw = vec![0; file.bytes as usize];
                file.file
                    .read_exact_at(&mut raw, 0)
                    .map_err(|source| Error::io(&node.dir, source))?;
                self.put(next, &name, &raw)?;
            }
            names.push(name);
        }
        Ok(names)
    }

    fn put(&self, next: &mut BackupManifest, name: &str, raw: &[u8]) -> Result<(), Failed> {
        let (object, packed) = pack(name, self.options.key(), raw)?;
        self.count(object.len() as u64);
        self.place.put(name, object, false).map_err(at(name))?;
        next.objects.insert(name.into(), packed.into());
        Ok(())
    }

    pub(super) fn count(&self, bytes: u64) {
        self.shared
            .backups
            .uploaded
            .fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes one range of many small ones. They are read back for it, so that a store that has lost or changed one is found out.
    fn merge(&self, moment: &Moment, next: &mut BackupManifest) -> Result<(), Failed> {
        let Some(ranges) = decide::mergeable(&next.range_facts()) else {
            return Ok(());
        };
        let merged: Vec<LogEntry> = next.log[ranges].to_vec();
        let mut files = Vec::with_capacity(merged.len());
        for log in &merged {
            match read_object(
                &*self.place,
                self.options,
                &log.object,
                next.objects.get(&log.object),
            ) {
                Ok(file) => files.push(file),
                Err(failed) => return self.mend(moment, next, log, failed),
            }
        }
        let range = LogRange::merge(&files)?;
        let (Some(first), Some(last)) = (merged.first(), merged.last()) else {
            return Ok(());
        };
        let Some(node) = self.source(moment, Lsn(first.from)) else {
            return Err(Failed::Cluster(self.shared.volume.quorum_lost()));
        };
        next.log
            .retain(|log| !merged.iter().any(|one| one.object == log.object));
        for log in &merged {
            next.objects.remove(&log.object);
        }
        let stretch = (Lsn(first.from), Lsn(last.to));
        self.put_range(next, &node, stretch, &range, first.level + 1)
    }

    /// A range that the store has lost or changed is uploaded once more, if its records are still all there.
    fn mend(
        &self,
        moment: &Moment,
        next: &mut BackupManifest,
        log: &LogEntry,
        failed: Failed,
    ) -> Result<(), Failed> {
        let gone = matches!(&failed, Failed::Damaged { .. })
            || matches!(&failed, Failed::Place { error, .. } if error.what == PlaceFault::NotFound);
        let (from, to) = (Lsn(log.from), Lsn(log.to));
        if !gone || moment.manifest.collection_floor > from {
            return Err(failed);
        }
        let Some(node) = self.source(moment, from) else {
            return Err(failed);
        };
        let histories: Vec<History> = moment.manifest.histories().cloned().collect();
        let (records, complete) = node.store.records_in(from, to, &histories, u64::MAX)?;
        if complete < to {
            return Err(failed);
        }
        let events = &self.shared.instances.events;
        events.note("backup mended", &log.object, Some(failed.to_string()), None);
        next.log.retain(|other| other.object != log.object);
        next.objects.remove(&log.object);
        let range = LogRange::of(records)?;
        self.put_range(next, &node, (from, to), &range, log.level)
    }

    /// What can be restored with what there is.
    fn settle(&self, moment: &Moment, next: &mut BackupManifest) -> Result<(), Failed> {
        let mut needed = next.needed();
        needed.extend(self.base.iter().flat_map(BaseJob::objects).cloned());
        next.objects.retain(|name, _| needed.contains(name));
        let Some(first) = next.bases.iter().min_by_key(|base| base.lsn) else {
            next.restorable = Restorable::default();
            return Ok(());
        };
        let covered = next.covered().min(moment.vdl);
        let history = &moment.manifest.history;
        let newest = self.shared.commit_at(covered, history)?;
        // The first base has versions from before it was taken too.
        let (from_lsn, from_us) = first
            .floor_commit
            .map_or((1, next.volume.created_us), |(lsn, _, time_us)| {
                (lsn, time_us)
            });
        let from = Restorable {
            from_lsn,
            from_us,
            ..Restorable::default()
        };
        next.restorable = match newest {
            Some(newest) => Restorable {
                lsn: newest.lsn.0,
                time_us: newest.time_us,
                ..from
            },
            None => Restorable {
                lsn: first.lsn,
                time_us: first.time_us,
                ..from
            },
        };
        Ok(())
    }

    /// Writes the next manifest. Where another's is found under its number, what is there is read again.
    fn write(&mut self, mut next: BackupManifest, moment: &Moment) -> Result<(), Failed> {
        next.number = self.known.number + 1;
        next.nonce = format!("{:016x}", random_u64()?);
        next.written_us = wall_us();
        let whole = self.whole.number == 0 || next.number - self.whole.number > CHANGES_MAX;
        let content = if whole {
            next.clone()
        } else {
            next.change_of(&self.whole)
        };
        let name = manifest_name(next.number);
        let json = serde_json::to_vec(&content).map_err(std::io::Error::other)?;
        let (object, _) = pack(&name, self.options.key(), &json)?;
        self.count(object.len() as u64);
        // Whoever has lost the cluster must not say what its backup is.
        self.shared.volume.check()?;
        if let Err(error) = self.place.put(&name, object, true) {
            // Without a clear answer it may be there: ours if it has our nonce.
            let ours = |found: &BackupManifest| found.nonce == next.nonce;
            match read_manifest(&*self.place, self.options, next.number) {
                Ok(found) if ours(&found) => {}
                Ok(_) => {
                    self.reload(moment)?;
                    return Err(at(&name)(error));
                }
                Err(_) => return Err(at(&name)(error)),
            }
        }
        if whole {
            let forgotten = self.whole.number;
            self.whole = next.clone();
            self.known = next;
            return self.forget_manifests(forgotten);
        }
        self.known = next;
        Ok(())
    }

    /// Manifests before the last one that is whole are read by nobody who begins now. One that is whole is left for whoever has begun.
    fn forget_manifests(&self, before: u64) -> Result<(), Failed> {
        for name in self
            .place
            .list(super::format::MANIFESTS)
            .map_err(at("manifests"))?
        {
            if manifest_number(&name).is_some_and(|number| number < before) {
                self.place.delete(&name).map_err(at(&name))?;
            }
        }
        Ok(())
    }

    /// Removes what uploads that did not end have left, once after each base.
    fn sweep(&mut self) -> Result<(), Failed> {
        if self.swept || self.base.is_some() || self.known.bases.is_empty() {
            return Ok(());
        }
        for prefix in ["base", "log", "blob"] {
            for name in self.place.list(prefix).map_err(at(prefix))? {
                let waits = self.doomed.iter().any(|(_, doomed)| *doomed == name);
                if !waits && !self.known.objects.contains_key(&name) {
                    self.place.delete(&name).map_err(at(&name))?;
                }
            }
        }
        self.swept = true;
        Ok(())
    }

    pub(super) fn sweep_again(&mut self) {
        self.swept = false;
    }

    fn show(&self, caught_up: Instant) {
        let known = &self.known;
        let usable = !known.bases.is_empty();
        let restorable = &known.restorable;
        let covered = known.covered();
        let pinned = known.log.iter().map(|log| Lsn(log.to)).max();
        let pinned = pinned.or(self.base.as_ref().map(BaseJob::lsn));
        let available = |snapshot: &&SnapshotEntry| usable && Lsn(snapshot.lsn) <= covered;
        self.shared.backups.update(|reached| {
            reached.covered = covered;
            reached.pinned = pinned;
            reached.caught_up = Some(caught_up);
            reached.restorable = usable.then_some((Lsn(restorable.lsn), restorable.time_us));
            reached.earliest = usable.then_some((Lsn(restorable.from_lsn), restorable.from_us));
            reached.stored_bytes = known.objects.values().map(|object| object.bytes).sum();
            reached.manifest = known.number;
            reached.base_in_progress = self.base.is_some();
            reached.snapshots = known
                .snapshots
                .iter()
                .filter(available)
                .map(|s| s.name.clone())
                .collect();
        });
    }

    /// The cluster is closing.
    fn end(&mut self) {
        if let Some(base) = self.base.take() {
            base.end();
        }
    }
}

/// The end of a History that is closed; of one that is open, where it began.
fn end_of(history: &History) -> Lsn {
    let last = history.intervals().last();
    last.map_or(
        Lsn::NONE,
        |i| if i.is_open() { i.first.prev() } else { i.last },
    )
}

/// Up to where there is anything to upload: the VDL, or what a backtrack has left above it.
fn upto(moment: &Moment) -> Lsn {
    let left = moment
        .manifest
        .abandoned
        .iter()
        .map(|past| end_of(&past.history));
    left.fold(moment.vdl, Lsn::max)
}

pub(super) fn moment(shared: &Shared) -> Moment {
    let meta = shared.meta.lock();
    // Under the manifest's lock: no branch comes between the two.
    Moment {
        manifest: meta.manifest.clone(),
        vdl: shared.volume.vdl(),
    }
}

fn facts(manifest: &Manifest) -> VolumeFacts {
    VolumeFacts {
        origin: manifest.origin.0,
        region: manifest.region.clone(),
        page_bytes: manifest.page_bytes,
        segment_pages: manifest.segment_pages,
        window: manifest.window,
        segments: manifest.pgs.len() as u32,
        created_us: manifest.created_us,
        config: manifest.config.clone(),
    }
}

fn format_object(manifest: &Manifest, options: &BackupOptions) -> FormatObject {
    FormatObject {
        format: FORMAT,
        cluster: manifest.cluster.to_string(),
        page_bytes: manifest.page_bytes,
        segment_pages: manifest.segment_pages,
        created_us: wall_us(),
        compression: "zstd".into(),
        encryption: options.key().map(|_| "aes-256-gcm".into()),
        key_check: options.key().map(super::Key::check),
    }
}

/// Reads the object `format`.
pub(crate) fn read_format(bytes: &[u8]) -> Result<FormatObject, Failed> {
    let refused = |detail: String| Failed::Refused(format!("{FORMAT_NAME}: {detail}"));
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|e| refused(e.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(got) if got != u64::from(FORMAT) => Err(refused(format!(
            "expected backup format {FORMAT}, got {got}: another release of aurora-engine reads it"
        ))),
        _ => serde_json::from_value(value).map_err(|e| refused(e.to_string())),
    }
}

/// Says whose backup it is. Whoever was first has said it.
fn begin(place: &dyn ObjectPlace, wanted: &FormatObject) -> Result<FormatObject, Failed> {
    let json = serde_json::to_vec_pretty(wanted).map_err(std::io::Error::other)?;
    match place.put(FORMAT_NAME, json, true) {
        Ok(()) => Ok(wanted.clone()),
        Err(error) => match place.get(FORMAT_NAME) {
            Ok(bytes) => read_format(&bytes),
            Err(_) => Err(at(FORMAT_NAME)(error)),
        },
    }
}

fn check_format(found: &FormatObject, wanted: &FormatObject) -> Result<(), Failed> {
    if found.cluster != wanted.cluster {
        return Err(Failed::Refused(format!(
            "expected the backup of cluster {}, got that of cluster {}: choose another place",
            wanted.cluster, found.cluster
        )));
    }
    check_key(found, wanted.key_check.as_deref()).map_err(Failed::Refused)
}

/// Whether this is the key of a backup; what was expected and got, where it is not.
pub(crate) fn check_key(found: &FormatObject, got: Option<&str>) -> Result<(), String> {
    let said = |check: Option<&str>| {
        check.map_or("no key".into(), |check| {
            format!("the key with check {check}")
        })
    };
    let expected = found.key_check.as_deref();
    match expected == got {
        true => Ok(()),
        false => Err(format!("expected {}, got {}", said(expected), said(got))),
    }
}

/// The content of an object, checked against what the manifest says of it.
pub(crate) fn read_object(
    place: &dyn ObjectPlace,
    options: &BackupOptions,
    name: &str,
    entry: Option<&ObjectEntry>,
) -> Result<Vec<u8>, Failed> {
    let object = place.get(name).map_err(at(name))?;
    let damaged = |damage| Failed::Damaged {
        name: name.into(),
        damage,
    };
    let (raw, packed) = unpack(name, options.key(), &object).map_err(damaged)?;
    let got = ObjectEntry::from(packed);
    match entry {
        Some(expected) if *expected != got => Err(Failed::Damaged {
            name: name.into(),
            damage: pack::Damaged {
                at: 0,
                expected: format!("sha-256 {}", expected.sha256),
                got: format!("sha-256 {}", got.sha256),
            },
        }),
        _ => Ok(raw),
    }
}

fn read_manifest(
    place: &dyn ObjectPlace,
    options: &BackupOptions,
    number: u64,
) -> Result<BackupManifest, Failed> {
    let name = manifest_name(number);
    let json = read_object(place, options, &name, None)?;
    let damaged = |error: serde_json::Error| Failed::Damaged {
        name: name.clone(),
        damage: pack::Damaged {
            at: 0,
            expected: "a manifest".into(),
            got: error.to_string(),
        },
    };
    serde_json::from_slice(&json).map_err(damaged)
}

/// The newest manifest in full, and the one that is whole which it is a change of.
pub(crate) fn newest(
    place: &dyn ObjectPlace,
    options: &BackupOptions,
) -> Result<Option<(BackupManifest, BackupManifest)>, Failed> {
    let names = place
        .list(super::format::MANIFESTS)
        .map_err(at("manifests"))?;
    let Some(number) = names.iter().filter_map(|name| manifest_number(name)).max() else {
        return Ok(None);
    };
    let found = read_manifest(place, options, number)?;
    match found.on {
        None => Ok(Some((found.clone(), found))),
        Some(on) => {
            let whole = read_manifest(place, options, on)?;
            Ok(Some((found.upon(&whole), whole)))
        }
    }
}
