//! A backup as a reader finds it: what can be restored, and from which objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_control::backup::{self as decide, BaseFacts, Era, Lacks, Parts, RangeFacts};
use aurora_page::{Lsn, VolumeId};
use aurora_redo::History;
use aurora_store::{CommitPoint, LogRange};

use super::format::{
    BackupManifest, BaseEntry, FORMAT_NAME, FormatObject, LogEntry, ObjectEntry, TableProof,
};
use super::place::{ObjectPlace, PlaceFault};
use super::uploader::{Failed, at, check_key, newest, read_format, read_object};
use super::{BackupOptions, Key};
use crate::Error;
use crate::clock::utc;

/// The moment that a restore is to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreAt {
    /// The latest commit that can be restored.
    Latest,
    /// The newest commit at or before a time, in microseconds since 1970.
    Time(i64),
    /// The newest commit at or below an LSN.
    Lsn(Lsn),
    /// The moment of a snapshot.
    Snapshot(String),
}

/// A snapshot in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSnapshot {
    /// Its name.
    pub name: String,
    /// The commit that it ends with.
    pub lsn: Lsn,
    /// The time of that commit.
    pub time_us: i64,
    /// When it was made.
    pub created_us: i64,
    /// Whether everything that it needs is there.
    pub available: bool,
}

/// What a backup can give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupList {
    /// The cluster that it is of.
    pub cluster: String,
    /// The earliest commit of the window, and its time.
    pub earliest: Option<(Lsn, i64)>,
    /// The latest commit, and its time.
    pub latest: Option<(Lsn, i64)>,
    /// Snapshots, oldest first.
    pub snapshots: Vec<BackupSnapshot>,
    /// Bytes of all objects that it names.
    pub stored_bytes: u64,
    /// The number of the newest manifest.
    pub manifest: u64,
    /// Days that it reaches back.
    pub retention_days: u32,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// An object that a restore reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedObject {
    /// Its name.
    pub name: String,
    /// Its bytes in the store.
    pub bytes: u64,
    /// Bytes of its content.
    pub raw: u64,
    /// SHA-256 of it, as the manifest has it.
    pub sha256: String,
}

/// What a restore to a moment would read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePlan {
    /// The commit.
    pub lsn: Lsn,
    /// Its time.
    pub time_us: i64,
    /// Up to where the base has everything.
    pub base_lsn: Lsn,
    /// The node that the base was taken from.
    pub base_node: u16,
    /// Stretches of log on top of it, each above its first LSN and up to its second.
    pub log: Vec<(Lsn, Lsn)>,
    /// Everything that is read.
    pub objects: Vec<PlannedObject>,
    /// What the source has counted at this commit, if it has.
    pub tables: Option<Vec<TableProof>>,
}

/// A backup that was found.
pub(crate) struct Catalog {
    pub(crate) options: BackupOptions,
    pub(crate) place: Arc<dyn ObjectPlace>,
    pub(crate) format: FormatObject,
    pub(crate) manifest: BackupManifest,
    bases: Vec<BaseFacts>,
    ranges: Vec<RangeFacts>,
    eras: Vec<Era>,
}

/// A moment of a backup.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) history: History,
    pub(crate) lsn: Lsn,
    pub(crate) time_us: i64,
}

/// The objects that a moment is made from.
pub(crate) struct Wanted<'c> {
    pub(crate) base: &'c BaseEntry,
    pub(crate) log: Vec<&'c LogEntry>,
}

impl Wanted<'_> {
    /// Layers and ranges by the number that each gets, in the directory of a node.
    pub(crate) fn layers(&self) -> Result<BTreeMap<u64, String>, String> {
        let mut layers = BTreeMap::new();
        for name in &self.base.objects {
            let number = layer_number(name)
                .ok_or_else(|| format!("expected a layer's name, got {name:?}"))?;
            layers.insert(number, name.clone());
        }
        // A layer replaces lower numbers only, so none that is given here is ever one that was replaced.
        let first = layers.last_key_value().map_or(1, |(last, _)| last + 1);
        layers.extend((first..).zip(self.log.iter().map(|log| log.object.clone())));
        Ok(layers)
    }

    /// Names of the blobs.
    pub(crate) fn blobs(&self) -> std::collections::BTreeSet<String> {
        let log = self.log.iter().flat_map(|log| &log.blobs);
        self.base.blobs.iter().chain(log).cloned().collect()
    }
}

