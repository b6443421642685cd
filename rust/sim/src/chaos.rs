//! What goes wrong. Never more at once than the volume promises to bear: data is lost or damaged on an AZ and one node
//! at the most, everything else comes back.

use aurora_control::{Roots, collection_floor};
use aurora_page::Lsn;
use aurora_proto::{MetaStore, NodeId, NodeSet};

use crate::config::NODES;
use crate::instance::{Instance, Phase};
use crate::machine::node_dir;
use crate::messages::Event;
use crate::world::World;

impl World {
    pub(crate) fn on_chaos(&mut self) {
        if self.ending || self.report.faults >= self.config.faults_max {
            return;
        }
        self.report.faults += 1;
        match self.chaos.below(100) {
            _ if self.is_database() && self.chaos.chance(450) => self.lasting_fault(),
            0..20 => self.crash_some_machine(),
            20..30 => self.doom(),
            30..45 => self.cut_off(),
            45..55 => self.writer_dies(),
            55..65 => self.writer_is_overtaken(),
            65..75 => self.lose_directories(),
            75..82 => self.flip_log(),
            82..88 => self.flip_layer(),
            88..93 => self.raise_floor(),
            93..96 => self.grow(),
            96..98 if !self.is_database() => self.backtrack(),
            _ => self.fail_sync(),
        }
        let delay = self
            .chaos
            .between(self.config.chaos_us / 4, self.config.chaos_us * 2);
        self.queue.after(delay, Event::Chaos);
    }

    fn crash_some_machine(&mut self) {
        let machine = self.chaos.index(self.machines.len());
        if self.machines[machine].up {
            self.crash(machine);
        }
    }

    /// The disk stops in the middle of something.
    fn doom(&mut self) {
        let (machine, changes) = (self.chaos.index(self.machines.len()), self.chaos.below(8));
        if self.machines[machine].up {
            self.note(format_args!("m{machine} will stop after {changes} changes"));
            self.machines[machine].disk.mem().stop_after(changes);
        }
    }

    fn fail_sync(&mut self) {
        let machine = self.chaos.index(self.machines.len());
        if self.machines[machine].up {
            self.note(format_args!("the next sync of m{machine} will fail"));
            self.machines[machine].disk.mem().fail_syncs(1);
        }
    }

    fn writer_dies(&mut self) {
        self.instances
            .values_mut()
            .for_each(|instance| instance.phase = Phase::Dead);
        let id = self.start_instance();
        self.note(format_args!("all instances die, {id} will take over"));
    }

    /// The old writer goes on as long as it can.
    fn writer_is_overtaken(&mut self) {
        let id = self.start_instance();
        self.note(format_args!("{id} takes over while others live"));
    }

    fn lose_directories(&mut self) {
        let room = self.harmed_max().saturating_sub(self.harmed.len());
        let mut nodes: Vec<NodeId> = (0..NODES)
            .map(NodeId)
            .filter(|node| !self.harmed.contains(*node))
            .collect();
        self.chaos.shuffle(&mut nodes);
        let count = self.chaos.between(1, 3) as usize;
        nodes.truncate(count.min(room));
        for node in &nodes {
            self.note(format_args!("{node} loses its directory"));
            self.lose(*node);
        }
        if !nodes.is_empty() && (self.harmed.len() > 2 || self.chaos.chance(300)) {
            self.start_instance();
        }
    }

    /// A node's directory goes.
    pub(crate) fn lose(&mut self, node: NodeId) {
        self.harmed.insert(node);
        let machine = &mut self.machines[self.home[&node]];
        machine.forget(node);
        // A directory that cannot be removed because the disk has stopped goes with the next try.
        let _ = machine.wipe(node);
    }

    /// One node's blocks of a shared log are damaged; the other nodes' blocks heal them. A log of one node is left alone:
    /// damage at its very end looks like a torn write, and nobody can tell.
    fn flip_log(&mut self) {
        let index = self.chaos.index(self.machines.len());
        let machine = &self.machines[index];
        let slots = machine.ids.len() as u64;
        if slots < 2 {
            return;
        }
        let slot = machine.boot % slots;
        let files = machine.disk.mem().files("/disk/log".as_ref());
        for _ in 0..self.chaos.between(1, 4) {
            if files.is_empty() {
                return;
            }
            let file = self.chaos.pick(&files).clone();
            let (near, early) = (self.chaos.chance(700), self.chaos.chance(700));
            let stripe = self.chaos.below(if near { 4 } else { 16 });
            let offset =
                (stripe * slots + slot) * 4096 + self.chaos.below(if early { 600 } else { 4096 });
            let _ = self.machines[index]
                .disk
                .mem()
                .flip(&file, offset, 1 << self.chaos.below(8));
        }
        self.note(format_args!(
            "blocks of slot {slot} of m{index}'s log are damaged"
        ));
    }

