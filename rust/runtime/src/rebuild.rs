//! Lost nodes are made anew while the cluster is open.
//!
//! ```text
//!   forget    once a quorum of the others has everything that is durable, nothing counts any more that the lost node acknowledged
//!   make      an empty node in its place, of the next incarnation; the log says that what it held for the lost one is not this one's
//!   CAS       the manifest with the incarnation: this is the moment at which it happens [4]
//!   join      it is offered what the others are, and acknowledges nothing that counts, for it lacks what was before
//!   fill      pages from several peers, each compared with another peer's; then it acknowledges like any other
//! ```
//! Before the CAS a crash leaves the lost node as lost as it was, and in its place at most a directory that the manifest does not
//! know. After it the node is a member that has little: three of the six tell everything all the same, for since the first step
//! four of the others have it [10].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aurora_control::{Seen, renewals};
use aurora_page::Lsn;
use aurora_proto::{
    Copy, Job, Manifest, MetaStore, NodeId, NodeInfo, NodeSet, Replacement, Volume, VolumeState,
};
use aurora_redo::PgId;
use aurora_store::{LogEntry, NodeIdentity};
use parking_lot::Mutex;

use crate::Error;
use crate::cluster::Shared;
use crate::create::make_log;
use crate::device::Device;
use crate::layout;
use crate::node::Node;
use crate::open::{Site, identity};
use crate::recover::{device_of, look, make_anew, set_aside_already};
use crate::repair::Repair;

/// A node that could not be made anew waits this long, twice as long each time, up to [`BACK_OFF_MAX`]; and so does one that is lost
/// again soon after: its disk may go on failing.
const BACK_OFF: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// A node that has stood for this long after it was made anew is lost for another reason.
const STOOD: Duration = Duration::from_secs(600);
/// Directories of one node that are set aside at most; then somebody has to look.
const SET_ASIDE_MAX: usize = 3;

/// Nodes that are lost or were, and what is done about them.
#[derive(Default)]
pub(crate) struct Rebuilds(Mutex<BTreeMap<NodeId, Rebuild>>);

struct Rebuild {
    /// When it was lost.
    since: Instant,
    stage: Stage,
    /// Attempts that failed, and times that it was lost soon after it had been made anew.
    failures: u32,
    /// Not before this moment.
    after: Option<Instant>,
}

enum Stage {
    Lost,
    Filling(Filling),
    /// It has everything, since then.
    Whole(Instant),
}

struct Filling {
    began: Instant,
    moved_bytes: u64,
    of_bytes: u64,
    /// All that was there when its pages had come.
    upto: Option<Lsn>,
}

impl Rebuild {
    fn is_ready(&self, now: Instant, lost_for: Duration) -> bool {
        matches!(self.stage, Stage::Lost)
            && now.saturating_duration_since(self.since) >= lost_for
            && self.after.is_none_or(|after| after <= now)
    }

    fn failed(&mut self, now: Instant) {
        let wait = BACK_OFF
            .saturating_mul(1 << self.failures.min(16))
            .min(BACK_OFF_MAX);
        self.failures += 1;
        self.after = Some(now + wait);
    }
}

impl Rebuilds {
    /// How much of what its peers have a node has by now, from 0 to 1, while it is filled.
    pub(crate) fn progress(&self, node: NodeId) -> Option<f64> {
        match &self.0.lock().get(&node)?.stage {
            Stage::Filling(filling) if filling.of_bytes == 0 => Some(0.0),
            Stage::Filling(filling) => {
                Some((filling.moved_bytes as f64 / filling.of_bytes as f64).min(1.0))
            }
            Stage::Lost | Stage::Whole(_) => None,
        }
    }

    /// Bytes have come to a node.
    pub(crate) fn moved(&self, node: NodeId, bytes: u64) {
        if let Some(Stage::Filling(filling)) =
            self.0.lock().get_mut(&node).map(|known| &mut known.stage)
        {
            filling.moved_bytes += bytes;
        }
    }

    /// Whether a node was made anew and is not whole yet.
    pub(crate) fn fills(&self, node: NodeId) -> bool {
        matches!(
            self.0.lock().get(&node),
            Some(Rebuild {
                stage: Stage::Filling(_),
                ..
            })
        )
    }

    /// Whether a node that was made anew has not got its pages yet.
    pub(crate) fn waits(&self, node: NodeId) -> bool {
        matches!(
            self.0.lock().get(&node),
            Some(Rebuild {
                stage: Stage::Filling(Filling { upto: None, .. }),
                ..
            })
        )
    }

