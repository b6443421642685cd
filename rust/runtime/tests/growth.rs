//! A volume of small segments grows through hundreds of them while several threads write.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aurora_engine::{Mode, Stop, Table};
use aurora_page::{Column, DataType, KeyPart, PageId, PageKind, Schema, Value};
use aurora_proto::Volume;
use aurora_runtime::{Cluster, OpenOptions};
use aurora_store::MemDisk;
use common::{TempDir, never};

/// Columns that take a leaf's space without taking the log's: a decimal that is null is a bit in a record and 16 bytes in a page.
const WIDE: usize = 250;
const THREADS: i64 = 4;

fn wide_schema() -> Schema {
    let mut columns = vec![Column {
        id: 0,
        name: "id".into(),
        data_type: DataType::Int64,
        nullable: false,
    }];
    columns.extend((1..=WIDE).map(|id| Column {
        id: id as u16,
        name: format!("c{id}"),
        data_type: DataType::Decimal {
            precision: 38,
            scale: 0,
        },
        nullable: true,
    }));
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

fn wide(cluster: &Cluster) -> Arc<Table> {
    let now = cluster.now_us();
    let (table, commit) = cluster
        .run(&never, |engine| {
            engine.create_table("wide", wide_schema(), true, now)
        })
        .unwrap();
    commit
        .into_iter()
        .for_each(|commit| cluster.wait_durable(commit.lsn, &never).unwrap());
    table
}

fn row(id: i64) -> Vec<Value> {
    let mut row = vec![Value::Null; WIDE + 1];
    row[0] = Value::Int(id);
    row[1] = Value::Decimal(i128::from(id) * 7);
    row
}

fn insert(cluster: &Cluster, table: &Arc<Table>, ids: std::ops::Range<i64>) {
    let mut txn = cluster
        .run(&never, |engine| engine.begin(Mode::ReadWrite))
        .unwrap();
    for id in ids {
        cluster
            .run(&never, |engine| engine.insert(&mut txn, table, row(id)))
            .unwrap();
    }
    let now = cluster.now_us();
    let commit = cluster
        .run(&never, |engine| engine.commit(&mut txn, now, None))
        .unwrap();
    cluster.wait_durable(commit.lsn, &never).unwrap();
}

fn check(cluster: &Cluster, table: &Arc<Table>, id: i64, written: bool) {
    let txn = cluster
        .run(&never, |engine| engine.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    let key = table.key(&[Value::Int(id)]).unwrap();
    let found = cluster
        .run(&never, |engine| {
            engine
                .get(&txn, table, &key)?
                .map(|view| view.values())
                .transpose()
        })
        .unwrap();
    let value = found.map(|values| values[1].clone());
    assert_eq!(
        value,
        written.then(|| Value::Decimal(i128::from(id) * 7)),
        "row {id}"
    );
}

/// Grows a volume from one segment to `until` with four writers; gives how many rows each has written.
fn grow(cluster: &Cluster, table: &Arc<Table>, until: u64) -> Vec<i64> {
    // Each thread has keys of its own: they meet in the extent maps and at the volume's end.
    let writer = |thread: i64| {
        move || {
            let mut written = 0;
            while cluster.engine().volume().segments() < until {
                let first = thread * 1_000_000 + written;
                insert(cluster, table, first..first + 40);
                written += 40;
            }
            written
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(writer(thread)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Segments before the newest that nobody has used: there should be none, as a new one is asked for when those before it are full.
fn unused(cluster: &Cluster) -> Vec<u64> {
    let segment_pages = cluster.engine().geometry().segment_pages;
    let is_unused = |segment: &u64| {
        let page = PageId(segment * segment_pages);
        cluster
            .settle(
                &cluster.writer(),
                Stop::NeedPage {
                    page,
                    at: cluster.vdl(),
                },
                &never,
            )
            .unwrap();
        let heads = cluster.engine().cached_heads();
        !heads
            .iter()
            .any(|head| head.id() == page && head.kind() == PageKind::ExtentMap)
    };
    (0..cluster.status().segments - 1)
        .filter(is_unused)
        .collect()
}

fn grow_and_reopen(open: impl Fn() -> Cluster, until: u64) {
    let cluster = open();
    let table = wide(&cluster);
    let lengths = grow(&cluster, &table, until);
    let segments = cluster.status().segments;
    assert!(segments >= until);
    assert_eq!(unused(&cluster), [] as [u64; 0], "of {segments} segments");
    verify(&cluster, &table, &lengths);
    cluster.close().unwrap();

    let started = Instant::now();
    let cluster = open();
    let took = started.elapsed();
    assert!(
        took < Duration::from_secs(3),
        "opening {segments} segments took {took:?}"
    );
    assert_eq!(cluster.status().segments, segments);
    let table = wide(&cluster);
    verify(&cluster, &table, &lengths);
    insert(&cluster, &table, 9_000_000..9_000_100);
    check(&cluster, &table, 9_000_099, true);
}

#[test]
fn hundreds_of_segments_under_concurrent_writers() {
    let disk = Arc::new(MemDisk::new());
    let options = OpenOptions {
        segment_bytes: Some(1 << 20),
        ..OpenOptions::at("/grown")
    };
    grow_and_reopen(
        || Cluster::open_on(options.clone(), disk.clone()).unwrap(),
        220,
    );
}

/// Here each segment costs a manifest on disk, in seven places.
#[test]
fn dozens_of_segments_on_disk() {
    let dir = TempDir::new();
    let options = OpenOptions {
        segment_bytes: Some(1 << 20),
        ..OpenOptions::at(&dir.0)
    };
    grow_and_reopen(|| Cluster::open(options.clone()).unwrap(), 24);
}

fn verify(cluster: &Cluster, table: &Arc<Table>, lengths: &[i64]) {
    for (thread, written) in (0_i64..).zip(lengths) {
        let first = thread * 1_000_000;
        for id in (first..first + written)
            .step_by(37)
            .chain([first + written - 1])
        {
            check(cluster, table, id, true);
        }
        check(cluster, table, first + written, false);
    }
}

/// Threads that ask for a segment at the same moment get one, not one each.
#[test]
fn racing_threads_add_one_segment() {
    let options = OpenOptions {
        segment_bytes: Some(1 << 20),
        ..OpenOptions::memory()
    };
    let cluster = Cluster::open(options).unwrap();
    let table = wide(&cluster);
    insert(&cluster, &table, 0..40);
    let before = cluster.status().segments;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                cluster
                    .settle(&cluster.writer(), Stop::NeedSegment, &never)
                    .unwrap()
            });
        }
    });
    assert_eq!(cluster.status().segments, before + 1);
}
