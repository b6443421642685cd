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
    let mut states: BTreeMap<PgId, CopyState> = store
        .states()
        .into_iter()
        .map(|state| (state.pg, state))
        .collect();
    // A group that the volume got after the last flush began under what the node had promised and installed for the others: the
    // entries that say so may be trimmed off the log.
    let newest = states
        .values()
        .max_by_key(|state| (state.epoch, state.installed));
    let (epoch, installed, history) = match newest {
        Some(state) => (state.epoch, state.installed, state.history.clone()),
        None => (0, 0, Arc::new(History::new(manifest.origin))),
    };
    for pg in (0..manifest.pgs.len() as u32).map(PgId) {
        let history = history.clone();
        let begun = || CopyState {
            pg,
            node,
            epoch,
            installed,
            history,
            scl: Lsn::NONE,
            vdl_hint: Lsn::NONE,
        };
        states.entry(pg).or_insert_with(begun);
    }
    let incarnation = manifest.node(node).map_or(0, |info| info.incarnation);
    for entry in since(entries, node, incarnation, epoch)
        .iter()
        .filter(|entry| entry.nodes().contains(node))
    {
        replay(entry, &mut states, store);
    }
    let states: Vec<CopyState> = states.into_values().take(manifest.pgs.len()).collect();
    let links = store.links_of_all(&states)?;
    let copies = states
        .into_iter()
        .zip(links)
        .map(|(state, links)| Copy::restore(state, links))
        .collect();
    Ok(copies)
}

/// States that were written under an epoch come after its fence, and so does everything that is not in layers. What is before
/// it in the log is of the copy that was in the place of a node made anew under that epoch, and was lost: its records came with
/// blobs that are not here. A node that was made anew while the log went on begins at the entry that says so, and one that was lost
/// ends there.
fn since(entries: &[LogEntry], node: NodeId, incarnation: u64, epoch: u64) -> &[LogEntry] {
    let fence = |entry: &LogEntry| matches!(entry, LogEntry::Fence { nodes, epoch: e, .. } if *e == epoch && nodes.contains(node));
    let begins = |entry: &LogEntry| matches!(entry, LogEntry::Anew { node: n, incarnation: i } if (*n, *i) == (node, incarnation));
    let ends = |entry: &LogEntry| matches!(entry, LogEntry::Anew { node: n, incarnation: i } if *n == node && *i > incarnation);
    let begin = entries.iter().rposition(begins);
    let begin = begin.max(entries.iter().position(fence)).unwrap_or(0);
    let end = entries[begin..].iter().position(ends);
    &entries[begin..end.map_or(entries.len(), |end| begin + end)]
}

/// The copies of a node that is made anew under the epoch of a manifest, empty; with 0 installed, of nothing before its fence.
pub(crate) fn anew(manifest: &Manifest, node: NodeId, installed: u64) -> Vec<CopyState> {
    let history = Arc::new(manifest.history.clone());
    let state = |pg| CopyState {
        pg,
        node,
        epoch: manifest.epoch,
        installed,
        history: history.clone(),
        scl: Lsn::NONE,
        vdl_hint: Lsn::NONE,
    };
    (0..manifest.pgs.len() as u32)
        .map(PgId)
        .map(state)
        .collect()
}

