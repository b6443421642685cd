//! The thread that keeps a backup up to date: what a round does, and manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aurora_control::backup::{self as decide, Era};
use aurora_page::Lsn;
use aurora_proto::{Manifest, Volume};
use aurora_redo::History;

use super::base::BaseJob;
use super::format::{
    BackupManifest, BaseEntry, CHANGES_MAX, EraEntry, FORMAT_NAME, MANIFESTS, Restorable,
    SnapshotEntry, VolumeFacts, is_object_name, manifest_name, manifest_number,
};
use super::objects::{
    Failed, at, begin, check_format, format_object, newest, read_format, read_manifest,
};
use super::pack::pack;
use super::place::{ObjectPlace, PlaceFault};
use super::{BackupOptions, State};
use crate::clock::wall_us;
use crate::cluster::Shared;
use crate::create::random_u64;
use crate::waiters::Parker;

/// A look while there is something to upload; what is committed meanwhile goes together.
const EVERY: Duration = Duration::from_secs(1);
/// After a failure, twice as long each time.
const BACK_OFF: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// A manifest is written after this time in any case: a time up to it can be restored, though nothing was committed.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// What nobody needs any more is looked for this often.
const RETIRE_EVERY: Duration = Duration::from_secs(60);

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
    /// When the last manifest was written.
    written: Option<Instant>,
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
            written: None,
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
        let whole = self.is_whole(moment, &self.known)?;
        self.show(Instant::now(), whole);
        Ok(())
    }

    /// One round: log, base, merges, a manifest, and then what goes.
    fn step(&mut self) -> Result<(), Failed> {
        let had_base = self.base.is_some();
        let done = self.round();
        if done.is_err() && had_base && self.base.is_none() {
            // It was there, and no manifest says so.
            let wanted = &self.shared.backups.base_wanted;
            wanted.store(true, Ordering::Release);
        }
        done
    }

    fn round(&mut self) -> Result<(), Failed> {
        self.shared.volume.check()?;
        let begun = Instant::now();
        // Before the moment: nothing is committed up to this time that has a later number.
        let (looked_us, numbered) = (wall_us(), self.shared.volume.numbered());
        let moment = moment(self.shared);
        let mut next = self.known.clone();
        self.describe(&moment, &mut next)?;
        self.take_base(&moment, &mut next)?;
        let waits = self.log_from(&moment, &next).is_none();
        let complete = self.take_log(&moment, &mut next)?;
        self.merge(&moment, &mut next)?;
        let retires = self.retired.is_none_or(|at| at.elapsed() >= RETIRE_EVERY);
        // What a base on its way needs is known to it alone.
        if retires && self.base.is_none() {
            super::retire::retire(&mut next, wall_us())?;
            self.retired = Some(begun);
        }
        self.settle(&moment, &mut next)?;
        let whole = self.is_whole(&moment, &next)?;
        // A time after the last commit can be restored as the state of that commit only if there was none since.
        let is_all = whole && complete && next.covered() >= numbered;
        let written_us = match is_all {
            true => looked_us,
            false => self.known.written_us.max(next.restorable.time_us),
        };
        let before = self.known.objects.keys().cloned().collect::<BTreeSet<_>>();
        let silent = self.written.is_none_or(|at| at.elapsed() >= HEARTBEAT);
        let forgotten = match silent || next != self.known {
            true => self.write(next, written_us, &moment)?,
            false => None,
        };
        let gone = before
            .into_iter()
            .filter(|name| !self.known.objects.contains_key(name));
        let gone: Vec<_> = gone.map(|name| (begun, name)).collect();
        self.doomed.extend(gone);
        let caught_up = match complete && !waits {
            true => begun,
            false => self.caught_up(begun),
        };
        self.show(caught_up, whole);
        if !complete {
            self.shared.backups.wake();
        }
        // Last: a store from which nothing may be deleted takes backups all the same.
        if let Some(before) = forgotten {
            self.forget_manifests(before)?;
        }
        self.delete_doomed()?;
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
            let of = (snapshot.name.clone(), Lsn(snapshot.lsn));
            let tables = counted.get(&of).cloned();
            snapshot.tables = tables.or(snapshot.tables.take());
        }
        drop(counted);
        next.snapshots = snapshots;
        Ok(())
    }

    /// What can be restored with what there is.
    fn settle(&self, moment: &Moment, next: &mut BackupManifest) -> Result<(), Failed> {
        let mut needed = next.needed();
        needed.extend(self.base.iter().flat_map(BaseJob::objects).cloned());
        next.objects.retain(|name, _| needed.contains(name));
        let covered = next.covered().min(moment.vdl);
        let history = &moment.manifest.history;
        if !next.bases.is_empty() && !self.is_whole(moment, next)? {
            // What could be restored can be; what came since, not before the next base.
            return Ok(());
        }
        // Not those that are kept for a snapshot alone: the log does not go on from them.
        let ranges = next.range_facts();
        let reaches = |base: &&BaseEntry| {
            decide::uncovered(&ranges, history, Lsn(base.lsn), covered).is_none()
        };
        let first = next.bases.iter().filter(reaches);
        let Some(first) = first.min_by_key(|base| base.lsn) else {
            next.restorable = Restorable::default();
            return Ok(());
        };
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

    /// Whether what a manifest names gives the newest moment that it covers: between a base and the log there may be a hole, until
    /// the next base is there.
    pub(super) fn is_whole(&self, moment: &Moment, next: &BackupManifest) -> Result<bool, Failed> {
        let history = &moment.manifest.history;
        let at = history.floor(next.covered().min(moment.vdl));
        let parts = decide::parts(&next.base_facts()?, &next.range_facts(), history, at);
        Ok(parts.is_ok())
    }

    /// Writes the next manifest; the manifests before the one that is given are needed no more. Where another's is found under its
    /// number, what is there is read again.
    fn write(
        &mut self,
        mut next: BackupManifest,
        written_us: i64,
        moment: &Moment,
    ) -> Result<Option<u64>, Failed> {
        next.number = self.known.number + 1;
        next.nonce = format!("{:016x}", random_u64()?);
        next.written_us = written_us;
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
        self.written = Some(Instant::now());
        let forgotten = whole.then_some(self.whole.number);
        if whole {
            self.whole = next.clone();
        }
        self.known = next;
        Ok(forgotten)
    }

    /// Manifests before the last one that is whole are read by nobody who begins now. One that is whole is left for whoever has begun.
    fn forget_manifests(&self, before: u64) -> Result<(), Failed> {
        for name in self.place.list(MANIFESTS).map_err(at("manifests"))? {
            if manifest_number(&name).is_some_and(|number| number < before) {
                self.place.delete(&name).map_err(at(&name))?;
            }
        }
        Ok(())
    }

    /// Has what uploads that did not end have left removed, once after each base. Nothing else that lies there is touched.
    fn sweep(&mut self) -> Result<(), Failed> {
        if self.swept || self.base.is_some() || self.known.bases.is_empty() {
            return Ok(());
        }
        for prefix in ["base", "log", "blob"] {
            for name in self.place.list(prefix).map_err(at(prefix))? {
                let waits = self.doomed.iter().any(|(_, doomed)| *doomed == name);
                if is_object_name(&name) && !waits && !self.known.objects.contains_key(&name) {
                    self.doomed.push((Instant::now(), name));
                }
            }
        }
        self.swept = true;
        Ok(())
    }

    pub(super) fn sweep_again(&mut self) {
        self.swept = false;
    }

    fn show(&self, caught_up: Instant, whole: bool) {
        let known = &self.known;
        let usable = !known.bases.is_empty();
        let restorable = &known.restorable;
        let covered = known.covered();
        let eras = known.eras().unwrap_or_default();
        let history = eras.last().map(|era| era.history.clone());
        let pinned = known.log.iter().map(|log| Lsn(log.to)).max();
        let pinned = pinned.or(self.base.as_ref().map(BaseJob::lsn));
        let available = |snapshot: &&SnapshotEntry| usable && Lsn(snapshot.lsn) <= covered;
        self.shared.backups.update(|reached| {
            reached.covered = covered;
            reached.whole = whole;
            reached.history = history;
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
