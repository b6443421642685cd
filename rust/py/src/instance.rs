//! One instance of a cluster, as an endpoint sees it: views and transactions that run there.

use std::sync::Arc;
use std::time::Duration;

use aurora_engine::Role;
use aurora_runtime::{Choose, Connection};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::cluster::{lsn_of, within_window};
use crate::db::{Db, interruptible};
use crate::definition::readable_on;
use crate::errors::invalid_option;
use crate::index::{IndexGet, PyIndex, table_of};
use crate::ops::{Get, GetMany};
use crate::table::PyTable;
use crate::transaction::Transaction;
use crate::txn::Core;
use crate::view::View;
use crate::waiting::{LockTimeout, Options};

/// An instance: the writer or a replica.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Instance {
    db: Arc<Db>,
    instance: Arc<aurora_runtime::Instance>,
}

impl Instance {
    pub fn new(db: Arc<Db>, instance: Arc<aurora_runtime::Instance>) -> Instance {
        Instance { db, instance }
    }

    fn connect(&self) -> Option<Connection> {
        Some(Connection::open(&self.instance))
    }

    fn once(&self, py: Python<'_>) -> PyResult<Core> {
        let (core, _) = Core::view(py, self.db.clone(), self.connect(), None)?;
        Ok(core)
    }
}

#[pymethods]
impl Instance {
    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        self.instance.name()
    }

    /// ``writer``, ``replica``, ``fenced`` or ``crashed``.
    #[getter]
    fn role(&self) -> &'static str {
        match self.instance.role() {
            Role::Writer => "writer",
            Role::Replica { .. } => "replica",
            Role::Fenced { .. } => "fenced",
            Role::Crashed => "crashed",
        }
    }

    /// Its promotion tier: 0 is first.
    #[getter]
    fn tier(&self) -> u8 {
        self.instance.tier()
    }

    /// Its class.
    #[getter]
    fn instance_class(&self) -> &str {
        self.instance.class()
    }

    /// What its readers see: everything up to this LSN.
    #[getter]
    fn lsn(&self) -> u64 {
        self.instance.readable().0
    }

    /// Views and transactions that are open here.
    #[getter]
    fn connections(&self) -> usize {
        self.instance.connections()
    }

    fn __repr__(&self) -> String {
        let (name, role) = (self.instance.name(), self.role());
        format!("<Instance {name} ({role})>")
    }

    /// A consistent view here.
    #[pyo3(signature = (*, at=None, after=None, timeout_s=None))]
    fn view(
        &self,
        py: Python<'_>,
        at: Option<&Bound<'_, PyAny>>,
        after: Option<&Bound<'_, PyAny>>,
        timeout_s: Option<f64>,
    ) -> PyResult<View> {
        let lsn = match (at, after) {
            (Some(_), Some(_)) => return Err(invalid_option(py, "view", "at or after", "both")),
            (Some(at), None) => Some(within_window(py, &self.db, lsn_of(&self.db, at, true)?)?),
            (None, Some(after)) => {
                let after = within_window(py, &self.db, lsn_of(&self.db, after, false)?)?;
                let limit = timeout_s.map(Duration::try_from_secs_f64).transpose();
                let limit = limit.map_err(|_| {
                    let got = format!("{timeout_s:?}");
                    invalid_option(py, "timeout", "a time that is not negative", &got)
                })?;
                if self.instance.readable() < after {
                    let cluster = self.db.cluster(py)?;
                    interruptible(py, |interrupt| {
                        cluster.wait_shown(&self.instance, after, limit, interrupt)
                    })?;
                }
                None
            }
            (None, None) => None,
        };
        View::new(py, self.db.clone(), self.connect(), lsn)
    }

    /// A transaction here; one that writes is refused by all but the writer.
    #[pyo3(signature = (*, isolation="snapshot", read_only=true, token=None, lock_timeout=LockTimeout::default()))]
    fn transaction(
        &self,
        py: Python<'_>,
        isolation: &str,
        read_only: bool,
        token: Option<String>,
        lock_timeout: LockTimeout,
    ) -> PyResult<Transaction> {
        let options = Options::new(py, isolation, read_only, lock_timeout)?;
        let core = Core::new(self.db.clone(), token, options, self.connect());
        Ok(Transaction::new(core))
    }

    /// The row of a key as this instance shows it now, or None.
    #[pyo3(signature = (table, key, *, columns=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        columns: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.db.cluster(py)?;
        if let Ok(index) = table.cast::<PyIndex>() {
            let handle = readable_on(&self.db, &self.instance, &index.get().handle(py))?;
            let get = IndexGet::new(&handle, index.get(), key, columns)?;
            return self.once(py)?.run(py, get);
        }
        let table = &readable_on(&self.db, &self.instance, table_of(table)?)?;
        let get = Get::new(table, key, columns)?;
        match get.quick(py, &self.instance)? {
            Some(row) => Ok(row),
            None => self.once(py)?.run(py, get),
        }
    }

    /// The rows of many keys as this instance shows them now.
    #[pyo3(signature = (table, keys, *, columns=None))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyTable>,
        keys: &Bound<'py, PyAny>,
        columns: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        self.db.cluster(py)?;
        let get = GetMany::new(
            &readable_on(&self.db, &self.instance, table)?,
            keys,
            columns,
        )?;
        Ok(self.once(py)?.run(py, get)?.cast_into()?)
    }

    /// Ends the instance as a crash would: it answers no more, and is found by its silence.
    fn _crash(&self) {
        self.instance.crash();
    }

    /// Has a replica apply nothing until told otherwise.
    fn _pause(&self, paused: bool) {
        self.instance.pause(paused);
    }
}

/// A Python function as the policy that chooses among candidates. Whatever it raises, the built-in rule decides.
pub fn policy(choose: Py<PyAny>) -> Choose {
    Arc::new(move |candidates| {
        Python::attach(|py| {
            let list = PyList::empty(py);
            for candidate in candidates {
                let out = PyDict::new(py);
                out.set_item("name", &candidate.name).ok()?;
                out.set_item("tier", candidate.tier).ok()?;
                let class = aurora_runtime::CLASSES.get(usize::from(candidate.class));
                out.set_item("instance_class", class).ok()?;
                out.set_item("lsn", candidate.applied.0).ok()?;
                list.append(out).ok()?;
            }
            let answer = choose.call1(py, (list,));
            match answer {
                Ok(name) => name.extract::<String>(py).ok(),
                Err(error) => {
                    error.write_unraisable(py, Some(choose.bind(py)));
                    None
                }
            }
        })
    })
}
