//! The writer against an oracle that looks at every record: acknowledgements in any order, late, repeated, of other
//! epochs, and membership steps in between.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use aurora_page::Lsn;
use aurora_proto::*;
use aurora_redo::PgId;
use common::*;
use proptest::prelude::*;

const EPOCH: u64 = 3;
const FIRST: u64 = 205;
const WINDOW: u64 = 40;
const GROUPS: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// An MTR whose records go to these groups.
    Append(Vec<u32>),
    /// A node answers for a group: its SCL is this far (in 0..=100 %) between what it had and the group's tail.
    Ack {
        group: u32,
        node: u16,
        percent: u64,
        epoch: u64,
    },
    /// n5 is being replaced by n6, or that is completed or taken back.
    Begin(u32),
    Complete(u32),
    Revert(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let epoch = prop_oneof![30 => Just(EPOCH), 1 => Just(EPOCH - 1)];
    prop_oneof![
        6 => prop::collection::vec(0..GROUPS, 1..6).prop_map(Step::Append),
        24 => (0..GROUPS, 0..7u16, 0..=100u64, epoch)
            .prop_map(|(group, node, percent, epoch)| Step::Ack { group, node, percent, epoch }),
        1 => (0..GROUPS).prop_map(Step::Begin),
        1 => (0..GROUPS).prop_map(Step::Complete),
        1 => (0..GROUPS).prop_map(Step::Revert),
    ]
}

/// What the oracle knows: every record, every SCL, the members.
struct Oracle {
    records: Vec<(u64, u32, bool)>,
    scls: BTreeMap<(u32, u16), u64>,
    members: Vec<Membership>,
    durable: BTreeSet<u64>,
    vcl: u64,
    vdl: u64,
}

impl Oracle {
    /// Looks at every record. One that has met its quorum once stays durable through membership steps.
    fn advance(&mut self) {
        for (lsn, pg, _) in &self.records {
            let has = |node: u16| self.scls.get(&(*pg, node)).is_some_and(|scl| scl >= lsn);
            if self.members[*pg as usize]
                .write_quorum()
                .satisfied(nodes((0..7).filter(|&n| has(n))))
            {
                self.durable.insert(*lsn);
            }
        }
        let prefix = self
            .records
            .iter()
            .take_while(|(lsn, ..)| self.durable.contains(lsn));
        self.vcl = prefix
            .clone()
            .map(|(lsn, ..)| *lsn)
            .last()
            .unwrap_or(self.vcl);
        self.vdl = prefix
            .filter(|(.., cpl)| *cpl)
            .map(|(lsn, ..)| *lsn)
            .last()
            .unwrap_or(self.vdl);
    }
}

fn start() -> (Writer, Oracle) {
    let members = Membership::new(1, (0..6).map(NodeId));
    let pgs = (0..GROUPS)
        .map(|_| PgStart {
            members: members.clone(),
            tail: Lsn(103),
        })
        .collect();
    let writer = Writer::new(WriterStart {
        origin: A,
        epoch: EPOCH,
        first_lsn: Lsn(FIRST),
        vdl: Lsn(104),
        window: WINDOW,
        segment_pages: SEGMENT_PAGES,
        pgs,
        bytes_in_flight_max: u64::MAX,
    });
    let members = vec![members; GROUPS as usize];
    (
        writer,
        Oracle {
            records: vec![],
            scls: BTreeMap::new(),
            members,
            durable: BTreeSet::new(),
            vcl: 104,
            vdl: 104,
        },
    )
}

fn append(writer: &mut Writer, oracle: &mut Oracle, groups: &[u32]) {
    let before = writer.points();
    match writer.append(mtr(groups)) {
        Ok(numbered) => {
            for (i, group) in groups.iter().enumerate() {
                oracle
                    .records
                    .push((numbered.base.0 + i as u64, *group, i + 1 == groups.len()));
            }
            assert_eq!(numbered.last.0, oracle.records.last().unwrap().0);
            assert!(numbered.last <= before.lal);
        }
        Err(Refused::BackPressure { vdl, lal }) => {
            assert_eq!((vdl, lal), (before.vdl, before.lal));
            let next = oracle.records.last().map_or(FIRST, |(lsn, ..)| lsn + 1);
            assert!(
                next + groups.len() as u64 - 1 > lal.0,
                "refused though there was room"
            );
            assert_eq!(writer.points(), before);
        }
        Err(other) => panic!("{other}"),
    }
}

