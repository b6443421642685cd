//! Mistakes that the simulator builds into a run to see whether its checkers notice them.
//!
//! A place in the product that could be wrong asks [`is`]. Without the feature `planted`, which only `aurora-sim` turns on, that is
//! `false` at compile time and nothing of it is left in a program. `grep -rn planted::is rust` lists the places.

/// A mistake; the text says what it is in the product's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Engine: a read-only transaction reads at the numbered LSN instead of the durable one.
    ReadOnlyAtNumbered,
    /// Engine: a commit does not look whether somebody else was first.
    FirstCommitterIgnored,
    /// Engine: a commit's keys are not remembered for later conflict checks.
    ConflictNotNoted,
    /// Engine: where the memory of changed keys does not reach back, a row counts as unchanged.
    ConflictFloorIgnored,
    /// Engine: a row's lock is given back as soon as the transaction takes another one.
    LockNotKept,
    /// Engine: a serializable commit does not look whether what it read is still so.
    ReadsNotChecked,
    /// Engine: an answer does not wait until what it was made from is durable.
    AfterForgotten,
    /// Engine: a commit does not write its token.
    TokenNotWritten,
    /// Engine: open read points do not hold the collection floor.
    ReadPointIgnored,
    /// Engine: a page that was fetched comes to lie over changes that were made meanwhile.
    FetchOverNewer,
    /// Engine: a page is given out and not marked as used.
    PageNotMarked,
    /// Engine: a page is given back and stays marked as used.
    PageNotReleased,
    /// Engine: a split forgets the last row that moves.
    SplitLosesRow,
    /// Engine: commit times follow the clock, also backwards.
    ClockTrusted,
    /// Engine: a commit changes rows and not the indexes.
    IndexNotKept,
    /// Engine: an index that is being built is not kept by commits.
    BuildNotKept,
    /// Engine: a unique index takes what another row has.
    UniqueIgnored,
    /// Engine: what clears up after loads takes the extents of loads that are under way.
    SweepTakesLoads,
    /// Engine: a load into a table with rows forgets what was committed meanwhile.
    CarryForgotten,
    /// Engine: a replica that has missed something keeps its cache.
    RejoinKeepsPages,
    /// Engine: that redo has passed over a page which is not cached is not noted.
    RedoNotNoted,
    /// Engine: a writer that was retired goes on writing.
    RetiredWrites,
    /// Protocol: replicas are given what is not durable yet.
    RedoAboveVdl,
    /// Engine: a dropped table's extents are not given back.
    DropKeepsExtents,
    /// Protocol: the writer gives out LSNs beyond the allocation limit.
    LalIgnored,
    /// Protocol: a copy's SCL passes over what it lacks.
    SclOverGap,
    /// Store: versions are collected up to the durable point, whoever still reads them.
    CollectIgnoresFloor,
    /// Store: pages from layers are not checked against their CRC.
    CrcIgnored,
    /// Store: a layer is not synced before the log is given up.
    LayerNotSynced,
    /// Store: of a torn write at the log's end, what can be read counts.
    TornTailAccepted,
    /// Store: a copy answers for a blob before it is on disk.
    BlobNotSynced,
    /// Store: blobs that nothing refers to are removed while their load goes on.
    BlobCollectedEarly,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 32] = [
        Fault::ReadOnlyAtNumbered,
        Fault::FirstCommitterIgnored,
        Fault::ConflictNotNoted,
        Fault::ConflictFloorIgnored,
        Fault::LockNotKept,
        Fault::ReadsNotChecked,
        Fault::AfterForgotten,
        Fault::TokenNotWritten,
        Fault::ReadPointIgnored,
        Fault::FetchOverNewer,
        Fault::PageNotMarked,
        Fault::PageNotReleased,
        Fault::SplitLosesRow,
        Fault::ClockTrusted,
        Fault::IndexNotKept,
        Fault::BuildNotKept,
        Fault::UniqueIgnored,
        Fault::SweepTakesLoads,
        Fault::CarryForgotten,
        Fault::RejoinKeepsPages,
        Fault::RedoNotNoted,
        Fault::RetiredWrites,
        Fault::RedoAboveVdl,
        Fault::DropKeepsExtents,
        Fault::LalIgnored,
        Fault::SclOverGap,
        Fault::CollectIgnoresFloor,
        Fault::CrcIgnored,
        Fault::LayerNotSynced,
        Fault::TornTailAccepted,
        Fault::BlobNotSynced,
        Fault::BlobCollectedEarly,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        // Each world has a thread of its own, so worlds with different mistakes run side by side.
        static BUILT_IN: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Is this mistake built in on this thread?
    pub fn is(fault: Fault) -> bool {
        BUILT_IN.get() == Some(fault)
    }

    /// Builds a mistake in on this thread, or none.
    pub fn set(fault: Option<Fault>) {
        BUILT_IN.set(fault);
    }
}

#[cfg(feature = "planted")]
pub use switch::{is, set};

/// Is this mistake built in? Not here.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Fault) -> bool {
    false
}
