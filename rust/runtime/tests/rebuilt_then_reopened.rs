//! Copies that were rebuilt, said so, and knew nothing of it after the next opening (found in review).
//!
//! A copy that is rebuilt from a peer's pages is complete up to an LSN of which its log says nothing: how far it is
//! complete was only known in memory until the next flush. So after a close its acknowledgement did not hold: with the
//! copies gone that it had been rebuilt from, the cluster had everything and did not know it.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aurora_runtime::{Cluster, NodeState, OpenOptions};
use aurora_store::{Disk, MemDisk};
use common::{accounts, balance, put};

#[test]
fn what_was_rebuilt_stands_alone_after_the_next_opening() {
    let disk = MemDisk::faulty();
    let open = || {
        let window = Some(Duration::from_millis(20));
        let options = OpenOptions {
            segment_bytes: Some(4 << 20),
            window,
            ..OpenOptions::at("/c")
        };
        Cluster::open_on(options, Arc::new(disk.clone()) as Arc<dyn Disk>).unwrap()
    };
    let remove = |nodes: [usize; 3]| {
        for n in nodes {
            disk.remove_dir_all(Path::new(&format!("/c/az{}/node{}", n / 2 + 1, n + 1)))
                .unwrap();
        }
    };
    let cluster = open();
    let table = accounts(&cluster);
    for round in 0..20 {
        put(
            &cluster,
            &table,
            &(0..200).map(|id| (id, round)).collect::<Vec<_>>(),
        )
        .unwrap();
    }
    // The first commits go out of the log, and out of the layers too: images take their place.
    cluster.flush_now().unwrap();
    let bytes = |cluster: &Cluster| {
        cluster
            .status()
            .nodes
            .iter()
            .map(|node| node.bytes)
            .max()
            .unwrap()
    };
    let (flushed, begun) = (bytes(&cluster), Instant::now());
    let mut id = 200;
    while (cluster.floor().is_none() || bytes(&cluster) * 2 > flushed)
        && begun.elapsed() < Duration::from_secs(20)
    {
        put(&cluster, &table, &[(id, id)]).unwrap();
        id += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    cluster.close().unwrap();
    remove([0, 1, 2]);
    let cluster = open();
    cluster.repair_now().unwrap();
    let status = cluster.status();
    assert!(
        status
            .nodes
            .iter()
            .all(|node| node.state == NodeState::Healthy),
        "{:?}",
        status.nodes
    );
    cluster.close().unwrap();
    remove([3, 4, 5]);
    let cluster = open();
    let table = accounts(&cluster);
    for key in 0..id {
        let expected = if key < 200 { 19 } else { key };
        assert_eq!(
            balance(&cluster, &table, key).unwrap(),
            Some(expected),
            "id {key}"
        );
    }
}
