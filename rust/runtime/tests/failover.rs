//! Failover: planned, forced, after a crash, again and again under load; with every acknowledged commit looked at.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aurora_engine::{EngineError, LockWaiting, Mode, Table};
use aurora_runtime::{Cluster, Error, OpenOptions, ReplicaSpec};
use common::{accounts, balance, eventually, never, put, row};

fn open(replicas: usize) -> (Cluster, Arc<Table>) {
    let cluster = Cluster::open(OpenOptions {
        replicas,
        detection: Duration::from_millis(50),
        ..OpenOptions::memory()
    })
    .unwrap();
    let table = accounts(&cluster);
    (cluster, table)
}

fn writer(cluster: &Cluster) -> String {
    cluster.writer().name().to_owned()
}

#[test]
fn a_planned_failover_keeps_the_cache_and_swaps_the_roles() {
    let (cluster, table) = open(2);
    put(
        &cluster,
        &table,
        &(0..500).map(|id| (id, id)).collect::<Vec<_>>(),
    )
    .unwrap();
    let target = cluster.instance("instance-3").unwrap();
    cluster
        .wait_shown(&target, cluster.vdl(), None, &never)
        .unwrap();
    let txn = cluster
        .run_on(&target, &never, |e| e.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    for id in 0..500 {
        let key = table.key(&[aurora_page::Value::Int(id)]).unwrap();
        cluster
            .run_on(&target, &never, |e| e.get(&txn, &table, &key))
            .unwrap();
    }
    let misses = target.cache_stats().misses;
    let done = cluster.failover(Some("instance-3"), false, &never).unwrap();
    assert_eq!(
        (done.from.as_str(), done.to.as_str()),
        ("instance-1", "instance-3")
    );
    assert_eq!(writer(&cluster), "instance-3");
    for id in 0..500 {
        assert_eq!(balance(&cluster, &table, id).unwrap(), Some(id));
    }
    assert_eq!(target.cache_stats().misses, misses, "the cache was kept");
    let commit = put(&cluster, &table, &[(1, -1)]).unwrap();
    // The old writer and the other replica follow the new one.
    for name in ["instance-1", "instance-2"] {
        let replica = cluster.instance(name).unwrap();
        cluster
            .wait_shown(&replica, commit.lsn, Some(Duration::from_secs(10)), &never)
            .unwrap();
        let refused = cluster.run_on(&replica, &never, |e| e.begin(Mode::ReadWrite));
        assert!(matches!(
            refused,
            Err(Error::Engine(EngineError::ReadOnlyInstance { writer })) if writer == "instance-3"
        ));
    }
    let events = cluster.events();
    let last = events.last().unwrap();
    assert_eq!((last.what, last.who.as_str()), ("failover", "instance-3"));
    assert_eq!(last.took, Some(done.gap));
    assert!(matches!(
        cluster.failover(Some("instance-3"), false, &never),
        Err(Error::InvalidOption { option: "to", .. })
    ));
}

/// A transaction that is open goes on at the new writer with its locks, and is told of a conflict that it could have had at
/// the old one.
#[test]
fn an_open_transaction_survives_a_planned_failover() {
    let (cluster, table) = open(1);
    put(&cluster, &table, &[(1, 1), (2, 2)]).unwrap();
    let mut quiet = cluster.run(&never, |e| e.begin(Mode::ReadWrite)).unwrap();
    cluster
        .run(&never, |e| e.upsert(&mut quiet, &table, row(1, 10)))
        .unwrap();
    let mut late = cluster.run(&never, |e| e.begin(Mode::ReadWrite)).unwrap();
    let key = |id: i64| table.key(&row(id, 0)[..1]).unwrap();
    cluster
        .run(&never, |e| e.get(&late, &table, &key(2)))
        .unwrap();
    put(&cluster, &table, &[(2, 3)]).unwrap();
    cluster.failover(None, false, &never).unwrap();
    let locked = cluster.run(&never, |e| {
        e.get_for_update(&mut late, &table, &key(1), LockWaiting::NoWait)
    });
    assert!(matches!(
        locked,
        Err(Error::Engine(EngineError::LockNotAvailable { holder, .. })) if holder == quiet.id()
    ));
    let now = cluster.now_us();
    let commit = cluster
        .run(&never, |e| e.commit(&mut quiet, now, None))
        .unwrap();
    cluster.wait_durable(commit.lsn, &never).unwrap();
    let conflict = cluster.run(&never, |e| e.upsert(&mut late, &table, row(2, 20)));
    assert!(matches!(
        conflict,
        Err(Error::Engine(EngineError::WriteConflict { .. }))
    ));
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(10));
    assert_eq!(balance(&cluster, &table, 2).unwrap(), Some(3));
}

