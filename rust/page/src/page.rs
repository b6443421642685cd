//! A page in memory: its bytes in plain form, and the fields of its header.

use std::fmt;

use crate::bytes_at::{array_at, put, put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};
use crate::error::PageError;
use crate::header::{
    CRC_AT, FORMAT_AT, FORMAT_VERSION, KIND_AT, LSN_AT, MAGIC, OBJECT_AT, ORIGIN_AT, PAGE_BYTES_AT,
    PAGE_ID_AT, PREV_LSN_AT, SCHEMA_VERSION_AT, page_crc, stored_crc,
};
use crate::ids::{Lsn, ObjectId, PageId, VolumeId};

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum PageKind {
    /// Nothing: never written, or given back.
    Free = 0,
    /// Rows of a B+tree.
    Leaf = 1,
    /// Separators and children of a B+tree.
    Inner = 2,
    /// A piece of a value too large for a leaf.
    Overflow = 3,
    /// Which extents belong to which object.
    ExtentMap = 4,
}

impl PageKind {
    /// The kind with this code.
    pub const fn from_code(code: u8) -> Option<PageKind> {
        match code {
            0 => Some(PageKind::Free),
            1 => Some(PageKind::Leaf),
            2 => Some(PageKind::Inner),
            3 => Some(PageKind::Overflow),
            4 => Some(PageKind::ExtentMap),
            _ => None,
        }
    }
}

impl fmt::Display for PageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PageKind::Free => "free",
            PageKind::Leaf => "leaf",
            PageKind::Inner => "inner",
            PageKind::Overflow => "overflow",
            PageKind::ExtentMap => "extent map",
        })
    }
}

/// Whether pages can have this many bytes. Volumes offer 16, 32 and 64 KiB; the format holds from 1 KiB on, for tests
/// and simulations that want full pages soon.
pub const fn is_page_bytes(page_bytes: usize) -> bool {
    page_bytes.is_power_of_two() && page_bytes >= 1024 && page_bytes <= 64 * 1024
}

/// A page in plain form. Cloning copies it.
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    bytes: Box<[u8]>,
}

impl Page {
    /// A page that was never written: kind free, no LSN.
    ///
    /// # Panics
    /// If there are no pages of that size ([`is_page_bytes`]).
    pub fn empty(id: PageId, page_bytes: usize) -> Page {
        assert!(
            is_page_bytes(page_bytes),
            "pages of {page_bytes} bytes do not exist"
        );
        let mut bytes = vec![0; page_bytes].into_boxed_slice();
        put(&mut bytes, 0, &MAGIC);
        put_u16(&mut bytes, FORMAT_AT, FORMAT_VERSION);
        put_u64(&mut bytes, PAGE_ID_AT, id.0);
        put_u32(&mut bytes, PAGE_BYTES_AT, page_bytes as u32);
        Page { bytes }
    }

    /// The page in bytes that came from a disk or a network: magic, format, id, length and CRC are checked \[7\].
    pub fn from_disk(bytes: Box<[u8]>, id: PageId) -> Result<Page, PageError> {
        check_length(&bytes, id)?;
        let magic = array_at(&bytes, 0);
        if magic != MAGIC {
            return Err(PageError::Magic {
                page: id,
                expected: MAGIC,
                got: magic,
            });
        }
        let format = u16_at(&bytes, FORMAT_AT);
        if format != FORMAT_VERSION {
            return Err(PageError::Format {
                page: id,
                expected: FORMAT_VERSION,
                got: format,
            });
        }
        let (expected, got) = (page_crc(&bytes), stored_crc(&bytes));
        if expected != got {
            return Err(PageError::Crc {
                page: id,
                expected,
                got,
            });
        }
        let page = Page { bytes };
        page.check_header(id)?;
        Ok(page)
    }

    /// What the CRC vouches for must be what was asked for, and possible.
    fn check_header(&self, id: PageId) -> Result<(), PageError> {
        if self.id() != id {
            return Err(PageError::Id {
                page: id,
                got: self.id(),
            });
        }
        let claimed = u32_at(&self.bytes, PAGE_BYTES_AT) as usize;
        if claimed != self.bytes.len() {
            return Err(PageError::Length {
                page: id,
                expected: claimed,
                got: self.bytes.len(),
            });
        }
        let code = self.bytes[KIND_AT];
        if PageKind::from_code(code).is_none() {
            let (expected, got) = (PageKind::ExtentMap as u64, u64::from(code));
            return Err(PageError::Corrupt {
                page: id,
                what: "kind",
                expected,
                got,
            });
        }
        Ok(())
    }

