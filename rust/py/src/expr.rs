//! Expressions over the columns of one row: `col("balance") + 5`, evaluated where the row is.
//!
//! Integers and decimals are computed exactly, floats as floats; the two do not mix, as in Python. A result that does
//! not fit its column is an error and never rounded: `.round(2)` says where rounding is meant.

use std::sync::Arc;

use aurora_page::{Column, DataType, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

use crate::decimal::{format_decimal, parse_decimal};
use crate::errors::{Raise, describe};
use crate::pytypes::types;

/// Most digits after the point of an intermediate result.
const SCALE_MAX: u8 = 38;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Sub,
    Mul,
    Div,
}

enum Node {
    Column(String),
    Literal(Operand),
    Binary(Operator, Arc<Node>, Arc<Node>),
    Negate(Arc<Node>),
    Round(Arc<Node>, u8),
}

/// A value during evaluation.
#[derive(Clone, PartialEq, Debug)]
enum Operand {
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
enum Failure {
    UnknownColumn(String),
    /// What was being done, and the kinds it was done to.
    Types(&'static str, &'static str, &'static str),
    Overflow(&'static str),
    DivisionByZero,
}

/// An expression over the columns of a row.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Expr(Arc<Node>);

/// The value of the column of this name in the row being updated.
#[pyfunction]
pub fn col(name: String) -> Expr {
    Expr(Arc::new(Node::Column(name)))
}

#[pymethods]
impl Expr {
    fn __add__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.with(Operator::Add, other, false)
    }

    fn __radd__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.with(Operator::Add, other, true)
    }

    fn __sub__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.with(Operator::Sub, other, false)
    }

    fn __rsub__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.with(Operator::Sub, other, true)
    }

    fn __mul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.with(Operator::Mul, other, false)
    }

    fn __rmul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.with(Operator::Mul, other, true)
    }

    fn __truediv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.with(Operator::Div, other, false)
    }

    fn __rtruediv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.with(Operator::Div, other, true)
    }

    fn __neg__(&self) -> Expr {
        Expr(Arc::new(Node::Negate(self.0.clone())))
    }

    /// Rounds an exact result to this many digits after the point, halves to the even neighbour.
    #[pyo3(signature = (scale = 0))]
    fn round(&self, scale: u8) -> Expr {
        Expr(Arc::new(Node::Round(self.0.clone(), scale.min(SCALE_MAX))))
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        let message =
            "an expression has no truth value: it is evaluated in the row that is updated";
        Err(Raise::new(py, "TypeMismatch", message).err())
    }

    fn __repr__(&self) -> String {
        self.0.text()
    }
}

impl Expr {
    fn with(
        &self,
        operator: Operator,
        other: &Bound<'_, PyAny>,
        reflected: bool,
    ) -> PyResult<Expr> {
        let other = match other.cast::<Expr>() {
            Ok(expr) => expr.get().0.clone(),
            Err(_) => Arc::new(Node::Literal(literal(other)?)),
        };
        let (left, right) = if reflected {
            (other, self.0.clone())
        } else {
            (self.0.clone(), other)
        };
        Ok(Expr(Arc::new(Node::Binary(operator, left, right))))
    }

    /// The value for `column`, given the values of the row's columns by name (with their types).
    pub fn evaluate(
        &self,
        py: Python<'_>,
        column: &Column,
        lookup: &dyn Fn(&str) -> Option<(DataType, Value)>,
    ) -> PyResult<Value> {
        let result = self
            .0
            .evaluate(lookup)
            .and_then(|operand| store(column, operand));
        result.map_err(|failure| self.raise(py, column, &failure))
    }

    /// Whether the expression reads the column of this name.
    pub fn mentions(&self, name: &str) -> bool {
        self.0.mentions(name)
    }

    fn raise(&self, py: Python<'_>, column: &Column, failure: &Failure) -> PyErr {
        let text = self.0.text();
        let (class, expected, got) = match failure {
            Failure::UnknownColumn(name) => {
                return Raise::new(
                    py,
                    "UnknownColumn",
                    format!("{text}: the table has no column {name:?}"),
                )
                .with("column", name)
                .err();
            }
            Failure::Types(operation, left, right) => (
                "TypeMismatch",
                format!("numbers of one kind to {operation}"),
                format!("{left} and {right}"),
            ),
            Failure::Overflow(got) => (
                "ValueOutOfRange",
                format!("a result that fits {}", column.data_type),
                (*got).into(),
            ),
            Failure::DivisionByZero => (
                "ValueOutOfRange",
                "a divisor that is not zero".into(),
                "zero".into(),
            ),
        };
        Raise::new(
            py,
            class,
            format!(
                "column {:?} = {text}: expected {expected}, got {got}",
                column.name
            ),
        )
        .with("column", &column.name)
        .with("expected", expected)
        .with("got", got)
        .err()
    }
}

