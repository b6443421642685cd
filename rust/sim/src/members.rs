//! The instances of one opening of a volume: a writer and the replicas that follow it, and who takes whose place.
//!
//! As in the product they live in one process and share its volume. The driver's duties are those in the headers of
//! `proto::replica` and `engine::replica`: every MTR goes into the redo log under the lock that numbers it, a replica takes what
//! [`aurora_proto::RedoLog::next`] gives, and a writer is retired before another one is promoted.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use aurora_engine::{Engine, EngineConfig, HandOver, Role};
use aurora_page::{Lsn, Page};
use aurora_proto::{Next, Volume};

use crate::config::Planted;
use crate::messages::{Event, InstanceId};
use crate::model::Content;
use crate::session::Session;
use crate::volume::SimVolume;
use crate::world::World;

/// Replicas beside the writer, where there are any.
pub(crate) const REPLICAS: usize = 2;
/// Cached pages of a replica that one look compares.
const SAMPLE: usize = 6;

/// An engine of an instance: its writer, or a replica.
pub struct Member {
    /// Its name: never given twice within its instance.
    pub name: String,
    engine: Engine<SimVolume>,
    /// Its place in the redo stream.
    taken: Cell<Lsn>,
    /// The newest state that its readers were shown.
    shown: Cell<Lsn>,
}

impl Deref for Member {
    type Target = Engine<SimVolume>;

    fn deref(&self) -> &Engine<SimVolume> {
        &self.engine
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.name, self.taken.get())
    }
}

/// The members of an opening, each in a seat.
#[derive(Debug)]
pub struct Members {
    seats: RefCell<Vec<Rc<Member>>>,
    writer: Cell<usize>,
    made: Cell<u32>,
    config: EngineConfig,
    planted: Option<Planted>,
}

/// What following led to.
pub(crate) struct Followed {
    /// Was there something to do?
    pub worked: bool,
    /// What must never happen.
    pub wrong: Option<String>,
}

