//! One column of a record batch while it grows.

use std::ops::Range;

use arrow_buffer::{BooleanBufferBuilder, MutableBuffer, NullBufferBuilder};
use arrow_data::ArrayData;
use arrow_schema::ArrowError;
use aurora_page::{DataType, LeafRef, PackedArray, SealedColumn, SealedData, ValueRef, VarCell};

use crate::arrow_schema::to_arrow_type;
use crate::to_arrow::{AppendError, ReadOverflow, ToArrowError};

const OFFSET_BYTES: usize = size_of::<i32>();

/// Most rows to make room for before they are there.
const EXPECTED_ROWS_MAX: usize = 1 << 16;

/// When a column takes no more rows.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    /// Bytes of varying length that it may have.
    pub(crate) var_bytes_max: usize,
    /// The batch is empty: the first row is taken whatever its size.
    pub(crate) first: bool,
}

pub(crate) struct ColumnBuilder {
    /// Index in the table.
    pub(crate) index: usize,
    pub(crate) data_type: DataType,
    nulls: NullBufferBuilder,
    values: Values,
    expected: Expected,
}

/// Room to make at once for a batch: growing step by step would copy it several times over.
#[derive(Clone, Copy)]
struct Expected {
    rows: usize,
    /// Bytes of varying length: what the last batch had.
    var_bytes: usize,
}

enum Values {
    Bool(BooleanBufferBuilder),
    Fixed {
        width: usize,
        bytes: MutableBuffer,
    },
    Var {
        offsets: MutableBuffer,
        bytes: MutableBuffer,
    },
}

impl Values {
    fn new(data_type: DataType) -> Values {
        match data_type.fixed_width() {
            Some(_) if data_type == DataType::Bool => Values::Bool(BooleanBufferBuilder::new(0)),
            Some(width) => Values::Fixed {
                width,
                bytes: MutableBuffer::new(0),
            },
            None => {
                let mut offsets = MutableBuffer::new(OFFSET_BYTES);
                offsets.push(0i32);
                Values::Var {
                    offsets,
                    bytes: MutableBuffer::new(0),
                }
            }
        }
    }
}

impl ColumnBuilder {
    pub(crate) fn new(index: usize, data_type: DataType, rows_max: usize) -> ColumnBuilder {
        ColumnBuilder {
            index,
            data_type,
            nulls: NullBufferBuilder::new(0),
            values: Values::new(data_type),
            expected: Expected {
                rows: rows_max.min(EXPECTED_ROWS_MAX),
                var_bytes: 0,
            },
        }
    }

    /// Makes room for a batch when its first rows come.
    fn start(&mut self) {
        let Expected { rows, var_bytes } = self.expected;
        match &mut self.values {
            Values::Bool(bits) if bits.is_empty() => bits.reserve(rows),
            Values::Fixed { width, bytes } if bytes.is_empty() => bytes.reserve(rows * *width),
            Values::Var { offsets, bytes } if offsets.len() == OFFSET_BYTES => {
                offsets.reserve(rows * OFFSET_BYTES);
                bytes.reserve(var_bytes);
            }
            _ => {}
        }
    }

    /// Bytes of its values, if these vary in length.
    pub(crate) fn var_bytes(&self) -> usize {
        match &self.values {
            Values::Var { bytes, .. } => bytes.len(),
            Values::Bool(_) | Values::Fixed { .. } => 0,
        }
    }

    /// Appends rows of a leaf, and gives how many were taken.
    pub(crate) fn append_slots<E>(
        &mut self,
        leaf: &LeafRef<'_>,
        slots: &[u16],
        cut: Cut,
        overflow: ReadOverflow<'_, E>,
    ) -> Result<usize, AppendError<E>> {
        self.start();
        if let Some(column) = leaf.var_column(self.index) {
            return self.append_vars(slots.iter().map(|slot| column.get(*slot)), cut, overflow);
        }
        let values = leaf.fixed_column(self.index);
        match &mut self.values {
            Values::Bool(bits) => {
                slots.iter().for_each(|slot| {
                    bits.append(
                        values
                            .get(usize::from(*slot))
                            .is_some_and(|byte| *byte != 0),
                    )
                });
            }
            Values::Fixed { width, bytes } => gather(bytes, *width, values, slots),
            Values::Var { .. } => {}
        }
        append_nulls(&mut self.nulls, leaf.null_bitmap(self.index), slots);
        Ok(slots.len())
    }

