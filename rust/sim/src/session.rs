//! Clients of the database of a world: coroutines that run engine steps and wait in virtual time.
//!
//! A client is an `async fn`. It waits only by asking the world ([`Request`]): for a page, for the VDL, for room, for time to
//! pass, for a writer to connect to. The world polls one client at a time, so a run is one sequence of steps; where clients
//! interleave is decided by when their requests are answered, which is the seed's doing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use aurora_engine::{Attempt, Commit, Engine, EngineError, ErrorClass, Isolation, LockWait};
use aurora_engine::{LoadBlob, LockWaker, Mode, Stop, Table, Txn, TxnId};
use aurora_page::{Lsn, PageId};
use aurora_proto::Refused;
use aurora_redo::{BlobId, History, PgId};
use parking_lot::Mutex;

use crate::blobs::Sealed;
use crate::members::{Member, Members};
use crate::messages::InstanceId;
use crate::rng::Rng;
use crate::volume::SimVolume;

/// One engine over one opening of the volume. Clients of a writer that was overtaken go on with theirs until they notice.
pub struct Session {
    /// The instance.
    pub id: InstanceId,
    /// Its epoch.
    pub epoch: u64,
    /// The History that it opened.
    pub history: Arc<History>,
    /// Its volume.
    pub volume: Arc<SimVolume>,
    /// The production engines: a writer, and replicas.
    pub members: Rc<Members>,
    /// The seat whose engine is meant, where it is not that of whoever writes.
    pub seat: Option<usize>,
    /// Who got locks and has not been told yet.
    pub granted: Arc<Granted>,
    /// How far the instance's clock is off, in microseconds.
    pub skew_us: Rc<Cell<i64>>,
    /// False once the process is dead or knows that it was overtaken.
    pub alive: Rc<Cell<bool>>,
}

impl Session {
    /// The engine that this session is connected to.
    pub fn engine(&self) -> Rc<Member> {
        let seat = self.seat.unwrap_or_else(|| self.members.writer());
        self.members.at(seat)
    }

    /// The same opening, by way of one of its members.
    pub fn by(&self, seat: usize) -> Rc<Session> {
        Rc::new(Session {
            seat: Some(seat),
            history: Arc::clone(&self.history),
            volume: Arc::clone(&self.volume),
            members: Rc::clone(&self.members),
            granted: Arc::clone(&self.granted),
            skew_us: Rc::clone(&self.skew_us),
            alive: Rc::clone(&self.alive),
            ..*self
        })
    }
}

/// Transactions that were handed a lock: the engine puts them down, the world wakes their clients.
#[derive(Debug, Default)]
pub struct Granted(Mutex<Vec<TxnId>>);

impl Granted {
    /// Those since it was last asked.
    pub fn take(&self) -> Vec<TxnId> {
        std::mem::take(&mut self.0.lock())
    }
}

impl LockWaker for Granted {
    fn wake(&self, granted: &[TxnId]) {
        self.0.lock().extend(granted);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session of {} e{}", self.id, self.epoch)
    }
}

/// What a client waits for.
#[derive(Debug)]
pub enum Request {
    /// Time.
    Sleep(u64),
    /// A writer.
    Session,
    /// A page as of an LSN, installed in the engine that needs it.
    Page(Rc<Session>, Rc<Member>, PageId, Lsn),
    /// Another segment, when there were so many.
    Grow(Rc<Session>, u64),
    /// The VDL at this LSN.
    Durable(Rc<Session>, Lsn),
    /// A lock that another transaction has.
    Lock(Rc<Session>, LockWait),
    /// A blob of a bulk load at a write quorum.
    Store(Rc<Session>, Arc<Sealed>),
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// As asked for.
    Done,
    /// The instance is dead, overtaken, or gives no answer.
    Gone,
    /// What was to be read is collected.
    TooOld,
    /// The lock has not come in the time that the client has for it.
    Late,
}