/// The place of the first commit of a range, or before it.
fn first_commit(log: &LogEntry) -> CommitPoint {
    CommitPoint {
        lsn: Lsn(log.from).next(),
        origin: VolumeId(0),
        time_us: log.first_us,
    }
}

fn base_commit(base: &BaseEntry) -> CommitPoint {
    CommitPoint {
        lsn: Lsn(base.lsn),
        origin: VolumeId(0),
        time_us: base.time_us,
    }
}

fn layer_number(name: &str) -> Option<u64> {
    let file = name.rsplit('/').next()?;
    file.strip_prefix("layer-")?.split('-').next()?.parse().ok()
}

impl Catalog {
    /// Reads what a backup says of itself.
    pub(crate) fn open(options: &BackupOptions) -> Result<Catalog, Error> {
        let place = options.place(false)?;
        Catalog::read(options, place).map_err(|failed| failed.of(options))
    }

    fn read(options: &BackupOptions, place: Arc<dyn ObjectPlace>) -> Result<Catalog, Failed> {
        let bytes = place.get(FORMAT_NAME).map_err(|error| match error.what {
            PlaceFault::NotFound => {
                Failed::Refused("expected a backup, found no object named format".into())
            }
            _ => at(FORMAT_NAME)(error),
        })?;
        let format = read_format(&bytes)?;
        check_key(&format, options.key().map(Key::check).as_deref()).map_err(Failed::Refused)?;
        let found = newest(&*place, options)?;
        let (manifest, _) = found.ok_or_else(|| {
            Failed::Refused("expected a manifest, found none: the backup has only begun".into())
        })?;
        Ok(Catalog {
            bases: manifest.base_facts()?,
            ranges: manifest.range_facts(),
            eras: manifest.eras()?,
            options: options.clone(),
            place,
            format,
            manifest,
        })
    }

    pub(crate) fn list(&self) -> BackupList {
        let manifest = &self.manifest;
        let usable = !manifest.bases.is_empty();
        let window = &manifest.restorable;
        let snapshots = manifest.snapshots.iter().map(|snapshot| BackupSnapshot {
            name: snapshot.name.clone(),
            lsn: Lsn(snapshot.lsn),
            time_us: snapshot.time_us,
            created_us: snapshot.created_us,
            available: snapshot
                .history
                .history()
                .is_ok_and(|history| self.parts(&history, Lsn(snapshot.lsn)).is_ok()),
        });
        BackupList {
            cluster: manifest.cluster.clone(),
            earliest: usable.then_some((Lsn(window.from_lsn), window.from_us)),
            latest: usable.then_some((Lsn(window.lsn), window.time_us)),
            snapshots: snapshots.collect(),
            stored_bytes: manifest.objects.values().map(|object| object.bytes).sum(),
            manifest: manifest.number,
            retention_days: manifest.retention_days,
            encrypted: self.format.encryption.is_some(),
        }
    }

    fn parts(&self, history: &History, lsn: Lsn) -> Result<Parts, Lacks> {
        decide::parts(&self.bases, &self.ranges, history, lsn)
    }

