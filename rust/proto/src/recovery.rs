//! Recovery: from whatever a crash left to an open volume that has every acknowledged commit.
//!
//! The driver's duties, each of which may crash and be repeated from the start [11]:
//!
//! 1. CAS `manifest.recovering()`: the next epoch. Create directories for lost nodes, if they are to be replaced now.
//! 2. Fence every copy of [`Recovery::fences`] that can be reached with the manifest's epoch and History, and feed the
//!    inventories that come back *in answer to that fence* to [`Recovery::on_inventory`].
//! 3. [`Recovery::plan`], once everybody who can answer has: VCL, VDL, and a list of re-replication [`Job`]s. It refuses
//!    while a write quorum of the old epoch might still be out there unfenced.
//! 4. Do the jobs, feed the acks to [`Plan::on_ack`], until [`Plan::ready`].
//! 5. CAS [`Plan::opened`]: branch at the VDL, membership, open. This is the moment at which the recovery happens [4].
//! 6. Every copy installs (epoch, History) before it takes anything of the epoch. The writer starts from
//!    [`Plan::writer_start`]; jobs that are left go on beside it.
//!
//! Why nothing acknowledged is lost: it lies on a write quorum, each of which meets the fenced copies. Why nothing is
//! acknowledged behind our back: without an unfenced write quorum the old writer gets none together [12].

use std::sync::Arc;

use aurora_page::Lsn;
use aurora_redo::{History, PgId};
use thiserror::Error;

use crate::answer::{Ack, Inventory};
use crate::manifest::{EditError, Manifest, NodeInfo, VolumeState};
use crate::membership::{Membership, MembershipError};
use crate::quorum::{NodeId, NodeSet};
use crate::replicate::{Holding, jobs_for};
use crate::writer::WriterStart;

/// A node that takes the place of a lost one when the volume opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replacement {
    /// The node that is lost.
    pub lost: NodeId,
    /// Who takes its place: another node, or the same id with a higher incarnation when it was created anew.
    pub with: NodeInfo,
}

/// Why a recovery cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RecoveryError {
    /// The manifest was not set to recovering.
    #[error("the manifest is {got:?}, a recovery needs {expected:?}")]
    State {
        /// What it needs.
        expected: VolumeState,
        /// What it is.
        got: VolumeState,
    },
    /// An answer to another fence.
    #[error("inventory of {node} is of epoch {got}, this recovery has epoch {expected}")]
    Epoch {
        /// Who answered.
        node: NodeId,
        /// The epoch of this recovery.
        expected: u64,
        /// The epoch of the answer.
        got: u64,
    },
    /// An answer about a group that there is not.
    #[error("inventory of {node} names {pg}, the volume has {count} groups")]
    NoSuchPg {
        /// Who answered.
        node: NodeId,
        /// The group named.
        pg: PgId,
        /// Groups there are.
        count: usize,
    },
    /// Too few copies answered: acknowledged commits may lie on the others, or still be made there.
    #[error("{pg}: only {fenced} answered, which is not enough; missing {missing}")]
    NotEnough {
        /// The group.
        pg: PgId,
        /// Who answered.
        fenced: NodeSet,
        /// Members that did not.
        missing: NodeSet,
    },
    /// More is lost than the quorum bears: a record that was durable is on no copy that answered.
    #[error("{pg}: nobody who answered has the records above {after} up to {upto}")]
    Hole {
        /// The group.
        pg: PgId,
        /// Everything up to here is there.
        after: Lsn,
        /// Up to here something is missing.
        upto: Lsn,
    },
    /// A replacement that cannot be.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// A node created anew must have a higher incarnation, or its emptiness would pass for knowledge.
    #[error("{node} was created anew: expected an incarnation above {above}, got {got}")]
    Incarnation {
        /// The node.
        node: NodeId,
        /// The incarnation of the lost one.
        above: u64,
        /// The incarnation given.
        got: u64,
    },
}

