//! The functions of expressions, in the two groups that Polars has: `col("name").str` and `col("day").dt`.

use aurora_scan::expr::Function;
use pyo3::prelude::*;

use crate::expr::Expr;

/// Functions of texts: `col("name").str.starts_with("A")`.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct TextFunctions(pub Py<Expr>);

#[pymethods]
impl TextFunctions {
    /// The text in lower case.
    fn to_lowercase(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Lower)
    }

    /// The text in upper case.
    fn to_uppercase(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Upper)
    }

    /// How many characters it has.
    fn len_chars(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Length)
    }

    /// The text without spaces at its ends.
    fn strip_chars(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Trim)
    }

    /// Whether it begins with another text.
    fn starts_with(&self, prefix: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.0.get().call_with(Function::StartsWith, prefix)
    }

    /// Whether it ends with another text.
    fn ends_with(&self, suffix: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.0.get().call_with(Function::EndsWith, suffix)
    }

    /// Whether a regular expression is found in it; with `literal`, whether another text is.
    #[pyo3(signature = (pattern, *, literal=false))]
    fn contains(&self, pattern: &Bound<'_, PyAny>, literal: bool) -> PyResult<Expr> {
        let function = match literal {
            true => Function::Contains,
            false => Function::Matches,
        };
        self.0.get().call_with(function, pattern)
    }

    /// Whether it is like a pattern: `%` is any run of characters, `_` any one.
    fn like(&self, pattern: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.0.get().call_with(Function::Like, pattern)
    }

    /// The same whatever the case.
    fn ilike(&self, pattern: &Bound<'_, PyAny>) -> PyResult<Expr> {
        self.0.get().call_with(Function::Ilike, pattern)
    }
}

/// Functions of dates, times and timestamps: `col("day").dt.year()`.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct TimeFunctions(pub Py<Expr>);

#[pymethods]
impl TimeFunctions {
    /// The year.
    fn year(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Year)
    }

    /// The quarter, 1 to 4.
    fn quarter(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Quarter)
    }

    /// The month, 1 to 12.
    fn month(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Month)
    }

    /// The day of the month, 1 to 31.
    fn day(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Day)
    }

    /// The day of the week, 1 (Monday) to 7.
    fn weekday(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Weekday)
    }

    /// The hour, 0 to 23.
    fn hour(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Hour)
    }

    /// The minute, 0 to 59.
    fn minute(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Minute)
    }

    /// The second, 0 to 59.
    fn second(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Second)
    }

    /// The date of a timestamp.
    fn date(&self, py: Python<'_>) -> PyResult<Expr> {
        self.0.get().call(py, Function::Date)
    }
}
