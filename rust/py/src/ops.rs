//! The operations of a transaction, each written once for threads and for event loops.
//!
//! An operation owns its arguments, already converted, and is tried until it is not stopped. Reading makes the
//! Python objects inside the attempt, straight from the page. Expressions are evaluated under the row's lock.

use std::sync::Arc;

use aurora_engine::{LockWaiting, OverflowReader, RowView, Stop, Txn};
use aurora_page::{DataType, KeyBuf, Lsn, OverflowRef, Value, ValueRef};
use aurora_scan::expr::{BoundExpr, EvalError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyString};
use smallvec::SmallVec;

use crate::db::{Engine, Halt, Tried};
use crate::errors::Raise;
use crate::expr::raise_eval;
use crate::pytypes::types;
use crate::shape::RowShape;
use crate::table::{Changes, Part, PyTable};
use crate::to_py::to_py;

/// Something a transaction can be asked for.
pub trait Operation: Send + 'static {
    /// Whether it changes something, which a cluster that cannot take changes refuses at once.
    const WRITES: bool = false;

    /// One try. A stopped one is tried again and has changed nothing.
    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>>;
}

/// The row of a key, or `None`.
pub struct Get {
    table: Py<PyTable>,
    key: KeyBuf,
    part: Part,
    long: LongValues,
}

impl Get {
    pub fn new(
        table: &Bound<'_, PyTable>,
        key: &Bound<'_, PyAny>,
        columns: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Get> {
        Ok(Get {
            key: table.get().key(key)?,
            part: table.get().part(columns)?,
            table: table.clone().unbind(),
            long: LongValues::default(),
        })
    }
}

impl Get {
    /// The row as it is durable now, without a transaction; `None` if that takes more than what is in memory.
    #[inline]
    pub fn quick<'py>(
        &self,
        py: Python<'py>,
        engine: &Engine,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let table = self.table.get();
        let row = match engine.get_readable(&table.table, &self.key) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Some(py.None().into_bound(py))),
            Err(_) => return Ok(None),
        };
        let shape = self.part.as_deref().unwrap_or(&table.shape);
        match start_row(py, table, shape, &row) {
            Ok((made, outside)) if outside.is_empty() => shape.finish(made).map(Some),
            Ok(_) | Err(Halt::Stop(_)) => Ok(None),
            Err(Halt::Python(error)) => Err(error),
        }
    }
}

impl Operation for Get {
    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        let (table, part) = (self.table.get(), self.part.as_deref());
        get(py, engine, txn, table, part, &self.key, &mut self.long)
    }
}

/// The row of a key, or `None`; of the columns that `part` has, if it is given.
pub fn get<'py>(
    py: Python<'py>,
    engine: &Engine,
    txn: &Txn,
    table: &PyTable,
    part: Option<&RowShape>,
    key: &[u8],
    long: &mut LongValues,
) -> Tried<Bound<'py, PyAny>> {
    let row = engine.get(txn, &table.table, key)?;
    found(py, engine, txn, table, part, row, long)
}

/// A row that was looked up, as Python's, or `None`; of the columns that `part` has, if it is given.
pub fn found<'py>(
    py: Python<'py>,
    engine: &Engine,
    txn: &Txn,
    table: &PyTable,
    part: Option<&RowShape>,
    row: Option<RowView>,
    long: &mut LongValues,
) -> Tried<Bound<'py, PyAny>> {
    match row {
        Some(row) => {
            let shape = part.unwrap_or(&table.shape);
            make_row(py, engine, txn.snapshot(), table, shape, &row, long)
        }
        None => Ok(py.None().into_bound(py)),
    }
}

/// The row of a key, locked, or `None`.
pub struct GetForUpdate {
    table: Py<PyTable>,
    key: KeyBuf,
    part: Part,
    waiting: LockWaiting,
    long: LongValues,
}

impl GetForUpdate {
    pub fn new(
        table: &Bound<'_, PyTable>,
        key: &Bound<'_, PyAny>,
        columns: Option<&Bound<'_, PyAny>>,
        waiting: LockWaiting,
    ) -> PyResult<GetForUpdate> {
        Ok(GetForUpdate {
            key: table.get().key(key)?,
            part: table.get().part(columns)?,
            table: table.clone().unbind(),
            waiting,
            long: LongValues::default(),
        })
    }
}