    /// Appends rows of a sealed leaf, and gives how many were taken.
    pub(crate) fn append_packed<E>(
        &mut self,
        column: &SealedColumn<'_>,
        ranks: Range<usize>,
        cut: Cut,
        overflow: ReadOverflow<'_, E>,
    ) -> Result<usize, AppendError<E>> {
        self.start();
        let count = ranks.len();
        match &mut self.values {
            Values::Var { .. } => {
                return self.append_vars(ranks.map(|rank| column.var_value(rank)), cut, overflow);
            }
            Values::Bool(bits) => ranks
                .clone()
                .for_each(|rank| bits.append(column.fixed_bits(rank) & 0xFF != 0)),
            Values::Fixed { width, bytes } => unpack(bytes, *width, column, ranks.clone()),
        }
        match column.nulls {
            Some(_) => ranks.for_each(|rank| self.nulls.append(!column.is_null(rank))),
            None => self.nulls.append_n_non_nulls(count),
        }
        Ok(count)
    }

    /// Appends a value on its own, and gives 1 if it was taken; `None` is none that the row has.
    pub(crate) fn append_value<E>(
        &mut self,
        value: Option<ValueRef<'_>>,
        cut: Cut,
        overflow: ReadOverflow<'_, E>,
    ) -> Result<usize, AppendError<E>> {
        let value = value.ok_or_else(|| self.wrong("no value".to_owned()))?;
        if let Values::Var { .. } = self.values {
            let cell = match (self.data_type, value) {
                (_, ValueRef::Null) => VarCell::Null,
                (_, ValueRef::Overflow(reference)) => VarCell::Overflow(reference),
                (DataType::Text, ValueRef::Text(text)) | (DataType::Json, ValueRef::Json(text)) => {
                    VarCell::Bytes(text.as_bytes())
                }
                (DataType::Bytes, ValueRef::Bytes(bytes)) => VarCell::Bytes(bytes),
                (_, other) => return Err(self.wrong(other.kind_name().to_owned()).into()),
            };
            return self.append_vars(std::iter::once(cell), cut, overflow);
        }
        let bits = fixed_bits(self.data_type, value)
            .ok_or_else(|| self.wrong(value.kind_name().to_owned()))?;
        match &mut self.values {
            Values::Bool(builder) => builder.append(bits != 0),
            Values::Fixed { width, bytes } => {
                bytes.extend_from_slice(&bits.to_le_bytes()[..*width])
            }
            Values::Var { .. } => {}
        }
        self.nulls.append(!value.is_null());
        Ok(1)
    }

