//! An open cluster: tables, transactions, reads, status.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aurora_engine::{EngineError, Mode, Stop};
use aurora_page::Lsn;
use aurora_runtime::{Error, NodePlacement, OpenOptions, ReplicaSpec, RestorePlan};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyType};

use crate::backup;
use crate::commit::PyCommit;
use crate::db::{Db, Engine, interruptible};
use crate::errors::{Raise, describe, invalid_option};
use crate::failure::raise;
use crate::from_py::datetime_us;
use crate::in_flight::InFlight;
use crate::index::{Extras, IndexGet, PyIndex, table_of};
use crate::instance::Instance;
use crate::ops::{Get, GetMany, Operation};
use crate::pytypes::types;
use crate::query::PqMode;
use crate::range::RangeArgs;
use crate::scan::Scan;
use crate::schema::PySchema;
use crate::table::PyTable;
use crate::transaction::Transaction;
use crate::txn::{Core, WRITE_QUORUM};
use crate::view::View;
use crate::waiting::{LockTimeout, Options};

/// An open cluster. `aurora_engine.Cluster` adds the policies.
#[pyclass(module = "aurora_engine._engine", subclass, frozen, dict)]
pub struct Cluster {
    pub db: Arc<Db>,
    pub in_flight: Arc<InFlight>,
    path: Option<String>,
    restored: Option<RestorePlan>,
}

