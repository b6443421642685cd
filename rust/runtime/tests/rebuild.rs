//! Nodes that are lost while the cluster is open are made anew, filled, and count again, while commits go on.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use aurora_engine::Table;
use aurora_runtime::{Cluster, Error, NodeState, OpenOptions};
use aurora_store::{Disk, MemDisk};
use common::{
    TempDir, accounts, balance, bulky, eventually, has_bulk, node_dir, put, put_bulk, small, states,
};

const HEALTHY: [NodeState; 6] = [NodeState::Healthy; 6];

/// What is lost is made anew at the next look.
fn quick(dir: &TempDir) -> OpenOptions {
    OpenOptions {
        rebuild_after: Duration::ZERO,
        ..small(dir)
    }
}

fn filled(cluster: &Cluster, rows: i64) -> Arc<Table> {
    let table = accounts(cluster);
    put(
        cluster,
        &table,
        &(0..rows).map(|id| (id, id)).collect::<Vec<_>>(),
    )
    .unwrap();
    cluster.flush_now().unwrap();
    table
}

fn check(cluster: &Cluster, rows: i64, about: &str) {
    let table = accounts(cluster);
    cluster.engine().evict_all();
    for id in 0..rows {
        assert_eq!(
            balance(cluster, &table, id).unwrap(),
            Some(id),
            "{about}: row {id}"
        );
    }
}

/// How often something happened to a node.
fn count(cluster: &Cluster, what: &str, who: &str) -> usize {
    let events = cluster.events();
    events
        .iter()
        .filter(|event| event.what == what && event.who == who)
        .count()
}

fn path_of(node: usize) -> String {
    format!("az{}/node{}", node / 2 + 1, node + 1)
}

/// All six healthy, and each of these repaired so often.
fn whole_again(cluster: &Cluster, nodes: &[usize], times: usize) {
    eventually("six healthy copies", || {
        let repaired = |node: &usize| count(cluster, "node repaired", &path_of(*node)) >= times;
        nodes.iter().all(repaired) && states(cluster) == HEALTHY
    });
}

/// Each node, and each zone, removed while a thread commits. Afterwards every copy stands for itself.
#[test]
fn each_node_and_each_zone_comes_back_while_commits_go_on() {
    let losses: Vec<Vec<usize>> = (0..6)
        .map(|node| vec![node])
        .chain((0..3).map(|zone| vec![2 * zone, 2 * zone + 1]))
        .collect();
    for lost in losses {
        let dir = TempDir::new();
        let cluster = Cluster::open(quick(&dir)).unwrap();
        let table = filled(&cluster, 200);
        let (stop, next) = (AtomicBool::new(false), AtomicI64::new(200));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let id = next.load(Ordering::Acquire);
                    put(&cluster, &table, &[(id, id)]).unwrap();
                    next.store(id + 1, Ordering::Release);
                }
            });
            eventually("the writer is at work", || {
                next.load(Ordering::Acquire) > 250
            });
            for &node in &lost {
                common::remove_dir(node_dir(&dir, node));
            }
            whole_again(&cluster, &lost, 1);
            let repaired = next.load(Ordering::Acquire);
            eventually("commits go on", || {
                next.load(Ordering::Acquire) > repaired + 20
            });
            stop.store(true, Ordering::Release);
            writer.join().unwrap();
        });
        for &node in &lost {
            assert_eq!(count(&cluster, "node lost", &path_of(node)), 1);
            let events = cluster.events();
            let event = events
                .iter()
                .find(|event| event.what == "node repaired" && event.who == path_of(node))
                .unwrap();
            assert!(event.took.is_some(), "{event:?}");
            assert!(
                event.detail.as_ref().is_some_and(|d| d.contains("bytes")),
                "{event:?}"
            );
        }
        let rows = next.load(Ordering::Acquire);
        check(&cluster, rows, "while it is open");
        cluster.close().unwrap();
        // Those that were made anew and one more are all that is left.
        let mut stay = lost.clone();
        stay.extend(
            (0..6)
                .filter(|node| !lost.contains(node))
                .take(3 - lost.len()),
        );
        for node in (0..6).filter(|node| !stay.contains(node)) {
            common::remove_dir(node_dir(&dir, node));
        }
        let cluster = Cluster::open(quick(&dir)).unwrap();
        check(&cluster, rows, &format!("{stay:?} are left"));
    }
}

