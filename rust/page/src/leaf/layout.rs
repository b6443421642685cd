//! Where the regions of a leaf lie, and how a leaf comes to be.

use crate::bytes_at::{array_at, bit_at, put, put_u16, put_u32, put_u64, u16_at, u32_at};
use crate::cell::{code, width_of};
use crate::error::{PageError, RowTooWide};
use crate::header::HEADER_BYTES;
use crate::ids::{ObjectId, PageId};
use crate::page::{Page, PageKind};
use crate::schema::Schema;
use crate::types::DataType;
use crate::zone::ZONE_EMPTY;

const COLUMNS_AT: usize = HEADER_BYTES;
const CAPACITY_AT: usize = COLUMNS_AT + 2;
pub(super) const LEN_AT: usize = CAPACITY_AT + 2;
const KEY_PARTS_AT: usize = LEN_AT + 2;
pub(super) const HEAP_LOW_AT: usize = KEY_PARTS_AT + 2;
pub(super) const HEAP_LIVE_AT: usize = HEAP_LOW_AT + 4;
const HEAP_START_AT: usize = HEAP_LIVE_AT + 4;
const DESCRIPTORS_AT: usize = HEAP_START_AT + 8;
const DESCRIPTOR_BYTES: usize = 12;
const ZONE_BYTES: usize = 16;
const FLAG_NULLABLE: u8 = 1;
const DESCENDING: u16 = 0x8000;

/// Bytes of a value's place in the heap: offset and length.
pub(super) const POINTER_BYTES: usize = 4;
/// In a pointer's length: the heap holds a reference to overflow pages.
pub(super) const OVERFLOW_FLAG: u16 = 0x8000;

// Layout bytes: schema version u32, capacity u16, columns u16, key parts u16, then per column id u16, code u8, flags u8,
// parameter u16, then per key part as in the page.
const LAYOUT_HEAD_BYTES: usize = 10;
const LAYOUT_COLUMN_BYTES: usize = 6;

/// Where things lie in one leaf; computed from the first bytes of its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) columns: usize,
    pub(super) capacity: usize,
    pub(super) len: usize,
    pub(super) key_parts: usize,
    pub(super) zones_at: usize,
    pub(super) live_at: usize,
    pub(super) slots_at: usize,
    pub(super) heap_start: usize,
}

/// One column's descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) id: u16,
    pub(super) code: u8,
    pub(super) nullable: bool,
    pub(super) param: u16,
    /// 0 if not nullable.
    pub(super) nulls_at: usize,
    pub(super) values_at: usize,
}

impl Descriptor {
    #[inline(always)]
    pub(super) fn is_var(&self) -> bool {
        matches!(self.code, code::TEXT | code::BYTES | code::JSON)
    }

    pub(super) fn data_type(&self) -> DataType {
        DataType::from_code(self.code, self.param).unwrap_or_else(|| plain_type(self.code))
    }

    /// Bytes of a value, `None` where they vary.
    #[inline(always)]
    pub(super) fn width(&self) -> Option<usize> {
        width_of(self.code)
    }

    /// Bytes per slot in the column's values.
    #[inline(always)]
    pub(super) fn slot_bytes(&self) -> usize {
        self.width().unwrap_or(POINTER_BYTES)
    }

    #[inline(always)]
    pub(super) fn is_null(&self, bytes: &[u8], slot: usize) -> bool {
        self.nullable && bit_at(bytes, self.nulls_at, slot)
    }
}

/// What a type code stands for when its parameter cannot be: values are still read as they are stored.
#[cold]
fn plain_type(code: u8) -> DataType {
    let param = u16::from(code == code::DECIMAL);
    DataType::from_code(code, param).unwrap_or(DataType::Bytes)
}

impl Shape {
    /// Reads the numbers that everything else is computed from; refuses those that cannot be.
    #[inline]
    pub(super) fn of(page: &Page) -> Result<Shape, PageError> {
        page.expect_kind(PageKind::Leaf)?;
        let bytes = page.bytes();
        let columns = usize::from(u16_at(bytes, COLUMNS_AT));
        let capacity = usize::from(u16_at(bytes, CAPACITY_AT));
        let len = usize::from(u16_at(bytes, LEN_AT));
        let key_parts = usize::from(u16_at(bytes, KEY_PARTS_AT));
        let heap_start = u32_at(bytes, HEAP_START_AT) as usize;
        let shape = Shape {
            len,
            heap_start,
            ..Shape::plan(columns, key_parts, capacity)
        };
        let is_possible = columns > 0 && len <= capacity && heap_start <= bytes.len();
        if !is_possible || shape.columns_at() > heap_start {
            return Err(shape.impossible(page.id(), bytes.len()));
        }
        Ok(shape)
    }

