//! Decisions about backups: which objects a moment needs, when a base is due, what is merged, what may be deleted.
//!
//! A backup is *bases* (every layer that one complete node had) and *log ranges* (every record with an LSN in `(from, to]`). A moment
//! is a History and an LSN in it. See `docs/design/backup.md`.

use std::collections::BTreeSet;

use aurora_page::Lsn;
use aurora_redo::{History, Interval};

/// Days that a backup reaches back, at least.
pub const RETENTION_DAYS_MIN: u32 = 1;
/// Days that a backup reaches back, at most: as in Aurora.
pub const RETENTION_DAYS_MAX: u32 = 35;
/// A new base is due when the log since the last one is more than this many percent of it.
const LOG_PERCENT: u64 = 100;
/// With less log than this no base is worth its while, however small the last one was.
const LOG_BYTES_MIN: u64 = 64 << 20;
/// A new base is due after this time in any case, if there was anything since.
const BASE_EVERY_US: i64 = 24 * 3600 * 1_000_000;
/// Ranges of one level that become one of the next.
pub const FAN_IN: usize = 32;
/// The highest level of a range.
pub const LEVEL_MAX: u8 = 2;
/// Ranges are not merged into larger ones.
pub const RANGE_BYTES_MAX: u64 = 64 << 20;
const DAY_US: i64 = 24 * 3600 * 1_000_000;

/// A History and when it was the one that counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Era {
    /// What had happened.
    pub history: History,
    /// When it became the present one.
    pub since_us: i64,
    /// When it was left; none of the present one.
    pub until_us: Option<i64>,
}

/// What is to be known of a base.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseFacts {
    /// Its number.
    pub id: u64,
    /// Its layers have everything up to here.
    pub lsn: Lsn,
    /// Below it versions may be missing.
    pub floor: Lsn,
    /// The Histories that were kept when it was taken.
    pub histories: Vec<History>,
    /// When it was taken.
    pub taken_us: i64,
    /// Bytes of its objects.
    pub bytes: u64,
}

/// What is to be known of a log range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeFacts {
    /// Its records are above it.
    pub from: Lsn,
    /// And at or below it.
    pub to: Lsn,
    /// The time of its first commit, 0 without one.
    pub first_us: i64,
    /// The time of its last commit, 0 without one.
    pub last_us: i64,
    /// Bytes of its object.
    pub bytes: u64,
    /// How often its records were merged.
    pub level: u8,
}

/// What a moment is made from: indexes of what was handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The base.
    pub base: usize,
    /// The ranges on top of it, ascending.
    pub ranges: Vec<usize>,
}

/// Why a moment cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lacks {
    /// No base reaches it, or none is left that does.
    Base,
    /// Log above the first and up to the second.
    Log(Lsn, Lsn),
}

/// Does a base have everything of `history` up to `at` that was before it was taken?
pub fn serves(base: &BaseFacts, history: &History, at: Lsn) -> bool {
    let newest = history.floor(at.min(base.lsn));
    let ends_there = |kept: &&History| kept.intervals().last().map(|i| i.last) == Some(newest);
    let wanted = history.clip(newest);
    let kept = base.histories.iter().filter(|kept| kept.includes(&wanted));
    serves_from(base, history, at) || !newest.is_none() && kept.into_iter().any(|k| ends_there(&k))
}

/// Does it have that of `at` and of all moments of `history` after it? A snapshot's History that ends at `at` gives that one alone.
fn serves_from(base: &BaseFacts, history: &History, at: Lsn) -> bool {
    let newest = history.floor(at.min(base.lsn));
    if newest.is_none() {
        return base.floor.is_none();
    }
    let wanted = history.clip(newest);
    newest >= base.floor && base.histories.iter().any(|kept| kept.includes(&wanted))
}

/// The first stretch of a History in `(after, upto]` that no range covers. Ranges ascend by `from`.
pub fn uncovered(
    ranges: &[RangeFacts],
    history: &History,
    after: Lsn,
    upto: Lsn,
) -> Option<(Lsn, Lsn)> {
    for Interval { first, last, .. } in history.intervals() {
        let (mut done, last) = (first.prev().max(after), (*last).min(upto));
        for range in ranges {
            if range.from <= done && range.to > done {
                done = range.to;
            }
        }
        if done < last {
            return Some((done, last));
        }
    }
    None
}

