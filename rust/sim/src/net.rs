//! The network of a world: it delays, reorders, repeats and loses, and it can cut a node off.

use aurora_proto::{NodeId, NodeSet};

use crate::rng::Rng;

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub struct NetConfig {
    /// Shortest delay.
    pub delay_us_min: u64,
    /// Longest ordinary delay; some messages take ten times as long.
    pub delay_us_max: u64,
    /// Lost messages in a thousand.
    pub loss: u32,
    /// Messages in a thousand that arrive twice.
    pub duplicates: u32,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    rng: Rng,
    config: NetConfig,
    cut_off: NodeSet,
}

impl Net {
    /// A network where everybody can be reached.
    pub fn new(rng: Rng, config: NetConfig) -> Net {
        Net {
            rng,
            config,
            cut_off: NodeSet::EMPTY,
        }
    }

    /// Cuts a node off, or lets it back in.
    pub fn cut(&mut self, node: NodeId, off: bool) {
        if off {
            self.cut_off.insert(node)
        } else {
            self.cut_off.remove(node)
        };
    }

    /// Lets everybody back in.
    pub fn heal(&mut self) {
        self.cut_off = NodeSet::EMPTY;
    }

    /// Is the node cut off?
    pub fn is_cut(&self, node: NodeId) -> bool {
        self.cut_off.contains(node)
    }

    /// When a message to or from `node` arrives: not at all, once, or twice.
    pub fn arrivals(&mut self, node: NodeId) -> Vec<u64> {
        if self.cut_off.contains(node) || self.rng.chance(self.config.loss) {
            return Vec::new();
        }
        let copies = if self.rng.chance(self.config.duplicates) {
            2
        } else {
            1
        };
        (0..copies).map(|_| self.delay()).collect()
    }

    fn delay(&mut self) -> u64 {
        let NetConfig {
            delay_us_min,
            delay_us_max,
            ..
        } = self.config;
        let delay = self.rng.between(delay_us_min, delay_us_max);
        if self.rng.chance(20) {
            delay * 10
        } else {
            delay
        }
    }
}
