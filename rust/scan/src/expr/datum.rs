//! The types of expressions, and values on the way.

use std::borrow::Cow;
use std::fmt;

use aurora_page::{DECIMAL_PRECISION_MAX, DataType, Value, ValueRef};

use super::error::EvalError;

/// The type of an expression: coarser than that of a column, as arithmetic is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A null that nothing has given a type.
    Null,
    /// True or false.
    Bool,
    /// An integer of any width.
    Int,
    /// An exact number with so many digits after the point.
    Decimal {
        /// The digits after the point.
        scale: u8,
    },
    /// A float of 64 bits; narrower ones are widened.
    Float,
    /// A date.
    Date,
    /// A time of day.
    Time,
    /// A moment.
    Timestamp {
        /// Whether it is an instant.
        zoned: bool,
    },
    /// UTF-8.
    Text,
    /// Any bytes.
    Bytes,
    /// 16 bytes.
    Uuid,
    /// A JSON document.
    Json,
}

impl Kind {
    /// The kind of a column's values.
    pub fn of(data_type: DataType) -> Kind {
        match data_type {
            DataType::Bool => Kind::Bool,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::Int,
            DataType::Float32 | DataType::Float64 => Kind::Float,
            DataType::Decimal { scale, .. } => Kind::Decimal { scale },
            DataType::Date => Kind::Date,
            DataType::Time => Kind::Time,
            DataType::Timestamp { zoned } => Kind::Timestamp { zoned },
            DataType::Text => Kind::Text,
            DataType::Bytes => Kind::Bytes,
            DataType::Uuid => Kind::Uuid,
            DataType::Json => Kind::Json,
        }
    }

    /// The widest column type of this kind; `None` for a null without type.
    pub fn data_type(self) -> Option<DataType> {
        Some(match self {
            Kind::Null => return None,
            Kind::Bool => DataType::Bool,
            Kind::Int => DataType::Int64,
            Kind::Decimal { scale } => DataType::Decimal {
                precision: DECIMAL_PRECISION_MAX,
                scale,
            },
            Kind::Float => DataType::Float64,
            Kind::Date => DataType::Date,
            Kind::Time => DataType::Time,
            Kind::Timestamp { zoned } => DataType::Timestamp { zoned },
            Kind::Text => DataType::Text,
            Kind::Bytes => DataType::Bytes,
            Kind::Uuid => DataType::Uuid,
            Kind::Json => DataType::Json,
        })
    }

    /// Digits after the point of an exact number; `None` for other kinds.
    pub fn scale(self) -> Option<u8> {
        match self {
            Kind::Int => Some(0),
            Kind::Decimal { scale } => Some(scale),
            _ => None,
        }
    }

    /// The kind that values of both can be brought to.
    pub fn unify(self, other: Kind) -> Option<Kind> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Kind::Null, kind) | (kind, Kind::Null) => Some(kind),
            (Kind::Int, Kind::Float) | (Kind::Float, Kind::Int) => Some(Kind::Float),
            (a, b) => {
                let scale = a.scale()?.max(b.scale()?);
                Some(Kind::Decimal { scale })
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Null => "null",
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Decimal { .. } => "decimal",
            Kind::Float => "float",
            Kind::Date => "date",
            Kind::Time => "time",
            Kind::Timestamp { zoned: false } => "timestamp",
            Kind::Timestamp { zoned: true } => "timestamp with zone",
            Kind::Text => "text",
            Kind::Bytes => "bytes",
            Kind::Uuid => "uuid",
            Kind::Json => "json",
        })
    }
}

