//! Expressions over the columns of one row: what filters, computed columns, CHECK constraints, expression indexes and
//! updates are made of.
//!
//! ```text
//!   Expr (a tree, columns by name or id)  --encode/decode-->  bytes in the catalogue, in a plan
//!        |  bind(&Schema): columns found, types checked, literals brought to the types of what they meet
//!        v
//!   BoundExpr  --evaluate(row)-->  Datum      --test(row)-->  Some(true) | Some(false) | None
//! ```
//! Semantics:
//!
//! - Logic is three-valued, as in SQL: null compared with anything is null, `false AND null` is false, a row passes a filter
//!   only if its condition is true, and violates a CHECK only if it is false.
//! - Integers and decimals are exact: 128 bits on the way, overflow is an error and never a wrong number. Floats are 64 bits;
//!   an integer beside a float becomes one, a decimal does not. Two integers divided give a float; decimals are divided
//!   after a cast.
//! - Floats have a total order, as in keys: -0 equals 0, NaN equals NaN and comes after infinity.
//! - A date minus a date is a number of days, a timestamp minus a timestamp one of microseconds; both can be added again.
//! - AND, OR, CASE and COALESCE evaluate from left to right, and what they do not need cannot fail.

mod bind;
mod bound;
mod cast;
mod civil;
mod codec;
mod compare;
mod datum;
mod display;
mod error;
mod eval;
mod function;
mod number;
mod pattern;

use std::sync::Arc;

use aurora_page::{DataType, Schema};

pub use bound::{BoundExpr, Node, Typed};
pub use codec::{CodecError, EXPR_FORMAT};
pub use compare::{compare_exact, compare_floats};
pub use datum::{Datum, Kind};
pub use error::{EvalError, ExprError};
pub use function::Function;
pub(crate) use number::pow10_float;
pub use number::{POW10_MAX, pow10, round_half_even};
pub(crate) use pattern::LikePattern;
pub use pattern::RegexPattern;

/// Deepest nesting of an expression: its evaluation recurses.
pub const DEPTH_MAX: usize = 200;

/// What joins two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arithmetic {
    /// Sum; of two texts, one after the other.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Quotient of floats or integers, a float.
    Div,
    /// Quotient of integers, rounded down.
    FloorDiv,
    /// What integer division leaves; has the sign of the divisor.
    Mod,
}

/// What two values of one type are held against.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// A constant.
#[derive(Clone, PartialEq, Debug)]
pub enum Literal {
    /// No value, of any type.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer (scale 0) or a decimal: `unscaled / 10^scale`.
    Exact {
        /// The digits.
        unscaled: i128,
        /// Digits after the point.
        scale: u8,
    },
    /// IEEE 754, 64 bits.
    Float(f64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01 00:00.
    Timestamp {
        /// The microseconds.
        us: i64,
        /// Whether it is an instant, in UTC.
        zoned: bool,
    },
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Bytes(Vec<u8>),
    /// 16 bytes.
    Uuid([u8; 16]),
}

/// How an expression names a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ColumnName {
    /// By its name, as people write it.
    Name(String),
    /// By its id, which stays when the column is renamed: what is stored.
    Id(u16),
}

/// An expression: see the module. Subtrees are shared, so cloning is cheap.
#[derive(Clone, PartialEq, Debug)]
pub enum Expr {
    /// The value of a column.
    Column(ColumnName),
    /// A constant.
    Literal(Literal),
    /// True for false and the other way round.
    Not(Arc<Expr>),
    /// The number with the other sign.
    Negate(Arc<Expr>),
    /// Whether there is no value; never null itself.
    IsNull(Arc<Expr>),
    /// Two numbers joined.
    Arithmetic(Arithmetic, Arc<Expr>, Arc<Expr>),
    /// Two values compared.
    Compare(Comparison, Arc<Expr>, Arc<Expr>),
    /// Both are true.
    And(Arc<Expr>, Arc<Expr>),
    /// At least one is true.
    Or(Arc<Expr>, Arc<Expr>),
    /// The value is one of a list.
    In(Arc<Expr>, Arc<[Literal]>),
    /// The value of the first branch whose condition is true, else the last value, else null.
    Case(Arc<[(Expr, Expr)]>, Option<Arc<Expr>>),
    /// The first value that is not null.
    Coalesce(Arc<[Expr]>),
    /// The value as another type.
    Cast(Arc<Expr>, DataType),
    /// The number with at most so many digits after the point, halves to the even neighbour.
    Round(Arc<Expr>, u8),
    /// A function of its arguments.
    Call(Function, Arc<[Expr]>),
}

