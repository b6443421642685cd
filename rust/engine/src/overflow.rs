//! Values too large for a leaf: chains of overflow pages.
//!
//! A chain is written with its row, in one MTR, never changed, and freed when its row drops it.

use std::sync::Arc;

use aurora_page::{
    Lsn, ObjectId, OverflowRef, OverflowView, Page, PageId, Schema, Value, ValueRef,
    chunk_capacity, inline_limit, row_heap_max,
};
use aurora_redo::Op;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::btree::Pages;
use crate::edit::{Edit, View};
use crate::error::{Attempt, EngineError};
use crate::pool::Pool;
use crate::table::Table;

/// Most bytes of one value.
pub const VALUE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Columns whose values go to overflow pages.
pub(crate) type Spill = SmallVec<[u16; 4]>;

/// The bytes of a text, bytes or json value.
pub(crate) fn var_bytes<'v>(value: ValueRef<'v>) -> Option<&'v [u8]> {
    match value {
        ValueRef::Text(text) | ValueRef::Json(text) => Some(text.as_bytes()),
        ValueRef::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// Which values of a row must leave it: all that are longer than a leaf takes, then the longest until two such rows
/// fit any leaf. The key stays. Fails with the bytes that are still too many.
pub(crate) fn spill(schema: &Schema, values: &[Value], page_bytes: usize) -> Result<Spill, usize> {
    let mut total = 0;
    let mut movable: SmallVec<[(usize, u16); 8]> = SmallVec::new();
    for (column, value) in values.iter().enumerate() {
        if let Value::Overflow(_) = value {
            total += OverflowRef::BYTES;
        }
        let Some(bytes) = var_bytes(value.as_ref()) else {
            continue;
        };
        total += bytes.len();
        if bytes.len() > OverflowRef::BYTES
            && !schema
                .key()
                .iter()
                .any(|part| usize::from(part.column) == column)
        {
            movable.push((bytes.len(), column as u16));
        }
    }
    if total <= row_heap_max(page_bytes) {
        return Ok(Spill::new());
    }
    movable.sort_unstable_by(|a, b| b.cmp(a));
    let mut columns = Spill::new();
    for (len, column) in movable {
        if total <= row_heap_max(page_bytes) && len <= inline_limit(page_bytes) {
            break;
        }
        total -= len - OverflowRef::BYTES;
        columns.push(column);
    }
    if total <= row_heap_max(page_bytes) {
        Ok(columns)
    } else {
        Err(total)
    }
}

/// The pages of chains, as far as they are known. A chain that is to be freed is walked page by page, and what has been
/// walked is kept over restarts, so that a long one is not walked again for each page that has to be fetched.
#[derive(Default)]
pub(crate) struct Chains(FxHashMap<PageId, Vec<PageId>>);

impl Edit<'_> {
    /// Writes a value to pages of its own.
    pub fn store_value(
        &mut self,
        object: ObjectId,
        near: PageId,
        bytes: &[u8],
    ) -> Attempt<OverflowRef> {
        let chunks: Vec<&[u8]> = bytes
            .chunks(chunk_capacity(self.geometry.page_bytes))
            .collect();
        let mut pages = Vec::with_capacity(chunks.len());
        let mut near = near;
        for _ in &chunks {
            near = self.allocate(object, near)?;
            pages.push(near);
        }
        for (at, chunk) in chunks.iter().enumerate() {
            let next = pages.get(at + 1).copied().unwrap_or_default();
            self.start(
                pages[at],
                &Op::FormatOverflow {
                    object,
                    next,
                    bytes: chunk,
                },
            )?;
        }
        Ok(OverflowRef {
            first: pages.first().copied().unwrap_or_default(),
            len: bytes.len() as u64,
        })
    }

    /// The row's values with those of the `spill` columns written to pages of their own.
    pub fn spill_values(
        &mut self,
        table: &Table,
        values: &mut [Value],
        spill: &[u16],
    ) -> Attempt<()> {
        for &column in spill {
            let value = std::mem::replace(&mut values[usize::from(column)], Value::Null);
            let stored = match var_bytes(value.as_ref()) {
                Some(bytes) => Value::Overflow(self.store_value(table.id, table.root, bytes)?),
                None => value,
            };
            values[usize::from(column)] = stored;
        }
        Ok(())
    }

    /// Frees the pages of a value.
    pub fn free_value(&mut self, reference: OverflowRef, chains: &mut Chains) -> Attempt<()> {
        let walked = chains.0.entry(reference.first).or_default();
        let count = reference
            .len
            .div_ceil(chunk_capacity(self.geometry.page_bytes) as u64);
        while (walked.len() as u64) < count {
            let next = match walked.last() {
                None => reference.first,
                Some(&last) => OverflowView::new(&*self.work.page(last)?)?.next(),
            };
            if next == PageId::default() {
                let expected = format!(
                    "a chain of {count} pages for a value of {} bytes",
                    reference.len
                );
                let got = format!("its end after {}", walked.len());
                return Err(EngineError::corrupt(reference.first, self.at, expected, got).into());
            }
            // Fetched before it is noted, so that a restart goes on here.
            self.work.page(next)?;
            walked.push(next);
        }
        for page in walked.clone() {
            self.free_page(page)?;
        }
        Ok(())
    }
}

/// A value from its overflow pages, for values that are short beside the cache: a restart reads all of it again.
pub(crate) fn read_chain(pages: &impl Pages, reference: OverflowRef) -> Attempt<Vec<u8>> {
    let (mut bytes, mut next) = (Vec::new(), reference.first);
    while (bytes.len() as u64) < reference.len {
        let page = pages.page(next)?;
        let piece = OverflowView::new(&page)?;
        if piece.chunk().is_empty() {
            let expected = format!("a value of {} bytes", reference.len);
            let got = format!("its end after {}", bytes.len());
            return Err(EngineError::corrupt(next, pages.at(), expected, got).into());
        }
        bytes.extend_from_slice(piece.chunk());
        next = piece.next();
    }
    Ok(bytes)
}

/// Reads a value from its overflow pages, keeping what it has over restarts.
pub struct OverflowReader {
    reference: OverflowRef,
    at: Lsn,
    next: PageId,
    bytes: Vec<u8>,
}

impl OverflowReader {
    /// A reader of the value as of a read point at which a row refers to it.
    pub fn new(reference: OverflowRef, at: Lsn) -> OverflowReader {
        OverflowReader {
            reference,
            at,
            next: reference.first,
            bytes: Vec::new(),
        }
    }

    pub(crate) fn read(&mut self, pool: &Pool, vdl: Lsn) -> Attempt<Vec<u8>> {
        let view = View {
            pool,
            at: self.at,
            vdl,
        };
        while (self.bytes.len() as u64) < self.reference.len {
            let page: Arc<Page> = view.page(self.next)?;
            let piece = OverflowView::new(&page)?;
            let left = self.reference.len - self.bytes.len() as u64;
            if piece.chunk().is_empty() || piece.chunk().len() as u64 > left {
                let expected = format!(
                    "1 to {left} more bytes of a value of {}",
                    self.reference.len
                );
                let got = format!("{}", piece.chunk().len());
                return Err(EngineError::corrupt(self.next, self.at, expected, got).into());
            }
            self.bytes.extend_from_slice(piece.chunk());
            self.next = piece.next();
        }
        Ok(std::mem::take(&mut self.bytes))
    }
}