    /// What a moment is made from.
    pub(crate) fn wanted(&self, found: &Found) -> Result<Wanted<'_>, Error> {
        let parts = self.parts(&found.history, found.lsn).map_err(|lacks| {
            self.options.failed(match lacks {
                Lacks::Base => {
                    format!("LSN {}: expected a base that has it, found none", found.lsn)
                }
                Lacks::Log(from, to) => {
                    format!(
                        "LSN {}: expected the log above {from} up to {to}, found none",
                        found.lsn
                    )
                }
            })
        })?;
        Ok(Wanted {
            base: &self.manifest.bases[parts.base],
            log: parts
                .ranges
                .iter()
                .map(|i| &self.manifest.log[*i])
                .collect(),
        })
    }

    /// The commit that a moment means, and the History that it lies in.
    pub(crate) fn find(&self, target: &RestoreAt) -> Result<Found, Error> {
        let window = &self.manifest.restorable;
        if self.bases.is_empty() {
            return Err(self
                .options
                .failed("expected a base, found none: the first one is still on its way"));
        }
        match target {
            RestoreAt::Latest => Ok(Found {
                history: self.present()?,
                lsn: Lsn(window.lsn),
                time_us: window.time_us,
            }),
            RestoreAt::Snapshot(name) => self.find_snapshot(name),
            RestoreAt::Time(time_us) => {
                let newest = self.newest_us();
                if !(window.from_us..=newest).contains(time_us) {
                    return Err(Error::OutsideWindow {
                        what: "time",
                        expected: format!("{} to {}", utc(window.from_us), utc(newest)),
                        got: utc(*time_us),
                    });
                }
                let era = decide::era_at(&self.eras, *time_us);
                let era =
                    era.ok_or_else(|| self.options.failed("expected a History, found none"))?;
                self.newest_commit(&era.history, |commit| commit.time_us <= *time_us)
            }
            RestoreAt::Lsn(lsn) => {
                let holds = |era: &&Era| era.history.origin_of(*lsn).is_some();
                let era = self.eras.iter().rev().find(holds);
                let covered = self.manifest.covered();
                match era.filter(|_| (Lsn(window.from_lsn)..=covered).contains(lsn)) {
                    Some(era) => self.newest_commit(&era.history, |commit| commit.lsn <= *lsn),
                    None => Err(Error::OutsideWindow {
                        what: "LSN",
                        expected: format!("{} to {covered}", window.from_lsn),
                        got: lsn.to_string(),
                    }),
                }
            }
        }
    }

    /// A cluster that was idle is as it was until the backup was last written.
    fn newest_us(&self) -> i64 {
        self.manifest
            .restorable
            .time_us
            .max(self.manifest.written_us)
    }

    fn present(&self) -> Result<History, Error> {
        let present = self.eras.last().map(|era| era.history.clone());
        present.ok_or_else(|| self.options.failed("expected a History, found none"))
    }

    fn find_snapshot(&self, name: &str) -> Result<Found, Error> {
        let snapshot = self
            .manifest
            .snapshots
            .iter()
            .find(|snapshot| snapshot.name == name);
        let snapshot = snapshot.ok_or_else(|| Error::UnknownSnapshot { name: name.into() })?;
        let history = snapshot.history.history();
        Ok(Found {
            history: history.map_err(|error| self.options.failed(error))?,
            lsn: Lsn(snapshot.lsn),
            time_us: snapshot.time_us,
        })
    }

    /// The newest commit of a History that `wanted` accepts. Whatever it refuses is newer than all that it accepts.
    fn newest_commit(
        &self,
        history: &History,
        wanted: impl Fn(&CommitPoint) -> bool,
    ) -> Result<Found, Error> {
        let logged = self.newest_logged(history, &wanted)?;
        let of_bases = self.manifest.bases.iter().map(base_commit);
        let of_bases =
            of_bases.filter(|commit| history.origin_of(commit.lsn).is_some() && wanted(commit));
        let newest = logged
            .into_iter()
            .chain(of_bases)
            .max_by_key(|commit| commit.lsn);
        let commit = match newest {
            Some(newest) if self.is_last(newest.lsn, history, &wanted) => newest,
            // Where the log has a hole, and before the first base, it is in a base that was taken later.
            _ => self.newest_in_base(newest, history, &wanted)?,
        };
        Ok(Found {
            history: history.clone(),
            lsn: commit.lsn,
            time_us: commit.time_us,
        })
    }

    fn newest_logged(
        &self,
        history: &History,
        wanted: &impl Fn(&CommitPoint) -> bool,
    ) -> Result<Option<CommitPoint>, Error> {
        for log in self.manifest.log.iter().rev().filter(|log| log.commits > 0) {
            let (first, last) = (Lsn(log.from), Lsn(log.to));
            let overlaps = history
                .intervals()
                .iter()
                .any(|i| i.first <= last && i.last > first);
            if overlaps && wanted(&first_commit(log)) {
                let commits = self.commits_of(&log.object)?;
                let counts = |commit: &&CommitPoint| {
                    history.contains(commit.origin, commit.lsn) && wanted(commit)
                };
                if let Some(commit) = commits.iter().rev().find(counts) {
                    return Ok(Some(*commit));
                }
            }
        }
        Ok(None)
    }

    /// Whether the log says that the next commit of a History after `end` is not wanted.
    fn is_last(
        &self,
        mut end: Lsn,
        history: &History,
        wanted: &impl Fn(&CommitPoint) -> bool,
    ) -> bool {
        for log in &self.manifest.log {
            if Lsn(log.to) <= end {
                continue;
            }
            // Between two intervals of a History there is nothing to be logged.
            let next = history.next_after(end).map_or(end, Lsn::prev);
            if Lsn(log.from) > end.max(next) {
                return false;
            }
            if log.commits > 0 && Lsn(log.from) >= end && !wanted(&first_commit(log)) {
                return true;
            }
            end = end.max(Lsn(log.to));
        }
        // A base that was taken after the last range knows more than that.
        !self.manifest.bases.iter().any(|base| Lsn(base.lsn) > end)
    }

    /// Looks into the first base that was taken after a commit: it still has versions from before.
    fn newest_in_base(
        &self,
        after: Option<CommitPoint>,
        history: &History,
        wanted: &impl Fn(&CommitPoint) -> bool,
    ) -> Result<CommitPoint, Error> {
        let end = after.map_or(Lsn::NONE, |commit| commit.lsn);
        let none = || {
            self.options.failed(format!(
                "expected log or a base with the commits above {end}, found none"
            ))
        };
        let bases = self
            .manifest
            .bases
            .iter()
            .filter(|base| Lsn(base.lsn) > end);
        let base = bases.min_by_key(|base| base.lsn).ok_or_else(none)?;
        let counts =
            |commit: &CommitPoint| history.contains(commit.origin, commit.lsn) && wanted(commit);
        let mut newest = base.floor_commit().filter(counts);
        for name in &base.objects {
            let kept = self.commits_of(name)?.into_iter();
            let kept = kept.filter(|commit| commit.lsn.0 >= base.floor && counts(commit));
            newest = newest
                .into_iter()
                .chain(kept)
                .max_by_key(|commit| commit.lsn);
        }
        newest.ok_or_else(none)
    }

    fn commits_of(&self, name: &str) -> Result<Vec<CommitPoint>, Error> {
        LogRange::commits_in(&self.object(name)?)
            .map_err(|error| self.options.failed(format!("object {name}: {error}")))
    }

    /// What a restore to a moment reads.
    pub(crate) fn plan(&self, found: &Found) -> Result<RestorePlan, Error> {
        let wanted = self.wanted(found)?;
        let log = wanted.log.iter().map(|log| &log.object);
        let names = wanted
            .base
            .objects
            .iter()
            .chain(log)
            .cloned()
            .chain(wanted.blobs());
        let mut objects = Vec::new();
        for name in names {
            let ObjectEntry { bytes, raw, sha256 } = self.entry(&name)?.clone();
            objects.push(PlannedObject {
                name,
                bytes,
                raw,
                sha256,
            });
        }
        Ok(RestorePlan {
            lsn: found.lsn,
            time_us: found.time_us,
            base_lsn: Lsn(wanted.base.lsn),
            base_node: wanted.base.node,
            log: wanted
                .log
                .iter()
                .map(|log| (Lsn(log.from), Lsn(log.to)))
                .collect(),
            objects,
            tables: self.counted(found.lsn),
        })
    }

    /// The tables of a snapshot that ends with this commit.
    fn counted(&self, lsn: Lsn) -> Option<Vec<TableProof>> {
        let snapshots = self.manifest.snapshots.iter();
        let mut same = snapshots.filter(|snapshot| Lsn(snapshot.lsn) == lsn);
        same.find_map(|snapshot| snapshot.tables.clone())
    }

    pub(crate) fn entry(&self, name: &str) -> Result<&ObjectEntry, Error> {
        let entry = self.manifest.objects.get(name);
        entry.ok_or_else(|| {
            let number = self.manifest.number;
            self.options.failed(format!(
                "manifest {number}: expected object {name}, found no entry of it"
            ))
        })
    }

    /// The content of an object.
    pub(crate) fn object(&self, name: &str) -> Result<Vec<u8>, Error> {
        let entry = self.entry(name)?;
        read_object(&*self.place, &self.options, name, Some(entry))
            .map_err(|failed| failed.of(&self.options))
    }
}
