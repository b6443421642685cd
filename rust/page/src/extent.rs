//! Extents: which runs of pages belong to which object; and the geometry of a volume.
//!
//! Every segment begins with its extent-map pages; the extents follow:
//!
//! ```text
//! segment   | map page ... | extent 0: pages | extent 1: pages | ... | rest, unused
//!
//! map page  header                                                      64 bytes
//!           first extent u64, entries u32, zero u32                     16
//!           per extent: owner u64, used u64, load u32, state u8, zero   24 each
//! ```
//! Extents are numbered through the volume, map page after map page.

use std::ops::Range;

use crate::bytes_at::{put_u32, put_u64, u32_at, u64_at};
use crate::error::PageError;
use crate::header::HEADER_BYTES;
use crate::ids::{ObjectId, PageId};
use crate::page::{Page, PageKind};

const FIRST_AT: usize = HEADER_BYTES;
const LEN_AT: usize = FIRST_AT + 8;
const ENTRIES_AT: usize = LEN_AT + 8;
const ENTRY_BYTES: usize = 24;
const OWNER_AT: usize = 0;
const USED_AT: usize = OWNER_AT + 8;
const LOAD_AT: usize = USED_AT + 8;
const STATE_AT: usize = LOAD_AT + 4;

/// Most pages of an extent: one bit each.
pub const EXTENT_PAGES_MAX: u64 = 64;

/// What an extent is used for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum ExtentState {
    /// Nobody's.
    #[default]
    Free = 0,
    /// A bulk load fills it; scans do not see it.
    Loading = 1,
    /// Its pages are part of the object.
    Linked = 2,
}

impl ExtentState {
    /// The state with this code.
    pub const fn from_code(code: u8) -> Option<ExtentState> {
        match code {
            0 => Some(ExtentState::Free),
            1 => Some(ExtentState::Loading),
            2 => Some(ExtentState::Linked),
            _ => None,
        }
    }
}

/// What the map says of one extent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ExtentEntry {
    /// The object that the extent belongs to; 0 if it is free.
    pub owner: ObjectId,
    /// The bulk load that fills it; 0 if none.
    pub load: u32,
    /// What it is used for.
    pub state: ExtentState,
    /// Bit `i` is set while page `i` of the extent is in use.
    pub used: u64,
}

/// Extents that one map page describes.
pub const fn extents_per_map_page(page_bytes: usize) -> usize {
    (page_bytes - ENTRIES_AT) / ENTRY_BYTES
}

/// Starts the life of an extent-map page: `count` free extents from `first_extent` on.
pub fn format_extent_map(page: &mut Page, first_extent: u64, count: u32) -> Result<(), PageError> {
    let free = extents_per_map_page(page.bytes().len());
    if count as usize > free {
        return Err(PageError::Full {
            page: page.id(),
            what: "extents",
            needed: count as usize,
            free,
        });
    }
    page.reset(PageKind::ExtentMap, ObjectId(0), 0);
    put_u64(page.bytes_mut(), FIRST_AT, first_extent);
    put_u32(page.bytes_mut(), LEN_AT, count);
    Ok(())
}

/// A view of an extent-map page. An *index* counts the extents of the page; extent `first_extent() + index` is meant.
#[derive(Clone, Copy)]
pub struct ExtentRef<'a> {
    page: &'a Page,
    len: usize,
}

impl<'a> ExtentRef<'a> {
    /// Views a page as an extent map.
    pub fn new(page: &'a Page) -> Result<ExtentRef<'a>, PageError> {
        page.expect_kind(PageKind::ExtentMap)?;
        let (len, max) = (
            u32_at(page.bytes(), LEN_AT) as usize,
            extents_per_map_page(page.bytes().len()),
        );
        if len > max {
            let (expected, got) = (max as u64, len as u64);
            return Err(PageError::Corrupt {
                page: page.id(),
                what: "extents of a map page, at most",
                expected,
                got,
            });
        }
        Ok(ExtentRef { page, len })
    }

    /// Number in the volume of the page's first extent.
    pub fn first_extent(&self) -> u64 {
        u64_at(self.page.bytes(), FIRST_AT)
    }

    /// Extents.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the page describes no extent.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the map says of the extent at an index; a state that does not exist is an error.
    pub fn get(&self, index: usize) -> Result<ExtentEntry, PageError> {
        self.check_index(index)?;
        let (bytes, at) = (self.page.bytes(), entry_at(index));
        let code = bytes[at + STATE_AT];
        let Some(state) = ExtentState::from_code(code) else {
            let (expected, got) = (ExtentState::Linked as u64, u64::from(code));
            return Err(PageError::Corrupt {
                page: self.page.id(),
                what: "state of an extent, at most",
                expected,
                got,
            });
        };
        Ok(ExtentEntry {
            owner: ObjectId(u64_at(bytes, at + OWNER_AT)),
            load: u32_at(bytes, at + LOAD_AT),
            state,
            used: u64_at(bytes, at + USED_AT),
        })
    }

    /// All entries in order. Ends after the first error.
    pub fn entries(&self) -> impl Iterator<Item = Result<ExtentEntry, PageError>> + use<'a> {
        let map = *self;
        (0..map.len).map(move |index| map.get(index))
    }

