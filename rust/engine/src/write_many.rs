//! Many rows by one call: all of them are locked and checked before the first is buffered, so a call that fails or is
//! stopped has changed nothing. It keeps the locks that it took, as a savepoint that is rolled back to does.
//!
//! What a single insert does for each row - asking whether the table is there, walking down the tree - is done once for
//! the call, or once for each leaf that the rows belong to. Keys are locked in their order, so two such calls wait for each
//! other and do not dead-lock. What a stopped call has locked and looked up it does not do again.

use std::sync::Arc;

use aurora_page::{KeyBuf, LeafRef, Lsn, PageError, Value, decode_row, encode_row};
use aurora_proto::Volume;

use crate::btree::descend_with;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::follow::EntryWrites;
use crate::locks::{LockWaiting, TxnId};
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
    /// The greatest number in the auto-increment column.
    number: Option<i64>,
    progress: Progress,
}

struct NewRow {
    key: KeyBuf,
    row: Row,
}

/// How far a transaction has come with writing the rows. Its locks keep what was found true.
#[derive(Default)]
struct Progress {
    txn: Option<TxnId>,
    /// The places of the rows in key order; rows of one key stay in their order.
    order: Vec<u32>,
    /// A row whose key an earlier one has.
    twice: Option<u32>,
    /// For each row, whether no later one has its key.
    is_last: Vec<bool>,
    /// So many of them, in that order, are locked.
    locked: usize,
    /// In that order, whether a row with the key is stored.
    stored: Vec<bool>,
    /// Pages of indexes or parents had to be waited for: they are all fetched before the first row is buffered again.
    is_cold: bool,
    /// So many rows have been followed for that.
    fetched: usize,
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
        if let Some(Value::Int(number)) = table.auto.and_then(|auto| values.get(usize::from(auto)))
        {
            self.number = self.number.max(Some(*number));
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
        let is_long = row.len() > aurora_page::row_heap_max(self.page_bytes);
        if is_long || self.table.auto.is_some() {
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
        self.progress.txn = None;
        Ok(())
    }

    fn take(&mut self) -> Vec<NewRow> {
        (self.bytes, self.number, self.progress) = (0, None, Progress::default());
        std::mem::take(&mut self.rows)
    }

    /// Goes on where the transaction was stopped, or begins.
    fn begin(&mut self, txn: TxnId) {
        if self.progress.txn == Some(txn) {
            return;
        }
        let mut order: Vec<u32> = (0..self.rows.len() as u32).collect();
        if !self.rows.is_sorted_by(|a, b| a.key <= b.key) {
            order.sort_by(|a, b| self.key(*a).cmp(self.key(*b)));
        }
        let mut twice = None;
        let mut is_last = vec![true; order.len()];
        for pair in order.windows(2) {
            if self.key(pair[0]) == self.key(pair[1]) {
                twice = twice.or(Some(pair[1]));
                is_last[pair[0] as usize] = false;
            }
        }
        self.progress = Progress {
            txn: Some(txn),
            twice,
            is_last,
            order,
            ..Progress::default()
        };
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
            number: None,
            progress: Progress::default(),
        }
    }

    /// Moves the next number of the table's auto-increment column past those that the rows bring along.
    pub fn pass_numbers(&self, rows: &NewRows, now_us: i64) -> Attempt<()> {
        match rows.number {
            Some(number) => self.pass_number(rows.table.id, number, now_us),
            None => Ok(()),
        }
    }

    /// Inserts rows; no row with one of their keys may be there, nor two of them have one key. `rows` is empty
    /// afterwards; after an error or a stop it is as before, and so is the transaction but for its locks.
    pub fn insert_many(&self, txn: &mut Txn, rows: &mut NewRows) -> Attempt<()> {
        let table = self.prepare(txn, &rows.table, "insert_many")?;
        rows.begin(txn.id());
        if let Some(place) = rows.progress.twice {
            return Err(self.duplicate_row(txn, rows, place).into());
        }
        self.lock_and_look_up(txn, &table, rows)?;
        let mut new = vec![true; rows.len()];
        for (place, stored) in rows.progress.order.iter().zip(&rows.progress.stored) {
            match txn.writes.get(&table, rows.key(*place)) {
                // Deleted by the transaction itself: the row that is stored is replaced.
                Some(Write::Delete) => new[*place as usize] = false,
                None if !stored => {}
                _ => return Err(self.duplicate_row(txn, rows, *place).into()),
            }
        }
        self.put_many(txn, &table, rows, &new)
    }

