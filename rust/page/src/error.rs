//! What can be wrong with a page or with the bytes of a row. Every message says expected and got.

use crate::ids::PageId;
use crate::page::PageKind;

/// A page cannot be read, or cannot be changed as asked. A failed change leaves the page as it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PageError {
    /// The bytes are not as many as a page has.
    #[error("page {page}: expected {expected} bytes, got {got}")]
    Length {
        /// The page that was to be read.
        page: PageId,
        /// Bytes of a page.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The bytes do not begin as a page does.
    #[error("page {page}: expected magic {expected:02x?}, got {got:02x?}")]
    Magic {
        /// The page that was to be read.
        page: PageId,
        /// The magic of pages.
        expected: [u8; 4],
        /// What is there.
        got: [u8; 4],
    },
    /// The page is of a format that this version does not read.
    #[error("page {page}: expected format version {expected}, got {got}")]
    Format {
        /// The page that was to be read.
        page: PageId,
        /// The version that is read here.
        expected: u16,
        /// The version of the page.
        got: u16,
    },
    /// Another page lies where this one should.
    #[error("page {page}: expected page id {page}, got {got}")]
    Id {
        /// The page that was to be read.
        page: PageId,
        /// The page that was found.
        got: PageId,
    },
    /// The bytes are not those that were written \[7\].
    #[error("page {page}: expected CRC-32C {expected:08x} (computed), got {got:08x} (stored)")]
    Crc {
        /// The damaged page.
        page: PageId,
        /// Computed from the bytes.
        expected: u32,
        /// Stored in the page.
        got: u32,
    },
    /// The page is not of the kind that the operation is for.
    #[error("page {page}: expected a page of kind {expected}, got {got}")]
    Kind {
        /// The page.
        page: PageId,
        /// The kind needed.
        expected: PageKind,
        /// The kind it is.
        got: PageKind,
    },
    /// Something inside the page is not possible.
    #[error("page {page}: {what}: expected {expected}, got {got}")]
    Corrupt {
        /// The page.
        page: PageId,
        /// The thing that is wrong.
        what: &'static str,
        /// The value, or the bound, that it should have.
        expected: u64,
        /// The value it has.
        got: u64,
    },
    /// The place named is not in the page.
    #[error("page {page}: expected {what} up to {max}, got {got}")]
    OutOfRange {
        /// The page.
        page: PageId,
        /// What is counted: a rank, a position, an entry.
        what: &'static str,
        /// The largest that is possible.
        max: usize,
        /// The one asked for.
        got: usize,
    },
    /// The change does not fit.
    #[error("page {page}: expected room for {needed} {what}, got {free}")]
    Full {
        /// The page.
        page: PageId,
        /// What is short: rows, bytes.
        what: &'static str,
        /// As many as the change needs.
        needed: usize,
        /// As many as are free.
        free: usize,
    },
    /// The bytes of a row or of changes do not fit the page's columns.
    #[error("page {page}: {source}")]
    Row {
        /// The page.
        page: PageId,
        /// What is wrong with the bytes.
        source: RowError,
    },
}

/// The bytes of a row, or of changes to one, are not what the columns say.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowError {
    /// The bytes end too early.
    #[error("row ends early: expected {expected} more bytes at {at}, got {got}")]
    Truncated {
        /// Where in the bytes.
        at: usize,
        /// Bytes needed there.
        expected: usize,
        /// Bytes left there.
        got: usize,
    },
    /// A number of varying length that is not in its shortest form, or too large.
    #[error("expected a shortest varint at {at}, got another form")]
    Varint {
        /// Where in the bytes.
        at: usize,
    },
    /// Bytes are left over.
    #[error("row has bytes after its end: expected {expected} in all, got {got}")]
    Trailing {
        /// Bytes of the row.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// A column that does not allow it is null.
    #[error("column {column}: expected a value, got null")]
    Null {
        /// Index of the column.
        column: usize,
    },
    /// A change is of another type than its column.
    #[error("column {column}: expected type code {expected}, got {got}")]
    Type {
        /// Index of the column.
        column: usize,
        /// The column's type code.
        expected: u8,
        /// The change's type code.
        got: u8,
    },
    /// A type code that does not exist.
    #[error("column {column}: expected a type code, got {got}")]
    TypeCode {
        /// Index of the column.
        column: usize,
        /// The code.
        got: u8,
    },
    /// No such column, or columns of changes that do not ascend.
    #[error("expected a column index from {min} to below {end}, got {got}")]
    Column {
        /// The smallest index that may come here.
        min: usize,
        /// Number of columns.
        end: usize,
        /// The index.
        got: usize,
    },
    /// A length that cannot be.
    #[error("column {column}: expected a value of at most {max} bytes, got {got}")]
    ValueLength {
        /// Index of the column.
        column: usize,
        /// Most bytes possible.
        max: usize,
        /// Bytes claimed.
        got: u64,
    },
    /// A text or json value that is not UTF-8.
    #[error("column {column}: expected UTF-8, got an invalid byte at {at}")]
    Utf8 {
        /// Index of the column.
        column: usize,
        /// Place in the value.
        at: usize,
    },
    /// A byte for a bool that is neither 0 nor 1.
    #[error("column {column}: expected 0 or 1 for a bool, got {got}")]
    Bool {
        /// Index of the column.
        column: usize,
        /// The byte.
        got: u8,
    },
    /// A value of the key in overflow pages: it could not be compared.
    #[error(
        "column {column} is part of the key: expected its value within the row, got a reference to overflow pages"
    )]
    KeyOverflow {
        /// Index of the column.
        column: usize,
    },
    /// A change would give the row another key; that is a delete and an insert.
    #[error("column {column} is part of the key: expected its value unchanged, got another")]
    KeyChanged {
        /// Index of the column.
        column: usize,
    },
}

/// A schema's rows cannot be laid out in pages of this size.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "rows are too wide: two of them take {expected} bytes with their column descriptors, a page has {got}"
)]
pub struct RowTooWide {
    /// Bytes that a page would have to have.
    pub expected: usize,
    /// Bytes that it has.
    pub got: usize,
}