    #[cold]
    fn impossible(&self, page: PageId, page_bytes: usize) -> PageError {
        let wrong = |what, expected: usize, got: usize| PageError::Corrupt {
            page,
            what,
            expected: expected as u64,
            got: got as u64,
        };
        if self.columns == 0 {
            return wrong("columns of a leaf, at least", 1, 0);
        }
        if self.len > self.capacity {
            return wrong(
                "rows of a leaf, at most its capacity",
                self.capacity,
                self.len,
            );
        }
        if self.heap_start > page_bytes {
            return wrong(
                "start of a leaf's heap, at most the page's end",
                page_bytes,
                self.heap_start,
            );
        }
        wrong(
            "end of a leaf's slot directory, at most the heap's start",
            self.heap_start,
            self.columns_at(),
        )
    }

    /// The regions before the columns, as the counts dictate.
    #[inline(always)]
    fn plan(columns: usize, key_parts: usize, capacity: usize) -> Shape {
        let zones_at = align8(key_parts_at(columns) + key_parts * 2);
        let live_at = zones_at + columns * ZONE_BYTES;
        let slots_at = live_at + align8(capacity.div_ceil(8));
        Shape {
            columns,
            capacity,
            len: 0,
            key_parts,
            zones_at,
            live_at,
            slots_at,
            heap_start: 0,
        }
    }

    /// Where the slot directory ends and the columns begin.
    #[inline(always)]
    pub(super) fn columns_at(&self) -> usize {
        self.slots_at + align8(self.capacity * 2)
    }

    #[inline(always)]
    pub(super) fn descriptor(&self, bytes: &[u8], column: usize) -> Descriptor {
        let raw: [u8; DESCRIPTOR_BYTES] =
            array_at(bytes, DESCRIPTORS_AT + column * DESCRIPTOR_BYTES);
        Descriptor {
            id: u16::from_le_bytes([raw[0], raw[1]]),
            code: raw[2],
            nullable: raw[3] & FLAG_NULLABLE != 0,
            param: u16::from_le_bytes([raw[4], raw[5]]),
            nulls_at: usize::from(u16::from_le_bytes([raw[8], raw[9]])),
            values_at: usize::from(u16::from_le_bytes([raw[10], raw[11]])),
        }
    }

    /// Column and direction of a part of the key, as the page has them.
    #[inline(always)]
    pub(super) fn stored_key_part(&self, bytes: &[u8], part: usize) -> (usize, bool) {
        let raw = u16_at(bytes, key_parts_at(self.columns) + part * 2);
        (usize::from(raw & !DESCENDING), raw & DESCENDING != 0)
    }

    /// Column and direction of a part of the key; always a column that exists.
    #[inline(always)]
    pub(super) fn key_part(&self, bytes: &[u8], part: usize) -> (usize, bool) {
        let (column, descending) = self.stored_key_part(bytes, part);
        (column.min(self.columns - 1), descending)
    }

    #[inline(always)]
    pub(super) fn zone_at(&self, column: usize) -> usize {
        self.zones_at + column * ZONE_BYTES
    }

    #[inline(always)]
    pub(super) fn slot_at(&self, rank: usize) -> usize {
        self.slots_at + rank * 2
    }
}

