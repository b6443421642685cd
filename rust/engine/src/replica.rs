//! An engine that follows a writer: a replica, and how it becomes the writer.
//!
//! - Redo changes only pages that are cached, an MTR at once: all its pages first, then what readers may read moves
//!   over it [15]. What is not cached is not touched; that something passed is noted, so that a fetch that was asked
//!   for before is not taken for the newest version.
//! - A replica's read points are at or below what it has applied, which is at or below the VDL.
//! - Promotion is local: the cache stays. What only a writer needs comes from the one before, if that could hand it over, and
//!   begins anew otherwise.
//! - Read points and definitions are shared by all instances of a volume, so a transaction goes on at whoever writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_page::planted::{self, Fault};
use aurora_page::{Lsn, PageId};
use aurora_proto::{Redo, Volume};
use aurora_redo::{History, Op, Record};
use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::engine::{Committing, Engine};
use crate::error::{Attempt, EngineError};

/// What an engine may do with its volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// It writes; there is one.
    Writer,
    /// It follows the writer of this name.
    Replica {
        /// Who writes.
        writer: Arc<str>,
    },
    /// It was the writer, and another took its place without asking.
    Fenced {
        /// Who writes now.
        writer: Arc<str>,
    },
    /// It broke down within a change: what it has in memory cannot be trusted.
    Crashed,
}

/// The role, with the question that every change asks beside it.
pub(crate) struct RoleCell {
    role: RwLock<Role>,
    writes: AtomicBool,
}

impl RoleCell {
    pub fn new(role: Role) -> RoleCell {
        let writes = AtomicBool::new(writes(&role));
        RoleCell {
            role: RwLock::new(role),
            writes,
        }
    }

    fn set(&self, role: Role) {
        let mut place = self.role.write();
        self.writes.store(writes(&role), Ordering::Release);
        *place = role;
    }
}

fn writes(role: &Role) -> bool {
    matches!(role, Role::Writer)
}

/// What one writer hands to the next: who changed what lately, where there is room, which loads are under way.
pub struct HandOver(Committing);

impl HandOver {
    /// The latest commit time that the writer gave.
    pub fn last_time_us(&self) -> i64 {
        self.0.last_time_us
    }
}

/// Armed while an MTR is being made: dropped by a panic, it ends the engine.
pub(crate) struct Making<'e> {
    role: &'e RoleCell,
    armed: bool,
}

impl Making<'_> {
    /// The MTR came to an end, good or bad.
    pub fn ended(mut self) {
        self.armed = false;
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.role.set(Role::Crashed);
        }
    }
}

impl<V: Volume> Engine<V> {
    /// What this engine may do.
    pub fn role(&self) -> Role {
        self.role.role.read().clone()
    }

    /// Whether it takes changes.
    #[inline]
    pub fn is_writer(&self) -> bool {
        self.role.writes.load(Ordering::Acquire)
    }

    /// Whether it takes new read-write transactions; if not, why.
    pub(crate) fn check_begin(&self) -> Attempt<()> {
        match &*self.role.role.read() {
            Role::Writer => Ok(()),
            Role::Replica { writer } => Err(EngineError::ReadOnlyInstance {
                writer: writer.to_string(),
            }
            .into()),
            other => Err(moved(other).into()),
        }
    }

