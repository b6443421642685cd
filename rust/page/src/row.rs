//! Rows and changes as bytes, outside of pages: what log records and write buffers carry.
//!
//! ```text
//! row      null bitmap, one bit per column | per column that is not null, in their order:
//!            fixed width         the value, little-endian
//!            text, bytes, json   varint 2 * length, the bytes
//!            in overflow pages   varint 2 * 16 + 1, first page u64, length u64
//! changes  per changed column, ascending:
//!            varint column index | type code (+ 0x40 in overflow pages, + 0x80 null) | the value:
//!            fixed width         as above
//!            text, bytes, json   varint length, the bytes
//!            in overflow pages   first page u64, length u64
//! ```
//! A row is read with the columns of a schema or of a leaf at hand. Changes carry type codes, so they are read alone.

use crate::cell::{Cell, Storage, cell_of, storage_of};
use crate::error::RowError;
use crate::schema::Schema;
use crate::types::DataType;
use crate::value::{OverflowRef, Value, ValueRef};
use crate::varint::{put_varint, read_varint};

const CODE_MASK: u8 = 0x3F;
const OVERFLOW_FLAG: u8 = 0x40;
const NULL_FLAG: u8 = 0x80;

/// The columns that rows have: those of a schema, or of a leaf.
pub trait Columns {
    /// How many there are.
    fn column_count(&self) -> usize;

    /// The type of one.
    fn column_type(&self, column: usize) -> DataType;

    /// Bytes of a value of one, `None` where they vary.
    #[inline]
    fn column_width(&self, column: usize) -> Option<usize> {
        self.column_type(column).fixed_width()
    }
}

impl Columns for Schema {
    fn column_count(&self) -> usize {
        self.columns().len()
    }

    fn column_type(&self, column: usize) -> DataType {
        self.columns()[column].data_type
    }
}

/// The row as bytes.
///
/// # Panics
/// If the values are not those of the schema's columns: [`Schema::check_row`] comes first.
pub fn encode_row(schema: &Schema, values: &[Value]) -> Vec<u8> {
    assert_eq!(
        values.len(),
        schema.columns().len(),
        "a row has one value per column"
    );
    encode_row_from(schema, values.iter().map(Value::as_ref))
}

/// The row as bytes, from one borrowed value per column.
///
/// # Panics
/// If a value is not of its column's type, or there are more or fewer than columns.
pub fn encode_row_from<'v>(
    columns: &impl Columns,
    values: impl IntoIterator<Item = ValueRef<'v>>,
) -> Vec<u8> {
    // Room for most rows at once: growing byte by byte would copy each several times.
    let mut row = Vec::with_capacity(columns.column_count() * 12);
    encode_row_into(&mut row, columns, values);
    row
}

/// The row as bytes, in the place of what was in `row`.
///
/// # Panics
/// If a value is not of its column's type, or there are more or fewer than columns.
pub fn encode_row_into<'v>(
    row: &mut Vec<u8>,
    columns: &impl Columns,
    values: impl IntoIterator<Item = ValueRef<'v>>,
) {
    row.clear();
    row.resize(columns.column_count().div_ceil(8), 0);
    let mut count = 0;
    for (index, value) in values.into_iter().enumerate() {
        if value.is_null() {
            row[index / 8] |= 1 << (index % 8);
        } else {
            put_row_value(row, columns.column_type(index), value);
        }
        count = index + 1;
    }
    assert_eq!(
        count,
        columns.column_count(),
        "a row has one value per column"
    );
}

fn put_row_value(row: &mut Vec<u8>, data_type: DataType, value: ValueRef<'_>) {
    let mut fixed = [0; 16];
    match cell_of(data_type, value, &mut fixed) {
        Cell::Null => {}
        Cell::Fixed(bytes) => row.extend_from_slice(bytes),
        Cell::Var(bytes) => {
            put_varint(row, (bytes.len() as u64) << 1);
            row.extend_from_slice(bytes);
        }
        Cell::Overflow(reference) => {
            put_varint(row, (OverflowRef::BYTES as u64) << 1 | 1);
            row.extend_from_slice(reference);
        }
    }
}

/// The values of a row.
pub fn decode_row(schema: &Schema, bytes: &[u8]) -> Result<Vec<Value>, RowError> {
    read_row(schema, bytes)
        .map(|value| value.map(ValueRef::to_owned))
        .collect()
}

