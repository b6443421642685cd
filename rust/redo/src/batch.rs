//! What the writer sends to a protection group: records, packed.
//!
//! ```text
//!   batch    format u8 | pg | epoch | vdl | count | count x record                all integers are varints
//!   record   flags u8 | [lsn - last lsn] | [origin] | [page, zigzag from the last] | [lsn - prev_page] | [lsn - prev_pg]
//!            | [time, zigzag from the last] | op length | op
//! ```
//! Fields in brackets are there only where the flags do not already say them: in a batch of neighbours an LSN, a page
//! and both links mostly cost nothing. A batch has no checksum of its own; the frame or layer that carries it has [7].

use aurora_page::{Lsn, PageId, VolumeId};
use bytes::Bytes;

use crate::record::{flag, link};
use crate::varint::{Reader, put_i64, put_u64};
use crate::{PgId, Record, RedoError};

/// Format number of the packed form, its first byte.
pub const BATCH_FORMAT: u8 = 1;

/// Flags, page distance, op length and an op's tag: no record is shorter.
const RECORD_BYTES_MIN: usize = 2;

/// Records of one protection group, in ascending LSN order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgBatch {
    /// The group.
    pub pg: PgId,
    /// Volume epoch of the sender.
    pub epoch: u64,
    /// Known durable when it was sent.
    pub vdl: Lsn,
    /// Ascending by LSN; gossip may mix origins.
    pub records: Vec<Record>,
}

/// What the next record is packed against. Writer and reader advance it alike.
#[derive(Default)]
struct Last {
    lsn: Lsn,
    origin: VolumeId,
    page: PageId,
    time: i64,
    any: bool,
}

impl Last {
    fn advance(&mut self, record: &Record) {
        self.lsn = record.lsn;
        self.origin = record.origin;
        self.page = record.page;
        self.time = record.cpl.unwrap_or(self.time);
        self.any = true;
    }

    fn flags(&self, r: &Record) -> u8 {
        let mut flags = if r.cpl.is_some() { flag::CPL } else { 0 };
        flags |= if r.prev_page == Lsn::NONE {
            flag::NO_PREV_PAGE
        } else {
            0
        };
        flags |= if r.origin != self.origin || !self.any {
            flag::ORIGIN
        } else {
            0
        };
        flags |= match r.prev_pg {
            Lsn::NONE => flag::NO_PREV_PG,
            prev if self.any && prev == self.lsn => flag::CHAINED,
            _ => 0,
        };
        if self.any {
            flags |= if r.lsn == self.lsn.next() {
                flag::DENSE
            } else {
                0
            };
            flags |= if r.page == self.page {
                flag::SAME_PAGE
            } else {
                0
            };
        }
        flags
    }
}

impl PgBatch {
    /// LSN of the last record; [`Lsn::NONE`] if there is none.
    pub fn last_lsn(&self) -> Lsn {
        self.records.last().map_or(Lsn::NONE, |r| r.lsn)
    }

    /// Bytes of the records in memory, for budgets.
    pub fn weight(&self) -> usize {
        self.records.iter().map(Record::weight).sum()
    }

    /// The packed form.
    pub fn encode(&self) -> Bytes {
        let payload: usize = self.records.iter().map(|r| r.op.len() + 16).sum();
        let mut out = Vec::with_capacity(24 + payload);
        self.encode_into(&mut out);
        Bytes::from(out)
    }

    /// Appends the packed form: the hot log packs straight into its frame.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(BATCH_FORMAT);
        put_u64(out, self.pg.0.into());
        put_u64(out, self.epoch);
        put_u64(out, self.vdl.0);
        put_u64(out, self.records.len() as u64);
        let mut last = Last::default();
        for record in &self.records {
            debug_assert!(
                record.lsn > last.lsn,
                "records of a batch ascend: {} after {}",
                record.lsn,
                last.lsn
            );
            put_record(out, record, &last);
            last.advance(record);
        }
    }

    /// Reads the packed form. Ops share the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<PgBatch, RedoError> {
        let mut reader = Reader::new("batch", &bytes);
        let format = reader.u8()?;
        if format != BATCH_FORMAT {
            return Err(RedoError::Unknown {
                what: "batch",
                field: "format",
                expected: "1",
                got: format.into(),
            });
        }
        let pg = PgId(reader.narrow("protection group")?);
        let (epoch, vdl) = (reader.u64()?, Lsn(reader.u64()?));
        let count: usize = reader.narrow("record count")?;
        let mut records = Vec::with_capacity(count.min(reader.remaining() / RECORD_BYTES_MIN));
        let mut last = Last::default();
        for _ in 0..count {
            let record = take_record(&mut reader, &bytes, &last)?;
            last.advance(&record);
            records.push(record);
        }
        reader.finish()?;
        Ok(PgBatch {
            pg,
            epoch,
            vdl,
            records,
        })
    }
}

