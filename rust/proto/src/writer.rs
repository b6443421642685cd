//! The writer: gives LSNs, shards records by protection group, and knows from acknowledgements what is durable.
//!
//! ```text
//!   MTR -> LSNs -> pending records per group -> one batch per group -> acks with SCLs -> PGCL -> VCL -> VDL
//! ```
//! The driver's duties: [`Writer::append`]; send every batch of [`Writer::poll_send`] to all of
//! `membership(pg).nodes()`; feed every answer to [`Writer::on_ack`]; commits at or below the VDL are durable. Nothing
//! waits for a particular member, so a slow or dead one delays nothing as long as the quorum is met [9], and a group
//! without records in flight is not looked at.
//!
//! Costs per record are constant: the queue above the VCL holds one entry per run of records of one group and MTR.

use std::collections::VecDeque;
use std::sync::Arc;

use aurora_page::planted::{self, Fault};
use aurora_page::{Lsn, VolumeId};
use aurora_redo::{History, Mtr, PgBatch, PgId, Prev, Record};

use crate::answer::Ack;
use crate::group::Pg;
use crate::manifest::Manifest;
use crate::membership::Membership;
use crate::points::{Points, allocation_limit};
use crate::quorum::{NodeId, NodeSet};
use crate::volume::{Numbered, Refused};

/// A protection group as a writer finds it.
#[derive(Clone, Debug)]
pub struct PgStart {
    /// Its members.
    pub members: Membership,
    /// Its last record at or below the VDL.
    pub tail: Lsn,
}

/// What a writer starts from: the outcome of a recovery, or of creating the volume.
#[derive(Clone, Debug)]
pub struct WriterStart {
    /// The origin of its records.
    pub origin: VolumeId,
    /// Its epoch.
    pub epoch: u64,
    /// The first LSN to give out: that of the History's last interval.
    pub first_lsn: Lsn,
    /// Everything up to here is durable.
    pub vdl: Lsn,
    /// The LAL window.
    pub window: u64,
    /// Pages of a segment.
    pub segment_pages: u64,
    /// The protection groups by number.
    pub pgs: Vec<PgStart>,
    /// Bytes of records that may be above the VDL at once. A single MTR is taken whatever its size.
    pub bytes_in_flight_max: u64,
}

impl WriterStart {
    /// The start of the writer of a volume that was just created: nothing has been written.
    pub fn of_new(manifest: &Manifest, bytes_in_flight_max: u64) -> WriterStart {
        let tails = vec![Lsn::NONE; manifest.pgs.len()];
        WriterStart::of(
            manifest,
            &manifest.history,
            Lsn::NONE,
            &tails,
            bytes_in_flight_max,
        )
    }

    /// The start of the writer of a branch of a volume that is open: everything up to `vdl` is durable, and no group has anything
    /// above its tail.
    pub fn of_branch(
        manifest: &Manifest,
        vdl: Lsn,
        tails: &[Lsn],
        bytes_in_flight_max: u64,
    ) -> WriterStart {
        WriterStart::of(manifest, &manifest.history, vdl, tails, bytes_in_flight_max)
    }

    /// The start of the writer of an open manifest, when a recovery found this VDL and these last records.
    pub(crate) fn of(
        m: &Manifest,
        history: &History,
        vdl: Lsn,
        tails: &[Lsn],
        bytes: u64,
    ) -> WriterStart {
        let pgs = m.pgs.iter().zip(tails);
        WriterStart {
            origin: m.origin,
            epoch: m.epoch,
            first_lsn: history.first_new_lsn(),
            vdl,
            window: m.window,
            segment_pages: m.segment_pages,
            pgs: pgs
                .map(|(members, &tail)| PgStart {
                    members: members.clone(),
                    tail,
                })
                .collect(),
            bytes_in_flight_max: bytes,
        }
    }
}

/// Consecutive records of one group and one MTR, not yet known to be complete.
#[derive(Clone, Copy, Debug)]
struct Run {
    last: Lsn,
    pg: u32,
    /// Bytes of the whole MTR if its CPL ends this run.
    cpl_bytes: Option<u32>,
}

