//! Giving a copy what it lacks: records from a peer, or everything a peer has of the group's pages.

use std::ops::RangeInclusive;
use std::sync::Arc;

use aurora_page::{Lsn, PageId};
use aurora_proto::{Accepted, Ack, Job, Refuse};
use aurora_redo::{BlobId, Op, PgBatch, PgId, Record};
use aurora_store::{LogEntry, Ticket};

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
        let mut entries = Vec::new();
        if job.pages || job.after.is_none() {
            self.copy_pages(job.pg)?;
        } else {
            self.copy_records(job, &mut entries)?;
        }
        let number = self.to.with_copies(|copies| copies.get_mut(job.pg.0 as usize).map(|c| c.hydrating(job.after, job.upto)));
        let number = number.ok_or_else(|| unexpected(format!("no copy of {} at {}", job.pg, self.to.id())))?;
        entries.push(self.marker(job.pg, number));
        self.persist(&entries)?.ok_or_else(|| unexpected(format!("no acknowledgement of {} from {}", job.pg, self.to.id())))
    }

    /// An entry without records: what it stands for is in layers already.
    fn marker(&self, pg: PgId, number: u64) -> LogEntry {
        let batch = PgBatch { pg, epoch: self.epoch, vdl: self.vdl, records: Vec::new() };
        LogEntry::batch(Arc::new(batch), [Ticket { node: self.to.id(), pg, number }])
    }

    fn persist(&self, entries: &[LogEntry]) -> Result<Option<Ack>, Error> {
        let _io = self.device.io.lock();
        let appended = self.device.log.append(entries)?;
        Ok(appended.tokens.into_iter().filter_map(|token| self.to.persisted(token)).last())
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

    fn copy_records(&self, job: &Job, entries: &mut Vec<LogEntry>) -> Result<(), Error> {
        let mut after = job.after;
        loop {
            let records = self.from.store.records(job.pg, after, job.upto, CHUNK_BYTES)?;
            let Some(last) = records.last().map(|record| record.lsn) else { return Ok(()) };
            referenced(&records).try_for_each(|blob| self.copy_blob(blob))?;
            let batch = Arc::new(PgBatch { pg: job.pg, epoch: self.epoch, vdl: self.vdl, records });
            let accepted = self.offer(&batch)?;
            if !accepted.is_duplicate() {
                self.to.ingest(&batch, &accepted.fresh);
                let ticket = Ticket { node: self.to.id(), pg: job.pg, number: accepted.ticket };
                entries.push(LogEntry::batch(batch, [ticket]));
            }
            after = last;
        }
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
