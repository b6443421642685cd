//! Evaluation on one row. The kernels on columns are held against it in the tests.

use std::borrow::Cow;
use std::cmp::Ordering;

use aurora_page::{Column, DataType, Value, ValueRef};

use super::Arithmetic;
use super::bound::{BoundExpr, Node, Typed};
use super::cast::cast;
use super::compare::compare_exact;
use super::datum::{Datum, Kind};
use super::error::EvalError;
use super::number::{exact, float, pow10_float, round_half_even};

/// Gives the value of a column by its index.
pub type Row<'f, 'r> = dyn Fn(usize) -> ValueRef<'r> + 'f;

impl BoundExpr {
    /// The value for a row of the schema that the expression was bound to.
    ///
    /// # Errors
    /// Overflow, division by zero, texts that cannot be cast, and [`EvalError::LongValue`] when a value that is needed lies in
    /// overflow pages.
    pub fn evaluate<'r>(&self, row: &Row<'_, 'r>) -> Result<Datum<'r>, EvalError> {
        self.root.evaluate(row)
    }

    /// Whether a row meets the condition; `None` if that is unknown, because of nulls.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn test(&self, row: &Row<'_, '_>) -> Result<Option<bool>, EvalError> {
        self.root.test(row)
    }

    /// The value as one to be stored in a column: exact numbers brought to its scale without rounding, integers made floats
    /// where the column is one, all within its range. Whether null is allowed, the caller knows.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), and results that the column does not hold.
    pub fn value_for(&self, column: &Column, row: &Row<'_, '_>) -> Result<Value, EvalError> {
        let value = self.evaluate(row)?;
        let target = Kind::of(column.data_type);
        let value = match (value, self.root.kind, target) {
            (Datum::Exact(v), from, to) if to.scale().is_some() => {
                let (have, want) = (from.scale().unwrap_or(0), to.scale().unwrap_or(0));
                Datum::Exact(stored_digits(v, have, want, column.data_type)?)
            }
            (value, from, to) => cast(value, from, to, None)?,
        };
        value.into_value(column.data_type)
    }
}

/// Digits at a column's scale; nothing is rounded.
fn stored_digits(v: i128, have: u8, want: u8, to: DataType) -> Result<i128, EvalError> {
    let fits = || format!("a result that fits {to}");
    if have <= want {
        return super::number::rescale(v, want - have)
            .map_err(|_| EvalError::out_of_range(fits(), "more than 38 digits"));
    }
    let power = super::number::pow10(have - want).unwrap_or(i128::MAX);
    if v % power != 0 {
        return Err(EvalError::out_of_range(
            fits(),
            "more digits after the point (round it where that is meant)",
        ));
    }
    Ok(v / power)
}

impl Typed {
    /// See [`BoundExpr::evaluate`].
    pub fn evaluate<'r>(&self, row: &Row<'_, 'r>) -> Result<Datum<'r>, EvalError> {
        match &self.node {
            Node::Column(index) => {
                let value = Datum::load(row(*index), *index)?;
                debug_assert!(
                    value.is_null() || self.kind.holds(&value),
                    "{self:?}: {value:?}"
                );
                Ok(value)
            }
            Node::Literal(value) => Ok(value.clone()),
            Node::Not(_)
            | Node::IsNull(_)
            | Node::Compare(..)
            | Node::And(..)
            | Node::Or(..)
            | Node::Matches(..)
            | Node::In { .. } => Ok(self.test(row)?.map_or(Datum::Null, Datum::Bool)),
            Node::Negate(of) => match of.evaluate(row)? {
                Datum::Exact(v) => v
                    .checked_neg()
                    .map(Datum::Exact)
                    .ok_or_else(EvalError::digits),
                Datum::Float(v) => Ok(Datum::Float(-v)),
                other => null_or_wrong("number", &other),
            },
            Node::Arithmetic(operator, left, right) => {
                let (a, b) = (left.evaluate(row)?, right.evaluate(row)?);
                arithmetic(*operator, (a, left.kind), (b, right.kind))
            }
            Node::Case(branches, otherwise) => {
                for (condition, value) in branches {
                    if condition.test(row)? == Some(true) {
                        return value.evaluate(row);
                    }
                }
                otherwise
                    .as_ref()
                    .map_or(Ok(Datum::Null), |value| value.evaluate(row))
            }
            Node::Coalesce(of) => {
                for value in of {
                    let value = value.evaluate(row)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(Datum::Null)
            }
            Node::Cast(of, limit) => cast(of.evaluate(row)?, of.kind, self.kind, *limit),
            Node::Round(of, places) => Ok(match of.evaluate(row)? {
                Datum::Exact(v) => {
                    let have = of.kind.scale().unwrap_or(0);
                    Datum::Exact(round_half_even(v, have.saturating_sub(*places)))
                }
                Datum::Float(v) => {
                    let power = pow10_float(*places);
                    let rounded = (v * power).round_ties_even() / power;
                    Datum::Float(if rounded.is_finite() { rounded } else { v })
                }
                other => other,
            }),
            Node::Call(function, arguments) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    match argument.evaluate(row)? {
                        Datum::Null => return Ok(Datum::Null),
                        value => values.push(value),
                    }
                }
                function.call(&values)
            }
        }
    }

    /// See [`BoundExpr::test`].
    pub fn test(&self, row: &Row<'_, '_>) -> Result<Option<bool>, EvalError> {
        match &self.node {
            Node::Not(of) => Ok(of.test(row)?.map(|v| !v)),
            // That there is a value can be told without fetching it.
            Node::IsNull(of) => match of.evaluate(row) {
                Err(EvalError::LongValue { column, .. }) if of.node == Node::Column(column) => {
                    Ok(Some(false))
                }
                value => Ok(Some(value?.is_null())),
            },
            Node::And(left, right) => Ok(match left.test(row)? {
                Some(false) => Some(false),
                Some(true) => right.test(row)?,
                None => right.test(row)?.filter(|v| !v),
            }),
            Node::Or(left, right) => Ok(match left.test(row)? {
                Some(true) => Some(true),
                Some(false) => right.test(row)?,
                None => right.test(row)?.filter(|v| *v),
            }),
            Node::Compare(comparison, left, right) => {
                let (a, b) = (left.evaluate(row)?, right.evaluate(row)?);
                let order = order((&a, left.kind), (&b, right.kind));
                Ok(order.map(|order| comparison.holds(order)))
            }
            Node::Matches(of, pattern) => match of.evaluate(row)? {
                Datum::Text(text) => Ok(Some(pattern.is_in(&text))),
                other => null_or_wrong("text", &other).map(|_| None),
            },
            Node::In {
                value,
                list,
                has_null,
            } => {
                let value = value.evaluate(row)?;
                if value.is_null() {
                    // Nothing is in an empty list, not even what is unknown.
                    return Ok((list.is_empty() && !has_null).then_some(false));
                }
                let found = list.binary_search_by(|item| item.order(&value)).is_ok();
                Ok((found || !has_null).then_some(found))
            }
            _ => match self.evaluate(row)? {
                Datum::Null => Ok(None),
                Datum::Bool(v) => Ok(Some(v)),
                other => null_or_wrong("bool", &other).map(|_| None),
            },
        }
    }
}

