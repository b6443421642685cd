//! A storage node's page store: the layer in memory, the layers on disk, and who they belong to.
//!
//! ```text
//!   ingest --> open layer --flush--> delta layers --compact--> fewer, larger ones, and image layers
//!                  |                      |                        |
//!                  +----------------------+------------------------+--> materialise(page, at, history)
//! ```
//! Duties of the driver:
//!
//! 1. [`ingest`](NodeStore::ingest) what a copy accepted, once the log device has given its token.
//! 2. To bound the log: under the lock that orders 1, take the log's position and the states of the node's copies; then
//!    [`flush`](NodeStore::flush) every node of the device with its states; then trim the log to the position.
//! 3. Call [`compact`](NodeStore::compact), [`collect`](NodeStore::collect) and [`scrub`](NodeStore::scrub) with as many
//!    bytes as background work may use now.
//! 4. When [`damage`](NodeStore::damage) is not empty, fetch the pages from another copy and
//!    [`repair`](NodeStore::repair).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_page::{Lsn, PageId};
use aurora_proto::{ClusterId, CopyState, NodeId};
use aurora_redo::{BlobId, PgBatch};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::blob::Blobs;
use crate::compact::Background;
use crate::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::identity::NodeIdentity;
use crate::inventory;
use crate::layer::iter::{Merge, Records};
use crate::layer::{DeltaWriter, Layer, LayerDir};
use crate::layermap::{LayerMap, LayerSet};
use crate::memlayer::{MemLayer, commit_of};
use crate::scrub::ScrubCursor;
use crate::state::State;
use crate::token::PersistedBlob;
use crate::types::{Damage, LayerInfo, NodeConfig};

pub(crate) const LAYERS: &str = "layers";
pub(crate) const BLOBS: &str = "blobs";

#[derive(Debug, Default)]
struct Memory {
    open: Arc<MemLayer>,
    /// Oldest first: on their way to disk, or waiting for room there.
    frozen: Vec<Arc<MemLayer>>,
}

/// The pages of one storage node.
#[derive(Debug)]
pub struct NodeStore {
    pub(crate) config: NodeConfig,
    pub(crate) map: LayerMap,
    pub(crate) blobs: Blobs,
    /// Pages that have come to hold many records: candidates for an image.
    pub(crate) candidates: Mutex<BTreeSet<PageId>>,
    /// Who holds the lock does background work.
    pub(crate) background: Mutex<Background>,
    pub(crate) damaged: Mutex<Vec<Damage>>,
    pub(crate) scrubbed: Mutex<ScrubCursor>,
    state: RwLock<Arc<State>>,
    /// Held while the state file is written, so that readers of the state never wait for a disk.
    writing: Mutex<()>,
    pub(crate) disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: NodeIdentity,
    identity_file: Arc<dyn DiskFile>,
    memory: RwLock<Memory>,
    flushing: Mutex<()>,
}

