//! Commit: a transaction's changes become one MTR [6].
//!
//! ```text
//!   under the commit lock                              without it
//!   is what a serializable transaction read            the caller waits until the VDL has reached
//!     still so?                                        the commit's LSN
//!   for each change: descend at the heads,
//!     change drafts
//!   change the entries of indexes that follow
//!   number (volume.append)
//!   publish the drafts as heads
//!   note the keys for later conflict checks
//!   then give the row locks back: whoever waits for one need not wait for the disk
//! ```
//! That the first committer wins was seen to when each row was locked: since then nobody else can have changed it, but
//! for a bulk load, which locks no rows.
//!
//! A page that is missing stops the attempt; nothing has changed then. It is fetched, stays pinned until the commit has
//! come through, and the attempt starts again.

use aurora_page::planted::{self, Fault};
use aurora_page::{KeyBuf, LeafRef, Lsn, ObjectId, OverflowRef, PageError};
use aurora_page::{Value, ValueRef, encode_changes, encode_row, read_row};
use aurora_proto::Volume;
use rustc_hash::FxHashMap;

use crate::alter::same_definition;
use crate::btree::{Found, Pages};
use crate::conflicts::{Conflicts, Verdict};
use crate::derive::Derived;
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::overflow::Chains;
use crate::reads::Reads;
use crate::table::Table;
use crate::tokens;
use crate::txn::{Commit, Isolation, Row, Txn, Write};

impl<V: Volume> Engine<V> {
    /// Commits a transaction. The answer says which LSN must be durable before anybody may be told ([`Commit::lsn`]).
    /// With a token, the commit can be asked for later (`token_status`), and happens once however often it is tried.
    ///
    /// After an error the transaction is as it was; its caller drops it, or tries again if the error was the volume's.
    pub fn commit(&self, txn: &mut Txn, now_us: i64, token: Option<&str>) -> Attempt<Commit> {
        txn.check_open("commit")?;
        if !txn.writable || (txn.writes.is_empty() && token.is_none()) {
            return Ok(self.close_unchanged(txn, now_us));
        }
        let attempt = self.try_commit(txn, now_us, token);
        match attempt {
            Err(Stop::NeedPage { page, at }) => {
                txn.pins.of(&self.pool).add(page);
                Err(Stop::NeedPage { page, at })
            }
            Err(stop) => Err(stop),
            Ok(None) => Ok(self.close_unchanged(txn, now_us)),
            Ok(Some(commit)) => {
                let after = txn.newest_read();
                txn.close();
                Ok(Commit { after, ..commit })
            }
        }
    }

    fn close_unchanged(&self, txn: &mut Txn, now_us: i64) -> Commit {
        let after = match planted::is(Fault::AfterForgotten) {
            true => Lsn::NONE,
            false => txn.newest_read(),
        };
        txn.close();
        Commit {
            lsn: after,
            time_us: now_us,
            after,
        }
    }

