//! What stops an operation: something to fetch or to wait for, or an error.
//!
//! Every operation of the engine is a step that can be started again ([1]): it answers `Ok`, or a [`Stop`] that says
//! what the shell must do before it calls again with the same arguments. A stopped step has changed nothing that a
//! reader or another writer could see.

use aurora_page::{
    EvolveError, KeyError, Lsn, ObjectId, PageError, PageId, SchemaError, ValueError,
};
use aurora_proto::Refused;
use aurora_redo::RedoError;
use thiserror::Error;

use crate::locks::{LockWait, TxnId, WaitsFor};

/// What a step answers.
pub type Attempt<T> = Result<T, Stop>;

/// Why a step did not come to its end. Only the shell blocks: it does what is asked and calls the step again.
#[derive(Clone, PartialEq, Debug)]
pub enum Stop {
    /// Fetch the page as of this LSN, `install` it, call again.
    NeedPage {
        /// The page.
        page: PageId,
        /// The read point: the page's newest version at or below it is wanted. Never above the VDL.
        at: Lsn,
    },
    /// No extent is free: add a segment to the volume, call again.
    NeedSegment,
    /// Wait until the VDL has reached this LSN, call again.
    WaitLsn(Lsn),
    /// Another transaction has locked the row: wait until the waker is told of this one, call again. Its place in the
    /// queue is kept meanwhile; `Engine::leave_lock` gives it up.
    WaitLock(LockWait),
    /// It failed; calling again with nothing changed fails again.
    Failed(EngineError),
}

/// What the caller does next about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// Begin the transaction again: it met another one.
    Retry,
    /// Change the call: its arguments or the order of calls are wrong.
    Caller,
    /// The volume cannot take writes.
    Volume,
    /// A page is not what its place says: restore it.
    Corrupt,
}

