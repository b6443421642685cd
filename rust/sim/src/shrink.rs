//! A failing world made smaller: as few faults as possible, and an early end.
//!
//! What goes wrong is drawn in order from one generator, so a world with fewer faults begins like the whole one. The fewest faults that
//! still fail are found by halving; the same for the time at which faults end.

use crate::config::Config;
use crate::report::Report;
use crate::world::World;

/// Runs at most so many worlds to find a smaller one.
const TRIES: u32 = 24;

/// The smallest failing world that was found, with its report, and how many worlds were run.
pub fn shrink(config: &Config, report: Report) -> (Config, Report, u32) {
    let mut best = (config.clone(), report, 0);
    best.0.faults_max = best.0.faults_max.min(best.1.faults);
    let mut low = 0;
    while low < best.0.faults_max && best.2 < TRIES / 2 {
        let faults_max = low + (best.0.faults_max - low) / 2;
        let with = Config {
            faults_max,
            ..best.0.clone()
        };
        if !attempt(&mut best, with) {
            low = faults_max + 1;
        }
    }
    let mut low = 0;
    best.0.end_us = best.0.end_us.min(best.1.now_us);
    while best.0.end_us - low > best.0.end_us / 20 + 1 && best.2 < TRIES {
        let end_us = low + (best.0.end_us - low) / 2;
        let with = Config {
            end_us,
            ..best.0.clone()
        };
        if !attempt(&mut best, with) {
            low = end_us;
        }
    }
    best
}

fn attempt(best: &mut (Config, Report, u32), config: Config) -> bool {
    let report = World::run(config.clone());
    best.2 += 1;
    let fails = report.failure.is_some();
    if fails {
        (best.0, best.1) = (config, report);
    }
    fails
}
