//! Packing one column: the narrowest frame of reference or dictionary, never wider than the column itself.

use super::entry::{Encoding, Entry};
use crate::bytes_at::array_at;
use crate::cell::Cell;
use crate::types::DataType;
use crate::zone::{ZONE_EMPTY, cell_zone};

/// Arrays begin at multiples of this, so that kernels load whole words.
const ALIGNMENT: usize = 8;

/// Most entries of a dictionary: codes have one or two bytes.
const DICTIONARY_MAX: usize = 1 << 16;

/// Fixed values narrower than this are not worth a dictionary.
const DICTIONARY_WIDTH_MIN: usize = 4;

/// Appends the columns' arrays to a body, each aligned.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
}

impl Body {
    /// Pads to the alignment; the offset at which the next array begins.
    pub(super) fn align(&mut self) -> u32 {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.bytes.len() as u32
    }

    fn array(&mut self, width: u8, len: usize, elements: impl Iterator<Item = u128>) -> u32 {
        let at = self.align();
        self.bytes.resize(at as usize + len * usize::from(width), 0);
        let places = &mut self.bytes[at as usize..];
        match width {
            0 => {}
            1 => places
                .iter_mut()
                .zip(elements)
                .for_each(|(place, element)| *place = element as u8),
            2 => put_each(
                places,
                elements.map(|element| (element as u16).to_le_bytes()),
            ),
            4 => put_each(
                places,
                elements.map(|element| (element as u32).to_le_bytes()),
            ),
            8 => put_each(
                places,
                elements.map(|element| (element as u64).to_le_bytes()),
            ),
            _ => put_each(places, elements.map(u128::to_le_bytes)),
        }
        at
    }

    /// A bitmap of the rows for which `is_set`; 0 if there is none.
    fn bitmap(&mut self, rows: usize, is_set: impl Fn(usize) -> bool) -> u32 {
        if !(0..rows).any(&is_set) {
            return 0;
        }
        let at = self.align();
        self.bytes.resize(at as usize + rows.div_ceil(8), 0);
        for row in (0..rows).filter(|row| is_set(*row)) {
            self.bytes[at as usize + row / 8] |= 1 << (row % 8);
        }
        at
    }
}

fn put_each<const WIDTH: usize>(places: &mut [u8], elements: impl Iterator<Item = [u8; WIDTH]>) {
    let (places, _) = places.as_chunks_mut::<WIDTH>();
    places
        .iter_mut()
        .zip(elements)
        .for_each(|(place, element)| *place = element);
}

