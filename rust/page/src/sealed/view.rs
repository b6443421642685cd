//! Reading a sealed leaf in place.

use std::borrow::Cow;

use super::entry::{ENTRY_BYTES, Encoding, Entry};
use super::frame::{self, SealedHeader};
use super::{CAPACITY_AT, COLUMNS_AT, ENTRIES_AT, LAYOUT_BYTES_AT, ROWS_AT};
use crate::bytes_at::{array_at, bit_at, slice_at, u16_at, u32_at};
use crate::cell::{Cell, fixed_value};
use crate::error::PageError;
use crate::ids::PageId;
use crate::leaf::VarCell;
use crate::page::PageKind;
use crate::row::Columns;
use crate::types::DataType;
use crate::value::{OverflowRef, ValueRef};

/// An array of unsigned little-endian numbers of 0, 1, 2, 4, 8 or 16 bytes. Of width 0 all are 0.
///
/// The bytes begin at a multiple of 8 of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackedArray<'a> {
    width: usize,
    bytes: &'a [u8],
}

impl<'a> PackedArray<'a> {
    /// Bytes of one number.
    #[inline]
    pub fn width(&self) -> usize {
        self.width
    }

    /// All of them.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// One number; 0 outside the array.
    #[inline]
    pub fn get(&self, index: usize) -> u128 {
        match self.width {
            0 => 0,
            1 => array_at::<1>(self.bytes, index)[0].into(),
            2 => u16_at(self.bytes, index * 2).into(),
            4 => u32_at(self.bytes, index * 4).into(),
            8 => u64::from_le_bytes(array_at(self.bytes, index * 8)).into(),
            _ => u128::from_le_bytes(array_at(self.bytes, index * 16)),
        }
    }

    #[inline]
    fn index(&self, index: usize) -> usize {
        self.get(index) as usize
    }
}

/// How the values of a column lie, by rank. What a null row holds is any value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealedData<'a> {
    /// The low bytes of `base + offsets[rank]`, as many as the type has, are the value's bytes, little-endian. For
    /// integers, dates, times and decimals `base` is the smallest value. Where the offsets are as wide as the type,
    /// `base` is 0 and they are the values themselves; where they have no width, the column is constant.
    Packed {
        /// Added to every offset, wrapping.
        base: i128,
        /// One per row.
        offsets: PackedArray<'a>,
    },
    /// `values[codes[rank]]`, where `values` are as wide as the type and differ.
    Dictionary {
        /// One per row.
        codes: PackedArray<'a>,
        /// In ascending order as signed integers.
        values: PackedArray<'a>,
        /// Number of values.
        len: usize,
    },
    /// `bytes[offsets[rank]..offsets[rank + 1]]`.
    Var {
        /// One per row, and the end.
        offsets: PackedArray<'a>,
        /// The values one after the other.
        bytes: &'a [u8],
    },
    /// `bytes[offsets[code]..offsets[code + 1]]` where `code = codes[rank]`.
    VarDictionary {
        /// One per row.
        codes: PackedArray<'a>,
        /// One per distinct value, and the end.
        offsets: PackedArray<'a>,
        /// The distinct values one after the other, in ascending order.
        bytes: &'a [u8],
        /// Number of distinct values.
        len: usize,
    },
}

/// One column of a sealed leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedColumn<'a> {
    /// The id of the column in the schema.
    pub id: u16,
    /// Its type.
    pub data_type: DataType,
    /// Bounds of the values as by [`crate::LeafRef::zone`], here exact.
    pub zone: (u64, u64),
    /// A bit per row, set where the value is null; `None` if none is.
    pub nulls: Option<&'a [u8]>,
    /// A bit per row, set where the bytes are those of an [`OverflowRef`]; `None` if none are.
    pub overflow: Option<&'a [u8]>,
    /// The values.
    pub data: SealedData<'a>,
}

impl<'a> SealedColumn<'a> {
    /// Whether the value at a rank is null.
    #[inline]
    pub fn is_null(&self, rank: usize) -> bool {
        self.nulls.is_some_and(|nulls| bit_at(nulls, 0, rank))
    }

    /// Whether the bytes at a rank are an overflow reference.
    #[inline]
    pub fn is_overflow(&self, rank: usize) -> bool {
        self.overflow
            .is_some_and(|overflow| bit_at(overflow, 0, rank))
    }

