//! Acknowledged commits that a reopening cut off (found in review).
//!
//! A copy hears of the VDL with the next batch, so while a volume is idle every copy's hint lies below the VDL. The
//! window passes, the collection floor moves up to the VDL, and records between hint and floor are collected, because
//! images cover them. After a crash no record led from the hints to the VDL any more: recovery took the hint for the
//! VDL, and what lay between was cut off. Whatever lies at or below the floor that is on record is durable.

mod common;

use aurora_page::Lsn;
use aurora_proto::*;
use aurora_redo::PgId;
use common::*;

#[test]
fn what_is_at_or_below_the_collection_floor_is_never_cut_off() {
    let manifest = manifest(1, 100).with_floor(Lsn(105)).unwrap().recovering();
    let mut recovery = Recovery::new(&manifest, &[]).unwrap();
    for node in 0..6 {
        let inventory = Inventory {
            pg: PgId(0),
            node: NodeId(node),
            epoch: manifest.epoch,
            scl: Lsn(105),
            vdl_hint: Lsn(100),
            records: Vec::new(),
        };
        recovery.on_inventory(inventory).unwrap();
    }
    let plan = recovery.plan().unwrap();
    assert_eq!((plan.vdl(), plan.tail(PgId(0))), (Lsn(105), Lsn(105)));
    assert!(plan.ready());
}
