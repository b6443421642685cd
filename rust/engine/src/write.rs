//! Writing: a row is locked, then its change goes into the transaction's buffer, checked against the row as it is now.

use std::sync::Arc;

use aurora_page::{KeyBuf, Value, ValueRef, encode_row};
use aurora_proto::Volume;

use crate::alter::same_definition;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError};
use crate::locks::LockWaiting;
use crate::overflow::{VALUE_BYTES_MAX, spill, var_bytes};
use crate::read::row_values;
use crate::row::RowView;
use crate::table::Table;
use crate::txn::{Row, Txn, Write};

impl<V: Volume> Engine<V> {
    /// Inserts a row; a row with its key must not be there.
    pub fn insert(&self, txn: &mut Txn, table: &Arc<Table>, row: Vec<Value>) -> Attempt<()> {
        let table = &self.prepare(txn, table, "insert")?;
        let key = self.check_row(table, &row)?;
        self.lock(txn, table, &key, LockWaiting::Wait)?;
        let new = match txn.writes.get(table, &key) {
            Some(Write::Delete) => false,
            Some(_) => return Err(duplicate(txn, table, &key).into()),
            None if self.locked_row(txn, table, &key)?.is_some() => {
                return Err(duplicate(txn, table, &key).into());
            }
            None => true,
        };
        self.put_row(txn, table, key, row, new)
    }

    /// Inserts a row, or replaces the one with its key.
    pub fn upsert(&self, txn: &mut Txn, table: &Arc<Table>, row: Vec<Value>) -> Attempt<()> {
        let table = &self.prepare(txn, table, "upsert")?;
        let key = self.check_row(table, &row)?;
        self.lock(txn, table, &key, LockWaiting::Wait)?;
        let new = match txn.writes.get(table, &key) {
            Some(write) => matches!(write, Write::Put { new: true, .. }),
            None => self.locked_row(txn, table, &key)?.is_none(),
        };
        self.put_row(txn, table, key, row, new)
    }

    /// Changes columns of the row with this key; `false` if there is none.
    pub fn update(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        key: &[u8],
        changes: Vec<(u16, Value)>,
    ) -> Attempt<bool> {
        let table = &self.prepare(txn, table, "update")?;
        check_changes(table, &changes)?;
        self.lock(txn, table, key, LockWaiting::Wait)?;
        match txn.writes.get(table, key) {
            Some(Write::Delete) => Ok(false),
            Some(Write::Put { row, new }) => {
                let (mut values, new) = (row_values(table, row)?, *new);
                apply(&mut values, &changes);
                self.put_row(txn, table, KeyBuf::from_slice(key), values, new)?;
                Ok(true)
            }
            other => {
                let (earlier, stored) = match other {
                    Some(Write::Update { changes, .. }) => {
                        (changes.clone(), self.look_up(txn, table, key)?)
                    }
                    _ => (Vec::new(), self.locked_row(txn, table, key)?),
                };
                let Some(stored) = stored else {
                    return Ok(false);
                };
                self.put_update(txn, table, key, &stored, earlier, changes)?;
                Ok(true)
            }
        }
    }

    /// Deletes the row with this key; `false` if there is none. Rows that refer to it are dealt with as their foreign keys
    /// say.
    pub fn delete(&self, txn: &mut Txn, table: &Arc<Table>, key: &[u8]) -> Attempt<bool> {
        let table = &self.prepare(txn, table, "delete")?;
        self.lock(txn, table, key, LockWaiting::Wait)?;
        if !table.definition.referenced.is_empty() {
            if self.current(txn, table, key)?.is_none() {
                return Ok(false);
            }
            self.cascade(txn, table, key)?;
        }
        self.delete_row(txn, table, key)
    }

    /// Deletes a row and leaves those that refer to it.
    pub(crate) fn delete_row(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        key: &[u8],
    ) -> Attempt<bool> {
        self.lock(txn, table, key, LockWaiting::Wait)?;
        match txn.writes.get(table, key) {
            Some(Write::Delete) => return Ok(false),
            Some(Write::Put { new: true, .. }) => {
                let entries = self.follow(txn, table, key, &Write::Delete)?;
                txn.writes.remove(table, key);
                self.put_entries(txn, entries)?;
                return Ok(true);
            }
            Some(_) => {}
            None if self.locked_row(txn, table, key)?.is_none() => return Ok(false),
            None => {}
        }
        self.buffer(txn, table, KeyBuf::from_slice(key), Write::Delete)?;
        Ok(true)
    }

    /// Every write begins so: the transaction takes writes, and the table is there. The answer is the table as it is
    /// defined now.
    pub(crate) fn prepare(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        operation: &'static str,
    ) -> Attempt<Arc<Table>> {
        txn.check_writable(operation)?;
        if let Some(written) = txn.writes.table(table.id) {
            same_definition(written, table)?;
        }
        self.check_live(txn, table)
    }

