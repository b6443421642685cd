//! The database engine over a volume: tables, B+trees, versions, transactions. No I/O, no clock, no threads.
//!
//! # The contract
//!
//! 1. **Steps can be started again.** Every operation answers [`Attempt`]: its result, or a [`Stop`] that says what the
//!    shell must do before it calls again with the same arguments. A stopped step has changed nothing that others can
//!    see [1].
//! 2. **A transaction's changes are one MTR** [6], made at [`Engine::commit`] under one short lock: apply to drafts of
//!    pages, number, publish. The commit is durable once the VDL has reached its LSN; the shell waits for that, outside.
//!    Rows are locked when they are changed, and given free when the commit is numbered.
//! 3. **A snapshot is an LSN.** Read-only work reads at the VDL or below; what is not durable is seen by read-write
//!    transactions only, and their answers rest on [`Commit::after`], or on [`EngineError::rests_on`] [15].
//! 4. **Pages are the same everywhere** [5]: every change goes through `redo::apply_op`, which is also how storage
//!    nodes replay it.
//!
//! # What the shell owes
//!
//! 1. [`Stop::NeedPage`]: fetch the page as of that LSN and [`Engine::install`] it.
//! 2. [`Stop::NeedSegment`]: grow the volume.
//! 3. [`Stop::WaitLsn`]: wait for the VDL. [`Stop::WaitLock`]: wait for its [`LockWaker`] to hear of the transaction, or
//!    end the wait with [`Engine::leave_lock`].
//! 4. Tell a caller of a commit only after the VDL has reached [`Commit::lsn`], and of an error only after it has
//!    reached [`EngineError::rests_on`].
//! 5. Keep what [`Engine::oldest_read_point`] needs; call [`Engine::sweep`] and [`Engine::purge_tokens`] in the
//!    background.
//! 6. One engine writes a volume at a time ([`Role`]); others follow it ([`Engine::apply`]). An engine is dropped, or
//!    told ([`Engine::rejoin`], [`Engine::become_replica`]), when the volume's History changes.
//!
//! | module | idea |
//! |---|---|
//! | `pool` | page versions in memory by page and read point |
//! | `work`, `edit` | an MTR in the making |
//! | `btree` | trees: descend, insert, delete, split, merge |
//! | `space`, `extents` | pages and extents for objects |
//! | `catalogue`, `definition`, `make_table`, `table`, `sweep` | tables, and what drops leave over |
//! | `index`, `derive`, `follow` | indexes: what they are, what a commit does to them, what a transaction sees of them |
//! | `index_build`, `index_cursor` | building them under load, and reading by them |
//! | `txn`, `write`, `write_many`, `read`, `cursor`, `row`, `savepoint` | what a transaction does and sees |
//! | `locks`, `lockrange` | row locks, and reading under them |
//! | `constraints`, `cascade`, `sequence` | checks, foreign keys, auto-increment columns |
//! | `commit`, `conflicts`, `reads`, `readpoints`, `tokens` | how it ends |
//! | `statistics` | what is known of a table's rows |
//! | `rules` | constraints that come to a table with rows, and go |
//! | `alter`, `btree::upgrade` | tables whose columns change, and leaves of before |
//! | `replica` | following a writer, and becoming one |
//! | `overflow` | values too large for a leaf |
//! | `load` | bulk load of sealed pages, with the indexes, past the log |

mod ahead;
mod alter;
mod btree;
mod cascade;
mod catalogue;
mod commit;
mod conflicts;
mod constraints;
mod cursor;
mod definition;
mod derive;
mod edit;
mod engine;
mod error;
mod extents;
mod follow;
mod index;
mod index_build;
mod index_cursor;
mod load;
mod lockrange;
mod locks;
mod make_table;
mod overflow;
mod pool;
mod read;
mod readpoints;
mod reads;
mod replica;
mod row;
mod rules;
mod savepoint;
mod sequence;
mod space;
mod statistics;
mod sweep;
mod table;
mod tokens;
mod txn;
mod work;
mod write;
mod write_many;

pub use ahead::Prefetch;
pub use alter::Alter;
pub use catalogue::{TABLE_NAME_BYTES_MAX, TableSpec};
pub use constraints::{Check, CheckSpec, Reference, ReferenceSpec};
pub use cursor::{Block, Cursor, RangeSpec};
pub use definition::{
    CheckDef, Definition, IndexDef, IndexPart, IndexState, OnDelete, ReferenceDef,
};
pub use engine::{Engine, EngineConfig};
pub use error::{Attempt, EngineError, ErrorClass, Stop};
pub use extents::Run;
pub use index::{INDEX_NAME_BYTES_MAX, Index, IndexOn, IndexSource, IndexSpec};
pub use index_build::{BuildProgress, IndexBuild};
pub use index_cursor::IndexCursor;
pub use load::{Load, LoadBlob, LoadEntry};
pub use lockrange::LockingCursor;
pub use locks::{LockName, LockWait, LockWaiting, LockWaker, TxnId, WaitsFor};
pub use overflow::{OverflowReader, VALUE_BYTES_MAX};
pub use pool::CacheStats;
pub use replica::{HandOver, Role};
pub use row::RowView;
pub use rules::{NewRule, RuleBuild};
pub use savepoint::Savepoint;
pub use statistics::{Analysis, ColumnStatistics, Statistics, TableSize};
pub use table::Table;
pub use tokens::{Purged, TOKEN_BYTES_MAX};
pub use txn::{Commit, Isolation, Mode, Txn};
pub use write_many::NewRows;
