//! Random lives of a backup: bases, log, backtracks, collection. After `keep`, whatever is promised can still be made.

use aurora_control::backup::{self, BaseFacts, Era, RangeFacts};
use aurora_page::{Lsn, VolumeId};
use aurora_redo::History;
use proptest::prelude::*;

const WINDOW: u64 = 100;
const DAY_US: i64 = 24 * 3600 * 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// Commits, uploaded as one range, after some hours.
    Log {
        lsns: u64,
        hours: i64,
    },
    /// A base, with versions from so far back.
    Base {
        versions: u64,
    },
    /// Back by so many LSNs.
    Backtrack {
        by: u64,
    },
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..40, 0i64..40).prop_map(|(lsns, hours)| Step::Log { lsns, hours }),
        2 => (0u64..200).prop_map(|versions| Step::Base { versions }),
        1 => (1u64..60).prop_map(|by| Step::Backtrack { by }),
        1 => Just(Step::Snapshot),
    ]
}

struct Life {
    now_us: i64,
    vdl: Lsn,
    /// The end of the log.
    end: Lsn,
    eras: Vec<Era>,
    bases: Vec<BaseFacts>,
    ranges: Vec<RangeFacts>,
    snapshots: Vec<(History, Lsn)>,
    /// Every commit: its History, LSN and time.
    commits: Vec<(History, Lsn, i64)>,
}

impl Life {
    fn new() -> Life {
        let history = History::new(VolumeId(1));
        let first = BaseFacts {
            id: 1,
            lsn: Lsn(1),
            floor: Lsn::NONE,
            histories: vec![history.clone()],
            taken_us: 0,
            bytes: 1,
        };
        Life {
            now_us: 0,
            vdl: Lsn(1),
            end: Lsn(1),
            eras: vec![Era {
                history,
                since_us: 0,
                until_us: None,
            }],
            bases: vec![first],
            ranges: Vec::new(),
            snapshots: Vec::new(),
            commits: Vec::new(),
        }
    }

    fn present(&self) -> History {
        self.eras
            .last()
            .map(|era| era.history.clone())
            .unwrap_or_default()
    }

    fn take(&mut self, step: &Step) {
        let history = self.present();
        match *step {
            Step::Log { lsns, hours } => {
                let first = history.next_after(self.vdl).expect("an open History");
                let first_us = self.now_us + 1;
                self.now_us += hours * 3_600_000_000 + 10;
                self.vdl = Lsn(first.0 + lsns - 1);
                let range = RangeFacts {
                    from: self.end,
                    to: self.vdl,
                    first_us,
                    last_us: self.now_us,
                    bytes: lsns,
                    level: 0,
                };
                self.ranges.push(range);
                self.end = self.vdl;
                self.commits.push((history, self.vdl, self.now_us));
            }
            Step::Base { versions } => {
                // The floor stays below where kept Histories part.
                let parted = self
                    .eras
                    .iter()
                    .map(|era| era.history.common_prefix(&history));
                let lowest = parted.min().unwrap_or(Lsn::MAX);
                let floor = Lsn(self.vdl.0.saturating_sub(versions)).min(lowest);
                let mut histories = vec![history];
                histories.extend(
                    self.eras
                        .iter()
                        .rev()
                        .skip(1)
                        .map(|era| era.history.clone()),
                );
                histories.extend(self.snapshots.iter().map(|(history, _)| history.clone()));
                self.bases.push(BaseFacts {
                    id: self.bases.len() as u64 + 1,
                    lsn: self.vdl,
                    floor,
                    histories,
                    taken_us: self.now_us,
                    bytes: 10,
                });
            }
            Step::Backtrack { by } => {
                let to = history.floor(Lsn(self.vdl.0.saturating_sub(by).max(1)));
                let next = history.branch_past(to, self.vdl, VolumeId(1), WINDOW);
                self.now_us += 1;
                if let Some(last) = self.eras.last_mut() {
                    last.history = history.clip(self.vdl);
                    last.until_us = Some(self.now_us);
                }
                self.eras.push(Era {
                    history: next,
                    since_us: self.now_us,
                    until_us: None,
                });
                self.vdl = to;
            }
            Step::Snapshot => self.snapshots.push((history.clip(self.vdl), self.vdl)),
        }
    }
}

proptest! {
    #[test]
    fn what_is_kept_gives_back_all_that_is_promised(steps in prop::collection::vec(step(), 1..60), days in 1u32..36) {
        let mut life = Life::new();
        for step in &steps {
            life.take(step);
        }
        let possible = |bases: &[BaseFacts], ranges: &[RangeFacts], history: &History, at: Lsn| {
            backup::parts(bases, ranges, history, at).is_ok()
        };
        let start_us = life.now_us - i64::from(days) * DAY_US;
        let promised: Vec<(History, Lsn)> = life
            .commits
            .iter()
            .filter(|(.., time_us)| *time_us >= start_us)
            .map(|(history, lsn, _)| (history.clone(), *lsn))
            .chain(life.snapshots.iter().cloned())
            .filter(|(history, lsn)| possible(&life.bases, &life.ranges, history, *lsn))
            .collect();
        let points = backup::points(&life.eras, &life.ranges, &life.snapshots, life.now_us, days);
        let keep = backup::keep(&life.bases, &life.ranges, &points, life.snapshots.len());
        let bases: Vec<_> = life.bases.iter().filter(|base| keep.bases.contains(&base.id)).cloned().collect();
        let ranges: Vec<_> = keep.ranges.iter().map(|i| life.ranges[*i]).collect();
        for (history, lsn) in promised {
            prop_assert!(possible(&bases, &ranges, &history, lsn), "{history} at {lsn}");
        }
        prop_assert!(possible(&bases, &ranges, &life.present(), life.vdl), "the present");
    }

    #[test]
    fn old_log_goes(count in 50u64..400) {
        let mut life = Life::new();
        for _ in 0..count {
            life.take(&Step::Log { lsns: 10, hours: 12 });
            life.take(&Step::Base { versions: 0 });
        }
        let points = backup::points(&life.eras, &life.ranges, &[], life.now_us, 7);
        let keep = backup::keep(&life.bases, &life.ranges, &points, 0);
        prop_assert!(keep.bases.len() <= 18 && keep.ranges.len() <= 18, "{} bases, {} ranges", keep.bases.len(), keep.ranges.len());
    }
}
