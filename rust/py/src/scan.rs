//! A scan of a table: its rows in the order of the key, or what a query makes of them; to iterate over, or as Arrow.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_schema::{ArrowError, Field, SchemaRef};
use aurora_engine::{RangeSpec, Txn};
use aurora_scan::expr::Expr as Tree;
use aurora_scan::{Aggregate, AggregateFunction, BatchBuilder};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyList, PyString, PyTuple};
use pyo3_arrow::ffi::ArrayIterator;

use crate::blocks::BlockSource;
use crate::errors::{Raise, describe, invalid_option};
use crate::expr::{Agg, Expr, raise_expr};
use crate::group_by::GroupBy;
use crate::index::Order;
use crate::query::{Choice, Groups, PqMode, Prepared, Query, choose, collect_here, collect_pushed};
use crate::range::{RangeArgs, RowIterator};
use crate::scan_batches::BatchReader;
use crate::schema::PySchema;
use crate::table::PyTable;
use crate::to_py::to_py;
use crate::txn::Core;

/// Rows of a record batch: enough for the consumer's loops to run hot, little enough to stay in its cache.
const BATCH_ROWS: usize = 64 << 10;

/// The rows of a table, or of a range of its keys, as they were when the scan was made, and what is asked of them. Nothing is
/// read before it is wanted.
#[pyclass(module = "aurora_engine._engine", frozen, generic)]
pub struct Scan {
    core: Arc<Core>,
    table: Py<PyTable>,
    order: Order,
    spec: RangeSpec,
    query: Query,
}

impl Scan {
    /// A scan of a table or an index.
    pub fn new(core: Arc<Core>, of: &Bound<'_, PyAny>, args: RangeArgs<'_, '_>) -> PyResult<Scan> {
        let (table, order, spec) = args.resolve(&core, of)?;
        Ok(Scan {
            core,
            table: table.unbind(),
            order,
            spec,
            query: Query::default(),
        })
    }

    /// The same, run where the caller says.
    pub fn with_mode(mut self, mode: Option<PqMode>) -> Scan {
        self.query.mode = mode;
        self
    }

    fn with(&self, py: Python<'_>, query: Query) -> Scan {
        Scan {
            core: self.core.clone(),
            table: self.table.clone_ref(py),
            order: self.order.clone(),
            spec: self.spec.clone(),
            query,
        }
    }

    fn schema(&self) -> &aurora_page::Schema {
        &self.table.get().table.schema
    }

