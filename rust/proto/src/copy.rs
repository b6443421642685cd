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
//!
//! The SCL is an LSN up to which the copy lacks nothing: mostly that of a record, but after a deep cut of the History
//! it may lie between two. So a record follows when its link to the record before it in its group does not reach above
//! the SCL.

use std::collections::VecDeque;
use std::sync::Arc;

use aurora_page::{Lsn, VolumeId};
use aurora_redo::{History, PgBatch, PgId, Record};
use thiserror::Error;

use crate::quorum::NodeId;

/// The answer to a batch: how far this copy is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// The protection group.
    pub pg: PgId,
    /// The node.
    pub node: NodeId,
    /// The epoch that the copy has promised. A writer of an older one does not count it [12].
    pub epoch: u64,
    /// Every record of the group at or below it is durable here.
    pub scl: Lsn,
}

/// Proof that something is on disk. Only the store implements it, on a token whose constructor is its own [8].
pub trait Persisted {
    /// The number that the copy gave out for what was persisted.
    fn ticket(&self) -> u64;
}

/// What the protocol knows of a record: its place and its link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its LSN.
    pub lsn: Lsn,
    /// The record before it in its group.
    pub prev: Lsn,
    /// Its origin.
    pub origin: VolumeId,
    /// Does it end an MTR?
    pub cpl: bool,
}

impl From<&Record> for Link {
    fn from(record: &Record) -> Link {
        Link {
            lsn: record.lsn,
            prev: record.prev_pg,
            origin: record.origin,
            cpl: record.is_cpl(),
        }
    }
}

/// What of an accepted batch was not there before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fresh {
    /// Every record, as nearly always.
    All,
    /// These records, by their index in the batch; possibly none.
    Some(Vec<usize>),
}

/// A batch was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// What the store's token must name.
    pub ticket: u64,
    /// Which records are new here.
    pub fresh: Fresh,
}

impl Accepted {
    /// Is there nothing to persist that was not on its way before?
    pub fn is_duplicate(&self) -> bool {
        matches!(&self.fresh, Fresh::Some(indices) if indices.is_empty())
    }
}

/// Why a batch, fence or install was not taken. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refuse {
    /// The sender belongs to the past.
    #[error("stale epoch: this copy has promised epoch {have}, the sender has {got}")]
    StaleEpoch {
        /// The epoch promised.
        have: u64,
        /// The sender's.
        got: u64,
    },
    /// The epoch's History must be installed first.
    #[error("epoch {got} is not installed: this copy has installed epoch {have}")]
    NotInstalled {
        /// The epoch installed.
        have: u64,
        /// The sender's.
        got: u64,
    },
    /// The copy has its History already; the message is for one that is being recovered.
    #[error("epoch {epoch} is open here: not under a fence")]
    NotFenced {
        /// The epoch.
        epoch: u64,
    },
    /// A record that did not happen.
    #[error("record {lsn} of volume {origin} is not in the history")]
    NotInHistory {
        /// The record's origin.
        origin: VolumeId,
        /// The record's LSN.
        lsn: Lsn,
    },
    /// A batch for another group.
    #[error("batch for another group: expected {expected}, got {got}")]
    WrongPg {
        /// The group of this copy.
        expected: PgId,
        /// The group of the batch.
        got: PgId,
    },
    /// LSNs or links that do not ascend.
    #[error("malformed batch: record {lsn} follows {after}, and links to {prev}")]
    Malformed {
        /// The record.
        lsn: Lsn,
        /// The record before it in the batch.
        after: Lsn,
        /// Its link.
        prev: Lsn,
    },
}

/// What a copy answers to a fence, and only the answer to the fence of the recovery's own epoch counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inventory {
    /// The protection group.
    pub pg: PgId,
    /// The node.
    pub node: NodeId,
    /// The epoch promised.
    pub epoch: u64,
    /// Every record of the group at or below it is here.
    pub scl: Lsn,
    /// The highest VDL that this copy has heard of.
    pub vdl_hint: Lsn,
    /// Every durable record above the lower of the two, as (LSN, previous LSN in the group, is a CPL), ascending.
    pub records: Vec<(Lsn, Lsn, bool)>,
}

/// A promise that was made and must be persisted before the inventory is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FenceTicket {
    /// What the store's token must name.
    pub ticket: u64,
}

/// What a store keeps of a copy besides records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyState {
    /// The protection group.
    pub pg: PgId,
    /// The node.
    pub node: NodeId,
    /// The epoch promised.
    pub epoch: u64,
    /// The epoch whose History is installed.
    pub installed: u64,
    /// What counts as having happened.
    pub history: Arc<History>,
    /// Every record of the group at or below it is durable here.
    pub scl: Lsn,
    /// The highest VDL that this copy has heard of.
    pub vdl_hint: Lsn,
}

/// A stretch of the group's records that exists and is not here: above `after`, up to and with `upto`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The last LSN before it.
    pub after: Lsn,
    /// The last LSN in it.
    pub upto: Lsn,
}

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
            if held.ticket != ON_DISK || held.link.prev > self.state.scl {
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
