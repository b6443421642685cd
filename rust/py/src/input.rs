//! Rows as people have them: typed rows, dicts and other mappings, tuples and lists, pydantic models.

use aurora_page::{Column, Value};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping, PyString, PyTuple};

use crate::errors::{Raise, describe};
use crate::table::PyTable;

/// The values of a row object, each checked against its column.
pub fn row_values(table: &PyTable, row: &Bound<'_, PyAny>) -> PyResult<Vec<Value>> {
    if table.shape.is_row(row)? {
        return each(table, |index, _| table.shape.read(row, index));
    }
    if let Ok(row) = row.cast::<PyDict>() {
        return of_dict(table, row);
    }
    if let Ok(row) = row.cast::<PyTuple>() {
        check_count(table, row, row.len())?;
        return each(table, |index, _| row.get_item(index));
    }
    if let Ok(row) = row.cast::<PyList>() {
        check_count(table, row, row.len())?;
        return each(table, |index, _| row.get_item(index));
    }
    let class = row.get_type();
    // A model of pydantic is told by what its class says of itself: pydantic is no dependency.
    let fields = intern!(row.py(), "__pydantic_fields__");
    if class.hasattr(fields)? {
        return of_attributes(table, row, &class.getattr(fields)?);
    }
    // A table of one row class takes no rows of another; a table of dicts has no class of its own.
    let columns = intern!(row.py(), "__columns__");
    if !table.shape.is_typed() && class.hasattr(columns)? {
        return of_attributes(table, row, &class.getattr(columns)?);
    }
    if let Ok(mapping) = row.cast::<PyMapping>() {
        let copy = PyDict::new(row.py());
        copy.update(mapping)?;
        return of_dict(table, &copy);
    }
    Err(no_row(table, row))
}

fn each<'py>(
    table: &PyTable,
    get: impl Fn(usize, &Column) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Vec<Value>> {
    let columns = table.columns().iter().enumerate();
    columns
        .map(|(index, column)| table.value(index, column, &get(index, column)?))
        .collect()
}

/// By column name. What is missing is numbered, has the default of the row class, or is null.
fn of_dict(table: &PyTable, row: &Bound<'_, PyDict>) -> PyResult<Vec<Value>> {
    let py = row.py();
    let mut found = 0;
    let mut values = Vec::with_capacity(table.columns().len());
    for (index, column) in table.columns().iter().enumerate() {
        let value = match row.get_item(table.shape.name(py, index))? {
            Some(value) => {
                found += 1;
                value
            }
            None if table.is_auto(index) => py.None().into_bound(py),
            None => table.shape.default(py, index, column)?,
        };
        values.push(table.value(index, column, &value)?);
    }
    if found == row.len() {
        return Ok(values);
    }
    for name in row.keys() {
        let known = name
            .extract::<String>()
            .is_ok_and(|name| table.columns().iter().any(|column| column.name == name));
        if !known {
            let shown = name.extract::<String>();
            let shown = shown.unwrap_or_else(|_| describe(name.as_any()));
            return Err(table.no_column(py, &shown));
        }
    }
    Ok(values)
}

/// By attribute. Those that the table has no column for are refused, as in a dict.
fn of_attributes(
    table: &PyTable,
    row: &Bound<'_, PyAny>,
    names: &Bound<'_, PyAny>,
) -> PyResult<Vec<Value>> {
    let values = PyDict::new(row.py());
    for name in names.try_iter()? {
        let name = name?;
        values.set_item(&name, row.getattr(name.cast::<PyString>()?)?)?;
    }
    of_dict(table, &values)
}

fn check_count(table: &PyTable, row: &Bound<'_, PyAny>, got: usize) -> PyResult<()> {
    let columns = table.columns();
    if got == columns.len() {
        return Ok(());
    }
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let expected = format!("{} values ({})", columns.len(), names.join(", "));
    Err(refuse(table, row, &expected, &format!("{got} values")))
}

fn no_row(table: &PyTable, row: &Bound<'_, PyAny>) -> PyErr {
    let class = table.shape.class(row.py()).name();
    let class = class.map_or_else(|_| "Row".to_owned(), |name| name.to_string());
    let expected = format!("a row: {class}, a dict, a tuple or a pydantic model");
    refuse(table, row, &expected, &describe(row))
}

fn refuse(table: &PyTable, row: &Bound<'_, PyAny>, expected: &str, got: &str) -> PyErr {
    let message = format!(
        "table {:?}: expected {expected}, got {got}",
        table.table.name
    );
    Raise::new(row.py(), "TypeMismatch", message)
        .with("expected", expected)
        .with("got", got)
        .err()
}
