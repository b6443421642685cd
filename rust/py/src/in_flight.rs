//! Commits and locks that event loops wait for: one wake-up of a loop resolves every future whose commit is durable, and
//! tries every operation again whose lock has come.
//!
//! Each loop that waits has a reader on the volume's one eventfd. Whichever loop wakes first takes all outcomes, resolves its
//! own, and hands the others theirs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_engine::LockWait;
use aurora_runtime::Error;
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;

use crate::db::Db;
use crate::failure::commit_unknown;
use crate::pending::Pending;
use crate::txn::{Core, Numbered};

/// One event loop that waits for commits.
pub struct Home {
    event_loop: Py<PyAny>,
}

/// What waits for an outcome, and on which loop.
struct Waiting {
    what: What,
    home: Arc<Home>,
}

enum What {
    /// A commit whose future is not yet resolved.
    Commit {
        numbered: Numbered,
        core: Arc<Core>,
        future: Py<PyAny>,
    },
    /// An operation whose lock has not come.
    Lock(Py<Pending>),
}

/// What all event loops of one cluster wait for.
pub struct InFlight {
    db: Arc<Db>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
    homes: Mutex<Vec<Arc<Home>>>,
}

impl InFlight {
    pub fn new(db: Arc<Db>) -> InFlight {
        InFlight {
            db,
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            homes: Mutex::default(),
        }
    }

    /// The place of the running loop, which gets a reader for the volume's completions at its first commit.
    fn home(self: &Arc<Self>, event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Home>> {
        let py = event_loop.py();
        let is_here = |home: &&Arc<Home>| home.event_loop.is(event_loop);
        let known = self.homes.lock().iter().find(is_here).cloned();
        if let Some(home) = known {
            return Ok(home);
        }
        let fd = self.db.cluster(py)?.completions().fd();
        let home = Arc::new(Home {
            event_loop: event_loop.clone().unbind(),
        });
        let reader = Bound::new(
            py,
            Reader {
                in_flight: self.clone(),
                home: home.clone(),
            },
        )?;
        event_loop.call_method1(intern!(py, "add_reader"), (fd, reader))?;
        // Python is asked without the lock: it may let another thread go on, which then waits for the lock attached.
        let before: Vec<Arc<Home>> = self.homes.lock().clone();
        let is_closed = |home: &Arc<Home>| {
            let closed = home.event_loop.call_method0(py, intern!(py, "is_closed"));
            closed
                .and_then(|closed| closed.is_truthy(py))
                .unwrap_or(true)
        };
        let gone: Vec<Arc<Home>> = before.into_iter().filter(is_closed).collect();
        let mut homes = self.homes.lock();
        homes.retain(|home| !gone.iter().any(|gone| Arc::ptr_eq(gone, home)));
        homes.push(home.clone());
        Ok(home)
    }

    /// A future that is resolved when the commit is durable.
    pub fn wait<'py>(
        self: &Arc<Self>,
        event_loop: &Bound<'py, PyAny>,
        core: &Arc<Core>,
        numbered: Numbered,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let home = self.home(event_loop)?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let id = self.new_id();
        let after = numbered.after;
        let what = What::Commit {
            numbered,
            core: core.clone(),
            future: future.clone().unbind(),
        };
        self.waiting.lock().insert(id, Waiting { what, home });
        self.db.cluster(py)?.notify_durable(after, id);
        Ok(future)
    }

    /// An id for something to wait for.
    pub fn new_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Has the operation be tried again when its lock has come.
    pub fn wait_lock(
        self: &Arc<Self>,
        event_loop: &Bound<'_, PyAny>,
        pending: &Bound<'_, Pending>,
        wait: &LockWait,
        id: u64,
    ) -> PyResult<()> {
        let home = self.home(event_loop)?;
        let what = What::Lock(pending.clone().unbind());
        self.waiting.lock().insert(id, Waiting { what, home });
        self.db.cluster(event_loop.py())?.notify_lock(wait, id);
        Ok(())
    }