/// The values of a row, one after the other, borrowed from it. Ends after the first error.
pub fn read_row<'r, C: Columns>(columns: &'r C, bytes: &'r [u8]) -> RowValues<'r, C> {
    RowValues {
        columns,
        cursor: RowCursor::new(columns.column_count(), bytes),
        failed: false,
    }
}

/// Bytes that the row's values need in the heap of a leaf.
pub fn row_heap_bytes(columns: &impl Columns, bytes: &[u8]) -> Result<usize, RowError> {
    let mut cursor = RowCursor::new(columns.column_count(), bytes);
    let mut total = 0;
    for column in 0..columns.column_count() {
        total += cursor.next(columns.column_width(column))?.heap_bytes();
    }
    cursor.finish()?;
    Ok(total)
}

/// See [`read_row`].
pub struct RowValues<'r, C> {
    columns: &'r C,
    cursor: RowCursor<'r>,
    failed: bool,
}

impl<'r, C: Columns> RowValues<'r, C> {
    fn read(&mut self) -> Result<Option<ValueRef<'r>>, RowError> {
        let column = self.cursor.column;
        if column == self.columns.column_count() {
            self.cursor.finish()?;
            return Ok(None);
        }
        let data_type = self.columns.column_type(column);
        self.cursor
            .next(data_type.fixed_width())?
            .value(column, data_type.code())
            .map(Some)
    }
}

impl<'r, C: Columns> Iterator for RowValues<'r, C> {
    type Item = Result<ValueRef<'r>, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

/// Walks the cells of a row; the caller knows the columns.
pub(crate) struct RowCursor<'r> {
    bytes: &'r [u8],
    bitmap_bytes: usize,
    at: usize,
    column: usize,
}

impl<'r> RowCursor<'r> {
    pub(crate) fn new(column_count: usize, bytes: &'r [u8]) -> RowCursor<'r> {
        let bitmap_bytes = column_count.div_ceil(8);
        RowCursor {
            bytes,
            bitmap_bytes,
            at: bitmap_bytes,
            column: 0,
        }
    }

    /// The cell of the next column, whose values have this width.
    #[inline]
    pub(crate) fn next(&mut self, width: Option<usize>) -> Result<Cell<'r>, RowError> {
        let column = self.column;
        let Some(nulls) = self
            .bytes
            .get(column / 8)
            .filter(|_| column / 8 < self.bitmap_bytes)
        else {
            return Err(RowError::Truncated {
                at: 0,
                expected: self.bitmap_bytes,
                got: self.bytes.len(),
            });
        };
        self.column += 1;
        if nulls >> (column % 8) & 1 == 1 {
            return Ok(Cell::Null);
        }
        match width {
            Some(width) => take(self.bytes, &mut self.at, width).map(Cell::Fixed),
            None => self.next_var(column),
        }
    }

    fn next_var(&mut self, column: usize) -> Result<Cell<'r>, RowError> {
        let tagged = read_varint(self.bytes, &mut self.at)?;
        let (len, in_overflow) = (tagged >> 1, tagged & 1 == 1);
        if !in_overflow {
            return take_len(self.bytes, &mut self.at, len).map(Cell::Var);
        }
        if len != OverflowRef::BYTES as u64 {
            return Err(RowError::ValueLength {
                column,
                max: OverflowRef::BYTES,
                got: len,
            });
        }
        take_reference(self.bytes, &mut self.at).map(Cell::Overflow)
    }

    /// All columns were read: nothing may be left.
    pub(crate) fn finish(&self) -> Result<(), RowError> {
        if self.bytes.len() < self.bitmap_bytes {
            return Err(RowError::Truncated {
                at: 0,
                expected: self.bitmap_bytes,
                got: self.bytes.len(),
            });
        }
        if self.at != self.bytes.len() {
            return Err(RowError::Trailing {
                expected: self.at,
                got: self.bytes.len(),
            });
        }
        Ok(())
    }
}

/// Changes to a row, as bytes. Their columns are put in order; of several changes to one column the last counts.
///
/// # Panics
/// If a value is not of its column's type, or there is no such column.
pub fn encode_changes(schema: &Schema, changes: &[(u16, Value)]) -> Vec<u8> {
    let mut order: Vec<&(u16, Value)> = changes.iter().collect();
    order.sort_by_key(|change| change.0);
    let mut bytes = Vec::with_capacity(changes.len() * 12);
    for (index, (column, value)) in order.iter().enumerate() {
        let is_last = order.get(index + 1).is_none_or(|later| later.0 != *column);
        if is_last {
            put_change(&mut bytes, schema, *column, value.as_ref());
        }
    }
    bytes
}

