//! The same volume on another branch, while it is open [3]: what backtrack does, and a failover of the instance.
//!
//! ```text
//!   pause      nothing is numbered any more; commits in flight become durable
//!   CAS        the manifest with the next epoch and the History: this is the moment at which it happens [4]
//!   install    log devices and copies take (epoch, History), and their states are written down
//!   switch     the engine drops what does not count, the volume gets the writer of the branch
//!   resume
//! ```
//! Before the CAS a failure or crash leaves everything as it was; after it the next open finds the branch in the manifest and
//! recovers into it [11]. What it takes depends on the number of protection groups, and on nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aurora_page::Lsn;
use aurora_proto::{Copy, Link, Manifest, MetaStore, NodeId, NodeSet, Volume, Writer, WriterStart};
use aurora_redo::{History, PgId};
use aurora_store::{LogEntry, StoreError};
use parking_lot::MutexGuard;

use crate::Error;
use crate::cluster::{Meta, Shared};
use crate::node::Node;
use crate::open::BYTES_IN_FLIGHT_MAX;
use crate::recover::first_acks;
use crate::volume::Failure;

/// How long commits in flight may take to become durable before the branch is given up.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A volume that goes over to another branch: nothing is numbered as long as this lives, and the manifest is nobody else's.
pub(crate) struct Branching<'s> {
    shared: &'s Shared,
    meta: MutexGuard<'s, Meta>,
    /// No instance comes, goes or takes over meanwhile.
    _changing: MutexGuard<'s, ()>,
    _work: MutexGuard<'s, ()>,
}

impl Drop for Branching<'_> {
    fn drop(&mut self) {
        self.shared.volume.resume();
    }
}

impl Shared {
    /// Stops the numbering of commits and waits until those in flight are durable.
    ///
    /// # Errors
    /// Whatever keeps commits from becoming durable: everything goes on as before then.
    pub(crate) fn begin_branch(
        &self,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Branching<'_>, Error> {
        let branching = self.stop_numbering()?;
        let begun = Instant::now();
        let late = || begun.elapsed() > DRAIN_MAX;
        let ends = || interrupt() || self.is_closed() || late();
        match self.volume.wait(self.volume.numbered(), &ends) {
            Ok(()) => Ok(branching),
            Err(Error::Interrupted) if late() => {
                let what = format!("commits in flight did not become durable within {DRAIN_MAX:?}");
                let source = std::io::Error::new(std::io::ErrorKind::TimedOut, what);
                Err(Error::io(&self.dir, source))
            }
            Err(error) => Err(error),
        }
    }
}

impl Shared {
    /// Stops the numbering of commits, and waits for none of those in flight.
    ///
    /// # Errors
    /// Why the volume takes no commits, if it does not.
    pub(crate) fn stop_numbering(&self) -> Result<Branching<'_>, Error> {
        let changing = self.instances.changing.lock();
        let work = self.working()?;
        let meta = self.meta.lock();
        self.volume.check_or_retry()?;
        self.volume.pause();
        Ok(Branching {
            shared: self,
            meta,
            _changing: changing,
            _work: work,
        })
    }
}