impl Operation for GetForUpdate {
    const WRITES: bool = true;

    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        let (table, part) = (self.table.get(), self.part.as_deref());
        let row = engine.get_for_update(txn, &table.table, &self.key, self.waiting)?;
        found(py, engine, txn, table, part, row, &mut self.long)
    }
}

/// Rows that are looked up before they are made: their lines of memory stay in the processor's cache until then.
const MANY: usize = 128;

/// The rows of many keys, `None` where there is none.
pub struct GetMany {
    table: Py<PyTable>,
    keys: Vec<KeyBuf>,
    part: Part,
    long: LongValues,
    /// The rows that a stopped attempt has found.
    rows: Vec<Py<PyAny>>,
}

impl GetMany {
    pub fn new(
        table: &Bound<'_, PyTable>,
        keys: &Bound<'_, PyAny>,
        columns: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<GetMany> {
        let part = table.get().part(columns)?;
        let keys = table.get().keys(keys)?;
        let rows = Vec::with_capacity(keys.len());
        Ok(GetMany {
            part,
            table: table.clone().unbind(),
            keys,
            long: LongValues::default(),
            rows,
        })
    }
}

impl Operation for GetMany {
    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        let table = self.table.get();
        let shape = self.part.as_deref().unwrap_or(&table.shape);
        while self.rows.len() < self.keys.len() {
            let start = self.rows.len();
            let end = self.keys.len().min(start + MANY);
            for row in engine.get_many(txn, &table.table, &self.keys[start..end])? {
                let made = match row {
                    Some(row) => make_row(
                        py,
                        engine,
                        txn.snapshot(),
                        table,
                        shape,
                        &row,
                        &mut self.long,
                    )?,
                    None => py.None().into_bound(py),
                };
                self.rows.push(made.unbind());
                self.long.clear();
            }
        }
        Ok(PyList::new(py, self.rows.drain(..))?.into_any())
    }
}

/// A new row. The answer is the row as the table gives it: the one that was given, or one that has what that left out.
pub struct Insert {
    table: Py<PyTable>,
    row: Vec<Value>,
    /// What was given, if it is a row of the table's class.
    given: Option<Py<PyAny>>,
    /// Whether the row asked for a number, once that is known.
    asked: Option<bool>,
    inserted: Option<KeyBuf>,
    long: LongValues,
}

impl Insert {
    pub fn new(table: &Bound<'_, PyTable>, row: &Bound<'_, PyAny>) -> PyResult<Insert> {
        Ok(Insert {
            row: table.get().values(row)?,
            given: (table.get().shape.is_row(row)?).then(|| row.clone().unbind()),
            table: table.clone().unbind(),
            asked: None,
            inserted: None,
            long: LongValues::default(),
        })
    }
}

impl Operation for Insert {
    const WRITES: bool = true;

    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        let table = self.table.get();
        if self.inserted.is_none() {
            let asked = match self.asked {
                Some(asked) => asked,
                None => *self.asked.insert(number(py, engine, table, &mut self.row)?),
            };
            engine.insert(txn, &table.table, self.row.clone())?;
            if !asked && let Some(given) = &self.given {
                return Ok(given.bind(py).clone());
            }
            self.inserted = Some(table.table.key_of(&self.row).map_err(Stop::from)?);
        }
        let key = self.inserted.as_deref().unwrap_or_default();
        get(py, engine, txn, table, None, key, &mut self.long)
    }
}

/// Numbers a row that asks for it; whether it did.
fn number(py: Python<'_>, engine: &Engine, table: &PyTable, row: &mut [Value]) -> Tried<bool> {
    let Some(auto) = table.table.auto else {
        return Ok(false);
    };
    let asked = row.get(usize::from(auto)) == Some(&Value::Null);
    engine.number_row(&table.table, row, table.db.cluster(py)?.now_us())?;
    Ok(asked)
}

