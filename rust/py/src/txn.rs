//! The life of a transaction, shared by its synchronous and asynchronous faces and by views.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use aurora_engine::{Attempt, EngineError, LockWait, Mode, Stop, Txn};
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
use crate::waiting::Options;

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
    pub options: Options,
    state: Mutex<State>,
    committed: OnceLock<PyCommit>,
    /// The instance through whose endpoint it was begun; the writer, whoever that is, if none.
    via: Option<Connection>,
    /// It only reads, and stays at that instance. What writes goes on at whoever is the writer.
    stays: AtomicBool,
    id: OnceLock<u64>,
}

/// What one try of a step came to.
pub enum Progress<T> {
    Done(T),
    /// Another transaction has locked the row.
    Lock(LockWait),
    /// It must wait for something else, or another thread is inside the transaction.
    Blocked,
}

/// An operation that is tried until it is done. It begins once, however often it is tried.
pub struct Call<O> {
    op: O,
    begun: bool,
}

impl<O: Operation> Call<O> {
    pub fn new(op: O) -> Call<O> {
        Call { op, begun: false }
    }

    #[inline]
    fn attempt<'py>(
        &mut self,
        py: Python<'py>,
        engine: &Engine,
        txn: &mut Txn,
    ) -> Tried<Bound<'py, PyAny>> {
        if !self.begun {
            engine.begin_statement(txn);
            self.begun = true;
        }
        self.op.attempt(py, engine, txn)
    }
}

/// A call of any operation.
pub trait AnyCall: Send {
    /// One try.
    fn try_once<'py>(
        &mut self,
        py: Python<'py>,
        core: &Core,
    ) -> PyResult<Progress<Bound<'py, PyAny>>>;

    /// Tries, waiting for everything but locks.
    fn run_to_lock<'py>(
        &mut self,
        py: Python<'py>,
        core: &Core,
    ) -> PyResult<Progress<Bound<'py, PyAny>>>;
}

impl<O: Operation> AnyCall for Call<O> {
    fn try_once<'py>(
        &mut self,
        py: Python<'py>,
        core: &Core,
    ) -> PyResult<Progress<Bound<'py, PyAny>>> {
        core.try_call(py, self)
    }

    fn run_to_lock<'py>(
        &mut self,
        py: Python<'py>,
        core: &Core,
    ) -> PyResult<Progress<Bound<'py, PyAny>>> {
        core.step_to_lock(py, |py, engine, txn| self.attempt(py, engine, txn))
    }
}

/// A commit that has its place and is not yet known to be durable.
pub struct Numbered {
    pub commit: PyCommit,
    /// What must be durable before the commit is acknowledged.
    pub after: Lsn,
}

impl Core {
    /// A transaction that begins when it is entered; through the endpoint of an instance, or else at the writer.
    pub fn new(
        db: Arc<Db>,
        token: Option<String>,
        options: Options,
        via: Option<Connection>,
    ) -> Core {
        Core {
            db,
            token,
            options,
            state: Mutex::new(State::New),
            committed: OnceLock::new(),
            via,
            stays: AtomicBool::new(false),
            id: OnceLock::new(),
        }
    }