/// Two are lost and made anew, then two others: without the repair the second pair would have been the end.
#[test]
fn after_a_repair_two_more_may_be_lost() {
    let dir = TempDir::new();
    let cluster = Cluster::open(quick(&dir)).unwrap();
    let table = filled(&cluster, 100);
    for (round, zone) in [0, 2, 1, 0].into_iter().enumerate() {
        let lost = [2 * zone, 2 * zone + 1];
        let times = |node| count(&cluster, "node repaired", &path_of(node)) + 1;
        let before = times(lost[0]);
        common::remove_dir(dir.0.join(format!("az{}", zone + 1)));
        put(
            &cluster,
            &table,
            &[(100 + round as i64, 100 + round as i64)],
        )
        .unwrap();
        whole_again(&cluster, &lost, before);
    }
    check(&cluster, 104, "after four zones");
    cluster.close().unwrap();
    let cluster = Cluster::open(quick(&dir)).unwrap();
    check(&cluster, 104, "after opening again");
}

#[test]
fn three_lost_are_too_many_and_nothing_is_made_anew() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = filled(&cluster, 100);
    (0..3).for_each(|node| common::remove_dir(node_dir(&dir, node)));
    match put(&cluster, &table, &[(200, 1)]) {
        Err(Error::QuorumLost { have: 3, .. }) => {}
        other => panic!("expected QuorumLost, got {other:?}"),
    }
    // Not even when it is asked for: three others that have everything would not be enough to count on.
    let _ = cluster.repair_now();
    assert_eq!(states(&cluster)[..3], [NodeState::Lost; 3]);
    assert!((0..3).all(|node| !node_dir(&dir, node).exists()));
    check(&cluster, 100, "what was durable is read");
}

/// As soon as the place can be written again, and not before.
#[test]
fn a_place_that_cannot_be_written_is_waited_for() {
    let dir = TempDir::new();
    let cluster = Cluster::open(quick(&dir)).unwrap();
    let table = filled(&cluster, 100);
    // A file is where the zone's directory should be.
    common::remove_dir(dir.0.join("az3"));
    std::fs::write(dir.0.join("az3"), "in the way").unwrap();
    put(&cluster, &table, &[(100, 100)]).unwrap();
    eventually("the attempt is on record", || {
        count(&cluster, "node repair failed", "az3/node5") == 1
    });
    assert_eq!(states(&cluster)[4..], [NodeState::Lost; 2]);
    assert!(cluster.status().background.last_error.is_some());
    std::fs::remove_file(dir.0.join("az3")).unwrap();
    whole_again(&cluster, &[4, 5], 1);
    check(&cluster, 101, "when there was room again");
}

/// A power cut after each of many changes of a repair. Then the three complete copies that are hit hardest go as well: what is left
/// is the half-made node and two of those that had everything.
#[test]
fn a_power_cut_in_the_middle_of_a_repair_costs_nothing() {
    let open = |disk: &MemDisk| {
        let options = OpenOptions {
            segment_bytes: Some(4 << 20),
            rebuild_after: Duration::ZERO,
            ..OpenOptions::at("/c")
        };
        Cluster::open_on(options, Arc::new(disk.clone()) as Arc<dyn Disk>)
    };
    let remove = |disk: &MemDisk, node: usize| {
        let _ = disk.remove_dir_all(&Path::new("/c").join(path_of(node)));
    };
    let mut in_the_middle = 0;
    for cut in (0..240).step_by(3) {
        let disk = MemDisk::faulty();
        let cluster = open(&disk).unwrap();
        let table = filled(&cluster, 100);
        remove(&disk, 0);
        let mut rows = 100;
        disk.stop_after(cut);
        std::thread::scope(|scope| {
            // What it says does not matter: the power is about to go.
            scope.spawn(|| drop(cluster.repair_now()));
            while put(&cluster, &table, &[(rows, rows)]).is_ok() && rows < 130 {
                rows += 1;
            }
        });
        let left = disk.crash(cut);
        drop(cluster);
        for node in [1, 2 + (cut as usize / 4) % 2, 4] {
            remove(&left, node);
        }
        let cluster = match open(&left) {
            Ok(cluster) => cluster,
            // The lost node was nowhere yet: three with it is one too few.
            Err(Error::QuorumLost { .. }) => continue,
            Err(error) => panic!("cut {cut}: {error}"),
        };
        in_the_middle += 1;
        assert!(cluster.read_only().is_none(), "cut {cut}");
        check(&cluster, rows, &format!("cut {cut}"));
        cluster.repair_now().unwrap();
        assert_eq!(states(&cluster), HEALTHY, "cut {cut}");
        check(&cluster, rows, &format!("cut {cut}, repaired"));
    }
    assert!(
        in_the_middle > 5,
        "the cuts came too early: {in_the_middle}"
    );
}

