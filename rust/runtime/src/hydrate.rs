//! Giving a copy what it lacks: records from a peer, or everything a peer has of the group's pages.

use std::ops::RangeInclusive;
use std::sync::Arc;

use aurora_page::{Lsn, PageId};
use aurora_proto::{Accepted, Ack, Job, Refuse};
use aurora_redo::{BlobId, Op, PgBatch, PgId, Record};
use aurora_store::{LogEntry, Ticket};
use parking_lot::MutexGuard;

use crate::Error;
use crate::device::Device;
use crate::node::Node;

/// Bytes of records or pages moved at a time.
const CHUNK_BYTES: u64 = 8 << 20;

/// What a hydration needs to know besides its job.
#[derive(Clone, Copy)]
pub(crate) struct Hydration<'a> {
    pub(crate) from: &'a Node,
    pub(crate) to: &'a Node,
    /// The log device of the receiving node.
    pub(crate) device: &'a Device,
    pub(crate) epoch: u64,
    pub(crate) vdl: Lsn,
    pub(crate) segment_pages: u64,
    /// Under a recovery's fence, before the epoch is installed.
    pub(crate) fenced: bool,
}

impl Hydration<'_> {
    /// Does one job; the acknowledgement of the receiving copy when all of it is on disk.
    ///
    /// # Errors
    /// What a store or the log answered: another source may do, and repeating a job is harmless.
    pub(crate) fn run(&self, job: &Job) -> Result<Ack, Error> {
        let pages = job.pages || job.after.is_none();
        if pages {
            self.copy_pages(job.pg)?;
        } else {
            self.copy_records(job)?;
        }
        let ack = self.complete(job)?;
        if pages {
            self.keep_states()?;
        }
        // A node whose directory is gone is a lost copy, whatever was written.
        if !self.to.is_alive() {
            return Err(unexpected(format!("{} is gone", self.to.id())));
        }
        Ok(ack)
    }

    /// Says in the log that the stretch of the job is here: an entry without records, for they are in the log or in layers already.
    fn complete(&self, job: &Job) -> Result<Ack, Error> {
        let pg = job.pg;
        let _io = self.io()?;
        let number = self.to.with_copies(|copies| copies.get_mut(pg.0 as usize).map(|c| c.hydrating(job.after, job.upto)));
        let number = number.ok_or_else(|| unexpected(format!("no copy of {pg} at {}", self.to.id())))?;
        let ack = self.append(self.batch(pg, Vec::new()), number)?;
        ack.ok_or_else(|| unexpected(format!("no acknowledgement of {pg} from {}", self.to.id())))
    }

    /// Under a fence, the VDL is a plan and not yet true. In the log of a recovery that crashes it would be believed by the next
    /// one, which may find fewer records [11].
    fn batch(&self, pg: PgId, records: Vec<Record>) -> Arc<PgBatch> {
        let vdl = if self.fenced { Lsn::NONE } else { self.vdl };
        Arc::new(PgBatch { pg, epoch: self.epoch, vdl, records })
    }

    /// The right to write to the device. What it had no room for goes before anything else: a copy that waits for it must not be
    /// told that it has everything.
    fn io(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let io = self.device.io_unless_stalled()?;
        if self.device.has_held() {
            return Err(Error::DiskFull { path: self.to.dir.clone() });
        }
        Ok(io)
    }

    /// Writes a batch under a ticket of the copy. Where that fails, the copy forgets the ticket. The caller holds the device.
    fn append(&self, batch: Arc<PgBatch>, number: u64) -> Result<Option<Ack>, Error> {
        let pg = batch.pg;
        let entry = LogEntry::batch(batch, [Ticket { node: self.to.id(), pg, number }]);
        match self.device.append(&[entry]) {
            Ok(appended) => Ok(appended.tokens.into_iter().filter_map(|token| self.to.persisted(token)).last()),
            Err(error) => {
                self.to.with_copies(|copies| copies.get_mut(pg.0 as usize).map(|copy| copy.withdraw(number)));
                Err(error.into())
            }
        }
    }

    /// How far a copy is complete that was made from pages, no record in its log tells: it is written down before it counts.
    fn keep_states(&self) -> Result<(), Error> {
        let states: Vec<_> = {
            let _io = self.device.io_unless_stalled()?;
            self.to.with_copies(|copies| copies.iter().map(|copy| copy.state().clone()).collect())
        };
        self.to.store.flush(&states)?;
        Ok(())
    }

    fn copy_pages(&self, pg: PgId) -> Result<(), Error> {
        let first = u64::from(pg.0) * self.segment_pages;
        let last = PageId(first + self.segment_pages - 1);
        let mut next = Some(PageId(first));
        while let Some(page) = next {
            let range: RangeInclusive<PageId> = page..=last;
            let export = self.from.store.export(range, CHUNK_BYTES)?;
            export.blobs.iter().try_for_each(|&blob| self.copy_blob(blob))?;
            self.to.store.import(&export)?;
            next = export.next;
        }
        Ok(())
    }

    fn copy_records(&self, job: &Job) -> Result<(), Error> {
        let history = self.to.with_copies(|copies| copies.get(job.pg.0 as usize).map(|copy| copy.state().history.clone()));
        let history = history.ok_or_else(|| unexpected(format!("no copy of {} at {}", job.pg, self.to.id())))?;
        let mut after = job.after;
        loop {
            let mut records = self.from.store.records(job.pg, after, job.upto, CHUNK_BYTES)?;
            let Some(last) = records.last().map(|record| record.lsn) else { return Ok(()) };
            // A record that was cut off may still be kept, and must not come back.
            records.retain(|record| history.contains(record.origin, record.lsn));
            referenced(&records).try_for_each(|blob| self.copy_blob(blob))?;
            if !records.is_empty() {
                self.take(self.batch(job.pg, records))?;
            }
            after = last;
        }
    }

    /// Has the copy take a batch: offered, written, ingested, acknowledged, as from the writer.
    fn take(&self, batch: Arc<PgBatch>) -> Result<(), Error> {
        let _io = self.io()?;
        let accepted = self.offer(&batch)?;
        if !accepted.is_duplicate() {
            self.to.ingest(&batch, &accepted.fresh);
            self.append(batch, accepted.ticket)?;
        }
        Ok(())
    }

    fn offer(&self, batch: &PgBatch) -> Result<Accepted, Error> {
        let refused = |refuse: Refuse| unexpected(format!("{} refused {}: {refuse}", self.to.id(), batch.pg));
        if !self.fenced {
            return self.to.receive(batch).map_err(refused);
        }
        let accepted = self.to.with_copies(|copies| copies.get_mut(batch.pg.0 as usize).map(|c| c.receive_fenced(batch)));
        accepted.unwrap_or(Err(Refuse::WrongPg { expected: batch.pg, got: batch.pg })).map_err(refused)
    }

    /// No SCL passes a reference without its blob.
    fn copy_blob(&self, blob: BlobId) -> Result<(), Error> {
        if !self.to.store.has_blob(blob) {
            self.to.store.put_blob(blob, self.epoch, &self.from.store.blob_pages(blob)?)?;
        }
        Ok(())
    }
}

/// The blobs that records refer to.
pub(crate) fn referenced(records: &[Record]) -> impl Iterator<Item = BlobId> + '_ {
    records.iter().filter_map(|record| match Op::parse(&record.op) {
        Ok(Op::Reference { blob, .. }) => Some(blob),
        _ => None,
    })
}

fn unexpected(detail: String) -> Error {
    Error::Corrupt { detail }
}
