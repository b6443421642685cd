//! Who holds the copies of a protection group, and how one of them is replaced without stopping I/O [14].
//!
//! A membership is a list of *places*. A place is held by one node, or by two while one replaces the other; the
//! *groups* are all ways of choosing one node per place. To write, every group must have met its quorum; to recover,
//! one group must have answered. Each step adds one to the membership epoch and each can be taken back.
//!
//! Order of a step against the manifest's CAS [4]: a writer that is about to need *more* answers (begin) does so
//! before the CAS, and the CAS waits until what is already durable has met the new quorum too
//! (`Writer::settled`); one that will need *fewer* (complete, revert) does so after it.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use thiserror::Error;

use crate::quorum::{NodeId, NodeSet, Quorum};

/// A place in a protection group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Place {
    /// Held by one node.
    Held(NodeId),
    /// `from` is being replaced by `to`, which hydrates.
    Moving {
        /// The member that is to go.
        from: NodeId,
        /// The member that is to come.
        to: NodeId,
    },
}

impl Place {
    fn holders(self) -> NodeSet {
        self.node_ids().into_iter().collect()
    }

    /// The ids as they stand, which in bytes from outside may be out of range.
    pub(crate) fn node_ids(self) -> SmallVec<[NodeId; 2]> {
        match self {
            Place::Held(node) => smallvec![node],
            Place::Moving { from, to } => smallvec![from, to],
        }
    }
}

/// Why a membership step was refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum MembershipError {
    /// The node named does not hold a place by itself.
    #[error("{node} is not a settled member: members are {members}")]
    NotMember {
        /// The node named.
        node: NodeId,
        /// The members.
        members: NodeSet,
    },
    /// The new node is a member already.
    #[error("{node} is a member already: members are {members}")]
    AlreadyMember {
        /// The node named.
        node: NodeId,
        /// The members.
        members: NodeSet,
    },
    /// No such replacement is under way.
    #[error("no replacement of {from} by {to} is under way")]
    NotMoving {
        /// The member that was to go.
        from: NodeId,
        /// The member that was to come.
        to: NodeId,
    },
    /// Each replacement doubles the number of groups, so few run at once.
    #[error("{limit} replacements are under way already, which is the limit")]
    TooManyMoves {
        /// The limit.
        limit: usize,
    },
    /// The node id does not fit a node set.
    #[error("node id {node} is not below {limit}")]
    BadNodeId {
        /// The id given.
        node: u16,
        /// Ids are below this.
        limit: u16,
    },
}

/// The members of one protection group at one membership epoch.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// Grows by one with every step.
    pub epoch: u64,
    /// The places, in the order in which they were given.
    pub places: Vec<Place>,
}

impl Membership {
    /// Replacements that may be under way at once.
    pub const MOVES_MAX: usize = 2;

    /// A settled membership.
    pub fn new(epoch: u64, nodes: impl IntoIterator<Item = NodeId>) -> Membership {
        Membership {
            epoch,
            places: nodes.into_iter().map(Place::Held).collect(),
        }
    }

    /// How many places a write must reach in each group: the smallest majority (4 of 6).
    pub fn write_k(&self) -> u8 {
        (self.places.len() / 2 + 1) as u8
    }

    /// How many places recovery must reach in one group: enough to meet every write (3 of 6).
    pub fn read_k(&self) -> u8 {
        (self.places.len() + 1) as u8 - self.write_k()
    }

    /// Every node that holds a place, alone or not: those a writer sends to.
    pub fn nodes(&self) -> NodeSet {
        self.places
            .iter()
            .fold(NodeSet::EMPTY, |set, place| set.union(place.holders()))
    }

    /// All ways of choosing one node per place.
    pub fn groups(&self) -> Vec<NodeSet> {
        let mut groups = vec![NodeSet::EMPTY];
        for place in &self.places {
            groups = match *place {
                Place::Held(node) => groups.into_iter().map(|group| group.with(node)).collect(),
                Place::Moving { from, to } => groups
                    .into_iter()
                    .flat_map(|group| [group.with(from), group.with(to)])
                    .collect(),
            };
        }
        groups
    }

