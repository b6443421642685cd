//! Injected faults: nodes, disks and the writer break when they are told to, and work again when they are told to.
//!
//! | | what it is made of |
//! |---|---|
//! | a node that is down, partitioned or paused | its [`gate`]: no batch, gossip or read passes |
//! | a slow or failing disk | a share of the node's batches is late or does not arrive; so are I/Os in its directory ([`disk`]) |
//! | a full disk | the node takes nothing; of all nodes: the log device has no room |
//! | a crash of the writer | [`crash`]: what is in its memory is gone, and the volume goes on at the VDL in a new epoch |
//!
//! What is on is a list; after each change every node's condition is computed from all of it, so faults overlap and end in any
//! order. While nothing is on, each of these costs one atomic load.

pub(crate) mod corrupt;
pub(crate) mod crash;
pub(crate) mod dice;
pub(crate) mod disk;
pub(crate) mod fates;
pub(crate) mod gate;
pub(crate) mod late;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use aurora_proto::{NodeId, NodeSet};
use aurora_redo::PgBatch;
use parking_lot::Mutex;

pub use self::corrupt::Corruption;
pub use self::crash::CommitCrash;
use self::disk::{DiskFaults, DiskRule};
use self::gate::Condition;
use crate::Error;
use crate::cluster::{Cluster, Shared};
use crate::device::Device;
use crate::node::Node;
use crate::recover::device_of;
use crate::volume::EmbeddedVolume;

/// A slow disk is no slower than this: longer, and it is a paused one.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// A fault that lasts until it is ended. Nodes are named as in [`Cluster::node_names`]; an Availability Zone stands for its nodes,
/// and `None` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process of the node is gone: it takes nothing and answers nobody.
    NodeDown {
        /// Which node or zone.
        node: String,
    },
    /// The node is cut off: nothing reaches it, and nothing comes from it.
    Partition {
        /// Which node or zone.
        node: String,
    },
    /// The node stands still. Nobody takes it for gone: what needs it waits.
    Pause {
        /// Which node or zone.
        node: Option<String>,
    },
    /// Its disk is slow: each I/O takes that much longer.
    DiskCongestion {
        /// Which node or zone.
        node: Option<String>,
        /// At least.
        least: Duration,
        /// At most.
        most: Duration,
    },
    /// So many of a hundred I/Os of its disk fail.
    DiskFailure {
        /// Which node or zone.
        node: Option<String>,
        /// 0 to 100.
        percent: u8,
    },
    /// Its disk has no room.
    DiskFull {
        /// Which node or zone.
        node: Option<String>,
    },
    /// The replica gets nothing from the writer.
    ReplicaFailure {
        /// Which replica.
        to: Option<String>,
    },
}

/// How a storage node is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// `az1-a`: its zone and a letter.
    pub name: String,
    /// Its zone.
    pub az: String,
    /// Its directory, as in the status.
    pub path: String,
}

/// A fault that is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultInfo {
    /// Its number, by which it is ended.
    pub id: u64,
    /// What it is, in words.
    pub text: String,
}

struct Active {
    id: u64,
    fault: Fault,
    nodes: NodeSet,
    replicas: Vec<String>,
    text: String,
}

#[derive(Default)]
struct Inner {
    next_id: u64,
    active: Vec<Active>,
}

/// The faults of a cluster.
pub(crate) struct Faults {
    disk: Arc<DiskFaults>,
    inner: Mutex<Inner>,
    /// Some batches do not arrive: somebody must send them again.
    lossy: AtomicBool,
    /// Nodes that could not write their copies' states when the volume went over to another branch.
    unwritten: Mutex<NodeSet>,
    /// What becomes of the next commit.
    commit_crash: AtomicU8,
}

impl Faults {
    /// Some batch may not have reached a node.
    pub(crate) fn look_again(&self) {
        self.lossy.store(true, Ordering::Release);
    }

    /// The faults of the disks.
    pub(crate) fn disk(&self) -> Arc<DiskFaults> {
        self.disk.clone()
    }

    pub(crate) fn new(disk: Arc<DiskFaults>) -> Faults {
        Faults {
            disk,
            inner: Mutex::default(),
            lossy: AtomicBool::new(false),
            unwritten: Mutex::new(NodeSet::EMPTY),
            commit_crash: AtomicU8::new(0),
        }
    }
}

impl Fault {
    fn target(&self) -> Option<&str> {
        match self {
            Fault::NodeDown { node } | Fault::Partition { node } => Some(node),
            Fault::Pause { node }
            | Fault::DiskCongestion { node, .. }
            | Fault::DiskFailure { node, .. }
            | Fault::DiskFull { node } => node.as_deref(),
            Fault::ReplicaFailure { to } => to.as_deref(),
        }
    }

