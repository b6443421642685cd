//! A value as it lies in a row or a leaf: raw bytes, told apart only by how they are stored.

use crate::bytes_at::array_at;
use crate::error::RowError;
use crate::types::DataType;
use crate::value::{OverflowRef, ValueRef};

/// The raw form of one value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Cell<'a> {
    Null,
    /// Little-endian, of the type's width.
    Fixed(&'a [u8]),
    /// The bytes of a text, bytes or json value.
    Var(&'a [u8]),
    /// An [`OverflowRef`].
    Overflow(&'a [u8; OverflowRef::BYTES]),
}

pub(crate) mod code {
    //! Type codes as constants to match on; [`crate::DataType::code`] is where they are defined.
    use crate::types::DataType;

    pub(crate) const BOOL: u8 = DataType::Bool.code();
    pub(crate) const INT8: u8 = DataType::Int8.code();
    pub(crate) const INT16: u8 = DataType::Int16.code();
    pub(crate) const INT32: u8 = DataType::Int32.code();
    pub(crate) const INT64: u8 = DataType::Int64.code();
    pub(crate) const FLOAT32: u8 = DataType::Float32.code();
    pub(crate) const FLOAT64: u8 = DataType::Float64.code();
    pub(crate) const DECIMAL: u8 = DataType::Decimal {
        precision: 1,
        scale: 0,
    }
    .code();
    pub(crate) const DATE: u8 = DataType::Date.code();
    pub(crate) const TIME: u8 = DataType::Time.code();
    pub(crate) const TIMESTAMP: u8 = DataType::Timestamp { zoned: false }.code();
    pub(crate) const TEXT: u8 = DataType::Text.code();
    pub(crate) const BYTES: u8 = DataType::Bytes.code();
    pub(crate) const UUID: u8 = DataType::Uuid.code();
    pub(crate) const JSON: u8 = DataType::Json.code();
}

/// How values of a type code are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Storage {
    /// There is no such code.
    Unknown,
    /// So many bytes in place.
    Fixed(usize),
    /// In the heap.
    Var,
}

const STORAGES: [Storage; 64] = {
    let mut storages = [Storage::Unknown; 64];
    let mut code = 0;
    while code < storages.len() {
        // The parameter does not decide the storage, but decimals have none without a precision.
        let param = if code as u8 == code::DECIMAL { 1 } else { 0 };
        if let Some(data_type) = DataType::from_code(code as u8, param) {
            storages[code] = match data_type.fixed_width() {
                Some(width) => Storage::Fixed(width),
                None => Storage::Var,
            };
        }
        code += 1;
    }
    storages
};

/// How values of a type code are stored.
#[inline(always)]
pub(crate) fn storage_of(code: u8) -> Storage {
    STORAGES
        .get(usize::from(code))
        .copied()
        .unwrap_or(Storage::Unknown)
}

/// Bytes of a value with this type code, `None` where they vary.
#[inline(always)]
pub(crate) fn width_of(code: u8) -> Option<usize> {
    match storage_of(code) {
        Storage::Fixed(width) => Some(width),
        Storage::Var | Storage::Unknown => None,
    }
}

impl<'a> Cell<'a> {
    /// Bytes needed in the heap of a leaf.
    #[inline]
    pub(crate) fn heap_bytes(self) -> usize {
        match self {
            Cell::Null | Cell::Fixed(_) => 0,
            Cell::Var(bytes) => bytes.len(),
            Cell::Overflow(_) => OverflowRef::BYTES,
        }
    }

    /// Checks what the form alone does not guarantee: text is UTF-8, a bool is 0 or 1.
    #[inline]
    pub(crate) fn check(self, column: usize, code: u8) -> Result<(), RowError> {
        match self {
            Cell::Fixed(_) if code != code::BOOL => Ok(()),
            Cell::Var(_) if code == code::BYTES => Ok(()),
            _ => self.value(column, code).map(|_| ()),
        }
    }

    /// The value, for the column's type code.
    pub(crate) fn value(self, column: usize, code: u8) -> Result<ValueRef<'a>, RowError> {
        match self {
            Cell::Null => Ok(ValueRef::Null),
            Cell::Overflow(reference) => {
                Ok(ValueRef::Overflow(OverflowRef::from_bytes(*reference)))
            }
            Cell::Fixed(&[got]) if code == code::BOOL && got > 1 => {
                Err(RowError::Bool { column, got })
            }
            Cell::Fixed(bytes) => Ok(fixed_value(code, bytes, 0)),
            Cell::Var(bytes) if code == code::BYTES => Ok(ValueRef::Bytes(bytes)),
            Cell::Var(bytes) => {
                let text = std::str::from_utf8(bytes);
                let text = text.map_err(|error| RowError::Utf8 {
                    column,
                    at: error.valid_up_to(),
                })?;
                Ok(if code == code::JSON {
                    ValueRef::Json(text)
                } else {
                    ValueRef::Text(text)
                })
            }
        }
    }
}

