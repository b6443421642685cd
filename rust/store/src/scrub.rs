//! Reading everything again, in the background, and mending what is damaged from another copy.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use aurora_page::PageId;
use aurora_redo::BlobId;

use crate::error::StoreError;
use crate::layer::entry::RecordReader;
use crate::layer::footer::BlockEntry;
use crate::layer::iter::{Images, LayerRecords, Merge, Records};
use crate::layer::{DeltaWriter, ImageWriter, Layer, Meta};
use crate::memlayer::commit_of;
use crate::node::NodeStore;
use crate::types::{Damage, Export, LayerKind, ScrubReport};

/// Where the next step of a scrub goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScrubCursor {
    layer: u64,
    block: usize,
    blob: Option<BlobId>,
}

impl NodeStore {
    /// Reads and checks about `budget` bytes of layers and blobs, going on where the last call stopped.
    pub fn scrub(&self, budget: u64) -> Result<ScrubReport, StoreError> {
        let mut cursor = self.scrubbed.lock();
        let mut report = ScrubReport::default();
        let known = self.damaged.lock().len();
        let set = self.map.set();
        let mut layers: Vec<_> = set
            .all()
            .filter(|l| l.layer >= cursor.layer)
            .cloned()
            .collect();
        layers.sort_by_key(|l| l.layer);
        for layer in layers {
            if layer.layer != cursor.layer {
                *cursor = ScrubCursor {
                    layer: layer.layer,
                    ..*cursor
                };
                cursor.block = 0;
            }
            self.scrub_layer(&layer, &mut cursor.block, budget, &mut report);
            if report.bytes >= budget {
                report.found = self.damaged.lock().iter().skip(known).cloned().collect();
                return Ok(report);
            }
            cursor.layer = layer.layer + 1;
            cursor.block = 0;
        }
        report.found = self.damaged.lock().iter().skip(known).cloned().collect();
        self.scrub_blobs(&mut cursor, budget, &mut report)?;
        if report.finished {
            *cursor = ScrubCursor::default();
        }
        Ok(report)
    }

    fn scrub_layer(&self, layer: &Layer, block: &mut usize, budget: u64, report: &mut ScrubReport) {
        let meta = match layer.meta() {
            Ok(meta) => meta,
            Err(error) => return self.note(&error),
        };
        report.bytes += u64::from(layer.footer.meta_len);
        // What is in memory says nothing about the disk.
        if *block == 0
            && let Err(error) = layer
                .check_footers()
                .and_then(|()| layer.block(layer.footer.meta_offset, layer.footer.meta_len))
        {
            return self.note(&error);
        }
        while report.bytes < budget {
            if let Some(entry) = meta.blocks.get(*block) {
                report.bytes += u64::from(entry.len);
                self.scrub_block(layer, entry, report);
            } else if let Some(commits) = meta.commits.get(*block - meta.blocks.len()) {
                report.bytes += u64::from(commits.len);
                let _ = layer.commits(commits).inspect_err(|e| self.note(e));
            } else {
                return;
            }
            *block += 1;
        }
    }

    fn scrub_block(&self, layer: &Layer, entry: &BlockEntry, report: &mut ScrubReport) {
        let checked = match layer.kind() {
            LayerKind::Delta => layer.block(entry.offset, entry.len).and_then(|block| {
                let mut reader = RecordReader::new(block);
                while let Some(record) = reader.next() {
                    record.map_err(|e| layer.unreadable(entry.offset, &e))?;
                }
                Ok(())
            }),
            LayerKind::Image => layer.listing(entry).map(|images| {
                for image in images {
                    report.bytes += u64::from(image.len);
                    let _ = layer.image(&image).inspect_err(|e| self.note(e));
                }
            }),
        };
        let _ = checked.inspect_err(|e| self.note(e));
    }

    fn scrub_blobs(
        &self,
        cursor: &mut ScrubCursor,
        budget: u64,
        report: &mut ScrubReport,
    ) -> Result<(), StoreError> {
        let done = cursor.blob;
        for blob in self
            .blobs
            .list()?
            .into_iter()
            .filter(|b| done.is_none_or(|done| *b > done))
        {
            if report.bytes >= budget {
                return Ok(());
            }
            cursor.blob = Some(blob);
            match self.blobs.check(blob) {
                Ok(bytes) => report.bytes += bytes,
                Err(_) => report.blobs.push(blob),
            }
        }
        report.finished = true;
        Ok(())
    }

    /// Damaged parts that reads, scrubs or compactions came upon, and that are not repaired yet.
    pub fn damage(&self) -> Vec<Damage> {
        self.damaged.lock().clone()
    }

    /// Remembers where damage is, if the error is about damage in a layer.
    pub(crate) fn note(&self, error: &StoreError) {
        let StoreError::Corrupt { path, offset, .. } = error else {
            return;
        };
        let Some(damage) = self.locate(path, *offset) else {
            return;
        };
        let mut damaged = self.damaged.lock();
        if !damaged.contains(&damage) {
            damaged.push(damage);
        }
    }

