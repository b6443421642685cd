//! Nodes on several devices, each with a log of its own: the slowest and the lost never hold a commit back.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aurora_runtime::{Cluster, Error, NodeState, OpenOptions, OsDisk};
use aurora_store::{Disk, MemDisk};
use common::moody::moody;
use common::places::{ShmDir, options};
use common::{TempDir, accounts, balance, bulky, eventually, put, put_bulk, states};

fn commit_some(cluster: &Cluster, from: i64, count: i64) {
    let table = accounts(cluster);
    for id in from..from + count {
        put(cluster, &table, &[(id, id)]).unwrap();
    }
}

fn check(cluster: &Cluster, upto: i64) {
    let table = accounts(cluster);
    cluster.engine().evict_all();
    for id in 0..upto {
        assert_eq!(balance(cluster, &table, id).unwrap(), Some(id), "row {id}");
    }
}

fn caught_up(cluster: &Cluster) {
    eventually("every copy has everything", || {
        let status = cluster.status();
        let vdl = status.points.vdl;
        status
            .nodes
            .iter()
            .all(|node| node.state == NodeState::Healthy && node.complete_to == vdl)
    });
}

#[test]
fn commits_and_reopens_over_two_devices() {
    let (dir, shm) = (TempDir::new(), ShmDir::new());
    for round in 0..3 {
        let cluster = Cluster::open(options(&dir.0, &shm.0)).unwrap();
        check(&cluster, round * 30);
        commit_some(&cluster, round * 30, 30);
        caught_up(&cluster);
        let status = cluster.status();
        assert_eq!(status.devices, 2);
        assert!(
            status.fault_domains().contains("2 devices"),
            "{}",
            status.fault_domains()
        );
        if round == 1 {
            cluster.flush_now().unwrap();
            assert_eq!(cluster.status().log_bytes, 0);
        }
        // Dropped without a close, now and then.
        if round != 0 {
            cluster.close().unwrap();
        }
    }
    let log = |path: PathBuf| assert!(path.is_dir(), "{}", path.display());
    log(dir.0.join("log"));
    log(shm.0.join("az3/node5/log"));
}

#[test]
fn a_zone_whose_device_goes_is_rebuilt_when_it_is_back_and_waited_for_when_not() {
    let (dir, shm) = (TempDir::new(), ShmDir::new());
    let cluster = Cluster::open(options(&dir.0, &shm.0)).unwrap();
    commit_some(&cluster, 0, 20);
    common::remove_dir(shm.0.join("az3"));
    commit_some(&cluster, 20, 20);
    assert_eq!(states(&cluster)[4..], [NodeState::Lost; 2]);
    check(&cluster, 40);
    cluster.close().unwrap();
    // The device is there, its directories are not: they are made anew.
    let cluster = Cluster::open(options(&dir.0, &shm.0)).unwrap();
    check(&cluster, 40);
    commit_some(&cluster, 40, 10);
    cluster.repair_now().unwrap();
    caught_up(&cluster);
    // The log of a node goes alone: its node is a lost copy, and made anew as well.
    cluster.close().unwrap();
    common::remove_dir(shm.0.join("az2/node3/log"));
    let cluster = Cluster::open(options(&dir.0, &shm.0)).unwrap();
    check(&cluster, 50);
    cluster.repair_now().unwrap();
    caught_up(&cluster);
    cluster.close().unwrap();
    // Each of the six stands for itself afterwards.
    common::remove_dir(dir.0.join("az1"));
    common::remove_dir(shm.0.join("az2/node4"));
    let cluster = Cluster::open(options(&dir.0, &shm.0)).unwrap();
    check(&cluster, 50);
    commit_some(&cluster, 50, 10);
}

/// A device that is not mounted: nothing is made in its place. With four copies the cluster works, with three it is read.
#[test]
fn a_device_that_is_not_there_is_left_alone() {
    let disk = MemDisk::faulty();
    let device = |prefix: &str, number: u64| disk.set_device(Path::new(prefix), number);
    for zone in ["az2", "az3"] {
        device(&format!("/mnt/{zone}/node3"), 3);
        device(&format!("/mnt/{zone}/node4"), 4);
        device(&format!("/mnt/{zone}/node5"), 5);
        device(&format!("/mnt/{zone}/node6"), 6);
    }
    let open = || {
        Cluster::open_on(
            options(Path::new("/cluster"), Path::new("/mnt")),
            Arc::new(disk.clone()),
        )
    };
    let cluster = open().unwrap();
    assert_eq!(cluster.status().devices, 5);
    commit_some(&cluster, 0, 10);
    caught_up(&cluster);
    cluster.close().unwrap();
    // Unmounted: the directory is gone, and what is above it lies on another device.
    let unmount = |nodes: &[&str]| {
        for node in nodes {
            disk.remove_dir_all(Path::new(node)).unwrap();
            device(node, 1);
        }
    };
    unmount(&["/mnt/az2/node3", "/mnt/az3/node5"]);
    let cluster = open().unwrap();
    check(&cluster, 10);
    commit_some(&cluster, 10, 10);
    assert_eq!(
        states(&cluster)
            .iter()
            .filter(|state| **state == NodeState::Lost)
            .count(),
        2
    );
    assert!(!disk.exists(Path::new("/mnt/az2/node3")));
    cluster.close().unwrap();
    unmount(&["/mnt/az3/node6"]);
    let cluster = open().unwrap();
    let reason = cluster
        .read_only()
        .expect("three copies are read")
        .to_owned();
    assert!(reason.contains("/mnt/az3/node6"), "{reason}");
    let table = cluster
        .run(&common::never, |engine| {
            engine.table("accounts", cluster.vdl())
        })
        .unwrap()
        .unwrap();
    (0..20).for_each(|id| assert_eq!(balance(&cluster, &table, id).unwrap(), Some(id)));
    assert!(matches!(
        put(&cluster, &table, &[(99, 99)]),
        Err(Error::ReadOnly { .. })
    ));
}

