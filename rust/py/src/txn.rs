//! The life of a transaction, shared by its synchronous and asynchronous faces and by views.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use aurora_engine::{Attempt, EngineError, Mode, Stop, Txn};
use aurora_page::Lsn;
use aurora_runtime::{Cluster, Connection, Error, Instance};
use parking_lot::{Mutex, MutexGuard};
use pyo3::prelude::*;

use crate::commit::PyCommit;
use crate::db::{Db, Engine, Halt, Tried, WaitError, interruptible};
use crate::errors::Raise;
use crate::failure::{commit_unknown, raise, raise_engine};
use crate::fork::ForkSafe;
use crate::lock::lock;
use crate::ops::Operation;
use crate::table::PyTable;

enum State {
    /// Not yet entered.
    New,
    Open(Box<ForkSafe<Txn>>),
    /// Committed, rolled back or failed.
    Ended,
}

/// A transaction or view of one cluster.
pub struct Core {
    pub db: Arc<Db>,
    pub token: Option<String>,
    state: Mutex<State>,
    committed: OnceLock<PyCommit>,
    /// The instance through whose endpoint it was begun; the writer, whoever that is, if none.
    via: Option<Connection>,
    /// It only reads, and stays at that instance. What writes goes on at whoever is the writer.
    stays: AtomicBool,
}

/// A commit that has its place and is not yet known to be durable.
pub struct Numbered {
    pub commit: PyCommit,
    /// What must be durable before the commit is acknowledged.
    pub after: Lsn,
}

impl Core {
    /// A transaction that begins when it is entered.
    pub fn new(db: Arc<Db>, token: Option<String>) -> Core {
        Core::at(db, token, None)
    }

    /// The same through the endpoint of an instance.
    pub fn at(db: Arc<Db>, token: Option<String>, via: Option<Connection>) -> Core {
        Core {
            db,
            token,
            state: Mutex::new(State::New),
            committed: OnceLock::new(),
            via,
            stays: AtomicBool::new(false),
        }
    }

    /// The instance at which its operations run.
    fn instance(&self, cluster: &Cluster) -> Arc<Instance> {
        match &self.via {
            Some(via) if self.stays.load(Ordering::Acquire) => via.instance().clone(),
            _ => cluster.engine(),
        }
    }

    /// Runs a step of the engine's in a thread that need not be attached.
    pub fn run_unattached<T>(
        &self,
        interrupt: &dyn Fn() -> bool,
        step: impl FnMut(&Engine) -> Attempt<T>,
    ) -> Result<T, Error> {
        let cluster = self.db.cluster_unattached().ok_or(Error::Closed)?;
        match &self.via {
            Some(via) if self.stays.load(Ordering::Acquire) => {
                cluster.run_on(via.instance(), interrupt, step)
            }
            _ => cluster.run(interrupt, step),
        }
    }

    /// Begins: fixes what the transaction reads, and says what that is.
    pub fn begin(&self, py: Python<'_>, mode: Mode) -> PyResult<Lsn> {
        let mut state = self.lock(py);
        if !matches!(*state, State::New) {
            return Err(closed(py, "a transaction or view is entered once"));
        }
        let via = self.via.as_ref().map(Connection::instance);
        let txn = match (mode, via) {
            // Whether that is still kept, or will ever be, the cluster knows.
            (Mode::ReadOnly { at: Some(at) }, via) => {
                let cluster = self.db.cluster(py)?;
                let instance = via.cloned().unwrap_or_else(|| cluster.engine());
                interruptible(py, |interrupt| cluster.begin_on(&instance, at, interrupt))?
            }
            (_, Some(via)) => self.db.run_on(py, via, |engine| Ok(engine.begin(mode)?))?,
            (_, None) => self.db.call(py, |engine| engine.begin(mode))?,
        };
        Ok(self.opened(&mut state, txn))
    }

    fn opened(&self, state: &mut State, txn: Txn) -> Lsn {
        let snapshot = txn.snapshot();
        self.stays.store(!txn.is_writable(), Ordering::Release);
        *state = State::Open(Box::new(ForkSafe::new(txn)));
        snapshot
    }

