//! Injected faults below the whole cluster: what they keep away comes back, what they crash is recovered from.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aurora_runtime::{Cluster, CommitCrash, Error, Fault, NodeState, OpenOptions};
use common::{TempDir, accounts, balance, eventually, never, put, small, states};

fn in_memory() -> Cluster {
    Cluster::open(OpenOptions {
        detection: Duration::from_millis(20),
        ..OpenOptions::memory()
    })
    .unwrap()
}

fn down(node: &str) -> Fault {
    Fault::NodeDown { node: node.into() }
}

fn caught_up(cluster: &Cluster) {
    eventually("every copy has everything", || {
        let status = cluster.status();
        let is_whole = |node: &aurora_runtime::NodeStatus| {
            node.state == NodeState::Healthy && node.complete_to == status.points.vdl
        };
        status.nodes.iter().all(is_whole)
    });
}

#[test]
fn what_was_on_its_way_when_nodes_went_away_becomes_durable_when_they_are_back() {
    let cluster = in_memory();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    // Numbered while all are paused: sent to nobody, and waited for.
    let pause = Fault::Pause { node: None };
    let pause = cluster.start_fault(pause).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&cluster, &table, &[(1, 2)]));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        assert!(cluster.end_fault(pause.id));
        assert!(!cluster.end_fault(pause.id));
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(2));
    caught_up(&cluster);
}

#[test]
fn four_of_six_go_on_and_three_do_not() {
    let cluster = in_memory();
    let table = accounts(&cluster);
    let zone = cluster.start_fault(down("az2")).unwrap();
    put(&cluster, &table, &[(1, 1)]).unwrap();
    assert_eq!(states(&cluster)[2..4], [NodeState::Unreachable; 2]);
    let more = cluster.start_fault(down("az3/node6")).unwrap();
    let refused = put(&cluster, &table, &[(1, 2)]);
    assert!(
        matches!(&refused, Err(Error::QuorumLost { have: 3, hint, .. }) if hint.contains("injected")),
        "{refused:?}"
    );
    assert_eq!(cluster.faults().len(), 2);
    cluster.end_fault(zone.id);
    put(&cluster, &table, &[(1, 3)]).unwrap();
    cluster.end_fault(more.id);
    caught_up(&cluster);
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(3));
}

#[test]
fn a_crash_leaves_what_was_acknowledged_and_nothing_half() {
    let dir = TempDir::new();
    let options = || OpenOptions {
        detection: Duration::from_millis(10),
        ..small(&dir)
    };
    let cluster = Cluster::open(options()).unwrap();
    let table = accounts(&cluster);
    let stop = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (cluster, table, stop) = (&cluster, &table, &stop);
                scope.spawn(move || {
                    let (mut told, mut n) = (0, 0);
                    while !stop.load(Ordering::Acquire) {
                        n += 1;
                        // Two rows that are always equal.
                        let rows = [(2 * writer, n), (2 * writer + 1, n)];
                        if put(cluster, table, &rows).is_ok() {
                            told = n;
                        }
                    }
                    (told, n)
                })
            })
            .collect();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(25));
            cluster.crash_writer().unwrap();
        }
        stop.store(true, Ordering::Release);
        let told: Vec<_> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        told
    });
    let check = |cluster: &Cluster| {
        let table = accounts(cluster);
        for (writer, (told, tried)) in (0_i64..).zip(&told) {
            let [a, b] = [2 * writer, 2 * writer + 1].map(|id| balance(cluster, &table, id));
            let (a, b) = (a.unwrap().unwrap(), b.unwrap().unwrap());
            assert_eq!(a, b, "both rows of a commit or neither");
            assert!((*told..=*tried).contains(&a), "{told} <= {a} <= {tried}");
            assert!(*told > 0);
        }
    };
    eventually("there is a writer", || cluster.writer().is_writer());
    check(&cluster);
    caught_up(&cluster);
    cluster.close().unwrap();
    check(&Cluster::open(options()).unwrap());
}