    fn append_vars<'v, E>(
        &mut self,
        cells: impl Iterator<Item = VarCell<'v>>,
        cut: Cut,
        overflow: ReadOverflow<'_, E>,
    ) -> Result<usize, AppendError<E>> {
        let Values::Var { offsets, bytes } = &mut self.values else {
            return Ok(0);
        };
        let (mut taken, mut known) = (0, 0);
        for cell in cells {
            let fetched;
            let value: &[u8] = match cell {
                VarCell::Null => &[],
                VarCell::Bytes(value) => value,
                VarCell::Overflow(reference) => {
                    // What would not be taken is not fetched either.
                    if is_past(cut, bytes.len(), reference.len as usize, taken) {
                        break;
                    }
                    fetched = overflow(reference).map_err(AppendError::Overflow)?;
                    &fetched
                }
            };
            if is_past(cut, bytes.len(), value.len(), taken) {
                break;
            }
            bytes.extend_from_slice(value);
            offsets.push(bytes.len() as i32);
            taken += 1;
            match cell {
                VarCell::Null => {
                    self.nulls.append_n_non_nulls(std::mem::take(&mut known));
                    self.nulls.append_null();
                }
                VarCell::Bytes(_) | VarCell::Overflow(_) => known += 1,
            }
        }
        self.nulls.append_n_non_nulls(known);
        Ok(taken)
    }

    /// Forgets the rows from `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        if self.nulls.len() > rows {
            self.nulls.truncate(rows);
        }
        match &mut self.values {
            Values::Bool(bits) if bits.len() > rows => bits.truncate(rows),
            Values::Bool(_) => {}
            Values::Fixed { width, bytes } => bytes.truncate(rows * *width),
            Values::Var { offsets, bytes } => {
                offsets.truncate((rows + 1) * OFFSET_BYTES);
                let end = offsets.typed_data::<i32>().last().copied().unwrap_or(0);
                bytes.truncate(end as usize);
            }
        }
    }

    /// The array of the rows so far; the column is empty afterwards.
    pub(crate) fn finish(&mut self, rows: usize) -> Result<ArrayData, ArrowError> {
        self.expected.var_bytes = self.var_bytes();
        let nulls = self.nulls.finish();
        let values = std::mem::replace(&mut self.values, Values::new(self.data_type));
        let data = ArrayData::builder(to_arrow_type(self.data_type))
            .len(rows)
            .nulls(nulls);
        let data = match values {
            Values::Bool(bits) => data.add_buffer(bits.build().into_inner()),
            Values::Fixed { bytes, .. } => data.add_buffer(bytes.into()),
            Values::Var { offsets, bytes } => {
                data.add_buffer(offsets.into()).add_buffer(bytes.into())
            }
        };
        data.build()
    }

    #[cold]
    fn wrong(&self, got: String) -> ToArrowError {
        ToArrowError::Column {
            column: self.index,
            expected: self.data_type,
            got,
        }
    }
}

fn is_past(cut: Cut, have: usize, more: usize, taken: usize) -> bool {
    let first = cut.first && taken == 0;
    !first && have.saturating_add(more) > cut.var_bytes_max
}

/// The bits of a fixed-width value that belongs to the type, or of none.
fn fixed_bits(data_type: DataType, value: ValueRef<'_>) -> Option<u128> {
    let signed = |value: i64| Some(i128::from(value) as u128);
    match (data_type, value) {
        (_, ValueRef::Null) => Some(0),
        (DataType::Bool, ValueRef::Bool(value)) => Some(value.into()),
        (DataType::Float32, ValueRef::Float32(value)) => Some(value.to_bits().into()),
        (DataType::Float64, ValueRef::Float64(value)) => Some(value.to_bits().into()),
        (DataType::Decimal { .. }, ValueRef::Decimal(value)) => Some(value as u128),
        (DataType::Date, ValueRef::Date(value)) => signed(value.into()),
        (DataType::Time, ValueRef::Time(value))
        | (DataType::Timestamp { .. }, ValueRef::Timestamp(value)) => signed(value),
        (DataType::Uuid, ValueRef::Uuid(value)) => Some(u128::from_le_bytes(value)),
        (_, ValueRef::Int(value)) => {
            let (min, max) = data_type.int_range()?;
            if (min..=max).contains(&value) {
                signed(value)
            } else {
                None
            }
        }
        _ => None,
    }
}

fn append_nulls(nulls: &mut NullBufferBuilder, bitmap: Option<&[u8]>, slots: &[u16]) {
    let is_null = |bitmap: &[u8], slot: usize| {
        bitmap
            .get(slot / 8)
            .is_some_and(|byte| byte >> (slot % 8) & 1 == 1)
    };
    match bitmap {
        Some(bitmap) if bitmap.iter().any(|byte| *byte != 0) => {
            slots
                .iter()
                .for_each(|slot| nulls.append(!is_null(bitmap, usize::from(*slot))));
        }
        _ => nulls.append_n_non_nulls(slots.len()),
    }
}

