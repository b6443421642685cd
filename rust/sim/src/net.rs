//! The network of a world: it delays, reorders, repeats and loses. Links can be cut in one direction or both, for single nodes, for
//! a zone, or around an instance, and they can be slow.

use std::collections::{BTreeMap, BTreeSet};

use aurora_proto::{NodeId, NodeSet};

use crate::messages::InstanceId;
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

/// Which way a message goes, seen from its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the node.
    In,
    /// From the node.
    Out,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    rng: Rng,
    config: NetConfig,
    cut_in: NodeSet,
    cut_out: NodeSet,
    /// Instances that nobody can reach.
    isolated: BTreeSet<InstanceId>,
    /// Nodes whose links take so many times as long.
    slow: BTreeMap<NodeId, u64>,
}

impl Net {
    /// A network where everybody can be reached.
    pub fn new(rng: Rng, config: NetConfig) -> Net {
        Net {
            rng,
            config,
            cut_in: NodeSet::EMPTY,
            cut_out: NodeSet::EMPTY,
            isolated: BTreeSet::new(),
            slow: BTreeMap::new(),
        }
    }

    /// Cuts a node off, or lets it back in.
    pub fn cut(&mut self, node: NodeId, off: bool) {
        self.cut_way(node, Way::In, off);
        self.cut_way(node, Way::Out, off);
    }

    /// Cuts one direction of a node's links, or mends it.
    pub fn cut_way(&mut self, node: NodeId, way: Way, off: bool) {
        let set = match way {
            Way::In => &mut self.cut_in,
            Way::Out => &mut self.cut_out,
        };
        *set = if off {
            set.with(node)
        } else {
            set.without(node)
        };
    }

    /// Keeps an instance from everybody, or lets it back in.
    pub fn isolate(&mut self, instance: InstanceId, off: bool) {
        if off {
            self.isolated.insert(instance);
        } else {
            self.isolated.remove(&instance);
        }
    }

    /// Can nobody reach the instance?
    pub fn is_isolated(&self, instance: InstanceId) -> bool {
        self.isolated.contains(&instance)
    }

    /// Makes a node's links so many times slower; 1 is as usual.
    pub fn slow_down(&mut self, node: NodeId, times: u64) {
        self.slow.insert(node, times.max(1));
    }

    /// Lets everybody back in.
    pub fn heal(&mut self) {
        (self.cut_in, self.cut_out) = (NodeSet::EMPTY, NodeSet::EMPTY);
        self.isolated.clear();
        self.slow.clear();
    }

    /// Does nothing that the node sends arrive?
    pub fn is_cut(&self, node: NodeId) -> bool {
        self.cut_out.contains(node)
    }

    /// When a message to or from `node` arrives: not at all, once, or twice.
    pub fn arrivals(&mut self, node: NodeId, way: Way) -> impl Iterator<Item = u64> + use<> {
        let cut = match way {
            Way::In => self.cut_in,
            Way::Out => self.cut_out,
        };
        let first =
            (!cut.contains(node) && !self.rng.chance(self.config.loss)).then(|| self.delay(node));
        let second =
            (first.is_some() && self.rng.chance(self.config.duplicates)).then(|| self.delay(node));
        first.into_iter().chain(second)
    }

    fn delay(&mut self, node: NodeId) -> u64 {
        let NetConfig {
            delay_us_min,
            delay_us_max,
            ..
        } = self.config;
        let delay = self.rng.between(delay_us_min, delay_us_max);
        let delay = delay * self.slow.get(&node).copied().unwrap_or(1);
        if self.rng.chance(20) {
            delay * 10
        } else {
            delay
        }
    }
}
