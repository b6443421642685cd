//! The walk-throughs of the design with small numbers, worked by hand. Copies a-f are nodes 0-5, g h i are 6 7 8.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::*;
use aurora_redo::{History, PgId, Record};
use common::*;

const PG1: PgId = PgId(0);
const PG2: PgId = PgId(1);
const PG3: PgId = PgId(2);

/// LSNs 100..=106 alternate: even to PG2, odd to PG1. PG3 is idle since LSN 7.
fn alternating(cpls: &[u64]) -> Writer {
    let pg = |tail| PgStart {
        members: Membership::new(1, (0..6).map(NodeId)),
        tail: Lsn(tail),
    };
    let mut writer = Writer::new(WriterStart {
        origin: A,
        epoch: 4,
        first_lsn: Lsn(100),
        vdl: Lsn(99),
        window: 100,
        segment_pages: SEGMENT_PAGES,
        pgs: vec![pg(99), pg(98), pg(7)],
        bytes_in_flight_max: 1 << 20,
    });
    let mut groups = Vec::new();
    for lsn in 100..=106u64 {
        groups.push(if lsn % 2 == 1 { 0 } else { 1 });
        if cpls.contains(&lsn) {
            let numbered = writer.append(mtr(&groups)).unwrap();
            assert_eq!(numbered.last, Lsn(lsn));
            groups.clear();
        }
    }
    while writer.poll_send().is_some() {}
    writer
}

fn ack_all(writer: &mut Writer, pg: PgId, scls: [u64; 6]) {
    for (node, scl) in scls.into_iter().enumerate() {
        let node = NodeId(node as u16);
        writer.on_ack(
            node,
            &Ack {
                pg,
                node,
                epoch: 4,
                scl: Lsn(scl),
            },
        );
    }
}

/// Walk-through 1, which is figure 3 of the 2018 paper: 105 and 106 lack their quorum.
#[test]
fn points_of_a_healthy_writer() {
    for (cpls, vdl) in [(vec![100, 102, 104, 106], 104), (vec![100, 106], 100)] {
        let mut writer = alternating(&cpls);
        ack_all(&mut writer, PG1, [105, 103, 103, 103, 101, 105]);
        ack_all(&mut writer, PG2, [106, 104, 104, 104, 104, 102]);
        assert_eq!(
            (writer.pgcl(PG1), writer.pgcl(PG2), writer.pgcl(PG3)),
            (Lsn(103), Lsn(104), Lsn(7))
        );
        assert_eq!(
            (writer.vcl(), writer.vdl(), writer.lal()),
            (Lsn(104), Lsn(vdl), Lsn(vdl + 100))
        );
        assert_eq!(writer.numbered(), Lsn(106));
        ack_all(&mut writer, PG3, [7, 7, 0, 7, 7, 7]);
        assert_eq!(
            writer.readable(PG3, Lsn(104)),
            nodes([0, 1, 3, 4, 5]),
            "an idle group needs its tail only"
        );
        assert_eq!(writer.readable(PG1, Lsn(104)), nodes([0, 1, 2, 3, 5]));
        ack_all(&mut writer, PG1, [105; 6]);
        assert_eq!(writer.vcl(), Lsn(105));
        ack_all(&mut writer, PG2, [106; 6]);
        assert_eq!(
            (writer.vcl(), writer.vdl(), writer.bytes_in_flight()),
            (Lsn(106), Lsn(106), 0)
        );
    }
}

/// The records of walk-through 2: what each copy had when the writer died.
fn crashed() -> BTreeMap<(PgId, NodeId), Replica> {
    let had: [(u16, &[u64], &[u64]); 6] = [
        (0, &[101, 103, 105], &[100, 102, 104, 106]),
        (1, &[101, 103], &[100, 102, 104]),
        (2, &[101, 103], &[100, 102, 104]),
        (3, &[101, 103], &[100, 102, 104]),
        (4, &[101], &[100, 102, 104]),
        (5, &[101, 103, 105], &[100, 102]),
    ];
    let mut replicas = BTreeMap::new();
    for (node, odd, even) in had {
        for (pg, lsns, start) in [(PG1, odd, 99), (PG2, even, 98)] {
            let mut replica = Replica::new(pg, NodeId(node), 4, &History::new(A));
            let first: Record = record(pg.0, start, 0, false);
            let chain = lsns.iter().map(|&lsn| {
                record(
                    pg.0,
                    lsn,
                    if lsn < start + 3 { start } else { lsn - 2 },
                    lsn % 2 == 0,
                )
            });
            let mut sent = batch(pg.0, 4, std::iter::once(first).chain(chain).collect());
            sent.vdl = Lsn(100);
            replica.receive(&sent).unwrap();
            replica.sync();
            replicas.insert((pg, NodeId(node)), replica);
        }
    }
    replicas
}

