//! A leaf of an earlier schema becomes one of the present schema, row by row the same keys.

use super::fill::{Cells, fill_leaf};
use super::layout::{format_leaf, layout_bytes, leaf_layout};
use super::read::LeafRef;
use crate::cell::{Cell, cell_of};
use crate::error::PageError;
use crate::evolve::{widen, widens};
use crate::page::Page;
use crate::row::{Columns, RowCursor, encode_row_from};
use crate::schema::Schema;
use crate::types::DataType;
use crate::value::Value;

/// What an upgrade record needs to know: the layout of the leaf to be, and a row with the value of each column that
/// the rows in the leaf may not have.
pub fn leaf_upgrade(schema: &Schema, capacity: u16) -> Vec<u8> {
    let initials: Vec<Value> = (0..schema.columns().len())
        .map(|column| schema.initial(column))
        .collect();
    let mut content = leaf_layout(schema, capacity);
    content.extend(encode_row_from(schema, initials.iter().map(Value::as_ref)));
    content
}

/// Where a column's cells come from.
enum Source<'c> {
    Same(usize),
    Widened {
        column: usize,
        from: DataType,
        to: DataType,
    },
    Initial(Cell<'c>),
}

struct Upgrade<'p> {
    leaf: LeafRef<'p>,
    sources: Vec<Source<'p>>,
}

impl Cells for Upgrade<'_> {
    fn cell<'c>(&'c self, column: usize, rank: usize, fixed: &'c mut [u8; 16]) -> Cell<'c> {
        let slot = self.leaf.slot(rank);
        match self.sources[column] {
            Source::Same(column) => self.leaf.cell(usize::from(slot), column),
            Source::Widened { column, from, to } => {
                cell_of(to, widen(self.leaf.value(slot, column), from, to), fixed)
            }
            Source::Initial(cell) => cell,
        }
    }
}

/// Gives a leaf the layout in `content` (from [`leaf_upgrade`]). Columns stay by their id: what the layout has not is
/// dropped, what it has in a wider type is widened, what the leaf has not gets the value in the content. The key stays
/// what it is. Deterministic; a content that does not fit leaves the page as it was.
pub fn upgrade_leaf(page: &mut Page, content: &[u8]) -> Result<(), PageError> {
    let old = LeafRef::new(page)?;
    let (layout, initials) = content.split_at(layout_bytes(content).min(content.len()));
    let mut fresh = Page::empty(page.id(), page.bytes().len());
    format_leaf(&mut fresh, page.object(), layout)?;
    let sources = {
        let new = LeafRef::new(&fresh)?;
        check_key(&old, &new)?;
        sources(&old, &new, initials)?
    };
    let upgrade = Upgrade { leaf: old, sources };
    fill_leaf(&mut fresh, old.len(), &upgrade)?;
    // Its life goes on: the record that is being applied follows the one before.
    fresh.stamp(page.origin(), page.prev_lsn());
    fresh.stamp(page.origin(), page.lsn());
    *page = fresh;
    Ok(())
}

fn sources<'c>(
    old: &LeafRef<'_>,
    new: &LeafRef<'_>,
    initials: &'c [u8],
) -> Result<Vec<Source<'c>>, PageError> {
    let row_error = |source| PageError::Row {
        page: new.page.id(),
        source,
    };
    let mut cursor = RowCursor::new(new.column_count(), initials);
    let mut sources = Vec::with_capacity(new.column_count());
    for column in 0..new.column_count() {
        let initial = cursor.next(new.column_width(column)).map_err(row_error)?;
        let (id, to) = (new.column_id(column), Columns::column_type(new, column));
        let stored = (0..old.column_count()).find(|column| old.column_id(*column) == id);
        sources.push(match stored {
            None => Source::Initial(initial),
            Some(column) => match old.column_type(column) {
                from if from == to => Source::Same(column),
                from if widens(from, to) => Source::Widened { column, from, to },
                from => {
                    return Err(PageError::Corrupt {
                        page: new.page.id(),
                        what: "type code of a column that a leaf's upgrade widens",
                        expected: from.code().into(),
                        got: to.code().into(),
                    });
                }
            },
        });
    }
    cursor.finish().map_err(row_error)?;
    Ok(sources)
}

/// The order of the rows rests on the key: same columns, same types, same directions.
fn check_key(old: &LeafRef<'_>, new: &LeafRef<'_>) -> Result<(), PageError> {
    let part = |leaf: &LeafRef<'_>, (column, descending): (usize, bool)| {
        let (id, nullable) = (leaf.column_id(column), leaf.column_nullable(column));
        (id, leaf.column_type(column), nullable, descending)
    };
    let same = old
        .key_parts()
        .map(|key| part(old, key))
        .eq(new.key_parts().map(|key| part(new, key)));
    if same {
        return Ok(());
    }
    let (expected, got) = (old.key_parts().count(), new.key_parts().count());
    Err(PageError::Corrupt {
        page: new.page.id(),
        what: "key parts that a leaf's upgrade keeps as they are",
        expected: expected as u64,
        got: got as u64,
    })
}
