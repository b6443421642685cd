//! One storage node of a machine: its page store and its copies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::{Copy, CopyState, Fresh, NodeId};
use aurora_redo::{History, PgBatch, PgId};
use aurora_store::{LogEntry, NodeStore};

/// A storage node while its machine runs.
#[derive(Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its directory.
    pub dir: PathBuf,
    /// None if the directory is lost or cannot be read.
    pub store: Option<NodeStore>,
    /// Its copies.
    pub copies: BTreeMap<PgId, Copy>,
    /// The epoch whose History is installed, for copies that begin.
    pub installed: u64,
    /// That History.
    pub history: Arc<History>,
}

impl Node {
    /// A node of which nothing is known yet.
    pub fn new(id: NodeId, dir: PathBuf, store: Option<NodeStore>) -> Node {
        Node {
            id,
            dir,
            store,
            copies: BTreeMap::new(),
            installed: 0,
            history: Arc::default(),
        }
    }

    /// Can it speak? A node whose directory is gone is a lost copy, whatever it remembers.
    pub fn alive(&self) -> bool {
        self.store.as_ref().is_some_and(NodeStore::is_alive)
    }

    /// The copy of a group; one that begins here takes the node's epoch and History.
    pub fn copy(&mut self, pg: PgId) -> &mut Copy {
        let Node {
            id,
            installed,
            history,
            ..
        } = self;
        self.copies
            .entry(pg)
            .or_insert_with(|| Copy::new(pg, *id, *installed, Arc::clone(history)))
    }

    /// States of all copies, for a flush.
    pub fn states(&self) -> Vec<CopyState> {
        self.copies
            .values()
            .map(|copy| copy.state().clone())
            .collect()
    }

    /// The highest VDL that the node has heard of.
    pub fn vdl_hint(&self) -> Lsn {
        let hints = self.copies.values().map(|copy| copy.state().vdl_hint);
        self.history.floor(hints.max().unwrap_or(Lsn::NONE))
    }

    /// Puts together what the layers and the replayed log say. The log's promises and installs come in order; records
    /// count under the History that results.
    pub fn restore(&mut self, replay: &[LogEntry]) -> Result<(), String> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let mut states: BTreeMap<PgId, CopyState> =
            store.states().into_iter().map(|s| (s.pg, s)).collect();
        let mut epoch = states.values().map(|s| s.epoch).max().unwrap_or(0);
        if let Some(newest) = states.values().max_by_key(|s| s.installed) {
            (self.installed, self.history) = (newest.installed, Arc::clone(&newest.history));
        }
        for entry in replay
            .iter()
            .filter(|entry| entry.nodes().contains(self.id))
        {
            match entry {
                LogEntry::Batch { batch, .. } => {
                    let blank = CopyState {
                        pg: batch.pg,
                        node: self.id,
                        epoch,
                        installed: self.installed,
                        history: Arc::clone(&self.history),
                        scl: Lsn::NONE,
                        vdl_hint: Lsn::NONE,
                    };
                    states.entry(batch.pg).or_insert(blank);
                    store.ingest(Arc::clone(batch));
                }
                LogEntry::Fence {
                    epoch: promised,
                    history,
                    ..
                } => {
                    epoch = epoch.max(*promised);
                    let history = Arc::new(history.clone());
                    states.values_mut().for_each(|state| {
                        again(state, |copy| drop(copy.fence(*promised, &history)))
                    });
                }
                LogEntry::Install {
                    epoch: installed,
                    history,
                    ..
                } => {
                    if *installed < epoch {
                        continue;
                    }
                    epoch = *installed;
                    (self.installed, self.history) = (epoch, Arc::new(history.clone()));
                    states.values_mut().for_each(|state| {
                        again(state, |copy| drop(copy.install(epoch, &self.history)))
                    });
                }
            }
        }
        for state in states.into_values() {
            let floor = state.scl.min(state.vdl_hint);
            let links = store.links(state.pg, floor).map_err(|e| e.to_string())?;
            self.copies.insert(state.pg, Copy::restore(state, links));
        }
        Ok(())
    }
}

/// Does to a stored state what a copy did when the entry was logged.
fn again(state: &mut CopyState, step: impl FnOnce(&mut Copy)) {
    let mut copy = Copy::restore(state.clone(), []);
    step(&mut copy);
    *state = copy.state().clone();
}

/// The records of a batch that are new here.
pub fn fresh_part(batch: &Arc<PgBatch>, fresh: &Fresh) -> Arc<PgBatch> {
    match fresh {
        Fresh::All => Arc::clone(batch),
        Fresh::Some(indices) => {
            let records = indices
                .iter()
                .map(|index| batch.records[*index].clone())
                .collect();
            Arc::new(PgBatch {
                records,
                ..PgBatch {
                    records: Vec::new(),
                    ..**batch
                }
            })
        }
    }
}