/// A row, new or in place of the one with its key.
pub struct Upsert {
    table: Py<PyTable>,
    row: Vec<Value>,
}

impl Upsert {
    pub fn new(table: &Bound<'_, PyTable>, row: &Bound<'_, PyAny>) -> PyResult<Upsert> {
        Ok(Upsert {
            row: table.get().values(row)?,
            table: table.clone().unbind(),
        })
    }
}

impl Operation for Upsert {
    const WRITES: bool = true;

    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        number(py, engine, self.table.get(), &mut self.row)?;
        engine.upsert(txn, &self.table.get().table, self.row.clone())?;
        Ok(py.None().into_bound(py))
    }
}

/// Changes of a row that is there.
pub struct Update {
    table: Py<PyTable>,
    key: KeyBuf,
    changes: Changes,
    long: LongValues,
}

impl Operation for Update {
    const WRITES: bool = true;

    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        let table = self.table.get();
        let mut changes = self.changes.values.clone();
        if !self.changes.expressions.is_empty() {
            // Under the lock, at the newest state: nobody can change the row between this and the commit.
            let found = engine.get_for_update(txn, &table.table, &self.key, LockWaiting::Wait)?;
            let Some(row) = found else {
                return Err(self.not_found(py));
            };
            for expression in &self.changes.expressions {
                changes.push(evaluate(
                    py,
                    engine,
                    txn.snapshot(),
                    table,
                    &row,
                    expression,
                    &mut self.long,
                )?);
            }
        }
        if engine.update(txn, &table.table, &self.key, changes)? {
            Ok(py.None().into_bound(py))
        } else {
            Err(self.not_found(py))
        }
    }
}

impl Update {
    pub fn new(
        table: &Bound<'_, PyTable>,
        key: &Bound<'_, PyAny>,
        changes: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Update> {
        let (key, changes) = (
            table.get().key(key)?,
            table.get().changes(table.py(), changes)?,
        );
        Ok(Update {
            table: table.clone().unbind(),
            key,
            changes,
            long: LongValues::default(),
        })
    }

    fn not_found(&self, py: Python<'_>) -> Halt {
        let table = &self.table.get().table;
        let key = table.show_key(&self.key);
        let message = format!(
            "table {:?}: expected a row with key {key} to update, got none",
            table.name
        );
        Raise::new(py, "RowNotFound", message)
            .with("table", &table.name)
            .with("key", key)
            .err()
            .into()
    }
}

/// The end of a row; whether there was one.
pub struct Delete {
    table: Py<PyTable>,
    key: KeyBuf,
}

impl Delete {
    pub fn new(table: &Bound<'_, PyTable>, key: &Bound<'_, PyAny>) -> PyResult<Delete> {
        Ok(Delete {
            key: table.get().key(key)?,
            table: table.clone().unbind(),
        })
    }
}

impl Operation for Delete {
    const WRITES: bool = true;

    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        let deleted = engine.delete(txn, &self.table.get().table, &self.key)?;
        Ok(PyBool::new(py, deleted).to_owned().into_any())
    }
}

/// Values in overflow pages, kept over the restarts of the step that reads them.
#[derive(Default)]
pub struct LongValues(Vec<(OverflowRef, OverflowReader, Option<Vec<u8>>)>);

impl LongValues {
    /// The bytes of a value.
    pub fn get(&mut self, engine: &Engine, at: Lsn, reference: OverflowRef) -> Tried<&[u8]> {
        let place = match self.0.iter().position(|(of, _, _)| *of == reference) {
            Some(place) => place,
            None => {
                self.0
                    .push((reference, OverflowReader::new(reference, at), None));
                self.0.len() - 1
            }
        };
        let (_, reader, bytes) = &mut self.0[place];
        match bytes {
            Some(bytes) => Ok(bytes),
            None => Ok(bytes.insert(engine.read_overflow_on(reader)?)),
        }
    }

    /// Forgets the values of one row before the next.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A row object, and those of its columns that are still to be set because their values lie in overflow pages.
type Started<'py> = (Bound<'py, PyAny>, SmallVec<[(usize, OverflowRef); 2]>);