const fn align8(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

const fn key_parts_at(columns: usize) -> usize {
    DESCRIPTORS_AT + columns * DESCRIPTOR_BYTES
}

/// Puts the columns one after the other; gives each one's nulls (0 if none) and values to `place`, and the end of all.
fn plan_columns(
    shape: &Shape,
    columns: impl Iterator<Item = (DataType, bool)>,
    mut place: impl FnMut(usize, usize, usize),
) -> usize {
    let mut at = shape.columns_at();
    for (index, (data_type, nullable)) in columns.enumerate() {
        let nulls_at = if nullable { at } else { 0 };
        at += if nullable {
            align8(shape.capacity.div_ceil(8))
        } else {
            0
        };
        place(index, nulls_at, at);
        at += align8(shape.capacity * data_type.fixed_width().unwrap_or(POINTER_BYTES));
    }
    at
}

fn heap_start_of(schema: &Schema, capacity: usize) -> usize {
    let shape = Shape::plan(schema.columns().len(), schema.key().len(), capacity);
    plan_columns(
        &shape,
        schema
            .columns()
            .iter()
            .map(|column| (column.data_type, column.nullable)),
        |_, _, _| {},
    )
}

/// Most bytes of a row's texts, bytes and json that may lie in a leaf. Longer values go to overflow pages until the row
/// is within it; then two such rows fit into any leaf of a capacity from [`leaf_capacity`].
pub const fn row_heap_max(page_bytes: usize) -> usize {
    page_bytes / 8
}

/// How many rows a leaf should have slots for when the rows' texts, bytes and json take so many bytes on average.
/// At least 2; where columns of varying length exist, a quarter of the page at least is left to them.
pub fn leaf_capacity(
    schema: &Schema,
    page_bytes: usize,
    mean_var_bytes_per_row: usize,
) -> Result<u16, RowTooWide> {
    let has_var = schema
        .columns()
        .iter()
        .any(|column| column.data_type.fixed_width().is_none());
    let heap_min = if has_var {
        row_heap_max(page_bytes) * 2
    } else {
        0
    };
    let needed = |capacity: usize| {
        let mean = if has_var {
            mean_var_bytes_per_row.saturating_mul(capacity)
        } else {
            0
        };
        heap_start_of(schema, capacity).saturating_add(heap_min.max(mean))
    };
    // Two rows of any size fit, so only the columns' fixed parts decide whether there is a layout at all.
    let least = heap_start_of(schema, 2) + heap_min;
    if least > page_bytes {
        return Err(RowTooWide {
            expected: least,
            got: page_bytes,
        });
    }
    let (mut fits, mut too_many) = (2, page_bytes.min(usize::from(u16::MAX)) + 1);
    while fits + 1 < too_many {
        let middle = fits.midpoint(too_many);
        if needed(middle) <= page_bytes {
            fits = middle
        } else {
            too_many = middle
        }
    }
    Ok(fits as u16)
}

/// Bytes that a leaf of this capacity has for texts, bytes and json.
pub fn leaf_heap_bytes(schema: &Schema, capacity: u16, page_bytes: usize) -> usize {
    page_bytes.saturating_sub(heap_start_of(schema, usize::from(capacity)))
}

/// What a format record needs to know: schema version, columns, key and capacity.
pub fn leaf_layout(schema: &Schema, capacity: u16) -> Vec<u8> {
    let columns = schema.columns();
    let mut layout = Vec::with_capacity(
        LAYOUT_HEAD_BYTES + columns.len() * LAYOUT_COLUMN_BYTES + schema.key().len() * 2,
    );
    layout.extend_from_slice(&schema.version.to_le_bytes());
    layout.extend_from_slice(&capacity.to_le_bytes());
    layout.extend_from_slice(&(columns.len() as u16).to_le_bytes());
    layout.extend_from_slice(&(schema.key().len() as u16).to_le_bytes());
    for column in columns {
        layout.extend_from_slice(&column.id.to_le_bytes());
        layout.push(column.data_type.code());
        layout.push(u8::from(column.nullable) * FLAG_NULLABLE);
        layout.extend_from_slice(&column.data_type.param().to_le_bytes());
    }
    for part in schema.key() {
        let flag = if part.descending { DESCENDING } else { 0 };
        layout.extend_from_slice(&(part.column | flag).to_le_bytes());
    }
    layout
}

/// Bytes of the layout at the beginning of `bytes`, as its counts say.
pub(super) fn layout_bytes(bytes: &[u8]) -> usize {
    let count = |at| usize::from(u16_at(bytes, at));
    LAYOUT_HEAD_BYTES + count(6) * LAYOUT_COLUMN_BYTES + count(8) * 2
}

/// The layout bytes that this leaf was formatted with.
pub(super) fn layout_of(page: &Page, shape: &Shape) -> Vec<u8> {
    let bytes = page.bytes();
    let mut layout = Vec::new();
    layout.extend_from_slice(&page.schema_version().to_le_bytes());
    for count in [shape.capacity, shape.columns, shape.key_parts] {
        layout.extend_from_slice(&(count as u16).to_le_bytes());
    }
    for column in 0..shape.columns {
        let at = DESCRIPTORS_AT + column * DESCRIPTOR_BYTES;
        layout.extend_from_slice(&array_at::<LAYOUT_COLUMN_BYTES>(bytes, at));
    }
    for part in 0..shape.key_parts {
        let at = key_parts_at(shape.columns) + part * 2;
        layout.extend_from_slice(&array_at::<2>(bytes, at));
    }
    layout
}

/// Starts the life of a leaf: no rows, the columns, key and capacity of the layout, its schema version in the header.
/// A layout that cannot be leaves the page as it was.
pub fn format_leaf(page: &mut Page, object: ObjectId, layout: &[u8]) -> Result<(), PageError> {
    let (id, page_bytes) = (page.id(), page.bytes().len());
    let layout = Layout::parse(id, layout)?;
    let shape = Shape::plan(layout.columns, layout.key_parts, layout.capacity);
    let heap_start = plan_columns(&shape, layout.types(), |_, _, _| {});
    if heap_start > page_bytes {
        return Err(corrupt(
            id,
            "end of a layout's columns, at most the page's end",
            page_bytes,
            heap_start,
        ));
    }
    page.reset(PageKind::Leaf, object, layout.schema_version);
    let bytes = page.bytes_mut();
    put_u16(bytes, COLUMNS_AT, layout.columns as u16);
    put_u16(bytes, CAPACITY_AT, layout.capacity as u16);
    put_u16(bytes, KEY_PARTS_AT, layout.key_parts as u16);
    put_u32(bytes, HEAP_LOW_AT, page_bytes as u32);
    put_u32(bytes, HEAP_START_AT, heap_start as u32);
    put(bytes, key_parts_at(layout.columns), layout.raw_key_parts());
    plan_columns(&shape, layout.types(), |column, nulls_at, values_at| {
        let at = DESCRIPTORS_AT + column * DESCRIPTOR_BYTES;
        put(bytes, at, layout.raw_column(column));
        put_u16(bytes, at + 8, nulls_at as u16);
        put_u16(bytes, at + 10, values_at as u16);
    });
    for column in 0..layout.columns {
        reset_zone(bytes, &shape, column);
    }
    Ok(())
}

pub(super) fn reset_zone(bytes: &mut [u8], shape: &Shape, column: usize) {
    put_u64(bytes, shape.zone_at(column), ZONE_EMPTY.0);
    put_u64(bytes, shape.zone_at(column) + 8, ZONE_EMPTY.1);
}

fn corrupt(page: PageId, what: &'static str, expected: usize, got: usize) -> PageError {
    PageError::Corrupt {
        page,
        what,
        expected: expected as u64,
        got: got as u64,
    }
}

/// Layout bytes whose every number is possible.
struct Layout<'a> {
    raw: &'a [u8],
    schema_version: u32,
    capacity: usize,
    columns: usize,
    key_parts: usize,
}

