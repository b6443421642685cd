//! Rows that a transaction locks before it reads them: one, or a range as it is walked through.

use std::collections::VecDeque;
use std::sync::Arc;

use aurora_page::planted::{self, Fault};
use aurora_page::{KeyBuf, LeafRef, Lsn};
use aurora_proto::Volume;

use crate::btree::descend;
use crate::conflicts::{Verdict, key_hash};
use crate::cursor::{Cursor, RangeSpec};
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::locks::{LockName, LockWaiting, Taken};
use crate::read::merged;
use crate::row::RowView;
use crate::table::Table;
use crate::txn::{Isolation, Txn, Write};

impl<V: Volume> Engine<V> {
    /// Begins an operation: at READ COMMITTED it reads what is newest now. To be called once an operation, and not once a
    /// try of it.
    pub fn begin_statement(&self, txn: &mut Txn) {
        if txn.isolation == Isolation::ReadCommitted {
            self.renew(txn);
        }
    }

    /// The row with this key, locked for the transaction, present or not; `None` too if another transaction has locked it
    /// and the caller skips such rows.
    pub fn get_for_update(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        key: &[u8],
        waiting: LockWaiting,
    ) -> Attempt<Option<RowView>> {
        self.prepare(txn, table, "get for update")?;
        if self.lock(txn, table, key, waiting)? == Taken::Skipped {
            return Ok(None);
        }
        self.current(txn, table, key)
    }

    /// Locks a key, whether there is a row or not. The first lock of a transaction that has read nothing yet moves its read
    /// point behind whatever it had to wait for.
    pub(crate) fn lock(
        &self,
        txn: &mut Txn,
        table: &Table,
        key: &[u8],
        waiting: LockWaiting,
    ) -> Attempt<Taken> {
        let name = || LockName {
            table: table.name.clone(),
            key: table.show_key(key),
        };
        let taken = txn.locks.take(key_hash(table.id, key), waiting, name)?;
        if taken == Taken::Now && txn.reads_newest() {
            self.renew(txn);
        }
        Ok(taken)
    }

    /// Moves the read point to the newest state.
    pub(crate) fn renew(&self, txn: &mut Txn) {
        let newest = || {
            if txn.writable {
                self.published()
            } else {
                self.readable()
            }
        };
        if newest() > txn.point.at {
            txn.point = self.points.reopen(&txn.point, newest);
        }
    }

    /// A row whose lock the transaction has, with its own changes.
    pub(crate) fn current(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        key: &[u8],
    ) -> Attempt<Option<RowView>> {
        match txn.writes.get(table, key) {
            None => self.locked_row(txn, table, key),
            Some(write) => {
                let base = match write {
                    Write::Update { .. } => self.look_up(txn, table, key)?,
                    _ => None,
                };
                merged(table, base, write)
            }
        }
    }

    /// A row whose lock the transaction has, without its own changes: as it is at the newest state, which must be what it is
    /// at the transaction's snapshot. Nobody else can change it from here on.
    pub(crate) fn locked_row(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        key: &[u8],
    ) -> Attempt<Option<RowView>> {
        if txn.reads_newest() {
            let row = self.look_up(txn, table, key)?;
            txn.fix();
            return Ok(row);
        }
        let mut newest = Lsn::NONE;
        let page = descend(&self.view(self.published()), table, key, &mut newest)?;
        if newest > txn.snapshot() {
            self.check_unchanged(txn, table, key, newest)?;
            return self.look_up(txn, table, key);
        }
        txn.point.note(newest);
        let leaf = LeafRef::new(&page)?;
        let found = leaf.search(key).ok().map(|rank| leaf.slot(rank));
        found.map(|slot| RowView::of(table, page, slot)).transpose()
    }

