//! One storage node of a machine: its page store and its copies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::{Copy, CopyState, Fresh, Manifest, NodeId};
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
    /// The highest epoch that any copy here has promised; a copy that begins is bound by it.
    pub promised: u64,
    /// The epoch whose History is installed.
    pub installed: u64,
    /// That History.
    pub history: Arc<History>,
    /// The History of the newest promise or install.
    pub aligned: Arc<History>,
    /// Which peer was asked for a blob last, counted from this node.
    pub asked: u16,
}

impl Node {
    /// A node of which nothing is known yet.
    pub fn new(id: NodeId, dir: PathBuf, store: Option<NodeStore>) -> Node {
        let (copies, history) = (BTreeMap::new(), Arc::<History>::default());
        let aligned = Arc::clone(&history);
        Node {
            id,
            dir,
            store,
            copies,
            promised: 0,
            installed: 0,
            history,
            aligned,
            asked: 0,
        }
    }

    /// Can it speak? A node whose directory is gone is a lost copy, whatever it remembers.
    pub fn alive(&self) -> bool {
        self.store.as_ref().is_some_and(NodeStore::is_alive)
    }

    /// The copy of a group; one that begins here is bound by what the node has promised.
    pub fn copy(&mut self, pg: PgId) -> &mut Copy {
        let blank = self.blank(pg);
        self.copies
            .entry(pg)
            .or_insert_with(|| Copy::restore(blank, []))
    }

    fn blank(&self, pg: PgId) -> CopyState {
        CopyState {
            pg,
            node: self.id,
            epoch: self.promised,
            installed: self.installed,
            history: Arc::clone(&self.aligned),
            scl: Lsn::NONE,
            vdl_hint: Lsn::NONE,
        }
    }

    /// A copy of this node has promised an epoch.
    pub fn promise(&mut self, epoch: u64, history: &Arc<History>) {
        if epoch >= self.promised {
            (self.promised, self.aligned) = (epoch, Arc::clone(history));
        }
    }

    /// The node has installed an epoch.
    pub fn install(&mut self, epoch: u64, history: &Arc<History>) {
        self.promise(epoch, history);
        (self.installed, self.history) = (epoch, Arc::clone(history));
    }

    /// Is made in the place of a lost node for a recovery: empty, bound by its epoch, and of nothing before its fence. That is on disk
    /// before anybody is told.
    pub fn begin_anew(&mut self, manifest: &Manifest) -> Result<(), String> {
        self.promise(manifest.epoch, &Arc::new(manifest.history.clone()));
        for pg in (0..manifest.pgs.len() as u32).map(PgId) {
            self.copy(pg);
        }
        let states = self.states();
        match &self.store {
            Some(store) => store.flush(&states).map(drop).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }

    /// The part of the log that is this node's and not that of one that was lost: what was written under the epoch for which it was
    /// made, and later.
    fn since<'r>(
        &self,
        states: &BTreeMap<PgId, CopyState>,
        replay: &'r [LogEntry],
    ) -> &'r [LogEntry] {
        let made_for = states.values().map(|state| state.epoch).max().unwrap_or(0);
        let anew = !states.is_empty() && states.values().all(|state| state.installed == 0);
        let own = |entry: &LogEntry| {
            let epoch = match entry {
                LogEntry::Batch { batch, .. } => batch.epoch,
                LogEntry::Fence { epoch, .. } | LogEntry::Install { epoch, .. } => *epoch,
                // Not in the simulator, where no node is made anew while its disk's log goes on.
                LogEntry::Anew { .. } => return false,
            };
            entry.nodes().contains(self.id) && epoch >= made_for
        };
        match anew {
            true => &replay[replay.iter().position(own).unwrap_or(replay.len())..],
            false => replay,
        }
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
        if let Some(newest) = states.values().max_by_key(|s| s.installed) {
            let (installed, history) = (newest.installed, Arc::clone(&newest.history));
            self.install(installed, &history);
        }
        if let Some(newest) = states.values().max_by_key(|s| s.epoch) {
            let (epoch, history) = (newest.epoch, Arc::clone(&newest.history));
            self.promise(epoch, &history);
        }
        let id = self.id;
        let replay = self.since(&states, replay);
        for entry in replay.iter().filter(|entry| entry.nodes().contains(id)) {
            match entry {
                LogEntry::Batch { batch, .. } => {
                    let blank = self.blank(batch.pg);
                    states.entry(batch.pg).or_insert(blank);
                    if let Some(store) = &self.store {
                        store.ingest(Arc::clone(batch));
                    }
                }
                LogEntry::Fence { epoch, history, .. } => {
                    let history = Arc::new(history.clone());
                    self.promise(*epoch, &history);
                    states
                        .values_mut()
                        .for_each(|state| again(state, |copy| drop(copy.fence(*epoch, &history))));
                }
                LogEntry::Install { epoch, history, .. } if *epoch >= self.promised => {
                    let history = Arc::new(history.clone());
                    self.install(*epoch, &history);
                    states.values_mut().for_each(|state| {
                        again(state, |copy| drop(copy.install(*epoch, &history)))
                    });
                }
                // No node of the simulator is made anew while its disk's log goes on.
                LogEntry::Install { .. } | LogEntry::Anew { .. } => {}
            }
        }
        let Some(store) = &self.store else {
            return Ok(());
        };
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
