//! The open cluster as the binding's classes share it: tries a step, and does what it stops for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aurora_engine::{Attempt, LockWait, Stop};
use aurora_page::Lsn;
use aurora_runtime::{Cluster, EmbeddedVolume, Error, Instance};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::errors::Raise;
use crate::failure::raise;
use crate::fork::ForkSafe;
use crate::query::{Choice, PqMode};

/// The engine of an embedded cluster.
pub type Engine = aurora_engine::Engine<EmbeddedVolume>;

/// Why a step with the interpreter attached did not come to its end.
pub enum Halt {
    /// The engine asks for something, or failed.
    Stop(Stop),
    /// A conversion failed.
    Python(PyErr),
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Halt {
        Halt::Stop(stop)
    }
}

impl From<PyErr> for Halt {
    fn from(error: PyErr) -> Halt {
        Halt::Python(error)
    }
}

/// What a step answers.
pub type Tried<T> = Result<T, Halt>;

/// An open cluster.
pub struct Db {
    cluster: ForkSafe<Cluster>,
    opened_by: u32,
    closed: AtomicBool,
    queries: Mutex<Queries>,
}

/// Where this cluster's queries run unless they say otherwise, and what was decided so far.
#[derive(Default)]
struct Queries {
    mode: PqMode,
    class: Option<String>,
    not_chosen: BTreeMap<&'static str, u64>,
}

impl Db {
    /// Whether queries run on the storage nodes, and the instance class.
    pub fn parallel_query(&self) -> (PqMode, Option<String>) {
        let queries = self.queries.lock();
        (queries.mode, queries.class.clone())
    }

    /// Sets what [`Db::parallel_query`] says.
    pub fn set_parallel_query(&self, mode: PqMode, class: Option<String>) {
        let mut queries = self.queries.lock();
        (queries.mode, queries.class) = (mode, class);
    }

    /// Counts where a query runs.
    pub fn count_choice(&self, choice: &Choice) {
        if !choice.pushed {
            *self
                .queries
                .lock()
                .not_chosen
                .entry(choice.reason)
                .or_default() += 1;
        }
    }

