//! What a node does with a message, up to the sync and after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_page::{Lsn, VolumeId};
use aurora_proto::{Ack, Copy, NodeId, NodeSet, Refuse, gossip};
use aurora_redo::{History, PgBatch, PgId};
use aurora_store::{LogEntry, NodeStore, PersistedToken, Ticket};

use crate::config::Planted;
use crate::machine::{Machine, Out};
use crate::messages::{InstanceId, ToInstance, ToNode};
use crate::node::fresh_part;

/// Something accepted that waits for the disk.
#[derive(Debug)]
pub(crate) struct Accepting {
    pub(crate) entry: LogEntry,
    /// What to do for each ticket of the entry.
    pub(crate) waits: Vec<Waiting>,
}

/// What is to be done for a ticket once it is on disk.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    /// Records: to the page store, and an acknowledgement.
    Records {
        fresh: Arc<PgBatch>,
        reply: Option<InstanceId>,
        /// A planted fault acknowledges under the epoch that the sender has.
        as_epoch: Option<u64>,
    },
    /// The end of a stretch: an acknowledgement. Pages that came with it need the copy's state on disk.
    Stretch { reply: Option<InstanceId> },
    /// A promise: the inventory.
    Promise { reply: InstanceId },
}

impl Machine {
    /// A message arrives at one of the nodes.
    pub fn handle(&mut self, id: NodeId, from: InstanceId, message: ToNode) -> Vec<Out> {
        let mut outs = Vec::new();
        if self.log.is_none() || self.alive(id).is_none() {
            return outs;
        }
        match message {
            ToNode::Batch(batch) => self.on_batch(id, from, batch, &mut outs),
            ToNode::Summary(summary) => {
                // The volume may have grown by a group of which nothing has come here yet.
                let installed = self.alive(id).map_or(0, |node| node.installed);
                if summary.epoch != installed {
                    return outs;
                }
                let copy = self.copy(id, summary.pg);
                for ask in gossip::asks(copy, &summary) {
                    outs.push(Out::Peer {
                        to: summary.node,
                        from,
                        message: ToNode::Ask { asker: id, ask },
                    });
                }
            }
            ToNode::Ask { asker, ask } => self.on_ask(id, from, asker, ask, &mut outs),
            ToNode::Answer(answer) => self.on_answer(id, from, answer, &[], &mut outs),
            ToNode::Hydrate { answer, exports } => {
                self.on_answer(id, from, answer, &exports, &mut outs);
            }
            ToNode::Fence {
                pg,
                epoch,
                history,
                incarnation,
            } => {
                // A node that was made anew does not answer for the one that was lost.
                if incarnation.is_none_or(|expected| self.incarnation(id) == Some(expected)) {
                    self.on_fence(id, from, pg, epoch, &history, &mut outs);
                }
            }
            ToNode::Give { job, epoch } => self.on_give(id, from, job, epoch, &mut outs),
            ToNode::Replicate {
                job,
                batch,
                exports,
            } => self.on_replicate(id, from, job, batch, &exports, &mut outs),
            ToNode::Install {
                epoch,
                history,
                pgs,
            } => self.on_install(id, from, epoch, history, &pgs, &mut outs),
            ToNode::PutBlob { blob, epoch } => {
                self.on_put_blob(id, from, (&blob, epoch), &mut outs);
            }
            ToNode::WantBlob { asker, pg, blob } => {
                self.on_want_blob(id, from, (asker, pg, blob), &mut outs);
            }
            ToNode::Read {
                read,
                page,
                at,
                epoch,
            } => self.on_read(id, from, (read, page, at, epoch), &mut outs),
        }
        outs
    }

    pub(crate) fn copy_if_known(&mut self, id: NodeId, pg: PgId) -> Option<&mut Copy> {
        self.alive(id)?.copies.get_mut(&pg)
    }

    pub(crate) fn copy(&mut self, id: NodeId, pg: PgId) -> &mut Copy {
        self.nodes
            .get_mut(&id)
            .expect("a message is for a node of this machine")
            .copy(pg)
    }

