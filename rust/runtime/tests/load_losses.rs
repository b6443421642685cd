//! Bulk loads while copies have no room. A record that refers to a blob reaches no copy that lacks the blob.
//!
//! The story: a copy that could not store a blob took the reference to it all the same, and acknowledged it.
//! The blob came when a read asked for it. Until then fewer copies than a write quorum had the rows that a write quorum had
//! acknowledged, and the repair of a lost zone counted that copy as one that has everything (found in review).

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aurora_engine::Table;
use aurora_page::Value;
use aurora_runtime::{BulkLoad, Cluster, NodeState, OpenOptions, OsDisk};
use common::moody::moody;
use common::{TempDir, bulky, eventually, has_bulk, never, node_dir, small};

fn row(id: i64) -> Vec<Value> {
    vec![Value::Int(id), Value::Bytes(vec![id as u8; 3000])]
}

/// How many blobs a node has.
fn blobs(dir: &TempDir, node: usize) -> usize {
    fn below(dir: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let count = |entry: std::fs::DirEntry| match entry.path() {
            path if path.is_dir() => below(&path),
            _ => usize::from(entry.file_name().to_string_lossy().starts_with("blob-")),
        };
        entries.map(count).sum()
    }
    below(&node_dir(dir, node))
}

/// Pushes rows until a blob is stored whose reference is not logged: that comes with the next row.
fn until_a_blob_is_stored(dir: &TempDir, load: &mut BulkLoad) -> i64 {
    let mut rows = 0;
    while blobs(dir, 0) == 0 {
        load.push(&row(rows), &never).unwrap();
        rows += 1;
    }
    rows
}

/// A load under way, of which a blob was stored while a zone had no room for blobs. Now it has.
fn loading(dir: &TempDir, options: OpenOptions) -> (Cluster, Arc<Table>, BulkLoad, i64) {
    let fifth = moody(Arc::new(OsDisk), node_dir(dir, 4).join("blobs"));
    let sixth = moody(fifth.clone(), node_dir(dir, 5).join("blobs"));
    let full = |on: bool| [&fifth, &sixth].map(|disk| disk.full.store(on, Ordering::Release));
    let cluster = Cluster::open_on(options, sixth.clone()).unwrap();
    let table = bulky(&cluster);
    let mut load = cluster.bulk_load(&table, 64 << 20, &never).unwrap();
    full(true);
    let rows = until_a_blob_is_stored(dir, &mut load);
    assert_eq!((blobs(dir, 4), blobs(dir, 5)), (0, 0));
    full(false);
    (cluster, table, load, rows)
}

#[test]
fn a_copy_without_room_takes_no_reference_without_its_blob() {
    let dir = TempDir::new();
    let (cluster, table, load, rows) = loading(&dir, small(&dir));
    load.finish(&never).unwrap();
    eventually("every copy has everything", || {
        let status = cluster.status();
        let whole = |n: &usize| {
            let node = &status.nodes[*n];
            node.state == NodeState::Healthy && node.complete_to == status.points.vdl
        };
        // Whoever says that it has everything has the blobs.
        (4..6)
            .filter(whole)
            .for_each(|node| assert_eq!(blobs(&dir, node), blobs(&dir, 0)));
        (0..6).all(|node| whole(&node))
    });
    assert!(has_bulk(&cluster, &table, rows - 1));
    cluster.close().unwrap();
    // The zone that had no room and one more are all that is left.
    common::remove_dir(dir.0.join("az1"));
    common::remove_dir(node_dir(&dir, 2));
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = bulky(&cluster);
    (0..rows).for_each(|id| assert!(has_bulk(&cluster, &table, id), "row {id}"));
}

/// Only with the copies that had no room is there a write quorum: the blob is brought, and then they take its reference.
#[test]
fn a_reference_waits_for_its_blob_where_a_quorum_needs_the_copy() {
    let dir = TempDir::new();
    let options = OpenOptions {
        rebuild_after: Duration::from_secs(3600),
        ..small(&dir)
    };
    let (cluster, _, load, rows) = loading(&dir, options);
    common::remove_dir(dir.0.join("az1"));
    load.finish(&never).unwrap();
    let stored: Vec<usize> = (2..6).map(|node| blobs(&dir, node)).collect();
    assert!(
        stored[0] > 0 && stored.iter().all(|blobs| *blobs == stored[0]),
        "a write quorum has acknowledged them: {stored:?}"
    );
    drop(cluster);
    common::remove_dir(node_dir(&dir, 2));
    let cluster = Cluster::open(small(&dir)).unwrap();
    let table = bulky(&cluster);
    (0..rows).for_each(|id| assert!(has_bulk(&cluster, &table, id), "row {id}"));
}
