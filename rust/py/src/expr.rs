//! Expressions as Python writes them: `col("balance") + 5`, `(col("price") > 5) & col("name").is_not_null()`.
//!
//! The language is [`aurora_scan::expr`]; here are its operators and methods. One tree serves updates, filters and
//! aggregates.

use std::sync::Arc;

use aurora_page::{Column, DataType, Schema};
use aurora_scan::decimal::parse_decimal;
use aurora_scan::expr::{
    Arithmetic, BoundExpr, Comparison, DEPTH_MAX, EvalError, Expr as Tree, ExprError, Function,
    Literal, POW10_MAX,
};
use aurora_scan::{Aggregate, AggregateFunction, Interpolation, Share};
use pyo3::basic::CompareOp;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};

use crate::errors::{Raise, describe, invalid_option};
use crate::expr_functions::{TextFunctions, TimeFunctions};
use crate::from_py::datetime_us;
use crate::pytypes::types;
use crate::schema::parse_type;
use crate::to_py::EPOCH_ORDINAL;

/// An expression over the columns of a row.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Expr {
    pub tree: Arc<Tree>,
    /// Known without walking: a loop that builds a chain must not take time that grows with its square.
    depth: usize,
}

/// The value of the column of this name.
#[pyfunction]
pub fn col(name: String) -> Expr {
    Expr::leaf(Tree::column(name))
}

/// A constant as an expression.
#[pyfunction]
pub fn lit(value: &Bound<'_, PyAny>) -> PyResult<Expr> {
    Ok(Expr::leaf(Tree::Literal(literal(value)?)))
}

/// The first of these values that is not null.
#[pyfunction]
#[pyo3(signature = (*values))]
pub fn coalesce(py: Python<'_>, values: Vec<Bound<'_, PyAny>>) -> PyResult<Expr> {
    if values.is_empty() {
        return Err(invalid_option(py, "coalesce", "at least one value", "none"));
    }
    let of = operands(&values)?;
    Expr::new(py, depth_of(&of), |of| Tree::Coalesce(of.into()), of)
}

/// The value of the first branch whose condition is true, else the last.
#[pyfunction]
#[pyo3(signature = (branches, otherwise))]
pub fn _case(
    py: Python<'_>,
    branches: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
    otherwise: &Bound<'_, PyAny>,
) -> PyResult<Expr> {
    let mut of = Vec::with_capacity(2 * branches.len() + 1);
    for (condition, value) in &branches {
        of.push(operand(condition)?);
        of.push(operand(value)?);
    }
    of.push(operand(otherwise)?);
    let make = |mut of: Vec<Tree>| {
        let otherwise = of.pop().map(Arc::new);
        let mut of = of.into_iter();
        let mut branches = Vec::new();
        while let (Some(condition), Some(value)) = (of.next(), of.next()) {
            branches.push((condition, value));
        }
        Tree::Case(branches.into(), otherwise)
    };
    Expr::new(py, depth_of(&of), make, of)
}