    /// First committer wins: nobody may have changed the row since the snapshot.
    fn check_unchanged(&self, txn: &Txn, table: &Table, key: &[u8], newest: Lsn) -> Attempt<()> {
        let snapshot = txn.snapshot();
        let committing = self.committing.lock();
        let conflicts = &committing.conflicts;
        let changed = match conflicts.load_since(table.id, snapshot) {
            Some(by) => Verdict::Changed(by),
            None => conflicts.since(key_hash(table.id, key), snapshot),
        };
        match changed {
            Verdict::Unchanged => Ok(()),
            _ if planted::is(Fault::FirstCommitterIgnored) => Ok(()),
            Verdict::Changed(by) => {
                txn.point.note(newest);
                Err(EngineError::WriteConflict {
                    table: table.name.clone(),
                    key: table.show_key(key),
                    snapshot,
                    by,
                }
                .into())
            }
            Verdict::Unknown(_) if planted::is(Fault::ConflictFloorIgnored) => Ok(()),
            Verdict::Unknown(floor) => Err(EngineError::SnapshotTooOld { snapshot, floor }.into()),
        }
    }
}

/// A place in a range whose rows are locked as they are asked for.
///
/// Which rows there are is read first, then each is locked, and read as it is then: one that was deleted meanwhile is left
/// out. The limit counts rows that are given, not those that are skipped.
pub struct LockingCursor {
    table: Arc<Table>,
    spec: RangeSpec,
    waiting: LockWaiting,
    left: usize,
    /// Rows still to come from the present leaf, as they were when it was read.
    rows: VecDeque<(KeyBuf, RowView)>,
    cursor: Option<Cursor>,
}

impl LockingCursor {
    /// A cursor before the first row.
    pub fn new(table: Arc<Table>, spec: RangeSpec, waiting: LockWaiting) -> LockingCursor {
        LockingCursor {
            table,
            waiting,
            left: spec.limit.unwrap_or(usize::MAX),
            spec: RangeSpec {
                limit: None,
                ..spec
            },
            rows: VecDeque::new(),
            cursor: None,
        }
    }

    /// The next row, locked; `None` at the end. A stop loses no place.
    pub fn next<V: Volume>(
        &mut self,
        engine: &Engine<V>,
        txn: &mut Txn,
    ) -> Attempt<Option<RowView>> {
        self.next_if(engine, txn, &mut |_, _| Ok(true))
    }

    /// The next row that is wanted, locked; `None` at the end. Rows are asked about twice, each time with where they were
    /// read: before they are locked, so that others stay free, and as they are then. A stop or an error loses no place.
    pub fn next_if<V: Volume, E: From<Stop>>(
        &mut self,
        engine: &Engine<V>,
        txn: &mut Txn,
        wanted: &mut dyn FnMut(&RowView, Lsn) -> Result<bool, E>,
    ) -> Result<Option<RowView>, E> {
        engine.prepare(txn, &self.table, "range for update")?;
        while self.left > 0 && self.fill(engine, txn)? {
            let Some((key, seen)) = self.rows.front() else {
                break;
            };
            let read_at = self.cursor.as_ref().map(Cursor::at);
            if !wanted(seen, read_at.unwrap_or(txn.snapshot()))? {
                self.rows.pop_front();
                continue;
            }
            let taken = engine.lock(txn, &self.table, key, self.waiting)?;
            if txn.is_unread() && read_at != Some(txn.snapshot()) {
                // The read point has moved behind this lock: the range is read again there, from its start. The lock stays,
                // so this ends.
                self.cursor = None;
                self.rows.clear();
                continue;
            }
            let row = match taken {
                Taken::Skipped => None,
                Taken::Now | Taken::Before => engine.current(txn, &self.table, key)?,
            };
            let is_given = match &row {
                Some(row) => wanted(row, txn.snapshot())?,
                None => false,
            };
            self.rows.pop_front();
            if is_given {
                self.left -= 1;
                return Ok(row);
            }
        }
        txn.fix();
        Ok(None)
    }

    /// Sees to it that a row is there; false at the end of the range.
    fn fill<V: Volume>(&mut self, engine: &Engine<V>, txn: &Txn) -> Attempt<bool> {
        while self.rows.is_empty() {
            let cursor = match &mut self.cursor {
                Some(cursor) => cursor,
                place => {
                    let spec = self.spec.clone();
                    place.insert(engine.open_range(txn, &self.table, spec)?)
                }
            };
            match cursor.next_block(engine)? {
                Some(block) => {
                    let keys = block.keys(&self.table)?;
                    self.rows = keys.into_iter().zip(block.rows()?).collect();
                }
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
