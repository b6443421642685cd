//! Expressions on the selected rows of a page: numbers as vectors, with bounds that say when 64 bits are enough.

use aurora_page::DataType;

use crate::error::{ReadLong, ScanError};
use crate::expr::{Arithmetic, Comparison, Datum, EvalError, Kind, Node, Typed, pow10};
use crate::filter::number_zone;
use crate::on_row::on_row;
use crate::view::PageView;

/// Values of the selected rows, in their order.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    /// Exact numbers, dates and times that lie within the bounds where they are not null.
    Small {
        values: Vec<i64>,
        low: i128,
        high: i128,
    },
    /// Exact numbers of any size.
    Wide(Vec<i128>),
    /// Floats.
    Float(Vec<f64>),
    /// The same for all rows.
    Constant(i128),
    /// Anything else.
    Other(Vec<Datum<'static>>),
}

/// Values and which of them are null.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    pub(crate) values: Values,
    pub(crate) nulls: Option<Vec<bool>>,
}

/// The page and its selected positions.
pub(crate) struct Rows<'a, 'p> {
    pub(crate) page: &'a PageView<'p>,
    pub(crate) places: &'a [Option<usize>],
    pub(crate) positions: &'a [u16],
}

/// Floats, and which of them are null.
type Floats = (Vec<f64>, Option<Vec<bool>>);

impl Rows<'_, '_> {
    /// The values of an expression.
    pub(crate) fn evaluate(&self, typed: &Typed, long: ReadLong<'_>) -> Result<Vector, ScanError> {
        if let Some(vector) = self.fast(typed)? {
            return Ok(vector);
        }
        self.slow(typed, long)
    }

    /// `None` where rows have to be evaluated one by one.
    fn fast(&self, typed: &Typed) -> Result<Option<Vector>, ScanError> {
        match &typed.node {
            Node::Column(column) => Ok(self.column(*column)),
            Node::Literal(Datum::Exact(v)) => Ok(Some(Vector {
                values: Values::Constant(*v),
                nulls: None,
            })),
            Node::Arithmetic(operator, left, right)
                if matches!(typed.kind, Kind::Int | Kind::Decimal { .. })
                    && left.kind.scale().is_some()
                    && right.kind.scale().is_some() =>
            {
                let (Some(a), Some(b)) = (self.fast(left)?, self.fast(right)?) else {
                    return Ok(None);
                };
                let (s, t) = (
                    left.kind.scale().unwrap_or(0),
                    right.kind.scale().unwrap_or(0),
                );
                let (a, b) = if *operator == Arithmetic::Mul {
                    (a, b)
                } else {
                    let scale = s.max(t);
                    let (Some(a), Some(b)) = (rescaled(a, scale - s), rescaled(b, scale - t))
                    else {
                        return Ok(None);
                    };
                    (a, b)
                };
                Ok(exact(*operator, a, b))
            }
            Node::Arithmetic(Arithmetic::Sub, left, right)
                if matches!(
                    (left.kind, right.kind),
                    (Kind::Date, Kind::Date) | (Kind::Timestamp { .. }, Kind::Timestamp { .. })
                ) =>
            {
                let (Some(a), Some(b)) = (self.fast(left)?, self.fast(right)?) else {
                    return Ok(None);
                };
                Ok(exact(Arithmetic::Sub, a, b))
            }
            Node::Literal(Datum::Date(v)) => Ok(Some(Vector {
                values: Values::Constant((*v).into()),
                nulls: None,
            })),
            Node::Literal(Datum::Timestamp(v)) => Ok(Some(Vector {
                values: Values::Constant((*v).into()),
                nulls: None,
            })),
            Node::Arithmetic(operator, left, right) if typed.kind == Kind::Float => {
                let (Some(a), Some(b)) = (self.floats(left)?, self.floats(right)?) else {
                    return Ok(None);
                };
                let join: fn(f64, f64) -> f64 = match operator {
                    Arithmetic::Add => |a, b| a + b,
                    Arithmetic::Sub => |a, b| a - b,
                    Arithmetic::Mul => |a, b| a * b,
                    _ => return Ok(None),
                };
                let values = a.0.iter().zip(&b.0).map(|(a, b)| join(*a, *b)).collect();
                Ok(Some(Vector {
                    values: Values::Float(values),
                    nulls: either(a.1, b.1),
                }))
            }
            Node::Cast(of, None) if typed.kind == Kind::Float && of.kind == Kind::Int => {
                let Some(of) = self.floats(of)? else {
                    return Ok(None);
                };
                Ok(Some(Vector {
                    values: Values::Float(of.0),
                    nulls: of.1,
                }))
            }
            _ => Ok(None),
        }
    }