#[pymethods]
impl Expr {
    fn __add__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Add, other, false)
    }

    fn __radd__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Add, other, true)
    }

    fn __sub__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Sub, other, false)
    }

    fn __rsub__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Sub, other, true)
    }

    fn __mul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Mul, other, false)
    }

    fn __rmul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Mul, other, true)
    }

    fn __truediv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Div, other, false)
    }

    fn __rtruediv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Div, other, true)
    }

    fn __floordiv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::FloorDiv, other, false)
    }

    fn __rfloordiv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::FloorDiv, other, true)
    }

    fn __mod__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Mod, other, false)
    }

    fn __rmod__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.arithmetic(Arithmetic::Mod, other, true)
    }

    fn __neg__(&self, py: Python<'_>) -> PyResult<Expr> {
        self.wrap(py, Tree::Negate)
    }

    fn __abs__(&self, py: Python<'_>) -> PyResult<Expr> {
        self.call(py, Function::Abs)
    }

    fn __invert__(&self, py: Python<'_>) -> PyResult<Expr> {
        self.wrap(py, Tree::Not)
    }

    fn __and__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.joined(other, false, Tree::And)
    }

    fn __rand__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.joined(other, true, Tree::And)
    }

    fn __or__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.joined(other, false, Tree::Or)
    }

    fn __ror__(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.joined(other, true, Tree::Or)
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Expr> {
        let comparison = match op {
            CompareOp::Eq => Comparison::Eq,
            CompareOp::Ne => Comparison::Ne,
            CompareOp::Lt => Comparison::Lt,
            CompareOp::Le => Comparison::Le,
            CompareOp::Gt => Comparison::Gt,
            CompareOp::Ge => Comparison::Ge,
        };
        self.joined(other, false, |left, right| {
            Tree::Compare(comparison, left, right)
        })
    }

    /// Whether there is no value.
    fn is_null(&self, py: Python<'_>) -> PyResult<Expr> {
        self.wrap(py, Tree::IsNull)
    }

    /// Whether there is a value.
    fn is_not_null(&self, py: Python<'_>) -> PyResult<Expr> {
        self.wrap(py, |of| Tree::Not(Arc::new(Tree::IsNull(of))))
    }

    /// Whether the value is one of these.
    fn is_in(&self, py: Python<'_>, values: &Bound<'_, PyAny>) -> PyResult<Expr> {
        let list: Vec<Literal> = values
            .try_iter()?
            .map(|value| literal(&value?))
            .collect::<PyResult<_>>()?;
        self.wrap(py, |of| Tree::In(of, list.into()))
    }

    /// Whether the value lies between two others, both included.
    fn is_between(&self, lower: &Bound<'_, PyAny>, upper: &Bound<'_, PyAny>) -> PyResult<Expr> {
        let py = lower.py();
        let lower = self.__richcmp__(lower, CompareOp::Ge)?;
        let upper = self.__richcmp__(upper, CompareOp::Le)?;
        let depth = lower.depth.max(upper.depth);
        let tree = Tree::And(lower.tree, upper.tree);
        Expr::checked(py, depth + 1, tree)
    }

    /// The value, or another one where there is none.
    fn fill_null(&self, value: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.joined(value, false, |left, right| {
            Tree::Coalesce([Tree::clone(&left), Tree::clone(&right)].into())
        })
    }

    /// Rounds a number to this many digits after the point, halves to the even neighbour.
    #[pyo3(signature = (scale = 0))]
    fn round(&self, py: Python<'_>, scale: u8) -> PyResult<Expr> {
        self.wrap(py, |of| Tree::Round(of, scale.min(POW10_MAX)))
    }

    /// The number without its sign.
    fn abs(&self, py: Python<'_>) -> PyResult<Expr> {
        self.call(py, Function::Abs)
    }

    /// The value as another type: a Python type, an annotation of a column, or a stored type by its name.
    fn cast(&self, to: &Bound<'_, PyAny>) -> PyResult<Expr> {
        let py = to.py();
        let stored: String = match to.cast::<PyString>() {
            Ok(name) => name.to_str()?.to_owned(),
            Err(_) => {
                let types = py.import(intern!(py, "aurora_engine.types"))?;
                let stored = types.call_method1(intern!(py, "stored_type"), (to, "cast"))?;
                stored.get_item(0)?.extract()?
            }
        };
        let Some(to) = parse_type(&stored) else {
            return Err(invalid_option(py, "cast", "a column type", &stored));
        };
        self.wrap(py, |of| Tree::Cast(of, to))
    }

    /// Functions of texts.
    #[getter]
    fn str(slf: Bound<'_, Self>) -> TextFunctions {
        TextFunctions(slf.unbind())
    }

    /// Functions of dates, times and timestamps.
    #[getter]
    fn dt(slf: Bound<'_, Self>) -> TimeFunctions {
        TimeFunctions(slf.unbind())
    }

    /// The sum of the values of a group.
    fn sum(&self) -> Agg {
        self.aggregate(AggregateFunction::Sum)
    }

    /// The smallest value of a group.
    fn min(&self) -> Agg {
        self.aggregate(AggregateFunction::Min)
    }

    /// The largest value of a group.
    fn max(&self) -> Agg {
        self.aggregate(AggregateFunction::Max)
    }

    /// The mean of a group, a float.
    fn mean(&self) -> Agg {
        self.aggregate(AggregateFunction::Mean)
    }

    /// How many values of a group are not null.
    fn count(&self) -> Agg {
        self.aggregate(AggregateFunction::Count)
    }

    /// How many different values a group has, null not counted.
    fn n_unique(&self) -> Agg {
        self.aggregate(AggregateFunction::CountDistinct)
    }

    /// Roughly how many different values a group has: within 2 % two times of three.
    fn approx_n_unique(&self) -> Agg {
        self.aggregate(AggregateFunction::ApproxDistinct)
    }

    /// The middle value of a group, a float; the mean of the middle two.
    fn median(&self) -> Agg {
        let half = Share::new(0.5).unwrap_or_else(|| unreachable!("from 0 to 1"));
        self.aggregate(AggregateFunction::Quantile(half, Interpolation::Linear))
    }

    /// The value below which a share of a group's values lie, a float.
    #[pyo3(signature = (quantile, interpolation="nearest"))]
    fn quantile(&self, py: Python<'_>, quantile: f64, interpolation: &str) -> PyResult<Agg> {
        let between = Interpolation::from_name(interpolation).ok_or_else(|| {
            let expected = "\"nearest\", \"lower\", \"higher\", \"midpoint\" or \"linear\"";
            invalid_option(py, "interpolation", expected, &format!("{interpolation:?}"))
        })?;
        let share = share(py, quantile)?;
        Ok(self.aggregate(AggregateFunction::Quantile(share, between)))
    }

    /// The same within 1 % of the value, in memory that does not grow with the number of values.
    fn approx_quantile(&self, py: Python<'_>, quantile: f64) -> PyResult<Agg> {
        let share = share(py, quantile)?;
        Ok(self.aggregate(AggregateFunction::ApproxQuantile(share)))
    }

    /// The sample variance of a group, a float.
    fn var(&self) -> Agg {
        self.aggregate(AggregateFunction::Variance)
    }

    /// The sample standard deviation of a group, a float.
    fn std(&self) -> Agg {
        self.aggregate(AggregateFunction::StdDev)
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        let message = "an expression has no truth value: it is evaluated in the rows (use &, | and ~ for and, or and not)";
        Err(Raise::new(py, "TypeMismatch", message).err())
    }

    fn __repr__(&self) -> String {
        self.tree.to_string()
    }
}