    fn filling(&self) -> Vec<NodeId> {
        let known = self.0.lock();
        let filling = known
            .iter()
            .filter(|(_, known)| matches!(known.stage, Stage::Filling(_)));
        filling.map(|(id, _)| *id).collect()
    }

    fn with_filling<T>(&self, node: NodeId, f: impl FnOnce(&mut Filling) -> T) -> Option<T> {
        match &mut self.0.lock().get_mut(&node)?.stage {
            Stage::Filling(filling) => Some(f(filling)),
            Stage::Lost | Stage::Whole(_) => None,
        }
    }
}

impl Shared {
    /// Takes the next step with every node that is lost or being filled; `now` also with those that are to wait a while. The caller
    /// does the background's work, so no branch begins meanwhile.
    pub(crate) fn rebuild_lost(&self, now: bool) {
        let lost = self.volume.gone();
        self.note_losses(lost);
        if self.volume.failure().is_some() {
            // Too few are left, or nothing can be written: the next opening decides.
            return;
        }
        if !lost.is_empty() {
            self.renew(lost, now)
                .unwrap_or_else(|error| self.maintenance.note(error));
        }
        for id in self.rebuilds.filling() {
            self.fill(id);
        }
    }

    /// Whoever was found lost since the last look.
    fn note_losses(&self, lost: NodeSet) {
        let now = Instant::now();
        for id in lost {
            let node = self.volume.node(id);
            let loss = node.as_ref().and_then(|node| node.loss());
            let since = loss.map_or(now, |loss| loss.at);
            let mut known = self.rebuilds.0.lock();
            let before = known.get(&id);
            if before.is_some_and(|known| matches!(known.stage, Stage::Lost)) {
                continue;
            }
            // One that was just made anew is not tried again at once.
            let failures = match before {
                Some(known) if !matches!(known.stage, Stage::Whole(whole) if whole.elapsed() > STOOD) => {
                    known.failures + 1
                }
                _ => 0,
            };
            let mut rebuild = Rebuild {
                since,
                stage: Stage::Lost,
                failures: failures.saturating_sub(1),
                after: None,
            };
            if failures > 0 {
                rebuild.failed(now);
            }
            known.insert(id, rebuild);
            drop(known);
            let why = loss.map_or("it was not there when the cluster was opened", |loss| {
                &loss.why
            });
            let (who, why) = (self.volume.path_of(id), Some(why.to_owned()));
            self.instances.events.note("node lost", &who, why, None);
        }
    }

    /// Makes those anew whose places are there, as soon as the others have everything without them.
    fn renew(&self, lost: NodeSet, now: bool) -> Result<(), Error> {
        let ready: NodeSet = {
            let (known, at) = (self.rebuilds.0.lock(), Instant::now());
            let lost_for = self.options.rebuild_after;
            let ready = |id: &NodeId| {
                known
                    .get(id)
                    .is_some_and(|r| now || r.is_ready(at, lost_for))
            };
            lost.iter().filter(ready).collect()
        };
        if ready.is_empty() {
            return Ok(());
        }
        let site = Site {
            disk: self.disk.clone(),
            disk_faults: self.faults.disk(),
            dir: self.dir.clone(),
            lock: None,
        };
        // Held to the end: the volume does not grow, and nobody else changes the manifest.
        let mut meta = self.meta.lock();
        let manifest = meta.manifest.clone();
        if manifest.state != VolumeState::Open {
            return Ok(());
        }
        let living = self.living();
        let gone = manifest.nodes.iter().filter(|info| lost.contains(info.id));
        let seen: Vec<_> = gone
            .map(|info| (info.id, self.see(&site, &manifest, info, &living)))
            .collect();
        let mut replace = renewals(&manifest, &seen);
        replace.retain(|replacement| ready.contains(replacement.lost));
        let ids: NodeSet = replace.iter().map(|r| r.lost).collect();
        // Where the others lack something, gossip brings it, and the next look comes here again.
        if ids.is_empty() || !self.volume.forget(ids) {
            return Ok(());
        }
        let mut failed = None;
        let mut made = Vec::new();
        for Replacement { with, .. } in &replace {
            match self.make(&site, &manifest, with) {
                Ok(node) => made.push(node),
                Err(error) => {
                    self.rebuild_failed(with.id, &error);
                    failed = Some(error);
                }
            }
        }
        if !made.is_empty() {
            let infos: Vec<NodeInfo> = made.iter().map(|node| node.info.clone()).collect();
            let next = manifest.renewed(&infos);
            if let Err(error) = meta.store.cas(manifest.version, &next) {
                // Whether it was written is not known, and makes no difference: the others have everything.
                let error = Error::from(error);
                infos
                    .iter()
                    .for_each(|info| self.rebuild_failed(info.id, &error));
                return Err(error);
            }
            meta.manifest = next;
            self.join(made);
        }
        failed.map_or(Ok(()), Err)
    }

