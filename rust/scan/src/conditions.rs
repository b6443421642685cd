//! A filter as conditions that must all be true, each in the form that can be tested fastest.

use rustc_hash::FxHashSet;

use crate::expr::{Comparison, Datum, Function, Kind, LikePattern, Node, Typed, pow10};

/// One condition of a filter.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    /// A column's number lies within `low..=high`, or outside if `negated`.
    Range {
        column: usize,
        low: i128,
        high: i128,
        negated: bool,
    },
    /// A column's number is one of these.
    Member {
        column: usize,
        numbers: FxHashSet<i128>,
    },
    /// A text is like a pattern.
    Like { column: usize, pattern: LikePattern },
    /// Something of one column alone.
    Single { column: usize, condition: Typed },
    /// Anything else.
    General(Typed),
}

/// The conditions that must all be true.
pub(crate) fn tests(filter: impl IntoIterator<Item = Typed>) -> Vec<Test> {
    let mut tests = Vec::new();
    for condition in filter {
        flatten(condition, &mut tests);
    }
    let mut tests = merged(tests);
    // Cheap ones first: what they leave out, the others need not look at.
    tests.sort_by_key(|test| match test {
        Test::Range { .. } => 0,
        Test::Member { .. } => 1,
        Test::Single { .. } => 2,
        Test::Like { .. } => 3,
        Test::General(_) => 4,
    });
    tests
}

/// Two ends of one column make one range.
fn merged(tests: Vec<Test>) -> Vec<Test> {
    let mut out: Vec<Test> = Vec::with_capacity(tests.len());
    for test in tests {
        if let Test::Range {
            column,
            low,
            high,
            negated: false,
        } = test
        {
            let known = out.iter_mut().find_map(|known| match known {
                Test::Range {
                    column: of,
                    low,
                    high,
                    negated: false,
                } if *of == column => Some((low, high)),
                _ => None,
            });
            if let Some((known_low, known_high)) = known {
                (*known_low, *known_high) = (low.max(*known_low), high.min(*known_high));
                continue;
            }
        }
        out.push(test);
    }
    out
}

fn flatten(condition: Typed, out: &mut Vec<Test>) {
    if let Node::And(left, right) = condition.node {
        flatten(*left, out);
        flatten(*right, out);
        return;
    }
    if let Some(test) = range(&condition)
        .or_else(|| member(&condition))
        .or_else(|| like(&condition))
    {
        out.push(test);
        return;
    }
    let mut columns = Vec::new();
    columns_of(&condition, &mut columns);
    columns.sort_unstable();
    columns.dedup();
    out.push(match columns[..] {
        [column] => Test::Single { column, condition },
        _ => Test::General(condition),
    });
}

pub(crate) fn columns_of(typed: &Typed, out: &mut Vec<usize>) {
    match &typed.node {
        Node::Column(index) => out.push(*index),
        Node::Literal(_) => {}
        Node::Not(of)
        | Node::Negate(of)
        | Node::IsNull(of)
        | Node::Cast(of, _)
        | Node::Round(of, _)
        | Node::Matches(of, _)
        | Node::In { value: of, .. } => columns_of(of, out),
        Node::Arithmetic(_, left, right)
        | Node::Compare(_, left, right)
        | Node::And(left, right)
        | Node::Or(left, right) => {
            columns_of(left, out);
            columns_of(right, out);
        }
        Node::Case(branches, otherwise) => {
            for (condition, value) in branches {
                columns_of(condition, out);
                columns_of(value, out);
            }
            if let Some(otherwise) = otherwise {
                columns_of(otherwise, out);
            }
        }
        Node::Coalesce(of) | Node::Call(_, of) => of.iter().for_each(|of| columns_of(of, out)),
    }
}

/// A comparison of a column of numbers with a constant, as a range of the column's own numbers.
fn range(condition: &Typed) -> Option<Test> {
    let Node::Compare(comparison, left, right) = &condition.node else {
        return None;
    };
    let (column, kind, comparison, literal) = match (&left.node, &right.node) {
        (Node::Column(column), Node::Literal(literal)) => {
            (*column, left.kind, *comparison, (literal, right.kind))
        }
        (Node::Literal(literal), Node::Column(column)) => (
            *column,
            right.kind,
            comparison.mirrored(),
            (literal, left.kind),
        ),
        _ => return None,
    };
    let (floor, exact) = floor_of(literal.0, literal.1, kind)?;
    let (low, high, negated) = match comparison {
        Comparison::Eq if exact => (floor, floor, false),
        Comparison::Ne if exact => (floor, floor, true),
        // No number of the column is the constant.
        Comparison::Eq => (1, 0, false),
        Comparison::Ne => (1, 0, true),
        Comparison::Lt if exact => (i128::MIN, floor.checked_sub(1)?, false),
        Comparison::Lt | Comparison::Le => (i128::MIN, floor, false),
        Comparison::Ge if exact => (floor, i128::MAX, false),
        Comparison::Ge | Comparison::Gt => (floor.checked_add(1)?, i128::MAX, false),
    };
    Some(Test::Range {
        column,
        low,
        high,
        negated,
    })
}

/// A list of numbers that a column's are looked up in. With a null in the list, what is not found is unknown: it does not pass
/// either way.
fn member(condition: &Typed) -> Option<Test> {
    let Node::In { value, list, .. } = &condition.node else {
        return None;
    };
    let is_number = matches!(
        value.kind,
        Kind::Bool
            | Kind::Int
            | Kind::Decimal { .. }
            | Kind::Date
            | Kind::Time
            | Kind::Timestamp { .. }
    );
    let (Node::Column(column), true) = (&value.node, is_number) else {
        return None;
    };
    let numbers: Option<FxHashSet<i128>> = list
        .iter()
        .map(|item| floor_of(item, value.kind, value.kind).map(|(number, _)| number))
        .collect();
    Some(Test::Member {
        column: *column,
        numbers: numbers?,
    })
}

/// A text column and a constant pattern.
fn like(condition: &Typed) -> Option<Test> {
    let Node::Call(Function::Like, arguments) = &condition.node else {
        return None;
    };
    match &arguments[..] {
        [
            Typed {
                kind: Kind::Text,
                node: Node::Column(column),
            },
            Typed {
                node: Node::Literal(Datum::Text(pattern)),
                ..
            },
        ] => Some(Test::Like {
            column: *column,
            pattern: LikePattern::new(pattern),
        }),
        _ => None,
    }
}

/// The largest number of a kind that is not above a constant, and whether it is the constant.
fn floor_of(literal: &Datum<'_>, from: Kind, to: Kind) -> Option<(i128, bool)> {
    Some(match (literal, to) {
        (Datum::Exact(v), Kind::Int | Kind::Decimal { .. }) => {
            let (have, want) = (from.scale()?, to.scale()?);
            if have <= want {
                (pow10(want - have)?.checked_mul(*v)?, true)
            } else {
                let power = pow10(have - want)?;
                (v.div_euclid(power), v.rem_euclid(power) == 0)
            }
        }
        (Datum::Date(v), Kind::Date) => ((*v).into(), true),
        (Datum::Time(v), Kind::Time) | (Datum::Timestamp(v), Kind::Timestamp { .. }) => {
            ((*v).into(), true)
        }
        (Datum::Bool(v), Kind::Bool) => ((*v).into(), true),
        _ => return None,
    })
}
