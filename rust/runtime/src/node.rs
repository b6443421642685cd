//! A storage node inside this process: its page store and its copies of protection groups.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use aurora_page::Lsn;
use aurora_proto::{Accepted, Ack, Copy, CopyState, Fresh, NodeId, NodeInfo, Refuse};
use aurora_redo::{BlobId, History, PgBatch, PgId};
use aurora_store::{NodeStore, PersistedToken, StoreError};
use parking_lot::Mutex;

use crate::faults::gate::Gate;

/// What became of a node that is lost.
pub(crate) struct Loss {
    pub(crate) at: Instant,
    pub(crate) why: String,
}

/// One storage node.
pub(crate) struct Node {
    pub(crate) info: NodeInfo,
    pub(crate) dir: PathBuf,
    /// The device its directory lies on.
    pub(crate) device: u64,
    pub(crate) store: NodeStore,
    /// By protection group; every node of an embedded cluster is a member of every group.
    copies: Mutex<Vec<Copy>>,
    lost: AtomicBool,
    /// Looks in a row at which it did not take what would mend it.
    refused: AtomicU32,
    /// When it was found lost or silent first, and why.
    loss: OnceLock<Loss>,
    /// Its log takes nothing more: it is read, and acknowledges nothing.
    silent: AtomicBool,
    /// Blobs to which it was offered references, and that it has not. Their batches did not reach it.
    lacking: Mutex<BTreeSet<BlobId>>,
    /// What of its traffic comes through, while faults are injected.
    pub(crate) gate: Arc<Gate>,
}

impl Node {
    pub(crate) fn new(
        info: NodeInfo,
        dir: PathBuf,
        device: u64,
        store: NodeStore,
        copies: Vec<Copy>,
    ) -> Node {
        Node {
            info,
            dir,
            device,
            store,
            copies: Mutex::new(copies),
            lost: AtomicBool::new(false),
            refused: AtomicU32::new(0),
            loss: OnceLock::new(),
            silent: AtomicBool::new(false),
            lacking: Mutex::default(),
            gate: Arc::default(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.info.id
    }

    /// True once the node's directory was found gone or its files refused: it acknowledges nothing more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// True while the node takes part in commits: it is there, so is its log, and no injected fault keeps it away.
    pub(crate) fn acknowledges(&self) -> bool {
        self.has_log() && !self.gate.is_closed()
    }

    /// True while the node and its log are there, whether anything reaches it or not.
    pub(crate) fn has_log(&self) -> bool {
        !self.is_lost() && !self.silent.load(Ordering::Acquire)
    }

    /// True while the node can be read.
    pub(crate) fn answers(&self) -> bool {
        !self.is_lost() && !self.gate.is_cut()
    }

    /// The log of its device has failed: what the node has can be read, and it gets nothing more.
    pub(crate) fn silence(&self, why: &str) {
        self.remember(why);
        self.silent.store(true, Ordering::Release);
    }

    /// True when this call is the one that found the node lost.
    pub(crate) fn lose(&self, why: &str) -> bool {
        self.remember(why);
        !self.lost.swap(true, Ordering::AcqRel)
    }

    /// It did not take what would mend it; for how many looks in a row, this one included.
    pub(crate) fn refused(&self) -> u32 {
        self.refused.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// It has no damage that it refuses to have mended.
    pub(crate) fn mended(&self) {
        self.refused.store(0, Ordering::Relaxed);
    }

    fn remember(&self, why: &str) {
        let loss = || Loss {
            at: Instant::now(),
            why: why.to_owned(),
        };
        self.loss.get_or_init(loss);
    }

    /// When and why it was lost, if it was.
    pub(crate) fn loss(&self) -> Option<&Loss> {
        self.loss.get()
    }

    /// Whether the node's directory is still there; asked before every acknowledgement, for a node whose directory is gone is a
    /// lost copy whatever the log still holds.
    pub(crate) fn is_alive(&self) -> bool {
        !self.is_lost() && self.store.is_alive()
    }

    /// Whether a blob is not here that records of a batch refer to. Such a batch passes it by: no SCL passes a reference without its
    /// blob. It is to be brought, [`Node::take_lacking`] says which, and the batch to be sent again.
    pub(crate) fn lacks(&self, blobs: &[BlobId]) -> bool {
        let mut lacks = false;
        for blob in blobs.iter().filter(|blob| !self.store.has_blob(**blob)) {
            self.lacking.lock().insert(*blob);
            lacks = true;
        }
        lacks
    }

    /// The blobs to which it was offered references since the last call, and that it had not.
    pub(crate) fn take_lacking(&self) -> BTreeSet<BlobId> {
        std::mem::take(&mut self.lacking.lock())
    }

    /// Offers a batch to the copy of its group.
    pub(crate) fn receive(&self, batch: &PgBatch) -> Result<Accepted, Refuse> {
        let mut copies = self.copies.lock();
        match copies.get_mut(batch.pg.0 as usize) {
            Some(copy) => copy.receive(batch),
            None => Err(Refuse::WrongPg {
                expected: PgId(copies.len() as u32),
                got: batch.pg,
            }),
        }
    }

    /// Makes the accepted records readable. They are on disk, so a read may show them once the VDL has passed them.
    pub(crate) fn ingest(&self, batch: &Arc<PgBatch>, fresh: &Fresh) {
        match fresh {
            Fresh::All => self.store.ingest(batch.clone()),
            Fresh::Some(indices) if indices.is_empty() => {}
            Fresh::Some(indices) => {
                let records = indices
                    .iter()
                    .map(|&index| batch.records[index].clone())
                    .collect();
                self.store.ingest(Arc::new(PgBatch { records, ..**batch }));
            }
        }
    }

    /// Exchanges the store's token for the acknowledgement [8].
    pub(crate) fn persisted(&self, token: PersistedToken) -> Option<Ack> {
        let mut copies = self.copies.lock();
        copies
            .get_mut(token.pg().0 as usize)
            .map(|copy| copy.persisted(token))
    }

    /// The states of the copies, and the oldest record that any of them is restored with.
    pub(crate) fn states(&self) -> (Vec<CopyState>, Option<Lsn>) {
        let copies = self.copies.lock();
        let states = copies.iter().map(|copy| copy.state().clone()).collect();
        (states, copies.iter().filter_map(Copy::unsettled).min())
    }

    /// Runs `f` on the copies, for opening, repair and status.
    pub(crate) fn with_copies<T>(&self, f: impl FnOnce(&mut Vec<Copy>) -> T) -> T {
        f(&mut self.copies.lock())
    }

    /// The volume has grown: this node gets an empty copy of the new group.
    pub(crate) fn add_copy(&self, pg: PgId, epoch: u64, history: &Arc<History>) {
        let mut copies = self.copies.lock();
        if copies.len() == pg.0 as usize {
            copies.push(Copy::new(pg, self.id(), epoch, history.clone()));
        }
    }
}

/// Whether a node with this error must count as lost, or may go on and be read again.
pub(crate) fn is_fatal(error: &StoreError) -> bool {
    !matches!(
        error,
        StoreError::Full { .. } | StoreError::BelowFloor { .. } | StoreError::Corrupt { .. }
    )
}
