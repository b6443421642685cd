//! Damage at a node is mended from its peers; a node that cannot be mended is lost.

use std::ops::RangeInclusive;
use std::sync::Arc;

use aurora_page::PageId;
use aurora_proto::Volume;
use aurora_redo::{BlobId, PgId};
use aurora_store::{Export, StoreError};

use crate::Error;
use crate::cluster::Shared;
use crate::node::Node;

/// Bytes of what a peer gives at a time.
const PART_BYTES: u64 = 4 << 20;
/// A node that refuses what would mend it at so many looks in a row is lost.
const LOOKS: u32 = 10;
/// Lost nodes with which another is given up because it cannot be mended: beyond, its damaged copy is better than none.
const LOST_MAX: usize = 1;

/// Why something was not mended.
enum Unmended {
    /// No peer could give what it takes, or there is no room.
    Peers(Error),
    /// The node does not take it.
    Node(StoreError),
}

impl From<StoreError> for Unmended {
    fn from(error: StoreError) -> Unmended {
        Unmended::Peers(error.into())
    }
}

impl Shared {
    /// Rebuilds damaged parts of layers from peers.
    pub(crate) fn repair_damage(&self) {
        for (id, page) in self.fetcher.take_damaged() {
            let Some(node) = self.volume.node(id).filter(|node| !node.is_lost()) else {
                continue;
            };
            // Where a layer is damaged, that layer is repaired.
            let damage = node.store.damage();
            if damage.iter().any(|damage| damage.pages.contains(&page)) {
                continue;
            }
            let refetched = self.fetch_from_peers(&node, page..=page, |exports| {
                exports
                    .iter()
                    .try_for_each(|export| node.store.import(export).map(drop))
            });
            refetched.unwrap_or_else(|error| self.maintenance.note(error.into_error()));
        }
        for node in self.living() {
            let mut refused = None;
            for damage in node.store.damage() {
                let mended = self.fetch_from_peers(&node, damage.pages.clone(), |exports| {
                    node.store.repair(&damage, exports)
                });
                match mended {
                    Ok(()) => {}
                    Err(Unmended::Peers(error)) => self.maintenance.note(error),
                    Err(Unmended::Node(error)) => {
                        self.maintenance.note(&error);
                        refused = Some(error);
                    }
                }
            }
            self.give_up_or_not(&node, refused);
        }
    }

    /// A node whose disk refuses again and again what would mend it is made anew, as long as there are others to make it from.
    fn give_up_or_not(&self, node: &Node, refused: Option<StoreError>) {
        let Some(error) = refused else {
            return node.mended();
        };
        // A fault that was injected ends.
        if node.gate.is_on() {
            return;
        }
        let mute = self.volume.mute();
        if node.refused() >= LOOKS && mute.without(node.id()).len() <= LOST_MAX {
            let why = format!("its damage cannot be mended: {error}");
            self.volume.lose(node, &why);
        }
    }

    /// Who can give a node what it lacks: the other nodes that can be read.
    pub(crate) fn peers(&self, node: &Node) -> Vec<Arc<Node>> {
        let reaches = !node.gate.is_cut();
        let mut peers = self.living();
        peers.retain(|peer| reaches && peer.answers() && peer.id() != node.id());
        peers
    }

    /// Brings a blob that scrub found damaged from a peer.
    pub(crate) fn refetch_blob(&self, node: &Node, blob: BlobId) {
        for peer in self.peers(node) {
            if let Ok(pages) = peer.store.blob_pages(blob) {
                match node.store.put_blob(blob, self.volume.epoch(), &pages) {
                    Ok(_) => return,
                    Err(error) => self.maintenance.note(error),
                }
            }
        }
    }

    /// Brings the blobs to nodes that lack them, and then has sent again what passed them by.
    pub(crate) fn bring_blobs(&self) {
        for node in self.living().iter().filter(|node| node.acknowledges()) {
            let lacking = node.take_lacking();
            if lacking.is_empty() {
                continue;
            }
            lacking
                .into_iter()
                .for_each(|blob| self.refetch_blob(node, blob));
            // What could not be brought, it is found to lack again.
            self.faults.look_again();
        }
    }

    /// Gives a node what a peer has of some pages, with the blobs that they refer to: the first peer from which all of it comes.
    fn fetch_from_peers(
        &self,
        node: &Node,
        pages: RangeInclusive<PageId>,
        take: impl Fn(&[Export]) -> Result<(), StoreError>,
    ) -> Result<(), Unmended> {
        let mut failed = None;
        let peers = self.peers(node).into_iter();
        for peer in peers.filter(|peer| self.knows_as_much(peer, node, &pages)) {
            match self.fetch_from(&peer, node, &pages, &take) {
                Ok(()) => return Ok(()),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Unmended::Peers(self.volume.quorum_lost())))
    }

    fn fetch_from(
        &self,
        peer: &Node,
        node: &Node,
        pages: &RangeInclusive<PageId>,
        take: &impl Fn(&[Export]) -> Result<(), StoreError>,
    ) -> Result<(), Unmended> {
        let taken = |taken: Result<(), StoreError>| match taken {
            Err(error @ StoreError::Full { .. }) => Err(Unmended::Peers(error.into())),
            taken => taken.map_err(Unmended::Node),
        };
        let exports = exports_of(peer, pages)?;
        for blob in exports.iter().flat_map(|export| &export.blobs) {
            if node.store.blob_pages(*blob).is_err() {
                let pages = peer.store.blob_pages(*blob)?;
                let put = node.store.put_blob(*blob, self.volume.epoch(), &pages);
                taken(put.map(drop))?;
            }
        }
        taken(take(&exports))
    }

    /// Whether a peer has all that a node says it has of some pages: what a peer that is behind gives in the place of a damaged
    /// part would make the node forget what it has acknowledged.
    fn knows_as_much(&self, peer: &Node, node: &Node, pages: &RangeInclusive<PageId>) -> bool {
        let geometry = self.volume.geometry();
        let last = geometry
            .segment_of(*pages.end())
            .min(self.volume.segments().saturating_sub(1));
        let mut groups = geometry.segment_of(*pages.start())..=last;
        // What is above the VDL is in the log, and in no layer that could be damaged but for a moment.
        let vdl = self.volume.vdl();
        groups.all(|pg| self.scl(peer, PgId(pg as u32)) >= self.scl(node, PgId(pg as u32)).min(vdl))
    }
}

impl Unmended {
    fn into_error(self) -> Error {
        match self {
            Unmended::Peers(error) => error,
            Unmended::Node(error) => error.into(),
        }
    }
}

/// Everything that a peer has of some pages.
fn exports_of(peer: &Node, pages: &RangeInclusive<PageId>) -> Result<Vec<Export>, StoreError> {
    let mut exports = Vec::new();
    let mut next = Some(*pages.start());
    while let Some(page) = next {
        let export = peer.store.export(page..=*pages.end(), PART_BYTES)?;
        next = export.next;
        exports.push(export);
    }
    Ok(exports)
}