/// What a moment is made from. `ranges` ascend by `from`.
pub fn parts(
    bases: &[BaseFacts],
    ranges: &[RangeFacts],
    history: &History,
    at: Lsn,
) -> Result<Parts, Lacks> {
    parts_of(bases, ranges, history, at, serves)
}

fn parts_of(
    bases: &[BaseFacts],
    ranges: &[RangeFacts],
    history: &History,
    at: Lsn,
    serves: impl Fn(&BaseFacts, &History, Lsn) -> bool,
) -> Result<Parts, Lacks> {
    let mut lacks = Lacks::Base;
    let mut able: Vec<usize> = (0..bases.len())
        .filter(|&i| serves(&bases[i], history, at))
        .collect();
    able.sort_by_key(|&i| std::cmp::Reverse((bases[i].lsn, bases[i].id)));
    for base in able {
        let after = bases[base].lsn;
        match uncovered(ranges, history, after, at) {
            Some((from, to)) => lacks = Lacks::Log(from, to),
            None => {
                let used = |range: &RangeFacts| {
                    range.to > after && range.from < at && touches(history, range)
                };
                let ranges = (0..ranges.len()).filter(|&i| used(&ranges[i])).collect();
                return Ok(Parts { base, ranges });
            }
        }
    }
    Err(lacks)
}

/// Might a range hold anything of a History?
fn touches(history: &History, range: &RangeFacts) -> bool {
    let overlaps = |i: &&Interval| i.first <= range.to && i.last > range.from;
    history.intervals().iter().any(|i| overlaps(&i))
}

/// Is it time for another base? `log_bytes` came since the last one.
pub fn base_is_due(last: Option<&BaseFacts>, log_bytes: u64, now_us: i64) -> bool {
    let Some(last) = last else { return true };
    let outweighs = log_bytes > LOG_BYTES_MIN.max(last.bytes / 100 * LOG_PERCENT);
    let old = now_us.saturating_sub(last.taken_us) >= BASE_EVERY_US;
    outweighs || (old && log_bytes > 0)
}

/// Adjacent ranges of one level that are to become one of the next; none where there are too few. `ranges` ascend by `from`.
pub fn mergeable(ranges: &[RangeFacts]) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    let mut bytes = 0;
    for (i, range) in ranges.iter().enumerate() {
        let follows =
            i > start && ranges[i - 1].to == range.from && ranges[start].level == range.level;
        if i > start && (!follows || bytes + range.bytes > RANGE_BYTES_MAX) {
            start = i;
        }
        if i == start {
            bytes = 0;
        }
        bytes += range.bytes;
        if ranges[start].level < LEVEL_MAX && i + 1 - start >= FAN_IN {
            return Some(start..i + 1);
        }
    }
    None
}

/// The eras as they are known now: those that were known before, and what the cluster says of its Histories.
pub fn eras(known: &[Era], abandoned: &[Era], present: &Era) -> Vec<Era> {
    let mut all: Vec<Era> = Vec::new();
    let said = |era: &&Era| {
        abandoned
            .iter()
            .chain([present])
            .any(|now| now.since_us == era.since_us)
    };
    all.extend(known.iter().filter(|era| !said(era)).cloned());
    all.extend(abandoned.iter().cloned());
    all.push(present.clone());
    all.sort_by_key(|era| era.since_us);
    // One that the cluster has forgotten since was left when the next one began.
    for i in 0..all.len().saturating_sub(1) {
        let next = all[i + 1].since_us;
        all[i].until_us.get_or_insert(next);
    }
    all
}

/// The era that a time lies in.
pub fn era_at(eras: &[Era], time_us: i64) -> Option<&Era> {
    let holds =
        |era: &&Era| time_us >= era.since_us && era.until_us.is_none_or(|until| time_us < until);
    eras.iter().rev().find(holds).or_else(|| eras.first())
}

