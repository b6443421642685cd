//! Giving a copy what it lacks: records from a peer, or everything a peer has of the group's pages.

use std::ops::RangeInclusive;
use std::sync::Arc;

use aurora_page::{Lsn, PageId, canonical};
use aurora_proto::{Accepted, Ack, Job, Refuse};
use aurora_redo::{BlobId, History, Op, PgBatch, PgId, Record};
use aurora_store::{Export, LogEntry, StoreError, Ticket};
use parking_lot::MutexGuard;

use crate::Error;
use crate::device::Device;
use crate::node::Node;

/// Bytes of records or pages moved at a time.
const CHUNK_BYTES: u64 = 8 << 20;
/// Pages of a chunk that are compared with a peer's: all of them, unless they are nearly empty.
const COMPARED_MAX: usize = 4096;

/// How far a hydration is.
#[derive(Clone, Copy)]
pub(crate) struct Progress {
    next: Next,
    /// Bytes moved.
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy)]
enum Next {
    Page(PageId),
    After(Lsn),
    /// All of it is there, and nobody has been told.
    Complete,
}

/// What a hydration needs to know besides its job.
#[derive(Clone, Copy)]
pub(crate) struct Hydration<'a> {
    pub(crate) from: &'a Node,
    pub(crate) to: &'a Node,
    /// The log device of the receiving node.
    pub(crate) device: &'a Device,
    pub(crate) epoch: u64,
    pub(crate) vdl: Lsn,
    /// Whom to compare with.
    pub(crate) nodes: &'a [Arc<Node>],
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
        let mut progress = self.begin(job);
        loop {
            if let Some(ack) = self.step(job, &mut progress)? {
                return Ok(ack);
            }
        }
    }

    /// Where a job begins.
    pub(crate) fn begin(&self, job: &Job) -> Progress {
        let next = match by_pages(job) {
            true => Next::Page(PageId(u64::from(job.pg.0) * self.segment_pages)),
            false => Next::After(job.after),
        };
        Progress { next, bytes: 0 }
    }

    /// Moves one chunk; the acknowledgement after the last. Between two steps anything may happen at both nodes.
    ///
    /// # Errors
    /// As of [`Hydration::run`].
    pub(crate) fn step(&self, job: &Job, progress: &mut Progress) -> Result<Option<Ack>, Error> {
        let (next, bytes) = match progress.next {
            Next::Page(page) => self.copy_pages(job.pg, page)?,
            Next::After(after) => self.copy_records(job, after)?,
            Next::Complete => return self.end(job).map(Some),
        };
        *progress = Progress {
            next,
            bytes: progress.bytes + bytes,
        };
        Ok(None)
    }

    fn end(&self, job: &Job) -> Result<Ack, Error> {
        let ack = self.complete(job)?;
        if by_pages(job) {
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
        let number = self.to.with_copies(|copies| {
            copies
                .get_mut(pg.0 as usize)
                .map(|c| c.hydrating(job.after, job.upto))
        });
        let number =
            number.ok_or_else(|| unexpected(format!("no copy of {pg} at {}", self.to.id())))?;
        let ack = self.append(self.batch(pg, Vec::new()), number)?;
        ack.ok_or_else(|| unexpected(format!("no acknowledgement of {pg} from {}", self.to.id())))
    }

    /// Under a fence, the VDL is a plan and not yet true. In the log of a recovery that crashes it would be believed by the next
    /// one, which may find fewer records [11].
    fn batch(&self, pg: PgId, records: Vec<Record>) -> Arc<PgBatch> {
        let vdl = if self.fenced { Lsn::NONE } else { self.vdl };
        Arc::new(PgBatch {
            pg,
            epoch: self.epoch,
            vdl,
            records,
        })
    }

    /// The right to write to the device. What it had no room for goes before anything else: a copy that waits for it must not be
    /// told that it has everything.
    fn io(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let io = self.device.io_unless_stalled()?;
        if self.device.has_held() {
            return Err(Error::DiskFull {
                path: self.to.dir.clone(),
            });
        }
        Ok(io)
    }

    /// Writes a batch under a ticket of the copy. Where that fails, the copy forgets the ticket. The caller holds the device.
    fn append(&self, batch: Arc<PgBatch>, number: u64) -> Result<Option<Ack>, Error> {
        let pg = batch.pg;
        let entry = LogEntry::batch(
            batch,
            [Ticket {
                node: self.to.id(),
                pg,
                number,
            }],
        );
        match self.device.append(&[entry]) {
            Ok(appended) => Ok(appended
                .tokens
                .into_iter()
                .filter_map(|token| self.to.persisted(token))
                .last()),
            Err(error) => {
                self.to.with_copies(|copies| {
                    copies
                        .get_mut(pg.0 as usize)
                        .map(|copy| copy.withdraw(number))
                });
                Err(error.into())
            }
        }
    }

    /// How far a copy is complete that was made from pages, no record in its log tells: it is written down before it counts.
    fn keep_states(&self) -> Result<(), Error> {
        let (states, unsettled) = {
            let _io = self.device.io_unless_stalled()?;
            self.to.states()
        };
        self.to.store.flush_settled(&states, unsettled)?;
        Ok(())
    }

    /// One chunk of a group's pages, from one page on.
    fn copy_pages(&self, pg: PgId, page: PageId) -> Result<(Next, u64), Error> {
        let last = PageId((u64::from(pg.0) + 1) * self.segment_pages - 1);
        let range: RangeInclusive<PageId> = page..=last;
        // Asked before: all of it is in what the peer gives then.
        let at = scl(self.from, pg).min(self.vdl);
        let export = self.from.store.export(range, CHUNK_BYTES)?;
        let blobs = self.copy_blobs(export.blobs.iter().copied())?;
        let bytes = self.to.store.import(&export)?;
        if !self.fenced {
            self.compare(pg, &export, at)?;
        }
        Ok((
            export.next.map_or(Next::Complete, Next::Page),
            blobs + bytes,
        ))
    }

    /// What has come is read back, from disk and with its checksums, and compared with what a peer makes of the same pages at the same
    /// LSN: another peer than the one that it came from, if there is one.
    fn compare(&self, pg: PgId, export: &Export, at: Lsn) -> Result<(), Error> {
        let complete =
            |node: &&Arc<Node>| node.id() != self.to.id() && !node.is_lost() && scl(node, pg) >= at;
        let mut peers = self.nodes.iter().filter(complete);
        let other = peers.find(|node| node.id() != self.from.id());
        let peer = other.map_or(self.from, |node| &**node);
        let history = self.history(pg)?;
        // Pages with hardly anything on them are many to a chunk: some of those, evenly.
        let every = export.chains.len().div_ceil(COMPARED_MAX).max(1);
        for chain in export.chains.iter().step_by(every) {
            let page = chain.page;
            let ours = self.to.store.materialise(page, at, &history);
            let theirs = peer.store.materialise(page, at, &history);
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) if canonical(&ours) != canonical(&theirs) => {
                    return Err(unexpected(format!(
                        "page {page} at {at} is another one at {} than at {}: it came from {}",
                        self.to.id(),
                        peer.id(),
                        self.from.id()
                    )));
                }
                // Collected since, or not there at that LSN, or damaged at the peer, which then is mended.
                (Ok(_), _) | (_, Err(_)) | (Err(StoreError::BelowFloor { .. }), _) => {}
                (Err(error), Ok(_)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The History of the copy that is filled.
    fn history(&self, pg: PgId) -> Result<Arc<History>, Error> {
        let history = self.to.with_copies(|copies| {
            copies
                .get(pg.0 as usize)
                .map(|copy| copy.state().history.clone())
        });
        history.ok_or_else(|| unexpected(format!("no copy of {pg} at {}", self.to.id())))
    }

    /// One chunk of the records of a job, above an LSN.
    fn copy_records(&self, job: &Job, after: Lsn) -> Result<(Next, u64), Error> {
        let history = self.history(job.pg)?;
        let mut records = self
            .from
            .store
            .records(job.pg, after, job.upto, CHUNK_BYTES)?;
        let Some(last) = records.last().map(|record| record.lsn) else {
            return Ok((Next::Complete, 0));
        };
        // A record that was cut off may still be kept, and must not come back.
        records.retain(|record| history.contains(record.origin, record.lsn));
        let mut bytes = self.copy_blobs(referenced(&records))?;
        bytes += records
            .iter()
            .map(|record| record.weight() as u64)
            .sum::<u64>();
        if !records.is_empty() {
            self.take(self.batch(job.pg, records))?;
        }
        Ok((Next::After(last), bytes))
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
        let refused =
            |refuse: Refuse| unexpected(format!("{} refused {}: {refuse}", self.to.id(), batch.pg));
        if !self.fenced {
            return self.to.receive(batch).map_err(refused);
        }
        let accepted = self.to.with_copies(|copies| {
            copies
                .get_mut(batch.pg.0 as usize)
                .map(|c| c.receive_fenced(batch))
        });
        accepted
            .unwrap_or(Err(Refuse::WrongPg {
                expected: batch.pg,
                got: batch.pg,
            }))
            .map_err(refused)
    }

    /// No SCL passes a reference without its blob.
    fn copy_blobs(&self, blobs: impl Iterator<Item = BlobId>) -> Result<u64, Error> {
        let mut bytes = 0;
        for blob in blobs {
            if !self.to.store.has_blob(blob) {
                let pages = self.from.store.blob_pages(blob)?;
                bytes += pages.iter().map(|page| page.len() as u64).sum::<u64>();
                self.to.store.put_blob(blob, self.epoch, &pages)?;
            }
        }
        Ok(bytes)
    }
}

fn scl(node: &Node, pg: PgId) -> Lsn {
    node.with_copies(|copies| {
        copies
            .get(pg.0 as usize)
            .map_or(Lsn::NONE, aurora_proto::Copy::scl)
    })
}

/// A copy that has nothing, or lacks what may have been collected, gets pages; any other gets records.
fn by_pages(job: &Job) -> bool {
    job.pages || job.after.is_none()
}

/// The blobs that records refer to, each once where its references follow one another.
pub(crate) fn referenced(records: &[Record]) -> impl Iterator<Item = BlobId> + '_ {
    let mut last = None;
    records
        .iter()
        .filter_map(|record| Op::blob_in(&record.op))
        .filter(move |blob| last.replace(*blob) != Some(*blob))
}

fn unexpected(detail: String) -> Error {
    Error::Corrupt { detail }
}
