//! The log: what a record is, where it stands, whether it happened, and what it does to its page.
//!
//! | module | idea |
//! |---|---|
//! | [`history`] | which (origin, LSN) count for a volume; `branch` serves recovery, backtrack, clone and restore [3] |
//! | [`op`] | a change of one page, by ranks and positions |
//! | [`record`] | an op with its LSN, origin and back links |
//! | [`mtr`] | records before they are numbered; they live and die together [6] |
//! | [`batch`] | records of one protection group on their way to its copies, packed |
//! | [`apply`] | the one function that changes pages, the same for writer, copies, replicas and restore [5] |
//!
//! Everything here is pure: no I/O, clock, threads or randomness. Bytes are never trusted; what does not parse is a
//! [`RedoError`] that says expected and got.

pub mod apply;
pub mod batch;
mod error;
pub mod history;
mod list;
pub mod mtr;
pub mod op;
pub mod record;
pub mod varint;

pub use apply::{apply, apply_op, apply_reference};
pub use batch::PgBatch;
pub use error::RedoError;
pub use history::{History, Interval};
pub use list::{EntriesRef, RowsRef};
pub use mtr::{Mtr, MtrRecord, Prev};
pub use op::{BlobId, Op};
pub use record::{PgId, Record};
