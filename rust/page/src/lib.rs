//! Types, values, keys, rows and pages: what the bytes of the database mean. Pure: no I/O, no clock, no threads.
//!
//! Everything above works through this contract:
//!
//! - A [`Page`] is always in plain form in memory. [`Page::from_disk`] is the only way in from outside and checks magic,
//!   format, number, length and CRC \[7\]; [`Page::to_disk`] is the only way out. (`seal` and `unseal` are their pair for
//!   the packed form.)
//! - Views read a page without copying: [`LeafRef`], [`InnerRef`], [`OverflowView`], [`ExtentRef`]. Making one costs a few
//!   nanoseconds. Reading is total: a page with wrong insides gives wrong values, never a panic; `verify` finds them.
//! - Writers change a page in place: [`LeafMut`], [`InnerMut`], [`ExtentMut`]. They name ranks and positions, never offsets,
//!   and are deterministic: the same calls on pages of equal content give pages of equal content, and whether a
//!   change fits depends on live content only, not on holes in the heap. A change that fails leaves the page as it was.
//! - A page describes itself: a leaf holds its columns' types and its key's order, so that log records apply without a
//!   catalogue.
//! - Rows and changes outside pages are bytes too ([`encode_row`], [`encode_changes`]): that is what log records carry.
//! - Keys are compared as bytes ([`encode_key`]): the order of the bytes is the order of the rows.
//!
//! `docs/design/page.md` draws the layouts and says why they are so.

mod bytes_at;
mod cell;
mod crc;
mod error;
mod evolve;
mod extent;
mod header;
mod ids;
mod inner;
mod key;
mod leaf;
mod overflow;
mod page;
pub mod planted;
mod row;
mod schema;
mod sealed;
mod source;
mod types;
mod value;
mod varint;
mod zone;

pub use crc::{crc32c, crc32c_append};
pub use error::{PageError, RowError, RowTooWide};
pub use evolve::{ColumnMap, EvolveError, MapError, decode_value, encode_value, widens};
pub use extent::{
    EXTENT_PAGES_MAX, ExtentEntry, ExtentMut, ExtentRef, ExtentState, Geometry,
    extents_per_map_page, format_extent_map,
};
pub use header::{FORMAT_VERSION, HEADER_BYTES, MAGIC};
pub use ids::{Lsn, ObjectId, PageId, VolumeId};
pub use inner::{InnerMut, InnerRef, format_inner};
pub use key::{
    KEY_BYTES_MAX, KeyBound, KeyBuf, KeyError, decode_bound, decode_key, encode_key,
    encode_key_from, encode_key_values, encode_part, prefix_end,
};
pub use leaf::{
    LeafMut, LeafRef, VarCell, VarColumn, fill_rows, format_leaf, leaf_capacity, leaf_heap_bytes,
    leaf_layout, leaf_upgrade, row_heap_max, upgrade_leaf,
};
pub use overflow::{OverflowView, chunk_capacity, format_overflow, inline_limit};
pub use page::{Page, PageKind, is_page_bytes};
pub use row::{
    Change, Changes, Columns, RowValues, decode_row, encode_changes, encode_row, encode_row_from,
    encode_row_into, read_changes, read_row, row_heap_bytes,
};
pub use schema::{
    COLUMN_NAME_BYTES_MAX, COLUMNS_MAX, Column, KeyPart, Schema, SchemaError, ValueError,
};
pub use sealed::{
    Compression, PackedArray, SEALED_FORMAT_VERSION, SEALED_HEADER_BYTES, SealedColumn, SealedData,
    SealedHeader, SealedRef, canonical, seal, seal_with, sealed_header, unseal,
};
pub use source::PageSource;
pub use types::{DECIMAL_PRECISION_MAX, DataType, TIME_US_END, decimal_max};
pub use value::{OverflowRef, Value, ValueRef};
pub use varint::{put_varint, read_varint};
pub use zone::zone_prefix;
