//! An expression whose columns are found and whose types are checked.

use aurora_page::{Column, DataType};

use super::datum::{Datum, Kind};
use super::error::ExprError;
use super::function::Function;
use super::pattern::RegexPattern;
use super::{Arithmetic, Comparison, Expr};

/// A node with its kind. Operands are of the kinds that the operation needs; only the scales of exact numbers differ.
#[derive(Clone, PartialEq, Debug)]
pub struct Typed {
    /// What its values are.
    pub kind: Kind,
    /// What it does.
    pub node: Node,
}

/// See [`Expr`]: the same operations on bound operands.
#[derive(Clone, PartialEq, Debug)]
pub enum Node {
    /// The value of the column at this index.
    Column(usize),
    /// A constant.
    Literal(Datum<'static>),
    /// Not true.
    Not(Box<Typed>),
    /// The number with the other sign.
    Negate(Box<Typed>),
    /// Whether there is no value.
    IsNull(Box<Typed>),
    /// Two numbers, texts or times joined.
    Arithmetic(Arithmetic, Box<Typed>, Box<Typed>),
    /// Two values compared.
    Compare(Comparison, Box<Typed>, Box<Typed>),
    /// Both are true.
    And(Box<Typed>, Box<Typed>),
    /// At least one is true.
    Or(Box<Typed>, Box<Typed>),
    /// One of a list, which ascends, has no null, and is of the value's kind and scale.
    In {
        /// What is looked for.
        value: Box<Typed>,
        /// Where.
        list: Vec<Datum<'static>>,
        /// Whether the list had a null: then what is not found is unknown.
        has_null: bool,
    },
    /// The value of the first true condition, else the last.
    Case(Vec<(Typed, Typed)>, Option<Box<Typed>>),
    /// The first that is not null.
    Coalesce(Vec<Typed>),
    /// The value as this node's kind, within the type if one was named.
    Cast(Box<Typed>, Option<DataType>),
    /// Rounded to this node's scale; a float to so many digits.
    Round(Box<Typed>, u8),
    /// Whether a regular expression is found in a text.
    Matches(Box<Typed>, RegexPattern),
    /// A function.
    Call(Function, Vec<Typed>),
}

/// An expression ready to be evaluated on rows of the schema that it was bound to.
#[derive(Clone, PartialEq, Debug)]
pub struct BoundExpr {
    pub(super) expr: Expr,
    pub(super) root: Typed,
    pub(super) columns: Vec<usize>,
    pub(super) data_type: Option<DataType>,
}

impl BoundExpr {
    /// What was bound.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// The tree that is evaluated.
    pub fn root(&self) -> &Typed {
        &self.root
    }

    /// What its values are.
    pub fn kind(&self) -> Kind {
        self.root.kind
    }

    /// The column type that its values fit: that of a column or cast as it is, otherwise the widest of the kind. `None` for a
    /// null without type.
    pub fn data_type(&self) -> Option<DataType> {
        self.data_type
    }

    /// Indexes of the columns that it reads, ascending.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Makes sure that it is a condition.
    ///
    /// # Errors
    /// [`ExprError::Types`].
    pub fn expect_condition(&self) -> Result<(), ExprError> {
        match self.root.kind {
            Kind::Bool | Kind::Null => Ok(()),
            other => Err(ExprError::Types {
                expression: self.expr.to_string(),
                expected: "a condition (bool)".into(),
                got: other.to_string(),
            }),
        }
    }

    /// Makes sure that its values can be stored in a column, as far as types tell.
    ///
    /// # Errors
    /// [`ExprError::Types`].
    pub fn expect_assignable(&self, column: &Column) -> Result<(), ExprError> {
        let target = Kind::of(column.data_type);
        let fits = match (self.root.kind, target) {
            (Kind::Null, _) | (Kind::Int, Kind::Float) => true,
            (from, to) if from.scale().is_some() => to.scale().is_some(),
            (from, to) => from == to,
        };
        if fits {
            return Ok(());
        }
        Err(ExprError::Types {
            expression: self.expr.to_string(),
            expected: column.data_type.to_string(),
            got: self.root.kind.to_string(),
        })
    }
}