impl Expr {
    /// The column of this name.
    pub fn column(name: impl Into<String>) -> Expr {
        Expr::Column(ColumnName::Name(name.into()))
    }

    /// An integer.
    pub fn int(value: i64) -> Expr {
        Expr::Literal(Literal::Exact {
            unscaled: value.into(),
            scale: 0,
        })
    }

    /// A text.
    pub fn text(value: impl Into<String>) -> Expr {
        Expr::Literal(Literal::Text(value.into()))
    }

    /// This and another joined.
    pub fn arithmetic(self, operator: Arithmetic, other: Expr) -> Expr {
        Expr::Arithmetic(operator, Arc::new(self), Arc::new(other))
    }

    /// This compared with another.
    pub fn compare(self, comparison: Comparison, other: Expr) -> Expr {
        Expr::Compare(comparison, Arc::new(self), Arc::new(other))
    }

    /// This and another are true.
    pub fn and(self, other: Expr) -> Expr {
        Expr::And(Arc::new(self), Arc::new(other))
    }

    /// This or another is true.
    pub fn or(self, other: Expr) -> Expr {
        Expr::Or(Arc::new(self), Arc::new(other))
    }

    /// Calls `visit` for this expression and every one in it, parents first.
    pub fn walk<'e>(&'e self, visit: &mut impl FnMut(&'e Expr)) {
        visit(self);
        match self {
            Expr::Column(_) | Expr::Literal(_) => {}
            Expr::Not(of)
            | Expr::Negate(of)
            | Expr::IsNull(of)
            | Expr::In(of, _)
            | Expr::Cast(of, _)
            | Expr::Round(of, _) => of.walk(visit),
            Expr::Arithmetic(_, left, right)
            | Expr::Compare(_, left, right)
            | Expr::And(left, right)
            | Expr::Or(left, right) => {
                left.walk(visit);
                right.walk(visit);
            }
            Expr::Case(branches, otherwise) => {
                for (condition, value) in branches.iter() {
                    condition.walk(visit);
                    value.walk(visit);
                }
                if let Some(otherwise) = otherwise {
                    otherwise.walk(visit);
                }
            }
            Expr::Coalesce(of) | Expr::Call(_, of) => {
                of.iter().for_each(|expr| expr.walk(visit));
            }
        }
    }

    /// How deep it is nested.
    pub fn depth(&self) -> usize {
        let mut below = 0;
        match self {
            Expr::Column(_) | Expr::Literal(_) => {}
            Expr::Not(of)
            | Expr::Negate(of)
            | Expr::IsNull(of)
            | Expr::In(of, _)
            | Expr::Cast(of, _)
            | Expr::Round(of, _) => below = of.depth(),
            Expr::Arithmetic(_, left, right)
            | Expr::Compare(_, left, right)
            | Expr::And(left, right)
            | Expr::Or(left, right) => below = left.depth().max(right.depth()),
            Expr::Case(branches, otherwise) => {
                for (condition, value) in branches.iter() {
                    below = below.max(condition.depth()).max(value.depth());
                }
                if let Some(otherwise) = otherwise {
                    below = below.max(otherwise.depth());
                }
            }
            Expr::Coalesce(of) | Expr::Call(_, of) => {
                below = of.iter().map(Expr::depth).max().unwrap_or(0);
            }
        }
        below + 1
    }

