//! What a backup says about itself: the object `format` and the manifests, as JSON. `docs/design/backup.md` says what each field means.

use std::collections::{BTreeMap, BTreeSet};

use aurora_control::backup::{BaseFacts, Era, RangeFacts};
use aurora_page::{Lsn, VolumeId};
use aurora_redo::{History, Interval, RedoError};
use aurora_store::CommitPoint;
use serde::{Deserialize, Serialize};

use super::pack::{FORMAT, Packed};

/// Name of the object that says whose backup it is.
pub(crate) const FORMAT_NAME: &str = "format";
/// Before the numbers of manifests.
pub(crate) const MANIFESTS: &str = "manifests";
/// Manifests that are changes of one that is whole, at most.
pub(crate) const CHANGES_MAX: u64 = 63;

/// The name of a manifest.
pub(crate) fn manifest_name(number: u64) -> String {
    format!("{MANIFESTS}/{number:020}")
}

/// The number of a manifest of this name.
pub(crate) fn manifest_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(MANIFESTS)?.strip_prefix('/')?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// Whether an object of a backup may have this name, and nothing else that lies in the same place. What has none is never removed: an
/// address may be that of a directory with a `log` of its own.
pub(crate) fn is_object_name(name: &str) -> bool {
    let hex =
        |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    let digits =
        |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
    let range = |name: &str| {
        let parts: Vec<_> = name.split('-').collect();
        matches!(parts[..], [from, to, nonce] if digits(from, 20) && digits(to, 20) && hex(nonce, 16))
    };
    let layer = |name: &str| {
        let parts: Vec<_> = name.split('-').collect();
        matches!(parts[..], ["layer", number, mark] if hex(number, 16) && hex(mark, 8))
    };
    let parts: Vec<_> = name.split('/').collect();
    match parts[..] {
        ["blob", id] => hex(id, 32),
        ["log", name] => range(name),
        ["base", node, name] => node.starts_with('n') && layer(name),
        _ => false,
    }
}

/// The object `format`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormatObject {
    pub(crate) format: u16,
    pub(crate) cluster: String,
    pub(crate) page_bytes: u32,
    pub(crate) segment_pages: u64,
    pub(crate) created_us: i64,
    pub(crate) compression: String,
    pub(crate) encryption: Option<String>,
    pub(crate) key_check: Option<String>,
}

/// A History: origin, first and last LSN of each interval, none for an open one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Intervals(Vec<(u64, u64, Option<u64>)>);

impl From<&History> for Intervals {
    fn from(history: &History) -> Intervals {
        let last = |i: &Interval| (!i.is_open()).then_some(i.last.0);
        let all = history.intervals().iter();
        Intervals(all.map(|i| (i.origin.0, i.first.0, last(i))).collect())
    }
}

impl Intervals {
    pub(crate) fn history(&self) -> Result<History, RedoError> {
        let interval = |(origin, first, last): &(u64, u64, Option<u64>)| Interval {
            origin: VolumeId(*origin),
            first: Lsn(*first),
            last: last.map_or(Lsn::MAX, Lsn),
        };
        History::from_intervals(self.0.iter().map(interval).collect())
    }
}

/// What is fixed of a volume, and how large it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeFacts {
    pub(crate) origin: u64,
    pub(crate) region: String,
    pub(crate) page_bytes: u32,
    pub(crate) segment_pages: u64,
    pub(crate) window: u64,
    pub(crate) segments: u32,
    pub(crate) created_us: i64,
    pub(crate) config: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EraEntry {
    pub(crate) history: Intervals,
    pub(crate) since_us: i64,
    pub(crate) until_us: Option<i64>,
}

impl From<&Era> for EraEntry {
    fn from(era: &Era) -> EraEntry {
        EraEntry {
            history: (&era.history).into(),
            since_us: era.since_us,
            until_us: era.until_us,
        }
    }
}

