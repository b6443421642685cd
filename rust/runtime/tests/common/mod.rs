//! What the tests of the runtime share: a table of accounts and the ways to write and read it.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod moody;
pub mod places;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aurora_engine::{Commit, Mode, Table, Txn};
use aurora_page::{Column, DataType, KeyPart, Lsn, Schema, Value};
use aurora_runtime::{Cluster, Error, NodeState, OpenOptions};

/// Nobody interrupts a test.
pub fn never() -> bool {
    false
}

/// A directory that is removed when the test ends.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("aurora-runtime-{}-{n}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Small segments, so that files stay small and volumes grow.
pub fn small(dir: &TempDir) -> OpenOptions {
    OpenOptions {
        segment_bytes: Some(4 << 20),
        ..OpenOptions::at(&dir.0)
    }
}

pub fn schema() -> Schema {
    let column = |id: u16, name: &str, data_type, nullable| Column {
        id,
        name: name.into(),
        data_type,
        nullable,
    };
    let columns = vec![
        column(0, "id", DataType::Int64, false),
        column(1, "owner", DataType::Text, true),
        column(2, "balance", DataType::Int64, false),
    ];
    Schema::new(
        1,
        columns,
        vec![KeyPart {
            column: 0,
            descending: false,
        }],
    )
    .unwrap()
}

pub fn accounts(cluster: &Cluster) -> Arc<Table> {
    let now = cluster.now_us();
    let created = cluster
        .run(&never, |engine| {
            engine.create_table("accounts", schema(), true, now)
        })
        .unwrap();
    let table = created.0;
    if let Some(commit) = created.1 {
        cluster.wait_durable(commit.lsn, &never).unwrap();
    }
    table
}

pub fn row(id: i64, balance: i64) -> Vec<Value> {
    vec![
        Value::Int(id),
        Value::Text(format!("owner {id}")),
        Value::Int(balance),
    ]
}

/// Writes rows in one transaction, and waits until it is durable.
pub fn put(cluster: &Cluster, table: &Arc<Table>, rows: &[(i64, i64)]) -> Result<Commit, Error> {
    cluster.check_writable()?;
    let mut txn = cluster.run(&never, |engine| engine.begin(Mode::ReadWrite))?;
    for &(id, balance) in rows {
        cluster.run(&never, |engine| {
            engine.upsert(&mut txn, table, row(id, balance))
        })?;
    }
    let now = cluster.now_us();
    let commit = cluster.run(&never, |engine| engine.commit(&mut txn, now, None))?;
    cluster.wait_durable(commit.lsn, &never)?;
    Ok(commit)
}

pub fn balance(cluster: &Cluster, table: &Arc<Table>, id: i64) -> Result<Option<i64>, Error> {
    let txn = cluster.run(&never, |engine| engine.begin(Mode::ReadOnly { at: None }))?;
    let key = table.key(&[Value::Int(id)])?;
    let found = cluster.run(&never, |engine| {
        engine
            .get(&txn, table, &key)?
            .map(|view| view.values())
            .transpose()
    })?;
    Ok(found.map(|values| match values[2] {
        Value::Int(balance) => balance,
        ref other => panic!("expected an integer, got {other:?}"),
    }))
}

/// A balance as of an LSN.
pub fn balance_at(
    cluster: &Cluster,
    table: &Arc<Table>,
    id: i64,
    at: Lsn,
) -> Result<Option<i64>, Error> {
    let txn = cluster.begin_at(at, &never)?;
    balance_in(cluster, table, &txn, id)
}

/// A balance as a transaction sees it.
pub fn balance_in(
    cluster: &Cluster,
    table: &Arc<Table>,
    txn: &Txn,
    id: i64,
) -> Result<Option<i64>, Error> {
    let key = table.key(&[Value::Int(id)])?;
    let found = cluster.run(&never, |engine| {
        engine
            .get(txn, table, &key)?
            .map(|view| view.values())
            .transpose()
    })?;
    Ok(found.map(|values| match values[2] {
        Value::Int(balance) => balance,
        ref other => panic!("expected an integer, got {other:?}"),
    }))
}

/// The directory of a node, from 0, as a cluster lays them out by default.
pub fn node_dir(dir: &TempDir, node: usize) -> PathBuf {
    dir.0.join(format!("az{}/node{}", node / 2 + 1, node + 1))
}

/// The state of each node, in order.
pub fn states(cluster: &Cluster) -> Vec<NodeState> {
    cluster
        .status()
        .nodes
        .iter()
        .map(|node| node.state)
        .collect()
}

/// What is done in the background is done by then, also on a machine that has much else to do.
const WITHIN: Duration = Duration::from_secs(60);

/// Asks again until it is so, for what happens in the background.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < WITHIN, "not within {WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A table whose rows fill the log.
pub fn bulky(cluster: &Cluster) -> Arc<Table> {
    let column = |id: u16, name: &str, data_type| Column {
        id,
        name: name.into(),
        data_type,
        nullable: false,
    };
    let columns = vec![
        column(0, "id", DataType::Int64),
        column(1, "bytes", DataType::Bytes),
    ];
    let schema = Schema::new(
        1,
        columns,
        vec![KeyPart {
            column: 0,
            descending: false,
        }],
    )
    .unwrap();
    let (table, commit) = cluster
        .run(&never, |engine| {
            engine.create_table("bulky", schema.clone(), true, 1)
        })
        .unwrap();
    commit
        .into_iter()
        .for_each(|commit| cluster.wait_durable(commit.lsn, &never).unwrap());
    table
}

/// Writes 60 KB in one transaction.
pub fn put_bulk(cluster: &Cluster, table: &Arc<Table>, id: i64) -> Result<(), Error> {
    cluster.check_writable()?;
    let mut txn = cluster.run(&never, |engine| engine.begin(Mode::ReadWrite))?;
    // Bytes that do not shrink.
    let mut seed = id as u64;
    let bytes = (0..60_000).map(|_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u8
    });
    let row = vec![Value::Int(id), Value::Bytes(bytes.collect())];
    cluster.run(&never, |engine| engine.upsert(&mut txn, table, row.clone()))?;
    let commit = cluster.run(&never, |engine| engine.commit(&mut txn, 1, None))?;
    cluster.wait_durable(commit.lsn, &never)
}

/// Whether a row of a bulky table is there.
pub fn has_bulk(cluster: &Cluster, table: &Arc<Table>, id: i64) -> bool {
    let txn = cluster
        .run(&never, |engine| engine.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    let key = table.key(&[Value::Int(id)]).unwrap();
    cluster
        .run(&never, |engine| engine.get(&txn, table, &key))
        .unwrap()
        .is_some()
}

/// Removes a directory that the cluster may be writing into: what comes in between the look and the removal is removed too.
pub fn remove_dir(path: impl AsRef<std::path::Path>) {
    for _ in 0..1000 {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            done => return done.unwrap(),
        }
    }
    panic!("{} does not get empty", path.as_ref().display());
}
