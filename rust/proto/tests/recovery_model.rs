//! Random traffic, a crash, a recovery that itself crashes at any step, a zombie writer beside it, and again.
//!
//! Between two MTRs nodes are lost and made anew in their places, as soon as the writer says that the others have everything [14].
//!
//! Checked: every acknowledged commit is in the History and on a write quorum after each recovery [10][11]; the old
//! writer makes nothing durable after the fence that the recovery has not counted [12].

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::*;
use aurora_redo::{History, PgBatch, PgId};
use common::*;
use proptest::prelude::*;

const GROUPS: u32 = 2;
const WINDOW: u64 = 60;

/// What happens to one batch at one node.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    InMemory,
    OnDisk,
    Acknowledged,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![2 => Just(Fate::Lost), 1 => Just(Fate::InMemory), 1 => Just(Fate::OnDisk), 6 => Just(Fate::Acknowledged)]
}

#[derive(Clone, Debug)]
struct Life {
    /// Groups of each MTR, and the fate of each batch at each node.
    traffic: Vec<(Vec<u32>, Vec<[Fate; 6]>)>,
    /// Copies complete each other between MTRs: nodes that take part.
    gossip: Vec<u8>,
    /// Nodes that are lost while the writer goes on, before the MTR of this number, and are to be made anew.
    renewed: Vec<(usize, Vec<u16>)>,
    /// Nodes whose disks are lost with the crash, and which are created anew.
    lost: Vec<u16>,
    /// Nodes that cannot be reached by the recovery and keep what they have: with the lost ones at most three.
    absent: Vec<u16>,
    /// Nodes that live on when the writer dies, with what they were writing just then.
    alive: Vec<u16>,
    /// Recoveries that crash, after so many of their steps.
    crashes: Vec<usize>,
    /// Batches of the old writer that arrive during the recovery.
    zombie: Vec<(u32, u16)>,
}

fn life() -> impl Strategy<Value = Life> {
    let mtr = (
        prop::collection::vec(0..GROUPS, 1..4),
        prop::collection::vec(prop::array::uniform6(fate()), GROUPS as usize),
    );
    (
        prop::collection::vec(mtr, 0..12),
        (
            prop::collection::vec(any::<u8>(), 0..3),
            prop::collection::vec(
                (
                    0..12usize,
                    prop::sample::subsequence((0..6u16).collect::<Vec<_>>(), 1..=2),
                ),
                0..3,
            ),
        ),
        (
            prop::sample::subsequence((0..6u16).collect::<Vec<_>>(), 0..=3).prop_shuffle(),
            0..=2usize,
        ),
        prop::sample::subsequence((0..6u16).collect::<Vec<_>>(), 0..=6),
        prop::collection::vec(0..40usize, 0..4),
        prop::collection::vec((0..GROUPS, 0..6u16), 0..8),
    )
        .prop_map(
            |(traffic, (gossip, renewed), (mut lost, absent), alive, crashes, zombie)| {
                let absent = lost.split_off(lost.len().saturating_sub(absent));
                Life {
                    traffic,
                    gossip,
                    renewed,
                    lost,
                    absent,
                    alive,
                    crashes,
                    zombie,
                }
            },
        )
}

struct World {
    manifest: Manifest,
    replicas: BTreeMap<(PgId, NodeId), Replica>,
    writer: Writer,
    sent: Vec<Arc<PgBatch>>,
    /// Commits of the present writer: the LSNs of their last records.
    commits: Vec<Lsn>,
    /// Those of any writer: where a History may be cut, or an MTR would be torn [6].
    ends: BTreeSet<Lsn>,
    /// Those of any writer that were acknowledged.
    acknowledged: Vec<Lsn>,
    incarnation: u64,
}

impl World {
    fn new() -> World {
        let manifest = manifest(GROUPS as usize, WINDOW);
        let copies = (0..GROUPS).flat_map(|pg| (0..6).map(move |node| (PgId(pg), NodeId(node))));
        let replicas = copies
            .map(|(pg, node)| ((pg, node), Replica::new(pg, node, 1, &manifest.history)))
            .collect();
        let writer = Writer::new(WriterStart::of_new(&manifest, u64::MAX));
        World {
            manifest,
            replicas,
            writer,
            sent: vec![],
            commits: vec![],
            ends: BTreeSet::from([Lsn::NONE]),
            acknowledged: vec![],
            incarnation: 1,
        }
    }

