//! What a volume regards as having happened.
//!
//! A record is (origin, LSN) for ever. It *counts* for a volume if its place is in the volume's [`History`]:
//! intervals of LSNs, each of one origin volume, ascending and without overlap. Written `a[1..104] a[205..)`.
//!
//! ```text
//!   crash recovery at VDL 104, window 100
//!   before   a[1 ........................)
//!   after    a[1 .. 104]      a[205 ......)      105..204 may have been given out: they are never given again
//! ```
//!
//! One operation serves crash recovery, backtrack, clone and restore [3]: [`History::branch`].

use std::fmt;

use aurora_page::{Lsn, VolumeId};

use crate::RedoError;
use crate::varint::{Reader, put_u64};

/// LSNs `first..=last` of one origin volume; `last` is [`Lsn::MAX`] while the interval is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval {
    /// The volume whose writer gave the LSNs.
    pub origin: VolumeId,
    /// First LSN of the interval.
    pub first: Lsn,
    /// Last LSN of the interval, or [`Lsn::MAX`].
    pub last: Lsn,
}

impl Interval {
    /// Is the writer still adding to it?
    pub fn is_open(&self) -> bool {
        self.last == Lsn::MAX
    }
}

/// Intervals, ascending and without overlap; only the last one may be open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History(Vec<Interval>);

impl History {
    /// The History of a new volume: everything from LSN 1 on, of its own origin.
    pub fn new(origin: VolumeId) -> Self {
        History(vec![Interval {
            origin,
            first: Lsn(1),
            last: Lsn::MAX,
        }])
    }

    /// Builds a History from intervals, checking that they ascend without overlap.
    pub fn from_intervals(intervals: Vec<Interval>) -> Result<Self, RedoError> {
        let mut above = Lsn::NONE;
        for interval in &intervals {
            check(
                above < interval.first,
                "first LSN",
                "above the interval before",
                interval.first,
            )?;
            check(
                interval.first <= interval.last,
                "last LSN",
                "at least the first LSN",
                interval.last,
            )?;
            above = interval.last;
        }
        Ok(History(intervals))
    }

    /// The intervals, oldest first.
    pub fn intervals(&self) -> &[Interval] {
        &self.0
    }

    /// Did the record `lsn` of `origin` happen?
    #[inline]
    pub fn contains(&self, origin: VolumeId, lsn: Lsn) -> bool {
        // Nearly every question is about the newest interval.
        match self.0.last() {
            Some(last) if lsn >= last.first => last.origin == origin && lsn <= last.last,
            _ => self.origin_of(lsn) == Some(origin),
        }
    }

    /// Whose record `lsn` is, if that LSN happened at all.
    pub fn origin_of(&self, lsn: Lsn) -> Option<VolumeId> {
        self.interval_at(lsn).map(|i| i.origin)
    }

    /// First LSN of the last interval: what a writer that has just been opened gives out first.
    pub fn first_new_lsn(&self) -> Lsn {
        self.0.last().map_or(Lsn(1), |i| i.first)
    }

    /// The largest LSN of the History that is `<= lsn`; [`Lsn::NONE`] if there is none.
    pub fn floor(&self, lsn: Lsn) -> Lsn {
        let below = self.0.partition_point(|i| i.first <= lsn);
        below
            .checked_sub(1)
            .map_or(Lsn::NONE, |i| self.0[i].last.min(lsn))
    }

    /// The smallest LSN of the History that is `> lsn`: LSNs are dense within an interval [2].
    pub fn next_after(&self, lsn: Lsn) -> Option<Lsn> {
        let at = self.0.partition_point(|i| i.last <= lsn);
        self.0.get(at).map(|i| i.first.max(lsn.next()))
    }

    /// The History up to and with `upto`, and nothing open.
    pub fn clip(&self, upto: Lsn) -> History {
        let kept = self.0.iter().take_while(|i| i.first <= upto);
        History(
            kept.map(|i| Interval {
                last: i.last.min(upto),
                ..*i
            })
            .collect(),
        )
    }

    /// Keeps the History up to `at` and goes on under `new_origin`, above every LSN that can have been given out [3].
    ///
    /// This is the form for crash recovery (`at` = VDL), clone and restore; where the volume has gone further than
    /// `at`, as with backtrack, use [`History::branch_past`].
    pub fn branch(&self, at: Lsn, new_origin: VolumeId, window: u64) -> History {
        self.branch_past(at, at, new_origin, window)
    }