    /// Which rows pass a comparison of numbers, dates or times; `None` where rows have to be evaluated one by one.
    pub(crate) fn compare(
        &self,
        comparison: Comparison,
        left: &Typed,
        right: &Typed,
    ) -> Result<Option<Vec<bool>>, ScanError> {
        let numbers = left.kind.scale().is_some() && right.kind.scale().is_some();
        let times = left.kind == right.kind
            && matches!(left.kind, Kind::Date | Kind::Time | Kind::Timestamp { .. });
        if !numbers && !times {
            return Ok(None);
        }
        let (Some(a), Some(b)) = (self.fast(left)?, self.fast(right)?) else {
            return Ok(None);
        };
        let (s, t) = (
            left.kind.scale().unwrap_or(0),
            right.kind.scale().unwrap_or(0),
        );
        let scale = s.max(t);
        let (Some(a), Some(b)) = (rescaled(a, scale - s), rescaled(b, scale - t)) else {
            return Ok(None);
        };
        let nulls = either(a.nulls, b.nulls);
        let mut passes: Vec<bool> = match (&a.values, &b.values) {
            (Values::Small { values: a, .. }, Values::Small { values: b, .. }) => a
                .iter()
                .zip(b)
                .map(|(a, b)| comparison.holds(a.cmp(b)))
                .collect(),
            (Values::Small { values: a, .. }, Values::Constant(b)) => a
                .iter()
                .map(|a| comparison.holds(i128::from(*a).cmp(b)))
                .collect(),
            (Values::Constant(a), Values::Small { values: b, .. }) => b
                .iter()
                .map(|b| comparison.holds(a.cmp(&i128::from(*b))))
                .collect(),
            _ => return Ok(None),
        };
        for (passes, null) in passes.iter_mut().zip(nulls.iter().flatten()) {
            *passes &= !null;
        }
        Ok(Some(passes))
    }

    fn floats(&self, typed: &Typed) -> Result<Option<Floats>, ScanError> {
        if let Node::Literal(Datum::Float(v)) = &typed.node {
            return Ok(Some((vec![*v; self.positions.len()], None)));
        }
        Ok(match self.fast(typed)? {
            Some(Vector {
                values: Values::Float(values),
                nulls,
            }) => Some((values, nulls)),
            Some(Vector {
                values: Values::Small { values, .. },
                nulls,
            }) if typed.kind == Kind::Int => {
                Some((values.into_iter().map(|v| v as f64).collect(), nulls))
            }
            Some(Vector {
                values: Values::Constant(v),
                nulls,
            }) if typed.kind == Kind::Int => Some((vec![v as f64; self.positions.len()], nulls)),
            _ => None,
        })
    }

