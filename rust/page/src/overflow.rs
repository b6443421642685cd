//! Overflow pages: a value too large for a leaf, in a chain of pieces.
//!
//! ```text
//! header                                                        64 bytes
//! next page u64 (0 = this is the last), bytes u32, zero u32     16
//! the bytes of this piece
//! ```

use crate::bytes_at::{put, put_u32, put_u64, slice_at, u32_at, u64_at};
use crate::error::PageError;
use crate::header::HEADER_BYTES;
use crate::ids::{ObjectId, PageId};
use crate::page::{Page, PageKind};

const NEXT_AT: usize = HEADER_BYTES;
const LEN_AT: usize = NEXT_AT + 8;
const CHUNK_AT: usize = LEN_AT + 8;

/// Bytes of a value that one overflow page holds.
pub const fn chunk_capacity(page_bytes: usize) -> usize {
    page_bytes - CHUNK_AT
}

/// The longest value that may lie in a leaf; longer ones go to overflow pages.
pub const fn inline_limit(page_bytes: usize) -> usize {
    page_bytes / 8
}

/// Starts the life of an overflow page. A piece that is too long leaves the page as it was.
pub fn format_overflow(
    page: &mut Page,
    object: ObjectId,
    next: PageId,
    chunk: &[u8],
) -> Result<(), PageError> {
    let free = chunk_capacity(page.bytes().len());
    if chunk.len() > free {
        return Err(PageError::Full {
            page: page.id(),
            what: "bytes",
            needed: chunk.len(),
            free,
        });
    }
    page.reset(PageKind::Overflow, object, 0);
    let bytes = page.bytes_mut();
    put_u64(bytes, NEXT_AT, next.0);
    put_u32(bytes, LEN_AT, chunk.len() as u32);
    put(bytes, CHUNK_AT, chunk);
    Ok(())
}

/// A view of an overflow page.
#[derive(Clone, Copy)]
pub struct OverflowView<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> OverflowView<'a> {
    /// Views a page as an overflow page.
    pub fn new(page: &'a Page) -> Result<OverflowView<'a>, PageError> {
        page.expect_kind(PageKind::Overflow)?;
        let bytes = page.bytes();
        let (len, max) = (u32_at(bytes, LEN_AT) as usize, chunk_capacity(bytes.len()));
        if len > max {
            let (expected, got) = (max as u64, len as u64);
            return Err(PageError::Corrupt {
                page: page.id(),
                what: "bytes of an overflow page, at most",
                expected,
                got,
            });
        }
        Ok(OverflowView { bytes, len })
    }

    /// The page with the next piece; `PageId(0)` if this is the last. (Page 0 is an extent map, never a piece.)
    pub fn next(&self) -> PageId {
        PageId(u64_at(self.bytes, NEXT_AT))
    }

    /// The bytes of this piece.
    pub fn chunk(&self) -> &'a [u8] {
        slice_at(self.bytes, CHUNK_AT, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_reads_back_and_one_byte_more_is_refused() {
        let mut page = Page::empty(PageId(9), 1024);
        let chunk = vec![7; chunk_capacity(1024)];
        format_overflow(&mut page, ObjectId(3), PageId(10), &chunk).unwrap();
        let view = OverflowView::new(&page).unwrap();
        assert_eq!((view.next(), view.chunk()), (PageId(10), chunk.as_slice()));

        let before = page.clone();
        let long = vec![8; chunk.len() + 1];
        let error = format_overflow(&mut page, ObjectId(3), PageId(0), &long).unwrap_err();
        assert_eq!(
            error,
            PageError::Full {
                page: PageId(9),
                what: "bytes",
                needed: long.len(),
                free: chunk.len()
            }
        );
        assert!(page == before);
    }

    #[test]
    fn other_kinds_are_refused() {
        let error = OverflowView::new(&Page::empty(PageId(4), 1024))
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "page 4: expected a page of kind overflow, got free"
        );
    }
}