    /// Begins, if that needs no waiting: there may be no writer for a moment.
    pub fn try_begin(&self, py: Python<'_>, mode: Mode) -> PyResult<bool> {
        let mut state = self.lock(py);
        if !matches!(*state, State::New) {
            return Err(closed(py, "a transaction or view is entered once"));
        }
        let cluster = self.db.cluster(py)?;
        match self.instance(cluster).begin(mode) {
            Ok(txn) => {
                self.opened(&mut state, txn);
                Ok(true)
            }
            // Whether there is, or will be, a writer, the cluster knows.
            Err(Stop::Failed(
                EngineError::WriterMoved { .. } | EngineError::ReadOnlyInstance { .. },
            )) => Ok(false),
            Err(Stop::Failed(error)) => Err(raise_engine(py, &error)),
            Err(_) => Ok(false),
        }
    }

    /// The handle of a table for the definition that the transaction sees.
    pub fn table<'py>(&self, table: &Bound<'py, PyTable>) -> PyResult<Bound<'py, PyTable>> {
        let py = table.py();
        let engine = self.db.cluster(py)?.engine();
        if !crate::definition::may_differ(&engine, table.get()) {
            return Ok(table.clone());
        }
        let snapshot = match &mut *self.lock(py) {
            State::Open(open) => open.get_mut().snapshot(),
            // The operation will say so.
            State::New | State::Ended => return Ok(table.clone()),
        };
        crate::definition::seen_at(&self.db, table, snapshot)
    }

    /// Runs an operation, waiting for what it needs.
    pub fn run<'py>(
        &self,
        py: Python<'py>,
        op: &mut impl Operation,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.admit(py, op)?;
        self.step(py, |py, engine, txn| op.attempt(py, engine, txn))
    }

    /// Refuses a change of a cluster that takes none, before it is buffered.
    #[inline]
    fn admit<O: Operation>(&self, py: Python<'_>, _op: &O) -> PyResult<()> {
        if O::WRITES {
            self.db
                .cluster(py)?
                .check_writable()
                .map_err(|error| raise(py, error))
        } else {
            Ok(())
        }
    }

    /// Runs a step, waiting for what it needs.
    pub fn step<'py, T>(
        &self,
        py: Python<'py>,
        mut step: impl FnMut(Python<'py>, &Engine, &mut Txn) -> Tried<T>,
    ) -> PyResult<T> {
        let mut state = self.lock(py);
        let State::Open(open) = &mut *state else {
            return Err(self.not_open(py, &state));
        };
        let step = |engine: &Engine| step(py, engine, open.get_mut());
        match &self.via {
            Some(via) if self.stays.load(Ordering::Acquire) => {
                self.db.run_on(py, via.instance(), step)
            }
            _ => self.db.run(py, step),
        }
    }

    /// Tries an operation once; `None` if it must wait, or another thread is inside the transaction.
    pub fn try_once<'py>(
        &self,
        py: Python<'py>,
        op: &mut impl Operation,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.admit(py, op)?;
        self.try_step(py, |py, engine, txn| op.attempt(py, engine, txn))
    }

    /// Tries a step once; `None` if it must wait, or another thread is inside the transaction.
    pub fn try_step<'py, T>(
        &self,
        py: Python<'py>,
        step: impl FnOnce(Python<'py>, &Engine, &mut Txn) -> Tried<T>,
    ) -> PyResult<Option<T>> {
        let cluster = self.db.cluster(py)?;
        let Some(mut state) = self.state.try_lock() else {
            return Ok(None);
        };
        let State::Open(open) = &mut *state else {
            return Err(self.not_open(py, &state));
        };
        match step(py, &self.instance(cluster), open.get_mut()) {
            Ok(done) => Ok(Some(done)),
            Err(Halt::Python(error)) => Err(error),
            Err(Halt::Stop(stop)) => match final_error(stop, cluster.vdl()) {
                Some(error) => Err(raise_engine(py, &error)),
                None => Ok(None),
            },
        }
    }

    /// Gives the commit its place in the volume's history; the transaction ends with it, whatever comes of it.
    pub fn number(&self, py: Python<'_>) -> PyResult<Numbered> {
        let mut open = self.end(py)?;
        let token = self.token.as_deref();
        let now_us = self.db.cluster(py)?.now_us();
        let commit = self
            .db
            .call(py, |engine| engine.commit(open.get_mut(), now_us, token))?;
        Ok(self.numbered(&commit))
    }

    /// As [`Core::number`], if that needs no waiting; the transaction stays open otherwise.
    pub fn try_number(&self, py: Python<'_>) -> PyResult<Option<Numbered>> {
        let cluster = self.db.cluster(py)?;
        let Some(mut state) = self.state.try_lock() else {
            return Ok(None);
        };
        let State::Open(open) = &mut *state else {
            return Err(self.not_open(py, &state));
        };
        let (token, now_us) = (self.token.as_deref(), cluster.now_us());
        match cluster.engine().commit(open.get_mut(), now_us, token) {
            Ok(commit) => {
                *state = State::Ended;
                Ok(Some(self.numbered(&commit)))
            }
            Err(stop) => match final_error(stop, cluster.vdl()) {
                Some(error) => {
                    *state = State::Ended;
                    Err(raise_engine(py, &error))
                }
                None => Ok(None),
            },
        }
    }

    fn numbered(&self, commit: &aurora_engine::Commit) -> Numbered {
        let token = self.token.clone();
        let done = PyCommit {
            lsn: commit.lsn.0,
            time_us: commit.time_us,
            copies: WRITE_QUORUM,
            token,
        };
        Numbered {
            commit: done,
            after: commit.after.max(commit.lsn),
        }
    }

    /// Numbers the commit and waits until it is durable.
    pub fn commit(&self, py: Python<'_>) -> PyResult<()> {
        let numbered = self.number(py)?;
        self.acknowledge(py, numbered)
    }

    /// Waits until a numbered commit is durable.
    pub fn acknowledge(&self, py: Python<'_>, numbered: Numbered) -> PyResult<()> {
        match self.db.wait_durable(py, numbered.after) {
            Ok(()) => {
                self.acknowledged(numbered.commit);
                Ok(())
            }
            Err(WaitError::Python(error)) => Err(error),
            Err(WaitError::Cluster(error)) => Err(commit_unknown(
                py,
                numbered.commit.lsn(),
                self.token.as_deref(),
                error,
            )),
        }
    }

    /// The commit is durable.
    pub fn acknowledged(&self, commit: PyCommit) {
        let _ = self.committed.set(commit);
    }

    /// The commit, once it is durable.
    pub fn committed(&self) -> Option<PyCommit> {
        self.committed.get().cloned()
    }

    /// Ends the transaction without a trace. Ending one that has ended is nothing.
    pub fn roll_back(&self, py: Python<'_>) {
        *self.lock(py) = State::Ended;
    }

    /// Whether operations are taken.
    pub fn is_open(&self) -> bool {
        self.state
            .try_lock()
            .is_none_or(|state| matches!(*state, State::Open(_)))
    }

    /// What it is and how far it has come, for a reader at a prompt.
    pub fn describe(&self, class: &str) -> String {
        if let Some(commit) = self.committed.get() {
            return format!("<{class} committed at LSN {}>", commit.lsn());
        }
        let state = match self.state.try_lock().as_deref_mut() {
            None => "in use by another thread".to_owned(),
            Some(State::New) => "not yet entered".to_owned(),
            Some(State::Open(open)) => format!("open at LSN {}", open.get_mut().snapshot()),
            Some(State::Ended) => "ended".to_owned(),
        };
        format!("<{class} {state}>")
    }

    fn end(&self, py: Python<'_>) -> PyResult<Box<ForkSafe<Txn>>> {
        let mut state = self.lock(py);
        match std::mem::replace(&mut *state, State::Ended) {
            State::Open(open) => Ok(open),
            other => {
                let error = self.not_open(py, &other);
                *state = other;
                Err(error)
            }
        }
    }

    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        lock(py, &self.state)
    }

    fn not_open(&self, py: Python<'_>, state: &State) -> PyErr {
        if let Err(error) = self.db.cluster(py) {
            return error;
        }
        match state {
            State::New => closed(
                py,
                "the transaction has not been entered: use it in a with statement",
            ),
            _ => closed(py, "the transaction or view has ended"),
        }
    }
}

/// Copies that have a commit when it is acknowledged.
pub const WRITE_QUORUM: u32 = 4;

/// The error of a stop that no waiting changes: neither the volume's, nor one that rests on another's row that is not
/// yet durable [15].
fn final_error(stop: Stop, vdl: Lsn) -> Option<EngineError> {
    match stop {
        Stop::Failed(EngineError::Volume(_) | EngineError::WriterMoved { .. }) => None,
        Stop::Failed(
            error @ (EngineError::DuplicateKey { .. } | EngineError::TokenUsed { .. }),
        ) => (error.rests_on() <= vdl).then_some(error),
        Stop::Failed(error) => Some(error),
        _ => None,
    }
}

fn closed(py: Python<'_>, message: &str) -> PyErr {
    Raise::new(py, "TransactionClosed", message).err()
}
