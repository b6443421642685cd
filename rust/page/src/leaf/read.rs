//! Reading a leaf.

use super::layout::{
    Descriptor, HEAP_LIVE_AT, HEAP_LOW_AT, OVERFLOW_FLAG, POINTER_BYTES, Shape, layout_of,
};
use crate::bytes_at::{array_at, slice_at, u16_at, u32_at, u64_at};
use crate::cell::{Cell, code, fixed_value};
use crate::error::{PageError, RowError};
use crate::key::{KeyBuf, encode_part};
use crate::page::Page;
use crate::row::{Changes, Columns, encode_row_from, read_changes, row_heap_bytes};
use crate::types::DataType;
use crate::value::{OverflowRef, Value, ValueRef};

/// A view of a leaf. A *rank* counts rows in key order; a *slot* is where a row lies in every column.
#[derive(Clone, Copy)]
pub struct LeafRef<'a> {
    pub(super) page: &'a Page,
    pub(super) bytes: &'a [u8],
    pub(super) shape: Shape,
}

impl<'a> LeafRef<'a> {
    /// Views a page as a leaf. Reads a handful of numbers and nothing more.
    #[inline]
    pub fn new(page: &'a Page) -> Result<LeafRef<'a>, PageError> {
        let shape = Shape::of(page)?;
        Ok(LeafRef {
            page,
            bytes: page.bytes(),
            shape,
        })
    }

    /// Rows.
    #[inline]
    pub fn len(&self) -> usize {
        self.shape.len
    }

    /// Whether there are no rows.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.shape.len == 0
    }

