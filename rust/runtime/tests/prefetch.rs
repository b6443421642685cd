//! Cold ranges: pages are fetched while the reader is at work, and the rows are the same.

mod common;

use aurora_engine::{Mode, RangeSpec};
use aurora_page::Value;
use aurora_runtime::{Cluster, OpenOptions};
use common::{TempDir, accounts, never, put, small};

const ROWS: i64 = 40_000;

fn read(cluster: &Cluster, spec: &RangeSpec) -> Vec<i64> {
    let table = accounts(cluster);
    let txn = cluster
        .run(&never, |engine| engine.begin(Mode::ReadOnly { at: None }))
        .unwrap();
    let mut cursor = cluster
        .run(&never, |engine| engine.range(&txn, &table, spec.clone()))
        .unwrap();
    let mut ids = Vec::new();
    while let Some(block) = cluster
        .run(&never, |engine| cursor.next_block(engine))
        .unwrap()
    {
        for row in block.rows().unwrap() {
            let Value::Int(id) = row.values().unwrap()[0] else {
                panic!("no id")
            };
            ids.push(id);
        }
    }
    ids
}

#[test]
fn a_cold_range_is_fetched_ahead_by_several_readers_at_once() {
    let dir = TempDir::new();
    let rows: Vec<(i64, i64)> = (0..ROWS).map(|id| (id, id)).collect();
    {
        let cluster = Cluster::open(small(&dir)).unwrap();
        let table = accounts(&cluster);
        put(&cluster, &table, &rows).unwrap();
        cluster.close().unwrap();
    }
    let options = OpenOptions {
        cache_bytes: 4 << 20,
        ..small(&dir)
    };
    let cluster = Cluster::open(options).unwrap();
    let forward: Vec<i64> = (0..ROWS).collect();
    let backward: Vec<i64> = (0..ROWS).rev().collect();
    std::thread::scope(|scope| {
        for reverse in [false, true, false, true] {
            let (cluster, expected) = (&cluster, if reverse { &backward } else { &forward });
            let spec = RangeSpec {
                reverse,
                ..RangeSpec::default()
            };
            scope.spawn(move || assert!(read(cluster, &spec) == *expected, "reverse: {reverse}"));
        }
    });
    let prefetched = cluster.status().cache.prefetched;
    assert!(prefetched > 10, "{prefetched} pages were fetched ahead");
    // Closing while pages are still being fetched ends that first.
    cluster.close().unwrap();
}
