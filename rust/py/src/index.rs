//! Indexes as Python sees them: handles, look-ups, ranges, and builds that Ctrl-C ends.

use std::sync::Arc;

use aurora_engine::{
    CheckSpec, Index, IndexBuild, IndexOn, IndexSpec, LockWaiting, OnDelete, ReferenceSpec, Stop,
    Table, TableSpec, Txn,
};
use aurora_page::{KEY_BYTES_MAX, KeyBuf, Schema};
use aurora_scan::expr::{ColumnName, Expr as Tree};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::cluster::Cluster;
use crate::db::{Db, Engine, Tried, interruptible};
use crate::errors::{Raise, describe, invalid_option};
use crate::expr::{Expr, raise_expr};
use crate::from_py::push_key_part;
use crate::ops::{Get, GetForUpdate, LongValues, Operation, found};
use crate::table::{Part, PyTable};
use crate::txn::Core;

/// An index of a table.
#[pyclass(name = "Index", module = "aurora_engine._engine", frozen, generic)]
pub struct PyIndex {
    table: Py<PyTable>,
    index: Arc<Index>,
}

#[pymethods]
impl PyIndex {
    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        self.index.name()
    }

    /// Its table.
    #[getter]
    fn table(&self, py: Python<'_>) -> Py<PyTable> {
        self.table.clone_ref(py)
    }

    /// Each column's name, and whether its largest value comes first.
    #[getter]
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let columns = self.index.tree.schema.columns().iter();
        let parts = columns.zip(self.index.parts());
        let parts: Vec<(String, bool)> = parts
            .map(|(column, (_, descending))| (column.name.clone(), descending))
            .collect();
        PyTuple::new(py, parts)
    }

    /// Whether two rows may not have the same values.
    #[getter]
    fn unique(&self) -> bool {
        self.index.def.unique
    }

    /// Whether it was ready, and not still being built, when this handle was made.
    #[getter]
    fn ready(&self) -> bool {
        self.index.is_ready()
    }

    fn __repr__(&self) -> String {
        let unique = if self.unique() { ", unique" } else { "" };
        let building = if self.ready() { "" } else { " (being built)" };
        let columns: Vec<String> = self
            .index
            .tree
            .schema
            .columns()
            .iter()
            .zip(self.index.parts())
            .map(|(column, (_, descending))| {
                format!("{}{}", column.name, if descending { " desc" } else { "" })
            })
            .collect();
        format!(
            "<Index {:?} of table {:?}: {}{unique}{building}>",
            self.name(),
            self.table.get().table.name,
            columns.join(", ")
        )
    }
}

impl PyIndex {
    /// The handle of its table.
    pub fn handle<'py>(&self, py: Python<'py>) -> Bound<'py, PyTable> {
        self.table.bind(py).clone()
    }

    /// What a range by it goes over.
    pub fn order(&self) -> Order {
        Order::Index(self.index.name().to_owned())
    }

    /// The encoded bound of a range: the values of the first columns of its entries, which end with the primary key.
    pub fn bound(&self, object: &Bound<'_, PyAny>) -> PyResult<KeyBuf> {
        let most = self.index.tree.schema.key().len();
        match object.cast::<PyTuple>() {
            Ok(values) if (1..=most).contains(&values.len()) => self.encode(values),
            Ok(_) => Err(self.wrong(object, "a tuple of at most", most)),
            Err(_) => self.encode(&PyTuple::new(object.py(), [object])?),
        }
    }

    /// The encoded values of all its own columns.
    fn exact(&self, object: &Bound<'_, PyAny>) -> PyResult<KeyBuf> {
        let count = self.index.def.parts.len();
        match object.cast::<PyTuple>() {
            Ok(values) if values.len() == count => self.encode(values),
            Err(_) if count == 1 => self.encode(&PyTuple::new(object.py(), [object])?),
            _ => Err(self.wrong(object, "a tuple of", count)),
        }
    }

    fn encode(&self, values: &Bound<'_, PyTuple>) -> PyResult<KeyBuf> {
        let schema = &self.index.tree.schema;
        let mut key = KeyBuf::new();
        for (part, value) in schema.key().iter().zip(values.iter_borrowed()) {
            push_key_part(&mut key, schema.key_column(*part), part.descending, &value)?;
        }
        if key.len() <= KEY_BYTES_MAX {
            return Ok(key);
        }
        let message = format!(
            "index {:?}: expected a key of at most {KEY_BYTES_MAX} bytes when encoded, got {}",
            self.name(),
            key.len()
        );
        Err(Raise::new(values.py(), "KeyTooLong", message)
            .with("index", self.name())
            .with("limit", KEY_BYTES_MAX)
            .with("got", key.len().to_string())
            .err())
    }

    fn wrong(&self, object: &Bound<'_, PyAny>, how: &str, count: usize) -> PyErr {
        let columns = self.index.tree.schema.columns().iter().take(count);
        let names: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
        let expected = format!("{how} {count} values ({})", names.join(", "));
        let got = describe(object);
        let message = format!("index {:?}: expected {expected}, got {got}", self.name());
        Raise::new(object.py(), "TypeMismatch", message)
            .with("index", self.name())
            .with("expected", expected)
            .with("got", got)
            .err()
    }
}

