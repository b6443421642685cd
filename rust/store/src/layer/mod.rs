//! Layers: immutable files of records or of sealed pages, sorted by page and LSN.
//!
//! ```text
//!   layer    | front footer, 512 | block | block | ... | meta block | back footer |
//!   block    raw length u32 | stored length u32 | codec u32 | crc u32 of these three and of what is stored | stored
//!   footer   length u32 | crc u32 | content                       at the front from byte 0, at the back up to the end:
//!            content | crc u32 | length u32                        the same content, so that one damage hides neither
//! ```
//! In a delta layer the blocks hold records, then commits (LSN -> time, sorted by LSN). In an image layer there is a
//! block for each sealed page, then blocks with the list of them. Both kinds have in their meta block one entry per
//! listing block (its pages, its LSNs, its place), so that a page is found with one search and one read; and a filter
//! over the pages, so that a layer without the page is mostly not read at all.
//!
//! A layer is written under a temporary name, synced, renamed, and the directory synced. Its footer names the layers it
//! replaces: those are removed when it is there, at once or at the next open.

pub(crate) mod bloom;
pub(crate) mod entry;
pub(crate) mod footer;
pub(crate) mod frame;
pub(crate) mod iter;
pub(crate) mod reader;
pub(crate) mod writer;

pub(crate) use entry::ImageEntry;
pub(crate) use footer::Meta;
pub(crate) use reader::Layer;
pub(crate) use writer::{DeltaWriter, ImageWriter, LayerDir};
