//! Expressions as people read them, close to SQL.

use std::fmt::{self, Display, Formatter};

use super::cast::format_uuid;
use super::civil::{format_date, format_time, format_timestamp};
use super::{Arithmetic, ColumnName, Comparison, Expr, Literal};
use crate::decimal::format_decimal;

/// Items of an IN list that are shown.
const ITEMS_SHOWN: usize = 8;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Column(name) => name.fmt(f),
            Expr::Literal(literal) => literal.fmt(f),
            Expr::Not(of) => match &**of {
                Expr::IsNull(of) => write!(f, "({of} IS NOT NULL)"),
                of => write!(f, "NOT {of}"),
            },
            Expr::Negate(of) => write!(f, "-{of}"),
            Expr::IsNull(of) => write!(f, "({of} IS NULL)"),
            Expr::Arithmetic(operator, left, right) => write!(f, "({left} {operator} {right})"),
            Expr::Compare(comparison, left, right) => write!(f, "({left} {comparison} {right})"),
            Expr::And(left, right) => write!(f, "({left} AND {right})"),
            Expr::Or(left, right) => write!(f, "({left} OR {right})"),
            Expr::In(of, list) => {
                write!(f, "({of} IN (")?;
                list_of(f, list.iter().take(ITEMS_SHOWN))?;
                match list.len().saturating_sub(ITEMS_SHOWN) {
                    0 => f.write_str("))"),
                    more => write!(f, ", and {more} more))"),
                }
            }
            Expr::Case(branches, otherwise) => {
                f.write_str("CASE")?;
                for (condition, value) in branches.iter() {
                    write!(f, " WHEN {condition} THEN {value}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {otherwise}")?;
                }
                f.write_str(" END")
            }
            Expr::Coalesce(of) => {
                f.write_str("coalesce(")?;
                list_of(f, of.iter())?;
                f.write_str(")")
            }
            Expr::Cast(of, to) => write!(f, "CAST({of} AS {to})"),
            Expr::Round(of, scale) => write!(f, "round({of}, {scale})"),
            Expr::Call(function, arguments) => {
                write!(f, "{}(", function.name())?;
                list_of(f, arguments.iter())?;
                f.write_str(")")
            }
        }
    }
}

fn list_of<T: Display>(f: &mut Formatter<'_>, items: impl Iterator<Item = T>) -> fmt::Result {
    for (index, item) in items.enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}

impl Display for ColumnName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ColumnName::Id(id) => write!(f, "#{id}"),
            ColumnName::Name(name) => {
                let plain = |c: char| c == '_' || c.is_alphanumeric();
                let starts_plainly = name.chars().next().is_some_and(|c| !c.is_ascii_digit());
                if starts_plainly && name.chars().all(plain) {
                    f.write_str(name)
                } else {
                    write!(f, "{name:?}")
                }
            }
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Null => f.write_str("NULL"),
            Literal::Bool(v) => write!(f, "{v}"),
            Literal::Exact { unscaled, scale } => f.write_str(&format_decimal(*unscaled, *scale)),
            Literal::Float(v) => write!(f, "{v:?}"),
            Literal::Date(v) => write!(f, "DATE '{}'", format_date((*v).into())),
            Literal::Time(v) => write!(f, "TIME '{}'", format_time(*v)),
            Literal::Timestamp { us, zoned } => {
                let zone = if *zoned { "Z" } else { "" };
                write!(f, "TIMESTAMP '{}{zone}'", format_timestamp(*us))
            }
            Literal::Text(v) => write!(f, "'{}'", v.replace('\'', "''")),
            Literal::Bytes(v) => write!(f, "{} bytes", v.len()),
            Literal::Uuid(v) => write!(f, "UUID '{}'", format_uuid(*v)),
        }
    }
}

impl Display for Arithmetic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arithmetic::Add => "+",
            Arithmetic::Sub => "-",
            Arithmetic::Mul => "*",
            Arithmetic::Div => "/",
            Arithmetic::FloorDiv => "//",
            Arithmetic::Mod => "%",
        })
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Eq => "=",
            Comparison::Ne => "<>",
            Comparison::Lt => "<",
            Comparison::Le => "<=",
            Comparison::Gt => ">",
            Comparison::Ge => ">=",
        })
    }
}