/// What can go wrong, grouped by what the caller does next ([`EngineError::class`]).
#[derive(Clone, PartialEq, Debug, Error)]
pub enum EngineError {
    // Retry.
    /// Another transaction committed a change of the same row first.
    #[error(
        "table {table:?}, key {key}: expected no change since this transaction's snapshot {snapshot}, got one at {by} (first committer wins)"
    )]
    WriteConflict {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
        /// What this transaction reads.
        snapshot: Lsn,
        /// The other change, or the newest of its page.
        by: Lsn,
    },
    /// What the transaction or view reads was left by a backtrack, or the volume goes over to another branch.
    #[error(
        "the cluster has gone over to another history since LSN {at} was read: begin the transaction or view again"
    )]
    Branched {
        /// What was read.
        at: Lsn,
    },
    /// Another transaction committed a change of what a serializable transaction has read.
    #[error(
        "table {table:?}, {what}: expected no change of what this serializable transaction has read since {snapshot}, got one at {by}"
    )]
    SerializationFailure {
        /// The table.
        table: String,
        /// The key, or the range of keys.
        what: String,
        /// What this transaction reads.
        snapshot: Lsn,
        /// The other change.
        by: Lsn,
    },
    /// Transactions wait for each other in a circle, and this one closed it.
    #[error("deadlock: {}", cycle.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Deadlock {
        /// Who waits for whom; the first is the transaction that gets the error.
        cycle: Vec<WaitsFor>,
    },
    /// Another transaction has locked the row, and the caller does not wait.
    #[error(
        "table {table:?}, key {key}: expected the row's lock to be free, got one held by {holder}"
    )]
    LockNotAvailable {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
        /// Who holds it.
        holder: TxnId,
    },
    /// The row's lock did not come within the time that the caller waits.
    #[error(
        "table {table:?}, key {key}: expected the row's lock within {waited_ms} ms, got none: {holder} holds it"
    )]
    LockTimeout {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
        /// Who holds it.
        holder: TxnId,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The engine no longer knows what happened since so old a snapshot.
    #[error(
        "expected a snapshot of at least {floor}, got {snapshot}: the record of changes no longer reaches back so far"
    )]
    SnapshotTooOld {
        /// What this transaction reads.
        snapshot: Lsn,
        /// The oldest snapshot that can still be checked.
        floor: Lsn,
    },
    /// The table was changed while it was being loaded, in a way that the load cannot be merged with.
    #[error(
        "table {table:?}: expected no changes during the load that it cannot be merged with, got some: load again"
    )]
    LoadConflict {
        /// The table.
        table: String,
    },
    /// The instance does not write any more, or not now: the same transaction goes on at another one.
    #[error("this instance {what}{}: run the transaction again", writer.as_ref().map_or(String::new(), |writer| format!(" to {writer}")))]
    WriterMoved {
        /// What became of the instance.
        what: &'static str,
        /// Who writes now, once that is known.
        writer: Option<String>,
    },

    /// The table's definition has changed since the one at hand was looked up.
    #[error(
        "table {table:?}: expected its present definition, got that of LSN {since}; it was changed at {by} (look the table up again)"
    )]
    SchemaChanged {
        /// The table.
        table: String,
        /// Since when the definition at hand was valid.
        since: Lsn,
        /// Since when another one is.
        by: Lsn,
    },

    // Caller.
    /// A write at a replica.
    #[error(
        "expected the writer for a read-write transaction, got a replica: the writer is {writer}"
    )]
    ReadOnlyInstance {
        /// Who writes.
        writer: String,
    },
    /// A row with this key, or with these values of a unique index, is there already.
    #[error(
        "table {table:?}{}: expected no row with key {key}, got one",
        in_index(index)
    )]
    DuplicateKey {
        /// The table.
        table: String,
        /// The unique index; `None` for the primary key.
        index: Option<String>,
        /// The row's key.
        key: String,
        /// The state that holds the row: the error is true for certain once the VDL has reached it [15].
        seen: Lsn,
    },
    /// There is no such table at this read point.
    #[error("table {table:?}: expected one at LSN {at}, got none")]
    UnknownTable {
        /// Its name.
        table: String,
        /// The read point.
        at: Lsn,
    },
    /// The table has been dropped.
    #[error("table {table:?}: expected one, got one that was dropped at LSN {dropped}")]
    TableDropped {
        /// Its name.
        table: String,
        /// The commit that dropped it.
        dropped: Lsn,
    },
    /// A table of this name is there already.
    #[error("table {table:?}: expected no table of this name, got one")]
    TableExists {
        /// Its name.
        table: String,
    },
    /// A table of this name is there already, with another schema.
    #[error(
        "table {table:?}: expected the schema of the existing table, got another ({difference})"
    )]
    TableDiffers {
        /// Its name.
        table: String,
        /// The first thing that differs.
        difference: String,
    },
    /// A name that no table can have.
    #[error("table name: expected {expected}, got {got:?}")]
    TableName {
        /// What a name must be.
        expected: &'static str,
        /// The name.
        got: String,
    },
    /// A schema that no table can have.
    #[error("table {table:?}: {source}")]
    Schema {
        /// Its name.
        table: String,
        /// What is wrong.
        source: SchemaError,
    },
    /// A schema whose rows are too wide for a page.
    #[error(
        "table {table:?}: expected rows of which two fit into a page of {page_bytes} bytes, got {columns} columns that are too wide"
    )]
    SchemaTooWide {
        /// Its name.
        table: String,
        /// Bytes of a page.
        page_bytes: usize,
        /// Columns of the schema.
        columns: usize,
    },
    /// A change of a table's definition that cannot be.
    #[error("table {table:?}: {source}")]
    Alter {
        /// The table.
        table: String,
        /// Column, expected and got.
        source: EvolveError,
    },
    /// A column that something else rests on cannot be dropped or widened.
    #[error(
        "table {table:?}, column {column:?}: expected a column that nothing else uses, got one of {by}"
    )]
    ColumnInUse {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What uses it.
        by: String,
    },
    /// Defaults of added columns that are too long for every row to have them.
    #[error(
        "table {table:?}: expected at most {limit} bytes of texts, bytes and json as defaults of added columns, got {got}"
    )]
    InitialsTooLarge {
        /// The table.
        table: String,
        /// Most bytes of all of them.
        limit: usize,
        /// Their bytes.
        got: usize,
    },
    /// A value that its column does not take.
    #[error("table {table:?}: {source}")]
    Value {
        /// The table.
        table: String,
        /// Column, expected and got.
        source: ValueError,
    },
    /// A key that cannot be.
    #[error("table {table:?}: {source}")]
    Key {
        /// The table.
        table: String,
        /// Column, expected and got.
        source: KeyError,
    },
    /// The values of an index's columns make no key.
    #[error("table {table:?}, index {index:?}: {source}")]
    IndexKey {
        /// The table.
        table: String,
        /// The index.
        index: String,
        /// Column, expected and got.
        source: Box<KeyError>,
    },
    /// An expression of an index has no value for a row.
    #[error(
        "table {table:?}, index {index:?}, key {key}: expected a value of {expected}, got none: {got}"
    )]
    IndexExpr {
        /// The table.
        table: String,
        /// The index.
        index: String,
        /// The row's key.
        key: String,
        /// The expression.
        expected: Box<str>,
        /// Why it has none.
        got: Box<str>,
    },
    /// There is no such index at this read point, or it does not have every row yet.
    #[error("table {table:?}: expected an index {index:?} that is ready at LSN {at}, got {got}")]
    UnknownIndex {
        /// The table.
        table: String,
        /// Its name.
        index: String,
        /// The read point.
        at: Lsn,
        /// What there is.
        got: &'static str,
    },
    /// An index of this name is there already.
    #[error("table {table:?}: expected no index {index:?}, got one")]
    IndexExists {
        /// The table.
        table: String,
        /// Its name.
        index: String,
    },
    /// An index that cannot be.
    #[error("table {table:?}, index {index:?}: expected {expected}, got {got}")]
    IndexSpec {
        /// The table.
        table: String,
        /// Its name.
        index: String,
        /// What it must be.
        expected: String,
        /// What was asked for.
        got: String,
    },
    /// A row that makes a check false.
    #[error("table {table:?}, check {constraint:?}, key {key}: expected {expected}, got {got}")]
    CheckViolation {
        /// The table.
        table: String,
        /// The check.
        constraint: String,
        /// The row's key.
        key: String,
        /// The condition.
        expected: Box<str>,
        /// The values that make it false, or why it has no value.
        got: Box<str>,
    },
    /// A row whose parent is not there.
    #[error(
        "table {table:?}, foreign key {constraint:?}: expected a row of table {parent:?} with key {key}, got none"
    )]
    ParentMissing {
        /// The table.
        table: String,
        /// The foreign key.
        constraint: String,
        /// The parent.
        parent: String,
        /// The key that the parent should have.
        key: String,
    },
    /// A parent that is to be deleted while rows refer to it.
    #[error(
        "table {parent:?}, key {key}: expected no row of table {table:?} that refers to it (foreign key {constraint:?}, on delete restrict), got one"
    )]
    ParentReferenced {
        /// The table with the foreign key.
        table: String,
        /// The foreign key.
        constraint: String,
        /// The parent.
        parent: String,
        /// The parent's key.
        key: String,
    },
    /// A table that is to be dropped while another has a foreign key to it.
    #[error(
        "table {table:?}: expected no foreign key to it, got one of table {by:?} (drop that first)"
    )]
    TableReferenced {
        /// The table.
        table: String,
        /// The other.
        by: String,
    },
    /// A constraint that cannot be.
    #[error("table {table:?}, constraint {constraint:?}: expected {expected}, got {got}")]
    ConstraintSpec {
        /// The table.
        table: String,
        /// Its name.
        constraint: String,
        /// What it must be.
        expected: Box<str>,
        /// What was asked for.
        got: Box<str>,
    },
    /// A row that breaks a constraint which is to be added.
    #[error("row with key {key}: {source}")]
    RowBreaks {
        /// The row's key.
        key: String,
        /// What it breaks.
        source: Box<EngineError>,
    },
    /// A constraint that is not there.
    #[error("table {table:?}: expected a constraint {constraint:?}, got none")]
    UnknownConstraint {
        /// The table.
        table: String,
        /// Its name.
        constraint: String,
    },
    /// An auto-increment column has no number left.
    #[error(
        "table {table:?}, column {column:?}: expected a number after {last}, got none: the column's type ends there"
    )]
    AutoIncrementEnd {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The last number.
        last: i64,
    },
    /// A look-up of one row by an index that may lead to several.
    #[error(
        "table {table:?}, index {index:?}: expected a unique index to get a row by, got one that is not (use a range)"
    )]
    IndexNotUnique {
        /// The table.
        table: String,
        /// The index.
        index: String,
    },
    /// A change names a column that is not there.
    #[error("table {table:?}: expected a column index below {columns}, got {got}")]
    UnknownColumn {
        /// The table.
        table: String,
        /// Columns of the table.
        columns: usize,
        /// The index.
        got: u16,
    },
    /// An update of a key column.
    #[error(
        "table {table:?}, column {column:?}: expected a column outside the key, got one of it (delete the row and insert another)"
    )]
    KeyColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A value longer than values may be.
    #[error("table {table:?}, column {column:?}: expected at most {limit} bytes, got {got}")]
    ValueTooLarge {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Most bytes of a value.
        limit: u64,
        /// Its bytes.
        got: u64,
    },
    /// A row that does not fit a page even with its long values outside.
    #[error(
        "table {table:?}, key {key}: expected a row of at most {limit} bytes beside its overflow values, got {got}"
    )]
    RowTooLarge {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
        /// Most bytes of a row.
        limit: usize,
        /// Its bytes.
        got: usize,
    },
    /// More changes than one transaction may make.
    #[error(
        "expected a transaction of at most {limit} {what}, got {got}: use smaller transactions, or bulk load"
    )]
    TransactionTooLarge {
        /// `bytes` or `changes`.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What the transaction would have.
        got: u64,
    },
    /// A write through a read-only transaction.
    #[error("expected a read-write transaction for {operation}, got a read-only one")]
    ReadOnlyTransaction {
        /// What was attempted.
        operation: &'static str,
    },
    /// The transaction has been committed.
    #[error("expected an open transaction for {operation}, got one that is closed")]
    TransactionClosed {
        /// What was attempted.
        operation: &'static str,
    },
    /// A savepoint that is not there: never made, released, or rolled back over.
    #[error("savepoint {name}: expected one of this transaction, got none")]
    UnknownSavepoint {
        /// Its name.
        name: String,
    },
    /// A commit token that cannot be.
    #[error("commit token: expected 1 to {limit} bytes, got {got}")]
    Token {
        /// Most bytes of a token.
        limit: usize,
        /// Its bytes.
        got: usize,
    },
    /// The token was used by an earlier commit: that transaction has happened, this one must not happen again.
    #[error(
        "commit token {token:?}: expected an unused one, got one that was committed at time {time_us} us"
    )]
    TokenUsed {
        /// The token.
        token: String,
        /// When the first transaction committed.
        time_us: i64,
        /// The state that holds the token: true for certain once the VDL has reached it [15].
        seen: Lsn,
    },
    /// Bulk load into a table that has rows.
    #[error("table {table:?}: expected an empty table to load into, got one with rows")]
    TableNotEmpty {
        /// The table.
        table: String,
    },
    /// A row of a bulk load that the table does not take.
    #[error("row {row}: {source}")]
    LoadRow {
        /// The row, counted from 0.
        row: u64,
        /// What is wrong with it.
        source: Box<EngineError>,
    },
    /// A row of a bulk load whose key is taken.
    #[error("table {table:?}: row {row}: expected no row with key {key}, got {}", shown(*other))]
    LoadDuplicate {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// The row, counted from 0.
        row: u64,
        /// The row of the load that has the key too; `None` for one that is in the table.
        other: Option<u64>,
    },
    /// Rows of a bulk load out of order.
    #[error(
        "table {table:?}: expected rows in ascending key order without duplicates, got key {got} after {last}"
    )]
    LoadOrder {
        /// The table.
        table: String,
        /// The key before.
        last: String,
        /// The key that is not after it.
        got: String,
    },
    /// A step of a bulk load that is not due.
    #[error("load of table {table:?}: expected {expected}, got {got}")]
    LoadStep {
        /// The table.
        table: String,
        /// The step that is due.
        expected: &'static str,
        /// What was called.
        got: &'static str,
    },

    // Volume.
    /// The volume does not take the change.
    #[error("the volume refused the change: {0}")]
    Volume(Refused),

    // Corrupt.
    /// What the catalogue has of a table is damaged, or of a newer version.
    #[error("table {table:?}, stored definition, byte {offset}: expected {expected}, got {got}")]
    Definition {
        /// The table.
        table: String,
        /// Where in the bytes.
        offset: usize,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A page is damaged.
    #[error("damaged page: {0}")]
    Page(#[from] PageError),
    /// A record does not fit its page.
    #[error("damaged page or record: {0}")]
    Redo(#[from] RedoError),
    /// A page is not what the page that led to it says.
    #[error("page {page} at LSN {at}: expected {expected}, got {got}")]
    Corrupt {
        /// The page.
        page: PageId,
        /// The read point.
        at: Lsn,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
}

impl EngineError {
    /// What the caller does next.
    pub fn class(&self) -> ErrorClass {
        use EngineError::*;
        match self {
            WriteConflict { .. }
            | Branched { .. }
            | SerializationFailure { .. }
            | Deadlock { .. }
            | LockNotAvailable { .. }
            | LockTimeout { .. }
            | SnapshotTooOld { .. }
            | LoadConflict { .. }
            | SchemaChanged { .. }
            | WriterMoved { .. }
            | Volume(Refused::Branching) => ErrorClass::Retry,
            Volume(_) => ErrorClass::Volume,
            Definition { .. } | Page(_) | Redo(_) | Corrupt { .. } => ErrorClass::Corrupt,
            _ => ErrorClass::Caller,
        }
    }

    /// The state on which the error rests, where it is another transaction's: the caller is told once the VDL has
    /// reached it, because until then a crash could make the error untrue [15].
    pub fn rests_on(&self) -> Lsn {
        match self {
            EngineError::DuplicateKey { seen, .. } | EngineError::TokenUsed { seen, .. } => *seen,
            EngineError::LoadRow { source, .. } => source.rests_on(),
            EngineError::WriteConflict { by, .. }
            | EngineError::SerializationFailure { by, .. } => *by,
            _ => Lsn::NONE,
        }
    }

    pub(crate) fn corrupt(
        page: PageId,
        at: Lsn,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> EngineError {
        EngineError::Corrupt {
            page,
            at,
            expected: expected.into(),
            got: got.into(),
        }
    }

    pub(crate) fn wrong_owner(
        page: &aurora_page::Page,
        at: Lsn,
        expected: ObjectId,
        what: &str,
    ) -> EngineError {
        let expected = format!("{what} of object {expected}");
        let got = format!(
            "a page of kind {} of object {} (LSN {})",
            page.kind(),
            page.object(),
            page.lsn()
        );
        EngineError::corrupt(page.id(), at, expected, got)
    }
}

fn in_index(index: &Option<String>) -> String {
    index
        .as_ref()
        .map_or_else(String::new, |index| format!(", index {index:?}"))
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Stop {
        Stop::Failed(error)
    }
}

impl From<PageError> for Stop {
    fn from(error: PageError) -> Stop {
        Stop::Failed(EngineError::Page(error))
    }
}

impl From<RedoError> for Stop {
    fn from(error: RedoError) -> Stop {
        Stop::Failed(EngineError::Redo(error))
    }
}

fn shown(other: Option<u64>) -> String {
    other.map_or_else(|| "one in the table".to_owned(), |row| format!("row {row}"))
}
