//! A copy against an oracle: batches in any order, repeated, overlapping, persisted late, cut by a History, restarted.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::*;
use aurora_redo::{History, PgId, Record};
use common::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Records [from, from + len) of the chain arrive in one batch.
    Receive {
        from: usize,
        len: usize,
    },
    Sync,
    SyncAll,
    Save,
    Crash,
    HearVdl(usize),
}

fn step(n: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..n, 1..5usize).prop_map(|(from, len)| Step::Receive { from, len }),
        6 => Just(Step::Sync),
        2 => Just(Step::SyncAll),
        1 => Just(Step::Save),
        1 => Just(Step::Crash),
        1 => (0..n).prop_map(Step::HearVdl),
    ]
}

const CHAIN: usize = 24;

/// A chain of records with gaps between the LSNs, as a group has them when others are written too.
fn chain(gaps: &[u64]) -> Vec<Record> {
    let mut lsn = 0;
    let link = |gap: &u64| {
        let prev = lsn;
        lsn += gap;
        record(0, lsn, prev, gap.is_multiple_of(2))
    };
    gaps.iter().map(link).collect()
}

/// The SCL by brute force: the end of the longest prefix of the chain that is on disk.
fn scl(chain: &[Record], disk: &BTreeSet<Lsn>) -> Lsn {
    chain
        .iter()
        .take_while(|record| disk.contains(&record.lsn))
        .last()
        .map_or(Lsn::NONE, |record| record.lsn)
}

fn disk(replica: &Replica) -> BTreeSet<Lsn> {
    replica.disk.keys().copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_scl_is_that_of_the_oracle(
        gaps in prop::collection::vec(1..5u64, CHAIN),
        steps in prop::collection::vec(step(CHAIN), 1..120),
        cut in 0..CHAIN,
    ) {
        let chain = chain(&gaps);
        let start = History::new(A);
        let mut replica = Replica::new(PgId(0), NodeId(2), 1, &start);
        for step in steps {
            match step {
                Step::Receive { from, len } => {
                    let records = chain[from..(from + len).min(CHAIN)].to_vec();
                    replica.receive(&batch(0, 1, records)).unwrap();
                }
                Step::Sync => drop(replica.sync_one()),
                Step::SyncAll => drop(replica.sync()),
                Step::Save => replica.save(),
                Step::Crash => replica.crash(),
                // A VDL is heard only of what is complete somewhere; here what is complete in this copy is enough.
                Step::HearVdl(at) => replica.copy.hear_vdl(chain[at].lsn.min(replica.copy.scl())),
            }
            prop_assert_eq!(replica.copy.scl(), scl(&chain, &disk(&replica)));
            prop_assert!(replica.copy.highest() >= replica.copy.scl());
        }
        replica.sync();
        // Everything of the chain up to the highest is here or in a gap that the copy knows of.
        let missing = replica.copy.missing();
        let highest = replica.copy.highest();
        for record in chain.iter().filter(|record| record.lsn <= highest) {
            let known = missing.iter().any(|gap| gap.after < record.lsn && record.lsn <= gap.upto);
            prop_assert_eq!(known, !replica.disk.contains_key(&record.lsn), "{}", record.lsn);
        }
        // A cut at a VDL that everybody has heard less than: what lies beyond it is gone, the rest stays.
        let vdl = chain[cut].lsn.max(replica.copy.state().vdl_hint);
        let after = Arc::new(start.branch(vdl, A, 1000));
        let inventory = replica.fence(2, &Arc::new(start)).unwrap();
        prop_assert_eq!(inventory.scl, scl(&chain, &disk(&replica)));
        prop_assert_eq!(replica.receive(&batch(0, 1, vec![])), Err(Refuse::StaleEpoch { have: 2, got: 1 }));
        replica.install(2, &after).unwrap();
        let kept: BTreeSet<Lsn> = disk(&replica).into_iter().filter(|lsn| *lsn <= vdl).collect();
        prop_assert_eq!(replica.copy.scl(), scl(&chain, &kept));
        let tail = chain.iter().map(|record| record.lsn).filter(|lsn| *lsn <= vdl).max().unwrap();
        let rest: Vec<Record> = chain.iter().filter(|record| record.lsn <= vdl).cloned().collect();
        let next = record(0, after.first_new_lsn().0, tail.0, true);
        replica.receive(&batch(0, 2, vec![next.clone()])).unwrap();
        replica.sync();
        if kept.len() < rest.len() {
            prop_assert!(replica.copy.scl() < next.lsn, "it does not step over what is missing");
        }
        replica.receive(&batch(0, 2, rest)).unwrap();
        prop_assert_eq!(replica.sync().scl, next.lsn);
    }

    /// Copies that hold random parts of a chain become complete by gossip alone.
    #[test]
    fn gossip_completes_what_anybody_has(
        gaps in prop::collection::vec(1..5u64, CHAIN),
        parts in prop::collection::vec(prop::collection::vec(any::<bool>(), CHAIN), 3),
        max_bytes in 1..2000usize,
    ) {
        let chain = chain(&gaps);
        let history = History::new(A);
        let mut replicas: Vec<Replica> =
            (0..3).map(|node| Replica::new(PgId(0), NodeId(node), 1, &history)).collect();
        for (replica, part) in replicas.iter_mut().zip(&parts) {
            for (record, _) in chain.iter().zip(part).filter(|(_, has)| **has) {
                replica.receive(&batch(0, 1, vec![record.clone()])).unwrap();
            }
            replica.sync();
        }
        let union: BTreeSet<Lsn> = replicas.iter().flat_map(disk).collect();
        for _ in 0..3 * CHAIN {
            for (to, from) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                let summary = gossip::summary(&replicas[from].copy, Lsn::NONE);
                for ask in gossip::asks(&replicas[to].copy, &summary) {
                    let records = replicas[from].records(ask.gap.after, ask.gap.upto);
                    let upto = replicas[from].copy.vouches(&ask.gap);
                    prop_assert_eq!(upto, Some(ask.gap.upto.min(summary.upto)), "it has what it said");
                    let upto = upto.unwrap();
                    let answer = gossip::answer(&ask, &history, Lsn::NONE, records, upto, max_bytes);
                    prop_assert!(answer.batch.records.len() <= 1 || answer.batch.weight() <= max_bytes);
                    replicas[to].receive(&answer.batch).unwrap();
                    replicas[to].sync();
                    let ticket = replicas[to].copy.hydrating(answer.after, answer.complete_to);
                    replicas[to].copy.persisted(Token(ticket));
                    prop_assert!(replicas[to].copy.scl() <= scl(&chain, &disk(&replicas[to])));
                }
            }
        }
        for replica in &replicas {
            prop_assert_eq!(disk(replica), union.clone());
            prop_assert_eq!(replica.copy.scl(), scl(&chain, &union));
        }
    }
}

