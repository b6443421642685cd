//! Pages in sealed form: what image layers, bulk loads and scan caches keep.
//!
//! A sealed leaf holds the same rows as the plain one, in key order, every column packed: integers, dates, times and
//! decimals as offsets of 0, 1, 2, 4, 8 or 16 bytes from the smallest, whatever has few distinct values as codes into
//! a dictionary, texts as offsets into one run of bytes. Scans read these arrays as they are ([`SealedRef`]). Holes of
//! the heap, free slots and zones that have become too wide are gone. Other kinds of pages keep their body as it is,
//! without the zeros at its end. For disk and wire LZ4 may go over the whole body.
//!
//! ```text
//! frame     see frame.rs                                                     64 bytes
//! body of a leaf, before compression:
//!   rows u32, columns u16, capacity u16, layout bytes u32, zero u32          16
//!   per column: its entry, see entry.rs                                      72 each
//!   layout: what the plain leaf was formatted with
//!   per column: nulls, overflow flags, values or codes, dictionary; each at a multiple of 8
//! ```
//!
//! [`unseal`] gives a plain page of the same capacity, so that a log record does the same to it as to the page that was
//! sealed. Whether two pages are the same in this sense, [`canonical`] tells.

mod canonical;
mod entry;
mod frame;
mod pack;
mod view;

pub use canonical::canonical;
pub use frame::{Compression, SEALED_FORMAT_VERSION, SEALED_HEADER_BYTES, SealedHeader};
pub use view::{PackedArray, SealedColumn, SealedData, SealedRef};

use crate::bytes_at::{put_u16, put_u32};
use crate::cell::Cell;
use crate::error::PageError;
use crate::header::HEADER_BYTES;
use crate::ids::PageId;
use crate::leaf::{Cells, LeafRef, fill_leaf, format_leaf};
use crate::page::{Page, PageKind};
use pack::{Body, pack};
use view::entry_at;

const ROWS_AT: usize = 0;
const COLUMNS_AT: usize = ROWS_AT + 4;
const CAPACITY_AT: usize = COLUMNS_AT + 2;
const LAYOUT_BYTES_AT: usize = CAPACITY_AT + 2;
const ENTRIES_AT: usize = LAYOUT_BYTES_AT + 8;

/// The page in sealed form, for disk and wire.
pub fn seal(page: &Page) -> Vec<u8> {
    seal_with(page, Compression::Lz4)
}

/// The page in sealed form, compressed or not.
pub fn seal_with(page: &Page, compression: Compression) -> Vec<u8> {
    let header = SealedHeader::of(page);
    match LeafRef::new(page) {
        Ok(leaf) => frame::write(&header, &leaf_body(&leaf), compression),
        Err(_) => frame::write(&header, page_body(page), compression),
    }
}

/// The plain page of a sealed one. Checks all that [`Page::from_disk`] checks.
pub fn unseal(bytes: &[u8], id: PageId, page_bytes: usize) -> Result<Page, PageError> {
    let (header, body) = frame::read(bytes, id)?;
    if header.page_bytes != page_bytes {
        return Err(PageError::Length {
            page: id,
            expected: page_bytes,
            got: header.page_bytes,
        });
    }
    if header.kind == PageKind::Leaf {
        return SealedRef::of_body(header, body)?.unseal();
    }
    let mut page = header.page();
    let room = &mut page.bytes_mut()[HEADER_BYTES..];
    let Some(place) = room.get_mut(..body.len()) else {
        let (expected, got) = (room.len() as u64, body.len() as u64);
        return Err(PageError::Corrupt {
            page: id,
            what: "body bytes, at most",
            expected,
            got,
        });
    };
    place.copy_from_slice(&body);
    Ok(page)
}

/// Header of a sealed page whose frame is good [7].
pub fn sealed_header(bytes: &[u8], id: PageId) -> Result<SealedHeader, PageError> {
    frame::read(bytes, id).map(|(header, _)| header)
}

impl SealedRef<'_> {
    /// The plain page.
    pub fn unseal(&self) -> Result<Page, PageError> {
        let header = self.header();
        let mut page = Page::empty(header.id, header.page_bytes);
        format_leaf(&mut page, header.object, self.layout())?;
        self.check_columns(&LeafRef::new(&page)?)?;
        let columns = (0..self.column_count())
            .map(|column| self.column(column))
            .collect();
        fill_leaf(&mut page, self.len(), &SealedCells(columns))?;
        header.stamp(&mut page);
        Ok(page)
    }

    /// The layout must be that of the columns.
    fn check_columns(&self, leaf: &LeafRef<'_>) -> Result<(), PageError> {
        let page = self.header().id;
        let corrupt = |what, expected: u64, got: u64| PageError::Corrupt {
            page,
            what,
            expected,
            got,
        };
        if leaf.capacity() != usize::from(self.capacity()) {
            return Err(corrupt(
                "capacity of a sealed leaf",
                leaf.capacity() as u64,
                self.capacity().into(),
            ));
        }
        if leaf.column_count() != self.column_count() {
            let (expected, got) = (leaf.column_count() as u64, self.column_count() as u64);
            return Err(corrupt("columns of a sealed leaf", expected, got));
        }
        for column in 0..self.column_count() {
            let (expected, got) = (leaf.column_type(column), self.column(column).data_type);
            if expected != got {
                return Err(corrupt(
                    "type code of a sealed column",
                    expected.code().into(),
                    got.code().into(),
                ));
            }
        }
        Ok(())
    }
}

/// The columns of a sealed leaf as raw cells.
struct SealedCells<'b>(Vec<SealedColumn<'b>>);

impl Cells for SealedCells<'_> {
    fn cell<'c>(&'c self, column: usize, rank: usize, fixed: &'c mut [u8; 16]) -> Cell<'c> {
        self.0[column].cell(rank, fixed)
    }
}

fn leaf_body(leaf: &LeafRef<'_>) -> Vec<u8> {
    let columns = leaf.column_count();
    let layout = leaf.layout();
    let mut body = Body {
        bytes: vec![0; entry_at(columns)],
    };
    put_u32(&mut body.bytes, ROWS_AT, leaf.len() as u32);
    put_u16(&mut body.bytes, COLUMNS_AT, columns as u16);
    put_u16(&mut body.bytes, CAPACITY_AT, leaf.capacity() as u16);
    put_u32(&mut body.bytes, LAYOUT_BYTES_AT, layout.len() as u32);
    body.bytes.extend_from_slice(&layout);
    let mut cells: Vec<Cell<'_>> = Vec::with_capacity(leaf.len());
    for column in 0..columns {
        cells.clear();
        cells.extend(leaf.slots().map(|slot| leaf.cell(slot.into(), column)));
        let mut entry = pack(&mut body, leaf.column_type(column), &cells);
        entry.id = leaf.column_id(column);
        entry.write(&mut body.bytes, entry_at(column));
    }
    body.bytes
}

fn page_body(page: &Page) -> &[u8] {
    let body = &page.bytes()[HEADER_BYTES..];
    let end = body
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    &body[..end]
}
