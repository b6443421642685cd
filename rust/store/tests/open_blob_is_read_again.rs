//! The head of a blob was damaged on disk while its node ran. The node had it open, and with it the head and the table in memory: every
//! scrub passed over the damage, and the node could not read the blob's pages after its next start
//! (found by the simulator, `--kind load --seeds 62`).

use std::path::Path;
use std::sync::Arc;

use aurora_proto::{ClusterId, NodeId};
use aurora_redo::BlobId;
use aurora_store::{MemDisk, NodeConfig, NodeIdentity, NodeStore};
use bytes::Bytes;

const BLOB: BlobId = BlobId(3);

fn damaged(node: &NodeStore) -> Vec<BlobId> {
    let report = node.scrub(u64::MAX).expect("scrubbed");
    assert!(report.finished);
    report.blobs
}

#[test]
fn a_scrub_sees_a_damaged_head_of_an_open_blob() {
    let disk = MemDisk::new();
    let identity = NodeIdentity {
        cluster: ClusterId(7),
        node: NodeId(0),
        incarnation: 1,
    };
    let config = NodeConfig::new(4096, 64);
    let node = NodeStore::create(Arc::new(disk.clone()), Path::new("node"), identity, config);
    let node = node.expect("a node");
    let pages = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    node.put_blob(BLOB, 1, &pages).expect("stored");
    assert_eq!(node.blob_pages(BLOB).expect("open from here on"), pages);
    let path = disk.files(Path::new("node/blobs"))[0].clone();
    for at in [0, 20, 45, 60] {
        disk.flip(&path, at, 1).expect("flipped");
        assert_eq!(damaged(&node), [BLOB], "byte {at} of the head");
        // What a peer gives takes its place.
        node.put_blob(BLOB, 1, &pages).expect("stored anew");
        assert!(damaged(&node).is_empty());
        assert_eq!(node.blob_pages(BLOB).expect("whole"), pages);
    }
}