/// A close in the middle of the filling: the next opening goes on.
#[test]
fn a_close_in_the_middle_of_the_filling_is_no_end() {
    let disk = MemDisk::faulty();
    let open = || {
        let options = OpenOptions {
            segment_bytes: Some(64 << 20),
            background_bytes_per_s: 4 << 20,
            rebuild_after: Duration::ZERO,
            ..OpenOptions::at("/c")
        };
        Cluster::open_on(options, Arc::new(disk.clone()) as Arc<dyn Disk>).unwrap()
    };
    let cluster = open();
    let table = bulky(&cluster);
    (0..400).for_each(|id| put_bulk(&cluster, &table, id).unwrap());
    cluster.flush_now().unwrap();
    disk.remove_dir_all(Path::new("/c/az2")).unwrap();
    eventually("it is being filled", || {
        let nodes = cluster.status().nodes;
        nodes[2].state == NodeState::Repairing
            && nodes[2]
                .progress
                .is_some_and(|share| share > 0.0 && share < 1.0)
    });
    assert_eq!(count(&cluster, "node repaired", "az2/node3"), 0);
    put_bulk(&cluster, &table, 400).unwrap();
    cluster.close().unwrap();
    // What was half filled counts for nothing: two more go, and everything is there.
    disk.remove_dir_all(Path::new("/c/az1")).unwrap();
    let cluster = open();
    cluster.repair_now().unwrap();
    assert_eq!(states(&cluster), HEALTHY);
    let table = bulky(&cluster);
    (0..=400)
        .step_by(13)
        .for_each(|id| assert!(has_bulk(&cluster, &table, id), "row {id}"));
}

/// A bulk load goes on across the loss: its blobs are stored before any record refers to them.
#[test]
fn a_node_made_anew_in_the_middle_of_a_load_has_all_of_it() {
    let dir = TempDir::new();
    let cluster = Cluster::open(quick(&dir)).unwrap();
    filled(&cluster, 10);
    let table = bulky(&cluster);
    let mut load = cluster.bulk_load(&table, 1 << 20, &common::never).unwrap();
    let row = |id: i64| {
        vec![
            aurora_page::Value::Int(id),
            aurora_page::Value::Bytes(vec![id as u8; 3000]),
        ]
    };
    (0..700).for_each(|id| load.push(&row(id), &common::never).unwrap());
    common::remove_dir(dir.0.join("az1"));
    eventually("it is lost and on its way back", || {
        count(&cluster, "node lost", "az1/node1") == 1 && states(&cluster)[0] != NodeState::Lost
    });
    (700..1500).for_each(|id| load.push(&row(id), &common::never).unwrap());
    load.finish(&common::never).unwrap();
    whole_again(&cluster, &[0, 1], 1);
    cluster.close().unwrap();
    common::remove_dir(dir.0.join("az2"));
    common::remove_dir(dir.0.join("az3/node5"));
    let cluster = Cluster::open(quick(&dir)).unwrap();
    let table = bulky(&cluster);
    (0..1500)
        .step_by(7)
        .for_each(|id| assert!(has_bulk(&cluster, &table, id), "row {id}"));
}