#[pymethods]
impl Cluster {
    #[new]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a keyword argument of Python's"
    )]
    #[pyo3(signature = (
        path, *, create=true, read_only=false, takeover=false, region=None, cache_bytes=None, page_bytes=None,
        segment_bytes=None, window_s=None, nodes=None, background_bytes_per_s=None, replicas=0, detection_s=None,
        conflict_bytes=None, clone_of=None, clone_at=None, backup=None, restore_from=None, restore_at=None
    ))]
    fn new(
        py: Python<'_>,
        path: Option<String>,
        create: bool,
        read_only: bool,
        takeover: bool,
        region: Option<String>,
        cache_bytes: Option<u64>,
        page_bytes: Option<usize>,
        segment_bytes: Option<u64>,
        window_s: Option<f64>,
        nodes: Option<Vec<(String, PathBuf)>>,
        background_bytes_per_s: Option<u64>,
        replicas: usize,
        detection_s: Option<f64>,
        conflict_bytes: Option<u64>,
        clone_of: Option<&Bound<'_, Cluster>>,
        clone_at: Option<&Bound<'_, PyAny>>,
        backup: Option<backup::Place>,
        restore_from: Option<(String, Option<Vec<u8>>)>,
        restore_at: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Cluster> {
        crate::fork::watch();
        let mut options = match &path {
            Some(path) => OpenOptions::at(path),
            None => OpenOptions::memory(),
        };
        options.create = create;
        options.read_only = read_only;
        options.takeover = takeover;
        options.region = region;
        options.page_bytes = page_bytes;
        options.segment_bytes = segment_bytes;
        options.window = window_s.map(|seconds| duration(py, seconds)).transpose()?;
        options.replicas = replicas;
        if let Some(seconds) = detection_s {
            options.detection = Duration::try_from_secs_f64(seconds).map_err(|_| {
                let got = format!("{seconds} s");
                invalid_option(py, "detection", "a time that is not negative", &got)
            })?;
        }
        options.nodes = nodes.map(|nodes| {
            nodes
                .into_iter()
                .map(|(az, path)| NodePlacement { az, path })
                .collect()
        });
        options.cache_bytes = cache_bytes.unwrap_or(options.cache_bytes);
        options.conflict_bytes = conflict_bytes.unwrap_or(options.conflict_bytes);
        options.background_bytes_per_s =
            background_bytes_per_s.unwrap_or(options.background_bytes_per_s);
        options.backup = backup.map(|place| backup::options(py, place)).transpose()?;
        let mut restored = None;
        let opened = match (clone_of, restore_from) {
            (None, None) => py.detach(|| aurora_runtime::Cluster::open(options)),
            (None, Some((url, key))) => {
                let (from, to) = (backup::source(py, url, key)?, backup::moment(restore_at)?);
                let opened = py.detach(|| aurora_runtime::Cluster::restore(options, &from, &to));
                opened.map(|(cluster, plan)| {
                    restored = Some(plan);
                    cluster
                })
            }
            (Some(parent), _) => {
                let at = clone_at
                    .map(|at| crate::history::target("at", at))
                    .transpose()?;
                let parent = parent.get().db.cluster(py)?;
                py.detach(|| parent.clone_to(options, at.as_ref()))
            }
        };
        let cluster = opened.map_err(|error| raise(py, error))?;
        let db = Db::new(cluster);
        Ok(Cluster {
            in_flight: Arc::new(InFlight::new(db.clone())),
            db,
            path,
            restored,
        })
    }

    /// Ends the cluster: waits for what is in flight, writes what opening again is quicker with, frees the directory.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.db.is_foreign() || !self.db.begin_close() {
            return Ok(());
        }
        let cluster = self.db.cluster_any(py)?;
        let fd = cluster.completions().fd();
        let closed = py.detach(|| cluster.close());
        self.in_flight.close(py, fd);
        closed.map_err(|error| raise(py, error))
    }

    /// Whether the cluster was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.db.is_closed()
    }

    /// The cluster's directory; None in memory.
    #[getter]
    fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The volume durable LSN: what read-only work sees.
    #[getter]
    fn vdl(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.db.cluster(py)?.vdl().0)
    }

    fn _create_table(
        &self,
        py: Python<'_>,
        name: &str,
        schema: &Bound<'_, PySchema>,
        row: &Bound<'_, PyType>,
        exist_ok: bool,
        extras: Extras,
    ) -> PyResult<PyTable> {
        let schema = &schema.get().0;
        let spec = extras.spec(py, name, schema)?;
        let now_us = self.writable(py)?.now_us();
        let (table, commit) = self.db.call(py, |engine| {
            engine.create_table_with(name, &spec, exist_ok, now_us)
        })?;
        self.wait_for(py, commit)?;
        PyTable::new(self.db.clone(), table, row)
    }

    fn _table_schema(&self, py: Python<'_>, name: &str) -> PyResult<PySchema> {
        Ok(PySchema(Arc::new(
            self.find_table(py, name)?.schema.clone(),
        )))
    }

    fn _open_table(
        &self,
        py: Python<'_>,
        name: &str,
        row: &Bound<'_, PyType>,
    ) -> PyResult<PyTable> {
        PyTable::new(self.db.clone(), self.find_table(py, name)?, row)
    }

    /// Removes a table and gives its space free.
    fn drop_table(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let now_us = self.writable(py)?.now_us();
        match self.db.call(py, |engine| engine.drop_table(name, now_us))? {
            None => Err(unknown_table(py, name)),
            commit => self.wait_for(py, commit),
        }
    }

    /// The names of the tables.
    fn tables(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let tables = self
            .db
            .call(py, |engine| engine.tables(engine.readable()))?;
        Ok(tables.iter().map(|table| table.name.clone()).collect())
    }

    /// A transaction: `with db.transaction() as tx`.
    #[pyo3(signature = (*, isolation="snapshot", read_only=false, token=None, lock_timeout=LockTimeout::default()))]
    fn transaction(
        &self,
        py: Python<'_>,
        isolation: &str,
        read_only: bool,
        token: Option<String>,
        lock_timeout: LockTimeout,
    ) -> PyResult<Transaction> {
        let options = Options::new(py, isolation, read_only, lock_timeout)?;
        Ok(Transaction::new(Core::new(
            self.db.clone(),
            token,
            options,
            None,
        )))
    }

    /// The row of a key as it is durable now, or None.
    #[pyo3(signature = (table, key, *, columns=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        columns: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(index) = table.cast::<PyIndex>() {
            let handle = crate::definition::readable(&self.db, &index.get().handle(py))?;
            return self.read(py, IndexGet::new(&handle, index.get(), key, columns)?);
        }
        let handle = crate::definition::readable(&self.db, table_of(table)?)?;
        let get = Get::new(&handle, key, columns)?;
        match get.quick(py, &self.db.cluster(py)?.engine())? {
            Some(row) => Ok(row),
            None => self.read(py, get),
        }
    }

    /// The rows of many keys as they are durable now.
    #[pyo3(signature = (table, keys, *, columns=None))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        keys: &Bound<'py, PyAny>,
        columns: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let table = crate::definition::readable(&self.db, table)?;
        Ok(self
            .read(py, GetMany::new(&table, keys, columns)?)?
            .cast_into()?)
    }

    /// A consistent view as of an LSN, a time or a commit, or at the newest durable LSN.
    #[pyo3(signature = (*, at=None, after=None))]
    fn view(
        &self,
        py: Python<'_>,
        at: Option<&Bound<'_, PyAny>>,
        after: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<View> {
        let lsn = match (at, after) {
            (Some(_), Some(_)) => return Err(invalid_option(py, "view", "at or after", "both")),
            (Some(at), None) => Some(self.within_window(py, self.lsn_of(at, true)?)?),
            (None, Some(after)) => {
                let after = self.lsn_of(after, false)?;
                self.db.wait(py, self.within_window(py, after)?)?;
                None
            }
            (None, None) => None,
        };
        View::new(py, self.db.clone(), None, lsn)
    }

    /// The rows of a table or of a range of its keys, as rows or as an Arrow stream.
    #[pyo3(signature = (table, lo=None, hi=None, *, prefix=None, at=None, parallel_query=None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the keywords that Python sees"
    )]
    fn scan<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        lo: Option<&Bound<'py, PyAny>>,
        hi: Option<&Bound<'py, PyAny>>,
        prefix: Option<&Bound<'py, PyAny>>,
        at: Option<&Bound<'py, PyAny>>,
        parallel_query: Option<&str>,
    ) -> PyResult<Scan> {
        let mode = parallel_query
            .map(|mode| PqMode::parse(py, mode))
            .transpose()?;
        let at = match at {
            Some(at) => Some(self.within_window(py, self.lsn_of(at, true)?)?),
            None => None,
        };
        let (core, _) = Core::view(py, self.db.clone(), None, at)?;
        Scan::new(
            py,
            Arc::new(core),
            table,
            RangeArgs {
                lo,
                hi,
                prefix,
                limit: None,
                reverse: false,
                columns: None,
                condition: None,
            },
        )
        .map(|scan| scan.with_mode(mode))
    }

    /// The commit that was made with a token, if one was in the last 24 hours.
    fn committed(&self, py: Python<'_>, token: &str) -> PyResult<Option<PyCommit>> {
        let cluster = self.db.cluster(py)?;
        let found = loop {
            let status = |engine: &Engine| match engine.token_status(token) {
                // It is asked of the present history, whichever that is by now.
                Err(Stop::Failed(EngineError::Branched { .. })) => Ok(None),
                found => Ok(Some(found?)),
            };
            let Some(found) = self.db.run(py, status)? else {
                continue;
            };
            let Some(found) = found else { return Ok(None) };
            let durable = interruptible(py, |interrupt| {
                match cluster.wait_durable(found.lsn, interrupt) {
                    // It was there, and the writer crashed before storage had it.
                    Err(Error::WriterCrashed) => Ok(false),
                    waited => waited.map(|()| true),
                }
            })?;
            if durable {
                break found;
            }
        };
        // The engine knows an LSN by which the commit is in. Its time is its own, so the time leads to its own LSN, as long as
        // that lies in the window.
        let lsn = py
            .detach(|| cluster.lsn_at(found.time_us))
            .unwrap_or(found.lsn);
        let token = Some(token.to_owned());
        Ok(Some(PyCommit {
            lsn: lsn.0,
            time_us: found.time_us,
            copies: WRITE_QUORUM,
            token,
        }))
    }

    #[expect(clippy::too_many_arguments, reason = "each is an argument of Python's")]
    #[pyo3(signature = (table, parts, report, sort, on_conflict, memory_bytes))]
    fn _load(
        &self,
        py: Python<'_>,
        table: &Bound<'_, PyTable>,
        parts: &Bound<'_, PyAny>,
        report: &Bound<'_, PyAny>,
        sort: Option<bool>,
        on_conflict: &str,
        memory_bytes: usize,
    ) -> PyResult<(u64, u64, u64)> {
        let table = crate::definition::newest(&self.db, table)?;
        let options = crate::load::options(py, sort, on_conflict, memory_bytes)?;
        crate::load::load(py, &self.db, table.get(), parts, report, options)
    }

    #[pyo3(signature = (to, use_earliest))]
    fn _backtrack<'py>(
        &self,
        to: &Bound<'py, PyAny>,
        use_earliest: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        crate::history::backtrack(&self.db, to, use_earliest)
    }

    fn _find<'py>(&self, to: &Bound<'py, PyAny>) -> PyResult<(u64, Bound<'py, PyAny>)> {
        crate::history::find(&self.db, to)
    }

    fn _snapshot<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyDict>> {
        crate::history::snapshot(py, &self.db, name)
    }

    fn _snapshots<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        crate::history::snapshots(py, &self.db)
    }

    /// Keeps the moment of a snapshot no longer.
    fn delete_snapshot(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let cluster = self.db.cluster(py)?;
        py.detach(|| cluster.delete_snapshot(name))
            .map_err(|error| raise(py, error))
    }

    fn _backup_status<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let status = self.db.cluster_any(py)?.backup_status();
        status.map(|status| backup::status(py, &status)).transpose()
    }

    #[pyo3(signature = (lsn, seconds))]
    fn _backup_wait(&self, py: Python<'_>, lsn: Option<u64>, seconds: f64) -> PyResult<u64> {
        backup::wait(py, &self.db, lsn, seconds)
    }

    fn _backup_base(&self, py: Python<'_>, seconds: f64) -> PyResult<u64> {
        backup::base(py, &self.db, seconds)
    }

    fn _record_tables(
        &self,
        py: Python<'_>,
        snapshot: &str,
        tables: Vec<(String, u64, String)>,
    ) -> PyResult<()> {
        backup::record_tables(py, &self.db, snapshot, tables)
    }

    /// What the cluster was restored from, if it was.
    fn _restored<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let plan = self.restored.as_ref();
        plan.map(|plan| backup::plan(py, plan)).transpose()
    }

    fn _window<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        crate::history::window(py, &self.db)
    }

    fn _set_window(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        crate::history::set_window(py, &self.db, seconds)
    }

    /// Where queries run unless they say otherwise, and on which class of instance.
    #[pyo3(signature = (mode, instance_class))]
    fn _set_parallel_query(
        &self,
        py: Python<'_>,
        mode: &str,
        instance_class: Option<String>,
    ) -> PyResult<()> {
        self.db
            .set_parallel_query(PqMode::parse(py, mode)?, instance_class);
        Ok(())
    }

    fn _parallel_query(&self) -> (&'static str, Option<String>) {
        let (mode, class) = self.db.parallel_query();
        (mode.name(), class)
    }

    /// Counters of parallel query, by the names that Aurora gives them.
    fn _pq_counters(&self, py: Python<'_>) -> PyResult<BTreeMap<String, u64>> {
        let status = self.db.cluster(py)?.pq_status();
        let not_chosen = self.db.not_chosen();
        let mut counters = BTreeMap::from([
            ("request_attempted".to_owned(), status.attempted),
            ("request_executed".to_owned(), status.executed),
            ("request_failed".to_owned(), status.failed),
            ("request_in_progress".to_owned(), status.in_progress),
            ("pages_pushed_down".to_owned(), status.pages_pushed_down),
            ("scan_cache_bytes".to_owned(), status.cache_bytes),
            ("request_not_chosen".to_owned(), not_chosen.values().sum()),
        ]);
        for (reason, count) in not_chosen {
            counters.insert(format!("request_not_chosen_{reason}"), count);
        }
        Ok(counters)
    }

    fn _add_replica(
        &self,
        py: Python<'_>,
        name: Option<String>,
        tier: Option<u8>,
        instance_class: Option<String>,
        region: Option<String>,
    ) -> PyResult<Instance> {
        let spec = ReplicaSpec {
            name,
            tier,
            class: instance_class,
            region,
        };
        let cluster = self.db.cluster(py)?;
        let added = py.detach(|| cluster.add_replica(spec));
        Ok(self.handle(added.map_err(|error| raise(py, error))?))
    }

    /// Removes a replica; what is open there can still be read.
    fn remove_replica(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let cluster = self.db.cluster(py)?;
        py.detach(|| cluster.remove_replica(name))
            .map_err(|error| raise(py, error))
    }

    fn _instances(&self, py: Python<'_>) -> PyResult<Vec<Instance>> {
        let all = self.db.cluster(py)?.instances();
        Ok(all.into_iter().map(|found| self.handle(found)).collect())
    }

    fn _instance(&self, py: Python<'_>, name: &str) -> PyResult<Instance> {
        let found = self.db.cluster(py)?.instance(name);
        Ok(self.handle(found.map_err(|error| raise(py, error))?))
    }

    #[pyo3(signature = (names=None))]
    fn _reader(&self, py: Python<'_>, names: Option<Vec<String>>) -> PyResult<Instance> {
        let cluster = self.db.cluster(py)?;
        let chosen = match names {
            Some(names) => cluster
                .reader_among(&names)
                .map_err(|error| raise(py, error))?,
            None => cluster.reader(),
        };
        Ok(self.handle(chosen))
    }

    fn _failover(
        &self,
        py: Python<'_>,
        to: Option<String>,
        forced: bool,
    ) -> PyResult<(String, String, f64)> {
        let cluster = self.db.cluster(py)?;
        let done = interruptible(py, |interrupt| {
            cluster.failover(to.as_deref(), forced, interrupt)
        })?;
        Ok((done.from, done.to, done.gap.as_secs_f64()))
    }

    fn _set_choose(&self, py: Python<'_>, choose: Option<Py<PyAny>>) -> PyResult<()> {
        let cluster = self.db.cluster(py)?;
        cluster.set_choose(choose.map(crate::instance::policy));
        Ok(())
    }

    fn _events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events = self.db.cluster_any(py)?.events();
        crate::status::events(py, &events)
    }

    fn _status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let cluster = self.db.cluster_any(py)?;
        let status = py.detach(|| cluster.status());
        let out = crate::status::status_dict(py, &status)?;
        out.set_item("backup", self._backup_status(py)?)?;
        Ok(out)
    }
}

