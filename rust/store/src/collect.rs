//! Giving up what no root needs: records and images below the floor that an image at or below the floor covers, what no
//! kept History contains, and blobs that nothing refers to.
//!
//! Nothing is made in order to drop something: a cold page keeps its few records for ever, because an image of it would
//! cost more. Chains that are long have images already.

use std::collections::BTreeSet;
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_page::planted::{self, Fault};
use aurora_redo::BlobId;

use crate::commits::Bound;
use crate::compact::Job;
use crate::error::StoreError;
use crate::layer::Layer;
use crate::layer::writer::referenced;
use crate::layermap::LayerSet;
use crate::node::NodeStore;
use crate::types::{CommitPoint, LayerKind, Roots};

/// What looking up one page or image counts for, against the budget.
const LOOKUP_BYTES: u64 = 64;

impl NodeStore {
    /// Makes `roots.floor` durable, then looks for layers that are mostly garbage and rewrites or removes them, until
    /// about `budget` bytes are used; gives the bytes used. From then on, reads below the floor are refused.
    pub fn collect(&self, budget: u64, roots: &Roots) -> Result<u64, StoreError> {
        let everything;
        let roots = match planted::is(Fault::CollectIgnoresFloor) {
            true => {
                let floor = roots.vdl;
                everything = Roots {
                    floor,
                    ..roots.clone()
                };
                &everything
            }
            false => roots,
        };
        let mut background = self.background.lock();
        if roots.histories.is_empty() {
            return Ok(0);
        }
        let mut used = self.raise_floor(roots)?;
        if !matches!(background.job, Job::None) {
            used += self.step(&mut background.job, budget.saturating_sub(used), roots)?;
        }
        let set = self.map.set();
        let mut layers: Vec<&Arc<Layer>> = set.all().collect();
        layers.sort_by_key(|l| l.layer);
        let start = layers.partition_point(|l| l.layer <= background.collected);
        layers.rotate_left(start);
        let damaged: BTreeSet<u64> = self.damaged.lock().iter().map(|d| d.layer).collect();
        for layer in layers.into_iter().filter(|l| !damaged.contains(&l.layer)) {
            if used >= budget || !matches!(background.job, Job::None) {
                break;
            }
            background.collected = layer.layer;
            used += LOOKUP_BYTES;
            if layer.footer.first_lsn > roots.floor {
                continue;
            }
            let (garbage, looked) = self
                .garbage(&set, layer, roots)
                .inspect_err(|e| self.note(e))?;
            used += looked;
            if garbage * 2 < layer.footer.weight.max(1) {
                continue;
            }
            let inputs = vec![layer.clone()];
            background.job = match layer.kind() {
                LayerKind::Delta => self.merge_job(inputs, roots, &Arc::default())?,
                LayerKind::Image => self.merge_images_job(inputs, roots, &Arc::default())?,
            };
            used += self.step(
                &mut background.job,
                budget.saturating_sub(used).max(1),
                roots,
            )?;
        }
        if used < budget {
            used += self.collect_blobs()?;
        }
        Ok(used)
    }

    /// The floor, and the newest commit at or below it: the answer to times that lie before all kept commits.
    fn raise_floor(&self, roots: &Roots) -> Result<u64, StoreError> {
        if roots.floor <= self.floor() {
            return Ok(0);
        }
        let commit = match roots.histories.first() {
            Some(history) => self.newest_commit(
                Bound {
                    lsn: roots.floor,
                    time_us: i64::MAX,
                },
                history,
            )?,
            None => None,
        };
        self.persist_state(|state| {
            state.floor = roots.floor;
            state.floor_commit = commit.or(state.floor_commit);
        })
    }

    /// Takes over the floor of a copy whose pages come here, if it is the higher one.
    pub(crate) fn adopt_floor(
        &self,
        floor: Lsn,
        floor_commit: Option<CommitPoint>,
    ) -> Result<u64, StoreError> {
        if floor <= self.floor() {
            return Ok(0);
        }
        self.persist_state(|state| {
            if floor > state.floor {
                state.floor = floor;
                state.floor_commit = floor_commit.or(state.floor_commit);
            }
        })
    }

    /// About how many bytes of a layer are garbage, and what looking cost.
    fn garbage(
        &self,
        set: &LayerSet,
        layer: &Layer,
        roots: &Roots,
    ) -> Result<(u64, u64), StoreError> {
        let meta = layer.meta()?;
        let (mut garbage, mut looked) = (0, 0);
        if layer.kind() == LayerKind::Delta {
            for heavy in &meta.heavy {
                looked += LOOKUP_BYTES;
                garbage += heavy.bytes_upto(self.covered(set, heavy.page, roots)?);
            }
            return Ok((garbage, looked));
        }
        for block in &meta.blocks {
            for image in layer.listing(block)? {
                looked += LOOKUP_BYTES;
                if !self.image_needed(set, &image, roots)? {
                    garbage += u64::from(image.len);
                }
            }
        }
        Ok((garbage, looked))
    }

    /// Up to where every kept History has an image of the page at or below the floor.
    fn covered(
        &self,
        set: &LayerSet,
        page: aurora_page::PageId,
        roots: &Roots,
    ) -> Result<Lsn, StoreError> {
        let mut covered = roots.floor;
        for history in &roots.histories {
            let image = set.image(&self.map.cache, page, roots.floor, |o, l| {
                history.contains(o, l)
            })?;
            covered = covered.min(image.map_or(Lsn::NONE, |(_, image)| image.lsn));
        }
        Ok(covered)
    }

    /// Removes blobs of earlier epochs that nothing refers to any more: their pages have images, or their load was
    /// abandoned.
    fn collect_blobs(&self) -> Result<u64, StoreError> {
        let here = self.blobs.list()?;
        if here.is_empty() {
            return Ok(0);
        }
        let mut used: BTreeSet<BlobId> = BTreeSet::new();
        // Memory before layers, as for reads.
        self.memory()
            .iter()
            .for_each(|m| m.for_each(|r| used.extend(referenced(r))));
        let set = self.map.set();
        if !set.broken.is_empty() {
            return Ok(0);
        }
        for layer in &set.deltas {
            used.extend(layer.meta().inspect_err(|e| self.note(e))?.blobs.iter());
        }
        let epoch = self
            .state()
            .copies
            .iter()
            .map(|c| c.epoch)
            .max()
            .unwrap_or(0);
        for blob in here.iter().filter(|b| !used.contains(b)) {
            if self.blobs.epoch(*blob)? < epoch || planted::is(Fault::BlobCollectedEarly) {
                self.blobs.remove(*blob)?;
            }
        }
        Ok(here.len() as u64 * LOOKUP_BYTES)
    }
}