fn literal(object: &Bound<'_, PyAny>) -> PyResult<Operand> {
    let py = object.py();
    if object.is_none() {
        return Ok(Operand::Null);
    }
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Operand::Text(text.to_str()?.to_owned()));
    }
    if let Ok(float) = object.cast::<PyFloat>() {
        return Ok(Operand::Float(float.value()));
    }
    let is_exact = object.is_instance_of::<PyInt>() && !object.is_instance_of::<PyBool>()
        || object.is_instance(types(py)?.decimal.bind(py))?;
    if is_exact && let Some(exact) = exact(object.str()?.to_str()?) {
        return Ok(exact);
    }
    let (expected, got) = ("a column, an int, float, Decimal or str", describe(object));
    Err(Raise::new(
        py,
        "TypeMismatch",
        format!("expression: expected {expected}, got {got}"),
    )
    .with("expected", expected)
    .with("got", got)
    .err())
}

/// The number of this text at the smallest scale that holds it.
fn exact(text: &str) -> Option<Operand> {
    (0..=SCALE_MAX).find_map(|scale| {
        Some(Operand::Exact {
            unscaled: parse_decimal(text, 38, scale).ok()?,
            scale,
        })
    })
}

impl Node {
    fn evaluate(
        &self,
        lookup: &dyn Fn(&str) -> Option<(DataType, Value)>,
    ) -> Result<Operand, Failure> {
        match self {
            Node::Column(name) => {
                let (data_type, value) =
                    lookup(name).ok_or_else(|| Failure::UnknownColumn(name.clone()))?;
                Operand::load(data_type, value)
            }
            Node::Literal(operand) => Ok(operand.clone()),
            Node::Binary(operator, left, right) => {
                combine(*operator, left.evaluate(lookup)?, right.evaluate(lookup)?)
            }
            Node::Negate(node) => match node.evaluate(lookup)? {
                Operand::Exact { unscaled, scale } => Ok(Operand::Exact {
                    unscaled: -unscaled,
                    scale,
                }),
                Operand::Float(v) => Ok(Operand::Float(-v)),
                Operand::Null => Ok(Operand::Null),
                other @ Operand::Text(_) => Err(Failure::Types("negate", other.kind(), "nothing")),
            },
            Node::Round(node, places) => match node.evaluate(lookup)? {
                Operand::Exact { unscaled, scale } if scale > *places => {
                    let unscaled = round_half_even(unscaled, scale - places);
                    Ok(Operand::Exact {
                        unscaled,
                        scale: *places,
                    })
                }
                Operand::Float(v) => {
                    let power = 10_f64.powi(i32::from(*places));
                    Ok(Operand::Float((v * power).round_ties_even() / power))
                }
                other => Ok(other),
            },
        }
    }

    fn mentions(&self, name: &str) -> bool {
        match self {
            Node::Column(column) => column == name,
            Node::Literal(_) => false,
            Node::Binary(_, left, right) => left.mentions(name) || right.mentions(name),
            Node::Negate(node) | Node::Round(node, _) => node.mentions(name),
        }
    }

    fn text(&self) -> String {
        match self {
            Node::Column(name) => format!("col({name:?})"),
            Node::Literal(Operand::Null) => "None".into(),
            Node::Literal(Operand::Exact { unscaled, scale }) => format_decimal(*unscaled, *scale),
            Node::Literal(Operand::Float(v)) => format!("{v:?}"),
            Node::Literal(Operand::Text(v)) => format!("{v:?}"),
            Node::Binary(operator, left, right) => {
                let sign = match operator {
                    Operator::Add => "+",
                    Operator::Sub => "-",
                    Operator::Mul => "*",
                    Operator::Div => "/",
                };
                format!("({} {sign} {})", left.text(), right.text())
            }
            Node::Negate(node) => format!("-{}", node.text()),
            Node::Round(node, scale) => format!("{}.round({scale})", node.text()),
        }
    }
}

impl Operand {
    fn load(data_type: DataType, value: Value) -> Result<Operand, Failure> {
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

    fn kind(&self) -> &'static str {
        match self {
            Operand::Null => "null",
            Operand::Exact { .. } => "exact number",
            Operand::Float(_) => "float",
            Operand::Text(_) => "text",
        }
    }
}

fn combine(operator: Operator, left: Operand, right: Operand) -> Result<Operand, Failure> {
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

fn round_half_even(unscaled: i128, digits: u8) -> i128 {
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
fn store(column: &Column, operand: Operand) -> Result<Value, Failure> {
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
