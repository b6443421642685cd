//! Values during the evaluation of an expression: exact numbers, floats, texts, and what they make together.

use aurora_page::{Column, DataType, Value};

use crate::decimal::parse_decimal;

/// Most digits after the point of an intermediate result.
pub const SCALE_MAX: u8 = 38;

/// What joins two values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Add,
    Sub,
    Mul,
    Div,
}

/// A value during evaluation.
#[derive(Clone, PartialEq, Debug)]
pub enum Operand {
    Null,
    /// An integer or decimal: `unscaled / 10^scale`.
    Exact {
        unscaled: i128,
        scale: u8,
    },
    Float(f64),
    Text(String),
}

/// Why an expression has no value.
#[derive(Debug, PartialEq)]
pub enum Failure {
    UnknownColumn(String),
    /// What was being done, and the kinds it was done to.
    Types(&'static str, &'static str, &'static str),
    Overflow(&'static str),
    DivisionByZero,
}

/// The number of this text at the smallest scale that holds it.
pub fn exact(text: &str) -> Option<Operand> {
    (0..=SCALE_MAX).find_map(|scale| {
        Some(Operand::Exact {
            unscaled: parse_decimal(text, 38, scale).ok()?,
            scale,
        })
    })
}

impl Operand {
    /// A stored value.
    pub fn load(data_type: DataType, value: Value) -> Result<Operand, Failure> {
        Ok(match (data_type, value) {
            (_, Value::Null) => Operand::Null,
            (_, Value::Int(v)) => Operand::Exact {
                unscaled: i128::from(v),
                scale: 0,
            },
            (DataType::Decimal { scale, .. }, Value::Decimal(unscaled)) => {
                Operand::Exact { unscaled, scale }
            }
            (_, Value::Float32(v)) => Operand::Float(f64::from(v)),
            (_, Value::Float64(v)) => Operand::Float(v),
            (_, Value::Text(v)) => Operand::Text(v),
            (_, value) => {
                return Err(Failure::Types(
                    "compute with",
                    value.as_ref().kind_name(),
                    "a number",
                ));
            }
        })
    }

    /// What it is called in a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Operand::Null => "null",
            Operand::Exact { .. } => "exact number",
            Operand::Float(_) => "float",
            Operand::Text(_) => "text",
        }
    }
}

/// Two values joined; null with anything is null.
pub fn combine(operator: Operator, left: Operand, right: Operand) -> Result<Operand, Failure> {
    use Operand::{Exact, Float, Null, Text};
    match (left, right) {
        (Null, _) | (_, Null) => Ok(Null),
        (Text(left), Text(right)) if operator == Operator::Add => Ok(Text(left + &right)),
        (Float(left), Float(right)) => float(operator, left, right),
        // An integer beside a float becomes one, as in Python; a decimal does not.
        (Float(left), Exact { unscaled, scale: 0 }) => float(operator, left, unscaled as f64),
        (Exact { unscaled, scale: 0 }, Float(right)) => float(operator, unscaled as f64, right),
        (
            Exact {
                unscaled: a,
                scale: s,
            },
            Exact {
                unscaled: b,
                scale: t,
            },
        ) => exact_result(operator, (a, s), (b, t)),
        (left, right) => {
            let name = match operator {
                Operator::Add => "add",
                Operator::Sub => "subtract",
                Operator::Mul => "multiply",
                Operator::Div => "divide",
            };
            Err(Failure::Types(name, left.kind(), right.kind()))
        }
    }
}

fn float(operator: Operator, left: f64, right: f64) -> Result<Operand, Failure> {
    Ok(Operand::Float(match operator {
        Operator::Add => left + right,
        Operator::Sub => left - right,
        Operator::Mul => left * right,
        Operator::Div if right == 0.0 => return Err(Failure::DivisionByZero),
        Operator::Div => left / right,
    }))
}

fn exact_result(
    operator: Operator,
    left: (i128, u8),
    right: (i128, u8),
) -> Result<Operand, Failure> {
    const TOO_LARGE: Failure = Failure::Overflow("more than 38 digits");
    let ((a, s), (b, t)) = (left, right);
    match operator {
        Operator::Add | Operator::Sub => {
            let scale = s.max(t);
            let a = rescale(a, scale - s).ok_or(TOO_LARGE)?;
            let b = rescale(b, scale - t).ok_or(TOO_LARGE)?;
            let result = if operator == Operator::Add {
                a.checked_add(b)
            } else {
                a.checked_sub(b)
            };
            Ok(Operand::Exact {
                unscaled: result.ok_or(TOO_LARGE)?,
                scale,
            })
        }
        Operator::Mul => {
            let unscaled = a.checked_mul(b).ok_or(TOO_LARGE)?;
            let scale = s + t;
            if scale > SCALE_MAX {
                Err(TOO_LARGE)
            } else {
                Ok(Operand::Exact { unscaled, scale })
            }
        }
        Operator::Div if b == 0 => Err(Failure::DivisionByZero),
        Operator::Div if s == 0 && t == 0 => float(operator, a as f64, b as f64),
        Operator::Div => Err(Failure::Types(
            "divide",
            "decimal",
            "exact number (no exact quotient: multiply by a Decimal)",
        )),
    }
}