    fn try_commit(
        &self,
        txn: &mut Txn,
        now_us: i64,
        token: Option<&str>,
    ) -> Attempt<Option<Commit>> {
        let snapshot = txn.snapshot();
        // Trimmed by what nobody can still ask about: read before the lock, so that it can only be too old.
        let oldest = self.points.oldest_writer(self.published());
        let (writes, chains, reads) = (&txn.writes, &mut txn.chains, &txn.reads);
        let (branch, isolation) = (txn.branch, txn.isolation);
        let since = match isolation {
            Isolation::ReadCommitted => writes.since.unwrap_or(snapshot),
            Isolation::Snapshot | Isolation::Serializable => snapshot,
        };
        let make = |edit: &mut Edit<'_>, conflicts: &Conflicts| {
            edit.check_branch(branch)?;
            let heads = writes
                .tables()
                .filter(|table| table.index_of.is_none())
                .map(|table| {
                    let head = self.check_still_live(table, edit.at)?;
                    same_definition(&head, table)?;
                    Ok((table.id, head))
                })
                .collect::<Attempt<FxHashMap<_, _>>>()?;
            if let Some(reads) = reads
                && !planted::is(Fault::ReadsNotChecked)
            {
                self.check_reads(reads, conflicts, snapshot, edit.at)?;
            }
            let mut noted = Vec::with_capacity(writes.iter().size_hint().0);
            let mut derived = Derived::default();
            for (object, key, write) in writes.iter() {
                // Entries of indexes are in the buffer for the transaction to read; here they follow from the rows.
                let (Some(table), Some(head)) = (writes.table(object), heads.get(&object)) else {
                    continue;
                };
                let before = edit.seen(head, key, false)?;
                let mut change = Change {
                    edit: &mut *edit,
                    table,
                    key,
                    chains: &mut *chains,
                };
                change.apply(write, since, conflicts)?;
                noted.push((object, key.clone()));
                derived.note(head, key, before, edit.seen(head, key, true)?);
            }
            // At READ COMMITTED nothing that came later is a conflict: a duplicate is one.
            let seen = match isolation {
                Isolation::ReadCommitted => edit.at,
                Isolation::Snapshot | Isolation::Serializable => snapshot,
            };
            if !planted::is(Fault::IndexNotKept) {
                derived.apply(edit, seen, &mut noted, &|edit, name| {
                    self.head_in(edit, name)
                })?;
            }
            if let Some(token) = token.filter(|_| !planted::is(Fault::TokenNotWritten)) {
                tokens::insert(edit, token)?;
            }
            Ok(noted)
        };
        let note = |conflicts: &mut Conflicts, lsn: Lsn, noted: &Vec<(ObjectId, KeyBuf)>| {
            let forgotten = planted::is(Fault::ConflictNotNoted);
            for (object, key) in noted.iter().filter(|_| !forgotten) {
                conflicts.note(*object, key, lsn);
            }
            conflicts.trim(oldest);
        };
        Ok(self.mutate(now_us, make, note)?.1)
    }

    /// What a serializable transaction has read is still so: it might as well have read it now.
    fn check_reads(
        &self,
        reads: &Reads,
        conflicts: &Conflicts,
        snapshot: Lsn,
        at: Lsn,
    ) -> Attempt<()> {
        let judge = |table: &Table, verdict: Verdict, what: &dyn Fn() -> String| {
            // An index is there as long as its table is, and loaded with it.
            if table.index_of.is_none() {
                self.check_still_live(table, at)?;
            }
            let loaded = conflicts.load_since(table.index_of.unwrap_or(table.id), snapshot);
            let changed = match loaded {
                Some(by) => Verdict::Changed(by),
                None => verdict,
            };
            match changed {
                Verdict::Unchanged => Ok(()),
                Verdict::Unknown(floor) => {
                    Err(EngineError::SnapshotTooOld { snapshot, floor }.into())
                }
                Verdict::Changed(by) => Err(Stop::Failed(EngineError::SerializationFailure {
                    table: table.name.clone(),
                    what: what(),
                    snapshot,
                    by,
                })),
            }
        };
        reads.check(
            |hash, table, key| {
                let what = || format!("key {}", table.show_key(key));
                judge(table, conflicts.since(hash, snapshot), &what)
            },
            |read| {
                let (low, high) = (read.low.as_ref(), read.high.as_ref());
                let verdict = conflicts.range_since(read.table.id, low, high, snapshot);
                judge(&read.table, verdict, &|| read.show())
            },
        )
    }
}

/// One change of one row, at the head.
pub(crate) struct Change<'c, 'e> {
    pub edit: &'c mut Edit<'e>,
    pub table: &'c Table,
    pub key: &'c KeyBuf,
    pub chains: &'c mut Chains,
}

impl Change<'_, '_> {
    fn apply(&mut self, write: &Write, since: Lsn, conflicts: &Conflicts) -> Attempt<()> {
        let found = self.edit.find(self.table, self.key)?;
        if let Some(by) = conflicts.load_since(self.table.id, since) {
            return Err(self.conflict(since, by));
        }
        let found = self
            .edit
            .upgraded(self.table, self.key, found, self.chains)?;
        match (write, found.rank) {
            (Write::Put { row, .. }, Err(rank)) => self.insert(&found, rank, row),
            (Write::Put { row, new: false }, Ok(rank)) => self.replace(&found, rank, row),
            (Write::Update { changes, spill }, Ok(rank)) => {
                let mut values: Vec<Value> = Vec::new();
                if spill.is_empty() {
                    return self.update(&found, rank, changes);
                }
                for (column, value) in changes {
                    values.push(if spill.contains(column) {
                        self.store(value)?
                    } else {
                        value.clone()
                    });
                }
                let changes: Vec<(u16, Value)> = changes
                    .iter()
                    .map(|(column, _)| *column)
                    .zip(values)
                    .collect();
                self.update(&found, rank, &changes)
            }
            (Write::Delete, Ok(rank)) => self.delete(&found, rank),
            // Put over and then deleted by the transaction itself: there never was such a row.
            (Write::Delete, Err(_)) => Ok(()),
            (Write::Put { new: true, .. }, Ok(_)) | (Write::Update { .. }, Err(_)) => {
                Err(self.conflict(since, found.seen))
            }
        }
    }

