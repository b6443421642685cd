//! What can go wrong with a cluster, grouped by what the caller does next.

use std::io;
use std::path::{Path, PathBuf};

use aurora_engine::EngineError;
use aurora_page::Lsn;
use aurora_proto::MetaError;
use aurora_store::{LogError, StoreError};
use thiserror::Error;

/// An error of the embedded cluster. Each says what was expected and what was found.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller's interrupt asked to stop; nothing was lost, the call may be made again.
    #[error("interrupted")]
    Interrupted,
    /// An error of the engine: a statement, a conflict, a limit.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An option has a value that cannot be.
    #[error("option {option}: expected {expected}, got {got}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What it accepts.
        expected: String,
        /// What it got.
        got: String,
    },
    /// Another process owns the directory.
    #[error("{} is already open in {}", path.display(), owner(*pid))]
    AlreadyOpen {
        /// The cluster's directory.
        path: PathBuf,
        /// The owner, when its lock file says.
        pid: Option<u32>,
    },
    /// The directory holds something else, or nothing.
    #[error("{} is not a cluster: expected {expected}, got {got}", path.display())]
    NotACluster {
        /// The directory.
        path: PathBuf,
        /// What makes a cluster's directory.
        expected: String,
        /// What is there.
        got: String,
    },
    /// The files were written by a newer release.
    #[error("{} has format {got}, this release reads up to {expected}; open it with a newer aurora-engine", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The newest format this release knows.
        expected: u32,
        /// The format found.
        got: u32,
    },
    /// Too few copies are left for the operation.
    #[error("{have} of {of} copies left, {need} needed: missing {}; {hint}", missing.join(", "))]
    QuorumLost {
        /// Living copies.
        have: usize,
        /// Copies of the group.
        of: usize,
        /// Copies the operation needs.
        need: usize,
        /// The missing nodes' directories.
        missing: Vec<String>,
        /// What would bring them back.
        hint: String,
    },
    /// A write to a cluster that was opened, or has become, read-only.
    #[error("the cluster is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// The disk has no room. What was acknowledged is safe, and reads go on; commits go on once there is room again, without
    /// opening the cluster anew. A commit that was waiting is held: its outcome is unknown, for it may yet become durable then.
    #[error("no space left for {}: free some, and commits go on; a commit that was waiting is held and may still become durable: its outcome is unknown until its token is looked up", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// Bytes on disk are not what was written, on every copy that could be asked.
    #[error("corrupt: {detail}")]
    Corrupt {
        /// File, offset, expected and got, for each copy tried.
        detail: String,
    },
    /// A newer epoch owns the volume; this handle can never write again.
    #[error("fenced: another owner opened the volume with epoch {by}")]
    Fenced {
        /// The newer volume epoch.
        by: u64,
    },
    /// The log device failed: commits that were waiting have an unknown outcome until the cluster is opened again.
    #[error(
        "the log failed and is not written again: {detail}; open the cluster again to learn which commits are durable"
    )]
    LogFailed {
        /// The first failure.
        detail: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The window does not reach back so far, or the time is not yet here.
    #[error("{what} is outside the window: expected {expected}, got {got}")]
    OutsideWindow {
        /// `LSN` or `time`.
        what: &'static str,
        /// The window's limits.
        expected: String,
        /// What was asked for.
        got: String,
    },
    /// No snapshot has this name.
    #[error("expected a snapshot {name:?}, got none of this name")]
    UnknownSnapshot {
        /// The name.
        name: String,
    },
    /// A snapshot of this name is there already.
    #[error("expected no snapshot {name:?}, got one: choose another name or delete it")]
    SnapshotExists {
        /// The name.
        name: String,
    },
    /// A replica did not show a commit in the time that its reader gave it.
    #[error("replica {instance} is behind: expected it to show LSN {expected}, got {got}")]
    ReplicaLag {
        /// The replica.
        instance: String,
        /// What it was to show.
        expected: Lsn,
        /// What it shows.
        got: Lsn,
    },
    /// The instance was removed while somebody waited for it.
    #[error("instance {instance} was removed; another one can be asked")]
    InstanceGone {
        /// The instance.
        instance: String,
    },
    /// There is no such instance.
    #[error("instance {instance:?}: expected one of {}, got none of this name", there.join(", "))]
    UnknownInstance {
        /// What was asked for.
        instance: String,
        /// Who is there.
        there: Vec<String>,
    },
    /// The volume has its largest size.
    #[error("the volume is full: expected at most {bytes_max} bytes, and every extent is in use")]
    VolumeFull {
        /// Bytes a volume may have.
        bytes_max: u64,
    },
    /// The writer crashed, and what it had numbered and not confirmed may be there or not.
    #[error("the writer crashed before it could confirm this")]
    WriterCrashed,
    /// A backup cannot be written, read or used.
    #[error("backup at {url}: {detail}")]
    Backup {
        /// Where it lies.
        url: String,
        /// Which object, what was expected, what was found.
        detail: String,
    },
    /// The cluster was closed.
    #[error("the cluster is closed")]
    Closed,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        match error {
            StoreError::Full { path, .. } => Error::DiskFull { path },
            StoreError::Io { path, source } => Error::io(&path, source),
            StoreError::NewerFormat {
                path,
                expected,
                got,
            } => Error::NewerFormat {
                path,
                expected: expected.into(),
                got: got.into(),
            },
            other => Error::Corrupt {
                detail: other.to_string(),
            },
        }
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Error {
        match error {
            LogError::Full { path, .. } => Error::DiskFull { path },
            LogError::Io { path, source } => Error::io(&path, source),
            LogError::NewerFormat {
                path,
                expected,
                got,
            } => Error::NewerFormat {
                path,
                expected: expected.into(),
                got: got.into(),
            },
            other @ LogError::Poisoned { .. } => Error::LogFailed {
                detail: other.to_string(),
            },
            other => Error::Corrupt {
                detail: other.to_string(),
            },
        }
    }
}

impl From<MetaError> for Error {
    fn from(error: MetaError) -> Error {
        match error {
            MetaError::TooFew { got, needed, of } => Error::QuorumLost {
                have: got,
                of,
                need: needed,
                missing: Vec::new(),
                hint: "the manifest is kept in the cluster's directory and its six nodes': bring missing ones back".into(),
            },
            MetaError::Store(source) => match source.downcast::<io::Error>() {
                Ok(source) => Error::io(Path::new("the manifest"), *source),
                Err(source) => Error::Corrupt { detail: source.to_string() },
            },
            other => Error::Corrupt { detail: other.to_string() },
        }
    }
}

impl Error {
    /// Wraps a system error with the path it is about; a full disk has an error of its own.
    pub fn io(path: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull {
                path: path.to_path_buf(),
            },
            io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly {
                reason: format!("{} is on a read-only file system", path.display()),
            },
            _ => Error::Io {
                path: path.to_path_buf(),
                source,
            },
        }
    }
}

/// Who has the directory, and what the caller may do about it.
fn owner(pid: Option<u32>) -> String {
    match pid {
        Some(pid) if pid == std::process::id() => {
            "this process; use that cluster, or close it first".into()
        }
        pid => format!(
            "process {}; close it there, or open with takeover=True to end that process",
            pid.map_or("(unknown)".into(), |pid| pid.to_string())
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_becomes_of_the_commit() {
        let message = Error::DiskFull {
            path: PathBuf::from("/c"),
        }
        .to_string();
        for told in [
            "no space left for /c",
            "may still become durable",
            "outcome is unknown",
            "token",
        ] {
            assert!(message.contains(told), "{message}");
        }
    }
}
