//! Many threads and event loops on one cluster, and a close in their midst.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use aurora_engine::{ErrorClass, Mode, Table};
use aurora_page::{Lsn, Value};
use aurora_runtime::{Cluster, Error, OpenOptions};
use common::{TempDir, accounts, balance, balance_in, never, put, row, small};

const ACCOUNTS: i64 = 20;
const EACH: i64 = 1000;

/// Numbers from a seed, so that a failure can be had again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn upsert(
    cluster: &Cluster,
    txn: &mut aurora_engine::Txn,
    table: &Arc<Table>,
    id: i64,
    balance: i64,
) -> Result<(), Error> {
    cluster.run(&never, |engine| engine.upsert(txn, table, row(id, balance)))
}

/// Moves an amount between two accounts; the LSN at which it is durable, or `None` after a conflict or a deadlock (two
/// transfers may lock the same accounts the other way round).
fn transfer(
    cluster: &Cluster,
    table: &Arc<Table>,
    from: i64,
    to: i64,
    amount: i64,
) -> Result<Option<Lsn>, Error> {
    let mut txn = cluster.run(&never, |engine| engine.begin(Mode::ReadWrite))?;
    let a = balance_in(cluster, table, &txn, from)?.unwrap();
    let b = balance_in(cluster, table, &txn, to)?.unwrap();
    let conflict =
        |error: &Error| matches!(error, Error::Engine(error) if error.class() == ErrorClass::Retry);
    let written = upsert(cluster, &mut txn, table, from, a - amount)
        .and_then(|()| upsert(cluster, &mut txn, table, to, b + amount));
    let now = cluster.now_us();
    match written.and_then(|()| cluster.run(&never, |engine| engine.commit(&mut txn, now, None))) {
        Ok(commit) => Ok(Some(commit.lsn)),
        Err(error) if conflict(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn sum_at(cluster: &Cluster, table: &Arc<Table>, at: Option<Lsn>) -> i64 {
    let txn = match at {
        Some(at) => cluster.begin_at(at, &never).unwrap(),
        None => cluster
            .run(&never, |engine| engine.begin(Mode::ReadOnly { at: None }))
            .unwrap(),
    };
    (0..ACCOUNTS)
        .map(|id| balance_in(cluster, table, &txn, id).unwrap().unwrap())
        .sum()
}

#[test]
fn transfers_keep_the_sum_in_every_snapshot() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&cluster);
    put(
        &cluster,
        &table,
        &(0..ACCOUNTS).map(|id| (id, EACH)).collect::<Vec<_>>(),
    )
    .unwrap();
    let done = AtomicBool::new(false);
    let committed = AtomicI64::new(0);
    let snapshots = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut snapshots = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(sum_at(&cluster, &table, None), ACCOUNTS * EACH);
                snapshots += 1;
            }
            snapshots
        });
        let writers: Vec<_> = (0..8)
            .map(|thread| {
                let (cluster, table, committed) = (&cluster, &table, &committed);
                scope.spawn(move || {
                    let mut random = Numbers(thread);
                    for _ in 0..40 {
                        let from = random.below(ACCOUNTS as u64) as i64;
                        let to = (from + 1 + random.below(ACCOUNTS as u64 - 1) as i64) % ACCOUNTS;
                        let lsn = loop {
                            if let Some(lsn) =
                                transfer(cluster, table, from, to, 1 + random.below(50) as i64)
                                    .unwrap()
                            {
                                break lsn;
                            }
                        };
                        cluster.wait_durable(lsn, &never).unwrap();
                        assert!(cluster.vdl() >= lsn);
                        assert_eq!(
                            sum_at(cluster, table, Some(lsn)),
                            ACCOUNTS * EACH,
                            "at {lsn}"
                        );
                        committed.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        // Before a failure is passed on: the reader must end for the test to end.
        done.store(true, Ordering::Relaxed);
        let snapshots = reader.join().unwrap();
        ended.into_iter().for_each(|ended| ended.unwrap());
        snapshots
    });
    assert!(snapshots > 0);
    assert_eq!(committed.load(Ordering::Relaxed), 320);
    drop(cluster);
    let cluster = Cluster::open(small(&dir)).unwrap();
    assert_eq!(sum_at(&cluster, &accounts(&cluster), None), ACCOUNTS * EACH);
}

#[test]
fn an_interrupted_wait_leaves_the_commit_alone() {
    let cluster = Cluster::open(OpenOptions::memory()).unwrap();
    let table = accounts(&cluster);
    let lsn = put(&cluster, &table, &[(1, 1)]).unwrap().lsn;
    // What is durable needs no waiting.
    cluster.wait_durable(lsn, &|| true).unwrap();
    // Nobody will ever number this one.
    let never_comes = Lsn(lsn.0 + 1_000_000);
    assert!(matches!(
        cluster.wait_durable(never_comes, &|| true),
        Err(Error::Interrupted)
    ));
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(1));
}

/// A thousand commits in flight, none of which a thread waits for.
#[test]
fn a_thousand_commits_are_reported_to_an_event_loop_once_each() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&cluster);
    let mut waiting = BTreeMap::new();
    for id in 0..1000_u64 {
        let mut txn = cluster
            .run(&never, |engine| engine.begin(Mode::ReadWrite))
            .unwrap();
        upsert(&cluster, &mut txn, &table, id as i64, 5).unwrap();
        let now = cluster.now_us();
        let commit = cluster
            .run(&never, |engine| engine.commit(&mut txn, now, None))
            .unwrap();
        waiting.insert(id, commit.lsn);
        cluster.notify_durable(commit.lsn, id);
    }
    let mut signals = 0;
    common::eventually("every commit is reported", || {
        let ready = cluster.completions().drain();
        signals += usize::from(!ready.is_empty());
        for (id, outcome) in ready {
            outcome.unwrap();
            let lsn = waiting.remove(&id).expect("reported once");
            assert!(cluster.vdl() >= lsn);
        }
        waiting.is_empty()
    });
    assert!(
        signals < 500,
        "group commits report many at a time, here {signals} times"
    );
    // One that is durable already is reported at once.
    cluster.notify_durable(cluster.vdl(), 7);
    assert!(matches!(
        cluster.completions().drain().as_slice(),
        [(7, Ok(()))]
    ));
}

