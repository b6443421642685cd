//! Fewer and larger delta layers, and images of pages with long chains.
//!
//! What it may write is bounded by two rules:
//!
//! - *size-tiered*: `fan_in` layers of about one size become one. A record is written again once per tier: with layers of
//!   2 MiB from a flush and a fan-in of 8, twice by the time there are 100 MiB of records.
//! - *an image when it pays*: a page gets a new image when the records since its last one are more than `image_percent`
//!   of that image's size. Images so cost at most 100 / `image_percent` times the bytes of records, and a read applies at
//!   most about that many bytes of records.
//!
//! A job goes on where the last call stopped, so that a call keeps its budget however large a layer is. A crash loses the
//! job and nothing else: its output has a temporary name until it is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aurora_page::{Lsn, Page, PageId, seal};
use aurora_redo::Record;
use bytes::Bytes;

use crate::error::StoreError;
use crate::layer::iter::{Images, LayerRecords, Merge, Records, merged_commits};
use crate::layer::{DeltaWriter, ImageEntry, ImageWriter, Layer};
use crate::layermap::LayerSet;
use crate::node::NodeStore;
use crate::types::{LayerKind, Roots};

/// An image layer is closed at this size.
const IMAGE_LAYER_BYTES: u64 = 64 << 20;
/// Image layers are merged this many times more seldom than delta layers.
const IMAGE_FAN_IN_FACTOR: usize = 2;

/// What background work keeps from call to call.
#[derive(Debug, Default)]
pub(crate) struct Background {
    pub(crate) job: Job,
    /// Whether the pages with long chains were looked for since the node was opened.
    searched: bool,
    /// Where the next call of `collect` goes on looking for garbage.
    pub(crate) collected: u64,
    /// Damaged parts of layers, by their offsets, of which everything has been fetched from another copy. They go when the
    /// layer has been written anew without them.
    pub(crate) replaced: BTreeMap<u64, BTreeSet<u64>>,
}

/// Work that may take several calls.
#[derive(Debug, Default)]
pub(crate) enum Job {
    #[default]
    None,
    Merge(Box<MergeJob>),
    Images(Box<ImageJob>),
    MergeImages(Box<MergeImagesJob>),
}

/// Merges delta layers into one, leaving out what no root needs.
#[derive(Debug)]
pub(crate) struct MergeJob {
    inputs: Vec<Arc<Layer>>,
    merge: Merge<Records>,
    writer: DeltaWriter,
    roots: Roots,
    group: Vec<Record>,
    head: Option<Record>,
}

/// Makes images of pages with long chains.
#[derive(Debug)]
pub(crate) struct ImageJob {
    writer: Option<ImageWriter>,
    last: Option<PageId>,
}

impl ImageJob {
    fn bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, ImageWriter::bytes)
    }
}

/// Merges image layers into one, leaving out what no root needs.
#[derive(Debug)]
pub(crate) struct MergeImagesJob {
    inputs: Vec<Arc<Layer>>,
    merge: Merge<Images>,
    writer: ImageWriter,
    roots: Roots,
}

impl NodeStore {
    /// Makes images and merges layers until about `budget` bytes are read and written or nothing is left to do; gives
    /// the bytes used.
    ///
    /// Images are made at or below the VDL, of the first of the roots' histories. What is below the floor and covered is
    /// left out of merged layers; [`collect`](Self::collect) must have made this floor durable first, or it does not
    /// count.
    pub fn compact(&self, budget: u64, roots: &Roots) -> Result<u64, StoreError> {
        let mut background = self.background.lock();
        if roots.histories.is_empty() {
            return Ok(0);
        }
        if !std::mem::replace(&mut background.searched, true) {
            self.find_candidates()?;
        }
        let job = &mut background.job;
        let mut used = 0;
        while used < budget {
            if matches!(job, Job::None) && !self.begin(job, roots)? {
                break;
            }
            used += self.step(job, budget - used, roots)?;
        }
        Ok(used)
    }