/// Packs a column of these cells, in key order.
pub(super) fn pack(body: &mut Body, data_type: DataType, cells: &[Cell<'_>]) -> Entry {
    let mut entry = match data_type.fixed_width() {
        Some(16) => pack_fixed::<i128>(body, data_type, 16, cells),
        Some(native) => pack_fixed::<i64>(body, data_type, native, cells),
        None => pack_var(body, data_type, cells),
    };
    entry.nulls_at = body.bitmap(cells.len(), |row| cells[row] == Cell::Null);
    entry.overflow_at = body.bitmap(cells.len(), |row| matches!(cells[row], Cell::Overflow(_)));
    entry.zone = zone(data_type, cells);
    entry
}

fn zone(data_type: DataType, cells: &[Cell<'_>]) -> (u64, u64) {
    let code = data_type.code();
    let zones = cells.iter().filter_map(|cell| cell_zone(code, *cell));
    zones.fold(ZONE_EMPTY, |(min, max), (low, high)| {
        (min.min(low), max.max(high))
    })
}

/// The bytes of a fixed value as a signed number; its low bytes are the value's again.
trait Ordinal: Copy + Ord + Default + Into<i128> {
    fn of(bytes: &[u8]) -> Self;

    /// How far it is from one that is not larger.
    fn span_from(self, base: Self) -> u128;
}

impl Ordinal for i64 {
    fn of(bytes: &[u8]) -> i64 {
        match bytes.len() {
            1 => i8::from_le_bytes(array_at(bytes, 0)).into(),
            2 => i16::from_le_bytes(array_at(bytes, 0)).into(),
            4 => i32::from_le_bytes(array_at(bytes, 0)).into(),
            _ => i64::from_le_bytes(array_at(bytes, 0)),
        }
    }

    fn span_from(self, base: i64) -> u128 {
        (self.wrapping_sub(base) as u64).into()
    }
}

impl Ordinal for i128 {
    fn of(bytes: &[u8]) -> i128 {
        i128::from_le_bytes(array_at(bytes, 0))
    }

    fn span_from(self, base: i128) -> u128 {
        self.wrapping_sub(base) as u128
    }
}

fn pack_fixed<T: Ordinal>(
    body: &mut Body,
    data_type: DataType,
    native: usize,
    cells: &[Cell<'_>],
) -> Entry {
    let ordinals = ordinals::<T>(cells);
    let min = ordinals.iter().copied().min().unwrap_or_default();
    let max = ordinals.iter().copied().max().unwrap_or_default();
    let width = width_for(max.span_from(min)).min(native);
    if width >= DICTIONARY_WIDTH_MIN
        && let Some(entry) = fixed_dictionary(body, data_type, native, &ordinals, width)
    {
        return entry;
    }
    // At full width the array is the plain column, ready to be used as it is.
    let base = if width == native { T::default() } else { min };
    let mut entry = Entry::new(data_type, Encoding::Packed);
    entry.base = base.into();
    entry.width = width as u8;
    let offsets = ordinals.iter().map(|ordinal| ordinal.span_from(base));
    entry.data_at = body.array(entry.width, cells.len(), offsets);
    entry
}

/// The ordinals of all rows; a null has that of some other row, so that it widens nothing.
fn ordinals<T: Ordinal>(cells: &[Cell<'_>]) -> Vec<T> {
    let known = |cell: &Cell<'_>| match cell {
        Cell::Fixed(bytes) => Some(T::of(bytes)),
        _ => None,
    };
    let filler = cells.iter().find_map(known).unwrap_or_default();
    cells
        .iter()
        .map(|cell| known(cell).unwrap_or(filler))
        .collect()
}

fn width_for(span: u128) -> usize {
    match span {
        0 => 0,
        1..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000..=0xFFFF_FFFF => 4,
        0x1_0000_0000..=0xFFFF_FFFF_FFFF_FFFF => 8,
        _ => 16,
    }
}

fn code_width(dictionary_len: usize) -> usize {
    width_for(dictionary_len.saturating_sub(1) as u128)
}

/// The distinct values of a column in ascending order, and which of them each row has.
struct Codes<T> {
    values: Vec<T>,
    rows: Vec<u32>,
}

/// Codes of the distinct values in ascending order; `None` if there are too many to be worth it. `hash` spreads them.
fn codes<T: Ord + Copy>(
    values: impl Iterator<Item = T>,
    rows: usize,
    hash: impl Fn(T) -> u64,
) -> Option<Codes<T>> {
    const FREE: u32 = u32::MAX;
    let most = (rows / 2).clamp(1, DICTIONARY_MAX);
    // Open addressing: at most half of the places are taken.
    let bits = (2 * (most + 1)).next_power_of_two().trailing_zeros();
    let mask = (1 << bits) - 1;
    let mut places = vec![FREE; 1 << bits];
    let mut distinct: Vec<T> = Vec::new();
    let mut of_rows = Vec::with_capacity(rows);
    for value in values {
        let mut place = (hash(value) >> (64 - bits)) as usize;
        let code = loop {
            match places[place] {
                FREE => {
                    if distinct.len() == most {
                        return None;
                    }
                    places[place] = distinct.len() as u32;
                    distinct.push(value);
                    break places[place];
                }
                code if distinct[code as usize] == value => break code,
                _ => place = (place + 1) & mask,
            }
        };
        of_rows.push(code);
    }
    let mut order: Vec<u32> = (0..distinct.len() as u32).collect();
    order.sort_unstable_by_key(|code| distinct[*code as usize]);
    let mut ascending = vec![0; distinct.len()];
    for (code, rank) in order.iter().zip(0..) {
        ascending[*code as usize] = rank;
    }
    Some(Codes {
        values: order.iter().map(|code| distinct[*code as usize]).collect(),
        rows: of_rows
            .into_iter()
            .map(|code| ascending[code as usize])
            .collect(),
    })
}

fn fixed_dictionary<T: Ordinal>(
    body: &mut Body,
    data_type: DataType,
    native: usize,
    ordinals: &[T],
    packed_width: usize,
) -> Option<Entry> {
    let rows = ordinals.len();
    let hash = |ordinal: T| mix(Into::<i128>::into(ordinal) as u64);
    let codes = codes(ordinals.iter().copied(), rows, hash)?;
    let len = codes.values.len();
    let width = code_width(len);
    if rows * width + len * native >= rows * packed_width {
        return None;
    }
    let mut entry = Entry::new(data_type, Encoding::Dictionary);
    entry.width = width as u8;
    let elements = codes.rows.iter().map(|code| u128::from(*code));
    entry.data_at = body.array(entry.width, rows, elements);
    entry.dictionary_len = len as u32;
    let values = codes
        .values
        .iter()
        .map(|ordinal| Into::<i128>::into(*ordinal) as u128);
    entry.dictionary_at = body.array(native as u8, len, values);
    Some(entry)
}

fn pack_var(body: &mut Body, data_type: DataType, cells: &[Cell<'_>]) -> Entry {
    let values: Vec<Option<&[u8]>> = cells
        .iter()
        .map(|cell| match cell {
            Cell::Var(bytes) => Some(*bytes),
            Cell::Overflow(reference) => Some(&reference[..]),
            Cell::Null | Cell::Fixed(_) => None,
        })
        .collect();
    if let Some(entry) = var_dictionary(body, data_type, &values) {
        return entry;
    }
    let values: Vec<&[u8]> = values.into_iter().map(Option::unwrap_or_default).collect();
    let mut entry = Entry::new(data_type, Encoding::Var);
    entry.width = offset_width(values.iter().map(|value| value.len()).sum());
    entry.data_at = body.array(
        entry.width,
        values.len() + 1,
        offsets(values.iter().copied()),
    );
    append_bytes(body, &mut entry, values.iter().copied());
    entry
}

fn var_dictionary(body: &mut Body, data_type: DataType, values: &[Option<&[u8]>]) -> Option<Entry> {
    let rows = values.len();
    let codes = codes(values.iter().flatten().copied(), rows, hash_bytes)?;
    let len = codes.values.len();
    let plain_bytes: usize = values.iter().flatten().map(|value| value.len()).sum();
    let dictionary_bytes: usize = codes.values.iter().map(|value| value.len()).sum();
    let width = code_width(len);
    let offset_width = offset_width(dictionary_bytes);
    let plain = (rows + 1) * usize::from(offset_width) + plain_bytes;
    if rows * width + (len + 1) * usize::from(offset_width) + dictionary_bytes > plain {
        return None;
    }
    let mut entry = Entry::new(data_type, Encoding::VarDictionary);
    entry.width = width as u8;
    entry.offset_width = offset_width;
    // Nulls have no codes of their own.
    let mut known = codes.rows.iter();
    let code = |value: &Option<&[u8]>| {
        let code = value.and_then(|_| known.next());
        code.map_or(0, |code| u128::from(*code))
    };
    entry.data_at = body.array(entry.width, rows, values.iter().map(code));
    entry.dictionary_len = len as u32;
    entry.dictionary_at = body.array(offset_width, len + 1, offsets(codes.values.iter().copied()));
    append_bytes(body, &mut entry, codes.values.iter().copied());
    Some(entry)
}

/// Spreads a number over the high bits.
fn mix(number: u64) -> u64 {
    (number ^ number >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain(std::iter::once(&last));
    words.fold(bytes.len() as u64, |hash, word| {
        mix(hash.rotate_left(5) ^ u64::from_le_bytes(*word))
    })
}

/// Where each value begins, and where the last one ends.
fn offsets<'v>(values: impl Iterator<Item = &'v [u8]>) -> impl Iterator<Item = u128> {
    let ends = values.scan(0, |end, value| {
        *end += value.len();
        Some(*end as u128)
    });
    std::iter::once(0).chain(ends)
}

fn offset_width(bytes: usize) -> u8 {
    if u16::try_from(bytes).is_ok() { 2 } else { 4 }
}

fn append_bytes<'v>(body: &mut Body, entry: &mut Entry, values: impl Iterator<Item = &'v [u8]>) {
    entry.bytes_at = body.align();
    values.for_each(|value| body.bytes.extend_from_slice(value));
    entry.bytes_len = body.bytes.len() as u32 - entry.bytes_at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_hold_their_span_and_are_least() {
        for (width, bits) in [(1, 8), (2, 16), (4, 32), (8, 64)] {
            let largest = (1u128 << bits) - 1;
            assert_eq!(width_for(largest), width);
            assert_eq!(width_for(largest + 1), 2 * width);
        }
        assert_eq!(
            (width_for(0), width_for(1), width_for(u128::MAX)),
            (0, 1, 16)
        );
        assert_eq!(
            (
                code_width(0),
                code_width(1),
                code_width(256),
                code_width(257)
            ),
            (0, 0, 1, 2)
        );
        assert_eq!((offset_width(65_535), offset_width(65_536)), (2, 4));
    }

    #[test]
    fn spans_cover_the_whole_range_of_a_type() {
        assert_eq!(i64::MAX.span_from(i64::MIN), u64::MAX.into());
        assert_eq!(i128::MAX.span_from(i128::MIN), u128::MAX);
    }
}
