//! One copy of one protection group at one storage node.
//!
//! The copy decides what to take, what is complete (its SCL) and what to answer; the node's store makes it durable.
//! The driver's duties, in this order:
//!
//! 1. [`Copy::receive`] a batch; if it is refused, tell the sender, and nothing has changed.
//! 2. Write the batch to the log. The store answers with a token that only it can make.
//! 3. [`Copy::persisted`] takes the token and gives the [`Ack`]. There is no other way from a batch to its
//!    acknowledgement: acknowledging what is not on disk does not compile [8].
//! 4. Hand the fresh records, and only those, to the page store, before the copy's next gossip.
//! 5. Where the SCL is not what the links of its records prove - [`Copy::fence`] or [`Copy::install`] has lowered it, or
//!    the ticket of [`Copy::hydrating`] has raised it - write the copy's state before it answers. The log alone does not
//!    bring such an SCL back, and after a crash of all copies nobody would have the stretch.
//!
//! The SCL is an LSN up to which the copy lacks nothing: mostly that of a record, but after a deep cut of the History
//! it may lie between two. So a record follows when its link to the record before it in its group does not reach above
//! the SCL.

use std::collections::VecDeque;
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_page::planted::{self, Fault};
use aurora_redo::{History, PgBatch, PgId, Record};

use crate::answer::{
    Accepted, Ack, CopyState, FenceTicket, Fresh, Gap, Inventory, Link, Persisted, Refuse,
};
use crate::quorum::NodeId;

/// A record above the SCL or the VDL hint; `ticket` is that of the batch on its way to disk, 0 once it is there.
#[derive(Clone, Copy, Debug)]
struct Held {
    link: Link,
    ticket: u64,
}

const ON_DISK: u64 = 0;

/// Something on its way to disk.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Batch { first: Lsn, last: Lsn },
    Stretch { after: Lsn, upto: Lsn },
}

/// One copy of one protection group.
#[derive(Debug)]
pub struct Copy {
    state: CopyState,
    /// Ascending; every known record above `min(scl, vdl_hint)`.
    held: VecDeque<Held>,
    /// Index in `held` of the first record above the SCL.
    above: usize,
    in_flight: VecDeque<(u64, Pending)>,
    /// Numbers are given out in order and never twice, 0 never.
    last_ticket: u64,
    /// The ticket of the newest promise.
    promise: u64,
}

impl Copy {
    /// An empty copy.
    pub fn new(pg: PgId, node: NodeId, epoch: u64, history: Arc<History>) -> Copy {
        let state = CopyState {
            pg,
            node,
            epoch,
            installed: epoch,
            history,
            scl: Lsn::NONE,
            vdl_hint: Lsn::NONE,
        };
        Copy::restore(state, [])
    }

    /// A copy as it was, with the links of all its records above the lower of SCL and VDL hint, in any order.
    pub fn restore(state: CopyState, links: impl IntoIterator<Item = Link>) -> Copy {
        let floor = state.scl.min(state.vdl_hint);
        let mut held: Vec<Held> = links
            .into_iter()
            .filter(|link| link.lsn > floor && state.history.contains(link.origin, link.lsn))
            .map(|link| Held {
                link,
                ticket: ON_DISK,
            })
            .collect();
        held.sort_unstable_by_key(|held| held.link.lsn);
        held.dedup_by_key(|held| held.link.lsn);
        let mut copy = Copy {
            state,
            held: held.into(),
            above: 0,
            in_flight: VecDeque::new(),
            last_ticket: 0,
            promise: 0,
        };
        copy.recount();
        copy
    }

    /// Gives its tickets out above this one. What comes back late for the copy that was in its place is then of no ticket of its own.
    #[must_use]
    pub fn with_tickets_above(mut self, ticket: u64) -> Copy {
        self.last_ticket = self.last_ticket.max(ticket);
        self
    }

    /// The newest ticket that was given out.
    pub fn last_ticket(&self) -> u64 {
        self.last_ticket
    }

    /// Its group, node, epoch, History, SCL and VDL hint.
    pub fn state(&self) -> &CopyState {
        &self.state
    }

    /// Every record of the group at or below it is durable here.
    pub fn scl(&self) -> Lsn {
        self.state.scl
    }

    /// The newest record that is known here, complete or not.
    pub fn highest(&self) -> Lsn {
        self.held
            .back()
            .map_or(self.state.scl, |held| held.link.lsn.max(self.state.scl))
    }

