//! An instance: recovers the volume as `proto::recovery` lists it, then writes. It may die, or be overtaken, at any step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::{
    Ack, Inventory, Job, Manifest, MetaStore, NodeId, NodeSet, Plan, Recovery, RecoveryError,
    Replacement, Writer, WriterStart,
};
use aurora_redo::{History, PgId};
use parking_lot::MutexGuard;

use crate::config::Planted;
use crate::messages::{InstanceId, ToNode};
use crate::meta::SimMeta;
use crate::volume::SimVolume;
use crate::workload::Heads;

/// How long a recovery waits for copies that do not answer, once it has enough.
const PATIENCE_US: u64 = 30_000;
/// How long it goes on copying before it starts over.
const COPYING_US_MAX: u64 = 200_000;

/// A message to a node.
pub type Send = (NodeId, ToNode);

/// What an instance is doing.
#[derive(Debug)]
pub enum Phase {
    /// About to take the next epoch.
    Start,
    /// Fencing, since then.
    Fencing(Recovery, u64),
    /// Making the plan true, since then.
    Copying(Plan, u64),
    /// The writer.
    Writing(Box<Writing>),
    /// Crashed, or overtaken.
    Dead,
}

/// A writer and what its shell remembers.
#[derive(Debug)]
pub struct Writing {
    /// The volume with the production writer.
    pub volume: Arc<SimVolume>,
    /// Pages as it has numbered them.
    pub heads: Heads,
    /// The manifest that it opened.
    pub manifest: Manifest,
    /// Its History.
    pub history: Arc<History>,
    /// The last acknowledgement of each member.
    pub scls: BTreeMap<(PgId, NodeId), Lsn>,
    /// Members that have not installed the epoch, as far as is known.
    pub uninstalled: NodeSet,
    /// Jobs that go on beside the writer are gossip's work.
    pub appended: u64,
}

/// What a step of an instance led to.
#[derive(Debug)]
pub enum Step {
    /// Nothing to tell.
    Nothing,
    /// Worth a note.
    Note(String),
    /// The volume is open with this VDL; the writer needs its pages.
    Opened {
        /// The branch point.
        vdl: Lsn,
    },
    /// Durable up to here now.
    Durable {
        /// The VDL before.
        from: Lsn,
        /// The VDL.
        to: Lsn,
    },
    /// Something that must never happen.
    Violation(String),
}

/// One instance.
#[derive(Debug)]
pub struct Instance {
    /// Its name.
    pub id: InstanceId,
    /// What it is doing.
    pub phase: Phase,
    /// The epoch that it took, 0 before.
    pub epoch: u64,
    planted: Option<Planted>,
    pace: u64,
    answered: BTreeSet<(PgId, NodeId)>,
    incarnations: BTreeMap<NodeId, u64>,
}

impl Instance {
    /// An instance that will recover the volume.
    pub fn new(id: InstanceId, planted: Option<Planted>, pace: u64) -> Instance {
        Instance {
            pace,
            id,
            phase: Phase::Start,
            epoch: 0,
            planted,
            answered: BTreeSet::new(),
            incarnations: BTreeMap::new(),
        }
    }

    /// The writer of a volume that was just created.
    pub fn first(
        id: InstanceId,
        manifest: &Manifest,
        planted: Option<Planted>,
        pace: u64,
    ) -> Instance {
        let start = WriterStart::of_new(manifest, BYTES_IN_FLIGHT_MAX);
        let mut first = Instance::new(id, planted, pace);
        first.epoch = manifest.epoch;
        first.phase = Phase::Writing(Box::new(Writing::new(start, manifest.clone(), planted)));
        first
    }

    /// Is it neither dead nor overtaken?
    pub fn lives(&self) -> bool {
        !matches!(self.phase, Phase::Dead)
    }

    /// The writer, if that is what it is.
    pub fn writing(&mut self) -> Option<&mut Writing> {
        match &mut self.phase {
            Phase::Writing(writing) => Some(writing),
            _ => None,
        }
    }

    /// The writer, to look at.
    pub fn written(&self) -> Option<&Writing> {
        match &self.phase {
            Phase::Writing(writing) => Some(writing),
            _ => None,
        }
    }

    /// Takes the next epoch, with these nodes created anew.
    pub fn take_epoch(&mut self, meta: &SimMeta, replace: &[Replacement], now_us: u64) -> Step {
        let manifest = meta.latest();
        let next = manifest.recovering();
        if let Err(error) = meta.cas(manifest.version, &next) {
            self.phase = Phase::Dead;
            return Step::Note(format!("{} gives up: {error}", self.id));
        }
        let replace = if self.planted == Some(Planted::LostCopyNotNoticed) {
            &[]
        } else {
            replace
        };
        match Recovery::new(&next, replace) {
            Ok(recovery) => {
                self.epoch = next.epoch;
                self.answered.clear();
                if self.planted != Some(Planted::LostCopyNotNoticed) {
                    let anew = replace.iter().map(|replacement| &replacement.with);
                    let meant = next.nodes.iter().chain(anew);
                    self.incarnations = meant.map(|info| (info.id, info.incarnation)).collect();
                }
                self.phase = Phase::Fencing(recovery, now_us);
                Step::Note(format!(
                    "{} takes e{} of {} replacing {replace:?}",
                    self.id, next.epoch, next.history
                ))
            }
            Err(error) => Step::Violation(format!("a recovery cannot begin: {error}")),
        }
    }

