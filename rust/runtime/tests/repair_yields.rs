//! The background stood still while a large copy was filled: nothing else was done, and closing waited for the end (found in review).

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aurora_runtime::{Cluster, NodeState, OpenOptions};
use aurora_store::{Disk, MemDisk};
use common::{bulky, has_bulk, put_bulk, states};

const ROWS: i64 = 400;

#[test]
fn a_large_repair_keeps_to_its_budget_and_ends_when_it_is_asked_to() {
    let disk = MemDisk::faulty();
    let open = || {
        let segment_bytes = Some(64 << 20);
        let options = OpenOptions {
            segment_bytes,
            background_bytes_per_s: 4 << 20,
            ..OpenOptions::at("/c")
        };
        Cluster::open_on(options, Arc::new(disk.clone()) as Arc<dyn Disk>).unwrap()
    };
    let cluster = open();
    let table = bulky(&cluster);
    (0..ROWS).for_each(|id| put_bulk(&cluster, &table, id).unwrap());
    cluster.flush_now().unwrap();
    cluster.close().unwrap();
    disk.remove_dir_all(Path::new("/c/az1/node1")).unwrap();
    let cluster = open();
    let table = bulky(&cluster);
    // A part has come; the rest is for later, and everything else goes on.
    std::thread::sleep(Duration::from_millis(500));
    assert_ne!(states(&cluster)[0], NodeState::Healthy);
    let begun = Instant::now();
    put_bulk(&cluster, &table, ROWS).unwrap();
    cluster.flush_now().unwrap();
    cluster.close().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    // It begins again, and who does not want to wait says so.
    let cluster = open();
    cluster.repair_now().unwrap();
    assert_eq!(states(&cluster), [NodeState::Healthy; 6]);
    let table = bulky(&cluster);
    (0..=ROWS)
        .step_by(17)
        .for_each(|id| assert!(has_bulk(&cluster, &table, id)));
}
