//! Continuous backup into an object store, and restore from it.
//!
//! ```text
//!   aurora-backup   every second: what came since --> log/...; what changed --> manifests/N+1; what nobody needs any more goes
//!   aurora-base     now and then: the layers of one complete node --> base/...
//! ```
//! Nothing here is on the path of a commit, and no lock of a commit is held while the object store is asked. The decisions are in
//! `control::backup`, the format in `docs/design/backup.md`.

mod base;
mod catalog;
mod format;
mod objects;
mod pack;
mod place;
mod ranges;
mod restore;
mod retire;
mod uploader;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aurora_control::backup::{RETENTION_DAYS_MAX, RETENTION_DAYS_MIN};
use aurora_page::Lsn;
use aurora_redo::History;
use parking_lot::{Condvar, Mutex};

use crate::Error;
use crate::cluster::{Cluster, Shared};
use crate::waiters::Parker;
pub use catalog::{BackupList, BackupSnapshot, PlannedObject, RestoreAt, RestorePlan};
pub use format::TableProof;
pub(crate) use pack::Key;
pub use place::{ObjectPlace, Pieces, PlaceError, PlaceFault};

/// What the upload of a base may use, unless the caller says otherwise.
const BYTES_PER_S_DEFAULT: u64 = 64 << 20;
/// No restore should read for longer than this from a manifest that is not the newest any more.
const DELETE_AFTER_DEFAULT: Duration = Duration::from_secs(3600);
/// A cluster that closes waits for so long for its last commits to be in the backup, if the store answered when it was last asked.
const CLOSE_WAIT: Duration = Duration::from_secs(10);
/// A waiting thread looks for signals this often.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// Where backups go, and how.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// A directory, `file:///directory`, or `s3://bucket/prefix`.
    pub url: String,
    /// For how many days every commit can be restored: 1 to 35.
    pub retention_days: u32,
    /// 32 bytes with which everything is encrypted.
    pub key: Option<BackupKey>,
    /// What the upload of a base may use. Log goes as it comes.
    pub bytes_per_s: u64,
    /// An object that is needed no more stays for so long: a restore that has begun may still read it.
    pub delete_after: Duration,
    /// In place of what the address names: for tests.
    pub place: Option<Arc<dyn ObjectPlace>>,
}

/// The key of an encrypted backup.
#[derive(Clone, Debug)]
pub struct BackupKey(pub(crate) Key);

impl BackupKey {
    /// A key of these bytes.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] where they are not 32.
    pub fn new(bytes: &[u8]) -> Result<BackupKey, Error> {
        let key = <[u8; pack::KEY_BYTES]>::try_from(bytes);
        let key = key.map_err(|_| Error::InvalidOption {
            option: "backup_key",
            expected: "32 bytes".into(),
            got: format!("{} bytes", bytes.len()),
        })?;
        Ok(BackupKey(Key::new(key)))
    }
}

impl BackupOptions {
    /// Backups at this address, kept for seven days, not encrypted.
    pub fn new(url: impl Into<String>) -> BackupOptions {
        BackupOptions {
            url: url.into(),
            retention_days: 7,
            key: None,
            bytes_per_s: BYTES_PER_S_DEFAULT,
            delete_after: DELETE_AFTER_DEFAULT,
            place: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(RETENTION_DAYS_MIN..=RETENTION_DAYS_MAX).contains(&self.retention_days) {
            return Err(Error::InvalidOption {
                option: "backup_retention_days",
                expected: format!("{RETENTION_DAYS_MIN} to {RETENTION_DAYS_MAX}"),
                got: self.retention_days.to_string(),
            });
        }
        if self.bytes_per_s == 0 {
            return Err(Error::InvalidOption {
                option: "backup_bytes_per_s",
                expected: "at least 1".into(),
                got: "0".into(),
            });
        }
        place::check_address(&self.url)
    }

    /// Refuses a directory that is the cluster's own, lies in it or holds it: what loses the one must not lose the other.
    pub(crate) fn check_beside(&self, cluster: &Path) -> Result<(), Error> {
        let (Some(backup), Ok(cluster)) =
            (place::directory(&self.url), std::path::absolute(cluster))
        else {
            return Ok(());
        };
        match backup.starts_with(&cluster) || cluster.starts_with(&backup) {
            true => Err(Error::InvalidOption {
                option: "backup",
                expected: format!(
                    "a place apart from the cluster's directory {}",
                    cluster.display()
                ),
                got: format!("{:?}", self.url),
            }),
            false => Ok(()),
        }
    }

    /// Where it lies.
    pub(crate) fn place(&self, create: bool) -> Result<Arc<dyn ObjectPlace>, Error> {
        match &self.place {
            Some(place) => Ok(place.clone()),
            None => place::place(&self.url, create),
        }
    }

    pub(crate) fn key(&self) -> Option<&Key> {
        self.key.as_ref().map(|key| &key.0)
    }

    /// What it is called in messages.
    pub(crate) fn failed(&self, detail: impl ToString) -> Error {
        Error::Backup {
            url: self.url.clone(),
            detail: detail.to_string(),
        }
    }
}

/// How a backup is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupStatus {
    /// Where it lies.
    pub url: String,
    /// `starting`, `running`, `failing`, or `refused`: whatever is there is not this cluster's.
    pub state: &'static str,
    /// What went wrong last, if it still does.
    pub last_error: Option<String>,
    /// The latest commit that can be restored, and its time.
    pub restorable: Option<(Lsn, i64)>,
    /// The earliest commit of the window that can be restored, and its time.
    pub earliest: Option<(Lsn, i64)>,
    /// For how long the newest commit that cannot be restored yet has been waiting, at most.
    pub lag: Duration,
    /// Bytes written into the object store since the cluster was opened.
    pub uploaded_bytes: u64,
    /// Bytes of everything that the backup names.
    pub stored_bytes: u64,
    /// The newest manifest.
    pub manifest: u64,
    /// Days that every commit can be restored for.
    pub retention_days: u32,
    /// Whether a base is on its way.
    pub base_in_progress: bool,
    /// Snapshots that can be restored.
    pub snapshots: Vec<String>,
}