/// One re-replication: records with the blobs that they refer to, or pages as well, from one copy to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    /// The protection group.
    pub pg: PgId,
    /// Who has it.
    pub from: NodeId,
    /// Who lacks it.
    pub to: NodeId,
    /// Everything above this LSN,
    pub after: Lsn,
    /// up to and with this one. When all of it is on its way to disk, `Copy::hydrating(after, upto)`.
    pub upto: Lsn,
    /// Records below the collection floor may be gone: pages must be copied as well.
    pub pages: bool,
}

#[derive(Debug)]
struct PgFence {
    /// Members of the old epoch whose answer counts.
    counted: NodeSet,
    /// Everybody who answered.
    inventories: Vec<Inventory>,
}

/// A recovery that is fencing.
#[derive(Debug)]
pub struct Recovery {
    manifest: Manifest,
    /// Memberships that will be opened.
    opening: Vec<Membership>,
    /// Nodes that will be opened.
    nodes: Vec<NodeInfo>,
    /// Ids whose present holder was created anew and so knows nothing.
    anew: NodeSet,
    pgs: Vec<PgFence>,
}

impl Recovery {
    /// A recovery of a manifest in state recovering, with these lost nodes to be replaced on opening.
    pub fn new(manifest: &Manifest, replace: &[Replacement]) -> Result<Recovery, RecoveryError> {
        if manifest.state != VolumeState::Recovering {
            return Err(RecoveryError::State {
                expected: VolumeState::Recovering,
                got: manifest.state,
            });
        }
        let pairs: Vec<_> = replace.iter().map(|r| (r.lost, r.with.id)).collect();
        let opening = manifest
            .pgs
            .iter()
            .map(|pg| pg.replace_fenced(&pairs))
            .collect::<Result<Vec<_>, _>>()?;
        let anew = replace
            .iter()
            .filter(|r| r.lost == r.with.id)
            .map(|r| r.lost)
            .collect();
        let fence = || PgFence {
            counted: NodeSet::EMPTY,
            inventories: Vec::new(),
        };
        Ok(Recovery {
            opening,
            nodes: replaced_nodes(&manifest.nodes, replace)?,
            anew,
            pgs: manifest.pgs.iter().map(|_| fence()).collect(),
            manifest: manifest.clone(),
        })
    }

    /// The epoch to fence with.
    pub fn epoch(&self) -> u64 {
        self.manifest.epoch
    }

    /// The History that fenced copies take over.
    pub fn history(&self) -> Arc<History> {
        Arc::new(self.manifest.history.clone())
    }