    /// Whether it reads the column of this name.
    pub fn mentions(&self, name: &str) -> bool {
        let mut found = false;
        self.walk(&mut |expr| {
            found |= matches!(expr, Expr::Column(ColumnName::Name(of)) if of == name);
        });
        found
    }

    /// The same with columns named by their ids, as it is stored: a column that is renamed stays the same.
    ///
    /// # Errors
    /// [`ExprError::UnknownColumn`].
    pub fn with_ids(&self, schema: &Schema) -> Result<Expr, ExprError> {
        self.replace_columns(&mut |name| match name {
            ColumnName::Id(id) => Ok(Expr::Column(ColumnName::Id(*id))),
            ColumnName::Name(name) => match schema.column_index(name) {
                Some(index) => Ok(Expr::Column(ColumnName::Id(schema.columns()[index].id))),
                None => Err(bind::unknown(schema, name)),
            },
        })
    }

    /// The same with columns named as the schema names them now: how it is shown.
    pub fn with_names(&self, schema: &Schema) -> Expr {
        let named = self.replace_columns::<ExprError>(&mut |name| {
            let now = match name {
                ColumnName::Id(id) => schema.columns().iter().find(|column| column.id == *id),
                ColumnName::Name(_) => None,
            };
            Ok(match now {
                Some(column) => Expr::column(column.name.clone()),
                None => Expr::Column(name.clone()),
            })
        });
        named.unwrap_or_else(|_| self.clone())
    }

    /// The same with each column replaced by what it stands for.
    ///
    /// # Errors
    /// What `map` answers.
    pub fn replace_columns<E>(
        &self,
        map: &mut impl FnMut(&ColumnName) -> Result<Expr, E>,
    ) -> Result<Expr, E> {
        let mut one = |of: &Arc<Expr>| of.replace_columns(map).map(Arc::new);
        Ok(match self {
            Expr::Literal(_) => self.clone(),
            Expr::Column(name) => map(name)?,
            Expr::Not(of) => Expr::Not(one(of)?),
            Expr::Negate(of) => Expr::Negate(one(of)?),
            Expr::IsNull(of) => Expr::IsNull(one(of)?),
            Expr::In(of, list) => Expr::In(one(of)?, list.clone()),
            Expr::Cast(of, to) => Expr::Cast(one(of)?, *to),
            Expr::Round(of, scale) => Expr::Round(one(of)?, *scale),
            Expr::Arithmetic(operator, left, right) => {
                Expr::Arithmetic(*operator, one(left)?, one(right)?)
            }
            Expr::Compare(comparison, left, right) => {
                Expr::Compare(*comparison, one(left)?, one(right)?)
            }
            Expr::And(left, right) => Expr::And(one(left)?, one(right)?),
            Expr::Or(left, right) => Expr::Or(one(left)?, one(right)?),
            Expr::Case(branches, otherwise) => {
                let otherwise = otherwise.as_ref().map(one).transpose()?;
                let branches: Result<Vec<_>, E> = branches
                    .iter()
                    .map(|(condition, value)| {
                        Ok((condition.replace_columns(map)?, value.replace_columns(map)?))
                    })
                    .collect();
                Expr::Case(branches?.into(), otherwise)
            }
            Expr::Coalesce(of) => Expr::Coalesce(map_all(of, map)?),
            Expr::Call(function, of) => Expr::Call(*function, map_all(of, map)?),
        })
    }
}

fn map_all<E>(
    of: &[Expr],
    map: &mut impl FnMut(&ColumnName) -> Result<Expr, E>,
) -> Result<Arc<[Expr]>, E> {
    let mapped: Result<Vec<Expr>, E> = of.iter().map(|expr| expr.replace_columns(map)).collect();
    Ok(mapped?.into())
}
