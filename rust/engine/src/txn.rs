//! Transactions: a snapshot, and changes that nobody else sees before the commit.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_page::{KeyBuf, Lsn, ObjectId, Value};
use rustc_hash::FxHashMap;

use crate::error::EngineError;
use crate::locks::{Held, TxnId};
use crate::overflow::{Chains, Spill};
use crate::pool::Pins;
use crate::readpoints::ReadPoint;
use crate::reads::Reads;
use crate::savepoint::Mark;
use crate::table::Table;

/// What a transaction may do, and what it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Reads at the VDL, or at the LSN given [15].
    ReadOnly {
        /// The read point; the VDL if `None`.
        at: Option<Lsn>,
    },
    /// Reads the newest numbered state, and writes, at [`Isolation::Snapshot`].
    ReadWrite,
}

/// What a transaction is kept apart from. Every level reads only what is committed and never half of it: a commit is one
/// MTR [6], and whatever is read at one time is read at one LSN. Rows are locked when they are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Isolation {
    /// Each operation reads the newest state.
    ReadCommitted,
    /// All operations read one state; of two that change a row, the first to commit wins.
    #[default]
    Snapshot,
    /// As a snapshot, and at the commit nothing that was read may have been changed by others.
    Serializable,
}

/// A committed transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit {
    /// The LSN of its last record. It is durable once the VDL has reached this. For a transaction that changed
    /// nothing, the newest change that it read.
    pub lsn: Lsn,
    /// Its time in microseconds, later than that of every commit before it.
    pub time_us: i64,
    /// What it read: the answer rests on everything up to here being durable.
    pub after: Lsn,
}

/// A change of one row, not yet committed.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// The whole row.
    Put {
        row: Row,
        /// The transaction knows that there is no such row at its snapshot.
        new: bool,
    },
    /// Columns of a row that is there at the snapshot.
    Update {
        changes: Vec<(u16, Value)>,
        spill: Spill,
    },
    /// No row.
    Delete,
}

/// A row in the write buffer.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    /// As it goes into its leaf.
    Inline(Vec<u8>),
    /// Values that go to overflow pages at the commit are still among the others.
    Spilled { values: Vec<Value>, spill: Spill },
}

/// A table that a transaction changes.
struct Written {
    /// As it was defined at the first change.
    table: Arc<Table>,
    /// Trees of the indexes in which the entries of all changes are: an index that came or went between two changes is
    /// not among them.
    followed: Vec<ObjectId>,
}

impl Written {
    fn new(table: &Arc<Table>) -> Written {
        Written {
            table: table.clone(),
            followed: table.indexes.iter().map(|index| index.tree.id).collect(),
        }
    }

    /// A change follows this definition.
    fn note(&mut self, table: &Table) {
        let has = |id: &ObjectId| table.indexes.iter().any(|index| index.tree.id == *id);
        self.followed.retain(has);
    }
}

/// The changes of a transaction by table and key.
#[derive(Default)]
pub(crate) struct Writes {
    rows: BTreeMap<(ObjectId, KeyBuf), Write>,
    tables: FxHashMap<ObjectId, Written>,
    bytes: u64,
    /// Savepoints, the newest last.
    pub marks: Vec<Mark>,
    /// Savepoints that were ever made.
    pub savepoints: u64,
    /// Bytes of what the savepoints keep.
    pub saved: u64,
    /// The newest state when the first change was made.
    pub since: Option<Lsn>,
}

/// A transaction. Dropping it rolls it back. It may be sent to another thread, and read from several.
pub struct Txn {
    pub(crate) point: Arc<ReadPoint>,
    pub(crate) isolation: Isolation,
    pub(crate) writable: bool,
    pub(crate) writes: Writes,
    pub(crate) chains: Chains,
    pub(crate) pins: Pins,
    pub(crate) locks: Held,
    /// The branch of the volume that it was begun on.
    pub(crate) branch: u64,
    /// What it has read, if that is to be checked at the commit.
    pub(crate) reads: Option<Arc<Reads>>,
    /// Nothing was read through the read point, so that it may still move.
    unread: AtomicBool,
    closed: bool,
}

impl Txn {
    pub(crate) fn new(
        point: Arc<ReadPoint>,
        isolation: Isolation,
        writable: bool,
        pins: Pins,
        locks: Held,
        branch: u64,
    ) -> Txn {
        Txn {
            point,
            isolation,
            writable,
            writes: Writes::default(),
            chains: Chains::default(),
            pins,
            branch,
            locks,
            reads: None,
            unread: AtomicBool::new(true),
            closed: false,
        }
    }

