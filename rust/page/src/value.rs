//! Values: owned, and borrowed from a page or a row.

use crate::ids::PageId;

/// Where a value too large for its page lies: a chain of overflow pages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OverflowRef {
    /// First page of the chain.
    pub first: PageId,
    /// Bytes of the whole value.
    pub len: u64,
}

impl OverflowRef {
    /// Bytes of a reference in a row or a page.
    pub const BYTES: usize = 16;

    /// The bytes of the reference: first page, length.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// The reference in these bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> OverflowRef {
        let (first, len) = bytes.split_at(8);
        let number = |half: &[u8]| {
            half.iter()
                .rev()
                .fold(0, |n, &byte| n << 8 | u64::from(byte))
        };
        OverflowRef {
            first: PageId(number(first)),
            len: number(len),
        }
    }
}

/// One value of one column.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// Any of int8 to int64; the column's type bounds it.
    Int(i64),
    /// IEEE 754, 32 bits.
    Float32(f32),
    /// IEEE 754, 64 bits.
    Float64(f64),
    /// The unscaled integer; the column's type holds the scale.
    Decimal(i128),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01 00:00, in UTC if the column is zoned.
    Timestamp(i64),
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Bytes(Vec<u8>),
    /// 16 bytes.
    Uuid([u8; 16]),
    /// A JSON document as UTF-8.
    Json(String),
    /// The value of a text, bytes or json column, kept in overflow pages. Only the engine makes it.
    Overflow(OverflowRef),
}

/// A [`Value`] borrowed from where it lies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ValueRef<'a> {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// Any of int8 to int64.
    Int(i64),
    /// IEEE 754, 32 bits.
    Float32(f32),
    /// IEEE 754, 64 bits.
    Float64(f64),
    /// The unscaled integer.
    Decimal(i128),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01 00:00.
    Timestamp(i64),
    /// UTF-8.
    Text(&'a str),
    /// Any bytes.
    Bytes(&'a [u8]),
    /// 16 bytes.
    Uuid([u8; 16]),
    /// A JSON document as UTF-8.
    Json(&'a str),
    /// The value lies in overflow pages.
    Overflow(OverflowRef),
}

impl Value {
    /// The same value, borrowed.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Null => ValueRef::Null,
            Value::Bool(v) => ValueRef::Bool(*v),
            Value::Int(v) => ValueRef::Int(*v),
            Value::Float32(v) => ValueRef::Float32(*v),
            Value::Float64(v) => ValueRef::Float64(*v),
            Value::Decimal(v) => ValueRef::Decimal(*v),
            Value::Date(v) => ValueRef::Date(*v),
            Value::Time(v) => ValueRef::Time(*v),
            Value::Timestamp(v) => ValueRef::Timestamp(*v),
            Value::Text(v) => ValueRef::Text(v),
            Value::Bytes(v) => ValueRef::Bytes(v),
            Value::Uuid(v) => ValueRef::Uuid(*v),
            Value::Json(v) => ValueRef::Json(v),
            Value::Overflow(v) => ValueRef::Overflow(*v),
        }
    }

    /// Whether this is [`Value::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}

impl ValueRef<'_> {
    /// The same value, owned.
    pub fn to_owned(self) -> Value {
        match self {
            ValueRef::Null => Value::Null,
            ValueRef::Bool(v) => Value::Bool(v),
            ValueRef::Int(v) => Value::Int(v),
            ValueRef::Float32(v) => Value::Float32(v),
            ValueRef::Float64(v) => Value::Float64(v),
            ValueRef::Decimal(v) => Value::Decimal(v),
            ValueRef::Date(v) => Value::Date(v),
            ValueRef::Time(v) => Value::Time(v),
            ValueRef::Timestamp(v) => Value::Timestamp(v),
            ValueRef::Text(v) => Value::Text(v.into()),
            ValueRef::Bytes(v) => Value::Bytes(v.into()),
            ValueRef::Uuid(v) => Value::Uuid(v),
            ValueRef::Json(v) => Value::Json(v.into()),
            ValueRef::Overflow(v) => Value::Overflow(v),
        }
    }

    /// Whether this is [`ValueRef::Null`].
    pub fn is_null(self) -> bool {
        matches!(self, ValueRef::Null)
    }

    /// What kind of value this is, for messages.
    pub fn kind_name(self) -> &'static str {
        match self {
            ValueRef::Null => "null",
            ValueRef::Bool(_) => "bool",
            ValueRef::Int(_) => "int",
            ValueRef::Float32(_) => "float32",
            ValueRef::Float64(_) => "float64",
            ValueRef::Decimal(_) => "decimal",
            ValueRef::Date(_) => "date",
            ValueRef::Time(_) => "time",
            ValueRef::Timestamp(_) => "timestamp",
            ValueRef::Text(_) => "text",
            ValueRef::Bytes(_) => "bytes",
            ValueRef::Uuid(_) => "uuid",
            ValueRef::Json(_) => "json",
            ValueRef::Overflow(_) => "overflow",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrowed_and_owned_agree() {
        let reference = OverflowRef {
            first: PageId(0x0102_0304_0506_0708),
            len: 9,
        };
        let values = [
            Value::Null,
            Value::Bool(true),
            Value::Int(-1),
            Value::Float32(0.5),
            Value::Float64(-0.25),
            Value::Decimal(i128::MIN),
            Value::Date(-3),
            Value::Time(4),
            Value::Timestamp(5),
            Value::Text("é".into()),
            Value::Bytes(vec![0, 255]),
            Value::Uuid([7; 16]),
            Value::Json("{}".into()),
            Value::Overflow(reference),
        ];
        for value in values {
            assert_eq!(value.as_ref().to_owned(), value);
        }
        assert_eq!(OverflowRef::from_bytes(reference.to_bytes()), reference);
    }
}
