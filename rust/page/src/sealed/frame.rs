//! The frame around a sealed page: what page it is, how its body is stored, and the CRC [7].
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic "ASP1"
//!      4      2  version of the sealed format
//!      6      1  kind of page
//!      7      1  codec of the body: 0 as it is, 1 LZ4
//!      8      8  page id
//!     16      8  object id
//!     24      8  origin: the volume of the newest record
//!     32      8  LSN of the newest record applied
//!     40      8  LSN of the record before it
//!     48      4  schema version
//!     52      4  bytes of the page in plain form
//!     56      4  bytes of the body before compression
//!     60      4  CRC-32C of the bytes before it, followed by the stored body
//!     64         stored body, to the end
//! ```

use std::borrow::Cow;

use crate::bytes_at::{array_at, put, put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};
use crate::crc::{crc32c, crc32c_append};
use crate::error::PageError;
use crate::ids::{Lsn, ObjectId, PageId, VolumeId};
use crate::page::{Page, PageKind, is_page_bytes};

const MAGIC: [u8; 4] = *b"ASP1";

/// Version of the sealed format; another one is refused.
pub const SEALED_FORMAT_VERSION: u16 = 1;

const FORMAT_AT: usize = 4;
const KIND_AT: usize = FORMAT_AT + 2;
const CODEC_AT: usize = KIND_AT + 1;
const PAGE_ID_AT: usize = CODEC_AT + 1;
const OBJECT_AT: usize = PAGE_ID_AT + 8;
const ORIGIN_AT: usize = OBJECT_AT + 8;
const LSN_AT: usize = ORIGIN_AT + 8;
const PREV_LSN_AT: usize = LSN_AT + 8;
const SCHEMA_VERSION_AT: usize = PREV_LSN_AT + 8;
const PAGE_BYTES_AT: usize = SCHEMA_VERSION_AT + 4;
const BODY_BYTES_AT: usize = PAGE_BYTES_AT + 4;
const CRC_AT: usize = BODY_BYTES_AT + 4;

/// Bytes before the body. A multiple of 8, so that arrays aligned in the body are aligned in the frame.
pub const SEALED_HEADER_BYTES: usize = CRC_AT + 4;

const _: () = assert!(SEALED_HEADER_BYTES == 64);

/// A body is no longer than this many times its page: packed columns are hardly wider than plain ones, and their
/// directory grows with the columns, as the descriptors of a page do. It bounds what a damaged length can allocate.
const BODY_PAGES_MAX: usize = 8;

const CODEC_NONE: u8 = 0;
const CODEC_LZ4: u8 = 1;

/// Compression must save at least this part of the body, or reading it is not worth the time.
const LZ4_SAVES_AT_LEAST: usize = 8;

/// What a sealed page says about itself before its body is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedHeader {
    /// The number of the page in its volume.
    pub id: PageId,
    /// What the page holds.
    pub kind: PageKind,
    /// The table or index that the page belongs to.
    pub object: ObjectId,
    /// The volume that the newest record was written in.
    pub origin: VolumeId,
    /// The newest record that the page contains.
    pub lsn: Lsn,
    /// The record before the newest.
    pub prev_lsn: Lsn,
    /// Version of the schema that the rows were written with.
    pub schema_version: u32,
    /// Bytes of the page in plain form.
    pub page_bytes: usize,
}

impl SealedHeader {
    pub(super) fn of(page: &Page) -> SealedHeader {
        SealedHeader {
            id: page.id(),
            kind: page.kind(),
            object: page.object(),
            origin: page.origin(),
            lsn: page.lsn(),
            prev_lsn: page.prev_lsn(),
            schema_version: page.schema_version(),
            page_bytes: page.bytes().len(),
        }
    }

    /// An empty page with this header.
    pub(super) fn page(&self) -> Page {
        let mut page = Page::empty(self.id, self.page_bytes);
        page.reset(self.kind, self.object, self.schema_version);
        self.stamp(&mut page);
        page
    }

    pub(super) fn stamp(&self, page: &mut Page) {
        page.stamp(self.origin, self.prev_lsn);
        page.stamp(self.origin, self.lsn);
    }
}

/// Whether a body may be compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Never: for bodies that are read in place.
    Never,
    /// With LZ4 where that saves an eighth or more: for disk and wire.
    Lz4,
}

