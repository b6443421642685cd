//! The condition of a range: `where=col("balance") > 100`, tested on rows where they lie in their pages.

use std::sync::Arc;

use aurora_engine::RowView;
use aurora_page::{DataType, Lsn, OverflowRef, Value, ValueRef};
use aurora_scan::expr::{BoundExpr, EvalError};
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::db::{Engine, Tried};
use crate::errors::{Raise, describe};
use crate::expr::{Expr, raise_eval, raise_expr};
use crate::ops::LongValues;
use crate::table::PyTable;

/// A condition that is bound to the columns of a table.
#[derive(Clone)]
pub struct Filter(Arc<BoundExpr>);

impl Filter {
    /// The condition that was given, if any.
    pub fn of(table: &PyTable, given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Filter>> {
        let Some(given) = given else {
            return Ok(None);
        };
        let py = given.py();
        let Ok(expr) = given.cast::<Expr>() else {
            let (expected, got) = ("a condition, as col(\"n\") > 3", describe(given));
            let message = format!("where: expected {expected}, got {got}");
            return Err(Raise::new(py, "TypeMismatch", message)
                .with("expected", expected)
                .with("got", got)
                .err());
        };
        let tree = &expr.get().tree;
        let bound = tree.bind(&table.table.schema).and_then(|bound| {
            bound.expect_condition()?;
            Ok(bound)
        });
        match bound {
            Ok(bound) => Ok(Some(Filter(Arc::new(bound)))),
            Err(error) => Err(raise_expr(py, &format!("where={tree}"), None, error)),
        }
    }

    /// Whether the row meets the condition. What is unknown, because of nulls, does not.
    pub fn test(
        &self,
        py: Python<'_>,
        engine: &Engine,
        at: Lsn,
        table: &PyTable,
        row: &RowView,
        long: &mut LongValues,
    ) -> Tried<bool> {
        let mut stored: SmallVec<[(usize, ValueRef<'_>); 8]> = SmallVec::new();
        for column in self.0.columns() {
            stored.push((*column, row.value(*column)?));
        }
        // Values that lie outside of the row, once they were found to be needed.
        let mut fetched: Vec<(usize, Value)> = Vec::new();
        loop {
            let lookup = |column: usize| {
                let long = fetched.iter().find(|(of, _)| *of == column);
                let here = || stored.iter().find(|(of, _)| *of == column);
                long.map(|(_, value)| value.as_ref())
                    .or_else(|| here().map(|(_, value)| *value))
                    .unwrap_or(ValueRef::Null)
            };
            match self.0.test(&lookup) {
                Ok(met) => return Ok(met == Some(true)),
                Err(EvalError::LongValue { column, reference }) => {
                    fetched.push((column, fetch(engine, at, table, column, reference, long)?));
                }
                Err(error) => {
                    let context = format!("where={}", self.0.expr());
                    return Err(raise_eval(py, &context, None, &error).into());
                }
            }
        }
    }
}

/// A value that lies in overflow pages.
fn fetch(
    engine: &Engine,
    at: Lsn,
    table: &PyTable,
    column: usize,
    reference: OverflowRef,
    long: &mut LongValues,
) -> Tried<Value> {
    let bytes = long.get(engine, at, reference)?;
    let text = || String::from_utf8_lossy(bytes).into_owned();
    Ok(match table.columns()[column].data_type {
        DataType::Bytes => Value::Bytes(bytes.to_vec()),
        DataType::Json => Value::Json(text()),
        _ => Value::Text(text()),
    })
}
