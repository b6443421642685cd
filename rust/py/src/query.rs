//! What was asked of a scan, step by step, as one plan; and where it is run.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::RecordBatch;
use aurora_engine::Txn;
use aurora_page::{LeafRef, OverflowRef, Schema, Value};
use aurora_runtime::{Cluster, Error, ScanReport};
use aurora_scan::expr::{BoundExpr, ColumnName, Expr as Tree, ExprError};
use aurora_scan::{
    Aggregate, BatchBuilder, Counters, Job, Output, Partial, Plan, ScanError, TopN, sort_rows,
};
use pyo3::prelude::*;

use crate::blocks::BlockSource;
use crate::db::interruptible;
use crate::errors::{Raise, invalid_option};
use crate::expr::{raise_eval, raise_expr};
use crate::table::PyTable;
use crate::txn::Core;

/// Bytes that groups and kept rows of one query may take.
const MEMORY_MAX: usize = 1 << 30;
/// A table of fewer extents is scanned faster at the head, as long as nobody insists.
const EXTENTS_MIN: u64 = 2;
/// Rows of a record batch of results.
const BATCH_ROWS: usize = 64 << 10;

/// Whether the storage nodes run queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PqMode {
    Off,
    #[default]
    Auto,
    Force,
}

impl PqMode {
    pub fn parse(py: Python<'_>, text: &str) -> PyResult<PqMode> {
        match text {
            "off" => Ok(PqMode::Off),
            "auto" => Ok(PqMode::Auto),
            "force" => Ok(PqMode::Force),
            other => {
                let expected = "\"off\", \"auto\" or \"force\"";
                Err(invalid_option(py, "parallel_query", expected, other))
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            PqMode::Off => "off",
            PqMode::Auto => "auto",
            PqMode::Force => "force",
        }
    }
}

/// What was asked for; expressions read the table's columns, `having` and `sort` the result's.
#[derive(Clone, Default)]
pub struct Query {
    pub filter: Vec<Tree>,
    pub columns: Option<Vec<(String, Tree)>>,
    pub groups: Option<Groups>,
    pub having: Vec<Tree>,
    pub sort: Vec<(String, bool)>,
    pub limit: Option<usize>,
    pub mode: Option<PqMode>,
}

/// Keys and aggregates by name.
#[derive(Clone)]
pub struct Groups {
    pub keys: Vec<(String, Tree)>,
    pub aggregates: Vec<(String, Aggregate)>,
}

/// A query that makes sense for its table.
pub struct Prepared {
    pub job: Arc<Job>,
    having: Vec<BoundExpr>,
    sort: Vec<(usize, bool)>,
    limit: Option<usize>,
}

/// Rows of a result, and how they were come by.
pub struct Done {
    pub rows: Vec<Vec<Value>>,
    pub counters: Counters,
    pub report: Option<ScanReport>,
}

/// Where a query runs, and why there.
pub struct Choice {
    pub pushed: bool,
    pub why: String,
    /// The end of the name of the counter of those that are not pushed.
    pub reason: &'static str,
}

impl Query {
    /// Whether the scan gives the table's rows as they are.
    pub fn is_plain(&self) -> bool {
        self.filter.is_empty() && self.columns.is_none() && !self.is_collected()
    }

    /// Whether the result has to be known as a whole before its first row is.
    pub fn is_collected(&self) -> bool {
        self.groups.is_some() || !self.sort.is_empty()
    }

    /// An expression over the present columns as one over the table's.
    pub fn resolve(&self, py: Python<'_>, schema: &Schema, expr: &Tree) -> PyResult<Tree> {
        let Some(columns) = &self.columns else {
            return Ok(expr.clone());
        };
        let resolved = expr.replace_columns(&mut |name| {
            let found = match name {
                ColumnName::Name(name) => columns.iter().find(|(of, _)| of == name),
                ColumnName::Id(_) => None,
            };
            found.map(|(_, expr)| expr.clone()).ok_or_else(|| {
                let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
                ExprError::UnknownColumn {
                    name: name.to_string(),
                    expected: names.join(", "),
                }
            })
        });
        let resolved = resolved.map_err(|error| raise_expr(py, "scan", None, error))?;
        // Said where it is written, and not when the query runs.
        resolved
            .bind(schema)
            .map_err(|error| raise_expr(py, &format!("scan: {expr}"), None, error))?;
        Ok(resolved)
    }

