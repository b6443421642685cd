//! A node's copies as they were: from its store's last checkpoint and from what the log has accepted since.

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::{Copy, CopyState, Manifest, NodeId};
use aurora_redo::{History, PgId};
use aurora_store::{LogEntry, NodeStore};

use crate::Error;

/// Restores the copies of every protection group at one node, and gives its store what only the log has.
pub(crate) fn restore_copies(
    manifest: &Manifest,
    node: NodeId,
    store: &NodeStore,
    entries: &[LogEntry],
) -> Result<Vec<Copy>, Error> {
    let mut states: BTreeMap<PgId, CopyState> = store.states().into_iter().map(|state| (state.pg, state)).collect();
    // A group that the volume got after the last flush began under what the node had promised and installed for the others: the
    // entries that say so may be trimmed off the log.
    let newest = states.values().max_by_key(|state| (state.epoch, state.installed));
    let (epoch, installed, history) = match newest {
        Some(state) => (state.epoch, state.installed, state.history.clone()),
        None => (0, 0, Arc::new(History::new(manifest.origin))),
    };
    for pg in (0..manifest.pgs.len() as u32).map(PgId) {
        let history = history.clone();
        let begun = || CopyState { pg, node, epoch, installed, history, scl: Lsn::NONE, vdl_hint: Lsn::NONE };
        states.entry(pg).or_insert_with(begun);
    }
    for entry in entries.iter().filter(|entry| entry.nodes().contains(node)) {
        replay(entry, &mut states, store);
    }
    let states: Vec<CopyState> = states.into_values().take(manifest.pgs.len()).collect();
    let above: Vec<Lsn> = states.iter().map(|state| state.scl.min(state.vdl_hint)).collect();
    let links = store.links_of_all(&above)?;
    let copies = states.into_iter().zip(links).map(|(state, links)| Copy::restore(state, links)).collect();
    Ok(copies)
}

fn replay(entry: &LogEntry, states: &mut BTreeMap<PgId, CopyState>, store: &NodeStore) {
    match entry {
        LogEntry::Batch { batch, .. } => {
            if let Some(state) = states.get_mut(&batch.pg) {
                state.vdl_hint = state.vdl_hint.max(batch.vdl);
            }
            if !batch.records.is_empty() {
                store.ingest(batch.clone());
            }
        }
        LogEntry::Fence { epoch, history, .. } => {
            let history = Arc::new(history.clone());
            for state in states.values_mut().filter(|state| state.epoch <= *epoch) {
                state.epoch = *epoch;
                align(state, &history);
            }
        }
        LogEntry::Install { epoch, history, .. } => {
            let history = Arc::new(history.clone());
            for state in states.values_mut().filter(|state| state.epoch <= *epoch) {
                (state.epoch, state.installed) = (*epoch, *epoch);
                align(state, &history);
            }
        }
    }
}

/// Completeness is a statement about a History: where two part, it ends.
fn align(state: &mut CopyState, history: &Arc<History>) {
    let agreed = state.history.common_prefix(history);
    state.scl = state.scl.min(agreed);
    state.vdl_hint = state.vdl_hint.min(agreed);
    state.history = history.clone();
}
