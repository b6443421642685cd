//! What nodes give each other: records and pages, by gossip and for a recovery.

use std::sync::Arc;

use aurora_page::{Lsn, PageId, VolumeId};
use aurora_proto::{Answer, Ask, Gap, Job, NodeId, gossip};
use aurora_redo::{History, PgBatch, PgId};
use aurora_store::{Export, LogEntry, NodeStore, StoreError, Ticket};

use crate::accept::{Accepting, Waiting};
use crate::config::Planted;
use crate::machine::{Machine, Out};
use crate::messages::{InstanceId, ToNode};
use crate::node::fresh_part;

impl Machine {
    pub(crate) fn on_ask(
        &mut self,
        id: NodeId,
        from: InstanceId,
        asker: NodeId,
        ask: Ask,
        outs: &mut Vec<Out>,
    ) {
        let everything = self.config.has(Planted::HistoryIgnored);
        let (segment_pages, give_bytes) = (self.config.segment_pages, self.config.give_bytes);
        let Some(node) = self.alive(id) else { return };
        let (Some(store), Some(copy)) = (&node.store, node.copies.get(&ask.pg)) else {
            return;
        };
        if copy.state().epoch != ask.epoch || !copy.is_open() {
            return;
        }
        let Some(upto) = copy.vouches(&ask.gap) else {
            return;
        };
        let all = History::new(VolumeId(1));
        let history = if everything {
            &all
        } else {
            &*copy.state().history
        };
        // Below the collection floor there are pages where there were records. They are of the whole group, so one answer is to
        // be enough.
        let by_pages = ask.gap.after < store.floor();
        let give_bytes = if by_pages { u64::MAX } else { give_bytes };
        // The store may stop at its limit, so the answer speaks for what was read and no further; and where that is only
        // what never happened, reading goes on.
        let (mut records, mut read_upto) = (Vec::new(), ask.gap.after);
        while records.is_empty() && read_upto < upto {
            match store.records(ask.pg, read_upto, upto, give_bytes) {
                Ok(read) => {
                    read_upto = read.last().map_or(upto, |last| last.lsn);
                    records = read;
                }
                Err(_) => return,
            }
            records.retain(|record| history.contains(record.origin, record.lsn));
        }
        let hint = copy.state().vdl_hint;
        let answer = gossip::answer(&ask, history, hint, records, read_upto, give_bytes as usize);
        if !by_pages {
            let message = ToNode::Answer(answer);
            return outs.push(Out::Peer {
                to: asker,
                from,
                message,
            });
        }
        match export(store, ask.pg, segment_pages) {
            Ok(exports) => {
                let message = ToNode::Hydrate {
                    answer,
                    exports: Arc::new(exports),
                };
                outs.push(Out::Peer {
                    to: asker,
                    from,
                    message,
                });
            }
            Err(error) => outs.push(Out::Note(format!("{id} cannot give pages: {error}"))),
        }
    }

    pub(crate) fn on_answer(
        &mut self,
        id: NodeId,
        from: InstanceId,
        answer: Answer,
        exports: &[Export],
        outs: &mut Vec<Out>,
    ) {
        let Answer {
            batch,
            after,
            complete_to,
        } = answer;
        let pg = batch.pg;
        let wanted = self.copy_if_known(id, pg);
        let wanted =
            wanted.is_some_and(|c| c.state().epoch == batch.epoch && c.scl() < complete_to);
        let blind = self.config.has(Planted::GossipWithoutBlob);
        if !wanted
            || !(blind || self.has_blobs(id, (from, None), pg, (&batch.records, exports), outs))
        {
            return;
        }
        if let Err(error) = self.import(id, exports) {
            return outs.push(Out::Failed(error));
        }
        let copy = self.copy(id, pg);
        let accepted = match copy.receive(&batch) {
            Ok(accepted) => accepted,
            Err(refuse) => {
                return outs.push(Out::Note(format!("{id} refuses an answer: {refuse}")));
            }
        };
        let stretch = copy.hydrating(after, complete_to);
        let ticket = |number| Ticket {
            node: id,
            pg,
            number,
        };
        let fresh = fresh_part(&Arc::new(batch.clone()), &accepted.fresh);
        let (tickets, waits) = (
            [ticket(accepted.ticket), ticket(stretch)],
            vec![
                Waiting::Records {
                    fresh,
                    reply: None,
                    as_epoch: None,
                },
                Waiting::Stretch { reply: None },
            ],
        );
        self.pending.push(Accepting {
            entry: LogEntry::batch(Arc::new(batch), tickets),
            waits,
        });
    }

