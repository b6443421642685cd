//! Reads in the past: at an LSN, at a time, within a window that moves on, and held open by a view.

mod common;

use std::time::Duration;

use aurora_page::Lsn;
use aurora_runtime::{Cluster, Error, OpenOptions};
use common::{TempDir, accounts, balance, balance_at, balance_in, eventually, never, put, small};

#[test]
fn any_commit_of_the_window_is_read_by_lsn_and_by_time() {
    let dir = TempDir::new();
    let mut commits = Vec::new();
    for round in 0..3_i64 {
        let cluster = Cluster::open(small(&dir)).unwrap();
        let table = accounts(&cluster);
        for n in 0..20 {
            let value = round * 100 + n;
            let commit = put(&cluster, &table, &[(1, value), (2, -value)]).unwrap();
            commits.push((commit, value));
        }
        // From memory, from layers, and after an eviction from storage alone.
        if round == 1 {
            cluster.flush_now().unwrap();
        }
        cluster.engine().evict_all();
        for (commit, value) in &commits {
            assert_eq!(
                balance_at(&cluster, &table, 1, commit.lsn).unwrap(),
                Some(*value)
            );
            assert_eq!(
                balance_at(&cluster, &table, 2, commit.lsn).unwrap(),
                Some(-value)
            );
            assert_eq!(cluster.lsn_at(commit.time_us).unwrap(), commit.lsn);
        }
        for pair in commits.windows(2) {
            // Between two commits it is still the first one's time.
            assert_eq!(
                cluster.lsn_at(pair[1].0.time_us - 1).unwrap(),
                pair[0].0.lsn
            );
        }
        cluster.close().unwrap();
    }
}

fn outside<T: std::fmt::Debug>(result: Result<T, Error>, about: &str) {
    match result {
        Err(Error::OutsideWindow { what, .. }) => assert_eq!(what, about),
        other => panic!("expected OutsideWindow, got {other:?}"),
    }
}

#[test]
fn what_is_not_yet_and_what_never_was_is_outside() {
    let cluster = Cluster::open(OpenOptions::memory()).unwrap();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    outside(cluster.lsn_at(cluster.now_us() + 60_000_000), "time");
    outside(cluster.lsn_at(0), "time");
    outside(
        balance_at(&cluster, &table, 1, Lsn(cluster.vdl().0 + 1_000_000)),
        "LSN",
    );
}

#[test]
fn the_floor_follows_a_short_window_and_stops_at_an_open_view() {
    let dir = TempDir::new();
    let options = OpenOptions {
        window: Some(Duration::from_millis(400)),
        ..small(&dir)
    };
    let cluster = Cluster::open(options.clone()).unwrap();
    let table = accounts(&cluster);
    let old = put(&cluster, &table, &[(1, 10)]).unwrap();
    let held = put(&cluster, &table, &[(1, 11)]).unwrap();
    let view = cluster.begin_at(held.lsn, &never).unwrap();
    let mut value = 11;
    eventually("the floor passes the old commit", || {
        value += 1;
        put(&cluster, &table, &[(1, value)]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        cluster.floor() > old.lsn
    });
    outside(balance_at(&cluster, &table, 1, old.lsn), "LSN");
    outside(cluster.lsn_at(old.time_us), "time");
    // Commits go on for longer than the window, layers are written and rewritten: the view sees what it saw.
    for round in 0..12 {
        put(&cluster, &table, &[(1, 1000 + round)]).unwrap();
        cluster.flush_now().unwrap();
        cluster.engine().evict_all();
        assert_eq!(
            balance_in(&cluster, &table, &view, 1).unwrap(),
            Some(11),
            "round {round}"
        );
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(
        cluster.floor(),
        held.lsn,
        "the open view is the oldest thing that is kept"
    );
    drop(view);
    eventually("the floor goes on when the view has ended", || {
        cluster.floor() > held.lsn
    });
    outside(balance_at(&cluster, &table, 1, held.lsn), "LSN");
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(1011));
    let floor = cluster.floor();
    assert_eq!(cluster.status().floor, floor);
    cluster.close().unwrap();
    let cluster = Cluster::open(options).unwrap();
    assert!(cluster.floor() >= floor, "the floor never falls");
    assert_eq!(
        balance(&cluster, &accounts(&cluster), 1).unwrap(),
        Some(1011)
    );
}
