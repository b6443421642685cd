//! Changing a leaf. What is asked is checked in full before the first byte is written.

use super::layout::{
    Descriptor, HEAP_LIVE_AT, HEAP_LOW_AT, LEN_AT, OVERFLOW_FLAG, POINTER_BYTES, Shape, reset_zone,
};
use super::read::LeafRef;
use crate::bytes_at::{put, put_bit, put_u16, put_u32, put_u64, slice_at, u16_at};
use crate::cell::Cell;
use crate::error::{PageError, RowError};
use crate::page::Page;
use crate::row::{RowCursor, read_changes};
use crate::zone::cell_zone;

/// Changes a leaf in place. Deterministic: a new row takes the lowest free slot, and the heap is compacted in key order,
/// when the free middle is too small.
pub struct LeafMut<'a> {
    pub(super) page: &'a mut Page,
    pub(super) shape: Shape,
}

impl<'a> LeafMut<'a> {
    /// Takes a page as a leaf.
    pub fn new(page: &'a mut Page) -> Result<LeafMut<'a>, PageError> {
        let leaf = LeafMut {
            shape: Shape::of(page)?,
            page,
        };
        leaf.check_heap()?;
        Ok(leaf)
    }

    /// Writing relies on the heap's ends where reading does not.
    fn check_heap(&self) -> Result<(), PageError> {
        let (leaf, page_bytes) = (self.view(), self.page.bytes().len());
        let wrong = |what, expected: usize, got: usize| {
            let (expected, got) = (expected as u64, got as u64);
            Err(PageError::Corrupt {
                page: self.page.id(),
                what,
                expected,
                got,
            })
        };
        if leaf.heap_low() < self.shape.heap_start {
            return wrong(
                "low end of a leaf's heap, at least",
                self.shape.heap_start,
                leaf.heap_low(),
            );
        }
        if leaf.heap_low() > page_bytes {
            return wrong(
                "low end of a leaf's heap, at most",
                page_bytes,
                leaf.heap_low(),
            );
        }
        if leaf.heap_live() > page_bytes - leaf.heap_low() {
            return wrong(
                "live bytes of a leaf's heap, at most",
                page_bytes - leaf.heap_low(),
                leaf.heap_live(),
            );
        }
        Ok(())
    }

    /// The leaf as it is now.
    #[inline]
    pub fn view(&self) -> LeafRef<'_> {
        LeafRef {
            page: self.page,
            bytes: self.page.bytes(),
            shape: self.shape,
        }
    }

    /// Inserts an encoded row at a rank; the rows from there on move up by one rank.
    pub fn insert(&mut self, rank: usize, row: &[u8]) -> Result<(), PageError> {
        if rank > self.shape.len {
            return Err(self.out_of_range(rank, self.shape.len));
        }
        let needed = self
            .check_row(row)
            .map_err(|source| self.row_error(source))?;
        if self.shape.len == self.shape.capacity {
            return Err(PageError::Full {
                page: self.page.id(),
                what: "rows",
                needed: 1,
                free: 0,
            });
        }
        let live = self.view().heap_live() + needed;
        self.check_heap_live(live, needed)?;
        self.make_room(needed)?;
        let slot = self.lowest_free_slot()?;
        self.place_row(slot, row)
            .map_err(|source| self.row_error(source))?;
        self.set_heap_live(live);
        self.open_rank(rank, slot);
        Ok(())
    }

    /// Changes columns of the row at a rank. Those of the key may be named, but not changed.
    pub fn update(&mut self, rank: usize, changes: &[u8]) -> Result<(), PageError> {
        self.check_rank(rank)?;
        let slot = usize::from(self.view().slot(rank));
        let plan = self
            .check_changes(slot, changes)
            .map_err(|source| self.row_error(source))?;
        self.check_heap_live(plan.live, plan.fresh)?;
        if plan.fresh > self.heap_free() {
            // Only what stays is worth keeping, so the values about to be replaced are let go before.
            self.drop_values(slot, changes)?;
            self.compact()?;
        }
        for change in read_changes(changes) {
            let change = change.map_err(|source| self.row_error(source))?;
            let descriptor = self.shape.descriptor(self.page.bytes(), change.column);
            self.put_cell(slot, change.column, descriptor, change.cell);
        }
        self.set_heap_live(plan.live);
        Ok(())
    }