    fn flip_layer(&mut self) {
        let Some(node) = self.may_harm() else { return };
        let disk = self.machines[self.home[&node]].disk.mem().clone();
        let mut files = disk.files(&node_dir(node).join("layers"));
        files.extend(disk.files(&node_dir(node).join("blobs")));
        if files.is_empty() {
            return;
        }
        let file = self.chaos.pick(&files).clone();
        let offset = self.chaos.below(2_000);
        if disk.flip(&file, offset, 1 << self.chaos.below(8)).is_ok() {
            self.note(format_args!(
                "byte {offset} of {} is damaged",
                file.display()
            ));
            self.harmed.insert(node);
            self.machines[self.home[&node]].forget(node);
        }
    }

    /// Older versions need not be kept any more.
    fn raise_floor(&mut self) {
        let session = self.session();
        let open_reads = session.map(|session| vec![session.members.oldest_read_point()]);
        if self.is_database() && open_reads.is_none() {
            return;
        }
        let Some(id) = self.writer() else { return };
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        let vdl = writing.writer().vdl();
        let window_start = writing
            .history
            .floor(Lsn(vdl.0.saturating_sub(self.chaos.below(60))));
        let latest = self.meta.latest();
        let floor = match &open_reads {
            // Backtracks of worlds of pages give up what they left behind.
            None => window_start,
            Some(open_reads) => collection_floor(
                &latest,
                &Roots {
                    vdl,
                    open_reads: open_reads.clone(),
                    window_start,
                    pinned: Vec::new(),
                },
            ),
        };
        if let Some(next) = latest.with_floor(floor)
            && self.meta.cas(latest.version, &next).is_ok()
        {
            writing.manifest = next;
            self.note(format_args!("the collection floor is {floor}"));
        }
    }

    fn grow(&mut self) {
        let Some(id) = self.writer() else { return };
        let latest = self.meta.latest();
        let members = latest.next_members();
        let Ok(next) = latest.add_segment(members.clone()) else {
            return;
        };
        if self.meta.cas(latest.version, &next).is_err() {
            return;
        }
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        writing.manifest = next;
        let pg = writing.writer().add_pg(members);
        writing.volume.grown();
        self.note(format_args!("{id} grows the volume by {pg}"));
    }

    /// The volume goes back to an earlier commit: commits stop, the manifest says so, an instance recovers.
    fn backtrack(&mut self) {
        let Some(id) = self.writer() else { return };
        let latest = self.meta.latest();
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        let (vdl, history) = (writing.writer().vdl(), writing.history.clone());
        let commits = self
            .model
            .mtrs()
            .filter(|m| m.last <= vdl && history.contains(m.origin, m.last));
        let points: Vec<Lsn> = commits
            .map(|m| m.last)
            .filter(|lsn| *lsn >= latest.collection_floor)
            .collect();
        let recent = &points[points.len().saturating_sub(30)..];
        if recent.is_empty() {
            return;
        }
        let at = *self.chaos.pick(recent);
        let Ok(next) = latest.backtracked(at, vdl, self.queue.now_us() as i64) else {
            return;
        };
        if self.meta.cas(latest.version, &next).is_ok() {
            self.note(format_args!(
                "backtrack from {vdl} to {at}: {}",
                next.history
            ));
            self.instances
                .values_mut()
                .for_each(|instance| instance.phase = Phase::Dead);
            self.start_instance();
        }
    }

    /// The faults end: everybody comes back, and what is lost is replaced once more.
    pub(crate) fn begin_end(&mut self) {
        self.ending = true;
        self.end_all_faults();
        if let Some(base) = &self.base {
            base.hub.ending.set(true);
        }
        self.note(format_args!("the faults end"));
        for machine in 0..self.machines.len() {
            if !self.machines[machine].up {
                self.queue.after(1_000, Event::Boot { machine });
            } else {
                let disk = self.machines[machine].disk.mem();
                disk.stop_after(u64::MAX);
                disk.fail_syncs(0);
            }
        }
        for node in self.harmed {
            self.lose(node);
        }
        let lost = !self.harmed.is_empty();
        if lost || self.writer().is_none() {
            self.harmed = NodeSet::EMPTY.union(self.harmed);
            let id = self.start_instance();
            self.note(format_args!("{id} recovers for the last time"));
        }
    }
}
