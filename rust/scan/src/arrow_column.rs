//! One column of a record batch, read as values of one of our types.

use std::fmt::Display;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrowPrimitiveType, PrimitiveArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType as Arrow, TimeUnit};
use aurora_page::{DataType, ValueRef};

/// Reads the value of a row that is not null; says what is there if it is no value of the type.
type Read<'a> = Box<dyn Fn(usize) -> Result<ValueRef<'a>, String> + Send + Sync + 'a>;

/// A column bound to the type it is read as.
pub(crate) struct Source<'a> {
    nulls: Option<&'a NullBuffer>,
    read: Read<'a>,
}

impl<'a> Source<'a> {
    /// The column that holds nothing.
    pub(crate) fn nothing() -> Source<'a> {
        Source {
            nulls: None,
            read: Box::new(|_| Ok(ValueRef::Null)),
        }
    }

    /// The value of a row.
    #[inline]
    pub(crate) fn value(&self, row: usize) -> Result<ValueRef<'a>, String> {
        match self.nulls {
            Some(nulls) if nulls.is_null(row) => Ok(ValueRef::Null),
            _ => (self.read)(row),
        }
    }
}

/// Reads `array` as values of `data_type`; `None` if its type cannot hold any.
pub(crate) fn source<'a>(data_type: DataType, array: &'a dyn Array) -> Option<Source<'a>> {
    let read = match array.data_type() {
        Arrow::Null => return Some(Source::nothing()),
        Arrow::Dictionary(..) => dictionary(data_type, array)?,
        _ => match data_type {
            DataType::Bool => {
                let array = array.as_boolean_opt()?;
                Box::new(move |row| Ok(ValueRef::Bool(array.value(row))))
            }
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => int(array)?,
            DataType::Float32 => float32(array)?,
            DataType::Float64 => float64(array)?,
            DataType::Decimal { scale, .. } => decimal(array, scale)?,
            DataType::Date => date(array)?,
            DataType::Time => time(array)?,
            DataType::Timestamp { zoned } => timestamp(array, zoned)?,
            DataType::Text => strings(array, ValueRef::Text)?,
            DataType::Json => strings(array, ValueRef::Json)?,
            DataType::Bytes => bytes(array)?,
            DataType::Uuid => uuid(array)?,
        },
    };
    Some(Source {
        nulls: array.nulls(),
        read,
    })
}

/// Reads a primitive array through a conversion.
fn primitive<'a, T, F>(array: &'a dyn Array, convert: F) -> Read<'a>
where
    T: ArrowPrimitiveType,
    F: Fn(T::Native) -> Result<ValueRef<'a>, String> + Send + Sync + 'a,
{
    let array: &'a PrimitiveArray<T> = array.as_primitive();
    let values: &'a [T::Native] = array.values();
    Box::new(move |row| convert(values[row]))
}

fn dictionary<'a>(data_type: DataType, array: &'a dyn Array) -> Option<Read<'a>> {
    let dictionary = array.as_any_dictionary_opt()?;
    let values = source(data_type, dictionary.values().as_ref())?;
    // One index per row, widened once; what a null row holds is not read.
    let keys = dictionary.normalized_keys();
    Some(Box::new(move |row| values.value(keys[row])))
}

fn int<'a>(array: &'a dyn Array) -> Option<Read<'a>> {
    fn widened<'a, T: ArrowPrimitiveType<Native: Into<i64>>>(array: &'a dyn Array) -> Read<'a> {
        primitive::<T, _>(array, |value| Ok(ValueRef::Int(value.into())))
    }
    Some(match array.data_type() {
        Arrow::Int8 => widened::<Int8Type>(array),
        Arrow::Int16 => widened::<Int16Type>(array),
        Arrow::Int32 => widened::<Int32Type>(array),
        Arrow::Int64 => widened::<Int64Type>(array),
        Arrow::UInt8 => widened::<UInt8Type>(array),
        Arrow::UInt16 => widened::<UInt16Type>(array),
        Arrow::UInt32 => widened::<UInt32Type>(array),
        Arrow::UInt64 => primitive::<UInt64Type, _>(array, |value| {
            i64::try_from(value)
                .map(ValueRef::Int)
                .map_err(|_| format!("int {value}"))
        }),
        _ => return None,
    })
}

