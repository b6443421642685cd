//! Repairs, crashes and disks that fail at the same time. Each test is a mistake that reading or the soak found where these meet.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use aurora_runtime::{Cluster, Fault, NodeState, OpenOptions, OsDisk};
use aurora_store::{Disk, MemDisk};
use common::moody::moody;
use common::places::{ShmDir, options};
use common::{
    TempDir, accounts, balance, bulky, eventually, node_dir, put, put_bulk, small, states,
};

const HEALTHY: [NodeState; 6] = [NodeState::Healthy; 6];

fn happened(cluster: &Cluster, what: &str, who: &str) -> usize {
    let events = cluster.events();
    let of = events.iter().filter(|e| e.what == what && e.who == who);
    of.count()
}

fn caught_up(cluster: &Cluster) {
    eventually("every copy has everything", || {
        let status = cluster.status();
        let whole = |node: &aurora_runtime::NodeStatus| {
            node.state == NodeState::Healthy && node.complete_to == status.points.vdl
        };
        status.nodes.iter().all(whole)
    });
}

/// A repair that an opening had begun was given up when an injected fault kept its node away: the node stayed behind for ever.
#[test]
fn a_repair_goes_on_after_a_fault_that_kept_its_node_away() {
    let disk = MemDisk::faulty();
    let open = || {
        let options = OpenOptions {
            segment_bytes: Some(64 << 20),
            background_bytes_per_s: 4 << 20,
            ..OpenOptions::at("/c")
        };
        Cluster::open_on(options, Arc::new(disk.clone()) as Arc<dyn Disk>).unwrap()
    };
    let cluster = open();
    let table = bulky(&cluster);
    (0..400).for_each(|id| put_bulk(&cluster, &table, id).unwrap());
    cluster.flush_now().unwrap();
    cluster.close().unwrap();
    disk.remove_dir_all(Path::new("/c/az2/node3")).unwrap();
    let cluster = open();
    assert_eq!(states(&cluster)[2], NodeState::Repairing);
    let node = "az2/node3".to_owned();
    let cut = cluster.start_fault(Fault::Partition { node }).unwrap();
    eventually("the repair has met the fault", || {
        let error = cluster.status().background.last_error;
        error.is_some_and(|error| error.contains("injected fault"))
    });
    assert_ne!(states(&cluster)[2], NodeState::Healthy);
    cluster.end_fault(cut.id);
    cluster.repair_now().unwrap();
    eventually("it goes on", || states(&cluster) == HEALTHY);
    caught_up(&cluster);
}

/// A fault is one of the place: whoever is made anew in it is cut off too, and is filled when that ends.
#[test]
fn a_fault_holds_for_the_node_that_is_made_anew_in_its_place() {
    let dir = TempDir::new();
    let quick = OpenOptions {
        rebuild_after: Duration::ZERO,
        ..small(&dir)
    };
    let cluster = Cluster::open(quick).unwrap();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    caught_up(&cluster);
    let node = "az3/node6".to_owned();
    let cut = cluster.start_fault(Fault::Partition { node }).unwrap();
    common::remove_dir(node_dir(&dir, 5));
    eventually("it is made anew", || {
        node_dir(&dir, 5).join("layers").is_dir()
            && happened(&cluster, "node lost", "az3/node6") == 1
    });
    put(&cluster, &table, &[(1, 2)]).unwrap();
    assert_eq!(states(&cluster)[5], NodeState::Unreachable);
    assert_eq!(happened(&cluster, "node repaired", "az3/node6"), 0);
    cluster.end_fault(cut.id);
    eventually("it is filled", || {
        happened(&cluster, "node repaired", "az3/node6") == 1
    });
    caught_up(&cluster);
}

/// The files of a log that are ready.
fn log_files(log: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(log).unwrap().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("log-"))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// What is in a log.
fn bytes_of(log: &Path) -> Vec<u8> {
    let read = |file: &PathBuf| std::fs::read(file).unwrap();
    log_files(log).iter().flat_map(read).collect()
}

