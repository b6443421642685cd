//! Files of nodes damaged, before open and while the cluster runs: reads come from other copies, damage is found and mended.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_engine::Table;
use aurora_runtime::{Cluster, NodeState, OpenOptions};
use common::{TempDir, accounts, balance, eventually, node_dir, put, small, states};

const ROWS: i64 = 300;

/// A cluster with layers on disk and something in the log only.
fn filled(dir: &TempDir) -> (Cluster, Arc<Table>) {
    let cluster = Cluster::open(small(dir)).unwrap();
    let table = accounts(&cluster);
    for part in 0..3 {
        put(
            &cluster,
            &table,
            &(0..ROWS).map(|id| (id, id + part)).collect::<Vec<_>>(),
        )
        .unwrap();
        cluster.flush_now().unwrap();
    }
    put(&cluster, &table, &[(ROWS, 7)]).unwrap();
    (cluster, table)
}

fn check(cluster: &Cluster, table: &Arc<Table>, about: &str) {
    cluster.engine().evict_all();
    for id in (0..ROWS).step_by(13) {
        assert_eq!(
            balance(cluster, table, id).unwrap(),
            Some(id + 2),
            "{about}: row {id}"
        );
    }
    assert_eq!(balance(cluster, table, ROWS).unwrap(), Some(7), "{about}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.retain(|path| path.is_file());
    found.sort();
    found
}

/// Inverts a bit of every `every`-th byte.
fn damage(path: &Path, every: usize) {
    let mut bytes = fs::read(path).unwrap();
    for at in (every / 2..bytes.len()).step_by(every) {
        bytes[at] ^= 0x20;
    }
    // In place: the file stays the one that a running cluster has open.
    use std::os::unix::fs::FileExt;
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(&bytes, 0)
        .unwrap();
}

fn reopen(dir: &TempDir) -> (Cluster, Arc<Table>) {
    let cluster = Cluster::open(small(dir)).unwrap();
    let table = accounts(&cluster);
    (cluster, table)
}

fn all_healthy(cluster: &Cluster, about: &str) {
    cluster
        .repair_now()
        .unwrap_or_else(|error| panic!("{about}: {error}"));
    assert_eq!(
        states(cluster),
        [NodeState::Healthy; 6],
        "{about}: {:?}",
        cluster.status().background.last_error
    );
}

/// The other copies that a mended one was mended from go: it stands alone with two more.
fn mended_stand_alone(dir: &TempDir, mended: &[usize], about: &str) {
    let gone: Vec<usize> = (0..6)
        .filter(|node| !mended.contains(node))
        .take(3)
        .collect();
    gone.iter()
        .for_each(|&node| common::remove_dir(node_dir(dir, node)));
    let (cluster, table) = reopen(dir);
    check(&cluster, &table, about);
    all_healthy(&cluster, about);
}

#[test]
fn each_kind_of_file_damaged_before_open() {
    for kind in ["layers", "identity", "state", "manifest", "everything"] {
        let dir = TempDir::new();
        drop(filled(&dir));
        let damaged = [1, 4];
        for node in damaged {
            let home = node_dir(&dir, node);
            let targets: Vec<PathBuf> = match kind {
                "layers" => files(&home.join("layers")),
                "everything" => files(&home.join("layers"))
                    .into_iter()
                    .chain(files(&home))
                    .collect(),
                name => files(&home)
                    .into_iter()
                    .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(name))
                    .collect(),
            };
            assert!(!targets.is_empty(), "{kind}");
            targets.iter().for_each(|path| damage(path, 40));
        }
        let about = format!("{kind} of nodes {damaged:?}");
        let (cluster, table) = reopen(&dir);
        check(&cluster, &table, &about);
        put(&cluster, &table, &[(5000, 1)]).unwrap();
        all_healthy(&cluster, &about);
        check(&cluster, &table, &about);
        cluster.close().unwrap();
        mended_stand_alone(&dir, &damaged, &about);
    }
}

/// A byte of a data block: the layer is there, a part of it is not. Each node has another part damaged.
#[test]
fn a_flipped_byte_in_a_layer_of_every_node_is_mended_while_running() {
    let dir = TempDir::new();
    let (cluster, table) = filled(&dir);
    for node in 0..6 {
        let layers = files(&node_dir(&dir, node).join("layers"));
        // Two nodes have damage in the same layer, so that not every peer can help.
        let path = &layers[node / 2 % layers.len()];
        let mut bytes = fs::read(path).unwrap();
        bytes[64 + node] ^= 1;
        use std::os::unix::fs::FileExt;
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .write_all_at(&bytes, 0)
            .unwrap();
    }
    check(&cluster, &table, "while damaged");
    // Scrub finds what no read came upon.
    let total: u64 = cluster.status().nodes.iter().map(|node| node.bytes).sum();
    eventually("everything was read twice", || {
        cluster.status().background.scrubbed_bytes > 2 * total
    });
    all_healthy(&cluster, "once mended");
    check(&cluster, &table, "once mended");
    cluster.close().unwrap();
    mended_stand_alone(&dir, &[0, 2, 4], "three of six that were mended");
}