    fn on_batch(&mut self, id: NodeId, from: InstanceId, batch: Arc<PgBatch>, outs: &mut Vec<Out>) {
        let ignore_fence = self.config.has(Planted::FenceIgnored);
        let epoch = self.copy(id, batch.pg).state().epoch;
        if epoch == batch.epoch
            && !self.config.has(Planted::ReferenceWithoutBlob)
            && !self.has_blobs(id, (from, None), batch.pg, (&batch.records, &[]), outs)
        {
            return;
        }
        let copy = self.copy(id, batch.pg);
        let mut received = copy.receive(&batch);
        let mut as_epoch = None;
        if ignore_fence && matches!(received, Err(Refuse::StaleEpoch { .. })) {
            let epoch = copy.state().epoch;
            let forged = PgBatch {
                epoch,
                ..(*batch).clone()
            };
            as_epoch = Some(batch.epoch);
            received = match copy
                .receive(&forged)
                .or_else(|_| copy.receive_fenced(&forged))
            {
                Ok(accepted) => Ok(accepted),
                Err(_) => return,
            };
        }
        match received {
            Ok(accepted) if accepted.is_duplicate() => {
                let ack = copy.ack();
                self.reply_ack(id, Some(from), ack, outs);
            }
            Ok(accepted) => {
                let fresh = fresh_part(&batch, &accepted.fresh);
                let waits = vec![Waiting::Records {
                    fresh,
                    reply: Some(from),
                    as_epoch,
                }];
                let ticket = Ticket {
                    node: id,
                    pg: batch.pg,
                    number: accepted.ticket,
                };
                self.pending.push(Accepting {
                    entry: LogEntry::batch(batch, [ticket]),
                    waits,
                });
            }
            Err(Refuse::StaleEpoch { have, .. }) => {
                outs.push(Out::Reply {
                    to: from,
                    node: id,
                    message: ToInstance::Stale { epoch: have },
                });
            }
            Err(Refuse::NotInstalled { .. }) => {
                outs.push(Out::Reply {
                    to: from,
                    node: id,
                    message: ToInstance::NotInstalled,
                });
            }
            Err(refuse) => outs.push(Out::Violation(format!(
                "{id} refuses a batch of its own epoch: {refuse}"
            ))),
        }
    }

    fn on_fence(
        &mut self,
        id: NodeId,
        from: InstanceId,
        pg: PgId,
        epoch: u64,
        history: &Arc<History>,
        outs: &mut Vec<Out>,
    ) {
        let forgetful = self.config.has(Planted::FenceNotPersisted);
        let copy = self.copy(id, pg);
        let before = copy.scl();
        match copy.fence(epoch, history) {
            Ok(promise) => {
                let scl = copy.scl();
                self.unlinked |= scl < before;
                self.bind(id, pg, scl);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.promise(epoch, history);
                }
                let ticket = Ticket {
                    node: id,
                    pg,
                    number: promise.ticket,
                };
                let entry = if forgetful {
                    let empty = PgBatch {
                        pg,
                        epoch: 0,
                        vdl: Lsn::NONE,
                        records: Vec::new(),
                    };
                    LogEntry::batch(Arc::new(empty), [ticket])
                } else {
                    let tickets = [ticket].into_iter().collect();
                    LogEntry::Fence {
                        nodes: NodeSet::one(id),
                        tickets,
                        epoch,
                        history: (**history).clone(),
                    }
                };
                self.pending.push(Accepting {
                    entry,
                    waits: vec![Waiting::Promise { reply: from }],
                });
            }
            Err(Refuse::StaleEpoch { have, .. }) => {
                outs.push(Out::Reply {
                    to: from,
                    node: id,
                    message: ToInstance::Stale { epoch: have },
                });
            }
            Err(refuse) => outs.push(Out::Violation(format!("{id} refuses a fence: {refuse}"))),
        }
    }

    fn on_install(
        &mut self,
        id: NodeId,
        from: InstanceId,
        epoch: u64,
        history: Arc<History>,
        pgs: &[PgId],
        outs: &mut Vec<Out>,
    ) {
        let all = Arc::new(History::new(VolumeId(1)));
        let history = if self.config.has(Planted::HistoryIgnored) {
            all
        } else {
            history
        };
        let known = self.nodes.get(&id).map_or(0, |node| node.installed);
        for pg in pgs {
            let copy = self.copy(id, *pg);
            let before = copy.scl();
            if let Err(refuse) = copy.install(epoch, &history) {
                let have = copy.state().epoch;
                outs.push(Out::Note(format!("{id} refuses to install: {refuse}")));
                outs.push(Out::Reply {
                    to: from,
                    node: id,
                    message: ToInstance::Stale { epoch: have },
                });
                return;
            }
            let scl = copy.scl();
            self.unlinked |= scl < before;
            self.bind(id, *pg, scl);
        }
        if epoch <= known {
            // What the copies have, too: a writer that has sent them nothing knows nothing of them, and reads.
            for pg in pgs {
                let ack = self.copy(id, *pg).ack();
                self.reply_ack(id, Some(from), ack, outs);
            }
            let message = ToInstance::Installed { epoch: known };
            return outs.push(Out::Reply {
                to: from,
                node: id,
                message,
            });
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.install(epoch, &history);
        }
        let nodes = NodeSet::one(id);
        let entry = LogEntry::Install {
            nodes,
            tickets: [].into_iter().collect(),
            epoch,
            history: (*history).clone(),
        };
        self.pending.push(Accepting {
            entry,
            waits: Vec::new(),
        });
    }

    /// The History was cut: what was told beyond the cut binds no more.
    fn bind(&mut self, id: NodeId, pg: PgId, scl: Lsn) {
        if let Some(told) = self.told.get_mut(&(id, pg)) {
            *told = scl.min(*told);
        }
    }

    /// Writes and syncs everything that was accepted, and answers.
    pub fn sync(&mut self) -> Vec<Out> {
        let mut outs = Vec::new();
        let accepted = merge(std::mem::take(&mut self.pending));
        let entries: Vec<LogEntry> = accepted
            .iter()
            .map(|accepting| accepting.entry.clone())
            .collect();
        let Some(log) = &self.log else { return outs };
        self.disk
            .lie(self.config.has(Planted::AcknowledgeBeforeSync));
        let appended = log.append(&entries);
        self.disk.lie(false);
        let appended = match appended {
            Ok(appended) => appended,
            Err(error) => return vec![Out::Failed(error.to_string())],
        };
        let waits = accepted.into_iter().flat_map(|accepting| accepting.waits);
        let before = (self.told.clone(), self.promised.clone());
        for (token, waiting) in appended.tokens.into_iter().zip(waits) {
            self.redeem(token, waiting, &mut outs);
        }
        let flush = std::mem::take(&mut self.unlinked);
        if (flush || self.wants_flush())
            && let Err(error) = self.flush()
        {
            // Nothing of it was told.
            (self.told, self.promised) = before;
            outs = vec![Out::Failed(error)];
        }
        outs
    }

    fn redeem(&mut self, token: PersistedToken, waiting: Waiting, outs: &mut Vec<Out>) {
        let (id, pg) = (token.node(), token.pg());
        let diverges = self.config.has(Planted::CopyDiverges) && id == NodeId(2);
        let Some(node) = self.alive(id) else { return };
        match waiting {
            Waiting::Records {
                fresh,
                reply,
                as_epoch,
            } => {
                let mut ack = node.copy(pg).persisted(token);
                ack.epoch = as_epoch.unwrap_or(ack.epoch);
                if let Some(store) = &node.store
                    && !fresh.records.is_empty()
                {
                    store.ingest(if diverges { diverged(&fresh) } else { fresh });
                }
                self.reply_ack(id, reply, ack, outs);
            }
            Waiting::Stretch { reply } => {
                let before = node.copy(pg).scl();
                let ack = node.copy(pg).persisted(token);
                self.unlinked |= ack.scl > before;
                self.reply_ack(id, reply, ack, outs);
            }
            Waiting::Promise { reply } => {
                if let Some(inventory) = node.copy(pg).fenced(token) {
                    let told = self.told.entry((id, pg)).or_default();
                    *told = inventory.scl.max(*told);
                    let promised = self.promised.entry((id, pg)).or_default();
                    *promised = inventory.epoch.max(*promised);
                    outs.push(Out::Reply {
                        to: reply,
                        node: id,
                        message: ToInstance::Inventory(inventory),
                    });
                }
            }
        }
    }

    fn reply_ack(&mut self, id: NodeId, to: Option<InstanceId>, ack: Ack, outs: &mut Vec<Out>) {
        let Some(to) = to else { return };
        let told = self.told.entry((id, ack.pg)).or_default();
        *told = ack.scl.max(*told);
        outs.push(Out::Reply {
            to,
            node: id,
            message: ToInstance::Ack(ack),
        });
    }

    /// What the nodes tell their peers now.
    pub fn summaries(&self) -> BTreeMap<(NodeId, PgId), gossip::Summary> {
        let alive = self.nodes.values().filter(|node| node.alive());
        let copies = alive.flat_map(|node| {
            node.copies
                .iter()
                .map(move |(pg, copy)| ((node.id, *pg), copy))
        });
        let floor = |node: NodeId| {
            let store = self.nodes.get(&node).and_then(|node| node.store.as_ref());
            store.map_or(Lsn::NONE, NodeStore::floor)
        };
        copies
            .filter(|(_, copy)| copy.is_open())
            .map(|(key, copy)| (key, gossip::summary(copy, floor(key.0))))
            .collect()
    }
}