impl Members {
    pub(crate) fn new(
        engine: Engine<SimVolume>,
        config: EngineConfig,
        planted: Option<Planted>,
    ) -> Members {
        let taken = Cell::new(engine.volume().numbered());
        let first = Member {
            name: "member-0".to_owned(),
            engine,
            taken,
            shown: Cell::default(),
        };
        Members {
            seats: RefCell::new(vec![Rc::new(first)]),
            writer: Cell::new(0),
            made: Cell::new(1),
            config,
            planted,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.seats.borrow().len()
    }

    /// Which seat the writer has, or had last.
    pub fn writer(&self) -> usize {
        self.writer.get()
    }

    /// Who has a seat.
    pub fn at(&self, seat: usize) -> Rc<Member> {
        self.seats.borrow()[seat].clone()
    }

    /// The oldest read point that any of them needs.
    pub fn oldest_read_point(&self) -> Lsn {
        let seats = self.seats.borrow();
        let oldest = seats.iter().map(|member| member.oldest_read_point()).min();
        oldest.unwrap_or(Lsn::NONE)
    }

    /// A new follower of the writer, with an empty cache: in a seat of its own, or in that of another one.
    pub(crate) fn add_follower(&self, seat: Option<usize>) -> Result<usize, String> {
        let writer = self.at(self.writer());
        let joined = writer.volume().join_stream();
        let made = self.made.replace(self.made.get() + 1);
        let engine = writer
            .replica(self.config, &writer.name, joined)
            .map_err(|error| error.to_string())?;
        let member = Rc::new(Member {
            name: format!("member-{made}"),
            engine,
            taken: Cell::new(joined),
            shown: Cell::default(),
        });
        let mut seats = self.seats.borrow_mut();
        match seat {
            Some(seat) => {
                seats[seat] = member;
                Ok(seat)
            }
            None => {
                seats.push(member);
                Ok(seats.len() - 1)
            }
        }
    }

    /// Applies what is due, at most so many MTRs.
    pub(crate) fn follow(&self, seat: usize, count_max: usize) -> Followed {
        let member = self.at(seat);
        let (mut worked, mut wrong) = (false, None);
        if matches!(member.role(), Role::Replica { .. }) {
            let vdl = member.volume().vdl();
            match member
                .volume()
                .next_redo(member.taken.get(), vdl, count_max)
            {
                Next::Nothing => {
                    worked = member.readable() < vdl;
                    member.advance(vdl);
                }
                Next::Rejoin(tip) => {
                    member.rejoin(tip);
                    member.taken.set(tip);
                    worked = true;
                }
                Next::Apply(mtrs) => {
                    for redo in &mtrs {
                        let last = redo.numbered.last;
                        if last > vdl {
                            let name = &member.name;
                            wrong =
                                Some(format!("[15] {name} is given {last}, above the VDL {vdl}"));
                        }
                        member.apply(redo);
                        member.taken.set(redo.numbered.last);
                    }
                    worked = true;
                }
            }
            self.trim();
        }
        Followed {
            worked,
            wrong: wrong.or_else(|| member.watch()),
        }
    }

    /// What every replica has taken is given up.
    fn trim(&self) {
        let seats = self.seats.borrow();
        let replicas = seats
            .iter()
            .enumerate()
            .filter(|(seat, _)| *seat != self.writer());
        let slowest = replicas.map(|(_, member)| member.taken.get()).min();
        if let Some(slowest) = slowest {
            seats[0].volume().trim_redo(slowest);
        }
    }

    /// Has a member apply everything up to an LSN, which is durable.
    fn catch_up(&self, seat: usize, upto: Lsn) -> Result<(), String> {
        if self.planted == Some(Planted::PromotedBehind) {
            return Ok(());
        }
        while self.at(seat).readable() < upto {
            let followed = self.follow(seat, usize::MAX);
            if let Some(wrong) = followed.wrong {
                return Err(wrong);
            }
            if !followed.worked && self.at(seat).readable() < upto {
                return Err(format!("{:?} does not come to {upto}", self.at(seat)));
            }
        }
        Ok(())
    }

    /// The writer is to write no more. Gives what the next one may go on with.
    pub(crate) fn retire(&self, next: usize) -> HandOver {
        let role = Role::Fenced {
            writer: self.at(next).name.as_str().into(),
        };
        self.at(self.writer()).retire(role)
    }

    /// Nobody took over: it goes on.
    pub(crate) fn resume(&self, handed: HandOver) {
        self.at(self.writer()).resume(Some(handed));
    }

    /// A member becomes the writer, once all that the one before it numbered is durable. With a hand-over the old writer follows from
    /// now on; otherwise it is made anew.
    pub(crate) fn promote(
        &self,
        seat: usize,
        handed: HandOver,
        is_planned: bool,
    ) -> Result<(), String> {
        let (old, target) = (self.writer(), self.at(seat));
        self.catch_up(seat, target.volume().numbered())?;
        let tip = target.volume().join_stream();
        let last_time_us = handed.last_time_us();
        match is_planned {
            true => target.promote(Some(handed), 0),
            false => target.promote(None, last_time_us),
        }
        self.writer.set(seat);
        for (other, member) in self.seats.borrow().iter().enumerate() {
            if other != seat && other != old {
                member.set_writer(&target.name);
            }
        }
        if is_planned {
            let retired = self.at(old);
            retired.taken.set(tip);
            retired.become_replica(&target.name, tip);
            return Ok(());
        }
        self.add_follower(Some(old)).map(drop)
    }
}

impl Member {
    /// Its readers see nothing that is not durable, and never go back [15].
    fn watch(&self) -> Option<String> {
        let (readable, vdl) = (self.readable(), self.volume().vdl());
        let shown = self.shown.replace(readable);
        if readable > vdl {
            return Some(format!(
                "[15] {} shows {readable}, above the VDL {vdl}",
                self.name
            ));
        }
        (readable < shown)
            .then(|| format!("{} shows {readable} after it has shown {shown}", self.name))
    }
}

impl World {
    /// A replica looks for redo.
    pub(crate) fn on_follow(&mut self, id: InstanceId, seat: usize) {
        let Some(session) = self.session_of(id) else {
            return;
        };
        // Some are slow, so slow that the redo log forgets what they have not taken.
        let delay = match self.work.chance(15) {
            true => self.work.between(300_000, 3_000_000),
            false => self.work.between(200, 25_000),
        };
        let count = self.work.between(1, 8) as usize;
        let followed = session.members.follow(seat, count);
        if let Some(what) = followed.wrong {
            return self.fail(what);
        }
        self.queue.after(delay, Event::Follow(id, seat));
    }

    /// Replicas begin to follow.
    pub(crate) fn start_following(&mut self, session: &Rc<Session>) {
        for _ in 0..REPLICAS {
            match session.members.add_follower(None) {
                Ok(seat) => self.queue.after(1_000, Event::Follow(session.id, seat)),
                Err(error) => self.fail(format!("a replica cannot begin: {error}")),
            }
        }
    }

    fn session_of(&self, id: InstanceId) -> Option<Rc<Session>> {
        let sessions = &self.base.as_ref()?.sessions;
        sessions.iter().find(|session| session.id == id).cloned()
    }

    /// What a replica has in its cache is what the log says, up to where it shows it.
    pub(crate) fn compare_replicas(&mut self) {
        let Some(base) = &self.base else { return };
        let mut looks: Vec<(String, Lsn, Arc<Page>, Rc<Session>)> = Vec::new();
        for session in &base.sessions {
            for seat in 0..session.members.count() {
                if seat == session.members.writer() {
                    continue;
                }
                let member = session.members.at(seat);
                let mut heads = member.cached_heads();
                heads.sort_by_key(|page| page.id());
                while heads.len() > SAMPLE {
                    heads.swap_remove(self.chaos.index(heads.len()));
                }
                let at = member.published();
                let of = |page| (member.name.clone(), at, page, session.clone());
                looks.extend(heads.into_iter().map(of));
            }
        }
        for (name, at, page, session) in looks {
            let (lsn, content) = self.model.content(page.id(), at, &session.history);
            let same = match &content {
                Content::Replayed(expected) => {
                    aurora_page::canonical(expected) == aurora_page::canonical(&page)
                }
                _ => page.lsn().is_none(),
            };
            if !same {
                let id = session.id;
                return self.fail(format!(
                    "{name} of {id} has {page:?} at {at}, and the page's newest change is {lsn}"
                ));
            }
        }
    }
}
