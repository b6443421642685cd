//! What to do about lost nodes.
//!
//! At opening nothing runs, so lost members are replaced in one step under the recovery's fence. While running,
//! members are replaced one step at a time and writes never wait [14].

use aurora_proto::{Manifest, Membership, NodeId, NodeInfo, NodeSet, Replacement};
use aurora_redo::PgId;

/// What was found where a node should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Its directory, with the identity and incarnation that the manifest knows.
    Living,
    /// No such directory, or one that cannot be its copy, on this device: that of the nearest directory above it.
    Lost {
        /// The device, as the system numbers it now.
        device: u64,
    },
    /// Nothing can be said: the place itself is not there.
    Unknown,
}

/// What an operator allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Rebuild even when only a read quorum lives, an AZ and one more being lost. Until the copies have been made, one
    /// more loss loses data, so a cluster may prefer to stay read-only and wait for its disks.
    pub rebuild_from_read_quorum: bool,
}

/// How a cluster can be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opening {
    /// Open for writing. These lost nodes are created anew, empty, and filled from the others.
    RecreateAndHydrate {
        /// Who is created anew.
        replace: Vec<Replacement>,
        /// Who stays away, because its device is not there and may come back with its copy.
        absent: NodeSet,
    },
    /// Everything durable is there, but too few copies live to write.
    ReadOnly {
        /// Who is missing; the return of one of them may be enough.
        missing: NodeSet,
    },
    /// So few copies live that what was acknowledged may be on none of them.
    Refuse {
        /// Who is missing.
        missing: NodeSet,
    },
}

/// Decides how a cluster can be opened from what was seen of its nodes. A node that is not in `seen` is unknown.
pub fn opening(manifest: &Manifest, seen: &[(NodeId, Seen)], policy: Policy) -> Opening {
    let found = |id| {
        seen.iter()
            .find(|(node, _)| *node == id)
            .map_or(Seen::Unknown, |(_, seen)| *seen)
    };
    let living: NodeSet = manifest
        .nodes
        .iter()
        .map(|n| n.id)
        .filter(|id| found(*id) == Seen::Living)
        .collect();
    let missing = manifest.members().difference(living);
    let every = |holds: &dyn Fn(&Membership) -> bool| manifest.pgs.iter().all(holds);
    if !every(&|pg| pg.read_quorum().satisfied(living)) {
        return Opening::Refuse { missing };
    }
    let replace: Vec<Replacement> = manifest
        .nodes
        .iter()
        .filter_map(|info| match found(info.id) {
            Seen::Lost { device } if device == info.device => Some(anew(info)),
            _ => None,
        })
        .collect();
    let rebuilt = replace
        .iter()
        .fold(living, |set, replacement| set.with(replacement.lost));
    let enough = if policy.rebuild_from_read_quorum {
        rebuilt
    } else {
        living
    };
    if !every(&|pg| pg.write_quorum().satisfied(enough)) {
        return Opening::ReadOnly { missing };
    }
    Opening::RecreateAndHydrate {
        replace,
        absent: manifest.members().difference(rebuilt),
    }
}

/// The same node, empty: its incarnation tells it from the copy that was lost.
fn anew(info: &NodeInfo) -> Replacement {
    Replacement {
        lost: info.id,
        with: NodeInfo {
            incarnation: info.incarnation + 1,
            ..info.clone()
        },
    }
}

/// Which lost nodes of a running cluster are made anew in their places, from what was seen of all that are lost: those on a device
/// that is there, as long as the nodes that stay are a write quorum of every group. Not before [`Writer::forget`] agrees: the quorum
/// of the others has everything, and nothing counts any more that the lost ones said.
///
/// [`Writer::forget`]: aurora_proto::Writer::forget
pub fn renewals(manifest: &Manifest, lost: &[(NodeId, Seen)]) -> Vec<Replacement> {
    let gone: NodeSet = lost.iter().map(|(id, _)| *id).collect();
    let living = manifest.members().difference(gone);
    let write = |pg: &Membership| pg.settled() && pg.write_quorum().satisfied(living);
    if !manifest.pgs.iter().all(write) {
        return Vec::new();
    }
    let there = |info: &&NodeInfo| {
        lost.contains(&(
            info.id,
            Seen::Lost {
                device: info.device,
            },
        ))
    };
    manifest.nodes.iter().filter(there).map(anew).collect()
}