    /// Its name, as an event says it.
    fn name(&self) -> &'static str {
        match self {
            Fault::NodeDown { .. } => "node down",
            Fault::Partition { .. } => "partition",
            Fault::Pause { .. } => "pause",
            Fault::DiskCongestion { .. } => "disk congestion",
            Fault::DiskFailure { .. } => "disk failure",
            Fault::DiskFull { .. } => "disk full",
            Fault::ReplicaFailure { .. } => "replica failure",
        }
    }

    fn text(&self) -> String {
        let of = self.target().unwrap_or("all");
        match self {
            Fault::DiskCongestion { least, most, .. } => format!(
                "disk congestion between {} and {} ms at {of}",
                least.as_millis(),
                most.as_millis()
            ),
            Fault::DiskFailure { percent, .. } => format!("{percent} percent disk failure at {of}"),
            other => format!("{} at {of}", other.name()),
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self {
            Fault::DiskFailure { percent, .. } if *percent > 100 => Err(Error::InvalidOption {
                option: "percent",
                expected: "0 to 100".into(),
                got: percent.to_string(),
            }),
            Fault::DiskCongestion { least, most, .. } if least > most || *most > DELAY_MAX => {
                Err(Error::InvalidOption {
                    option: "max_ms",
                    expected: format!("{} to {}", least.as_millis(), DELAY_MAX.as_millis()),
                    got: most.as_millis().to_string(),
                })
            }
            _ => Ok(()),
        }
    }

    /// What it adds to the condition of a node.
    fn add_to(&self, condition: &mut Condition) {
        match self {
            Fault::NodeDown { .. } | Fault::Partition { .. } => condition.away = true,
            Fault::Pause { .. } => condition.stalled = true,
            Fault::DiskCongestion { least, most, .. } => {
                let slowest = condition.delay.unwrap_or_default();
                condition.delay = Some((slowest.0.max(*least), slowest.1.max(*most)));
            }
            Fault::DiskFailure { percent, .. } => {
                condition.percent = condition.percent.max(*percent);
            }
            Fault::DiskFull { .. } => condition.full = true,
            Fault::ReplicaFailure { .. } => {}
        }
    }
}

impl EmbeddedVolume {
    /// Whether a batch reaches a node now. What is late is on its way.
    pub(crate) fn comes_through(&self, node: &Node, batch: &Arc<PgBatch>) -> bool {
        if !node.gate.is_on() {
            return true;
        }
        if node.gate.is_closed() || node.gate.is_stalled() {
            return false;
        }
        let Some(rough) = node.gate.rough() else {
            return true;
        };
        if self.late.dice().percent(rough.percent) {
            return false;
        }
        if let Some(delay) = rough.delay {
            let after = self.late.dice().between(delay);
            self.late.put(node.id(), batch.clone(), after);
            return false;
        }
        true
    }

    /// Has batches reach one node. A device without room holds them; a log that fails is on record.
    pub(crate) fn deliver(&self, node: &Node, batches: &[Arc<PgBatch>]) {
        if let Some(device) = device_of(&self.devices, node.id()) {
            let _ = self.write_to(device, batches, Some(node.id()));
        }
    }
}

impl Shared {
    /// Has the states of a node's copies be written when its disk takes them again.
    pub(crate) fn write_states_later(&self, node: &Node) {
        self.faults.unwritten.lock().insert(node.id());
        self.faults.look_again();
    }

    fn write_states_again(&self) {
        let unwritten = std::mem::replace(&mut *self.faults.unwritten.lock(), NodeSet::EMPTY);
        for node in self
            .living()
            .into_iter()
            .filter(|node| unwritten.contains(node.id()))
        {
            let written = self.write_states(&node);
            match written {
                Ok(()) => {}
                Err(error) if node.gate.is_on() || matches!(error, Error::DiskFull { .. }) => {
                    self.maintenance.note(error);
                    self.write_states_later(&node);
                }
                Err(error) => {
                    self.volume.lose(&node, &error.to_string());
                    self.maintenance.note(error);
                }
            }
        }
    }

    fn write_states(&self, node: &Node) -> Result<(), Error> {
        let (states, unsettled) = match device_of(&self.volume.devices, node.id()) {
            // Everything before this moment has reached the page store.
            Some(device) => {
                let _io = device.io_unless_stalled()?;
                node.states()
            }
            None => node.states(),
        };
        node.store.flush_settled(&states, unsettled)?;
        Ok(())
    }

