//! A copy that took minutes for what one message should have told (found by the simulator: `--kind indexes --seeds 117`).
//!
//! A node was made anew in the place of a lost one, and got the pages of a group from a peer. The machine crashed in the
//! middle. After the restart the layers that had come held the records that lie above the collection floor of their pages,
//! and the links between them told of hundreds of gaps below it. Gossip asked for each of them by itself; and as each of
//! them began below the floor, each was answered with all pages of the group.

mod common;

use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::*;
use aurora_redo::{History, PgId};
use common::*;

const FLOOR: Lsn = Lsn(1800);
const END: u64 = 2000;

fn state(node: u16, scl: Lsn) -> CopyState {
    CopyState {
        pg: PgId(0),
        node: NodeId(node),
        epoch: 1,
        installed: 1,
        history: Arc::new(History::new(A)),
        scl,
        vdl_hint: scl,
    }
}

/// Has every record of 1..=2000.
fn whole() -> Copy {
    Copy::restore(state(1, Lsn(END)), [])
}

/// Has of the same records those that `kept` says.
fn sparse(kept: impl Fn(u64) -> bool) -> Copy {
    let links = (1..=END).filter(|lsn| kept(*lsn)).map(|lsn| Link {
        lsn: Lsn(lsn),
        prev: Lsn(lsn - 1),
        origin: A,
        cpl: true,
    });
    Copy::restore(state(0, Lsn::NONE), links)
}

fn gaps(copy: &Copy, floor: Lsn) -> Vec<Gap> {
    let asks = gossip::asks(copy, &gossip::summary(&whole(), floor));
    asks.into_iter().map(|ask| ask.gap).collect()
}

#[test]
fn gaps_below_the_floor_are_asked_for_at_once() {
    // As the crash left it: little below the floor, everything above it but two records.
    let mut copy = sparse(|lsn| match lsn {
        0..=33 => true,
        34..1800 => lsn % 3 == 0,
        _ => lsn % 100 != 50,
    });
    let asked = gaps(&copy, FLOOR);
    let expected = [(33, 1799), (1849, 1850), (1949, 1950)];
    let expected = expected.map(|(after, upto)| Gap {
        after: Lsn(after),
        upto: Lsn(upto),
    });
    assert_eq!(asked, expected);
    // The answer makes it complete as far as there is nothing else to ask for.
    for gap in asked {
        let stretch = copy.hydrating(gap.after, gap.upto);
        copy.persisted(Token(stretch));
    }
    assert_eq!((copy.scl(), gaps(&copy, FLOOR)), (Lsn(END), Vec::new()));
}

#[test]
fn gaps_above_the_floor_are_asked_for_one_by_one_and_not_all_at_a_time() {
    let copy = sparse(|lsn| lsn % 2 == 0);
    let asked = gaps(&copy, Lsn::NONE);
    assert_eq!(asked.len(), gossip::ASKS_MAX);
    assert!(asked.iter().all(|gap| gap.upto == gap.after.next()));
    assert_eq!(asked[0].after, Lsn::NONE, "the oldest first");
}