    /// What is lost when the bytes at `offset` of a layer are.
    fn locate(&self, path: &Path, offset: u64) -> Option<Damage> {
        let set = self.map.set();
        let layer = set.all().find(|l| l.path == path)?;
        if offset == 0 {
            return Some(layer.damage(None));
        }
        let Ok(meta) = layer.meta() else {
            return Some(layer.damage(None));
        };
        if let Some(block) = meta.blocks.iter().find(|b| b.offset == offset) {
            return Some(layer.damage(Some(block)));
        }
        if meta.commits.iter().any(|c| c.offset == offset) {
            // Times are also in the records: nothing has to be fetched.
            let nothing = BlockEntry {
                first_page: 1,
                last_page: 0,
                first_lsn: 0,
                last_lsn: 0,
                offset,
                len: 0,
            };
            return Some(layer.damage(Some(&nothing)));
        }
        let page = page_of_image(layer, &meta, offset);
        Some(page.map_or_else(
            || layer.damage(None),
            |page| Damage {
                offset,
                pages: page..=page,
                ..layer.damage(None)
            },
        ))
    }

    /// Mends a damaged part with what another copy gave for its pages ([`export`](Self::export) over `damage.pages`, all
    /// parts of it). The layer is written anew without the damaged block, or given up when nothing of it can be read.
    pub fn repair(&self, damage: &Damage, exports: &[Export]) -> Result<(), StoreError> {
        // No other background work may hold on to the layer.
        let mut background = self.background.lock();
        background.job = crate::compact::Job::None;
        exports
            .iter()
            .try_for_each(|export| self.import(export).map(|_| ()))?;
        let set = self.map.set();
        let layer = set.all().find(|l| l.layer == damage.layer).cloned();
        let broken = set.broken.iter().any(|d| d.layer == damage.layer);
        match layer {
            Some(layer) if damage.offset != 0 => {
                let skip = background.replaced.entry(damage.layer).or_default();
                skip.insert(damage.offset);
                let skip = Arc::new(skip.clone());
                let rewritten = match self.rewrite(&layer, skip).inspect_err(|e| self.note(e)) {
                    // Another part of the layer is damaged too. This one is done; the layer waits for the other.
                    Err(StoreError::Corrupt { .. }) if self.has_other_damage(damage) => {
                        return Ok(());
                    }
                    rewritten => rewritten?,
                };
                self.map
                    .publish(rewritten.into_iter().collect(), &[damage.layer])?;
            }
            Some(_) => self.map.publish(Vec::new(), &[damage.layer])?,
            None if broken => self.map.publish(Vec::new(), &[damage.layer])?,
            None => {}
        }
        background.replaced.remove(&damage.layer);
        self.damaged.lock().retain(|d| d.layer != damage.layer);
        Ok(())
    }

    /// Takes a damage off the list if its layer has another one.
    fn has_other_damage(&self, damage: &Damage) -> bool {
        let mut damaged = self.damaged.lock();
        let other = |d: &Damage| d.layer == damage.layer && d != damage;
        let others = damaged.iter().any(other);
        if others {
            damaged.retain(|d| d != damage);
        }
        others
    }

    /// A layer without the parts of it at these offsets; commits come from its records.
    fn rewrite(
        &self,
        layer: &Arc<Layer>,
        skip: Arc<BTreeSet<u64>>,
    ) -> Result<Option<Layer>, StoreError> {
        if layer.kind() == LayerKind::Image {
            let mut images = Merge::new(vec![Images::new(layer.clone(), PageId(0), skip)?]);
            let mut writer = ImageWriter::create(&self.map.dir, self.map.number())?;
            while let Some((layer, image)) = images.next()? {
                writer.push(&image, &layer.image(&image)?)?;
            }
            return finish_unless(writer.is_empty(), || {
                writer.finish(layer.footer.floor, &[layer.layer])
            });
        }
        let source = LayerRecords::new(layer.clone(), PageId(0), skip)?;
        let mut records = Merge::new(vec![Records::Layer(source)]);
        let mut writer = DeltaWriter::create(&self.map.dir, self.map.number())?;
        let mut commits = Vec::new();
        while let Some(record) = records.next()? {
            commits.extend(commit_of(&record));
            writer.push(&record)?;
        }
        commits.sort_by_key(|c| (c.lsn, c.origin));
        let commits = commits.into_iter().map(Ok);
        finish_unless(writer.is_empty(), || {
            writer.finish(commits, layer.footer.floor, &[layer.layer])
        })
    }
}

fn finish_unless(
    empty: bool,
    finish: impl FnOnce() -> Result<Layer, StoreError>,
) -> Result<Option<Layer>, StoreError> {
    if empty { Ok(None) } else { finish().map(Some) }
}

fn page_of_image(layer: &Layer, meta: &Meta, offset: u64) -> Option<PageId> {
    let listings = meta.blocks.iter().filter_map(|b| layer.listing(b).ok());
    listings
        .flatten()
        .find(|image| image.offset == offset)
        .map(|image| image.page)
}
