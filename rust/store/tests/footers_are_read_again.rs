//! A layer that nobody could open again (found by the simulator: a write of the disk went astray).
//!
//! Both footers of a layer were damaged while its node ran. Opening needs one of them; a node that runs has them in memory. A scrub
//! read every block and no footer, found nothing, and the node was lost at its next start, with all that it had: had the same
//! happened to others meanwhile, nobody would have known. Now a scrub reads the footers too, and the layer is mended from a peer.

mod common;

use aurora_page::{Lsn, PageId};
use aurora_redo::History;
use aurora_store::{Disk, MemDisk, OpenMode};
use common::*;

#[test]
fn a_damaged_footer_is_found_and_mended_while_the_node_runs() {
    let build = |disk: &MemDisk| {
        let node = new_node(disk, config());
        let (mut writer, mut rng) = (Writer::new(), Rng(5));
        for lsn in 1..=500u64 {
            node.ingest(batch(vec![writer.some(lsn % 40, &mut rng)]));
        }
        node.flush(&[]).expect("flushed");
        // An image layer too: there an offset can be that of a page's image.
        node.compact(u64::MAX, &roots(500, 1)).expect("compacted");
        node
    };
    let healthy_disk = MemDisk::new();
    let healthy = build(&healthy_disk);
    let layers = healthy_disk.files(&node_dir().join("layers")).len();
    // The front, the back, and a file that has grown.
    let cases = (0..layers)
        .flat_map(|layer| [[0usize, 0], [1, 1], [2, 2], [0, 1]].map(|places| (layer, places)));
    for (layer, places) in cases {
        let disk = MemDisk::new();
        let node = build(&disk);
        let path = disk.files(&node_dir().join("layers"))[layer].clone();
        let file = disk.open(&path, OpenMode::ReadWrite).expect("opened");
        let len = file.len().expect("len");
        for place in places {
            match place {
                0 => disk.flip(&path, 9, 1).expect("flip"),
                1 => disk.flip(&path, len - 9, 1).expect("flip"),
                _ => file.write_all_at(&[0; 512], len).expect("grown"),
            }
            if places[0] == places[1] {
                break;
            }
        }
        node.scrub(u64::MAX).expect("scrubbed");
        let damage = node.damage();
        assert_eq!(damage.len(), 1, "{places:?}: {damage:?}");
        let export = healthy
            .export(damage[0].pages.clone(), u64::MAX)
            .expect("exported");
        node.repair(&damage[0], &[export]).expect("repaired");
        node.scrub(u64::MAX).expect("scrubbed");
        assert!(node.damage().is_empty(), "{places:?}: {:?}", node.damage());
        drop(node);
        let node = open_node(&disk, config());
        let history = History::new(ORIGIN);
        for page in 0..40 {
            let at = |n: &aurora_store::NodeStore| n.materialise(PageId(page), Lsn(500), &history);
            let (mended, other) = (at(&node).expect("mended"), at(&healthy).expect("healthy"));
            assert_eq!(mended.bytes(), other.bytes(), "{places:?}: page {page}");
        }
    }
}
