//! Finding a key in a leaf.

use std::cmp::Ordering;

use super::layout::Descriptor;
use super::read::LeafRef;
use crate::bytes_at::{array_at, slice_at};
use crate::cell::code;
use crate::key::KeyBuf;

const SIGN8: u8 = 1 << 7;
const SIGN16: u16 = 1 << 15;
const SIGN32: u32 = 1 << 31;
const SIGN64: u64 = 1 << 63;
const SIGN128: u128 = 1 << 127;

/// How far around a guess a key is looked for.
const NEAR: usize = 4;

impl LeafRef<'_> {
    /// The rank of a key, or the rank at which it would be inserted.
    ///
    /// A key of one integer, date, time, decimal, bool or uuid that is never null is compared as a number, without
    /// encoding the keys of rows.
    #[inline]
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        if self.shape.key_parts == 1 {
            let (column, descending) = self.shape.key_part(self.bytes, 0);
            let descriptor = self.descriptor(column);
            if !descriptor.nullable
                && let Some(found) = self.search_number(key, column, descriptor, descending)
            {
                return found;
            }
        }
        self.search_encoded(key)
    }

    /// The first rank whose key is not below `key`; the number of rows if there is none. `key` may be a prefix.
    #[inline]
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|rank| rank)
    }

    /// `None` if keys of this type are not compared as numbers, or the key is not as long as one.
    ///
    /// An encoded number is big-endian with the sign flipped, and inverted if it descends; doing the same to a stored
    /// number makes it comparable with the key's bytes, read as an unsigned number.
    #[inline]
    fn search_number(
        &self,
        key: &[u8],
        column: usize,
        descriptor: Descriptor,
        descending: bool,
    ) -> Option<Result<usize, usize>> {
        let (bytes, base) = (self.bytes, descriptor.values_at);
        macro_rules! by {
            ($number:ty, $from:ident, $flip:expr) => {
                by!($number, $from, $flip, |_| None)
            };
            ($number:ty, $from:ident, $flip:expr, $guess:expr) => {{
                let target = <$number>::from_be_bytes(key.try_into().ok()?);
                let flip = if descending { !$flip } else { $flip };
                self.search_by(target, $guess(target), |slot| {
                    <$number>::$from(array_at(bytes, base + slot * size_of::<$number>())) ^ flip
                })
            }};
        }
        Some(match descriptor.code {
            code::INT64 | code::TIME | code::TIMESTAMP => {
                by!(u64, from_le_bytes, SIGN64, |target| self
                    .guess(column, target, descending))
            }
            code::INT32 | code::DATE => by!(u32, from_le_bytes, SIGN32),
            code::INT16 => by!(u16, from_le_bytes, SIGN16),
            code::INT8 => by!(u8, from_le_bytes, SIGN8),
            code::BOOL => by!(u8, from_le_bytes, 0),
            code::DECIMAL => by!(u128, from_le_bytes, SIGN128),
            code::UUID => by!(u128, from_be_bytes, 0),
            _ => return None,
        })
    }

    /// Where a key would be if keys were spread evenly over the column's zone. Most tables number their rows, and then a
    /// page that is not in the processor's cache costs three lines of it instead of ten.
    #[inline(always)]
    fn guess(&self, column: usize, target: u64, descending: bool) -> Option<usize> {
        let (low, high) = self.zone(column);
        let ascending = if descending { !target } else { target };
        let span = high.checked_sub(low)?;
        let ahead = ascending.checked_sub(low)?.min(span);
        let last = self.shape.len.checked_sub(1)?;
        let rank = (ahead as f64 / (span as f64).max(1.0) * last as f64) as usize;
        Some(if descending {
            last - rank.min(last)
        } else {
            rank.min(last)
        })
    }

    /// Halves the range without branching on the outcome of a comparison; looks around the guess first.
    #[inline(always)]
    fn search_by<K: Ord + Copy>(
        &self,
        target: K,
        guess: Option<usize>,
        load: impl Fn(usize) -> K,
    ) -> Result<usize, usize> {
        let slots = self.slot_bytes();
        let at = |rank: usize| {
            load(usize::from(
                slots.get(rank).map_or(0, |slot| u16::from_le_bytes(*slot)),
            ))
        };
        let (mut low, mut size) = (0, slots.len());
        if let (Some(guess), Some(end)) = (guess, slots.len().checked_sub(1)) {
            let first = guess.saturating_sub(NEAR).min(end);
            let last = (guess + NEAR).min(end);
            if at(first) <= target && target <= at(last) {
                (low, size) = (first, last - first + 1);
            }
        }
        while size > 1 {
            let half = size / 2;
            low = if at(low + half) <= target {
                low + half
            } else {
                low
            };
            size -= half;
        }
        if size == 0 {
            return Err(0);
        }
        match at(low).cmp(&target) {
            Ordering::Equal => Ok(low),
            Ordering::Less => Err(low + 1),
            Ordering::Greater => Err(low),
        }
    }

    #[inline(always)]
    fn slot_bytes(&self) -> &[[u8; 2]] {
        let end = self.shape.slot_at(self.shape.len);
        self.bytes
            .get(self.shape.slots_at..end)
            .map_or(&[], |region| region.as_chunks().0)
    }

    fn search_encoded(&self, key: &[u8]) -> Result<usize, usize> {
        let mut scratch = KeyBuf::new();
        let (mut low, mut high) = (0, self.shape.len);
        while low < high {
            let middle = low.midpoint(high);
            match self.compare(middle, key, &mut scratch) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Compares the key of the row at a rank with an encoded one, part by part: no part is a prefix of another.
    fn compare(&self, rank: usize, key: &[u8], scratch: &mut KeyBuf) -> Ordering {
        let (slot, mut rest) = (self.slot(rank), key);
        for part in 0..self.shape.key_parts {
            if let Some(text) = self.plain_text(slot, part) {
                match compare_text(text, rest) {
                    Ok(tail) => rest = tail,
                    Err(unequal) => return unequal,
                }
                continue;
            }
            scratch.clear();
            self.encode_key_part(scratch, slot, part);
            let Some((head, tail)) = rest.split_at_checked(scratch.len()) else {
                return scratch.as_slice().cmp(rest);
            };
            match scratch.as_slice().cmp(head) {
                Ordering::Equal => rest = tail,
                unequal => return unequal,
            }
        }
        if rest.is_empty() {
            Ordering::Equal
        } else {
            Ordering::Less
        }
    }

    /// The bytes of a part of the key that stand in the encoded key as they are, but for the end mark.
    #[inline]
    fn plain_text(&self, slot: u16, part: usize) -> Option<&[u8]> {
        let (column, descending) = self.shape.key_part(self.bytes, part);
        let descriptor = self.descriptor(column);
        if descending || descriptor.nullable || !descriptor.is_var() {
            return None;
        }
        let (offset, len, in_overflow) = self.pointer(descriptor, usize::from(slot));
        let text = slice_at(self.bytes, offset, len);
        (!in_overflow && !text.contains(&0)).then_some(text)
    }
}

/// Compares a text without zero bytes, and its end mark, with the front of an encoded key; what follows if they are equal.
#[inline]
fn compare_text<'k>(text: &[u8], key: &'k [u8]) -> Result<&'k [u8], Ordering> {
    const END: &[u8] = &[0, 0];
    let Some((head, rest)) = key.split_at_checked(text.len()) else {
        return Err(text.cmp(key));
    };
    let (end, tail) = rest.split_at(rest.len().min(END.len()));
    match text.cmp(head).then(END.cmp(end)) {
        Ordering::Equal => Ok(tail),
        unequal => Err(unequal),
    }
}