fn recovering() -> Manifest {
    let mut manifest = manifest(2, 100);
    manifest.epoch = 4;
    manifest.recovering()
}

fn fence_all(
    recovery: &mut Recovery,
    replicas: &mut BTreeMap<(PgId, NodeId), Replica>,
    reachable: NodeSet,
) {
    let (epoch, history) = (recovery.epoch(), recovery.history());
    for (pg, node) in recovery.fences().collect::<Vec<_>>() {
        if reachable.contains(node) {
            let replica = replicas
                .entry((pg, node))
                .or_insert_with(|| Replica::new(pg, node, 0, &History::new(A)));
            recovery
                .on_inventory(replica.fence(epoch, &history).unwrap())
                .unwrap();
        }
    }
}

/// Walk-through 2: AZ1 and c are gone, g h i take their places, and a comes back too late.
#[test]
fn crash_and_recovery() {
    let mut replicas = crashed();
    let manifest = recovering();
    let replace: Vec<_> = (0..3)
        .map(|n| Replacement {
            lost: NodeId(n),
            with: node_info(n + 6, 1),
        })
        .collect();
    let mut recovery = Recovery::new(&manifest, &replace).unwrap();
    fence_all(&mut recovery, &mut replicas, nodes([3, 4]));
    assert!(!recovery.is_fenced());
    assert!(
        matches!(recovery.plan(), Err(RecoveryError::NotEnough { pg: PG1, missing, .. }) if missing == nodes([0, 1, 2, 5]))
    );
    fence_all(&mut recovery, &mut replicas, nodes([3, 4, 5, 6, 7, 8]));
    assert!(recovery.is_fenced(), "a, b, c alone are no write quorum");

    let mut plan = recovery.plan().unwrap();
    assert_eq!((plan.vcl(), plan.vdl()), (Lsn(105), Lsn(104)));
    assert_eq!((plan.tail(PG1), plan.tail(PG2)), (Lsn(103), Lsn(104)));
    assert_eq!(
        (plan.complete(PG1), plan.complete(PG2)),
        (nodes([3, 5]), nodes([3, 4]))
    );
    assert!(plan.can_open() && !plan.ready());
    for job in plan.jobs().to_vec() {
        let ack = do_job(&mut replicas, &job, 5);
        plan.on_ack(&ack);
    }
    assert_eq!(
        (plan.complete(PG1), plan.complete(PG2)),
        (nodes(3..9), nodes(3..9))
    );
    assert!(plan.ready() && plan.open_jobs().next().is_none());

    let opened = plan.opened().unwrap();
    assert_eq!(opened.history, history(&[(1, 104), (205, 0)]));
    assert_eq!(
        (opened.epoch, opened.state, opened.pgs[0].nodes()),
        (5, VolumeState::Open, nodes(3..9))
    );
    assert_eq!(opened.members(), nodes(3..9));
    let installed = Arc::new(opened.history.clone());
    for ((_, node), replica) in &mut replicas {
        if node.0 >= 3 {
            assert!(matches!(
                replica.receive(&batch(0, 5, vec![])),
                Err(Refuse::NotInstalled {
                    have: 4 | 0,
                    got: 5
                })
            ));
            replica.install(5, &installed).unwrap();
        }
    }
    let mut writer = Writer::new(plan.writer_start(&opened, 1 << 20));
    assert_eq!(
        writer.append(mtr(&[0, 1])).unwrap(),
        Numbered {
            base: Lsn(205),
            last: Lsn(206)
        }
    );
    let (first, second) = (writer.poll_send().unwrap(), writer.poll_send().unwrap());
    assert_eq!(
        (first.records[0].prev_pg, second.records[0].prev_pg),
        (Lsn(103), Lsn(104))
    );
    let mut vdl = None;
    for node in (3..9).map(NodeId) {
        for batch in [&first, &second] {
            let replica = replicas.get_mut(&(batch.pg, node)).unwrap();
            replica.receive(batch).unwrap();
            vdl = writer.on_ack(node, &replica.sync()).or(vdl);
        }
    }
    assert_eq!(vdl, Some(Lsn(206)));

    // a comes back with 105 and 106: it is told the epoch and the History first, and drops both.
    for (pg, batch) in [(PG1, &first), (PG2, &second)] {
        let a = replicas.get_mut(&(pg, NodeId(0))).unwrap();
        assert_eq!(
            a.receive(batch),
            Err(Refuse::NotInstalled { have: 4, got: 5 })
        );
        a.install(5, &installed).unwrap();
        assert_eq!(a.copy.scl(), if pg == PG1 { Lsn(103) } else { Lsn(104) });
        a.receive(batch).unwrap();
        assert_eq!(a.sync().scl, batch.last_lsn());
    }
}

