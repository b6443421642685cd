//! A disk without room, and a disk that fails to sync: clear errors, reads go on, nothing acknowledged is lost.

mod common;

use std::sync::Arc;

use aurora_runtime::{Cluster, Error, NodeState, OpenOptions};
use aurora_store::MemDisk;
use common::{accounts, balance, bulky, eventually, has_bulk, never, put, put_bulk, states};

fn open(disk: &MemDisk) -> Cluster {
    let options = OpenOptions {
        segment_bytes: Some(64 << 20),
        ..OpenOptions::at("/cluster")
    };
    Cluster::open_on(options, Arc::new(disk.clone())).unwrap()
}

#[test]
fn a_log_that_cannot_grow_says_so_and_goes_on_when_there_is_room() {
    let disk = MemDisk::faulty();
    let cluster = open(&disk);
    let table = accounts(&cluster);
    let large = bulky(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    // What is there of the log is filled up; then it would have to grow.
    let mut written = 0;
    let path = loop {
        match put_bulk(&cluster, &large, written) {
            Ok(()) => written += 1,
            Err(Error::DiskFull { path }) => break path,
            Err(other) => panic!("expected DiskFull after {written} rows, got {other}"),
        }
        assert!(written < 10_000, "the disk has room without end");
    };
    assert!(path.starts_with("/cluster"), "{}", path.display());
    assert!(written > 10, "only {written} rows fit");
    for _ in 0..3 {
        assert!(matches!(
            put(&cluster, &table, &[(2, 2)]),
            Err(Error::DiskFull { .. })
        ));
    }
    assert!(
        cluster.status().state.contains("no space left"),
        "{}",
        cluster.status().state
    );
    // An event loop hears of it too.
    cluster.notify_durable(aurora_page::Lsn(cluster.vdl().0 + 1), 77);
    let told = cluster.completions().drain();
    assert!(
        matches!(told.as_slice(), [(77, Err(Error::DiskFull { .. }))]),
        "{told:?}"
    );
    // Reads go on, from memory and from storage.
    cluster.engine().evict_all();
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(1));
    (0..written).for_each(|id| assert!(has_bulk(&cluster, &large, id), "row {id}"));

    disk.set_capacity(None);
    put(&cluster, &table, &[(3, 3)]).unwrap();
    assert_eq!(cluster.status().state, "open");
    for id in written + 1..written + 100 {
        put_bulk(&cluster, &large, id).unwrap();
    }
    cluster.close().unwrap();
    let cluster = open(&disk);
    let (table, large) = (accounts(&cluster), bulky(&cluster));
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(1));
    assert_eq!(balance(&cluster, &table, 3).unwrap(), Some(3));
    (0..written)
        .chain(written + 1..written + 100)
        .for_each(|id| assert!(has_bulk(&cluster, &large, id), "row {id}"));
}

#[test]
fn layers_that_find_no_room_stay_in_the_log() {
    let disk = MemDisk::faulty();
    let cluster = open(&disk);
    let table = accounts(&cluster);
    let large = bulky(&cluster);
    (0..20).for_each(|id| put_bulk(&cluster, &large, id).unwrap());
    disk.set_capacity(Some(disk.used_bytes() + 100_000));
    assert!(matches!(cluster.flush_now(), Err(Error::DiskFull { .. })));
    assert_eq!(
        states(&cluster),
        [NodeState::Healthy; 6],
        "no node is lost for lack of room"
    );
    // There is room in the log, so commits go on.
    put(&cluster, &table, &[(1, 5)]).unwrap();
    cluster.engine().evict_all();
    (0..20).for_each(|id| assert!(has_bulk(&cluster, &large, id)));
    // A crash in this state loses nothing either.
    let crashed = open(&{
        let crashed = disk.crash(3);
        crashed.set_capacity(None);
        crashed
    });
    assert_eq!(balance(&crashed, &accounts(&crashed), 1).unwrap(), Some(5));
    let there = bulky(&crashed);
    (0..20).for_each(|id| assert!(has_bulk(&crashed, &there, id)));

    disk.set_capacity(None);
    cluster.flush_now().unwrap();
    assert_eq!(cluster.status().log_bytes, 0);
    cluster.close().unwrap();
    let cluster = open(&disk);
    let (table, large) = (accounts(&cluster), bulky(&cluster));
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(5));
    (0..20).for_each(|id| assert!(has_bulk(&cluster, &large, id)));
}