#[test]
fn a_commit_that_the_writer_crashed_on_is_confirmed_to_nobody() {
    for (crash, there) in [(CommitCrash::Lost, None), (CommitCrash::Kept, Some(5))] {
        let cluster = in_memory();
        let table = accounts(&cluster);
        cluster.crash_writer_at_commit(crash).unwrap();
        let mut txn = cluster
            .run(&never, |engine| {
                engine.begin(aurora_engine::Mode::ReadWrite)
            })
            .unwrap();
        let row = common::row(1, 5);
        cluster
            .run(&never, |engine| {
                engine.upsert(&mut txn, &table, row.clone())
            })
            .unwrap();
        let now = cluster.now_us();
        let commit = cluster
            .run(&never, |engine| {
                cluster.committing(engine, |engine| engine.commit(&mut txn, now, None))
            })
            .unwrap();
        assert!(!cluster.is_told(commit.lsn));
        let told = cluster.wait_told(commit.lsn, &never);
        assert!(matches!(told, Err(Error::WriterCrashed)), "{told:?}");
        // Later, too, when the LSN lies far below the VDL.
        put(&cluster, &table, &[(2, 2)]).unwrap();
        assert!(!cluster.is_told(commit.lsn));
        cluster.notify_durable(commit.lsn, 7);
        let heard = cluster.completions().drain();
        assert!(
            matches!(heard.as_slice(), [(7, Err(Error::WriterCrashed))]),
            "{heard:?}"
        );
        assert_eq!(balance(&cluster, &table, 1).unwrap(), there);
        assert_eq!(
            cluster.wait_durable(commit.lsn, &never).is_ok(),
            there.is_some()
        );
        assert!(!cluster.crash_is_armed());
    }
}

#[test]
fn slow_and_failing_disks_hold_a_commit_back_only_where_too_few_are_left() {
    let cluster = in_memory();
    let table = accounts(&cluster);
    cluster.seed_faults(5);
    let slow = |node: Option<&str>| Fault::DiskCongestion {
        node: node.map(Into::into),
        least: Duration::from_millis(150),
        most: Duration::from_millis(200),
    };
    let took = |value| {
        let begun = Instant::now();
        put(&cluster, &table, &[(1, value)]).unwrap();
        begun.elapsed()
    };
    let zone = cluster.start_fault(slow(Some("az1"))).unwrap();
    assert!((0..5).map(took).min() < Some(Duration::from_millis(150)));
    let all = cluster.start_fault(slow(None)).unwrap();
    assert!(took(6) >= Duration::from_millis(150));
    cluster.end_fault(zone.id);
    cluster.end_fault(all.id);
    let failing = Fault::DiskFailure {
        node: None,
        percent: 50,
    };
    let failing = cluster.start_fault(failing).unwrap();
    assert!((10..20).map(took).max() > Some(Duration::ZERO));
    // A layer that cannot be written stays in the log, and its node is none the worse.
    let broken = cluster
        .start_fault(Fault::DiskFailure {
            node: Some("az3-b".into()),
            percent: 100,
        })
        .unwrap();
    assert!(cluster.flush_now().is_err());
    cluster.end_fault(failing.id);
    cluster.end_fault(broken.id);
    cluster.flush_now().unwrap();
    caught_up(&cluster);
}

#[test]
fn a_full_disk_holds_commits_until_there_is_room() {
    let cluster = in_memory();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    let full = cluster.start_fault(Fault::DiskFull { node: None }).unwrap();
    assert!(matches!(
        put(&cluster, &table, &[(1, 2)]),
        Err(Error::DiskFull { .. })
    ));
    assert!(
        cluster.crash_writer().is_err(),
        "no manifest can be written"
    );
    cluster.end_fault(full.id);
    put(&cluster, &table, &[(1, 3)]).unwrap();
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(3));
    caught_up(&cluster);
}

#[test]
fn a_sector_that_rots_is_mended_from_a_peer() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = accounts(&cluster);
    for id in 0..200 {
        put(&cluster, &table, &[(id, id)]).unwrap();
    }
    for node in ["az1-a", "az1-b", "az3-a"] {
        let spoilt = cluster.corrupt_page(node).unwrap();
        assert!(spoilt.path.starts_with(&dir.0) && spoilt.bytes > 0);
    }
    cluster.engine().evict_all();
    for id in 0..200 {
        assert_eq!(balance(&cluster, &table, id).unwrap(), Some(id));
    }
    caught_up(&cluster);
}

#[test]
fn names_and_numbers_that_are_none_are_refused() {
    let cluster = in_memory();
    let names: Vec<_> = cluster.node_names().into_iter().map(|n| n.name).collect();
    assert_eq!(
        names,
        ["az1-a", "az1-b", "az2-a", "az2-b", "az3-a", "az3-b"]
    );
    let refused = cluster.start_fault(down("az4"));
    assert!(
        matches!(&refused, Err(Error::InvalidOption { option: "node", expected, .. })
            if expected.contains("az3-b, az1, az2, az3")),
        "{refused:?}"
    );
    let percent = Fault::DiskFailure {
        node: None,
        percent: 101,
    };
    assert!(matches!(
        cluster.start_fault(percent),
        Err(Error::InvalidOption {
            option: "percent",
            ..
        })
    ));
    assert!(cluster.faults().is_empty());
    cluster.close().unwrap();
    assert!(matches!(
        cluster.start_fault(down("az1")),
        Err(Error::Closed)
    ));
}
