//! One protection group as its writer sees it: who has what, and how far the quorum has come.

use std::collections::VecDeque;
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_redo::{PgBatch, Record};
use smallvec::SmallVec;

use crate::membership::Membership;
use crate::quorum::{NodeId, NodeSet, Quorum};

#[derive(Debug)]
pub(crate) struct Pg {
    pub(crate) members: Membership,
    /// `None` if every member in `scls` counts alike, as nearly always; then `k` of them are enough.
    pub(crate) joint: Option<Quorum>,
    pub(crate) k: usize,
    pub(crate) scls: SmallVec<[(NodeId, Lsn); 8]>,
    pub(crate) tail: Lsn,
    pub(crate) pgcl: Lsn,
    pub(crate) pending: Vec<Record>,
    /// Sent and not yet at the PGCL, for members that ask again.
    pub(crate) sent: VecDeque<Arc<PgBatch>>,
    pub(crate) blocked: bool,
}

impl Pg {
    pub(crate) fn new(members: Membership, tail: Lsn) -> Pg {
        let mut pg = Pg {
            members: Membership::new(0, []),
            joint: None,
            k: 0,
            scls: SmallVec::new(),
            tail,
            pgcl: tail,
            pending: Vec::new(),
            sent: VecDeque::new(),
            blocked: false,
        };
        pg.set_members(members);
        pg
    }

    pub(crate) fn set_members(&mut self, members: Membership) {
        let known = std::mem::take(&mut self.scls);
        let scl = |node| {
            known
                .iter()
                .find(|(n, _)| *n == node)
                .map_or(Lsn::NONE, |(_, scl)| *scl)
        };
        self.scls = members
            .nodes()
            .iter()
            .map(|node| (node, scl(node)))
            .collect();
        self.joint = (!members.settled()).then(|| members.write_quorum());
        self.k = usize::from(members.write_k());
        self.members = members;
    }

    /// How far the write quorum of the present members has come.
    pub(crate) fn reached(&self) -> Lsn {
        self.reached_without(NodeSet::EMPTY)
    }

    /// The same if these had nothing.
    pub(crate) fn reached_without(&self, nodes: NodeSet) -> Lsn {
        let counted = || self.scls.iter().filter(|(node, _)| !nodes.contains(*node));
        if let Some(quorum) = &self.joint {
            let at = |node| {
                counted()
                    .find(|(n, _)| *n == node)
                    .map_or(Lsn::NONE, |(_, scl)| *scl)
            };
            return quorum.reached(&at);
        }
        // The k-th highest: the highest value that at least k members have reached. Members are few.
        let reached_by = |lsn| counted().filter(|(_, scl)| *scl >= lsn).count();
        let candidates = counted().map(|(_, scl)| *scl);
        candidates
            .filter(|&lsn| reached_by(lsn) >= self.k)
            .max()
            .unwrap_or(Lsn::NONE)
    }
}
