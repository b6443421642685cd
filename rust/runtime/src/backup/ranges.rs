//! The log in a backup: ranges that are uploaded, merged, and mended where the store has lost them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aurora_control::backup as decide;
use aurora_page::Lsn;
use aurora_redo::{BlobId, History, PgId};
use aurora_store::LogRange;

use super::base::BaseJob;
use super::format::{BackupManifest, LogEntry};
use super::objects::{Failed, at, read_object};
use super::pack::pack;
use super::place::PlaceFault;
use super::uploader::{Moment, Uploader};
use crate::Error;
use crate::create::random_u64;
use crate::node::Node;

/// Records of one range in memory, at most.
const RANGE_BYTES: u64 = 64 << 20;

impl Uploader<'_> {
    /// Uploads what has come since the last range; false when there is more.
    pub(super) fn take_log(
        &self,
        moment: &Moment,
        next: &mut BackupManifest,
    ) -> Result<bool, Failed> {
        let Some(from) = self.log_from(moment, next) else {
            return Ok(true);
        };
        let upto = upto(moment);
        if upto <= from {
            return Ok(true);
        }
        let Some(node) = self.source(moment, from) else {
            return Err(Failed::Cluster(self.shared.volume.quorum_lost()));
        };
        let histories: Vec<History> = moment.manifest.histories().cloned().collect();
        let (records, to) = node.store.records_in(from, upto, &histories, RANGE_BYTES)?;
        if records.is_empty() {
            return Ok(true);
        }
        let range = LogRange::of(records)?;
        self.put_range(next, &node, (from, to), &range, 0)?;
        Ok(to >= upto)
    }

    /// Where the next range begins. None as long as no base is there, or on its way, that it could go on from.
    pub(super) fn log_from(&self, moment: &Moment, next: &BackupManifest) -> Option<Lsn> {
        let floor = moment.manifest.collection_floor;
        let last = next.log.iter().map(|log| Lsn(log.to)).max();
        let bases = next.bases.iter().map(|base| Lsn(base.lsn));
        let bases = bases.chain(self.base.iter().map(BaseJob::lsn));
        match last {
            Some(last) if last >= floor => Some(last),
            // What came after the last range is collected in part: it goes on after a newer base.
            _ => bases.filter(|lsn| *lsn >= floor).min(),
        }
    }

    /// A node that has everything up to the VDL, and of what backtracks have left above `from`.
    pub(super) fn source(&self, moment: &Moment, from: Lsn) -> Option<Arc<Node>> {
        let shared = self.shared;
        let has_all = |node: &Arc<Node>| {
            let tail = |pg| shared.volume.tail(pg).min(moment.vdl);
            let pgs = (0..moment.manifest.pgs.len() as u32).map(PgId);
            let complete = pgs.into_iter().all(|pg| shared.scl(node, pg) >= tail(pg));
            complete && node.acknowledges() && !shared.maintenance.repairs(node.id())
        };
        let knows = |node: &Arc<Node>| {
            let left = moment
                .manifest
                .abandoned
                .iter()
                .filter(|past| end_of(&past.history) > from);
            let known = (node.id(), node.info.incarnation);
            left.into_iter().all(|past| past.complete.contains(&known))
        };
        let mut living = shared.living();
        living.retain(|node| has_all(node));
        // Where nobody knows all of what was left, that is lost with its nodes; the present is not.
        let best = living.iter().find(|node| knows(node));
        best.or(living.first()).cloned()
    }

    /// Uploads a range and the blobs that it refers to.
    fn put_range(
        &self,
        next: &mut BackupManifest,
        node: &Node,
        (from, to): (Lsn, Lsn),
        range: &LogRange,
        level: u8,
    ) -> Result<(), Failed> {
        let blobs = self.put_blobs(next, node, &range.blobs)?;
        let name = format!("log/{:020}-{:020}-{:016x}", from.0, to.0, random_u64()?);
        self.put(next, &name, &range.bytes)?;
        next.log.push(LogEntry {
            object: name,
            from: from.0,
            to: to.0,
            first_us: range.commits.first().map_or(0, |commit| commit.time_us),
            last_us: range.commits.last().map_or(0, |commit| commit.time_us),
            records: range.records,
            commits: range.commits.len() as u64,
            level,
            blobs,
        });
        next.log.sort_by_key(|log| (log.from, log.to));
        Ok(())
    }

    fn put_blobs(
        &self,
        next: &mut BackupManifest,
        node: &Node,
        blobs: &BTreeSet<BlobId>,
    ) -> Result<Vec<String>, Failed> {
        let mut names = Vec::with_capacity(blobs.len());
        for blob in blobs {
            let name = format!("blob/{:032x}", blob.0);
            if !next.objects.contains_key(&name) {
                let file = node.store.sealed_blob(*blob)?;
                let mut raw = vec![0; file.bytes as usize];
                file.file
                    .read_exact_at(&mut raw, 0)
                    .map_err(|source| Error::io(&node.dir, source))?;
                self.put(next, &name, &raw)?;
            }
            names.push(name);
        }
        Ok(names)
    }

    fn put(&self, next: &mut BackupManifest, name: &str, raw: &[u8]) -> Result<(), Failed> {
        let (object, packed) = pack(name, self.options.key(), raw)?;
        self.count(object.len() as u64);
        let mut object = Some(object);
        self.place
            .put_pieces(name, &mut || Ok(object.take()))
            .map_err(at(name))?;
        next.objects.insert(name.into(), packed.into());
        Ok(())
    }

    pub(super) fn count(&self, bytes: u64) {
        self.shared
            .backups
            .uploaded
            .fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes one range of many small ones. They are read back for it, so that a store that has lost or changed one is found out.
    pub(super) fn merge(&self, moment: &Moment, next: &mut BackupManifest) -> Result<(), Failed> {
        let Some(ranges) = decide::mergeable(&next.range_facts()) else {
            return Ok(());
        };
        let merged: Vec<LogEntry> = next.log[ranges].to_vec();
        let mut files = Vec::with_capacity(merged.len());
        for log in &merged {
            match read_object(
                &*self.place,
                self.options,
                &log.object,
                next.objects.get(&log.object),
            ) {
                Ok(file) => files.push(file),
                Err(failed) => return self.mend(moment, next, log, failed),
            }
        }
        let range = LogRange::merge(&files)?;
        let (Some(first), Some(last)) = (merged.first(), merged.last()) else {
            return Ok(());
        };
        let Some(node) = self.source(moment, Lsn(first.from)) else {
            return Err(Failed::Cluster(self.shared.volume.quorum_lost()));
        };
        next.log
            .retain(|log| !merged.iter().any(|one| one.object == log.object));
        for log in &merged {
            next.objects.remove(&log.object);
        }
        let stretch = (Lsn(first.from), Lsn(last.to));
        self.put_range(next, &node, stretch, &range, first.level + 1)
    }

    /// A range that the store has lost or changed is uploaded once more, if its records are still all there.
    fn mend(
        &self,
        moment: &Moment,
        next: &mut BackupManifest,
        log: &LogEntry,
        failed: Failed,
    ) -> Result<(), Failed> {
        let gone = matches!(&failed, Failed::Damaged { .. })
            || matches!(&failed, Failed::Place { error, .. } if error.what == PlaceFault::NotFound);
        let (from, to) = (Lsn(log.from), Lsn(log.to));
        if !gone {
            return Err(failed);
        }
        if moment.manifest.collection_floor > from {
            // Its records are collected in part: what it was needed for cannot be restored. Only a base goes on from here.
            let events = &self.shared.instances.events;
            events.note(
                "backup damaged",
                &log.object,
                Some(failed.to_string()),
                None,
            );
            next.log.retain(|other| other.object != log.object);
            next.objects.remove(&log.object);
            let wanted = &self.shared.backups.base_wanted;
            wanted.store(true, Ordering::Release);
            return Ok(());
        }
        let Some(node) = self.source(moment, from) else {
            return Err(failed);
        };
        let histories: Vec<History> = moment.manifest.histories().cloned().collect();
        let (records, complete) = node.store.records_in(from, to, &histories, u64::MAX)?;
        if complete < to {
            return Err(failed);
        }
        let events = &self.shared.instances.events;
        events.note("backup mended", &log.object, Some(failed.to_string()), None);
        next.log.retain(|other| other.object != log.object);
        next.objects.remove(&log.object);
        let range = LogRange::of(records)?;
        self.put_range(next, &node, (from, to), &range, log.level)
    }
}

/// The end of a History that is closed; of one that is open, where it began.
fn end_of(history: &History) -> Lsn {
    let last = history.intervals().last();
    last.map_or(
        Lsn::NONE,
        |i| if i.is_open() { i.first.prev() } else { i.last },
    )
}

/// Up to where there is anything to upload: the VDL, or what a backtrack has left above it.
fn upto(moment: &Moment) -> Lsn {
    let left = moment
        .manifest
        .abandoned
        .iter()
        .map(|past| end_of(&past.history));
    left.fold(moment.vdl, Lsn::max)
}
