//! Backtrack: the whole cluster as it was at a moment, in place, and forward again; snapshots; and which moments there are.
//!
//! A time means the History that was active then. What a backtrack leaves is kept as abandoned for the window, so that every moment
//! of the window can be gone to, before and after.

use std::time::{Duration, Instant};

use aurora_page::Lsn;
use aurora_proto::{EditError, Manifest, MetaStore, NodeId, Volume};
use aurora_redo::History;
use aurora_store::{CommitPoint, LayerKind, StoreError};

use crate::Error;
use crate::clock::wall_us;
use crate::cluster::{Cluster, Shared};
use crate::create::WINDOW_KEY;
use crate::node::Node;

/// The longest window, as in Aurora [UG].
pub const WINDOW_MAX: Duration = Duration::from_secs(72 * 3600);
/// The window of a cluster whose maker names none, where the disk has room for it.
const WINDOW_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// What such a window may take of the room that there is.
const DISK_SHARE: u64 = 5;

/// A moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The newest commit at or before a time, in microseconds since 1970.
    Time(i64),
    /// The newest commit at or below an LSN, present or left by a backtrack.
    Lsn(Lsn),
    /// The moment of a snapshot.
    Snapshot(String),
}

/// What a backtrack did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backtracked {
    /// The volume epoch that it began.
    pub epoch: u64,
    /// The commit that is the newest now.
    pub to: Lsn,
    /// Its time.
    pub to_us: i64,
    /// The commit that was the newest before.
    pub from: Lsn,
    /// Its time.
    pub from_us: i64,
    /// When it was asked for.
    pub requested_us: i64,
    /// How long it took, commits in flight included.
    pub took: Duration,
}

/// How far back the cluster can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How far it should reach.
    pub target: Duration,
    /// How far it will reach with the room that there is on the disks.
    pub allowed: Duration,
    /// The earliest moment that there is now, in microseconds since 1970.
    pub earliest_us: i64,
    /// Histories that were left by backtracks and can be gone back to.
    pub abandoned: usize,
}

/// A moment that is kept by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name.
    pub name: String,
    /// The commit that it ends with.
    pub lsn: Lsn,
    /// The time of that commit.
    pub time_us: i64,
    /// When it was made.
    pub created_us: i64,
}

/// Which History a moment lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Present,
    Abandoned(usize),
    /// Only this snapshot keeps it.
    Snapshot(String),
}

impl Cluster {
    /// Takes the whole cluster back, or forward again, to a moment: in place, and in a time that does not depend on how much that
    /// undoes. Transactions that are open get an error and begin again; nothing is lost, the way back is kept for the window.
    ///
    /// # Errors
    /// [`Error::OutsideWindow`] with the limits, unless `use_earliest`, which takes the earliest moment there is for one before
    /// it; [`Error::UnknownSnapshot`]; whatever keeps commits from becoming durable. Nothing has happened then.
    pub fn backtrack(
        &self,
        to: &Target,
        use_earliest: bool,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Backtracked, Error> {
        self.check_open()?;
        self.check_writable()?;
        self.shared().backtrack(to, use_earliest, interrupt)
    }

    /// The LSN of a moment, and the time of its commit.
    ///
    /// # Errors
    /// As [`Cluster::backtrack`].
    pub fn find(&self, target: &Target) -> Result<(Lsn, i64), Error> {
        self.check_open()?;
        let shared = self.shared();
        let manifest = shared.manifest();
        let (place, lsn) = shared.resolve(&manifest, target, false)?;
        let history = history_of(&manifest, &place);
        Ok((lsn, shared.time_of(lsn, history)?))
    }

    /// How far back the cluster can go.
    pub fn backtrack_window(&self) -> Result<Window, Error> {
        let shared = self.shared();
        let manifest = shared.manifest();
        let target = shared.window_target();
        Ok(Window {
            target,
            allowed: shared.window(),
            earliest_us: shared.earliest(&manifest)?.1,
            abandoned: manifest.abandoned.len(),
        })
    }

    /// Sets how far back the cluster shall reach, from now on.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] above 72 hours; what keeps the manifest from being written.
    pub fn set_backtrack_window(&self, window: Duration) -> Result<(), Error> {
        self.check_writable()?;
        if window > WINDOW_MAX {
            return Err(Error::InvalidOption {
                option: "window",
                expected: "0 to 72 hours".into(),
                got: format!("{window:?}"),
            });
        }
        let micros = window.as_micros().to_string();
        self.shared()
            .edit(|m| Ok(m.with_config(WINDOW_KEY, &micros)))?;
        *self.shared().window_set.lock() = Some(window);
        Ok(())
    }

    /// Keeps the present moment under a name, until it is deleted.
    ///
    /// # Errors
    /// [`Error::SnapshotExists`]; what keeps the manifest from being written.
    pub fn snapshot(&self, name: &str) -> Result<SnapshotInfo, Error> {
        self.check_open()?;
        self.check_writable()?;
        check_name(name)?;
        let shared = self.shared();
        let now_us = wall_us();
        // Under the manifest's lock: no branch comes between the LSN and the History.
        let manifest = shared.edit(|m| m.with_snapshot(name, shared.volume.vdl(), now_us))?;
        let made = manifest.snapshot(name).ok_or_else(|| unknown(name))?;
        shared.info(made)
    }

    /// The snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>, Error> {
        self.check_open()?;
        let shared = self.shared();
        let manifest = shared.manifest();
        manifest.snapshots.iter().map(|s| shared.info(s)).collect()
    }