/// The row with these values in a unique index, or `None`.
pub struct IndexGet {
    table: Py<PyTable>,
    name: String,
    key: KeyBuf,
    part: Part,
    long: LongValues,
}

impl IndexGet {
    /// `table` is the handle for what is read.
    pub fn new(
        table: &Bound<'_, PyTable>,
        index: &PyIndex,
        key: &Bound<'_, PyAny>,
        columns: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<IndexGet> {
        Ok(IndexGet {
            part: table.get().part(columns)?,
            table: table.clone().unbind(),
            name: index.name().to_owned(),
            key: index.exact(key)?,
            long: LongValues::default(),
        })
    }
}

impl Operation for IndexGet {
    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        let (table, part) = (self.table.get(), self.part.as_deref());
        let index = engine.index_at(txn, &table.table, &self.name)?;
        let row = engine.index_get(txn, &table.table, &index, &self.key)?;
        found(py, engine, txn, table, part, row, &mut self.long)
    }
}

/// A look-up of one row, by its key or by a unique index.
pub enum GetBy {
    Key(Get),
    Index(IndexGet),
}

impl GetBy {
    /// `of` is a table or an index.
    pub fn new(
        core: &Core,
        of: &Bound<'_, PyAny>,
        key: &Bound<'_, PyAny>,
        columns: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<GetBy> {
        if let Ok(index) = of.cast::<PyIndex>() {
            let table = core.table(&index.get().handle(of.py()))?;
            let get = IndexGet::new(&table, index.get(), key, columns)?;
            return Ok(GetBy::Index(get));
        }
        let table = core.table(table_of(of)?)?;
        Ok(GetBy::Key(Get::new(&table, key, columns)?))
    }
}

impl Operation for GetBy {
    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        match self {
            GetBy::Key(get) => get.attempt(py, engine, txn),
            GetBy::Index(get) => get.attempt(py, engine, txn),
        }
    }
}

/// A look-up that locks, which goes by the key only.
pub fn get_for_update_of(
    core: &Core,
    of: &Bound<'_, PyAny>,
    key: &Bound<'_, PyAny>,
    columns: Option<&Bound<'_, PyAny>>,
    waiting: LockWaiting,
) -> PyResult<GetForUpdate> {
    if of.cast::<PyIndex>().is_ok() {
        return Err(invalid_option(of.py(), "for_update", "a table", "an index"));
    }
    GetForUpdate::new(&core.table(table_of(of)?)?, key, columns, waiting)
}

/// The table that is read in the order of its key.
pub fn table_of<'a, 'py>(of: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyTable>> {
    of.cast::<PyTable>().map_err(|_| {
        let (expected, got) = ("a table or an index", describe(of));
        Raise::new(
            of.py(),
            "TypeMismatch",
            format!("expected {expected}, got {got}"),
        )
        .with("expected", expected)
        .with("got", got)
        .err()
    })
}

/// What a range goes over.
#[derive(Clone)]
pub enum Order {
    /// The rows of the table, in the order of its key.
    Key,
    /// The rows in the order of an index.
    Index(String),
}

/// The indexes of a table as it is now.
pub fn indexes<'py>(table: &Bound<'py, PyTable>) -> PyResult<Vec<PyIndex>> {
    let py = table.py();
    let this = table.get();
    let head = this.db.call(py, |engine| engine.head_table(&this.table))?;
    let handle = |index: &Arc<Index>| PyIndex {
        table: table.clone().unbind(),
        index: index.clone(),
    };
    Ok(head.indexes.iter().map(handle).collect())
}

/// The index of a name.
pub fn index(table: &Bound<'_, PyTable>, name: &str) -> PyResult<PyIndex> {
    let found = indexes(table)?
        .into_iter()
        .find(|index| index.name() == name);
    found.ok_or_else(|| unknown_index(table, name))
}

