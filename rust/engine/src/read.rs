//! Point reads.

use std::sync::Arc;

use aurora_page::{KeyBuf, LeafRef, Lsn, OverflowRef, Value, decode_row};
use aurora_proto::Volume;

use crate::btree::descend;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::overflow::OverflowReader;
use crate::row::RowView;
use crate::table::Table;
use crate::txn::{Row, Txn, Write};

impl<V: Volume> Engine<V> {
    /// The row with this key, as the transaction sees it: its own changes included.
    #[inline]
    pub fn get(&self, txn: &Txn, table: &Arc<Table>, key: &[u8]) -> Attempt<Option<RowView>> {
        txn.check_open("get")?;
        self.check_definition_in(txn, table)?;
        txn.fix();
        match txn.writes.get(table, key) {
            None => self.stored(txn, table, key),
            Some(write) => {
                let base = match write {
                    Write::Update { .. } => self.stored(txn, table, key)?,
                    _ => None,
                };
                merged(table, base, write)
            }
        }
    }

    /// The row with this key as it is durable now [15], for one look-up outside of transactions.
    ///
    /// No read point is opened, which is most of what a short transaction costs; so nothing keeps the version that a
    /// [`Stop`] would ask for. Whoever is stopped begins a transaction instead of serving the stop.
    #[inline]
    pub fn get_readable(&self, table: &Table, key: &[u8]) -> Attempt<Option<RowView>> {
        let view = self.view(self.readable());
        self.check_definition(table, view.at)?;
        let page = descend(&view, table, key, &mut Lsn::default())?;
        let leaf = LeafRef::new(&page)?;
        let found = leaf.search(key).ok().map(|rank| leaf.slot(rank));
        found.map(|slot| RowView::of(table, page, slot)).transpose()
    }

    /// The rows with these keys, in their order.
    pub fn get_many(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        keys: &[KeyBuf],
    ) -> Attempt<Vec<Option<RowView>>> {
        txn.check_open("get_many")?;
        self.check_definition_in(txn, table)?;
        txn.fix();
        if let Some(reads) = &txn.reads {
            keys.iter().try_for_each(|key| reads.note_key(table, key))?;
        }
        if !txn.writes.is_empty() {
            return keys.iter().map(|key| self.get(txn, table, key)).collect();
        }
        // In rounds, each a short loop over all keys: what a round waits for from memory, it waits for all at once.
        let view = self.view_of(&txn.point);
        let mut newest = Lsn::NONE;
        let pages = keys
            .iter()
            .map(|key| descend(&view, table, key, &mut newest))
            .collect::<Attempt<Vec<_>>>()?;
        txn.point.note(newest);
        let leaves = pages
            .iter()
            .map(|page| LeafRef::new(page))
            .collect::<Result<Vec<_>, _>>()?;
        let slots: Vec<Option<u16>> = leaves
            .iter()
            .zip(keys)
            .map(|(leaf, key)| leaf.search(key).ok().map(|rank| leaf.slot(rank)))
            .collect();
        let warmed = leaves.iter().zip(&slots).filter_map(|(leaf, slot)| {
            let columns = 0..leaf.column_count();
            slot.map(|slot| columns.map(|column| leaf.warm(slot, column)).sum::<usize>())
        });
        std::hint::black_box(warmed.sum::<usize>());
        drop(leaves);
        let rows = pages.into_iter().zip(slots);
        rows.map(|(page, slot)| slot.map(|slot| RowView::of(table, page, slot)).transpose())
            .collect()
    }

    /// The row as it is at the transaction's snapshot, which counts as having read it.
    #[inline]
    fn stored(&self, txn: &Txn, table: &Arc<Table>, key: &[u8]) -> Attempt<Option<RowView>> {
        if let Some(reads) = &txn.reads {
            reads.note_key(table, key)?;
        }
        self.look_up(txn, table, key)
    }

    /// The row as it is at the transaction's snapshot.
    #[inline]
    pub(crate) fn look_up(&self, txn: &Txn, table: &Table, key: &[u8]) -> Attempt<Option<RowView>> {
        let view = self.view_of(&txn.point);
        let mut newest = Lsn::NONE;
        let page = descend(&view, table, key, &mut newest)?;
        txn.point.note(newest);
        let leaf = LeafRef::new(&page)?;
        match leaf.search(key) {
            Ok(rank) => {
                let slot = leaf.slot(rank);
                RowView::of(table, page, slot).map(Some)
            }
            Err(_) => Ok(None),
        }
    }

    /// A value from its overflow pages, as of a read point at which a row refers to it. Starts anew at each call: for
    /// values that may be longer than the cache is large, keep an [`OverflowReader`].
    pub fn read_overflow(&self, at: Lsn, reference: OverflowRef) -> Attempt<Vec<u8>> {
        self.read_overflow_on(&mut OverflowReader::new(reference, at))
    }

    /// Goes on reading a value from its overflow pages.
    pub fn read_overflow_on(&self, reader: &mut OverflowReader) -> Attempt<Vec<u8>> {
        reader.read(&self.pool, self.volume.vdl())
    }
}

/// What a change makes of the stored row.
pub(crate) fn merged(
    table: &Table,
    base: Option<RowView>,
    write: &Write,
) -> Attempt<Option<RowView>> {
    match write {
        Write::Delete => Ok(None),
        Write::Put { row, .. } => Ok(Some(RowView::own(row_values(table, row)?))),
        Write::Update { changes, .. } => {
            let Some(base) = base else { return Ok(None) };
            let mut values = base.values()?;
            for (column, value) in changes {
                values[usize::from(*column)] = value.clone();
            }
            Ok(Some(RowView::own(values)))
        }
    }
}

/// The values of a row in a write buffer.
pub(crate) fn row_values(table: &Table, row: &Row) -> Attempt<Vec<Value>> {
    match row {
        Row::Spilled { values, .. } => Ok(values.clone()),
        Row::Inline(bytes) => decode_row(&table.schema, bytes).map_err(|source| {
            let page = Default::default();
            Stop::Failed(EngineError::Page(aurora_page::PageError::Row {
                page,
                source,
            }))
        }),
    }
}