    /// The oldest record that is here, or on its way to disk, above the lower of SCL and VDL hint. What a copy is restored
    /// with has no link below it.
    pub fn unsettled(&self) -> Option<Lsn> {
        self.held.front().map(|held| held.link.lsn)
    }

    /// May records of its epoch be taken?
    pub fn is_open(&self) -> bool {
        self.state.installed == self.state.epoch
    }

    /// The acknowledgement as it stands. The SCL never counts what is not on disk, so it may be repeated freely.
    pub fn ack(&self) -> Ack {
        Ack {
            pg: self.state.pg,
            node: self.state.node,
            epoch: self.state.epoch,
            scl: self.state.scl,
        }
    }

    /// What is known to exist and is neither here nor on its way to disk, oldest first.
    pub fn missing(&self) -> Vec<Gap> {
        gaps(self.state.scl, self.held.iter().skip(self.above))
    }

    /// What is known to exist and is not on disk here, oldest first.
    pub(crate) fn missing_on_disk(&self) -> Vec<Gap> {
        gaps(
            self.state.scl,
            self.held
                .iter()
                .skip(self.above)
                .filter(|held| held.ticket == ON_DISK),
        )
    }

    /// The newest record that is on disk here, complete or not.
    pub(crate) fn highest_on_disk(&self) -> Lsn {
        let newest = self.held.iter().rev().find(|held| held.ticket == ON_DISK);
        newest.map_or(self.state.scl, |held| held.link.lsn.max(self.state.scl))
    }

    /// How far this copy has everything of a stretch, from its beginning, on disk; `None` if it has nothing of it. What it
    /// told in a summary may have been on its way to disk and lost in a crash since, so an answer to a peer goes no
    /// further than this.
    pub fn vouches(&self, gap: &Gap) -> Option<Lsn> {
        let mut reached = gap.after.max(self.state.scl);
        let start = self.held.partition_point(|held| held.link.lsn <= reached);
        for held in self.held.range(start..) {
            if held.ticket != ON_DISK || held.link.prev > reached {
                break;
            }
            reached = held.link.lsn;
        }
        (reached > gap.after).then(|| reached.min(gap.upto))
    }

    /// Takes a batch from the writer or a peer.
    pub fn receive(&mut self, batch: &PgBatch) -> Result<Accepted, Refuse> {
        let CopyState {
            epoch, installed, ..
        } = self.state;
        if batch.epoch < epoch {
            return Err(Refuse::StaleEpoch {
                have: epoch,
                got: batch.epoch,
            });
        }
        if batch.epoch > epoch || installed != epoch {
            return Err(Refuse::NotInstalled {
                have: installed,
                got: batch.epoch,
            });
        }
        let accepted = self.take(batch)?;
        self.hear_vdl(batch.vdl);
        Ok(accepted)
    }

    /// Takes a batch that a recovery re-replicates under its own fence. The VDL in it is a plan and not yet true: were
    /// it believed, a second recovery after a crash would count on records that are nowhere [11].
    pub fn receive_fenced(&mut self, batch: &PgBatch) -> Result<Accepted, Refuse> {
        let CopyState { epoch, .. } = self.state;
        if batch.epoch < epoch {
            return Err(Refuse::StaleEpoch {
                have: epoch,
                got: batch.epoch,
            });
        }
        if self.is_open() || batch.epoch > epoch {
            return Err(Refuse::NotFenced { epoch: batch.epoch });
        }
        self.take(batch)
    }

    /// A token came back: what it names is on disk.
    pub fn persisted(&mut self, token: impl Persisted) -> Ack {
        let ticket = token.ticket();
        if let Some(position) = self
            .in_flight
            .iter()
            .position(|(number, _)| *number == ticket)
        {
            match self.in_flight.remove(position) {
                Some((_, Pending::Batch { first, last })) => self.on_disk(ticket, first, last),
                Some((_, Pending::Stretch { after, upto })) => self.complete(after, upto),
                None => {}
            }
        }
        self.ack()
    }

    /// Announces that everything of the group above `after` and up to `upto`, all of it durable, has come here or is on
    /// its way to disk: as pages, as records, or because there is nothing in that stretch. Ends a hydration or a
    /// re-replication. Gives the ticket whose token says that all of it is on disk.
    pub fn hydrating(&mut self, after: Lsn, upto: Lsn) -> u64 {
        let ticket = self.next_ticket();
        self.in_flight
            .push_back((ticket, Pending::Stretch { after, upto }));
        ticket
    }