/// What a backup must be able to give back besides everything newer: moments, each a History and an LSN in it.
pub fn points(
    eras: &[Era],
    ranges: &[RangeFacts],
    snapshots: &[(History, Lsn)],
    now_us: i64,
    retention_days: u32,
) -> Vec<(History, Lsn)> {
    let start_us = now_us.saturating_sub(i64::from(retention_days) * DAY_US);
    // Before the window by as much as ranges are coarse.
    let before = ranges
        .iter()
        .rev()
        .find(|range| range.last_us != 0 && range.last_us < start_us);
    let start = before.map_or(Lsn::NONE, |range| range.to);
    let mut points = Vec::new();
    let mut last: Option<&Era> = None;
    for era in eras {
        let over = era.until_us.is_some_and(|until| until <= start_us);
        if !over {
            let begun = last.filter(|_| era.since_us > start_us);
            let lsn = begun.map_or(start, |last| last.history.common_prefix(&era.history));
            points.push((era.history.clone(), lsn));
        }
        last = Some(era);
    }
    points.extend(snapshots.iter().cloned());
    points
}

/// What is kept: ids of bases and places of ranges.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keep {
    /// Bases, by id.
    pub bases: BTreeSet<u64>,
    /// Ranges, by where they are in what was handed in.
    pub ranges: BTreeSet<usize>,
}

/// What must be kept for these moments, the last of them `snapshots`, and for everything after the others.
pub fn keep(
    bases: &[BaseFacts],
    ranges: &[RangeFacts],
    points: &[(History, Lsn)],
    snapshots: usize,
) -> Keep {
    let mut keep = Keep::default();
    let window = &points[..points.len().saturating_sub(snapshots)];
    let start = window
        .iter()
        .map(|(_, lsn)| *lsn)
        .min()
        .unwrap_or(Lsn::NONE);
    keep.bases.extend(
        bases
            .iter()
            .filter(|base| base.lsn >= start)
            .map(|base| base.id),
    );
    let newer = |i: &usize| ranges[*i].to > start;
    keep.ranges.extend((0..ranges.len()).filter(newer));
    // A moment from before the backup began cannot be given back, whatever is kept.
    let mut needs = |parts: Result<Parts, Lacks>| {
        if let Ok(parts) = parts {
            keep.bases.insert(bases[parts.base].id);
            keep.ranges.extend(parts.ranges);
        }
    };
    for (history, lsn) in points {
        needs(parts(bases, ranges, history, *lsn));
    }
    // The moments that follow, too: a base that knows the beginning of the window only as a snapshot knows none of them.
    for (history, lsn) in window {
        needs(parts_of(bases, ranges, history, *lsn, serves_from));
    }
    keep
}

#[cfg(test)]
mod tests {
    use aurora_page::VolumeId;

    use super::*;

    const A: VolumeId = VolumeId(7);

    fn base(id: u64, lsn: u64, floor: u64, history: &History) -> BaseFacts {
        BaseFacts {
            id,
            lsn: Lsn(lsn),
            floor: Lsn(floor),
            histories: vec![history.clone()],
            taken_us: lsn as i64,
            bytes: 100,
        }
    }

    fn range(from: u64, to: u64) -> RangeFacts {
        RangeFacts {
            from: Lsn(from),
            to: Lsn(to),
            first_us: from as i64 + 1,
            last_us: to as i64,
            bytes: 10,
            level: 0,
        }
    }

    #[test]
    fn a_moment_is_the_newest_base_that_serves_it_and_the_log_since() {
        let h = History::new(A);
        let bases = [base(1, 100, 0, &h), base(2, 300, 250, &h)];
        let ranges = [range(100, 200), range(200, 300), range(300, 400)];
        let of = |at| parts(&bases, &ranges, &h, Lsn(at));
        assert_eq!(
            of(350),
            Ok(Parts {
                base: 1,
                ranges: vec![2]
            })
        );
        assert_eq!(
            of(300),
            Ok(Parts {
                base: 1,
                ranges: vec![]
            })
        );
        assert_eq!(
            of(260),
            Ok(Parts {
                base: 1,
                ranges: vec![]
            }),
            "versions are in the base"
        );
        assert_eq!(
            of(249),
            Ok(Parts {
                base: 0,
                ranges: vec![0, 1]
            }),
            "and below its floor not"
        );
        assert_eq!(
            of(50),
            Ok(Parts {
                base: 0,
                ranges: vec![]
            })
        );
        assert_eq!(of(401), Err(Lacks::Log(Lsn(400), Lsn(401))));
        assert_eq!(parts(&bases[1..], &ranges, &h, Lsn(200)), Err(Lacks::Base));
    }

