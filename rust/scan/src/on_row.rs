//! An expression on one row: values in overflow pages are fetched when it needs them.

use aurora_page::{Value, ValueRef};

use crate::error::{ReadLong, ScanError};
use crate::expr::{EvalError, Kind, Node, Typed};
use crate::view::PageView;

/// Evaluates on the row at a position, with values in overflow pages fetched when they are needed.
pub(crate) fn on_row<T>(
    typed: &Typed,
    page: &PageView<'_>,
    places: &[Option<usize>],
    position: usize,
    long: ReadLong<'_>,
    evaluate: impl for<'x> Fn(&Typed, &(dyn Fn(usize) -> ValueRef<'x> + '_)) -> Result<T, EvalError>,
) -> Result<T, ScanError>
where
    T: 'static,
{
    on_values(
        typed,
        &|column| page.value(position, places.get(column).copied().flatten()),
        long,
        |typed, row| evaluate(typed, row),
    )
}

/// The same on any row.
pub(crate) fn on_values<'r, T: 'static>(
    typed: &Typed,
    row: &dyn Fn(usize) -> ValueRef<'r>,
    long: ReadLong<'_>,
    evaluate: impl for<'x> Fn(&Typed, &(dyn Fn(usize) -> ValueRef<'x> + '_)) -> Result<T, EvalError>,
) -> Result<T, ScanError> {
    let mut fetched: Vec<(usize, Value)> = Vec::new();
    loop {
        let evaluated = {
            let lookup = |column: usize| -> ValueRef<'_> {
                match fetched.iter().find(|(of, _)| *of == column) {
                    Some((_, value)) => value.as_ref(),
                    None => row(column),
                }
            };
            evaluate(typed, &lookup)
        };
        match evaluated {
            Ok(value) => return Ok(value),
            Err(EvalError::LongValue { column, reference }) => {
                let bytes = long(reference).map_err(ScanError::Long)?;
                fetched.push((column, long_value(kind_of(typed, column), bytes)));
            }
            Err(source) => {
                return Err(ScanError::Eval {
                    expression: String::new(),
                    source,
                });
            }
        }
    }
}

fn kind_of(typed: &Typed, column: usize) -> Kind {
    let mut found = Kind::Text;
    kinds(typed, column, &mut found);
    found
}

fn kinds(typed: &Typed, column: usize, found: &mut Kind) {
    if typed.node == Node::Column(column) {
        *found = typed.kind;
    }
    match &typed.node {
        Node::Column(_) | Node::Literal(_) => {}
        Node::Not(of)
        | Node::Negate(of)
        | Node::IsNull(of)
        | Node::Cast(of, _)
        | Node::Round(of, _)
        | Node::Matches(of, _)
        | Node::In { value: of, .. } => kinds(of, column, found),
        Node::Arithmetic(_, left, right)
        | Node::Compare(_, left, right)
        | Node::And(left, right)
        | Node::Or(left, right) => {
            kinds(left, column, found);
            kinds(right, column, found);
        }
        Node::Case(branches, otherwise) => {
            for (condition, value) in branches {
                kinds(condition, column, found);
                kinds(value, column, found);
            }
            if let Some(otherwise) = otherwise {
                kinds(otherwise, column, found);
            }
        }
        Node::Coalesce(of) | Node::Call(_, of) => {
            of.iter().for_each(|of| kinds(of, column, found));
        }
    }
}

/// A fetched value; bytes that are not UTF-8 can only come from a damaged page, which its checksum has caught.
pub(crate) fn long_value(kind: Kind, bytes: Vec<u8>) -> Value {
    match kind {
        Kind::Bytes => Value::Bytes(bytes),
        Kind::Json => Value::Json(String::from_utf8_lossy(&bytes).into_owned()),
        _ => Value::Text(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
