//! Worlds that once failed, or never ended: they end well now, and keep doing so.
//!
//! What a seed means changes whenever anything draws one random number more, so each story has a test of its own too, in the
//! crate where the mistake was. These worlds remain because what was hard to reach once often lies near something else.

use aurora_sim::{Config, Kind, Workload, World};

struct Past {
    kind: Kind,
    seed: u64,
    /// As `--faults` and `--end` told when the world was made smaller.
    faults: Option<u64>,
    end_us: Option<u64>,
    /// What went wrong.
    story: &'static str,
}

const fn database(workload: Workload, seed: u64, story: &'static str) -> Past {
    Past {
        kind: Kind::Database(workload),
        seed,
        faults: None,
        end_us: None,
        story,
    }
}

const CORPUS: &[Past] = &[
    database(
        Workload::Indexes,
        117,
        "a hydration was interrupted, and hundreds of gaps below the floor were each answered with a whole group",
    ),
    database(
        Workload::Register,
        37,
        "a damaged copy was mended by a peer that had installed a later epoch and lacked records of the one before",
    ),
    database(
        Workload::Load,
        51,
        "a blob that a peer gave under an old epoch was collected before the reference to it came",
    ),
    database(
        Workload::Load,
        62,
        "the head of a blob was damaged on disk, and every scrub looked at the one in memory",
    ),
    database(
        Workload::Load,
        71,
        "whole groups are given to copies that lack blobs, more than the bound of other worlds",
    ),
    database(
        Workload::Load,
        300_034,
        "a sweep of a small cache read extent maps in turn without end: what it had fetched went with the step before it",
    ),
    Past {
        faults: Some(10),
        end_us: Some(12_500_000),
        ..database(
            Workload::Indexes,
            117,
            "the same, with as few faults as it takes",
        )
    },
];

#[test]
fn what_failed_once_ends_well() {
    for past in CORPUS {
        let drawn = Config::of(past.seed, past.kind);
        let config = Config {
            faults_max: past.faults.unwrap_or(drawn.faults_max),
            end_us: past.end_us.unwrap_or(drawn.end_us),
            ..drawn
        };
        let report = World::run(config);
        assert_eq!(
            report.failure,
            None,
            "{} {}: {}",
            past.kind.name(),
            past.seed,
            past.story
        );
        assert!(
            report.acknowledged > 0 && report.opened > 0,
            "{} {} proves nothing",
            past.kind.name(),
            past.seed
        );
    }
}
