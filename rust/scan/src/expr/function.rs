//! Functions: what they are called, what they take, what they give.

use std::borrow::Cow;

use super::civil::{DAY_US, civil};
use super::datum::{Datum, Kind};
use super::error::EvalError;
use super::pattern::is_like;

/// A function of one or two arguments; null for null. Codes are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Function {
    /// The number without its sign.
    Abs = 1,
    /// The text in lower case.
    Lower = 2,
    /// The text in upper case.
    Upper = 3,
    /// Characters of a text, bytes of bytes.
    Length = 4,
    /// Whether the text begins with another.
    StartsWith = 5,
    /// Whether it ends with another.
    EndsWith = 6,
    /// Whether it contains another.
    Contains = 7,
    /// Whether it is like a pattern of `%` and `_`.
    Like = 8,
    /// The same whatever the case.
    Ilike = 9,
    /// The year of a date or moment.
    Year = 10,
    /// The month, 1 to 12.
    Month = 11,
    /// The day of the month, 1 to 31.
    Day = 12,
    /// The day of the week, 1 (Monday) to 7.
    Weekday = 13,
    /// The quarter, 1 to 4.
    Quarter = 14,
    /// The hour of a time or moment, 0 to 23.
    Hour = 15,
    /// The minute, 0 to 59.
    Minute = 16,
    /// The second, 0 to 59.
    Second = 17,
    /// The date of a moment.
    Date = 18,
    /// The text without spaces at its ends.
    Trim = 19,
    /// Whether a regular expression, which is a constant, is found in it.
    Matches = 20,
}

impl Function {
    const ALL: [Function; 20] = [
        Function::Abs,
        Function::Lower,
        Function::Upper,
        Function::Length,
        Function::StartsWith,
        Function::EndsWith,
        Function::Contains,
        Function::Like,
        Function::Ilike,
        Function::Year,
        Function::Month,
        Function::Day,
        Function::Weekday,
        Function::Quarter,
        Function::Hour,
        Function::Minute,
        Function::Second,
        Function::Date,
        Function::Trim,
        Function::Matches,
    ];

    pub(super) fn from_code(code: u8) -> Option<Function> {
        Function::ALL.into_iter().find(|f| *f as u8 == code)
    }

    /// The function of this name.
    pub fn from_name(name: &str) -> Option<Function> {
        Function::ALL.into_iter().find(|f| f.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Function::Abs => "abs",
            Function::Lower => "lower",
            Function::Upper => "upper",
            Function::Length => "length",
            Function::StartsWith => "starts_with",
            Function::EndsWith => "ends_with",
            Function::Contains => "contains",
            Function::Like => "like",
            Function::Ilike => "ilike",
            Function::Year => "year",
            Function::Month => "month",
            Function::Day => "day",
            Function::Weekday => "weekday",
            Function::Quarter => "quarter",
            Function::Hour => "hour",
            Function::Minute => "minute",
            Function::Second => "second",
            Function::Date => "date",
            Function::Trim => "trim",
            Function::Matches => "matches",
        }
    }

    /// What it takes, and the kind that it gives for arguments of these kinds; `None` if it does not take them.
    pub(super) fn result(self, arguments: &[Kind]) -> (&'static str, Option<Kind>) {
        use Kind::{Bool, Bytes, Date, Decimal, Float, Int, Null, Text, Time, Timestamp};
        match self {
            Function::Abs => {
                let kind = match arguments {
                    [kind @ (Null | Int | Decimal { .. } | Float)] => Some(*kind),
                    _ => None,
                };
                ("a number", kind)
            }
            Function::Lower | Function::Upper | Function::Trim => {
                ("a text", matches!(arguments, [Null | Text]).then_some(Text))
            }
            Function::Length => (
                "a text or bytes",
                matches!(arguments, [Null | Text | Bytes]).then_some(Int),
            ),
            Function::StartsWith
            | Function::EndsWith
            | Function::Contains
            | Function::Like
            | Function::Ilike
            | Function::Matches => (
                "two texts",
                matches!(arguments, [Null | Text, Null | Text]).then_some(Bool),
            ),
            Function::Year
            | Function::Month
            | Function::Day
            | Function::Weekday
            | Function::Quarter => (
                "a date or timestamp",
                matches!(arguments, [Null | Date | Timestamp { .. }]).then_some(Int),
            ),
            Function::Hour | Function::Minute | Function::Second => (
                "a time or timestamp",
                matches!(arguments, [Null | Time | Timestamp { .. }]).then_some(Int),
            ),
            Function::Date => (
                "a timestamp",
                matches!(arguments, [Null | Date | Timestamp { .. }]).then_some(Date),
            ),
        }
    }

    /// Its value; no argument is null.
    pub(super) fn call<'a>(self, arguments: &[Datum<'a>]) -> Result<Datum<'a>, EvalError> {
        Ok(match (self, arguments) {
            (Function::Abs, [Datum::Exact(v)]) => {
                Datum::Exact(v.checked_abs().ok_or_else(EvalError::digits)?)
            }
            (Function::Abs, [Datum::Float(v)]) => Datum::Float(v.abs()),
            (Function::Lower, [Datum::Text(v)]) => Datum::Text(Cow::Owned(v.to_lowercase())),
            (Function::Upper, [Datum::Text(v)]) => Datum::Text(Cow::Owned(v.to_uppercase())),
            (Function::Trim, [Datum::Text(v)]) => Datum::Text(match v {
                Cow::Borrowed(v) => Cow::Borrowed(v.trim_matches(' ')),
                Cow::Owned(v) => Cow::Owned(v.trim_matches(' ').to_owned()),
            }),
            (Function::Length, [Datum::Text(v)]) => Datum::Exact(v.chars().count() as i128),
            (Function::Length, [Datum::Bytes(v)]) => Datum::Exact(v.len() as i128),
            (function, [Datum::Text(a), Datum::Text(b)]) => Datum::Bool(match function {
                Function::StartsWith => a.starts_with(&**b),
                Function::EndsWith => a.ends_with(&**b),
                Function::Contains => a.contains(&**b),
                Function::Ilike => is_like(&a.to_lowercase(), &b.to_lowercase()),
                _ => is_like(a, b),
            }),
            (function, [Datum::Date(days)]) => date_part(function, i64::from(*days)),
            (function, [Datum::Time(us)]) => time_part(function, *us),
            (
                function @ (Function::Hour | Function::Minute | Function::Second),
                [Datum::Timestamp(us)],
            ) => time_part(function, us.rem_euclid(DAY_US)),
            (function, [Datum::Timestamp(us)]) => date_part(function, us.div_euclid(DAY_US)),
            _ => {
                return Err(EvalError::WrongKind {
                    expected: "value of the bound type",
                    got: "value of another type",
                });
            }
        })
    }
}

fn date_part(function: Function, days: i64) -> Datum<'static> {
    let (year, month, day) = civil(days);
    let part = match function {
        Function::Date => return Datum::Date(days as i32),
        Function::Year => year,
        Function::Month => month,
        Function::Day => day,
        Function::Quarter => (month - 1) / 3 + 1,
        // 1970-01-01 was a Thursday.
        _ => (days + 3).rem_euclid(7) + 1,
    };
    Datum::Exact(part.into())
}

fn time_part(function: Function, us: i64) -> Datum<'static> {
    let seconds = us / 1_000_000;
    let part = match function {
        Function::Hour => seconds / 3600,
        Function::Minute => seconds / 60 % 60,
        _ => seconds % 60,
    };
    Datum::Exact(part.into())
}