/// Growing the volume writes a manifest: without room that is refused, and done later.
#[test]
fn a_volume_that_cannot_grow_for_lack_of_room_grows_later() {
    let disk = MemDisk::faulty();
    let options = OpenOptions {
        segment_bytes: Some(1 << 20),
        ..OpenOptions::at("/cluster")
    };
    let cluster = Cluster::open_on(options, Arc::new(disk.clone())).unwrap();
    let large = bulky(&cluster);
    put_bulk(&cluster, &large, 0).unwrap();
    // The spare file of the log is made in the background, and must not be what is short of room here.
    let log_bytes = || disk.used_bytes() >= 31 << 20;
    eventually("the log has a spare file", log_bytes);
    disk.set_capacity(Some(disk.used_bytes()));
    let segments = cluster.status().segments;
    let mut id = 0;
    let error = loop {
        id += 1;
        match put_bulk(&cluster, &large, id) {
            Ok(()) => assert!(id < 100),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(cluster.status().segments, segments);
    (0..id).for_each(|id| assert!(has_bulk(&cluster, &large, id)));
    disk.set_capacity(None);
    put_bulk(&cluster, &large, id).unwrap();
    assert!(cluster.status().segments > segments);
    (0..=id).for_each(|id| assert!(has_bulk(&cluster, &large, id)));
}

#[test]
fn a_failed_sync_ends_the_log_and_opening_finds_exactly_what_was_durable() {
    for seed in 0..6 {
        let disk = MemDisk::faulty();
        let cluster = open(&disk);
        let table = accounts(&cluster);
        for id in 0..30 {
            put(&cluster, &table, &[(id, id)]).unwrap();
        }
        // The background syncs too: this many fail whoever asks.
        disk.fail_syncs(1);
        let mut id = 30;
        let error = loop {
            match put(&cluster, &table, &[(id, id)]) {
                Ok(_) => {
                    assert!(id < 40, "no sync has failed");
                    disk.fail_syncs(1);
                    id += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::LogFailed { .. }), "{error}");
        // It is never tried again, though the disk would take it now.
        for _ in 0..2 {
            assert!(matches!(
                put(&cluster, &table, &[(99, 99)]),
                Err(Error::LogFailed { .. })
            ));
        }
        assert!(
            cluster.status().state.contains("the log failed"),
            "{}",
            cluster.status().state
        );
        cluster.notify_durable(aurora_page::Lsn(cluster.vdl().0 + 1), 5);
        assert!(matches!(
            cluster.completions().drain().as_slice(),
            [(5, Err(Error::LogFailed { .. }))]
        ));
        cluster.engine().evict_all();
        for known in 0..id {
            assert_eq!(
                balance(&cluster, &table, known).unwrap(),
                Some(known),
                "reads go on"
            );
        }
        assert_eq!(
            balance(&cluster, &table, id).unwrap(),
            None,
            "what is not durable is not read"
        );
        // The machine stops: of what was not synced some may be there and some not, and every acknowledged commit is.
        let crashed = open(&disk.crash(seed));
        let table = accounts(&crashed);
        for known in 0..id {
            assert_eq!(
                balance(&crashed, &table, known).unwrap(),
                Some(known),
                "seed {seed}"
            );
        }
        assert!(
            matches!(balance(&crashed, &table, id).unwrap(), None | Some(30..)),
            "all of it or nothing"
        );
        assert_eq!(balance(&crashed, &table, 99).unwrap(), None);
        put(&crashed, &table, &[(100, 1)]).unwrap();
        cluster.close().unwrap_or(());
    }
}

/// The machine stops at any moment of a cluster's making, opening, growing and closing: what was acknowledged is there.
#[test]
fn a_crash_at_any_write_loses_nothing_that_was_acknowledged() {
    let run = |disk: &MemDisk| -> Vec<i64> {
        let mut acknowledged = Vec::new();
        for round in 0..2 {
            let options = OpenOptions {
                segment_bytes: Some(1 << 20),
                ..OpenOptions::at("/cluster")
            };
            let Ok(cluster) = Cluster::open_on(options, Arc::new(disk.clone())) else {
                return acknowledged;
            };
            let now = cluster.now_us();
            let Ok((table, _)) = cluster.run(&never, |engine| {
                engine.create_table("accounts", common::schema(), true, now)
            }) else {
                return acknowledged;
            };
            for n in 0..6 {
                let id = round * 100 + n;
                if put(&cluster, &table, &[(id, id)]).is_ok() {
                    acknowledged.push(id);
                }
                if n == 3 {
                    let _ = cluster.flush_now();
                }
            }
            let _ = cluster.close();
        }
        acknowledged
    };
    let whole = MemDisk::faulty();
    assert_eq!(run(&whole).len(), 12);
    let changes = whole.changes();
    let step = (changes / 60).max(1);
    for at in (0..changes).step_by(step as usize) {
        let disk = MemDisk::faulty();
        disk.stop_after(at);
        let acknowledged = run(&disk);
        let options = OpenOptions {
            segment_bytes: Some(1 << 20),
            ..OpenOptions::at("/cluster")
        };
        let crashed = disk.crash(at);
        let cluster = match Cluster::open_on(options, Arc::new(crashed)) {
            Ok(cluster) => cluster,
            Err(error) if acknowledged.is_empty() => {
                panic!("stopped after {at}: nothing acknowledged, and {error}")
            }
            Err(error) => panic!("stopped after {at}: {error}"),
        };
        let table = accounts(&cluster);
        for id in acknowledged {
            assert_eq!(
                balance(&cluster, &table, id).unwrap(),
                Some(id),
                "stopped after {at}"
            );
        }
        put(&cluster, &table, &[(1000, 1)]).unwrap();
    }
}
