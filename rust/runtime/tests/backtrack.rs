//! Backtrack on a live cluster: in place, forward again, and with a crash between any two steps.

mod common;

use std::sync::Arc;
use std::time::Duration;

use aurora_engine::{EngineError, Mode, Table};
use aurora_page::{Lsn, Value};
use aurora_runtime::{Cluster, Error, OpenOptions, Target};
use aurora_store::MemDisk;
use common::*;

fn back(cluster: &Cluster, to: Target) -> Result<aurora_runtime::Backtracked, Error> {
    cluster.backtrack(&to, false, &never)
}

fn balances(cluster: &Cluster, table: &Arc<Table>) -> Vec<Option<i64>> {
    (0..8)
        .map(|id| balance(cluster, table, id).expect("readable"))
        .collect()
}

/// Ten commits, each of which sets every balance to its number: LSN and time of each.
fn ten(cluster: &Cluster, table: &Arc<Table>, from: i64) -> Vec<(Lsn, i64)> {
    (from..from + 10)
        .map(|n| {
            let rows: Vec<_> = (0..8).map(|id| (id, n)).collect();
            let commit = put(cluster, table, &rows).expect("committed");
            (commit.lsn, commit.time_us)
        })
        .collect()
}

#[test]
fn back_forward_and_back_again() {
    let cluster = Cluster::open(OpenOptions::memory()).unwrap();
    let table = accounts(&cluster);
    let first = ten(&cluster, &table, 0);
    let done = back(&cluster, Target::Lsn(first[3].0)).unwrap();
    assert_eq!((done.to, done.from), (first[3].0, first[9].0));
    assert_eq!((done.to_us, done.from_us), (first[3].1, first[9].1));
    assert_eq!(balances(&cluster, &table), vec![Some(3); 8]);
    assert_eq!(cluster.vdl(), first[3].0);
    // Commits go on, with LSNs and times that were never given.
    let second = ten(&cluster, &table, 100);
    assert!(second[0].0 > first[9].0 && second[0].1 > first[9].1);
    assert_eq!(balances(&cluster, &table), vec![Some(109); 8]);
    // What was left cannot be read beside the present, and the error says where it is.
    let error = balance_at(&cluster, &table, 0, first[7].0).unwrap_err();
    assert!(
        error.to_string().contains("a backtrack has left LSN"),
        "{error}"
    );
    assert_eq!(
        balance_at(&cluster, &table, 0, first[2].0).unwrap(),
        Some(2)
    );
    // Forward again, to anywhere that was left; by time as well: it means the History that was active then.
    back(&cluster, Target::Time(first[7].1)).unwrap();
    assert_eq!(balances(&cluster, &table), vec![Some(7); 8]);
    let third = ten(&cluster, &table, 200);
    back(&cluster, Target::Lsn(second[5].0)).unwrap();
    assert_eq!(balances(&cluster, &table), vec![Some(105); 8]);
    back(&cluster, Target::Time(third[4].1)).unwrap();
    assert_eq!(balances(&cluster, &table), vec![Some(204); 8]);
    back(&cluster, Target::Time(first[0].1)).unwrap();
    assert_eq!(balances(&cluster, &table), vec![Some(0); 8]);
    put(&cluster, &table, &[(1, 9)]).unwrap();
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(9));
}

#[test]
fn open_work_is_cut_off_with_an_error_to_retry() {
    let cluster = Cluster::open(OpenOptions::memory()).unwrap();
    let table = accounts(&cluster);
    let commits = ten(&cluster, &table, 0);
    let old = cluster.begin_at(commits[2].0, &never).unwrap();
    let new = cluster.begin_at(commits[8].0, &never).unwrap();
    let mut writer = cluster
        .run(&never, |engine| engine.begin(Mode::ReadWrite))
        .unwrap();
    cluster
        .run(&never, |engine| {
            engine.upsert(&mut writer, &table, row(1, 77))
        })
        .unwrap();
    back(&cluster, Target::Lsn(commits[4].0)).unwrap();
    let branched = |error: Error| matches!(error, Error::Engine(EngineError::Branched { .. }));
    assert!(branched(balance_in(&cluster, &table, &new, 1).unwrap_err()));
    let commit = cluster.run(&never, |engine| engine.commit(&mut writer, 1, None));
    assert!(branched(commit.unwrap_err()));
    // What was read before the branch point is as it was.
    assert_eq!(balance_in(&cluster, &table, &old, 1).unwrap(), Some(2));
    assert_eq!(balances(&cluster, &table), vec![Some(4); 8]);
}

#[test]
fn limits_are_named() {
    let cluster = Cluster::open(OpenOptions::memory()).unwrap();
    let table = accounts(&cluster);
    let commits = ten(&cluster, &table, 0);
    let outside = |to| match back(&cluster, to).unwrap_err() {
        Error::OutsideWindow { what, expected, .. } => (what, expected),
        other => panic!("{other}"),
    };
    let now = cluster.now_us();
    let (what, expected) = outside(Target::Time(now + 3_600_000_000));
    assert!(what == "time" && expected.contains(" to "), "{expected}");
    assert_eq!(outside(Target::Time(1)).0, "time");
    assert_eq!(outside(Target::Lsn(commits[9].0.offset(1_000))).0, "LSN");
    let unknown = back(&cluster, Target::Snapshot("none".into())).unwrap_err();
    assert!(
        matches!(unknown, Error::UnknownSnapshot { .. }),
        "{unknown}"
    );
    assert_eq!(balances(&cluster, &table), vec![Some(9); 8]);
    let earliest = cluster.backtrack(&Target::Time(1), true, &never).unwrap();
    assert!(earliest.to < commits[0].0);
    let gone = balance(&cluster, &table, 1).unwrap_err();
    assert!(
        matches!(gone, Error::Engine(EngineError::UnknownTable { .. })),
        "{gone}"
    );
    back(&cluster, Target::Lsn(commits[9].0)).unwrap();
    assert_eq!(balances(&cluster, &table), vec![Some(9); 8]);
}

