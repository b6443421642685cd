//! Messages: what arrives where, and what becomes of the answers.

use aurora_proto::NodeId;

use crate::instance::{Send, Step};
use crate::machine::{Machine, Out};
use crate::messages::{Event, InstanceId, ToInstance, ToNode};
use crate::net::Way;
use crate::world::World;

impl World {
    pub(crate) fn on_node_message(&mut self, node: NodeId, from: InstanceId, message: ToNode) {
        let machine = self.home[&node];
        if !self.machines[machine].up {
            return;
        }
        self.note(format_args!("{node} <- {from} {}", message.name()));
        let outs = self.machines[machine].handle(node, from, message);
        self.route(machine, Some(node), outs);
        self.schedule_sync(machine);
    }

    fn schedule_sync(&mut self, machine: usize) {
        let Machine {
            pending,
            boot,
            syncing,
            ..
        } = &mut self.machines[machine];
        if !pending.is_empty() && !*syncing {
            *syncing = true;
            let event = Event::Sync {
                machine,
                boot: *boot,
            };
            let delay = self.work.between(20, 400) * self.machines[machine].slow;
            self.queue.after(delay, event);
        }
    }

    pub(crate) fn on_sync(&mut self, machine: usize, boot: u64) {
        let running = &mut self.machines[machine];
        if !running.up || running.boot != boot {
            return;
        }
        running.syncing = false;
        let outs = running.sync();
        self.note(format_args!("m{machine} syncs, {} answers", outs.len()));
        self.route(machine, None, outs);
        self.schedule_sync(machine);
    }

    pub(crate) fn route(&mut self, machine: usize, sender: Option<NodeId>, outs: Vec<Out>) {
        for out in outs {
            match out {
                Out::Reply { to, node, message } => {
                    if self.net.is_isolated(to) {
                        continue;
                    }
                    for delay in self.net.arrivals(node, Way::Out) {
                        let message = message.clone();
                        self.queue
                            .after(delay, Event::ToInstance { to, node, message });
                    }
                }
                Out::Peer { to, from, message } => {
                    if sender.is_some_and(|node| self.net.is_cut(node)) {
                        continue;
                    }
                    for delay in self.net.arrivals(to, Way::In) {
                        let message = message.clone();
                        self.queue.after(
                            delay,
                            Event::ToNode {
                                node: to,
                                from,
                                message,
                            },
                        );
                    }
                }
                Out::Violation(what) => self.fail(what),
                Out::Note(what) => self.note(format_args!("{what}")),
                Out::Failed(what) => {
                    self.note(format_args!("m{machine} fails: {what}"));
                    return self.crash(machine);
                }
            }
        }
    }

    /// Sends on behalf of an instance.
    pub(crate) fn send(&mut self, from: InstanceId, sends: Vec<Send>) {
        if self.net.is_isolated(from) {
            return;
        }
        for (node, message) in sends {
            for delay in self.net.arrivals(node, Way::In) {
                let message = message.clone();
                self.queue.after(
                    delay,
                    Event::ToNode {
                        node,
                        from,
                        message,
                    },
                );
            }
        }
    }

    pub(crate) fn on_instance_message(
        &mut self,
        to: InstanceId,
        node: NodeId,
        message: ToInstance,
    ) {
        let Some(instance) = self
            .instances
            .get_mut(&to)
            .filter(|instance| instance.lives())
        else {
            return;
        };
        let (step, what) = match message {
            ToInstance::Ack(ack) => (
                instance.on_ack(node, &ack),
                format!("ack {} {} e{}", ack.pg, ack.scl, ack.epoch),
            ),
            ToInstance::Inventory(inventory) => {
                let what = format!(
                    "inventory {} scl {} hint {}",
                    inventory.pg, inventory.scl, inventory.vdl_hint
                );
                (instance.on_inventory(inventory), what)
            }
            ToInstance::Stale { epoch } => {
                instance.on_stale(epoch);
                (Step::Nothing, format!("has promised e{epoch}"))
            }
            ToInstance::Installed { epoch } => {
                if epoch == instance.epoch
                    && let Some(writing) = instance.writing()
                {
                    writing.uninstalled.remove(node);
                }
                (Step::Nothing, format!("has installed e{epoch}"))
            }
            ToInstance::NotInstalled => {
                if let Some(writing) = instance.writing() {
                    writing.uninstalled.insert(node);
                }
                (Step::Nothing, "has not installed".to_owned())
            }
            ToInstance::BlobStored { blob } => {
                self.note(format_args!("{to} <- {node} has blob {blob}"));
                return self.on_blob_stored(to, node, blob);
            }
            ToInstance::Page { read, page } => {
                let what = page.as_ref().err().copied();
                self.note(format_args!("{to} <- {node} read {read} {what:?}"));
                return self.on_page(node, read, page);
            }
        };
        self.note(format_args!("{to} <- {node} {what}"));
        self.on_step(to, step);
    }
}
