//! Constraints that come to a table with rows, and go, for `aurora_engine.definitions` to offer.

use aurora_engine::{Alter, CheckSpec, NewRule, ReferenceSpec, RuleBuild};
use pyo3::prelude::*;

use crate::alter::alter;
use crate::cluster::Cluster;
use crate::db::Db;
use crate::expr::Expr;
use crate::index::{drive, no_column, on_delete_of};
use crate::table::PyTable;

/// Steps between two reports of how far it has come.
const STEPS: usize = 64;

/// A condition that no row may make false.
#[pyfunction]
pub fn add_check(
    py: Python<'_>,
    cluster: &Bound<'_, Cluster>,
    table: &Bound<'_, PyTable>,
    name: String,
    condition: &Bound<'_, Expr>,
    report: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let condition = (*condition.get().tree).clone();
    let rule = NewRule::Check(CheckSpec { name, condition });
    add(py, cluster, table, &rule, report)
}

/// A foreign key, whose index is there.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "each is an argument of Python's")]
pub fn add_reference(
    py: Python<'_>,
    cluster: &Bound<'_, Cluster>,
    table: &Bound<'_, PyTable>,
    name: String,
    columns: Vec<String>,
    parent: String,
    on_delete: &str,
    report: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let newest = crate::definition::newest(&cluster.get().db, table)?;
    let schema = &newest.get().table.schema;
    let place = |column: &String| {
        let place = schema.column_index(column);
        let of = &newest.get().table.name;
        Ok(place.ok_or_else(|| no_column(py, of, schema, column))? as u16)
    };
    let rule = NewRule::Reference(ReferenceSpec {
        columns: columns.iter().map(place).collect::<PyResult<_>>()?,
        on_delete: on_delete_of(py, on_delete)?,
        name,
        parent,
    });
    add(py, cluster, table, &rule, report)
}

/// A column takes no null any more.
#[pyfunction]
pub fn set_not_null(
    py: Python<'_>,
    cluster: &Bound<'_, Cluster>,
    table: &Bound<'_, PyTable>,
    column: String,
    report: &Bound<'_, PyAny>,
) -> PyResult<()> {
    add(py, cluster, table, &NewRule::NotNull { column }, report)
}

/// A column takes null.
#[pyfunction]
pub fn drop_not_null(py: Python<'_>, cluster: &Cluster, table: &str, column: &str) -> PyResult<()> {
    let name = column.to_owned();
    alter(py, cluster, table, &Alter::Nullable { name })
}

/// Drops a check, or a foreign key with its index.
#[pyfunction]
pub fn drop_constraint(
    py: Python<'_>,
    cluster: &Bound<'_, Cluster>,
    table: &Bound<'_, PyTable>,
    name: &str,
) -> PyResult<()> {
    let db = &cluster.get().db;
    cluster.get().writable(py)?;
    let of = &table.get().table;
    let (_, commit) = drive(py, db, |engine, now_us| {
        engine.drop_constraint(of, name, now_us)
    })?;
    commit.map_or(Ok(()), |commit| db.wait(py, commit.lsn))
}

/// Holds a rule against the rows that are there, while others write, and adds it. An error, or a signal's exception, leaves
/// nothing of it.
fn add(
    py: Python<'_>,
    cluster: &Bound<'_, Cluster>,
    table: &Bound<'_, PyTable>,
    rule: &NewRule,
    report: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let db = &cluster.get().db;
    cluster.get().writable(py)?;
    let newest = crate::definition::newest(db, table)?;
    let of = &newest.get().table;
    let mut build = drive(py, db, |engine, _| engine.begin_rule(of, rule))?;
    let added = hold(py, db, &mut build, report);
    if added.is_err()
        && let Some(cluster) = db.cluster_unattached()
    {
        cluster.engine().abandon_rule(&build);
    }
    added
}

fn hold(py: Python<'_>, db: &Db, build: &mut RuleBuild, report: &Bound<'_, PyAny>) -> PyResult<()> {
    for step in 1.. {
        py.check_signals()?;
        let progress = drive(py, db, |engine, _| engine.rule_step(build))?;
        if progress.done || step % STEPS == 0 {
            report.call1((progress.rows,))?;
        }
        if progress.done
            && let Some((_, commit)) =
                drive(py, db, |engine, now_us| engine.finish_rule(build, now_us))?
        {
            return commit.map_or(Ok(()), |commit| db.wait(py, commit.lsn));
        }
    }
    Ok(())
}
