//! A check that cannot fail is worth nothing: each mistake, built in, is found. Without it the same worlds end well.

use aurora_page::planted::Fault;
use aurora_sim::{Config, Kind, Planted, Workload, World};

/// Worlds in which a mistake must show, from the known one on.
const SEEDS: u64 = 48;

/// A world that shows the mistake: `aurora-sim --mutations` finds them. What a seed means may have changed since, so those after
/// it are tried too.
fn known(planted: Planted) -> (Kind, u64) {
    use Fault::*;
    match planted {
        Planted::AcknowledgeBeforeSync
        | Planted::QuorumOfThree
        | Planted::FenceNotPersisted
        | Planted::HistoryIgnored
        | Planted::WindowNotSkipped
        | Planted::NoReplication
        | Planted::CopyDiverges
        | Planted::TrimBeforeFlush
        | Planted::In(SclOverGap)
        | Planted::In(CollectIgnoresFloor)
        | Planted::In(LayerNotSynced) => (Kind::Pages, 0),
        Planted::FenceIgnored
        | Planted::CommitInTwoParts
        | Planted::In(FirstCommitterIgnored)
        | Planted::In(ConflictNotNoted)
        | Planted::In(LockNotKept)
        | Planted::In(PageNotMarked) => (Kind::Database(Workload::Ring), 1),
        Planted::LostCopyNotNoticed
        | Planted::In(ConflictFloorIgnored)
        | Planted::In(IndexNotKept) => (Kind::Database(Workload::Bank), 2),
        Planted::ReadAnywhere
        | Planted::In(ReadOnlyAtNumbered)
        | Planted::In(ReadsNotChecked)
        | Planted::In(AfterForgotten)
        | Planted::In(SplitLosesRow) => (Kind::Database(Workload::Append), 3),
        Planted::In(PageNotReleased) | Planted::In(ClockTrusted) => {
            (Kind::Database(Workload::Register), 4)
        }
        Planted::In(FetchOverNewer) => (Kind::Database(Workload::Large), 5),
        Planted::In(DropKeepsExtents) | Planted::In(CrcIgnored) => {
            (Kind::Database(Workload::Ddl), 6)
        }
        Planted::In(BuildNotKept) | Planted::In(TornTailAccepted) => {
            (Kind::Database(Workload::Indexes), 8)
        }
        Planted::In(TokenNotWritten) => (Kind::Database(Workload::Register), 13),
        Planted::In(ReadPointIgnored) => (Kind::Database(Workload::Snapshots), 25),
        Planted::In(LalIgnored) => (Kind::Pages, 27),
        Planted::RecoveryFromTwo => (Kind::Database(Workload::Large), 68),
        Planted::ReferenceBeforeQuorum
        | Planted::ReferenceWithoutBlob
        | Planted::GossipWithoutBlob
        | Planted::In(SweepTakesLoads)
        | Planted::In(CarryForgotten)
        | Planted::In(BlobNotSynced) => (Kind::Database(Workload::Load), 0),
        Planted::In(BlobCollectedEarly) => (Kind::Database(Workload::Load), 50),
        Planted::PromotedBehind
        | Planted::RedoInParts
        | Planted::In(RejoinKeepsPages)
        | Planted::In(RedoNotNoted)
        | Planted::In(RetiredWrites)
        | Planted::In(RedoAboveVdl) => (Kind::Database(Workload::Replicas), 0),
        Planted::In(UniqueIgnored) => (Kind::Database(Workload::Indexes), 71),
    }
}

fn found(planted: Planted) -> Option<String> {
    let (kind, first) = known(planted);
    // The first world that shows it is enough.
    (first..first + SEEDS).find_map(|seed| World::run(Config::of(seed, kind).with(planted)).failure)
}

fn all_are_found(some: impl Iterator<Item = Planted>) {
    let unseen: Vec<String> = some
        .filter(|planted| found(*planted).is_none())
        .map(|planted| planted.name())
        .collect();
    assert!(unseen.is_empty(), "unnoticed in {SEEDS} worlds: {unseen:?}");
}

/// Where a checker is made for the mistake, it is that one which sees it.
#[test]
fn mistakes_are_called_by_their_names() {
    for (planted, invariant) in [
        (Planted::WindowNotSkipped, "[3]"),
        (Planted::FenceNotPersisted, "[12]"),
        (Planted::NoReplication, "[10]"),
        (Planted::TrimBeforeFlush, "[8]"),
        (Planted::In(Fault::AfterForgotten), "append: [15]"),
        (Planted::In(Fault::IndexNotKept), "bank: at"),
        (Planted::In(Fault::UniqueIgnored), "indexes: at"),
        (Planted::In(Fault::ReadsNotChecked), "append: G2"),
    ] {
        let found = found(planted).unwrap_or_default();
        assert!(found.starts_with(invariant), "{planted:?}: {found:?}");
    }
}

#[test]
fn mistakes_of_the_shell_are_found() {
    all_are_found(Planted::SHELL.into_iter());
}

#[test]
fn mistakes_of_the_product_are_found() {
    all_are_found(Fault::ALL.into_iter().map(Planted::In));
}