impl Branching<'_> {
    /// The manifest as it is.
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.meta.manifest
    }

    /// Nodes whose copies have everything of the present History, each with its incarnation.
    pub(crate) fn complete(&self) -> Vec<(NodeId, u64)> {
        let volume = &self.shared.volume;
        let has_all = |node: &&Arc<Node>| {
            node.has_log()
                && node.with_copies(|copies| {
                    let mut groups = (0..).map(PgId).zip(copies.iter());
                    groups.all(|(pg, copy)| copy.scl() >= volume.tail(pg))
                })
        };
        let nodes = volume.nodes();
        let complete = nodes.iter().filter(has_all);
        complete
            .map(|node| (node.id(), node.info.incarnation))
            .collect()
    }

    /// Writes a manifest that an edit of [`Branching::manifest`] gave, with a new epoch and a History that goes on after `at`, and
    /// has everybody go over to it. `known` are nodes of which it is known that they have everything of that History up to `at`
    /// although the present one parts from it before.
    ///
    /// # Errors
    /// What kept the manifest from being written: nothing has happened then. When it cannot even be learnt whether it was, or too
    /// few copies follow, the volume fails, and the next open decides.
    pub(crate) fn finish(self, next: Manifest, at: Lsn, known: &[NodeId]) -> Result<(), Error> {
        self.go(next, at, known, false)
    }

    /// The same to the VDL as it is, with commits in flight, which are cut off. Every copy then knows no more than its log says, so
    /// what it acknowledges next is found again whether its state could be written or not.
    ///
    /// # Errors
    /// As [`Branching::finish`].
    pub(crate) fn cut(self, next: Manifest, at: Lsn) -> Result<(), Error> {
        self.go(next, at, &[], true)
    }

    fn go(
        mut self,
        next: Manifest,
        at: Lsn,
        known: &[NodeId],
        in_flight: bool,
    ) -> Result<(), Error> {
        let shared = self.shared;
        let devices: Result<Vec<_>, Error> = shared
            .volume
            .devices
            .iter()
            .map(|device| Ok((device, device.io_unless_stalled()?)))
            .collect();
        let devices = devices?;
        self.write(&next)?;
        let history = Arc::new(next.history.clone());
        let mut silent = NodeSet::EMPTY;
        for (device, _io) in &devices {
            let entry = LogEntry::Install {
                nodes: device.nodes,
                tickets: Default::default(),
                epoch: next.epoch,
                history: next.history.clone(),
            };
            if let Err(error) = device.append_always(&[entry]) {
                shared.maintenance.note(error);
                silent = silent.union(device.nodes);
            }
        }
        self.silence(silent);
        let prepared = self.prepare(&history, at, known, in_flight);
        let kept = shared.volume.history().common_prefix(&history);
        let kept = (at <= kept).then_some(at);
        let replicas = shared.instances.replicas();
        let applying: Vec<_> = replicas
            .iter()
            .map(|replica| replica.applying.lock())
            .collect();
        shared.instances.writer().rebranch(&history, kept, at, || {
            // Before the volume goes over: what is left must not be read any more.
            for replica in &replicas {
                replica.rebranch_follower(&history, at);
                replica.take(at);
            }
            shared.volume.switch(history.clone(), || {
                install(&next, &history, at, prepared, &shared.volume.nodes())
            });
        });
        shared.volume.stream.rebranch(at);
        drop(applying);
        self.meta.manifest = next;
        drop(devices);
        self.settle(in_flight)
    }

    /// The compare-and-swap. After an error other than a conflict its outcome is unknown: it is read, which completes it.
    fn write(&mut self, next: &Manifest) -> Result<(), Error> {
        let Err(error) = self.meta.store.cas(self.meta.manifest.version, next) else {
            return Ok(());
        };
        match self.meta.store.read_latest() {
            Ok(Some(found)) if found == *next => Ok(()),
            Ok(Some(found)) if found == self.meta.manifest => Err(error.into()),
            _ => {
                let error = Error::from(error);
                let detail = format!("the manifest: {error}");
                self.shared.volume.fail(Failure::LogFailed { detail });
                Err(error)
            }
        }
    }

    fn silence(&self, nodes: NodeSet) {
        for id in nodes {
            if let Some(node) = self.shared.volume.node(id) {
                node.silence("its log failed");
            }
        }
    }

    /// What each copy will know of the History: found before anybody goes over, for it may have to be read.
    fn prepare(
        &self,
        history: &Arc<History>,
        at: Lsn,
        known: &[NodeId],
        in_flight: bool,
    ) -> Vec<Vec<Known>> {
        let volume = &self.shared.volume;
        let backward = at <= volume.history().common_prefix(history);
        let of_node = |node: &Arc<Node>| {
            let copies = node.with_copies(|copies| {
                let of = |copy: &Copy| (copy.state().pg, copy.scl(), copy.agreed(history));
                copies.iter().map(of).collect::<Vec<_>>()
            });
            let of_copy = |(pg, scl, agreed): (PgId, Lsn, Lsn)| {
                let tail = volume.tail(pg);
                if in_flight && scl > at {
                    // The first record beyond `at` links to the last one before it: both are above what the copy has heard of
                    // the VDL, and in its memory. Saying `at` instead would have the next record link to an LSN that no record
                    // of the group has, which only a written state could explain to the next recovery.
                    Known::Links(Vec::new())
                } else if tail.is_none() && known.is_empty() {
                    Known::Everything(Lsn::NONE)
                } else if agreed >= at || (scl >= tail && tail <= at && agreed >= tail) {
                    Known::Everything(at.min(agreed))
                } else if known.contains(&node.id()) {
                    Known::Everything(at)
                } else if backward {
                    // The links of all that it has are in its memory.
                    Known::Links(Vec::new())
                } else {
                    // Read what the records above it prove. Where they cannot be read, the peers bring them.
                    Known::Links(node.store.links(pg, agreed).unwrap_or_default())
                }
            };
            copies.into_iter().map(of_copy).collect()
        };
        volume.nodes().iter().map(of_node).collect()
    }

    /// Writes down what the copies know now: the links of their records no longer say it, unless they are all it was taken from
    /// (`in_log`). Too few that could end the volume.
    fn settle(&self, in_log: bool) -> Result<(), Error> {
        let shared = self.shared;
        let last = shared.volume.history().first_new_lsn().prev();
        let nodes = shared.volume.nodes();
        std::thread::scope(|scope| {
            let living = nodes.iter().filter(|node| node.has_log());
            let writes: Vec<_> = living
                .map(|node| {
                    let write = || {
                        let (states, unsettled) = node.states();
                        let quiet = unsettled.map_or(last, |lsn| lsn.prev().min(last));
                        node.store.write_states(&states, quiet)
                    };
                    (node, scope.spawn(write))
                })
                .collect();
            for (node, write) in writes {
                match write.join() {
                    Ok(Ok(())) => {}
                    // A fault that was injected ends, and the log says it until then.
                    Ok(Err(error)) if in_log && may_pass(node, &error) => {
                        shared.maintenance.note(error);
                        shared.write_states_later(node);
                    }
                    Ok(Err(error)) => {
                        shared.volume.lose(node, &error.to_string());
                        shared.maintenance.note(error);
                    }
                    Err(_) => shared.volume.lose(node, "writing its state panicked"),
                }
            }
        });
        shared.maintenance.forget_jobs();
        shared.maintenance.wake();
        shared.volume.check()
    }
}