    fn replica(&mut self, pg: PgId, node: u16) -> &mut Replica {
        self.replicas.get_mut(&(pg, NodeId(node))).unwrap()
    }

    fn traffic(&mut self, life: &Life) {
        for (number, (groups, fates)) in life.traffic.iter().enumerate() {
            let renewed = life.renewed.iter().filter(|(before, _)| *before == number);
            renewed.for_each(|(_, ids)| self.renew(ids));
            let Ok(numbered) = self.writer.append(mtr(groups)) else {
                break;
            };
            self.commits.push(numbered.last);
            self.ends.insert(numbered.last);
            while let Some(batch) = self.writer.poll_send() {
                for (node, fate) in fates[batch.pg.0 as usize].into_iter().enumerate() {
                    self.deliver(&batch, node as u16, fate);
                }
                self.sent.push(batch);
            }
            for bits in &life.gossip {
                self.gossip(*bits);
            }
        }
        self.acknowledge();
    }

    /// Nodes are lost. Where the others have everything without them, empty ones are members in their places from now on; where they
    /// have not, the lost ones come back as they were.
    fn renew(&mut self, ids: &[u16]) {
        if !self.writer.forget(nodes(ids.iter().copied())) {
            return;
        }
        self.incarnation += 1;
        let incarnation = self.incarnation;
        let infos: Vec<_> = ids.iter().map(|&id| node_info(id, incarnation)).collect();
        self.manifest = self.manifest.renewed(&infos);
        let (epoch, history) = (self.manifest.epoch, self.manifest.history.clone());
        for pg in (0..GROUPS).map(PgId) {
            for &id in ids {
                *self.replica(pg, id) = Replica::new(pg, NodeId(id), epoch, &history);
            }
        }
    }

    fn acknowledge(&mut self) {
        let vdl = self.writer.vdl();
        self.acknowledged
            .extend(self.commits.extract_if(.., |lsn| *lsn <= vdl));
    }

    fn deliver(&mut self, batch: &PgBatch, node: u16, fate: Fate) {
        if matches!(fate, Fate::Lost) {
            return;
        }
        // A copy that was away hears of the epoch from the manifest first.
        let (epoch, history) = (self.manifest.epoch, Arc::new(self.manifest.history.clone()));
        let open = self.manifest.state == VolumeState::Open;
        let replica = self.replica(batch.pg, node);
        if open && batch.epoch == epoch && replica.copy.state().epoch < epoch {
            replica.install(epoch, &history).unwrap();
        }
        if replica.receive(batch).is_err() || matches!(fate, Fate::InMemory) {
            return;
        }
        let ack = replica.sync();
        if matches!(fate, Fate::Acknowledged) {
            self.writer.on_ack(NodeId(node), &ack);
        }
    }

    fn gossip(&mut self, bits: u8) {
        let (to, from) = (u16::from(bits) % 6, u16::from(bits >> 4) % 6);
        for pg in (0..GROUPS).map(PgId) {
            let summary = gossip::summary(&self.replica(pg, from).copy, Lsn::NONE);
            let asks = gossip::asks(&self.replica(pg, to).copy, &summary);
            for ask in asks {
                let records = self
                    .replica(pg, from)
                    .records(ask.gap.after, ask.gap.upto.min(summary.upto));
                let history = self.manifest.history.clone();
                let answer = gossip::answer(
                    &ask,
                    &history,
                    self.writer.vdl(),
                    records,
                    summary.upto,
                    500,
                );
                if self.replica(pg, to).receive(&answer.batch).is_ok() {
                    let ack = self.replica(pg, to).sync();
                    self.writer.on_ack(NodeId(to), &ack);
                }
            }
        }
    }

    /// The process dies; some disks with it.
    fn crash(&mut self, Life { lost, alive, .. }: &Life) -> Vec<Replacement> {
        self.incarnation += 1;
        for ((pg, node), replica) in &mut self.replicas {
            if lost.contains(&node.0) {
                *replica = Replica::new(*pg, *node, 0, &History::new(A));
            } else if !alive.contains(&node.0) {
                replica.crash();
            }
        }
        let incarnation = self.incarnation;
        lost.iter()
            .map(|&id| Replacement {
                lost: NodeId(id),
                with: node_info(id, incarnation),
            })
            .collect()
    }

