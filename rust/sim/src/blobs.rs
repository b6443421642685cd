//! Blobs of bulk loads: from the writer to the copies of their group, and from copy to copy.
//!
//! ```text
//!   client   take_blob, seal -> Request::Store                    load_stored: the reference is numbered
//!   writer   PutBlob to every member, again and again  -> BlobStored of a write quorum: the client goes on
//!   copy     blob and digest on disk -> BlobStored
//!            a record refers to a blob that is not here: the record waits, a peer is asked (WantBlob)
//! ```
//! No SCL passes a reference without its blob, whichever way the reference comes: from the writer, by gossip, for a recovery. So what
//! has such a record is not taken until the blob is here, and comes again, as lost messages do.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use aurora_proto::{NodeId, NodeSet};
use aurora_redo::{BlobId, Op, PgId, Record};
use aurora_store::{Export, NodeStore};
use bytes::Bytes;

use crate::config::{NODES, Planted};
use crate::database::TaskId;
use crate::machine::{Machine, Out};
use crate::messages::{Event, InstanceId, ToInstance, ToNode};
use crate::session::{Response, Session};
use crate::world::World;

/// Copies that have not answered are sent the blob again after so long.
const STORE_AGAIN_US: u64 = 100_000;
/// A blob that no write quorum takes is given up, and its load with it.
const STORE_US_MAX: u64 = 6_000_000;
/// References that one look checks at every copy.
const SAMPLE: usize = 4;

/// Sealed pages of a bulk load.
#[derive(Debug)]
pub struct Sealed {
    /// Their name.
    pub id: BlobId,
    /// The group of all of them.
    pub pg: PgId,
    /// Their bytes.
    pub pages: Vec<Bytes>,
}

/// A blob on its way to a write quorum.
#[derive(Debug)]
pub(crate) struct Storing {
    pub(crate) task: TaskId,
    pub(crate) ticket: u64,
    pub(crate) session: Rc<Session>,
    pub(crate) blob: Arc<Sealed>,
    pub(crate) stored: NodeSet,
    pub(crate) began_us: u64,
}

/// The blob that a record refers to, and the page in it.
pub(crate) fn reference(record: &Record) -> Option<(BlobId, usize)> {
    if !record.starts_life() {
        return None;
    }
    match Op::parse(&record.op) {
        Ok(Op::Reference { blob, index, .. }) => Some((blob, index as usize)),
        _ => None,
    }
}

impl World {
    /// Sends a blob to every copy that has not answered yet.
    pub(crate) fn store_blob(&mut self, ticket: u64) {
        let Some(base) = &self.base else { return };
        let Some(storing) = base.stores.get(&ticket) else {
            return;
        };
        let (from, epoch) = (storing.session.id, storing.session.epoch);
        let latest = self.meta.latest();
        let members = latest.membership(storing.blob.pg);
        let members = members.map_or(NodeSet::EMPTY, |members| members.nodes());
        let put = |node: NodeId| {
            let blob = Arc::clone(&storing.blob);
            (node, ToNode::PutBlob { blob, epoch })
        };
        let sends = members.difference(storing.stored).iter().map(put).collect();
        self.send(from, sends);
        self.queue.after(STORE_AGAIN_US, Event::StoreAgain(ticket));
    }

    pub(crate) fn on_store_again(&mut self, ticket: u64) {
        let Some(base) = &self.base else { return };
        let Some(storing) = base.stores.get(&ticket) else {
            return;
        };
        if self.queue.now_us() - storing.began_us > STORE_US_MAX {
            return self.end_store(ticket, Response::Gone);
        }
        self.store_blob(ticket);
    }

    fn end_store(&mut self, ticket: u64, response: Response) {
        let storing = self
            .base
            .as_mut()
            .and_then(|base| base.stores.remove(&ticket));
        if let Some(Storing { task, ticket, .. }) = storing {
            self.on_wake(task, ticket, response);
        }
    }

    /// A copy has a blob on disk; once a write quorum has it, its load goes on.
    pub(crate) fn on_blob_stored(&mut self, to: InstanceId, node: NodeId, blob: BlobId) {
        let one_is_enough = self.config.has(Planted::ReferenceBeforeQuorum);
        let latest = self.meta.latest();
        let Some(base) = &mut self.base else { return };
        let mut due = None;
        for (ticket, storing) in &mut base.stores {
            if storing.session.id != to || storing.blob.id != blob {
                continue;
            }
            storing.stored.insert(node);
            let members = latest.membership(storing.blob.pg);
            if one_is_enough || members.is_some_and(|m| m.write_quorum().satisfied(storing.stored))
            {
                due = Some(*ticket);
            }
        }
        if let Some(ticket) = due {
            self.end_store(ticket, Response::Done);
        }
    }

    /// References were numbered: a write quorum of their group must have said before that it has their blob.
    pub(crate) fn unstored(&self, epoch: u64, records: &[Record]) -> Option<String> {
        let latest = self.meta.latest();
        // Of a writer that was overtaken nobody needs to know what becomes.
        if epoch != latest.epoch {
            return None;
        }
        let blobs: BTreeMap<BlobId, &Record> = records
            .iter()
            .filter_map(|record| Some((reference(record)?.0, record)))
            .collect();
        for (blob, record) in blobs {
            let pg = PgId((record.page.0 / self.config.segment_pages) as u32);
            let told = self.machines.iter().flat_map(|machine| &machine.blobs);
            let stored: NodeSet = told
                .filter(|(_, told)| *told == blob)
                .map(|(node, _)| *node)
                .collect();
            let members = latest.membership(pg)?;
            if !members.write_quorum().satisfied(stored.union(self.harmed)) {
                let lsn = record.lsn;
                return Some(format!(
                    "record {lsn} refers to blob {blob}, which only {stored} have"
                ));
            }
        }
        None
    }