    /// A row per group.
    pub fn grouped(
        &self,
        py: Python<'_>,
        keys: Vec<(String, Tree)>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Scan> {
        let mut aggregates = Vec::new();
        for (name, object) in named.iter().flat_map(|named| named.iter()) {
            let name: String = name.extract()?;
            let Ok(aggregate) = object.cast::<Agg>() else {
                let expected = "an aggregate, such as col(\"x\").sum() or count()";
                return Err(invalid_option(py, &name, expected, &describe(&object)));
            };
            let Aggregate { function, of } = &aggregate.get().0;
            let of = of
                .as_ref()
                .map(|of| self.query.resolve(py, self.schema(), of));
            aggregates.push((
                name,
                Aggregate {
                    function: *function,
                    of: of.transpose()?,
                },
            ));
        }
        if aggregates.is_empty() && keys.is_empty() {
            return Err(invalid_option(py, "agg", "at least one aggregate", "none"));
        }
        let mut query = self.query.clone();
        query.groups = Some(Groups { keys, aggregates });
        let scan = self.with(py, query);
        scan.query.prepare(py, scan.schema())?;
        Ok(scan)
    }

    /// Refuses a step that must come before another.
    fn before(&self, py: Python<'_>, step: &str) -> PyResult<()> {
        let later = if self.query.groups.is_some() {
            "agg"
        } else if !self.query.sort.is_empty() {
            "sort"
        } else if self.query.limit.is_some() {
            "limit"
        } else {
            return Ok(());
        };
        Err(invalid_option(
            py,
            step,
            &format!("{step} before {later}"),
            &format!("{later} before {step}"),
        ))
    }

    fn choice(&self, py: Python<'_>) -> PyResult<Choice> {
        let table = &self.table.get().table;
        let (at, changed) = self.core.step(py, |_, _, txn: &mut Txn| {
            Ok((txn.snapshot(), txn.changes() > 0))
        })?;
        let cluster = self.core.db.cluster(py)?;
        let extents =
            crate::db::interruptible(py, |interrupt| cluster.extents(table, at, interrupt))?;
        let (mode, class) = self.core.db.parallel_query();
        let mode = self.query.mode.unwrap_or(mode);
        let whole = self.spec == RangeSpec::default() && matches!(self.order, Order::Key);
        choose(
            py,
            (mode, class.as_deref()),
            (&self.query, whole),
            changed,
            extents,
        )
    }

    fn run(&self, py: Python<'_>) -> PyResult<(Prepared, crate::query::Done)> {
        let prepared = self.query.prepare(py, self.schema())?;
        let choice = self.choice(py)?;
        self.core.db.count_choice(&choice);
        let done = self.collect(py, &self.spec, &prepared, choice.pushed)?;
        Ok((prepared, done))
    }

    fn named_exprs(
        &self,
        py: Python<'_>,
        step: &str,
        columns: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<(String, Tree)>> {
        let mut out = Vec::new();
        for object in columns.iter() {
            let tree = match (object.cast::<PyString>(), object.cast::<Expr>()) {
                (Ok(name), _) => Tree::column(name.to_str()?),
                (_, Ok(expr)) => Tree::clone(&expr.get().tree),
                _ => {
                    let expected = "the name of a column, or an expression";
                    return Err(invalid_option(py, step, expected, &describe(&object)));
                }
            };
            let Tree::Column(name) = &tree else {
                let expected = "a name for what is computed: name=expression";
                return Err(invalid_option(py, step, expected, &tree.to_string()));
            };
            let name = match name {
                aurora_scan::expr::ColumnName::Name(name) => name.clone(),
                other => other.to_string(),
            };
            out.push((name, self.query.resolve(py, self.schema(), &tree)?));
        }
        for (name, object) in named.iter().flat_map(|named| named.iter()) {
            let tree = match object.cast::<Expr>() {
                Ok(expr) => Tree::clone(&expr.get().tree),
                Err(_) => Tree::Literal(crate::expr::literal(&object)?),
            };
            out.push((
                name.extract()?,
                self.query.resolve(py, self.schema(), &tree)?,
            ));
        }
        for (name, tree) in &out {
            tree.bind(self.schema()).map_err(|error| {
                raise_expr(py, &format!("{step}: {name} = {tree}"), None, error)
            })?;
        }
        Ok(out)
    }
}

#[pymethods]
impl Scan {
    fn __iter__(&self, py: Python<'_>) -> PyResult<RowIterator> {
        if !self.query.is_plain() {
            let expected = "a scan without filter, select or groups to iterate over (use to_dicts)";
            return Err(invalid_option(py, "scan", expected, "a query"));
        }
        let mut spec = self.spec.clone();
        spec.limit = self.query.limit;
        let rows = RowIterator::of(
            self.core.clone(),
            self.table.clone_ref(py),
            None,
            None,
            spec,
        );
        Ok(rows.in_order(self.order.clone()))
    }

    /// Rows for which a condition is true; after `agg`, groups.
    #[pyo3(signature = (*conditions))]
    fn filter(&self, py: Python<'_>, conditions: Vec<Bound<'_, PyAny>>) -> PyResult<Scan> {
        let mut query = self.query.clone();
        if query.limit.is_some() {
            let (expected, got) = ("filter before limit", "limit before filter");
            return Err(invalid_option(py, "filter", expected, got));
        }
        for condition in &conditions {
            let Ok(expr) = condition.cast::<Expr>() else {
                let expected = "a condition, such as col(\"x\") > 5";
                return Err(invalid_option(py, "filter", expected, &describe(condition)));
            };
            let tree = &expr.get().tree;
            if query.groups.is_some() {
                query.having.push(Tree::clone(tree));
            } else {
                let resolved = query.resolve(py, self.schema(), tree)?;
                let bound = resolved.bind(self.schema());
                bound
                    .and_then(|bound| bound.expect_condition())
                    .map_err(|error| raise_expr(py, &format!("filter: {tree}"), None, error))?;
                query.filter.push(resolved);
            }
        }
        let scan = self.with(py, query);
        scan.query.prepare(py, scan.schema())?;
        Ok(scan)
    }

    /// These columns, and expressions by name.
    #[pyo3(signature = (*columns, **named))]
    fn select(
        &self,
        py: Python<'_>,
        columns: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Scan> {
        self.before(py, "select")?;
        let mut query = self.query.clone();
        let columns = self.named_exprs(py, "select", columns, named)?;
        if columns.is_empty() {
            return Err(invalid_option(py, "select", "at least one column", "none"));
        }
        query.columns = Some(columns);
        let scan = self.with(py, query);
        scan.query.prepare(py, scan.schema())?;
        Ok(scan)
    }

    /// The columns that there are, and expressions by name; one of a name that there is takes its place.
    #[pyo3(signature = (**named))]
    fn with_columns(&self, py: Python<'_>, named: Option<&Bound<'_, PyDict>>) -> PyResult<Scan> {
        self.before(py, "with_columns")?;
        let mut query = self.query.clone();
        let mut columns = query.present(self.schema());
        for (name, tree) in self.named_exprs(py, "with_columns", &PyTuple::empty(py), named)? {
            match columns.iter_mut().find(|(of, _)| *of == name) {
                Some(place) => place.1 = tree,
                None => columns.push((name, tree)),
            }
        }
        query.columns = Some(columns);
        let scan = self.with(py, query);
        scan.query.prepare(py, scan.schema())?;
        Ok(scan)
    }

    /// Rows in groups of equal values; `agg` says what is wanted of each.
    #[pyo3(signature = (*columns, **named))]
    fn group_by(
        slf: &Bound<'_, Self>,
        columns: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<GroupBy> {
        let (py, scan) = (slf.py(), slf.get());
        scan.before(py, "group_by")?;
        Ok(GroupBy {
            keys: scan.named_exprs(py, "group_by", columns, named)?,
            scan: slf.clone().unbind(),
        })
    }

    /// One row of aggregates of all rows.
    #[pyo3(signature = (**aggregates))]
    fn agg(&self, py: Python<'_>, aggregates: Option<&Bound<'_, PyDict>>) -> PyResult<Scan> {
        self.before(py, "agg")?;
        self.grouped(py, Vec::new(), aggregates)
    }

    /// The result in the order of these columns.
    #[pyo3(signature = (*columns, descending=false))]
    fn sort(&self, py: Python<'_>, columns: Vec<String>, descending: bool) -> PyResult<Scan> {
        let mut query = self.query.clone();
        if query.limit.is_some() {
            return Err(invalid_option(
                py,
                "sort",
                "sort before limit",
                "limit before sort",
            ));
        }
        query.sort = columns.into_iter().map(|name| (name, descending)).collect();
        let scan = self.with(py, query);
        scan.query.prepare(py, scan.schema())?;
        Ok(scan)
    }

    /// At most so many rows.
    fn limit(&self, py: Python<'_>, rows: usize) -> Scan {
        let mut query = self.query.clone();
        query.limit = Some(query.limit.map_or(rows, |limit| limit.min(rows)));
        self.with(py, query)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = if self.query.is_plain() {
            self.schema().clone()
        } else {
            self.query
                .prepare(py, self.schema())?
                .job
                .plan()
                .output()
                .clone()
        };
        PySchema(Arc::new(schema)).to_capsule(py)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let (schema, batches): (SchemaRef, Batches) = if self.query.is_collected() {
            let (prepared, done) = self.run(py)?;
            let schema = Arc::new(aurora_scan::to_arrow_schema(prepared.job.plan().output()));
            let batches = py
                .detach(|| prepared.batches(&done.rows))
                .map_err(|error| Raise::new(py, "InternalError", error).err())?;
            (schema, Box::new(batches.into_iter().map(Ok)))
        } else {
            let reader = self.reader(py)?;
            (reader.schema.clone(), Box::new(reader))
        };
        let field = Arc::new(Field::new_struct("", schema.fields().clone(), false));
        let arrays =
            batches.map(|batch| batch.map(|batch| Arc::new(StructArray::from(batch)) as ArrayRef));
        let arrays = Box::new(ArrayIterator::new(arrays, field));
        Ok(pyo3_arrow::ffi::to_stream_pycapsule(
            py,
            arrays,
            requested_schema,
        )?)
    }

    /// How many rows there are.
    fn count(&self, py: Python<'_>) -> PyResult<u64> {
        let limit = self.query.limit.map_or(u64::MAX, |limit| limit as u64);
        if self.query.groups.is_some() {
            return Ok(self.run(py)?.1.rows.len() as u64);
        }
        let mut query = self.query.clone();
        query.columns = None;
        query.sort = Vec::new();
        query.limit = None;
        let rows = Aggregate {
            function: AggregateFunction::Len,
            of: None,
        };
        query.groups = Some(Groups {
            keys: Vec::new(),
            aggregates: vec![("rows".into(), rows)],
        });
        let (_, done) = self.with(py, query).run(py)?;
        match done.rows.first().and_then(|row| row.first()) {
            Some(aurora_page::Value::Int(rows)) => Ok((*rows as u64).min(limit)),
            _ => Ok(0),
        }
    }

    /// The result as a table of pyarrow.
    fn to_arrow<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("pyarrow")?.call_method1("table", (slf,))
    }

    /// The result as a data frame of polars.
    fn to_polars<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("polars")?.call_method1("DataFrame", (slf,))
    }

    /// The result as a data frame of pandas.
    fn to_pandas<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Scan::to_arrow(slf)?.call_method0("to_pandas")
    }

    /// The result as dictionaries.
    fn to_dicts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let out = PyList::empty(py);
        // Rows that come in the order of the key are collected like any others.
        let (prepared, done) = if self.query.is_collected() {
            self.run(py)?
        } else {
            let prepared = self.query.prepare(py, self.schema())?;
            let mut spec = self.spec.clone();
            if self.query.filter.is_empty() {
                spec.limit = self.query.limit;
            }
            let done = self.collect(py, &spec, &prepared, false)?;
            (prepared, done)
        };
        let columns = prepared.job.plan().output().columns();
        for row in &done.rows {
            let dict = PyDict::new(py);
            for (column, value) in columns.iter().zip(row) {
                dict.set_item(&column.name, to_py(py, value.as_ref(), column.data_type)?)?;
            }
            out.append(dict)?;
        }
        Ok(out)
    }

