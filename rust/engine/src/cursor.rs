//! Ranges: rows in key order, a leaf at a time, forward or backward.

use std::ops::{Bound, Range};
use std::sync::Arc;

use aurora_page::{InnerRef, KeyBuf, LeafRef, Lsn, Page, prefix_end};
use aurora_proto::Volume;

use crate::ahead::{LEAVES_AHEAD, leaves_after};
use crate::btree::{Fences, child_below, column_map, descend_with};
use crate::engine::Engine;
use crate::error::{Attempt, Stop};
use crate::read::merged;
use crate::readpoints::ReadPoint;
use crate::reads::{ReadRange, Reads};
use crate::row::RowView;
use crate::table::Table;
use crate::txn::{Txn, Write};

/// What a range covers, in which order, and how many rows at the most.
///
/// Bounds are keys, or the encoded values of a key's first columns: such a bound means all keys that begin so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeSpec {
    /// Where it begins in key order.
    pub low: Bound<KeyBuf>,
    /// Where it ends in key order.
    pub high: Bound<KeyBuf>,
    /// From the end to the beginning.
    pub reverse: bool,
    /// Most rows.
    pub limit: Option<usize>,
}

impl Default for RangeSpec {
    fn default() -> RangeSpec {
        RangeSpec {
            low: Bound::Unbounded,
            high: Bound::Unbounded,
            reverse: false,
            limit: None,
        }
    }
}

/// Rows that follow each other.
pub struct Block {
    rows: Rows,
    reverse: bool,
}

enum Rows {
    Leaf {
        page: Arc<Page>,
        ranks: Range<usize>,
    },
    Merged(Vec<RowView>),
}

impl Block {
    /// Rows that were read one by one, in their order.
    pub(crate) fn of_rows(rows: Vec<RowView>, reverse: bool) -> Block {
        let rows = Rows::Merged(rows);
        Block { rows, reverse }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none. Cursors give no such blocks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the rows come from the end to the beginning.
    pub fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// The leaf whose ranks these are, if it is of the table's schema and the transaction has changed none of them: columns
    /// can then be taken from it as a whole. The ranks ascend also in a reverse range.
    pub fn leaf(&self) -> Option<(&Arc<Page>, Range<usize>)> {
        match &self.rows {
            Rows::Leaf { page, ranks } => Some((page, ranks.clone())),
            Rows::Merged(_) => None,
        }
    }

    /// The keys of the rows, in the order of the range.
    pub(crate) fn keys(&self, table: &Table) -> Attempt<Vec<KeyBuf>> {
        let mut keys = match &self.rows {
            Rows::Merged(rows) => {
                let key = |row: &RowView| row_key(table, row);
                return rows.iter().map(key).collect();
            }
            Rows::Leaf { page, ranks } => {
                let leaf = LeafRef::new(page)?;
                let key = |rank| leaf.key_at(rank);
                ranks.clone().map(key).collect::<Vec<_>>()
            }
        };
        if self.reverse {
            keys.reverse();
        }
        Ok(keys)
    }

    /// The rows in the order of the range.
    pub fn rows(&self) -> Attempt<Vec<RowView>> {
        match &self.rows {
            Rows::Merged(rows) => Ok(rows.clone()),
            Rows::Leaf { page, ranks } => {
                let leaf = LeafRef::new(page)?;
                let row = |rank: usize| RowView::stored(page.clone(), leaf.slot(rank));
                Ok(if self.reverse {
                    ranks.clone().rev().map(row).collect()
                } else {
                    ranks.clone().map(row).collect()
                })
            }
        }
    }
}

/// The key of a row of a table.
fn row_key(table: &Table, row: &RowView) -> Attempt<KeyBuf> {
    let column = |column: u16| Ok(row.value(usize::from(column))?.to_owned());
    let values = table
        .key_columns()
        .map(column)
        .collect::<Attempt<Vec<_>>>()?;
    Ok(table.key(&values)?)
}

/// A place in a range. It sees what its transaction had changed when it was opened, and keeps the read point open.
pub struct Cursor {
    table: Arc<Table>,
    point: Arc<ReadPoint>,
    /// What is still to come: from `low` (included; `None` is the start) to `high` (left out; `None` is the end).
    low: Option<KeyBuf>,
    high: Option<KeyBuf>,
    reverse: bool,
    left: usize,
    done: bool,
    /// The transaction's own changes within the range, in key order.
    own: Vec<(KeyBuf, Write)>,
    /// Where to note what is read, if that is to be checked at the commit.
    reads: Option<Arc<Reads>>,
    ahead: Ahead,
}

/// Whether the leaves that come are fetched beforehand.
#[derive(Clone, Copy, Default)]
struct Ahead {
    /// A leaf was not in memory: those that follow may not be either.
    is_cold: bool,
    /// Rows of the last leaf.
    leaf_rows: usize,
}

impl Ahead {
    /// How many leaves are worth it when so many rows are wanted.
    fn leaves(&self, left: usize) -> usize {
        // Of a range that ends with its limit, what lies beyond is not wanted. Before the first leaf nothing is known of them.
        let rows = if self.leaf_rows == 0 {
            LEAF_ROWS
        } else {
            self.leaf_rows
        };
        (left / rows).min(LEAVES_AHEAD)
    }
}

/// Rows that a leaf is taken to have before one was seen.
const LEAF_ROWS: usize = 128;

impl<V: Volume> Engine<V> {
    /// Opens a range of a table.
    pub fn range(&self, txn: &Txn, table: &Arc<Table>, spec: RangeSpec) -> Attempt<Cursor> {
        txn.fix();
        self.open_range(txn, table, spec)
    }

