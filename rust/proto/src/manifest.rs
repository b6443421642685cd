//! The manifest: the one record that says what a cluster is, changed only by compare-and-swap.
//!
//! Its CAS *is* the moment at which a recovery, branch, membership step or growth happens [4]; storage nodes learn of
//! it afterwards. Every edit here is a method that gives a new manifest with `version + 1`; nothing is changed in place.
//! The bytes are in `codec.rs`.

use std::collections::BTreeMap;
use std::fmt;

use aurora_page::{Geometry, Lsn, VolumeId};
use aurora_redo::{History, PgId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::membership::Membership;
use crate::quorum::{NodeId, NodeSet};

/// Names a cluster for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What the volume is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VolumeState {
    /// An opener is fencing and collecting; nobody may write.
    Recovering,
    /// The writer of this epoch may write.
    Open,
    /// The writer of this epoch has finished in good order. The next opener recovers all the same.
    Closed,
}

/// A storage node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id, unique in the cluster.
    pub id: NodeId,
    /// The availability zone.
    pub az: String,
    /// Its directory, relative to the cluster's unless absolute.
    pub path: String,
    /// The device on which the directory was created: a missing directory is created anew only there.
    pub device: u64,
    /// Grows when the node is created anew, so that an empty directory is not taken for the copy that was lost.
    pub incarnation: u64,
}

/// A History that was left by a backtrack and is kept for the way forward.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Abandoned {
    /// What had happened, closed at its VDL.
    pub history: History,
    /// When it became the present one.
    pub since_us: i64,
    /// When it was left.
    pub until_us: i64,
    /// Nodes that had all of it then, each with its incarnation: what makes a way back independent of how much it brings back.
    pub complete: Vec<(NodeId, u64)>,
}

/// A moment with a name, kept until it is deleted: a root of collection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Its name, unique in the cluster.
    pub name: String,
    /// What had happened, closed at `lsn`.
    pub history: History,
    /// The commit that it ends with.
    pub lsn: Lsn,
    /// When it was made.
    pub created_us: i64,
}

/// Everything a cluster's openers must agree on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The cluster.
    pub cluster: ClusterId,
    /// Grows by one with every edit; the CAS compares it.
    pub version: u64,
    /// The volume epoch.
    pub epoch: u64,
    /// What the volume is doing.
    pub state: VolumeState,
    /// The origin that new records carry.
    pub origin: VolumeId,
    /// What counts as having happened.
    pub history: History,
    /// When the present History became the present one, apart from crash recoveries since.
    pub history_since_us: i64,
    /// Histories left by backtracks, oldest first.
    pub abandoned: Vec<Abandoned>,
    /// Moments that are kept by name, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Instances of other regions are refused.
    pub region: String,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Pages of a segment.
    pub segment_pages: u64,
    /// The LAL window, fixed when the cluster is created.
    pub window: u64,
    /// The storage nodes.
    pub nodes: Vec<NodeInfo>,
    /// Members of each protection group, by its number.
    pub pgs: Vec<Membership>,
    /// Below it versions may have been collected. Never falls.
    pub collection_floor: Lsn,
    /// Settings that are kept with the cluster.
    pub config: BTreeMap<String, String>,
    /// When the cluster was created.
    pub created_us: i64,
}

/// What a new cluster starts from.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// The cluster's name for ever.
    pub cluster: ClusterId,
    /// The volume's origin.
    pub origin: VolumeId,
    /// Its region.
    pub region: String,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Pages of a segment.
    pub segment_pages: u64,
    /// The LAL window.
    pub window: u64,
    /// The storage nodes; all of them are members of the first protection group.
    pub nodes: Vec<NodeInfo>,
    /// Settings.
    pub config: BTreeMap<String, String>,
    /// The present time.
    pub created_us: i64,
}

