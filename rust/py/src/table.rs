//! A table: its place in the engine, its row class, and keys from Python objects.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use aurora_engine::Table;
use aurora_page::{Column, DataType, KEY_BYTES_MAX, KeyBuf, Schema, Value};
use aurora_scan::expr::BoundExpr;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};

use crate::db::Db;
use crate::errors::{Raise, describe, invalid_option};
use crate::expr::Expr;
use crate::from_py::{push_key_part, to_value};
use crate::input::row_values;
use crate::schema::PySchema;
use crate::shape::RowShape;

/// A table of rows of one class.
#[pyclass(name = "Table", module = "aurora_engine._engine", frozen, generic)]
pub struct PyTable {
    pub db: Arc<Db>,
    pub table: Arc<Table>,
    pub shape: RowShape,
    /// The branch of the volume on which the definition was found.
    pub branch: AtomicU64,
    /// Handles like this one for definitions that came later.
    pub successors: Mutex<Vec<Py<PyTable>>>,
    /// Shapes of some of the columns, as they were asked for lately.
    parts: Mutex<Vec<Arc<RowShape>>>,
}

/// Parts whose shapes are kept.
const PARTS_MAX: usize = 32;

/// Columns that are asked for: all of them where none are named.
pub type Part = Option<Arc<RowShape>>;

#[pymethods]
impl PyTable {
    #[getter]
    fn name(&self) -> String {
        self.definition().name.clone()
    }

    #[getter]
    fn row<'py>(slf: &Bound<'py, PyTable>) -> Bound<'py, PyType> {
        let this = slf.get();
        // A closed cluster's table has the class that it had; so has one whose class does not fit any more.
        let table = crate::definition::newest(&this.db, slf).unwrap_or_else(|_| slf.clone());
        table.get().shape.class(slf.py()).clone()
    }

    fn _batches(
        &self,
        kinds: Vec<String>,
        rows: &Bound<'_, PyList>,
    ) -> PyResult<crate::batches::Batches> {
        crate::batches::batches(self, kinds, rows)
    }

    #[getter]
    fn schema(&self) -> PySchema {
        PySchema(Arc::new(self.definition().schema.clone()))
    }

    /// Its indexes as they are now.
    #[getter]
    fn indexes<'py>(slf: &Bound<'py, PyTable>) -> PyResult<Bound<'py, PyTuple>> {
        let indexes = crate::index::indexes(slf)?;
        let handles = indexes.into_iter().map(|index| Bound::new(slf.py(), index));
        PyTuple::new(slf.py(), handles.collect::<PyResult<Vec<_>>>()?)
    }

    /// Its index of a name.
    fn index(slf: &Bound<'_, PyTable>, name: &str) -> PyResult<crate::index::PyIndex> {
        crate::index::index(slf, name)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<Table {:?} of {}>",
            self.definition().name,
            self.shape.class(py).name()?
        ))
    }
}

impl PyTable {
    /// The table with rows of this class.
    pub fn new(db: Arc<Db>, table: Arc<Table>, class: &Bound<'_, PyType>) -> PyResult<PyTable> {
        let shape = RowShape::new(class, &table.schema)?;
        let branch = db.cluster(class.py())?.engine().branch();
        let (branch, successors) = (AtomicU64::new(branch), Mutex::default());
        let parts = Mutex::default();
        Ok(PyTable {
            db,
            table,
            shape,
            branch,
            successors,
            parts,
        })
    }

    /// The shape of the columns that are named, all of them if none are.
    pub fn part(&self, columns: Option<&Bound<'_, PyAny>>) -> PyResult<Part> {
        let Some(columns) = columns else {
            return Ok(None);
        };
        let py = columns.py();
        let names: Vec<String> = match columns.extract() {
            Ok(names) => names,
            Err(_) => return Err(no_columns(columns)),
        };
        if names.is_empty() {
            return Err(no_columns(columns));
        }
        let mut places = Vec::with_capacity(names.len());
        for name in &names {
            let place = self.schema_ref().column_index(name);
            let place = place.ok_or_else(|| self.no_column(py, name))? as u16;
            if places.contains(&place) {
                return Err(no_columns(columns));
            }
            places.push(place);
        }
        let known = |parts: &Vec<Arc<RowShape>>| {
            let found = parts.iter().find(|part| part.columns() == places);
            found.cloned()
        };
        if let Some(part) = known(&self.parts.lock()) {
            return Ok(Some(part));
        }
        let part = Arc::new(self.shape.part(py, self.schema_ref(), places.clone())?);
        let mut parts = self.parts.lock();
        if parts.len() == PARTS_MAX {
            parts.remove(0);
        }
        parts.push(part.clone());
        Ok(Some(part))
    }

