//! The checkers: what must hold whatever went wrong. The numbers in brackets are the design's invariants.

use std::sync::Arc;

use aurora_page::{Lsn, Page, PageId, canonical};
use aurora_proto::{NodeId, NodeSet};
use aurora_redo::{BlobId, History, PgId};
use aurora_store::{NodeStore, StoreError};

use crate::config::Kind;
use crate::database::Base;
use crate::instance::Instance;
use crate::messages::Event;
use crate::model::{Content, read};
use crate::world::World;

/// Pages that one look compares.
const SAMPLE: u64 = 4;

impl World {
    pub(crate) fn on_check(&mut self) {
        if !self.ending && self.queue.now_us() >= self.config.end_us {
            self.begin_end();
        }
        self.repair_damage();
        self.note_healed();
        self.compare_sample();
        self.check_references();
        self.compare_replicas();
        if self.ending {
            if self.at_rest() && self.clients_are_content() {
                self.note(format_args!("at rest"));
                self.check_nothing_lost();
                self.compare_everything();
                self.check_structure();
                // Nothing is asked for any more: the run ends with what is queued.
                self.queue.clear();
                return;
            }
            self.replace_lost_at_end();
            if self.queue.now_us() > self.rest_deadline() {
                if self.config.beyond {
                    // It has stopped. That is allowed; what it told before was checked.
                    self.note(format_args!("stopped: {}", self.why_not_at_rest()));
                    self.queue.clear();
                    return;
                }
                let clients = self.base.as_ref().map(Base::describe).unwrap_or_default();
                let why = self.why_not_at_rest() + &clients;
                return self.fail(format!("[14] the volume does not come to rest: {why}"));
            }
        }
        self.queue.after(5_000 * self.config.pace, Event::Check);
    }

    /// Have the clients stopped, and looked at everything once more?
    fn clients_are_content(&self) -> bool {
        let Some(base) = &self.base else { return true };
        if base.clients_stopped() {
            base.hub.rested.set(true);
        }
        base.hub.verified.get()
    }

    /// Every acknowledged MTR is in a kept History, and every MTR is in the present one as a whole or not at all
    /// [6][10].
    pub(crate) fn check_nothing_lost(&mut self) {
        let latest = self.meta.latest();
        let history = &latest.history;
        let mut wrong = None;
        for mtr in self.model.mtrs() {
            let (first, last) = (
                history.contains(mtr.origin, mtr.base),
                history.contains(mtr.origin, mtr.last),
            );
            // A History never cuts an LSN out of the middle of an interval, so both ends speak for the rest.
            if first != last {
                wrong.get_or_insert(format!("[6] {mtr:?} happened in part: {history}"));
            }
            let kept = latest.histories().any(|h| h.contains(mtr.origin, mtr.last));
            if mtr.acknowledged && !kept {
                wrong.get_or_insert(format!(
                    "[10] {mtr:?} was acknowledged and is lost: {history}"
                ));
            }
        }
        if let Some(what) = wrong {
            self.fail(what);
        }
    }

    /// A volume opens when a write quorum of every group has everything up to the VDL on disk [10].
    pub(crate) fn check_quorum_of_opening(&mut self, vdl: Lsn) {
        let latest = self.meta.latest();
        for pg in (0..latest.pgs.len() as u32).map(PgId) {
            let tail = self.model.tail(self.pages_of(pg), vdl, &latest.history);
            let has = |id: NodeId| {
                let machine = &self.machines[self.home[&id]];
                // What a copy told is on its disk, also while its machine is down.
                let told = machine.told.get(&(id, pg)).copied();
                told.unwrap_or_default() >= tail
            };
            let members = &latest.pgs[pg.0 as usize];
            let nodes: NodeSet = members.nodes().iter().filter(|id| has(*id)).collect();
            // What is lost after it was copied is the fault of whatever lost it.
            let nodes = nodes.union(self.harmed);
            if !tail.is_none() && !members.write_quorum().satisfied(nodes) {
                return self.fail(format!(
                    "[10] the volume opens at {vdl}, but only {nodes} have {pg} up to {tail}"
                ));
            }
        }
    }

    /// A machine came back: its copies must have what they told [8].
    pub(crate) fn check_told(&mut self, machine: usize) {
        let history = self.meta.latest().history;
        let lacks = |pg: PgId, scl: Lsn, told: Lsn| {
            self.model.tail(self.pages_of(pg), told, &history) > scl
        };
        let told = self.machines[machine].check_told(lacks);
        if let Err(what) = told.and_then(|()| self.machines[machine].check_promised()) {
            self.fail(what);
        }
    }