    fn check_row(&self, table: &Table, row: &[Value]) -> Attempt<KeyBuf> {
        let named = || table.name.clone();
        table
            .schema
            .check_row(row)
            .map_err(|source| EngineError::Value {
                table: named(),
                source,
            })?;
        (0..row.len()).try_for_each(|column| check_length(table, column, &row[column]))?;
        Ok(table.key_of(row)?)
    }

    fn put_row(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        key: KeyBuf,
        values: Vec<Value>,
        new: bool,
    ) -> Attempt<()> {
        let spill = spill(&table.schema, &values, self.geometry.page_bytes)
            .map_err(|got| self.row_too_large(table, &key, got))?;
        let row = if spill.is_empty() {
            Row::Inline(encode_row(&table.schema, &values))
        } else {
            Row::Spilled { values, spill }
        };
        self.buffer(txn, table, key, Write::Put { row, new })
    }

    /// Buffers changes to a stored row, after earlier ones to it.
    fn put_update(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        key: &[u8],
        stored: &RowView,
        earlier: Vec<(u16, Value)>,
        changes: Vec<(u16, Value)>,
    ) -> Attempt<()> {
        let mut all = earlier;
        for (column, value) in changes {
            match all.iter_mut().find(|(earlier, _)| *earlier == column) {
                Some(slot) => slot.1 = value,
                None => all.push((column, value)),
            }
        }
        // Only a table with texts can have rows that are too long for their page.
        let mut columns = crate::overflow::Spill::new();
        if all
            .iter()
            .any(|(_, value)| var_bytes(value.as_ref()).is_some())
        {
            let mut values = stored.values()?;
            apply(&mut values, &all);
            columns = spill(&table.schema, &values, self.geometry.page_bytes)
                .map_err(|got| self.row_too_large(table, key, got))?;
            for &column in &columns {
                // A value that was short enough beside the others as they were, and now has to move.
                if all.iter().all(|(changed, _)| *changed != column) {
                    all.push((column, values[usize::from(column)].clone()));
                }
            }
        }
        all.sort_unstable_by_key(|(column, _)| *column);
        self.buffer(
            txn,
            table,
            KeyBuf::from_slice(key),
            Write::Update {
                changes: all,
                spill: columns,
            },
        )
    }

    fn buffer(&self, txn: &mut Txn, table: &Arc<Table>, key: KeyBuf, write: Write) -> Attempt<()> {
        let limits = (self.config.tx_bytes_max, self.config.tx_records_max);
        txn.writes.since.get_or_insert_with(|| self.published());
        if !table.is_followed() {
            return Ok(txn.writes.put(table, key, write, limits)?);
        }
        self.lock_uniques(txn, table, &key, &write)?;
        let entries = self.follow(txn, table, &key, &write)?;
        txn.writes
            .check_room(table, &key, &write, &entries, limits)?;
        txn.writes.put(table, key, write, limits)?;
        self.put_entries(txn, entries)
    }

    fn row_too_large(&self, table: &Table, key: &[u8], got: usize) -> EngineError {
        let limit = aurora_page::row_heap_max(self.geometry.page_bytes);
        EngineError::RowTooLarge {
            table: table.name.clone(),
            key: table.show_key(key),
            limit,
            got,
        }
    }
}

fn apply(values: &mut [Value], changes: &[(u16, Value)]) {
    for (column, value) in changes {
        values[usize::from(*column)] = value.clone();
    }
}

pub(crate) fn check_changes(table: &Table, changes: &[(u16, Value)]) -> Attempt<()> {
    let columns = table.schema.columns();
    for (index, value) in changes {
        let Some(column) = columns.get(usize::from(*index)) else {
            let (table, columns) = (table.name.clone(), columns.len());
            return Err(EngineError::UnknownColumn {
                table,
                columns,
                got: *index,
            }
            .into());
        };
        if table.key_columns().any(|key| key == *index) {
            return Err(EngineError::KeyColumn {
                table: table.name.clone(),
                column: column.name.clone(),
            }
            .into());
        }
        column
            .check(value.as_ref())
            .map_err(|source| EngineError::Value {
                table: table.name.clone(),
                source,
            })?;
        check_length(table, usize::from(*index), value)?;
    }
    Ok(())
}

/// Callers bring values, not references to pages, and none longer than values may be.
pub(crate) fn check_length(table: &Table, column: usize, value: &Value) -> Result<(), EngineError> {
    let got = match value.as_ref() {
        ValueRef::Overflow(reference) => reference.len.max(VALUE_BYTES_MAX + 1),
        value => var_bytes(value).map_or(0, |bytes| bytes.len() as u64),
    };
    if got <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let column = table.schema.columns()[column].name.clone();
    Err(EngineError::ValueTooLarge {
        table: table.name.clone(),
        column,
        limit: VALUE_BYTES_MAX,
        got,
    })
}

fn duplicate(txn: &Txn, table: &Table, key: &[u8]) -> EngineError {
    EngineError::DuplicateKey {
        table: table.name.clone(),
        index: None,
        key: table.show_key(key),
        seen: txn.newest_read(),
    }
}