#[test]
fn a_device_that_stands_still_delays_no_commit_and_catches_up() {
    let (dir, shm) = (TempDir::new(), ShmDir::new());
    let disk = moody(Arc::new(OsDisk), shm.0.join("az3"));
    let cluster = Cluster::open_on(options(&dir.0, &shm.0), disk.clone()).unwrap();
    commit_some(&cluster, 0, 10);
    caught_up(&cluster);
    disk.stalled.store(true, Ordering::Release);
    let started = Instant::now();
    commit_some(&cluster, 10, 60);
    let took = started.elapsed();
    assert!(
        took < Duration::from_secs(3),
        "60 commits beside a device that stands still took {took:?}"
    );
    check(&cluster, 70);
    let vdl = cluster.vdl();
    let behind = cluster
        .status()
        .nodes
        .iter()
        .filter(|node| node.complete_to < vdl)
        .count();
    assert_eq!(behind, 2, "{:?}", cluster.status().nodes);
    disk.stalled.store(false, Ordering::Release);
    caught_up(&cluster);
    cluster.close().unwrap();
    // What it got late is as good as what it got at once.
    common::remove_dir(dir.0.join("az1"));
    common::remove_dir(shm.0.join("az2/node3"));
    let cluster = Cluster::open(options(&dir.0, &shm.0)).unwrap();
    check(&cluster, 70);
}

#[test]
fn a_full_device_is_passed_over_and_too_many_say_so() {
    let (dir, shm) = (TempDir::new(), ShmDir::new());
    for (below, blocked) in [("az3", false), ("", true)] {
        let disk = moody(Arc::new(OsDisk), shm.0.join(below));
        let cluster = Cluster::open_on(options(&dir.0, &shm.0), disk.clone()).unwrap();
        commit_some(&cluster, 0, 5);
        caught_up(&cluster);
        disk.full.store(true, Ordering::Release);
        // More than a log file and its spare hold.
        let large = bulky(&cluster);
        let outcome = (0..620).try_for_each(|id| put_bulk(&cluster, &large, id % 40));
        match blocked {
            false => outcome.unwrap(),
            true => assert!(
                matches!(outcome, Err(Error::DiskFull { .. })),
                "{outcome:?}"
            ),
        }
        check(&cluster, 5);
        disk.full.store(false, Ordering::Release);
        eventually("there is room again", || {
            put_bulk(&cluster, &large, 41).is_ok()
        });
        caught_up(&cluster);
        cluster.close().unwrap();
    }
}

#[test]
fn a_device_whose_syncs_fail_is_lost_alone() {
    let (dir, shm) = (TempDir::new(), ShmDir::new());
    let disk = moody(Arc::new(OsDisk), shm.0.join("az2"));
    let cluster = Cluster::open_on(options(&dir.0, &shm.0), disk.clone()).unwrap();
    commit_some(&cluster, 0, 10);
    disk.broken.store(true, Ordering::Release);
    commit_some(&cluster, 10, 10);
    eventually("the zone is lost", || {
        states(&cluster)[2..4] == [NodeState::Lost; 2]
    });
    check(&cluster, 20);
    cluster.close().unwrap();
    // It is still broken when the cluster opens: four copies are enough.
    let cluster = Cluster::open_on(options(&dir.0, &shm.0), disk.clone()).unwrap();
    check(&cluster, 20);
    commit_some(&cluster, 20, 10);
    cluster.close().unwrap();
    disk.broken.store(false, Ordering::Release);
    let cluster = Cluster::open_on(options(&dir.0, &shm.0), disk).unwrap();
    check(&cluster, 30);
    commit_some(&cluster, 30, 10);
    cluster.repair_now().unwrap();
    caught_up(&cluster);
}