/// Ends stalls when it goes.
struct Resume<'a>(&'a [Arc<AtomicBool>]);

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        self.0
            .iter()
            .for_each(|s| s.store(false, Ordering::Release));
    }
}

/// A batch was on its way, to copies of which some were lost and made anew before it was durable: the new ones were never offered
/// it, gossip brings only what is durable, and the commit waited for ever.
#[test]
fn a_batch_on_its_way_reaches_the_nodes_that_were_made_anew_meanwhile() {
    let (dir, shm) = (TempDir::new(), ShmDir::new());
    // Their logs stand still; the manifest, which lies beside those, can be written.
    let log = |node: &str| shm.0.join(node).join("log");
    let logs = ["az2/node3", "az2/node4", "az3/node5"].map(log);
    let [third, fourth, fifth] = logs.clone();
    let third = moody(Arc::new(OsDisk), third);
    let fourth = moody(third.clone(), fourth);
    let fifth = moody(fourth.clone(), fifth);
    let quick = OpenOptions {
        rebuild_after: Duration::ZERO,
        ..options(&dir.0, &shm.0)
    };
    let cluster = Cluster::open_on(quick, fifth.clone()).unwrap();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    caught_up(&cluster);
    eventually("spare files are made: that would stand still too", || {
        logs.iter().all(|log| log_files(log).len() >= 2)
    });
    let stalled = [&third, &fourth, &fifth].map(|disk| disk.stalled.clone());
    stalled
        .iter()
        .for_each(|s| s.store(true, Ordering::Release));
    let before = bytes_of(&dir.0.join("log"));
    std::thread::scope(|scope| {
        // What fails in here must not wait for the commit for ever.
        let _end = Resume(&stalled);
        let commit = scope.spawn(|| put(&cluster, &table, &[(1, 2)]));
        eventually("zone 1 has it", || bytes_of(&dir.0.join("log")) != before);
        assert!(!commit.is_finished(), "three copies are no quorum");
        common::remove_dir(dir.0.join("az1"));
        eventually("zone 1 is made anew", || {
            happened(&cluster, "node lost", "az1/node1") == 1
                && happened(&cluster, "node lost", "az1/node2") == 1
                && states(&cluster)[..2].iter().all(|s| *s != NodeState::Lost)
        });
        // Now two old copies have it, or get it. The others of the quorum are new.
        fifth.stalled.store(false, Ordering::Release);
        eventually("the commit is durable", || commit.is_finished());
        assert!(third.stalled.load(Ordering::Acquire));
        commit.join().unwrap().unwrap();
    });
    caught_up(&cluster);
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(2));
}

/// Nodes whose log has failed, a log that they share with others, were set aside again and again, although the log could not say
/// that another node begins: what they had was moved out of the way for nothing.
#[test]
fn nothing_is_set_aside_while_the_log_cannot_say_that_a_node_begins() {
    let (dir, shm) = (TempDir::new(), ShmDir::new());
    let disk = moody(Arc::new(OsDisk), dir.0.join("log"));
    let open = || {
        let quick = OpenOptions {
            rebuild_after: Duration::ZERO,
            ..options(&dir.0, &shm.0)
        };
        Cluster::open_on(quick, disk.clone()).unwrap()
    };
    let cluster = open();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    disk.broken.store(true, Ordering::Release);
    put(&cluster, &table, &[(1, 2)]).unwrap();
    eventually("the attempts are on record", || {
        happened(&cluster, "node repair failed", "az1/node1") == 1
    });
    let events = cluster.events();
    let failed = events.iter().find(|e| e.what == "node repair failed");
    let why = failed.and_then(|event| event.detail.clone()).unwrap();
    assert!(why.contains("the log that it shares with others"), "{why}");
    assert!(!dir.0.join("az1/node1.damaged-1").exists());
    assert!(dir.0.join("az1/node1/layers").is_dir());
    put(&cluster, &table, &[(1, 3)]).unwrap();
    cluster.close().unwrap();
    disk.broken.store(false, Ordering::Release);
    let cluster = open();
    cluster.repair_now().unwrap();
    caught_up(&cluster);
    assert_eq!(balance(&cluster, &accounts(&cluster), 1).unwrap(), Some(3));
}

