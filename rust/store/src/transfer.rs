//! What goes from one copy to another: records for gossip, whole pages for hydration and repair.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use aurora_page::{Lsn, PageId, VolumeId};
use aurora_proto::{CopyState, Link};
use aurora_redo::{PgId, Record};

use crate::error::StoreError;
use crate::layer::entry::RecordReader;
use crate::layer::footer::BlockEntry;
use crate::layer::iter::{Images, LayerRecords, Merge, Records};
use crate::layer::writer::referenced;
use crate::layer::{DeltaWriter, ImageEntry, ImageWriter, Layer};
use crate::layermap::LayerSet;
use crate::memlayer::commit_of;
use crate::node::NodeStore;
use crate::types::{Export, Image, PageChain};

impl NodeStore {
    /// Records of a protection group with an LSN in `(after, upto]`, ascending, the lowest first if they are more than
    /// about `max_bytes`. Of what is below the floor, only what is still there. Where there are any, they are complete to
    /// the last of them and not necessarily to `upto`.
    pub fn records(
        &self,
        pg: PgId,
        after: Lsn,
        upto: Lsn,
        max_bytes: u64,
    ) -> Result<Vec<Record>, StoreError> {
        let mut found: BTreeMap<(Lsn, VolumeId), Record> = BTreeMap::new();
        let (mut bytes, mut upto) = (0, upto);
        self.visit(pg, after, |record| {
            if record.lsn > upto {
                return;
            }
            let weight = record.weight() as u64;
            if found
                .insert((record.lsn, record.origin), record.clone())
                .is_none()
            {
                bytes += weight;
            }
            while bytes > max_bytes && found.len() > 1 {
                if let Some((_, gone)) = found.pop_last() {
                    bytes -= gone.weight() as u64;
                    upto = upto.min(gone.lsn);
                }
            }
        })?;
        Ok(found.into_values().collect())
    }

    /// Links of all records of a protection group above `above`: what a copy is restored with.
    pub fn links(&self, pg: PgId, above: Lsn) -> Result<Vec<Link>, StoreError> {
        let mut links: BTreeMap<(Lsn, VolumeId), Link> = BTreeMap::new();
        self.visit(pg, above, |record| {
            links.insert((record.lsn, record.origin), Link::from(record));
        })?;
        Ok(links.into_values().collect())
    }

    /// What the copies of the first groups are restored with, in no order and some twice: the links of what is above the lower of
    /// SCL and VDL hint. A node that opens looks at everything in memory once, however many groups there are, and at no layer
    /// in which the state file says there is nothing to be found [13].
    pub fn links_of_all(&self, copies: &[CopyState]) -> Result<Vec<Vec<Link>>, StoreError> {
        let state = self.state();
        let above: Vec<Lsn> = copies.iter().map(|c| c.scl.min(c.vdl_hint)).collect();
        let quiet = |c: &CopyState, above: &Lsn| state.quiet_for(c).max(*above);
        let quiet: Vec<Lsn> = copies
            .iter()
            .zip(&above)
            .map(|(c, a)| quiet(c, a))
            .collect();
        let segment = self.config.segment_pages.max(1);
        let mut links = vec![Vec::new(); above.len()];
        let mut take = |record: &Record| {
            let pg = (record.page.0 / segment) as usize;
            if above.get(pg).is_some_and(|above| record.lsn > *above) {
                links[pg].push(Link::from(record));
            }
        };
        // Memory before layers, as for reads.
        self.memory()
            .iter()
            .for_each(|memory| memory.for_each(&mut take));
        let set = self.map.set();
        self.check_readable(&set)?;
        let lowest = quiet.iter().min().copied().unwrap_or(Lsn::MAX);
        let wanted = |block: &BlockEntry| {
            let first = (block.first_page / segment) as usize;
            let last = (block.last_page / segment) as usize;
            let groups = quiet.get(first..=last.min(quiet.len().wrapping_sub(1)));
            groups.is_some_and(|groups| groups.iter().any(|quiet| block.last_lsn > quiet.0))
        };
        for layer in set.deltas.iter().filter(|l| l.footer.last_lsn > lowest) {
            visit_blocks(layer, &wanted, &mut take).inspect_err(|e| self.note(e))?;
        }
        Ok(links)
    }

    /// Nothing is known about what was in a layer that cannot be read at all.
    pub(crate) fn check_readable(&self, set: &LayerSet) -> Result<(), StoreError> {
        match set.broken.first() {
            Some(broken) => Err(StoreError::corrupt(
                &broken.path,
                0,
                "a readable layer",
                "damage",
            )),
            None => Ok(()),
        }
    }

    /// Calls `each` for the records of a group above an LSN, in no order, some twice.
    fn visit(&self, pg: PgId, after: Lsn, each: impl FnMut(&Record)) -> Result<(), StoreError> {
        self.visit_pages(&self.pages_of(pg), after, each)
    }

    /// The same for the records of some pages.
    pub(crate) fn visit_pages(
        &self,
        pages: &RangeInclusive<PageId>,
        after: Lsn,
        mut each: impl FnMut(&Record),
    ) -> Result<(), StoreError> {
        // Memory before layers, as for reads.
        for memory in self.memory() {
            memory.for_each_above(after, |r| {
                if pages.contains(&r.page) {
                    each(r);
                }
            });
        }
        let set = self.map.set();
        if let Some(broken) = set.broken.first() {
            return Err(StoreError::corrupt(
                &broken.path,
                0,
                "a readable layer",
                "damage",
            ));
        }
        for layer in set.deltas.iter().filter(|l| l.footer.last_lsn > after) {
            visit_layer(layer, pages, after, &mut each).inspect_err(|e| self.note(e))?;
        }
        Ok(())
    }