    /// Its periodic work while it recovers. The writer's is the world's.
    pub fn tick(&mut self, meta: &SimMeta, now_us: u64, sends: &mut Vec<Send>) -> Step {
        match &mut self.phase {
            Phase::Fencing(recovery, since) => {
                let (epoch, history) = (recovery.epoch(), recovery.history());
                let open: Vec<_> = recovery.fences().collect();
                for (pg, node) in &open {
                    sends.push((
                        *node,
                        ToNode::Fence {
                            pg: *pg,
                            epoch,
                            history: Arc::clone(&history),
                            incarnation: self.incarnations.get(node).copied(),
                        },
                    ));
                }
                let waited = now_us - *since;
                if open.is_empty() || (waited > PATIENCE_US && recovery.is_fenced()) {
                    self.plan(now_us)
                } else {
                    Step::Nothing
                }
            }
            Phase::Copying(plan, since) => {
                if plan.ready() {
                    return self.open(meta);
                }
                for job in first_jobs(plan) {
                    sends.push((
                        job.from,
                        ToNode::Give {
                            job,
                            epoch: self.epoch,
                        },
                    ));
                }
                if now_us - *since > COPYING_US_MAX * self.pace.min(20) {
                    self.phase = Phase::Start;
                    return Step::Note(format!("{} starts over", self.id));
                }
                Step::Nothing
            }
            _ => Step::Nothing,
        }
    }

    fn plan(&mut self, now_us: u64) -> Step {
        let Phase::Fencing(recovery, _) = &mut self.phase else {
            return Step::Nothing;
        };
        match recovery.plan() {
            Ok(mut plan) => {
                let note = format!(
                    "{} plans vcl {} vdl {} jobs {:?}",
                    self.id,
                    plan.vcl(),
                    plan.vdl(),
                    plan.jobs()
                );
                if self.planted == Some(Planted::NoReplication) {
                    for Job { pg, to, .. } in plan.jobs().to_vec() {
                        plan.on_ack(&Ack {
                            pg,
                            node: to,
                            epoch: self.epoch,
                            scl: Lsn::MAX,
                        });
                    }
                }
                self.phase = Phase::Copying(plan, now_us);
                Step::Note(note)
            }
            Err(RecoveryError::NotEnough { .. }) => Step::Nothing,
            Err(error) => Step::Violation(format!("[10] {} cannot recover: {error}", self.id)),
        }
    }

    /// The CAS that makes the recovery happen [4].
    fn open(&mut self, meta: &SimMeta) -> Step {
        let Phase::Copying(plan, _) = &self.phase else {
            return Step::Nothing;
        };
        let mut opened = match plan.opened() {
            Ok(opened) => opened,
            Err(error) => return Step::Violation(format!("a ready plan cannot open: {error}")),
        };
        if self.planted == Some(Planted::WindowNotSkipped) {
            let kept = opened.history.clip(plan.vdl());
            opened.history = kept.branch(plan.vdl(), opened.origin, 0);
        }
        let vdl = plan.vdl();
        if let Err(error) = meta.cas(opened.version - 1, &opened) {
            self.phase = Phase::Dead;
            return Step::Note(format!("{} is overtaken: {error}", self.id));
        }
        let start = plan.writer_start(&opened, BYTES_IN_FLIGHT_MAX);
        self.phase = Phase::Writing(Box::new(Writing::new(start, opened, self.planted)));
        Step::Opened { vdl }
    }

    /// An answer to a fence.
    pub fn on_inventory(&mut self, inventory: Inventory) -> Step {
        let two = self.planted == Some(Planted::RecoveryFromTwo);
        let Phase::Fencing(recovery, since) = &mut self.phase else {
            return Step::Nothing;
        };
        let (pg, node) = (inventory.pg, inventory.node);
        self.answered.insert((pg, node));
        if two && self.answered.iter().filter(|(p, _)| *p == pg).count() == 2 {
            // Whoever has not answered yet is said to have nothing.
            let silent: Vec<_> = recovery
                .fences()
                .filter(|(p, n)| *p == pg && *n != node)
                .collect();
            for (pg, node) in silent {
                let epoch = recovery.epoch();
                let nothing = Inventory {
                    pg,
                    node,
                    epoch,
                    scl: Lsn::NONE,
                    vdl_hint: Lsn::NONE,
                    records: Vec::new(),
                };
                let _ = recovery.on_inventory(nothing);
            }
            *since = 0;
        }
        match recovery.on_inventory(inventory) {
            // An answer to an earlier fence of this instance came late.
            Ok(()) | Err(RecoveryError::Epoch { .. }) => Step::Nothing,
            Err(error) => Step::Violation(format!("an inventory is refused: {error}")),
        }
    }

