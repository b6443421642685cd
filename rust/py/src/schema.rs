//! The schema of a table as Python sees it: columns by name and type, from a row class or from Arrow.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use aurora_page::{Column, DataType, KeyPart, Schema};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use pyo3_arrow::PySchema as ArrowArgument;

use crate::errors::Raise;

/// Columns and key of a table.
#[pyclass(name = "Schema", module = "aurora_engine._engine", frozen, eq, hash)]
pub struct PySchema(pub Arc<Schema>);

impl PartialEq for PySchema {
    fn eq(&self, other: &PySchema) -> bool {
        self.visible().eq(other.visible()) && self.0.key() == other.0.key()
    }
}

impl Hash for PySchema {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.visible().for_each(|column| column.hash(state));
        self.0.key().hash(state);
    }
}

#[pymethods]
impl PySchema {
    #[new]
    #[pyo3(signature = (columns, key))]
    fn new(
        py: Python<'_>,
        columns: Vec<(String, String, bool)>,
        key: Vec<(String, bool)>,
    ) -> PyResult<PySchema> {
        let columns = columns
            .into_iter()
            .map(|(name, kind, nullable)| match parse_type(&kind) {
                Some(data_type) => Ok((name, data_type, nullable)),
                None => Err(schema_error(py, Some(&name), "a column type", &kind)),
            })
            .collect::<PyResult<Vec<_>>>()?;
        build(py, columns, &key)
    }

    /// A schema from anything with `__arrow_c_schema__`, whose key columns are named here.
    #[staticmethod]
    #[pyo3(signature = (schema, key))]
    fn from_arrow(
        py: Python<'_>,
        schema: ArrowArgument,
        key: Vec<(String, bool)>,
    ) -> PyResult<PySchema> {
        let names: Vec<(&str, bool)> = key
            .iter()
            .map(|(name, descending)| (name.as_str(), *descending))
            .collect();
        let taken = aurora_scan::from_arrow_schema(&schema.into_inner(), 1, &names)
            .map_err(|error| Raise::new(py, "SchemaError", error.to_string()).err())?;
        // What is in the key is there for every row, however loosely Arrow data is often declared.
        let in_key = |column: &Column| key.iter().any(|(name, _)| *name == column.name);
        let columns = taken
            .columns()
            .iter()
            .map(|c| (c.name.clone(), c.data_type, c.nullable && !in_key(c)))
            .collect();
        build(py, columns, &key)
    }

    #[getter]
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let column = |c: &Column| (c.name.clone(), c.data_type.to_string(), c.nullable);
        PyTuple::new(py, self.0.columns().iter().map(column))
    }

    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let part = |part: &KeyPart| (self.0.key_column(*part).name.clone(), part.descending);
        PyTuple::new(py, self.0.key().iter().map(part))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        self.to_capsule(py)
    }

    fn __repr__(&self) -> String {
        self.describe()
    }
}

impl PySchema {
    /// What a program sees of the columns; their ids are the engine's.
    fn visible(&self) -> impl Iterator<Item = (&str, DataType, bool)> {
        let columns = self.0.columns().iter();
        columns.map(|column| (column.name.as_str(), column.data_type, column.nullable))
    }

    /// Columns and key, for people.
    pub fn describe(&self) -> String {
        let column = |c: &Column| {
            format!(
                "{}: {}{}",
                c.name,
                c.data_type,
                if c.nullable { " | None" } else { "" }
            )
        };
        let columns: Vec<String> = self.0.columns().iter().map(column).collect();
        let part = |p: &KeyPart| {
            format!(
                "{}{}",
                self.0.key_column(*p).name,
                if p.descending { " desc" } else { "" }
            )
        };
        let key: Vec<String> = self.0.key().iter().map(part).collect();
        format!("Schema({}; key {})", columns.join(", "), key.join(", "))
    }

    /// The schema as an Arrow C schema.
    pub fn to_capsule<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(pyo3_arrow::ffi::to_schema_pycapsule(
            py,
            aurora_scan::to_arrow_schema(&self.0),
        )?)
    }
}

fn build(
    py: Python<'_>,
    columns: Vec<(String, DataType, bool)>,
    key: &[(String, bool)],
) -> PyResult<PySchema> {
    let columns: Vec<Column> = columns
        .into_iter()
        .zip(0..)
        .map(|((name, data_type, nullable), id)| Column {
            id,
            name,
            data_type,
            nullable,
        })
        .collect();
    let key = key
        .iter()
        .map(
            |(name, descending)| match columns.iter().position(|column| column.name == *name) {
                Some(column) => Ok(KeyPart {
                    column: column as u16,
                    descending: *descending,
                }),
                None => {
                    let names: Vec<&str> =
                        columns.iter().map(|column| column.name.as_str()).collect();
                    Err(schema_error(
                        py,
                        Some(name),
                        &format!("a key column among {}", names.join(", ")),
                        name,
                    ))
                }
            },
        )
        .collect::<PyResult<Vec<KeyPart>>>()?;
    let schema = Schema::new(1, columns, key)
        .map_err(|error| Raise::new(py, "SchemaError", error.to_string()).err())?;
    Ok(PySchema(Arc::new(schema)))
}

fn schema_error(py: Python<'_>, column: Option<&str>, expected: &str, got: &str) -> PyErr {
    let at = column.map_or_else(String::new, |name| format!("column {name:?}: "));
    Raise::new(
        py,
        "SchemaError",
        format!("{at}expected {expected}, got {got}"),
    )
    .with("column", column)
    .with("expected", expected)
    .with("got", got)
    .err()
}

/// The type of its name, as `DataType`'s display writes it.
pub fn parse_type(name: &str) -> Option<DataType> {
    const PLAIN: [DataType; 14] = [
        DataType::Bool,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Date,
        DataType::Time,
        DataType::Timestamp { zoned: false },
        DataType::Timestamp { zoned: true },
        DataType::Text,
        DataType::Bytes,
        DataType::Uuid,
    ];
    if let Some(plain) = PLAIN
        .iter()
        .chain([&DataType::Json])
        .find(|data_type| data_type.to_string() == name)
    {
        return Some(*plain);
    }
    let (precision, scale) = name
        .strip_prefix("decimal(")?
        .strip_suffix(')')?
        .split_once(", ")?;
    Some(DataType::Decimal {
        precision: precision.parse().ok()?,
        scale: scale.parse().ok()?,
    })
}