    /// Chooses the next job; false when there is none.
    fn begin(&self, job: &mut Job, roots: &Roots) -> Result<bool, StoreError> {
        if !self.candidates.lock().is_empty() {
            *job = Job::Images(Box::new(ImageJob {
                writer: None,
                last: None,
            }));
            return Ok(true);
        }
        let set = self.map.set();
        if let Some(inputs) = self.tier(&set.deltas, self.config.fan_in) {
            *job = self.merge_job(inputs, roots, &Arc::default())?;
            return Ok(true);
        }
        if let Some(inputs) = self.tier(&set.images, self.config.fan_in * IMAGE_FAN_IN_FACTOR) {
            *job = self.merge_images_job(inputs, roots, &Arc::default())?;
            return Ok(true);
        }
        Ok(false)
    }

    /// The oldest `fan_in` layers of one size class, if it has so many.
    fn tier(&self, layers: &[Arc<Layer>], fan_in: usize) -> Option<Vec<Arc<Layer>>> {
        let fan_in = fan_in.clamp(2, crate::layer::footer::REPLACED_MAX);
        let damaged: BTreeSet<u64> = self.damaged.lock().iter().map(|d| d.layer).collect();
        let class = |layer: &Layer| layer.bytes.max(1).ilog2() / 3;
        let mut by_class = std::collections::BTreeMap::<u32, Vec<Arc<Layer>>>::new();
        for layer in layers.iter().rev() {
            if !damaged.contains(&layer.layer) && layer.bytes < self.config.layer_bytes_max / 2 {
                by_class
                    .entry(class(layer))
                    .or_default()
                    .push(layer.clone());
            }
        }
        let mut full = by_class.into_values().find(|some| some.len() >= fan_in)?;
        full.truncate(fan_in);
        Some(full)
    }

    pub(crate) fn merge_job(
        &self,
        inputs: Vec<Arc<Layer>>,
        roots: &Roots,
        skip: &Arc<BTreeSet<u64>>,
    ) -> Result<Job, StoreError> {
        let sources: Result<Vec<_>, _> = inputs
            .iter()
            .map(|l| LayerRecords::new(l.clone(), PageId(0), skip.clone()).map(Records::Layer))
            .collect();
        let merge = Merge::new(sources.inspect_err(|e| self.note(e))?);
        let writer = DeltaWriter::create(&self.map.dir, self.map.number())?;
        let roots = Roots {
            floor: roots.floor.min(self.floor()),
            ..roots.clone()
        };
        Ok(Job::Merge(Box::new(MergeJob {
            inputs,
            merge,
            writer,
            roots,
            group: Vec::new(),
            head: None,
        })))
    }

    pub(crate) fn merge_images_job(
        &self,
        inputs: Vec<Arc<Layer>>,
        roots: &Roots,
        skip: &Arc<BTreeSet<u64>>,
    ) -> Result<Job, StoreError> {
        let sources: Result<Vec<_>, _> = inputs
            .iter()
            .map(|l| Images::new(l.clone(), PageId(0), skip.clone()))
            .collect();
        let merge = Merge::new(sources.inspect_err(|e| self.note(e))?);
        let writer = ImageWriter::create(&self.map.dir, self.map.number())?;
        let roots = Roots {
            floor: roots.floor.min(self.floor()),
            ..roots.clone()
        };
        Ok(Job::MergeImages(Box::new(MergeImagesJob {
            inputs,
            merge,
            writer,
            roots,
        })))
    }

    /// Goes on with the job for about `budget` bytes; when it is done, or failed, the job is none.
    pub(crate) fn step(
        &self,
        job: &mut Job,
        budget: u64,
        roots: &Roots,
    ) -> Result<u64, StoreError> {
        let stepped = match job {
            Job::None => Ok((0, true)),
            Job::Merge(merge) => self.step_merge(merge, budget),
            Job::Images(images) => self.step_images(images, budget, roots),
            Job::MergeImages(merge) => self.step_merge_images(merge, budget),
        };
        match stepped {
            Ok((used, false)) => Ok(used.max(1)),
            Ok((used, true)) => {
                self.finish(std::mem::take(job))?;
                Ok(used.max(1))
            }
            Err(error) => {
                // Dropping the job removes its unfinished output.
                *job = Job::None;
                self.note(&error);
                Err(error)
            }
        }
    }