    /// What the query does and where, as a text; with `analyze` it is run, and the text says what that took.
    #[pyo3(signature = (*, analyze=false))]
    fn explain(&self, py: Python<'_>, analyze: bool) -> PyResult<String> {
        let prepared = self.query.prepare(py, self.schema())?;
        let choice = self.choice(py)?;
        let table = self.table.get();
        let at = self
            .core
            .step(py, |_, _, txn: &mut Txn| Ok(txn.snapshot()))?;
        let by = match &self.order {
            Order::Key => String::new(),
            Order::Index(name) => format!(", by index {name:?}"),
        };
        let mut out = format!("scan of table {:?}{by} at LSN {}\n", table.table.name, at.0);
        if choice.pushed {
            let _ = writeln!(
                out,
                "  Using parallel query ({} columns, {} filters, {} exprs; 0 extra): {}",
                prepared.job.plan().columns().len(),
                self.query.filter.len(),
                self.query.expressions(),
                choice.why
            );
        } else {
            let _ = writeln!(out, "  Not using parallel query: {}", choice.why);
        }
        self.query.describe(&prepared, self.schema(), &mut out);
        if analyze {
            let done = self.collect(py, &self.spec, &prepared, choice.pushed)?;
            let counters = done.counters;
            let _ = writeln!(
                out,
                "  pages: {} scanned ({} sealed, {} plain), {} skipped by zone maps",
                counters.pages,
                counters.pages_sealed,
                counters.pages - counters.pages_sealed,
                counters.pages_skipped
            );
            let _ = writeln!(
                out,
                "  rows: {} scanned, {} passed the filter, {} returned",
                counters.rows_scanned,
                counters.rows_passed,
                done.rows.len()
            );
            if let Some(report) = done.report {
                let _ = writeln!(
                    out,
                    "  {} extents on {} threads in {} us; {} pages from the scan cache, {} bytes scanned",
                    report.extents,
                    report.threads,
                    report.took_us,
                    report.pages_cached,
                    report.bytes_scanned
                );
                for node in report.nodes {
                    let _ = writeln!(
                        out,
                        "  node {}: {} pages in {} us",
                        node.node, node.pages, node.took_us
                    );
                }
            }
        }
        Ok(out)
    }