    /// The bytes at a rank of a fixed-width column, in the low bytes of the number; nulls as they come.
    #[inline]
    pub fn fixed_bits(&self, rank: usize) -> u128 {
        match self.data {
            SealedData::Packed { base, offsets } => (base as u128).wrapping_add(offsets.get(rank)),
            SealedData::Dictionary { codes, values, .. } => values.get(codes.index(rank)),
            SealedData::Var { .. } | SealedData::VarDictionary { .. } => 0,
        }
    }

    /// The bytes at a rank of a column of varying length; none for nulls.
    #[inline]
    pub fn var_bytes(&self, rank: usize) -> &'a [u8] {
        let (offsets, index, bytes) = match self.data {
            SealedData::Var { offsets, bytes } => (offsets, rank, bytes),
            SealedData::VarDictionary {
                codes,
                offsets,
                bytes,
                ..
            } => (offsets, codes.index(rank), bytes),
            SealedData::Packed { .. } | SealedData::Dictionary { .. } => return &[],
        };
        bytes
            .get(offsets.index(index)..offsets.index(index + 1))
            .unwrap_or(&[])
    }

    /// The value at a rank.
    pub fn value(&self, rank: usize) -> ValueRef<'a> {
        if self.is_null(rank) {
            return ValueRef::Null;
        }
        let code = self.data_type.code();
        if self.data_type.fixed_width().is_some() {
            return fixed_value(code, &self.fixed_bits(rank).to_le_bytes(), 0);
        }
        match (self.var_cell(rank), self.data_type) {
            // As in a plain leaf, writers let only UTF-8 in; `unseal` refuses what else is found.
            (cell, DataType::Json) => cell.value(0, code).unwrap_or(ValueRef::Json("\u{FFFD}")),
            (cell, _) => cell.value(0, code).unwrap_or(ValueRef::Text("\u{FFFD}")),
        }
    }

    /// The raw form of the value at a rank; one of fixed width is put into `fixed`.
    pub(super) fn cell<'c>(&self, rank: usize, fixed: &'c mut [u8; 16]) -> Cell<'c>
    where
        'a: 'c,
    {
        if self.is_null(rank) {
            return Cell::Null;
        }
        match self.data_type.fixed_width() {
            Some(width) => {
                *fixed = self.fixed_bits(rank).to_le_bytes();
                Cell::Fixed(&fixed[..width])
            }
            None => self.var_cell(rank),
        }
    }

    /// The value at a rank of a column of varying length, whatever its bytes mean.
    #[inline]
    pub fn var_value(&self, rank: usize) -> VarCell<'a> {
        if self.is_null(rank) {
            VarCell::Null
        } else {
            VarCell::of(self.var_cell(rank))
        }
    }

    #[inline]
    fn var_cell(&self, rank: usize) -> Cell<'a> {
        let bytes = self.var_bytes(rank);
        match bytes.first_chunk::<{ OverflowRef::BYTES }>() {
            Some(reference) if self.is_overflow(rank) => Cell::Overflow(reference),
            _ => Cell::Var(bytes),
        }
    }
}

/// A sealed leaf, ready to be read: rows by rank, columns as they are packed.
#[derive(Clone, Debug)]
pub struct SealedRef<'a> {
    header: SealedHeader,
    body: Cow<'a, [u8]>,
    rows: usize,
    capacity: u16,
    columns: usize,
}

impl<'a> SealedRef<'a> {
    /// Checks a sealed leaf [7] and prepares it for reading. A compressed body is decompressed here, any other is read
    /// in place.
    pub fn new(bytes: &'a [u8], id: PageId) -> Result<SealedRef<'a>, PageError> {
        let (header, body) = frame::read(bytes, id)?;
        SealedRef::of_body(header, body)
    }

    pub(super) fn of_body(
        header: SealedHeader,
        body: Cow<'a, [u8]>,
    ) -> Result<SealedRef<'a>, PageError> {
        if header.kind != PageKind::Leaf {
            return Err(PageError::Kind {
                page: header.id,
                expected: PageKind::Leaf,
                got: header.kind,
            });
        }
        let rows = u32_at(&body, ROWS_AT) as usize;
        let columns = usize::from(u16_at(&body, COLUMNS_AT));
        let sealed = SealedRef {
            header,
            rows,
            capacity: u16_at(&body, CAPACITY_AT),
            columns,
            body,
        };
        sealed.check()?;
        Ok(sealed)
    }

