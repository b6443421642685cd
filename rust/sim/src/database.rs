//! The world's side of a database: it answers what clients wait for.
//!
//! This is the shell that the header of `aurora-engine` asks for: pages are fetched over the network from a copy that the production
//! router chooses, with a second one asked when the first is late; the volume grows by the manifest's CAS; commits wait for the VDL.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use aurora_engine::{Engine, EngineConfig, LockWait};
use aurora_page::{Lsn, Page, PageId};
use aurora_proto::{MetaStore, NodeId, NodeSet, ReadRouter, Volume};
use aurora_redo::{History, PgId, Record};
use aurora_store::StoreError;

use crate::instance::Instance;
use crate::machine::{Machine, Out};
use crate::messages::{Event, InstanceId, ToInstance, ToNode};
use crate::model::{Change, Numbered};
use crate::session::{Client, Granted, Hub, Request, Response, Session, Task};
use crate::workloads::Workload;
use crate::world::{ORIGIN, World};

/// A client waits so long for a commit to become durable; then it looks for another writer.
const PATIENCE_US: u64 = 6_000_000;
/// A read that nobody answers is given up.
const READ_US_MAX: u64 = 6_000_000;
/// A read is asked of another copy after so long at the latest.
const ASK_AGAIN_US_MAX: u64 = 120_000;
/// A client waits so long for a lock: some wait less than others.
const LOCK_US: (u64, u64) = (50_000, 3_000_000);
/// Tokens are kept for so long.
const TOKENS_KEPT_US: i64 = 15_000_000;

/// Which client.
pub type TaskId = usize;

/// What a client is waiting for.
#[derive(Debug)]
enum Wait {
    Timer,
    Session,
    Durable(Rc<Session>, Lsn),
    Read(Rc<Session>),
    Lock(Rc<Session>, LockWait),
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    wait: Wait,
}

#[derive(Debug)]
struct Read {
    task: TaskId,
    ticket: u64,
    session: Rc<Session>,
    page: PageId,
    at: Lsn,
    asked: NodeSet,
    /// Copies that have failed since somebody was last asked anew.
    too_old: bool,
    began_us: u64,
}

/// Clients, sessions and reads on their way.
pub(crate) struct Base {
    pub(crate) hub: Rc<Hub>,
    pub(crate) sessions: Vec<Rc<Session>>,
    tasks: Vec<Option<Task>>,
    /// The first so many are the workload's.
    clients: usize,
    waiting: BTreeMap<TaskId, Waiting>,
    /// The instance in whose process a client runs.
    bound: BTreeMap<TaskId, InstanceId>,
    reads: BTreeMap<u64, Read>,
    router: ReadRouter,
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

/// What a node says instead of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPage {
    /// What was to be read is collected.
    TooOld,
    /// Its copy is damaged, or it does not hold the epoch.
    Other,
}

impl World {
    /// Clients begin.
    pub(crate) fn start_clients(&mut self) {
        let count = self.base.as_ref().map_or(0, |base| base.tasks.len());
        for task in 0..count {
            self.queue.after(
                task as u64,
                Event::Wake {
                    task,
                    ticket: 0,
                    response: Response::Done,
                },
            );
        }
    }

    /// A volume was opened: an engine for it, and a client that tidies up.
    pub(crate) fn open_session(&mut self, id: InstanceId) {
        let last_time_us = self.model.mtrs().map(|mtr| mtr.time_us).max().unwrap_or(0);
        let skew_us = self.chaos.between(0, 4_000_000) as i64 - 2_000_000;
        let (cache_bytes, conflict_bytes) = (self.config.cache_bytes, self.config.conflict_bytes);
        let Some(base) = &mut self.base else { return };
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        let config = EngineConfig {
            cache_bytes,
            conflict_bytes,
            last_time_us,
            ..EngineConfig::default()
        };
        let engine = match Engine::new(writing.volume.clone(), config) {
            Ok(engine) => engine,
            Err(error) => return self.fail(format!("an engine cannot begin: {error}")),
        };
        let granted = Arc::new(Granted::default());
        engine.set_lock_waker(granted.clone());
        let session = Rc::new(Session {
            id,
            epoch: writing.writer().epoch(),
            history: Arc::clone(&writing.history),
            volume: writing.volume.clone(),
            engine,
            granted,
            skew_us: std::cell::Cell::new(skew_us),
            alive: std::cell::Cell::new(true),
        });
        base.sessions.push(session.clone());
        *base.hub.newest.borrow_mut() = Some(session.clone());
        let keeper = base.tasks.len();
        let client = Client {
            hub: base.hub.clone(),
            number: 100 + id.0,
        };
        base.tasks.push(Some(Box::pin(keep(client, session))));
        base.bound.insert(keeper, id);
        let mut wake: Vec<(TaskId, u64)> = vec![(keeper, 0)];
        for (task, waiting) in &base.waiting {
            if matches!(waiting.wait, Wait::Session) {
                wake.push((*task, waiting.ticket));
            }
        }
        for (task, ticket) in wake {
            let delay = self.work.between(100, 20_000);
            let response = Response::Done;
            self.queue.after(
                delay,
                Event::Wake {
                    task,
                    ticket,
                    response,
                },
            );
        }
    }

