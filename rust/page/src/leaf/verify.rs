//! Checking that a leaf holds together: what the CRC cannot tell, because it vouches for the bytes only.

use super::layout::Descriptor;
use super::read::LeafRef;
use crate::bytes_at::bit_at;
use crate::cell::Cell;
use crate::error::{PageError, RowError};
use crate::types::DataType;
use crate::zone::cell_zone;

impl LeafRef<'_> {
    /// Checks everything that readers and writers rely on: that descriptors, slots and pointers stay within their
    /// regions, rows have slots of their own, values are possible and within their zones, keys ascend, counts agree.
    pub fn verify(&self) -> Result<(), PageError> {
        self.verify_columns()?;
        self.verify_slots()?;
        self.verify_values()?;
        self.verify_order()
    }

    fn verify_columns(&self) -> Result<(), PageError> {
        let mut at = self.shape.columns_at();
        for column in 0..self.shape.columns {
            let descriptor = self.descriptor(column);
            if DataType::from_code(descriptor.code, descriptor.param).is_none() {
                return Err(self.corrupt("type code of a column", 1, usize::from(descriptor.code)));
            }
            if descriptor.nullable {
                self.expect("null bitmap of a column", at, descriptor.nulls_at)?;
                at += self.shape.capacity.div_ceil(8).next_multiple_of(8);
            }
            self.expect("values of a column", at, descriptor.values_at)?;
            at += (self.shape.capacity * descriptor.slot_bytes()).next_multiple_of(8);
        }
        self.expect("start of the heap", at, self.shape.heap_start)?;
        for part in 0..self.shape.key_parts {
            let (column, _) = self.shape.stored_key_part(self.bytes, part);
            if column >= self.shape.columns {
                return Err(self.corrupt(
                    "column of a key part, below",
                    self.shape.columns,
                    column,
                ));
            }
        }
        Ok(())
    }

    fn verify_slots(&self) -> Result<(), PageError> {
        let mut seen = vec![false; self.shape.capacity];
        for slot in self.slots().map(usize::from) {
            if slot >= self.shape.capacity {
                return Err(self.corrupt("slot of a row, below", self.shape.capacity, slot));
            }
            if seen[slot] || !bit_at(self.bytes, self.shape.live_at, slot) {
                return Err(self.corrupt("rows in a live slot", 1, usize::from(seen[slot]) * 2));
            }
            seen[slot] = true;
        }
        let live = self
            .live_bitmap()
            .iter()
            .map(|byte| byte.count_ones() as usize)
            .sum();
        self.expect("live slots", self.shape.len, live)
    }

    fn verify_values(&self) -> Result<(), PageError> {
        let mut spans = Vec::new();
        for column in 0..self.shape.columns {
            let descriptor = self.descriptor(column);
            for slot in self.slots().map(usize::from) {
                if descriptor.is_var() {
                    self.verify_pointer(descriptor, slot, &mut spans)?;
                }
                let cell = self.cell(slot, column);
                if matches!(cell, Cell::Overflow(_))
                    && self.key_parts().any(|(part, _)| part == column)
                {
                    return Err(PageError::Row {
                        page: self.page.id(),
                        source: RowError::KeyOverflow { column },
                    });
                }
                cell.check(column, descriptor.code)
                    .map_err(|source| PageError::Row {
                        page: self.page.id(),
                        source,
                    })?;
                let (low, high) = self.zone(column);
                if let Some((smallest, largest)) = cell_zone(descriptor.code, cell)
                    && (smallest < low || largest > high)
                {
                    return Err(self.corrupt(
                        "prefix of a value, within its zone from",
                        low as usize,
                        smallest as usize,
                    ));
                }
            }
        }
        self.expect(
            "live bytes of the heap",
            spans.iter().map(|(_, len)| len).sum(),
            self.heap_live(),
        )?;
        spans.sort_unstable();
        match spans
            .windows(2)
            .find(|pair| pair[0].0 + pair[0].1 > pair[1].0)
        {
            Some(pair) => Err(self.corrupt(
                "offset of a value, at least",
                pair[0].0 + pair[0].1,
                pair[1].0,
            )),
            None => Ok(()),
        }
    }

    fn verify_pointer(
        &self,
        descriptor: Descriptor,
        slot: usize,
        spans: &mut Vec<(usize, usize)>,
    ) -> Result<(), PageError> {
        let (offset, len, in_overflow) = self.pointer(descriptor, slot);
        if in_overflow {
            self.expect(
                "bytes of a reference to overflow pages",
                crate::OverflowRef::BYTES,
                len,
            )?;
        }
        if descriptor.is_null(self.bytes, slot) {
            return self.expect("bytes of a null", 0, len);
        }
        if len == 0 {
            return Ok(());
        }
        let low = self.heap_low().max(self.shape.heap_start);
        if offset < low {
            return Err(self.corrupt("offset of a value, at least", low, offset));
        }
        if offset + len > self.bytes.len() {
            return Err(self.corrupt("end of a value, at most", self.bytes.len(), offset + len));
        }
        spans.push((offset, len));
        Ok(())
    }

    fn verify_order(&self) -> Result<(), PageError> {
        let mut ranks = 0..self.shape.len;
        let Some(mut before) = ranks.next().map(|rank| self.key_at(rank)) else {
            return Ok(());
        };
        for rank in ranks {
            let key = self.key_at(rank);
            if key <= before {
                return Err(self.corrupt(
                    "rank of the first key that does not ascend, none below",
                    self.shape.len,
                    rank,
                ));
            }
            before = key;
        }
        Ok(())
    }

    fn expect(&self, what: &'static str, expected: usize, got: usize) -> Result<(), PageError> {
        if expected == got {
            Ok(())
        } else {
            Err(self.corrupt(what, expected, got))
        }
    }

    fn corrupt(&self, what: &'static str, expected: usize, got: usize) -> PageError {
        PageError::Corrupt {
            page: self.page.id(),
            what,
            expected: expected as u64,
            got: got as u64,
        }
    }
}