    /// Nodes that cannot be read after a start, though nothing was done to them that should have that effect.
    pub(crate) fn note_lost(&mut self, machine: usize) {
        let lost: Vec<NodeId> = self.machines[machine]
            .nodes
            .values()
            .filter(|node| !node.alive())
            .map(|node| node.id)
            .collect();
        for node in lost {
            if !self.harmed.contains(node) {
                self.fail(format!("{node} was synced and cannot be read any more"));
            }
        }
    }

    /// Compares some pages at the newest durable point, or at an older one that must still be readable.
    fn compare_sample(&mut self) {
        let Some(id) = self.writer() else { return };
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        let (vdl, history) = (writing.writer().vdl(), Arc::clone(&writing.history));
        let floor = self.meta.latest().collection_floor;
        for _ in 0..SAMPLE {
            let page = PageId(
                self.chaos
                    .below(self.meta.latest().pgs.len() as u64 * self.config.segment_pages),
            );
            let back = if self.chaos.chance(300) {
                self.chaos.below(200)
            } else {
                0
            };
            let at = history.floor(Lsn(vdl.0.saturating_sub(back))).max(floor);
            self.compare(id, page, at.min(vdl), &history);
        }
    }

    fn compare_everything(&mut self) {
        let Some(id) = self.writer() else { return };
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        let (vdl, history) = (writing.writer().vdl(), Arc::clone(&writing.history));
        let pages: Vec<PageId> = self.model.pages().collect();
        pages
            .into_iter()
            .for_each(|page| self.compare(id, page, vdl, &history));
    }

    /// Every copy that can serve the read gives what the model says, and all give the same page.
    fn compare(
        &mut self,
        writer: crate::messages::InstanceId,
        page: PageId,
        at: Lsn,
        history: &History,
    ) {
        let pg = PgId((page.0 / self.config.segment_pages) as u32);
        let Some(writing) = self.instances.get_mut(&writer).and_then(Instance::writing) else {
            return;
        };
        let readable = writing.writer().readable(pg, at);
        let epoch = writing.writer().epoch();
        let expected = self.model.content(page, at, history);
        let mut same: Option<(NodeId, Vec<u8>)> = None;
        for node in readable {
            match self.materialise(node, page, at, epoch) {
                None => {}
                Some(Err(error))
                    if self.harmed.contains(node) && error.other_copy_may_have_it() => {}
                Some(Err(error)) => {
                    return self.fail(format!("{node} cannot read page {page} at {at}: {error}"));
                }
                Some(Ok(got)) => {
                    self.report.compared += 1;
                    let got_content = match &self.config.kind {
                        Kind::Pages => read(&got),
                        Kind::Database(_) => read_logged(&got, &expected.1),
                    };
                    match got_content {
                        Ok(content) if (got.lsn(), &content) == (expected.0, &expected.1) => {}
                        other => {
                            let (lsn, want) = (got.lsn(), expected.0);
                            let expected = &expected;
                            let what = match other {
                                Err(error) => error,
                                Ok(_) if lsn != want => format!("expected LSN {want}, got {lsn}"),
                                Ok(content) => {
                                    format!("expected {:?}, got {content:?}", expected.1)
                                }
                            };
                            return self.fail(format!("page {page} at {at} of {node}: {what}"));
                        }
                    }
                    let form = canonical(&got);
                    match &same {
                        Some((other, first)) if *first != form => {
                            return self.fail(format!(
                                "copies {other} and {node} of page {page} at {at} differ"
                            ));
                        }
                        Some(_) => {}
                        None => same = Some((node, form)),
                    }
                }
            }
        }
    }

    /// A node reads under the History that it has installed, once that is the reader's.
    fn materialise(
        &mut self,
        node: NodeId,
        page: PageId,
        at: Lsn,
        epoch: u64,
    ) -> Option<Result<Page, StoreError>> {
        let machine = self.machines.get_mut(*self.home.get(&node)?)?;
        if !machine.up {
            return None;
        }
        let node = machine.alive(node).filter(|node| node.installed == epoch)?;
        Some(node.store.as_ref()?.materialise(page, at, &node.history))
    }