/// Walk-through 2, a crash before the opening CAS: the next recovery may find other copies, never less.
#[test]
fn a_second_recovery_may_find_more() {
    let mut replicas = crashed();
    let manifest = recovering();
    let mut recovery = Recovery::new(&manifest, &[]).unwrap();
    fence_all(&mut recovery, &mut replicas, nodes([3, 4, 5]));
    let mut plan = recovery.plan().unwrap();
    assert!(!plan.can_open(), "three copies are no write quorum of a-f");
    for job in plan.jobs().to_vec() {
        let ack = do_job(&mut replicas, &job, 5);
        plan.on_ack(&ack);
    }
    assert!(!plan.ready());
    assert_eq!(plan.unready(), Some((PG1, nodes([0, 1, 2]))));
    assert_eq!(
        plan.complete(PG1),
        nodes([3, 4, 5]),
        "reads at the VDL go to any of them"
    );

    let manifest = manifest.recovering();
    let mut recovery = Recovery::new(&manifest, &[]).unwrap();
    let (pg, node) = (PG1, NodeId(3));
    let late = replicas[&(pg, node)].copy.ack();
    let inventory = Inventory {
        pg,
        node,
        epoch: late.epoch,
        scl: late.scl,
        vdl_hint: Lsn::NONE,
        records: vec![],
    };
    assert!(matches!(
        recovery.on_inventory(inventory),
        Err(RecoveryError::Epoch {
            expected: 6,
            got: 5,
            ..
        })
    ));
    fence_all(&mut recovery, &mut replicas, nodes([0, 3, 4, 5]));
    let plan = recovery.plan().unwrap();
    assert_eq!(
        (plan.vcl(), plan.vdl()),
        (Lsn(106), Lsn(106)),
        "a has 106, f has 105"
    );
    assert!(plan.can_open());
}

/// Walk-through 5.
#[test]
fn membership() {
    let healthy = Membership::new(1, (0..6).map(NodeId));
    let moving = healthy.begin_replace(NodeId(5), NodeId(6)).unwrap();
    let both = moving.begin_replace(NodeId(4), NodeId(7)).unwrap();
    let complete = moving.complete(NodeId(5), NodeId(6)).unwrap();
    let reverted = moving.revert(NodeId(5), NodeId(6)).unwrap();
    let rows: [(&Membership, u64, &str, &str); 5] = [
        (
            &healthy,
            1,
            "4/6 {n0 n1 n2 n3 n4 n5}",
            "3/6 {n0 n1 n2 n3 n4 n5}",
        ),
        (
            &moving,
            2,
            "(4/6 {n0 n1 n2 n3 n4 n5} AND 4/6 {n0 n1 n2 n3 n4 n6})",
            "(3/6 {n0 n1 n2 n3 n4 n5} OR 3/6 {n0 n1 n2 n3 n4 n6})",
        ),
        (
            &complete,
            3,
            "4/6 {n0 n1 n2 n3 n4 n6}",
            "3/6 {n0 n1 n2 n3 n4 n6}",
        ),
        (
            &reverted,
            3,
            "4/6 {n0 n1 n2 n3 n4 n5}",
            "3/6 {n0 n1 n2 n3 n4 n5}",
        ),
        (
            &both,
            3,
            "(4/6 {n0 n1 n2 n3 n4 n5} AND 4/6 {n0 n1 n2 n3 n4 n6} AND 4/6 {n0 n1 n2 n3 n5 n7} AND 4/6 {n0 n1 n2 n3 n6 n7})",
            "(3/6 {n0 n1 n2 n3 n4 n5} OR 3/6 {n0 n1 n2 n3 n4 n6} OR 3/6 {n0 n1 n2 n3 n5 n7} OR 3/6 {n0 n1 n2 n3 n6 n7})",
        ),
    ];
    for (members, epoch, write, read) in rows {
        assert_eq!(members.epoch, epoch);
        assert_eq!(members.write_quorum().to_string(), write);
        assert_eq!(members.read_quorum().to_string(), read);
        assert!(
            members.write_quorum().satisfied(nodes([0, 1, 2, 3])),
            "a b c d satisfy every row"
        );
    }
    assert!(both.write_quorum().satisfied(nodes([0, 1, 2, 5, 6, 7])));
    assert!(
        !both.write_quorum().satisfied(nodes([0, 1, 4, 5])),
        "abcdeg has a b e only"
    );
    assert_eq!(both.nodes(), nodes(0..8));
}

