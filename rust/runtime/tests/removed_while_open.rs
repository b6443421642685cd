//! The story: `rm -r <cluster>/log` under a running cluster went unnoticed. Commits were acknowledged into files without a
//! name, and the next open found no log. And with `owner.lock` removed a second owner opened beside the first; both acknowledged
//! commits into one log, and most of them were lost. A cluster must look at its names before it acknowledges.

mod common;

use aurora_runtime::{Cluster, Error};
use common::{TempDir, accounts, balance, put, small};

#[test]
fn a_removed_log_acknowledges_nothing() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    common::remove_dir(dir.0.join("log"));
    match put(&cluster, &table, &[(2, 2)]) {
        Err(Error::LogFailed { .. }) => {}
        other => panic!("expected LogFailed, got {other:?}"),
    }
    assert!(put(&cluster, &table, &[(3, 3)]).is_err());
    assert_eq!(
        balance(&cluster, &table, 1).unwrap(),
        Some(1),
        "what was durable is still read"
    );
    cluster.close().unwrap();
}

#[test]
fn an_owner_without_its_lock_file_stops_before_a_second_one_comes() {
    let dir = TempDir::new();
    let first = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&first);
    put(&first, &table, &[(1, 1)]).unwrap();
    std::fs::remove_file(dir.0.join("owner.lock")).unwrap();
    let second = Cluster::open(small(&dir)).unwrap();
    match put(&first, &table, &[(2, 2)]) {
        Err(Error::ReadOnly { reason }) => assert!(reason.contains("owner.lock"), "{reason}"),
        other => panic!("expected ReadOnly, got {other:?}"),
    }
    let table = accounts(&second);
    put(&second, &table, &[(3, 3)]).unwrap();
    first.close().unwrap();
    drop(second);
    let third = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&third);
    let found: Vec<_> = (1..=3)
        .map(|id| balance(&third, &table, id).unwrap())
        .collect();
    assert_eq!(found, [Some(1), None, Some(3)]);
}
