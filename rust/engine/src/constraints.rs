//! Constraints: conditions on one row, and rows that must have a parent.
//!
//! ```text
//!   check         asked when a row is written: it depends on the row alone. False is refused, null passes
//!   foreign key   asked when a row is written, of what the transaction sees, so that the error comes at once;
//!                 asked again at the commit, of the head, so that no parent goes and no child comes meanwhile
//! ```
//! A foreign key has an index by its columns: a parent's rows are found by it.

use aurora_page::Value;
use aurora_proto::Volume;
use aurora_scan::expr::{BoundExpr, EvalError, Expr};

use crate::definition::{CheckDef, OnDelete, ReferenceDef};
use crate::derive::long_value;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError};
use crate::index::Index;
use crate::row::RowView;
use crate::table::{Table, column_of, show_value};
use crate::txn::Txn;

/// A check that is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckSpec {
    /// Its name, unique within the table.
    pub name: String,
    /// The condition.
    pub condition: Expr,
}

/// A foreign key that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReferenceSpec {
    /// Its name, unique within the table, and that of its index.
    pub name: String,
    /// Positions of the columns, in the order of the parent's key.
    pub columns: Vec<u16>,
    /// The parent's name; the table's own for rows that refer to others of it.
    pub parent: String,
    /// What becomes of the rows when their parent is deleted.
    pub on_delete: OnDelete,
}

/// A condition that no row may make false.
#[derive(Clone, PartialEq, Debug)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// The condition, bound to the table's columns.
    pub condition: BoundExpr,
}

/// A foreign key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// As the catalogue has it.
    pub def: ReferenceDef,
    /// Positions of its columns, in the order of the parent's key.
    pub columns: Vec<u16>,
    /// Which of the table's indexes is by its columns.
    pub(crate) index: usize,
}

pub(crate) fn constraint_error(
    table: &str,
    constraint: &str,
    expected: impl Into<Box<str>>,
    got: impl Into<Box<str>>,
) -> EngineError {
    EngineError::ConstraintSpec {
        table: table.to_owned(),
        constraint: constraint.to_owned(),
        expected: expected.into(),
        got: got.into(),
    }
}

impl Check {
    pub(crate) fn resolve(table: &Table, def: &CheckDef) -> Result<Check, EngineError> {
        let damaged = |got: String| EngineError::Definition {
            table: table.name.clone(),
            offset: 0,
            expected: format!("a condition on the table's columns in check {:?}", def.name),
            got,
        };
        let expr = Expr::decode(&def.expr).map_err(|error| damaged(error.to_string()))?;
        let condition = expr
            .bind(&table.schema)
            .map_err(|error| damaged(error.to_string()))?;
        let name = def.name.clone();
        Ok(Check { name, condition })
    }

    /// The stored form of what is asked for.
    pub(crate) fn def_of(table: &Table, spec: &CheckSpec) -> Result<CheckDef, EngineError> {
        let wrong = |got: String| {
            constraint_error(
                &table.name,
                &spec.name,
                "a condition on the table's columns",
                got,
            )
        };
        let bound = spec
            .condition
            .bind(&table.schema)
            .map_err(|error| wrong(error.to_string()))?;
        bound
            .expect_condition()
            .map_err(|error| wrong(error.to_string()))?;
        let stored = spec
            .condition
            .with_ids(&table.schema)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(CheckDef {
            name: spec.name.clone(),
            expr: stored.encode(),
        })
    }

    /// The condition as it is written.
    pub fn text(&self, table: &Table) -> String {
        without_outer_pair(self.condition.expr().with_names(&table.schema).to_string())
    }

    fn violation(&self, table: &Table, row: &[Value], got: String) -> EngineError {
        EngineError::CheckViolation {
            table: table.name.clone(),
            constraint: self.name.clone(),
            key: table
                .key_of(row)
                .map_or_else(|_| "of the row".to_owned(), |key| table.show_key(&key)),
            expected: self.text(table).into(),
            got: got.into(),
        }
    }
}

impl Reference {
    pub(crate) fn resolve(
        table: &Table,
        indexes: &[std::sync::Arc<Index>],
        def: &ReferenceDef,
    ) -> Result<Reference, EngineError> {
        let columns = def.columns.iter();
        let columns = columns
            .map(|id| column_of(table, *id, "a column of a foreign key"))
            .collect::<Result<_, _>>()?;
        let index = indexes.iter().position(|index| index.name() == def.name);
        let index = index.ok_or_else(|| EngineError::Definition {
            table: table.name.clone(),
            offset: 0,
            expected: format!("an index for foreign key {:?}", def.name),
            got: "none".to_owned(),
        })?;
        Ok(Reference {
            def: def.clone(),
            columns,
            index,
        })
    }