    /// A copy that is complete beyond a reference can show the page [no SCL passes a reference without its blob].
    pub(crate) fn check_references(&mut self) {
        let latest = self.meta.latest();
        let floor = latest.collection_floor;
        let mut open: Vec<_> = self
            .model
            .references()
            .filter(|(lsn, _)| *lsn >= floor && latest.history.contains(crate::world::ORIGIN, *lsn))
            .collect();
        // No random number is drawn where there was no load: other worlds go on as they did.
        while open.len() > SAMPLE {
            open.swap_remove(self.chaos.index(open.len()));
        }
        for (lsn, page) in open {
            let pg = PgId((page.0 / self.config.segment_pages) as u32);
            for machine in self.machines.iter().filter(|machine| machine.up) {
                for node in machine.nodes.values() {
                    let passed = node.copies.get(&pg).is_some_and(|copy| copy.scl() >= lsn);
                    let Some(store) = node.store.as_ref().filter(|store| store.is_alive()) else {
                        continue;
                    };
                    let is_sound = !self.harmed.contains(node.id);
                    if passed
                        && is_sound
                        && node.installed == latest.epoch
                        && let Err(aurora_store::StoreError::BlobMissing { blob, .. }) =
                            store.materialise(page, lsn, &node.history)
                    {
                        let (id, scl) = (node.id, node.copies[&pg].scl());
                        let what = format!(
                            "{id} is complete to {scl}, beyond the reference {lsn} of page {page}, and lacks blob {blob}"
                        );
                        return self.fail(what);
                    }
                }
            }
        }
    }
}

impl Machine {
    /// A blob comes, from the writer or from a peer. It is on disk before anybody is told.
    pub(crate) fn on_put_blob(
        &mut self,
        id: NodeId,
        from: InstanceId,
        (blob, epoch): (&Sealed, u64),
        outs: &mut Vec<Out>,
    ) {
        let Some(store) = self.alive(id).and_then(|node| node.store.as_ref()) else {
            return;
        };
        if let Err(error) = store.put_blob(blob.id, epoch, &blob.pages) {
            return outs.push(Out::Failed(error.to_string()));
        }
        self.blobs.insert((id, blob.id));
        let message = ToInstance::BlobStored { blob: blob.id };
        outs.push(Out::Reply {
            to: from,
            node: id,
            message,
        });
    }

    /// A peer asks for a blob.
    pub(crate) fn on_want_blob(
        &mut self,
        id: NodeId,
        from: InstanceId,
        (asker, pg, blob): (NodeId, PgId, BlobId),
        outs: &mut Vec<Out>,
    ) {
        let Some(node) = self.alive(id) else { return };
        let epoch = node.promised.max(node.installed);
        let Some(store) = node.store.as_ref().filter(|store| store.has_blob(blob)) else {
            return;
        };
        match store.blob_pages(blob) {
            // Under the newest epoch that there is: whoever gets it is about to take a reference to it, and must not collect it before.
            Ok(pages) => outs.push(Out::Peer {
                to: asker,
                from,
                message: ToNode::PutBlob {
                    blob: Arc::new(Sealed {
                        id: blob,
                        pg,
                        pages,
                    }),
                    epoch,
                },
            }),
            Err(error) => outs.push(Out::Note(format!("{id} cannot give a blob: {error}"))),
        }
    }

    /// Does the node have every blob that these records and pages refer to? If not, asks whoever gives them, or a peer, another one
    /// each time.
    pub(crate) fn has_blobs(
        &mut self,
        id: NodeId,
        (from, giver): (InstanceId, Option<NodeId>),
        pg: PgId,
        (records, exports): (&[Record], &[Export]),
        outs: &mut Vec<Out>,
    ) -> bool {
        let referred = records.iter().filter_map(reference).map(|(blob, _)| blob);
        let exported = exports.iter().flat_map(|export| &export.blobs).copied();
        let wanted: BTreeSet<BlobId> = referred.chain(exported).collect();
        let Some(node) = self.alive(id) else {
            return false;
        };
        let Some(store) = &node.store else {
            return false;
        };
        let missing: Vec<BlobId> = wanted
            .into_iter()
            .filter(|blob| !store.has_blob(*blob))
            .collect();
        if missing.is_empty() {
            return true;
        }
        node.asked = (node.asked + 1) % (NODES - 1);
        let to = giver.unwrap_or(NodeId((id.0 + 1 + node.asked) % NODES));
        for blob in missing {
            outs.push(Out::Note(format!("{id} lacks blob {blob} of {pg}")));
            let message = ToNode::WantBlob {
                asker: id,
                pg,
                blob,
            };
            outs.push(Out::Peer { to, from, message });
        }
        false
    }
}

/// Reads every blob of a node, and brings those that are damaged from another store.
pub(crate) fn mend_blobs(store: &NodeStore, damaged: &[BlobId], peers: &[&NodeStore]) {
    for blob in damaged {
        let epoch = store.blob_digest(*blob).map_or(0, |(_, epoch)| epoch);
        let pages = peers.iter().find_map(|peer| {
            let epoch = peer.blob_digest(*blob).map_or(epoch, |(_, epoch)| epoch);
            Some((epoch, peer.blob_pages(*blob).ok()?))
        });
        if let Some((epoch, pages)) = pages {
            // A disk that refuses is tried again at the next look.
            let _ = store.put_blob(*blob, epoch, &pages);
        }
    }
}