    /// Copies that have not answered: old members, and those that are to replace lost ones.
    pub fn fences(&self) -> impl Iterator<Item = (PgId, NodeId)> + '_ {
        (0..self.pgs.len()).flat_map(move |index| {
            let members = self.manifest.pgs[index]
                .nodes()
                .union(self.opening[index].nodes());
            let answered: NodeSet = self.pgs[index]
                .inventories
                .iter()
                .map(|inv| inv.node)
                .collect();
            members
                .difference(answered)
                .into_iter()
                .map(move |node| (PgId(index as u32), node))
        })
    }

    /// The answer of a copy to this recovery's fence.
    pub fn on_inventory(&mut self, inventory: Inventory) -> Result<(), RecoveryError> {
        let Inventory {
            pg,
            node,
            epoch: got,
            ..
        } = inventory;
        let expected = self.manifest.epoch;
        if got != expected {
            return Err(RecoveryError::Epoch {
                node,
                expected,
                got,
            });
        }
        let index = pg.0 as usize;
        let count = self.pgs.len();
        let fence = self
            .pgs
            .get_mut(index)
            .ok_or(RecoveryError::NoSuchPg { node, pg, count })?;
        if self.manifest.pgs[index].nodes().contains(node) && !self.anew.contains(node) {
            fence.counted.insert(node);
        }
        fence.inventories.retain(|known| known.node != node);
        fence.inventories.push(inventory);
        Ok(())
    }

    /// Have enough answered: is no write quorum of the old epoch left unfenced, in any group?
    pub fn is_fenced(&self) -> bool {
        self.check_fenced().is_ok()
    }

    fn check_fenced(&self) -> Result<(), RecoveryError> {
        for (index, (members, fence)) in self.manifest.pgs.iter().zip(&self.pgs).enumerate() {
            if !members.write_quorum().blocked(fence.counted) {
                let missing = members.nodes().difference(fence.counted);
                return Err(RecoveryError::NotEnough {
                    pg: PgId(index as u32),
                    fenced: fence.counted,
                    missing,
                });
            }
        }
        Ok(())
    }

    /// Decides what happened, and what must be copied before the volume can open.
    pub fn plan(&self) -> Result<Plan, RecoveryError> {
        self.check_fenced()?;
        let (vcl, vdl) = self.durable_points();
        let mut plan = Plan {
            manifest: self.manifest.clone(),
            opening: self.opening.clone(),
            nodes: self.nodes.clone(),
            vcl,
            vdl,
            tails: Vec::with_capacity(self.pgs.len()),
            complete: Vec::with_capacity(self.pgs.len()),
            jobs: Vec::new(),
        };
        for (index, fence) in self.pgs.iter().enumerate() {
            let pg = PgId(index as u32);
            let holdings: Vec<Holding> = fence
                .inventories
                .iter()
                .map(|inv| Holding::of(inv, &self.manifest.history, vdl))
                .collect();
            let tail = holdings
                .iter()
                .map(Holding::newest)
                .max()
                .unwrap_or(Lsn::NONE);
            let members = self.opening[index].nodes();
            let targets = holdings
                .iter()
                .filter(|holding| members.contains(holding.node));
            let complete = targets
                .clone()
                .filter(|target| target.scl >= tail)
                .map(|target| target.node)
                .collect();
            for target in targets.filter(|target| target.scl < tail) {
                jobs_for(
                    pg,
                    target,
                    &holdings,
                    tail,
                    self.manifest.collection_floor,
                    &mut plan.jobs,
                )?;
            }
            plan.tails.push(tail);
            plan.complete.push(complete);
        }
        // What needs little copying first: it mostly makes the write quorum.
        plan.jobs
            .sort_by_key(|job| (job.pages, job.after.is_none(), job.upto.0 - job.after.0));
        Ok(plan)
    }

    /// VCL: the last LSN before the first that is nowhere; VDL: the last CPL at or below it. Everything at or below the
    /// highest VDL that any copy has heard of is durable, and so is everything below the last branch, and at or below the
    /// collection floor: a VDL once, and records up to it may have been given up since.
    fn durable_points(&self) -> (Lsn, Lsn) {
        let history = &self.manifest.history;
        let inventories = || self.pgs.iter().flat_map(|fence| &fence.inventories);
        let branch = history.floor(history.first_new_lsn().prev());
        let floor = history.floor(self.manifest.collection_floor);
        let known = inventories()
            .map(|inv| history.floor(inv.vdl_hint))
            .fold(branch.max(floor), Lsn::max);
        let mut records: Vec<(Lsn, bool)> = inventories()
            .flat_map(|inv| &inv.records)
            .filter(|(lsn, ..)| *lsn > known && history.origin_of(*lsn).is_some())
            .map(|(lsn, _, cpl)| (*lsn, *cpl))
            .collect();
        records.sort_unstable();
        records.dedup_by_key(|(lsn, _)| *lsn);
        let (mut vcl, mut vdl) = (known, known);
        for (lsn, cpl) in records {
            if history.next_after(vcl) != Some(lsn) {
                break;
            }
            vcl = lsn;
            vdl = if cpl { lsn } else { vdl };
        }
        (vcl, vdl)
    }
}