    /// A view of what is durable, or was at an LSN.
    pub fn view(
        py: Python<'_>,
        db: Arc<Db>,
        via: Option<Connection>,
        at: Option<Lsn>,
    ) -> PyResult<(Core, Lsn)> {
        let core = Core::new(db, None, Options::default(), via);
        let txn = match at {
            // Whether that is still kept, or will ever be, the cluster knows.
            Some(at) => {
                let cluster = core.db.cluster(py)?;
                let via = core.via.as_ref().map(Connection::instance);
                let instance = via.cloned().unwrap_or_else(|| cluster.engine());
                interruptible(py, |interrupt| cluster.begin_on(&instance, at, interrupt))?
            }
            None => core.begun(py, |engine| engine.begin(Mode::ReadOnly { at: None }))?,
        };
        let lsn = txn.snapshot();
        core.opened(&mut core.lock(py), txn);
        Ok((core, lsn))
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

    /// Runs a step within the open transaction or view, in a thread that need not be attached.
    pub fn run_within<T>(
        &self,
        interrupt: &dyn Fn() -> bool,
        mut step: impl FnMut(&Engine, &mut Txn) -> Attempt<T>,
    ) -> Result<T, Error> {
        // Whoever has the state may be waiting for the interpreter, which this thread may have.
        let mut state = Python::attach(|py| self.lock(py));
        let State::Open(open) = &mut *state else {
            let operation = "scan";
            return Err(EngineError::TransactionClosed { operation }.into());
        };
        let txn = open.get_mut();
        self.run_unattached(interrupt, |engine| step(engine, txn))
    }

    /// Begins: fixes what the transaction reads.
    pub fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock(py);
        check_new(py, &state)?;
        let options = self.options;
        let txn = self.begun(py, |engine| {
            engine.begin_isolated(options.isolation, !options.read_only)
        })?;
        self.opened(&mut state, txn);
        Ok(())
    }

    fn begun(
        &self,
        py: Python<'_>,
        mut begin: impl FnMut(&Engine) -> Attempt<Txn>,
    ) -> PyResult<Txn> {
        match &self.via {
            Some(via) => self
                .db
                .run_on(py, via.instance(), |engine| Ok(begin(engine)?)),
            None => self.db.call(py, begin),
        }
    }

    fn opened(&self, state: &mut State, txn: Txn) {
        self.stays.store(!txn.is_writable(), Ordering::Release);
        let _ = self.id.set(txn.id().0);
        *state = State::Open(Box::new(ForkSafe::new(txn)));
    }

    /// Begins, if that needs no waiting: there may be no writer for a moment.
    pub fn try_begin(&self, py: Python<'_>) -> PyResult<bool> {
        let mut state = self.lock(py);
        check_new(py, &state)?;
        let cluster = self.db.cluster(py)?;
        let Options {
            isolation,
            read_only,
            ..
        } = self.options;
        match self.instance(cluster).begin_isolated(isolation, !read_only) {
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

    /// The transaction's number in messages about locks, once it has begun.
    pub fn id(&self) -> Option<u64> {
        self.id.get().copied()
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
    pub fn run<'py>(&self, py: Python<'py>, op: impl Operation) -> PyResult<Bound<'py, PyAny>> {
        self.run_call(py, &mut Call::new(op))
    }

    /// Runs a call that may have been tried before.
    pub fn run_call<'py>(
        &self,
        py: Python<'py>,
        call: &mut Call<impl Operation>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.admit(py, &call.op)?;
        self.step(py, |py, engine, txn| call.attempt(py, engine, txn))
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
        loop {
            match self.drive(py, open.get_mut(), &mut step)? {
                Progress::Done(done) => return Ok(done),
                Progress::Lock(wait) => {
                    self.db.wait_lock(py, &wait, self.options.lock_timeout)?;
                }
                Progress::Blocked => {}
            }
        }
    }

    /// Runs a step until it is done or comes upon a lock.
    fn step_to_lock<'py, T>(
        &self,
        py: Python<'py>,
        mut step: impl FnMut(Python<'py>, &Engine, &mut Txn) -> Tried<T>,
    ) -> PyResult<Progress<T>> {
        let mut state = self.lock(py);
        let State::Open(open) = &mut *state else {
            return Err(self.not_open(py, &state));
        };
        loop {
            match self.drive(py, open.get_mut(), &mut step)? {
                Progress::Blocked => {}
                done => return Ok(done),
            }
        }
    }

