//! Gossip: copies of one group fill each other's gaps, record by record, without the writer.
//!
//! 1. A copy sends its [`Summary`] to its peers now and then.
//! 2. A peer that lacks something which the summary promises [`asks`] for it.
//! 3. The first copy reads the records from its store, no further than it [`Copy::vouches`] for now, and packs an
//!    [`answer`] of bounded size.
//! 4. The peer treats the batch like one from the writer (receive, log, persisted), and if the answer is `complete_to`
//!    an LSN, ends with `Copy::hydrating`: between the records there is nothing.
//!
//! Everything is filtered by History, so a record that was cut off cannot come back by this way.
//!
//! Below the collection floor of a peer there may be no records any more, so what begins there comes as pages: all of the
//! group's, however short the gap is. A copy whose hydration was interrupted has the records that happened to be left, and
//! between them hundreds of gaps; it asks for all of them at once.

use aurora_page::Lsn;
use aurora_redo::{History, PgBatch, PgId, Record};

use crate::answer::Gap;
use crate::copy::Copy;
use crate::quorum::NodeId;

/// Gaps that a summary lists at most: the oldest ones.
pub const SUMMARY_GAPS_MAX: usize = 16;

/// Gaps that a copy asks one peer for at a time: the oldest ones. The rest is asked for when these are filled.
pub const ASKS_MAX: usize = 64;

/// What a copy has, in short.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The protection group.
    pub pg: PgId,
    /// The node.
    pub node: NodeId,
    /// Its epoch; summaries of another epoch than one's own say nothing.
    pub epoch: u64,
    /// It has everything up to here.
    pub scl: Lsn,
    /// It has everything up to here apart from the gaps.
    pub upto: Lsn,
    /// What it lacks above its SCL, oldest first.
    pub gaps: Vec<Gap>,
    /// Its collection floor: what begins below comes as pages.
    pub floor: Lsn,
}

/// A request for records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The protection group.
    pub pg: PgId,
    /// The epoch of the one who asks; a copy of another epoch does not answer.
    pub epoch: u64,
    /// What is asked for.
    pub gap: Gap,
}

/// Records for an [`Ask`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The records; possibly none.
    pub batch: PgBatch,
    /// Above this LSN, the ask's,
    pub after: Lsn,
    /// and up to this one, nothing is left out.
    pub complete_to: Lsn,
}

/// What this copy, of a store with this collection floor, can tell its peers: what is on disk.
pub fn summary(copy: &Copy, floor: Lsn) -> Summary {
    let state = copy.state();
    let mut gaps = copy.missing_on_disk();
    let upto = match gaps.get(SUMMARY_GAPS_MAX) {
        Some(beyond) => beyond.after,
        None => copy.highest_on_disk(),
    };
    gaps.truncate(SUMMARY_GAPS_MAX);
    Summary {
        pg: state.pg,
        node: state.node,
        epoch: state.epoch,
        scl: state.scl,
        upto,
        gaps,
        floor,
    }
}

/// What this copy lacks and the peer has: the oldest [`ASKS_MAX`] stretches, and at most one per stretch of the peer's that
/// begins below its floor.
pub fn asks(copy: &Copy, peer: &Summary) -> Vec<Ask> {
    let state = copy.state();
    if peer.pg != state.pg
        || peer.epoch != state.epoch
        || peer.node == state.node
        || !copy.is_open()
    {
        return Vec::new();
    }
    let mut wanted = copy.missing();
    // Beyond what is here, whatever the peer has is wanted.
    wanted.push(Gap {
        after: copy.highest(),
        upto: Lsn::MAX,
    });
    let ask = |gap| Ask {
        pg: state.pg,
        epoch: state.epoch,
        gap,
    };
    stretches(peer)
        .iter()
        .flat_map(|have| {
            let overlaps = wanted.iter().filter_map(|gap| overlap(gap, have));
            as_one_below(peer.floor, overlaps)
        })
        .take(ASKS_MAX)
        .map(ask)
        .collect()
}

/// Makes one of the gaps that begin below the floor, which lie in one stretch of the peer's and ascend.
fn as_one_below(floor: Lsn, gaps: impl Iterator<Item = Gap>) -> Vec<Gap> {
    let mut out: Vec<Gap> = Vec::new();
    for gap in gaps {
        match out.last_mut() {
            Some(last) if gap.after < floor => last.upto = gap.upto,
            _ => out.push(gap),
        }
    }
    out
}

/// What the peer has, as stretches without a gap.
fn stretches(peer: &Summary) -> Vec<Gap> {
    let mut after = Lsn::NONE;
    let mut held = Vec::with_capacity(peer.gaps.len() + 1);
    for gap in &peer.gaps {
        held.push(Gap {
            after,
            upto: gap.after,
        });
        after = gap.upto;
    }
    held.push(Gap {
        after,
        upto: peer.upto,
    });
    held
}

fn overlap(a: &Gap, b: &Gap) -> Option<Gap> {
    let gap = Gap {
        after: a.after.max(b.after),
        upto: a.upto.min(b.upto),
    };
    (gap.after < gap.upto).then_some(gap)
}

/// Answers an ask from the records that the store has of the stretch, ascending, in at most about `max_bytes` but at
/// least one record. `upto` is how far those records go: what [`Copy::vouches`]
/// for, or less if the store stopped earlier.
pub fn answer(
    ask: &Ask,
    history: &History,
    vdl: Lsn,
    records: impl IntoIterator<Item = Record>,
    upto: Lsn,
    max_bytes: usize,
) -> Answer {
    let mut batch = PgBatch {
        pg: ask.pg,
        epoch: ask.epoch,
        vdl,
        records: Vec::new(),
    };
    let mut complete_to = upto.min(ask.gap.upto);
    let mut bytes = 0;
    for record in records {
        if record.lsn <= ask.gap.after || !history.contains(record.origin, record.lsn) {
            continue;
        }
        if record.lsn > ask.gap.upto {
            break;
        }
        bytes += record.weight();
        if bytes > max_bytes && !batch.records.is_empty() {
            complete_to = batch.last_lsn();
            break;
        }
        batch.records.push(record);
    }
    Answer {
        batch,
        after: ask.gap.after,
        complete_to,
    }
}