    /// The old writer does not know that it is dead: its batches arrive, are synced and answered.
    fn zombie(&mut self, life: &Life) {
        for ((_, node), replica) in &mut self.replicas {
            let ack = replica.sync();
            self.writer.on_ack(*node, &ack);
        }
        for (pg, node) in &life.zombie {
            for batch in self
                .sent
                .iter()
                .filter(|batch| batch.pg.0 == *pg)
                .cloned()
                .collect::<Vec<_>>()
            {
                self.deliver(&batch, *node, Fate::Acknowledged);
            }
        }
    }

    /// One recovery; true if it came to its end within so many steps.
    fn recover(&mut self, replace: &[Replacement], life: &Life, steps: usize) -> bool {
        let mut left = steps;
        let mut step = || {
            let go = left > 0;
            left = left.saturating_sub(1);
            go
        };
        self.manifest = self.manifest.recovering();
        let mut recovery = Recovery::new(&self.manifest, replace).unwrap();
        let absent = nodes(life.absent.iter().copied());
        for (pg, node) in recovery
            .fences()
            .filter(|(_, node)| !absent.contains(*node))
            .collect::<Vec<_>>()
        {
            if !step() {
                return false;
            }
            let inventory = self
                .replica(pg, node.0)
                .fence(recovery.epoch(), &recovery.history())
                .unwrap();
            recovery.on_inventory(inventory).unwrap();
        }
        // What a write quorum had before the fence may still be acknowledged; the recovery has counted all of it.
        self.zombie(life);
        let mut plan = recovery.plan().unwrap();
        self.zombie(life);
        self.acknowledge();
        assert!(
            plan.vdl() >= self.writer.vdl(),
            "VDL {}, acknowledged {}",
            plan.vdl(),
            self.writer.vdl()
        );
        assert!(
            self.ends.contains(&plan.vdl()),
            "VDL {} is within an MTR",
            plan.vdl()
        );
        assert!(plan.can_open());
        for job in plan.jobs().to_vec() {
            if plan.ready() {
                break;
            }
            if !step() {
                return false;
            }
            let ack = do_job(&mut self.replicas, &job, plan.epoch());
            plan.on_ack(&ack);
        }
        assert!(plan.ready());
        let opened = plan.opened().unwrap();
        let history = Arc::new(opened.history.clone());
        self.check_durable(&plan);
        for ((_, node), replica) in &mut self.replicas {
            // A crash after the CAS and between installs is the next life's business.
            if !absent.contains(*node) && step() {
                replica.install(opened.epoch, &history).unwrap();
            }
        }
        self.writer = Writer::new(plan.writer_start(&opened, u64::MAX));
        self.manifest = opened;
        self.sent.clear();
        self.commits.clear();
        true
    }

    /// Everything up to the VDL is on a write quorum of every group.
    fn check_durable(&self, plan: &Plan) {
        for (pg, members) in self
            .manifest
            .pgs
            .iter()
            .enumerate()
            .map(|(pg, m)| (PgId(pg as u32), m))
        {
            let union: BTreeMap<Lsn, Lsn> = self
                .replicas
                .iter()
                .filter(|((group, _), _)| *group == pg)
                .flat_map(|(_, replica)| replica.records(Lsn::NONE, plan.vdl()))
                .filter(|record| self.manifest.history.contains(record.origin, record.lsn))
                .map(|record| (record.lsn, record.prev_pg))
                .collect();
            assert_eq!(
                plan.tail(pg),
                union.keys().last().copied().unwrap_or(Lsn::NONE)
            );
            let has_all = |node: NodeId| {
                union
                    .keys()
                    .all(|lsn| self.replicas[&(pg, node)].disk.contains_key(lsn))
            };
            let holders = members
                .nodes()
                .iter()
                .filter(|&node| has_all(node))
                .collect();
            assert!(
                members.write_quorum().satisfied(holders),
                "{pg}: only {holders} have everything"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_acknowledged_commit_is_lost(lives in prop::collection::vec(life(), 1..4)) {
        let mut world = World::new();
        for life in lives {
            world.traffic(&life);
            let mut replace = world.crash(&life);
            for steps in &life.crashes {
                let done = world.recover(&replace, &life, *steps);
                // The next crash loses no more disks. If the recovery had opened, the nodes are no longer new.
                if done {
                    replace.clear();
                }
                world.replicas.values_mut().for_each(Replica::crash);
            }
            prop_assert!(world.recover(&replace, &life, usize::MAX));
            for lsn in &world.acknowledged {
                prop_assert!(world.manifest.history.contains(A, *lsn), "{} is not in {}", lsn, world.manifest.history);
            }
        }
    }
}