#[test]
fn a_snapshot_outlives_the_window() {
    let options = OpenOptions {
        window: Some(Duration::from_millis(1)),
        ..OpenOptions::memory()
    };
    let cluster = Cluster::open(options).unwrap();
    let table = accounts(&cluster);
    ten(&cluster, &table, 0);
    let snapshot = cluster.snapshot("before").unwrap();
    assert!(matches!(
        cluster.snapshot("before"),
        Err(Error::SnapshotExists { .. })
    ));
    for round in 1..6 {
        ten(&cluster, &table, round * 100);
        cluster.flush_now().unwrap();
    }
    eventually("the floor passes the snapshot", || {
        cluster.floor() > snapshot.lsn
    });
    for round in 6..30 {
        ten(&cluster, &table, round * 100);
        cluster.flush_now().unwrap();
    }
    back(&cluster, Target::Snapshot("before".into())).unwrap();
    assert_eq!(balances(&cluster, &table), vec![Some(9); 8]);
    put(&cluster, &table, &[(1, 10)]).unwrap();
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(10));
    assert_eq!(balance(&cluster, &table, 2).unwrap(), Some(9));
    assert_eq!(cluster.snapshots().unwrap(), [snapshot]);
    cluster.delete_snapshot("before").unwrap();
    assert!(matches!(
        cluster.delete_snapshot("before"),
        Err(Error::UnknownSnapshot { .. })
    ));
}

fn on_disk() -> OpenOptions {
    OpenOptions {
        segment_bytes: Some(4 << 20),
        ..OpenOptions::at("/c")
    }
}

/// Crashes at every changing operation of a backtrack and of the way forward: the cluster opens either as it was or as it should
/// be, takes commits, and can go to both sides.
#[test]
fn a_crash_between_any_two_steps() {
    for forward in [false, true] {
        let mut stopped_at_least_once = false;
        for steps in 0.. {
            let disk = MemDisk::faulty();
            let cluster = Cluster::open_on(on_disk(), Arc::new(disk.clone())).unwrap();
            let table = accounts(&cluster);
            let commits = ten(&cluster, &table, 0);
            if steps % 2 == 1 {
                cluster.flush_now().unwrap();
            }
            let (from, to) = if forward {
                back(&cluster, Target::Lsn(commits[2].0)).unwrap();
                put(&cluster, &table, &[(0, 50)]).unwrap();
                (50, 7)
            } else {
                (9, 4)
            };
            disk.stop_after(steps * 3);
            let done = back(&cluster, Target::Lsn(commits[to as usize].0));
            let crashed = disk.crash(steps);
            drop(cluster);
            let again = Cluster::open_on(on_disk(), Arc::new(crashed.clone())).unwrap();
            let table = accounts(&again);
            let found = balance(&again, &table, 0).unwrap().unwrap();
            match &done {
                Ok(_) => assert_eq!(found, to, "steps {steps}"),
                Err(_) => assert!([from, to].contains(&found), "{found}, steps {steps}"),
            }
            stopped_at_least_once |= done.is_err();
            put(&again, &table, &[(5, 1000)]).unwrap();
            for side in [commits[9].0, commits[1].0, commits[8].0] {
                back(&again, Target::Lsn(side)).unwrap();
                let n = commits.iter().position(|(lsn, _)| *lsn == side).unwrap() as i64;
                assert_eq!(balances(&again, &table), vec![Some(n); 8], "steps {steps}");
            }
            put(&again, &table, &[(5, 1001)]).unwrap();
            drop(again);
            let last = Cluster::open_on(on_disk(), Arc::new(crashed.crash(steps + 1))).unwrap();
            let table = accounts(&last);
            assert_eq!(
                balance(&last, &table, 5).unwrap(),
                Some(1001),
                "steps {steps}"
            );
            assert_eq!(balance(&last, &table, 4).unwrap(), Some(8), "steps {steps}");
            if done.is_ok() {
                break;
            }
        }
        assert!(stopped_at_least_once);
    }
}

/// A table of what was left is not one of what is: its handle says that there is none, and a new one gets a number of its own.
#[test]
fn tables_of_an_abandoned_history_are_not_there() {
    let cluster = Cluster::open(OpenOptions::memory()).unwrap();
    let table = accounts(&cluster);
    let commits = ten(&cluster, &table, 0);
    let later = bulky(&cluster);
    put_bulk(&cluster, &later, 1).unwrap();
    back(&cluster, Target::Lsn(commits[5].0)).unwrap();
    let unknown = put_bulk(&cluster, &later, 2).unwrap_err();
    assert!(
        matches!(unknown, Error::Engine(EngineError::UnknownTable { .. })),
        "{unknown}"
    );
    let again = bulky(&cluster);
    assert_ne!(again.id, later.id);
    put_bulk(&cluster, &again, 3).unwrap();
    assert!(has_bulk(&cluster, &again, 3) && !has_bulk(&cluster, &again, 1));
    let key = again.key(&[Value::Int(3)]).unwrap();
    let txn = cluster
        .run(&never, |engine| engine.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    let stale = cluster.run(&never, |engine| engine.get(&txn, &later, &key));
    assert!(
        stale.is_err(),
        "the handle of a table that was left reads nothing"
    );
}