/// One batch that came for several nodes of the machine is one entry, as the embedded shell would write it.
fn merge(pending: Vec<Accepting>) -> Vec<Accepting> {
    let mut merged: Vec<Accepting> = Vec::new();
    for accepting in pending {
        if let Some(last) = merged.last_mut()
            && let LogEntry::Batch {
                batch,
                tickets,
                nodes,
            } = &accepting.entry
            && let LogEntry::Batch {
                batch: same,
                tickets: more,
                nodes: all,
            } = &mut last.entry
            && Arc::ptr_eq(batch, same)
            && tickets.len() == 1
        {
            more.extend(tickets.iter().copied());
            *all = all.union(*nodes);
            last.waits.extend(accepting.waits);
            continue;
        }
        merged.push(accepting);
    }
    merged
}

/// The planted fault of a copy that applies something else than what was logged.
fn diverged(batch: &PgBatch) -> Arc<PgBatch> {
    let mut records = batch.records.clone();
    for record in &mut records {
        let mut op = record.op.to_vec();
        if let (Some(17), Some(last)) = (op.first().copied(), op.last_mut()) {
            *last ^= 1;
            record.op = op.into();
        }
    }
    Arc::new(PgBatch {
        records,
        ..PgBatch {
            records: Vec::new(),
            ..*batch
        }
    })
}