/// The fixed-width value of this type code at an offset.
#[inline(always)]
pub(crate) fn fixed_value(code: u8, bytes: &[u8], at: usize) -> ValueRef<'static> {
    match code {
        code::INT64 => ValueRef::Int(i64::from_le_bytes(array_at(bytes, at))),
        code::INT32 => ValueRef::Int(i64::from(i32::from_le_bytes(array_at(bytes, at)))),
        code::INT16 => ValueRef::Int(i64::from(i16::from_le_bytes(array_at(bytes, at)))),
        code::INT8 => ValueRef::Int(i64::from(i8::from_le_bytes(array_at(bytes, at)))),
        code::BOOL => ValueRef::Bool(array_at::<1>(bytes, at)[0] != 0),
        code::FLOAT32 => ValueRef::Float32(f32::from_le_bytes(array_at(bytes, at))),
        code::FLOAT64 => ValueRef::Float64(f64::from_le_bytes(array_at(bytes, at))),
        code::DECIMAL => ValueRef::Decimal(i128::from_le_bytes(array_at(bytes, at))),
        code::DATE => ValueRef::Date(i32::from_le_bytes(array_at(bytes, at))),
        code::TIME => ValueRef::Time(i64::from_le_bytes(array_at(bytes, at))),
        code::TIMESTAMP => ValueRef::Timestamp(i64::from_le_bytes(array_at(bytes, at))),
        code::UUID => ValueRef::Uuid(array_at(bytes, at)),
        _ => ValueRef::Null,
    }
}

/// The raw form of a value in a column of this type; `fixed` is where a fixed-width one is put.
///
/// # Panics
/// If the value is not of the type.
pub(crate) fn cell_of<'a>(
    data_type: DataType,
    value: ValueRef<'a>,
    fixed: &'a mut [u8; 16],
) -> Cell<'a> {
    let width = data_type.fixed_width();
    let source: i128 = match (data_type, value) {
        (_, ValueRef::Null) => return Cell::Null,
        (DataType::Text, ValueRef::Text(text)) | (DataType::Json, ValueRef::Json(text)) => {
            return Cell::Var(text.as_bytes());
        }
        (DataType::Bytes, ValueRef::Bytes(bytes)) => return Cell::Var(bytes),
        (_, ValueRef::Overflow(reference)) if width.is_none() => {
            *fixed = reference.to_bytes();
            return Cell::Overflow(fixed);
        }
        (DataType::Uuid, ValueRef::Uuid(bytes)) => i128::from_le_bytes(bytes),
        (DataType::Bool, ValueRef::Bool(value)) => i128::from(value),
        (DataType::Float32, ValueRef::Float32(value)) => i128::from(value.to_bits()),
        (DataType::Float64, ValueRef::Float64(value)) => i128::from(value.to_bits()),
        (DataType::Decimal { .. }, ValueRef::Decimal(value)) => value,
        (DataType::Date, ValueRef::Date(value)) => i128::from(value),
        (DataType::Time, ValueRef::Time(value)) => i128::from(value),
        (DataType::Timestamp { .. }, ValueRef::Timestamp(value)) => i128::from(value),
        (_, ValueRef::Int(value)) if fits_int(data_type, value) => i128::from(value),
        _ => panic!(
            "a value of kind {} for a column of type {data_type}",
            value.kind_name()
        ),
    };
    *fixed = source.to_le_bytes();
    Cell::Fixed(&fixed[..width.unwrap_or(0)])
}

fn fits_int(data_type: DataType, value: i64) -> bool {
    data_type
        .int_range()
        .is_some_and(|(min, max)| min <= value && value <= max)
}