    /// Deletes the row at a rank; the rows after it move down by one rank.
    pub fn delete(&mut self, rank: usize) -> Result<(), PageError> {
        self.check_rank(rank)?;
        let slot = self.view().slot(rank);
        let live = self
            .view()
            .heap_live()
            .saturating_sub(self.heap_bytes_of(slot));
        let (shape, bytes) = (self.shape, self.page.bytes_mut());
        put_bit(bytes, shape.live_at, usize::from(slot), false);
        bytes.copy_within(
            shape.slot_at(rank + 1)..shape.slot_at(shape.len),
            shape.slot_at(rank),
        );
        self.set_heap_live(live);
        self.set_len(shape.len - 1);
        Ok(())
    }

    /// Deletes all rows from a rank on.
    pub fn truncate(&mut self, rank: usize) -> Result<(), PageError> {
        if rank > self.shape.len {
            return Err(self.out_of_range(rank, self.shape.len));
        }
        let mut live = self.view().heap_live();
        for dropped in rank..self.shape.len {
            let slot = self.view().slot(dropped);
            live = live.saturating_sub(self.heap_bytes_of(slot));
            put_bit(
                self.page.bytes_mut(),
                self.shape.live_at,
                usize::from(slot),
                false,
            );
        }
        self.set_heap_live(live);
        self.set_len(rank);
        Ok(())
    }