    /// Opens a range without keeping the transaction's read point where it is.
    pub(crate) fn open_range(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        spec: RangeSpec,
    ) -> Attempt<Cursor> {
        txn.check_open("range")?;
        self.check_definition_in(txn, table)?;
        table.check_kept(txn.snapshot())?;
        let (low, empty_low) = match spec.low {
            Bound::Unbounded => (None, false),
            Bound::Included(key) => (Some(key), false),
            Bound::Excluded(key) => after(&key),
        };
        let (high, _) = match spec.high {
            Bound::Unbounded => (None, false),
            Bound::Excluded(key) => (Some(key), false),
            Bound::Included(key) => after(&key),
        };
        let crossed = matches!((&low, &high), (Some(low), Some(high)) if low >= high);
        let done = empty_low || crossed || spec.limit == Some(0);
        let own = if done {
            Vec::new()
        } else {
            txn.writes.range(table, low.as_ref(), high.as_ref())
        };
        let (reverse, left) = (spec.reverse, spec.limit.unwrap_or(usize::MAX));
        Ok(Cursor {
            table: table.clone(),
            point: txn.point.clone(),
            low,
            high,
            reverse,
            left,
            done,
            own,
            reads: txn.reads.clone(),
            ahead: Ahead::default(),
        })
    }
}

/// The end of what begins with `key`, and whether there is nothing after it.
fn after(key: &KeyBuf) -> (Option<KeyBuf>, bool) {
    let end = prefix_end(key);
    let nothing = end.is_none();
    (end, nothing)
}

/// A leaf's part of the range.
struct Piece {
    page: Arc<Page>,
    ranks: Range<usize>,
    fences: Fences,
}

impl Cursor {
    /// What it reads.
    pub fn at(&self) -> Lsn {
        self.point.at
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Whether the rows come from the end to the beginning.
    pub fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// The next rows; `None` at the end. A stop loses no place.
    pub fn next_block<V: Volume>(&mut self, engine: &Engine<V>) -> Attempt<Option<Block>> {
        while !self.done {
            let piece = self.next_piece(engine)?;
            // Everything that can stop comes before the place moves on.
            let own = self.own_within(&piece.fences);
            let is_old = piece.page.schema_version() != self.table.schema.version;
            let mut rows = if own.is_empty() && !is_old {
                Rows::Leaf {
                    page: piece.page.clone(),
                    ranks: piece.ranks.clone(),
                }
            } else {
                Rows::Merged(self.merge(&piece, &self.own[own])?)
            };
            let (low, high) = self.within(&piece.fences);
            let mut read = self.reads.is_some().then(|| ReadRange {
                table: self.table.clone(),
                low: low.cloned(),
                high: high.cloned(),
            });
            let is_cut = rows.len() > self.left;
            rows.truncate(self.left, self.reverse);
            if let (Some(read), true) = (&mut read, is_cut) {
                self.narrow(read, &rows)?;
            }
            if let (Some(reads), Some(read)) = (&self.reads, read) {
                reads.note_range(read)?;
            }
            self.left -= rows.len();
            self.advance(piece.fences);
            self.done |= self.left == 0;
            let block = Block {
                rows,
                reverse: self.reverse,
            };
            if !block.is_empty() {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// The next leaf. From the first one on that is not in memory, those behind it are fetched meanwhile.
    fn next_piece<V: Volume>(&mut self, engine: &Engine<V>) -> Attempt<Piece> {
        let piece = self.piece(engine);
        match &piece {
            Ok(piece) => self.ahead.leaf_rows = piece.ranks.len().max(1),
            Err(Stop::NeedPage { .. }) => self.ahead.is_cold = true,
            Err(_) => {}
        }
        if self.ahead.is_cold {
            self.look_ahead(engine);
        }
        piece
    }

    fn look_ahead<V: Volume>(&self, engine: &Engine<V>) {
        let count = self.ahead.leaves(self.left);
        if count == 0 {
            return;
        }
        let view = engine.view_of(&self.point);
        let choose = |inner: &InnerRef<'_>| match (self.reverse, &self.low, &self.high) {
            (false, low, _) => inner.child_for(low.as_deref().unwrap_or_default()).0,
            (true, _, Some(high)) => child_below(inner, high),
            (true, _, None) => inner.len(),
        };
        let end = if self.reverse { &self.low } else { &self.high };
        // An inner page that is missing is what the cursor waits for itself.
        if let Ok(coming) = leaves_after(
            &view,
            &self.table,
            choose,
            self.reverse,
            end.as_ref(),
            count,
        ) {
            engine.want(&self.point, coming);
        }
    }

    fn piece<V: Volume>(&self, engine: &Engine<V>) -> Attempt<Piece> {
        let view = engine.view_of(&self.point);
        let mut newest = Lsn::NONE;
        let (page, fences) = match (self.reverse, &self.low, &self.high) {
            (false, low, _) => {
                let low = low.as_deref().unwrap_or_default();
                descend_with(
                    &view,
                    &self.table,
                    |inner| inner.child_for(low).0,
                    &mut newest,
                )?
            }
            (true, _, Some(high)) => descend_with(
                &view,
                &self.table,
                |inner| child_below(inner, high),
                &mut newest,
            )?,
            (true, _, None) => descend_with(&view, &self.table, |inner| inner.len(), &mut newest)?,
        };
        self.point.note(newest);
        let leaf = LeafRef::new(&page)?;
        let start = self.low.as_deref().map_or(0, |low| leaf.lower_bound(low));
        let end = self
            .high
            .as_deref()
            .map_or(leaf.len(), |high| leaf.lower_bound(high));
        Ok(Piece {
            ranks: start..end.max(start),
            page,
            fences,
        })
    }

    /// The part of the range that the fences leave: what the leaf answers for.
    fn within<'k>(&'k self, fences: &'k Fences) -> (Option<&'k KeyBuf>, Option<&'k KeyBuf>) {
        let low = match (&self.low, &fences.lower) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.as_ref().or(b.as_ref()),
        };
        let high = match (&self.high, &fences.upper) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.as_ref().or(b.as_ref()),
        };
        (low, high)
    }