    /// Whether it takes a change; if not, why. Under the commit lock.
    pub(crate) fn begin_change(&self) -> Attempt<Making<'_>> {
        if self.is_writer() {
            let role = &self.role;
            return Ok(Making { role, armed: true });
        }
        Err(moved(&self.role.role.read()).into())
    }

    /// Ends this engine as a writer, and gives what the next one goes on with. When this returns, none of its changes is under
    /// way and none will come.
    pub fn retire(&self, role: Role) -> HandOver {
        let mut committing = self.committing.lock();
        if !planted::is(Fault::RetiredWrites) {
            self.role.set(role);
        }
        let newest = self.volume.numbered();
        let anew = Committing::new(
            &self.config,
            newest,
            committing.last_time_us,
            committing.branch,
        );
        HandOver(std::mem::replace(&mut committing, anew))
    }

    /// The opposite of [`Engine::retire`], when nobody took over: it goes on as the writer.
    pub fn resume(&self, handed: Option<HandOver>) {
        let mut committing = self.committing.lock();
        if let Some(handed) = handed {
            *committing = handed.0;
        }
        self.role.set(Role::Writer);
    }

    /// As if it had broken down: for tests of what then happens. Waits for nothing, as a crash does not.
    pub fn crash(&self) {
        self.role.set(Role::Crashed);
    }

    /// Makes a follower of an engine that has everything up to `at`, and nothing above it.
    pub fn become_replica(&self, writer: &str, at: Lsn) {
        self.pool.lower_floor(at);
        self.published.store(at.0, Ordering::Release);
        self.set_writer(writer);
    }

    /// The writer that this engine follows has this name now.
    pub fn set_writer(&self, writer: &str) {
        self.role.set(Role::Replica {
            writer: writer.into(),
        });
    }

    /// Begins anew as a follower with an empty cache: nothing up to `joined` will be told.
    pub fn rejoin(&self, joined: Lsn) {
        self.pool.restart(joined);
    }

    /// Goes over to another branch of the volume together with its writer, within [`Engine::rebranch`]: what is cached is dropped,
    /// and readers read at the branch point `at`.
    pub fn rebranch_follower(&self, history: &Arc<History>, at: Lsn) {
        self.pool.rebranch(self.branch() + 1, history, None, at);
        self.published.store(at.0, Ordering::Release);
    }

    /// Applies one MTR to the pages that are cached, then lets readers see it. MTRs come in order, each once, and none
    /// before it is durable. Gives the number of pages that were changed.
    pub fn apply(&self, redo: &Redo) -> usize {
        let mut by_page: SmallVec<[(PageId, SmallVec<[Record; 2]>); 4]> = SmallVec::new();
        for record in redo.records() {
            match by_page.iter_mut().find(|(page, _)| *page == record.page) {
                Some((_, records)) => records.push(record),
                None => by_page.push((record.page, SmallVec::from_iter([record]))),
            }
        }
        let mut changed = 0;
        for (page, records) in by_page {
            // A page whose content comes from a blob is read from storage when it is wanted.
            let refers =
                |record: &Record| matches!(Op::parse(&record.op), Ok(Op::Reference { .. }));
            if records.iter().any(refers) {
                self.pool.forget(page, redo.numbered.last);
            } else if self.pool.apply(page, records.into_vec()) {
                changed += 1;
            }
        }
        self.advance(redo.numbered.last);
        changed
    }

    /// Readers may read up to here: everything at or below it has been applied.
    pub fn advance(&self, applied: Lsn) {
        self.published.fetch_max(applied.0, Ordering::AcqRel);
    }

    /// Makes a follower the writer. It has applied everything up to the VDL, and nothing above it exists. Without a hand-over,
    /// transactions that are open find a changed row where they cannot know whether it was changed.
    pub fn promote(&self, handed: Option<HandOver>, last_time_us: i64) {
        let mut committing = self.committing.lock();
        let at = self.volume.vdl();
        let last_time_us = committing.last_time_us.max(last_time_us);
        *committing = match handed {
            Some(HandOver(handed)) => handed,
            None => Committing::new(&self.config, at, last_time_us, self.branch()),
        };
        // What it reserved when it was the writer before lies below what others have given since.
        self.sequences.lock().clear();
        self.pool.lower_floor(at);
        self.published.store(at.0, Ordering::Release);
        self.role.set(Role::Writer);
    }

    /// Whether it has broken down.
    pub fn is_crashed(&self) -> bool {
        matches!(&*self.role.role.read(), Role::Crashed)
    }
}

fn moved(role: &Role) -> EngineError {
    let (what, writer) = match role {
        Role::Writer => ("has just taken over", None),
        Role::Replica { writer } => ("has handed over", Some(writer.to_string())),
        Role::Fenced { writer } => ("was fenced", Some(writer.to_string())),
        Role::Crashed => ("has crashed", None),
    };
    EngineError::WriterMoved { what, writer }
}
