//! What was committed is there after a close, after a crash, and after the loss of nodes.

mod common;

use aurora_runtime::{Cluster, Error, NodeState, OpenOptions};
use common::{TempDir, accounts, balance, never, put, small};

#[test]
fn a_memory_cluster_commits_and_reads() {
    let cluster = Cluster::open(OpenOptions::memory()).unwrap();
    let table = accounts(&cluster);
    let first = put(&cluster, &table, &[(1, 10), (2, 20)]).unwrap();
    let second = put(&cluster, &table, &[(1, 11)]).unwrap();
    assert!(second.lsn > first.lsn && second.time_us > first.time_us);
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(11));
    assert_eq!(balance(&cluster, &table, 2).unwrap(), Some(20));
    assert_eq!(balance(&cluster, &table, 3).unwrap(), None);
    assert_eq!(cluster.lsn_at(first.time_us).unwrap(), first.lsn);
    cluster.close().unwrap();
    assert!(matches!(
        cluster.run(&never, |engine| engine
            .begin(aurora_engine::Mode::ReadWrite)),
        Err(Error::Closed)
    ));
}

#[test]
fn commits_survive_close_and_reopen() {
    let dir = TempDir::new();
    for round in 0..4_i64 {
        let cluster = Cluster::open(small(&dir)).unwrap();
        let table = accounts(&cluster);
        for id in 0..round * 100 {
            assert_eq!(
                balance(&cluster, &table, id).unwrap(),
                Some(id * 2),
                "round {round}, id {id}"
            );
        }
        let rows: Vec<_> = (round * 100..(round + 1) * 100)
            .map(|id| (id, id * 2))
            .collect();
        put(&cluster, &table, &rows).unwrap();
        cluster.close().unwrap();
    }
}

#[test]
fn a_second_owner_is_refused_and_named() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    match Cluster::open(small(&dir)) {
        Err(Error::AlreadyOpen { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("expected AlreadyOpen, got {:?}", other.map(|_| ())),
    }
    drop(cluster);
    Cluster::open(small(&dir)).unwrap();
}

/// Every single node, every pair, every AZ, and every AZ with one more: removed before open.
#[test]
fn any_loss_up_to_an_az_and_one_is_rebuilt_at_open() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&cluster);
    put(
        &cluster,
        &table,
        &(0..500).map(|id| (id, id)).collect::<Vec<_>>(),
    )
    .unwrap();
    cluster.close().unwrap();
    let az = |n: usize| vec![2 * n, 2 * n + 1];
    let mut losses: Vec<Vec<usize>> = (0..6).map(|n| vec![n]).collect();
    losses.extend((0..6).flat_map(|a| (a + 1..6).map(move |b| vec![a, b])));
    losses.extend((0..3).flat_map(|n| {
        (0..6)
            .filter(move |m| m / 2 != n)
            .map(move |m| [az(n), vec![m]].concat())
    }));
    for (round, loss) in losses.iter().enumerate() {
        for n in loss {
            common::remove_dir(dir.0.join(format!("az{}/node{}", n / 2 + 1, n + 1)));
        }
        let cluster =
            Cluster::open(small(&dir)).unwrap_or_else(|error| panic!("loss {loss:?}: {error}"));
        let table = accounts(&cluster);
        for id in (0..500).step_by(17) {
            assert_eq!(
                balance(&cluster, &table, id).unwrap(),
                Some(id),
                "loss {loss:?}"
            );
        }
        put(&cluster, &table, &[(1000 + round as i64, 1)]).unwrap();
        cluster.repair_now().unwrap();
        let status = cluster.status();
        assert!(
            status
                .nodes
                .iter()
                .all(|node| node.state == NodeState::Healthy),
            "loss {loss:?}: {:?}",
            status.nodes
        );
        cluster.close().unwrap();
    }
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&cluster);
    for round in 0..losses.len() as i64 {
        assert_eq!(balance(&cluster, &table, 1000 + round).unwrap(), Some(1));
    }
}

#[test]
fn nodes_removed_while_running_stop_counting_and_commits_go_on_with_four() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    common::remove_dir(dir.0.join("az1"));
    put(&cluster, &table, &[(2, 2)]).unwrap();
    let lost = cluster
        .status()
        .nodes
        .iter()
        .filter(|node| node.state == NodeState::Lost)
        .count();
    assert_eq!(lost, 2);
    common::remove_dir(dir.0.join("az2/node3"));
    match put(&cluster, &table, &[(3, 3)]) {
        Err(Error::QuorumLost {
            have: 3,
            of: 6,
            need: 4,
            missing,
            ..
        }) => {
            assert_eq!(missing, ["az1/node1", "az1/node2", "az2/node3"]);
        }
        other => panic!("expected QuorumLost, got {other:?}"),
    }
    assert_eq!(
        balance(&cluster, &table, 2).unwrap(),
        Some(2),
        "reads are still answered"
    );
    cluster.close().unwrap();
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&cluster);
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(1));
    assert_eq!(balance(&cluster, &table, 2).unwrap(), Some(2));
    put(&cluster, &table, &[(4, 4)]).unwrap();
}