    /// Its number in messages about locks.
    pub fn id(&self) -> TxnId {
        self.locks.txn()
    }

    /// What it is kept apart from.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Whether its read point may still move, because nobody has seen anything through it.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Something is read: the read point stays where it is.
    #[inline]
    pub(crate) fn fix(&self) {
        if self.is_unread() {
            self.unread.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the next locked row is read at the newest state and not at a snapshot.
    pub(crate) fn reads_newest(&self) -> bool {
        self.isolation == Isolation::ReadCommitted || self.is_unread()
    }

    /// What it reads.
    pub fn snapshot(&self) -> Lsn {
        self.point.at
    }

    /// Whether it may write.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Rows that it has changed, and entries of indexes that follow from them.
    pub fn changes(&self) -> usize {
        self.writes.rows.len()
    }

    /// Bytes of its write buffer.
    pub fn bytes(&self) -> u64 {
        self.writes.bytes
    }

    /// Whether it has been committed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The newest change that it has read: an answer made from it rests on this being durable.
    pub fn newest_read(&self) -> Lsn {
        self.point.newest()
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<(), EngineError> {
        if self.closed {
            Err(EngineError::TransactionClosed { operation })
        } else {
            Ok(())
        }
    }

    pub(crate) fn check_writable(&self, operation: &'static str) -> Result<(), EngineError> {
        self.check_open(operation)?;
        if self.writable {
            Ok(())
        } else {
            Err(EngineError::ReadOnlyTransaction { operation })
        }
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.writes = Writes::default();
        self.chains = Chains::default();
        self.reads = None;
        self.pins.release();
        self.locks.release();
    }
}

impl Row {
    pub(crate) fn weight(&self) -> usize {
        match self {
            Row::Inline(bytes) => bytes.len(),
            Row::Spilled { values, .. } => values.iter().map(value_weight).sum(),
        }
    }
}

fn value_weight(value: &Value) -> usize {
    let outside = match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    size_of::<Value>() + outside
}

impl Write {
    fn weight(&self) -> usize {
        match self {
            Write::Put { row, .. } => row.weight(),
            Write::Update { changes, .. } => changes
                .iter()
                .map(|(_, value)| 2 + value_weight(value))
                .sum(),
            Write::Delete => 0,
        }
    }
}

/// Bytes of a change beside key and content.
const CHANGE_BYTES: usize = 64;

fn weight(key: &KeyBuf, write: &Write) -> u64 {
    (CHANGE_BYTES + key.len() + write.weight()) as u64
}

/// Bytes of a change that a savepoint keeps, or of knowing that there was none.
pub(crate) fn weight_of(key: &KeyBuf, write: Option<&Write>) -> u64 {
    (CHANGE_BYTES + key.len() + write.map_or(0, Write::weight)) as u64
}

impl Writes {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    #[inline]
    pub fn get(&self, table: &Table, key: &[u8]) -> Option<&Write> {
        if self.rows.is_empty() {
            return None;
        }
        self.rows.get(&(table.id, KeyBuf::from_slice(key)))
    }

    /// Puts a change in the place of the one that was there. Over a limit it changes nothing and fails.
    pub fn put(
        &mut self,
        table: &Arc<Table>,
        key: KeyBuf,
        write: Write,
        limits: (u64, u64),
    ) -> Result<(), EngineError> {
        let too_large =
            |what, limit, got| Err(EngineError::TransactionTooLarge { what, limit, got });
        let place = (table.id, key);
        let before = self.rows.get(&place).map(|old| weight(&place.1, old));
        let bytes = self.bytes - before.unwrap_or(0) + weight(&place.1, &write);
        let count = self.rows.len() as u64 + u64::from(before.is_none());
        let (bytes_max, count_max) = limits;
        if bytes + self.saved > bytes_max {
            return too_large("bytes", bytes_max, bytes + self.saved);
        }
        if count > count_max {
            return too_large("changes", count_max, count);
        }
        self.bytes = bytes;
        self.tables
            .entry(table.id)
            .or_insert_with(|| Written::new(table))
            .note(table);
        match self.marks.last_mut() {
            None => {
                self.rows.insert(place, write);
            }
            Some(mark) => {
                let before = self.rows.insert(place.clone(), write);
                let bytes = weight_of(&place.1, before.as_ref());
                if mark.keep(&place, before) {
                    self.saved += bytes;
                }
            }
        }
        Ok(())
    }

    /// Whether a change and the changes of entries that follow from it are within the limits, all of them counted as new.
    pub fn check_room(
        &self,
        table: &Table,
        key: &KeyBuf,
        write: &Write,
        entries: &[(Arc<Table>, KeyBuf, Write)],
        (bytes_max, count_max): (u64, u64),
    ) -> Result<(), EngineError> {
        let replaced = self.get(table, key).map_or(0, |old| weight(key, old));
        let more: u64 = entries
            .iter()
            .map(|(_, key, write)| weight(key, write))
            .sum();
        let bytes = self.bytes + self.saved - replaced + weight(key, write) + more;
        let count = (self.rows.len() + 1 + entries.len()) as u64;
        let too_large = |what, limit, got| EngineError::TransactionTooLarge { what, limit, got };
        if bytes > bytes_max {
            return Err(too_large("bytes", bytes_max, bytes));
        }
        if count > count_max {
            return Err(too_large("changes", count_max, count));
        }
        Ok(())
    }

    /// Whether so many more changes of so many bytes are within the limits, whatever keys they have.
    pub fn room_for(&self, bytes: u64, count: usize, (bytes_max, count_max): (u64, u64)) -> bool {
        let all = bytes + (CHANGE_BYTES * count) as u64;
        // A savepoint keeps at the most the key of what was not there, or what was.
        let kept = if self.marks.is_empty() { 0 } else { all };
        self.bytes + self.saved + all + kept <= bytes_max
            && (self.rows.len() + count) as u64 <= count_max
    }

    /// Puts back what a change was before another one took its place.
    pub fn put_back(&mut self, table: &Table, key: KeyBuf, before: Option<Write>) {
        self.remove(table, &key);
        if let Some(write) = before {
            self.bytes += weight(&key, &write);
            self.rows.insert((table.id, key), write);
        }
    }

    /// Forgets a change.
    pub fn remove(&mut self, table: &Table, key: &[u8]) {
        let place = (table.id, KeyBuf::from_slice(key));
        if let Some(written) = self.tables.get_mut(&table.id) {
            written.note(table);
        }
        if let Some(write) = self.rows.remove(&place) {
            self.bytes -= weight(&place.1, &write);
            if let Some(mark) = self.marks.last_mut() {
                let bytes = weight_of(&place.1, Some(&write));
                if mark.keep(&place, Some(write)) {
                    self.saved += bytes;
                }
            }
        }
    }

    /// Puts back what a savepoint has kept.
    pub fn restore(&mut self, replaced: FxHashMap<(ObjectId, KeyBuf), Option<Write>>) {
        for (place, before) in replaced {
            self.saved -= weight_of(&place.1, before.as_ref());
            self.bytes += before.as_ref().map_or(0, |write| weight(&place.1, write));
            let now = match before {
                Some(write) => self.rows.insert(place.clone(), write),
                None => self.rows.remove(&place),
            };
            self.bytes -= now.map_or(0, |write| weight(&place.1, &write));
        }
    }

    /// The tables that are changed.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values().map(|written| &written.table)
    }

    /// The table of a change.
    pub fn table(&self, object: ObjectId) -> Option<&Arc<Table>> {
        self.tables.get(&object).map(|written| &written.table)
    }

    /// Whether changes of the table have left no entries in the tree of one of its indexes.
    pub fn lack_entries(&self, table: ObjectId, tree: ObjectId) -> bool {
        let written = self.tables.get(&table);
        written.is_some_and(|written| !written.followed.contains(&tree))
    }

    /// All changes by table and key.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &KeyBuf, &Write)> {
        self.rows
            .iter()
            .map(|((object, key), write)| (*object, key, write))
    }

    /// The changes of a table from `low` (included) to `high` (left out).
    pub fn range(
        &self,
        table: &Table,
        low: Option<&KeyBuf>,
        high: Option<&KeyBuf>,
    ) -> Vec<(KeyBuf, Write)> {
        let low = Bound::Included((table.id, low.cloned().unwrap_or_default()));
        let high = match high {
            Some(high) => Bound::Excluded((table.id, high.clone())),
            None => Bound::Excluded((ObjectId(table.id.0 + 1), KeyBuf::new())),
        };
        if let (Bound::Included(low), Bound::Excluded(high)) = (&low, &high)
            && low >= high
        {
            return Vec::new();
        }
        self.rows
            .range((low, high))
            .map(|((_, key), write)| (key.clone(), write.clone()))
            .collect()
    }
}