/// Whether what keeps a node from writing goes by: an injected fault, or a lack of room.
fn may_pass(node: &Node, error: &StoreError) -> bool {
    node.gate.is_on() || matches!(error, StoreError::Full { .. })
}

/// What is known of a copy in the History that it goes over to.
enum Known {
    /// It has everything up to here.
    Everything(Lsn),
    /// It has what these links prove, beyond what it had.
    Links(Vec<Link>),
}

/// Has every copy take the epoch with its History, and makes the writer that they acknowledge to.
fn install(
    manifest: &Manifest,
    history: &Arc<History>,
    at: Lsn,
    known: Vec<Vec<Known>>,
    nodes: &[Arc<Node>],
) -> Writer {
    let mut tails = vec![Lsn::NONE; manifest.pgs.len()];
    for (node, known) in nodes.iter().zip(known) {
        node.with_copies(|copies| {
            for (copy, known) in copies.iter_mut().zip(known) {
                let epoch = manifest.epoch;
                // A copy that has promised a newer epoch stays with it, and is refused by the writer.
                let _ = match known {
                    Known::Everything(upto) if upto > copy.agreed(history) => {
                        copy.install_complete(epoch, history, upto)
                    }
                    Known::Everything(upto) => {
                        copy.install(epoch, history)
                            .and_then(|()| match copy.scl() < upto {
                                true => copy.install_complete(epoch, history, upto),
                                false => Ok(()),
                            })
                    }
                    Known::Links(links) => copy.install_with(epoch, history, links),
                };
                copy.hear_vdl(at);
                if let Some(tail) = tails.get_mut(copy.state().pg.0 as usize) {
                    *tail = (*tail).max(copy.scl());
                }
            }
        });
    }
    let start = WriterStart::of_branch(manifest, at, &tails, BYTES_IN_FLIGHT_MAX);
    let mut writer = Writer::new(start);
    first_acks(&mut writer, nodes);
    writer
}