impl NodeStore {
    /// Makes an empty node in a directory that has none.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: NodeIdentity,
        config: NodeConfig,
    ) -> Result<NodeStore, StoreError> {
        for sub in [LAYERS, BLOBS] {
            disk.create_dir_all(&dir.join(sub))
                .map_err(StoreError::io(dir))?;
        }
        State::default().write(&*disk, dir)?;
        inventory::write(&*disk, &dir.join(LAYERS), &BTreeSet::new())?;
        // Last: a directory without it is no node.
        identity.write(&*disk, dir)?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).map_err(StoreError::io(parent))?;
        }
        NodeStore::open(disk, dir, identity.cluster, identity.node, config)
    }

    /// Opens a node as it was at its last flush. What the log has since is for the driver to [`ingest`](Self::ingest).
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        cluster: ClusterId,
        node: NodeId,
        config: NodeConfig,
    ) -> Result<NodeStore, StoreError> {
        let (identity, identity_file) = NodeIdentity::read_open(&*disk, dir)?;
        if (identity.cluster, identity.node) != (cluster, node) {
            return Err(StoreError::Identity {
                path: dir.to_path_buf(),
                expected: format!("{node} of cluster {cluster}"),
                got: format!("{} of cluster {}", identity.node, identity.cluster),
            });
        }
        let mut state = State::read(&*disk, dir)?;
        let layers = LayerDir {
            disk: disk.clone(),
            dir: dir.join(LAYERS),
        };
        let map = LayerMap::open(layers, config.cache_bytes)?;
        let blobs = Blobs::new(disk.clone(), dir.join(BLOBS));
        blobs.clean()?;
        let set = map.set();
        state.floor = set
            .all()
            .map(|l| l.footer.floor)
            .fold(state.floor, Lsn::max);
        let damaged = set.broken.clone();
        Ok(NodeStore {
            config,
            map,
            blobs,
            candidates: Mutex::default(),
            background: Mutex::default(),
            damaged: Mutex::new(damaged),
            scrubbed: Mutex::default(),
            state: RwLock::new(Arc::new(state)),
            writing: Mutex::new(()),
            disk,
            dir: dir.to_path_buf(),
            identity,
            identity_file,
            memory: RwLock::default(),
            flushing: Mutex::new(()),
        })
    }

    /// Whose directory it is.
    pub fn identity(&self) -> NodeIdentity {
        self.identity
    }

    /// Is the directory still there? Once it is gone, the node is a lost copy and acknowledges nothing.
    pub fn is_alive(&self) -> bool {
        self.identity_file.is_linked().unwrap_or(false)
    }

    /// The node's copies as of the last flush.
    pub fn states(&self) -> Vec<CopyState> {
        self.state().copies.clone()
    }

    /// Reads below it are refused: older versions may have been collected.
    pub fn floor(&self) -> Lsn {
        self.state().floor
    }

    /// Takes records that the log device has made durable. The batch is shared, nothing is copied.
    pub fn ingest(&self, batch: Arc<PgBatch>) {
        self.memory.read().open.push(batch);
    }

    /// Bytes in memory that a flush would put into layers.
    pub fn unflushed_bytes(&self) -> u64 {
        self.memory().iter().map(|m| m.bytes()).sum()
    }

    /// Layers in memory, newest first.
    pub(crate) fn memory(&self) -> Vec<Arc<MemLayer>> {
        let memory = self.memory.read();
        std::iter::once(&memory.open)
            .chain(memory.frozen.iter().rev())
            .cloned()
            .collect()
    }

    /// Puts what is in memory into a delta layer, then the copies' states into the state file. Gives the bytes written.
    ///
    /// `states` must not promise more than was ingested before the call. If it fails, everything stays in memory, can
    /// be read, and is written by the next flush; the log must not be trimmed.
    pub fn flush(&self, states: &[CopyState]) -> Result<u64, StoreError> {
        self.flush_with(states, Some(Lsn(1)))
    }

    /// The same for copies of which the driver knows their oldest record above the lower of SCL and VDL hint, taken with the
    /// states: opening the node again then reads no index of a layer below that [13].
    pub fn flush_settled(
        &self,
        states: &[CopyState],
        unsettled: Option<Lsn>,
    ) -> Result<u64, StoreError> {
        self.flush_with(states, unsettled)
    }

    fn flush_with(&self, states: &[CopyState], unsettled: Option<Lsn>) -> Result<u64, StoreError> {
        let _flushing = self.flushing.lock();
        let frozen = self.freeze();
        let mut written = 0;
        if !frozen.is_empty() {
            written += self.write_delta(&frozen)?;
            // Only now: a read that finds it neither in memory nor in the set would miss it.
            let mut memory = self.memory.write();
            memory
                .frozen
                .retain(|m| !frozen.iter().any(|f| Arc::ptr_eq(f, m)));
        }
        // What has come since the states were taken may be in a layer already; it is in the log too.
        let deltas = &self.map.set().deltas;
        let newest = deltas.iter().map(|l| l.footer.last_lsn).max();
        let settled = unsettled.map_or(Lsn::MAX, Lsn::prev);
        written += self.persist_state(|state| {
            state.copies = states.to_vec();
            state.quiet = newest.unwrap_or(Lsn::NONE).min(settled);
        })?;
        Ok(written)
    }

    /// Writes the states of the copies down without putting anything into layers: after a branch, when they are not what the
    /// last flush and the log since say. No layer has a record of theirs above the lower of SCL and VDL hint and at or below
    /// `quiet`.
    pub fn write_states(&self, states: &[CopyState], quiet: Lsn) -> Result<(), StoreError> {
        self.persist_state(|state| {
            state.copies = states.to_vec();
            state.quiet = quiet;
        })
        .map(drop)
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.state.read().clone()
    }

    /// What is in memory, none of which changes any more.
    pub(crate) fn frozen(&self) -> Vec<Arc<MemLayer>> {
        self.freeze()
    }

    /// Begins with the layers of another node, as they are.
    pub(crate) fn share(&mut self, memory: Vec<Arc<MemLayer>>, set: Arc<LayerSet>, next: u64) {
        self.memory.get_mut().frozen = memory;
        self.map.share(set, next);
    }

    /// Keeps blobs in another directory from now on.
    pub(crate) fn keep_blobs_at(&mut self, disk: Arc<dyn Disk>, dir: PathBuf) {
        self.blobs = Blobs::new(disk, dir);
    }

    /// A delta layer of what is in memory; none where that is nothing.
    pub(crate) fn delta_of(
        frozen: &[Arc<MemLayer>],
        dir: &LayerDir,
        number: u64,
    ) -> Result<Option<Layer>, StoreError> {
        let sources = frozen
            .iter()
            .map(|m| Records::Memory(m.sorted(|_| true).into_iter()))
            .collect();
        let mut merge = Merge::new(sources);
        let mut writer = DeltaWriter::create(dir, number)?;
        let mut commits = Vec::new();
        while let Some(record) = merge.next()? {
            commits.extend(commit_of(&record));
            writer.push(&record)?;
        }
        if writer.is_empty() {
            return Ok(None);
        }
        commits.sort_by_key(|c| (c.lsn, c.origin));
        writer
            .finish(commits.into_iter().map(Ok), Lsn::NONE, &[])
            .map(Some)
    }

    fn freeze(&self) -> Vec<Arc<MemLayer>> {
        let mut memory = self.memory.write();
        if !memory.open.is_empty() {
            let open = std::mem::take(&mut memory.open);
            memory.frozen.push(open);
        }
        memory.frozen.clone()
    }

    fn write_delta(&self, frozen: &[Arc<MemLayer>]) -> Result<u64, StoreError> {
        let number = self.map.number();
        let Some(layer) = NodeStore::delta_of(frozen, &self.map.dir, number)? else {
            return Ok(0);
        };
        let bytes = layer.bytes;
        self.candidates
            .lock()
            .extend(layer.meta()?.heavy.iter().map(|h| h.page));
        self.map.publish(vec![layer], &[])?;
        Ok(bytes)
    }

    /// Changes the state on disk, then in memory: a floor is durable before anything below it is given up.
    pub(crate) fn persist_state(&self, change: impl FnOnce(&mut State)) -> Result<u64, StoreError> {
        let _writing = self.writing.lock();
        let present = self.state();
        let mut next = State::clone(&present);
        change(&mut next);
        if next == *present {
            return Ok(0);
        }
        let written = next.write(&*self.disk, &self.dir)?;
        *self.state.write() = Arc::new(next);
        Ok(written)
    }

    /// Pages of a protection group.
    pub(crate) fn pages_of(&self, pg: aurora_redo::PgId) -> std::ops::RangeInclusive<PageId> {
        let first = u64::from(pg.0) * self.config.segment_pages;
        PageId(first)..=PageId(first + self.config.segment_pages - 1)
    }

    /// Stores a blob: sealed pages of a bulk load. `epoch` is the volume epoch of the load.
    pub fn put_blob(
        &self,
        id: BlobId,
        epoch: u64,
        pages: &[Bytes],
    ) -> Result<PersistedBlob, StoreError> {
        self.blobs.put(id, epoch, pages)?;
        Ok(PersistedBlob::new(self.identity.node, id))
    }

    /// Is the blob here?
    pub fn has_blob(&self, id: BlobId) -> bool {
        self.blobs.has(id)
    }

    /// The sealed pages of a blob, for another copy.
    pub fn blob_pages(&self, id: BlobId) -> Result<Vec<Bytes>, StoreError> {
        self.blobs.pages(id)
    }

    /// The blob's digest, equal in all copies, and the epoch of its load.
    pub fn blob_digest(&self, id: BlobId) -> Result<(u32, u64), StoreError> {
        Ok((self.blobs.digest(id)?, self.blobs.epoch(id)?))
    }

    /// Blobs that are here.
    pub fn blobs(&self) -> Result<Vec<BlobId>, StoreError> {
        self.blobs.list()
    }

    /// Layers whose index has been read since the node was opened: none by opening it [13].
    pub fn indexed_layers(&self) -> usize {
        self.map.set().all().filter(|l| l.is_indexed()).count()
    }

    /// The layers, for status.
    pub fn layers(&self) -> Vec<LayerInfo> {
        self.map.set().all().map(|l| l.info()).collect()
    }

    /// Bytes of layers and blobs.
    pub fn used_bytes(&self) -> u64 {
        let layers: u64 = self.map.set().all().map(|l| l.bytes).sum();
        let blobs = self.blobs.list().unwrap_or_default();
        layers
            + blobs
                .into_iter()
                .filter_map(|id| self.blobs.bytes(id).ok())
                .sum::<u64>()
    }
}
