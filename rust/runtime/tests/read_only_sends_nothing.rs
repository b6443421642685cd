//! A cluster that was opened read-only and took a commit of somebody who had not asked whether it may be written (found in review):
//! its number was one that the owner had given out, so the commit was durable at once; closing sent it to the copies.

mod common;

use std::sync::Arc;

use aurora_engine::Mode;
use aurora_runtime::{Cluster, Error, OpenOptions};
use aurora_store::{Disk, MemDisk};
use common::{accounts, balance, never, put, row};

#[test]
fn what_is_numbered_on_a_read_only_cluster_goes_nowhere() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let open = |read_only| {
        let options = OpenOptions {
            segment_bytes: Some(4 << 20),
            read_only,
            ..OpenOptions::at("/c")
        };
        Cluster::open_on(options, disk.clone()).unwrap()
    };
    let cluster = open(false);
    put(&cluster, &accounts(&cluster), &[(1, 1)]).unwrap();
    cluster.close().unwrap();
    let cluster = open(true);
    assert!(cluster.read_only().is_some());
    let table = cluster
        .run(&never, |engine| engine.table("accounts", cluster.vdl()))
        .unwrap()
        .unwrap();
    assert_eq!(balance(&cluster, &table, 1).unwrap(), Some(1));
    let before = cluster.vdl();
    let mut txn = cluster
        .run(&never, |engine| engine.begin(Mode::ReadWrite))
        .unwrap();
    cluster
        .run(&never, |engine| engine.upsert(&mut txn, &table, row(2, 2)))
        .unwrap();
    let committed = cluster.run(&never, |engine| engine.commit(&mut txn, 7, None));
    assert!(
        matches!(committed, Err(Error::ReadOnly { .. })),
        "{committed:?}"
    );
    assert_eq!(balance(&cluster, &table, 2).unwrap(), None);
    cluster.close().unwrap();
    assert_eq!(cluster.vdl(), before, "nothing has become durable");
}