fn rescale(unscaled: i128, by: u8) -> Option<i128> {
    10_i128.checked_pow(u32::from(by))?.checked_mul(unscaled)
}

/// An unscaled number without its last digits, rounded to the even neighbour where it is half way.
pub fn round_half_even(unscaled: i128, digits: u8) -> i128 {
    let Some(power) = 10_i128.checked_pow(u32::from(digits)) else {
        return 0;
    };
    let (quotient, rest) = (unscaled.div_euclid(power), unscaled.rem_euclid(power));
    let half = power / 2;
    if rest > half || rest == half && quotient % 2 != 0 {
        quotient + 1
    } else {
        quotient
    }
}

/// The result as a value of the column.
pub fn store(column: &Column, operand: Operand) -> Result<Value, Failure> {
    let value = match (column.data_type, operand) {
        (_, Operand::Null) if column.nullable => Value::Null,
        (_, Operand::Null) => return Err(Failure::Overflow("null")),
        (
            DataType::Decimal { precision, scale },
            Operand::Exact {
                unscaled,
                scale: got,
            },
        ) => Value::Decimal(to_scale(unscaled, got, precision, scale)?),
        (DataType::Float64, Operand::Float(v)) => Value::Float64(v),
        (DataType::Float32, Operand::Float(v)) => Value::Float32(v as f32),
        (DataType::Float64, Operand::Exact { unscaled, scale: 0 }) => {
            Value::Float64(unscaled as f64)
        }
        (DataType::Float32, Operand::Exact { unscaled, scale: 0 }) => {
            Value::Float32(unscaled as f32)
        }
        (DataType::Text, Operand::Text(v)) => Value::Text(v),
        (data_type, Operand::Exact { unscaled, scale: 0 }) if data_type.int_range().is_some() => {
            let (min, max) = data_type.int_range().unwrap_or((0, 0));
            let value = i64::try_from(unscaled)
                .map_err(|_| Failure::Overflow("an int of more than 64 bits"))?;
            if !(min..=max).contains(&value) {
                return Err(Failure::Overflow("an int outside its range"));
            }
            Value::Int(value)
        }
        (_, operand) => return Err(Failure::Types("store", operand.kind(), "the column's type")),
    };
    Ok(value)
}

fn to_scale(unscaled: i128, got: u8, precision: u8, scale: u8) -> Result<i128, Failure> {
    let result = if got <= scale {
        rescale(unscaled, scale - got).ok_or(Failure::Overflow("more than 38 digits"))?
    } else {
        let power = 10_i128
            .checked_pow(u32::from(got - scale))
            .unwrap_or(i128::MAX);
        if unscaled % power != 0 {
            return Err(Failure::Overflow(
                "more digits after the point (round it where that is meant)",
            ));
        }
        unscaled / power
    };
    if result.unsigned_abs() > aurora_page::decimal_max(precision).unsigned_abs() {
        return Err(Failure::Overflow("more digits than the column has"));
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Operand {
        exact(text).unwrap()
    }

    #[test]
    fn exact_numbers_stay_exact() {
        assert_eq!(
            combine(Operator::Add, number("0.1"), number("0.2")).unwrap(),
            number("0.3")
        );
        assert_eq!(
            combine(Operator::Mul, number("1.05"), number("2")).unwrap(),
            Operand::Exact {
                unscaled: 210,
                scale: 2
            }
        );
        assert_eq!(
            combine(Operator::Div, number("1"), number("4")).unwrap(),
            Operand::Float(0.25)
        );
        assert_eq!(
            combine(Operator::Div, number("1"), number("0")),
            Err(Failure::DivisionByZero)
        );
        assert!(combine(Operator::Add, number("0.1"), Operand::Float(1.0)).is_err());
        assert_eq!(
            combine(Operator::Add, number("2"), Operand::Float(1.0)).unwrap(),
            Operand::Float(3.0)
        );
        assert_eq!(
            combine(Operator::Sub, Operand::Null, number("1")).unwrap(),
            Operand::Null
        );
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for (unscaled, expected) in [
            (125, 12),
            (135, 14),
            (-125, -12),
            (-135, -14),
            (126, 13),
            (-126, -13),
        ] {
            assert_eq!(round_half_even(unscaled, 1), expected);
        }
    }
}