fn unknown_index(table: &Bound<'_, PyTable>, name: &str) -> PyErr {
    let table_name = &table.get().table.name;
    let message = format!("table {table_name:?}: expected an index {name:?}, got none");
    Raise::new(table.py(), "UnknownIndex", message)
        .with("table", table_name)
        .with("index", name)
        .err()
}

/// Steps of a build between two reports of its progress.
const STEPS: usize = 16;

/// Builds an index while others write. An error, or a signal's exception, leaves nothing of it.
#[pyfunction]
#[pyo3(signature = (cluster, table, name, columns, unique, exist_ok, report))]
#[expect(clippy::too_many_arguments, reason = "each is an argument of Python's")]
pub fn create_index(
    py: Python<'_>,
    cluster: &Bound<'_, Cluster>,
    table: &Bound<'_, PyTable>,
    name: String,
    columns: Vec<(IndexColumn, bool)>,
    unique: bool,
    exist_ok: bool,
    report: &Bound<'_, PyAny>,
) -> PyResult<PyIndex> {
    let db = &cluster.get().db;
    cluster.get().writable(py)?;
    let table = crate::definition::newest(db, table)?;
    let spec = index_spec(py, &table.get().table, &name, &columns, unique)?;
    if exist_ok && let Some(there) = same_index(&table, &spec)? {
        return Ok(there);
    }
    let of = table.get().table.clone();
    let mut build = drive(py, db, |engine, now_us| {
        engine.begin_index(&of, &spec, now_us)
    })?;
    match build_all(py, db, &mut build, report) {
        Ok(()) => index(&table, &name),
        Err(error) => {
            // What went wrong matters more than whether it could be cleaned up, which opening again does too.
            let _ = drive(py, db, |engine, now_us| {
                engine.abandon_index(&build, now_us)
            });
            Err(error)
        }
    }
}

fn build_all(
    py: Python<'_>,
    db: &Db,
    build: &mut IndexBuild,
    report: &Bound<'_, PyAny>,
) -> PyResult<()> {
    for step in 1.. {
        py.check_signals()?;
        let progress = drive(py, db, |engine, now_us| engine.index_step(build, now_us))?;
        if progress.done || step % STEPS == 0 {
            report.call1((progress.rows,))?;
        }
        if progress.done {
            break;
        }
    }
    let (_, commit) = drive(py, db, |engine, now_us| engine.finish_index(build, now_us))?;
    commit.map_or(Ok(()), |commit| db.wait(py, commit.lsn))
}

/// Runs a step with the interpreter free, and does what it stops for, until it has come to its end.
pub fn drive<T: Send>(
    py: Python<'_>,
    db: &Db,
    mut step: impl FnMut(&Engine, i64) -> Result<T, Stop> + Send,
) -> PyResult<T> {
    loop {
        let cluster = db.cluster(py)?;
        let (writer, now_us) = (cluster.engine(), cluster.now_us());
        match py.detach(|| step(&writer, now_us)) {
            Ok(done) => return Ok(done),
            Err(stop) => interruptible(py, |interrupt| cluster.settle(&writer, stop, interrupt))?,
        }
    }
}

/// Drops an index.
#[pyfunction]
pub fn drop_index(
    py: Python<'_>,
    cluster: &Bound<'_, Cluster>,
    table: &Bound<'_, PyTable>,
    name: &str,
) -> PyResult<()> {
    let db = &cluster.get().db;
    cluster.get().writable(py)?;
    let now_us = db.cluster(py)?.now_us();
    let this = table.get();
    match db.call(py, |engine| engine.drop_index(&this.table, name, now_us))? {
        Some(commit) => db.wait(py, commit.lsn),
        None => Err(unknown_index(table, name)),
    }
}

/// What is asked for, with columns by position.
pub fn index_spec(
    py: Python<'_>,
    table: &Table,
    name: &str,
    columns: &[(IndexColumn, bool)],
    unique: bool,
) -> PyResult<IndexSpec> {
    index_parts(py, (&table.name, &table.schema), name, columns, unique)
}

/// A column of an index, as Python gives it.
#[derive(FromPyObject)]
pub enum IndexColumn {
    Name(String),
    Expr(Py<Expr>),
}

