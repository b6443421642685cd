//! Worlds with everything that can go wrong, and the promise that it ends well.

use aurora_sim::{Config, World};

#[test]
fn forty_worlds_end_well() {
    let (mut acknowledged, mut opened, mut boots) = (0, 0, 0);
    for seed in 0..40 {
        let report = World::run(Config::draw(seed));
        if let Some((what, trace)) = &report.failure {
            let tail: Vec<&str> = trace.lines().rev().take(60).collect();
            let tail: String = tail.iter().rev().map(|line| format!("{line}\n")).collect();
            panic!(
                "{tail}\nseed {seed}: {what}\n(aurora-sim --seeds {seed} --trace shows all of it)"
            );
        }
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

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 10, 24] {
        let (a, b) = (
            World::run(Config::draw(seed)),
            World::run(Config::draw(seed)),
        );
        assert_eq!(
            (a.hash, a.events, a.numbered),
            (b.hash, b.events, b.numbered),
            "seed {seed}"
        );
    }
    assert_ne!(
        World::run(Config::draw(3)).hash,
        World::run(Config::draw(4)).hash
    );
}
