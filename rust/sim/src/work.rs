//! What a world does when nothing goes wrong: writers write, machines tend their layers, lost nodes are made anew.

use std::sync::Arc;

use aurora_control::{Opening, Policy, Seen, opening};
use aurora_page::Lsn;
use aurora_proto::{Manifest, NodeId, NodeInfo, NodeSet, Refused, Replacement};
use aurora_store::{NodeStore, Roots};

use crate::instance::{Instance, Phase, Send};
use crate::machine::Out;
use crate::messages::{Event, InstanceId, ToNode};
use crate::model::Numbered;
use crate::workload;
use crate::world::{ORIGIN, World};

impl World {
    /// What can be seen of the nodes of the manifest.
    fn seen(&self, manifest: &Manifest) -> Vec<(NodeId, Seen)> {
        let seen = |info: &NodeInfo| {
            let machine = &self.machines[self.home[&info.id]];
            match machine.incarnation(info.id) {
                _ if !machine.up => Seen::Unknown,
                Some(incarnation) if incarnation == info.incarnation => Seen::Living,
                _ => Seen::Lost {
                    device: info.device,
                },
            }
        };
        manifest
            .nodes
            .iter()
            .map(|info| (info.id, seen(info)))
            .collect()
    }

    /// Asks `control` how the volume can be opened. If it can, makes the directories of lost nodes anew and says who is to be
    /// replaced.
    pub(crate) fn recreate_lost(&mut self) -> Option<Vec<Replacement>> {
        let manifest = self.meta.latest();
        let policy = Policy {
            rebuild_from_read_quorum: true,
        };
        let lost: NodeSet = match opening(&manifest, &self.seen(&manifest), policy) {
            Opening::RecreateAndHydrate { replace, .. } => {
                replace.iter().map(|replacement| replacement.lost).collect()
            }
            Opening::ReadOnly { .. } | Opening::Refuse { .. } => return None,
        };
        let recovering = manifest.recovering();
        let mut replace = Vec::new();
        for info in manifest.nodes.iter().filter(|info| lost.contains(info.id)) {
            let machine = &mut self.machines[self.home[&info.id]];
            if machine.alive(info.id).is_none() {
                let incarnation = self.incarnations.entry(info.id).or_insert(1);
                *incarnation += 1;
                if let Err(error) = machine.create_node(info.id, *incarnation, Some(&recovering)) {
                    self.trace.note(
                        self.queue.now_us(),
                        format_args!("{} cannot be made anew: {error}", info.id),
                    );
                    continue;
                }
                self.harmed.insert(info.id);
            }
            let store = machine
                .nodes
                .get(&info.id)
                .and_then(|node| node.store.as_ref());
            let incarnation = store.map_or(0, |store: &NodeStore| store.identity().incarnation);
            if incarnation > info.incarnation {
                replace.push(Replacement {
                    lost: info.id,
                    with: NodeInfo {
                        incarnation,
                        ..info.clone()
                    },
                });
            }
        }
        Some(replace)
    }

    /// The writer appends, sends, and reminds those who lag.
    pub(crate) fn write(&mut self, id: InstanceId, sends: &mut Vec<Send>) {
        let count = if self.ending || self.is_database() {
            0
        } else {
            self.work.below(4)
        };
        for _ in 0..count {
            self.append(id);
        }
        let remind = self.work.chance(250);
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        // A writer that knows that it was overtaken has nothing to do any more.
        if writing.writer().fenced_by().is_some() {
            return;
        }
        writing.send(sends);
        if remind {
            writing.remind(sends);
        }
    }

