//! Many rows by one call: all of them are checked before the first is buffered, so a call that fails or is stopped has
//! changed nothing.
//!
//! What a single insert does for each row - asking whether the table is there, walking down the tree - is done once for
//! the call, or once for each leaf that the rows belong to.

use std::sync::Arc;

use aurora_page::{KeyBuf, LeafRef, Lsn, PageError, Value, decode_row, encode_row};
use aurora_proto::Volume;

use crate::btree::descend_with;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError};
use crate::follow::EntryWrites;
use crate::overflow::spill;
use crate::table::Table;
use crate::txn::{Row, Txn, Write};

/// Rows of one table that are to be written together. Made by [`Engine::new_rows`].
pub struct NewRows {
    table: Arc<Table>,
    rows: Vec<NewRow>,
    bytes: u64,
    limits: (u64, u64),
    page_bytes: usize,
}

struct NewRow {
    key: KeyBuf,
    row: Row,
}

impl NewRows {
    /// The table that the rows are for.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of keys and rows.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a row; its values are checked.
    ///
    /// # Errors
    /// A value that its column does not take, a key or row that is too long, or more than a transaction may hold.
    pub fn push(&mut self, values: Vec<Value>) -> Result<(), EngineError> {
        let table = &self.table;
        table
            .schema
            .check_row(&values)
            .map_err(|source| EngineError::Value {
                table: table.name.clone(),
                source,
            })?;
        for (column, value) in values.iter().enumerate() {
            crate::write::check_length(table, column, value)?;
        }
        let key = table.key_of(&values)?;
        let spill = spill(&table.schema, &values, self.page_bytes).map_err(|got| {
            EngineError::RowTooLarge {
                table: table.name.clone(),
                key: table.show_key(&key),
                limit: aurora_page::row_heap_max(self.page_bytes),
                got,
            }
        })?;
        let row = if spill.is_empty() {
            Row::Inline(encode_row(&table.schema, &values))
        } else {
            Row::Spilled { values, spill }
        };
        self.add(key, row)
    }

    /// Adds a row that is encoded and checked already, with its key.
    ///
    /// # Errors
    /// As [`NewRows::push`].
    pub fn push_encoded(&mut self, key: KeyBuf, row: Vec<u8>) -> Result<(), EngineError> {
        if row.len() > aurora_page::row_heap_max(self.page_bytes) {
            // Only a row as long as this can have a value that belongs into overflow pages.
            let page = self.table.root;
            let values = decode_row(&self.table.schema, &row)
                .map_err(|source| EngineError::Page(PageError::Row { page, source }))?;
            return self.push(values);
        }
        self.add(key, Row::Inline(row))
    }

    fn add(&mut self, key: KeyBuf, row: Row) -> Result<(), EngineError> {
        let (bytes_max, count_max) = self.limits;
        self.bytes += (key.len() + row.weight()) as u64;
        let count = self.rows.len() as u64 + 1;
        let too_large =
            |what, limit, got| Err(EngineError::TransactionTooLarge { what, limit, got });
        if self.bytes > bytes_max {
            return too_large("bytes", bytes_max, self.bytes);
        }
        if count > count_max {
            return too_large("changes", count_max, count);
        }
        self.rows.push(NewRow { key, row });
        Ok(())
    }

    fn take(&mut self) -> Vec<NewRow> {
        self.bytes = 0;
        std::mem::take(&mut self.rows)
    }

    /// The places of the rows in key order; rows of one key stay in their order.
    fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.rows.len() as u32).collect();
        if !self.rows.is_sorted_by(|a, b| a.key <= b.key) {
            order.sort_by(|a, b| self.key(*a).cmp(self.key(*b)));
        }
        order
    }

    fn key(&self, place: u32) -> &KeyBuf {
        &self.rows[place as usize].key
    }
}

impl<V: Volume> Engine<V> {
    /// No rows yet for this table.
    pub fn new_rows(&self, table: &Arc<Table>) -> NewRows {
        NewRows {
            table: table.clone(),
            rows: Vec::new(),
            bytes: 0,
            limits: (self.config.tx_bytes_max, self.config.tx_records_max),
            page_bytes: self.geometry.page_bytes,
        }
    }