/// The row object of a stored row, made straight from the page's columns.
#[inline]
fn start_row<'py>(
    py: Python<'py>,
    table: &PyTable,
    shape: &RowShape,
    row: &RowView,
) -> Tried<Started<'py>> {
    let columns = table.columns();
    let made = shape.start(py)?;
    let mut failed = None;
    let mut outside = SmallVec::new();
    let mut set = |place: usize, index: usize, value: ValueRef<'_>| {
        if failed.is_some() || index >= columns.len() {
            return;
        }
        let set = if let ValueRef::Overflow(reference) = value {
            outside.push((place, reference));
            shape.defer(&made, place)
        } else {
            to_py(py, value, columns[index].data_type)
                .and_then(|value| shape.set(&made, place, value))
        };
        failed = set.err();
    };
    if shape.is_whole() {
        row.for_each(|index, value| set(index, index, value))?;
    } else {
        for (place, index) in shape.columns().iter().enumerate() {
            let index = usize::from(*index);
            set(place, index, row.value(index)?);
        }
    }
    failed.map_or(Ok((made, outside)), |error| Err(error.into()))
}

/// The row object of a row that was read at `at`, with the values that lie in overflow pages.
#[inline]
pub fn make_row<'py>(
    py: Python<'py>,
    engine: &Engine,
    at: Lsn,
    table: &PyTable,
    shape: &RowShape,
    row: &RowView,
    long: &mut LongValues,
) -> Tried<Bound<'py, PyAny>> {
    let (made, outside) = start_row(py, table, shape, row)?;
    for (place, reference) in outside {
        let column = usize::from(shape.columns()[place]);
        let value = long_value(
            py,
            table.columns()[column].data_type,
            long.get(engine, at, reference)?,
        )?;
        shape.set(&made, place, value)?;
    }
    Ok(shape.finish(made)?)
}

/// The object of a value that was kept in overflow pages.
fn long_value<'py>(
    py: Python<'py>,
    data_type: DataType,
    bytes: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    match data_type {
        DataType::Bytes => Ok(PyBytes::new(py, bytes).into_any()),
        DataType::Json => types(py)?
            .json_loads
            .bind(py)
            .call1((PyBytes::new(py, bytes),)),
        _ => Ok(PyString::from_bytes(py, bytes)?.into_any()),
    }
}

fn evaluate(
    py: Python<'_>,
    engine: &Engine,
    at: Lsn,
    table: &PyTable,
    row: &RowView,
    (index, expr): &(u16, Arc<BoundExpr>),
    long: &mut LongValues,
) -> Tried<(u16, Value)> {
    let target = &table.columns()[usize::from(*index)];
    let mut stored = Vec::with_capacity(table.columns().len());
    for column in 0..table.columns().len() {
        stored.push(row.value(column)?);
    }
    // Values that lie outside of the row, once they were found to be needed.
    let mut fetched: Vec<(usize, Value)> = Vec::new();
    loop {
        let lookup = |column: usize| match fetched.iter().find(|(of, _)| *of == column) {
            Some((_, value)) => value.as_ref(),
            None => stored[column],
        };
        let error = match expr.value_for(target, &lookup) {
            Ok(Value::Null) if !target.nullable => EvalError::OutOfRange {
                expected: format!("a result that fits {}", target.data_type),
                got: "null".into(),
            },
            Ok(value) => return Ok((*index, value)),
            Err(error) => error,
        };
        match error {
            EvalError::LongValue { column, reference } => {
                let bytes = long.get(engine, at, reference)?;
                let text = || String::from_utf8_lossy(bytes).into_owned();
                let value = match table.columns()[column].data_type {
                    DataType::Bytes => Value::Bytes(bytes.to_vec()),
                    DataType::Json => Value::Json(text()),
                    _ => Value::Text(text()),
                };
                fetched.push((column, value));
            }
            error => {
                let context = format!("column {:?} = {}", target.name, expr.expr());
                return Err(raise_eval(py, &context, Some(&target.name), &error).into());
            }
        }
    }
}