/// Header and body as one run of bytes.
pub(super) fn write(header: &SealedHeader, body: &[u8], compression: Compression) -> Vec<u8> {
    let (codec, stored) = match compression {
        Compression::Never => (CODEC_NONE, Cow::Borrowed(body)),
        Compression::Lz4 => compress(body),
    };
    let mut out = vec![0; SEALED_HEADER_BYTES + stored.len()];
    put(&mut out, 0, &MAGIC);
    put_u16(&mut out, FORMAT_AT, SEALED_FORMAT_VERSION);
    put(&mut out, KIND_AT, &[header.kind as u8]);
    put(&mut out, CODEC_AT, &[codec]);
    put_u64(&mut out, PAGE_ID_AT, header.id.0);
    put_u64(&mut out, OBJECT_AT, header.object.0);
    put_u64(&mut out, ORIGIN_AT, header.origin.0);
    put_u64(&mut out, LSN_AT, header.lsn.0);
    put_u64(&mut out, PREV_LSN_AT, header.prev_lsn.0);
    put_u32(&mut out, SCHEMA_VERSION_AT, header.schema_version);
    put_u32(&mut out, PAGE_BYTES_AT, header.page_bytes as u32);
    put_u32(&mut out, BODY_BYTES_AT, body.len() as u32);
    put(&mut out, SEALED_HEADER_BYTES, &stored);
    let crc = crc(&out);
    put_u32(&mut out, CRC_AT, crc);
    out
}

fn compress(body: &[u8]) -> (u8, Cow<'_, [u8]>) {
    let compressed = lz4_flex::block::compress(body);
    if compressed.len() + body.len() / LZ4_SAVES_AT_LEAST < body.len() {
        (CODEC_LZ4, Cow::Owned(compressed))
    } else {
        (CODEC_NONE, Cow::Borrowed(body))
    }
}

/// Checks everything that can be wrong with a frame and gives the body, borrowed if it was not compressed.
pub(super) fn read(bytes: &[u8], id: PageId) -> Result<(SealedHeader, Cow<'_, [u8]>), PageError> {
    if bytes.len() < SEALED_HEADER_BYTES {
        return Err(PageError::Length {
            page: id,
            expected: SEALED_HEADER_BYTES,
            got: bytes.len(),
        });
    }
    let magic = array_at(bytes, 0);
    if magic != MAGIC {
        return Err(PageError::Magic {
            page: id,
            expected: MAGIC,
            got: magic,
        });
    }
    let format = u16_at(bytes, FORMAT_AT);
    if format != SEALED_FORMAT_VERSION {
        return Err(PageError::Format {
            page: id,
            expected: SEALED_FORMAT_VERSION,
            got: format,
        });
    }
    let (expected, got) = (crc(bytes), u32_at(bytes, CRC_AT));
    if expected != got {
        return Err(PageError::Crc {
            page: id,
            expected,
            got,
        });
    }
    let header = read_header(bytes, id)?;
    let body = read_body(bytes, &header)?;
    Ok((header, body))
}

fn read_header(bytes: &[u8], id: PageId) -> Result<SealedHeader, PageError> {
    let corrupt = |what, expected: u64, got: u64| PageError::Corrupt {
        page: id,
        what,
        expected,
        got,
    };
    let code = bytes[KIND_AT];
    let kind = PageKind::from_code(code)
        .ok_or_else(|| corrupt("kind", PageKind::ExtentMap as u64, code.into()))?;
    let header = SealedHeader {
        id: PageId(u64_at(bytes, PAGE_ID_AT)),
        kind,
        object: ObjectId(u64_at(bytes, OBJECT_AT)),
        origin: VolumeId(u64_at(bytes, ORIGIN_AT)),
        lsn: Lsn(u64_at(bytes, LSN_AT)),
        prev_lsn: Lsn(u64_at(bytes, PREV_LSN_AT)),
        schema_version: u32_at(bytes, SCHEMA_VERSION_AT),
        page_bytes: u32_at(bytes, PAGE_BYTES_AT) as usize,
    };
    if header.id != id {
        return Err(PageError::Id {
            page: id,
            got: header.id,
        });
    }
    if !is_page_bytes(header.page_bytes) {
        return Err(corrupt("page bytes", 32 * 1024, header.page_bytes as u64));
    }
    Ok(header)
}

fn read_body<'a>(bytes: &'a [u8], header: &SealedHeader) -> Result<Cow<'a, [u8]>, PageError> {
    let stored = &bytes[SEALED_HEADER_BYTES..];
    let body_bytes = u32_at(bytes, BODY_BYTES_AT) as usize;
    let corrupt = |what, expected: usize, got: usize| {
        let (expected, got) = (expected as u64, got as u64);
        PageError::Corrupt {
            page: header.id,
            what,
            expected,
            got,
        }
    };
    let body_max = BODY_PAGES_MAX * header.page_bytes;
    if body_bytes > body_max {
        return Err(corrupt("body bytes", body_max, body_bytes));
    }
    let body = match bytes[CODEC_AT] {
        CODEC_NONE => Cow::Borrowed(stored),
        CODEC_LZ4 => {
            let body = lz4_flex::block::decompress(stored, body_bytes);
            Cow::Owned(body.map_err(|_| corrupt("LZ4 body", body_bytes, stored.len()))?)
        }
        codec => return Err(corrupt("codec", CODEC_LZ4.into(), codec.into())),
    };
    if body.len() != body_bytes {
        return Err(corrupt("body bytes", body_bytes, body.len()));
    }
    Ok(body)
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c_append(crc32c(&bytes[..CRC_AT]), &bytes[SEALED_HEADER_BYTES..])
}