    /// Slots: the most rows that the leaf can have.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.shape.capacity
    }

    /// Columns.
    #[inline]
    pub fn column_count(&self) -> usize {
        self.shape.columns
    }

    /// The type of a column.
    pub fn column_type(&self, column: usize) -> DataType {
        self.descriptor(column).data_type()
    }

    /// The id of a column in the schema.
    pub fn column_id(&self, column: usize) -> u16 {
        self.descriptor(column).id
    }

    /// Whether a column may be null.
    pub fn column_nullable(&self, column: usize) -> bool {
        self.descriptor(column).nullable
    }

    /// The key: per part the column's index, and whether it descends.
    pub fn key_parts(&self) -> impl Iterator<Item = (usize, bool)> + use<'a> {
        let Self { bytes, shape, .. } = *self;
        (0..shape.key_parts).map(move |part| shape.key_part(bytes, part))
    }

    /// The layout that the leaf was formatted with.
    pub fn layout(&self) -> Vec<u8> {
        layout_of(self.page, &self.shape)
    }

    /// Version of the schema of the rows.
    pub fn schema_version(&self) -> u32 {
        self.page.schema_version()
    }

    #[inline(always)]
    pub(super) fn descriptor(&self, column: usize) -> Descriptor {
        debug_assert!(
            column < self.shape.columns,
            "column {column} of {}",
            self.shape.columns
        );
        self.shape.descriptor(self.bytes, column)
    }

    /// The slot of the row at a rank.
    #[inline]
    pub fn slot(&self, rank: usize) -> u16 {
        debug_assert!(rank < self.shape.len, "rank {rank} of {}", self.shape.len);
        u16_at(self.bytes, self.shape.slot_at(rank))
    }

    /// The slots in key order.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        let Self { bytes, shape, .. } = *self;
        (0..shape.len).map(move |rank| u16_at(bytes, shape.slot_at(rank)))
    }

    /// The value of a column at a slot.
    #[inline]
    pub fn value(&self, slot: u16, column: usize) -> ValueRef<'a> {
        let descriptor = self.descriptor(column);
        let slot = usize::from(slot);
        if descriptor.is_null(self.bytes, slot) {
            return ValueRef::Null;
        }
        let at = |width: usize| descriptor.values_at + slot * width;
        match descriptor.code {
            code::INT64 | code::FLOAT64 | code::TIME | code::TIMESTAMP => {
                fixed_value(descriptor.code, self.bytes, at(8))
            }
            code::INT32 | code::FLOAT32 | code::DATE => {
                fixed_value(descriptor.code, self.bytes, at(4))
            }
            code::DECIMAL | code::UUID => fixed_value(descriptor.code, self.bytes, at(16)),
            code::BOOL | code::INT8 => fixed_value(descriptor.code, self.bytes, at(1)),
            code::INT16 => fixed_value(descriptor.code, self.bytes, at(2)),
            _ => self.var_value(descriptor, slot),
        }
    }

    fn var_value(&self, descriptor: Descriptor, slot: usize) -> ValueRef<'a> {
        match self.var_cell(descriptor, slot) {
            Cell::Overflow(reference) => ValueRef::Overflow(OverflowRef::from_bytes(*reference)),
            Cell::Var(bytes) if descriptor.code == code::BYTES => ValueRef::Bytes(bytes),
            Cell::Var(bytes) => {
                // Writers let only UTF-8 in; what else is found here, `verify` reports.
                let text = std::str::from_utf8(bytes).unwrap_or("\u{FFFD}");
                if descriptor.code == code::JSON {
                    ValueRef::Json(text)
                } else {
                    ValueRef::Text(text)
                }
            }
            Cell::Null | Cell::Fixed(_) => ValueRef::Null,
        }
    }

    /// Reads a little of a value, so that all of it is in the processor's cache when it is wanted: in a loop over many
    /// values, the waits for memory overlap. The number given means nothing.
    #[inline]
    pub fn warm(&self, slot: u16, column: usize) -> usize {
        match self.cell(usize::from(slot), column) {
            Cell::Fixed(bytes) | Cell::Var(bytes) => {
                bytes.first().map_or(0, |byte| usize::from(*byte))
            }
            Cell::Null | Cell::Overflow(_) => 0,
        }
    }

    /// The raw form of a value that is not null.
    pub(crate) fn cell(&self, slot: usize, column: usize) -> Cell<'a> {
        let descriptor = self.descriptor(column);
        if descriptor.is_null(self.bytes, slot) {
            return Cell::Null;
        }
        if descriptor.is_var() {
            return self.var_cell(descriptor, slot);
        }
        let width = descriptor.slot_bytes();
        Cell::Fixed(slice_at(
            self.bytes,
            descriptor.values_at + slot * width,
            width,
        ))
    }

    #[inline]
    pub(super) fn var_cell(&self, descriptor: Descriptor, slot: usize) -> Cell<'a> {
        let (offset, len, in_overflow) = self.pointer(descriptor, slot);
        let bytes = slice_at(self.bytes, offset, len);
        match bytes.first_chunk() {
            Some(reference) if in_overflow => Cell::Overflow(reference),
            _ => Cell::Var(bytes),
        }
    }

    /// Where in the page a value of varying length lies: offset, length, and whether it is a reference.
    #[inline]
    pub(super) fn pointer(&self, descriptor: Descriptor, slot: usize) -> (usize, usize, bool) {
        let raw: [u8; POINTER_BYTES] =
            array_at(self.bytes, descriptor.values_at + slot * POINTER_BYTES);
        let offset = u16::from_le_bytes([raw[0], raw[1]]);
        let len = u16::from_le_bytes([raw[2], raw[3]]);
        (
            usize::from(offset),
            usize::from(len & !OVERFLOW_FLAG),
            len & OVERFLOW_FLAG != 0,
        )
    }

    /// The value of a column at a rank.
    #[inline]
    pub fn value_at(&self, rank: usize, column: usize) -> ValueRef<'a> {
        self.value(self.slot(rank), column)
    }

    /// The encoded key of the row at a rank.
    pub fn key_at(&self, rank: usize) -> KeyBuf {
        let mut key = KeyBuf::new();
        for part in 0..self.shape.key_parts {
            self.encode_key_part(&mut key, self.slot(rank), part);
        }
        key
    }

    pub(super) fn encode_key_part(&self, out: &mut KeyBuf, slot: u16, part: usize) {
        let (column, descending) = self.shape.key_part(self.bytes, part);
        let descriptor = self.descriptor(column);
        let value = match self.value(slot, column) {
            // Writers keep such values out of keys; `verify` reports one that is there all the same.
            ValueRef::Overflow(_) => ValueRef::Bytes(&[]),
            value => value,
        };
        encode_part(
            out,
            descriptor.data_type(),
            value,
            descriptor.nullable,
            descending,
        );
    }

    /// The row at a rank.
    pub fn row(&self, rank: usize) -> Vec<Value> {
        self.row_values(rank).map(ValueRef::to_owned).collect()
    }

    /// The values of the row at a rank, borrowed.
    pub fn row_values(&self, rank: usize) -> impl ExactSizeIterator<Item = ValueRef<'a>> + use<'a> {
        let (leaf, slot) = (*self, self.slot(rank));
        (0..leaf.shape.columns).map(move |column| leaf.value(slot, column))
    }

    /// The row at a rank as [`crate::encode_row`] would give it.
    pub fn row_bytes(&self, rank: usize) -> Vec<u8> {
        encode_row_from(self, self.row_values(rank))
    }

    /// Bytes of the heap that live values use.
    pub fn heap_live(&self) -> usize {
        u32_at(self.bytes, HEAP_LIVE_AT) as usize
    }

    pub(super) fn heap_low(&self) -> usize {
        u32_at(self.bytes, HEAP_LOW_AT) as usize
    }

    /// Bytes of the whole heap, free ones included.
    pub fn heap_capacity(&self) -> usize {
        self.bytes.len() - self.shape.heap_start
    }

    /// Bytes that one row takes outside the heap.
    fn row_fixed_bytes(&self) -> usize {
        (self.shape.heap_start - self.shape.live_at) / self.shape.capacity.max(1)
    }

    /// Bytes that the rows use, holes not counted.
    pub fn live_bytes(&self) -> usize {
        self.shape.len * self.row_fixed_bytes() + self.heap_live()
    }

    /// Whether so many more rows with so many bytes of texts, bytes and json fit.
    pub fn has_room(&self, rows: usize, heap_bytes: usize) -> bool {
        self.shape.len + rows <= self.shape.capacity
            && self.heap_live() + heap_bytes <= self.heap_capacity()
    }

    /// Whether a row fits. Only live content decides. A row that cannot be read does not fit.
    pub fn fits(&self, encoded_row: &[u8]) -> bool {
        row_heap_bytes(self, encoded_row).is_ok_and(|needed| self.has_room(1, needed))
    }

    /// Whether changes to the row at a rank fit. Only live content decides. Changes that cannot be read do not fit.
    pub fn fits_changes(&self, rank: usize, changes: &[u8]) -> bool {
        rank < self.shape.len
            && self
                .heap_live_after(self.slot(rank), read_changes(changes))
                .is_ok_and(|live| live <= self.heap_capacity())
    }

    /// Live bytes of the heap once the changes are made.
    pub(super) fn heap_live_after(
        &self,
        slot: u16,
        changes: Changes<'_>,
    ) -> Result<usize, RowError> {
        let mut live = self.heap_live();
        for change in changes {
            let change = change?;
            if change.column >= self.shape.columns {
                return Err(RowError::Column {
                    min: 0,
                    end: self.shape.columns,
                    got: change.column,
                });
            }
            let old = self.cell(usize::from(slot), change.column).heap_bytes();
            live = live.saturating_sub(old) + change.cell.heap_bytes();
        }
        Ok(live)
    }

    /// Whether rows and heap are both less than a quarter full, so that the leaf should be merged with a sibling.
    pub fn is_underfull(&self) -> bool {
        self.shape.len * 4 < self.shape.capacity && self.heap_live() * 4 <= self.heap_capacity()
    }

    /// Bounds of a column's values: no value that is not null has a [`crate::zone_prefix`] below the first or above the
    /// second. The first is larger than the second if there were none.
    #[inline]
    pub fn zone(&self, column: usize) -> (u64, u64) {
        let at = self.shape.zone_at(column);
        (u64_at(self.bytes, at), u64_at(self.bytes, at + 8))
    }

    /// All values of a fixed-width column by slot, little-endian, dead slots included; empty for other columns.
    #[inline]
    pub fn fixed_column(&self, column: usize) -> &'a [u8] {
        let descriptor = self.descriptor(column);
        match descriptor.width() {
            Some(width) => slice_at(
                self.bytes,
                descriptor.values_at,
                self.shape.capacity * width,
            ),
            None => &[],
        }
    }

    /// The null bitmap of a column: bit `slot % 8` of byte `slot / 8` is set where the value is null. `None` if the column
    /// is not nullable.
    #[inline]
    pub fn null_bitmap(&self, column: usize) -> Option<&'a [u8]> {
        let descriptor = self.descriptor(column);
        descriptor.nullable.then(|| {
            slice_at(
                self.bytes,
                descriptor.nulls_at,
                self.shape.capacity.div_ceil(8),
            )
        })
    }

    /// Which slots hold a row, as a bitmap.
    #[inline]
    pub fn live_bitmap(&self) -> &'a [u8] {
        slice_at(
            self.bytes,
            self.shape.live_at,
            self.shape.capacity.div_ceil(8),
        )
    }
}

impl Columns for LeafRef<'_> {
    fn column_count(&self) -> usize {
        self.shape.columns
    }

    fn column_type(&self, column: usize) -> DataType {
        self.descriptor(column).data_type()
    }

    #[inline]
    fn column_width(&self, column: usize) -> Option<usize> {
        self.descriptor(column).width()
    }
}