    /// Tries a step, and waits for what stopped it, but not for locks.
    #[inline]
    fn drive<'py, T>(
        &self,
        py: Python<'py>,
        txn: &mut Txn,
        step: &mut impl FnMut(Python<'py>, &Engine, &mut Txn) -> Tried<T>,
    ) -> PyResult<Progress<T>> {
        let cluster = self.db.cluster(py)?;
        let instance = self.instance(cluster);
        match step(py, &instance, txn) {
            Ok(done) => Ok(Progress::Done(done)),
            Err(Halt::Python(error)) => Err(error),
            Err(Halt::Stop(Stop::WaitLock(wait))) => Ok(Progress::Lock(wait)),
            Err(Halt::Stop(stop)) => {
                if self.via.is_some() && self.stays.load(Ordering::Acquire) {
                    self.db.settle(py, &instance, stop)?;
                } else {
                    interruptible(py, |interrupt| cluster.settle(&instance, stop, interrupt))?;
                }
                Ok(Progress::Blocked)
            }
        }
    }

    /// Tries a call once.
    pub fn try_call<'py>(
        &self,
        py: Python<'py>,
        call: &mut Call<impl Operation>,
    ) -> PyResult<Progress<Bound<'py, PyAny>>> {
        self.admit(py, &call.op)?;
        self.try_step(py, |py, engine, txn| call.attempt(py, engine, txn))
    }

    /// Tries a step once.
    pub fn try_step<'py, T>(
        &self,
        py: Python<'py>,
        step: impl FnOnce(Python<'py>, &Engine, &mut Txn) -> Tried<T>,
    ) -> PyResult<Progress<T>> {
        let cluster = self.db.cluster(py)?;
        let Some(mut state) = self.state.try_lock() else {
            return Ok(Progress::Blocked);
        };
        let State::Open(open) = &mut *state else {
            return Err(self.not_open(py, &state));
        };
        match step(py, &self.instance(cluster), open.get_mut()) {
            Ok(done) => Ok(Progress::Done(done)),
            Err(Halt::Python(error)) => Err(error),
            Err(Halt::Stop(Stop::WaitLock(wait))) => Ok(Progress::Lock(wait)),
            Err(Halt::Stop(stop)) => match final_error(stop, cluster) {
                Some(error) => Err(raise_engine(py, &error)),
                None => Ok(Progress::Blocked),
            },
        }
    }

    /// Changes something of the open transaction that needs no waiting.
    pub fn edit<T>(
        &self,
        py: Python<'_>,
        change: impl FnOnce(&mut Txn) -> Result<T, EngineError>,
    ) -> PyResult<T> {
        let mut state = self.lock(py);
        let State::Open(open) = &mut *state else {
            return Err(self.not_open(py, &state));
        };
        change(open.get_mut()).map_err(|error| raise_engine(py, &error))
    }

    /// Gives the commit its place in the volume's history; the transaction ends with it, whatever comes of it.
    pub fn number(&self, py: Python<'_>) -> PyResult<Numbered> {
        let mut open = self.end(py)?;
        let token = self.token.as_deref();
        let cluster = self.db.cluster(py)?;
        let now_us = cluster.now_us();
        let commit = self.db.call(py, |engine| {
            cluster.committing(engine, |engine| {
                engine.commit(open.get_mut(), now_us, token)
            })
        })?;
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
        match cluster.committing(&cluster.engine(), |engine| {
            engine.commit(open.get_mut(), now_us, token)
        }) {
            Ok(commit) => {
                *state = State::Ended;
                Ok(Some(self.numbered(&commit)))
            }
            Err(stop) => match final_error(stop, cluster) {
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
fn final_error(stop: Stop, cluster: &Cluster) -> Option<EngineError> {
    match stop {
        Stop::Failed(EngineError::Volume(_) | EngineError::WriterMoved { .. }) => None,
        Stop::Failed(
            error @ (EngineError::DuplicateKey { .. } | EngineError::TokenUsed { .. }),
        ) => cluster.is_there(error.rests_on()).then_some(error),
        Stop::Failed(error) => Some(error),
        _ => None,
    }
}

fn check_new(py: Python<'_>, state: &State) -> PyResult<()> {
    match state {
        State::New => Ok(()),
        _ => Err(closed(py, "a transaction or view is entered once")),
    }
}

fn closed(py: Python<'_>, message: &str) -> PyErr {
    Raise::new(py, "TransactionClosed", message).err()
}
