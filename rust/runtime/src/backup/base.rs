//! A base: the layers and blobs of one complete node, uploaded beside the log by a thread of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use aurora_control::backup as decide;
use aurora_page::{Lsn, crc32c};
use aurora_redo::BlobId;
use aurora_store::SealedFile;

use super::format::{BackupManifest, BaseEntry, ObjectEntry};
use super::objects::{Failed, at};
use super::pack::{CHUNK_BYTES, Key, Packed, Packer, TAIL_BYTES, Tail};
use super::place::{ObjectPlace, PlaceError, PlaceFault};
use super::uploader::{Moment, Uploader, moment};
use crate::Error;
use crate::clock::wall_us;
use crate::node::Node;

/// Bytes at the end of a layer that tell it from another of its name.
const FOOTER_BYTES: u64 = 512;
/// An upload that keeps its pace looks this often whether it is to end.
const STOP_EVERY: Duration = Duration::from_millis(50);

/// A file and the object that it becomes.
struct Item {
    name: String,
    source: Source,
}

enum Source {
    Layer(SealedFile),
    Blob(BlobId),
}

/// The upload of a base.
pub(super) struct BaseJob {
    entry: BaseEntry,
    thread: JoinHandle<Result<BTreeMap<String, ObjectEntry>, Failed>>,
    stop: Arc<AtomicBool>,
}

impl BaseJob {
    pub(super) fn lsn(&self) -> Lsn {
        Lsn(self.entry.lsn)
    }

    /// Names of what it needs.
    pub(super) fn objects(&self) -> impl Iterator<Item = &String> {
        self.entry.objects.iter().chain(&self.entry.blobs)
    }

    /// Ends it without its having ended: what was uploaded is found by the next one.
    pub(super) fn end(self) {
        self.stop.store(true, Ordering::Release);
        // A thread that panicked has been reported on standard error.
        let _ = self.thread.join();
    }
}