    fn own_within(&self, fences: &Fences) -> Range<usize> {
        let (low, high) = self.within(fences);
        let place = |key: &KeyBuf| self.own.partition_point(|(own, _)| own < key);
        let start = low.map_or(0, place);
        start..high.map_or(self.own.len(), place).max(start)
    }

    /// The leaf's rows with the transaction's own changes among them, in the order of the range.
    fn merge(&self, piece: &Piece, own: &[(KeyBuf, Write)]) -> Attempt<Vec<RowView>> {
        let leaf = LeafRef::new(&piece.page)?;
        let map = column_map(&self.table, &piece.page, &leaf)?.map(Arc::new);
        let stored =
            |rank: usize| RowView::mapped(piece.page.clone(), leaf.slot(rank), map.as_ref());
        let (mut rows, mut rank) = (
            Vec::with_capacity(piece.ranks.len() + own.len()),
            piece.ranks.start,
        );
        for (key, write) in own {
            let found = leaf.search(key);
            let place = found.unwrap_or_else(|place| place);
            rows.extend((rank..place.max(rank)).map(stored));
            rank = place.max(rank) + usize::from(found.is_ok());
            rows.extend(merged(&self.table, found.ok().map(stored), write)?);
        }
        rows.extend((rank..piece.ranks.end).map(stored));
        if self.reverse {
            rows.reverse();
        }
        Ok(rows)
    }

    fn advance(&mut self, fences: Fences) {
        let (next, end) = if self.reverse {
            (fences.lower, &self.low)
        } else {
            (fences.upper, &self.high)
        };
        let over = match (&next, end) {
            (None, _) => true,
            (Some(next), Some(end)) => {
                if self.reverse {
                    next <= end
                } else {
                    next >= end
                }
            }
            (Some(_), None) => false,
        };
        self.done = over;
        if !over {
            *(if self.reverse {
                &mut self.high
            } else {
                &mut self.low
            }) = next;
        }
    }

    /// A range that ends with the limit was read up to its last row.
    fn narrow(&self, read: &mut ReadRange, rows: &Rows) -> Attempt<()> {
        let last = match rows {
            Rows::Merged(rows) => rows
                .last()
                .map(|row| row_key(&self.table, row))
                .transpose()?,
            Rows::Leaf { page, ranks } => {
                let leaf = LeafRef::new(page)?;
                let last = if self.reverse {
                    ranks.clone().next()
                } else {
                    ranks.clone().next_back()
                };
                last.map(|rank| leaf.key_at(rank))
            }
        };
        match last {
            Some(last) if self.reverse => read.low = Some(last),
            Some(last) => read.high = after(&last).0,
            None => {}
        }
        Ok(())
    }
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Rows::Leaf { ranks, .. } => ranks.len(),
            Rows::Merged(rows) => rows.len(),
        }
    }

    /// Keeps to the limit.
    fn truncate(&mut self, limit: usize, reverse: bool) {
        match self {
            Rows::Merged(rows) => rows.truncate(limit),
            Rows::Leaf { ranks, .. } => {
                let kept = ranks.len().min(limit);
                *ranks = if reverse {
                    ranks.end - kept..ranks.end
                } else {
                    ranks.start..ranks.start + kept
                };
            }
        }
    }
}