/// Two disks, of which what lies below some nodes' directories has no room while it is told to.
fn without_room(dir: &TempDir, nodes: &[usize]) -> (Arc<dyn Disk>, Vec<Arc<AtomicBool>>) {
    let mut disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let mut full = Vec::new();
    for node in nodes {
        let one = moody(disk, node_dir(dir, *node));
        full.push(one.full.clone());
        disk = one;
    }
    (disk, full)
}

/// A node was lost for good when the writer crashed while its disk had no room for the states of its copies.
#[test]
fn a_full_disk_at_a_crash_of_the_writer_loses_no_node() {
    let dir = TempDir::new();
    let (disk, full) = without_room(&dir, &[4, 5]);
    let options = OpenOptions {
        detection: Duration::from_millis(10),
        ..small(&dir)
    };
    let cluster = Cluster::open_on(options, disk).unwrap();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    caught_up(&cluster);
    full.iter()
        .for_each(|full| full.store(true, Ordering::Release));
    cluster.crash_writer().unwrap();
    eventually("there is a writer", || {
        put(&cluster, &table, &[(1, 2)]).is_ok()
    });
    full.iter()
        .for_each(|full| full.store(false, Ordering::Release));
    caught_up(&cluster);
    assert_eq!(happened(&cluster, "node lost", "az3/node5"), 0);
    assert_eq!(happened(&cluster, "node lost", "az3/node6"), 0);
}

/// The soak lost an acknowledged commit: after a crash of the writer with commits in flight, copies whose states could not be written
/// said that they were complete up to the crash. The next record linked to that LSN, which no record of the group has; so the next
/// opening found none of what these copies had acknowledged since.
#[test]
fn what_is_acknowledged_after_a_crash_is_found_where_states_could_not_be_written() {
    for round in 0..6 {
        let dir = TempDir::new();
        let (disk, full) = without_room(&dir, &[2, 3, 4]);
        let options = || OpenOptions {
            detection: Duration::from_millis(10),
            ..small(&dir)
        };
        let cluster = Cluster::open_on(options(), disk).unwrap();
        let table = accounts(&cluster);
        put(&cluster, &table, &[(0, 0)]).unwrap();
        full.iter()
            .for_each(|full| full.store(true, Ordering::Release));
        // Commits are in flight when the writer crashes.
        let (stop, told) = (AtomicBool::new(false), AtomicI64::new(0));
        std::thread::scope(|scope| {
            for writer in 1..=3 {
                let (cluster, table, stop, told) = (&cluster, &table, &stop, &told);
                scope.spawn(move || {
                    while !stop.load(Ordering::Acquire) {
                        let n = told.load(Ordering::Acquire);
                        if put(cluster, table, &[(writer, n)]).is_ok() {
                            told.fetch_add(1, Ordering::AcqRel);
                        }
                    }
                });
            }
            eventually("they are at work", || told.load(Ordering::Acquire) > 20);
            cluster.crash_writer().unwrap();
            let crashed = told.load(Ordering::Acquire);
            eventually("commits go on", || {
                told.load(Ordering::Acquire) > crashed + 10
            });
            stop.store(true, Ordering::Release);
        });
        put(&cluster, &table, &[(9, round)]).unwrap();
        assert!(full.iter().all(|full| full.load(Ordering::Acquire)));
        drop(cluster);
        // The three that could not write their states are all that is left.
        [0, 1, 5]
            .iter()
            .for_each(|node| common::remove_dir(node_dir(&dir, *node)));
        let cluster = Cluster::open(options()).unwrap();
        let table = accounts(&cluster);
        assert_eq!(
            balance(&cluster, &table, 9).unwrap(),
            Some(round),
            "round {round}"
        );
    }
}