/// Why an edit of a manifest is not possible.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum EditError {
    /// The edit belongs to another state.
    #[error("this edit needs the volume to be {expected:?}, it is {got:?}")]
    State {
        /// The state it needs.
        expected: VolumeState,
        /// The present state.
        got: VolumeState,
    },
    /// No such protection group.
    #[error("no protection group {pg}: the volume has {count}")]
    NoSuchPg {
        /// The group named.
        pg: PgId,
        /// Groups there are.
        count: usize,
    },
    /// A membership step was computed from another epoch.
    #[error("membership of {pg}: expected epoch {expected}, got {got}")]
    MembershipEpoch {
        /// The group.
        pg: PgId,
        /// One more than the present epoch.
        expected: u64,
        /// The epoch of the membership given.
        got: u64,
    },
    /// A branch point that did not happen.
    #[error("cannot branch at {at}: it is not in the history {history}")]
    NotInHistory {
        /// The point named.
        at: Lsn,
        /// The History.
        history: String,
    },
    /// A branch point whose versions may be gone.
    #[error("cannot branch at {at}: versions below {floor} may have been collected")]
    Collected {
        /// The point named.
        at: Lsn,
        /// The collection floor.
        floor: Lsn,
    },
    /// A snapshot of this name is there already.
    #[error("expected no snapshot {name:?}, got one")]
    SnapshotExists {
        /// The name.
        name: String,
    },
    /// No snapshot has this name.
    #[error("expected a snapshot {name:?}, got none")]
    NoSuchSnapshot {
        /// The name.
        name: String,
    },
}

impl Manifest {
    /// Protection groups that a manifest has room for: one with more would not be read.
    pub const PGS_MAX: u64 = crate::codec::PGS_MAX;

    /// The first manifest of a new cluster: version 1, epoch 1, open, one segment.
    pub fn create(new: NewCluster) -> Manifest {
        let members = Membership::new(1, new.nodes.iter().map(|node| node.id));
        Manifest {
            cluster: new.cluster,
            version: 1,
            epoch: 1,
            state: VolumeState::Open,
            origin: new.origin,
            history: History::new(new.origin),
            history_since_us: new.created_us,
            abandoned: Vec::new(),
            snapshots: Vec::new(),
            region: new.region,
            page_bytes: new.page_bytes,
            segment_pages: new.segment_pages,
            window: new.window,
            nodes: new.nodes,
            pgs: vec![members],
            collection_floor: Lsn::NONE,
            config: new.config,
            created_us: new.created_us,
        }
    }