    /// Appends rows after the last one. All of them or, where one does not fit, none.
    pub fn append_rows<'r>(
        &mut self,
        rows: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<(), PageError> {
        let before = self.shape.len;
        for row in rows {
            if let Err(error) = self.insert(self.shape.len, row) {
                self.truncate(before)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Bytes of the heap that the row needs, once every cell is known to be good.
    fn check_row(&self, row: &[u8]) -> Result<usize, RowError> {
        let mut cursor = RowCursor::new(self.shape.columns, row);
        let mut needed = 0;
        for column in 0..self.shape.columns {
            let descriptor = self.shape.descriptor(self.page.bytes(), column);
            let cell = cursor.next(descriptor.width())?;
            check_cell(cell, column, descriptor.code, descriptor.nullable)?;
            if matches!(cell, Cell::Overflow(_))
                && self.view().key_parts().any(|(part, _)| part == column)
            {
                return Err(RowError::KeyOverflow { column });
            }
            needed += cell.heap_bytes();
        }
        cursor.finish()?;
        Ok(needed)
    }

    fn check_changes(&self, slot: usize, changes: &[u8]) -> Result<UpdatePlan, RowError> {
        let leaf = self.view();
        let mut plan = UpdatePlan {
            live: leaf.heap_live_after(slot as u16, read_changes(changes))?,
            fresh: 0,
        };
        for change in read_changes(changes) {
            let change = change?;
            let column = change.column;
            let descriptor = leaf.descriptor(column);
            if change.code != descriptor.code {
                return Err(RowError::Type {
                    column,
                    expected: descriptor.code,
                    got: change.code,
                });
            }
            check_cell(change.cell, column, descriptor.code, descriptor.nullable)?;
            let old = leaf.cell(slot, column);
            if old != change.cell && leaf.key_parts().any(|(part, _)| part == column) {
                return Err(RowError::KeyChanged { column });
            }
            let needed = change.cell.heap_bytes();
            if needed > old.heap_bytes() {
                plan.fresh += needed;
            }
        }
        Ok(plan)
    }

    fn place_row(&mut self, slot: usize, row: &[u8]) -> Result<(), RowError> {
        let mut cursor = RowCursor::new(self.shape.columns, row);
        for column in 0..self.shape.columns {
            let descriptor = self.shape.descriptor(self.page.bytes(), column);
            let cell = cursor.next(descriptor.width())?;
            if descriptor.is_var() {
                // The slot's last row may have left a pointer; its bytes are not this row's.
                put(
                    self.page.bytes_mut(),
                    descriptor.values_at + slot * POINTER_BYTES,
                    &[0; POINTER_BYTES],
                );
            }
            self.put_cell(slot, column, descriptor, cell);
        }
        Ok(())
    }

    /// Writes one value and widens its column's zone. There is room for it.
    #[inline]
    fn put_cell(&mut self, slot: usize, column: usize, descriptor: Descriptor, cell: Cell<'_>) {
        if descriptor.is_var() {
            self.put_var(slot, descriptor, cell);
        } else if let Cell::Fixed(value) = cell {
            let at = descriptor.values_at + slot * value.len();
            put(self.page.bytes_mut(), at, value);
        }
        if descriptor.nullable {
            let is_null = matches!(cell, Cell::Null);
            put_bit(self.page.bytes_mut(), descriptor.nulls_at, slot, is_null);
        }
        if let Some(zone) = cell_zone(descriptor.code, cell) {
            self.widen_zone(column, zone);
        }
    }

    /// Writes a value of varying length: over the old one if that was as long, else into fresh space.
    fn put_var(&mut self, slot: usize, descriptor: Descriptor, cell: Cell<'_>) {
        let (value, flag): (&[u8], u16) = match cell {
            Cell::Var(value) => (value, 0),
            Cell::Overflow(reference) => (reference, OVERFLOW_FLAG),
            Cell::Null | Cell::Fixed(_) => (&[], 0),
        };
        let (mut offset, old_len, _) = self.view().pointer(descriptor, slot);
        if value.len() > old_len {
            offset = self.view().heap_low().saturating_sub(value.len());
            put_u32(self.page.bytes_mut(), HEAP_LOW_AT, offset as u32);
        }
        // An empty value has no place: 65,536, the end of a large page, would not fit the offset.
        let stored = if value.is_empty() { 0 } else { offset as u16 };
        let pointer_at = descriptor.values_at + slot * POINTER_BYTES;
        let bytes = self.page.bytes_mut();
        put(bytes, offset, value);
        put_u16(bytes, pointer_at, stored);
        put_u16(bytes, pointer_at + 2, value.len() as u16 | flag);
    }

    #[inline]
    fn widen_zone(&mut self, column: usize, (smallest, largest): (u64, u64)) {
        let (low, high) = self.view().zone(column);
        let at = self.shape.zone_at(column);
        let bytes = self.page.bytes_mut();
        if smallest < low {
            put_u64(bytes, at, smallest);
        }
        if largest > high {
            put_u64(bytes, at + 8, largest);
        }
    }

    /// Contiguous free bytes between the columns and the heap.
    fn heap_free(&self) -> usize {
        self.view().heap_low().saturating_sub(self.shape.heap_start)
    }

    fn check_heap_live(&self, live: usize, needed: usize) -> Result<(), PageError> {
        let capacity = self.view().heap_capacity();
        if live <= capacity {
            return Ok(());
        }
        let free = capacity.saturating_sub(live - needed.min(live));
        Err(PageError::Full {
            page: self.page.id(),
            what: "bytes",
            needed,
            free,
        })
    }

    fn make_room(&mut self, needed: usize) -> Result<(), PageError> {
        if needed > self.heap_free() {
            self.compact()
        } else {
            Ok(())
        }
    }

    /// Empties the pointers of the columns that are about to change.
    fn drop_values(&mut self, slot: usize, changes: &[u8]) -> Result<(), PageError> {
        for change in read_changes(changes) {
            let column = change.map_err(|source| self.row_error(source))?.column;
            let descriptor = self.shape.descriptor(self.page.bytes(), column);
            if descriptor.is_var() {
                put(
                    self.page.bytes_mut(),
                    descriptor.values_at + slot * POINTER_BYTES,
                    &[0; POINTER_BYTES],
                );
            }
        }
        Ok(())
    }

    fn heap_bytes_of(&self, slot: u16) -> usize {
        let leaf = self.view();
        (0..self.shape.columns)
            .map(|column| leaf.cell(usize::from(slot), column).heap_bytes())
            .sum()
    }

    fn lowest_free_slot(&self) -> Result<usize, PageError> {
        let shape = self.shape;
        // The bitmap's region is whole words; bits behind the capacity are never set.
        let bitmap = slice_at(
            self.page.bytes(),
            shape.live_at,
            shape.slots_at - shape.live_at,
        );
        let (words, _) = bitmap.as_chunks();
        let free = words
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .enumerate()
            .find(|(_, word)| *word != u64::MAX);
        let slot = free.map_or(shape.capacity, |(at, word)| {
            at * 64 + word.trailing_ones() as usize
        });
        if slot < shape.capacity {
            return Ok(slot);
        }
        let (expected, got) = (shape.len as u64, shape.capacity as u64);
        Err(PageError::Corrupt {
            page: self.page.id(),
            what: "live slots",
            expected,
            got,
        })
    }

    fn open_rank(&mut self, rank: usize, slot: usize) {
        let (shape, bytes) = (self.shape, self.page.bytes_mut());
        put_bit(bytes, shape.live_at, slot, true);
        bytes.copy_within(
            shape.slot_at(rank)..shape.slot_at(shape.len),
            shape.slot_at(rank + 1),
        );
        put_u16(bytes, shape.slot_at(rank), slot as u16);
        self.set_len(shape.len + 1);
    }

    fn set_heap_live(&mut self, live: usize) {
        put_u32(self.page.bytes_mut(), HEAP_LIVE_AT, live as u32);
    }

    /// An empty leaf forgets what its rows were: heap and zones start anew.
    fn set_len(&mut self, len: usize) {
        self.shape.len = len;
        let page_bytes = self.page.bytes().len();
        let bytes = self.page.bytes_mut();
        put_u16(bytes, LEN_AT, len as u16);
        if len == 0 {
            put_u32(bytes, HEAP_LOW_AT, page_bytes as u32);
            put_u32(bytes, HEAP_LIVE_AT, 0);
            (0..self.shape.columns).for_each(|column| reset_zone(bytes, &self.shape, column));
        }
        debug_assert_eq!(usize::from(u16_at(self.page.bytes(), LEN_AT)), len);
    }

    fn check_rank(&self, rank: usize) -> Result<(), PageError> {
        match self.shape.len.checked_sub(1) {
            Some(last) if rank > last => Err(self.out_of_range(rank, last)),
            Some(_) => Ok(()),
            None => Err(PageError::OutOfRange {
                page: self.page.id(),
                what: "a rank of no rows",
                max: 0,
                got: rank,
            }),
        }
    }

    fn out_of_range(&self, rank: usize, max: usize) -> PageError {
        PageError::OutOfRange {
            page: self.page.id(),
            what: "a rank",
            max,
            got: rank,
        }
    }

    fn row_error(&self, source: RowError) -> PageError {
        PageError::Row {
            page: self.page.id(),
            source,
        }
    }
}

/// What an update comes to.
struct UpdatePlan {
    /// Live bytes of the heap after it.
    live: usize,
    /// Bytes of values that are longer than what they replace.
    fresh: usize,
}

pub(super) fn check_cell(
    cell: Cell<'_>,
    column: usize,
    code: u8,
    nullable: bool,
) -> Result<(), RowError> {
    if cell == Cell::Null && !nullable {
        return Err(RowError::Null { column });
    }
    if let Cell::Var(bytes) = cell
        && bytes.len() >= usize::from(OVERFLOW_FLAG)
    {
        let max = usize::from(OVERFLOW_FLAG) - 1;
        return Err(RowError::ValueLength {
            column,
            max,
            got: bytes.len() as u64,
        });
    }
    cell.check(column, code)
}