    fn conflict(&self, snapshot: Lsn, by: Lsn) -> Stop {
        let (table, key) = (self.table.name.clone(), self.table.show_key(self.key));
        EngineError::WriteConflict {
            table,
            key,
            snapshot,
            by: by.min(self.edit.at),
        }
        .into()
    }

    pub fn insert(&mut self, found: &Found, rank: usize, row: &Row) -> Attempt<()> {
        self.edit.count(self.table.id, 1);
        match row {
            Row::Inline(bytes) => self
                .edit
                .insert_at(self.table, self.key, found, rank, bytes),
            Row::Spilled { values, spill } => {
                let mut values = values.clone();
                self.edit.spill_values(self.table, &mut values, spill)?;
                let bytes = encode_row(&self.table.schema, &values);
                self.edit
                    .insert_at(self.table, self.key, found, rank, &bytes)
            }
        }
    }

    /// The row is there: only the columns that differ are changed.
    pub fn replace(&mut self, found: &Found, rank: usize, row: &Row) -> Attempt<()> {
        let stored;
        let bytes;
        let values: Vec<ValueRef<'_>> = match row {
            Row::Inline(inline) => {
                bytes = inline;
                let read = read_row(&self.table.schema, bytes).collect::<Result<_, _>>();
                read.map_err(|source| PageError::Row {
                    page: found.leaf,
                    source,
                })?
            }
            Row::Spilled { values, spill } => {
                let mut values = values.clone();
                self.edit.spill_values(self.table, &mut values, spill)?;
                stored = values;
                stored.iter().map(Value::as_ref).collect()
            }
        };
        let mut changes = Vec::new();
        {
            let page = self.edit.page(found.leaf)?;
            let leaf = LeafRef::new(&page)?;
            for (column, value) in values.into_iter().enumerate() {
                let in_key = self
                    .table
                    .key_columns()
                    .any(|key| usize::from(key) == column);
                if !in_key && leaf.value_at(rank, column) != value {
                    changes.push((column as u16, value.to_owned()));
                }
            }
        }
        if changes.is_empty() {
            Ok(())
        } else {
            self.update(found, rank, &changes)
        }
    }

    fn update(&mut self, found: &Found, rank: usize, changes: &[(u16, Value)]) -> Attempt<()> {
        let dropped = self.overflows(
            found,
            rank,
            changes.iter().map(|(column, _)| usize::from(*column)),
        )?;
        let bytes = encode_changes(&self.table.schema, changes);
        self.edit
            .update_at(self.table, self.key, found, rank, &bytes)?;
        dropped
            .into_iter()
            .try_for_each(|value| self.edit.free_value(value, self.chains))
    }

    pub fn delete(&mut self, found: &Found, rank: usize) -> Attempt<()> {
        let dropped = self.overflows(found, rank, 0..self.table.schema.columns().len())?;
        self.edit.delete_at(self.table, found, rank)?;
        self.edit.count(self.table.id, -1);
        dropped
            .into_iter()
            .try_for_each(|value| self.edit.free_value(value, self.chains))
    }

    fn store(&mut self, value: &Value) -> Attempt<Value> {
        let mut values = [value.clone()];
        self.edit.spill_values(self.table, &mut values, &[0])?;
        let [stored] = values;
        Ok(stored)
    }

    /// The overflow values that the row has in these columns.
    fn overflows(
        &self,
        found: &Found,
        rank: usize,
        columns: impl Iterator<Item = usize>,
    ) -> Attempt<Vec<OverflowRef>> {
        let page = self.edit.page(found.leaf)?;
        let leaf = LeafRef::new(&page)?;
        let values = columns.map(|column| leaf.value_at(rank, column));
        Ok(values
            .filter_map(|value| {
                if let ValueRef::Overflow(reference) = value {
                    Some(reference)
                } else {
                    None
                }
            })
            .collect())
    }
}