    pub(crate) fn append(&mut self, id: InstanceId) {
        let segment_pages = self.config.segment_pages;
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        let epoch = instance.epoch;
        let Some(writing) = instance.writing() else {
            return;
        };
        let pages = writing.writer().pgs() as u64 * segment_pages;
        self.commit_us += 1 + self.work.below(50) as i64;
        let draft = workload::draft(
            &mut self.work,
            &self.table,
            &writing.heads,
            pages,
            self.commit_us,
        );
        let appended = writing.writer().append(draft.mtr);
        match appended {
            Ok(aurora_proto::Numbered { base, last }) => {
                writing.appended += 1;
                let mut lsn = base;
                for (page, _) in &draft.changes {
                    writing.heads.entry(*page).or_default().0 = lsn;
                    lsn = lsn.next();
                }
                for (page, content) in draft.after {
                    writing.heads.entry(page).or_default().1 = content;
                }
                let time_us = self.commit_us;
                let mtr = Numbered {
                    origin: ORIGIN,
                    base,
                    last,
                    time_us,
                    epoch,
                    acknowledged: false,
                };
                self.note(format_args!(
                    "{id} numbers {base}..{last}: {:?}",
                    draft.changes
                ));
                if let Err(what) = self.model.numbered(mtr, &draft.changes) {
                    self.fail(what);
                }
            }
            Err(refused @ (Refused::BackPressure { .. } | Refused::Fenced { .. })) => {
                self.note(format_args!("{id} {refused}"));
                if matches!(refused, Refused::Fenced { .. })
                    && let Some(instance) = self.instances.get_mut(&id)
                {
                    instance.phase = Phase::Dead;
                }
            }
            Err(refused) => self.fail(format!("{id} is refused: {refused}")),
        }
    }

    pub(crate) fn on_tend(&mut self, machine: usize, boot: u64) {
        if !self.machines[machine].up || self.machines[machine].boot != boot {
            return;
        }
        let from = self.newest_instance();
        // A mark that the trace sees even when nothing is told.
        for ((node, pg), summary) in self.machines[machine].summaries() {
            let peers = self
                .meta
                .latest()
                .membership(pg)
                .map_or(NodeSet::EMPTY, |members| members.nodes());
            let others: Vec<NodeId> = peers.without(node).iter().collect();
            if !self.net.is_cut(node) && !others.is_empty() {
                let peer = *self.work.pick(&others);
                self.send(from, vec![(peer, ToNode::Summary(summary))]);
            }
        }
        if self.work.chance(300) {
            let manifest = self.meta.latest();
            let histories = manifest.histories().cloned().map(Arc::new).collect();
            let roots = Roots {
                histories,
                vdl: Lsn::MAX,
                floor: manifest.collection_floor,
            };
            let done = self.machines[machine]
                .flush()
                .and_then(|()| self.machines[machine].tend_layers(&roots));
            self.note(format_args!("m{machine} tends its layers"));
            if let Err(error) = done {
                self.route(machine, None, vec![Out::Failed(error)]);
                return;
            }
        }
        let delay = self.work.between(3_000, 9_000) * self.config.pace;
        self.queue.after(delay, Event::Tend { machine, boot });
    }

    /// The power of a machine goes; it comes back after a while. In the embedded case the instances go with it.
    pub(crate) fn crash(&mut self, machine: usize) {
        let seed = self.chaos.bits();
        self.note(format_args!("m{machine} crashes"));
        self.machines[machine].crash(seed);
        if self.machines.len() == 1 {
            self.instances
                .values_mut()
                .for_each(|instance| instance.phase = Phase::Dead);
            let id = self.start_instance();
            self.note(format_args!("{id} will take over"));
        }
        let delay = if self.ending {
            1_000
        } else {
            self.chaos.between(1_000, 60_000) * self.config.pace
        };
        self.queue.after(delay, Event::Boot { machine });
    }

    pub(crate) fn boot(&mut self, machine: usize) {
        if self.machines[machine].up {
            return;
        }
        self.report.boots += 1;
        match self.machines[machine].start() {
            Ok(notes) => notes
                .into_iter()
                .for_each(|what| self.note(format_args!("m{machine} starts: {what}"))),
            Err(error) => return self.fail(format!("m{machine} cannot start: {error}")),
        }
        self.note_lost(machine);
        self.check_told(machine);
        let boot = self.machines[machine].boot;
        self.queue
            .after(self.config.net.delay_us_max, Event::Tend { machine, boot });
    }
}