    /// Everything kept of some pages, up to about `max_bytes` and at least of one page.
    pub fn export(
        &self,
        pages: RangeInclusive<PageId>,
        max_bytes: u64,
    ) -> Result<Export, StoreError> {
        self.export_pages(pages, max_bytes)
            .inspect_err(|e| self.note(e))
    }

    fn export_pages(
        &self,
        pages: RangeInclusive<PageId>,
        max_bytes: u64,
    ) -> Result<Export, StoreError> {
        let (first, last) = (*pages.start(), *pages.end());
        let mut export = Export::default();
        if first > last {
            return Ok(export);
        }
        let memory = self.memory();
        let set = self.map.set();
        self.check_readable(&set)?;
        // After the set was taken: nothing was dropped from its layers under a higher floor.
        let state = self.state();
        (export.floor, export.floor_commit) = (state.floor, state.floor_commit);
        let mut sources: Vec<Records> = Vec::new();
        for memory in memory {
            sources.push(Records::Memory(
                memory.sorted(|r| pages.contains(&r.page)).into_iter(),
            ));
        }
        for layer in &set.deltas {
            sources.push(Records::Layer(LayerRecords::new(
                layer.clone(),
                first,
                Arc::default(),
            )?));
        }
        let mut records = Merge::new(sources);
        let images: Result<Vec<_>, _> = set
            .images
            .iter()
            .map(|l| Images::new(l.clone(), first, Arc::default()))
            .collect();
        let mut images = Merge::new(images?);
        let (mut record, mut image) = (records.next()?, images.next()?);
        let mut bytes = 0;
        loop {
            let heads = record
                .as_ref()
                .map(|r| r.page)
                .into_iter()
                .chain(image.as_ref().map(|(_, i)| i.page));
            let Some(page) = heads.min().filter(|page| *page <= last) else {
                return Ok(export);
            };
            if bytes >= max_bytes && !export.chains.is_empty() {
                export.next = Some(page);
                return Ok(export);
            }
            let mut chain = PageChain {
                page,
                images: Vec::new(),
                records: Vec::new(),
            };
            while let Some((layer, entry)) = image.take_if(|(_, i)| i.page == page) {
                let sealed = layer.image(&entry)?;
                bytes += sealed.len() as u64;
                chain.images.push(Image {
                    lsn: entry.lsn,
                    origin: entry.origin,
                    sealed,
                });
                image = images.next()?;
            }
            while let Some(one) = record.take_if(|r| r.page == page) {
                bytes += one.weight() as u64;
                export
                    .blobs
                    .extend(referenced(&one).filter(|b| !export.blobs.contains(b)));
                chain.records.push(one);
                record = records.next()?;
            }
            export.chains.push(chain);
        }
    }

    /// Takes over what another copy exported; durable when it returns. Blobs must be here before. Gives the bytes
    /// written.
    ///
    /// The source's collection floor comes with its pages: what it gave up below is not here either, and a read there would
    /// find a page of another time.
    pub fn import(&self, export: &Export) -> Result<u64, StoreError> {
        self.adopt_floor(export.floor, export.floor_commit)?;
        let mut layers = Vec::new();
        if export.chains.iter().any(|c| !c.images.is_empty()) {
            let mut writer = ImageWriter::create(&self.map.dir, self.map.number())?;
            for chain in &export.chains {
                for image in &chain.images {
                    let (lsn, origin) = (image.lsn, image.origin);
                    writer.push(
                        &ImageEntry {
                            page: chain.page,
                            lsn,
                            origin,
                            offset: 0,
                            len: 0,
                        },
                        &image.sealed,
                    )?;
                }
            }
            layers.push(writer.finish(self.floor(), &[])?);
        }
        if export.chains.iter().any(|c| !c.records.is_empty()) {
            let mut writer = DeltaWriter::create(&self.map.dir, self.map.number())?;
            let mut commits = Vec::new();
            for record in export.chains.iter().flat_map(|c| &c.records) {
                commits.extend(commit_of(record));
                writer.push(record)?;
            }
            commits.sort_by_key(|c| (c.lsn, c.origin));
            let layer = writer.finish(commits.into_iter().map(Ok), self.floor(), &[])?;
            self.candidates
                .lock()
                .extend(layer.meta()?.heavy.iter().map(|h| h.page));
            layers.push(layer);
        }
        let bytes = layers.iter().map(|l| l.bytes).sum();
        self.map.publish(layers, &[])?;
        Ok(bytes)
    }
}

fn visit_layer(
    layer: &Layer,
    pages: &RangeInclusive<PageId>,
    after: Lsn,
    each: &mut impl FnMut(&Record),
) -> Result<(), StoreError> {
    let overlap = |first: u64, last: u64| first <= pages.end().0 && last >= pages.start().0;
    let wanted = |b: &BlockEntry| b.last_lsn > after.0 && overlap(b.first_page, b.last_page);
    visit_blocks(layer, &wanted, &mut |record| {
        if record.lsn > after && pages.contains(&record.page) {
            each(record);
        }
    })
}

/// Calls `each` for every record of the blocks that `wanted` accepts.
fn visit_blocks(
    layer: &Layer,
    wanted: &impl Fn(&BlockEntry) -> bool,
    each: &mut impl FnMut(&Record),
) -> Result<(), StoreError> {
    let meta = layer.meta()?;
    for block in meta.blocks.iter().filter(|b| wanted(b)) {
        let mut reader = RecordReader::new(layer.block(block.offset, block.len)?);
        while let Some(record) = reader.next() {
            each(&record.map_err(|e| layer.unreadable(block.offset, &e))?);
        }
    }
    Ok(())
}