/// What the world and its clients share.
#[derive(Debug)]
pub struct Hub {
    pub(crate) now_us: Cell<u64>,
    /// Counts what clients begin and end, so that real time has an order even within one microsecond.
    order: Cell<u64>,
    pub(crate) ending: Cell<bool>,
    /// The tables and first rows are there.
    pub(crate) ready: Cell<bool>,
    /// What was numbered by then, the tables are in.
    pub(crate) ready_at: Cell<Lsn>,
    /// The faults are over and every copy is complete.
    pub(crate) rested: Cell<bool>,
    pub(crate) verified: Cell<bool>,
    pub(crate) rng: RefCell<Rng>,
    pub(crate) notes: RefCell<Vec<String>>,
    pub(crate) failure: RefCell<Option<String>>,
    pub(crate) request: RefCell<Option<Request>>,
    pub(crate) response: Cell<Option<Response>>,
    pub(crate) newest: RefCell<Option<Rc<Session>>>,
    /// The epoch of the manifest as it is.
    pub(crate) epoch: Cell<u64>,
    pub(crate) tables: RefCell<Vec<(Arc<Table>, Vec<aurora_engine::Run>)>>,
    /// Every blob that a client ever sealed: what references mean.
    pub(crate) blobs: RefCell<BTreeMap<BlobId, Arc<Sealed>>>,
    pub(crate) commits: Cell<u64>,
    pub(crate) in_doubt: Cell<u64>,
    pub(crate) reads: Cell<u64>,
    /// Locks that came after a wait.
    pub(crate) lock_waits: Cell<u64>,
    /// Waits for locks that ended without them: nobody gave them back in time, or never would have.
    pub(crate) lock_fails: Cell<u64>,
}

impl Hub {
    /// Nothing has happened yet.
    pub fn new(rng: Rng) -> Rc<Hub> {
        Rc::new(Hub {
            now_us: Cell::new(0),
            order: Cell::new(0),
            ending: Cell::new(false),
            ready: Cell::new(false),
            ready_at: Cell::new(Lsn::NONE),
            rested: Cell::new(false),
            verified: Cell::new(false),
            rng: RefCell::new(rng),
            notes: RefCell::default(),
            failure: RefCell::default(),
            request: RefCell::default(),
            response: Cell::new(None),
            newest: RefCell::default(),
            epoch: Cell::new(1),
            tables: RefCell::default(),
            blobs: RefCell::default(),
            commits: Cell::new(0),
            in_doubt: Cell::new(0),
            reads: Cell::new(0),
            lock_waits: Cell::new(0),
            lock_fails: Cell::new(0),
        })
    }

    /// Places of beginnings and ends in real time.
    pub fn next_order(&self) -> u64 {
        self.order.set(self.order.get() + 1);
        self.order.get()
    }
}

/// Why a step of a client failed.
#[derive(Debug)]
pub enum Fail {
    /// The instance is gone, and nothing of the transaction has happened or will.
    Gone,
    /// The instance went while the commit was on its way: it happened, or it did not and never will.
    InDoubt,
    /// Another transaction was first, or the volume is pressed: begin again.
    Retry(EngineError),
    /// What was to be read is not kept any more.
    TooOld,
    /// The engine refused.
    Refused(EngineError),
}

/// A future of a client.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The hands of a client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Shared with the world.
    pub hub: Rc<Hub>,
    /// Its number.
    pub number: u32,
}

/// Asks the world once, and waits for its answer.
struct Ask<'h> {
    hub: &'h Hub,
    request: Option<Request>,
}

impl Future for Ask<'_> {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Response> {
        match self.request.take() {
            Some(request) => {
                *self.hub.request.borrow_mut() = Some(request);
                Poll::Pending
            }
            None => Poll::Ready(self.hub.response.take().unwrap_or(Response::Gone)),
        }
    }
}

