//! A copy that was filled from pages answered reads below its source's floor, where versions had been collected (found in
//! review).

mod common;

use aurora_page::{Lsn, PageId};
use aurora_redo::History;
use aurora_store::{MemDisk, StoreError};
use common::*;

#[test]
fn the_floor_comes_with_the_pages() {
    let (disk, other) = (MemDisk::new(), MemDisk::new());
    let (source, target) = (new_node(&disk, config()), new_node(&other, config()));
    let (mut writer, mut rng) = (Writer::new(), Rng(5));
    for lsn in 1..=900 {
        source.ingest(batch(vec![writer.some(lsn % 2, &mut rng)]));
        if lsn % 100 == 0 {
            source.flush(&[]).expect("flushed");
        }
    }
    while source.compact(1 << 20, &roots(900, 0)).expect("compacted") > 0 {}
    while source
        .collect(1 << 20, &roots(900, 600))
        .expect("collected")
        > 1000
    {}
    let export = source
        .export(PageId(0)..=PageId(9), 1 << 30)
        .expect("exported");
    target.import(&export).expect("imported");
    let check = |target: &aurora_store::NodeStore| {
        assert_eq!(target.floor(), Lsn(600));
        let history = History::new(ORIGIN);
        let below = target.materialise(PageId(0), Lsn(599), &history);
        assert!(
            matches!(below, Err(StoreError::BelowFloor { .. })),
            "{below:?}"
        );
        let known = target.lsn_at(6005, &history).expect("asked");
        assert_eq!(known.map(|commit| commit.lsn), Some(Lsn(600)));
    };
    check(&target);
    drop(target);
    check(&open_node(&other, config()));
}