/// What a closing cluster answers to commits on their way is the truth or no answer, and never a wrong one.
#[test]
fn close_amid_commits_loses_nothing_that_was_acknowledged() {
    let dir = TempDir::new();
    for round in 0..4_i64 {
        let cluster = Cluster::open(small(&dir)).unwrap();
        let table = accounts(&cluster);
        let acknowledged: Vec<Vec<i64>> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..6)
                .map(|thread| {
                    let (cluster, table) = (cluster.clone(), &table);
                    scope.spawn(move || {
                        let mut acknowledged = Vec::new();
                        for n in 0.. {
                            let id = round * 1_000_000 + thread * 100_000 + n;
                            match put(&cluster, table, &[(id, id)]) {
                                Ok(_) => acknowledged.push(id),
                                Err(Error::Closed) => break,
                                Err(other) => panic!("expected Ok or Closed, got {other}"),
                            }
                        }
                        acknowledged
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(60));
            cluster.close().unwrap();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        assert!(matches!(
            put(&cluster, &table, &[(1, 1)]),
            Err(Error::Closed)
        ));
        let cluster = Cluster::open(small(&dir)).unwrap();
        let table = accounts(&cluster);
        for id in acknowledged.iter().flatten() {
            assert_eq!(
                balance(&cluster, &table, *id).unwrap(),
                Some(*id),
                "round {round}"
            );
        }
    }
}

/// An empty transaction that read something not yet durable answers only when that is.
#[test]
fn what_was_read_is_durable_when_the_reader_commits() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&cluster);
    let mut writer = cluster
        .run(&never, |engine| engine.begin(Mode::ReadWrite))
        .unwrap();
    upsert(&cluster, &mut writer, &table, 1, 42).unwrap();
    let now = cluster.now_us();
    let commit = cluster
        .run(&never, |engine| engine.commit(&mut writer, now, None))
        .unwrap();
    // Numbered, and nobody has sent it: read-write work sees it, read-only work does not.
    let mut reader = cluster
        .run(&never, |engine| engine.begin(Mode::ReadWrite))
        .unwrap();
    assert_eq!(balance_in(&cluster, &table, &reader, 1).unwrap(), Some(42));
    let early = cluster
        .run(&never, |engine| engine.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    if early.snapshot() < commit.lsn {
        assert_eq!(balance_in(&cluster, &table, &early, 1).unwrap(), None);
    }
    let seen = cluster
        .run(&never, |engine| engine.commit(&mut reader, now, None))
        .unwrap();
    assert_eq!(seen.lsn, commit.lsn);
    cluster.wait_durable(seen.lsn, &never).unwrap();
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(42));
    // A row that is in the way is durable before anybody is told that it is.
    let mut other = cluster
        .run(&never, |engine| engine.begin(Mode::ReadWrite))
        .unwrap();
    upsert(&cluster, &mut other, &table, 2, 1).unwrap();
    let mut late = cluster
        .run(&never, |engine| engine.begin(Mode::ReadWrite))
        .unwrap();
    let first = cluster
        .run(&never, |engine| engine.commit(&mut other, now, None))
        .unwrap();
    let refused = cluster.run(&never, |engine| {
        engine.insert(
            &mut late,
            &table,
            vec![Value::Int(2), Value::Null, Value::Int(9)],
        )?;
        engine.commit(&mut late, now, None)
    });
    assert!(matches!(refused, Err(Error::Engine(_))), "{refused:?}");
    assert!(
        cluster.vdl() >= first.lsn,
        "the error rests on {}, which is not durable",
        first.lsn
    );
}
