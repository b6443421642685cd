//! A check that cannot fail is worth nothing: each mistake, built in, is found within a few worlds.

use aurora_sim::{Config, Planted, World};

/// Worlds in which a mistake must show. Without it the same worlds end well (`seeds.rs` runs them).
const SEEDS: std::ops::Range<u64> = 0..40;

fn found(planted: Planted) -> Vec<String> {
    let worlds = SEEDS.map(|seed| World::run(Config::draw(seed).with(planted)));
    // The first world that shows it is enough.
    worlds
        .filter_map(|report| report.failure)
        .map(|(what, _)| what)
        .take(1)
        .collect()
}

#[test]
fn every_planted_mistake_is_found() {
    for planted in Planted::ALL {
        assert!(
            !found(planted).is_empty(),
            "{planted:?} went unnoticed in seeds {SEEDS:?}"
        );
    }
}

/// Where a checker is made for the mistake, it is that one which sees it.
#[test]
fn mistakes_are_called_by_their_names() {
    for (planted, invariant) in [
        (Planted::WindowNotSkipped, "[3]"),
        (Planted::FenceNotPersisted, "[12]"),
        (Planted::NoReplication, "[10]"),
        (Planted::TrimBeforeFlush, "[8]"),
    ] {
        let found = found(planted);
        assert!(
            found.iter().all(|what| what.starts_with(invariant)),
            "{planted:?}: {found:?}"
        );
    }
}
