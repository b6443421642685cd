//! Which layers a node has: the set that reads go by, and how it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use aurora_page::{Lsn, PageId, VolumeId};
use parking_lot::{Mutex, RwLock};

use crate::cache::BlockCache;
use crate::error::StoreError;
use crate::fork::is_own;
use crate::inventory;
use crate::layer::{ImageEntry, Layer, LayerDir};
use crate::types::{Damage, LayerKind};

/// The layers at one moment; a read keeps the set it began with.
#[derive(Debug, Default)]
pub(crate) struct LayerSet {
    /// Newest last LSN first.
    pub(crate) deltas: Vec<Arc<Layer>>,
    pub(crate) images: Vec<Arc<Layer>>,
    /// Layers that cannot be read at all: until they are repaired, nothing is known about what was in them.
    pub(crate) broken: Vec<Damage>,
}

impl LayerSet {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Layer>> {
        self.deltas.iter().chain(&self.images)
    }

    /// The newest image of a page at or below `upto` that `valid` accepts, and its layer.
    pub(crate) fn image(
        &self,
        cache: &BlockCache,
        page: PageId,
        upto: Lsn,
        valid: impl Fn(VolumeId, Lsn) -> bool,
    ) -> Result<Option<(Arc<Layer>, ImageEntry)>, StoreError> {
        let mut best: Option<(Arc<Layer>, ImageEntry)> = None;
        let mut found = Vec::new();
        for layer in &self.images {
            let after = best.as_ref().map_or(Lsn::NONE, |(_, image)| image.lsn);
            if !layer.overlaps(page, after, upto) {
                continue;
            }
            found.clear();
            layer.images_of(cache, page, upto, &mut found)?;
            let newest = found
                .iter()
                .filter(|i| i.lsn > after && valid(i.origin, i.lsn))
                .max_by_key(|i| i.lsn);
            if let Some(image) = newest {
                best = Some((layer.clone(), *image));
            }
        }
        Ok(best)
    }
}

/// The present set, the directory, and the numbers of new layers.
#[derive(Debug)]
pub(crate) struct LayerMap {
    pub(crate) dir: LayerDir,
    pub(crate) cache: BlockCache,
    set: RwLock<Arc<LayerSet>>,
    next: Mutex<u64>,
    /// Held while the set and the list on disk change.
    listing: Mutex<()>,
}

impl LayerMap {
    pub(crate) fn empty(dir: LayerDir, cache_bytes: usize) -> LayerMap {
        LayerMap {
            dir,
            cache: BlockCache::new(cache_bytes),
            set: RwLock::default(),
            next: Mutex::new(1),
            listing: Mutex::new(()),
        }
    }

    /// Reads the footers; layers that others replace, and unfinished ones, are removed.
    pub(crate) fn open(dir: LayerDir, cache_bytes: usize) -> Result<LayerMap, StoreError> {
        let map = LayerMap::empty(dir, cache_bytes);
        let mut layers = Vec::new();
        let mut set = LayerSet::default();
        let listed = inventory::read(&*map.dir.disk, &map.dir.dir)?;
        let numbers = map.dir.list()?;
        let mut missing: BTreeSet<u64> = listed
            .difference(&numbers.iter().copied().collect())
            .copied()
            .collect();
        for number in numbers {
            map.reserve(number);
            match Layer::open(&map.dir, number) {
                Ok(layer) => layers.push(Arc::new(layer)),
                Err(StoreError::Corrupt { path, .. }) => {
                    let pages = PageId(0)..=PageId(u64::MAX);
                    set.broken.push(Damage {
                        layer: number,
                        path,
                        offset: 0,
                        pages,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        let replaced: BTreeSet<u64> = layers
            .iter()
            .flat_map(|l| l.footer.replaced.iter().copied())
            .collect();
        missing.retain(|number| !replaced.contains(number));
        if let Some(number) = missing.first() {
            // What is left would look whole and be wrong: the copy is lost, and its peers have theirs.
            let path = map.dir.path(*number);
            return Err(StoreError::corrupt(&path, 0, "a layer", "no file"));
        }
        for number in &replaced {
            map.reserve(*number);
            if map.dir.disk.exists(&map.dir.path(*number)) {
                map.dir.remove(*number)?;
            }
        }
        set.broken.retain(|d| !replaced.contains(&d.layer));
        layers.retain(|l| !replaced.contains(&l.layer));
        for layer in layers {
            add(&mut set, layer);
        }
        *map.set.write() = Arc::new(set);
        Ok(map)
    }

    /// Begins with the layers of another node, as they are; numbers begin at `next`.
    pub(crate) fn share(&mut self, set: Arc<LayerSet>, next: u64) {
        *self.next.get_mut() = next;
        *self.set.get_mut() = set;
    }

    fn reserve(&self, number: u64) {
        let mut next = self.next.lock();
        *next = (*next).max(number + 1);
    }

    /// A number that no layer has had.
    pub(crate) fn number(&self) -> u64 {
        let mut next = self.next.lock();
        *next += 1;
        *next - 1
    }

    pub(crate) fn set(&self) -> Arc<LayerSet> {
        self.set.read().clone()
    }

    /// Puts new layers in and takes replaced ones out, in one step; then removes the files of those.
    pub(crate) fn publish(&self, added: Vec<Layer>, removed: &[u64]) -> Result<(), StoreError> {
        let unreplaced = added.is_empty();
        let listing = self.listing.lock();
        let is_shared = |layer: &&Arc<Layer>| !is_own(&self.dir, layer);
        let shared: BTreeSet<u64> = self
            .set()
            .all()
            .filter(is_shared)
            .map(|l| l.layer)
            .collect();
        {
            let mut present = self.set.write();
            let mut set = LayerSet {
                deltas: present
                    .deltas
                    .iter()
                    .filter(|l| !removed.contains(&l.layer))
                    .cloned()
                    .collect(),
                images: present
                    .images
                    .iter()
                    .filter(|l| !removed.contains(&l.layer))
                    .cloned()
                    .collect(),
                broken: present
                    .broken
                    .iter()
                    .filter(|d| !removed.contains(&d.layer))
                    .cloned()
                    .collect(),
            };
            for layer in added {
                add(&mut set, Arc::new(layer));
            }
            *present = Arc::new(set);
        }
        let set = self.set();
        let numbers = set
            .all()
            .map(|layer| layer.layer)
            .chain(set.broken.iter().map(|damage| damage.layer))
            .collect();
        inventory::write(&*self.dir.disk, &self.dir.dir, &numbers)?;
        drop(listing);
        for number in removed {
            self.cache.forget(*number);
            if !shared.contains(number) {
                self.dir.remove(*number)?;
            }
        }
        // A layer that says what it replaces keeps it from coming back after a crash; without one, the removal has to.
        if unreplaced && !removed.is_empty() {
            self.dir.sync()?;
        }
        Ok(())
    }
}

fn add(set: &mut LayerSet, layer: Arc<Layer>) {
    let list = match layer.kind() {
        LayerKind::Delta => &mut set.deltas,
        LayerKind::Image => &mut set.images,
    };
    list.push(layer);
    list.sort_by_key(|l| {
        (
            std::cmp::Reverse(l.footer.last_lsn),
            std::cmp::Reverse(l.layer),
        )
    });
}