    /// Sizes of pages, segments and extents.
    pub fn geometry(&self) -> Geometry {
        Geometry::new(self.page_bytes as usize, self.segment_pages)
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Members of a protection group.
    pub fn membership(&self, pg: PgId) -> Option<&Membership> {
        self.pgs.get(pg.0 as usize)
    }

    /// Every node that is a member of some group.
    pub fn members(&self) -> NodeSet {
        self.pgs
            .iter()
            .fold(NodeSet::EMPTY, |set, pg| set.union(pg.nodes()))
    }

    /// A node id that no node has: where a replacement comes beside the node that it replaces.
    pub fn free_node_id(&self) -> Option<NodeId> {
        (0..NodeId::LIMIT)
            .map(NodeId)
            .find(|&id| self.node(id).is_none())
    }

    /// Every kept History, the present one first.
    pub fn histories(&self) -> impl Iterator<Item = &History> {
        std::iter::once(&self.history)
            .chain(self.abandoned.iter().map(|past| &past.history))
            .chain(self.snapshots.iter().map(|snapshot| &snapshot.history))
    }

    /// The snapshot of this name.
    pub fn snapshot(&self, name: &str) -> Option<&Snapshot> {
        self.snapshots.iter().find(|known| known.name == name)
    }

    /// Keeps the moment `lsn` of the present History under a name.
    pub fn with_snapshot(&self, name: &str, lsn: Lsn, now_us: i64) -> Result<Manifest, EditError> {
        if self.snapshot(name).is_some() {
            return Err(EditError::SnapshotExists { name: name.into() });
        }
        if lsn < self.collection_floor {
            return Err(EditError::Collected {
                at: lsn,
                floor: self.collection_floor,
            });
        }
        let mut next = self.edit();
        next.snapshots.push(Snapshot {
            name: name.into(),
            history: self.history.clip(lsn),
            lsn,
            created_us: now_us,
        });
        Ok(next)
    }

    /// Keeps a moment no longer.
    pub fn without_snapshot(&self, name: &str) -> Result<Manifest, EditError> {
        if self.snapshot(name).is_none() {
            return Err(EditError::NoSuchSnapshot { name: name.into() });
        }
        let mut next = self.edit();
        next.snapshots.retain(|known| known.name != name);
        Ok(next)
    }

    /// Takes the next epoch in order to recover. The old writer, and any recovery before this one, is finished.
    #[must_use]
    pub fn recovering(&self) -> Manifest {
        let mut next = self.edit();
        next.epoch += 1;
        next.state = VolumeState::Recovering;
        next
    }

    /// Ends a recovery: branch at the VDL, memberships and nodes with the lost ones replaced, open [3][4].
    pub fn opened(
        &self,
        vdl: Lsn,
        pgs: Vec<Membership>,
        nodes: Vec<NodeInfo>,
    ) -> Result<Manifest, EditError> {
        self.expect(VolumeState::Recovering)?;
        let mut next = self.edit();
        next.history = self.history.branch(vdl, self.origin, self.window);
        next.state = VolumeState::Open;
        next.pgs = pgs;
        next.nodes = nodes;
        Ok(next)
    }

    /// The writer leaves in good order.
    pub fn closed(&self) -> Result<Manifest, EditError> {
        self.expect(VolumeState::Open)?;
        let mut next = self.edit();
        next.state = VolumeState::Closed;
        Ok(next)
    }

    /// Grows the volume by one segment.
    pub fn add_segment(&self, members: Membership) -> Result<Manifest, EditError> {
        self.expect(VolumeState::Open)?;
        let mut next = self.edit();
        next.pgs.push(members);
        Ok(next)
    }

    /// The members that the next segment gets: those that most of the last one has settled on.
    pub fn next_members(&self) -> Membership {
        match self.pgs.last() {
            Some(last) if last.settled() => Membership {
                epoch: 1,
                places: last.places.clone(),
            },
            _ => Membership::new(1, self.nodes.iter().map(|node| node.id)),
        }
    }

    /// Makes one membership step.
    pub fn step_membership(&self, pg: PgId, members: Membership) -> Result<Manifest, EditError> {
        let count = self.pgs.len();
        let mut next = self.edit();
        let place = next
            .pgs
            .get_mut(pg.0 as usize)
            .ok_or(EditError::NoSuchPg { pg, count })?;
        let expected = place.epoch + 1;
        if members.epoch != expected {
            return Err(EditError::MembershipEpoch {
                pg,
                expected,
                got: members.epoch,
            });
        }
        *place = members;
        Ok(next)
    }

    /// Replaces the list of nodes: one joins, one goes, or one moves to another directory.
    #[must_use]
    pub fn with_nodes(&self, nodes: Vec<NodeInfo>) -> Manifest {
        let mut next = self.edit();
        next.nodes = nodes;
        next
    }

    /// These nodes were made anew in their places: whatever is found there of an earlier making speaks for nobody. To be written only
    /// when the quorum of the others has everything (`Writer::forget`).
    #[must_use]
    pub fn renewed(&self, nodes: &[NodeInfo]) -> Manifest {
        let renewed = |info: &NodeInfo| {
            let same = nodes.iter().find(|new| new.id == info.id);
            same.unwrap_or(info).clone()
        };
        self.with_nodes(self.nodes.iter().map(renewed).collect())
    }

    /// Leaves what happened after `at`, and keeps it as abandoned, closed at the present `vdl`. Takes a new epoch.
    pub fn backtracked(&self, at: Lsn, vdl: Lsn, now_us: i64) -> Result<Manifest, EditError> {
        let history = self.history.clone();
        self.rebranched(&history, at, vdl, now_us, self.collection_floor)
    }

    /// The same to the moment of a snapshot, which may lie below the collection floor: its versions are kept.
    pub fn backtracked_to(&self, name: &str, vdl: Lsn, now_us: i64) -> Result<Manifest, EditError> {
        let snapshot = self
            .snapshot(name)
            .ok_or_else(|| EditError::NoSuchSnapshot { name: name.into() })?;
        let (history, lsn) = (snapshot.history.clone(), snapshot.lsn);
        self.rebranched(&history, lsn, vdl, now_us, Lsn::NONE)
    }

    /// Says which nodes have all of what was abandoned last: to be called on what a branch gave, before it is written.
    #[must_use]
    pub fn with_complete(mut self, complete: Vec<(NodeId, u64)>) -> Manifest {
        if let Some(last) = self.abandoned.last_mut() {
            last.complete = complete;
        }
        self
    }

    /// A new epoch for the present History, cut at its `vdl`: what a failover does.
    pub fn failed_over(&self, vdl: Lsn) -> Result<Manifest, EditError> {
        self.expect(VolumeState::Open)?;
        let mut next = self.edit();
        next.epoch += 1;
        next.history = self.history.branch(vdl, self.origin, self.window);
        Ok(next)
    }

    /// Goes forward again to `at` on an abandoned History. Takes a new epoch.
    pub fn forwarded(
        &self,
        past: usize,
        at: Lsn,
        vdl: Lsn,
        now_us: i64,
    ) -> Result<Manifest, EditError> {
        let history = match self.abandoned.get(past) {
            Some(abandoned) => abandoned.history.clone(),
            None => {
                return Err(EditError::NotInHistory {
                    at,
                    history: self.history.to_string(),
                });
            }
        };
        self.rebranched(&history, at, vdl, now_us, self.collection_floor)
    }

    fn rebranched(
        &self,
        from: &History,
        at: Lsn,
        vdl: Lsn,
        now_us: i64,
        floor: Lsn,
    ) -> Result<Manifest, EditError> {
        self.expect(VolumeState::Open)?;
        if from.origin_of(at).is_none() {
            return Err(EditError::NotInHistory {
                at,
                history: from.to_string(),
            });
        }
        if at < floor {
            return Err(EditError::Collected { at, floor });
        }
        // No LSN of the present branch may be given again, however far back `at` lies [3].
        let past = vdl.max(self.history.first_new_lsn().prev());
        let mut next = self.edit();
        next.epoch += 1;
        next.history = from.branch_past(at, past, self.origin, self.window);
        next.history_since_us = now_us;
        next.abandoned.push(Abandoned {
            history: self.history.clip(vdl),
            since_us: self.history_since_us,
            until_us: now_us,
            complete: Vec::new(),
        });
        Ok(next)
    }

    /// Drops abandoned Histories that were left before `before_us`; `None` if there are none.
    ///
    /// One that a snapshot lies on stays: it says which nodes have all of it.
    pub fn forgetting(&self, before_us: i64) -> Option<Manifest> {
        let ends_here = |past: &Abandoned, snapshot: &Snapshot| {
            let on = |history: &History| history.common_prefix(&snapshot.history) >= snapshot.lsn;
            on(&past.history) && !on(&self.history)
        };
        let kept = |past: &Abandoned| {
            past.until_us >= before_us
                || self
                    .snapshots
                    .iter()
                    .any(|snapshot| ends_here(past, snapshot))
        };
        if self.abandoned.iter().all(kept) {
            return None;
        }
        let mut next = self.edit();
        next.abandoned.retain(kept);
        Some(next)
    }

    /// Raises the collection floor; `None` if that changes nothing, as it never falls.
    pub fn with_floor(&self, floor: Lsn) -> Option<Manifest> {
        (floor > self.collection_floor).then(|| {
            let mut next = self.edit();
            next.collection_floor = floor;
            next
        })
    }

    /// Changes a setting.
    #[must_use]
    pub fn with_config(&self, key: &str, value: &str) -> Manifest {
        let mut next = self.edit();
        next.config.insert(key.to_owned(), value.to_owned());
        next
    }

    fn edit(&self) -> Manifest {
        let mut next = self.clone();
        next.version += 1;
        next
    }

    fn expect(&self, expected: VolumeState) -> Result<(), EditError> {
        if self.state == expected {
            Ok(())
        } else {
            Err(EditError::State {
                expected,
                got: self.state,
            })
        }
    }
}

/// Why the manifest could not be read or changed.
#[derive(Debug, Error)]
pub enum MetaError {
    /// Somebody else has changed it since.
    #[error("the manifest has changed: expected version {expected}, found {found}")]
    Conflict {
        /// The version that the change was made from.
        expected: u64,
        /// The version there is.
        found: u64,
    },
    /// Too few places hold a whole manifest to decide which is the latest.
    #[error("the manifest is complete in {got} of {of} places, {needed} are needed")]
    TooFew {
        /// Places that hold it.
        got: usize,
        /// Places that count.
        needed: usize,
        /// Places there are.
        of: usize,
    },
    /// What was read is no manifest that this version understands.
    #[error(transparent)]
    Manifest(#[from] crate::codec::ManifestError),
    /// The place where it is kept failed.
    #[error("the metadata store failed: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where the manifest is kept: directories when embedded, a consensus service on many machines.
pub trait MetaStore {
    /// The latest manifest; `None` if the cluster has never been created.
    fn read_latest(&self) -> Result<Option<Manifest>, MetaError>;
    /// Writes `next` if the latest version is `expected` (0: none), and otherwise changes nothing. After an error
    /// other than [`MetaError::Conflict`] the outcome is unknown: read and compare.
    fn cas(&self, expected: u64, next: &Manifest) -> Result<(), MetaError>;
}