impl Uploader<'_> {
    /// Begins a base when one is due, and takes it into the manifest when it is there.
    pub(super) fn take_base(
        &mut self,
        moment: &Moment,
        next: &mut BackupManifest,
    ) -> Result<(), Failed> {
        if self
            .base
            .as_ref()
            .is_some_and(|base| base.thread.is_finished())
        {
            self.end_base(next)?;
        }
        let backups = &self.shared.backups;
        if self.base.is_none()
            && (self.is_due(moment, next)? || backups.base_wanted.load(Ordering::Acquire))
        {
            self.begin_base()?;
            // In this order: whoever waits for it sees one or the other.
            backups.update(|reached| reached.base_in_progress = true);
            backups.base_wanted.store(false, Ordering::Release);
        }
        Ok(())
    }

    fn is_due(&self, moment: &Moment, next: &BackupManifest) -> Result<bool, Failed> {
        let bases = next.base_facts()?;
        // By number: after a backtrack the last one may have a lower LSN than those before it.
        let last = bases.iter().max_by_key(|base| base.id);
        let after = last.map_or(Lsn::NONE, |base| base.lsn);
        let since = next
            .range_facts()
            .into_iter()
            .filter(|range| range.to > after);
        let log_bytes = since.map(|range| range.bytes).sum();
        let end = next.covered();
        // What came since the last range is collected in part: only a base goes on from here.
        let broken = end < moment.manifest.collection_floor && end < moment.vdl;
        let broken = broken || !self.is_whole(moment, next)?;
        Ok(broken || decide::base_is_due(last, log_bytes, wall_us()))
    }

    fn end_base(&mut self, next: &mut BackupManifest) -> Result<(), Failed> {
        let Some(job) = self.base.take() else {
            return Ok(());
        };
        let died = |_| {
            Failed::Cluster(Error::Corrupt {
                detail: "the thread of a base died".into(),
            })
        };
        let uploaded = job
            .thread
            .join()
            .map_err(died)
            .and_then(|uploaded| uploaded);
        let objects = uploaded.inspect_err(|_| {
            let wanted = &self.shared.backups.base_wanted;
            wanted.store(true, Ordering::Release);
        })?;
        next.objects.extend(objects);
        next.bases.push(job.entry);
        next.bases.sort_by_key(|base| base.id);
        self.sweep_again();
        Ok(())
    }

    /// Seals the layers of a node, under the lock of the background: no layer comes or goes, no branch and no growth happens.
    fn begin_base(&mut self) -> Result<(), Failed> {
        let (node, sealed, before, at_us) = {
            let _work = self.shared.working()?;
            let before = moment(self.shared);
            let node = self.source(&before, Lsn::NONE);
            let node = node.ok_or_else(|| self.shared.volume.quorum_lost())?;
            for device in &self.shared.volume.devices {
                if device.nodes.contains(node.id()) {
                    self.shared.flush(device)?;
                }
            }
            let at_us = self.shared.time_of(before.vdl, &before.manifest.history)?;
            (node.clone(), node.store.sealed()?, before, at_us)
        };
        let (id, incarnation) = (node.id(), node.info.incarnation);
        let mut items = Vec::with_capacity(sealed.layers.len() + sealed.blobs.len());
        let mut objects = Vec::with_capacity(sealed.layers.len());
        for layer in sealed.layers {
            let name = format!(
                "base/n{}-{incarnation}/{}-{:08x}",
                id.0,
                layer.name,
                mark(&layer, &node)?
            );
            objects.push(name.clone());
            items.push(Item {
                name,
                source: Source::Layer(layer),
            });
        }
        let mut blobs = Vec::with_capacity(sealed.blobs.len());
        for blob in sealed.blobs {
            let name = format!("blob/{:032x}", blob.0);
            blobs.push(name.clone());
            items.push(Item {
                name,
                source: Source::Blob(blob),
            });
        }
        items.retain(|item| !self.known.objects.contains_key(&item.name));
        let entry = BaseEntry {
            id: self
                .known
                .bases
                .iter()
                .map(|base| base.id)
                .max()
                .unwrap_or(0)
                + 1,
            node: id.0,
            incarnation,
            lsn: before.vdl.0,
            time_us: at_us,
            taken_us: wall_us(),
            floor: sealed.floor.0,
            floor_commit: sealed
                .floor_commit
                .map(|c| (c.lsn.0, c.origin.0, c.time_us)),
            histories: before.manifest.histories().map(Into::into).collect(),
            segments: before.manifest.pgs.len() as u32,
            // What an earlier base has uploaded is known by then.
            objects,
            blobs,
            tables: None,
        };
        self.base = Some(self.start(entry, items, node)?);
        Ok(())
    }

    fn start(
        &self,
        entry: BaseEntry,
        items: Vec<Item>,
        node: Arc<Node>,
    ) -> Result<BaseJob, Failed> {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = self.shared.clone();
        let upload = Upload {
            place: self.place.clone(),
            key: self.options.key().cloned(),
            stop: stop.clone(),
            bytes_per_s: self.options.bytes_per_s,
            node,
        };
        let run = move || {
            let done = upload.all(items, &shared.backups.uploaded);
            shared.backups.wake();
            done
        };
        let thread = Builder::new()
            .name("aurora-base".into())
            .spawn(run)
            .map_err(|source| Error::io(std::path::Path::new("aurora-base"), source))?;
        Ok(BaseJob {
            entry,
            thread,
            stop,
        })
    }
}

/// What tells a layer from another one that had its number: that of a layer which went before a crash may be given once more.
fn mark(layer: &SealedFile, node: &Node) -> Result<u32, Error> {
    let mut footer = vec![0; FOOTER_BYTES.min(layer.bytes) as usize];
    let from = layer.bytes - footer.len() as u64;
    layer
        .file
        .read_exact_at(&mut footer, from)
        .map_err(|source| Error::io(&node.dir, source))?;
    Ok(crc32c(&footer))
}

/// What the thread of a base works with.
struct Upload {
    place: Arc<dyn ObjectPlace>,
    key: Option<Key>,
    stop: Arc<AtomicBool>,
    bytes_per_s: u64,
    node: Arc<Node>,
}

