//! Faults that last for a while, and end: cut and slow links, slow and full disks, pauses, clocks that jump.

use aurora_proto::{NodeId, NodeSet};

use crate::config::{Kind, NODES};
use crate::machine::node_dir;
use crate::messages::{Event, InstanceId};
use crate::net::Way;
use crate::world::World;

/// How a fault ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Link(NodeId, Way),
    FastLink(NodeId),
    Isolation(InstanceId),
    FastDisk(usize),
    Room(usize),
}

/// What can be paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Process {
    Machine(usize),
    Instance(InstanceId),
}

impl World {
    pub(crate) fn ends_after(&mut self, delay_us: u64, end: End) {
        let number = self.ends_begun;
        self.ends_begun += 1;
        self.ends.insert(number, end);
        self.queue.after(delay_us, Event::FaultEnds(number));
    }

    pub(crate) fn on_fault_ends(&mut self, number: u64) {
        let Some(end) = self.ends.remove(&number) else {
            return;
        };
        self.note(format_args!("ends: {end:?}"));
        match end {
            End::Link(node, way) => self.net.cut_way(node, way, false),
            End::FastLink(node) => self.net.slow_down(node, 1),
            End::Isolation(instance) => self.net.isolate(instance, false),
            End::FastDisk(machine) => self.machines[machine].slow = 1,
            End::Room(machine) => self.machines[machine].disk.mem().set_capacity(None),
        }
    }

    /// Everything that lasts ends now.
    pub(crate) fn end_all_faults(&mut self) {
        self.net.heal();
        self.ends.clear();
        self.paused.clear();
        for machine in &mut self.machines {
            machine.slow = 1;
            machine.disk.disarm();
            machine.disk.mem().set_capacity(None);
        }
    }

    fn cut(&mut self, nodes: NodeSet, ways: &[Way]) {
        let most = self.config.pace * 60_000;
        let delay = self.chaos.between(self.config.pace * 2_000, most);
        self.note(format_args!("{nodes} are cut off: {ways:?}"));
        for node in nodes {
            for way in ways {
                self.net.cut_way(node, *way, true);
                self.ends_after(delay, End::Link(node, *way));
            }
        }
    }

    /// Up to three nodes.
    pub(crate) fn cut_off(&mut self) {
        let nodes = (0..self.chaos.between(1, 3)).map(|_| self.chaos.below(u64::from(NODES)));
        let nodes = nodes.map(|n| NodeId(n as u16)).collect();
        self.cut(nodes, &[Way::In, Way::Out]);
    }

    /// A whole zone.
    pub(crate) fn cut_zone(&mut self) {
        let zone = self.chaos.below(u64::from(NODES / 2)) as u16;
        let nodes = [NodeId(2 * zone), NodeId(2 * zone + 1)]
            .into_iter()
            .collect();
        self.cut(nodes, &[Way::In, Way::Out]);
    }

    /// Messages arrive one way only.
    pub(crate) fn cut_one_way(&mut self) {
        let way = *self.chaos.pick(&[Way::In, Way::Out]);
        let nodes = (0..self.chaos.between(1, 3)).map(|_| self.chaos.below(u64::from(NODES)));
        let nodes = nodes.map(|n| NodeId(n as u16)).collect();
        self.cut(nodes, &[way]);
    }

    /// The writer reaches nobody; perhaps another one is started.
    pub(crate) fn isolate_writer(&mut self) {
        let Some(id) = self.writer() else { return };
        self.note(format_args!("{id} is isolated"));
        self.net.isolate(id, true);
        let delay = self
            .chaos
            .between(self.config.pace * 2_000, self.config.pace * 60_000);
        self.ends_after(delay, End::Isolation(id));
        if self.chaos.chance(700) {
            self.start_instance();
        }
    }

    /// The links of a node are slow.
    pub(crate) fn slow_link(&mut self) {
        let node = NodeId(self.chaos.below(u64::from(NODES)) as u16);
        let times = self.chaos.between(5, 50);
        self.note(format_args!("the links of {node} are {times} times slower"));
        self.net.slow_down(node, times);
        let delay = self
            .chaos
            .between(self.config.pace * 5_000, self.config.pace * 100_000);
        self.ends_after(delay, End::FastLink(node));
    }

    /// Syncs of a disk take long.
    pub(crate) fn slow_disk(&mut self) {
        let machine = self.chaos.index(self.machines.len());
        let times = self.chaos.between(10, 500);
        self.note(format_args!(
            "the disk of m{machine} is {times} times slower"
        ));
        self.machines[machine].slow = times;
        let delay = self
            .chaos
            .between(self.config.pace * 5_000, self.config.pace * 100_000);
        self.ends_after(delay, End::FastDisk(machine));
    }