#[test]
fn a_crashed_writer_is_found_and_replaced_by_the_lowest_tier() {
    let (cluster, table) = open(1);
    for (name, tier, class) in [("big", 3, "xlarge"), ("first", 0, "small")] {
        let spec = ReplicaSpec {
            name: Some(name.into()),
            tier: Some(tier),
            class: Some(class.into()),
            region: None,
        };
        cluster.add_replica(spec).unwrap();
    }
    put(&cluster, &table, &[(1, 1)]).unwrap();
    let old = cluster.writer();
    old.crash();
    // Who writes meanwhile waits, and goes on.
    put(&cluster, &table, &[(1, 2)]).unwrap();
    assert_eq!(writer(&cluster), "first");
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(2));
    eventually("the crashed one is made anew and follows", || {
        let again = cluster.instance("instance-1");
        again.is_ok_and(|again| again.readable() == cluster.vdl() && !again.is_crashed())
    });
    // The old one is fenced, and says so.
    let refused = cluster.run(&never, |_| old.begin(Mode::ReadWrite));
    assert!(refused.is_err() || !old.is_writer());
    assert!(matches!(
        old.begin(Mode::ReadWrite),
        Err(aurora_engine::Stop::Failed(EngineError::WriterMoved { writer: Some(by), .. })) if by == "first"
    ));
    cluster.set_choose(Some(Arc::new(|_| Some("big".into()))));
    cluster.failover(None, true, &never).unwrap();
    assert_eq!(writer(&cluster), "big");
    // A policy that does not answer in time is not waited for.
    cluster.set_choose(Some(Arc::new(|_| {
        std::thread::sleep(Duration::from_millis(400));
        Some("instance-2".into())
    })));
    cluster.failover(None, false, &never).unwrap();
    assert_eq!(writer(&cluster), "first");
}

#[test]
fn without_a_replica_the_writer_is_made_anew() {
    let (cluster, table) = open(0);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    cluster.writer().crash();
    put(&cluster, &table, &[(1, 2)]).unwrap();
    assert_eq!(writer(&cluster), "instance-1");
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(2));
    assert!(
        cluster
            .events()
            .iter()
            .any(|event| event.what == "failover")
    );
    cluster.failover(None, false, &never).unwrap();
    put(&cluster, &table, &[(1, 3)]).unwrap();
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(3));
}

#[test]
fn a_crashed_replica_is_made_anew() {
    let (cluster, table) = open(2);
    let crashed = cluster.instance("instance-2").unwrap();
    crashed.crash();
    eventually("the replica is made anew", || {
        cluster
            .events()
            .iter()
            .any(|event| event.what == "replica restarted")
    });
    let commit = put(&cluster, &table, &[(1, 1)]).unwrap();
    let again = cluster.instance("instance-2").unwrap();
    cluster
        .wait_shown(&again, commit.lsn, Some(Duration::from_secs(10)), &never)
        .unwrap();
}

/// Under load from several threads: every commit that was acknowledged is there, and nobody is told of an error that a retry does
/// not mend.
#[test]
fn failovers_in_a_row_lose_nothing() {
    let (cluster, table) = open(3);
    let done = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3_i64)
            .map(|thread| {
                let (cluster, table, done) = (&cluster, &table, &done);
                scope.spawn(move || {
                    let mut told = BTreeMap::new();
                    let mut n = 0_i64;
                    while !done.load(Ordering::Acquire) {
                        n += 1;
                        let id = thread * 1000 + n % 50;
                        match put(cluster, table, &[(id, n)]) {
                            Ok(_) => drop(told.insert(id, n)),
                            Err(Error::Engine(error)) => assert!(
                                matches!(error.class(), aurora_engine::ErrorClass::Retry),
                                "{error}"
                            ),
                            Err(error) => panic!("{error}"),
                        }
                    }
                    told
                })
            })
            .collect();
        for round in 0..60 {
            match round % 3 {
                0 => drop(cluster.failover(None, false, &never).unwrap()),
                1 => drop(cluster.failover(None, true, &never).unwrap()),
                _ => {
                    let writer = cluster.writer();
                    writer.crash();
                    eventually("another one writes", || {
                        !Arc::ptr_eq(&writer, &cluster.writer()) && cluster.writer().is_writer()
                    });
                }
            }
        }
        done.store(true, Ordering::Release);
        writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(told.len() > 100);
    for (id, n) in told {
        assert_eq!(balance(&cluster, &table, id).unwrap(), Some(n), "row {id}");
    }
    let failovers = cluster
        .events()
        .iter()
        .filter(|event| event.what == "failover")
        .count();
    assert!(failovers >= 60, "{failovers}");
}