    fn step_merge(&self, job: &mut MergeJob, budget: u64) -> Result<(u64, bool), StoreError> {
        let set = self.map.set();
        let before = job.writer.bytes();
        let mut read = 0;
        while job.writer.bytes() - before + read < budget {
            if job.head.is_none() {
                job.head = job.merge.next()?;
            }
            let Some(page) = job.head.as_ref().map(|r| r.page) else {
                return Ok((job.writer.bytes() - before + read, true));
            };
            job.group.clear();
            while job.head.as_ref().is_some_and(|r| r.page == page) {
                job.group.extend(job.head.take());
                job.head = job.merge.next()?;
            }
            read += job.group.iter().map(|r| 8 + r.op.len() as u64).sum::<u64>();
            self.keep_needed(&set, page, &mut job.group, &job.roots)?;
            job.group
                .iter()
                .try_for_each(|record| job.writer.push(record))?;
        }
        Ok((job.writer.bytes() - before + read, false))
    }

    /// Leaves of a page's records those that a read at the floor or above may need, in some kept History.
    fn keep_needed(
        &self,
        set: &LayerSet,
        page: PageId,
        group: &mut Vec<Record>,
        roots: &Roots,
    ) -> Result<(), StoreError> {
        if group.first().is_some_and(|r| r.lsn > roots.floor)
            && group.iter().all(|r| roots.contain(r.origin, r.lsn))
        {
            return Ok(());
        }
        let mut needed = vec![false; group.len()];
        for history in &roots.histories {
            let valid = |origin, lsn| history.contains(origin, lsn);
            let image = set.image(&self.map.cache, page, roots.floor, valid)?;
            let covered = image.map_or(Lsn::NONE, |(_, image)| image.lsn);
            let lives = group
                .iter()
                .filter(|r| r.lsn <= roots.floor && valid(r.origin, r.lsn) && r.starts_life());
            let born = lives.map(|r| r.lsn).max().unwrap_or(Lsn::NONE);
            for (needed, record) in needed.iter_mut().zip(group.iter()) {
                *needed |=
                    valid(record.origin, record.lsn) && record.lsn > covered && record.lsn >= born;
            }
        }
        let mut keep = needed.into_iter();
        group.retain(|_| keep.next().unwrap_or(true));
        Ok(())
    }

    fn step_images(
        &self,
        job: &mut ImageJob,
        budget: u64,
        roots: &Roots,
    ) -> Result<(u64, bool), StoreError> {
        let before = job.bytes();
        let mut read = 0;
        while job.bytes() - before + read < budget {
            let from = job.last.map_or(PageId(0), |p| PageId(p.0 + 1));
            let Some(page) = self.next_candidate(from) else {
                return Ok((job.bytes() - before + read, true));
            };
            job.last = Some(page);
            match self.due(page, roots) {
                Ok((chain, image)) => {
                    read += chain;
                    image.map_or(Ok(()), |image| self.write_image(job, &image))?;
                }
                // The damage is noted; the page gets its image when it is repaired.
                Err(error) if error.other_copy_may_have_it() => self.note(&error),
                Err(error) => return Err(error),
            }
            if job.bytes() >= IMAGE_LAYER_BYTES {
                return Ok((job.bytes() - before + read, true));
            }
        }
        Ok((job.bytes() - before + read, false))
    }

    fn next_candidate(&self, from: PageId) -> Option<PageId> {
        let mut candidates = self.candidates.lock();
        let page = candidates.range(from..).next().copied()?;
        candidates.remove(&page);
        Some(page)
    }

    fn write_image(&self, job: &mut ImageJob, page: &Page) -> Result<(), StoreError> {
        let writer = match &mut job.writer {
            Some(writer) => writer,
            none => none.insert(ImageWriter::create(&self.map.dir, self.map.number())?),
        };
        let (lsn, origin) = (page.lsn(), page.origin());
        let entry = ImageEntry {
            page: page.id(),
            lsn,
            origin,
            offset: 0,
            len: 0,
        };
        writer.push(&entry, &Bytes::from(seal(page)))
    }