#[test]
fn membership_steps_that_cannot_be() {
    let m = Membership::new(1, (0..6).map(NodeId));
    assert!(matches!(
        m.begin_replace(NodeId(9), NodeId(6)),
        Err(MembershipError::NotMember { .. })
    ));
    assert!(matches!(
        m.begin_replace(NodeId(5), NodeId(4)),
        Err(MembershipError::AlreadyMember { .. })
    ));
    assert!(matches!(
        m.begin_replace(NodeId(5), NodeId(64)),
        Err(MembershipError::BadNodeId { .. })
    ));
    assert!(matches!(
        m.complete(NodeId(5), NodeId(6)),
        Err(MembershipError::NotMoving { .. })
    ));
    let two = m
        .begin_replace(NodeId(5), NodeId(6))
        .unwrap()
        .begin_replace(NodeId(4), NodeId(7))
        .unwrap();
    assert!(matches!(
        two.begin_replace(NodeId(3), NodeId(8)),
        Err(MembershipError::TooManyMoves { limit: 2 })
    ));
    assert!(matches!(
        two.begin_replace(NodeId(5), NodeId(8)),
        Err(MembershipError::TooManyMoves { .. })
    ));
}

/// To have fenced a read quorum is to have left no write quorum: in every membership, for every set of nodes.
#[test]
fn read_quorums_are_what_blocks_every_write_quorum() {
    let healthy = Membership::new(1, (0..6).map(NodeId));
    let moving = healthy.begin_replace(NodeId(5), NodeId(6)).unwrap();
    let both = moving.begin_replace(NodeId(4), NodeId(7)).unwrap();
    let small = Membership::new(1, (0..3).map(NodeId));
    for members in [healthy, moving, both, small] {
        for bits in 0..256 {
            let fenced = NodeSet(bits);
            assert_eq!(
                members.read_quorum().satisfied(fenced),
                members.write_quorum().blocked(fenced),
                "{members:?} {fenced}"
            );
        }
    }
}

/// A directory that was created anew knows nothing, and its answer is not taken for knowledge.
#[test]
fn the_empty_copy_of_a_node_created_anew_does_not_count() {
    let mut replicas = crashed();
    let manifest = recovering();
    let anew = |incarnation| {
        let replacement = |n| Replacement {
            lost: NodeId(n),
            with: node_info(n, incarnation),
        };
        (0..3).map(replacement).collect::<Vec<_>>()
    };
    let same = Recovery::new(&manifest, &anew(1)).unwrap_err();
    assert!(matches!(
        same,
        RecoveryError::Incarnation {
            above: 1,
            got: 1,
            ..
        }
    ));
    for key in [PG1, PG2]
        .into_iter()
        .flat_map(|pg| (0..3).map(move |n| (pg, NodeId(n))))
    {
        replicas.insert(key, Replica::new(key.0, key.1, 0, &History::new(A)));
    }
    let mut recovery = Recovery::new(&manifest, &anew(2)).unwrap();
    fence_all(&mut recovery, &mut replicas, nodes([0, 1, 2, 3, 4]));
    assert!(!recovery.is_fenced(), "only d and e know anything");
    fence_all(&mut recovery, &mut replicas, nodes([5]));
    let mut plan = recovery.plan().unwrap();
    assert_eq!(plan.vdl(), Lsn(104));
    for job in plan.jobs().to_vec() {
        let ack = do_job(&mut replicas, &job, 5);
        plan.on_ack(&ack);
    }
    let opened = plan.opened().unwrap();
    assert_eq!(opened.members(), nodes(0..6));
    assert_eq!(opened.node(NodeId(0)).unwrap().incarnation, 2);
}

/// More is lost than the quorum bears: said, with the stretch, and not papered over.
#[test]
fn a_hole_is_named() {
    let manifest = recovering();
    let mut recovery = Recovery::new(&manifest, &[]).unwrap();
    for pg in [PG1, PG2] {
        for node in (0..6).map(NodeId) {
            // Everybody has 103, which links to 101, and nobody has 101.
            let records = if pg == PG1 {
                vec![(Lsn(103), Lsn(101), true)]
            } else {
                vec![]
            };
            let inventory = Inventory {
                pg,
                node,
                epoch: 5,
                scl: Lsn(99),
                vdl_hint: Lsn(103),
                records,
            };
            recovery.on_inventory(inventory).unwrap();
        }
    }
    let hole = RecoveryError::Hole {
        pg: PG1,
        after: Lsn(99),
        upto: Lsn(103),
    };
    assert_eq!(recovery.plan().unwrap_err(), hole);
}