/// Rows and digest of a table at one LSN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableProof {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// The sum of its rows' digests; see `docs/design/backup.md`.
    pub digest: String,
}

/// A moment that is kept by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotEntry {
    pub(crate) name: String,
    pub(crate) history: Intervals,
    pub(crate) lsn: u64,
    pub(crate) time_us: i64,
    pub(crate) created_us: i64,
    pub(crate) tables: Option<Vec<TableProof>>,
}

/// The earliest and the latest commit that can be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restorable {
    pub(crate) from_lsn: u64,
    pub(crate) from_us: i64,
    pub(crate) lsn: u64,
    pub(crate) time_us: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseEntry {
    pub(crate) id: u64,
    pub(crate) node: u16,
    pub(crate) incarnation: u64,
    pub(crate) lsn: u64,
    pub(crate) time_us: i64,
    pub(crate) taken_us: i64,
    pub(crate) floor: u64,
    pub(crate) floor_commit: Option<(u64, u64, i64)>,
    pub(crate) histories: Vec<Intervals>,
    pub(crate) segments: u32,
    pub(crate) objects: Vec<String>,
    pub(crate) blobs: Vec<String>,
    pub(crate) tables: Option<Vec<TableProof>>,
}

impl BaseEntry {
    pub(crate) fn floor_commit(&self) -> Option<CommitPoint> {
        self.floor_commit.map(|(lsn, origin, time_us)| CommitPoint {
            lsn: Lsn(lsn),
            origin: VolumeId(origin),
            time_us,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogEntry {
    pub(crate) object: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) first_us: i64,
    pub(crate) last_us: i64,
    pub(crate) records: u64,
    pub(crate) commits: u64,
    pub(crate) level: u8,
    pub(crate) blobs: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectEntry {
    pub(crate) bytes: u64,
    pub(crate) raw: u64,
    pub(crate) sha256: String,
}

impl From<Packed> for ObjectEntry {
    fn from(packed: Packed) -> ObjectEntry {
        ObjectEntry {
            bytes: packed.bytes,
            raw: packed.raw,
            sha256: packed.sha256,
        }
    }
}

/// What went since the manifest that this one is a change of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    pub(crate) bases: Vec<u64>,
    pub(crate) log: Vec<String>,
    pub(crate) objects: Vec<String>,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackupManifest {
    pub(crate) format: u16,
    pub(crate) number: u64,
    pub(crate) nonce: String,
    pub(crate) on: Option<u64>,
    pub(crate) cluster: String,
    pub(crate) epoch: u64,
    pub(crate) written_us: i64,
    pub(crate) engine: String,
    pub(crate) retention_days: u32,
    pub(crate) volume: VolumeFacts,
    pub(crate) eras: Vec<EraEntry>,
    pub(crate) snapshots: Vec<SnapshotEntry>,
    pub(crate) restorable: Restorable,
    pub(crate) bases: Vec<BaseEntry>,
    pub(crate) log: Vec<LogEntry>,
    pub(crate) objects: BTreeMap<String, ObjectEntry>,
    pub(crate) gone: Gone,
}

impl BackupManifest {
    /// An empty one, number 0, of a backup that is about to begin.
    pub(crate) fn begin(cluster: String, volume: VolumeFacts) -> BackupManifest {
        BackupManifest {
            format: FORMAT,
            number: 0,
            nonce: String::new(),
            on: None,
            cluster,
            epoch: 0,
            written_us: 0,
            engine: env!("CARGO_PKG_VERSION").into(),
            retention_days: 0,
            volume,
            eras: Vec::new(),
            snapshots: Vec::new(),
            restorable: Restorable::default(),
            bases: Vec::new(),
            log: Vec::new(),
            objects: BTreeMap::new(),
            gone: Gone::default(),
        }
    }

    /// What it holds, as a change of another that is whole.
    pub(crate) fn change_of(&self, whole: &BackupManifest) -> BackupManifest {
        let had: BTreeMap<u64, &BaseEntry> =
            whole.bases.iter().map(|base| (base.id, base)).collect();
        let logs: BTreeMap<&str, &LogEntry> =
            whole.log.iter().map(|log| (&*log.object, log)).collect();
        let ids: BTreeSet<u64> = self.bases.iter().map(|base| base.id).collect();
        let names: BTreeSet<&str> = self.log.iter().map(|log| &*log.object).collect();
        let came = |base: &&BaseEntry| had.get(&base.id) != Some(base);
        let gone = Gone {
            bases: had.keys().copied().filter(|id| !ids.contains(id)).collect(),
            log: logs
                .keys()
                .filter(|name| !names.contains(*name))
                .map(|name| (*name).into())
                .collect(),
            objects: whole
                .objects
                .keys()
                .filter(|name| !self.objects.contains_key(*name))
                .cloned()
                .collect(),
        };
        BackupManifest {
            on: Some(whole.number),
            bases: self.bases.iter().filter(came).cloned().collect(),
            log: self
                .log
                .iter()
                .filter(|log| logs.get(&*log.object) != Some(log))
                .cloned()
                .collect(),
            objects: self
                .objects
                .iter()
                .filter(|(name, object)| whole.objects.get(*name) != Some(object))
                .map(|(name, object)| (name.clone(), object.clone()))
                .collect(),
            gone,
            ..self.clone()
        }
    }

    /// The whole that a change of `whole` stands for.
    pub(crate) fn upon(mut self, whole: &BackupManifest) -> BackupManifest {
        let gone = std::mem::take(&mut self.gone);
        let came: BTreeSet<u64> = self
            .bases
            .iter()
            .map(|base| base.id)
            .chain(gone.bases)
            .collect();
        let kept = whole.bases.iter().filter(|base| !came.contains(&base.id));
        self.bases = kept.cloned().chain(self.bases).collect();
        self.bases.sort_by_key(|base| base.id);
        let came: BTreeSet<String> = self
            .log
            .iter()
            .map(|log| log.object.clone())
            .chain(gone.log)
            .collect();
        let kept = whole.log.iter().filter(|log| !came.contains(&log.object));
        self.log = kept.cloned().chain(self.log).collect();
        self.log.sort_by_key(|log| (log.from, log.to));
        let gone: BTreeSet<String> = gone.objects.into_iter().collect();
        let kept = whole
            .objects
            .iter()
            .filter(|(name, _)| !gone.contains(*name));
        let mut objects: BTreeMap<_, _> = kept
            .map(|(name, object)| (name.clone(), object.clone()))
            .collect();
        objects.append(&mut self.objects);
        self.objects = objects;
        self.on = None;
        self
    }

    /// The last LSN of what is in the backup.
    pub(crate) fn covered(&self) -> Lsn {
        let log = self.log.iter().map(|log| log.to);
        let bases = self.bases.iter().map(|base| base.lsn);
        Lsn(log.chain(bases).max().unwrap_or(0))
    }

    pub(crate) fn base_facts(&self) -> Result<Vec<BaseFacts>, RedoError> {
        let facts = |base: &BaseEntry| {
            let histories: Result<Vec<_>, _> =
                base.histories.iter().map(Intervals::history).collect();
            let of = |name: &String| self.objects.get(name).map_or(0, |object| object.bytes);
            Ok(BaseFacts {
                id: base.id,
                lsn: Lsn(base.lsn),
                floor: Lsn(base.floor),
                histories: histories?,
                taken_us: base.taken_us,
                bytes: base.objects.iter().chain(&base.blobs).map(of).sum(),
            })
        };
        self.bases.iter().map(facts).collect()
    }

    pub(crate) fn range_facts(&self) -> Vec<RangeFacts> {
        let facts = |log: &LogEntry| RangeFacts {
            from: Lsn(log.from),
            to: Lsn(log.to),
            first_us: log.first_us,
            last_us: log.last_us,
            bytes: self
                .objects
                .get(&log.object)
                .map_or(0, |object| object.bytes),
            level: log.level,
        };
        self.log.iter().map(facts).collect()
    }

    pub(crate) fn eras(&self) -> Result<Vec<Era>, RedoError> {
        let era = |entry: &EraEntry| {
            Ok(Era {
                history: entry.history.history()?,
                since_us: entry.since_us,
                until_us: entry.until_us,
            })
        };
        self.eras.iter().map(era).collect()
    }

    /// Names of all objects that bases and ranges need.
    pub(crate) fn needed(&self) -> BTreeSet<String> {
        let bases = self
            .bases
            .iter()
            .flat_map(|base| base.objects.iter().chain(&base.blobs));
        let log = self
            .log
            .iter()
            .flat_map(|log| std::iter::once(&log.object).chain(&log.blobs));
        bases.chain(log).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> BackupManifest {
        let volume = VolumeFacts {
            origin: u64::MAX,
            region: "local".into(),
            page_bytes: 32768,
            segment_pages: 64,
            window: 100,
            segments: 1,
            created_us: 1,
            config: BTreeMap::new(),
        };
        let mut manifest = BackupManifest::begin("ab".into(), volume);
        manifest.number = 1;
        for n in 1..4 {
            add(&mut manifest, n);
        }
        manifest
    }

    fn add(manifest: &mut BackupManifest, n: u64) {
        let object = format!("log/{n}");
        manifest.objects.insert(
            object.clone(),
            ObjectEntry {
                bytes: n,
                raw: n,
                sha256: String::new(),
            },
        );
        manifest.log.push(LogEntry {
            object,
            from: n,
            to: n + 1,
            first_us: 0,
            last_us: 0,
            records: 1,
            commits: 1,
            level: 0,
            blobs: vec![],
        });
    }

    /// Sweeping removed whatever lay below `log` and had another name: at the address of a directory with a log of its own, that log
    /// (found in review).
    #[test]
    fn names_of_others_are_none_of_a_backup() {
        for name in [
            "blob/0123456789abcdef0123456789abcdef",
            "log/00000000000000000154-00000000000010000155-8effe349114dc940",
            "base/n0-1/layer-0000000000000002-e0ec8f2a",
        ] {
            assert!(is_object_name(name), "{name}");
        }
        for name in [
            "log/log-00000000",
            "log/syslog",
            "log/apt/history.log",
            "blob/photo",
            "base/n0-1/layer-0000000000000002",
            "base/layer-0000000000000002-e0ec8f2a",
            "format",
        ] {
            assert!(!is_object_name(name), "{name}");
        }
    }

    #[test]
    fn a_change_gives_the_whole_again() {
        let whole = manifest();
        let mut next = whole.clone();
        next.number = 2;
        add(&mut next, 4);
        next.log.remove(1);
        next.objects.remove("log/2");
        let change = next.change_of(&whole);
        assert_eq!((change.log.len(), change.objects.len()), (1, 1));
        assert_eq!(change.upon(&whole), next);
    }

    #[test]
    fn a_history_comes_back_with_the_largest_numbers() {
        let history =
            History::new(VolumeId(u64::MAX)).branch(Lsn(u64::MAX - 500), VolumeId(3), 100);
        let text = serde_json::to_string(&Intervals::from(&history)).expect("JSON");
        let back: Intervals = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back.history(), Ok(history));
        let overlapping: Intervals =
            serde_json::from_str("[[1, 5, 9], [1, 9, null]]").expect("JSON");
        assert!(overlapping.history().is_err());
    }

    #[test]
    fn names_of_manifests_have_their_numbers() {
        assert_eq!(manifest_number(&manifest_name(42)), Some(42));
        assert_eq!(manifest_number("manifests/42"), None);
        assert_eq!(manifest_number("log/00000000000000000042"), None);
    }
}