    /// Sends what nodes have missed to those that are reached again. By whoever does the background's work.
    pub(crate) fn send_again(&self) {
        // Taken back first: whoever says so from here on is heard at the next look.
        if !self.faults.lossy.swap(false, Ordering::AcqRel) {
            return;
        }
        self.write_states_again();
        let mut missed = false;
        for node in self.living().into_iter().filter(|node| node.acknowledges()) {
            let late = &self.volume.late;
            match node.gate.rough() {
                Some(rough) if late.dice().percent(rough.percent) => {}
                Some(Condition {
                    delay: Some(delay), ..
                }) => {
                    // What is on its way is not sent again, and what is sent again is late again.
                    if !late.has(node.id()) {
                        for batch in self.volume.missed(&node) {
                            missed = true;
                            late.put(node.id(), batch, late.dice().between(delay));
                        }
                    }
                }
                _ => missed |= self.send_missed(&node),
            }
        }
        self.volume.wake_waiters();
        let inner = self.faults.inner.lock();
        if missed || !inner.active.is_empty() || !self.faults.unwritten.lock().is_empty() {
            self.faults.look_again();
        }
    }

    /// True when the node had missed something.
    fn send_missed(&self, node: &Node) -> bool {
        let missed = self.volume.missed(node);
        if !missed.is_empty() {
            self.volume.deliver(node, &missed);
        }
        !missed.is_empty()
    }

    fn names(&self) -> Vec<(NodeId, NodeName)> {
        let manifest = self.manifest();
        let name = |index: usize| {
            let info = &manifest.nodes[index];
            let before = &manifest.nodes[..index];
            let rank = before.iter().filter(|other| other.az == info.az).count();
            let letter = char::from(b'a' + u8::try_from(rank).unwrap_or(25).min(25));
            let name = NodeName {
                name: format!("{}-{letter}", info.az),
                az: info.az.clone(),
                path: info.path.clone(),
            };
            (info.id, name)
        };
        (0..manifest.nodes.len()).map(name).collect()
    }

    /// The nodes that a name stands for.
    pub(crate) fn nodes_of(&self, target: Option<&str>) -> Result<NodeSet, Error> {
        let names = self.names();
        let Some(target) = target else {
            return Ok(names.iter().map(|(id, _)| *id).collect());
        };
        let is_meant = |n: &NodeName| [&n.name, &n.az, &n.path].iter().any(|name| *name == target);
        let meant = names.iter().filter(|(_, name)| is_meant(name));
        let found: NodeSet = meant.map(|(id, _)| *id).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let mut zones: Vec<&str> = names.iter().map(|(_, name)| name.az.as_str()).collect();
        zones.dedup();
        let nodes = names.iter().map(|(_, name)| name.name.as_str());
        let there: Vec<&str> = nodes.chain(zones).collect();
        Err(Error::InvalidOption {
            option: "node",
            expected: format!("one of {}", there.join(", ")),
            got: target.to_owned(),
        })
    }

    fn replicas_of(&self, target: Option<&str>) -> Result<Vec<String>, Error> {
        match target {
            None => {
                let replicas = self.instances.replicas();
                Ok(replicas.iter().map(|r| r.name().to_owned()).collect())
            }
            Some(name) => Ok(vec![self.instances.find(name)?.name().to_owned()]),
        }
    }

    fn start_fault(self: &Arc<Self>, fault: Fault) -> Result<FaultInfo, Error> {
        fault.check()?;
        let text = fault.text();
        let (nodes, replicas) = match &fault {
            Fault::ReplicaFailure { to } => (NodeSet::EMPTY, self.replicas_of(to.as_deref())?),
            other => (self.nodes_of(other.target())?, Vec::new()),
        };
        if matches!(fault, Fault::DiskCongestion { .. }) {
            self.deliver_late()?;
        }
        let who = fault.target().unwrap_or("all").to_owned();
        let id = {
            let mut inner = self.faults.inner.lock();
            inner.next_id += 1;
            let id = inner.next_id;
            inner.active.push(Active {
                id,
                fault,
                nodes,
                replicas,
                text: text.clone(),
            });
            self.apply(&inner);
            id
        };
        let events = &self.instances.events;
        events.note("fault started", &who, Some(text.clone()), None);
        self.after_change();
        Ok(FaultInfo { id, text })
    }