fn index_parts(
    py: Python<'_>,
    (table, schema): (&str, &Schema),
    name: &str,
    columns: &[(IndexColumn, bool)],
    unique: bool,
) -> PyResult<IndexSpec> {
    let place = |column: &String| {
        let place = schema.column_index(column);
        let place = place.ok_or_else(|| no_column(py, table, schema, column))?;
        Ok::<_, PyErr>(IndexOn::Column(place as u16))
    };
    let part = |(column, descending): &(IndexColumn, bool)| {
        let on = match column {
            IndexColumn::Name(name) => place(name)?,
            IndexColumn::Expr(expr) => match &*expr.get().tree {
                // A column by itself is a column.
                Tree::Column(ColumnName::Name(name)) => place(name)?,
                tree => {
                    let named =
                        |error| raise_expr(py, &format!("index {name}: {tree}"), None, error);
                    tree.bind(schema).map_err(named)?;
                    IndexOn::Expr(tree.clone())
                }
            },
        };
        Ok((on, *descending))
    };
    Ok(IndexSpec {
        name: name.to_owned(),
        parts: columns.iter().map(part).collect::<PyResult<_>>()?,
        unique,
    })
}

/// A column that the table does not have.
pub fn no_column(py: Python<'_>, table: &str, schema: &Schema, column: &str) -> PyErr {
    let names: Vec<&str> = schema
        .columns()
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let expected = format!("a column among {}", names.join(", "));
    let message = format!("table {table:?}: expected {expected}, got {column}");
    Raise::new(py, "UnknownColumn", message)
        .with("table", table)
        .with("column", column)
        .with("expected", expected)
        .with("got", column)
        .err()
}

/// The index that is there, if it is what is asked for and ready.
fn same_index(table: &Bound<'_, PyTable>, spec: &IndexSpec) -> PyResult<Option<PyIndex>> {
    let mut there = indexes(table)?.into_iter();
    let of = &table.get().table;
    Ok(there.find(|found| found.index.is_ready() && found.index.is_as(of, spec)))
}

/// Name, columns and whether they are descending, unique.
type IndexArgs = (String, Vec<(IndexColumn, bool)>, bool);
/// Name, columns, parent, on delete.
type ReferenceArgs = (String, Vec<String>, String, String);

/// What becomes of rows whose parent is deleted, as Python says it.
pub fn on_delete_of(py: Python<'_>, on_delete: &str) -> PyResult<OnDelete> {
    match on_delete {
        "restrict" => Ok(OnDelete::Restrict),
        "cascade" => Ok(OnDelete::Cascade),
        "set null" => Ok(OnDelete::SetNull),
        other => {
            let expected = "\"restrict\", \"cascade\" or \"set null\"";
            let got = format!("{other:?}");
            Err(invalid_option(py, "on_delete", expected, &got))
        }
    }
}

/// What a table is asked to be beside columns and key, as Python gives it.
#[derive(FromPyObject)]
pub struct Extras {
    #[pyo3(item)]
    indexes: Vec<IndexArgs>,
    /// Name and condition.
    #[pyo3(item)]
    checks: Vec<(String, Py<Expr>)>,
    #[pyo3(item)]
    references: Vec<ReferenceArgs>,
    /// The auto-increment column.
    #[pyo3(item)]
    auto: Option<String>,
}

impl Extras {
    /// The whole of what is asked for.
    pub fn spec(self, py: Python<'_>, table: &str, schema: &Schema) -> PyResult<TableSpec> {
        let place = |column: &String| {
            let place = schema.column_index(column);
            let place = place.ok_or_else(|| no_column(py, table, schema, column))?;
            Ok(place as u16)
        };
        let index = |(name, columns, unique): &IndexArgs| {
            index_parts(py, (table, schema), name, columns, *unique)
        };
        let check = |(name, condition): &(String, Py<Expr>)| CheckSpec {
            name: name.clone(),
            condition: (*condition.get().tree).clone(),
        };
        let reference = |(name, columns, parent, on_delete): &ReferenceArgs| {
            Ok(ReferenceSpec {
                name: name.clone(),
                columns: columns.iter().map(place).collect::<PyResult<_>>()?,
                parent: parent.clone(),
                on_delete: on_delete_of(py, on_delete)?,
            })
        };
        Ok(TableSpec {
            schema: schema.clone(),
            indexes: self.indexes.iter().map(index).collect::<PyResult<_>>()?,
            checks: self.checks.iter().map(check).collect(),
            references: self
                .references
                .iter()
                .map(reference)
                .collect::<PyResult<_>>()?,
            auto: self.auto.as_ref().map(place).transpose()?,
        })
    }
}