/// A value during evaluation. Its kind, and an exact number's scale, are known from the expression.
#[derive(Clone, PartialEq, Debug)]
pub enum Datum<'a> {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer or the digits of a decimal.
    Exact(i128),
    /// A float.
    Float(f64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01 00:00.
    Timestamp(i64),
    /// UTF-8; of json columns too.
    Text(Cow<'a, str>),
    /// Any bytes.
    Bytes(Cow<'a, [u8]>),
    /// 16 bytes.
    Uuid([u8; 16]),
}

impl<'a> Datum<'a> {
    /// A stored value; `column` is where it lies, for the error about a value that is in overflow pages.
    pub fn load(value: ValueRef<'a>, column: usize) -> Result<Datum<'a>, EvalError> {
        Ok(match value {
            ValueRef::Null => Datum::Null,
            ValueRef::Bool(v) => Datum::Bool(v),
            ValueRef::Int(v) => Datum::Exact(v.into()),
            ValueRef::Float32(v) => Datum::Float(v.into()),
            ValueRef::Float64(v) => Datum::Float(v),
            ValueRef::Decimal(v) => Datum::Exact(v),
            ValueRef::Date(v) => Datum::Date(v),
            ValueRef::Time(v) => Datum::Time(v),
            ValueRef::Timestamp(v) => Datum::Timestamp(v),
            ValueRef::Text(v) | ValueRef::Json(v) => Datum::Text(Cow::Borrowed(v)),
            ValueRef::Bytes(v) => Datum::Bytes(Cow::Borrowed(v)),
            ValueRef::Uuid(v) => Datum::Uuid(v),
            ValueRef::Overflow(reference) => {
                return Err(EvalError::LongValue { column, reference });
            }
        })
    }

    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }

    /// The same on its own.
    pub fn into_owned(self) -> Datum<'static> {
        match self {
            Datum::Null => Datum::Null,
            Datum::Bool(v) => Datum::Bool(v),
            Datum::Exact(v) => Datum::Exact(v),
            Datum::Float(v) => Datum::Float(v),
            Datum::Date(v) => Datum::Date(v),
            Datum::Time(v) => Datum::Time(v),
            Datum::Timestamp(v) => Datum::Timestamp(v),
            Datum::Text(v) => Datum::Text(Cow::Owned(v.into_owned())),
            Datum::Bytes(v) => Datum::Bytes(Cow::Owned(v.into_owned())),
            Datum::Uuid(v) => Datum::Uuid(v),
        }
    }

    /// As a value of a column of this type, which is of the datum's kind and scale. An integer that the type does not hold, or a
    /// decimal of too many digits, is an error.
    pub fn into_value(self, data_type: DataType) -> Result<Value, EvalError> {
        let out_of_range = |got: &str| EvalError::OutOfRange {
            expected: format!("a result that fits {data_type}"),
            got: got.into(),
        };
        Ok(match (self, data_type) {
            (Datum::Null, _) => Value::Null,
            (Datum::Bool(v), _) => Value::Bool(v),
            (Datum::Exact(v), DataType::Decimal { precision, .. }) => {
                if v.unsigned_abs() > aurora_page::decimal_max(precision).unsigned_abs() {
                    return Err(out_of_range("more digits than the column has"));
                }
                Value::Decimal(v)
            }
            (Datum::Exact(v), _) => {
                let (min, max) = data_type.int_range().unwrap_or((i64::MIN, i64::MAX));
                let v =
                    i64::try_from(v).map_err(|_| out_of_range("an int of more than 64 bits"))?;
                if !(min..=max).contains(&v) {
                    return Err(out_of_range("an int outside its range"));
                }
                Value::Int(v)
            }
            (Datum::Float(v), DataType::Float32) => Value::Float32(v as f32),
            (Datum::Float(v), _) => Value::Float64(v),
            (Datum::Date(v), _) => Value::Date(v),
            (Datum::Time(v), _) => Value::Time(v),
            (Datum::Timestamp(v), _) => Value::Timestamp(v),
            (Datum::Text(v), DataType::Json) => Value::Json(v.into_owned()),
            (Datum::Text(v), _) => Value::Text(v.into_owned()),
            (Datum::Bytes(v), _) => Value::Bytes(v.into_owned()),
            (Datum::Uuid(v), _) => Value::Uuid(v),
        })
    }
}