    fn rebuild_failed(&self, id: NodeId, error: &Error) {
        let first = {
            let mut known = self.rebuilds.0.lock();
            known.get_mut(&id).is_some_and(|rebuild| {
                rebuild.failed(Instant::now());
                rebuild.failures == 1
            })
        };
        if first {
            let (who, why) = (self.volume.path_of(id), Some(error.to_string()));
            self.instances
                .events
                .note("node repair failed", &who, why, None);
        }
    }

    /// What is where a lost node was. A device that is not there may come back with the copy, and a directory that may be whole is
    /// looked at when the cluster is opened.
    fn see(&self, site: &Site, manifest: &Manifest, info: &NodeInfo, living: &[Arc<Node>]) -> Seen {
        let dir = layout::node_dir(&site.dir, info);
        match self.volume.node(info.id) {
            Some(node) => {
                let standing = dir.ancestors().find(|path| site.disk.exists(path));
                let device = standing.and_then(|path| site.disk.device_of(path).ok());
                match device {
                    Some(device) if device == node.device => Seen::Lost {
                        device: info.device,
                    },
                    _ => Seen::Unknown,
                }
            }
            None if NodeIdentity::read(&*site.disk, &dir)
                .is_ok_and(|found| found == identity(manifest, info)) =>
            {
                Seen::Unknown
            }
            None => look(site, info, living),
        }
    }

    /// An empty node in the place of a lost one, and a log that knows it.
    fn make(&self, site: &Site, manifest: &Manifest, info: &NodeInfo) -> Result<Arc<Node>, Error> {
        let dir = layout::node_dir(&site.dir, info);
        let Some(device) = device_of(&self.volume.devices, info.id) else {
            return Err(failure(
                &dir,
                "its log could not be opened with the cluster",
            ));
        };
        if set_aside_already(&*site.disk, &dir) >= SET_ASIDE_MAX {
            let what = format!(
                "{SET_ASIDE_MAX} directories of this node were set aside: look at what happens to its disk, and remove them"
            );
            return Err(failure(&dir, &what));
        }
        check_log(&dir, device)?;
        let mut node = make_anew(site, manifest, info, manifest.epoch)?;
        // What comes back late for the lost one must not pass for something that this one waits for.
        let old = self.volume.node(info.id);
        let tickets = old.as_ref().map_or(0, |old| {
            old.with_copies(|copies| copies.iter().map(Copy::last_ticket).max().unwrap_or(0))
        });
        // A fault that is injected is one of the place.
        if let Some(old) = old {
            node.gate = old.gate.clone();
        }
        node.with_copies(|copies| {
            let above = |copy: Copy| copy.with_tickets_above(tickets);
            *copies = std::mem::take(copies).into_iter().map(above).collect();
        });
        self.begin_log(site, manifest, info, &dir, device)?;
        Ok(Arc::new(node))
    }

    fn begin_log(
        &self,
        site: &Site,
        manifest: &Manifest,
        info: &NodeInfo,
        dir: &Path,
        device: &Device,
    ) -> Result<(), Error> {
        let path = device.log().dir().to_path_buf();
        if path.starts_with(dir) {
            // The log went with its node.
            return device.renew(make_log(site, manifest, &path, device.nodes)?);
        }
        let _io = device.io_unless_stalled()?;
        if device.has_held() {
            return Err(Error::DiskFull { path });
        }
        device.append(&[LogEntry::Anew {
            node: info.id,
            incarnation: info.incarnation,
        }])?;
        Ok(())
    }

    /// The nodes are in the manifest: they take part from here on.
    fn join(&self, made: Vec<Arc<Node>>) {
        let ids: Vec<NodeId> = made.iter().map(|node| node.id()).collect();
        made.into_iter().for_each(|node| self.volume.replace(node));
        // What was on its way when they came was offered to those that they replace; faults that are on are on for them too.
        self.faults.look_again();
        self.apply_faults();
        let peers = self.living();
        let has = |node: &Arc<Node>| node.store.used_bytes() + node.store.unflushed_bytes();
        let of_bytes = peers.iter().map(has).max().unwrap_or(0);
        let mut known = self.rebuilds.0.lock();
        for id in ids {
            let Some(rebuild) = known.get_mut(&id) else {
                continue;
            };
            rebuild.stage = Stage::Filling(Filling {
                began: Instant::now(),
                moved_bytes: 0,
                of_bytes,
                upto: None,
            });
        }
    }
}

