//! Finding columns and checking types.

use std::sync::Arc;

use aurora_page::{DataType, Schema};

use super::bound::{BoundExpr, Node, Typed};
use super::cast;
use super::datum::{Datum, Kind};
use super::error::ExprError;
use super::function::Function;
use super::number::POW10_MAX;
use super::pattern::RegexPattern;
use super::{Arithmetic, ColumnName, Comparison, DEPTH_MAX, Expr, Literal};

impl Expr {
    /// The expression over rows of a schema.
    ///
    /// # Errors
    /// Columns that are not there, operations on types that do not take them, too deep a nesting.
    pub fn bind(&self, schema: &Schema) -> Result<BoundExpr, ExprError> {
        let depth = self.depth();
        if depth > DEPTH_MAX {
            return Err(ExprError::TooDeep {
                expected: DEPTH_MAX,
                got: depth,
            });
        }
        let mut binder = Binder {
            schema,
            columns: Vec::new(),
        };
        let root = binder.bind(self)?;
        let mut columns = binder.columns;
        columns.sort_unstable();
        columns.dedup();
        let data_type = match &root.node {
            Node::Column(index) => Some(schema.columns()[*index].data_type),
            Node::Cast(_, Some(to)) => Some(*to),
            _ => root.kind.data_type(),
        };
        Ok(BoundExpr {
            expr: self.clone(),
            root,
            columns,
            data_type,
        })
    }
}

pub(super) fn unknown(schema: &Schema, name: &str) -> ExprError {
    let names: Vec<&str> = schema
        .columns()
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    ExprError::UnknownColumn {
        name: name.to_owned(),
        expected: names.join(", "),
    }
}

impl Literal {
    /// The kind and value of a constant.
    pub fn datum(&self) -> (Kind, Datum<'static>) {
        match self {
            Literal::Null => (Kind::Null, Datum::Null),
            Literal::Bool(v) => (Kind::Bool, Datum::Bool(*v)),
            Literal::Exact { unscaled, scale: 0 } => (Kind::Int, Datum::Exact(*unscaled)),
            Literal::Exact { unscaled, scale } => {
                (Kind::Decimal { scale: *scale }, Datum::Exact(*unscaled))
            }
            Literal::Float(v) => (Kind::Float, Datum::Float(*v)),
            Literal::Date(v) => (Kind::Date, Datum::Date(*v)),
            Literal::Time(v) => (Kind::Time, Datum::Time(*v)),
            Literal::Timestamp { us, zoned } => {
                (Kind::Timestamp { zoned: *zoned }, Datum::Timestamp(*us))
            }
            Literal::Text(v) => (Kind::Text, Datum::Text(v.clone().into())),
            Literal::Bytes(v) => (Kind::Bytes, Datum::Bytes(v.clone().into())),
            Literal::Uuid(v) => (Kind::Uuid, Datum::Uuid(*v)),
        }
    }
}

struct Binder<'s> {
    schema: &'s Schema,
    columns: Vec<usize>,
}