    /// Who must have a record before it is durable: the quorum of every group.
    pub fn write_quorum(&self) -> Quorum {
        let k = self.write_k();
        match self.groups().as_slice() {
            [of] => Quorum::AtLeast { k, of: *of },
            groups => Quorum::All(groups.iter().map(|&of| Quorum::AtLeast { k, of }).collect()),
        }
    }

    /// Who must answer before recovery knows everything durable: it meets every write quorum.
    pub fn read_quorum(&self) -> Quorum {
        let k = self.read_k();
        match self.groups().as_slice() {
            [of] => Quorum::AtLeast { k, of: *of },
            groups => Quorum::Any(groups.iter().map(|&of| Quorum::AtLeast { k, of }).collect()),
        }
    }

    /// Is no replacement under way?
    pub fn settled(&self) -> bool {
        self.moves().next().is_none()
    }

    /// The replacements under way, as (from, to).
    pub fn moves(&self) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
        self.places.iter().filter_map(|place| match *place {
            Place::Held(_) => None,
            Place::Moving { from, to } => Some((from, to)),
        })
    }

    /// Step 1: `to` joins beside `from`.
    pub fn begin_replace(&self, from: NodeId, to: NodeId) -> Result<Membership, MembershipError> {
        self.check_new(to)?;
        if self.moves().count() >= Self::MOVES_MAX {
            return Err(MembershipError::TooManyMoves {
                limit: Self::MOVES_MAX,
            });
        }
        let position = self.held_by(from)?;
        Ok(self.with_place(position, Place::Moving { from, to }))
    }

    /// Step 2: `to` is hydrated, `from` goes.
    pub fn complete(&self, from: NodeId, to: NodeId) -> Result<Membership, MembershipError> {
        Ok(self.with_place(self.moving(from, to)?, Place::Held(to)))
    }

    /// Step 2 the other way: `from` came back, `to` goes.
    pub fn revert(&self, from: NodeId, to: NodeId) -> Result<Membership, MembershipError> {
        Ok(self.with_place(self.moving(from, to)?, Place::Held(from)))
    }

    /// Replaces lost members at once. Only recovery may do that, under its fence, as no I/O runs then. A pair of equal
    /// ids stands for a node that was created anew, and changes nothing here.
    pub fn replace_fenced(
        &self,
        pairs: &[(NodeId, NodeId)],
    ) -> Result<Membership, MembershipError> {
        let mut next = self.clone();
        for &(from, to) in pairs.iter().filter(|(from, to)| from != to) {
            if !next.nodes().contains(from) {
                continue;
            }
            next.check_new(to)?;
            for place in &mut next.places {
                *place = match *place {
                    Place::Held(node) if node == from => Place::Held(to),
                    Place::Moving { from: a, to: b } if a == from => {
                        Place::Moving { from: to, to: b }
                    }
                    Place::Moving { from: a, to: b } if b == from => Place::Moving { from: a, to },
                    same => same,
                };
            }
        }
        if next.places != self.places {
            next.epoch += 1;
        }
        Ok(next)
    }

    fn check_new(&self, node: NodeId) -> Result<(), MembershipError> {
        if node.0 >= NodeId::LIMIT {
            return Err(MembershipError::BadNodeId {
                node: node.0,
                limit: NodeId::LIMIT,
            });
        }
        if self.nodes().contains(node) {
            return Err(MembershipError::AlreadyMember {
                node,
                members: self.nodes(),
            });
        }
        Ok(())
    }

    fn held_by(&self, node: NodeId) -> Result<usize, MembershipError> {
        self.places
            .iter()
            .position(|place| *place == Place::Held(node))
            .ok_or(MembershipError::NotMember {
                node,
                members: self.nodes(),
            })
    }

    fn moving(&self, from: NodeId, to: NodeId) -> Result<usize, MembershipError> {
        self.places
            .iter()
            .position(|place| *place == Place::Moving { from, to })
            .ok_or(MembershipError::NotMoving { from, to })
    }

    fn with_place(&self, position: usize, place: Place) -> Membership {
        let mut next = self.clone();
        next.places[position] = place;
        next.epoch += 1;
        next
    }
}
