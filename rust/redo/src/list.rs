//! Lists inside an op: rows of a leaf, separators of an inner page. Checked once when parsed, walked without copying.

use aurora_page::PageId;

use crate::RedoError;
use crate::varint::{Reader, put_u64};

/// Encoded rows, each behind its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowsRef<'a> {
    bytes: &'a [u8],
}

impl<'a> RowsRef<'a> {
    /// Bytes of a list of encoded rows, for [`RowsRef::parse`].
    pub fn encode<R: AsRef<[u8]>>(rows: impl IntoIterator<Item = R>) -> Vec<u8> {
        let mut out = Vec::new();
        for row in rows {
            put_u64(&mut out, row.as_ref().len() as u64);
            out.extend_from_slice(row.as_ref());
        }
        out
    }

    /// Checks that `bytes` are a list to their end.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RedoError> {
        let mut reader = Reader::new("row list", bytes);
        while reader.remaining() > 0 {
            next_slice(&mut reader)?;
        }
        Ok(RowsRef { bytes })
    }

    /// The list's own bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new("row list", self.bytes);
        std::iter::from_fn(move || next_slice(&mut reader).ok())
    }
}

/// Separators of an inner page, each with the child to its right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntriesRef<'a> {
    bytes: &'a [u8],
}

impl<'a> EntriesRef<'a> {
    /// Bytes of a list of separators, for [`EntriesRef::parse`].
    pub fn encode<K: AsRef<[u8]>>(entries: impl IntoIterator<Item = (K, PageId)>) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, child) in entries {
            put_u64(&mut out, key.as_ref().len() as u64);
            out.extend_from_slice(key.as_ref());
            put_u64(&mut out, child.0);
        }
        out
    }

    /// Checks that `bytes` are a list to their end.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RedoError> {
        let mut reader = Reader::new("separator list", bytes);
        while reader.remaining() > 0 {
            next_entry(&mut reader)?;
        }
        Ok(EntriesRef { bytes })
    }

    /// The list's own bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The separators, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], PageId)> + use<'a> {
        let mut reader = Reader::new("separator list", self.bytes);
        std::iter::from_fn(move || next_entry(&mut reader).ok())
    }
}

fn next_slice<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], RedoError> {
    let len = reader.length()?;
    reader.bytes(len)
}

fn next_entry<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], PageId), RedoError> {
    let key = next_slice(reader)?;
    Ok((key, PageId(reader.u64()?)))
}
