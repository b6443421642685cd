//! A takeover that ended a stranger (found in review).
//!
//! The lock file names the process that owned the cluster last. Readers share the lock and write no name. A takeover while a
//! reader had the directory sent SIGKILL to whoever had the old owner's number by then.

mod common;

use std::process::{Command, Stdio};

use aurora_runtime::{Cluster, Error, OpenOptions};
use common::{TempDir, accounts, put, small};

#[test]
fn a_takeover_ends_nobody_who_does_not_have_the_directory() {
    let dir = TempDir::new();
    let cluster = Cluster::open(small(&dir)).unwrap();
    put(&cluster, &accounts(&cluster), &[(1, 1)]).unwrap();
    cluster.close().unwrap();
    let mut stranger = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    std::fs::write(dir.0.join("owner.lock"), format!("{}\n", stranger.id())).unwrap();
    let reader = Cluster::open(OpenOptions {
        read_only: true,
        ..small(&dir)
    })
    .unwrap();
    let refused = Cluster::open(OpenOptions {
        takeover: true,
        ..small(&dir)
    });
    let alive = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(alive, "the stranger was ended");
    assert!(
        matches!(refused, Err(Error::AlreadyOpen { .. })),
        "{:?}",
        refused.map(|_| ())
    );
    reader.close().unwrap();
}