/// The log of a node on a disk of its own goes with its directory, or its syncs fail: node and log are made anew while commits go on.
#[test]
fn nodes_with_logs_of_their_own_come_back_while_it_is_open() {
    let (dir, shm) = (TempDir::new(), ShmDir::new());
    let disk = moody(Arc::new(OsDisk), shm.0.join("az2"));
    let open = || {
        let quick = OpenOptions {
            rebuild_after: Duration::ZERO,
            ..options(&dir.0, &shm.0)
        };
        Cluster::open_on(quick, disk.clone()).unwrap()
    };
    let repaired = |cluster: &Cluster, zone: &str| {
        let events = cluster.events();
        let zone = |event: &&aurora_runtime::Event| event.who.contains(zone);
        let of_zone = events.iter().filter(zone);
        of_zone
            .filter(|event| event.what == "node repaired")
            .count()
    };
    let cluster = open();
    commit_some(&cluster, 0, 20);
    cluster.flush_now().unwrap();
    common::remove_dir(shm.0.join("az3"));
    commit_some(&cluster, 20, 20);
    eventually("zone 3 is back", || repaired(&cluster, "az3") == 2);
    caught_up(&cluster);
    assert!(shm.0.join("az3/node5/log").is_dir());
    // As long as the syncs fail nothing can be made there either.
    disk.broken.store(true, Ordering::Release);
    commit_some(&cluster, 40, 20);
    eventually("the attempts are on record", || {
        let events = cluster.events();
        let failed = events
            .iter()
            .filter(|event| event.what == "node repair failed");
        failed.count() == 2
    });
    assert_eq!(states(&cluster)[2..4], [NodeState::Lost; 2]);
    disk.broken.store(false, Ordering::Release);
    eventually("zone 2 is back", || repaired(&cluster, "az2") == 2);
    caught_up(&cluster);
    commit_some(&cluster, 60, 20);
    check(&cluster, 80);
    cluster.close().unwrap();
    // What was set aside when the disk failed is there for whoever wants to know.
    assert!(shm.0.join("az2/node3.damaged-1").is_dir());
    // The four that were made anew stand for themselves.
    common::remove_dir(dir.0.join("az1"));
    common::remove_dir(shm.0.join("az3/node6"));
    let cluster = open();
    check(&cluster, 80);
    commit_some(&cluster, 80, 10);
}

/// A device that is unmounted while the cluster is open: nothing is made in its place, until it is there again.
#[test]
fn nothing_is_made_where_a_device_was_that_is_gone() {
    let disk = MemDisk::faulty();
    let device = |number: u64| disk.set_device(Path::new("/mnt/az3"), number);
    device(5);
    let quick = OpenOptions {
        rebuild_after: Duration::ZERO,
        ..options(Path::new("/cluster"), Path::new("/mnt"))
    };
    let cluster = Cluster::open_on(quick, Arc::new(disk.clone())).unwrap();
    commit_some(&cluster, 0, 10);
    caught_up(&cluster);
    device(1);
    for node in ["/mnt/az3/node5", "/mnt/az3/node6"] {
        disk.remove_dir_all(Path::new(node)).unwrap();
    }
    commit_some(&cluster, 10, 10);
    cluster.repair_now().unwrap();
    assert_eq!(states(&cluster)[4..], [NodeState::Lost; 2]);
    assert!(!disk.exists(Path::new("/mnt/az3/node5")));
    device(5);
    eventually("the nodes are back", || {
        states(&cluster) == [NodeState::Healthy; 6]
    });
    check(&cluster, 20);
}

/// Damage that the node's disk does not let be mended: the node is made anew as soon as something can be written there.
#[test]
fn a_node_that_cannot_be_mended_is_made_anew() {
    let dir = TempDir::new();
    let node = dir.0.join("az1/node1");
    let disk = moody(Arc::new(OsDisk), node.clone());
    let quick = OpenOptions {
        segment_bytes: Some(4 << 20),
        rebuild_after: Duration::ZERO,
        ..OpenOptions::at(&dir.0)
    };
    let cluster = Cluster::open_on(quick, disk.clone()).unwrap();
    commit_some(&cluster, 0, 100);
    cluster.flush_now().unwrap();
    disk.broken.store(true, Ordering::Release);
    for entry in fs::read_dir(node.join("layers")).unwrap() {
        use std::os::unix::fs::FileExt;
        let path = entry.unwrap().path();
        let len = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0x55; 64], len / 3).unwrap();
    }
    let happened = |what: &str| cluster.events().iter().any(|event| event.what == what);
    eventually("it is given up", || happened("node lost"));
    let events = cluster.events();
    let lost = events.iter().find(|event| event.what == "node lost");
    let why = lost.and_then(|event| event.detail.clone()).unwrap();
    assert!(why.contains("cannot be mended"), "{why}");
    commit_some(&cluster, 100, 10);
    eventually("it cannot be made anew either", || {
        happened("node repair failed")
    });
    disk.broken.store(false, Ordering::Release);
    eventually("it is made anew", || happened("node repaired"));
    caught_up(&cluster);
    check(&cluster, 110);
}
