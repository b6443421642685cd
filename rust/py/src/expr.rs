//! Expressions over the columns of one row: `col("balance") + 5`, evaluated where the row is.
//!
//! Integers and decimals are computed exactly, floats as floats; the two do not mix, as in Python. A result that does
//! not fit its column is an error and never rounded: `.round(2)` says where rounding is meant.

use std::sync::Arc;

use aurora_page::{Column, DataType, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

use crate::decimal::format_decimal;
use crate::errors::{Raise, describe};
use crate::operand::{
    Failure, Operand, Operator, SCALE_MAX, combine, exact, round_half_even, store,
};
use crate::pytypes::types;

enum Node {
    Column(String),
    Literal(Operand),
    Binary(Operator, Arc<Node>, Arc<Node>),
    Negate(Arc<Node>),
    Round(Arc<Node>, u8),
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
