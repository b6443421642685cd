//! The world's side of a database: it answers what clients wait for.
//!
//! This is the shell that the header of `aurora-engine` asks for: pages are fetched over the network (`reads`); the volume grows
//! by the manifest's CAS; what was appended goes to the copies (`appended`), and commits wait for the VDL; engines come and go with
//! their instances (`engines`).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use aurora_engine::LockWait;
use aurora_page::Lsn;
use aurora_proto::{MetaStore, NodeSet, ReadRouter, Volume};

use crate::blobs::Storing;
use crate::instance::Instance;
use crate::messages::{Event, InstanceId};
use crate::reads::Read;
use crate::session::{Hub, Request, Response, Session, Task};
use crate::workloads::Workload;
use crate::world::World;

/// A client waits so long for a commit to become durable; then it looks for another writer.
const PATIENCE_US: u64 = 6_000_000;
/// A client waits so long for a lock: some wait less than others.
const LOCK_US: (u64, u64) = (50_000, 3_000_000);

/// Which client.
pub type TaskId = usize;

/// What a client is waiting for.
#[derive(Debug)]
pub(crate) enum Wait {
    Timer,
    Session,
    Durable(Rc<Session>, Lsn),
    Read(Rc<Session>),
    Store(Rc<Session>),
    Lock(Rc<Session>, LockWait),
}

#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: u64,
    pub(crate) wait: Wait,
}

/// Clients, sessions and reads on their way.
pub(crate) struct Base {
    pub(crate) hub: Rc<Hub>,
    pub(crate) sessions: Vec<Rc<Session>>,
    pub(crate) tasks: Vec<Option<Task>>,
    /// The first so many are the workload's.
    clients: usize,
    pub(crate) waiting: BTreeMap<TaskId, Waiting>,
    /// The instance in whose process a client runs.
    pub(crate) bound: BTreeMap<TaskId, InstanceId>,
    pub(crate) reads: BTreeMap<u64, Read>,
    pub(crate) stores: BTreeMap<u64, Storing>,
    pub(crate) router: ReadRouter,
    tickets: u64,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} clients, {:?}", self.tasks.len(), self.sessions)
    }
}

impl Base {
    pub(crate) fn new(hub: Rc<Hub>, workload: Workload) -> Base {
        let tasks: Vec<Option<Task>> = workload.start(&hub).into_iter().map(Some).collect();
        Base {
            clients: tasks.len(),
            tasks,
            hub,
            sessions: Vec::new(),
            waiting: BTreeMap::new(),
            bound: BTreeMap::new(),
            reads: BTreeMap::new(),
            stores: BTreeMap::new(),
            router: ReadRouter::new(16),
            tickets: 0,
        }
    }

    /// In whose process the client runs now.
    pub(crate) fn process_of(&self, task: TaskId) -> Option<InstanceId> {
        self.bound.get(&task).copied()
    }

    /// What clients wait for, in words.
    pub(crate) fn describe(&self) -> String {
        let of_clients = self.waiting.range(..self.clients);
        format!(
            "rested {}, clients wait for {of_clients:?}",
            self.hub.rested.get()
        )
    }

    /// Have all clients of the workload ended but the one that looks at everything last?
    pub(crate) fn clients_stopped(&self) -> bool {
        self.tasks[1..self.clients].iter().all(Option::is_none)
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }
}

impl World {
    /// Clients begin.
    pub(crate) fn start_clients(&mut self) {
        let count = self.base.as_ref().map_or(0, |base| base.tasks.len());
        for task in 0..count {
            self.wake_after(task as u64, (task, 0), Response::Done);
        }
    }

    /// A client's wait of this number ends so, `delay` from now.
    pub(crate) fn wake_after(
        &mut self,
        delay: u64,
        (task, ticket): (TaskId, u64),
        response: Response,
    ) {
        let event = Event::Wake {
            task,
            ticket,
            response,
        };
        self.queue.after(delay, event);
    }

    /// A wait is over: the client goes on until its next one.
    pub(crate) fn on_wake(&mut self, task: TaskId, ticket: u64, response: Response) {
        let Some(base) = &mut self.base else { return };
        let due = base.waiting.get(&task).map_or(0, |waiting| waiting.ticket);
        if due != ticket {
            return;
        }
        base.waiting.remove(&task);
        let Some(future) = base.tasks.get_mut(task).and_then(Option::as_mut) else {
            return;
        };
        base.hub.now_us.set(self.queue.now_us());
        base.hub.response.set(Some(response));
        let ended = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready();
        let request = base.hub.request.take();
        let notes = base.hub.notes.take();
        let failure = base.hub.failure.take();
        if ended {
            base.tasks[task] = None;
            base.bound.remove(&task);
        }
        for note in notes {
            self.note(format_args!("{note}"));
        }
        self.collect_appended();
        if let Some(what) = failure {
            return self.fail(what);
        }
        if let Some(request) = request {
            self.serve(task, request);
        }
        self.wake_granted();
    }

