//! Operations on an event loop that could not be done at once.
//!
//! - What waits for a row's lock waits without a thread: hundreds of tasks may wait for one row, and a thread pool full of
//!   them would leave no thread to whoever is to give the lock back. The wake-up comes through the volume's completions, as a
//!   durable commit's does; then the operation is tried again.
//! - What waits for a page goes on in the loop's thread pool, until it is done or comes upon a lock.
//! - The operations of one transaction are done one after the other, in the order in which they were called.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use aurora_engine::LockWait;
use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::errors::Raise;
use crate::failure::raise;
use crate::in_flight::InFlight;
use crate::ops::Operation;
use crate::ready::Ready;
use crate::transaction::running_loop;
use crate::txn::{AnyCall, Call, Core, Progress};

/// A transaction as an event loop uses it.
pub struct AsyncCore {
    pub core: Arc<Core>,
    pub in_flight: Arc<InFlight>,
    /// Operations that are not done, in their order; the first is under way.
    line: Mutex<VecDeque<Py<Pending>>>,
    /// The loop on which the transaction was begun, if one was running.
    home: OnceLock<Option<Py<PyAny>>>,
}

impl AsyncCore {
    pub fn new(core: Core, in_flight: Arc<InFlight>) -> Arc<AsyncCore> {
        Arc::new(AsyncCore {
            core: Arc::new(core),
            in_flight,
            line: Mutex::default(),
            home: OnceLock::new(),
        })
    }

    /// The transaction belongs to the running loop from now on.
    pub fn settle_here(&self, py: Python<'_>) -> PyResult<()> {
        let home = running_loop(py)?.map(Bound::unbind);
        let _ = self.home.set(home);
        Ok(())
    }

    /// Refuses an operation from another loop than the transaction's own.
    pub fn check_loop(&self, py: Python<'_>) -> PyResult<()> {
        let Some(Some(home)) = self.home.get() else {
            return Ok(());
        };
        let here = running_loop(py)?;
        if here.as_ref().is_some_and(|here| here.is(home)) {
            return Ok(());
        }
        let got = if here.is_some() {
            "another one"
        } else {
            "none"
        };
        let message = format!(
            "the transaction belongs to the event loop that it was begun on: expected that one to be running, got {got}"
        );
        Err(Raise::new(py, "AsyncMisuse", message).err())
    }

    /// Gives up every change. Operations that wait for a lock find the transaction ended.
    pub fn roll_back(&self, py: Python<'_>) -> PyResult<()> {
        self.core.roll_back(py);
        let first = self.line.lock().front().map(|first| first.clone_ref(py));
        let Some(first) = first else { return Ok(()) };
        let waits = first.get().wait.lock().is_some();
        if waits {
            first.get().stop_waiting(py);
            Pending::try_again(first.bind(py))?;
        }
        Ok(())
    }

    /// Whether operations are not done.
    pub fn is_busy(&self) -> bool {
        !self.line.lock().is_empty()
    }

    /// Starts an operation; the awaitable of its result.
    pub fn run<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        op: impl Operation,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.check_loop(py)?;
        let mut call = Call::new(op);
        let first = if self.is_busy() {
            None
        } else {
            match self.core.try_call(py, &mut call)? {
                Progress::Done(done) => return Ready::with(py, done),
                waits => Some(waits),
            }
        };
        let event_loop = require_loop(py)?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let pending = Pending {
            txn: self.clone(),
            call: Mutex::new(Some(Box::new(call))),
            future: future.clone().unbind(),
            event_loop: event_loop.unbind(),
            wait: Mutex::new(None),
        };
        let pending = Bound::new(py, pending)?;
        // Called before whoever awaits the future goes on, as it is the first to ask for it.
        future.call_method1(intern!(py, "add_done_callback"), (pending.clone(),))?;
        self.line.lock().push_back(pending.clone().unbind());
        if let Some(waits) = first {
            Pending::go_on(&pending, waits)?;
        }
        Ok(future)
    }

    /// The first operation in the line is done: the next one's turn.
    fn next(&self, py: Python<'_>, done: &Bound<'_, Pending>) -> PyResult<()> {
        let mut line = self.line.lock();
        let Some(at) = line.iter().position(|pending| pending.is(done)) else {
            return Ok(());
        };
        line.remove(at);
        let next = line
            .front()
            .filter(|_| at == 0)
            .map(|next| next.clone_ref(py));
        drop(line);
        next.map_or(Ok(()), |next| Pending::try_again(next.bind(py)))
    }
}

