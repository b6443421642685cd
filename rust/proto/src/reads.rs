//! Which copy a read goes to: the fastest, another one now and then, and a second one when the first is late.
//!
//! One read goes to one copy, and a quorum is read only in recovery. Latency per node is tracked as a moving mean and a
//! 95th percentile of the latest answers. Time is an argument; nothing here waits.

use aurora_page::Lsn;

use crate::quorum::{NodeId, NodeSet};

/// Answers that the percentile looks at.
const SAMPLES: usize = 64;
/// The percentile is computed again after so many answers.
const REFRESH: u32 = 16;
/// Weight of the newest answer in the mean, as a power of two.
const MEAN_SHIFT: u32 = 3;
/// A hedge is never sent earlier than this.
const HEDGE_US_MIN: u64 = 200;
/// The hedge of a node that nothing is known of.
const HEDGE_US_UNKNOWN: u64 = 5_000;
/// What an error counts as, added to the mean.
const ERROR_US: u64 = 10_000;

/// May a copy with this SCL serve a read at `at`, when the newest record of its group that anybody may rely on is
/// `tail`? A group that is idle is always readable.
pub fn serves(scl: Lsn, tail: Lsn, at: Lsn) -> bool {
    scl >= tail.min(at)
}

#[derive(Clone, Debug)]
struct Latency {
    mean_us: u64,
    p95_us: u64,
    samples: [u32; SAMPLES],
    count: u32,
}

impl Latency {
    const UNKNOWN: Latency = Latency {
        mean_us: 0,
        p95_us: HEDGE_US_UNKNOWN,
        samples: [0; SAMPLES],
        count: 0,
    };

    fn add(&mut self, us: u64) {
        self.samples[self.count as usize % SAMPLES] = u32::try_from(us).unwrap_or(u32::MAX);
        self.mean_us = match self.count {
            0 => us,
            _ => self.mean_us - (self.mean_us >> MEAN_SHIFT) + (us >> MEAN_SHIFT),
        };
        self.count = match self.count.checked_add(1) {
            Some(count) => count,
            None => SAMPLES as u32,
        };
        if self.count.is_multiple_of(REFRESH) {
            self.p95_us = self.percentile();
        }
    }

    fn percentile(&self) -> u64 {
        let n = SAMPLES.min(self.count as usize);
        let mut sorted = self.samples;
        let at = (n * 95 / 100).min(n - 1);
        let (_, value, _) = sorted[..n].select_nth_unstable(at);
        u64::from(*value)
    }
}

/// Chooses copies for reads.
#[derive(Clone, Debug)]
pub struct ReadRouter {
    nodes: Vec<Latency>,
    reads: u64,
    probe_every: u64,
}

impl ReadRouter {
    /// A router that sends every n-th read to another copy than the fastest, to notice when that has become faster.
    pub fn new(probe_every: u64) -> ReadRouter {
        let nodes = vec![Latency::UNKNOWN; usize::from(NodeId::LIMIT)];
        ReadRouter {
            nodes,
            reads: 0,
            probe_every: probe_every.max(2),
        }
    }

    /// The copy to read from, of those that can serve the read. A copy that was never asked is asked first.
    pub fn choose(&mut self, candidates: NodeSet) -> Option<NodeId> {
        self.reads = self.reads.wrapping_add(1);
        let fastest = candidates
            .iter()
            .min_by_key(|node| self.latency(*node).mean_us)?;
        if !self.reads.is_multiple_of(self.probe_every) {
            return Some(fastest);
        }
        let others = candidates.without(fastest);
        let turn = (self.reads / self.probe_every) as usize % others.len().max(1);
        Some(others.iter().nth(turn).unwrap_or(fastest))
    }

    /// The next copy to ask when `asked` have been asked and did not answer in time, or failed.
    pub fn choose_other(&self, candidates: NodeSet, asked: NodeSet) -> Option<NodeId> {
        candidates
            .difference(asked)
            .iter()
            .min_by_key(|node| self.latency(*node).mean_us)
    }

    /// After how long without an answer a second copy should be asked: the 95th percentile of this one.
    pub fn hedge_after_us(&self, node: NodeId) -> u64 {
        self.latency(node).p95_us.max(HEDGE_US_MIN)
    }

    /// A copy answered after this long.
    pub fn on_reply(&mut self, node: NodeId, us: u64) {
        if let Some(latency) = self.nodes.get_mut(usize::from(node.0)) {
            latency.add(us);
        }
    }

    /// A copy failed: it looks slow until it has answered a few times.
    pub fn on_error(&mut self, node: NodeId) {
        if let Some(latency) = self.nodes.get_mut(usize::from(node.0)) {
            let us = latency.mean_us.saturating_mul(2).saturating_add(ERROR_US);
            latency.mean_us = us;
            latency.count = latency.count.max(1);
        }
    }

    /// The moving mean of a copy's answers, 0 if it was never asked.
    pub fn mean_us(&self, node: NodeId) -> u64 {
        self.latency(node).mean_us
    }

    fn latency(&self, node: NodeId) -> &Latency {
        self.nodes
            .get(usize::from(node.0))
            .unwrap_or(&Latency::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u16]) -> NodeSet {
        ids.iter().map(|&id| NodeId(id)).collect()
    }

    #[test]
    fn the_fastest_is_chosen_and_others_are_probed_in_turn() {
        let mut router = ReadRouter::new(10);
        for (node, us) in [(0, 300), (1, 100), (2, 500)] {
            (0..20).for_each(|_| router.on_reply(NodeId(node), us));
        }
        let chosen: Vec<u16> = (0..40)
            .map(|_| router.choose(set(&[0, 1, 2])).unwrap().0)
            .collect();
        assert_eq!(chosen.iter().filter(|&&n| n == 1).count(), 36);
        assert!(chosen.contains(&0) && chosen.contains(&2));
    }

    #[test]
    fn the_unknown_is_asked_first_and_the_failing_is_left() {
        let mut router = ReadRouter::new(1000);
        router.on_reply(NodeId(0), 100);
        assert_eq!(router.choose(set(&[0, 1])), Some(NodeId(1)));
        router.on_error(NodeId(1));
        assert_eq!(router.choose(set(&[0, 1])), Some(NodeId(0)));
        assert_eq!(
            router.choose_other(set(&[0, 1]), set(&[0])),
            Some(NodeId(1))
        );
        assert_eq!(router.choose(NodeSet::EMPTY), None);
        assert_eq!(router.choose_other(set(&[0]), set(&[0])), None);
    }

    #[test]
    fn the_hedge_follows_the_percentile() {
        let mut router = ReadRouter::new(10);
        assert_eq!(router.hedge_after_us(NodeId(5)), HEDGE_US_UNKNOWN);
        for i in 0..64 {
            router.on_reply(NodeId(5), if i % 10 == 0 { 9_000 } else { 300 });
        }
        assert_eq!(router.hedge_after_us(NodeId(5)), 9_000);
        (0..64).for_each(|_| router.on_reply(NodeId(5), 100));
        assert_eq!(router.hedge_after_us(NodeId(5)), HEDGE_US_MIN);
        assert!(router.mean_us(NodeId(5)) < 200);
    }

    #[test]
    fn an_idle_group_is_readable() {
        assert!(serves(Lsn(7), Lsn(7), Lsn(104)));
        assert!(!serves(Lsn(101), Lsn(103), Lsn(104)));
        assert!(serves(Lsn(104), Lsn(110), Lsn(104)));
    }
}
