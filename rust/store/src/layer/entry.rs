//! What the blocks of a layer hold.
//!
//! ```text
//!   records   flags u8 | [page - last page] | lsn, zigzag from the last | [origin] | [lsn - prev_page] | [lsn - prev_pg]
//!             | [time, zigzag from the last] | op length | op                     sorted by (page, lsn, origin)
//!   commits   lsn - last lsn | origin, zigzag from the last | time, zigzag from the last        sorted by (lsn, origin)
//!   images    page - last page | lsn | origin | offset | length                    sorted by (page, lsn, origin)
//! ```
//! All numbers are varints. Every block starts from zero, so that it can be read alone.

use aurora_page::{Lsn, PageId, VolumeId};
use aurora_redo::varint::{Reader, put_i64, put_u64};
use aurora_redo::{Record, RedoError};
use bytes::Bytes;

use crate::types::CommitPoint;

const CPL: u8 = 1;
const NO_PREV_PAGE: u8 = 1 << 1;
const NO_PREV_PG: u8 = 1 << 2;
const SAME_PAGE: u8 = 1 << 3;
/// The record before it in the block is the one before it on the page.
const CHAINED: u8 = 1 << 4;
const ORIGIN: u8 = 1 << 5;
const KNOWN: u8 = CPL | NO_PREV_PAGE | NO_PREV_PG | SAME_PAGE | CHAINED | ORIGIN;

/// What an entry is packed against.
#[derive(Clone, Debug, Default)]
pub(crate) struct Last {
    page: u64,
    lsn: u64,
    origin: u64,
    time: i64,
    any: bool,
}

impl Last {
    fn advance(&mut self, r: &Record) {
        (self.page, self.lsn, self.origin, self.any) = (r.page.0, r.lsn.0, r.origin.0, true);
        self.time = r.cpl.unwrap_or(self.time);
    }

    fn flags(&self, r: &Record) -> u8 {
        let same = self.any && self.page == r.page.0;
        let mut flags = if r.cpl.is_some() { CPL } else { 0 };
        flags |= if same { SAME_PAGE } else { 0 };
        flags |= match r.prev_page {
            Lsn::NONE => NO_PREV_PAGE,
            prev if same && prev.0 == self.lsn => CHAINED,
            _ => 0,
        };
        flags |= if r.prev_pg == Lsn::NONE {
            NO_PREV_PG
        } else {
            0
        };
        flags
            | if self.any && self.origin == r.origin.0 {
                0
            } else {
                ORIGIN
            }
    }
}

pub(crate) fn put_record(out: &mut Vec<u8>, r: &Record, last: &mut Last) {
    let flags = last.flags(r);
    out.push(flags);
    if flags & SAME_PAGE == 0 {
        put_u64(out, r.page.0.wrapping_sub(last.page));
    }
    put_i64(out, r.lsn.0.wrapping_sub(last.lsn) as i64);
    if flags & ORIGIN != 0 {
        put_u64(out, r.origin.0);
    }
    if flags & (NO_PREV_PAGE | CHAINED) == 0 {
        put_u64(out, r.lsn.0.wrapping_sub(r.prev_page.0));
    }
    if flags & NO_PREV_PG == 0 {
        put_u64(out, r.lsn.0.wrapping_sub(r.prev_pg.0));
    }
    if let Some(time) = r.cpl {
        put_i64(out, time.wrapping_sub(last.time));
    }
    put_u64(out, r.op.len() as u64);
    out.extend_from_slice(&r.op);
    last.advance(r);
}

/// Reads the records of a block one after another; their ops share its memory.
#[derive(Debug)]
pub(crate) struct RecordReader {
    block: Bytes,
    at: usize,
    last: Last,
}

impl RecordReader {
    pub(crate) fn new(block: Bytes) -> RecordReader {
        RecordReader {
            block,
            at: 0,
            last: Last::default(),
        }
    }

    pub(crate) fn next(&mut self) -> Option<Result<Record, RedoError>> {
        if self.at >= self.block.len() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.at = self.block.len();
        }
        Some(read)
    }

    fn read(&mut self) -> Result<Record, RedoError> {
        let base = self.at;
        let mut reader = Reader::new("layer record", &self.block[base..]);
        let last = &mut self.last;
        let flags = reader.u8()?;
        if flags & !KNOWN != 0 {
            let expected = "known bits";
            return Err(RedoError::Unknown {
                what: "layer record",
                field: "flags",
                expected,
                got: flags.into(),
            });
        }
        let page = if flags & SAME_PAGE != 0 {
            last.page
        } else {
            last.page.wrapping_add(reader.u64()?)
        };
        let lsn = last.lsn.wrapping_add(reader.i64()? as u64);
        let origin = if flags & ORIGIN != 0 {
            reader.u64()?
        } else {
            last.origin
        };
        let prev_page = match flags & (NO_PREV_PAGE | CHAINED) {
            0 => lsn.wrapping_sub(reader.u64()?),
            CHAINED => last.lsn,
            _ => 0,
        };
        let prev_pg = if flags & NO_PREV_PG != 0 {
            0
        } else {
            lsn.wrapping_sub(reader.u64()?)
        };
        let cpl = if flags & CPL != 0 {
            Some(last.time.wrapping_add(reader.i64()?))
        } else {
            None
        };
        let len = reader.length()?;
        let start = base + reader.position();
        self.at = start + len;
        let record = Record {
            lsn: Lsn(lsn),
            origin: VolumeId(origin),
            prev_pg: Lsn(prev_pg),
            prev_page: Lsn(prev_page),
            page: PageId(page),
            cpl,
            op: self.block.slice(start..start + len),
        };
        last.advance(&record);
        Ok(record)
    }
}

