//! How rows are laid out in leaves: capacities measured from the rows, and where to divide them.

use aurora_page::{
    Page, PageError, Schema, leaf_capacity, leaf_heap_bytes, leaf_layout, row_heap_bytes,
    row_heap_max,
};
use aurora_redo::Op;

use crate::error::{Attempt, EngineError, Stop};
use crate::table::Table;

/// Bytes of each text, bytes or json value that a new table is expected to have.
const VAR_BYTES_EXPECTED: usize = 16;

/// Encoded rows in key order, with the bytes that each needs in a leaf's heap.
pub(crate) struct Rows {
    pub rows: Vec<Vec<u8>>,
    heap: Vec<usize>,
}

impl Rows {
    /// The rows of a leaf, or any others.
    pub fn new(schema: &Schema, rows: Vec<Vec<u8>>) -> Attempt<Rows> {
        let heap = rows.iter().map(|row| row_heap_bytes(schema, row));
        let heap = heap.collect::<Result<_, _>>().map_err(damaged_row)?;
        Ok(Rows { rows, heap })
    }

    /// A layout for `range` of the rows, with as much spare room as their mean size leaves; `None` if they are too
    /// many for one leaf.
    pub fn layout(
        &self,
        table: &Table,
        range: std::ops::Range<usize>,
        page_bytes: usize,
    ) -> Attempt<Option<Vec<u8>>> {
        let (count, heap) = (range.len(), self.heap[range].iter().sum::<usize>());
        let mean = heap.div_ceil(count.max(1));
        let capacity = leaf_capacity(&table.schema, page_bytes, mean)
            .map_err(|_| too_wide(table, page_bytes))?;
        if usize::from(capacity) >= count {
            return Ok(Some(leaf_layout(&table.schema, capacity)));
        }
        // The mean was rounded up: exactly these rows may still fit, with nothing to spare.
        let Ok(exact) = u16::try_from(count) else {
            return Ok(None);
        };
        let fits = heap > 0
            && leaf_heap_bytes(&table.schema, exact, page_bytes)
                >= heap.max(2 * row_heap_max(page_bytes));
        Ok(fits.then(|| leaf_layout(&table.schema, exact)))
    }

    /// Where to divide `range` so that both sides weigh about the same; both get at least one row.
    pub fn middle(&self, range: std::ops::Range<usize>) -> usize {
        let heap: usize = self.heap[range.clone()].iter().sum();
        let fixed = (heap / range.len().max(1)).max(16);
        let total = heap + fixed * range.len();
        let mut weight = 0;
        for at in range.clone() {
            weight += self.heap[at] + fixed;
            if weight * 2 >= total {
                return (at + 1).clamp(range.start + 1, range.end - 1);
            }
        }
        range.end - 1
    }
}

fn too_wide(table: &Table, page_bytes: usize) -> Stop {
    let columns = table.schema.columns().len();
    EngineError::SchemaTooWide {
        table: table.name.clone(),
        page_bytes,
        columns,
    }
    .into()
}

fn damaged_row(source: aurora_page::RowError) -> Stop {
    Stop::Failed(EngineError::Page(PageError::Row {
        page: Default::default(),
        source,
    }))
}

/// The layout of a table's first leaf, before anything is known of its rows.
pub(crate) fn first_layout(table: &Table, page_bytes: usize) -> Attempt<Vec<u8>> {
    let var = table
        .schema
        .columns()
        .iter()
        .filter(|column| column.data_type.fixed_width().is_none())
        .count();
    let capacity = leaf_capacity(&table.schema, page_bytes, var * VAR_BYTES_EXPECTED)
        .map_err(|_| too_wide(table, page_bytes))?;
    Ok(leaf_layout(&table.schema, capacity))
}

/// The record that starts the life of a leaf of this table.
pub(crate) fn format_op<'a>(table: &Table, layout: &'a [u8]) -> Op<'a> {
    // A leaf that moves is not upgraded on the way: its layout says of which version it is.
    let version = layout.first_chunk().copied();
    Op::FormatLeaf {
        object: table.id,
        schema_version: version.map_or(table.schema.version, u32::from_le_bytes),
        layout,
    }
}

/// Whether the page is a leaf of no rows.
pub(crate) fn is_empty_leaf(page: &Page) -> bool {
    aurora_page::LeafRef::new(page).is_ok_and(|leaf| leaf.is_empty())
}