    /// Index of the first free extent.
    pub fn find_free(&self) -> Option<usize> {
        (0..self.len)
            .find(|index| self.page.bytes()[entry_at(*index) + STATE_AT] == ExtentState::Free as u8)
    }

    fn check_index(&self, index: usize) -> Result<(), PageError> {
        if index < self.len {
            return Ok(());
        }
        let max = self.len.saturating_sub(1);
        Err(PageError::OutOfRange {
            page: self.page.id(),
            what: "an extent",
            max,
            got: index,
        })
    }
}

const fn entry_at(index: usize) -> usize {
    ENTRIES_AT + index * ENTRY_BYTES
}

/// Changes an extent-map page in place.
pub struct ExtentMut<'a> {
    page: &'a mut Page,
    len: usize,
}

impl<'a> ExtentMut<'a> {
    /// Takes a page as an extent map.
    pub fn new(page: &'a mut Page) -> Result<ExtentMut<'a>, PageError> {
        let len = ExtentRef::new(page)?.len;
        Ok(ExtentMut { page, len })
    }

    /// The page as it is now.
    pub fn view(&self) -> ExtentRef<'_> {
        ExtentRef {
            page: self.page,
            len: self.len,
        }
    }

    /// Replaces what the map says of an extent.
    pub fn set(&mut self, index: usize, entry: ExtentEntry) -> Result<(), PageError> {
        self.view().check_index(index)?;
        let at = entry_at(index);
        let bytes = self.page.bytes_mut();
        put_u64(bytes, at + OWNER_AT, entry.owner.0);
        put_u64(bytes, at + USED_AT, entry.used);
        put_u32(bytes, at + LOAD_AT, entry.load);
        bytes[at + STATE_AT] = entry.state as u8;
        Ok(())
    }

    /// Marks a page of an extent as in use.
    pub fn mark_used(&mut self, index: usize, bit: u8) -> Result<(), PageError> {
        self.change_used(index, bit, |used, mask| used | mask)
    }

    /// Marks a page of an extent as not in use.
    pub fn mark_free(&mut self, index: usize, bit: u8) -> Result<(), PageError> {
        self.change_used(index, bit, |used, mask| used & !mask)
    }

    fn change_used(
        &mut self,
        index: usize,
        bit: u8,
        change: impl FnOnce(u64, u64) -> u64,
    ) -> Result<(), PageError> {
        self.view().check_index(index)?;
        if u64::from(bit) >= EXTENT_PAGES_MAX {
            let max = EXTENT_PAGES_MAX as usize - 1;
            return Err(PageError::OutOfRange {
                page: self.page.id(),
                what: "a page of an extent",
                max,
                got: bit.into(),
            });
        }
        let at = entry_at(index) + USED_AT;
        let used = change(u64_at(self.page.bytes(), at), 1 << bit);
        put_u64(self.page.bytes_mut(), at, used);
        Ok(())
    }
}

/// How a volume is divided: sizes of page, segment and extent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Geometry {
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Pages of a segment.
    pub segment_pages: u64,
    /// Pages of an extent, at most [`EXTENT_PAGES_MAX`].
    pub extent_pages: u64,
}

impl Geometry {
    /// The geometry of segments of so many pages: extents of a sixteenth of one, up to 64 pages.
    pub const fn new(page_bytes: usize, segment_pages: u64) -> Geometry {
        let sixteenth = segment_pages / 16;
        let extent_pages = match sixteenth {
            0 => 1,
            1..=EXTENT_PAGES_MAX => sixteenth,
            _ => EXTENT_PAGES_MAX,
        };
        Geometry {
            page_bytes,
            segment_pages,
            extent_pages,
        }
    }

    /// Extent-map pages at the start of each segment: as few as describe all the extents after them.
    pub const fn map_pages(&self) -> u64 {
        let per_page = extents_per_map_page(self.page_bytes) as u64;
        // m map pages suffice if the other pages hold fewer than m * per_page + 1 whole extents.
        let per_map_page = per_page * self.extent_pages + 1;
        (self.segment_pages + 1)
            .saturating_sub(self.extent_pages)
            .div_ceil(per_map_page)
    }

    /// Extents of each segment.
    pub const fn extents(&self) -> u64 {
        self.segment_pages.saturating_sub(self.map_pages()) / self.extent_pages
    }

    /// The segment that a page lies in.
    pub const fn segment_of(&self, page: PageId) -> u64 {
        page.0 / self.segment_pages
    }