    /// How often queries were not run on the storage nodes, by reason.
    pub fn not_chosen(&self) -> BTreeMap<&'static str, u64> {
        self.queries.lock().not_chosen.clone()
    }

    /// Shares a cluster that was opened in this process.
    pub fn new(cluster: Cluster) -> Arc<Db> {
        let opened_by = std::process::id();
        Arc::new(Db {
            cluster: ForkSafe::new(cluster),
            opened_by,
            closed: AtomicBool::new(false),
            queries: Mutex::default(),
        })
    }

    /// The cluster, unless this is a fork or it is closed.
    #[inline]
    pub fn cluster(&self, py: Python<'_>) -> PyResult<&Cluster> {
        if self.cluster.is_foreign() || self.closed.load(Ordering::Relaxed) {
            return Err(self.refusal(py));
        }
        Ok(&self.cluster)
    }

    /// The cluster, to be asked or closed even when it is closed already.
    pub fn cluster_any(&self, py: Python<'_>) -> PyResult<&Cluster> {
        if self.cluster.is_foreign() {
            Err(self.refusal(py))
        } else {
            Ok(&self.cluster)
        }
    }

    /// The cluster for a thread that may not be attached; `None` in a fork or when it is closed.
    pub fn cluster_unattached(&self) -> Option<&Cluster> {
        if self.cluster.is_foreign() || self.is_closed() {
            None
        } else {
            Some(&self.cluster)
        }
    }

    #[cold]
    fn refusal(&self, py: Python<'_>) -> PyErr {
        if !self.cluster.is_foreign() {
            return Raise::new(py, "ClusterClosed", "the cluster is closed").err();
        }
        let pid = std::process::id();
        let message = format!(
            "the cluster was opened by process {}, this is its fork {pid}: open it here, or start workers with \
             multiprocessing.set_start_method(\"spawn\")",
            self.opened_by
        );
        Raise::new(py, "ForkedProcess", message)
            .with("opened_by", self.opened_by)
            .with("pid", pid)
            .err()
    }

    /// Whether this is a fork of the process that opened the cluster.
    pub fn is_foreign(&self) -> bool {
        self.cluster.is_foreign()
    }

    /// Whether it was closed here.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Nothing new may begin; true for the one caller that closes.
    pub fn begin_close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Tries a step, and does what it stops for with the interpreter free, until it has come to its end.
    pub fn run<T>(&self, py: Python<'_>, mut step: impl FnMut(&Engine) -> Tried<T>) -> PyResult<T> {
        loop {
            let writer = self.cluster(py)?.engine();
            match step(&writer) {
                Ok(done) => return Ok(done),
                Err(Halt::Python(error)) => return Err(error),
                Err(Halt::Stop(stop)) => {
                    let cluster = self.cluster(py)?;
                    interruptible(py, |interrupt| cluster.settle(&writer, stop, interrupt))?;
                }
            }
        }
    }

    /// The same at one instance.
    pub fn run_on<T>(
        &self,
        py: Python<'_>,
        instance: &Instance,
        mut step: impl FnMut(&Engine) -> Tried<T>,
    ) -> PyResult<T> {
        loop {
            self.cluster(py)?;
            match step(instance) {
                Ok(done) => return Ok(done),
                Err(Halt::Python(error)) => return Err(error),
                Err(Halt::Stop(stop)) => self.settle(py, instance, stop)?,
            }
        }
    }

    /// Runs a step of the engine that makes no Python objects.
    pub fn call<T>(
        &self,
        py: Python<'_>,
        mut step: impl FnMut(&Engine) -> Attempt<T>,
    ) -> PyResult<T> {
        self.run(py, |engine| Ok(step(engine)?))
    }

    /// Does what a step stopped for, with the interpreter free.
    #[cold]
    pub fn settle(&self, py: Python<'_>, instance: &Instance, stop: Stop) -> PyResult<()> {
        let cluster = self.cluster(py)?;
        interruptible(py, move |interrupt| {
            cluster.settle_on(instance, stop, interrupt)
        })
    }

    /// Waits for a row's lock, with the interpreter free.
    #[cold]
    pub fn wait_lock(
        &self,
        py: Python<'_>,
        wait: &LockWait,
        limit: Option<Duration>,
    ) -> PyResult<()> {
        let cluster = self.cluster(py)?;
        interruptible(py, |interrupt| cluster.wait_lock(wait, limit, interrupt))
    }

    /// Waits until everything up to `lsn` is durable, with the interpreter free.
    pub fn wait_durable(&self, py: Python<'_>, lsn: Lsn) -> Result<(), WaitError> {
        let cluster = self.cluster_any(py).map_err(WaitError::Python)?;
        if cluster.is_told(lsn) {
            return Ok(());
        }
        let pending = Mutex::new(None);
        match py.detach(|| cluster.wait_told(lsn, &|| signalled(&pending))) {
            Ok(()) => Ok(()),
            Err(error) => Err(match pending.into_inner() {
                Some(signal) => WaitError::Python(signal),
                None => WaitError::Cluster(error),
            }),
        }
    }
}

impl Db {
    /// Waits for durability on behalf of a call that is no commit.
    pub fn wait(&self, py: Python<'_>, lsn: Lsn) -> PyResult<()> {
        let cluster = self.cluster(py)?;
        if cluster.is_told(lsn) {
            return Ok(());
        }
        interruptible(py, |interrupt| cluster.wait_durable(lsn, interrupt))
    }
}

/// Why a wait for durability ended early.
pub enum WaitError {
    /// A signal handler raised, or the caller may not wait.
    Python(PyErr),
    /// The volume failed.
    Cluster(Error),
}

/// Calls with the interpreter free; a signal such as Ctrl-C ends the call, and its exception is what is raised.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    call: impl FnOnce(&dyn Fn() -> bool) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let pending = Mutex::new(None);
    let result = py.detach(|| call(&|| signalled(&pending)));
    match (result, pending.into_inner()) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(signal)) => Err(signal),
        (Err(error), None) => Err(raise(py, error)),
    }
}

/// Runs the handlers of signals that have arrived; true, with the exception kept, when one raised.
pub fn signalled(pending: &Mutex<Option<PyErr>>) -> bool {
    Python::attach(|py| match py.check_signals() {
        Ok(()) => false,
        Err(error) => {
            *pending.lock() = Some(error);
            true
        }
    })
}
