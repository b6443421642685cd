//! A crash of the writer: what is in its memory is gone, and the volume goes on at the VDL in a new epoch.
//!
//! ```text
//!   halt      nothing is numbered, and no acknowledgement counts any more: the VDL stays where it is
//!   branch    the manifest with the next epoch, the History cut at the VDL; copies and logs follow [3][4]
//!   silence   after the detection time another instance, or the writer made anew, takes over
//! ```
//! Whatever was numbered above the VDL is gone, and was confirmed to nobody. A commit can also be made to become durable and then be
//! confirmed to nobody: what its caller sees is the same, [`Error::WriterCrashed`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aurora_engine::{Attempt, Commit, Engine};
use aurora_proto::Volume;

use crate::Error;
use crate::cluster::{Cluster, Shared};
use crate::instance::Instance;
use crate::volume::EmbeddedVolume;

/// How long the commit that a crash is bound to may take to become durable.
const KEPT_MAX: Duration = Duration::from_secs(10);

/// What becomes of the commit during which the writer crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitCrash {
    /// It does not reach storage.
    Lost,
    /// It is durable.
    Kept,
}

const LOST: u8 = 1;
const KEPT: u8 = 2;
/// The commit was made, and the crash is on its way.
const DUE: u8 = 4;
/// Somebody makes that commit.
const CLAIMED: u8 = 8;

impl Shared {
    /// Ends the writer as a crash would. When this returns, what was in its memory is gone; who writes next is found by its silence.
    pub(crate) fn crash_writer(self: &Arc<Self>, how: &'static str) -> Result<(), Error> {
        let begun = Instant::now();
        let writer = self.instances.writer();
        let crashed = self.crash_now(&writer);
        if crashed.is_err() && self.volume.is_halted() {
            // It was bound to a commit and cannot come: commits go on.
            self.volume.resume();
        }
        self.volume.fates.settle_due(crashed.is_ok());
        self.volume.wake_committers();
        let events = &self.instances.events;
        let detail = match &crashed {
            Ok(()) => how.to_owned(),
            Err(error) => format!("{how}: {error}"),
        };
        events.note(
            "writer crashed",
            writer.name(),
            Some(detail),
            Some(begun.elapsed()),
        );
        self.wake_control();
        crashed
    }

    fn crash_now(&self, writer: &Instance) -> Result<(), Error> {
        let branching = self.stop_numbering()?;
        writer.crash();
        // Frozen from here on.
        let at = self.volume.halt();
        let next = branching.manifest().failed_over(at);
        let next = next.map_err(|error| Error::Corrupt {
            detail: error.to_string(),
        })?;
        branching.cut(next, at)
    }

    /// A crash that waits for a commit does not come. One whose commit was made does: nothing else would have it go on.
    pub(crate) fn call_off_crash(&self) {
        let state = &self.faults.commit_crash;
        let waits = |state: u8| (state & DUE == 0).then_some(0);
        let _ = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, waits);
    }

    /// Has the crash come that a commit was bound to.
    pub(crate) fn crash_if_due(self: &Arc<Self>) {
        let due = self.faults.commit_crash.load(Ordering::Acquire);
        if due & DUE == 0 {
            return;
        }
        self.faults.commit_crash.store(0, Ordering::Release);
        if due & KEPT != 0 {
            let (begun, upto) = (Instant::now(), self.volume.numbered());
            let late = || self.is_closed() || begun.elapsed() > KEPT_MAX;
            // Where it cannot become durable, the crash leaves nothing of it.
            let _ = self.volume.wait(upto, &late);
        }
        // On record among the events, whatever comes of it.
        let _ = self.crash_writer("during a commit");
    }
}

impl Cluster {
    /// Ends the writer as a crash would: transactions that are open must begin again, commits under way have an unknown outcome, and
    /// another instance takes over after the detection time.
    ///
    /// # Errors
    /// What keeps the crash from being recovered from, such as a full disk: commits go on then.
    pub fn crash_writer(&self) -> Result<(), Error> {
        self.check_open()?;
        self.check_writable()?;
        self.shared().crash_writer("asked for")
    }

    /// The same during the next commit of a transaction.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::ReadOnly`].
    pub fn crash_writer_at_commit(&self, crash: CommitCrash) -> Result<(), Error> {
        self.check_open()?;
        self.check_writable()?;
        let armed = match crash {
            CommitCrash::Lost => LOST,
            CommitCrash::Kept => KEPT,
        };
        self.shared()
            .faults
            .commit_crash
            .store(armed, Ordering::Release);
        Ok(())
    }

    /// Whether a crash waits for the next commit.
    pub fn crash_is_armed(&self) -> bool {
        self.shared().faults.commit_crash.load(Ordering::Acquire) != 0
    }

    /// Ends an instance that is no writer as a crash would; it is made anew after the detection time.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::InvalidOption`] for the writer.
    pub fn crash_replica(&self, name: &str) -> Result<(), Error> {
        self.check_open()?;
        let instance = self.instance(name)?;
        if instance.id == self.writer().id {
            return Err(Error::InvalidOption {
                option: "name",
                expected: "a replica".into(),
                got: format!("{name}, which is the writer"),
            });
        }
        instance.crash();
        let events = &self.shared().instances.events;
        events.note("replica crashed", name, None, None);
        Ok(())
    }

    /// Numbers a transaction's commit: where every such commit passes.
    #[inline]
    pub fn committing(
        &self,
        engine: &Engine<EmbeddedVolume>,
        commit: impl FnOnce(&Engine<EmbeddedVolume>) -> Attempt<Commit>,
    ) -> Attempt<Commit> {
        let armed = &self.shared().faults.commit_crash;
        match armed.load(Ordering::Acquire) {
            0 => commit(engine),
            armed => self.commit_and_crash(armed, engine, commit),
        }
    }

    #[cold]
    fn commit_and_crash(
        &self,
        armed: u8,
        engine: &Engine<EmbeddedVolume>,
        commit: impl FnOnce(&Engine<EmbeddedVolume>) -> Attempt<Commit>,
    ) -> Attempt<Commit> {
        let shared = self.shared();
        let state = &shared.faults.commit_crash;
        let claimed = armed | CLAIMED;
        let mine = armed & (DUE | CLAIMED) == 0
            && state
                .compare_exchange(armed, claimed, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if !mine {
            return commit(engine);
        }
        let made =
            shared
                .volume
                .crash_within(armed == LOST, || commit(engine), |commit| commit.lsn);
        // Nothing was numbered: it is bound to the next one, unless it was called off.
        let next = match &made {
            Ok((_, true)) => armed | DUE,
            _ => armed,
        };
        let _ = state.compare_exchange(claimed, next, Ordering::AcqRel, Ordering::Acquire);
        if next & DUE != 0 {
            // Called off or not, the commit is numbered, and somebody must go on.
            state.store(next, Ordering::Release);
            shared.wake_control();
        }
        made.map(|(made, _)| made)
    }
}
