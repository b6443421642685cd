//! A log record with its place: LSN, origin, and the links to the records before it.

use aurora_page::{Lsn, PageId, VolumeId};
use bytes::Bytes;

use crate::varint::{Reader, put_i64, put_u64};
use crate::{Op, RedoError};

/// Number of a protection group: the pages `[n * segment_pages, (n + 1) * segment_pages)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgId(pub u32);

impl std::fmt::Display for PgId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pg{}", self.0)
    }
}

/// A change of one page, with its place in the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, unique within its origin for ever.
    pub lsn: Lsn,
    /// The volume whose writer gave the number.
    pub origin: VolumeId,
    /// The record before it in its protection group; [`Lsn::NONE`] for the first.
    pub prev_pg: Lsn,
    /// The record before it of the same page; [`Lsn::NONE`] where a page's life starts [5].
    pub prev_page: Lsn,
    /// The page that it changes, and the only one.
    pub page: PageId,
    /// The last record of an MTR is a consistency point and carries the commit time in microseconds.
    pub cpl: Option<i64>,
    /// The change, encoded ([`Op`]).
    pub op: Bytes,
}

/// Flag bits of a record, shared by the record and the batch codec.
pub(crate) mod flag {
    pub const CPL: u8 = 1;
    pub const NO_PREV_PAGE: u8 = 1 << 1;
    pub const NO_PREV_PG: u8 = 1 << 2;
    /// Batch only: `prev_pg` is the record before it in the batch.
    pub const CHAINED: u8 = 1 << 3;
    /// Batch only: the LSN is one above the record before it in the batch.
    pub const DENSE: u8 = 1 << 4;
    /// Batch only: the page is that of the record before it in the batch.
    pub const SAME_PAGE: u8 = 1 << 5;
    /// Batch only: an origin follows, different from that of the record before.
    pub const ORIGIN: u8 = 1 << 6;
    pub const UNUSED: u8 = 1 << 7;
}

impl Record {
    /// Does this record end an MTR?
    pub fn is_cpl(&self) -> bool {
        self.cpl.is_some()
    }

    /// Does this record start the life of its page? Needs no valid op to answer: bad bytes start nothing.
    pub fn starts_life(&self) -> bool {
        Op::bytes_start_life(&self.op)
    }

    /// Rough size in memory, for budgets.
    pub fn weight(&self) -> usize {
        size_of::<Record>() + self.op.len()
    }

    /// Appends the record by itself, for layers that are sorted by page and not by LSN. Batches have their own form.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        flags |= if self.cpl.is_some() { flag::CPL } else { 0 };
        flags |= if self.prev_page == Lsn::NONE {
            flag::NO_PREV_PAGE
        } else {
            0
        };
        flags |= if self.prev_pg == Lsn::NONE {
            flag::NO_PREV_PG
        } else {
            0
        };
        out.push(flags);
        put_u64(out, self.page.0);
        put_u64(out, self.lsn.0);
        put_u64(out, self.origin.0);
        if self.prev_page != Lsn::NONE {
            put_u64(out, self.lsn.0 - self.prev_page.0);
        }
        if self.prev_pg != Lsn::NONE {
            put_u64(out, self.lsn.0 - self.prev_pg.0);
        }
        if let Some(time) = self.cpl {
            put_i64(out, time);
        }
        put_u64(out, self.op.len() as u64);
        out.extend_from_slice(&self.op);
    }

    /// Reads one record from the front of `bytes` and advances it; the op shares the memory of `bytes`.
    pub fn decode(bytes: &mut Bytes) -> Result<Record, RedoError> {
        let mut reader = Reader::new("record", bytes);
        let flags = reader.u8()?;
        if flags & !(flag::CPL | flag::NO_PREV_PAGE | flag::NO_PREV_PG) != 0 {
            return Err(RedoError::Unknown {
                what: "record",
                field: "flags",
                expected: "at most 7",
                got: flags.into(),
            });
        }
        let page = PageId(reader.u64()?);
        let lsn = Lsn(reader.u64()?);
        let origin = VolumeId(reader.u64()?);
        let prev_page = link(
            "previous LSN of the page",
            lsn,
            flags & flag::NO_PREV_PAGE == 0,
            &mut reader,
        )?;
        let prev_pg = link(
            "previous LSN of the group",
            lsn,
            flags & flag::NO_PREV_PG == 0,
            &mut reader,
        )?;
        let cpl = if flags & flag::CPL != 0 {
            Some(reader.i64()?)
        } else {
            None
        };
        let len = reader.length()?;
        let start = reader.position();
        let op = bytes.slice(start..start + len);
        let _ = bytes.split_to(start + len);
        Ok(Record {
            lsn,
            origin,
            prev_pg,
            prev_page,
            page,
            cpl,
            op,
        })
    }
}

/// A back link is stored as a distance: at least 1 and below the LSN, so that NONE has no second spelling.
pub(crate) fn link(
    field: &'static str,
    lsn: Lsn,
    present: bool,
    reader: &mut Reader<'_>,
) -> Result<Lsn, RedoError> {
    if !present {
        return Ok(Lsn::NONE);
    }
    let distance = reader.u64()?;
    if distance == 0 || distance >= lsn.0 {
        return Err(RedoError::Order {
            what: "record",
            field,
            expected: "below the record's own LSN",
            got: distance,
        });
    }
    Ok(Lsn(lsn.0 - distance))
}