fn depth_of(of: &[(Tree, usize)]) -> usize {
    of.iter().map(|(_, depth)| *depth).max().unwrap_or(0) + 1
}

/// What is computed from the rows of a group: `col("total").sum()`.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Agg(pub Aggregate);

#[pymethods]
impl Agg {
    fn __repr__(&self) -> String {
        self.0.to_string()
    }
}

fn share(py: Python<'_>, quantile: f64) -> PyResult<Share> {
    let wrong = || {
        invalid_option(
            py,
            "quantile",
            "a number from 0 to 1",
            &quantile.to_string(),
        )
    };
    Share::new(quantile).ok_or_else(wrong)
}

/// How many rows a group has.
#[pyfunction]
pub fn count() -> Agg {
    Agg(Aggregate {
        function: AggregateFunction::Len,
        of: None,
    })
}

impl Expr {
    fn aggregate(&self, function: AggregateFunction) -> Agg {
        Agg(Aggregate {
            function,
            of: Some(Tree::clone(&self.tree)),
        })
    }

    fn leaf(tree: Tree) -> Expr {
        Expr {
            tree: Arc::new(tree),
            depth: 1,
        }
    }

    fn new(
        py: Python<'_>,
        depth: usize,
        make: impl FnOnce(Vec<Tree>) -> Tree,
        of: Vec<(Tree, usize)>,
    ) -> PyResult<Expr> {
        let tree = make(of.into_iter().map(|(tree, _)| tree).collect());
        Expr::checked(py, depth, tree)
    }