impl Cluster {
    fn handle(&self, instance: Arc<aurora_runtime::Instance>) -> Instance {
        Instance::new(self.db.clone(), instance)
    }

    fn find_table(&self, py: Python<'_>, name: &str) -> PyResult<Arc<aurora_engine::Table>> {
        let found = self
            .db
            .call(py, |engine| engine.table(name, engine.readable()))?;
        found.ok_or_else(|| unknown_table(py, name))
    }

    pub fn writable(&self, py: Python<'_>) -> PyResult<&aurora_runtime::Cluster> {
        let cluster = self.db.cluster(py)?;
        cluster.check_writable().map_err(|error| raise(py, error))?;
        Ok(cluster)
    }

    fn wait_for(&self, py: Python<'_>, commit: Option<aurora_engine::Commit>) -> PyResult<()> {
        commit.map_or(Ok(()), |commit| self.db.wait(py, commit.lsn))
    }

    fn read<'py>(&self, py: Python<'py>, mut op: impl Operation) -> PyResult<Bound<'py, PyAny>> {
        let mut txn = self
            .db
            .call(py, |engine| engine.begin(Mode::ReadOnly { at: None }))?;
        self.db.run(py, |engine| op.attempt(py, engine, &mut txn))
    }

    /// Refuses an LSN that is no longer kept, or was not given out yet.
    fn within_window(&self, py: Python<'_>, lsn: Lsn) -> PyResult<Lsn> {
        within_window(py, &self.db, lsn)
    }

    /// The LSN that a commit, an LSN or a time stands for.
    fn lsn_of(&self, object: &Bound<'_, PyAny>, times: bool) -> PyResult<Lsn> {
        lsn_of(&self.db, object, times)
    }
}