    /// Nobody waits for the outcome any more.
    pub fn forget(&self, id: u64) {
        let gone = self.waiting.lock().remove(&id);
        // Dropped without the lock: what it holds may be the last of its kind.
        drop(gone);
    }

    /// Resolves the futures of every commit that has become durable, each on its own loop.
    fn drain(&self, py: Python<'_>, here: &Arc<Home>) -> PyResult<()> {
        let done = self.db.cluster_any(py)?.completions().drain();
        let mut elsewhere: Vec<(Waiting, Result<(), Error>)> = Vec::new();
        for (id, outcome) in done {
            let Some(waiting) = self.waiting.lock().remove(&id) else {
                continue;
            };
            if Arc::ptr_eq(&waiting.home, here) {
                resolve(py, waiting, outcome)?;
            } else {
                elsewhere.push((waiting, outcome));
            }
        }
        for (waiting, outcome) in elsewhere {
            let event_loop = waiting.home.event_loop.clone_ref(py);
            let delivery = Bound::new(py, Delivery(Mutex::new(Some((waiting, outcome)))))?;
            // A loop that was closed meanwhile has nobody waiting on it.
            let _ = event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (delivery,));
        }
        Ok(())
    }

    /// Gives every loop the last outcomes, now that the cluster has closed, and takes the readers off.
    pub fn close(self: &Arc<Self>, py: Python<'_>, fd: i32) {
        let homes = std::mem::take(&mut *self.homes.lock());
        for home in homes {
            let event_loop = home.event_loop.clone_ref(py);
            let in_flight = self.clone();
            // A loop that is closed has no readers any more; one in another thread takes its own off.
            let _ = Bound::new(
                py,
                Farewell {
                    in_flight,
                    home,
                    fd,
                },
            )
            .and_then(|farewell| {
                event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (farewell,))
            });
        }
    }
}

fn resolve(py: Python<'_>, waiting: Waiting, outcome: Result<(), Error>) -> PyResult<()> {
    let (numbered, core, future) = match waiting.what {
        What::Lock(pending) => return Pending::wake(pending.bind(py), outcome),
        What::Commit {
            numbered,
            core,
            future,
        } => (numbered, core, future),
    };
    let future = future.bind(py);
    let failed = outcome
        .err()
        .map(|error| commit_unknown(py, numbered.commit.lsn(), core.token.as_deref(), error));
    if failed.is_none() {
        core.acknowledged(numbered.commit);
    }
    // A task that was cancelled while it waited has cancelled the future.
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match failed {
        None => future.call_method1(intern!(py, "set_result"), (py.None(),))?,
        Some(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
    };
    Ok(())
}

/// The reader of the volume's completions on one loop.
#[pyclass(module = "aurora_engine._engine", frozen)]
struct Reader {
    in_flight: Arc<InFlight>,
    home: Arc<Home>,
}

#[pymethods]
impl Reader {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.in_flight.drain(py, &self.home)
    }
}

/// The last that a loop hears of a cluster. Taking the reader off alone would take the outcomes with it that it has not
/// read: a loop runs what it was sent before it looks at its descriptors.
#[pyclass(module = "aurora_engine._engine", frozen)]
struct Farewell {
    in_flight: Arc<InFlight>,
    home: Arc<Home>,
    fd: i32,
}

#[pymethods]
impl Farewell {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.in_flight.drain(py, &self.home)?;
        let event_loop = &self.home.event_loop;
        event_loop.call_method1(py, intern!(py, "remove_reader"), (self.fd,))?;
        Ok(())
    }
}

/// An outcome on its way to another loop.
#[pyclass(module = "aurora_engine._engine", frozen)]
struct Delivery(Mutex<Option<(Waiting, Result<(), Error>)>>);

#[pymethods]
impl Delivery {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let Some((waiting, outcome)) = self.0.lock().take() else {
            return Ok(());
        };
        resolve(py, waiting, outcome)
    }
}