    /// A disk has hardly any room left.
    pub(crate) fn fill_disk(&mut self) {
        let machine = self.chaos.index(self.machines.len());
        if !self.machines[machine].up {
            return;
        }
        let room = self.chaos.below(40_000);
        self.note(format_args!(
            "the disk of m{machine} has room for {room} bytes"
        ));
        let disk = self.machines[machine].disk.mem();
        disk.set_capacity(Some(disk.used_bytes() + room));
        let delay = self
            .chaos
            .between(self.config.pace * 5_000, self.config.pace * 60_000);
        self.ends_after(delay, End::Room(machine));
    }

    /// A process stands still and goes on as if nothing had been: an instance, or a machine with its nodes.
    pub(crate) fn pause(&mut self) {
        let (now, pace) = (self.queue.now_us(), self.config.pace);
        let until = now + self.chaos.between(pace * 1_000, pace * 50_000);
        let process = match self.writer() {
            Some(id) if self.chaos.chance(500) => Process::Instance(id),
            _ => Process::Machine(self.chaos.index(self.machines.len())),
        };
        self.note(format_args!("{process:?} stands still until {until}"));
        self.paused.insert(process, until);
        // Somebody may take it for dead.
        if matches!(process, Process::Instance(_)) && self.chaos.chance(600) {
            self.start_instance();
        }
    }

    /// The clock of a writer jumps, forward or back.
    pub(crate) fn jump_clock(&mut self) {
        let by = self.chaos.between(0, 4_000_000) as i64 - 2_000_000;
        let Some(session) = self.session() else {
            return;
        };
        self.note(format_args!("the clock of {} jumps by {by} us", session.id));
        session.skew_us.set(by);
    }

    /// Of what a node writes next into its layers, something lands in another place of the file.
    pub(crate) fn misdirect(&mut self) {
        let Some(node) = self.may_harm() else { return };
        let by = *self.chaos.pick(&[512, 4096, 8192]);
        let after = self.chaos.below(6);
        self.note(format_args!("a write of {node} will be {by} bytes off"));
        self.harmed.insert(node);
        let machine = &mut self.machines[self.home[&node]];
        machine.forget(node);
        machine
            .disk
            .misdirect(node_dir(node).join("layers"), after, by);
    }

    /// A node whose data may be damaged without breaking the promise: an AZ and one at the most.
    pub(crate) fn may_harm(&mut self) -> Option<NodeId> {
        let node = NodeId(self.chaos.below(u64::from(NODES)) as u16);
        let room = self.harmed.len() < self.harmed_max();
        (room && !self.harmed.contains(node)).then_some(node)
    }

    pub(crate) fn harmed_max(&self) -> usize {
        match self.config.beyond {
            true => usize::from(NODES),
            false => usize::from(NODES) / 2,
        }
    }

    /// One of the faults that worlds of a database have beside those of bare pages.
    pub(crate) fn lasting_fault(&mut self) {
        match self.chaos.below(100) {
            0..12 => self.cut_zone(),
            12..24 => self.cut_one_way(),
            24..36 => self.isolate_writer(),
            36..46 => self.slow_link(),
            46..58 => self.slow_disk(),
            58..66 => self.fill_disk(),
            66..84 => self.pause(),
            84..92 => self.jump_clock(),
            _ => self.misdirect(),
        }
    }

    /// Is this an event of a process that stands still? Then it happens when the process goes on.
    pub(crate) fn stands_still(&self, event: &Event) -> Option<u64> {
        if self.paused.is_empty() {
            return None;
        }
        let process = match event {
            Event::ToNode { node, .. } => Process::Machine(self.home[node]),
            Event::Sync { machine, .. } | Event::Tend { machine, .. } => Process::Machine(*machine),
            Event::ToInstance { to, .. } => Process::Instance(*to),
            Event::Tick(id) | Event::Follow(id, _) => Process::Instance(*id),
            Event::Wake { task, .. } => {
                Process::Instance(self.base.as_ref().and_then(|base| base.process_of(*task))?)
            }
            _ => return None,
        };
        let until = *self.paused.get(&process)?;
        (until > self.queue.now_us()).then_some(until)
    }

    pub(crate) fn is_database(&self) -> bool {
        matches!(self.config.kind, Kind::Database(_))
    }
}