#[test]
fn files_damaged_while_running() {
    for kind in ["layers", "identity", "state", "manifest"] {
        let dir = TempDir::new();
        let (cluster, table) = filled(&dir);
        let home = node_dir(&dir, 3);
        let targets: Vec<PathBuf> = match kind {
            "layers" => files(&home.join("layers")),
            name => files(&home)
                .into_iter()
                .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(name))
                .collect(),
        };
        targets.iter().for_each(|path| damage(path, 16));
        check(&cluster, &table, kind);
        put(&cluster, &table, &[(6000, 1)]).unwrap();
        cluster.flush_now().unwrap();
        cluster
            .repair_now()
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
        cluster.close().unwrap();
        let (cluster, table) = reopen(&dir);
        check(&cluster, &table, kind);
        assert_eq!(balance(&cluster, &table, 6000).unwrap(), Some(1));
        all_healthy(&cluster, kind);
        cluster.close().unwrap();
        mended_stand_alone(&dir, &[3], kind);
    }
}

/// The hot log holds each entry once per node: damage in the blocks of five of them is mended from the sixth.
#[test]
fn blocks_of_the_log_are_mended_from_those_of_other_nodes() {
    let dir = TempDir::new();
    let (cluster, table) = filled(&dir);
    for id in 0..40 {
        put(&cluster, &table, &[(7000 + id, id)]).unwrap();
    }
    cluster.close().unwrap();
    for path in files(&dir.0.join("log")) {
        let mut bytes = fs::read(&path).unwrap();
        for (number, block) in bytes.chunks_mut(4096).enumerate() {
            // Another node keeps its block in every stripe.
            if number % 6 != (number / 6) % 6 {
                block.iter_mut().step_by(100).for_each(|byte| *byte ^= 0xff);
            }
        }
        fs::write(path, bytes).unwrap();
    }
    let (cluster, table) = reopen(&dir);
    check(&cluster, &table, "five blocks of six");
    (0..40).for_each(|id| assert_eq!(balance(&cluster, &table, 7000 + id).unwrap(), Some(id)));
}

/// In all six, in the middle: what was acknowledged is gone, and the cluster does not pretend otherwise.
#[test]
fn a_stripe_of_the_log_damaged_in_every_block_is_an_error() {
    let dir = TempDir::new();
    let (cluster, table) = filled(&dir);
    for part in 0..10 {
        put(
            &cluster,
            &table,
            &(0..ROWS).map(|id| (id, id + part)).collect::<Vec<_>>(),
        )
        .unwrap();
    }
    cluster.close().unwrap();
    let log = &files(&dir.0.join("log"))[0];
    let mut bytes = fs::read(log).unwrap();
    let stripe = 6 * 4096;
    let used = bytes
        .chunks(stripe)
        .rposition(|stripe| stripe.iter().any(|byte| *byte != 0))
        .unwrap();
    bytes[(used - 6) * stripe..(used - 5) * stripe].fill(0x5a);
    fs::write(log, bytes).unwrap();
    match Cluster::open(small(&dir)) {
        Err(aurora_runtime::Error::Corrupt { detail }) => {
            assert!(detail.contains("log"), "{detail}")
        }
        Err(other) => panic!("expected Corrupt, got {other}"),
        Ok(_) => panic!("a log without its middle was opened"),
    }
}

/// The status says so as soon as a directory is gone, even when nothing is committed.
#[test]
fn a_directory_that_goes_is_seen_without_a_commit() {
    let dir = TempDir::new();
    let (cluster, table) = filled(&dir);
    common::remove_dir(node_dir(&dir, 2));
    assert_eq!(states(&cluster)[2], NodeState::Lost);
    check(&cluster, &table, "one gone");
    common::remove_dir(node_dir(&dir, 0));
    common::remove_dir(node_dir(&dir, 1));
    check(&cluster, &table, "three gone");
    eventually("the writer knows", || cluster.check_writable().is_err());
    cluster.close().unwrap();
    let (cluster, table) = reopen(&dir);
    check(&cluster, &table, "rebuilt");
    all_healthy(&cluster, "rebuilt");
    // On memory disks there is nothing that could go.
    assert_eq!(
        states(&Cluster::open(OpenOptions::memory()).unwrap()),
        [NodeState::Healthy; 6]
    );
}