impl<'a> Layout<'a> {
    fn parse(page: PageId, raw: &'a [u8]) -> Result<Layout<'a>, PageError> {
        let count = |at| usize::from(u16_at(raw, at));
        let (capacity, columns, key_parts) = (count(4), count(6), count(8));
        let layout = Layout {
            raw,
            schema_version: u32_at(raw, 0),
            capacity,
            columns,
            key_parts,
        };
        let expected = layout.key_parts_at() + key_parts * 2;
        if raw.len() != expected {
            return Err(corrupt(
                page,
                "bytes of a leaf's layout",
                expected,
                raw.len(),
            ));
        }
        if capacity == 0 || columns == 0 {
            return Err(corrupt(
                page,
                "capacity and columns of a leaf, at least",
                1,
                0,
            ));
        }
        layout.check_columns(page)?;
        Ok(layout)
    }

    fn check_columns(&self, page: PageId) -> Result<(), PageError> {
        for column in 0..self.columns {
            let raw = self.raw_column(column);
            let (code, param) = (raw[2], u16_at(raw, 4));
            if DataType::from_code(code, param).is_none() {
                return Err(corrupt(
                    page,
                    "type code of a column, at most",
                    usize::from(code::JSON),
                    usize::from(code),
                ));
            }
        }
        for part in 0..self.key_parts {
            let column = usize::from(u16_at(self.raw_key_parts(), part * 2) & !DESCENDING);
            if column >= self.columns {
                return Err(corrupt(
                    page,
                    "column of a key part, at most",
                    self.columns - 1,
                    column,
                ));
            }
        }
        Ok(())
    }

    fn key_parts_at(&self) -> usize {
        LAYOUT_HEAD_BYTES + self.columns * LAYOUT_COLUMN_BYTES
    }

    fn raw_column(&self, column: usize) -> &'a [u8] {
        let at = LAYOUT_HEAD_BYTES + column * LAYOUT_COLUMN_BYTES;
        &self.raw[at..at + LAYOUT_COLUMN_BYTES]
    }

    fn raw_key_parts(&self) -> &'a [u8] {
        &self.raw[self.key_parts_at()..]
    }

    /// Types and nullability; parsing has made sure that the types exist.
    fn types(&self) -> impl Iterator<Item = (DataType, bool)> + '_ {
        (0..self.columns).map(|column| {
            let raw = self.raw_column(column);
            let data_type = DataType::from_code(raw[2], u16_at(raw, 4)).unwrap_or(DataType::Bytes);
            (data_type, raw[3] & FLAG_NULLABLE != 0)
        })
    }
}