/// The loop that is running in this thread.
pub fn require_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    running_loop(py)?.ok_or_else(|| {
        let message = "no event loop is running in this thread: await this in a coroutine, or use db.transaction()";
        Raise::new(py, "AsyncMisuse", message).err()
    })
}

/// A wait for a lock that a loop has registered.
struct Awaited {
    wait: LockWait,
    id: u64,
    begun: Instant,
    timer: Option<Py<PyAny>>,
}

/// An operation that was not done at once, and the future of its result. It is also the future's callback.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Pending {
    txn: Arc<AsyncCore>,
    call: Mutex<Option<Box<dyn AnyCall>>>,
    future: Py<PyAny>,
    event_loop: Py<PyAny>,
    wait: Mutex<Option<Awaited>>,
}

#[pymethods]
impl Pending {
    /// The future is done, or was cancelled by whoever awaited it.
    fn __call__(slf: &Bound<'_, Self>, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let _ = future;
        this.stop_waiting(py);
        this.txn.next(py, slf)
    }
}

impl Pending {
    /// Does what the operation waits for.
    fn go_on(slf: &Bound<'_, Self>, waits: Progress<Bound<'_, PyAny>>) -> PyResult<()> {
        match waits {
            Progress::Done(value) => slf.get().resolve(slf.py(), Ok(value)),
            Progress::Lock(wait) => Pending::await_lock(slf, wait),
            Progress::Blocked => Pending::go_to_pool(slf),
        }
    }

    /// The lock has come, or it is the operation's turn.
    pub fn try_again(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if this.is_done(py)? {
            return Ok(());
        }
        let Some(mut call) = this.call.lock().take() else {
            return Ok(());
        };
        let tried = call.try_once(py, &this.txn.core);
        *this.call.lock() = Some(call);
        match tried {
            Ok(waits) => Pending::go_on(slf, waits),
            Err(error) => this.resolve(py, Err(error)),
        }
    }