impl Client {
    fn ask(&self, request: Request) -> Ask<'_> {
        let request = Some(request);
        Ask {
            hub: &self.hub,
            request,
        }
    }

    /// Lets virtual time pass.
    pub async fn sleep(&self, us: u64) {
        self.ask(Request::Sleep(us)).await;
    }

    /// A random time between two.
    pub async fn pause(&self, least_us: u64, most_us: u64) {
        let us = self.between(least_us, most_us);
        self.sleep(us).await;
    }

    /// A writer to work with.
    pub async fn session(&self) -> Rc<Session> {
        loop {
            self.ask(Request::Session).await;
            let newest = self.hub.newest.borrow().clone();
            if let Some(session) = newest.filter(|session| session.alive.get()) {
                return session;
            }
        }
    }

    /// Waits until the setup has come through.
    pub async fn when_ready(&self) {
        while !self.hub.ready.get() {
            self.sleep(50_000).await;
        }
    }

    /// Random numbers, of which all clients share one sequence.
    pub fn below(&self, n: u64) -> u64 {
        self.hub.rng.borrow_mut().below(n)
    }

    /// A random number in `low..=high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        self.hub.rng.borrow_mut().between(low, high)
    }

    /// True in so many of a thousand cases.
    pub fn chance(&self, per_mille: u32) -> bool {
        self.hub.rng.borrow_mut().chance(per_mille)
    }

    /// For the trace.
    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        let line = format!("c{} {what}", self.number);
        self.hub.notes.borrow_mut().push(line);
    }

    /// Something that must never happen.
    pub fn fail(&self, what: String) {
        self.hub.failure.borrow_mut().get_or_insert(what);
    }

    /// Is it time to stop?
    pub fn ending(&self) -> bool {
        self.hub.ending.get()
    }

    /// The clock of the session's machine.
    pub fn now_us(&self, session: &Session) -> i64 {
        self.hub.now_us.get() as i64 + 1_000_000 + session.skew_us.get()
    }

    /// Runs a step of the engine to its end, serving its stops.
    pub async fn step<T>(
        &self,
        session: &Rc<Session>,
        mut step: impl FnMut(&Engine<SimVolume>) -> Attempt<T>,
    ) -> Result<T, Fail> {
        loop {
            if !session.alive.get() {
                return Err(Fail::Gone);
            }
            let seen = aurora_proto::Volume::segments(&*session.volume);
            let member = session.engine();
            let stop = match step(&member) {
                Ok(done) => return Ok(done),
                Err(stop) => stop,
            };
            let request = match stop {
                Stop::NeedPage { page, at } => Request::Page(session.clone(), member, page, at),
                Stop::NeedSegment => Request::Grow(session.clone(), seen),
                Stop::WaitLsn(lsn) => Request::Durable(session.clone(), lsn),
                Stop::WaitLock(wait) => {
                    self.lock(session, wait).await?;
                    continue;
                }
                Stop::Failed(error) => return Err(self.failed(session, error).await),
            };
            match self.ask(request).await {
                Response::Done => {}
                Response::TooOld => return Err(Fail::TooOld),
                Response::Gone | Response::Late => return Err(Fail::Gone),
            }
        }
    }

    /// Waits for a lock; after that the step is tried again.
    async fn lock(&self, session: &Rc<Session>, wait: LockWait) -> Result<(), Fail> {
        let began_us = self.hub.now_us.get();
        match self.ask(Request::Lock(session.clone(), wait)).await {
            Response::Done => {}
            Response::Late => {
                let waited_ms = (self.hub.now_us.get() - began_us) / 1000;
                if let Some(error) = session.engine().leave_lock(&wait, waited_ms) {
                    return Err(self.failed(session, error).await);
                }
            }
            Response::Gone | Response::TooOld => return Err(Fail::Gone),
        }
        self.hub.lock_waits.set(self.hub.lock_waits.get() + 1);
        Ok(())
    }

    /// An error that rests on another's row is told once that row is durable [15].
    async fn failed(&self, session: &Rc<Session>, error: EngineError) -> Fail {
        let rests_on = error.rests_on();
        if let Err(fail) = self.durable(session, rests_on).await {
            return fail;
        }
        if let EngineError::Deadlock { .. } | EngineError::LockTimeout { .. } = &error {
            self.hub.lock_fails.set(self.hub.lock_fails.get() + 1);
            self.note(format_args!("gives up a lock: {error}"));
        }
        match error {
            EngineError::Volume(Refused::Fenced { .. }) => Fail::Gone,
            EngineError::Volume(_) => {
                self.sleep(20_000).await;
                Fail::Retry(error)
            }
            error => match error.class() {
                ErrorClass::Retry => Fail::Retry(error),
                ErrorClass::Corrupt => {
                    self.fail(format!("the engine of {} reads: {error}", session.id));
                    Fail::Refused(error)
                }
                _ => Fail::Refused(error),
            },
        }
    }

    /// Waits until everything up to `lsn` is durable.
    pub async fn durable(&self, session: &Rc<Session>, lsn: Lsn) -> Result<(), Fail> {
        if lsn <= aurora_proto::Volume::vdl(&*session.volume) {
            return Ok(());
        }
        match self.ask(Request::Durable(session.clone(), lsn)).await {
            Response::Done => Ok(()),
            _ => Err(Fail::Gone),
        }
    }

    /// A transaction.
    pub async fn begin(&self, session: &Rc<Session>, mode: Mode) -> Result<Txn, Fail> {
        self.step(session, |engine| engine.begin(mode)).await
    }

    /// A transaction at a level.
    pub async fn begin_isolated(
        &self,
        session: &Rc<Session>,
        isolation: Isolation,
    ) -> Result<Txn, Fail> {
        self.begin_at(session, isolation, true).await
    }

    /// A transaction at a level, which may write or not.
    pub async fn begin_at(
        &self,
        session: &Rc<Session>,
        isolation: Isolation,
        writable: bool,
    ) -> Result<Txn, Fail> {
        self.step(session, |engine| engine.begin_isolated(isolation, writable))
            .await
    }

    /// Commits and waits until that is durable.
    pub async fn commit(
        &self,
        session: &Rc<Session>,
        txn: &mut Txn,
        token: Option<&str>,
    ) -> Result<Commit, Fail> {
        let commit = self
            .step(session, |engine| {
                engine.commit(txn, self.now_us(session), token)
            })
            .await?;
        self.acknowledged(session, commit).await
    }

    /// Waits until a commit is durable.
    pub async fn acknowledged(
        &self,
        session: &Rc<Session>,
        commit: Commit,
    ) -> Result<Commit, Fail> {
        match self.durable(session, commit.lsn.max(commit.after)).await {
            Ok(()) => {
                self.hub.commits.set(self.hub.commits.get() + 1);
                Ok(commit)
            }
            Err(_) => {
                self.hub.in_doubt.set(self.hub.in_doubt.get() + 1);
                Err(Fail::InDoubt)
            }
        }
    }

    /// Has a write quorum store a blob.
    pub async fn store(&self, session: &Rc<Session>, blob: &LoadBlob) -> Result<(), Fail> {
        let sealed = Arc::new(Sealed {
            id: blob.id,
            pg: PgId(blob.segment as u32),
            pages: blob.seal().into_iter().map(Into::into).collect(),
        });
        self.hub
            .blobs
            .borrow_mut()
            .insert(blob.id, Arc::clone(&sealed));
        if !session.alive.get() {
            return Err(Fail::Gone);
        }
        match self.ask(Request::Store(session.clone(), sealed)).await {
            Response::Done => Ok(()),
            _ => Err(Fail::Gone),
        }
    }

    /// Whether a commit with this token happened, asked until somebody knows.
    pub async fn resolve(&self, token: &str) -> bool {
        loop {
            let session = self.session().await;
            let asked = self
                .step(&session, |engine| engine.token_status(token))
                .await;
            if let Ok(status) = asked {
                // No record yet: the writer that might have been about to write one is fenced, as this one is open.
                let Some(commit) = status else { return false };
                if self.durable(&session, commit.lsn).await.is_ok() {
                    return true;
                }
            }
            self.sleep(30_000).await;
        }
    }

    /// Is the session's writer the one that may write?
    pub fn is_current(&self, session: &Session) -> bool {
        session.alive.get() && session.epoch == self.hub.epoch.get()
    }
}
