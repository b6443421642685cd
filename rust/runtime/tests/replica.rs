//! Replicas of an open cluster: what they show, how they keep up, and who may have how many.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aurora_engine::{EngineError, Mode, Table};
use aurora_page::Value;
use aurora_runtime::{Cluster, Error, Instance, OpenOptions, REPLICAS_MAX, ReplicaSpec};
use common::{TempDir, accounts, eventually, never, put, small};

fn balance_on(cluster: &Cluster, instance: &Instance, table: &Arc<Table>, id: i64) -> Option<i64> {
    let txn = cluster
        .run_on(instance, &never, |e| e.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    let key = table.key(&[Value::Int(id)]).unwrap();
    let found = cluster
        .run_on(instance, &never, |e| {
            e.get(&txn, table, &key)?.map(|v| v.values()).transpose()
        })
        .unwrap();
    found.map(|values| match values[2] {
        Value::Int(balance) => balance,
        ref other => panic!("expected an integer, got {other:?}"),
    })
}

fn with_replicas(count: usize) -> (Cluster, Arc<Table>) {
    let cluster = Cluster::open(OpenOptions {
        replicas: count,
        ..OpenOptions::memory()
    })
    .unwrap();
    let table = accounts(&cluster);
    (cluster, table)
}

#[test]
fn a_replica_shows_a_commit_to_who_waits_for_it() {
    let (cluster, table) = with_replicas(2);
    for round in 0..200 {
        let commit = put(&cluster, &table, &[(round % 7, round)]).unwrap();
        for replica in &cluster.instances()[1..] {
            cluster
                .wait_shown(replica, commit.lsn, Some(Duration::from_secs(10)), &never)
                .unwrap();
            assert_eq!(
                balance_on(&cluster, replica, &table, round % 7),
                Some(round)
            );
        }
    }
    let status = cluster.status();
    assert_eq!(status.instances.len(), 3);
    assert!(status.instances[1..].iter().all(|i| i.role == "replica"));
    // From memory: what the redo stream brought, was not fetched.
    let replica = &cluster.instances()[1];
    assert!(replica.progress().pages > 0, "{:?}", replica.progress());
}

#[test]
fn sixteen_are_too_many_and_another_region_is_refused() {
    let (cluster, _) = with_replicas(REPLICAS_MAX);
    let refused = cluster.add_replica(ReplicaSpec::default());
    assert!(
        matches!(refused, Err(Error::InvalidOption { option: "replicas", expected, .. }) if expected.contains("15"))
    );
    let names: Vec<_> = cluster
        .instances()
        .iter()
        .map(|i| i.name().to_owned())
        .collect();
    assert_eq!((names.len(), names[15].as_str()), (16, "instance-16"));
    cluster.remove_replica("instance-7").unwrap();
    let elsewhere = ReplicaSpec {
        region: Some("elsewhere".into()),
        ..ReplicaSpec::default()
    };
    assert!(matches!(
        cluster.add_replica(elsewhere),
        Err(Error::InvalidOption {
            option: "region",
            ..
        })
    ));
    for (spec, option) in [
        (
            ReplicaSpec {
                tier: Some(16),
                ..ReplicaSpec::default()
            },
            "tier",
        ),
        (
            ReplicaSpec {
                class: Some("t2".into()),
                ..ReplicaSpec::default()
            },
            "instance_class",
        ),
        (
            ReplicaSpec {
                name: Some("instance-2".into()),
                ..ReplicaSpec::default()
            },
            "name",
        ),
    ] {
        assert!(
            matches!(cluster.add_replica(spec), Err(Error::InvalidOption { option: got, .. }) if got == option)
        );
    }
    let added = cluster.add_replica(ReplicaSpec::default()).unwrap();
    assert_eq!(added.name(), "instance-7");
    assert!(matches!(
        cluster.remove_replica("instance-1"),
        Err(Error::InvalidOption { option: "name", .. })
    ));
    assert!(matches!(
        cluster.remove_replica("nobody"),
        Err(Error::UnknownInstance { there, .. }) if there.len() == 16
    ));
}

#[test]
fn a_write_at_a_replica_names_the_writer() {
    let (cluster, _) = with_replicas(1);
    let replica = cluster.instance("instance-2").unwrap();
    let refused = cluster.run_on(&replica, &never, |e| e.begin(Mode::ReadWrite));
    assert!(matches!(
        refused,
        Err(Error::Engine(EngineError::ReadOnlyInstance { writer })) if writer == "instance-1"
    ));
}

/// A replica that stands still does not stop the writer; it drops its cache and goes on from the newest change.
#[test]
fn a_slow_replica_rejoins_and_nobody_waits_for_it() {
    let dir = TempDir::new();
    let cluster = Cluster::open(OpenOptions {
        replicas: 1,
        ..small(&dir)
    })
    .unwrap();
    let table = common::bulky(&cluster);
    let replica = cluster.instance("instance-2").unwrap();
    common::put_bulk(&cluster, &table, 0).unwrap();
    replica.pause(true);
    let behind = replica.readable();
    // More than the stream keeps.
    for id in 1..1300 {
        common::put_bulk(&cluster, &table, id % 20).unwrap();
    }
    assert!(replica.readable() <= cluster.vdl() && cluster.lag(&replica).1 > 0);
    let late = cluster.wait_shown(
        &replica,
        cluster.vdl(),
        Some(Duration::from_millis(20)),
        &never,
    );
    assert!(matches!(late, Err(Error::ReplicaLag { got, .. }) if got >= behind));
    replica.pause(false);
    eventually("the replica has caught up", || {
        replica.readable() == cluster.vdl()
    });
    assert_eq!(replica.progress().rejoins, 1);
    assert_eq!(cluster.lag(&replica), (0.0, 0));
}

/// Sums over all accounts, read at replicas while transfers go on, are always the same.
#[test]
fn views_at_replicas_are_consistent_under_load() {
    let (cluster, table) = with_replicas(3);
    let rows: Vec<_> = (0..50).map(|id| (id, 100)).collect();
    let first = put(&cluster, &table, &rows).unwrap().lsn;
    let done = AtomicBool::new(false);
    let instances = cluster.instances();
    std::thread::scope(|scope| {
        let readers: Vec<_> = instances[1..]
            .iter()
            .map(|replica| {
                let (cluster, table, done) = (&cluster, &table, &done);
                scope.spawn(move || {
                    cluster.wait_shown(replica, first, None, &never).unwrap();
                    let (mut views, mut last) = (0, first);
                    while !done.load(Ordering::Acquire) || views < 20 {
                        let txn = cluster
                            .run_on(replica, &never, |e| e.begin(Mode::ReadOnly { at: None }))
                            .unwrap();
                        assert!(txn.snapshot() >= last && txn.snapshot() <= cluster.vdl());
                        last = txn.snapshot();
                        let mut sum = 0;
                        for id in 0..50 {
                            let key = table.key(&[Value::Int(id)]).unwrap();
                            let row = cluster
                                .run_on(replica, &never, |e| {
                                    e.get(&txn, table, &key)?.map(|v| v.values()).transpose()
                                })
                                .unwrap();
                            match row.unwrap()[2] {
                                Value::Int(balance) => sum += balance,
                                ref other => panic!("{other:?}"),
                            }
                        }
                        assert_eq!(sum, 5000, "at {}", txn.snapshot());
                        views += 1;
                        if views % 7 == 0 {
                            replica.evict_all();
                        }
                    }
                })
            })
            .collect();
        for round in 0..3000_i64 {
            let (a, b) = (round % 50, (round * 7 + 1) % 50);
            if a != b {
                put(
                    &cluster,
                    &table,
                    &[(a, 100 - round % 9), (b, 100 + round % 9)],
                )
                .unwrap();
                put(&cluster, &table, &[(a, 100), (b, 100)]).unwrap();
            }
        }
        done.store(true, Ordering::Release);
        readers
            .into_iter()
            .for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn readers_share_the_connections_and_the_writer_stands_in() {
    use aurora_runtime::Connection;
    let (cluster, _) = with_replicas(0);
    assert_eq!(cluster.reader().name(), "instance-1");
    for _ in 0..3 {
        cluster.add_replica(ReplicaSpec::default()).unwrap();
    }
    let open: Vec<_> = (0..9)
        .map(|_| Connection::open(&cluster.reader()))
        .collect();
    let counts: Vec<_> = cluster
        .instances()
        .iter()
        .map(|i| i.connections())
        .collect();
    assert_eq!(counts, [0, 3, 3, 3]);
    drop(open);
    assert!(cluster.instances().iter().all(|i| i.connections() == 0));
    let among = ["instance-1".to_owned(), "gone".to_owned()];
    assert_eq!(cluster.reader_among(&among).unwrap().name(), "instance-1");
    assert!(matches!(
        cluster.reader_among(&["gone".to_owned()]),
        Err(Error::UnknownInstance { .. })
    ));
}

/// What a removed replica has open can still be read, and storage keeps it.
#[test]
fn a_view_outlives_its_replica() {
    let (cluster, table) = with_replicas(1);
    let commit = put(&cluster, &table, &[(1, 1)]).unwrap();
    let replica = cluster.instance("instance-2").unwrap();
    cluster
        .wait_shown(&replica, commit.lsn, None, &never)
        .unwrap();
    let txn = cluster
        .run_on(&replica, &never, |e| e.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    cluster.remove_replica("instance-2").unwrap();
    put(&cluster, &table, &[(1, 2)]).unwrap();
    replica.evict_all();
    let key = table.key(&[Value::Int(1)]).unwrap();
    let row = cluster
        .run_on(&replica, &never, |e| {
            e.get(&txn, &table, &key)?.map(|v| v.values()).transpose()
        })
        .unwrap();
    assert_eq!(row.unwrap()[2], Value::Int(1));
    let late = cluster.wait_shown(&replica, cluster.vdl(), None, &never);
    assert!(matches!(late, Err(Error::InstanceGone { .. })));
}
