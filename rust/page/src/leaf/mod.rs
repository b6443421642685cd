//! Leaves: the rows of a B+tree, column by column within the page (PAX).
//!
//! ```text
//! header                                                                      64 bytes
//! leaf header     columns u16, capacity u16, rows u16, key parts u16,
//!                 heap low u32, heap live u32, heap start u32, zero u32       24
//! descriptors     per column: id u16, type code u8, flags u8 (1 nullable),
//!                 type parameter u16, zero u16, nulls at u16, values at u16   12 each
//! key parts       per part: column u16, + 0x8000 descending                    2 each
//! zone maps       per column: smallest u64, largest u64 prefix                16 each
//! live bitmap     a bit per slot: holds a row
//! slot directory  per rank (key order): slot u16
//! per column      null bitmap (if nullable): a bit per slot, set = null
//!                 values by slot: fixed width, or heap offset u16, length u16 + 0x8000 in overflow pages
//! --- heap start
//! free
//! --- heap low
//! heap            texts, bytes, json, references to overflow pages; grows down from the page's end
//! ```
//! Regions after the key parts begin at multiples of 8. A row keeps its slot while it lives, so that no change moves
//! column data: an insert writes one slot of every column and moves only the slot directory's tail.
//!
//! The heap may have holes. Room is what live values leave ([`LeafRef::fits`]), and when the free middle is too small
//! for a change that fits, the heap is compacted in key order first.

mod compact;
mod fill;
mod layout;
mod read;
mod search;
mod upgrade;
mod var_column;
mod verify;
mod write;

pub use fill::fill_rows;
pub(crate) use fill::{Cells, fill_leaf};
pub use layout::{format_leaf, leaf_capacity, leaf_heap_bytes, leaf_layout, row_heap_max};
pub use read::LeafRef;
pub use upgrade::{leaf_upgrade, upgrade_leaf};
pub use var_column::{VarCell, VarColumn};
pub use write::LeafMut;
