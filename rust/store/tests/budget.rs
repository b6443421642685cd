//! Background work keeps to its budget of bytes: what a call does beyond it is at most what it was in the middle of.

mod common;

use aurora_store::MemDisk;
use common::*;

/// A block, the listing of a layer and its two footers: what a step finishes once it has begun it.
const STEP_BYTES: u64 = 128 << 10;

#[test]
fn compaction_and_scrub_stop_when_their_budget_is_spent() {
    let disk = MemDisk::new();
    let (node, mut writer, mut rng) = (new_node(&disk, config()), Writer::new(), Rng(11));
    for i in 1..=20_000_u64 {
        let record = writer.some(rng.below(200), &mut rng);
        node.ingest(batch(vec![record]));
        if i % 1000 == 0 {
            node.flush(&[state(1, i)]).expect("flushed");
        }
    }
    let budget = 64 << 10;
    let mut calls = 0;
    loop {
        let used = node.compact(budget, &roots(20_000, 0)).expect("compacted");
        assert!(
            used <= budget + STEP_BYTES,
            "a budget of {budget} bytes, {used} used"
        );
        if used == 0 {
            break;
        }
        calls += 1;
    }
    assert!(calls > 10, "{calls} calls: there was hardly anything to do");
    let mut steps = 0;
    loop {
        let report = node.scrub(budget).expect("scrubbed");
        assert!(
            report.bytes <= budget + STEP_BYTES,
            "a budget of {budget} bytes, {} used",
            report.bytes
        );
        steps += 1;
        if report.finished {
            break;
        }
    }
    let stored: u64 = node.layers().iter().map(|layer| layer.bytes).sum();
    assert!(
        steps > 1 && steps * (budget + STEP_BYTES) >= stored,
        "{steps} steps for {stored} bytes"
    );
}