    /// As [`History::branch`], for a volume whose present History has reached `past` (its VDL, or the LSN before the
    /// first of its last interval if that is more): backtrack, and forward again from an abandoned History.
    ///
    /// The writer of the last interval gave out at most `window` LSNs above its VDL, or above its start while it had
    /// none, so the new interval begins at `max(at, past, start - 1) + window + 1` and no LSN is given twice. Under a
    /// new origin the old writer's LSNs cannot collide, and the start of its last interval does not matter.
    pub fn branch_past(&self, at: Lsn, past: Lsn, new_origin: VolumeId, window: u64) -> History {
        let mut kept = self.clip(at);
        let given = match self.0.last() {
            Some(last) if last.origin == new_origin => last.first.0.saturating_sub(1),
            _ => 0,
        };
        let base = self.floor(at).0.max(past.0).max(given);
        let first = Lsn(base.saturating_add(window).saturating_add(1));
        kept.0.push(Interval {
            origin: new_origin,
            first,
            last: Lsn::MAX,
        });
        kept
    }

    /// The largest LSN up to which both Histories say the same about every LSN; [`Lsn::MAX`] if they are equal.
    ///
    /// An image's claim that nothing newer exists ends here when it is used under the other History.
    pub fn common_prefix(&self, other: &History) -> Lsn {
        let mut pairs = self.0.iter().zip(&other.0);
        if let Some((a, b)) = pairs.find(|(a, b)| a != b) {
            return if (a.origin, a.first) == (b.origin, b.first) {
                a.last.min(b.last)
            } else {
                a.first.min(b.first).prev()
            };
        }
        let longer = if self.0.len() > other.0.len() {
            self
        } else {
            other
        };
        let shorter = self.0.len().min(other.0.len());
        longer.0.get(shorter).map_or(Lsn::MAX, |i| i.first.prev())
    }

    /// Does every record of `other` count here too?
    pub fn includes(&self, other: &History) -> bool {
        other.0.iter().all(|o| {
            self.interval_at(o.first)
                .is_some_and(|i| i.origin == o.origin && o.last <= i.last)
        })
    }

    fn interval_at(&self, lsn: Lsn) -> Option<&Interval> {
        let below = self.0.partition_point(|i| i.first <= lsn);
        self.0[..below].last().filter(|i| lsn <= i.last)
    }

    /// Bytes of the History: count, then per interval origin, distance from the interval before, length (0 = open).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + 12 * self.0.len());
        put_u64(&mut out, self.0.len() as u64);
        let mut above = Lsn::NONE;
        for i in &self.0 {
            put_u64(&mut out, i.origin.0);
            put_u64(&mut out, i.first.0 - above.0);
            put_u64(
                &mut out,
                if i.is_open() {
                    0
                } else {
                    i.last.0 - i.first.0 + 1
                },
            );
            above = i.last;
        }
        out
    }

    /// Reads what [`History::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, RedoError> {
        let mut reader = Reader::new("History", bytes);
        let count = reader.length()?;
        let mut intervals = Vec::with_capacity(count);
        let mut above = Lsn::NONE;
        for _ in 0..count {
            let origin = VolumeId(reader.u64()?);
            let first = sum("first LSN", above.0, reader.u64()?)?;
            let last = match reader.u64()? {
                0 => Lsn::MAX,
                len => Lsn(sum("last LSN", first, len - 1)?),
            };
            intervals.push(Interval {
                origin,
                first: Lsn(first),
                last,
            });
            above = last;
        }
        reader.finish()?;
        History::from_intervals(intervals)
    }
}

fn sum(field: &'static str, a: u64, b: u64) -> Result<u64, RedoError> {
    a.checked_add(b).ok_or(RedoError::OutOfRange {
        what: "History",
        field,
        got: b,
    })
}

fn check(
    holds: bool,
    field: &'static str,
    expected: &'static str,
    got: Lsn,
) -> Result<(), RedoError> {
    if holds {
        Ok(())
    } else {
        Err(RedoError::Order {
            what: "History",
            field,
            expected,
            got: got.0,
        })
    }
}

/// `a[1..104] a[205..)`: origins in hexadecimal, an open interval with a round bracket.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, i) in self.0.iter().enumerate() {
            let gap = if n == 0 { "" } else { " " };
            write!(f, "{gap}{:x}[{}..", i.origin.0, i.first.0)?;
            if i.is_open() {
                write!(f, ")")?
            } else {
                write!(f, "{}]", i.last.0)?
            }
        }
        Ok(())
    }
}
