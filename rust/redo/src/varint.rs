//! Variable-length integers: seven bits a byte, least significant first, the top bit says that more follow.
//!
//! Only the shortest form is accepted, so that equal values have equal bytes and golden files stay comparable.

use crate::RedoError;

/// The longest encoding of a `u64`.
pub const MAX_LEN: usize = 10;

/// Appends `value`.
#[inline]
pub fn put_u64<O: Extend<u8>>(out: &mut O, mut value: u64) {
    let mut buffer = [0u8; MAX_LEN];
    let mut len = 0;
    while value >= 0x80 {
        buffer[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    buffer[len] = value as u8;
    out.extend(buffer[..=len].iter().copied());
}

/// Appends a signed value: zigzag, so that small magnitudes of either sign are short.
#[inline]
pub fn put_i64<O: Extend<u8>>(out: &mut O, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// A cursor over bytes of unknown quality: every read is checked and a failure says where and what.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `bytes`; `what` names the thing in errors ("batch", "op").
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0, what }
    }

    /// Bytes consumed so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet consumed.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn truncated(&self, needed: usize) -> RedoError {
        RedoError::Truncated {
            what: self.what,
            at: self.at,
            needed,
            got: self.remaining(),
        }
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, RedoError> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.truncated(1))?;
        self.at += 1;
        Ok(byte)
    }

    /// An unsigned variable-length integer.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, RedoError> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        self.u64_long(first)
    }

    fn u64_long(&mut self, first: u8) -> Result<u64, RedoError> {
        let start = self.at - 1;
        let mut value = u64::from(first & 0x7f);
        for shift in (7..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if (shift == 63 && bits > 1) || byte == 0 {
                return Err(RedoError::BadVarint {
                    what: self.what,
                    at: start,
                });
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RedoError::BadVarint {
            what: self.what,
            at: start,
        })
    }

    /// A signed (zigzag) variable-length integer.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, RedoError> {
        let raw = self.u64()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// An unsigned integer that must fit a narrower type; `field` names it in the error.
    #[inline]
    pub fn narrow<T: TryFrom<u64>>(&mut self, field: &'static str) -> Result<T, RedoError> {
        let value = self.u64()?;
        T::try_from(value).map_err(|_| RedoError::OutOfRange {
            what: self.what,
            field,
            got: value,
        })
    }

    /// The next `len` bytes.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], RedoError> {
        if self.remaining() < len {
            return Err(self.truncated(len));
        }
        let out = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(out)
    }

    /// A length, checked against what remains, so that a forged length allocates nothing.
    #[inline]
    pub fn length(&mut self) -> Result<usize, RedoError> {
        let len = self.u64()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.remaining() => Ok(len),
            _ => Err(self.truncated(usize::try_from(len).unwrap_or(usize::MAX))),
        }
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let out = &self.bytes[self.at..];
        self.at = self.bytes.len();
        out
    }

    /// Nothing may follow.
    pub fn finish(&self) -> Result<(), RedoError> {
        match self.remaining() {
            0 => Ok(()),
            got => Err(RedoError::TrailingBytes {
                what: self.what,
                got,
            }),
        }
    }
}