    /// Refuses what is nested too deeply while it is built: freeing a tree recurses too.
    fn checked(py: Python<'_>, depth: usize, tree: Tree) -> PyResult<Expr> {
        if depth > DEPTH_MAX {
            let expected = format!("at most {DEPTH_MAX} levels");
            return Err(invalid_option(
                py,
                "expression",
                &expected,
                &depth.to_string(),
            ));
        }
        Ok(Expr {
            tree: Arc::new(tree),
            depth,
        })
    }

    fn wrap(&self, py: Python<'_>, make: impl FnOnce(Arc<Tree>) -> Tree) -> PyResult<Expr> {
        let tree = make(self.tree.clone());
        // `is_not_null` is two levels.
        let levels = if matches!(&tree, Tree::Not(of) if !Arc::ptr_eq(of, &self.tree)) {
            2
        } else {
            1
        };
        Expr::checked(py, self.depth + levels, tree)
    }

    /// A function of this expression.
    pub fn call(&self, py: Python<'_>, function: Function) -> PyResult<Expr> {
        self.wrap(py, |of| Tree::Call(function, [Tree::clone(&of)].into()))
    }

    fn joined(
        &self,
        other: &Bound<'_, PyAny>,
        reflected: bool,
        make: impl FnOnce(Arc<Tree>, Arc<Tree>) -> Tree,
    ) -> PyResult<Expr> {
        let (other_tree, depth) = match other.cast::<Expr>() {
            Ok(expr) => (expr.get().tree.clone(), expr.get().depth),
            Err(_) => (Arc::new(Tree::Literal(literal(other)?)), 1),
        };
        let (left, right) = if reflected {
            (other_tree, self.tree.clone())
        } else {
            (self.tree.clone(), other_tree)
        };
        Expr::checked(other.py(), self.depth.max(depth) + 1, make(left, right))
    }

    /// A function of this expression and another value.
    pub fn call_with(&self, function: Function, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.joined(other, false, |left, right| {
            Tree::Call(function, [Tree::clone(&left), Tree::clone(&right)].into())
        })
    }

    fn arithmetic(
        &self,
        operator: Arithmetic,
        other: &Bound<'_, PyAny>,
        reflected: bool,
    ) -> PyResult<Expr> {
        if other.is_instance_of::<PyBool>() {
            return Err(not_a_literal(other));
        }
        self.joined(other, reflected, |left, right| {
            Tree::Arithmetic(operator, left, right)
        })
    }

    /// The expression over the rows of a table, for a column that is set to it.
    pub fn bind_for(
        &self,
        py: Python<'_>,
        schema: &Schema,
        column: &Column,
    ) -> PyResult<Arc<BoundExpr>> {
        let bound = self.tree.bind(schema).and_then(|bound| {
            bound.expect_assignable(column)?;
            Ok(bound)
        });
        bound.map(Arc::new).map_err(|error| {
            let context = format!("column {:?} = {}", column.name, self.tree);
            raise_expr(py, &context, Some(&column.name), error)
        })
    }
}

/// The exception for an expression that makes no sense for the rows; `context` says where it stands.
pub fn raise_expr(py: Python<'_>, context: &str, column: Option<&str>, error: ExprError) -> PyErr {
    match error {
        ExprError::UnknownColumn { name, expected } => {
            let message = format!("{context}: the table has no column {name:?}, but {expected}");
            Raise::new(py, "UnknownColumn", message)
                .with("column", name)
                .with("expected", expected)
                .err()
        }
        ExprError::Types { expected, got, .. } => {
            refuse(py, "TypeMismatch", context, column, &expected, &got)
        }
        ExprError::TooDeep { expected, got } => invalid_option(
            py,
            "expression",
            &format!("at most {expected} levels"),
            &got.to_string(),
        ),
    }
}

/// The exception for a row that an expression has no value for.
pub fn raise_eval(py: Python<'_>, context: &str, column: Option<&str>, error: &EvalError) -> PyErr {
    let (class, expected, got) = match error {
        EvalError::OutOfRange { expected, got } => {
            ("ValueOutOfRange", expected.clone(), got.clone())
        }
        EvalError::DivisionByZero => (
            "ValueOutOfRange",
            "a divisor that is not zero".into(),
            "zero".into(),
        ),
        EvalError::LongValue { .. } | EvalError::WrongKind { .. } => {
            let message = format!("{context}: {error}");
            return Raise::new(py, "InternalError", message).err();
        }
    };
    refuse(py, class, context, column, &expected, &got)
}

