//! Changes of a table's definition, for `aurora_engine.definitions` to offer.

use aurora_engine::{Alter, Commit, Table};
use aurora_page::{Column, Value};
use pyo3::prelude::*;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::errors::Raise;
use crate::failure::raise;
use crate::from_py::to_value;
use crate::schema::parse_type;

type Altered = (Arc<Table>, Option<Commit>);

/// Makes a change, and waits until it is durable.
pub fn alter(py: Python<'_>, cluster: &Cluster, table: &str, change: &Alter) -> PyResult<()> {
    let open = cluster.db.cluster(py)?;
    open.check_writable().map_err(|error| raise(py, error))?;
    let now_us = open.now_us();
    let (_, commit): Altered = cluster
        .db
        .call(py, |engine| engine.alter_table(table, change, now_us))?;
    commit.map_or(Ok(()), |commit| cluster.db.wait(py, commit.lsn))
}

fn typed(py: Python<'_>, column: &str, kind: &str) -> PyResult<aurora_page::DataType> {
    parse_type(kind).ok_or_else(|| {
        let message = format!("column {column:?}: expected a column type, got {kind}");
        Raise::new(py, "SchemaError", message)
            .with("column", column)
            .err()
    })
}

/// One column more, the last.
#[pyfunction]
pub fn add_column(
    py: Python<'_>,
    cluster: &Cluster,
    table: &str,
    column: &str,
    kind: &str,
    nullable: bool,
    default: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let data_type = typed(py, column, kind)?;
    let initial = if default.is_none() {
        Value::Null
    } else {
        let column = Column {
            id: 0,
            name: column.to_owned(),
            data_type,
            nullable,
        };
        to_value(&column, default)?
    };
    let change = Alter::AddColumn {
        name: column.to_owned(),
        data_type,
        nullable,
        initial,
    };
    alter(py, cluster, table, &change)
}

/// One column less.
#[pyfunction]
pub fn drop_column(py: Python<'_>, cluster: &Cluster, table: &str, column: &str) -> PyResult<()> {
    let name = column.to_owned();
    alter(py, cluster, table, &Alter::DropColumn { name })
}

/// Another name for a column.
#[pyfunction]
pub fn rename_column(
    py: Python<'_>,
    cluster: &Cluster,
    table: &str,
    column: &str,
    to: &str,
) -> PyResult<()> {
    let (name, to) = (column.to_owned(), to.to_owned());
    alter(py, cluster, table, &Alter::RenameColumn { name, to })
}

/// A wider type for a column.
#[pyfunction]
pub fn widen_column(
    py: Python<'_>,
    cluster: &Cluster,
    table: &str,
    column: &str,
    kind: &str,
) -> PyResult<()> {
    let (name, to) = (column.to_owned(), typed(py, column, kind)?);
    alter(py, cluster, table, &Alter::WidenColumn { name, to })
}

/// No rows any more.
#[pyfunction]
pub fn truncate(py: Python<'_>, cluster: &Cluster, table: &str) -> PyResult<()> {
    let open = cluster.db.cluster(py)?;
    open.check_writable().map_err(|error| raise(py, error))?;
    let now_us = open.now_us();
    let (_, commit): Altered = cluster
        .db
        .call(py, |engine| engine.truncate_table(table, now_us))?;
    commit.map_or(Ok(()), |commit| cluster.db.wait(py, commit.lsn))
}

/// Another name for the table.
#[pyfunction]
pub fn rename_table(py: Python<'_>, cluster: &Cluster, table: &str, to: &str) -> PyResult<()> {
    let to = to.to_owned();
    alter(py, cluster, table, &Alter::Rename { to })
}
