//! What reaches a node while faults are on. Nothing is on: one atomic load.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Nothing reaches the node, and it answers nobody.
const AWAY: u8 = 1;
/// The same for a moment: nobody takes it for gone.
const STALLED: u8 = 2;
/// It takes nothing, and answers.
const SHUT: u8 = 4;
/// Some of what is sent fails or comes late.
const ROUGH: u8 = 8;

/// How a node is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) away: bool,
    pub(crate) stalled: bool,
    pub(crate) full: bool,
    pub(crate) percent: u8,
    pub(crate) delay: Option<(Duration, Duration)>,
}

impl Condition {
    fn flags(&self) -> u8 {
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        flag(self.away, AWAY)
            | flag(self.stalled, STALLED)
            | flag(self.full || self.percent >= 100, SHUT)
            | flag(self.percent > 0 || self.delay.is_some(), ROUGH)
    }
}

/// The faults on a node's way.
#[derive(Default)]
pub(crate) struct Gate {
    flags: AtomicU8,
    condition: Mutex<Condition>,
}

impl Gate {
    /// True when nothing was changed.
    pub(crate) fn set(&self, condition: Condition) -> bool {
        let mut place = self.condition.lock();
        self.flags.store(condition.flags(), Ordering::Release);
        std::mem::replace(&mut *place, condition) == condition
    }

    fn has(&self, flags: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flags != 0
    }

    /// Whether any fault is on.
    pub(crate) fn is_on(&self) -> bool {
        self.has(u8::MAX)
    }

    /// Whether it answers nobody.
    pub(crate) fn is_cut(&self) -> bool {
        self.has(AWAY | STALLED)
    }

    /// Whether it gets nothing for now, and is not missed.
    pub(crate) fn is_stalled(&self) -> bool {
        self.has(STALLED)
    }

    /// Whether it gets nothing for as long as can be seen: a quorum is counted without it.
    pub(crate) fn is_closed(&self) -> bool {
        self.has(AWAY | SHUT)
    }

    /// What is sent fails or comes late, where some of it does.
    pub(crate) fn rough(&self) -> Option<Condition> {
        self.has(ROUGH).then(|| *self.condition.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_says_what_its_condition_means() {
        let gate = Gate::default();
        assert!(!gate.is_on() && gate.rough().is_none());
        let with = |condition| {
            gate.set(condition);
            (gate.is_cut(), gate.is_closed(), gate.rough().is_some())
        };
        let none = Condition::default();
        assert_eq!(with(Condition { away: true, ..none }), (true, true, false));
        assert_eq!(
            with(Condition {
                stalled: true,
                ..none
            }),
            (true, false, false)
        );
        assert_eq!(with(Condition { full: true, ..none }), (false, true, false));
        assert_eq!(
            with(Condition {
                percent: 30,
                ..none
            }),
            (false, false, true)
        );
        assert_eq!(
            with(Condition {
                percent: 100,
                ..none
            }),
            (false, true, true)
        );
        assert!(!gate.set(none) && gate.set(none) && !gate.is_on());
    }
}
