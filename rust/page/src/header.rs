//! The header that every page begins with.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic "APG1"
//!      4      2  format version
//!      6      1  kind
//!      7      1  zero
//!      8      8  page id
//!     16      8  object id
//!     24      8  origin: the volume of the newest record
//!     32      8  LSN of the newest record applied
//!     40      8  LSN of the record before it
//!     48      4  schema version
//!     52      4  page bytes
//!     56      4  zero
//!     60      4  CRC-32C of the bytes before it, followed by the bytes after it
//!     64         body
//! ```
//! All numbers are little-endian. In memory the CRC is stale: it is stamped on the way to disk and checked on the way back.

use crate::bytes_at::u32_at;
use crate::crc::{crc32c, crc32c_append};

/// The first bytes of every page.
pub const MAGIC: [u8; 4] = *b"APG1";

/// Version of the format of pages; a page of another version is refused.
pub const FORMAT_VERSION: u16 = 1;

pub(crate) const FORMAT_AT: usize = 4;
pub(crate) const KIND_AT: usize = FORMAT_AT + 2;
pub(crate) const PAGE_ID_AT: usize = KIND_AT + 2;
pub(crate) const OBJECT_AT: usize = PAGE_ID_AT + 8;
pub(crate) const ORIGIN_AT: usize = OBJECT_AT + 8;
pub(crate) const LSN_AT: usize = ORIGIN_AT + 8;
pub(crate) const PREV_LSN_AT: usize = LSN_AT + 8;
pub(crate) const SCHEMA_VERSION_AT: usize = PREV_LSN_AT + 8;
pub(crate) const PAGE_BYTES_AT: usize = SCHEMA_VERSION_AT + 4;
pub(crate) const CRC_AT: usize = PAGE_BYTES_AT + 8;

/// Bytes of the header; the body begins here.
pub const HEADER_BYTES: usize = CRC_AT + 4;

const _: () = assert!(HEADER_BYTES == 64);

/// The CRC that these page bytes should carry. `bytes` holds at least a header.
pub(crate) fn page_crc(bytes: &[u8]) -> u32 {
    crc32c_append(crc32c(&bytes[..CRC_AT]), &bytes[HEADER_BYTES..])
}

/// The CRC that these page bytes do carry.
pub(crate) fn stored_crc(bytes: &[u8]) -> u32 {
    u32_at(bytes, CRC_AT)
}