    /// Nodes that have everything again count as sound.
    fn note_healed(&mut self) {
        let Some(id) = self.writer() else { return };
        let latest = self.meta.latest();
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        let (vdl, history) = (writing.writer().vdl(), Arc::clone(&writing.history));
        let mut healed = NodeSet::EMPTY;
        for id in self.harmed {
            if self.machines[self.home[&id]].is_armed(id) {
                continue;
            }
            let Some(node) = self
                .machines
                .get(self.home[&id])
                .and_then(|m| m.nodes.get(&id))
            else {
                continue;
            };
            let Some(store) = node.store.as_ref().filter(|store| store.is_alive()) else {
                continue;
            };
            let known = latest
                .node(id)
                .is_some_and(|info| info.incarnation == store.identity().incarnation);
            let whole = (0..latest.pgs.len() as u32).map(PgId).all(|pg| {
                let scl = node.copies.get(&pg).map_or(Lsn::NONE, |copy| copy.scl());
                scl >= self.model.tail(self.pages_of(pg), vdl, &history)
            });
            // Damage that nobody has seen yet shows when everything is read.
            if known && whole && node.installed == latest.epoch && sound(store) {
                healed.insert(id);
            }
        }
        for id in healed {
            self.harmed.remove(id);
            self.note(format_args!("{id} has everything"));
        }
    }

    /// Nodes whose machine came back after the last recovery began are replaced by one more.
    fn replace_lost_at_end(&mut self) {
        let recovering = |i: &Instance| i.lives() && i.written().is_none();
        let idle = self.writer().is_some() && !self.instances.values().any(recovering);
        let all_up = self.machines.iter().all(|machine| machine.up);
        let lost = self
            .home
            .iter()
            .any(|(id, home)| self.machines[*home].incarnation(*id).is_none());
        if idle && all_up && lost {
            self.start_instance();
        }
    }

    fn why_harmed(&self, id: NodeId) -> String {
        let machine = &self.machines[self.home[&id]];
        let info = self.meta.latest().node(id).map(|info| info.incarnation);
        let Some(node) = machine.nodes.get(&id) else {
            return format!("{id}: machine up {}", machine.up);
        };
        let scls: Vec<_> = node
            .copies
            .values()
            .map(|copy| (copy.state().pg, copy.scl(), copy.is_open()))
            .collect();
        let damage = node.store.as_ref().map(|store| store.damage());
        let made = machine.incarnation(id);
        let armed = machine.is_armed(id);
        let sound = node.store.as_ref().map(sound);
        format!(
            "{id}: made {made:?} of {info:?}, installed {}, {scls:?}, damage {damage:?}, sound {sound:?}, armed {armed}, epoch {}",
            node.installed,
            self.meta.epoch()
        )
    }

    /// Is the volume open, everything numbered durable, and every copy complete?
    fn at_rest(&self) -> bool {
        self.why_not_at_rest().is_empty()
    }

    fn why_not_at_rest(&self) -> String {
        let Some(writing) = self
            .writer()
            .and_then(|id| self.instances.get(&id))
            .and_then(Instance::written)
        else {
            let phases: Vec<String> = self
                .instances
                .values()
                .filter(|i| i.lives())
                .map(|i| format!("{i:?}"))
                .collect();
            return format!("no writer; {phases:?}")
                .chars()
                .take(4000)
                .collect();
        };
        let writer = writing.writer();
        if writer.vdl() != writer.numbered() {
            return format!("{:?}", writer.points());
        }
        if !self.harmed.is_empty() {
            let why: Vec<String> = self.harmed.iter().map(|id| self.why_harmed(id)).collect();
            return format!("{} lack something: {why:?}", self.harmed);
        }
        for pg in (0..writer.pgs() as u32).map(PgId) {
            let tail = self
                .model
                .tail(self.pages_of(pg), writer.vdl(), &writing.history);
            for (id, home) in &self.home {
                let copy = self.machines[*home]
                    .nodes
                    .get(id)
                    .and_then(|node| node.copies.get(&pg));
                let scl = copy.map_or(Lsn::NONE, |copy| copy.scl());
                if scl < tail {
                    return format!("{pg} of {id} is complete to {scl}, not to {tail}");
                }
            }
        }
        String::new()
    }
}

/// A page of an engine's: as the model has it if both are the same in canonical form.
fn read_logged(got: &Page, expected: &Content) -> Result<Content, String> {
    match expected {
        Content::Replayed(page) if canonical(page) == canonical(got) => Ok(expected.clone()),
        Content::Replayed(page) => Err(format!("expected {page:?}, got {got:?}")),
        other if got.lsn().is_none() => Ok(other.clone()),
        other => Err(format!("expected {other:?}, got {got:?}")),
    }
}

/// Reads everything once more.
fn sound(store: &NodeStore) -> bool {
    let damaged = damaged_blobs(store);
    damaged.is_some_and(|blobs| blobs.is_empty()) && store.damage().is_empty()
}

/// Reads everything, and gives the blobs that are not as they were; nothing if the disk fails.
pub(crate) fn damaged_blobs(store: &NodeStore) -> Option<Vec<BlobId>> {
    let mut damaged = Vec::new();
    loop {
        let report = store.scrub(1 << 20).ok()?;
        damaged.extend(report.blobs);
        if report.finished {
            return Some(damaged);
        }
    }
}
