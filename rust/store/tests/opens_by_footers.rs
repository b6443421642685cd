//! Opening a node read the index of every layer (found in review): a group in which nothing was written lately has an old SCL, and
//! each newer layer might have held records of it above that [13].

mod common;

use std::sync::Arc;

use aurora_page::{Lsn, VolumeId};
use aurora_proto::CopyState;
use aurora_redo::{History, PgBatch, PgId};
use aurora_store::{MemDisk, NodeConfig, NodeStore};
use common::*;

const LAYERS: u64 = 40;

/// Ten pages a group; the first group is idle after the first of many layers.
fn config() -> NodeConfig {
    NodeConfig::new(PAGE_BYTES, 10)
}

fn write(node: &NodeStore, lsn: u64, page: u64) {
    let (pg, records) = (
        PgId((page / 10) as u32),
        vec![raw_record(lsn, page, &[1, 2, 3])],
    );
    let vdl = Lsn(lsn - 1);
    node.ingest(Arc::new(PgBatch {
        pg,
        epoch: 1,
        vdl,
        records,
    }));
}

fn copies(idle: u64, busy: u64, vdl: u64) -> Vec<CopyState> {
    let copy = |pg, scl| CopyState {
        pg: PgId(pg),
        scl: Lsn(scl),
        vdl_hint: Lsn(vdl),
        ..state(1, 0)
    };
    vec![copy(0, idle), copy(1, busy)]
}

fn filled(disk: &MemDisk, unsettled: Option<Lsn>) -> Vec<CopyState> {
    let node = new_node(disk, config());
    write(&node, 1, 0);
    let mut states = copies(1, 1, 1);
    for lsn in 2..=LAYERS + 1 {
        // The last layer has something of the idle group too, of which the copy knows that more is missing before it.
        let gap = lsn == LAYERS + 1 && unsettled.is_some();
        write(&node, lsn, if gap { 3 } else { 10 + lsn % 3 });
        states = copies(1, lsn, lsn);
        node.flush_settled(&states, unsettled.filter(|_| gap))
            .expect("flushed");
    }
    states
}

#[test]
fn a_node_with_many_layers_opens_by_their_footers() {
    let disk = MemDisk::new();
    let states = filled(&disk, None);
    let node = open_node(&disk, config());
    assert_eq!(node.layers().len() as u64, LAYERS);
    let links = node.links_of_all(&states).expect("links");
    assert!(links.iter().all(Vec::is_empty), "{links:?}");
    assert_eq!(node.indexed_layers(), 0);
    // A group that was added since has nothing in them either.
    let mut grown = states.clone();
    grown.push(CopyState {
        pg: PgId(2),
        scl: Lsn::NONE,
        ..states[0].clone()
    });
    assert_eq!(node.links_of_all(&grown).expect("links").len(), 3);
    assert_eq!(node.indexed_layers(), 0);
}

#[test]
fn what_a_copy_is_restored_with_is_found() {
    let disk = MemDisk::new();
    let states = filled(&disk, Some(Lsn(LAYERS + 1)));
    let node = open_node(&disk, config());
    let links = node.links_of_all(&states).expect("links");
    let found: Vec<_> = links[0].iter().map(|link| link.lsn).collect();
    assert_eq!(found, [Lsn(LAYERS + 1)]);
    assert_eq!(node.indexed_layers(), 1, "only the layer that it is in");
}

#[test]
fn a_copy_that_counts_other_records_than_at_the_flush_looks_at_all_layers() {
    let disk = MemDisk::new();
    let states = filled(&disk, None);
    // It was cut back below what it had.
    let node = open_node(&disk, config());
    let links = node.links_of_all(&copies(1, 20, 20)).expect("links");
    let found: std::collections::BTreeSet<_> = links[1].iter().map(|link| link.lsn.0).collect();
    assert_eq!(found, (21..=LAYERS + 1).collect());
    // It is of another History, in which other records count.
    let other = Arc::new(History::new(VolumeId(2)));
    let elsewhere = states.iter().map(|state| CopyState {
        history: other.clone(),
        ..state.clone()
    });
    let node = open_node(&disk, config());
    node.links_of_all(&elsewhere.collect::<Vec<_>>())
        .expect("links");
    assert_eq!(node.indexed_layers() as u64, LAYERS);
    // A branch at its end changes nothing of what was.
    let branched = Arc::new(states[0].history.branch(Lsn(LAYERS + 1), ORIGIN, 1000));
    let reopened = states.iter().map(|state| CopyState {
        history: branched.clone(),
        ..state.clone()
    });
    let node = open_node(&disk, config());
    node.links_of_all(&reopened.collect::<Vec<_>>())
        .expect("links");
    assert_eq!(node.indexed_layers(), 0);
}