    fn column(&self, column: usize) -> Option<Vector> {
        let view = self.page.column((*self.places.get(column)?)?);
        let lanes = view.lanes?;
        let nulls = view.nulls.and_then(|nulls| {
            let is_null = |at: &u16| nulls[usize::from(*at) / 8] >> (at % 8) & 1 == 1;
            self.positions
                .iter()
                .any(is_null)
                .then(|| self.positions.iter().map(is_null).collect())
        });
        let mut values = Vec::new();
        let values = match view.data_type {
            DataType::Float64 => {
                lanes.gather(self.positions, &mut values);
                Values::Float(
                    values
                        .into_iter()
                        .map(|v| f64::from_bits(v as u64))
                        .collect(),
                )
            }
            DataType::Float32 => {
                lanes.gather(self.positions, &mut values);
                Values::Float(
                    values
                        .into_iter()
                        .map(|v| f64::from(f32::from_bits(v as u32)))
                        .collect(),
                )
            }
            DataType::Uuid => return None,
            _ => {
                let (low, high) = number_zone(&view)?;
                if low > high {
                    Values::Small {
                        values: vec![0; self.positions.len()],
                        low: 0,
                        high: 0,
                    }
                } else if low == i128::MIN || high == i128::MAX {
                    Values::Wide(
                        self.positions
                            .iter()
                            .map(|at| lanes.get(usize::from(*at)))
                            .collect(),
                    )
                } else {
                    lanes.gather(self.positions, &mut values);
                    Values::Small { values, low, high }
                }
            }
        };
        Some(Vector { values, nulls })
    }

    fn slow(&self, typed: &Typed, long: ReadLong<'_>) -> Result<Vector, ScanError> {
        let mut data = Vec::with_capacity(self.positions.len());
        for at in self.positions {
            data.push(on_row(
                typed,
                self.page,
                self.places,
                usize::from(*at),
                &mut *long,
                |typed, row| typed.evaluate(row).map(Datum::into_owned),
            )?);
        }
        Ok(Vector::of(typed.kind, data))
    }
}

impl Vector {
    /// Values that were made one by one.
    pub(crate) fn of(kind: Kind, data: Vec<Datum<'static>>) -> Vector {
        let nulls = data
            .iter()
            .any(Datum::is_null)
            .then(|| data.iter().map(Datum::is_null).collect());
        let values = match kind {
            Kind::Int | Kind::Decimal { .. } => Values::Wide(
                data.iter()
                    .map(|datum| if let Datum::Exact(v) = datum { *v } else { 0 })
                    .collect(),
            ),
            Kind::Float => Values::Float(
                data.iter()
                    .map(|datum| if let Datum::Float(v) = datum { *v } else { 0.0 })
                    .collect(),
            ),
            _ => Values::Other(data),
        };
        Vector { values, nulls }
    }

    pub(crate) fn is_null(&self, index: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls[index])
    }

    /// One value, of an expression of this kind.
    pub(crate) fn datum(&self, index: usize, kind: Kind) -> Datum<'_> {
        if self.is_null(index) {
            return Datum::Null;
        }
        let number = match &self.values {
            Values::Small { values, .. } => values[index].into(),
            Values::Wide(values) => values[index],
            Values::Constant(value) => *value,
            Values::Float(values) => return Datum::Float(values[index]),
            Values::Other(values) => return values[index].clone(),
        };
        match kind {
            Kind::Bool => Datum::Bool(number != 0),
            Kind::Date => Datum::Date(number as i32),
            Kind::Time => Datum::Time(number as i64),
            Kind::Timestamp { .. } => Datum::Timestamp(number as i64),
            _ => Datum::Exact(number),
        }
    }
}

/// Null where either is.
fn either(a: Option<Vec<bool>>, b: Option<Vec<bool>>) -> Option<Vec<bool>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| *a || *b).collect()),
        (nulls, None) | (None, nulls) => nulls,
    }
}

/// With more digits after the point; `None` where 64 bits might not hold them.
fn rescaled(vector: Vector, by: u8) -> Option<Vector> {
    if by == 0 {
        return Some(vector);
    }
    let power = Vector {
        values: Values::Constant(pow10(by)?),
        nulls: None,
    };
    exact(Arithmetic::Mul, vector, power)
}