impl Binder<'_> {
    fn bind(&mut self, expr: &Expr) -> Result<Typed, ExprError> {
        match expr {
            Expr::Column(name) => self.column(name),
            Expr::Literal(literal) => {
                let (kind, datum) = literal.datum();
                Ok(Typed {
                    kind,
                    node: Node::Literal(datum),
                })
            }
            Expr::Not(of) => {
                let of = self.condition(of)?;
                Ok(boolean(Node::Not(Box::new(of))))
            }
            Expr::And(left, right) => {
                let (left, right) = (self.condition(left)?, self.condition(right)?);
                Ok(boolean(Node::And(Box::new(left), Box::new(right))))
            }
            Expr::Or(left, right) => {
                let (left, right) = (self.condition(left)?, self.condition(right)?);
                Ok(boolean(Node::Or(Box::new(left), Box::new(right))))
            }
            Expr::IsNull(of) => {
                let of = self.bind(of)?;
                Ok(boolean(Node::IsNull(Box::new(of))))
            }
            Expr::Negate(of) => {
                let of = self.number(expr, of)?;
                Ok(Typed {
                    kind: of.kind,
                    node: Node::Negate(Box::new(of)),
                })
            }
            Expr::Arithmetic(operator, left, right) => {
                self.arithmetic(expr, *operator, left, right)
            }
            Expr::Compare(comparison, left, right) => self.compare(expr, *comparison, left, right),
            Expr::In(of, list) => self.is_in(expr, of, list),
            Expr::Case(branches, otherwise) => self.case(expr, branches, otherwise.as_ref()),
            Expr::Coalesce(of) => {
                let of: Vec<Typed> = of
                    .iter()
                    .map(|expr| self.bind(expr))
                    .collect::<Result<_, _>>()?;
                let kind = unified(expr, of.iter())?;
                let of = of.into_iter().map(|of| coerce(of, kind)).collect();
                Ok(Typed {
                    kind,
                    node: Node::Coalesce(of),
                })
            }
            Expr::Cast(of, to) => self.cast(expr, of, *to),
            Expr::Round(of, scale) => {
                let of = self.number(expr, of)?;
                let (kind, to) = match of.kind {
                    Kind::Decimal { scale: from } => {
                        let scale = (*scale).min(from);
                        (Kind::Decimal { scale }, scale)
                    }
                    kind => (kind, *scale),
                };
                Ok(Typed {
                    kind,
                    node: Node::Round(Box::new(of), to),
                })
            }
            Expr::Call(function, arguments) => self.call(expr, *function, arguments),
        }
    }

    fn column(&mut self, name: &ColumnName) -> Result<Typed, ExprError> {
        let index = match name {
            ColumnName::Name(name) => self
                .schema
                .column_index(name)
                .ok_or_else(|| unknown(self.schema, name))?,
            ColumnName::Id(id) => self
                .schema
                .columns()
                .iter()
                .position(|column| column.id == *id)
                .ok_or_else(|| unknown(self.schema, &format!("#{id}")))?,
        };
        self.columns.push(index);
        Ok(Typed {
            kind: Kind::of(self.schema.columns()[index].data_type),
            node: Node::Column(index),
        })
    }

    fn condition(&mut self, expr: &Expr) -> Result<Typed, ExprError> {
        let typed = self.bind(expr)?;
        match typed.kind {
            Kind::Bool | Kind::Null => Ok(typed),
            other => Err(types(expr, "a condition (bool)", other.to_string())),
        }
    }

    fn number(&mut self, whole: &Expr, expr: &Expr) -> Result<Typed, ExprError> {
        let typed = self.bind(expr)?;
        match typed.kind {
            Kind::Null | Kind::Int | Kind::Decimal { .. } | Kind::Float => Ok(typed),
            other => Err(types(whole, "a number", other.to_string())),
        }
    }

    fn arithmetic(
        &mut self,
        expr: &Expr,
        operator: Arithmetic,
        left: &Expr,
        right: &Expr,
    ) -> Result<Typed, ExprError> {
        let (mut left, mut right) = (self.bind(left)?, self.bind(right)?);
        let (a, b) = (left.kind, right.kind);
        let verb = match operator {
            Arithmetic::Add => "add",
            Arithmetic::Sub => "subtract",
            Arithmetic::Mul => "multiply",
            Arithmetic::Div => "divide",
            Arithmetic::FloorDiv | Arithmetic::Mod => "divide as integers",
        };
        let wrong = || {
            types(
                expr,
                &format!("numbers of one kind to {verb}"),
                format!("{a} and {b}"),
            )
        };
        use Arithmetic::{Add, Div, FloorDiv, Mod, Mul, Sub};
        let kind = match (operator, a, b) {
            (Add, Kind::Text, Kind::Text | Kind::Null) | (Add, Kind::Null, Kind::Text) => {
                Kind::Text
            }
            (Sub, Kind::Date, Kind::Date) => Kind::Int,
            (Add | Sub, Kind::Date, Kind::Int) | (Add, Kind::Int, Kind::Date) => Kind::Date,
            (Sub, Kind::Timestamp { zoned: a }, Kind::Timestamp { zoned: b }) if a == b => {
                Kind::Int
            }
            (Add | Sub, Kind::Timestamp { zoned }, Kind::Int)
            | (Add, Kind::Int, Kind::Timestamp { zoned }) => Kind::Timestamp { zoned },
            (Div, Kind::Decimal { .. }, _) | (Div, _, Kind::Decimal { .. }) => {
                let expected = "floats or integers to divide (an exact quotient of decimals may not exist: cast, or multiply by a Decimal)";
                return Err(types(expr, expected, format!("{a} and {b}")));
            }
            (Mul, Kind::Int | Kind::Decimal { .. }, Kind::Int | Kind::Decimal { .. }) => {
                let scale = a.scale().unwrap_or(0) + b.scale().unwrap_or(0);
                if scale > POW10_MAX {
                    let expected = "factors with at most 38 digits after the point together";
                    return Err(types(expr, expected, scale.to_string()));
                }
                if (a, b) == (Kind::Int, Kind::Int) {
                    Kind::Int
                } else {
                    Kind::Decimal { scale }
                }
            }
            _ => match a.unify(b) {
                Some(Kind::Null) => Kind::Null,
                Some(Kind::Int) if operator == Div => Kind::Float,
                Some(kind @ (Kind::Int | Kind::Float)) => kind,
                Some(kind @ Kind::Decimal { .. }) if !matches!(operator, FloorDiv | Mod) => kind,
                _ => return Err(wrong()),
            },
        };
        if kind == Kind::Float {
            left = coerce(left, kind);
            right = coerce(right, kind);
        }
        Ok(Typed {
            kind,
            node: Node::Arithmetic(operator, Box::new(left), Box::new(right)),
        })
    }

    fn compare(
        &mut self,
        expr: &Expr,
        comparison: Comparison,
        left: &Expr,
        right: &Expr,
    ) -> Result<Typed, ExprError> {
        let (left, right) = (self.bind(left)?, self.bind(right)?);
        let (a, b) = (left.kind, right.kind);
        let Some(kind) = a.unify(b).filter(|kind| *kind != Kind::Json) else {
            return Err(types(expr, "values of one type to compare", pair(a, b)));
        };
        // Exact numbers are compared at their own scales, so that nothing overflows.
        let (left, right) = if kind == Kind::Float {
            (coerce(left, kind), coerce(right, kind))
        } else {
            (left, right)
        };
        Ok(boolean(Node::Compare(
            comparison,
            Box::new(left),
            Box::new(right),
        )))
    }

    fn is_in(&mut self, expr: &Expr, of: &Expr, list: &[Literal]) -> Result<Typed, ExprError> {
        let mut value = self.bind(of)?;
        let floats = list
            .iter()
            .any(|literal| matches!(literal, Literal::Float(_)));
        if value.kind == Kind::Int && floats {
            value = coerce(value, Kind::Float);
        }
        let (mut data, mut has_null) = (Vec::with_capacity(list.len()), false);
        for literal in list {
            let (kind, datum) = literal.datum();
            match (kind, value.kind, datum) {
                (Kind::Null, _, _) => has_null = true,
                (_, Kind::Null, _) => {}
                (Kind::Int, Kind::Float, Datum::Exact(v)) => data.push(Datum::Float(v as f64)),
                (from, to, Datum::Exact(v)) if to.scale().is_some() => {
                    let (from, to) = (from.scale().unwrap_or(0), to.scale().unwrap_or(0));
                    data.extend(at_scale(v, from, to).map(Datum::Exact));
                }
                (from, to, datum) if from == to && to != Kind::Json => data.push(datum),
                (from, to, _) => {
                    return Err(types(expr, "a list of values of one type", pair(to, from)));
                }
            }
        }
        data.sort_by(Datum::order);
        data.dedup_by(|a, b| a.order(b).is_eq());
        Ok(boolean(Node::In {
            value: Box::new(value),
            list: data,
            has_null,
        }))
    }

    fn case(
        &mut self,
        expr: &Expr,
        branches: &[(Expr, Expr)],
        otherwise: Option<&Arc<Expr>>,
    ) -> Result<Typed, ExprError> {
        let mut bound = Vec::with_capacity(branches.len());
        for (condition, value) in branches {
            bound.push((self.condition(condition)?, self.bind(value)?));
        }
        let otherwise = otherwise.map(|expr| self.bind(expr)).transpose()?;
        let kind = unified(expr, bound.iter().map(|(_, value)| value).chain(&otherwise))?;
        let branches = bound
            .into_iter()
            .map(|(condition, value)| (condition, coerce(value, kind)))
            .collect();
        let otherwise = otherwise.map(|value| Box::new(coerce(value, kind)));
        Ok(Typed {
            kind,
            node: Node::Case(branches, otherwise),
        })
    }

    fn cast(&mut self, expr: &Expr, of: &Expr, to: DataType) -> Result<Typed, ExprError> {
        let of = self.bind(of)?;
        let kind = Kind::of(to);
        if !to.is_valid() || !cast::is_possible(of.kind, kind) {
            let expected = format!("a value that can be made {to}");
            return Err(types(expr, &expected, of.kind.to_string()));
        }
        Ok(Typed {
            kind,
            node: Node::Cast(Box::new(of), Some(to)),
        })
    }

    fn call(
        &mut self,
        expr: &Expr,
        function: Function,
        arguments: &[Expr],
    ) -> Result<Typed, ExprError> {
        let arguments: Vec<Typed> = arguments
            .iter()
            .map(|argument| self.bind(argument))
            .collect::<Result<_, _>>()?;
        let kinds: Vec<Kind> = arguments.iter().map(|argument| argument.kind).collect();
        match function.result(&kinds) {
            (_, Some(_)) if function == Function::Matches => matches(expr, arguments),
            (_, Some(kind)) => Ok(Typed {
                kind,
                node: Node::Call(function, arguments),
            }),
            (expected, None) => {
                let kinds: Vec<String> = kinds.iter().map(Kind::to_string).collect();
                Err(types(expr, expected, kinds.join(" and ")))
            }
        }
    }
}