/// What the uploader has reached.
#[derive(Debug, Default)]
struct Reached {
    state: State,
    last_error: Option<String>,
    /// Every commit up to here can be restored,
    covered: Lsn,
    /// unless there is a hole between the last base and the log,
    whole: bool,
    /// and of this History, which is the present one unless the volume has gone over to another since.
    history: Option<History>,
    /// Versions above it are needed for what is to be uploaded yet; none until the backup was read.
    pinned: Option<Lsn>,
    /// When what is covered was all there was.
    caught_up: Option<Instant>,
    restorable: Option<(Lsn, i64)>,
    earliest: Option<(Lsn, i64)>,
    stored_bytes: u64,
    manifest: u64,
    base_in_progress: bool,
    snapshots: Vec<String>,
    /// Rounds that have ended, whether they went well or not.
    rounds: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Starting,
    Running,
    Failing,
    Refused,
}

/// What the cluster and the threads of its backup share.
#[derive(Default)]
pub(crate) struct Backups {
    reached: Mutex<Reached>,
    changed: Condvar,
    thread: Mutex<Option<Arc<Parker>>>,
    place: Mutex<Option<Arc<dyn ObjectPlace>>>,
    uploaded: AtomicU64,
    /// Rows and digests of snapshots' tables that were counted since the cluster was opened.
    counted: Mutex<BTreeMap<(String, Lsn), Vec<TableProof>>>,
    base_wanted: AtomicBool,
}

impl Backups {
    /// Below it nothing may be collected, for it is to be uploaded yet.
    pub(crate) fn pinned(&self) -> Lsn {
        self.reached.lock().pinned.unwrap_or(Lsn::NONE)
    }

    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.lock().as_ref() {
            thread.wake();
        }
    }

    /// Ends whatever is under way at the object store.
    pub(crate) fn stop(&self) {
        if let Some(place) = self.place.lock().as_ref() {
            place.stop();
        }
        self.wake();
        self.changed.notify_all();
    }

    fn update(&self, change: impl FnOnce(&mut Reached)) {
        change(&mut self.reached.lock());
        self.changed.notify_all();
    }
}

impl Cluster {
    /// How the backup is doing; none where there is none.
    pub fn backup_status(&self) -> Option<BackupStatus> {
        let shared = self.shared();
        let options = shared.options.backup.as_ref()?;
        let vdl = aurora_proto::Volume::vdl(&*shared.volume);
        let reached = shared.backups.reached.lock();
        let behind = reached.caught_up.map_or(Duration::ZERO, |at| at.elapsed());
        Some(BackupStatus {
            url: options.url.clone(),
            state: match reached.state {
                State::Starting => "starting",
                State::Running => "running",
                State::Failing => "failing",
                State::Refused => "refused",
            },
            last_error: reached.last_error.clone(),
            restorable: reached.restorable,
            earliest: reached.earliest,
            lag: if reached.covers(vdl, &shared.volume.history()) {
                Duration::ZERO
            } else {
                behind
            },
            uploaded_bytes: shared.backups.uploaded.load(Ordering::Relaxed),
            stored_bytes: reached.stored_bytes,
            manifest: reached.manifest,
            retention_days: options.retention_days,
            base_in_progress: reached.base_in_progress,
            snapshots: reached.snapshots.clone(),
        })
    }

