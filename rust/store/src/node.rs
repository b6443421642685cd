//! A storage node's page store.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use aurora_page::{Lsn, Page, PageId};
use aurora_proto::{ClusterId, CopyState, Link, NodeId};
use aurora_redo::{BlobId, History, PgBatch, PgId, Record};
use bytes::Bytes;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::identity::NodeIdentity;
use crate::token::PersistedBlob;
use crate::types::{CommitPoint, Damage, Export, LayerInfo, NodeConfig, Roots, ScrubReport};

/// The pages of one storage node.
#[derive(Debug)]
pub struct NodeStore {}

#[allow(unused_variables, missing_docs, clippy::allow_attributes_without_reason)]
impl NodeStore {
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, identity: NodeIdentity, config: NodeConfig) -> Result<NodeStore, StoreError> { unreachable!() }
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, cluster: ClusterId, node: NodeId, config: NodeConfig) -> Result<NodeStore, StoreError> { unreachable!() }
    pub fn identity(&self) -> NodeIdentity { unreachable!() }
    /// false once its directory is gone (identity file unlinked)
    pub fn is_alive(&self) -> bool { unreachable!() }
    /// copies as of the last flush
    pub fn states(&self) -> Vec<CopyState> { unreachable!() }
    /// links of all records of a group above `above` (for Copy::restore)
    pub fn links(&self, pg: PgId, above: Lsn) -> Result<Vec<Link>, StoreError> { unreachable!() }
    pub fn ingest(&self, batch: Arc<PgBatch>) { unreachable!() }
    pub fn unflushed_bytes(&self) -> u64 { unreachable!() }
    /// Capture (log position, states) together, flush every node of the device with its states, then trim to the position.
    pub fn flush(&self, states: &[CopyState]) -> Result<u64, StoreError> { unreachable!() }
    pub fn materialise(&self, page: PageId, at: Lsn, history: &History) -> Result<Page, StoreError> { unreachable!() }
    pub fn compact(&self, budget: u64, roots: &Roots) -> Result<u64, StoreError> { unreachable!() }
    pub fn collect(&self, budget: u64, roots: &Roots) -> Result<u64, StoreError> { unreachable!() }
    pub fn floor(&self) -> Lsn { unreachable!() }
    pub fn scrub(&self, budget: u64) -> Result<ScrubReport, StoreError> { unreachable!() }
    pub fn damage(&self) -> Vec<Damage> { unreachable!() }
    pub fn export(&self, pages: RangeInclusive<PageId>, max_bytes: u64) -> Result<Export, StoreError> { unreachable!() }
    pub fn import(&self, export: &Export) -> Result<u64, StoreError> { unreachable!() }
    pub fn repair(&self, damage: &Damage, exports: &[Export]) -> Result<(), StoreError> { unreachable!() }
    pub fn records(&self, pg: PgId, after: Lsn, upto: Lsn, max_bytes: u64) -> Result<Vec<Record>, StoreError> { unreachable!() }
    pub fn lsn_at(&self, time_us: i64, history: &History) -> Result<Option<CommitPoint>, StoreError> { unreachable!() }
    pub fn latest(&self, history: &History) -> Result<Option<CommitPoint>, StoreError> { unreachable!() }
    pub fn put_blob(&self, id: BlobId, epoch: u64, pages: &[Bytes]) -> Result<PersistedBlob, StoreError> { unreachable!() }
    pub fn has_blob(&self, id: BlobId) -> bool { unreachable!() }
    pub fn blob_pages(&self, id: BlobId) -> Result<Vec<Bytes>, StoreError> { unreachable!() }
    pub fn layers(&self) -> Vec<LayerInfo> { unreachable!() }
    pub fn used_bytes(&self) -> u64 { unreachable!() }
}