/// Batches carry every record once, in order, chained within their group.
fn drain(writer: &mut Writer, tails: &mut BTreeMap<u32, Lsn>) -> usize {
    let mut sent = 0;
    while let Some(batch) = writer.poll_send() {
        assert_eq!((batch.epoch, batch.vdl), (EPOCH, writer.vdl()));
        for record in &batch.records {
            let tail = tails.entry(batch.pg.0).or_insert(Lsn(103));
            assert_eq!(record.prev_pg, *tail);
            assert_eq!(record.page.0 / SEGMENT_PAGES, u64::from(batch.pg.0));
            *tail = record.lsn;
            sent += 1;
        }
    }
    sent
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn points_are_those_of_the_oracle(steps in prop::collection::vec(step(), 1..150)) {
        let (mut writer, mut oracle) = start();
        let (mut tails, mut sent) = (BTreeMap::new(), 0);
        for step in steps {
            match step {
                Step::Append(groups) => append(&mut writer, &mut oracle, &groups),
                Step::Ack { group, node, percent, epoch } => {
                    let tail = writer.tail(PgId(group)).0;
                    let had = oracle.scls.get(&(group, node)).copied().unwrap_or(0);
                    // Sometimes an old answer comes late: below what the node had.
                    let scl = if percent < 10 { had / 2 } else { had.min(tail) + (tail - had.min(tail)) * percent / 100 };
                    let vdl = writer.vdl();
                    let moved = writer.on_ack(NodeId(node), &Ack { pg: PgId(group), node: NodeId(node), epoch, scl: Lsn(scl) });
                    if epoch == EPOCH && oracle.members[group as usize].nodes().contains(NodeId(node)) {
                        oracle.scls.insert((group, node), had.max(scl));
                    }
                    prop_assert_eq!(moved, (writer.vdl() > vdl).then_some(writer.vdl()));
                }
                Step::Begin(group) | Step::Complete(group) | Step::Revert(group) => {
                    let now = &oracle.members[group as usize];
                    let next = match step {
                        Step::Begin(_) => now.begin_replace(NodeId(5), NodeId(6)),
                        Step::Complete(_) => now.complete(NodeId(5), NodeId(6)),
                        _ => now.revert(NodeId(5), NodeId(6)),
                    };
                    if let Ok(next) = next {
                        writer.set_membership(PgId(group), next.clone());
                        // A node that left is forgotten; if it comes again it is another one.
                        oracle.scls.retain(|(pg, node), _| *pg != group || next.nodes().contains(NodeId(*node)));
                        oracle.members[group as usize] = next;
                    }
                }
            }
            oracle.advance();
            sent += drain(&mut writer, &mut tails);
            prop_assert_eq!((writer.vcl(), writer.vdl()), (Lsn(oracle.vcl), Lsn(oracle.vdl)));
            prop_assert!(writer.points().ordered());
        }
        prop_assert_eq!(sent, oracle.records.len());
        prop_assert_eq!(writer.bytes_in_flight() == 0, oracle.records.last().is_none_or(|last| last.0 == oracle.vdl));
    }
}

fn quiet() -> Writer {
    start().0
}

fn ack(writer: &mut Writer, group: u32, node: u16, scl: u64) -> Option<Lsn> {
    writer.on_ack(
        NodeId(node),
        &Ack {
            pg: PgId(group),
            node: NodeId(node),
            epoch: EPOCH,
            scl: Lsn(scl),
        },
    )
}

#[test]
fn a_dead_member_delays_nothing_and_a_lost_quorum_is_named() {
    let mut writer = quiet();
    writer.set_lost(nodes([4, 5]));
    writer.append(mtr(&[0])).unwrap();
    let moved: Vec<_> = (0..4)
        .map(|node| ack(&mut writer, 0, node, FIRST))
        .collect();
    assert_eq!(moved, [None, None, None, Some(Lsn(FIRST))]);
    writer.set_lost(nodes([3, 4, 5]));
    assert_eq!(
        writer.append(mtr(&[0])),
        Err(Refused::QuorumLost {
            missing: nodes([3, 4, 5])
        })
    );
    writer.set_lost(nodes([3]));
    writer.append(mtr(&[0])).unwrap();
}