/// One step of a repair by another node while the cluster runs. Membership steps are made by CAS, in the order that
/// `aurora_proto::membership` describes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Let the spare join beside the lost member.
    Begin {
        /// The group.
        pg: PgId,
        /// The lost member.
        from: NodeId,
        /// The spare.
        to: NodeId,
    },
    /// Fill the spare from the others.
    Hydrate {
        /// The group.
        pg: PgId,
        /// The spare.
        to: NodeId,
    },
    /// The spare has everything: the lost member goes.
    Complete {
        /// The group.
        pg: PgId,
        /// The lost member.
        from: NodeId,
        /// The spare.
        to: NodeId,
    },
    /// The lost member came back before the spare was complete: the spare goes.
    Revert {
        /// The group.
        pg: PgId,
        /// The member that came back.
        from: NodeId,
        /// The spare.
        to: NodeId,
    },
}

/// The next steps, at most one per group: `living` nodes answer, `spares` stand in for lost ones in the same zone, and
/// `complete(pg, node)` says whether a copy has everything.
pub fn repair_steps(
    manifest: &Manifest,
    living: NodeSet,
    spares: &[(NodeId, NodeId)],
    complete: impl Fn(PgId, NodeId) -> bool,
) -> Vec<Step> {
    let groups = manifest
        .pgs
        .iter()
        .enumerate()
        .map(|(index, members)| (PgId(index as u32), members));
    groups
        .filter_map(|(pg, members)| step(pg, members, living, spares, &complete))
        .collect()
}