fn replay(entry: &LogEntry, states: &mut BTreeMap<PgId, CopyState>, store: &NodeStore) {
    match entry {
        LogEntry::Anew { .. } => {}
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use aurora_page::{PageId, VolumeId};
    use aurora_proto::{ClusterId, NewCluster, NodeInfo, NodeSet};
    use aurora_redo::{Op, PgBatch, Record};
    use aurora_store::{MemDisk, NodeConfig, NodeIdentity, Ticket};

    use super::*;

    const NODE: NodeId = NodeId(0);

    fn batch(lsn: u64, epoch: u64) -> LogEntry {
        let (lsn, prev_pg) = (Lsn(lsn), Lsn(lsn - 1));
        let op = Op::Free.encode();
        let record = Record {
            lsn,
            origin: VolumeId(1),
            prev_pg,
            prev_page: Lsn::NONE,
            page: PageId(lsn.0),
            cpl: Some(1),
            op,
        };
        let batch = Arc::new(PgBatch {
            pg: PgId(0),
            epoch,
            vdl: prev_pg,
            records: vec![record],
        });
        LogEntry::batch(
            batch,
            [Ticket {
                node: NODE,
                pg: PgId(0),
                number: lsn.0,
            }],
        )
    }

    /// The log of a device outlives its nodes. A node that was made anew took what the one before it had written for its own when
    /// it was opened the next time: records without their blobs (found in review).
    #[test]
    fn a_node_made_anew_takes_nothing_from_before_its_fence() {
        let nodes = (0..6).map(|n| NodeInfo {
            id: NodeId(n),
            az: "az".into(),
            path: format!("node{n}"),
            device: 1,
            incarnation: 1,
        });
        let mut manifest = Manifest::create(NewCluster {
            cluster: ClusterId(7),
            origin: VolumeId(1),
            region: "here".into(),
            page_bytes: 16 << 10,
            segment_pages: 64,
            window: 1000,
            nodes: nodes.collect(),
            config: Default::default(),
            created_us: 0,
        });
        let identity = NodeIdentity {
            cluster: manifest.cluster,
            node: NODE,
            incarnation: 2,
        };
        let disk = Arc::new(MemDisk::new());
        let store = NodeStore::create(
            disk,
            Path::new("node0"),
            identity,
            NodeConfig::new(16 << 10, 64),
        )
        .unwrap();
        let fence = |epoch| {
            let (nodes, history) = (NodeSet::EMPTY.with(NODE), History::new(VolumeId(1)));
            LogEntry::Fence {
                nodes,
                tickets: Default::default(),
                epoch,
                history,
            }
        };
        manifest.epoch = 5;
        store.flush(&anew(&manifest, NODE, 0)).unwrap();
        let entries = [batch(1, 1), fence(3), batch(2, 3), fence(5), batch(4, 5)];
        let copies = restore_copies(&manifest, NODE, &store, &entries).unwrap();
        assert_eq!((copies[0].scl(), copies[0].highest()), (Lsn::NONE, Lsn(4)));
        assert!(
            store
                .records(PgId(0), Lsn::NONE, Lsn(3), 1 << 20)
                .unwrap()
                .is_empty()
        );
        // The log goes on across a loss while the cluster is open: each making of the node has its own part of it.
        let anew = |incarnation| LogEntry::Anew {
            node: NODE,
            incarnation,
        };
        let other = LogEntry::Anew {
            node: NodeId(1),
            incarnation: 9,
        };
        let log = [
            fence(5),
            batch(1, 5),
            anew(2),
            batch(2, 5),
            other,
            anew(2),
            batch(3, 5),
            anew(3),
            batch(4, 5),
        ];
        let of = |incarnation, epoch| {
            let part = since(&log, NODE, incarnation, epoch);
            let batches = part.iter().filter_map(|entry| match entry {
                LogEntry::Batch { batch, .. } => Some(batch.last_lsn().0),
                _ => None,
            });
            batches.collect::<Vec<_>>()
        };
        assert_eq!(
            of(1, 5),
            [1],
            "it came back before the manifest knew another"
        );
        assert_eq!(
            of(2, 5),
            [3],
            "what an attempt before it got went with its directory"
        );
        assert_eq!(of(3, 5), [4]);
        assert_eq!(
            of(3, 7),
            [4],
            "states of a later epoch, without a fence of their own"
        );
        // The same log is all that there is of a node that was always there.
        let identity = NodeIdentity {
            incarnation: 1,
            ..identity
        };
        let disk = Arc::new(MemDisk::new());
        let store = NodeStore::create(
            disk,
            Path::new("node0"),
            identity,
            NodeConfig::new(16 << 10, 64),
        )
        .unwrap();
        let copies = restore_copies(&manifest, NODE, &store, &entries).unwrap();
        assert_eq!((copies[0].scl(), copies[0].highest()), (Lsn(2), Lsn(4)));
    }
}