fn float32<'a>(array: &'a dyn Array) -> Option<Read<'a>> {
    Some(match array.data_type() {
        Arrow::Float16 => {
            primitive::<Float16Type, _>(array, |value| Ok(ValueRef::Float32(value.to_f32())))
        }
        Arrow::Float32 => primitive::<Float32Type, _>(array, |value| Ok(ValueRef::Float32(value))),
        _ => return None,
    })
}

fn float64<'a>(array: &'a dyn Array) -> Option<Read<'a>> {
    Some(match array.data_type() {
        Arrow::Float16 => {
            primitive::<Float16Type, _>(array, |value| Ok(ValueRef::Float64(value.to_f64())))
        }
        Arrow::Float32 => {
            primitive::<Float32Type, _>(array, |value| Ok(ValueRef::Float64(value.into())))
        }
        Arrow::Float64 => primitive::<Float64Type, _>(array, |value| Ok(ValueRef::Float64(value))),
        _ => return None,
    })
}

fn decimal<'a>(array: &'a dyn Array, scale: u8) -> Option<Read<'a>> {
    let to = i16::from(scale);
    let rescaled = move |value: i128, from: i16| {
        rescale(value, from, to)
            .map(ValueRef::Decimal)
            .ok_or_else(|| decimal_text(value, from))
    };
    Some(match array.data_type() {
        Arrow::Decimal32(_, from) => {
            let from = i16::from(*from);
            primitive::<Decimal32Type, _>(array, move |value| rescaled(value.into(), from))
        }
        Arrow::Decimal64(_, from) => {
            let from = i16::from(*from);
            primitive::<Decimal64Type, _>(array, move |value| rescaled(value.into(), from))
        }
        Arrow::Decimal128(_, from) => {
            let from = i16::from(*from);
            primitive::<Decimal128Type, _>(array, move |value| rescaled(value, from))
        }
        Arrow::Decimal256(_, from) => {
            let from = i16::from(*from);
            primitive::<Decimal256Type, _>(array, move |value| match value.to_i128() {
                Some(value) => rescaled(value, from),
                None => Err(decimal_text(value, from)),
            })
        }
        Arrow::UInt64 => primitive::<UInt64Type, _>(array, move |value| rescaled(value.into(), 0)),
        _ => {
            let ints = int(array)?;
            Box::new(move |row| match ints(row)? {
                ValueRef::Int(value) => rescaled(value.into(), 0),
                other => Ok(other),
            })
        }
    })
}

/// The unscaled value at another scale; `None` if digits would be lost or there are too many.
fn rescale(value: i128, from: i16, to: i16) -> Option<i128> {
    let factor = 10i128.checked_pow(from.abs_diff(to).into());
    match factor {
        Some(factor) if from <= to => value.checked_mul(factor),
        Some(factor) => (value % factor == 0).then(|| value / factor),
        None => (value == 0).then_some(0),
    }
}

fn decimal_text(unscaled: impl Display, scale: i16) -> String {
    format!("decimal {unscaled} / 10^{scale}")
}

fn date<'a>(array: &'a dyn Array) -> Option<Read<'a>> {
    const MS_PER_DAY: i64 = 24 * 60 * 60 * 1000;
    Some(match array.data_type() {
        Arrow::Date32 => primitive::<Date32Type, _>(array, |days| Ok(ValueRef::Date(days))),
        Arrow::Date64 => {
            primitive::<Date64Type, _>(array, |ms| match i32::try_from(ms / MS_PER_DAY) {
                Ok(days) if ms % MS_PER_DAY == 0 => Ok(ValueRef::Date(days)),
                _ => Err(format!("{ms} ms, which are no whole days in range")),
            })
        }
        _ => return None,
    })
}

fn time<'a>(array: &'a dyn Array) -> Option<Read<'a>> {
    use TimeUnit::*;
    let value = |count: i64, unit| microseconds(count, unit).map(ValueRef::Time);
    Some(match array.data_type() {
        Arrow::Time32(Second) => {
            primitive::<Time32SecondType, _>(array, move |v| value(v.into(), Second))
        }
        Arrow::Time32(Millisecond) => {
            primitive::<Time32MillisecondType, _>(array, move |v| value(v.into(), Millisecond))
        }
        Arrow::Time64(Microsecond) => {
            primitive::<Time64MicrosecondType, _>(array, move |v| value(v, Microsecond))
        }
        Arrow::Time64(Nanosecond) => {
            primitive::<Time64NanosecondType, _>(array, move |v| value(v, Nanosecond))
        }
        _ => return None,
    })
}

