//! What the callers of a node store pass in and get back.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use aurora_page::{Lsn, PageId, VolumeId};
use aurora_redo::{BlobId, History, Record};
use bytes::Bytes;

/// Sizes and thresholds of a node store.
#[derive(Clone, Copy, Debug)]
pub struct NodeConfig {
    /// Bytes of a page, fixed for the volume.
    pub page_bytes: usize,
    /// Pages of a protection group's segment, fixed for the volume.
    pub segment_pages: u64,
    /// Bytes of decoded layer blocks kept in memory.
    pub cache_bytes: usize,
    /// Layers of about one size that are merged into one.
    pub fan_in: usize,
    /// A page gets an image when its records since the last one are more than this many percent of the image's bytes.
    pub image_percent: usize,
    /// Layers are not merged into larger ones than this.
    pub layer_bytes_max: u64,
}

impl NodeConfig {
    /// The usual thresholds.
    pub fn new(page_bytes: usize, segment_pages: u64) -> NodeConfig {
        NodeConfig {
            page_bytes,
            segment_pages,
            cache_bytes: 4 << 20,
            fan_in: 8,
            image_percent: 50,
            layer_bytes_max: 1 << 30,
        }
    }
}

/// What must stay readable: the roots of collection.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Every History that is kept: the present one first, then abandoned ones and clones'. What none of them contains
    /// is given up; without any, nothing is done.
    pub histories: Vec<Arc<History>>,
    /// Images are made at or below it.
    pub vdl: Lsn,
    /// Reads at this LSN and above must work, in every History of these.
    pub floor: Lsn,
}

impl Roots {
    /// Does the record or image at this place belong to any kept History?
    pub fn contain(&self, origin: VolumeId, lsn: Lsn) -> bool {
        self.histories.iter().any(|h| h.contains(origin, lsn))
    }
}

/// The sealed form of a page as of one LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// LSN of the page.
    pub lsn: Lsn,
    /// Volume that gave the LSN.
    pub origin: VolumeId,
    /// The sealed page.
    pub sealed: Bytes,
}

/// All that a copy keeps of one page, for another copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageChain {
    /// The page.
    pub page: PageId,
    /// Its images, ascending.
    pub images: Vec<Image>,
    /// Its records, ascending.
    pub records: Vec<Record>,
}

/// A part of what a copy keeps.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// Ascending by page.
    pub chains: Vec<PageChain>,
    /// Blobs that the records refer to: the receiver must have them first.
    pub blobs: Vec<BlobId>,
    /// Where to go on; none at the end of the range.
    pub next: Option<PageId>,
    /// The source's collection floor: below it, versions of these pages may be missing.
    pub floor: Lsn,
    /// The newest commit at or below the floor that the source knows.
    pub floor_commit: Option<CommitPoint>,
}

/// A damaged part of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The layer's number.
    pub layer: u64,
    /// Its file.
    pub path: PathBuf,
    /// Where in the file: of the block, or 0 when the whole layer cannot be read.
    pub offset: u64,
    /// Pages of which something is lost.
    pub pages: RangeInclusive<PageId>,
}

/// What a scrub step did.
#[derive(Clone, Debug, Default)]
pub struct ScrubReport {
    /// Bytes read and checked.
    pub bytes: u64,
    /// Damage found now.
    pub found: Vec<Damage>,
    /// Damaged blobs found now: to be fetched again from another copy.
    pub blobs: Vec<BlobId>,
    /// Whether this step came to the end; the next one begins anew.
    pub finished: bool,
}

/// A commit that this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPoint {
    /// Its LSN, a CPL.
    pub lsn: Lsn,
    /// Volume that gave the LSN.
    pub origin: VolumeId,
    /// Its time.
    pub time_us: i64,
}

/// What a layer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// Records, sorted by page and LSN.
    Delta,
    /// Sealed pages, sorted by page and LSN.
    Image,
}

/// A layer, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its number.
    pub layer: u64,
    /// What it holds.
    pub kind: LayerKind,
    /// Bytes of its file.
    pub bytes: u64,
    /// Records or images in it.
    pub entries: u64,
    /// Its pages.
    pub pages: RangeInclusive<PageId>,
    /// Its LSNs.
    pub lsns: RangeInclusive<Lsn>,
}