fn open_copy() -> Replica {
    Replica::new(PgId(0), NodeId(2), 4, &History::new(A))
}

#[test]
fn only_persisted_records_count() {
    let mut replica = open_copy();
    replica
        .receive(&batch(
            0,
            4,
            vec![record(0, 1, 0, false), record(0, 2, 1, true)],
        ))
        .unwrap();
    assert_eq!(
        (replica.copy.scl(), replica.copy.highest()),
        (Lsn::NONE, Lsn(2))
    );
    let inventory = replica.copy.fence(5, &Arc::new(History::new(A))).unwrap();
    assert!(replica.copy.fenced(Token(inventory.ticket + 1)).is_none());
    assert!(
        replica
            .copy
            .fenced(Token(inventory.ticket))
            .unwrap()
            .records
            .is_empty()
    );
}

/// A batch of the old epoch that reaches the disk after the fence is not acknowledged in the old epoch [12].
#[test]
fn a_write_that_lands_after_the_fence_is_of_no_use_to_the_old_writer() {
    let mut replica = open_copy();
    replica
        .receive(&batch(0, 4, vec![record(0, 1, 0, true)]))
        .unwrap();
    replica.fence(5, &Arc::new(History::new(A))).unwrap();
    assert_eq!(replica.sync().epoch, 5);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut replica = open_copy();
    let before = replica.copy.state().clone();
    let cases = [
        (
            batch(1, 4, vec![]),
            Refuse::WrongPg {
                expected: PgId(0),
                got: PgId(1),
            },
        ),
        (batch(0, 3, vec![]), Refuse::StaleEpoch { have: 4, got: 3 }),
        (
            batch(0, 5, vec![]),
            Refuse::NotInstalled { have: 4, got: 5 },
        ),
        (
            batch(0, 4, vec![record(0, 2, 0, true), record(0, 2, 0, true)]),
            Refuse::Malformed {
                lsn: Lsn(2),
                after: Lsn(2),
                prev: Lsn(0),
            },
        ),
        (
            batch(0, 4, vec![record(0, 2, 2, true)]),
            Refuse::Malformed {
                lsn: Lsn(2),
                after: Lsn(0),
                prev: Lsn(2),
            },
        ),
    ];
    for (sent, refusal) in cases {
        assert_eq!(replica.receive(&sent), Err(refusal));
    }
    let stranger = Record {
        origin: aurora_page::VolumeId(0xb),
        ..record(0, 1, 0, true)
    };
    assert!(matches!(
        replica.receive(&batch(0, 4, vec![stranger])),
        Err(Refuse::NotInHistory { lsn: Lsn(1), .. })
    ));
    assert_eq!(
        replica.receive_fenced(&batch(0, 4, vec![])),
        Err(Refuse::NotFenced { epoch: 4 })
    );
    assert!(matches!(
        replica.copy.fence(4, &before.history),
        Err(Refuse::StaleEpoch { have: 4, got: 4 })
    ));
    assert!(matches!(
        replica.copy.install(3, &before.history),
        Err(Refuse::StaleEpoch { have: 4, got: 3 })
    ));
    assert_eq!(*replica.copy.state(), before);
}

/// After a backtrack far below what a copy remembers links of, its SCL is the cut itself, between two records.
#[test]
fn a_deep_cut() {
    let mut replica = open_copy();
    let chain: Vec<Record> = (1..=9)
        .map(|n| record(0, n * 10, (n - 1) * 10, true))
        .collect();
    replica.receive(&batch(0, 4, chain)).unwrap();
    replica.sync();
    replica.copy.hear_vdl(Lsn(90));
    let cut = Arc::new(History::new(A).branch_past(Lsn(45), Lsn(90), A, 100));
    replica.install(5, &cut).unwrap();
    assert_eq!(replica.copy.scl(), Lsn(45));
    replica
        .receive(&batch(0, 5, vec![record(0, 191, 40, true)]))
        .unwrap();
    assert_eq!(replica.sync().scl, Lsn(191));
}

/// A hydrated copy is complete where its source was, and takes records from there.
#[test]
fn hydration() {
    let mut replica = open_copy();
    let ticket = replica.copy.hydrating(Lsn::NONE, Lsn(40));
    replica
        .receive(&batch(0, 4, vec![record(0, 50, 40, true)]))
        .unwrap();
    assert_eq!(replica.sync().scl, Lsn::NONE);
    assert_eq!(replica.copy.persisted(Token(ticket)).scl, Lsn(50));
    let early = replica.copy.hydrating(Lsn(60), Lsn(70));
    assert_eq!(
        replica.copy.persisted(Token(early)).scl,
        Lsn(50),
        "there is something between 50 and 60"
    );
}