    /// The newest definition of the table; the one at hand once the cluster is closed.
    fn definition(&self) -> Arc<Table> {
        self.db
            .cluster_unattached()
            .and_then(|cluster| cluster.engine().newer_definition(&self.table))
            .unwrap_or_else(|| self.table.clone())
    }

    /// Whether the column is numbered where a row does not say.
    pub fn is_auto(&self, index: usize) -> bool {
        self.table.auto == Some(index as u16)
    }

    /// The value of an object for a column. None in an auto-increment column stands for the next number.
    pub fn value(
        &self,
        index: usize,
        column: &Column,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<Value> {
        if object.is_none() && self.is_auto(index) {
            Ok(Value::Null)
        } else {
            to_value(column, object)
        }
    }

    /// The schema by which an Arrow stream is read: the auto-increment column may be missing or null.
    pub fn stream_schema(&self) -> Cow<'_, Schema> {
        let schema = self.schema_ref();
        let Some(auto) = self.table.auto else {
            return Cow::Borrowed(schema);
        };
        let mut columns = schema.columns().to_vec();
        columns[usize::from(auto)].nullable = true;
        match Schema::new(1, columns, schema.key().to_vec()) {
            Ok(relaxed) => Cow::Owned(relaxed),
            Err(_) => Cow::Borrowed(schema),
        }
    }

    /// The columns.
    pub fn columns(&self) -> &[Column] {
        self.table.schema.columns()
    }

    fn schema_ref(&self) -> &Schema {
        &self.table.schema
    }

    /// The encoded key of a value, or of a tuple of values for a key of several columns.
    pub fn key(&self, object: &Bound<'_, PyAny>) -> PyResult<KeyBuf> {
        let parts = self.schema_ref().key();
        if let [part] = parts {
            let json = self.schema_ref().key_column(*part).data_type == DataType::Json;
            if object.is_instance_of::<PyTuple>() && !json {
                return Err(self.wrong_key(object, "the value itself, of"));
            }
            let mut key = KeyBuf::new();
            push_key_part(
                &mut key,
                self.schema_ref().key_column(*part),
                part.descending,
                object,
            )?;
            return self.check_length(object.py(), key);
        }
        match object.cast::<PyTuple>() {
            Ok(values) if values.len() == parts.len() => self.prefix_of(values),
            _ => Err(self.wrong_key(object, "a tuple of")),
        }
    }

    /// The encoded bound of a range: the values of the key's first columns.
    pub fn bound(&self, object: &Bound<'_, PyAny>) -> PyResult<KeyBuf> {
        match object.cast::<PyTuple>() {
            Ok(values) if (1..=self.schema_ref().key().len()).contains(&values.len()) => {
                self.prefix_of(values)
            }
            Ok(_) => Err(self.wrong_key(object, "a tuple of at most")),
            Err(_) => self.prefix_of(&PyTuple::new(object.py(), [object])?),
        }
    }

    fn prefix_of(&self, values: &Bound<'_, PyTuple>) -> PyResult<KeyBuf> {
        let mut key = KeyBuf::new();
        for (part, value) in self.schema_ref().key().iter().zip(values.iter_borrowed()) {
            push_key_part(
                &mut key,
                self.schema_ref().key_column(*part),
                part.descending,
                &value,
            )?;
        }
        self.check_length(values.py(), key)
    }

