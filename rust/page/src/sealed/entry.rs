//! The directory of a sealed leaf: one entry per column.

use crate::bytes_at::{array_at, put, put_u16, put_u32, put_u64, slice_at, u16_at, u32_at, u64_at};
use crate::types::DataType;

/// How the values of a column are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    /// Fixed width: base plus an unsigned number of `width` bytes per row.
    Packed = 0,
    /// Fixed width: a code of `width` bytes per row, into values of full width.
    Dictionary = 1,
    /// Varying: an offset of `width` bytes per row and one at the end, into bytes.
    Var = 2,
    /// Varying: a code of `width` bytes per row, into offsets, into bytes.
    VarDictionary = 3,
}

impl Encoding {
    fn from_code(code: u8) -> Option<Encoding> {
        [
            Encoding::Packed,
            Encoding::Dictionary,
            Encoding::Var,
            Encoding::VarDictionary,
        ]
        .into_iter()
        .find(|encoding| *encoding as u8 == code)
    }

    pub(super) fn is_var(self) -> bool {
        matches!(self, Encoding::Var | Encoding::VarDictionary)
    }
}

/// Bytes of one entry.
pub(super) const ENTRY_BYTES: usize = 72;

/// Where a column lies in the body, and how. Offsets count from the body's start; 0 is nowhere, as the body
/// begins with its counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) data_type: DataType,
    pub(super) encoding: Encoding,
    /// Bytes of one element of the array at `data_at`.
    pub(super) width: u8,
    /// Bytes of one offset of a dictionary of varying values.
    pub(super) offset_width: u8,
    pub(super) id: u16,
    pub(super) data_at: u32,
    /// A bit per row, set where the value is null.
    pub(super) nulls_at: u32,
    /// A bit per row, set where the bytes are an overflow reference.
    pub(super) overflow_at: u32,
    pub(super) dictionary_at: u32,
    pub(super) dictionary_len: u32,
    pub(super) bytes_at: u32,
    pub(super) bytes_len: u32,
    pub(super) zone: (u64, u64),
    pub(super) base: i128,
}

impl Entry {
    pub(super) fn new(data_type: DataType, encoding: Encoding) -> Entry {
        Entry {
            data_type,
            encoding,
            width: 0,
            offset_width: 0,
            id: 0,
            data_at: 0,
            nulls_at: 0,
            overflow_at: 0,
            dictionary_at: 0,
            dictionary_len: 0,
            bytes_at: 0,
            bytes_len: 0,
            zone: crate::zone::ZONE_EMPTY,
            base: 0,
        }
    }

    /// Writes the entry at an offset of the body.
    pub(super) fn write(&self, body: &mut [u8], at: usize) {
        let tags = [
            self.data_type.code(),
            self.encoding as u8,
            self.width,
            self.offset_width,
        ];
        put(body, at, &tags);
        put_u16(body, at + 4, self.data_type.param());
        put_u16(body, at + 6, self.id);
        put_u32(body, at + 8, self.data_at);
        put_u32(body, at + 12, self.nulls_at);
        put_u32(body, at + 16, self.overflow_at);
        put_u32(body, at + 20, self.dictionary_at);
        put_u32(body, at + 24, self.dictionary_len);
        put_u32(body, at + 28, self.bytes_at);
        put_u32(body, at + 32, self.bytes_len);
        put_u64(body, at + 40, self.zone.0);
        put_u64(body, at + 48, self.zone.1);
        put(body, at + 56, &self.base.to_le_bytes());
    }

    /// Reads an entry; `None` if its type, encoding or widths do not exist.
    pub(super) fn read(body: &[u8], at: usize) -> Option<Entry> {
        let [code, encoding, width, offset_width] = array_at(body, at);
        let entry = Entry {
            data_type: DataType::from_code(code, u16_at(body, at + 4))?,
            encoding: Encoding::from_code(encoding)?,
            width,
            offset_width,
            id: u16_at(body, at + 6),
            data_at: u32_at(body, at + 8),
            nulls_at: u32_at(body, at + 12),
            overflow_at: u32_at(body, at + 16),
            dictionary_at: u32_at(body, at + 20),
            dictionary_len: u32_at(body, at + 24),
            bytes_at: u32_at(body, at + 28),
            bytes_len: u32_at(body, at + 32),
            zone: (u64_at(body, at + 40), u64_at(body, at + 48)),
            base: i128::from_le_bytes(array_at(body, at + 56)),
        };
        entry.widths_are_possible().then_some(entry)
    }

    fn widths_are_possible(&self) -> bool {
        let width = usize::from(self.width);
        match (self.encoding, self.data_type.fixed_width()) {
            (Encoding::Packed, Some(native)) => {
                matches!(width, 0 | 1 | 2 | 4 | 8 | 16) && width <= native
            }
            (Encoding::Dictionary, Some(_)) => matches!(width, 0..=2),
            (Encoding::Var, None) => matches!(width, 2 | 4),
            (Encoding::VarDictionary, None) => {
                matches!(width, 0..=2) && matches!(self.offset_width, 2 | 4)
            }
            _ => false,
        }
    }

    /// Whether every array lies within a body of this many bytes, for this many rows.
    pub(super) fn lies_within(&self, body_bytes: usize, rows: usize) -> bool {
        let within = |at: u32, count: usize, width: usize| {
            count
                .checked_mul(width)
                .and_then(|len| len.checked_add(at as usize))
                .is_some_and(|end| end <= body_bytes)
        };
        let bitmap_bytes = rows.div_ceil(8);
        let elements = if self.encoding == Encoding::Var {
            rows + 1
        } else {
            rows
        };
        let dictionary_len = self.dictionary_len as usize;
        let dictionary = match self.data_type.fixed_width() {
            Some(native) => within(self.dictionary_at, dictionary_len, native),
            None => within(
                self.dictionary_at,
                dictionary_len + 1,
                self.offset_width.into(),
            ),
        };
        within(self.data_at, elements, self.width.into())
            && (self.nulls_at == 0 || within(self.nulls_at, bitmap_bytes, 1))
            && (self.overflow_at == 0 || within(self.overflow_at, bitmap_bytes, 1))
            && (!matches!(
                self.encoding,
                Encoding::Dictionary | Encoding::VarDictionary
            ) || dictionary)
            && (!self.encoding.is_var() || within(self.bytes_at, self.bytes_len as usize, 1))
    }

    pub(super) fn bitmap(body: &[u8], at: u32, rows: usize) -> Option<&[u8]> {
        (at != 0).then(|| slice_at(body, at as usize, rows.div_ceil(8)))
    }
}
