//! A check that cannot fail is worth nothing: each mistake, built in, is found. Without it the same worlds end well.

use aurora_page::planted::Fault;
use aurora_sim::{Config, Kind, Planted, Workload, World};

/// Worlds in which a mistake must show.
const SEEDS: u64 = 48;

/// Which worlds show a mistake soonest.
fn kind_for(planted: Planted) -> Kind {
    use Fault::*;
    let workload = match planted {
        Planted::CommitInTwoParts | Planted::ReadAnywhere => Workload::Ring,
        Planted::In(fault) => match fault {
            FirstCommitterIgnored | ConflictNotNoted | ConflictFloorIgnored | LockNotKept => {
                Workload::Ring
            }
            ReadsNotChecked | ReadOnlyAtNumbered | AfterForgotten => Workload::Append,
            TokenNotWritten => Workload::Register,
            ReadPointIgnored | CollectIgnoresFloor | FetchOverNewer => Workload::Snapshots,
            PageNotMarked | PageNotReleased => Workload::Large,
            SplitLosesRow | DropKeepsExtents => Workload::Ddl,
            BuildNotKept | UniqueIgnored => Workload::Indexes,
            ClockTrusted | IndexNotKept => Workload::Bank,
            LalIgnored | SclOverGap | CrcIgnored | LayerNotSynced | TornTailAccepted => {
                return Kind::Pages;
            }
        },
        _ => return Kind::Pages,
    };
    Kind::Database(workload)
}

fn found(planted: Planted) -> Option<String> {
    let kind = kind_for(planted);
    // The first world that shows it is enough.
    (0..SEEDS).find_map(|seed| World::run(Config::of(seed, kind).with(planted)).failure)
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
