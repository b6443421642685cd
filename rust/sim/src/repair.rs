//! The driver of repairs: damaged parts of layers are mended with what other copies have.
//!
//! What only the damaged copy had is gone with the damage. So the parts come from a copy that is complete at least as far,
//! and afterwards the copy asks its store again what it has, or it would go on telling of records that are nowhere.

use aurora_page::{Lsn, PageId};
use aurora_proto::{Copy, NodeId};
use aurora_redo::PgId;
use aurora_store::{Damage, Export, NodeStore};

use crate::blobs::mend_blobs;
use crate::check::damaged_blobs;
use crate::machine::Machine;
use crate::node::Node;
use crate::world::World;

impl World {
    /// Repairs what damage is known.
    pub(crate) fn repair_damage(&mut self) {
        self.repair_blobs();
        for id in self.harmed {
            let home = self.home[&id];
            // Tickets on their way to disk are of the copy as it is.
            if !self.machines[home].up || !self.machines[home].pending.is_empty() {
                continue;
            }
            let store = self.machines[home]
                .alive(id)
                .and_then(|node| node.store.as_ref());
            for damage in store.map(|store| store.damage()).unwrap_or_default() {
                let Some(exports) = self.exports_for(id, &damage) else {
                    continue;
                };
                if !self.bring_blobs(id, &exports) {
                    continue;
                }
                let done = self.machines[home].repair(id, &damage, &exports);
                self.note(format_args!("{id} repairs {damage:?}: {done:?}"));
            }
        }
    }

    /// Damaged blobs come again from a peer.
    fn repair_blobs(&mut self) {
        for id in self.harmed {
            let Some(store) = self.store_of(id) else {
                continue;
            };
            if store.blobs().map_or(true, |blobs| blobs.is_empty()) {
                continue;
            }
            let damaged = damaged_blobs(store).unwrap_or_default();
            mend_blobs(store, &damaged, &self.sound_stores());
        }
    }

    /// What is mended from a peer may refer to blobs that are not here: they come first, as everywhere. False as long as one lacks.
    fn bring_blobs(&self, id: NodeId, exports: &[Export]) -> bool {
        let Some(store) = self.store_of(id) else {
            return false;
        };
        let blobs = exports.iter().flat_map(|export| &export.blobs).copied();
        let lacking: Vec<_> = blobs.filter(|blob| !store.has_blob(*blob)).collect();
        mend_blobs(store, &lacking, &self.sound_stores());
        lacking.iter().all(|blob| store.has_blob(*blob))
    }

    fn store_of(&self, id: NodeId) -> Option<&NodeStore> {
        let machine = self.machines.get(*self.home.get(&id)?)?;
        let node = machine.nodes.get(&id).filter(|_| machine.up)?;
        node.store.as_ref().filter(|store| store.is_alive())
    }

    fn sound_stores(&self) -> Vec<&NodeStore> {
        let sound = self
            .home
            .keys()
            .filter(|peer| !self.harmed.contains(**peer));
        sound.filter_map(|peer| self.store_of(*peer)).collect()
    }

    /// What the most complete sound peer has of the damaged pages.
    fn exports_for(&self, id: NodeId, damage: &Damage) -> Option<Vec<Export>> {
        let damaged = self.machines[self.home[&id]].nodes.get(&id)?;
        let n = self.config.segment_pages;
        let pgs = (damage.pages.start().0 / n..=damage.pages.end().0 / n).map(|pg| PgId(pg as u32));
        let peers = self
            .machines
            .iter()
            .filter(|m| m.up)
            .flat_map(|m| m.nodes.values());
        let covers = |peer: &&Node| {
            let scl = |node: &Node, pg: &PgId| {
                node.copies
                    .get(pg)
                    .map(|copy| (copy.state().installed, copy.scl()))
            };
            pgs.clone().all(|pg| {
                // Both: a peer may have installed a later epoch and lack what was before it.
                let as_much = |have: (u64, Lsn)| {
                    scl(peer, &pg).is_some_and(|its| its.0 >= have.0 && its.1 >= have.1)
                };
                scl(damaged, &pg).is_none_or(as_much)
            })
        };
        let sound = peers.filter(|peer| peer.alive() && !self.harmed.contains(peer.id));
        sound.filter(covers).find_map(|peer| export(peer, damage))
    }
}

fn export(peer: &Node, damage: &Damage) -> Option<Vec<Export>> {
    let mut exports = Vec::new();
    let mut next: Option<PageId> = Some(*damage.pages.start());
    while let Some(page) = next {
        let store = peer.store.as_ref()?;
        let export = store.export(page..=*damage.pages.end(), 64 << 10).ok()?;
        next = export.next;
        exports.push(export);
    }
    Some(exports)
}

impl Machine {
    fn repair(&mut self, id: NodeId, damage: &Damage, exports: &[Export]) -> Result<(), String> {
        let Some(node) = self.alive(id) else {
            return Ok(());
        };
        let Some(store) = &node.store else {
            return Ok(());
        };
        store.repair(damage, exports).map_err(|e| e.to_string())?;
        for copy in node.copies.values_mut() {
            let state = copy.state().clone();
            let floor = state.scl.min(state.vdl_hint);
            let links = store.links(state.pg, floor).map_err(|e| e.to_string())?;
            *copy = Copy::restore(state, links);
        }
        Ok(())
    }
}