    /// The bytes of a page's records since its last image, and the page if they are enough for a new one.
    fn due(&self, page: PageId, roots: &Roots) -> Result<(u64, Option<Page>), StoreError> {
        let Some(history) = roots.histories.first() else {
            return Ok((64, None));
        };
        let set = self.map.set();
        let image = set.image(&self.map.cache, page, roots.vdl, |origin, lsn| {
            history.contains(origin, lsn)
        })?;
        let (after, size) = image
            .map_or((Lsn::NONE, self.config.page_bytes as u64 / 2), |(_, i)| {
                (i.lsn, u64::from(i.len))
            });
        let mut chain = 64;
        for layer in set
            .deltas
            .iter()
            .filter(|l| l.overlaps(page, after, Lsn::MAX))
        {
            let meta = layer.meta()?;
            let found = meta.heavy.binary_search_by_key(&page, |h| h.page);
            chain += found
                .ok()
                .map(|i| &meta.heavy[i])
                .filter(|h| h.last_lsn > after)
                .map_or(0, |h| h.bytes);
        }
        if chain * 100 < size * self.config.image_percent as u64 {
            return Ok((64, None));
        }
        let made = self.materialise(page, roots.vdl, history)?;
        Ok((chain, Some(made).filter(|made| made.lsn() > after)))
    }

    fn step_merge_images(
        &self,
        job: &mut MergeImagesJob,
        budget: u64,
    ) -> Result<(u64, bool), StoreError> {
        let set = self.map.set();
        let before = job.writer.bytes();
        let mut read = 0;
        while job.writer.bytes() - before + read < budget {
            let Some((layer, image)) = job.merge.next()? else {
                return Ok((job.writer.bytes() - before + read, true));
            };
            read += u64::from(image.len);
            if self.image_needed(&set, &image, &job.roots)? {
                job.writer.push(&image, &layer.image(&image)?)?;
            }
        }
        Ok((job.writer.bytes() - before + read, false))
    }

    /// May a read at the floor or above begin with this image, in some kept History?
    pub(crate) fn image_needed(
        &self,
        set: &LayerSet,
        image: &ImageEntry,
        roots: &Roots,
    ) -> Result<bool, StoreError> {
        for history in roots
            .histories
            .iter()
            .filter(|h| h.contains(image.origin, image.lsn))
        {
            if image.lsn > roots.floor {
                return Ok(true);
            }
            let newest = set.image(&self.map.cache, image.page, roots.floor, |o, l| {
                history.contains(o, l)
            })?;
            if newest.is_none_or(|(_, newest)| newest.lsn == image.lsn) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn finish(&self, job: Job) -> Result<(), StoreError> {
        let (layer, inputs) = match job {
            Job::None => return Ok(()),
            Job::Images(job) => {
                let layer = job
                    .writer
                    .map(|writer| writer.finish(Lsn::NONE, &[]))
                    .transpose()?;
                return self.map.publish(layer.into_iter().collect(), &[]);
            }
            Job::Merge(job) => {
                let replaced: Vec<u64> = job.inputs.iter().map(|l| l.layer).collect();
                let roots = &job.roots;
                let commits = merged_commits(&job.inputs, |c| {
                    c.lsn > roots.floor && roots.contain(c.origin, c.lsn)
                });
                let mut commits = commits.peekable();
                let empty = job.writer.is_empty() && commits.peek().is_none();
                let layer = if empty {
                    None
                } else {
                    Some(job.writer.finish(commits, roots.floor, &replaced)?)
                };
                (layer, replaced)
            }
            Job::MergeImages(job) => {
                let replaced: Vec<u64> = job.inputs.iter().map(|l| l.layer).collect();
                let empty = job.writer.is_empty();
                let layer = if empty {
                    None
                } else {
                    Some(job.writer.finish(job.roots.floor, &replaced)?)
                };
                (layer, replaced)
            }
        };
        if let Some(layer) = layer.as_ref().filter(|l| l.kind() == LayerKind::Delta) {
            self.candidates
                .lock()
                .extend(layer.meta()?.heavy.iter().map(|h| h.page));
        }
        self.map.publish(layer.into_iter().collect(), &inputs)
    }

    /// After an open: finds the pages with long chains again.
    fn find_candidates(&self) -> Result<(), StoreError> {
        for layer in &self.map.set().deltas {
            let meta = layer.meta().inspect_err(|e| self.note(e))?;
            self.candidates
                .lock()
                .extend(meta.heavy.iter().map(|h| h.page));
        }
        Ok(())
    }
}
