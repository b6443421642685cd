//! Reading by an index: entries in their order, and the rows that they lead to.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use aurora_page::{KeyBuf, LeafRef, Page, Value};
use aurora_proto::Volume;

use crate::cursor::{Block, Cursor, RangeSpec};
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::follow::readable;
use crate::index::Index;
use crate::row::RowView;
use crate::table::Table;
use crate::txn::Txn;

/// Rows that are looked up in one round.
const ROUND: usize = 64;

/// A place in a range of an index. It sees the transaction's changes of when it was opened; a row that the transaction
/// has changed since is left out if it has left its place in the index.
pub struct IndexCursor {
    table: Arc<Table>,
    index: Arc<Index>,
    entries: Cursor,
    /// Entries that were read, and whose rows were not.
    pending: Pending,
    /// The next rows' keys, with those of their entries.
    round: Vec<(KeyBuf, KeyBuf)>,
    left: usize,
}

enum Pending {
    Leaf {
        page: Arc<Page>,
        ranks: std::ops::Range<usize>,
    },
    Rows(VecDeque<RowView>),
}

impl<V: Volume> Engine<V> {
    /// The index of this name as the transaction's snapshot has it.
    pub fn index_at(&self, txn: &Txn, table: &Arc<Table>, name: &str) -> Attempt<Arc<Index>> {
        let seen = self.table_in(txn, &table.name)?;
        let seen = seen.filter(|seen| seen.id == table.id);
        let found = seen.as_ref().and_then(|seen| seen.index(name));
        match (found, &seen) {
            (Some(index), Some(seen)) if seen.since == table.since => Ok(index.clone()),
            // The same index of a table whose columns have other places by now.
            (Some(index), _) => Ok(Arc::new(Index::resolve(table, &index.def)?)),
            (None, _) => Err(EngineError::UnknownIndex {
                table: table.name.clone(),
                index: name.to_owned(),
                at: txn.snapshot(),
                got: "none",
            }
            .into()),
        }
    }

    /// Opens a range of an index. Bounds are encoded values of the index's first columns.
    pub fn index_range(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        index: &Arc<Index>,
        spec: RangeSpec,
    ) -> Attempt<IndexCursor> {
        self.check_readable(txn, table, index)?;
        let left = spec.limit.unwrap_or(usize::MAX);
        let spec = RangeSpec {
            // A row that is left out does not count.
            limit: if left == 0 { Some(0) } else { None },
            ..spec
        };
        Ok(IndexCursor {
            table: table.clone(),
            index: index.clone(),
            entries: self.range(txn, &index.tree, spec)?,
            pending: Pending::Rows(VecDeque::new()),
            round: Vec::new(),
            left,
        })
    }

    /// The row that has these values in a unique index. `prefix` is the encoded values of all its columns.
    pub fn index_get(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        index: &Arc<Index>,
        prefix: &KeyBuf,
    ) -> Attempt<Option<RowView>> {
        if !index.def.unique {
            return Err(EngineError::IndexNotUnique {
                table: table.name.clone(),
                index: index.name().to_owned(),
            }
            .into());
        }
        let spec = RangeSpec {
            low: Bound::Included(prefix.clone()),
            high: Bound::Included(prefix.clone()),
            reverse: false,
            limit: Some(1),
        };
        let mut cursor = self.index_range(txn, table, index, spec)?;
        Ok(cursor
            .next_rows(self, txn)?
            .and_then(|rows| rows.into_iter().next()))
    }

    /// The index has every row that the transaction sees.
    fn check_readable(&self, txn: &Txn, table: &Table, index: &Index) -> Attempt<()> {
        txn.check_open("index")?;
        // Changes made before the index was there, or after it was dropped, have left no entries in the buffer.
        let unseen = txn.writes.lack_entries(table.id, index.tree.id);
        if readable(index, txn.snapshot()) && !unseen {
            return Ok(());
        }
        Err(EngineError::UnknownIndex {
            table: table.name.clone(),
            index: index.name().to_owned(),
            at: txn.snapshot(),
            got: match index.is_ready() {
                true if readable(index, txn.snapshot()) => {
                    "one that came or went between the transaction's changes"
                }
                true => "one that became so later",
                false => "one that is being built",
            },
        }
        .into())
    }
}

