//! Damage that was never mended (found in review).
//!
//! Two blocks of one layer are damaged. Mending either wrote the layer anew without that block alone, stopped at the
//! other one, and left behind what had been fetched from a peer: at every attempt once more, until the disk was full.

mod common;

use aurora_page::{Lsn, PageId};
use aurora_redo::History;
use aurora_store::{Disk, MemDisk, OpenMode};
use common::*;

#[test]
fn two_damaged_blocks_are_mended_one_after_the_other() {
    let build = |disk: &MemDisk| {
        let node = new_node(disk, config());
        let (mut writer, mut rng) = (Writer::new(), Rng(5));
        for lsn in 1..=3000u64 {
            node.ingest(batch(vec![writer.some(lsn % 40, &mut rng)]));
        }
        node.flush(&[]).expect("flushed");
        node
    };
    let (healthy_disk, disk) = (MemDisk::new(), MemDisk::new());
    let healthy = build(&healthy_disk);
    drop(build(&disk));
    let path = disk.files(&node_dir().join("layers"))[0].clone();
    let len = disk
        .open(&path, OpenMode::Read)
        .and_then(|f| f.len())
        .expect("len");
    disk.flip(&path, 600, 1).expect("flip");
    disk.flip(&path, len / 2, 1).expect("flip");
    let node = open_node(&disk, config());
    node.scrub(u64::MAX).expect("scrubbed");
    assert_eq!(node.damage().len(), 2, "two blocks: {:?}", node.damage());
    for damage in node.damage() {
        let export = healthy
            .export(damage.pages.clone(), u64::MAX)
            .expect("exported");
        node.repair(&damage, &[export]).expect("repaired");
    }
    assert!(node.damage().is_empty(), "{:?}", node.damage());
    assert!(node.layers().len() <= 3, "{:?}", node.layers());
    let history = History::new(ORIGIN);
    for page in 0..40 {
        let (mended, other) = (
            node.materialise(PageId(page), Lsn(3000), &history),
            healthy.materialise(PageId(page), Lsn(3000), &history),
        );
        assert_eq!(
            mended.expect("mended").bytes(),
            other.expect("healthy").bytes(),
            "page {page}"
        );
    }
}
