//! Why an expression makes no sense for a schema, and why one has no value for a row.

use aurora_page::OverflowRef;
use thiserror::Error;

/// An expression that cannot be evaluated on rows of a schema.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ExprError {
    /// A column that is not there.
    #[error("expected a column among {expected}, got {name:?}")]
    UnknownColumn {
        /// The name, or `#` and the id.
        name: String,
        /// The columns that there are.
        expected: String,
    },
    /// Values of a type that the operation does not take.
    #[error("{expression}: expected {expected}, got {got}")]
    Types {
        /// The part of the expression.
        expression: String,
        /// What it takes.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// Nested too deeply.
    #[error("expected an expression of at most {expected} levels, got {got}")]
    TooDeep {
        /// The limit.
        expected: usize,
        /// Its levels.
        got: usize,
    },
}

/// A row for which an expression has no value.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum EvalError {
    /// A result that its type does not hold.
    #[error("expected {expected}, got {got}")]
    OutOfRange {
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A division by zero.
    #[error("expected a divisor that is not zero, got zero")]
    DivisionByZero,
    /// A value that its row keeps in overflow pages: fetch it, and evaluate with it in its place.
    #[error("column {column}: expected the value, got a reference to {} bytes in overflow pages", reference.len)]
    LongValue {
        /// Index of the column.
        column: usize,
        /// Where it is.
        reference: OverflowRef,
    },
    /// A row whose values are not of the types that the expression was bound to.
    #[error("expected a {expected}, got a {got}: the row is of another schema")]
    WrongKind {
        /// The type that was bound.
        expected: &'static str,
        /// What was found.
        got: &'static str,
    },
}

impl EvalError {
    pub(super) fn out_of_range(expected: impl Into<String>, got: impl Into<String>) -> EvalError {
        EvalError::OutOfRange {
            expected: expected.into(),
            got: got.into(),
        }
    }

    pub(super) fn digits() -> EvalError {
        EvalError::out_of_range("a result of at most 38 digits", "more than 38 digits")
    }
}