impl Upload {
    fn all(
        &self,
        items: Vec<Item>,
        uploaded: &AtomicU64,
    ) -> Result<BTreeMap<String, ObjectEntry>, Failed> {
        let mut objects = BTreeMap::new();
        for item in items {
            let file = match item.source {
                Source::Layer(file) => file,
                // One that is gone by now was needed by nothing that is kept; the base was not, and is taken again.
                Source::Blob(blob) => self.node.store.sealed_blob(blob)?,
            };
            let object = match self.there(&item.name, &file)? {
                Some(object) => object,
                None => self.one(&item.name, &file, uploaded)?,
            };
            objects.insert(item.name, object);
        }
        Ok(objects)
    }

    /// What an upload that was interrupted has left, if it is whole.
    fn there(&self, name: &str, file: &SealedFile) -> Result<Option<ObjectEntry>, Failed> {
        let Some(size) = self.place.size(name).map_err(at(name))? else {
            return Ok(None);
        };
        let from = size.saturating_sub(TAIL_BYTES as u64);
        let tail = self.place.get_range(name, from..size).map_err(at(name))?;
        let tail = Tail::read(&tail, size).ok();
        let same = tail.filter(|tail| tail.raw == file.bytes);
        Ok(same.map(|tail| ObjectEntry {
            bytes: size,
            raw: tail.raw,
            sha256: tail.sha256,
        }))
    }

    fn one(
        &self,
        name: &str,
        file: &SealedFile,
        uploaded: &AtomicU64,
    ) -> Result<ObjectEntry, Failed> {
        let (packer, head) = Packer::new(name, self.key.as_ref());
        let mut pieces = FilePieces {
            upload: self,
            file,
            head: Some(head),
            packer: Some(packer),
            packed: None,
            read: 0,
            begun: Instant::now(),
            sent: 0,
        };
        let put = self.place.put_pieces(name, &mut || pieces.next());
        uploaded.fetch_add(pieces.sent, Ordering::Relaxed);
        put.map_err(at(name))?;
        let packed = pieces.packed.ok_or_else(|| {
            let detail = "the store took less than the whole object";
            at(name)(PlaceError::new(PlaceFault::Unreachable, detail))
        })?;
        Ok(packed.into())
    }
}

/// A file on its way, packed piece by piece, no faster than it may.
struct FilePieces<'a> {
    upload: &'a Upload,
    file: &'a SealedFile,
    head: Option<Vec<u8>>,
    packer: Option<Packer>,
    packed: Option<Packed>,
    read: u64,
    begun: Instant,
    sent: u64,
}

impl FilePieces<'_> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, PlaceError> {
        let piece = self.piece()?;
        self.sent += piece.as_ref().map_or(0, Vec::len) as u64;
        self.keep_pace()?;
        Ok(piece)
    }

    fn piece(&mut self) -> Result<Option<Vec<u8>>, PlaceError> {
        let failed = |error: std::io::Error| {
            PlaceError::new(
                PlaceFault::Unreachable,
                format!("reading the file: {error}"),
            )
        };
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        let left = self.file.bytes - self.read;
        if left > 0 {
            let mut raw = vec![0; left.min(CHUNK_BYTES as u64) as usize];
            self.file
                .file
                .read_exact_at(&mut raw, self.read)
                .map_err(failed)?;
            self.read += raw.len() as u64;
            let packer = self.packer.as_mut();
            return packer
                .map(|packer| packer.chunk(&raw).map_err(failed))
                .transpose();
        }
        let Some(packer) = self.packer.take() else {
            return Ok(None);
        };
        let (end, packed) = packer.finish();
        self.packed = Some(packed);
        Ok(Some(end))
    }

    /// Waits for as long as what was sent should have taken.
    fn keep_pace(&self) -> Result<(), PlaceError> {
        let due = Duration::from_secs_f64(self.sent as f64 / self.upload.bytes_per_s as f64);
        while let Some(left) = due
            .checked_sub(self.begun.elapsed())
            .filter(|left| !left.is_zero())
        {
            self.check_stop()?;
            std::thread::sleep(left.min(STOP_EVERY));
        }
        self.check_stop()
    }

    fn check_stop(&self) -> Result<(), PlaceError> {
        match self.upload.stop.load(Ordering::Acquire) {
            true => Err(PlaceError::new(
                PlaceFault::Stopped,
                "the cluster is closing",
            )),
            false => Ok(()),
        }
    }
}