/// Joins exact numbers if bounds show that no result leaves 64 bits; `None` otherwise, and the rows are computed one by one,
/// with 128 bits and every step checked. What null rows hold may be anything: their results wrap, and are null.
fn exact(operator: Arithmetic, a: Vector, b: Vector) -> Option<Vector> {
    let (a_bounds, b_bounds) = (bounds(&a.values)?, bounds(&b.values)?);
    let ends = |join: fn(i128, i128) -> Option<i128>| {
        let mut all = Vec::with_capacity(4);
        for a in [a_bounds.0, a_bounds.1] {
            for b in [b_bounds.0, b_bounds.1] {
                all.push(join(a, b)?);
            }
        }
        Some((*all.iter().min()?, *all.iter().max()?))
    };
    type Join = fn(i64, i64) -> i64;
    let (join, (low, high)): (Join, _) = match operator {
        Arithmetic::Add => (i64::wrapping_add, ends(i128::checked_add)?),
        Arithmetic::Sub => (i64::wrapping_sub, ends(i128::checked_sub)?),
        Arithmetic::Mul => (i64::wrapping_mul, ends(i128::checked_mul)?),
        _ => return None,
    };
    let fits = |n: i128| i64::try_from(n).is_ok();
    if !fits(low) || !fits(high) {
        return None;
    }
    let nulls = either(a.nulls, b.nulls);
    let values = match (a.values, b.values) {
        (Values::Constant(a), Values::Constant(b)) => {
            let value = join(a as i64, b as i64).into();
            return Some(Vector {
                values: Values::Constant(value),
                nulls,
            });
        }
        (Values::Small { mut values, .. }, Values::Constant(b)) => {
            let b = b as i64;
            each(operator, &mut values, |a| join(a, b), b, false);
            values
        }
        (Values::Constant(a), Values::Small { mut values, .. }) => {
            let a = a as i64;
            each(operator, &mut values, |b| join(a, b), a, true);
            values
        }
        (Values::Small { mut values, .. }, Values::Small { values: other, .. }) => {
            match operator {
                Arithmetic::Add => pairs(&mut values, &other, i64::wrapping_add),
                Arithmetic::Sub => pairs(&mut values, &other, i64::wrapping_sub),
                _ => pairs(&mut values, &other, i64::wrapping_mul),
            }
            values
        }
        _ => return None,
    };
    Some(Vector {
        values: Values::Small { values, low, high },
        nulls,
    })
}

/// One loop per operator, so that each is compiled for itself.
fn each(
    operator: Arithmetic,
    values: &mut [i64],
    join: impl Fn(i64) -> i64,
    constant: i64,
    constant_first: bool,
) {
    match (operator, constant_first) {
        (Arithmetic::Add, _) => values
            .iter_mut()
            .for_each(|v| *v = v.wrapping_add(constant)),
        (Arithmetic::Sub, true) => values
            .iter_mut()
            .for_each(|v| *v = constant.wrapping_sub(*v)),
        (Arithmetic::Sub, false) => values
            .iter_mut()
            .for_each(|v| *v = v.wrapping_sub(constant)),
        (Arithmetic::Mul, _) => values
            .iter_mut()
            .for_each(|v| *v = v.wrapping_mul(constant)),
        _ => values.iter_mut().for_each(|v| *v = join(*v)),
    }
}

fn pairs(values: &mut [i64], other: &[i64], join: impl Fn(i64, i64) -> i64) {
    values
        .iter_mut()
        .zip(other)
        .for_each(|(a, b)| *a = join(*a, *b));
}

fn bounds(values: &Values) -> Option<(i128, i128)> {
    match values {
        Values::Small { low, high, .. } => Some((*low, *high)),
        Values::Constant(v) => i64::try_from(*v).ok().map(|_| (*v, *v)),
        _ => None,
    }
}

/// An integer that does not fit where a result is stored.
pub(crate) fn out_of_range(expected: &str, got: String) -> EvalError {
    EvalError::OutOfRange {
        expected: expected.into(),
        got,
    }
}
