//! Values as other types.

use std::borrow::Cow;

use aurora_page::DataType;

use super::civil::{DAY_US, format_date, format_time, format_timestamp, parse_date};
use super::datum::{Datum, Kind};
use super::error::EvalError;
use super::number::{pow10_float, rescale, round_half_even};
use crate::decimal::{format_decimal, parse_decimal};

/// Whether some value of one kind can become one of another.
pub(super) fn is_possible(from: Kind, to: Kind) -> bool {
    use Kind::{Bool, Bytes, Date, Decimal, Float, Int, Json, Null, Text, Time, Timestamp};
    match (from, to) {
        (Null, _) => true,
        (a, b) if a == b => true,
        (Bool | Int | Decimal { .. } | Float | Text, Int | Decimal { .. } | Float) => true,
        (Bytes, Text) => false,
        (_, Text) => true,
        (Text, Date | Bytes | Json) => true,
        (Timestamp { .. }, Date | Time | Timestamp { .. }) | (Date, Timestamp { .. }) => true,
        _ => false,
    }
}

/// A value of one kind as another; within `limit` if a type was named.
pub(super) fn cast<'a>(
    value: Datum<'a>,
    from: Kind,
    to: Kind,
    limit: Option<DataType>,
) -> Result<Datum<'a>, EvalError> {
    let cast = match (value, to) {
        (Datum::Null, _) => return Ok(Datum::Null),
        (Datum::Exact(v), Kind::Int | Kind::Decimal { .. }) => exact_to_exact(v, from, to)?,
        (Datum::Exact(v), Kind::Float) => {
            Datum::Float(v as f64 / pow10_float(from.scale().unwrap_or(0)))
        }
        (Datum::Bool(v), Kind::Int | Kind::Decimal { .. }) => {
            Datum::Exact(rescale(v.into(), to.scale().unwrap_or(0))?)
        }
        (Datum::Bool(v), Kind::Float) => Datum::Float(f64::from(u8::from(v))),
        (Datum::Float(v), Kind::Int | Kind::Decimal { .. }) => float_to_exact(v, to)?,
        (Datum::Text(v), Kind::Int | Kind::Decimal { .. }) => {
            let scale = to.scale().unwrap_or(0);
            let parsed = parse_decimal(v.trim(), 38, scale);
            Datum::Exact(parsed.map_err(|_| unreadable(&v, to))?)
        }
        (Datum::Text(v), Kind::Float) => {
            Datum::Float(v.trim().parse().map_err(|_| unreadable(&v, to))?)
        }
        (Datum::Text(v), Kind::Date) => {
            Datum::Date(parse_date(v.trim()).ok_or_else(|| unreadable(&v, to))?)
        }
        (Datum::Text(v), Kind::Bytes) => Datum::Bytes(match v {
            Cow::Borrowed(v) => Cow::Borrowed(v.as_bytes()),
            Cow::Owned(v) => Cow::Owned(v.into_bytes()),
        }),
        (Datum::Timestamp(v), Kind::Date) => Datum::Date(v.div_euclid(DAY_US) as i32),
        (Datum::Timestamp(v), Kind::Time) => Datum::Time(v.rem_euclid(DAY_US)),
        (Datum::Date(v), Kind::Timestamp { .. }) => {
            // Days go further than microseconds.
            let us = i64::from(v).checked_mul(DAY_US);
            let out_of_range = || EvalError::out_of_range("a timestamp", format!("day {v}"));
            Datum::Timestamp(us.ok_or_else(out_of_range)?)
        }
        (value, Kind::Text) => Datum::Text(text_of(value, from)),
        (value, _) => value,
    };
    match limit {
        Some(limit) => check(cast, limit),
        None => Ok(cast),
    }
}

fn exact_to_exact(v: i128, from: Kind, to: Kind) -> Result<Datum<'static>, EvalError> {
    let (have, want) = (from.scale().unwrap_or(0), to.scale().unwrap_or(0));
    Ok(Datum::Exact(if have <= want {
        rescale(v, want - have)?
    } else if to == Kind::Int {
        // As Polars does, and as Python's int().
        v / super::number::pow10(have).unwrap_or(i128::MAX)
    } else {
        round_half_even(v, have - want)
    }))
}

fn float_to_exact(v: f64, to: Kind) -> Result<Datum<'static>, EvalError> {
    let scaled = match to.scale() {
        Some(scale) if to != Kind::Int => (v * pow10_float(scale)).round_ties_even(),
        _ => v.trunc(),
    };
    // 2^126: far beyond what any exact type holds, and within 128 bits.
    if scaled.abs() < 8.5e37 {
        Ok(Datum::Exact(scaled as i128))
    } else {
        Err(EvalError::out_of_range(
            format!("a float that can be made {to}"),
            format!("{v:?}"),
        ))
    }
}

fn text_of(value: Datum<'_>, from: Kind) -> Cow<'_, str> {
    Cow::Owned(match value {
        Datum::Text(v) => return v,
        Datum::Null => String::new(),
        Datum::Bool(v) => v.to_string(),
        Datum::Exact(v) => format_decimal(v, from.scale().unwrap_or(0)),
        Datum::Float(v) => v.to_string(),
        Datum::Date(v) => format_date(v.into()),
        Datum::Time(v) => format_time(v),
        Datum::Timestamp(v) => {
            let zone = if from == (Kind::Timestamp { zoned: true }) {
                "Z"
            } else {
                ""
            };
            format_timestamp(v) + zone
        }
        Datum::Bytes(v) => String::from_utf8_lossy(&v).into_owned(),
        Datum::Uuid(v) => format_uuid(v),
    })
}

pub(super) fn format_uuid(bytes: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

fn check(value: Datum<'_>, limit: DataType) -> Result<Datum<'_>, EvalError> {
    if let Datum::Float(v) = value
        && limit == DataType::Float32
    {
        return Ok(Datum::Float(f64::from(v as f32)));
    }
    if let Datum::Exact(v) = value {
        Datum::Exact(v).into_value(limit)?;
    }
    Ok(value)
}

fn unreadable(text: &str, to: Kind) -> EvalError {
    const SHOWN: usize = 40;
    let shown: String = text.chars().take(SHOWN).collect();
    EvalError::out_of_range(format!("a text of a {to}"), format!("{shown:?}"))
}