fn put_change(bytes: &mut Vec<u8>, schema: &Schema, column: u16, value: ValueRef<'_>) {
    let data_type = schema.columns()[usize::from(column)].data_type;
    put_varint(bytes, u64::from(column));
    let mut fixed = [0; 16];
    match cell_of(data_type, value, &mut fixed) {
        Cell::Null => bytes.push(data_type.code() | NULL_FLAG),
        Cell::Fixed(value) => {
            bytes.push(data_type.code());
            bytes.extend_from_slice(value);
        }
        Cell::Var(value) => {
            bytes.push(data_type.code());
            put_varint(bytes, value.len() as u64);
            bytes.extend_from_slice(value);
        }
        Cell::Overflow(reference) => {
            bytes.push(data_type.code() | OVERFLOW_FLAG);
            bytes.extend_from_slice(reference);
        }
    }
}

/// One changed column.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Change<'c> {
    /// Index of the column.
    pub column: usize,
    /// Type code of the column when the change was made.
    pub code: u8,
    pub(crate) cell: Cell<'c>,
}

impl<'c> Change<'c> {
    /// The new value.
    pub fn value(&self) -> Result<ValueRef<'c>, RowError> {
        self.cell.value(self.column, self.code)
    }
}

/// The changes in these bytes. Ends after the first error; columns that do not ascend are one.
pub fn read_changes(bytes: &[u8]) -> Changes<'_> {
    Changes {
        bytes,
        at: 0,
        column_min: 0,
    }
}

/// See [`read_changes`].
#[derive(Clone, Debug)]
pub struct Changes<'c> {
    bytes: &'c [u8],
    at: usize,
    column_min: usize,
}

impl<'c> Changes<'c> {
    fn read(&mut self) -> Result<Change<'c>, RowError> {
        let column = read_varint(self.bytes, &mut self.at)?;
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        let end = usize::from(u16::MAX);
        if column < self.column_min || column >= end {
            return Err(RowError::Column {
                min: self.column_min,
                end,
                got: column,
            });
        }
        self.column_min = column + 1;
        let tag = take(self.bytes, &mut self.at, 1)?[0];
        let code = tag & CODE_MASK;
        let storage = storage_of(code);
        let cell = match (tag & NULL_FLAG != 0, tag & OVERFLOW_FLAG != 0, storage) {
            (true, false, Storage::Fixed(_) | Storage::Var) => Cell::Null,
            (false, false, Storage::Fixed(width)) => {
                Cell::Fixed(take(self.bytes, &mut self.at, width)?)
            }
            (false, false, Storage::Var) => {
                let len = read_varint(self.bytes, &mut self.at)?;
                Cell::Var(take_len(self.bytes, &mut self.at, len)?)
            }
            (false, true, Storage::Var) => {
                Cell::Overflow(take_reference(self.bytes, &mut self.at)?)
            }
            _ => return Err(RowError::TypeCode { column, got: tag }),
        };
        Ok(Change { column, code, cell })
    }
}

impl<'c> Iterator for Changes<'c> {
    type Item = Result<Change<'c>, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let next = self.read();
        if next.is_err() {
            self.at = self.bytes.len();
        }
        Some(next)
    }
}

fn take<'b>(bytes: &'b [u8], at: &mut usize, len: usize) -> Result<&'b [u8], RowError> {
    let rest = bytes.get(*at..).unwrap_or(&[]);
    let Some(taken) = rest.get(..len) else {
        return Err(RowError::Truncated {
            at: *at,
            expected: len,
            got: rest.len(),
        });
    };
    *at += len;
    Ok(taken)
}

fn take_len<'b>(bytes: &'b [u8], at: &mut usize, len: u64) -> Result<&'b [u8], RowError> {
    take(bytes, at, usize::try_from(len).unwrap_or(usize::MAX))
}

fn take_reference<'b>(
    bytes: &'b [u8],
    at: &mut usize,
) -> Result<&'b [u8; OverflowRef::BYTES], RowError> {
    let start = *at;
    let taken = take(bytes, at, OverflowRef::BYTES)?;
    let short = RowError::Truncated {
        at: start,
        expected: OverflowRef::BYTES,
        got: taken.len(),
    };
    taken.first_chunk().ok_or(short)
}