    /// A copy has come further.
    pub fn on_ack(&mut self, from: NodeId, ack: &Ack) -> Step {
        let three = self.planted == Some(Planted::QuorumOfThree);
        match &mut self.phase {
            Phase::Copying(plan, _) => plan.on_ack(ack),
            Phase::Writing(writing) => {
                if ack.epoch == writing.writer().epoch() {
                    let scl = writing.scls.entry((ack.pg, from)).or_default();
                    *scl = ack.scl.max(*scl);
                }
                let before = writing.writer().vdl();
                writing.writer().on_ack(from, ack);
                if three {
                    writing.forge_fourth(ack);
                }
                let points = writing.writer().points();
                if !points.ordered() {
                    return Step::Violation(format!("[2] {points:?}"));
                }
                let now = writing.writer().vdl();
                if now > before {
                    return Step::Durable {
                        from: before,
                        to: now,
                    };
                }
            }
            _ => {}
        }
        Step::Nothing
    }

    /// A node has promised a later epoch.
    pub fn on_stale(&mut self, epoch: u64) {
        if epoch <= self.epoch {
            return;
        }
        match &mut self.phase {
            Phase::Writing(writing) => writing.writer().on_fenced(epoch),
            Phase::Fencing(..) | Phase::Copying(..) => self.phase = Phase::Dead,
            Phase::Start | Phase::Dead => {}
        }
    }
}

/// Bytes that a writer may have in flight: few, so that back-pressure happens.
const BYTES_IN_FLIGHT_MAX: u64 = 64 << 10;

/// Of the jobs of each target and group, the first: they build on each other.
fn first_jobs(plan: &Plan) -> Vec<Job> {
    let mut seen = BTreeSet::new();
    plan.open_jobs()
        .filter(|job| seen.insert((job.pg, job.to)) || !job.pages)
        .copied()
        .collect()
}

impl Writing {
    fn new(start: WriterStart, manifest: Manifest, planted: Option<Planted>) -> Writing {
        let history = Arc::new(manifest.history.clone());
        Writing {
            volume: SimVolume::new(Writer::new(start), manifest.geometry(), planted),
            heads: Heads::new(),
            uninstalled: manifest.members(),
            history,
            manifest,
            scls: BTreeMap::new(),
            appended: 0,
        }
    }

    /// The writer.
    pub fn writer(&self) -> MutexGuard<'_, Writer> {
        self.volume.writer()
    }

    /// What members lack of what was sent: the epoch first, then batches that they did not acknowledge.
    pub fn remind(&mut self, sends: &mut Vec<Send>) {
        let writer = self.volume.writer();
        let pgs = writer.pgs() as u32;
        for node in self.uninstalled {
            let groups = (0..pgs).map(PgId).filter(|pg| {
                writer
                    .membership(*pg)
                    .is_some_and(|m| m.nodes().contains(node))
            });
            let (epoch, history) = (writer.epoch(), Arc::clone(&self.history));
            sends.push((
                node,
                ToNode::Install {
                    epoch,
                    history,
                    pgs: groups.collect(),
                },
            ));
        }
        for pg in (0..pgs).map(PgId) {
            let Some(members) = writer.membership(pg) else {
                continue;
            };
            for node in members.nodes() {
                let scl = self.scls.get(&(pg, node)).copied().unwrap_or_default();
                sends.extend(
                    writer
                        .resend(pg, scl)
                        .into_iter()
                        .map(|batch| (node, ToNode::Batch(batch))),
                );
            }
        }
    }

    /// Everything pending, to all members.
    pub fn send(&mut self, sends: &mut Vec<Send>) {
        let mut writer = self.volume.writer();
        while let Some(batch) = writer.poll_send() {
            let Some(members) = writer.membership(batch.pg) else {
                continue;
            };
            sends.extend(
                members
                    .nodes()
                    .iter()
                    .map(|node| (node, ToNode::Batch(Arc::clone(&batch)))),
            );
        }
    }

    /// The planted fault: what three members have counts as acknowledged by a fourth.
    fn forge_fourth(&mut self, ack: &Ack) {
        let Some(nodes) = self.writer().membership(ack.pg).map(|m| m.nodes()) else {
            return;
        };
        let scl = |node: NodeId| self.scls.get(&(ack.pg, node)).copied().unwrap_or_default();
        let mut scls: Vec<Lsn> = nodes.iter().map(scl).collect();
        scls.sort_unstable();
        let third = scls[scls.len() - 3];
        for node in nodes
            .iter()
            .filter(|node| scl(*node) < third)
            .collect::<Vec<_>>()
        {
            self.writer().on_ack(
                node,
                &Ack {
                    node,
                    scl: third,
                    ..*ack
                },
            );
        }
    }
}
