//! Quorums as values: who must have answered, evaluated by one pure function.
//!
//! A quorum is monotone: a larger set of nodes never satisfies less. Everything here rests on that, above all
//! [`Quorum::reached`], which turns "the set of nodes at or above x satisfies me" into a single LSN.

use std::fmt;

use aurora_page::Lsn;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// A storage node of one cluster. Ids are small so that a set of nodes is one machine word.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct NodeId(pub u16);

impl NodeId {
    /// Ids are below this.
    pub const LIMIT: u16 = 64;
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A set of nodes, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct NodeSet(pub u64);

impl NodeSet {
    /// No node.
    pub const EMPTY: NodeSet = NodeSet(0);
    /// Every node there can be.
    pub const ALL: NodeSet = NodeSet(u64::MAX);

    /// The set of one node.
    pub fn one(node: NodeId) -> NodeSet {
        NodeSet(bit(node))
    }

    /// Is the node in the set?
    pub fn contains(self, node: NodeId) -> bool {
        self.0 & bit(node) != 0
    }

    /// Adds a node; false if it was there.
    pub fn insert(&mut self, node: NodeId) -> bool {
        let fresh = !self.contains(node);
        self.0 |= bit(node);
        fresh
    }

    /// Removes a node; false if it was not there.
    pub fn remove(&mut self, node: NodeId) -> bool {
        let held = self.contains(node);
        self.0 &= !bit(node);
        held
    }

    /// The set with one node more.
    #[must_use]
    pub fn with(self, node: NodeId) -> NodeSet {
        NodeSet(self.0 | bit(node))
    }

    /// The set with one node less.
    #[must_use]
    pub fn without(self, node: NodeId) -> NodeSet {
        NodeSet(self.0 & !bit(node))
    }

    /// Nodes of either set.
    #[must_use]
    pub fn union(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 | other.0)
    }

    /// Nodes of both sets.
    #[must_use]
    pub fn intersection(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & other.0)
    }

    /// Nodes of this set that are not in the other.
    #[must_use]
    pub fn difference(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & !other.0)
    }

    /// Every node that is not in this set.
    #[must_use]
    pub fn complement(self) -> NodeSet {
        NodeSet(!self.0)
    }

    /// Is every node of this set in the other?
    pub fn is_subset(self, other: NodeSet) -> bool {
        self.0 & !other.0 == 0
    }

    /// How many nodes.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Has it no node?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The node with the lowest id.
    pub fn first(self) -> Option<NodeId> {
        (!self.is_empty()).then(|| NodeId(self.0.trailing_zeros() as u16))
    }

    /// The nodes, lowest id first.
    pub fn iter(self) -> NodeSetIter {
        NodeSetIter(self.0)
    }
}

fn bit(node: NodeId) -> u64 {
    debug_assert!(
        node.0 < NodeId::LIMIT,
        "node id {} is not below {}",
        node.0,
        NodeId::LIMIT
    );
    1u64.checked_shl(u32::from(node.0)).unwrap_or(0)
}

/// Iterates over a [`NodeSet`], lowest id first.
#[derive(Clone, Debug)]
pub struct NodeSetIter(u64);

impl Iterator for NodeSetIter {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        let node = NodeSet(self.0).first()?;
        self.0 &= self.0 - 1;
        Some(node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.0.count_ones() as usize;
        (n, Some(n))
    }
}

impl ExactSizeIterator for NodeSetIter {}

impl IntoIterator for NodeSet {
    type Item = NodeId;
    type IntoIter = NodeSetIter;

    fn into_iter(self) -> NodeSetIter {
        self.iter()
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> NodeSet {
        nodes.into_iter().fold(NodeSet::EMPTY, NodeSet::with)
    }
}

impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, node) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{node}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which sets of nodes are enough.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Quorum {
    /// At least `k` nodes of the set.
    AtLeast {
        /// How many.
        k: u8,
        /// Of whom.
        of: NodeSet,
    },
    /// Every one of these quorums; none at all is satisfied by nobody having answered.
    All(Vec<Quorum>),
    /// One of these quorums at least; none at all is never satisfied.
    Any(Vec<Quorum>),
}

impl Quorum {
    /// Is this set of nodes enough?
    pub fn satisfied(&self, nodes: NodeSet) -> bool {
        match self {
            Quorum::AtLeast { k, of } => nodes.intersection(*of).len() >= usize::from(*k),
            Quorum::All(parts) => parts.iter().all(|part| part.satisfied(nodes)),
            Quorum::Any(parts) => parts.iter().any(|part| part.satisfied(nodes)),
        }
    }

    /// Can it not be satisfied without the lost nodes?
    pub fn blocked(&self, lost: NodeSet) -> bool {
        !self.satisfied(lost.complement())
    }

    /// Every node that can matter to it.
    pub fn nodes(&self) -> NodeSet {
        match self {
            Quorum::AtLeast { of, .. } => *of,
            Quorum::All(parts) | Quorum::Any(parts) => parts
                .iter()
                .fold(NodeSet::EMPTY, |set, part| set.union(part.nodes())),
        }
    }