    /// Waits until every commit up to `lsn`, or all that are durable now, can be restored.
    ///
    /// # Errors
    /// [`Error::Backup`] with what went wrong last when it takes longer than `limit`, or can never be.
    pub fn backup_wait(
        &self,
        lsn: Option<Lsn>,
        limit: Duration,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Lsn, Error> {
        self.check_open()?;
        let shared = self.shared();
        let options = shared.options.backup.as_ref().ok_or_else(no_backup)?;
        let lsn = lsn.unwrap_or_else(|| aurora_proto::Volume::vdl(&*shared.volume));
        shared.wait_covered(options, lsn, limit, interrupt)
    }

    /// Keeps in the backup what the tables of a snapshot are, so that a restore of it can be compared.
    ///
    /// # Errors
    /// [`Error::UnknownSnapshot`]; [`Error::InvalidOption`] without a backup.
    pub fn record_tables(&self, snapshot: &str, tables: Vec<TableProof>) -> Result<(), Error> {
        self.check_open()?;
        let shared = self.shared();
        shared.options.backup.as_ref().ok_or_else(no_backup)?;
        let unknown = || Error::UnknownSnapshot {
            name: snapshot.into(),
        };
        let lsn = shared
            .manifest()
            .snapshot(snapshot)
            .ok_or_else(unknown)?
            .lsn;
        shared
            .backups
            .counted
            .lock()
            .insert((snapshot.into(), lsn), tables);
        shared.backups.wake();
        Ok(())
    }

    /// Takes a base now, and waits until it is in the backup.
    ///
    /// # Errors
    /// As [`Cluster::backup_wait`].
    pub fn backup_base(&self, limit: Duration, interrupt: &dyn Fn() -> bool) -> Result<Lsn, Error> {
        self.check_open()?;
        let shared = self.shared();
        let options = shared.options.backup.as_ref().ok_or_else(no_backup)?;
        shared.backups.base_wanted.store(true, Ordering::Release);
        let wanted = || shared.backups.base_wanted.load(Ordering::Acquire);
        shared.wait_backup(options, limit, interrupt, |reached| {
            !wanted() && !reached.base_in_progress
        })?;
        let lsn = aurora_proto::Volume::vdl(&*shared.volume);
        shared.wait_covered(options, lsn, limit, interrupt)
    }
}

impl Reached {
    /// Whether what the present History has up to an LSN can be restored. LSNs alone do not tell: a backtrack goes back below what is
    /// covered, and what was undone came back from a backup that was waited for (found by the independent reader).
    fn covers(&self, lsn: Lsn, present: &History) -> bool {
        let is_present = self.history.as_ref() == Some(present);
        self.restorable.is_some() && self.whole && is_present && self.covered >= lsn
    }
}

pub(crate) fn no_backup() -> Error {
    Error::InvalidOption {
        option: "backup",
        expected: "a cluster that was opened with backup=...".into(),
        got: "one without".into(),
    }
}

impl Shared {
    fn wait_covered(
        &self,
        options: &BackupOptions,
        lsn: Lsn,
        limit: Duration,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Lsn, Error> {
        self.wait_backup(options, limit, interrupt, |reached| {
            reached.covers(lsn, &self.volume.history())
        })?;
        Ok(lsn)
    }

    fn wait_backup(
        &self,
        options: &BackupOptions,
        limit: Duration,
        interrupt: &dyn Fn() -> bool,
        done: impl Fn(&Reached) -> bool,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        self.backups.wake();
        let mut reached = self.backups.reached.lock();
        loop {
            if done(&reached) {
                return Ok(());
            }
            if self.is_closed() {
                return Err(Error::Closed);
            }
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() || reached.state == State::Refused {
                let error = reached.last_error.clone();
                let late = || format!("not done after {limit:?}");
                return Err(options.failed(error.unwrap_or_else(late)));
            }
            let timed_out = self
                .backups
                .changed
                .wait_for(&mut reached, left.min(SIGNALS_EVERY));
            if timed_out.timed_out() && interrupt() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Has the last commits uploaded before the cluster closes, if the store has answered lately.
    pub(crate) fn finish_backup(&self) {
        let Some(options) = &self.options.backup else {
            return;
        };
        if self.read_only.is_some() || self.volume.failure().is_some() {
            return;
        }
        let lsn = aurora_proto::Volume::vdl(&*self.volume);
        let answers = |reached: &Reached| matches!(reached.state, State::Running | State::Starting);
        let first = self.backups.reached.lock().rounds;
        // One that fails now is told by `status()` of the next owner; the commits are durable here.
        let _ = self.wait_backup(options, CLOSE_WAIT, &|| false, |reached| {
            let done = reached.covers(lsn, &self.volume.history());
            done || (!answers(reached) && reached.rounds > first)
        });
    }
}
