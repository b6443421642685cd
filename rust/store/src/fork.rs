//! A new node that begins with what another one has: the pages of a clone. Nothing is copied but what is in memory alone.
//!
//! ```text
//!   linked   the layers and blobs of the other get second names in the new directory: each node removes its own names, in any order
//!   shared   layers are the same open files, records in memory the same batches: for a node on memory disks
//! ```
//! Layers never change once they are there, so it does not matter who reads them, nor who gives them up first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_proto::CopyState;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::identity::NodeIdentity;
use crate::inventory;
use crate::layer::{Layer, LayerDir};
use crate::node::{BLOBS, LAYERS, NodeStore};
use crate::state::State;
use crate::types::NodeConfig;

/// Where a new node lies.
#[derive(Clone, Debug)]
pub struct ForkTarget {
    /// Its disk.
    pub disk: Arc<dyn Disk>,
    /// Its directory.
    pub dir: PathBuf,
    /// Whose it is.
    pub identity: NodeIdentity,
    /// Sizes and thresholds: page and segment sizes are those of the other node.
    pub config: NodeConfig,
    /// A directory on the other node's disk for the names of its blobs, where the new node lies on another disk.
    pub blobs: Option<PathBuf>,
}

impl NodeStore {
    /// Makes a node in a directory on the same disk that has everything this one has, with copies in these states. Until its
    /// identity is written, last, the directory is no node.
    pub fn fork_linked(
        &self,
        target: &ForkTarget,
        states: &[CopyState],
    ) -> Result<NodeStore, StoreError> {
        let ForkTarget { disk, dir, .. } = target;
        for sub in [LAYERS, BLOBS] {
            disk.create_dir_all(&dir.join(sub))
                .map_err(StoreError::io(dir))?;
        }
        // Memory before layers, as for reads.
        let memory = self.frozen();
        let set = self.map.set();
        self.check_readable(&set)?;
        let layers = LayerDir {
            disk: disk.clone(),
            dir: dir.join(LAYERS),
        };
        let mut numbers = std::collections::BTreeSet::new();
        for layer in set.all() {
            let to = layers.path(layer.layer);
            disk.link(&layer.path, &to).map_err(StoreError::io(&to))?;
            numbers.insert(layer.layer);
        }
        let next = self.map.number();
        if let Some(layer) = NodeStore::delta_of(&memory, &layers, next)? {
            numbers.insert(layer.layer);
        }
        layers.sync()?;
        self.link_blobs(&**disk, &dir.join(BLOBS))?;
        let state = self.forked_state(states);
        state.write(&**disk, dir)?;
        inventory::write(&**disk, &dir.join(LAYERS), &numbers)?;
        target.identity.write(&**disk, dir)?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).map_err(StoreError::io(parent))?;
        }
        let NodeIdentity { cluster, node, .. } = target.identity;
        NodeStore::open(disk.clone(), dir, cluster, node, target.config)
    }

    /// Makes a node on a memory disk that has everything this one has, with copies in these states.
    pub fn fork_shared(
        &self,
        target: &ForkTarget,
        states: &[CopyState],
    ) -> Result<NodeStore, StoreError> {
        let ForkTarget { disk, dir, .. } = target;
        let memory = self.frozen();
        let set = self.map.set();
        self.check_readable(&set)?;
        let mut made = NodeStore::create(disk.clone(), dir, target.identity, target.config)?;
        if let Some(blobs) = &target.blobs
            && !self.blobs()?.is_empty()
        {
            self.disk
                .create_dir_all(blobs)
                .map_err(StoreError::io(blobs))?;
            self.link_blobs(&*self.disk, blobs)?;
            made.keep_blobs_at(self.disk.clone(), blobs.clone());
        }
        let state = self.forked_state(states);
        made.share(memory, set, self.map.number());
        made.persist_state(|present| *present = state)?;
        Ok(made)
    }

    fn forked_state(&self, states: &[CopyState]) -> State {
        let present = self.state();
        State {
            copies: states.to_vec(),
            floor: present.floor,
            floor_commit: present.floor_commit,
            // Whatever lies above the copies' SCLs is of no History of theirs.
            quiet: states
                .first()
                .map_or(present.quiet, |copy| copy.history.first_new_lsn().prev()),
        }
    }

    fn link_blobs(&self, disk: &dyn Disk, to: &Path) -> Result<(), StoreError> {
        for blob in self.blobs.list()? {
            let from = self.blobs.path(blob);
            let name = from.file_name().map(PathBuf::from).unwrap_or_default();
            let to = to.join(name);
            disk.link(&from, &to).map_err(StoreError::io(&to))?;
        }
        disk.sync_dir(to).map_err(StoreError::io(to))
    }
}

/// The files of a layer that another node has too are not removed with it.
pub(crate) fn is_own(dir: &LayerDir, layer: &Layer) -> bool {
    layer.path == dir.path(layer.layer)
}