/// The writer of one volume at one epoch.
#[derive(Debug)]
pub struct Writer {
    origin: VolumeId,
    epoch: u64,
    first: Lsn,
    window: u64,
    segment_pages: u64,
    bytes_max: u64,
    next: Lsn,
    numbered: Lsn,
    vcl: Lsn,
    vdl: Lsn,
    bytes_in_flight: u64,
    runs: VecDeque<Run>,
    pgs: Vec<Pg>,
    dirty: VecDeque<u32>,
    fenced_by: Option<u64>,
    lost: NodeSet,
}

impl Writer {
    /// A writer that has given out nothing yet.
    pub fn new(start: WriterStart) -> Writer {
        let writer = Writer {
            origin: start.origin,
            epoch: start.epoch,
            first: start.first_lsn,
            window: start.window,
            segment_pages: start.segment_pages.max(1),
            bytes_max: start.bytes_in_flight_max,
            next: start.first_lsn,
            numbered: start.vdl,
            vcl: start.vdl,
            vdl: start.vdl,
            bytes_in_flight: 0,
            runs: VecDeque::new(),
            pgs: start
                .pgs
                .into_iter()
                .map(|pg| Pg::new(pg.members, pg.tail))
                .collect(),
            dirty: VecDeque::new(),
            fenced_by: None,
            lost: NodeSet::EMPTY,
        };
        writer.points().check();
        writer
    }

    /// Numbers an MTR and takes its records; a refusal changes nothing. An empty MTR gets no LSN: `base` and `last` are
    /// then what was numbered before.
    pub fn append(&mut self, mtr: Mtr) -> Result<Numbered, Refused> {
        let count = mtr.records.len() as u64;
        if count == 0 {
            return Ok(Numbered {
                base: self.numbered,
                last: self.numbered,
            });
        }
        let bytes = self.admit(&mtr)?;
        let base = self.next;
        let last = base.offset(count - 1);
        let mut lsn = base;
        for record in mtr.records {
            let number = (record.page.0 / self.segment_pages) as u32;
            let pg = &mut self.pgs[number as usize];
            if pg.pending.is_empty() {
                self.dirty.push_back(number);
            }
            let prev_page = match record.prev {
                Prev::Lsn(prev) => prev,
                Prev::InMtr(index) => base.offset(u64::from(index)),
            };
            let cpl = (lsn == last).then_some(mtr.time_us);
            pg.pending.push(Record {
                lsn,
                origin: self.origin,
                prev_pg: pg.tail,
                prev_page,
                page: record.page,
                cpl,
                op: record.op,
            });
            pg.tail = lsn;
            let cpl_bytes = cpl.map(|_| bytes);
            match self.runs.back_mut() {
                Some(run) if run.pg == number && run.cpl_bytes.is_none() => {
                    *run = Run {
                        last: lsn,
                        pg: number,
                        cpl_bytes,
                    }
                }
                _ => self.runs.push_back(Run {
                    last: lsn,
                    pg: number,
                    cpl_bytes,
                }),
            }
            lsn = lsn.next();
        }
        self.next = lsn;
        self.numbered = last;
        self.bytes_in_flight += u64::from(bytes);
        Ok(Numbered { base, last })
    }