    /// The present columns by name.
    pub fn present(&self, schema: &Schema) -> Vec<(String, Tree)> {
        self.columns.clone().unwrap_or_else(|| {
            let columns = schema.columns().iter();
            columns
                .map(|column| (column.name.clone(), Tree::column(column.name.clone())))
                .collect()
        })
    }

    pub fn prepare(&self, py: Python<'_>, schema: &Schema) -> PyResult<Prepared> {
        let output = match &self.groups {
            Some(groups) => Output::Groups {
                keys: groups.keys.clone(),
                aggregates: groups.aggregates.clone(),
            },
            None => Output::Rows(self.present(schema)),
        };
        let plan = Plan {
            filter: self.filter.clone(),
            output,
        };
        let refused = |error| raise_expr(py, "scan", None, error);
        let bound = plan.bind(schema).map_err(refused)?;
        let mut having = Vec::new();
        for condition in &self.having {
            let condition = condition.bind(bound.output()).map_err(refused)?;
            condition.expect_condition().map_err(refused)?;
            having.push(condition);
        }
        let mut sort = Vec::new();
        for (name, descending) in &self.sort {
            let index = bound.output().column_index(name).ok_or_else(|| {
                let names = bound
                    .output()
                    .columns()
                    .iter()
                    .map(|column| column.name.as_str());
                let expected = names.collect::<Vec<_>>().join(", ");
                raise_expr(
                    py,
                    "sort",
                    None,
                    ExprError::UnknownColumn {
                        name: name.clone(),
                        expected,
                    },
                )
            })?;
            sort.push((index, *descending));
        }
        let top = match self.limit {
            Some(rows) if self.groups.is_none() && !sort.is_empty() => Some(TopN {
                by: sort.clone(),
                rows,
            }),
            _ => None,
        };
        Ok(Prepared {
            job: Arc::new(Job::new(bound, top, MEMORY_MAX)),
            having,
            sort,
            limit: self.limit,
        })
    }

    /// What the query is, as lines of text.
    pub fn describe(&self, prepared: &Prepared, schema: &Schema, out: &mut String) {
        let plan = prepared.job.plan();
        let names: Vec<&str> = plan
            .columns()
            .iter()
            .map(|column| schema.columns()[*column].name.as_str())
            .collect();
        let _ = writeln!(
            out,
            "  columns: {} of {}: {}",
            names.len(),
            schema.columns().len(),
            if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            }
        );
        for condition in &self.filter {
            let _ = writeln!(out, "  filter: {condition}");
        }
        match &self.groups {
            Some(groups) => {
                if !groups.keys.is_empty() {
                    let _ = writeln!(out, "  group by: {}", named(&groups.keys));
                }
                let _ = writeln!(out, "  aggregates: {}", named(&groups.aggregates));
            }
            None => {
                if let Some(columns) = &self.columns {
                    let _ = writeln!(out, "  select: {}", named(columns));
                }
            }
        }
        for condition in &self.having {
            let _ = writeln!(out, "  having (at the head): {condition}");
        }
        if !self.sort.is_empty() {
            let by: Vec<String> = self
                .sort
                .iter()
                .map(|(name, down)| format!("{name}{}", if *down { " descending" } else { "" }))
                .collect();
            let _ = writeln!(out, "  sort: {}", by.join(", "));
        }
        if let Some(limit) = self.limit {
            let _ = writeln!(out, "  limit: {limit}");
        }
    }