    #[test]
    fn a_hole_in_the_log_is_named() {
        let h = History::new(A);
        let bases = [base(1, 100, 0, &h)];
        let ranges = [range(100, 200), range(220, 300)];
        assert_eq!(
            parts(&bases, &ranges, &h, Lsn(250)),
            Err(Lacks::Log(Lsn(200), Lsn(250)))
        );
        assert!(parts(&bases, &ranges, &h, Lsn(200)).is_ok());
    }

    #[test]
    fn a_backtrack_leaves_log_that_the_new_branch_does_not_need() {
        let before = History::new(A);
        let left = before.clip(Lsn(400));
        let after = left.branch_past(Lsn(150), Lsn(400), A, 1000);
        let bases = [base(1, 100, 0, &before), base(2, 300, 120, &before)];
        let ranges = [
            range(100, 200),
            range(200, 300),
            range(300, 400),
            range(400, 1500),
        ];
        assert_eq!(
            parts(&bases, &ranges, &after, Lsn(1450)),
            Ok(Parts {
                base: 1,
                ranges: vec![3]
            }),
            "the newer base has all up to where it branched"
        );
        let high = [base(1, 100, 0, &before), base(2, 300, 160, &before)];
        assert_eq!(
            parts(&high, &ranges, &after, Lsn(1450)),
            Ok(Parts {
                base: 0,
                ranges: vec![0, 3]
            }),
            "unless that was collected: then the older one and the log up to there"
        );
        assert_eq!(
            parts(&bases, &ranges, &left, Lsn(400)),
            Ok(Parts {
                base: 1,
                ranges: vec![2]
            }),
            "and what was left can be gone back to"
        );
    }

    #[test]
    fn a_snapshot_below_the_floor_is_served_by_a_base_that_kept_it() {
        let h = History::new(A);
        let mut kept = base(2, 900, 800, &h);
        kept.histories.push(h.clip(Lsn(300)));
        assert!(serves(&kept, &h.clip(Lsn(300)), Lsn(300)));
        assert!(!serves(&kept, &h.clip(Lsn(299)), Lsn(299)));
    }

    #[test]
    fn ranges_of_one_level_become_one() {
        let n = FAN_IN as u64;
        let ranges: Vec<_> = (0..n).map(|i| range(i * 10, i * 10 + 10)).collect();
        assert_eq!(mergeable(&ranges), Some(0..FAN_IN));
        assert_eq!(mergeable(&ranges[1..]), None);
        let mut gap = ranges.clone();
        gap[5].from = Lsn(51);
        assert_eq!(mergeable(&gap), None);
        let mut high = ranges.clone();
        high.iter_mut().for_each(|range| range.level = LEVEL_MAX);
        assert_eq!(mergeable(&high), None);
        let mut large = ranges;
        large[0].bytes = RANGE_BYTES_MAX;
        assert_eq!(mergeable(&large), None);
    }

    #[test]
    fn a_base_is_due_when_the_log_outweighs_it_or_after_a_day() {
        let h = History::new(A);
        let last = base(1, 10, 0, &h);
        assert!(base_is_due(None, 0, 0));
        assert!(!base_is_due(Some(&last), 1, 20));
        assert!(base_is_due(Some(&last), LOG_BYTES_MIN + 1, 20));
        assert!(base_is_due(Some(&last), 1, 10 + DAY_US));
        assert!(
            !base_is_due(Some(&last), 0, 10 + DAY_US),
            "nothing has happened since"
        );
        let large = BaseFacts {
            bytes: 1 << 40,
            ..last
        };
        assert!(!base_is_due(Some(&large), LOG_BYTES_MIN + 1, 20));
    }

    #[test]
    fn eras_outlive_what_the_cluster_remembers() {
        let era = |since_us, until_us| Era {
            history: History::new(A),
            since_us,
            until_us,
        };
        let known = [era(1, Some(5)), era(5, None)];
        let now = eras(&known, &[], &era(9, None));
        let spans: Vec<_> = now.iter().map(|e| (e.since_us, e.until_us)).collect();
        assert_eq!(spans, [(1, Some(5)), (5, Some(9)), (9, None)]);
        assert_eq!(era_at(&now, 8).map(|e| e.since_us), Some(5));
        assert_eq!(era_at(&now, 9).map(|e| e.since_us), Some(9));
        assert_eq!(era_at(&now, 0).map(|e| e.since_us), Some(1));
    }
}
