//! One column of texts, bytes or json, read slot by slot without looking at what the bytes mean.

use super::layout::Descriptor;
use super::read::LeafRef;
use crate::cell::Cell;
use crate::value::OverflowRef;

/// A value of varying length as it lies in a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VarCell<'a> {
    /// No value.
    Null,
    /// The value. A text or json column's bytes are UTF-8, unless the page is damaged.
    Bytes(&'a [u8]),
    /// The value lies in overflow pages.
    Overflow(OverflowRef),
}

impl<'a> VarCell<'a> {
    #[inline]
    pub(crate) fn of(cell: Cell<'a>) -> VarCell<'a> {
        match cell {
            Cell::Null => VarCell::Null,
            Cell::Fixed(bytes) | Cell::Var(bytes) => VarCell::Bytes(bytes),
            Cell::Overflow(reference) => VarCell::Overflow(OverflowRef::from_bytes(*reference)),
        }
    }
}

/// See [`LeafRef::var_column`].
#[derive(Clone, Copy)]
pub struct VarColumn<'a> {
    leaf: LeafRef<'a>,
    descriptor: Descriptor,
}

impl<'a> LeafRef<'a> {
    /// A column of varying length for scans; `None` for a column of fixed width.
    pub fn var_column(&self, column: usize) -> Option<VarColumn<'a>> {
        let descriptor = self.descriptor(column);
        descriptor.is_var().then_some(VarColumn {
            leaf: *self,
            descriptor,
        })
    }
}

impl<'a> VarColumn<'a> {
    /// The value at a slot.
    #[inline]
    pub fn get(&self, slot: u16) -> VarCell<'a> {
        let slot = usize::from(slot);
        if self.descriptor.is_null(self.leaf.bytes, slot) {
            return VarCell::Null;
        }
        VarCell::of(self.leaf.var_cell(self.descriptor, slot))
    }
}