    /// Expressions that are more than a column.
    pub fn expressions(&self) -> usize {
        let computed = |expr: &Tree| !matches!(expr, Tree::Column(_));
        let columns = self
            .columns
            .iter()
            .flatten()
            .filter(|(_, expr)| computed(expr));
        let groups = self.groups.iter().flat_map(|groups| {
            let keys = groups
                .keys
                .iter()
                .filter(|(_, expr)| computed(expr))
                .count();
            let of =
                |(_, aggregate): &&(String, Aggregate)| aggregate.of.as_ref().is_some_and(computed);
            std::iter::repeat_n((), keys + groups.aggregates.iter().filter(of).count())
        });
        columns.count() + groups.count()
    }
}

fn named<T: std::fmt::Display>(of: &[(String, T)]) -> String {
    let one = |(name, expr): &(String, T)| {
        let text = expr.to_string();
        if text == *name {
            text
        } else {
            format!("{name} = {text}")
        }
    };
    of.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Says where a query runs. `whole` is whether it covers the whole table.
pub fn choose(
    py: Python<'_>,
    (mode, class): (PqMode, Option<&str>),
    (query, whole): (&Query, bool),
    changed: bool,
    extents: u64,
) -> PyResult<Choice> {
    let head = |reason, why: &str| Choice {
        pushed: false,
        why: why.to_owned(),
        reason,
    };
    let too_small =
        class.filter(|class| class.starts_with("db.t2.") || class.starts_with("db.t3."));
    if mode == PqMode::Force
        && let Some(class) = too_small
    {
        let message = format!(
            "parallel_query=\"force\": expected an instance class that allows parallel query, such as db.r6g.large, got {class}"
        );
        return Err(Raise::new(py, "ParallelQueryRefused", message)
            .with("instance_class", class)
            .err());
    }
    Ok(match (mode, too_small) {
        (PqMode::Off, _) => head("off", "parallel_query is \"off\""),
        (_, Some(class)) => head(
            "instance_class",
            &format!("instance class {class} does not allow it"),
        ),
        _ if changed => head(
            "own_changes",
            "the transaction has changes of its own, which only the head has",
        ),
        _ if !whole => head("range_scan", "a range of keys is found by the tree"),
        _ if !query.is_collected() => head(
            "rows_in_order",
            "rows are given in the order of the key, as they are read",
        ),
        (PqMode::Auto, _) if extents < EXTENTS_MIN => head(
            "small_table",
            &format!("the table is small ({extents} extents)"),
        ),
        (PqMode::Auto, _) => Choice {
            pushed: true,
            why: format!("{extents} extents"),
            reason: "",
        },
        (PqMode::Force, _) => Choice {
            pushed: true,
            why: "parallel_query is \"force\"".into(),
            reason: "",
        },
    })
}

/// Runs a query whose result is collected on the storage nodes.
pub fn collect_pushed(
    py: Python<'_>,
    core: &Arc<Core>,
    table: &PyTable,
    prepared: &Prepared,
) -> PyResult<Done> {
    let cluster = core.db.cluster(py)?;
    let at = core.step(py, |_, _, txn: &mut Txn| Ok(txn.snapshot()))?;
    let scanned = interruptible(py, |interrupt| {
        cluster.scan(&table.table, &prepared.job, at, interrupt)
    })?;
    let (partial, report) = scanned.map_err(|error| raise_scan(py, error))?;
    done(py, prepared, partial, Some(report))
}

/// The same here, over the rows that a source gives.
pub fn collect_here(
    py: Python<'_>,
    core: &Arc<Core>,
    mut source: BlockSource,
    prepared: &Prepared,
) -> PyResult<Done> {
    let cluster = core.db.cluster(py)?;
    let folded = interruptible(py, |interrupt| {
        fold_at_head((cluster, core), &mut source, &prepared.job, interrupt)
    })?;
    let partial = folded.map_err(|error| raise_scan(py, error))?;
    done(py, prepared, partial, None)
}

fn done(
    py: Python<'_>,
    prepared: &Prepared,
    partial: Partial,
    report: Option<ScanReport>,
) -> PyResult<Done> {
    let counters = partial.counters;
    let rows = py
        .detach(|| prepared.rows(partial))
        .map_err(|error| raise_scan(py, error))?;
    Ok(Done {
        rows,
        counters,
        report,
    })
}

fn fold_at_head(
    (cluster, core): (&Cluster, &Core),
    source: &mut BlockSource,
    job: &Arc<Job>,
    interrupt: &dyn Fn() -> bool,
) -> Result<Result<Partial, ScanError>, Error> {
    let mut partial = Partial::new(job.clone());
    while let Some(block) = source.next(core, interrupt)? {
        if interrupt() {
            return Err(Error::Interrupted);
        }
        let at = source.at();
        let mut long = |reference: OverflowRef| {
            cluster
                .read_long(reference, at, interrupt)
                .map_err(|error| error.to_string())
        };
        // Ranks of a leaf ascend whatever the range's direction; rows that are given come in its order.
        let folded = match block.leaf().filter(|_| !block.is_reverse()) {
            Some((page, ranks)) => {
                let leaf = LeafRef::new(page).map_err(|error| Error::Corrupt {
                    detail: error.to_string(),
                })?;
                partial.fold_leaf(&leaf, Some(ranks), &mut long)
            }
            None => {
                let rows = cluster.run(interrupt, |_| {
                    block
                        .rows()?
                        .iter()
                        .map(aurora_engine::RowView::values)
                        .collect::<Result<Vec<_>, _>>()
                })?;
                rows.iter()
                    .try_for_each(|row| partial.fold_row(row, &mut long))
            }
        };
        if let Err(error) = folded {
            return Ok(Err(error));
        }
    }
    Ok(Ok(partial))
}

impl Prepared {
    /// The rows of the result: those that the conditions on groups leave, sorted, cut.
    fn rows(&self, partial: Partial) -> Result<Vec<Vec<Value>>, ScanError> {
        let mut rows = partial.finish()?;
        for condition in &self.having {
            let mut kept = Vec::with_capacity(rows.len());
            for row in rows {
                let test = condition.test(&|column| row[column].as_ref());
                let test = test.map_err(|source| ScanError::Eval {
                    expression: condition.expr().to_string(),
                    source,
                })?;
                if test == Some(true) {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        if !self.sort.is_empty() {
            sort_rows(&mut rows, &self.sort);
        }
        rows.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(rows)
    }

    /// The result as record batches.
    pub fn batches(&self, rows: &[Vec<Value>]) -> Result<Vec<RecordBatch>, String> {
        let mut builder = BatchBuilder::new(self.job.plan().output(), None, BATCH_ROWS)
            .map_err(|error| error.to_string())?;
        let mut batches = Vec::new();
        let mut none = |reference: OverflowRef| -> Result<Vec<u8>, String> {
            Err(format!(
                "a value of {} bytes was not fetched",
                reference.len
            ))
        };
        for row in rows {
            let values: Vec<_> = row.iter().map(Value::as_ref).collect();
            while !builder
                .append_row(&values, &mut none)
                .map_err(|error| error.to_string())?
            {
                batches.push(builder.finish().map_err(|error| error.to_string())?);
            }
        }
        if !builder.is_empty() {
            batches.push(builder.finish().map_err(|error| error.to_string())?);
        }
        Ok(batches)
    }
}

/// The exception for a query that has no result.
pub fn raise_scan(py: Python<'_>, error: ScanError) -> PyErr {
    match error {
        ScanError::Eval { expression, source } => {
            let context = if expression.is_empty() {
                "scan".into()
            } else {
                format!("scan: {expression}")
            };
            raise_eval(py, &context, None, &source)
        }
        ScanError::Memory { limit, got } => {
            let message = format!(
                "scan: expected groups and sorted rows of at most {limit} bytes in memory, got {got}: add a filter or a limit, or group by fewer values"
            );
            Raise::new(py, "QueryTooLarge", message)
                .with("limit", limit)
                .with("got", got)
                .err()
        }
        error @ (ScanError::Long(_) | ScanError::Page(_)) => {
            Raise::new(py, "Corrupt", error.to_string()).err()
        }
    }
}