    /// What was to be written under this ticket was not: the copy is as if it had never come, and will ask for it again.
    pub fn withdraw(&mut self, ticket: u64) {
        self.in_flight.retain(|(number, _)| *number != ticket);
        self.held.retain(|held| held.ticket != ticket);
        self.recount();
    }

    fn on_disk(&mut self, ticket: u64, first: Lsn, last: Lsn) {
        let start = self.held.partition_point(|held| held.link.lsn < first);
        for held in self
            .held
            .range_mut(start..)
            .take_while(|held| held.link.lsn <= last)
        {
            if held.ticket == ticket {
                held.ticket = ON_DISK;
            }
        }
        self.advance();
    }

    fn complete(&mut self, after: Lsn, upto: Lsn) {
        if after <= self.state.scl && upto > self.state.scl {
            self.state.scl = self.state.history.floor(upto);
            self.recount();
        }
    }

    fn next_ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// Promises never again to take anything of an older epoch [12], and takes over the History of the manifest that
    /// is being recovered: what is not in it can never count again. The promise must be persisted; its token is
    /// exchanged for the inventory.
    pub fn fence(&mut self, epoch: u64, history: &Arc<History>) -> Result<FenceTicket, Refuse> {
        let have = self.state.epoch;
        if epoch < have || (epoch == have && self.is_open()) {
            return Err(Refuse::StaleEpoch { have, got: epoch });
        }
        self.state.epoch = epoch;
        self.align(history);
        self.promise = self.next_ticket();
        Ok(FenceTicket {
            ticket: self.promise,
        })
    }

    /// The promise is on disk: the answer to the fence. `None` if the token is of another promise.
    pub fn fenced(&mut self, token: impl Persisted) -> Option<Inventory> {
        (token.ticket() == self.promise && !self.is_open()).then(|| self.inventory())
    }

    /// What this copy would answer to a fence of `epoch`, without the promise: for a reader that opens nothing. An owner
    /// that is still writing may be ahead of it.
    pub fn survey(&self, epoch: u64) -> Inventory {
        Inventory {
            epoch,
            ..self.inventory()
        }
    }

    fn inventory(&self) -> Inventory {
        let durable = self.held.iter().filter(|held| held.ticket == ON_DISK);
        Inventory {
            pg: self.state.pg,
            node: self.state.node,
            epoch: self.state.epoch,
            scl: self.state.scl,
            vdl_hint: self.state.vdl_hint,
            records: durable
                .map(|held| (held.link.lsn, held.link.prev, held.link.cpl))
                .collect(),
        }
    }

    /// Takes an epoch with its History, from a manifest that was written. Log the same before any batch of the epoch.
    pub fn install(&mut self, epoch: u64, history: &Arc<History>) -> Result<(), Refuse> {
        let have = self.state.epoch;
        if epoch < have {
            return Err(Refuse::StaleEpoch { have, got: epoch });
        }
        self.state.epoch = epoch;
        self.state.installed = epoch;
        self.align(history);
        Ok(())
    }

    /// Takes an epoch with a History in which this copy is known to have everything up to `upto`: one that was left with all of it
    /// here, or one that parts from the present one above `upto`. Write the copy's state before it answers.
    pub fn install_complete(
        &mut self,
        epoch: u64,
        history: &Arc<History>,
        upto: Lsn,
    ) -> Result<(), Refuse> {
        self.install(epoch, history)?;
        self.state.scl = history.floor(upto);
        self.state.vdl_hint = self.state.vdl_hint.max(self.state.scl);
        self.recount();
        Ok(())
    }

    /// The same where it is not known: the copy has what the links of its records prove. They are those above
    /// [`Copy::agreed`] with the History.
    pub fn install_with(
        &mut self,
        epoch: u64,
        history: &Arc<History>,
        links: impl IntoIterator<Item = Link>,
    ) -> Result<(), Refuse> {
        self.install(epoch, history)?;
        let ours = |link: &Link| history.contains(link.origin, link.lsn);
        let mut held: Vec<Held> = links
            .into_iter()
            .filter(ours)
            .map(|link| Held {
                link,
                ticket: ON_DISK,
            })
            .chain(self.held.drain(..))
            .collect();
        held.sort_by_key(|held| (held.link.lsn, held.ticket));
        held.dedup_by_key(|held| held.link.lsn);
        self.held = held.into();
        self.recount();
        Ok(())
    }

    /// Up to where what this copy knows to be complete counts in another History too.
    pub fn agreed(&self, history: &History) -> Lsn {
        self.state
            .scl
            .min(self.state.history.common_prefix(history))
    }

