//! Acknowledged commits that were gone after a crash (found in review).
//!
//! A protection group that is added after the last flush is in no state file, and the fence and the installation of the
//! present epoch have been trimmed off the log. Its copies were restored as if nothing had ever been fenced or cut, so
//! the next fence took the end of the first branch for the end of what they have, and forgot the links that lead on from
//! there: recovery ended the volume before its last commits.

mod common;

use std::sync::Arc;

use aurora_runtime::{Cluster, OpenOptions};
use aurora_store::{Disk, MemDisk};
use common::{accounts, balance, put};

#[test]
fn a_group_that_came_after_the_last_flush_is_there_after_a_crash() {
    let disk = MemDisk::faulty();
    let options = || OpenOptions {
        segment_bytes: Some(4 << 20),
        ..OpenOptions::at("/c")
    };
    let open =
        |disk: &MemDisk| Cluster::open_on(options(), Arc::new(disk.clone()) as Arc<dyn Disk>);
    let cluster = open(&disk).unwrap();
    put(&cluster, &accounts(&cluster), &[(0, 0)]).unwrap();
    cluster.close().unwrap();
    // The second life has a History of two intervals.
    let cluster = open(&disk).unwrap();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    cluster.flush_now().unwrap();
    let before = cluster.status().segments;
    let mut last = 2;
    while cluster.status().segments == before {
        let rows: Vec<_> = (last..last + 2000).map(|id| (id, id)).collect();
        put(&cluster, &table, &rows).unwrap();
        last += 2000;
    }
    for id in last..last + 5000 {
        put(&cluster, &table, &[(id, id)]).unwrap();
    }
    let crashed = disk.crash(7);
    let cluster = open(&crashed).unwrap();
    let table = accounts(&cluster);
    for id in (0..last + 5000).step_by(97) {
        assert_eq!(
            balance(&cluster, &table, id).unwrap(),
            Some(id),
            "id {id} of {}",
            last + 5000
        );
    }
}
