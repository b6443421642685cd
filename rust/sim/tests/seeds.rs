//! Worlds with everything that can go wrong, and the promise that it ends well.

use aurora_sim::{Config, Kind, Report, Workload, World};

/// Runs a world; a failure says all that is known.
fn run(config: Config) -> Report {
    let report = World::run(config.clone());
    if report.failure.is_some() {
        let traced = World::run_traced(config.clone());
        let what = traced.failure.unwrap_or_default();
        let lines: Vec<&str> = traced.trace.lines().collect();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        let (kind, seed) = (config.kind.name(), config.seed);
        panic!(
            "{tail}\n{kind} {seed}: {what}\n(aurora-sim --kind {kind} --seeds {seed} --trace shows all of it)"
        );
    }
    report
}

#[test]
fn forty_worlds_of_pages_end_well() {
    let (mut acknowledged, mut opened, mut boots) = (0, 0, 0);
    for seed in 0..40 {
        let report = run(Config::draw(seed));
        acknowledged += report.acknowledged;
        opened += report.opened;
        boots += report.boots;
    }
    // A world in which nothing happens proves nothing.
    assert!(
        acknowledged > 5_000 && opened > 40 && boots > 40,
        "{acknowledged} commits, {opened} recoveries, {boots} starts"
    );
}

/// Four worlds of 60 virtual seconds, each with a client or four that work, and commits that were told of.
fn databases(workload: Workload) {
    let (mut commits, mut opened, mut faults) = (0, 0, 0);
    for seed in 0..4 {
        let report = run(Config::database(seed, workload));
        commits += report.clients[0];
        opened += report.opened;
        faults += report.faults;
    }
    assert!(
        commits > 400 && opened > 4 && faults > 80,
        "{workload:?}: {commits} commits, {opened} recoveries, {faults} faults"
    );
}

#[test]
fn rings_stay_rings() {
    databases(Workload::Ring);
}

#[test]
fn sums_stay_what_they_are() {
    databases(Workload::Bank);
}

#[test]
fn there_is_an_order_that_explains_what_was_seen() {
    databases(Workload::Append);
}

#[test]
fn increments_happen_once() {
    databases(Workload::Register);
}

#[test]
fn large_values_are_whole() {
    databases(Workload::Large);
}

#[test]
fn tables_come_and_go() {
    databases(Workload::Ddl);
}

#[test]
fn snapshots_do_not_change() {
    databases(Workload::Snapshots);
}

#[test]
fn tables_and_their_indexes_agree() {
    databases(Workload::Indexes);
}

#[test]
fn loads_happen_as_a_whole_or_not_at_all() {
    databases(Workload::Load);
}

#[test]
fn replicas_show_what_happened_and_take_over() {
    databases(Workload::Replicas);
}

/// Beyond the promise a volume may stop, and must not lie: what it told is checked all the same.
#[test]
fn beyond_the_promise_nothing_is_told_that_is_not_so() {
    for seed in 0..4 {
        for kind in [Kind::Pages, Kind::Database(Workload::Append)] {
            run(Config {
                beyond: true,
                ..Config::of(seed, kind)
            });
        }
    }
}

#[test]
fn one_seed_is_one_history() {
    for kind in Kind::all() {
        let [a, b] = [3, 3].map(|seed| World::run(Config::of(seed, kind)));
        assert_eq!(
            (a.hash, a.events, a.numbered),
            (b.hash, b.events, b.numbered),
            "{kind:?}"
        );
        assert_ne!(a.hash, World::run(Config::of(4, kind)).hash, "{kind:?}");
    }
}