impl Kind {
    fn holds(self, value: &Datum<'_>) -> bool {
        matches!(
            (self, value),
            (_, Datum::Null)
                | (Kind::Bool, Datum::Bool(_))
                | (Kind::Int | Kind::Decimal { .. }, Datum::Exact(_))
                | (Kind::Float, Datum::Float(_))
                | (Kind::Date, Datum::Date(_))
                | (Kind::Time, Datum::Time(_))
                | (Kind::Timestamp { .. }, Datum::Timestamp(_))
                | (Kind::Text | Kind::Json, Datum::Text(_))
                | (Kind::Bytes, Datum::Bytes(_))
                | (Kind::Uuid, Datum::Uuid(_))
        )
    }
}

/// The order of two values that unify; `None` if one is null.
fn order((a, s): (&Datum<'_>, Kind), (b, t): (&Datum<'_>, Kind)) -> Option<Ordering> {
    match (a, b) {
        (Datum::Null, _) | (_, Datum::Null) => None,
        (Datum::Exact(a), Datum::Exact(b)) => Some(compare_exact(
            (*a, s.scale().unwrap_or(0)),
            (*b, t.scale().unwrap_or(0)),
        )),
        (a, b) => Some(a.order(b)),
    }
}

fn arithmetic<'a>(
    operator: Arithmetic,
    (a, s): (Datum<'a>, Kind),
    (b, t): (Datum<'a>, Kind),
) -> Result<Datum<'a>, EvalError> {
    let sign = if operator == Arithmetic::Sub { -1 } else { 1 };
    Ok(match (a, b) {
        (Datum::Null, _) | (_, Datum::Null) => Datum::Null,
        (Datum::Exact(a), Datum::Exact(b)) => {
            let scales = (s.scale().unwrap_or(0), t.scale().unwrap_or(0));
            Datum::Exact(exact(operator, (a, scales.0), (b, scales.1))?)
        }
        (Datum::Float(a), Datum::Float(b)) => Datum::Float(float(operator, a, b)?),
        (Datum::Text(a), Datum::Text(b)) => Datum::Text(Cow::Owned(a.into_owned() + &b)),
        (Datum::Date(a), Datum::Date(b)) => Datum::Exact(i128::from(a) - i128::from(b)),
        (Datum::Date(days), Datum::Exact(by)) | (Datum::Exact(by), Datum::Date(days)) => {
            let moved = by
                .checked_mul(sign)
                .and_then(|by| by.checked_add(days.into()))
                .and_then(|days| i32::try_from(days).ok());
            Datum::Date(moved.ok_or_else(|| EvalError::out_of_range("a date", "days beyond it"))?)
        }
        (Datum::Timestamp(a), Datum::Timestamp(b)) => Datum::Exact(i128::from(a) - i128::from(b)),
        (Datum::Timestamp(us), Datum::Exact(by)) | (Datum::Exact(by), Datum::Timestamp(us)) => {
            let moved = by
                .checked_mul(sign)
                .and_then(|by| by.checked_add(us.into()))
                .and_then(|us| i64::try_from(us).ok());
            let beyond = || EvalError::out_of_range("a timestamp", "microseconds beyond it");
            Datum::Timestamp(moved.ok_or_else(beyond)?)
        }
        (other, _) => return null_or_wrong("number", &other),
    })
}

/// A row of another schema than the one bound to: never silently a wrong answer.
fn null_or_wrong<'a>(expected: &'static str, got: &Datum<'_>) -> Result<Datum<'a>, EvalError> {
    match got {
        Datum::Null => Ok(Datum::Null),
        _ => Err(EvalError::WrongKind {
            expected,
            got: "value of another type",
        }),
    }
}