    pub(crate) fn on_give(
        &mut self,
        id: NodeId,
        from: InstanceId,
        job: Job,
        epoch: u64,
        outs: &mut Vec<Out>,
    ) {
        let pages = self.config.segment_pages;
        let Some(node) = self.alive(id) else { return };
        let (Some(store), Some(copy)) = (&node.store, node.copies.get(&job.pg)) else {
            return;
        };
        if copy.state().epoch != epoch || copy.is_open() {
            return;
        }
        // A repair may have taken away what the inventory told; then the recovery has to begin again.
        let stretch = Gap {
            after: job.after,
            upto: job.upto,
        };
        if copy.vouches(&stretch) != Some(job.upto) {
            return outs.push(Out::Note(format!("{id} has no longer what it told")));
        }
        let exports = match job.pages {
            true => export(store, job.pg, pages),
            false => Ok(Vec::new()),
        };
        let exports = match exports {
            Ok(exports) => exports,
            Err(error) => return outs.push(Out::Note(format!("{id} cannot give pages: {error}"))),
        };
        let history = Arc::clone(&copy.state().history);
        let mut records = match store.records(job.pg, job.after, job.upto, u64::MAX) {
            Ok(records) => records,
            Err(error) => {
                return outs.push(Out::Note(format!("{id} cannot give records: {error}")));
            }
        };
        records.retain(|record| history.contains(record.origin, record.lsn));
        let batch = Arc::new(PgBatch {
            pg: job.pg,
            epoch,
            vdl: Lsn::NONE,
            records,
        });
        let message = ToNode::Replicate {
            job,
            batch,
            exports: Arc::new(exports),
        };
        outs.push(Out::Peer {
            to: job.to,
            from,
            message,
        });
    }

    pub(crate) fn on_replicate(
        &mut self,
        id: NodeId,
        from: InstanceId,
        job: Job,
        batch: Arc<PgBatch>,
        exports: &[Export],
        outs: &mut Vec<Out>,
    ) {
        let blind = self.config.has(Planted::GossipWithoutBlob);
        if !blind
            && !self.has_blobs(
                id,
                (from, Some(job.from)),
                job.pg,
                (&batch.records, exports),
                outs,
            )
        {
            return;
        }
        if let Err(error) = self.import(id, exports) {
            return outs.push(Out::Failed(error));
        }
        let copy = self.copy(id, job.pg);
        let Ok(accepted) = copy.receive_fenced(&batch) else {
            return;
        };
        let stretch = copy.hydrating(job.after, job.upto);
        let ticket = |number| Ticket {
            node: id,
            pg: job.pg,
            number,
        };
        let fresh = fresh_part(&batch, &accepted.fresh);
        let waits = vec![
            Waiting::Records {
                fresh,
                reply: Some(from),
                as_epoch: None,
            },
            Waiting::Stretch { reply: Some(from) },
        ];
        let entry = LogEntry::batch(batch, [ticket(accepted.ticket), ticket(stretch)]);
        self.pending.push(Accepting { entry, waits });
    }

    fn import(&mut self, id: NodeId, exports: &[Export]) -> Result<(), String> {
        let Some(store) = self.alive(id).and_then(|node| node.store.as_ref()) else {
            return Ok(());
        };
        exports
            .iter()
            .try_for_each(|export| store.import(export).map(drop).map_err(|e| e.to_string()))
    }
}

/// All pages of a group.
fn export(store: &NodeStore, pg: PgId, segment_pages: u64) -> Result<Vec<Export>, StoreError> {
    let first = u64::from(pg.0) * segment_pages;
    let last = PageId(first + segment_pages - 1);
    let mut exports = Vec::new();
    let mut next = Some(PageId(first));
    while let Some(page) = next {
        let export = store.export(page..=last, 16 << 10)?;
        next = export.next;
        exports.push(export);
    }
    Ok(exports)
}