    /// Sessions whose process died or was overtaken end, and with them what their clients wait for.
    pub(crate) fn reap_sessions(&mut self) {
        let Some(base) = &mut self.base else { return };
        base.hub.epoch.set(self.meta.epoch());
        let instances = &self.instances;
        let dead = |session: &Rc<Session>| {
            let writing = instances.get(&session.id).and_then(Instance::written);
            writing.is_none_or(|writing| writing.writer().fenced_by().is_some())
        };
        if !base.sessions.iter().any(dead) {
            return;
        }
        let (gone, alive) = base.sessions.drain(..).partition(|session| dead(session));
        base.sessions = alive;
        let gone: Vec<Rc<Session>> = gone;
        let mut wake = Vec::new();
        for session in &gone {
            session.alive.set(false);
            for (task, waiting) in &base.waiting {
                if let Wait::Durable(of, _) | Wait::Read(of) | Wait::Lock(of, _) = &waiting.wait
                    && Rc::ptr_eq(of, session)
                {
                    wake.push((*task, waiting.ticket));
                }
            }
        }
        base.reads.retain(|_, read| read.session.alive.get());
        for session in gone {
            self.note(format_args!("{session:?} ends"));
        }
        for (task, ticket) in wake {
            let delay = self.work.between(0, 2_000);
            self.queue.after(
                delay,
                Event::Wake {
                    task,
                    ticket,
                    response: Response::Gone,
                },
            );
        }
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
                    && Rc::ptr_eq(of, session)
                    && granted.contains(&wait.txn)
                {
                    wake.push((*task, waiting.ticket));
                }
            }
        }
        for (task, ticket) in wake {
            let delay = self.work.between(0, 500);
            let response = Response::Done;
            self.queue.after(
                delay,
                Event::Wake {
                    task,
                    ticket,
                    response,
                },
            );
        }
    }

    /// What engines have numbered goes to the model, and to the copies.
    fn collect_appended(&mut self) {
        let Some(base) = &self.base else { return };
        for session in base.sessions.clone() {
            let appended = session.volume.take_appended();
            if appended.is_empty() {
                continue;
            }
            for one in appended {
                let (id, epoch) = (session.id, session.epoch);
                let aurora_proto::Numbered { base, last } = one.numbered;
                self.note(format_args!("{id} numbers {base}..{last}"));
                let page_bytes = self.config.page_bytes;
                if let Some(what) = self.unchained(&session.history, &one.records) {
                    self.fail(what);
                }
                let changes: Vec<(PageId, Change)> = one
                    .records
                    .into_iter()
                    .map(|record| (record.page, Change::Logged(Box::new(record), page_bytes)))
                    .collect();
                let mtr = Numbered {
                    origin: ORIGIN,
                    base,
                    last,
                    time_us: one.time_us,
                    epoch,
                    acknowledged: false,
                };
                if let Some(earlier) = self.model.newest_time(epoch, base)
                    && earlier >= mtr.time_us
                {
                    self.fail(format!(
                        "a commit at {} follows one at {earlier}",
                        mtr.time_us
                    ));
                }
                if let Err(what) = self.model.numbered(mtr, &changes) {
                    self.fail(what);
                }
            }
            let mut sends = Vec::new();
            if let Some(writing) = self
                .instances
                .get_mut(&session.id)
                .and_then(Instance::writing)
            {
                writing.send(&mut sends);
            }
            self.send(session.id, sends);
        }
    }

    /// A record that does not follow the newest one of its page [5].
    fn unchained(&self, history: &History, records: &[Record]) -> Option<String> {
        let mut newest: BTreeMap<PageId, Lsn> = BTreeMap::new();
        for record in records {
            let before = newest.insert(record.page, record.lsn);
            if record.starts_life() {
                continue;
            }
            let before = before
                .unwrap_or_else(|| self.model.newest_change(record.page, record.lsn, history));
            if record.prev_page != before {
                return Some(format!(
                    "[5] record {} of page {} follows {}, but the page's newest change is {before}",
                    record.lsn, record.page, record.prev_page
                ));
            }
        }
        None
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
                    () if !session.engine.is_lock_awaited(&wait) => (0, Response::Done),
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
            Request::Page(session, page, at) => {
                let read = Read {
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
        };
        let reads = matches!(wait, Wait::Read(_));
        if let Some(base) = &mut self.base {
            base.waiting.insert(task, Waiting { ticket, wait });
        }
        if let Some((delay, response)) = soon {
            self.queue.after(
                delay,
                Event::Wake {
                    task,
                    ticket,
                    response,
                },
            );
        }
        if reads {
            self.ask_copy(ticket);
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

    /// Asks the next copy for a page, and sees to it that another one is asked if it does not answer.
    fn ask_copy(&mut self, ticket: u64) {
        let anywhere = self.config.has(crate::config::Planted::ReadAnywhere);
        let Some(base) = &mut self.base else { return };
        let Some(read) = base.reads.get_mut(&ticket) else {
            return;
        };
        let pg = PgId((read.page.0 / self.config.segment_pages) as u32);
        let writer = read.session.volume.writer();
        let candidates = match anywhere {
            true => writer.membership(pg).map_or(NodeSet::EMPTY, |m| m.nodes()),
            false => writer.readable(pg, read.at),
        };
        let epoch = writer.epoch();
        drop(writer);
        let fresh = candidates.difference(read.asked);
        let node = base.router.choose(fresh);
        let delay = match node {
            Some(node) => {
                read.asked.insert(node);
                base.router.hedge_after_us(node).min(ASK_AGAIN_US_MAX)
            }
            // Everybody was asked: from the beginning.
            None => {
                read.asked = NodeSet::EMPTY;
                ASK_AGAIN_US_MAX
            }
        };
        let (from, page, at) = (read.session.id, read.page, read.at);
        self.queue.after(delay, Event::AskAgain(ticket));
        if let Some(node) = node {
            let message = ToNode::Read {
                read: ticket,
                page,
                at,
                epoch,
            };
            self.send(from, vec![(node, message)]);
        }
    }

    pub(crate) fn on_ask_again(&mut self, ticket: u64) {
        let now = self.queue.now_us();
        let Some(base) = &mut self.base else { return };
        let Some(read) = base.reads.get(&ticket) else {
            return;
        };
        if now - read.began_us > READ_US_MAX {
            return self.end_read(ticket, Response::Gone);
        }
        self.ask_copy(ticket);
    }

    fn end_read(&mut self, ticket: u64, response: Response) {
        let read = self
            .base
            .as_mut()
            .and_then(|base| base.reads.remove(&ticket));
        if let Some(Read { task, ticket, .. }) = read {
            self.on_wake(task, ticket, response);
        }
    }

    /// A copy has answered a read.
    pub(crate) fn on_page(&mut self, node: NodeId, ticket: u64, page: Result<Arc<Page>, NoPage>) {
        let now = self.queue.now_us();
        let Some(base) = &mut self.base else { return };
        let Some(read) = base.reads.get_mut(&ticket) else {
            return;
        };
        match page {
            Ok(page) => {
                base.router.on_reply(node, now - read.began_us);
                let installed = read
                    .session
                    .engine
                    .install(read.page, (*page).clone(), read.at);
                if let Err(error) = installed {
                    return self.fail(format!("{node} sends a page that cannot be: {error}"));
                }
                self.end_read(ticket, Response::Done);
            }
            Err(NoPage::TooOld) if read.too_old => self.end_read(ticket, Response::TooOld),
            Err(no_page) => {
                base.router.on_error(node);
                // One copy may have been told of a floor for another time: ask a second one.
                read.too_old |= no_page == NoPage::TooOld;
            }
        }
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
            let response = Response::Done;
            self.queue.after(
                0,
                Event::Wake {
                    task,
                    ticket,
                    response,
                },
            );
        }
    }

    /// The newest session, if its instance may write.
    pub(crate) fn session(&self) -> Option<Rc<Session>> {
        let base = self.base.as_ref()?;
        let newest = base.hub.newest.borrow().clone()?;
        (newest.alive.get() && newest.epoch == self.meta.epoch()).then_some(newest)
    }
}

/// Background work of an engine: what the header of `aurora-engine` asks for in its fifth point.
async fn keep(client: Client, session: Rc<Session>) {
    // Whoever is in doubt about a commit of an earlier writer has asked by then.
    client.sleep(TOKENS_KEPT_US as u64).await;
    while session.alive.get() && !client.ending() {
        client.pause(1_000_000, 5_000_000).await;
        let now = client.now_us(&session);
        let _ = client
            .step(&session, |engine| {
                engine.purge_tokens(now - TOKENS_KEPT_US, client.now_us(&session))
            })
            .await;
        let _ = client
            .step(&session, |engine| engine.sweep(client.now_us(&session)))
            .await;
    }
}

impl Machine {
    pub(crate) fn on_read(
        &mut self,
        id: NodeId,
        from: InstanceId,
        (read, page, at, epoch): (u64, PageId, Lsn, u64),
        outs: &mut Vec<Out>,
    ) {
        let Some(node) = self.alive(id) else { return };
        let Some(store) = &node.store else { return };
        let page = match node.installed == epoch {
            false => Err(NoPage::Other),
            true => match store.materialise(page, at, &node.history) {
                Ok(page) => Ok(Arc::new(page)),
                Err(StoreError::BelowFloor { .. }) => Err(NoPage::TooOld),
                Err(error) => {
                    outs.push(Out::Note(format!(
                        "{id} cannot read page {page} at {at}: {error}"
                    )));
                    Err(NoPage::Other)
                }
            },
        };
        outs.push(Out::Reply {
            to: from,
            node: id,
            message: ToInstance::Page { read, page },
        });
    }
}