pub(crate) fn put_commits(out: &mut Vec<u8>, commits: &[CommitPoint]) {
    let mut last = CommitPoint {
        lsn: Lsn::NONE,
        origin: VolumeId(0),
        time_us: 0,
    };
    for commit in commits {
        put_u64(out, commit.lsn.0.wrapping_sub(last.lsn.0));
        put_i64(out, commit.origin.0.wrapping_sub(last.origin.0) as i64);
        put_i64(out, commit.time_us.wrapping_sub(last.time_us));
        last = *commit;
    }
}

pub(crate) fn read_commits(block: &[u8]) -> Result<Vec<CommitPoint>, RedoError> {
    let mut reader = Reader::new("layer commits", block);
    let mut out: Vec<CommitPoint> = Vec::new();
    let mut last = CommitPoint {
        lsn: Lsn::NONE,
        origin: VolumeId(0),
        time_us: 0,
    };
    while reader.remaining() > 0 {
        last.lsn = Lsn(last.lsn.0.wrapping_add(reader.u64()?));
        last.origin = VolumeId(last.origin.0.wrapping_add(reader.i64()? as u64));
        last.time_us = last.time_us.wrapping_add(reader.i64()?);
        out.push(last);
    }
    Ok(out)
}

/// Where a sealed page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageEntry {
    pub(crate) page: PageId,
    pub(crate) lsn: Lsn,
    pub(crate) origin: VolumeId,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl ImageEntry {
    pub(crate) fn key(&self) -> (PageId, Lsn, VolumeId) {
        (self.page, self.lsn, self.origin)
    }
}

pub(crate) fn put_images(out: &mut Vec<u8>, entries: &[ImageEntry]) {
    let mut page = 0;
    for entry in entries {
        put_u64(out, entry.page.0.wrapping_sub(page));
        put_u64(out, entry.lsn.0);
        put_u64(out, entry.origin.0);
        put_u64(out, entry.offset);
        put_u64(out, u64::from(entry.len));
        page = entry.page.0;
    }
}

pub(crate) fn read_images(block: &[u8]) -> Result<Vec<ImageEntry>, RedoError> {
    let mut reader = Reader::new("layer images", block);
    let mut out = Vec::new();
    let mut page = 0u64;
    while reader.remaining() > 0 {
        page = page.wrapping_add(reader.u64()?);
        out.push(ImageEntry {
            page: PageId(page),
            lsn: Lsn(reader.u64()?),
            origin: VolumeId(reader.u64()?),
            offset: reader.u64()?,
            len: reader.narrow("image length")?,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(page: u64, lsn: u64, prev_page: u64, cpl: Option<i64>) -> Record {
        Record {
            lsn: Lsn(lsn),
            origin: VolumeId(lsn / 50),
            prev_pg: Lsn(lsn.saturating_sub(3)),
            prev_page: Lsn(prev_page),
            page: PageId(page),
            cpl,
            op: Bytes::from(vec![lsn as u8; lsn as usize % 5]),
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let records = vec![
            record(0, 7, 0, Some(-5)),
            record(3, 2, 0, None),
            record(3, 9, 2, Some(100)),
            record(3, 120, 10, None),
            record(900, 1, 0, Some(99)),
        ];
        let (mut out, mut last) = (Vec::new(), Last::default());
        records
            .iter()
            .for_each(|r| put_record(&mut out, r, &mut last));
        let mut reader = RecordReader::new(Bytes::from(out));
        let back: Vec<_> = std::iter::from_fn(|| reader.next())
            .collect::<Result<_, _>>()
            .expect("readable");
        assert_eq!(back, records);
    }

    #[test]
    fn cut_blocks_are_errors() {
        let (mut out, mut last) = (Vec::new(), Last::default());
        put_record(&mut out, &record(3, 9, 2, Some(100)), &mut last);
        for cut in 1..out.len() {
            let mut reader = RecordReader::new(Bytes::copy_from_slice(&out[..cut]));
            assert!(matches!(reader.next(), Some(Err(_))), "cut at {cut}");
            assert!(reader.next().is_none());
        }
    }
}
