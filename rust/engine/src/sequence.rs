//! Auto-increment columns: numbers that are never given twice.
//!
//! Numbers are reserved a range at a time: a small MTR moves the first free number in `aurora.sequences`, and nothing of
//! the range is given before that is durable. What is left of a range when the engine ends is never given: gaps are
//! allowed. A row that brings its own number moves the next one past it.

use aurora_page::{LeafRef, Lsn, ObjectId, Value, ValueRef, encode_changes, encode_row};
use aurora_proto::Volume;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::btree::Pages;
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::table::Table;

/// Numbers that one MTR reserves.
const RANGE: i64 = 1000;

/// The column of `aurora.sequences` that holds the first free number.
const NEXT: usize = 1;

/// Numbers that are reserved and not given yet, by table.
pub(crate) type Sequences = Mutex<FxHashMap<ObjectId, Range>>;

#[derive(Clone, Copy)]
pub(crate) struct Range {
    next: i64,
    /// The first number after the range.
    end: i64,
    /// The range may be used once this is durable.
    reserved: Lsn,
}

impl<V: Volume> Engine<V> {
    /// Numbers a row: a null in the table's auto-increment column becomes the next number, another value moves the next
    /// number past it. Each attempt that comes to its end takes a number.
    pub fn number_row(&self, table: &Table, row: &mut [Value], now_us: i64) -> Attempt<()> {
        let Some(auto) = table.auto else {
            return Ok(());
        };
        let column = &table.schema.columns()[usize::from(auto)];
        let last = column
            .data_type
            .int_range()
            .map_or(i64::MAX, |(_, max)| max);
        match row.get(usize::from(auto)) {
            Some(Value::Null) => {
                let number = self.next_number(table.id, now_us)?;
                let number = number.filter(|number| *number <= last);
                row[usize::from(auto)] =
                    Value::Int(number.ok_or_else(|| EngineError::AutoIncrementEnd {
                        table: table.name.clone(),
                        column: column.name.clone(),
                        last,
                    })?);
                Ok(())
            }
            Some(Value::Int(number)) => self.pass_number(table.id, *number, now_us),
            _ => Ok(()),
        }
    }

    /// The next number; `None` if there is none.
    fn next_number(&self, id: ObjectId, now_us: i64) -> Attempt<Option<i64>> {
        loop {
            if let Some(range) = self.sequences.lock().get_mut(&id) {
                if range.next < range.end {
                    if self.volume.vdl() < range.reserved {
                        return Err(Stop::WaitLsn(range.reserved));
                    }
                    range.next += 1;
                    return Ok(Some(range.next - 1));
                }
                if range.end == i64::MAX {
                    return Ok(None);
                }
            }
            self.reserve(id, 1, now_us)?;
        }
    }

    /// A row has this number.
    pub(crate) fn pass_number(&self, id: ObjectId, number: i64, now_us: i64) -> Attempt<()> {
        let after = number.saturating_add(1);
        let known = self.sequences.lock().get(&id).copied();
        match known {
            Some(range) if after <= range.next => return Ok(()),
            Some(range) if after <= range.end => {}
            _ => self.reserve(id, after, now_us)?,
        }
        if let Some(range) = self.sequences.lock().get_mut(&id) {
            range.next = range.next.max(after.min(range.end));
        }
        Ok(())
    }

    /// Reserves a range of numbers from `least` on.
    fn reserve(&self, id: ObjectId, least: i64, now_us: i64) -> Attempt<()> {
        let reserve = |edit: &mut Edit<'_>, _: &_| {
            let next = edit.sequence(id)?.unwrap_or(1).max(least);
            let end = next.saturating_add(RANGE);
            edit.set_sequence(id, end)?;
            Ok((next, end))
        };
        let note = |_: &mut _, reserved: Lsn, (next, end): &(i64, i64)| {
            let range = Range {
                next: *next,
                end: *end,
                reserved,
            };
            self.sequences.lock().insert(id, range);
        };
        self.mutate_system(now_us, reserve, note)?;
        Ok(())
    }
}

impl Edit<'_> {
    fn sequence(&self, id: ObjectId) -> Attempt<Option<i64>> {
        let table = self.system.sequences.clone();
        let found = self.find(&table, &key_of(&table, id)?)?;
        let Ok(rank) = found.rank else {
            return Ok(None);
        };
        let page = self.page(found.leaf)?;
        Ok(match LeafRef::new(&page)?.value_at(rank, NEXT) {
            ValueRef::Int(next) => Some(next),
            _ => None,
        })
    }

    fn set_sequence(&mut self, id: ObjectId, next: i64) -> Attempt<()> {
        let table = self.system.sequences.clone();
        let key = key_of(&table, id)?;
        let found = self.find(&table, &key)?;
        match found.rank {
            Ok(rank) => {
                let changes = encode_changes(&table.schema, &[(NEXT as u16, Value::Int(next))]);
                self.update_at(&table, &key, &found, rank, &changes)
            }
            Err(rank) => {
                let row = [Value::Int(id.0 as i64), Value::Int(next)];
                let row = encode_row(&table.schema, &row);
                self.insert_at(&table, &key, &found, rank, &row)
            }
        }
    }

    /// The table is dropped.
    pub fn forget_sequence(&mut self, id: ObjectId) -> Attempt<()> {
        let table = self.system.sequences.clone();
        let found = self.find(&table, &key_of(&table, id)?)?;
        match found.rank {
            Ok(rank) => self.delete_at(&table, &found, rank),
            Err(_) => Ok(()),
        }
    }
}

fn key_of(table: &Table, id: ObjectId) -> Result<aurora_page::KeyBuf, EngineError> {
    table.key(&[Value::Int(id.0 as i64)])
}