    /// A VDL that was heard of by other means than a batch.
    pub fn hear_vdl(&mut self, vdl: Lsn) {
        if vdl > self.state.vdl_hint {
            self.state.vdl_hint = vdl;
            self.trim();
        }
    }

    /// Completeness is a statement about a History: where two part, it ends.
    fn align(&mut self, history: &Arc<History>) {
        let agreed = self.state.history.common_prefix(history);
        if self.state.scl > agreed {
            // The first record beyond the cut links to the last one before it, unless that is known no more.
            let beyond = self.held.partition_point(|held| held.link.lsn <= agreed);
            self.state.scl = self
                .held
                .get(beyond)
                .map_or(agreed, |held| held.link.prev.min(agreed));
        }
        self.state.vdl_hint = self.state.vdl_hint.min(agreed);
        self.held
            .retain(|held| history.contains(held.link.origin, held.link.lsn));
        // Pages that are newer than the cut do not serve reads below it.
        self.in_flight.retain(
            |(_, pending)| !matches!(pending, Pending::Stretch { upto, .. } if *upto > agreed),
        );
        self.state.history = Arc::clone(history);
        self.recount();
    }

    fn take(&mut self, batch: &PgBatch) -> Result<Accepted, Refuse> {
        self.check(batch)?;
        let ticket = self.next_ticket();
        let accepted = Accepted {
            ticket,
            fresh: self.hold(batch, ticket),
        };
        if !accepted.is_duplicate() {
            let first = batch.records.first().map_or(Lsn::NONE, |record| record.lsn);
            self.in_flight.push_back((
                ticket,
                Pending::Batch {
                    first,
                    last: batch.last_lsn(),
                },
            ));
        }
        Ok(accepted)
    }

    fn check(&self, batch: &PgBatch) -> Result<(), Refuse> {
        if batch.pg != self.state.pg {
            return Err(Refuse::WrongPg {
                expected: self.state.pg,
                got: batch.pg,
            });
        }
        let mut after = Lsn::NONE;
        for record in &batch.records {
            let Record {
                lsn,
                origin,
                prev_pg: prev,
                ..
            } = *record;
            if lsn <= after || prev >= lsn {
                return Err(Refuse::Malformed { lsn, after, prev });
            }
            if !self.state.history.contains(origin, lsn) {
                return Err(Refuse::NotInHistory { origin, lsn });
            }
            after = lsn;
        }
        Ok(())
    }

    fn hold(&mut self, batch: &PgBatch, ticket: u64) -> Fresh {
        let highest = self.highest();
        if batch
            .records
            .first()
            .is_some_and(|first| first.lsn > highest)
        {
            self.held.extend(batch.records.iter().map(|record| Held {
                link: record.into(),
                ticket,
            }));
            return Fresh::All;
        }
        let mut fresh = Vec::new();
        for (index, record) in batch.records.iter().enumerate() {
            if record.lsn <= self.state.scl {
                continue;
            }
            if let Err(place) = self
                .held
                .binary_search_by_key(&record.lsn, |held| held.link.lsn)
            {
                self.held.insert(
                    place,
                    Held {
                        link: record.into(),
                        ticket,
                    },
                );
                fresh.push(index);
            }
        }
        if fresh.len() == batch.records.len() && !fresh.is_empty() {
            Fresh::All
        } else {
            Fresh::Some(fresh)
        }
    }

    fn recount(&mut self) {
        self.above = self
            .held
            .partition_point(|held| held.link.lsn <= self.state.scl);
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(held) = self.held.get(self.above) {
            let gap = held.link.prev > self.state.scl && !planted::is(Fault::SclOverGap);
            if held.ticket != ON_DISK || gap {
                break;
            }
            self.state.scl = held.link.lsn;
            self.above += 1;
        }
        self.trim();
    }

    /// What is complete and known durable everywhere needs no link any more.
    fn trim(&mut self) {
        let floor = self.state.scl.min(self.state.vdl_hint);
        while self.held.front().is_some_and(|held| held.link.lsn <= floor) {
            self.held.pop_front();
            self.above -= 1;
        }
    }
}

/// The stretches between records whose links say that there is something.
fn gaps<'a>(scl: Lsn, held: impl Iterator<Item = &'a Held>) -> Vec<Gap> {
    let mut after = scl;
    let mut gaps = Vec::new();
    for Held { link, .. } in held {
        if link.prev > after {
            gaps.push(Gap {
                after,
                upto: link.prev,
            });
        }
        after = link.lsn;
    }
    gaps
}
