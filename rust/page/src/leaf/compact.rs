//! Taking the holes out of a leaf's heap.

use super::layout::{HEAP_LOW_AT, POINTER_BYTES};
use super::write::LeafMut;
use crate::bytes_at::{put, put_u16, put_u32};
use crate::error::PageError;

/// The live values of a heap, one after the other.
struct Compacted {
    heap: Vec<u8>,
    /// Per value: where its pointer lies in the page, and the value's place in `heap`.
    places: Vec<(usize, usize)>,
}

impl LeafMut<'_> {
    /// Rewrites the heap without holes: column after column, each in key order.
    pub(super) fn compact(&mut self) -> Result<(), PageError> {
        let Compacted { heap, places } = self.compacted()?;
        let bytes = self.page.bytes_mut();
        let low = bytes.len() - heap.len();
        put(bytes, low, &heap);
        for (pointer_at, place) in places {
            put_u16(bytes, pointer_at, (low + place) as u16);
        }
        put_u32(bytes, HEAP_LOW_AT, low as u32);
        Ok(())
    }

    fn compacted(&self) -> Result<Compacted, PageError> {
        let leaf = self.view();
        let (mut heap, mut places) = (Vec::with_capacity(leaf.heap_live()), Vec::new());
        for column in 0..leaf.column_count() {
            let descriptor = leaf.descriptor(column);
            if !descriptor.is_var() {
                continue;
            }
            for slot in leaf.slots().map(usize::from) {
                let (offset, len, _) = leaf.pointer(descriptor, slot);
                if len > 0 {
                    places.push((descriptor.values_at + slot * POINTER_BYTES, heap.len()));
                    heap.extend_from_slice(leaf.bytes.get(offset..offset + len).unwrap_or(&[]));
                }
            }
        }
        if heap.len() > leaf.heap_capacity() {
            return Err(PageError::Corrupt {
                page: self.page.id(),
                what: "live bytes of the heap, at most",
                expected: leaf.heap_capacity() as u64,
                got: heap.len() as u64,
            });
        }
        Ok(Compacted { heap, places })
    }
}