/// What it takes until a node that was made anew has everything.
impl Shared {
    fn fill(&self, id: NodeId) {
        let Some(node) = self.volume.node(id).filter(|node| node.acknowledges()) else {
            // Lost again, which the next look notes.
            return;
        };
        if self.maintenance.repairs(id) {
            return;
        }
        let jobs = self.jobs_for(&node);
        if !jobs.is_empty() {
            let jobs = jobs.into_iter().map(Repair::new);
            self.maintenance.jobs.lock().extend(jobs);
            return;
        }
        let vdl = self.volume.vdl();
        let upto = self
            .rebuilds
            .with_filling(id, |f| *f.upto.get_or_insert(vdl))
            .unwrap_or(vdl);
        let whole = |pg: PgId| self.scl(&node, pg) >= self.volume.pgcl(pg).min(upto);
        if self.groups().all(whole) {
            self.filled(id);
        }
    }

    fn groups(&self) -> impl Iterator<Item = PgId> {
        (0..self.volume.segments() as u32).map(PgId)
    }

    /// Everything of the groups of which the node has nothing, each from another of those that have it.
    fn jobs_for(&self, node: &Node) -> Vec<Job> {
        let mut jobs = Vec::new();
        for pg in self.groups() {
            let upto = self.volume.pgcl(pg).min(self.volume.vdl());
            if upto.is_none() || !self.scl(node, pg).is_none() {
                continue;
            }
            let mut sources = self.living();
            sources.retain(|from| from.id() != node.id() && self.scl(from, pg) >= upto);
            let Some(from) = sources.get(pg.0 as usize % sources.len().max(1)) else {
                continue;
            };
            jobs.push(Job {
                pg,
                from: from.id(),
                to: node.id(),
                after: Lsn::NONE,
                upto,
                pages: true,
            });
        }
        jobs
    }

    fn filled(&self, id: NodeId) {
        let mut known = self.rebuilds.0.lock();
        let Some(rebuild) = known.get_mut(&id) else {
            return;
        };
        let Stage::Filling(filling) = &rebuild.stage else {
            return;
        };
        let detail = format!(
            "made anew and filled with {} bytes in {:.3} s",
            filling.moved_bytes,
            filling.began.elapsed().as_secs_f64()
        );
        rebuild.stage = Stage::Whole(Instant::now());
        let took = rebuild.since.elapsed();
        drop(known);
        let (who, detail) = (self.volume.path_of(id), Some(detail));
        self.instances
            .events
            .note("node repaired", &who, detail, Some(took));
    }
}

/// What is in the way is set aside only when the log can say that another node begins.
fn check_log(dir: &Path, device: &Device) -> Result<(), Error> {
    let log = device.log();
    if log.dir().starts_with(dir) {
        // It is made anew with its node.
        return Ok(());
    }
    match log.poisoned() {
        Some(reason) => Err(failure(
            dir,
            &format!("the log that it shares with others has failed: {reason}"),
        )),
        None if device.has_held() => Err(Error::DiskFull {
            path: log.dir().to_path_buf(),
        }),
        None => Ok(()),
    }
}

pub(crate) fn failure(dir: &Path, what: &str) -> Error {
    Error::io(dir, std::io::Error::other(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_tried_less_and_less_often() {
        let now = Instant::now();
        let mut rebuild = Rebuild {
            since: now,
            stage: Stage::Lost,
            failures: 0,
            after: None,
        };
        let ready = |rebuild: &Rebuild, after| rebuild.is_ready(now + after, BACK_OFF / 2);
        assert!(!ready(&rebuild, BACK_OFF / 4), "it may come back");
        assert!(ready(&rebuild, BACK_OFF / 2));
        rebuild.failed(now);
        assert!(!ready(&rebuild, BACK_OFF / 2) && ready(&rebuild, BACK_OFF));
        rebuild.failed(now);
        assert!(!ready(&rebuild, BACK_OFF) && ready(&rebuild, BACK_OFF * 2));
        (0..40).for_each(|_| rebuild.failed(now));
        assert!(ready(&rebuild, BACK_OFF_MAX));
        rebuild.stage = Stage::Whole(now);
        assert!(!ready(&rebuild, BACK_OFF_MAX), "nothing is to be done");
    }
}