fn replaced_nodes(
    nodes: &[NodeInfo],
    replace: &[Replacement],
) -> Result<Vec<NodeInfo>, RecoveryError> {
    let mut next = nodes.to_vec();
    for Replacement { lost, with } in replace {
        match next.iter_mut().find(|node| node.id == *lost) {
            Some(node) if with.id == *lost && with.incarnation <= node.incarnation => {
                let (above, got) = (node.incarnation, with.incarnation);
                return Err(RecoveryError::Incarnation {
                    node: *lost,
                    above,
                    got,
                });
            }
            Some(node) => *node = with.clone(),
            None => next.push(with.clone()),
        }
    }
    Ok(next)
}

/// What a recovery decided, and how far it has come in making it so.
#[derive(Debug)]
pub struct Plan {
    manifest: Manifest,
    opening: Vec<Membership>,
    nodes: Vec<NodeInfo>,
    vcl: Lsn,
    vdl: Lsn,
    tails: Vec<Lsn>,
    complete: Vec<NodeSet>,
    jobs: Vec<Job>,
}

impl Plan {
    /// The epoch of the recovery, which re-replicated batches carry.
    pub fn epoch(&self) -> u64 {
        self.manifest.epoch
    }

    /// Everything at or below it was found.
    pub fn vcl(&self) -> Lsn {
        self.vcl
    }

    /// The branch point: nothing above it happened.
    pub fn vdl(&self) -> Lsn {
        self.vdl
    }

    /// The last record of a group at or below the VDL.
    pub fn tail(&self, pg: PgId) -> Lsn {
        self.tails.get(pg.0 as usize).copied().unwrap_or(Lsn::NONE)
    }

    /// What is to be copied, the cheap jobs first. Jobs of one target and group build on each other, in this order.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// Jobs whose target is not known to be complete yet.
    pub fn open_jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs
            .iter()
            .filter(|job| !self.complete[job.pg.0 as usize].contains(job.to))
    }

    /// Who has everything of a group up to the VDL: reads at the VDL can go there.
    pub fn complete(&self, pg: PgId) -> NodeSet {
        self.complete
            .get(pg.0 as usize)
            .copied()
            .unwrap_or_default()
    }

    /// A copy has come further.
    pub fn on_ack(&mut self, ack: &Ack) {
        let index = ack.pg.0 as usize;
        let member = self
            .opening
            .get(index)
            .is_some_and(|members| members.nodes().contains(ack.node));
        if member && ack.epoch == self.manifest.epoch && ack.scl >= self.tails[index] {
            self.complete[index].insert(ack.node);
        }
    }

    /// Has a write quorum of every membership to be opened everything up to the VDL?
    pub fn ready(&self) -> bool {
        self.unready().is_none()
    }

    /// The first group that is not ready, and its members that lack something: who must come back for the volume to
    /// open, if no job is left.
    pub fn unready(&self) -> Option<(PgId, NodeSet)> {
        let groups = self.opening.iter().zip(&self.complete).enumerate();
        groups
            .filter(|(_, (members, complete))| !members.write_quorum().satisfied(**complete))
            .map(|(index, (members, complete))| {
                (PgId(index as u32), members.nodes().difference(*complete))
            })
            .next()
    }

    /// Could the volume open if every job were done?
    pub fn can_open(&self) -> bool {
        let mut reach = self.complete.clone();
        for job in &self.jobs {
            reach[job.pg.0 as usize].insert(job.to);
        }
        self.opening
            .iter()
            .zip(&reach)
            .all(|(members, nodes)| members.write_quorum().satisfied(*nodes))
    }

    /// The manifest that opens the volume, to be written by CAS. Call it when [`Plan::ready`].
    pub fn opened(&self) -> Result<Manifest, EditError> {
        debug_assert!(
            self.ready(),
            "a volume opens when a write quorum of every group has everything"
        );
        self.manifest
            .opened(self.vdl, self.opening.clone(), self.nodes.clone())
    }

    /// What the writer starts from once the manifest that [`Plan::opened`] gave is written.
    pub fn writer_start(&self, opened: &Manifest, bytes_in_flight_max: u64) -> WriterStart {
        WriterStart::of(
            opened,
            &opened.history,
            self.vdl,
            &self.tails,
            bytes_in_flight_max,
        )
    }
}
