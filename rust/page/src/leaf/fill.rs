//! Filling an empty leaf column by column, where all rows are known at once.

use super::layout::{
    Descriptor, HEAP_LIVE_AT, HEAP_LOW_AT, LEN_AT, OVERFLOW_FLAG, POINTER_BYTES, Shape,
};
use super::write::check_cell;
use crate::bytes_at::{put, put_bit, put_u16, put_u32, put_u64};
use crate::cell::Cell;
use crate::error::{PageError, RowError};
use crate::page::Page;
use crate::row::RowCursor;
use crate::zone::{ZONE_EMPTY, cell_zone};

/// Gives the cell of a column at a rank; a fixed-width one may be put into the array handed in.
pub(crate) trait Cells {
    fn cell<'c>(&'c self, column: usize, rank: usize, fixed: &'c mut [u8; 16]) -> Cell<'c>;
}

/// Puts rows in key order into a leaf that was just formatted. What comes out is what appending them one by one gives,
/// except for the order of the heap. On an error the page is useless.
pub(crate) fn fill_leaf(page: &mut Page, len: usize, cells: &impl Cells) -> Result<(), PageError> {
    let shape = Shape::of(page)?;
    if shape.len != 0 || len > shape.capacity {
        let free = shape.capacity - shape.len;
        return Err(PageError::Full {
            page: page.id(),
            what: "rows",
            needed: len,
            free,
        });
    }
    let mut heap_low = page.bytes().len();
    for column in 0..shape.columns {
        let descriptor = shape.descriptor(page.bytes(), column);
        let mut filler = ColumnFiller {
            page,
            shape,
            descriptor,
            column,
            heap_low,
            zone: ZONE_EMPTY,
        };
        for rank in 0..len {
            let mut fixed = [0; 16];
            filler.put(rank, cells.cell(column, rank, &mut fixed))?;
        }
        heap_low = filler.finish();
    }
    let heap_live = page.bytes().len() - heap_low;
    let bytes = page.bytes_mut();
    for rank in 0..len {
        put_u16(bytes, shape.slot_at(rank), rank as u16);
        put_bit(bytes, shape.live_at, rank, true);
    }
    put_u16(bytes, LEN_AT, len as u16);
    put_u32(bytes, HEAP_LOW_AT, heap_low as u32);
    put_u32(bytes, HEAP_LIVE_AT, heap_live as u32);
    Ok(())
}

/// Puts encoded rows in key order into a leaf that was just formatted. On an error the page is useless.
pub fn fill_rows<'r>(
    page: &mut Page,
    rows: impl ExactSizeIterator<Item = &'r [u8]>,
) -> Result<(), PageError> {
    let shape = Shape::of(page)?;
    let id = page.id();
    let wrong = |source| PageError::Row { page: id, source };
    let widths: Vec<Option<usize>> = (0..shape.columns)
        .map(|column| shape.descriptor(page.bytes(), column).width())
        .collect();
    let len = rows.len();
    let mut cells = Vec::with_capacity(len * shape.columns);
    for row in rows {
        let mut cursor = RowCursor::new(shape.columns, row);
        for width in &widths {
            cells.push(cursor.next(*width).map_err(wrong)?);
        }
        cursor.finish().map_err(wrong)?;
    }
    let columns = shape.columns;
    fill_leaf(page, len, &EncodedRows { cells, columns })
}

/// The cells of encoded rows, row by row.
struct EncodedRows<'r> {
    cells: Vec<Cell<'r>>,
    columns: usize,
}

impl Cells for EncodedRows<'_> {
    fn cell<'c>(&'c self, column: usize, rank: usize, _: &'c mut [u8; 16]) -> Cell<'c> {
        self.cells[rank * self.columns + column]
    }
}

struct ColumnFiller<'p> {
    page: &'p mut Page,
    shape: Shape,
    descriptor: Descriptor,
    column: usize,
    heap_low: usize,
    zone: (u64, u64),
}

impl ColumnFiller<'_> {
    fn put(&mut self, slot: usize, cell: Cell<'_>) -> Result<(), PageError> {
        let Descriptor {
            code,
            nullable,
            values_at,
            nulls_at,
            ..
        } = self.descriptor;
        check_cell(cell, self.column, code, nullable).map_err(|source| self.row_error(source))?;
        match cell {
            Cell::Null => put_bit(self.page.bytes_mut(), nulls_at, slot, true),
            Cell::Fixed(value) => put(self.page.bytes_mut(), values_at + slot * value.len(), value),
            Cell::Var(value) => self.put_var(slot, value, 0)?,
            Cell::Overflow(reference) => self.put_var(slot, reference, OVERFLOW_FLAG)?,
        }
        if let Some((low, high)) = cell_zone(code, cell) {
            self.zone = (self.zone.0.min(low), self.zone.1.max(high));
        }
        Ok(())
    }

    fn put_var(&mut self, slot: usize, value: &[u8], flag: u16) -> Result<(), PageError> {
        if value.is_empty() {
            return Ok(());
        }
        let free = self.heap_low - self.shape.heap_start;
        if value.len() > free {
            return Err(PageError::Full {
                page: self.page.id(),
                what: "bytes",
                needed: value.len(),
                free,
            });
        }
        self.heap_low -= value.len();
        let (offset, at) = (
            self.heap_low,
            self.descriptor.values_at + slot * POINTER_BYTES,
        );
        let bytes = self.page.bytes_mut();
        put(bytes, offset, value);
        put_u16(bytes, at, offset as u16);
        put_u16(bytes, at + 2, value.len() as u16 | flag);
        Ok(())
    }

    fn finish(self) -> usize {
        let at = self.shape.zone_at(self.column);
        put_u64(self.page.bytes_mut(), at, self.zone.0);
        put_u64(self.page.bytes_mut(), at + 8, self.zone.1);
        self.heap_low
    }

    fn row_error(&self, source: RowError) -> PageError {
        PageError::Row {
            page: self.page.id(),
            source,
        }
    }
}
