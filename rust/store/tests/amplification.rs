//! How much is written for a small update, in all: at most 400 bytes per copy, of which 120 in the hot log.
//!
//! The target is 10 M updates of 100,000 rows. The shape is kept and the size is not: 100 updates per row, 250 rows to a
//! page, a flush when a page has about 250 new records on the average (64 MiB of log for six copies), which makes 100
//! flushes. Tiers, images per flush and bytes per record are then those of the large run.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aurora_page::{Lsn, PageId, Value, encode_row, leaf_layout};
use aurora_redo::Op;
use aurora_store::{Disk, LogConfig, LogDevice, MemDisk, NodeConfig, NodeStore};
use common::*;

const ROWS_PER_PAGE: u16 = 250;
const PAGES: u64 = 6;
const UPDATES: u64 = 100 * ROWS_PER_PAGE as u64 * PAGES;
const UPDATES_PER_FLUSH: u64 = 250 * PAGES;
const WIDE_PAGE_BYTES: usize = 32 << 10;

/// Six full pages, each row about 100 bytes.
fn load(node: &NodeStore, writer: &mut Writer) {
    let layout = leaf_layout(&writer.schema, ROWS_PER_PAGE);
    for page in 0..PAGES {
        let schema_version = writer.schema.version;
        let format = Op::FormatLeaf {
            object: aurora_page::ObjectId(9),
            schema_version,
            layout: &layout,
        };
        let mut records = vec![writer.record(page, &format)];
        for rank in 0..ROWS_PER_PAGE {
            let text = format!(
                "row {rank} of page {page} {:060}",
                u64::from(rank).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            );
            let values = [
                Value::Int(i64::from(rank)),
                Value::Int(0),
                Value::Text(text),
            ];
            let row = encode_row(&writer.schema, &values);
            records.push(writer.record(page, &Op::LeafInsert { rank, row: &row }));
        }
        node.ingest(batch(records));
    }
}

/// Bytes of the node's files and of the log's payload, for each update.
fn run(window: u64) -> (f64, f64, BTreeMap<&'static str, u64>) {
    let (disk, log_disk) = (MemDisk::new(), MemDisk::new());
    let mut config = NodeConfig::new(WIDE_PAGE_BYTES, 1 << 20);
    config.cache_bytes = 1 << 20;
    let node = new_node(&disk, config);
    let (mut writer, mut rng) = (Writer::new(), Rng(11));
    load(&node, &mut writer);
    let roots_at = |now: u64| roots(now, now.saturating_sub(window).max(1));
    node.flush(&[]).expect("flushed");
    node.compact(u64::MAX, &roots_at(writer.next - 1))
        .expect("compacted");
    let before = disk.written_bytes();
    let arc: Arc<dyn Disk> = Arc::new(log_disk);
    let log =
        LogDevice::create(arc, Path::new("log"), nodes(1), 1, LogConfig::default()).expect("log");
    for i in 1..=UPDATES {
        let (page, rank) = (rng.below(PAGES), rng.below(u64::from(ROWS_PER_PAGE)) as u16);
        let record = writer.update(page, rank, rng.below(1 << 40) as i64);
        let now = record.lsn.0;
        let batch = batch(vec![record]);
        log.append(&[entry(batch.clone(), 1)]).expect("appended");
        node.ingest(batch);
        if i % UPDATES_PER_FLUSH == 0 {
            node.flush(&[state(1, now)]).expect("flushed");
            node.collect(1 << 20, &roots_at(now)).expect("collected");
            node.compact(u64::MAX, &roots_at(now)).expect("compacted");
        }
    }
    let layers = node.layers();
    let count = |kind| layers.iter().filter(|l| l.kind == kind).count() as u64;
    let facts = BTreeMap::from([
        ("delta layers", count(aurora_store::LayerKind::Delta)),
        ("image layers", count(aurora_store::LayerKind::Image)),
        ("bytes kept", node.used_bytes()),
    ]);
    let now = Lsn(writer.next - 1);
    let history = aurora_redo::History::new(ORIGIN);
    (0..PAGES).for_each(|page| {
        drop(
            node.materialise(PageId(page), now, &history)
                .expect("readable"),
        )
    });
    let written = (disk.written_bytes() - before) as f64 / UPDATES as f64;
    (written, log.used_bytes() as f64 / UPDATES as f64, facts)
}

#[test]
fn a_small_update_costs_at_most_400_bytes() {
    for window in [UPDATES / 10, u64::MAX] {
        let (layers, log, facts) = run(window);
        println!(
            "window {window}: log {log:.0}, layers {layers:.0}, in all {:.0} bytes per update; {facts:?}",
            log + layers
        );
        assert!(log <= 120.0, "{log} bytes of log");
        assert!(
            log + layers <= 400.0,
            "{layers} bytes of layers, {log} of log"
        );
        assert!(
            facts["delta layers"] <= 24 && facts["image layers"] <= 40,
            "{facts:?}"
        );
    }
}
