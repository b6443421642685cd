//! Reading and writing numbers at offsets of a page.
//!
//! Readers are total: outside the page they give zero. A page that came from a disk has been checked by its CRC
//! \[7\], so this is no way to find damage ([`crate::LeafRef::verify`] is); it keeps a wrong offset from being a panic.

/// `N` bytes at an offset; zeros where the page ends before.
#[inline(always)]
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
        Some(found) => *found,
        None => [0; N],
    }
}

#[inline(always)]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

#[inline(always)]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[inline(always)]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// A slice at an offset; empty where the page ends before.
#[inline(always)]
pub(crate) fn slice_at(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    bytes.get(at..at + len).unwrap_or(&[])
}

/// Writes bytes at an offset. What would lie outside the page is not written: writers check their offsets first.
#[inline(always)]
pub(crate) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    match bytes.get_mut(at..at + new.len()) {
        Some(place) => place.copy_from_slice(new),
        None => debug_assert!(
            false,
            "write of {} bytes at {at} outside the page",
            new.len()
        ),
    }
}

#[inline(always)]
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, &value.to_le_bytes());
}

#[inline(always)]
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}

#[inline(always)]
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    put(bytes, at, &value.to_le_bytes());
}

/// Whether a bit of a bitmap is set; bit `i` is bit `i % 8` of byte `i / 8`.
#[inline(always)]
pub(crate) fn bit_at(bytes: &[u8], at: usize, index: usize) -> bool {
    bytes
        .get(at + index / 8)
        .is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// Sets or clears a bit of a bitmap.
#[inline(always)]
pub(crate) fn put_bit(bytes: &mut [u8], at: usize, index: usize, on: bool) {
    if let Some(byte) = bytes.get_mut(at + index / 8) {
        let mask = 1 << (index % 8);
        *byte = if on { *byte | mask } else { *byte & !mask };
    }
}