    /// The highest LSN that a satisfying set of nodes has reached, when `at(n)` is how far node n has come: with
    /// SCLs, the PGCL. By monotony it is the k-th highest of a group, the least over `All`, the greatest over `Any`.
    pub fn reached(&self, at: &impl Fn(NodeId) -> Lsn) -> Lsn {
        match self {
            Quorum::AtLeast { k: 0, .. } => Lsn::MAX,
            Quorum::AtLeast { k, of } => {
                let mut lsns: SmallVec<[Lsn; 8]> = of.iter().map(at).collect();
                let k = usize::from(*k);
                if k > lsns.len() {
                    return Lsn::NONE;
                }
                lsns.sort_unstable_by(|a, b| b.cmp(a));
                lsns[k - 1]
            }
            Quorum::All(parts) => parts
                .iter()
                .map(|part| part.reached(at))
                .min()
                .unwrap_or(Lsn::MAX),
            Quorum::Any(parts) => parts
                .iter()
                .map(|part| part.reached(at))
                .max()
                .unwrap_or(Lsn::NONE),
        }
    }

    /// A picture of who has answered, for people: one line per group, `+` before a node that has.
    pub fn picture(&self, nodes: NodeSet) -> String {
        let mut out = String::new();
        self.draw(nodes, 0, &mut out);
        out
    }

    fn draw(&self, nodes: NodeSet, depth: usize, out: &mut String) {
        let mark = if self.satisfied(nodes) { "yes" } else { "no " };
        out.push_str(&format!("{}{mark} ", "  ".repeat(depth)));
        match self {
            Quorum::AtLeast { k, of } => {
                out.push_str(&format!("{k}/{}", of.len()));
                for node in *of {
                    let sign = if nodes.contains(node) { '+' } else { '-' };
                    out.push_str(&format!(" {sign}{node}"));
                }
                out.push('\n');
            }
            Quorum::All(parts) | Quorum::Any(parts) => {
                out.push_str(if matches!(self, Quorum::All(_)) {
                    "all of\n"
                } else {
                    "any of\n"
                });
                for part in parts {
                    part.draw(nodes, depth + 1, out);
                }
            }
        }
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, word) = match self {
            Quorum::AtLeast { k, of } => return write!(f, "{k}/{} {of}", of.len()),
            Quorum::All(parts) => (parts, " AND "),
            Quorum::Any(parts) => (parts, " OR "),
        };
        f.write_str("(")?;
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                f.write_str(word)?;
            }
            write!(f, "{part}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u16]) -> NodeSet {
        ids.iter().map(|&id| NodeId(id)).collect()
    }

    fn four_of_six() -> Quorum {
        Quorum::AtLeast {
            k: 4,
            of: set(&[0, 1, 2, 3, 4, 5]),
        }
    }

    #[test]
    fn a_group_counts_its_own_members_only() {
        let quorum = four_of_six();
        assert!(quorum.satisfied(set(&[0, 1, 2, 3])));
        assert!(!quorum.satisfied(set(&[0, 1, 2, 9])));
        assert!(!quorum.blocked(set(&[4, 5])));
        assert!(quorum.blocked(set(&[3, 4, 5])));
    }

    #[test]
    fn empty_combinations() {
        assert!(Quorum::All(vec![]).satisfied(NodeSet::EMPTY));
        assert!(!Quorum::Any(vec![]).satisfied(NodeSet::ALL));
    }

    #[test]
    fn reached_is_the_kth_highest() {
        let scls = [105, 103, 103, 103, 101, 105];
        let at = |n: NodeId| Lsn(scls[usize::from(n.0)]);
        assert_eq!(four_of_six().reached(&at), Lsn(103));
        let half = Quorum::AtLeast {
            k: 2,
            of: set(&[0, 5]),
        };
        assert_eq!(
            Quorum::All(vec![four_of_six(), half.clone()]).reached(&at),
            Lsn(103)
        );
        assert_eq!(
            Quorum::Any(vec![four_of_six(), half]).reached(&at),
            Lsn(105)
        );
    }

    #[test]
    fn the_picture_of_a_joint_quorum() {
        let of = set(&[0, 1, 2, 3, 4, 6]);
        let joint = Quorum::All(vec![four_of_six(), Quorum::AtLeast { k: 4, of }]);
        let golden = "\
no  all of
  yes 4/6 +n0 +n1 -n2 -n3 +n4 +n5
  no  4/6 +n0 +n1 -n2 -n3 +n4 -n6
";
        assert_eq!(joint.picture(set(&[0, 1, 4, 5])), golden);
        assert_eq!(
            joint.to_string(),
            "(4/6 {n0 n1 n2 n3 n4 n5} AND 4/6 {n0 n1 n2 n3 n4 n6})"
        );
    }

    #[test]
    fn sets_behave_like_sets() {
        let mut s = set(&[3, 1]);
        assert!(s.insert(NodeId(63)) && !s.insert(NodeId(1)));
        assert_eq!(s.iter().map(|n| n.0).collect::<Vec<_>>(), [1, 3, 63]);
        assert!(s.remove(NodeId(1)) && !s.remove(NodeId(1)));
        assert_eq!((s.len(), s.first()), (2, Some(NodeId(3))));
        assert!(set(&[3]).is_subset(s) && !set(&[1]).is_subset(s));
    }
}