fn put_record(out: &mut Vec<u8>, r: &Record, last: &Last) {
    let flags = last.flags(r);
    out.push(flags);
    if flags & flag::DENSE == 0 {
        put_u64(out, r.lsn.0.wrapping_sub(last.lsn.0));
    }
    if flags & flag::ORIGIN != 0 {
        put_u64(out, r.origin.0);
    }
    if flags & flag::SAME_PAGE == 0 {
        put_i64(out, r.page.0.wrapping_sub(last.page.0) as i64);
    }
    if flags & flag::NO_PREV_PAGE == 0 {
        put_u64(out, r.lsn.0.wrapping_sub(r.prev_page.0));
    }
    if flags & (flag::NO_PREV_PG | flag::CHAINED) == 0 {
        put_u64(out, r.lsn.0.wrapping_sub(r.prev_pg.0));
    }
    if let Some(time) = r.cpl {
        put_i64(out, time.wrapping_sub(last.time));
    }
    put_u64(out, r.op.len() as u64);
    out.extend_from_slice(&r.op);
}

fn take_record(reader: &mut Reader<'_>, bytes: &Bytes, last: &Last) -> Result<Record, RedoError> {
    let flags = check_flags(reader.u8()?, last)?;
    let distance = if flags & flag::DENSE != 0 {
        1
    } else {
        reader.u64()?
    };
    let lsn = match last.lsn.0.checked_add(distance) {
        Some(lsn) if distance > 0 && lsn < u64::MAX => Lsn(lsn),
        _ => {
            return Err(RedoError::Order {
                what: "batch",
                field: "LSN",
                expected: "ascending",
                got: distance,
            });
        }
    };
    let origin = if flags & flag::ORIGIN != 0 {
        VolumeId(reader.u64()?)
    } else {
        last.origin
    };
    let page = if flags & flag::SAME_PAGE != 0 {
        0
    } else {
        reader.i64()?
    };
    let page = PageId(last.page.0.wrapping_add(page as u64));
    let prev_page = link(
        "previous LSN of the page",
        lsn,
        flags & flag::NO_PREV_PAGE == 0,
        reader,
    )?;
    let prev_pg = match flags & flag::CHAINED {
        0 => link(
            "previous LSN of the group",
            lsn,
            flags & flag::NO_PREV_PG == 0,
            reader,
        )?,
        _ => last.lsn,
    };
    let cpl = if flags & flag::CPL != 0 {
        Some(last.time.wrapping_add(reader.i64()?))
    } else {
        None
    };
    let len = reader.length()?;
    let start = reader.position();
    reader.bytes(len)?;
    Ok(Record {
        lsn,
        origin,
        prev_pg,
        prev_page,
        page,
        cpl,
        op: bytes.slice(start..start + len),
    })
}

/// Flags must be known, must not contradict each other, and the first record has nothing to lean on.
fn check_flags(flags: u8, last: &Last) -> Result<u8, RedoError> {
    let both = flag::NO_PREV_PG | flag::CHAINED;
    let leaning = flag::CHAINED | flag::DENSE | flag::SAME_PAGE;
    let bad = flags & flag::UNUSED != 0
        || flags & both == both
        || (!last.any && (flags & leaning != 0 || flags & flag::ORIGIN == 0));
    if bad {
        let expected = "known bits that agree";
        return Err(RedoError::Unknown {
            what: "batch",
            field: "record flags",
            expected,
            got: flags.into(),
        });
    }
    Ok(flags)
}