/// An instant is not the reading of a local clock: with a zone into with a zone only. The zone's name does not
/// matter, as Arrow's values are in UTC.
fn timestamp<'a>(array: &'a dyn Array, zoned: bool) -> Option<Read<'a>> {
    use TimeUnit::*;
    let Arrow::Timestamp(unit, zone) = array.data_type() else {
        return None;
    };
    if zone.is_some() != zoned {
        return None;
    }
    let value = |count: i64, unit| microseconds(count, unit).map(ValueRef::Timestamp);
    Some(match unit {
        Second => primitive::<TimestampSecondType, _>(array, move |v| value(v, Second)),
        Millisecond => {
            primitive::<TimestampMillisecondType, _>(array, move |v| value(v, Millisecond))
        }
        Microsecond => {
            primitive::<TimestampMicrosecondType, _>(array, move |v| value(v, Microsecond))
        }
        Nanosecond => primitive::<TimestampNanosecondType, _>(array, move |v| value(v, Nanosecond)),
    })
}

fn microseconds(count: i64, unit: TimeUnit) -> Result<i64, String> {
    let (us, name) = match unit {
        TimeUnit::Second => (count.checked_mul(1_000_000), "s"),
        TimeUnit::Millisecond => (count.checked_mul(1_000), "ms"),
        TimeUnit::Microsecond => (Some(count), "us"),
        TimeUnit::Nanosecond => ((count % 1_000 == 0).then_some(count / 1_000), "ns"),
    };
    us.ok_or_else(|| format!("{count} {name}, which are no whole microseconds in range"))
}

fn strings<'a>(array: &'a dyn Array, value: fn(&'a str) -> ValueRef<'a>) -> Option<Read<'a>> {
    Some(match array.data_type() {
        Arrow::Utf8 => {
            let array = array.as_string::<i32>();
            Box::new(move |row| Ok(value(array.value(row))))
        }
        Arrow::LargeUtf8 => {
            let array = array.as_string::<i64>();
            Box::new(move |row| Ok(value(array.value(row))))
        }
        Arrow::Utf8View => {
            let array = array.as_string_view();
            Box::new(move |row| Ok(value(array.value(row))))
        }
        _ => return None,
    })
}

fn bytes<'a>(array: &'a dyn Array) -> Option<Read<'a>> {
    Some(match array.data_type() {
        Arrow::Binary => {
            let array = array.as_binary::<i32>();
            Box::new(move |row| Ok(ValueRef::Bytes(array.value(row))))
        }
        Arrow::LargeBinary => {
            let array = array.as_binary::<i64>();
            Box::new(move |row| Ok(ValueRef::Bytes(array.value(row))))
        }
        Arrow::BinaryView => {
            let array = array.as_binary_view();
            Box::new(move |row| Ok(ValueRef::Bytes(array.value(row))))
        }
        Arrow::FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            Box::new(move |row| Ok(ValueRef::Bytes(array.value(row))))
        }
        _ => return None,
    })
}

/// As texts of 32 hexadecimal digits, with hyphens or without.
fn uuid_text<'a>(array: &'a dyn Array) -> Option<Read<'a>> {
    let read = strings(array, ValueRef::Text)?;
    Some(Box::new(move |row| {
        let ValueRef::Text(text) = read(row)? else {
            return Ok(ValueRef::Null);
        };
        let digits: String = text.chars().filter(|digit| *digit != '-').collect();
        let number = (digits.len() == 32)
            .then(|| u128::from_str_radix(&digits, 16).ok())
            .flatten();
        number
            .map(|number| ValueRef::Uuid(number.to_be_bytes()))
            .ok_or_else(|| format!("text {text:?}"))
    }))
}

/// As 16 bytes, whatever the array says of their number: some libraries know no arrays of fixed size.
fn uuid<'a>(array: &'a dyn Array) -> Option<Read<'a>> {
    let Some(read) = bytes(array) else {
        return uuid_text(array);
    };
    Some(Box::new(move |row| {
        let ValueRef::Bytes(bytes) = read(row)? else {
            return Ok(ValueRef::Null);
        };
        let uuid = bytes
            .try_into()
            .map_err(|_| format!("{} bytes", bytes.len()))?;
        Ok(ValueRef::Uuid(uuid))
    }))
}