/// Copies the values at these slots: at once where they lie side by side.
fn gather(out: &mut MutableBuffer, width: usize, values: &[u8], slots: &[u16]) {
    let Some(first) = slots.first().map(|slot| usize::from(*slot)) else {
        return;
    };
    let side_by_side = slots
        .iter()
        .enumerate()
        .all(|(index, slot)| usize::from(*slot) == first + index);
    if side_by_side && let Some(run) = values.get(first * width..(first + slots.len()) * width) {
        out.extend_from_slice(run);
        return;
    }
    match width {
        1 => gather_each::<1>(out, values, slots),
        2 => gather_each::<2>(out, values, slots),
        4 => gather_each::<4>(out, values, slots),
        8 => gather_each::<8>(out, values, slots),
        _ => gather_each::<16>(out, values, slots),
    }
}

fn gather_each<const WIDTH: usize>(out: &mut MutableBuffer, values: &[u8], slots: &[u16]) {
    let (values, _) = values.as_chunks::<WIDTH>();
    for (place, slot) in grow::<WIDTH>(out, slots.len()).iter_mut().zip(slots) {
        *place = values
            .get(usize::from(*slot))
            .copied()
            .unwrap_or([0; WIDTH]);
    }
}

/// Room for so many more values.
fn grow<const WIDTH: usize>(out: &mut MutableBuffer, count: usize) -> &mut [[u8; WIDTH]] {
    let start = out.len();
    out.resize(start + count * WIDTH, 0);
    let (places, _) = out.as_slice_mut()[start..].as_chunks_mut::<WIDTH>();
    places
}

/// Writes packed values at their full width.
fn unpack(out: &mut MutableBuffer, width: usize, column: &SealedColumn<'_>, ranks: Range<usize>) {
    if let SealedData::Packed { offsets, .. } = column.data
        && offsets.width() == width
        && let Some(plain) = offsets.bytes().get(ranks.start * width..ranks.end * width)
    {
        out.extend_from_slice(plain);
        return;
    }
    match width {
        1 => unpack_each::<1>(out, column, ranks),
        2 => unpack_each::<2>(out, column, ranks),
        4 => unpack_each::<4>(out, column, ranks),
        8 => unpack_each::<8>(out, column, ranks),
        _ => unpack_each::<16>(out, column, ranks),
    }
}

fn unpack_each<const WIDTH: usize>(
    out: &mut MutableBuffer,
    column: &SealedColumn<'_>,
    ranks: Range<usize>,
) {
    let places = grow::<WIDTH>(out, ranks.len());
    match column.data {
        SealedData::Packed { base, offsets } if WIDTH <= 8 => match offsets.width() {
            1 => widen::<WIDTH, 1>(places, base, offsets, ranks.start),
            2 => widen::<WIDTH, 2>(places, base, offsets, ranks.start),
            4 => widen::<WIDTH, 4>(places, base, offsets, ranks.start),
            _ => places.fill(low_bytes(base as u128)),
        },
        _ => places
            .iter_mut()
            .zip(ranks)
            .for_each(|(place, rank)| *place = low_bytes(column.fixed_bits(rank))),
    }
}

/// Base plus offset, for values of at most eight bytes.
fn widen<const WIDTH: usize, const FROM: usize>(
    places: &mut [[u8; WIDTH]],
    base: i128,
    offsets: PackedArray<'_>,
    start: usize,
) {
    let (offsets, _) = offsets.bytes().as_chunks::<FROM>();
    for (place, offset) in places.iter_mut().zip(offsets.iter().skip(start)) {
        let mut wide = [0; 8];
        wide[..FROM].copy_from_slice(offset);
        let value = (base as u64).wrapping_add(u64::from_le_bytes(wide));
        place.copy_from_slice(&value.to_le_bytes()[..WIDTH]);
    }
}

fn low_bytes<const WIDTH: usize>(bits: u128) -> [u8; WIDTH] {
    let mut low = [0; WIDTH];
    low.copy_from_slice(&bits.to_le_bytes()[..WIDTH]);
    low
}