fn step(
    pg: PgId,
    members: &Membership,
    living: NodeSet,
    spares: &[(NodeId, NodeId)],
    complete: &impl Fn(PgId, NodeId) -> bool,
) -> Option<Step> {
    let mut hydrate = None;
    for (from, to) in members.moves() {
        if complete(pg, to) && living.contains(to) {
            return Some(Step::Complete { pg, from, to });
        }
        if living.contains(from) && complete(pg, from) {
            return Some(Step::Revert { pg, from, to });
        }
        if living.contains(to) {
            hydrate = Some(Step::Hydrate { pg, to });
        }
    }
    let lost = members.nodes().difference(living);
    let begin = spares.iter().find(|(from, to)| {
        lost.contains(*from) && living.contains(*to) && members.begin_replace(*from, *to).is_ok()
    });
    begin
        .map(|&(from, to)| Step::Begin { pg, from, to })
        .or(hydrate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aurora_page::VolumeId;
    use aurora_proto::{ClusterId, NewCluster};

    use super::*;

    fn manifest() -> Manifest {
        let node = |id: u16| NodeInfo {
            id: NodeId(id),
            az: format!("az{}", id / 2 + 1),
            path: format!("az{}/node{}", id / 2 + 1, id + 1),
            device: 1 + u64::from(id / 2),
            incarnation: 3,
        };
        Manifest::create(NewCluster {
            cluster: ClusterId(1),
            origin: VolumeId(1),
            region: "local".into(),
            page_bytes: 32 * 1024,
            segment_pages: 64,
            window: 100,
            nodes: (0..6).map(node).collect(),
            config: BTreeMap::new(),
            created_us: 0,
        })
    }

    fn nodes(ids: &[u16]) -> NodeSet {
        ids.iter().map(|&id| NodeId(id)).collect()
    }

    /// All living but these, which are gone from a device that is still there.
    fn lost(ids: &[u16]) -> Vec<(NodeId, Seen)> {
        let seen = |id| {
            if ids.contains(&id) {
                Seen::Lost {
                    device: 1 + u64::from(id / 2),
                }
            } else {
                Seen::Living
            }
        };
        (0..6).map(|id| (NodeId(id), seen(id))).collect()
    }

    fn recreated(opening: &Opening) -> Vec<(u16, u64)> {
        let Opening::RecreateAndHydrate { replace, .. } = opening else {
            panic!("{opening:?}")
        };
        replace
            .iter()
            .map(|r| (r.lost.0, r.with.incarnation))
            .collect()
    }

    #[test]
    fn what_lives_decides() {
        let m = manifest();
        let decide = |ids: &[u16]| opening(&m, &lost(ids), Policy::default());
        assert_eq!(recreated(&decide(&[])), []);
        assert_eq!(recreated(&decide(&[4])), [(4, 4)]);
        assert_eq!(recreated(&decide(&[0, 1])), [(0, 4), (1, 4)]);
        assert_eq!(
            decide(&[0, 1, 2]),
            Opening::ReadOnly {
                missing: nodes(&[0, 1, 2])
            }
        );
        assert_eq!(
            decide(&[0, 1, 2, 3]),
            Opening::Refuse {
                missing: nodes(&[0, 1, 2, 3])
            }
        );
        let rebuild = Policy {
            rebuild_from_read_quorum: true,
        };
        assert_eq!(
            recreated(&opening(&m, &lost(&[0, 1, 2]), rebuild)),
            [(0, 4), (1, 4), (2, 4)]
        );
        assert!(matches!(
            opening(&m, &lost(&[0, 1, 2, 3]), rebuild),
            Opening::Refuse { .. }
        ));
    }

    /// A disk that is not mounted is waited for: nothing is created in its place.
    #[test]
    fn a_device_that_is_not_there_is_left_alone() {
        let m = manifest();
        let mut seen = lost(&[]);
        seen[4].1 = Seen::Lost { device: 99 };
        seen[5].1 = Seen::Unknown;
        let open = opening(&m, &seen, Policy::default());
        assert_eq!(
            open,
            Opening::RecreateAndHydrate {
                replace: vec![],
                absent: nodes(&[4, 5])
            }
        );
        seen[3].1 = Seen::Unknown;
        let rebuild = Policy {
            rebuild_from_read_quorum: true,
        };
        assert_eq!(
            opening(&m, &seen, rebuild),
            Opening::ReadOnly {
                missing: nodes(&[3, 4, 5])
            }
        );
        assert!(matches!(
            opening(&m, &seen[..2], rebuild),
            Opening::Refuse { .. }
        ));
    }

    #[test]
    fn what_is_lost_while_running_is_made_anew_where_it_was() {
        let m = manifest();
        let renewed = |m: &Manifest, seen: &[(NodeId, Seen)]| -> Vec<(u16, u64)> {
            let renewals = renewals(m, seen);
            renewals
                .iter()
                .map(|r| (r.lost.0, r.with.incarnation))
                .collect()
        };
        let at = |id: u16, device| (NodeId(id), Seen::Lost { device });
        assert_eq!(renewed(&m, &[]), []);
        assert_eq!(renewed(&m, &[at(4, 3)]), [(4, 4)]);
        assert_eq!(renewed(&m, &[at(4, 3), at(5, 3)]), [(4, 4), (5, 4)]);
        assert_eq!(renewed(&m, &[at(4, 9), at(5, 3)]), [(5, 4)]);
        assert_eq!(renewed(&m, &[(NodeId(4), Seen::Unknown)]), []);
        let three = [at(0, 1), at(4, 3), at(5, 3)];
        assert_eq!(renewed(&m, &three), [], "the others are no write quorum");
        let mut moving = m.clone();
        moving.pgs[0] = m.pgs[0].begin_replace(NodeId(5), NodeId(6)).unwrap();
        assert_eq!(renewed(&moving, &[at(4, 3)]), [], "one thing at a time");
    }

    #[test]
    fn a_repair_goes_step_by_step() {
        let mut m = manifest();
        let spares = [(NodeId(5), NodeId(6))];
        let (pg, from, to) = (PgId(0), NodeId(5), NodeId(6));
        let living = nodes(&[0, 1, 2, 3, 4, 6]);
        let steps = |m: &Manifest, living, done: &[u16]| {
            repair_steps(m, living, &spares, |_, node| done.contains(&node.0))
        };
        assert_eq!(steps(&m, living.with(from), &[]), []);
        assert_eq!(steps(&m, living, &[]), [Step::Begin { pg, from, to }]);
        assert_eq!(steps(&m, living.without(to), &[]), [], "a spare must live");
        m.pgs[0] = m.pgs[0].begin_replace(from, to).unwrap();
        assert_eq!(steps(&m, living, &[0, 1]), [Step::Hydrate { pg, to }]);
        assert_eq!(
            steps(&m, living, &[0, 6]),
            [Step::Complete { pg, from, to }]
        );
        assert_eq!(
            steps(&m, living.with(from), &[5]),
            [Step::Revert { pg, from, to }]
        );
        assert_eq!(
            steps(&m, living.with(from), &[]),
            [Step::Hydrate { pg, to }],
            "back, but behind"
        );
        m.pgs[0] = m.pgs[0].complete(from, to).unwrap();
        assert_eq!(steps(&m, living, &[]), []);
    }
}
