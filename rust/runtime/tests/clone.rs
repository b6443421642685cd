//! Clones: copy-on-write, of each other, deleted in any order, leaving nothing.

mod common;

use std::sync::Arc;

use aurora_engine::Table;
use aurora_runtime::{Cluster, OpenOptions, Target};
use common::*;

fn balances(cluster: &Cluster, table: &Arc<Table>) -> Vec<Option<i64>> {
    (0..4)
        .map(|id| balance(cluster, table, id).expect("readable"))
        .collect()
}

fn all(cluster: &Cluster, table: &Arc<Table>, n: i64) -> aurora_engine::Commit {
    let rows: Vec<_> = (0..4).map(|id| (id, n)).collect();
    put(cluster, table, &rows).expect("committed")
}

#[test]
fn clones_of_clones_go_their_own_ways() {
    let parent = Cluster::open(OpenOptions::memory()).unwrap();
    let table = accounts(&parent);
    all(&parent, &table, 1);
    parent.flush_now().unwrap();
    let second = all(&parent, &table, 2);
    all(&parent, &table, 3);
    let now = parent.clone_to(OpenOptions::memory(), None).unwrap();
    let at = Target::Lsn(second.lsn);
    let then = parent.clone_to(OpenOptions::memory(), Some(&at)).unwrap();
    let (in_now, in_then) = (accounts(&now), accounts(&then));
    assert_eq!(balances(&now, &in_now), vec![Some(3); 4]);
    assert_eq!(balances(&then, &in_then), vec![Some(2); 4]);
    all(&parent, &table, 4);
    put(&now, &in_now, &[(0, 10)]).unwrap();
    let below = now.clone_to(OpenOptions::memory(), None).unwrap();
    let in_below = accounts(&below);
    put(&now, &in_now, &[(0, 11)]).unwrap();
    // The parent goes first, then the one in the middle.
    drop(parent);
    drop(now);
    assert_eq!(balance(&below, &in_below, 0).unwrap(), Some(10));
    assert_eq!(balance(&below, &in_below, 1).unwrap(), Some(3));
    for round in 0..20 {
        all(&below, &in_below, round);
        below.flush_now().unwrap();
    }
    // A clone has its parent's past, up to where it was made.
    below
        .backtrack(&Target::Lsn(second.lsn), false, &never)
        .unwrap();
    assert_eq!(balances(&below, &in_below), vec![Some(2); 4]);
    assert_eq!(balances(&then, &in_then), vec![Some(2); 4]);
}

#[test]
fn on_disk_in_any_order_and_opened_again() {
    let (home, other, third) = (TempDir::new(), TempDir::new(), TempDir::new());
    let parent = Cluster::open(small(&home)).unwrap();
    let table = accounts(&parent);
    let first = all(&parent, &table, 1);
    parent.flush_now().unwrap();
    all(&parent, &table, 2);
    let clone = parent.clone_to(OpenOptions::at(&other.0), None).unwrap();
    let memory = parent
        .clone_to(OpenOptions::memory(), Some(&Target::Lsn(first.lsn)))
        .unwrap();
    let in_clone = accounts(&clone);
    assert_eq!(balances(&clone, &in_clone), vec![Some(2); 4]);
    put(&clone, &in_clone, &[(3, 30)]).unwrap();
    drop(clone);
    drop(parent);
    remove_dir(&home.0);
    let in_memory = accounts(&memory);
    assert_eq!(balances(&memory, &in_memory), vec![Some(1); 4]);
    let clone = Cluster::open(OpenOptions::at(&other.0)).unwrap();
    let in_clone = accounts(&clone);
    let expected = vec![Some(2), Some(2), Some(2), Some(30)];
    assert_eq!(balances(&clone, &in_clone), expected);
    let last = clone.clone_to(OpenOptions::at(&third.0), None).unwrap();
    drop(clone);
    remove_dir(&other.0);
    drop(last);
    let last = Cluster::open(OpenOptions::at(&third.0)).unwrap();
    let in_last = accounts(&last);
    assert_eq!(balances(&last, &in_last), expected);
    all(&last, &in_last, 5);
    assert_eq!(balances(&last, &in_last), vec![Some(5); 4]);
}

/// Records that were loaded in bulk lie in blobs.
#[test]
fn blobs_come_along() {
    let home = TempDir::new();
    for options in [OpenOptions::memory(), small(&home)] {
        let parent = Cluster::open(options).unwrap();
        let table = accounts(&parent);
        let mut load = parent.bulk_load(&table, 1 << 20, &never).unwrap();
        (0..1000).for_each(|id| load.push(&row(id, id), &never).unwrap());
        load.finish(&never).unwrap();
        let clone = parent.clone_to(OpenOptions::memory(), None).unwrap();
        parent.close().unwrap();
        drop(parent);
        remove_dir_if_there(&home);
        let table = accounts(&clone);
        for id in [0, 17, 999] {
            assert_eq!(balance(&clone, &table, id).unwrap(), Some(id));
        }
    }
}

fn remove_dir_if_there(home: &TempDir) {
    // The clone's own names of what it reads lie below; all else goes.
    for az in ["az1", "az2", "az3", "log"] {
        let _ = std::fs::remove_dir_all(home.0.join(az));
    }
}

#[test]
fn a_thousand_clones_leave_nothing() {
    let parent = Cluster::open(OpenOptions::memory()).unwrap();
    let table = accounts(&parent);
    all(&parent, &table, 1);
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for round in 0..1000 {
        let clone = parent.clone_to(OpenOptions::memory(), None).unwrap();
        if round % 100 == 0 {
            let in_clone = accounts(&clone);
            all(&clone, &in_clone, round);
        }
        if round % 250 == 0 {
            assert!(threads() < 60 && files() < 200, "{} {}", threads(), files());
        }
    }
    assert!(threads() < 60 && files() < 200, "{} {}", threads(), files());
    assert_eq!(balances(&parent, &table), vec![Some(1); 4]);
}