    /// Keeps a moment no longer.
    ///
    /// # Errors
    /// [`Error::UnknownSnapshot`]; what keeps the manifest from being written.
    pub fn delete_snapshot(&self, name: &str) -> Result<(), Error> {
        self.check_open()?;
        self.check_writable()?;
        self.shared().edit(|m| m.without_snapshot(name)).map(drop)
    }
}

impl Shared {
    fn backtrack(
        &self,
        to: &Target,
        use_earliest: bool,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Backtracked, Error> {
        let (begun, requested_us) = (Instant::now(), wall_us());
        // Asked once before anything stands still, and once more when it does.
        self.resolve(&self.manifest(), to, use_earliest)?;
        let branching = self.begin_branch(interrupt)?;
        let manifest = branching.manifest();
        let (place, lsn) = self.resolve(manifest, to, use_earliest)?;
        let from = self.volume.vdl();
        let to_us = self.time_of(lsn, history_of(manifest, &place))?;
        let from_us = self.time_of(from, &manifest.history)?;
        let done = |epoch| Backtracked {
            epoch,
            to: lsn,
            to_us,
            from,
            from_us,
            requested_us,
            took: begun.elapsed(),
        };
        if place == Place::Present && lsn == from {
            return Ok(done(manifest.epoch));
        }
        // Later than every commit of what is left, whatever the clock says: a time belongs to one History.
        let now_us = wall_us()
            .max(from_us + 1)
            .max(manifest.history_since_us + 1);
        let edited = match &place {
            Place::Present => manifest.backtracked(lsn, from, now_us),
            Place::Abandoned(past) => manifest.forwarded(*past, lsn, from, now_us),
            Place::Snapshot(name) => manifest.backtracked_to(name, from, now_us),
        };
        let next = edited
            .map_err(edit_error)?
            .with_complete(branching.complete());
        let known = self.known_of(manifest, &place);
        if known.is_empty() && matches!(place, Place::Abandoned(_)) {
            return Err(self.volume.quorum_lost());
        }
        let epoch = next.epoch;
        branching.finish(next, lsn, &known)?;
        Ok(done(epoch))
    }

    /// Nodes that have all of an abandoned History: those that had it when it was left, and were not made anew since.
    pub(crate) fn known_of(&self, manifest: &Manifest, place: &Place) -> Vec<NodeId> {
        let Place::Abandoned(past) = place else {
            return Vec::new();
        };
        let complete = &manifest.abandoned[*past].complete;
        let same = |node: &Node| complete.contains(&(node.id(), node.info.incarnation));
        let nodes = self.volume.nodes();
        let here = nodes.iter().filter(|node| node.acknowledges());
        here.filter(|node| same(node))
            .map(|node| node.id())
            .collect()
    }

    /// The manifest as it is now.
    pub(crate) fn manifest(&self) -> Manifest {
        self.meta.lock().manifest.clone()
    }

    /// Changes the manifest; gives it.
    pub(crate) fn edit(
        &self,
        edit: impl FnOnce(&Manifest) -> Result<Manifest, EditError>,
    ) -> Result<Manifest, Error> {
        let mut meta = self.meta.lock();
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let next = edit(&meta.manifest).map_err(edit_error)?;
        meta.store.cas(meta.manifest.version, &next)?;
        meta.manifest = next.clone();
        Ok(next)
    }

    /// Where a moment lies, and the commit that it means.
    pub(crate) fn resolve(
        &self,
        manifest: &Manifest,
        target: &Target,
        use_earliest: bool,
    ) -> Result<(Place, Lsn), Error> {
        match target {
            Target::Time(time_us) => self.resolve_time(manifest, *time_us, use_earliest),
            Target::Lsn(lsn) => self.resolve_lsn(manifest, *lsn, use_earliest),
            Target::Snapshot(name) => {
                let found = manifest.snapshot(name).ok_or_else(|| unknown(name))?;
                Ok((
                    place_of(manifest, &found.history, found.lsn, name),
                    found.lsn,
                ))
            }
        }
    }

    fn resolve_time(
        &self,
        manifest: &Manifest,
        time_us: i64,
        use_earliest: bool,
    ) -> Result<(Place, Lsn), Error> {
        let now_us = wall_us();
        let (earliest, earliest_us) = self.earliest(manifest)?;
        let outside = || Error::OutsideWindow {
            what: "time",
            expected: format!(
                "{} to {}",
                crate::clock::utc(earliest_us),
                crate::clock::utc(now_us)
            ),
            got: crate::clock::utc(time_us),
        };
        if time_us > now_us.max(self.last_us(manifest)?) {
            return Err(outside());
        }
        if time_us < earliest_us {
            return match use_earliest {
                true => Ok((Place::Present, earliest)),
                false => Err(outside()),
            };
        }
        let active = |(_, past): &(usize, &aurora_proto::Abandoned)| {
            (past.since_us..past.until_us).contains(&time_us)
        };
        let past = match time_us < manifest.history_since_us {
            true => manifest.abandoned.iter().enumerate().rev().find(active),
            false => None,
        };
        let history = past.map_or(&manifest.history, |(_, past)| &past.history);
        let found = self.ask(|node| node.store.lsn_at(time_us, history))?;
        // A commit above the VDL is not readable yet; the VDL is a commit too, and an earlier one.
        let vdl = self.volume.vdl();
        let lsn = found.map_or(earliest, |commit| commit.lsn);
        match past {
            Some((index, past)) if past.history.common_prefix(&manifest.history) < lsn => {
                Ok((Place::Abandoned(index), lsn))
            }
            _ if lsn < manifest.collection_floor => Err(outside()),
            _ => Ok((Place::Present, lsn.min(vdl))),
        }
    }

    fn resolve_lsn(
        &self,
        manifest: &Manifest,
        lsn: Lsn,
        use_earliest: bool,
    ) -> Result<(Place, Lsn), Error> {
        let (earliest, _) = self.earliest(manifest)?;
        let vdl = self.volume.vdl();
        let outside = || Error::OutsideWindow {
            what: "LSN",
            expected: format!("{earliest} to {vdl}, or one that a backtrack has left"),
            got: lsn.to_string(),
        };
        if lsn < earliest {
            return match use_earliest {
                true => Ok((Place::Present, earliest)),
                false => Err(outside()),
            };
        }
        let in_history = |history: &History| history.origin_of(lsn).is_some();
        let (place, history) = if lsn <= vdl && in_history(&manifest.history) {
            (Place::Present, &manifest.history)
        } else {
            let past = manifest.abandoned.iter().enumerate().rev();
            let (index, past) = past
                .into_iter()
                .find(|(_, past)| in_history(&past.history))
                .ok_or_else(outside)?;
            (Place::Abandoned(index), &past.history)
        };
        let commit = self.ask(|node| node.store.commit_at(lsn, history))?;
        let lsn = commit.map_or(earliest, |commit| commit.lsn).max(earliest);
        match &place {
            Place::Abandoned(_) if history.common_prefix(&manifest.history) >= lsn => {
                Ok((Place::Present, lsn))
            }
            _ => Ok((place, lsn)),
        }
    }

    /// The last commit at or before a time, if it can be read now.
    pub(crate) fn lsn_at(&self, time_us: i64) -> Result<Lsn, Error> {
        let manifest = self.manifest();
        match self.resolve_time(&manifest, time_us, false)? {
            (Place::Present, lsn) => Ok(lsn),
            (_, lsn) => Err(left("time", lsn, crate::clock::utc(time_us))),
        }
    }

    /// Refuses an LSN that happened in a History that was left, and not in the present one.
    pub(crate) fn check_kept(&self, at: Lsn) -> Result<(), Error> {
        if self.volume.history().origin_of(at).is_some() {
            return Ok(());
        }
        let meta = self.meta.lock();
        let mut past = meta.manifest.abandoned.iter();
        match past.any(|past| past.history.origin_of(at).is_some()) {
            true => Err(left("LSN", at, at.to_string())),
            false => Ok(()),
        }
    }

    /// The earliest commit that can be gone to, and its time.
    fn earliest(&self, manifest: &Manifest) -> Result<(Lsn, i64), Error> {
        let floor = manifest.collection_floor;
        let found = if floor.is_none() {
            self.ask_for(
                |node| node.store.oldest_commit(&manifest.history),
                |a, b| a.lsn <= b.lsn,
            )?
        } else {
            self.ask(|node| node.store.commit_at(floor, &manifest.history))?
        };
        Ok(found.map_or((floor, manifest.created_us), |commit| {
            (commit.lsn.max(floor), commit.time_us)
        }))
    }

    /// The time of the newest commit.
    fn last_us(&self, manifest: &Manifest) -> Result<i64, Error> {
        let last = self.ask(|node| node.store.commit_at(self.volume.vdl(), &manifest.history))?;
        Ok(last.map_or(manifest.created_us, |commit| commit.time_us))
    }

    /// The time of the commit at an LSN.
    pub(crate) fn time_of(&self, lsn: Lsn, history: &History) -> Result<i64, Error> {
        let found = self.ask(|node| node.store.commit_at(lsn, history))?;
        Ok(found.map_or(0, |commit| commit.time_us))
    }

    /// The newest commit of a History at or below an LSN.
    pub(crate) fn commit_at(
        &self,
        lsn: Lsn,
        history: &History,
    ) -> Result<Option<CommitPoint>, Error> {
        self.ask(|node| node.store.commit_at(lsn, history))
    }

    fn info(&self, snapshot: &aurora_proto::Snapshot) -> Result<SnapshotInfo, Error> {
        Ok(SnapshotInfo {
            name: snapshot.name.clone(),
            lsn: snapshot.lsn,
            time_us: self.time_of(snapshot.lsn, &snapshot.history)?,
            created_us: snapshot.created_us,
        })
    }

    /// The newest of what the living nodes answer: a copy that is damaged or behind knows less than the others.
    fn ask(
        &self,
        question: impl Fn(&Node) -> Result<Option<CommitPoint>, StoreError>,
    ) -> Result<Option<CommitPoint>, Error> {
        self.ask_for(question, |a, b| a.lsn >= b.lsn)
    }

    fn ask_for(
        &self,
        question: impl Fn(&Node) -> Result<Option<CommitPoint>, StoreError>,
        better: impl Fn(&CommitPoint, &CommitPoint) -> bool,
    ) -> Result<Option<CommitPoint>, Error> {
        let (mut best, mut answered, mut failed) = (None, false, None);
        for node in self.living() {
            match question(&node) {
                Ok(found) => {
                    answered = true;
                    best = match (best, found) {
                        (Some(best), Some(found)) if better(&best, &found) => Some(best),
                        (best, found) => found.or(best),
                    };
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            _ if answered => Ok(best),
            Some(error) => Err(error.into()),
            None => Err(self.volume.quorum_lost()),
        }
    }

    /// How far back reads and backtracks shall reach.
    fn window_target(&self) -> Duration {
        self.window_chosen().unwrap_or(WINDOW_DEFAULT)
    }

    fn window_chosen(&self) -> Option<Duration> {
        let set = *self.window_set.lock();
        set.or_else(|| {
            let meta = self.meta.lock();
            let kept = meta.manifest.config.get(WINDOW_KEY);
            kept.and_then(|us| us.parse().ok())
                .map(Duration::from_micros)
        })
    }

    /// How far back reads and backtracks reach. Where nobody has chosen, what is kept for them may take a fifth of the disk.
    pub(crate) fn window(&self) -> Duration {
        if let Some(chosen) = self.window_chosen() {
            return chosen;
        }
        let layers = self
            .living()
            .into_iter()
            .flat_map(|node| node.store.layers());
        let deltas = layers.filter(|layer| layer.kind == LayerKind::Delta);
        let used: u64 = deltas.map(|layer| layer.bytes).sum();
        let free = self.disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
        let allowed = free.saturating_add(used) / DISK_SHARE;
        if used <= allowed {
            return WINDOW_DEFAULT;
        }
        WINDOW_DEFAULT.mul_f64(allowed as f64 / used as f64)
    }
}

/// Where the moment of a snapshot lies, as long as something else keeps it too.
fn place_of(manifest: &Manifest, history: &History, lsn: Lsn, name: &str) -> Place {
    let on = |other: &History| other.common_prefix(history) >= lsn;
    if on(&manifest.history) && lsn >= manifest.collection_floor {
        return Place::Present;
    }
    let past = manifest.abandoned.iter().position(|past| on(&past.history));
    match past.filter(|_| !on(&manifest.history) && lsn >= manifest.collection_floor) {
        Some(index) => Place::Abandoned(index),
        None => Place::Snapshot(name.into()),
    }
}

/// The History of a place.
pub(crate) fn history_of<'m>(manifest: &'m Manifest, place: &Place) -> &'m History {
    match place {
        Place::Present => &manifest.history,
        Place::Abandoned(past) => &manifest.abandoned[*past].history,
        Place::Snapshot(name) => manifest
            .snapshot(name)
            .map_or(&manifest.history, |snapshot| &snapshot.history),
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if (1..=100).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::InvalidOption {
        option: "name",
        expected: "1 to 100 bytes".into(),
        got: format!("{} bytes", name.len()),
    })
}

fn unknown(name: &str) -> Error {
    Error::UnknownSnapshot { name: name.into() }
}

fn left(what: &'static str, lsn: Lsn, got: String) -> Error {
    let expected = format!(
        "a moment of the present history: a backtrack has left LSN {lsn} (clone(at=...) shows it, backtrack(to=...) goes there)"
    );
    Error::OutsideWindow {
        what,
        expected,
        got,
    }
}

pub(crate) fn edit_error(error: EditError) -> Error {
    match error {
        EditError::SnapshotExists { name } => Error::SnapshotExists { name },
        EditError::NoSuchSnapshot { name } => Error::UnknownSnapshot { name },
        EditError::Collected { at, floor } => Error::OutsideWindow {
            what: "LSN",
            expected: format!("{floor} or later"),
            got: at.to_string(),
        },
        other => Error::Corrupt {
            detail: other.to_string(),
        },
    }
}