    /// A copy of the bytes with the CRC stamped.
    pub fn to_disk(&self) -> Box<[u8]> {
        let mut bytes = self.bytes.clone();
        let crc = page_crc(&bytes);
        put_u32(&mut bytes, CRC_AT, crc);
        bytes
    }

    /// All bytes; the CRC in them is stale.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The number of the page in its volume.
    #[inline]
    pub fn id(&self) -> PageId {
        PageId(u64_at(&self.bytes, PAGE_ID_AT))
    }

    /// The table or index that the page belongs to.
    #[inline]
    pub fn object(&self) -> ObjectId {
        ObjectId(u64_at(&self.bytes, OBJECT_AT))
    }

    /// What the page holds.
    #[inline]
    pub fn kind(&self) -> PageKind {
        PageKind::from_code(self.bytes[KIND_AT]).unwrap_or(PageKind::Free)
    }

    /// Version of the schema that the rows were written with.
    #[inline]
    pub fn schema_version(&self) -> u32 {
        u32_at(&self.bytes, SCHEMA_VERSION_AT)
    }

    /// The volume that the newest record was written in.
    #[inline]
    pub fn origin(&self) -> VolumeId {
        VolumeId(u64_at(&self.bytes, ORIGIN_AT))
    }

    /// The newest record that the page contains.
    #[inline]
    pub fn lsn(&self) -> Lsn {
        Lsn(u64_at(&self.bytes, LSN_AT))
    }

    /// The record before the newest.
    #[inline]
    pub fn prev_lsn(&self) -> Lsn {
        Lsn(u64_at(&self.bytes, PREV_LSN_AT))
    }

    /// Notes the record that was just applied; the LSN so far becomes the previous one \[5\].
    pub fn stamp(&mut self, origin: VolumeId, lsn: Lsn) {
        let prev = self.lsn();
        put_u64(&mut self.bytes, PREV_LSN_AT, prev.0);
        put_u64(&mut self.bytes, LSN_AT, lsn.0);
        put_u64(&mut self.bytes, ORIGIN_AT, origin.0);
    }

    /// Starts the page's life anew: an empty body, no LSN. Its number and size stay.
    pub fn reset(&mut self, kind: PageKind, object: ObjectId, schema_version: u32) {
        let (id, page_bytes) = (self.id(), self.bytes.len());
        self.bytes.fill(0);
        put(&mut self.bytes, 0, &MAGIC);
        put_u16(&mut self.bytes, FORMAT_AT, FORMAT_VERSION);
        self.bytes[KIND_AT] = kind as u8;
        put_u64(&mut self.bytes, PAGE_ID_AT, id.0);
        put_u64(&mut self.bytes, OBJECT_AT, object.0);
        put_u32(&mut self.bytes, SCHEMA_VERSION_AT, schema_version);
        put_u32(&mut self.bytes, PAGE_BYTES_AT, page_bytes as u32);
    }

    pub(crate) fn expect_kind(&self, expected: PageKind) -> Result<(), PageError> {
        let got = self.kind();
        if got == expected {
            return Ok(());
        }
        Err(PageError::Kind {
            page: self.id(),
            expected,
            got,
        })
    }
}

fn check_length(bytes: &[u8], id: PageId) -> Result<(), PageError> {
    if is_page_bytes(bytes.len()) {
        return Ok(());
    }
    let claimed = u32_at(bytes, PAGE_BYTES_AT) as usize;
    let expected = if is_page_bytes(claimed) {
        claimed
    } else {
        32 * 1024
    };
    Err(PageError::Length {
        page: id,
        expected,
        got: bytes.len(),
    })
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("id", &self.id().0)
            .field("kind", &self.kind())
            .field("object", &self.object().0)
            .field("origin", &self.origin().0)
            .field("lsn", &self.lsn().0)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}