    /// Inserts rows, or replaces those with their keys; of several with one key the last counts. `rows` is empty
    /// afterwards; after an error or a stop it is as before, and so is the transaction but for its locks.
    pub fn upsert_many(&self, txn: &mut Txn, rows: &mut NewRows) -> Attempt<()> {
        let table = self.prepare(txn, &rows.table, "upsert_many")?;
        rows.begin(txn.id());
        self.lock_and_look_up(txn, &table, rows)?;
        let mut new = vec![true; rows.len()];
        for (place, stored) in rows.progress.order.iter().zip(&rows.progress.stored) {
            new[*place as usize] = match txn.writes.get(&table, rows.key(*place)) {
                Some(write) => matches!(write, Write::Put { new: true, .. }),
                None => !stored,
            };
        }
        self.put_many(txn, &table, rows, &new)
    }

    /// Locks every key, and then sees which rows are stored. Nobody else can change that from here on.
    fn lock_and_look_up(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        rows: &mut NewRows,
    ) -> Attempt<()> {
        while let Some(place) = rows.progress.order.get(rows.progress.locked) {
            self.lock(txn, table, rows.key(*place), LockWaiting::Wait)?;
            rows.progress.locked += 1;
        }
        // A load of the table after this would have changed what is looked up now.
        let since = txn.snapshot();
        txn.writes.since.get_or_insert(since);
        while rows.progress.stored.len() < rows.progress.order.len() {
            self.look_up_leaf(txn, table, rows)?;
        }
        txn.fix();
        if rows.progress.is_cold {
            self.fetch_followed(txn, table, rows)?;
        }
        Ok(())
    }

    /// Whether rows are stored with the next keys of one leaf: many times what [`Engine::locked_row`] does.
    fn look_up_leaf(&self, txn: &Txn, table: &Arc<Table>, rows: &mut NewRows) -> Attempt<()> {
        let Progress { order, stored, .. } = &mut rows.progress;
        let key = |place: u32| &rows.rows[place as usize].key;
        let at = if txn.reads_newest() {
            txn.snapshot()
        } else {
            self.published()
        };
        let (view, mut newest) = (self.view(at), Lsn::NONE);
        let first = key(order[stored.len()]);
        let choose = |inner: &aurora_page::InnerRef<'_>| inner.child_for(first).0;
        let (page, fences) = descend_with(&view, table, choose, &mut newest)?;
        let is_changed = newest > txn.snapshot();
        if !is_changed {
            txn.point.note(newest);
        }
        let leaf = LeafRef::new(&page)?;
        for place in &order[stored.len()..] {
            let key = key(*place);
            if fences.upper.as_ref().is_some_and(|upper| key >= upper) {
                break;
            }
            stored.push(if is_changed {
                self.locked_row(txn, table, key)?.is_some()
            } else {
                leaf.search(key).is_ok()
            });
        }
        Ok(())
    }

    /// Reads what following the rows needs, and buffers nothing: a stop here costs one row, not all that were buffered. What
    /// it finds wrong may be right once the rows before are there.
    fn fetch_followed(&self, txn: &Txn, table: &Arc<Table>, rows: &mut NewRows) -> Attempt<()> {
        while let Some(NewRow { key, row }) = rows.rows.get(rows.progress.fetched) {
            if !rows.progress.is_last[rows.progress.fetched] {
                rows.progress.fetched += 1;
                continue;
            }
            let row = row.clone();
            match self.follow(txn, table, key, &Write::Put { row, new: false }) {
                Ok(_) | Err(Stop::Failed(_)) => rows.progress.fetched += 1,
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
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
        let mut done = Ok(());
        let last = rows.rows.iter().zip(new).zip(&rows.progress.is_last);
        // A row that another one of the call replaces was never there: nothing of it is checked.
        for ((row, new), _) in last.filter(|(_, is_last)| **is_last) {
            let write = Write::Put {
                row: row.row.clone(),
                new: *new,
            };
            done = self.put_one(txn, table, &row.key, write, &mut undo);
            if done.is_err() {
                break;
            }
        }
        if done.is_ok() {
            done = self.check_all_parents(txn, table, rows);
        }
        match done {
            Ok(()) => drop(rows.take()),
            Err(stop) => {
                for (table, key, before) in undo.into_iter().rev() {
                    txn.writes.put_back(&table, key, before);
                }
                rows.progress.is_cold = !matches!(stop, Stop::Failed(_));
                return Err(stop);
            }
        }
        Ok(())
    }

    /// Once all rows are there, for they may refer to each other.
    fn check_all_parents(&self, txn: &Txn, table: &Arc<Table>, rows: &NewRows) -> Attempt<()> {
        if table.references.is_empty() {
            return Ok(());
        }
        for NewRow { key, .. } in &rows.rows {
            if let Some(row) = self.current(txn, table, key)? {
                self.check_parents(txn, table, key, None, &row)?;
            }
        }
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
            self.lock_uniques(txn, table, key, &write)?;
            self.follow_row(txn, table, key, &write, false)?
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
