//! Zone maps: what a column's values in a leaf lie between, as prefixes of eight bytes that keep the order.
//!
//! A prefix never orders two values the wrong way round, but may make them equal. So a zone may only be used to leave
//! pages out: where no value can match, never to say that one does.

use crate::bytes_at::array_at;
use crate::cell::{Cell, code, fixed_value};
use crate::key::float64_to_ordered;
use crate::value::ValueRef;

/// The zone of no value at all: any value widens it.
pub(crate) const ZONE_EMPTY: (u64, u64) = (u64::MAX, 0);

const SIGN: u64 = 1 << 63;

/// The prefix of a value, to be compared with [`crate::LeafRef::zone`]: `a <= b` gives `zone_prefix(a) <= zone_prefix(b)`.
/// `None` for null, which zones leave out, and for a value in overflow pages, which could be any.
///
/// Integers, dates and times as 64-bit integers; decimals too, those outside that range as its ends; floats in the order
/// of keys; text, bytes, json and uuid by their first eight bytes.
#[inline]
pub fn zone_prefix(value: ValueRef<'_>) -> Option<u64> {
    let signed = |value: i64| Some(value as u64 ^ SIGN);
    match value {
        ValueRef::Null | ValueRef::Overflow(_) => None,
        ValueRef::Bool(value) => Some(u64::from(value)),
        ValueRef::Int(value) | ValueRef::Time(value) | ValueRef::Timestamp(value) => signed(value),
        ValueRef::Date(value) => signed(i64::from(value)),
        ValueRef::Decimal(value) => {
            signed(value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
        }
        ValueRef::Float32(value) => Some(float64_to_ordered(f64::from(value))),
        ValueRef::Float64(value) => Some(float64_to_ordered(value)),
        ValueRef::Text(text) | ValueRef::Json(text) => Some(bytes_prefix(text.as_bytes())),
        ValueRef::Bytes(bytes) => Some(bytes_prefix(bytes)),
        ValueRef::Uuid(bytes) => Some(u64::from_be_bytes(array_at(&bytes, 0))),
    }
}

/// The zone of one value in its raw form; `None` for null.
#[inline]
pub(crate) fn cell_zone(code: u8, cell: Cell<'_>) -> Option<(u64, u64)> {
    let prefix = match cell {
        Cell::Null => return None,
        Cell::Overflow(_) => return Some((0, u64::MAX)),
        Cell::Var(bytes) => bytes_prefix(bytes),
        Cell::Fixed(bytes) if code == code::UUID => u64::from_be_bytes(array_at(bytes, 0)),
        Cell::Fixed(bytes) => zone_prefix(fixed_value(code, bytes, 0))?,
    };
    Some((prefix, prefix))
}

fn bytes_prefix(bytes: &[u8]) -> u64 {
    let mut prefix = [0; 8];
    let len = bytes.len().min(8);
    prefix[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascending(values: &[ValueRef<'_>]) {
        for pair in values.windows(2) {
            assert!(zone_prefix(pair[0]) <= zone_prefix(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn prefixes_keep_the_order() {
        ascending(&[
            ValueRef::Int(i64::MIN),
            ValueRef::Int(-1),
            ValueRef::Int(0),
            ValueRef::Int(i64::MAX),
        ]);
        ascending(&[
            ValueRef::Decimal(i128::MIN),
            ValueRef::Decimal(-1),
            ValueRef::Decimal(7),
            ValueRef::Decimal(i128::MAX),
        ]);
        ascending(&[
            ValueRef::Float32(f32::NEG_INFINITY),
            ValueRef::Float32(-0.5),
            ValueRef::Float32(0.0),
            ValueRef::Float32(3.0),
            ValueRef::Float32(f32::NAN),
        ]);
        ascending(&[
            ValueRef::Text(""),
            ValueRef::Text("a"),
            ValueRef::Text("ab"),
            ValueRef::Text("abcdefghij"),
        ]);
        ascending(&[
            ValueRef::Date(i32::MIN),
            ValueRef::Date(0),
            ValueRef::Date(i32::MAX),
        ]);
        ascending(&[ValueRef::Bool(false), ValueRef::Bool(true)]);
        assert_eq!(zone_prefix(ValueRef::Null), None);
    }
}