    /// Inserts rows; no row with one of their keys may be there, nor two of them have one key. `rows` is empty
    /// afterwards; after an error or a stop it is as before, and so is the transaction.
    pub fn insert_many(&self, txn: &mut Txn, rows: &mut NewRows) -> Attempt<()> {
        let table = self.prepare(txn, &rows.table, "insert_many")?;
        let order = rows.order();
        let twice = order
            .windows(2)
            .find(|pair| rows.key(pair[0]) == rows.key(pair[1]));
        if let Some(pair) = twice {
            return Err(self.duplicate_row(txn, rows, pair[1]).into());
        }
        let stored = self.stored_among(txn, rows, &order)?;
        let mut new = vec![true; rows.len()];
        for (place, stored) in order.iter().zip(stored) {
            match txn.writes.get(&rows.table, rows.key(*place)) {
                // Deleted by the transaction itself: the row that is stored is replaced.
                Some(Write::Delete) => new[*place as usize] = false,
                None if !stored => {}
                _ => return Err(self.duplicate_row(txn, rows, *place).into()),
            }
        }
        self.put_many(txn, &table, rows, &new)
    }

    /// Inserts rows, or replaces those with their keys; of several with one key the last counts. `rows` is empty
    /// afterwards; after an error or a stop it is as before, and so is the transaction.
    pub fn upsert_many(&self, txn: &mut Txn, rows: &mut NewRows) -> Attempt<()> {
        let table = self.prepare(txn, &rows.table, "upsert_many")?;
        let is_new = |row: &NewRow| {
            matches!(
                txn.writes.get(&rows.table, &row.key),
                Some(Write::Put { new: true, .. })
            )
        };
        let new: Vec<bool> = rows.rows.iter().map(is_new).collect();
        self.put_many(txn, &table, rows, &new)
    }

    /// For each row, in the order of the keys, whether one with its key is stored at the snapshot.
    fn stored_among(&self, txn: &Txn, rows: &NewRows, order: &[u32]) -> Attempt<Vec<bool>> {
        let view = self.view_of(&txn.point);
        let (mut stored, mut newest) = (Vec::with_capacity(order.len()), Lsn::NONE);
        while let Some(first) = order.get(stored.len()) {
            let key = rows.key(*first);
            let choose = |inner: &aurora_page::InnerRef<'_>| inner.child_for(key).0;
            let (page, fences) = descend_with(&view, &rows.table, choose, &mut newest)?;
            let leaf = LeafRef::new(&page)?;
            for place in &order[stored.len()..] {
                let key = rows.key(*place);
                if fences.upper.as_ref().is_some_and(|upper| key >= upper) {
                    break;
                }
                stored.push(leaf.search(key).is_ok());
            }
        }
        txn.point.note(newest);
        Ok(stored)
    }

    /// Buffers the rows, and the entries of indexes that follow from them. What was buffered before an error or a stop is
    /// taken back.
    fn put_many(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        rows: &mut NewRows,
        new: &[bool],
    ) -> Attempt<()> {
        let limits = (self.config.tx_bytes_max, self.config.tx_records_max);
        // What fits beside what is there, even if every row were a change more, needs no way back.
        if !table.is_followed() && txn.writes.room_for(rows.bytes, rows.len(), limits) {
            for (row, new) in rows.take().into_iter().zip(new) {
                let write = Write::Put {
                    row: row.row,
                    new: *new,
                };
                txn.writes.put(table, row.key, write, limits)?;
            }
            return Ok(());
        }
        let mut undo = Vec::with_capacity(rows.len());
        for (row, new) in rows.rows.iter().zip(new) {
            let write = Write::Put {
                row: row.row.clone(),
                new: *new,
            };
            if let Err(stop) = self.put_one(txn, table, &row.key, write, &mut undo) {
                for (table, key, before) in undo.into_iter().rev() {
                    txn.writes.restore(&table, key, before);
                }
                return Err(stop);
            }
        }
        rows.take();
        Ok(())
    }

    fn put_one(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        key: &KeyBuf,
        write: Write,
        undo: &mut Vec<(Arc<Table>, KeyBuf, Option<Write>)>,
    ) -> Attempt<()> {
        let limits = (self.config.tx_bytes_max, self.config.tx_records_max);
        let entries = if table.is_followed() {
            self.follow(txn, table, key, &write)?
        } else {
            EntryWrites::new()
        };
        txn.writes
            .check_room(table, key, &write, &entries, limits)?;
        let mut put = |table: &Arc<Table>, key: KeyBuf, write| -> Attempt<()> {
            let before = txn.writes.get(table, &key).cloned();
            undo.push((table.clone(), key.clone(), before));
            Ok(txn.writes.put(table, key, write, (u64::MAX, u64::MAX))?)
        };
        put(table, key.clone(), write)?;
        entries
            .into_iter()
            .try_for_each(|(tree, key, write)| put(&tree, key, write))
    }

    fn duplicate_row(&self, txn: &Txn, rows: &NewRows, place: u32) -> EngineError {
        EngineError::DuplicateKey {
            table: rows.table.name.clone(),
            index: None,
            key: rows.table.show_key(rows.key(place)),
            seen: txn.newest_read(),
        }
    }
}