    /// Everything that can refuse an MTR, before anything changes. Gives its bytes.
    fn admit(&self, mtr: &Mtr) -> Result<u32, Refused> {
        if let Some(by) = self.fenced_by {
            return Err(Refused::Fenced {
                epoch: self.epoch,
                by,
            });
        }
        let (mut bytes, mut blocked) = (0usize, false);
        for record in &mtr.records {
            let pg = record.page.0 / self.segment_pages;
            let pg = usize::try_from(pg)
                .ok()
                .and_then(|pg| self.pgs.get(pg))
                .ok_or(Refused::NeedSegment)?;
            bytes += size_of::<Record>() + record.op.len();
            blocked |= pg.blocked;
        }
        if blocked {
            return Err(Refused::QuorumLost {
                missing: self.missing(),
            });
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let full =
            self.bytes_in_flight > 0 && self.bytes_in_flight + u64::from(bytes) > self.bytes_max;
        let lal = self.lal();
        if planted::is(Fault::LalIgnored) {
            return Ok(bytes);
        }
        if full || self.next.offset(mtr.records.len() as u64 - 1) > lal {
            return Err(Refused::BackPressure { vdl: self.vdl, lal });
        }
        Ok(bytes)
    }

    /// The next batch to send to every member of its group: everything that is pending for it. No timer waits for
    /// more: while one batch is on its way, the next one fills.
    pub fn poll_send(&mut self) -> Option<Arc<PgBatch>> {
        let number = self.dirty.pop_front()?;
        let pg = &mut self.pgs[number as usize];
        let records = std::mem::take(&mut pg.pending);
        let batch = Arc::new(PgBatch {
            pg: PgId(number),
            epoch: self.epoch,
            vdl: self.vdl,
            records,
        });
        pg.sent.push_back(Arc::clone(&batch));
        Some(batch)
    }

    /// What a member that is complete up to `scl` may have missed of what was sent and is not yet at the PGCL. What
    /// lies below, it gets from its peers.
    pub fn resend(&self, pg: PgId, scl: Lsn) -> Vec<Arc<PgBatch>> {
        let sent = self.pgs.get(pg.0 as usize).map(|pg| &pg.sent);
        sent.into_iter()
            .flatten()
            .filter(|batch| batch.last_lsn() > scl)
            .cloned()
            .collect()
    }

    /// A member's answer. Gives the new VDL if it has moved. Answers of other epochs count nothing [12].
    pub fn on_ack(&mut self, from: NodeId, ack: &Ack) -> Option<Lsn> {
        if ack.epoch != self.epoch || ack.node != from || self.fenced_by.is_some() {
            if ack.epoch > self.epoch {
                self.on_fenced(ack.epoch);
            }
            return None;
        }
        let pg = self.pgs.get_mut(ack.pg.0 as usize)?;
        let scl = ack.scl.min(pg.tail);
        let slot = pg.scls.iter_mut().find(|(node, _)| *node == from)?;
        if scl <= slot.1 {
            return None;
        }
        let before = std::mem::replace(&mut slot.1, scl);
        // Only a member that passes the PGCL can move it: it is the least of some k-th highest.
        if before > pg.pgcl || scl <= pg.pgcl {
            return None;
        }
        self.raise_pgcl(ack.pg.0)
    }

    fn raise_pgcl(&mut self, number: u32) -> Option<Lsn> {
        let pg = &mut self.pgs[number as usize];
        let reached = pg.reached();
        if reached <= pg.pgcl {
            return None;
        }
        pg.pgcl = reached;
        while pg
            .sent
            .front()
            .is_some_and(|batch| batch.last_lsn() <= reached)
        {
            pg.sent.pop_front();
        }
        self.advance()
    }

    /// Moves the VCL over every run whose group has met its quorum, and the VDL to the last CPL passed.
    fn advance(&mut self) -> Option<Lsn> {
        let vdl = self.vdl;
        while let Some(run) = self.runs.front().copied() {
            let pgcl = self.pgs[run.pg as usize].pgcl;
            if pgcl < run.last {
                // Complete within the run, which is dense: from the VCL up to the PGCL.
                let first_open = self.vcl.next().max(self.first);
                if pgcl >= first_open {
                    self.vcl = pgcl;
                }
                break;
            }
            self.vcl = run.last;
            if let Some(bytes) = run.cpl_bytes {
                self.vdl = run.last;
                self.bytes_in_flight -= u64::from(bytes);
            }
            self.runs.pop_front();
        }
        self.points().check();
        (self.vdl > vdl).then_some(self.vdl)
    }

    /// Another epoch was seen: this writer is finished.
    pub fn on_fenced(&mut self, by: u64) {
        if by > self.epoch {
            self.fenced_by = Some(self.fenced_by.map_or(by, |known| known.max(by)));
        }
    }

    /// Which nodes are known to be gone. While a group cannot meet its quorum without them, its records are refused.
    pub fn set_lost(&mut self, lost: NodeSet) {
        self.lost = lost;
        for pg in &mut self.pgs {
            pg.blocked = pg.members.write_quorum().blocked(lost);
        }
    }

    /// From now on nothing counts that these members have acknowledged: their copies are lost, and empty ones are to come in their
    /// places. False, and nothing has changed, while the write quorum of the others does not have everything that is durable: a
    /// recovery that hears the empty ones would not find it.
    pub fn forget(&mut self, nodes: NodeSet) -> bool {
        let has_all = |pg: &Pg| pg.reached_without(nodes) >= pg.pgcl;
        if !self.pgs.iter().all(has_all) {
            return false;
        }
        for pg in &mut self.pgs {
            let slots = pg.scls.iter_mut();
            slots
                .filter(|(node, _)| nodes.contains(*node))
                .for_each(|(_, scl)| *scl = Lsn::NONE);
        }
        true
    }

    fn missing(&self) -> NodeSet {
        let blocked = self.pgs.iter().filter(|pg| pg.blocked);
        blocked.fold(NodeSet::EMPTY, |set, pg| {
            set.union(pg.members.nodes().intersection(self.lost))
        })
    }

    /// The volume has grown by a group.
    pub fn add_pg(&mut self, members: Membership) -> PgId {
        let mut pg = Pg::new(members, Lsn::NONE);
        pg.blocked = pg.members.write_quorum().blocked(self.lost);
        self.pgs.push(pg);
        PgId((self.pgs.len() - 1) as u32)
    }

    /// Goes over to other members; when, against the manifest's CAS, says `membership.rs`. What is durable stays so.
    pub fn set_membership(&mut self, pg: PgId, members: Membership) -> Option<Lsn> {
        let lost = self.lost;
        let group = self.pgs.get_mut(pg.0 as usize)?;
        group.set_members(members);
        group.blocked = group.members.write_quorum().blocked(lost);
        self.raise_pgcl(pg.0)
    }

    /// Has the write quorum of the present members everything that counts as complete? A joint membership may be
    /// written to the manifest once it has, and not before: only then does each of its read quorums find everything.
    pub fn settled(&self, pg: PgId) -> bool {
        self.pgs
            .get(pg.0 as usize)
            .is_some_and(|pg| pg.reached() >= pg.pgcl)
    }

    /// The members of a group that can serve a read at `at` from what they are known to have: everything of the group
    /// up to the VDL lies at or below its PGCL, so an idle group is always readable.
    pub fn readable(&self, pg: PgId, at: Lsn) -> NodeSet {
        let Some(pg) = self.pgs.get(pg.0 as usize) else {
            return NodeSet::EMPTY;
        };
        let needed = pg.pgcl.min(at);
        pg.scls
            .iter()
            .filter(|(_, scl)| *scl >= needed)
            .map(|(node, _)| *node)
            .collect()
    }

    /// The order relation of what this writer knows.
    pub fn points(&self) -> Points {
        Points {
            vdl: self.vdl,
            vcl: self.vcl,
            allocated: self.numbered,
            lal: self.lal(),
        }
    }

    /// The origin of its records.
    pub fn origin(&self) -> VolumeId {
        self.origin
    }

    /// Its epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Volume durable LSN.
    pub fn vdl(&self) -> Lsn {
        self.vdl
    }

    /// Volume complete LSN.
    pub fn vcl(&self) -> Lsn {
        self.vcl
    }

    /// The newest LSN that was given out.
    pub fn numbered(&self) -> Lsn {
        self.numbered
    }

    /// LSN allocation limit.
    pub fn lal(&self) -> Lsn {
        allocation_limit(self.vdl, self.first, self.window)
    }

    /// How far a group has met its write quorum.
    pub fn pgcl(&self, pg: PgId) -> Lsn {
        self.pgs.get(pg.0 as usize).map_or(Lsn::NONE, |pg| pg.pgcl)
    }

    /// The newest record of a group.
    pub fn tail(&self, pg: PgId) -> Lsn {
        self.pgs.get(pg.0 as usize).map_or(Lsn::NONE, |pg| pg.tail)
    }

    /// The members of a group.
    pub fn membership(&self, pg: PgId) -> Option<&Membership> {
        self.pgs.get(pg.0 as usize).map(|pg| &pg.members)
    }

    /// How many groups there are.
    pub fn pgs(&self) -> usize {
        self.pgs.len()
    }

    /// Bytes of records above the VDL.
    pub fn bytes_in_flight(&self) -> u64 {
        self.bytes_in_flight
    }

    /// Is there anything to send?
    pub fn has_pending(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The epoch that ended this writer, if one has.
    pub fn fenced_by(&self) -> Option<u64> {
        self.fenced_by
    }
}
