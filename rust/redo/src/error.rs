//! What can be wrong with a record, a batch or a History.

use aurora_page::{Lsn, PageError, PageId};

use crate::BlobId;

/// Bytes that do not parse, or a record that does not fit the page it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedoError {
    /// The bytes end too early.
    #[error("{what} is cut short at byte {at}: expected {needed} more bytes, got {got}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where in it.
        at: usize,
        /// How many bytes the next field needs.
        needed: usize,
        /// How many there are.
        got: usize,
    },
    /// An integer that is too long, or not in its shortest form.
    #[error("{what} has a malformed integer at byte {at}")]
    BadVarint {
        /// What was being read.
        what: &'static str,
        /// Where the integer begins.
        at: usize,
    },
    /// Bytes after the end.
    #[error("{what} is followed by {got} bytes, expected none")]
    TrailingBytes {
        /// What was being read.
        what: &'static str,
        /// How many bytes are left over.
        got: usize,
    },
    /// A tag, flag or format number that this version does not know.
    #[error("{what} has an unknown {field}: expected {expected}, got {got}")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// What is known.
        expected: &'static str,
        /// What was found.
        got: u64,
    },
    /// A number that its field cannot hold.
    #[error("{what} has {field} = {got}, which is out of range")]
    OutOfRange {
        /// What was being read.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// What was found.
        got: u64,
    },
    /// Numbers that contradict each other (an LSN not above its predecessor, intervals that overlap).
    #[error("{what}: {field} must be {expected}, got {got}")]
    Order {
        /// What was being read.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// The relation that should hold.
        expected: &'static str,
        /// What was found.
        got: u64,
    },
    /// The record is for another page.
    #[error("record {lsn} is for page {expected}, but was applied to page {got}")]
    WrongPage {
        /// The record.
        lsn: Lsn,
        /// The page it names.
        expected: PageId,
        /// The page it was given.
        got: PageId,
    },
    /// The record does not follow the page's newest change [5].
    #[error("record {lsn} of page {page} follows page LSN {expected}, but the page is at {got}")]
    WrongPrev {
        /// The page.
        page: PageId,
        /// The record.
        lsn: Lsn,
        /// The page LSN that the record follows.
        expected: Lsn,
        /// The LSN that the page has.
        got: Lsn,
    },
    /// A record that starts a page's life names a predecessor.
    #[error("record {lsn} starts the life of page {page} and must have no predecessor, got {got}")]
    LifeHasPrev {
        /// The page.
        page: PageId,
        /// The record.
        lsn: Lsn,
        /// The predecessor that it names.
        got: Lsn,
    },
    /// The page's content is page `index` of a blob, which only the caller can fetch.
    #[error("the content of the page is page {index} of blob {blob}, which must be fetched first")]
    NeedsBlob {
        /// The blob.
        blob: BlobId,
        /// The page in it.
        index: u32,
    },
    /// The page is damaged, or the change does not fit it.
    #[error(transparent)]
    Page(#[from] PageError),
}
