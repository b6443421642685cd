//! A volume that was idle after its last commits (found in review): its copies hear of the VDL with the next batch, so what they
//! wrote down at a flush lagged behind, and opening looked through layers for records that are long settled [13].

mod common;

use std::path::Path;
use std::sync::Arc;

use aurora_proto::NodeId;
use aurora_runtime::{Cluster, OpenOptions};
use aurora_store::{Disk, MemDisk, NodeConfig, NodeIdentity, NodeStore};
use common::{accounts, put};

#[test]
fn a_flush_writes_down_that_everything_is_durable() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let options = OpenOptions {
        segment_bytes: Some(4 << 20),
        page_bytes: Some(16 << 10),
        ..OpenOptions::at("/c")
    };
    let cluster = Cluster::open_on(options, disk.clone()).unwrap();
    put(&cluster, &accounts(&cluster), &[(1, 1)]).unwrap();
    cluster.flush_now().unwrap();
    let vdl = cluster.vdl();
    cluster.close().unwrap();
    let dir = Path::new("/c/az1/node1");
    let identity = NodeIdentity::read(&*disk, dir).unwrap();
    let config = NodeConfig::new(16 << 10, (4 << 20) / (16 << 10));
    let node = NodeStore::open(disk, dir, identity.cluster, NodeId(0), config).unwrap();
    let states = node.states();
    assert_eq!(
        states
            .iter()
            .map(|state| (state.scl, state.vdl_hint))
            .collect::<Vec<_>>(),
        [(vdl, vdl)]
    );
    assert!(
        node.links_of_all(&states)
            .unwrap()
            .iter()
            .all(Vec::is_empty)
    );
    assert_eq!(node.indexed_layers(), 0);
}
