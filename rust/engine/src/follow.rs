//! What a transaction's own changes do to the indexes that it reads: entries in its buffer, beside its rows.
//!
//! They are for its own reads and checks only. The commit derives the entries anew, from the rows at the head.

use std::ops::Bound;
use std::sync::Arc;

use aurora_page::{KeyBuf, Lsn, Value, ValueRef, encode_row};
use aurora_proto::Volume;

use crate::cursor::RangeSpec;
use crate::definition::IndexState;
use crate::derive::indexed_value;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::index::{Entry, Index};
use crate::locks::LockWaiting;
use crate::read::merged;
use crate::row::RowView;
use crate::table::Table;
use crate::txn::{Isolation, Row, Txn, Write};

/// Changes of entries that follow from one change of a row.
pub(crate) type EntryWrites = Vec<(Arc<Table>, KeyBuf, Write)>;

impl<V: Volume> Engine<V> {
    /// The entries that change with a row. Constraints and unique entries are checked against what the transaction sees.
    pub(crate) fn follow(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        key: &[u8],
        write: &Write,
    ) -> Attempt<EntryWrites> {
        self.follow_row(txn, table, key, write, true)
    }

    /// The same; the rows that the row refers to are asked for only with `parents`.
    pub(crate) fn follow_row(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        key: &[u8],
        write: &Write,
        parents: bool,
    ) -> Attempt<EntryWrites> {
        // The transaction has the row's lock, and has seen that the row is as it is at its snapshot.
        let before = self.current(txn, table, key)?;
        let base = match write {
            Write::Update { .. } => self.look_up(txn, table, key)?,
            _ => None,
        };
        let after = merged(table, base, write)?;
        if let Some(row) = &after {
            self.check_row_alone(txn, table, row)?;
            if parents {
                self.check_parents(txn, table, key, before.as_ref(), row)?;
            }
        }
        let mut writes = EntryWrites::new();
        for index in &table.indexes {
            let leaving = before
                .as_ref()
                .map(|row| self.entry_of(txn, table, index, row));
            let leaving = match leaving.transpose() {
                // Older than the index, and too long for it: it has none.
                Err(Stop::Failed(EngineError::IndexKey { .. } | EngineError::IndexExpr { .. })) => {
                    None
                }
                leaving => leaving?,
            };
            let coming = after
                .as_ref()
                .map(|row| self.entry_of(txn, table, index, row))
                .transpose()?;
            if leaving.as_ref().map(|entry| &entry.key) == coming.as_ref().map(|entry| &entry.key) {
                continue;
            }
            if let Some(coming) = &coming {
                let same = leaving.as_ref().and_then(Entry::unique_prefix);
                if coming.unique_prefix() != same {
                    self.check_unique_seen(txn, table, index, coming)?;
                }
            }
            let tree = &index.tree;
            writes.extend(leaving.map(|entry| (tree.clone(), entry.key, Write::Delete)));
            writes.extend(coming.map(|entry| {
                let row = Row::Inline(encode_row(&tree.schema, &entry.values));
                (tree.clone(), entry.key, Write::Put { row, new: false })
            }));
        }
        Ok(writes)
    }

    /// At READ COMMITTED, whoever writes a value of a unique index locks it first: the second waits for the first to end, and
    /// is told of the duplicate at once. At other levels the commit tells it, as a conflict.
    pub(crate) fn lock_uniques(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        key: &[u8],
        write: &Write,
    ) -> Attempt<()> {
        let is_unique = |index: &&Arc<Index>| index.def.unique;
        if txn.isolation != Isolation::ReadCommitted || !table.indexes.iter().any(|i| i.def.unique)
        {
            return Ok(());
        }
        let before = self.current(txn, table, key)?;
        let base = match write {
            Write::Update { .. } => self.look_up(txn, table, key)?,
            _ => None,
        };
        let Some(after) = merged(table, base, write)? else {
            return Ok(());
        };
        for index in table.indexes.iter().filter(is_unique) {
            let coming = self.entry_of(txn, table, index, &after)?;
            let Some(prefix) = coming.unique_prefix() else {
                continue;
            };
            let had = match &before {
                // One that is older than the index and has no entry has no value of it either.
                Some(row) => self.entry_of(txn, table, index, row).ok(),
                None => None,
            };
            if had.as_ref().and_then(Entry::unique_prefix) != Some(prefix) {
                self.lock(txn, &index.tree, prefix, LockWaiting::Wait)?;
                // It may have come while the step waited, and the row's own lock was asked for in between.
                self.renew(txn);
            }
        }
        Ok(())
    }

    /// Puts the entries into the buffer; there is room for them.
    pub(crate) fn put_entries(&self, txn: &mut Txn, entries: EntryWrites) -> Attempt<()> {
        for (tree, key, write) in entries {
            txn.writes.put(&tree, key, write, (u64::MAX, u64::MAX))?;
        }
        Ok(())
    }

    pub(crate) fn entry_of(
        &self,
        txn: &Txn,
        table: &Table,
        index: &Index,
        row: &RowView,
    ) -> Attempt<Entry> {
        let view = self.view_of(&txn.point);
        let value = |column: u16| -> Attempt<Value> {
            let value: ValueRef<'_> = row.value(usize::from(column))?;
            indexed_value(&view, table, index, column, value)
        };
        index.entry(table, value)
    }

    /// No other row that the transaction sees has the entry's values. An index that it cannot read is left to the
    /// commit, which asks the head.
    fn check_unique_seen(
        &self,
        txn: &Txn,
        table: &Table,
        index: &Index,
        entry: &Entry,
    ) -> Attempt<()> {
        let Some(prefix) = entry.unique_prefix() else {
            return Ok(());
        };
        if !readable(index, txn.snapshot()) {
            return Ok(());
        }
        let prefix = KeyBuf::from_slice(prefix);
        let spec = RangeSpec {
            low: Bound::Included(prefix.clone()),
            high: Bound::Included(prefix),
            ..RangeSpec::default()
        };
        let mut cursor = self.range(txn, &index.tree, spec)?;
        match cursor.next_block(self)? {
            Some(_) => Err(index.duplicate(table, entry, txn.newest_read()).into()),
            None => Ok(()),
        }
    }
}

/// Whether the index has every row at this read point.
pub(crate) fn readable(index: &Index, at: Lsn) -> bool {
    matches!(index.def.state, IndexState::Ready(after) if after < at)
}