fn refuse(
    py: Python<'_>,
    class: &'static str,
    context: &str,
    column: Option<&str>,
    expected: &str,
    got: &str,
) -> PyErr {
    let message = format!("{context}: expected {expected}, got {got}");
    let raise = Raise::new(py, class, message);
    let raise = match column {
        Some(column) => raise.with("column", column),
        None => raise,
    };
    raise.with("expected", expected).with("got", got).err()
}

fn operand(object: &Bound<'_, PyAny>) -> PyResult<(Tree, usize)> {
    match object.cast::<Expr>() {
        Ok(expr) => Ok((Tree::clone(&expr.get().tree), expr.get().depth)),
        Err(_) => Ok((Tree::Literal(literal(object)?), 1)),
    }
}

fn operands(objects: &[Bound<'_, PyAny>]) -> PyResult<Vec<(Tree, usize)>> {
    objects.iter().map(operand).collect()
}

/// A Python object as a constant.
pub fn literal(object: &Bound<'_, PyAny>) -> PyResult<Literal> {
    let py = object.py();
    let types = types(py)?;
    if object.is_none() {
        return Ok(Literal::Null);
    }
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Literal::Text(text.to_str()?.to_owned()));
    }
    if let Ok(value) = object.cast::<PyBool>() {
        return Ok(Literal::Bool(value.is_true()));
    }
    if let Ok(float) = object.cast::<PyFloat>() {
        return Ok(Literal::Float(float.value()));
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Literal::Bytes(bytes.as_bytes().to_vec()));
    }
    if object.is_instance_of::<PyInt>() || object.is_instance(types.decimal.bind(py))? {
        return exact(object);
    }
    if object.is_instance(types.datetime.bind(py))? {
        let zoned = !object.call_method0(intern!(py, "utcoffset"))?.is_none();
        let us = datetime_us(object, types, zoned)?;
        return Ok(Literal::Timestamp { us, zoned });
    }
    if object.is_instance(types.date.bind(py))? {
        let ordinal: i32 = object.call_method0(intern!(py, "toordinal"))?.extract()?;
        return Ok(Literal::Date(ordinal - EPOCH_ORDINAL));
    }
    if object.is_instance(types.time.bind(py))? {
        let column = Column {
            id: 0,
            name: "expression".into(),
            data_type: DataType::Time,
            nullable: false,
        };
        if let aurora_page::Value::Time(us) = crate::from_py::to_value(&column, object)? {
            return Ok(Literal::Time(us));
        }
    }
    if object.is_instance(types.uuid.bind(py))? {
        let number: u128 = object.getattr(intern!(py, "int"))?.extract()?;
        return Ok(Literal::Uuid(number.to_be_bytes()));
    }
    // NumPy's integers come this way.
    match object.call_method0(intern!(py, "__index__")) {
        Ok(index) => exact(&index),
        Err(_) => Err(not_a_literal(object)),
    }
}

/// An int or Decimal at the smallest scale that holds it.
fn exact(object: &Bound<'_, PyAny>) -> PyResult<Literal> {
    let text = object.str()?;
    let text = text.to_str()?;
    let found = (0..=POW10_MAX).find_map(|scale| {
        let unscaled = parse_decimal(text, 38, scale).ok()?;
        Some(Literal::Exact { unscaled, scale })
    });
    found.ok_or_else(|| {
        let (expected, got) = ("a finite number of at most 38 digits", describe(object));
        refuse(
            object.py(),
            "ValueOutOfRange",
            "expression",
            None,
            expected,
            &got,
        )
    })
}

fn not_a_literal(object: &Bound<'_, PyAny>) -> PyErr {
    let expected = "a column, an int, float, Decimal or str, or another value of a column";
    let got = describe(object);
    refuse(
        object.py(),
        "TypeMismatch",
        "expression",
        None,
        expected,
        &got,
    )
}
