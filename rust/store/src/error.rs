//! What can go wrong below: grouped by what the caller does next.

use std::io;
use std::path::{Path, PathBuf};

use aurora_page::{Lsn, PageError, PageId};
use aurora_proto::NodeSet;
use aurora_redo::{BlobId, RedoError};

/// A log device failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no log where one is recorded: what was only in it is lost on this device.
    #[error("{path}: expected a log, found none")]
    Missing {
        /// The log's directory, or the file missing from its middle.
        path: PathBuf,
    },
    /// No room for another log file. Nothing was written; appending may succeed later.
    #[error("{path}: the disk is full, the log needs {needed} bytes more")]
    Full {
        /// The log's directory.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// A write or sync failed, now or earlier: what is on disk is unknown, so the device takes nothing more until it is
    /// opened again. It is never retried.
    #[error("{path}: the log takes nothing more since {reason}")]
    Poisoned {
        /// The log's directory.
        path: PathBuf,
        /// The failure that poisoned it.
        reason: String,
    },
    /// Bytes in the middle of the log are damaged in every copy.
    #[error("{path}: damaged at byte {offset}: expected {expected}, got {got}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// The log belongs to other nodes.
    #[error("{path}: expected the log of nodes {expected:?}, got that of {got:?}")]
    Slots {
        /// The file.
        path: PathBuf,
        /// The nodes asked for.
        expected: NodeSet,
        /// The nodes it was made for.
        got: NodeSet,
    },
    /// The log was written by a newer version.
    #[error("{path}: expected log format {expected}, got {got}")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// What this version writes.
        expected: u16,
        /// What the file says.
        got: u16,
    },
    /// Any other failure of the disk.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

impl LogError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> LogError {
        move |source| LogError::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// A node's page store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Bytes on disk are not what was written. The caller reads another copy and has this one repaired.
    #[error("{path}: damaged at byte {offset}: expected {expected}, got {got}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// Records of a page are missing here: the caller reads another copy and has this one repaired.
    #[error("page {page}: record {lsn} follows {expected}, but this copy has {got}")]
    Gap {
        /// The page.
        page: PageId,
        /// The record that cannot be applied.
        lsn: Lsn,
        /// The page LSN it follows.
        expected: Lsn,
        /// The page LSN that this copy can make.
        got: Lsn,
    },
    /// The read is older than what is kept.
    #[error("page {page}: versions below {floor} are collected, {at} was asked for")]
    BelowFloor {
        /// The page.
        page: PageId,
        /// The read point.
        at: Lsn,
        /// The oldest that can be read.
        floor: Lsn,
    },
    /// A page's content is in a blob that this copy does not have.
    #[error("page {page}: blob {blob} is missing in this copy")]
    BlobMissing {
        /// The page.
        page: PageId,
        /// The blob.
        blob: BlobId,
    },
    /// The directory is not this node's, or not a node's at all.
    #[error("{path}: expected {expected}, got {got}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// Whose directory it should be.
        expected: String,
        /// What was found.
        got: String,
    },
    /// Written by a newer version.
    #[error("{path}: expected format {expected}, got {got}")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// What this version writes.
        expected: u16,
        /// What the file says.
        got: u16,
    },
    /// The disk is full. Nothing was lost: what could not be written stays in memory and in the log.
    #[error("{path}: the disk is full")]
    Full {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Any other failure of the disk.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A record that passed its checksum cannot be read or applied: a fault in the writer.
    #[error("page {page}: {source}")]
    Redo {
        /// The page.
        page: PageId,
        /// What is wrong with the record.
        source: RedoError,
    },
    /// A stored image or blob page that passed its checksum cannot be read.
    #[error("page {page}: {source}")]
    Page {
        /// The page.
        page: PageId,
        /// What is wrong with it.
        source: PageError,
    },
}

/// No room: neither on the disk, nor left to the user who writes.
pub(crate) fn is_full(source: &io::Error) -> bool {
    matches!(
        source.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| {
            let path = path.to_path_buf();
            match is_full(&source) {
                true => StoreError::Full { path, source },
                false => StoreError::Io { path, source },
            }
        }
    }

    pub(crate) fn corrupt(
        path: &Path,
        offset: u64,
        expected: impl ToString,
        got: impl ToString,
    ) -> StoreError {
        StoreError::Corrupt {
            path: path.to_path_buf(),
            offset,
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    /// Would another copy of the protection group have what is missing or damaged here?
    pub fn other_copy_may_have_it(&self) -> bool {
        matches!(
            self,
            StoreError::Corrupt { .. }
                | StoreError::Gap { .. }
                | StoreError::BelowFloor { .. }
                | StoreError::BlobMissing { .. }
                | StoreError::Io { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_limit_of_room_like_the_disks_own() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let error = StoreError::io(Path::new("layer"))(kind.into());
            assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        }
        let error = StoreError::io(Path::new("layer"))(io::ErrorKind::NotFound.into());
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    }
}