    /// The first page of a segment, a map page.
    pub const fn first_page(&self, segment: u64) -> PageId {
        PageId(segment * self.segment_pages)
    }

    /// The first page of a segment that can hold data.
    pub const fn first_data_page(&self, segment: u64) -> PageId {
        PageId(segment * self.segment_pages + self.map_pages())
    }

    /// The extent that a page lies in; `None` for map pages and the rest at a segment's end.
    pub const fn extent_of(&self, page: PageId) -> Option<u64> {
        let segment = self.segment_of(page);
        let first = self.first_data_page(segment).0;
        if page.0 < first {
            return None;
        }
        let index = (page.0 - first) / self.extent_pages;
        if index < self.extents() {
            Some(segment * self.extents() + index)
        } else {
            None
        }
    }

    /// The pages of an extent.
    pub const fn page_range(&self, extent: u64) -> Range<u64> {
        let first = self.first_data_page(extent / self.extents()).0
            + extent % self.extents() * self.extent_pages;
        first..first + self.extent_pages
    }

    /// The map page that describes an extent, and the extent's index in it.
    pub const fn map_place(&self, extent: u64) -> (PageId, usize) {
        let per_page = extents_per_map_page(self.page_bytes) as u64;
        let within = extent % self.extents();
        let page = extent / self.extents() * self.segment_pages + within / per_page;
        (PageId(page), (within % per_page) as usize)
    }

    /// What each map page of a segment describes: page, first extent, number of extents.
    pub fn map_layout(&self, segment: u64) -> impl Iterator<Item = (PageId, u64, u32)> + use<> {
        let per_page = extents_per_map_page(self.page_bytes) as u64;
        let (extents, first_page) = (self.extents(), self.first_page(segment).0);
        (0..self.map_pages()).map(move |index| {
            let first = index * per_page;
            let count = extents.saturating_sub(first).min(per_page);
            (
                PageId(first_page + index),
                segment * extents + first,
                count as u32,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_gib_segments_of_32_kib_pages() {
        let geometry = Geometry::new(32 * 1024, 327_680);
        assert_eq!(geometry.extent_pages, 64);
        assert_eq!(extents_per_map_page(32 * 1024), 1362);
        assert_eq!(geometry.map_pages(), 4);
        assert_eq!(geometry.extents(), (327_680 - 4) / 64);
        assert_eq!(geometry.first_data_page(1), PageId(327_684));
    }

    #[test]
    fn map_pages_are_enough_and_as_few_as_can_be() {
        for page_bytes in [1024, 16 * 1024] {
            for segment_pages in 2..6000 {
                let geometry = Geometry::new(page_bytes, segment_pages);
                let (maps, per_page) = (
                    geometry.map_pages(),
                    extents_per_map_page(page_bytes) as u64,
                );
                assert!(geometry.extents() >= 1, "{geometry:?}");
                assert!(geometry.extents() <= maps * per_page, "{geometry:?}");
                let fewer = (segment_pages - (maps - 1)) / geometry.extent_pages;
                assert!(fewer > (maps - 1) * per_page, "{geometry:?}");
            }
        }
    }

    #[test]
    fn every_page_of_an_extent_knows_it() {
        let geometry = Geometry::new(1024, 100);
        for extent in 0..3 * geometry.extents() {
            for page in geometry.page_range(extent) {
                assert_eq!(geometry.extent_of(PageId(page)), Some(extent));
                assert_eq!(
                    geometry.segment_of(PageId(page)),
                    extent / geometry.extents()
                );
            }
            let (map, index) = geometry.map_place(extent);
            let segment = geometry.segment_of(map);
            let (_, first, count) = geometry
                .map_layout(segment)
                .find(|place| place.0 == map)
                .unwrap();
            assert_eq!(first + index as u64, extent);
            assert!(index < count as usize);
        }
        assert_eq!(geometry.extent_of(PageId(0)), None);
    }

    #[test]
    fn entries_are_set_marked_and_found() {
        let mut page = Page::empty(PageId(0), 1024);
        format_extent_map(&mut page, 80, 39).unwrap();
        let mut map = ExtentMut::new(&mut page).unwrap();
        let entry = ExtentEntry {
            owner: ObjectId(5),
            load: 6,
            state: ExtentState::Linked,
            used: 1,
        };
        map.set(0, entry).unwrap();
        map.mark_used(0, 63).unwrap();
        map.mark_free(0, 0).unwrap();
        assert_eq!(
            map.view().get(0),
            Ok(ExtentEntry {
                used: 1 << 63,
                ..entry
            })
        );
        assert_eq!(map.view().find_free(), Some(1));
        assert_eq!(map.view().first_extent(), 80);
        let error = map.mark_used(39, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "page 0: expected an extent up to 38, got 39"
        );
        assert!(map.mark_used(0, 64).is_err());
        assert!(format_extent_map(&mut page, 0, 40).is_err());
    }
}