    fn check_length(&self, py: Python<'_>, key: KeyBuf) -> PyResult<KeyBuf> {
        if key.len() <= KEY_BYTES_MAX {
            return Ok(key);
        }
        let message = format!(
            "table {:?}: expected a key of at most {KEY_BYTES_MAX} bytes when encoded, got {}",
            self.table.name,
            key.len()
        );
        let got = key.len().to_string();
        Err(Raise::new(py, "KeyTooLong", message)
            .with("limit", KEY_BYTES_MAX)
            .with("got", got)
            .err())
    }

    fn no_keys(&self, objects: &Bound<'_, PyAny>) -> PyErr {
        let (expected, got) = ("an iterable of keys", describe(objects));
        let message = format!(
            "table {:?}: expected {expected}, got {got}",
            self.table.name
        );
        Raise::new(objects.py(), "TypeMismatch", message)
            .with("expected", expected)
            .with("got", got)
            .err()
    }

    fn wrong_key(&self, object: &Bound<'_, PyAny>, how: &str) -> PyErr {
        let schema = self.schema_ref();
        let names: Vec<&str> = schema
            .key()
            .iter()
            .map(|part| schema.key_column(*part).name.as_str())
            .collect();
        let values = if names.len() == 1 { "value" } else { "values" };
        let expected = format!("{how} {} key {values} ({})", names.len(), names.join(", "));
        let got = describe(object);
        let message = format!(
            "table {:?}: expected {expected}, got {got}",
            self.table.name
        );
        Raise::new(object.py(), "TypeMismatch", message)
            .with("expected", expected)
            .with("got", got)
            .err()
    }

    /// The values of a row object, each checked against its column.
    pub fn values(&self, row: &Bound<'_, PyAny>) -> PyResult<Vec<Value>> {
        row_values(self, row)
    }

    /// The encoded keys of an iterable of keys.
    pub fn keys(&self, objects: &Bound<'_, PyAny>) -> PyResult<Vec<KeyBuf>> {
        let iterator = match objects.try_iter() {
            // A text is an iterable of its characters, and nobody's list of keys.
            Ok(iterator) if !objects.is_instance_of::<PyString>() => iterator,
            _ => return Err(self.no_keys(objects)),
        };
        iterator.map(|object| self.key(&object?)).collect()
    }

    /// The changes that keyword arguments ask for: values, and expressions to be evaluated on the row.
    pub fn changes(&self, py: Python<'_>, named: Option<&Bound<'_, PyDict>>) -> PyResult<Changes> {
        let Some(named) = named else {
            return Err(invalid_option(
                py,
                "update",
                "at least one column to change",
                "none",
            ));
        };
        let mut changes = Changes {
            values: Vec::with_capacity(named.len()),
            expressions: Vec::new(),
        };
        for (name, object) in named.iter() {
            let name: &str = name.extract()?;
            let Some(index) = self.schema_ref().column_index(name) else {
                return Err(self.no_column(py, name));
            };
            match object.cast::<Expr>() {
                Ok(expr) => {
                    let column = &self.columns()[index];
                    let bound = expr.get().bind_for(py, self.schema_ref(), column)?;
                    changes.expressions.push((index as u16, bound));
                }
                Err(_) => changes
                    .values
                    .push((index as u16, to_value(&self.columns()[index], &object)?)),
            }
        }
        Ok(changes)
    }

    /// A column that the table does not have.
    pub fn no_column(&self, py: Python<'_>, name: &str) -> PyErr {
        let names: Vec<&str> = self
            .columns()
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        let expected = format!("a column among {}", names.join(", "));
        let message = format!(
            "table {:?}: expected {expected}, got {name}",
            self.table.name
        );
        Raise::new(py, "UnknownColumn", message)
            .with("table", &self.table.name)
            .with("column", name)
            .with("expected", expected)
            .with("got", name)
            .err()
    }
}

fn no_columns(got: &Bound<'_, PyAny>) -> PyErr {
    let expected = "names of columns, each once";
    invalid_option(got.py(), "columns", expected, &describe(got))
}

/// What an update changes.
pub struct Changes {
    pub values: Vec<(u16, Value)>,
    pub expressions: Vec<(u16, Arc<BoundExpr>)>,
}