/// The expression is compiled once, for all rows.
fn matches(expr: &Expr, mut arguments: Vec<Typed>) -> Result<Typed, ExprError> {
    let pattern = arguments.pop().map(|pattern| pattern.node);
    let (Some(text), Some(Node::Literal(Datum::Text(pattern)))) = (arguments.pop(), pattern) else {
        return Err(types(
            expr,
            "a regular expression that is a constant",
            "another value".into(),
        ));
    };
    let pattern =
        RegexPattern::new(&pattern).map_err(|why| types(expr, "a regular expression", why))?;
    Ok(Typed {
        kind: Kind::Bool,
        node: Node::Matches(Box::new(text), pattern),
    })
}

/// A number at another scale, if that holds it exactly.
fn at_scale(unscaled: i128, from: u8, to: u8) -> Option<i128> {
    if from <= to {
        return super::number::rescale(unscaled, to - from).ok();
    }
    let power = super::number::pow10(from - to)?;
    (unscaled % power == 0).then(|| unscaled / power)
}

fn pair(a: Kind, b: Kind) -> String {
    let decimal_beside_float = matches!(
        (a, b),
        (Kind::Decimal { .. }, Kind::Float) | (Kind::Float, Kind::Decimal { .. })
    );
    if decimal_beside_float {
        format!("{a} and {b} (write the number as a Decimal, or cast one of the two)")
    } else {
        format!("{a} and {b}")
    }
}

fn boolean(node: Node) -> Typed {
    Typed {
        kind: Kind::Bool,
        node,
    }
}

/// The value as a kind that it unifies with.
fn coerce(typed: Typed, kind: Kind) -> Typed {
    if typed.kind == kind {
        return typed;
    }
    if let Node::Literal(Datum::Null) = typed.node {
        return Typed { kind, ..typed };
    }
    Typed {
        kind,
        node: Node::Cast(Box::new(typed), None),
    }
}

fn unified<'t>(expr: &Expr, of: impl Iterator<Item = &'t Typed>) -> Result<Kind, ExprError> {
    let mut kind = Kind::Null;
    for typed in of {
        kind = kind
            .unify(typed.kind)
            .ok_or_else(|| types(expr, "values of one type", pair(kind, typed.kind)))?;
    }
    Ok(kind)
}

fn types(expr: &Expr, expected: &str, got: String) -> ExprError {
    ExprError::Types {
        expression: expr.to_string(),
        expected: expected.to_owned(),
        got,
    }
}