impl IndexCursor {
    /// The next rows as a block, as [`Cursor::next_block`] gives them; `None` at the end.
    pub fn next_block<V: Volume>(
        &mut self,
        engine: &Engine<V>,
        txn: &Txn,
    ) -> Attempt<Option<Block>> {
        let rows = self.next_rows(engine, txn)?;
        Ok(rows.map(|rows| Block::of_rows(rows, self.entries.is_reverse())))
    }

    /// The next rows; `None` at the end. A stop loses no place.
    pub fn next_rows<V: Volume>(
        &mut self,
        engine: &Engine<V>,
        txn: &Txn,
    ) -> Attempt<Option<Vec<RowView>>> {
        while self.left > 0 {
            self.fill(engine)?;
            if self.round.is_empty() {
                return Ok(None);
            }
            let keys: Vec<KeyBuf> = self.round.iter().map(|(key, _)| key.clone()).collect();
            let found = engine.get_many(txn, &self.table, &keys);
            if let Err(Stop::NeedPage { .. }) = &found {
                // The rows of a round lie anywhere: they are all fetched at one time.
                engine.want_rows(&txn.point, &self.table, &keys);
            }
            let found = found?;
            let mut rows = Vec::with_capacity(found.len());
            for (row, (_, entry)) in found.into_iter().zip(&self.round) {
                rows.extend(self.check(engine, txn, row, entry)?);
            }
            self.round.clear();
            if !rows.is_empty() {
                self.left -= rows.len();
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    /// The row, if it is still where the entry says.
    fn check<V: Volume>(
        &self,
        engine: &Engine<V>,
        txn: &Txn,
        row: Option<RowView>,
        entry: &KeyBuf,
    ) -> Attempt<Option<RowView>> {
        // At READ COMMITTED rows can be read at a later moment than the entries were.
        let moved = !txn.writes.is_empty() || txn.snapshot() != self.entries.at();
        match row {
            Some(row) if !moved => Ok(Some(row)),
            Some(row) => {
                let now = engine.entry_of(txn, &self.table, &self.index, &row)?;
                Ok((now.key == *entry).then_some(row))
            }
            None if moved => Ok(None),
            None => {
                let expected = format!(
                    "the row of entry {} of index {:?}",
                    self.index.tree.show_key(entry),
                    self.index.tree.name
                );
                Err(EngineError::corrupt(self.table.root, txn.snapshot(), expected, "none").into())
            }
        }
    }

    /// Takes the keys of the next rows from the entries.
    fn fill<V: Volume>(&mut self, engine: &Engine<V>) -> Attempt<()> {
        while self.round.is_empty() {
            if self.pending.is_empty() {
                let Some(block) = self.entries.next_block(engine)? else {
                    return Ok(());
                };
                self.pending = match block.leaf() {
                    Some((page, ranks)) => Pending::Leaf {
                        page: page.clone(),
                        ranks,
                    },
                    None => Pending::Rows(block.rows()?.into()),
                };
            }
            self.take_round()?;
        }
        Ok(())
    }

    fn take_round(&mut self) -> Attempt<()> {
        let count = ROUND.min(self.left);
        let (table, index, reverse) = (&self.table, &self.index, self.entries.is_reverse());
        let mut round = Vec::with_capacity(count);
        match &mut self.pending {
            Pending::Leaf { page, ranks } => {
                let leaf = LeafRef::new(page)?;
                while round.len() < count {
                    let next = if reverse {
                        ranks.next_back()
                    } else {
                        ranks.next()
                    };
                    let Some(rank) = next else { break };
                    let values: Vec<Value> = index
                        .key_columns()
                        .iter()
                        .map(|column| leaf.value_at(rank, *column).to_owned())
                        .collect();
                    round.push((table.key(&values)?, leaf.key_at(rank)));
                }
            }
            Pending::Rows(rows) => {
                while round.len() < count {
                    let Some(row) = rows.pop_front() else { break };
                    let values = row.values()?;
                    round.push((index.row_key(table, &values)?, index.tree.key_of(&values)?));
                }
            }
        }
        self.round = round;
        Ok(())
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        match self {
            Pending::Leaf { ranks, .. } => ranks.is_empty(),
            Pending::Rows(rows) => rows.is_empty(),
        }
    }
}