    fn __repr__(&self) -> String {
        let name = &self.table.get().table.name;
        match &self.order {
            Order::Key => format!("<Scan of table {name:?}>"),
            Order::Index(index) => format!("<Scan of table {name:?} by index {index:?}>"),
        }
    }
}

impl Scan {
    /// What gives the rows of a range, in its order.
    fn source(&self, py: Python<'_>, spec: RangeSpec) -> PyResult<BlockSource> {
        let (core, table) = (&self.core, &self.table.get().table);
        core.step(py, |_, engine, txn: &mut Txn| {
            Ok(match &self.order {
                Order::Key => {
                    BlockSource::table(engine.range(txn, table, spec.clone())?, txn.snapshot())
                }
                Order::Index(name) => {
                    let index = engine.index_at(txn, table, name)?;
                    let cursor = engine.index_range(txn, table, &index, spec.clone())?;
                    BlockSource::index(cursor, txn.snapshot())
                }
            })
        })
    }

    fn collect(
        &self,
        py: Python<'_>,
        spec: &RangeSpec,
        prepared: &Prepared,
        pushed: bool,
    ) -> PyResult<crate::query::Done> {
        let table = self.table.get();
        if pushed {
            return collect_pushed(py, &self.core, table, prepared);
        }
        let source = self.source(py, spec.clone())?;
        collect_here(py, &self.core, source, prepared)
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

impl Scan {
    fn reader(&self, py: Python<'_>) -> PyResult<BatchReader> {
        let table = &self.table.get().table;
        let internal = |error: aurora_scan::ToArrowError| {
            Raise::new(py, "InternalError", error.to_string()).err()
        };
        let plain = self.query.is_plain();
        let prepared = if plain {
            None
        } else {
            Some(self.query.prepare(py, self.schema())?)
        };
        let schema = prepared
            .as_ref()
            .map_or(&table.schema, |prepared| prepared.job.plan().output());
        let builder = BatchBuilder::new(schema, None, BATCH_ROWS).map_err(internal)?;
        let mut spec = self.spec.clone();
        if self.query.filter.is_empty() {
            spec.limit = self.query.limit;
        }
        let source = self.source(py, spec)?;
        let arrow = Arc::new(aurora_scan::to_arrow_schema(schema));
        let job = prepared.map(|prepared| prepared.job);
        let limit = self.query.limit;
        Ok(BatchReader::new(
            self.core.clone(),
            source,
            (arrow, builder),
            job,
            limit,
        ))
    }
}
