//! Times and LSNs: which commit was the newest at a time.

use aurora_page::Lsn;
use aurora_redo::History;

use crate::error::StoreError;
use crate::layer::Layer;
use crate::layer::footer::CommitBlock;
use crate::memlayer::newest_of;
use crate::node::NodeStore;
use crate::types::CommitPoint;

impl NodeStore {
    /// The newest commit of `history` at or before a time, of those that this node knows: CPLs of its protection groups.
    /// Times ascend with LSNs within a History.
    pub fn lsn_at(&self, time_us: i64, history: &History) -> Result<Option<CommitPoint>, StoreError> {
        self.newest_commit(|c| c.time_us <= time_us && history.contains(c.origin, c.lsn))
    }

    /// The newest commit of `history` that this node knows.
    pub fn latest(&self, history: &History) -> Result<Option<CommitPoint>, StoreError> {
        self.newest_commit(|c| history.contains(c.origin, c.lsn))
    }

    pub(crate) fn newest_commit(
        &self,
        wanted: impl Fn(&CommitPoint) -> bool,
    ) -> Result<Option<CommitPoint>, StoreError> {
        // Memory before layers, as for reads.
        let memory = self.memory();
        let mut newest = memory.iter().filter_map(|m| m.newest_commit(&wanted)).fold(None, |a, c| newest_of(a, Some(c)));
        let floor_commit = self.state.lock().floor_commit;
        newest = newest_of(newest, floor_commit.filter(&wanted));
        for layer in &self.map.set().deltas {
            if newest.is_none_or(|n| layer.footer.last_lsn > n.lsn) {
                let after = newest.map_or(Lsn::NONE, |n| n.lsn);
                let found = newest_in(layer, after, &wanted).inspect_err(|e| self.note(e))?;
                newest = newest_of(newest, found);
            }
        }
        Ok(newest)
    }
}

/// The newest wanted commit of a layer above `after`. Blocks are searched newest first; where `wanted` is a bound on
/// time or LSN, which both ascend, the first that has any has the newest.
fn newest_in(
    layer: &Layer,
    after: Lsn,
    wanted: &impl Fn(&CommitPoint) -> bool,
) -> Result<Option<CommitPoint>, StoreError> {
    let meta = layer.meta()?;
    let may = |b: &&CommitBlock| b.last_lsn > after.0;
    for block in meta.commits.iter().rev().take_while(may) {
        let found = layer.commits(block)?.into_iter().rev().find(|c| wanted(c));
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