    /// After this, every column can be read.
    fn check(&self) -> Result<(), PageError> {
        let corrupt = |what, expected: usize, got: usize| {
            let (expected, got) = (expected as u64, got as u64);
            PageError::Corrupt {
                page: self.header.id,
                what,
                expected,
                got,
            }
        };
        let capacity = usize::from(self.capacity);
        if self.rows > capacity {
            return Err(corrupt(
                "rows of a sealed leaf, at most its capacity",
                capacity,
                self.rows,
            ));
        }
        let layout_end = self.layout_at() + u32_at(&self.body, LAYOUT_BYTES_AT) as usize;
        if layout_end > self.body.len() {
            return Err(corrupt(
                "end of a sealed leaf's layout, at most the body's",
                self.body.len(),
                layout_end,
            ));
        }
        let readable = |column: &usize| {
            Entry::read(&self.body, entry_at(*column))
                .is_some_and(|e| e.lies_within(self.body.len(), self.rows))
        };
        match (0..self.columns).find(|column| !readable(column)) {
            Some(column) => Err(corrupt(
                "readable columns of a sealed leaf",
                self.columns,
                column,
            )),
            None => Ok(()),
        }
    }

    /// What page it is.
    pub fn header(&self) -> &SealedHeader {
        &self.header
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The most rows that the plain leaf can have.
    pub fn capacity(&self) -> u16 {
        self.capacity
    }

    /// Columns.
    pub fn column_count(&self) -> usize {
        self.columns
    }

    /// A column by its index.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn column(&self, column: usize) -> SealedColumn<'_> {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        match Entry::read(&self.body, entry_at(column)) {
            Some(entry) => view(&entry, &self.body, self.rows),
            // `check` has read every entry.
            None => unreachable!("column {column} was readable when the page was checked"),
        }
    }

    /// The value of a column at a rank.
    pub fn value(&self, rank: usize, column: usize) -> ValueRef<'_> {
        self.column(column).value(rank)
    }

    /// The layout that the plain leaf was formatted with.
    pub fn layout(&self) -> &[u8] {
        slice_at(
            &self.body,
            self.layout_at(),
            u32_at(&self.body, LAYOUT_BYTES_AT) as usize,
        )
    }

    /// Bytes of the body, uncompressed.
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The same, on its own.
    pub fn into_owned(self) -> SealedRef<'static> {
        let SealedRef {
            header,
            body,
            rows,
            capacity,
            columns,
        } = self;
        SealedRef {
            header,
            body: Cow::Owned(body.into_owned()),
            rows,
            capacity,
            columns,
        }
    }

    fn layout_at(&self) -> usize {
        entry_at(self.columns)
    }
}

impl Columns for SealedRef<'_> {
    fn column_count(&self) -> usize {
        self.columns
    }

    fn column_type(&self, column: usize) -> DataType {
        self.column(column).data_type
    }
}

pub(super) fn entry_at(column: usize) -> usize {
    ENTRIES_AT + column * ENTRY_BYTES
}

fn view<'b>(entry: &Entry, body: &'b [u8], rows: usize) -> SealedColumn<'b> {
    let array = |at: u32, count: usize, width: usize| PackedArray {
        width,
        bytes: slice_at(body, at as usize, count * width),
    };
    let data = |count| array(entry.data_at, count, entry.width.into());
    let len = entry.dictionary_len as usize;
    let bytes = || slice_at(body, entry.bytes_at as usize, entry.bytes_len as usize);
    let data = match entry.encoding {
        Encoding::Packed => SealedData::Packed {
            base: entry.base,
            offsets: data(rows),
        },
        Encoding::Dictionary => {
            let native = entry.data_type.fixed_width().unwrap_or(0);
            SealedData::Dictionary {
                codes: data(rows),
                values: array(entry.dictionary_at, len, native),
                len,
            }
        }
        Encoding::Var => SealedData::Var {
            offsets: data(rows + 1),
            bytes: bytes(),
        },
        Encoding::VarDictionary => {
            let offsets = array(entry.dictionary_at, len + 1, entry.offset_width.into());
            SealedData::VarDictionary {
                codes: data(rows),
                offsets,
                bytes: bytes(),
                len,
            }
        }
    };
    SealedColumn {
        id: entry.id,
        data_type: entry.data_type,
        zone: entry.zone,
        nulls: Entry::bitmap(body, entry.nulls_at, rows),
        overflow: Entry::bitmap(body, entry.overflow_at, rows),
        data,
    }
}