    /// Ends a fault; false when it has ended already.
    fn end_fault(&self, id: u64) -> bool {
        let ended = {
            let mut inner = self.faults.inner.lock();
            let at = inner.active.iter().position(|active| active.id == id);
            let ended = at.map(|at| inner.active.remove(at));
            self.apply(&inner);
            ended
        };
        let Some(ended) = ended else {
            return false;
        };
        let who = ended.fault.target().unwrap_or("all");
        let events = &self.instances.events;
        events.note("fault ended", who, Some(ended.text), None);
        self.after_change();
        true
    }

    /// Ends every fault.
    pub(crate) fn end_faults(&self) {
        self.call_off_crash();
        let ids: Vec<u64> = self.faults().iter().map(|fault| fault.id).collect();
        for id in ids {
            self.end_fault(id);
        }
    }

    fn faults(&self) -> Vec<FaultInfo> {
        let inner = self.faults.inner.lock();
        let info = |active: &Active| FaultInfo {
            id: active.id,
            text: active.text.clone(),
        };
        inner.active.iter().map(info).collect()
    }

    /// Has every node be as the faults say that are on.
    pub(crate) fn apply_faults(&self) {
        let inner = self.faults.inner.lock();
        self.apply(&inner);
    }

    /// Makes every node's condition what the faults say that are on. Under the list's lock, so that two changes do not cross.
    fn apply(&self, inner: &Inner) {
        let mut rules = Vec::new();
        for node in self.volume.nodes().iter() {
            let mut condition = Condition::default();
            let here = inner.active.iter().filter(|a| a.nodes.contains(node.id()));
            here.for_each(|active| active.fault.add_to(&mut condition));
            if condition.full || condition.percent > 0 || condition.delay.is_some() {
                rules.push(DiskRule {
                    dir: node.dir.clone(),
                    delay: condition.delay,
                    percent: condition.percent,
                    full: condition.full,
                });
            }
            // Where no node of a device has room, the device has none: its commits are held, and say so.
            let everywhere = |device: &&Arc<Device>| device.nodes.contains(node.id());
            let device = self.volume.devices.iter().find(everywhere);
            if device.is_some_and(|device| self.is_full(inner, device)) {
                condition.full = false;
            }
            node.gate.set(condition);
        }
        for device in &self.volume.devices {
            device.set_full(self.is_full(inner, device));
        }
        self.faults.disk.set(rules);
        for replica in self.instances.replicas() {
            let failing = |active: &Active| active.replicas.iter().any(|n| n == replica.name());
            replica.set_cut(inner.active.iter().any(failing));
        }
        if !inner.active.is_empty() {
            self.faults.lossy.store(true, Ordering::Release);
        }
        self.volume.update_lost();
    }

    fn is_full(&self, inner: &Inner, device: &Device) -> bool {
        let full = |active: &&Active| matches!(active.fault, Fault::DiskFull { .. });
        let full = inner.active.iter().filter(full);
        let full = full.fold(NodeSet::EMPTY, |set, active| set.union(active.nodes));
        device.nodes.iter().all(|id| full.contains(id))
    }

    /// What was kept away is sent once more, and who waits looks again.
    fn after_change(&self) {
        let is_reached = |node: &&Arc<Node>| node.acknowledges() && !node.gate.is_on();
        for node in self.living().iter().filter(is_reached) {
            self.send_missed(node);
        }
        if !self.is_closed() {
            // What a full disk held back goes first. If it is full still, whoever writes next hears of it.
            let _ = self.volume.check_or_retry();
        }
        self.volume.wake_waiters();
        self.maintenance.wake();
    }
}

impl Cluster {
    /// How the storage nodes are called.
    pub fn node_names(&self) -> Vec<NodeName> {
        let names = self.shared().names();
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// Has something break, until [`Cluster::end_fault`] or the cluster is closed.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a node that is not there, a share that is none; [`Error::UnknownInstance`].
    pub fn start_fault(&self, fault: Fault) -> Result<FaultInfo, Error> {
        self.check_open()?;
        self.shared().start_fault(fault)
    }

    /// Has it work again; false when it does already.
    pub fn end_fault(&self, id: u64) -> bool {
        self.shared().end_fault(id)
    }

    /// Ends every fault, also a crash that waits for a commit.
    pub fn end_faults(&self) {
        self.shared().end_faults();
    }

    /// The faults that are on.
    pub fn faults(&self) -> Vec<FaultInfo> {
        self.shared().faults()
    }

    /// Has all dice of the faults fall from a seed on.
    pub fn seed_faults(&self, seed: u64) {
        self.shared().faults.disk.dice.seed(seed);
        self.shared().volume.late.dice().seed(seed);
    }
}
