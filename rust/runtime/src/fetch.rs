//! Pages from storage: one read from one copy, another copy when that one fails.

use std::collections::BTreeSet;
use std::time::Instant;

use aurora_page::{Lsn, Page, PageId};
use aurora_proto::{NodeId, ReadRouter, Volume};
use aurora_redo::PgId;
use aurora_store::StoreError;
use parking_lot::Mutex;

use crate::Error;
use crate::node::is_fatal;
use crate::volume::EmbeddedVolume;

/// Every so many reads go to another copy than the fastest.
const PROBE_EVERY: u64 = 64;

/// Reads pages of a volume, and remembers which copies are fast and which are damaged.
pub(crate) struct Fetcher {
    router: Mutex<ReadRouter>,
    /// Pages whose copy at a node was found damaged: the maintenance thread has them rewritten from a peer.
    damaged: Mutex<BTreeSet<(NodeId, PageId)>>,
}

impl Fetcher {
    pub(crate) fn new() -> Fetcher {
        Fetcher {
            router: Mutex::new(ReadRouter::new(PROBE_EVERY)),
            damaged: Mutex::default(),
        }
    }

    /// The page as of `at`, from any copy that has everything of its group up to there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when every copy that could be asked is damaged, [`Error::OutsideWindow`] when `at` was collected,
    /// [`Error::QuorumLost`] when no copy is left.
    pub(crate) fn page(
        &self,
        volume: &EmbeddedVolume,
        page: PageId,
        at: Lsn,
    ) -> Result<Page, Error> {
        let geometry = volume.geometry();
        let pg = PgId(geometry.segment_of(page) as u32);
        let history = volume.history();
        let mut candidates = volume.readable(pg, at).difference(volume.lost());
        let mut failures: Vec<(NodeId, StoreError)> = Vec::new();
        loop {
            // A statement of its own: a guard in a loop's head would live as long as its body.
            let chosen = self.router.lock().choose(candidates);
            let Some(id) = chosen else { break };
            candidates.remove(id);
            let Some(node) = volume.node(id) else {
                continue;
            };
            let asked = Instant::now();
            match node.store.materialise(page, at, &history) {
                Ok(found) => {
                    let took_us = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.router.lock().on_reply(id, took_us);
                    for (node, error) in failures {
                        if matches!(
                            error,
                            StoreError::Corrupt { .. }
                                | StoreError::Gap { .. }
                                | StoreError::BlobMissing { .. }
                        ) {
                            self.damaged.lock().insert((node, page));
                        }
                    }
                    return Ok(found);
                }
                Err(error) => {
                    self.router.lock().on_error(id);
                    if is_fatal(&error) && !node.is_alive() {
                        volume.lose(&node, &error.to_string());
                    }
                    failures.push((id, error));
                }
            }
        }
        Err(self.failed(volume, page, at, failures))
    }

    fn failed(
        &self,
        volume: &EmbeddedVolume,
        page: PageId,
        at: Lsn,
        failures: Vec<(NodeId, StoreError)>,
    ) -> Error {
        if failures.is_empty() {
            return volume.quorum_lost();
        }
        let below = failures.iter().find_map(|(_, error)| match error {
            StoreError::BelowFloor { floor, .. } => Some(*floor),
            _ => None,
        });
        if let Some(floor) = below {
            let expected = format!("{floor} to {}", volume.vdl());
            return Error::OutsideWindow {
                what: "LSN",
                expected,
                got: at.to_string(),
            };
        }
        let tried: Vec<String> = failures
            .iter()
            .map(|(node, error)| format!("{node}: {error}"))
            .collect();
        Error::Corrupt {
            detail: format!("page {page} at {at}: {}", tried.join("; ")),
        }
    }

    /// Takes the damaged pages found since the last call.
    pub(crate) fn take_damaged(&self) -> Vec<(NodeId, PageId)> {
        std::mem::take(&mut *self.damaged.lock())
            .into_iter()
            .collect()
    }
}