    /// Locks have been handed over: whoever waited for them goes on, a little later.
    fn wake_granted(&mut self) {
        let Some(base) = &self.base else { return };
        let mut wake = Vec::new();
        for session in &base.sessions {
            let granted = session.granted.take();
            if granted.is_empty() {
                continue;
            }
            for (task, waiting) in &base.waiting {
                if let Wait::Lock(of, wait) = &waiting.wait
                    && of.id == session.id
                    && granted.contains(&wait.txn)
                {
                    wake.push((*task, waiting.ticket));
                }
            }
        }
        for (task, ticket) in wake {
            let delay = self.work.between(0, 500);
            self.wake_after(delay, (task, ticket), Response::Done);
        }
    }

    fn serve(&mut self, task: TaskId, request: Request) {
        let Some(base) = &mut self.base else { return };
        let ticket = base.ticket();
        let bound = match &request {
            Request::Sleep(_) => base.bound.get(&task).copied(),
            Request::Session => None,
            Request::Page(session, ..)
            | Request::Grow(session, _)
            | Request::Durable(session, _)
            | Request::Store(session, _)
            | Request::Lock(session, _) => Some(session.id),
        };
        match bound {
            Some(id) => base.bound.insert(task, id),
            None => base.bound.remove(&task),
        };
        let (wait, soon) = match request {
            Request::Sleep(us) => (Wait::Timer, Some((us, Response::Done))),
            Request::Session => {
                let newest = base.hub.newest.borrow().clone();
                let here = newest.is_some_and(|session| session.alive.get());
                (Wait::Session, here.then_some((0, Response::Done)))
            }
            Request::Durable(session, lsn) => {
                let soon = match () {
                    () if !session.alive.get() => (0, Response::Gone),
                    () if session.volume.vdl() >= lsn => (0, Response::Done),
                    () => (PATIENCE_US, Response::Gone),
                };
                (Wait::Durable(session, lsn), Some(soon))
            }
            Request::Lock(session, wait) => {
                let soon = match () {
                    () if !session.alive.get() => (0, Response::Gone),
                    () if !session.engine().is_lock_awaited(&wait) => (0, Response::Done),
                    () => (self.work.between(LOCK_US.0, LOCK_US.1), Response::Late),
                };
                (Wait::Lock(session, wait), Some(soon))
            }
            Request::Grow(session, seen) => {
                let grown = self.grow_for(&session, seen);
                let response = if grown {
                    Response::Done
                } else {
                    Response::Gone
                };
                (Wait::Timer, Some((500, response)))
            }
            Request::Page(session, member, page, at) => {
                let read = Read {
                    member,
                    task,
                    ticket,
                    session: session.clone(),
                    page,
                    at,
                    asked: NodeSet::EMPTY,
                    too_old: false,
                    began_us: self.queue.now_us(),
                };
                base.reads.insert(ticket, read);
                (Wait::Read(session), None)
            }
            Request::Store(session, blob) => {
                let storing = Storing {
                    task,
                    ticket,
                    session: session.clone(),
                    blob,
                    stored: NodeSet::EMPTY,
                    began_us: self.queue.now_us(),
                };
                base.stores.insert(ticket, storing);
                (Wait::Store(session), None)
            }
        };
        let (reads, stores) = (
            matches!(wait, Wait::Read(_)),
            matches!(wait, Wait::Store(_)),
        );
        if let Some(base) = &mut self.base {
            base.waiting.insert(task, Waiting { ticket, wait });
        }
        if let Some((delay, response)) = soon {
            self.wake_after(delay, (task, ticket), response);
        }
        if reads {
            self.ask_copy(ticket);
        }
        if stores {
            self.store_blob(ticket);
        }
    }

    /// The volume grows by a segment, unless somebody has made it grow meanwhile.
    fn grow_for(&mut self, session: &Rc<Session>, seen: u64) -> bool {
        if session.volume.segments() > seen {
            return true;
        }
        let latest = self.meta.latest();
        if latest.epoch != session.epoch {
            return false;
        }
        let members = latest.next_members();
        let Ok(next) = latest.add_segment(members.clone()) else {
            return false;
        };
        if self.meta.cas(latest.version, &next).is_err() {
            return false;
        }
        if let Some(writing) = self
            .instances
            .get_mut(&session.id)
            .and_then(Instance::writing)
        {
            writing.manifest = next;
            let pg = writing.writer().add_pg(members);
            writing.volume.grown();
            let id = session.id;
            self.note(format_args!("{id} grows the volume by {pg}"));
        }
        true
    }

    /// The VDL of an instance has moved: commits are durable.
    pub(crate) fn wake_durable(&mut self, id: InstanceId, vdl: Lsn) {
        let Some(base) = &self.base else { return };
        let mut wake = Vec::new();
        for (task, waiting) in &base.waiting {
            if let Wait::Durable(session, lsn) = &waiting.wait
                && session.id == id
                && *lsn <= vdl
            {
                wake.push((*task, waiting.ticket));
            }
        }
        for (task, ticket) in wake {
            self.wake_after(0, (task, ticket), Response::Done);
        }
    }
}
