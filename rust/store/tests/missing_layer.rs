//! The story: with the files below `layers/` removed on five of six nodes, identity and state being intact, the cluster opened,
//! called every node healthy, and rows were missing without an error. A node must know which layers it should have.

mod common;

use std::path::Path;
use std::sync::Arc;

use aurora_proto::NodeId;
use aurora_store::{Disk, MemDisk, NodeStore, StoreError};
use common::*;

#[test]
fn a_node_without_one_of_its_layers_does_not_open() {
    let disk = MemDisk::new();
    let (node, mut writer, mut rng) = (new_node(&disk, config()), Writer::new(), Rng(3));
    for i in 1..=400_u64 {
        let record = writer.some(rng.below(8), &mut rng);
        node.ingest(batch(vec![record]));
        if i % 50 == 0 {
            node.flush(&[state(1, i)]).expect("flushed");
        }
        if i == 200 {
            while node.compact(1 << 20, &roots(200, 0)).expect("compacted") > 0 {}
        }
    }
    let layers = node.layers();
    assert!(layers.len() > 2);
    drop(node);
    let aside = Path::new("aside");
    for layer in layers {
        drop(open_node(&disk, config()));
        let path = node_dir()
            .join("layers")
            .join(format!("layer-{:016}", layer.layer));
        disk.rename(&path, aside).expect("moved away");
        match NodeStore::open(
            Arc::new(disk.clone()),
            &node_dir(),
            CLUSTER,
            NodeId(0),
            config(),
        ) {
            Err(StoreError::Corrupt { path: named, .. }) => assert_eq!(named, path),
            other => panic!("expected Corrupt, got {:?}", other.map(|_| ())),
        }
        disk.rename(aside, &path).expect("moved back");
    }
    disk.remove_file(Path::new(&node_dir().join("layers.list")))
        .expect("removed");
    let opened = NodeStore::open(Arc::new(disk), &node_dir(), CLUSTER, NodeId(0), config());
    assert!(matches!(opened, Err(StoreError::Corrupt { .. })));
}