#[test]
fn pages_beyond_the_last_segment_ask_for_one() {
    let mut writer = quiet();
    assert_eq!(writer.append(mtr(&[0, GROUPS])), Err(Refused::NeedSegment));
    assert_eq!(writer.numbered(), Lsn(104), "nothing of it was taken");
    assert_eq!(
        writer.add_pg(Membership::new(1, (0..6).map(NodeId))),
        PgId(GROUPS)
    );
    writer.append(mtr(&[0, GROUPS])).unwrap();
    assert_eq!(writer.append(mtr(&[])).unwrap().last, Lsn(FIRST + 1));
}

#[test]
fn a_newer_epoch_ends_the_writer() {
    let mut writer = quiet();
    writer.append(mtr(&[0])).unwrap();
    for node in 0..6 {
        let ack = Ack {
            pg: PgId(0),
            node: NodeId(node),
            epoch: EPOCH + 1,
            scl: Lsn(FIRST),
        };
        assert_eq!(writer.on_ack(NodeId(node), &ack), None);
    }
    assert_eq!(
        writer.append(mtr(&[0])),
        Err(Refused::Fenced {
            epoch: EPOCH,
            by: EPOCH + 1
        })
    );
    assert_eq!(writer.vdl(), Lsn(104));
}

#[test]
fn bytes_in_flight_press_back_but_one_large_mtr_passes() {
    let mut writer = Writer::new(WriterStart {
        origin: A,
        epoch: EPOCH,
        first_lsn: Lsn(1),
        vdl: Lsn::NONE,
        window: 1000,
        segment_pages: SEGMENT_PAGES,
        pgs: vec![PgStart {
            members: Membership::new(1, (0..6).map(NodeId)),
            tail: Lsn::NONE,
        }],
        bytes_in_flight_max: 100,
    });
    writer.append(mtr(&[0, 0, 0, 0])).unwrap();
    assert!(matches!(
        writer.append(mtr(&[0])),
        Err(Refused::BackPressure { .. })
    ));
    (0..4).for_each(|node| {
        writer.on_ack(
            NodeId(node),
            &Ack {
                pg: PgId(0),
                node: NodeId(node),
                epoch: EPOCH,
                scl: Lsn(4),
            },
        );
    });
    writer.append(mtr(&[0])).unwrap();
}

#[test]
fn what_was_missed_is_sent_again_until_it_is_at_the_pgcl() {
    let mut writer = quiet();
    writer.append(mtr(&[0, 0])).unwrap();
    let batch = writer.poll_send().unwrap();
    writer.append(mtr(&[0])).unwrap();
    let second = writer.poll_send().unwrap();
    assert_eq!(writer.resend(PgId(0), Lsn(103)), [batch, second.clone()]);
    assert_eq!(writer.resend(PgId(0), Lsn(FIRST + 1)), [second]);
    (0..4).for_each(|node| {
        ack(&mut writer, 0, node, FIRST + 2);
    });
    assert!(writer.resend(PgId(0), Lsn(103)).is_empty());
}

/// The joint membership may be written once its own quorum has everything durable; before, a read quorum of the new
/// group could know nothing of it.
#[test]
fn a_joint_membership_settles() {
    let mut writer = quiet();
    writer.append(mtr(&[0])).unwrap();
    for node in [2, 3, 4, 5] {
        ack(&mut writer, 0, node, FIRST);
    }
    let joint = writer
        .membership(PgId(0))
        .unwrap()
        .begin_replace(NodeId(5), NodeId(6))
        .unwrap();
    writer.set_membership(PgId(0), joint);
    assert_eq!(writer.vdl(), Lsn(FIRST), "what is durable stays so");
    assert!(!writer.settled(PgId(0)), "abcdeg has c d e only");
    ack(&mut writer, 0, 0, FIRST);
    assert!(writer.settled(PgId(0)));
}