    /// The lock has come, or the cluster has closed.
    pub fn wake(slf: &Bound<'_, Self>, outcome: Result<(), aurora_runtime::Error>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if let Some(awaited) = this.wait.lock().take() {
            this.stop_timer(py, &awaited);
        }
        match outcome {
            Ok(()) => Pending::try_again(slf),
            Err(error) => this.resolve(py, Err(raise(py, error))),
        }
    }

    fn await_lock(slf: &Bound<'_, Self>, wait: LockWait) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let event_loop = this.event_loop.bind(py);
        let timer = match this.txn.core.options.lock_timeout {
            Some(limit) => {
                let expired = Bound::new(py, Expired(slf.clone().unbind()))?;
                let timer = event_loop
                    .call_method1(intern!(py, "call_later"), (limit.as_secs_f64(), expired))?;
                Some(timer.unbind())
            }
            None => None,
        };
        let id = this.txn.in_flight.new_id();
        *this.wait.lock() = Some(Awaited {
            wait,
            id,
            begun: Instant::now(),
            timer,
        });
        this.txn.in_flight.wait_lock(event_loop, slf, &wait, id)
    }

    fn expire(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let mut place = this.wait.lock();
        let Some(awaited) = &*place else {
            return Ok(());
        };
        let cluster = this.txn.core.db.cluster(py)?;
        let Err(error) = cluster.leave_lock(&awaited.wait, awaited.begun.elapsed()) else {
            // It has come after all; its wake-up is on the way.
            return Ok(());
        };
        this.txn.in_flight.forget(awaited.id);
        *place = None;
        drop(place);
        this.resolve(py, Err(raise(py, error)))
    }

    /// Nobody waits for the lock any more.
    fn stop_waiting(&self, py: Python<'_>) {
        let Some(awaited) = self.wait.lock().take() else {
            return;
        };
        self.stop_timer(py, &awaited);
        self.txn.in_flight.forget(awaited.id);
        if let Ok(cluster) = self.txn.core.db.cluster(py) {
            cluster.forget_lock(&awaited.wait);
        }
    }

    fn stop_timer(&self, py: Python<'_>, awaited: &Awaited) {
        if let Some(timer) = &awaited.timer {
            // Cancelling a timer cannot fail.
            let _ = timer.call_method0(py, intern!(py, "cancel"));
        }
    }

    fn go_to_pool(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let job = Bound::new(py, PoolJob(slf.clone().unbind()))?;
        let running =
            this.event_loop
                .call_method1(py, intern!(py, "run_in_executor"), (py.None(), job))?;
        let back = Bound::new(py, PoolDone(slf.clone().unbind()))?;
        running.call_method1(py, intern!(py, "add_done_callback"), (back,))?;
        Ok(())
    }

    fn is_done(&self, py: Python<'_>) -> PyResult<bool> {
        self.future
            .call_method0(py, intern!(py, "done"))?
            .is_truthy(py)
    }

    fn resolve(&self, py: Python<'_>, outcome: PyResult<Bound<'_, PyAny>>) -> PyResult<()> {
        // A task that was cancelled while it waited has cancelled the future.
        if self.is_done(py)? {
            return Ok(());
        }
        match outcome {
            Ok(value) => self
                .future
                .call_method1(py, intern!(py, "set_result"), (value,))?,
            Err(error) => self
                .future
                .call_method1(py, intern!(py, "set_exception"), (error,))?,
        };
        Ok(())
    }
}

/// The end of a loop's patience with a lock.
#[pyclass(module = "aurora_engine._engine", frozen)]
struct Expired(Py<Pending>);

#[pymethods]
impl Expired {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        Pending::expire(self.0.bind(py))
    }
}

/// What the pool says of an operation that has come upon a lock.
#[pyclass(module = "aurora_engine._engine", frozen)]
struct LockWanted(LockWait);

/// An operation in the loop's thread pool.
#[pyclass(module = "aurora_engine._engine", frozen)]
struct PoolJob(Py<Pending>);

#[pymethods]
impl PoolJob {
    fn __call__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let this = self.0.get();
        let Some(mut call) = this.call.lock().take() else {
            return Err(PyRuntimeError::new_err(
                "an operation is in one place at a time",
            ));
        };
        let outcome = call.run_to_lock(py, &this.txn.core);
        *this.call.lock() = Some(call);
        match outcome? {
            Progress::Lock(wait) => Ok(Bound::new(py, LockWanted(wait))?.into_any().unbind()),
            Progress::Done(value) => Ok(value.unbind()),
            Progress::Blocked => Err(PyRuntimeError::new_err("a thread of the pool waits")),
        }
    }
}

/// An operation has come back from the pool, on the loop's thread.
#[pyclass(module = "aurora_engine._engine", frozen)]
struct PoolDone(Py<Pending>);

#[pymethods]
impl PoolDone {
    fn __call__(&self, py: Python<'_>, running: &Bound<'_, PyAny>) -> PyResult<()> {
        let pending = self.0.bind(py);
        match running.call_method0(intern!(py, "result")) {
            Err(error) => pending.get().resolve(py, Err(error)),
            Ok(value) => match value.cast::<LockWanted>() {
                Ok(wanted) if pending.get().is_done(py)? => {
                    // Cancelled meanwhile: its place in the queue is of no use.
                    let cluster = pending.get().txn.core.db.cluster(py)?;
                    cluster.forget_lock(&wanted.get().0);
                    Ok(())
                }
                Ok(wanted) => Pending::await_lock(pending, wanted.get().0),
                Err(_) => pending.get().resolve(py, Ok(value)),
            },
        }
    }
}