/// Refuses an LSN that is no longer kept, or was not given out yet.
pub fn within_window(py: Python<'_>, db: &Db, lsn: Lsn) -> PyResult<Lsn> {
    let cluster = db.cluster(py)?;
    let (floor, newest) = (cluster.floor(), cluster.engine().published());
    if (floor..=newest).contains(&lsn) {
        return Ok(lsn);
    }
    let (expected, got) = (format!("{floor} to {newest}"), lsn.to_string());
    Err(raise(
        py,
        Error::OutsideWindow {
            what: "LSN",
            expected,
            got,
        },
    ))
}

/// The LSN that a commit, an LSN or a time stands for.
pub fn lsn_of(db: &Db, object: &Bound<'_, PyAny>, times: bool) -> PyResult<Lsn> {
    let py = object.py();
    if let Ok(commit) = object.cast::<PyCommit>() {
        return Ok(commit.get().lsn());
    }
    if let Ok(lsn) = object.extract::<u64>() {
        return Ok(Lsn(lsn));
    }
    let types = types(py)?;
    if times && object.is_instance(types.datetime.bind(py))? {
        let aware = !object.call_method0("utcoffset")?.is_none();
        if !aware {
            return Err(invalid_option(
                py,
                "at",
                "an aware datetime (with tzinfo)",
                &describe(object),
            ));
        }
        let time_us = datetime_us(object, types, true)?;
        let cluster = db.cluster(py)?;
        return py
            .detach(|| cluster.lsn_at(time_us))
            .map_err(|error| raise(py, error));
    }
    let expected = if times {
        "a Commit, an LSN or an aware datetime"
    } else {
        "a Commit or an LSN"
    };
    Err(invalid_option(
        py,
        if times { "at" } else { "after" },
        expected,
        &describe(object),
    ))
}

/// There is no table of this name.
pub fn unknown_table(py: Python<'_>, name: &str) -> PyErr {
    let message = format!("table {name:?}: expected one of this name, got none");
    Raise::new(py, "UnknownTable", message)
        .with("table", name)
        .err()
}

fn duration(py: Python<'_>, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        invalid_option(
            py,
            "window",
            "a time that is not negative",
            &format!("{seconds} s"),
        )
    })
}