    /// The parent's columns and these are of the same types, and can become null if they may have to.
    pub(crate) fn check_spec(
        table: &Table,
        parent: &Table,
        spec: &ReferenceSpec,
    ) -> Result<(), EngineError> {
        let wrong = |expected: String, got: String| {
            Err(constraint_error(&table.name, &spec.name, expected, got))
        };
        let key = parent.schema.key();
        if spec.columns.len() != key.len() {
            let expected = format!(
                "as many columns as the key of table {:?} has, {}",
                parent.name,
                key.len()
            );
            return wrong(expected, spec.columns.len().to_string());
        }
        for (column, part) in spec.columns.iter().zip(key) {
            let Some(column) = table.schema.columns().get(usize::from(*column)) else {
                return wrong("a column of the table".into(), column.to_string());
            };
            let target = parent.schema.key_column(*part);
            if column.data_type != target.data_type {
                let expected = format!(
                    "column {:?} of type {}, as {:?} of table {:?}",
                    column.name, target.data_type, target.name, parent.name
                );
                return wrong(expected, column.data_type.to_string());
            }
            if spec.on_delete == OnDelete::SetNull && !column.nullable {
                let expected = format!("column {:?} nullable, for on delete set null", column.name);
                return wrong(expected, "one that is not".into());
            }
        }
        Ok(())
    }

    /// The values that the parent's key must have; `None` if one of them is null.
    pub(crate) fn parent_values(&self, entry: &crate::index::Entry) -> Option<Vec<Value>> {
        let values = &entry.values[..self.columns.len()];
        (!values.contains(&Value::Null)).then(|| values.to_vec())
    }
}

impl<V: Volume> Engine<V> {
    /// The row makes no check false.
    pub(crate) fn check_row_alone(&self, txn: &Txn, table: &Table, row: &RowView) -> Attempt<()> {
        if table.checks.is_empty() {
            return Ok(());
        }
        let view = self.view_of(&txn.point);
        check_values(table, row.values()?, |column, reference| {
            long_value(&view, table, column as u16, reference)
        })
    }
}

/// An expression without the parentheses around the whole of it.
pub(crate) fn without_outer_pair(text: String) -> String {
    match text
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'))
    {
        // The outer pair, unless these are two pairs: `(a) and (b)`.
        Some(inside) if closes_nothing_before_its_end(inside) => inside.to_owned(),
        _ => text,
    }
}

fn closes_nothing_before_its_end(text: &str) -> bool {
    let mut depth = 0_i32;
    // A parenthesis within a text literal can at worst leave the outer pair where it is.
    text.chars().all(|sign| {
        depth += i32::from(sign == '(') - i32::from(sign == ')');
        depth >= 0
    })
}

/// Checks the values of a row. `fetch` gets a value that lies in overflow pages, if a check needs it.
pub(crate) fn check_values(
    table: &Table,
    mut row: Vec<Value>,
    fetch: impl Fn(usize, aurora_page::OverflowRef) -> Attempt<Value>,
) -> Attempt<()> {
    for check in &table.checks {
        loop {
            let tested = check.condition.test(&|column| row[column].as_ref());
            match tested {
                Ok(Some(true) | None) => break,
                Ok(Some(false)) => {
                    let got = shown_columns(table, check, &row);
                    return Err(check.violation(table, &row, got).into());
                }
                Err(EvalError::LongValue { column, reference }) => {
                    row[column] = fetch(column, reference)?;
                }
                Err(error) => {
                    return Err(check.violation(table, &row, error.to_string()).into());
                }
            }
        }
    }
    Ok(())
}

fn shown_columns(table: &Table, check: &Check, row: &[Value]) -> String {
    let columns = table.schema.columns();
    let shown: Vec<String> = check
        .condition
        .columns()
        .iter()
        .map(|column| {
            let name = &columns[*column].name;
            format!(
                "{name} = {}",
                show_value(&row[*column], columns[*column].data_type)
            )
        })
        .collect();
    if shown.is_empty() {
        "false".to_owned()
    } else {
        shown.join(", ")
    }
}
