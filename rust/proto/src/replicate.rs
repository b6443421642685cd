//! Who gives what to whom, so that a copy becomes complete: the arithmetic behind a recovery's jobs.

use aurora_page::Lsn;
use aurora_redo::{History, PgId};

use crate::answer::Inventory;
use crate::quorum::NodeId;
use crate::recovery::{Job, RecoveryError};

/// What one copy has of a group, cut at the VDL.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) node: NodeId,
    /// Everything up to here.
    pub(crate) scl: Lsn,
    /// Records above it, as (LSN, previous LSN in the group), ascending.
    above: Vec<(Lsn, Lsn)>,
}

impl Holding {
    pub(crate) fn of(inventory: &Inventory, history: &History, vdl: Lsn) -> Holding {
        let counts = |lsn: Lsn| history.origin_of(lsn).is_some();
        let mut scl = history.floor(inventory.scl);
        if scl > vdl {
            // The first record beyond the VDL links to the last one that stays.
            let beyond = inventory
                .records
                .iter()
                .find(|(lsn, ..)| *lsn > vdl && counts(*lsn));
            scl = beyond.map_or(vdl, |(_, prev, _)| (*prev).min(vdl));
        }
        let above = inventory
            .records
            .iter()
            .filter(|(lsn, ..)| *lsn > scl && *lsn <= vdl && counts(*lsn));
        Holding {
            node: inventory.node,
            scl,
            above: above.map(|(lsn, prev, _)| (*lsn, *prev)).collect(),
        }
    }

    /// The newest LSN of which this copy knows that it is, or must be, complete.
    pub(crate) fn newest(&self) -> Lsn {
        self.above.last().map_or(self.scl, |(lsn, _)| *lsn)
    }

    /// How far this copy has everything above `at`, if it has anything.
    fn reach(&self, at: Lsn) -> Option<Lsn> {
        if self.scl > at {
            return Some(self.scl);
        }
        let start = self.above.partition_point(|(lsn, _)| *lsn <= at);
        let mut reached = at;
        for (lsn, prev) in &self.above[start..] {
            if *prev > reached {
                break;
            }
            reached = *lsn;
        }
        (reached > at).then_some(reached)
    }
}

/// The jobs that bring `target` from its SCL to `tail`: at each point the source that reaches furthest, and none where
/// the target has the records itself.
pub(crate) fn jobs_for(
    pg: PgId,
    target: &Holding,
    sources: &[Holding],
    tail: Lsn,
    floor: Lsn,
    jobs: &mut Vec<Job>,
) -> Result<(), RecoveryError> {
    let mut at = target.scl;
    while at < tail {
        if let Some(reached) = target.reach(at) {
            at = reached;
            continue;
        }
        let best = sources
            .iter()
            .filter_map(|source| Some((source.reach(at)?, source.node)))
            .max_by_key(|best| best.0);
        let (upto, from) = best.ok_or(RecoveryError::Hole {
            pg,
            after: at,
            upto: tail,
        })?;
        jobs.push(Job {
            pg,
            from,
            to: target.node,
            after: at,
            upto,
            pages: at < floor,
        });
        at = upto;
    }
    Ok(())
}
