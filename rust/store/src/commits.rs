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
    pub fn lsn_at(
        &self,
        time_us: i64,
        history: &History,
    ) -> Result<Option<CommitPoint>, StoreError> {
        self.newest_commit(
            Bound {
                lsn: Lsn::MAX,
                time_us,
            },
            history,
        )
    }

    /// The newest commit of `history` that this node knows.
    pub fn latest(&self, history: &History) -> Result<Option<CommitPoint>, StoreError> {
        self.newest_commit(
            Bound {
                lsn: Lsn::MAX,
                time_us: i64::MAX,
            },
            history,
        )
    }

    /// The newest commit of `history` at or below an LSN that this node knows.
    pub fn commit_at(
        &self,
        lsn: Lsn,
        history: &History,
    ) -> Result<Option<CommitPoint>, StoreError> {
        let time_us = i64::MAX;
        self.newest_commit(Bound { lsn, time_us }, history)
    }

    /// The oldest commit of `history` that this node knows.
    pub fn oldest_commit(&self, history: &History) -> Result<Option<CommitPoint>, StoreError> {
        let wanted = |c: &CommitPoint| history.contains(c.origin, c.lsn);
        // Memory before layers, as for reads.
        let memory = self.memory();
        let mut oldest = memory
            .iter()
            .filter_map(|m| m.oldest_commit(wanted))
            .chain(self.state().floor_commit)
            .min_by_key(|c| c.lsn);
        for layer in &self.map.set().deltas {
            if oldest.is_some_and(|oldest| oldest.lsn <= layer.footer.first_lsn) {
                continue;
            }
            let meta = layer.meta().inspect_err(|e| self.note(e))?;
            for block in &meta.commits {
                let commits = layer.commits(block).inspect_err(|e| self.note(e))?;
                if let Some(found) = commits.into_iter().find(wanted) {
                    oldest = oldest.into_iter().chain([found]).min_by_key(|c| c.lsn);
                    break;
                }
            }
        }
        Ok(oldest)
    }

    pub(crate) fn newest_commit(
        &self,
        bound: Bound,
        history: &History,
    ) -> Result<Option<CommitPoint>, StoreError> {
        let wanted = |c: &CommitPoint| bound.admits(c) && history.contains(c.origin, c.lsn);
        // Memory before layers, as for reads.
        let memory = self.memory();
        let mut newest = memory
            .iter()
            .filter_map(|m| m.newest_commit(wanted))
            .fold(None, |a, c| newest_of(a, Some(c)));
        newest = newest_of(newest, self.state().floor_commit.filter(wanted));
        for layer in &self.map.set().deltas {
            let after = newest.map_or(Lsn::NONE, |n| n.lsn);
            if layer.footer.last_lsn > after && layer.footer.first_lsn <= bound.lsn {
                let found = newest_in(layer, after, bound, wanted).inspect_err(|e| self.note(e))?;
                newest = newest_of(newest, found);
            }
        }
        Ok(newest)
    }
}

/// How far a search for a commit may go: both ascend, so blocks beyond it need not be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) lsn: Lsn,
    pub(crate) time_us: i64,
}

impl Bound {
    fn admits(&self, commit: &CommitPoint) -> bool {
        commit.lsn <= self.lsn && commit.time_us <= self.time_us
    }
}

/// The newest wanted commit of a layer above `after`. Blocks are searched newest first.
fn newest_in(
    layer: &Layer,
    after: Lsn,
    bound: Bound,
    wanted: impl Fn(&CommitPoint) -> bool,
) -> Result<Option<CommitPoint>, StoreError> {
    let meta = layer.meta()?;
    let may = |b: &&CommitBlock| b.first_lsn <= bound.lsn.0 && b.first_time <= bound.time_us;
    for block in meta
        .commits
        .iter()
        .rev()
        .take_while(|b| b.last_lsn > after.0)
        .filter(may)
    {
        let found = layer.commits(block)?.into_iter().rev().find(&wanted);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
