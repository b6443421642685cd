//! A mini-transaction before it has LSNs.
//!
//! Its records are numbered relative to a base that the sequencer gives when the MTR is appended; only then does an MTR
//! have LSNs. The last record is the consistency point (CPL) and carries the commit time; a transaction's visible
//! changes are exactly one MTR [6].

use aurora_page::{Lsn, PageId};
use bytes::Bytes;

use crate::RedoError;

/// What the page's newest change is when this record is applied [5].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prev {
    /// A record numbered before, or [`Lsn::NONE`] where a page's life starts.
    Lsn(Lsn),
    /// An earlier record of the same MTR, by its index.
    InMtr(u32),
}

/// One change of one page, not yet numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MtrRecord {
    /// The page.
    pub page: PageId,
    /// What it follows.
    pub prev: Prev,
    /// The change, encoded ([`crate::Op`]).
    pub op: Bytes,
}

/// Changes that become visible, durable and lost together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mtr {
    /// In the order in which they are numbered and applied.
    pub records: Vec<MtrRecord>,
    /// Commit time in microseconds, later than every time in any kept History.
    pub time_us: i64,
}

impl Mtr {
    /// An empty MTR that will be committed at `time_us`.
    pub fn new(time_us: i64) -> Self {
        Mtr {
            records: Vec::new(),
            time_us,
        }
    }

    /// Adds a record and gives its index, for a later [`Prev::InMtr`].
    pub fn push(&mut self, page: PageId, prev: Prev, op: Bytes) -> u32 {
        self.records.push(MtrRecord { page, prev, op });
        (self.records.len() - 1) as u32
    }

    /// Records in it.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Has it nothing to say?
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of its ops, for limits.
    pub fn op_bytes(&self) -> usize {
        self.records.iter().map(|r| r.op.len()).sum()
    }

    /// The previous LSN of record `index`'s page, once the MTR begins at `base`.
    pub fn prev_page(&self, index: usize, base: Lsn) -> Lsn {
        match self.records[index].prev {
            Prev::Lsn(lsn) => lsn,
            Prev::InMtr(earlier) => base.offset(u64::from(earlier)),
        }
    }

    /// Every [`Prev::InMtr`] must name an earlier record of the same page.
    pub fn check(&self) -> Result<(), RedoError> {
        for (index, record) in self.records.iter().enumerate() {
            let Prev::InMtr(earlier) = record.prev else {
                continue;
            };
            let follows =
                (earlier as usize) < index && self.records[earlier as usize].page == record.page;
            if !follows {
                let expected = "an earlier record of the same page";
                return Err(RedoError::Order {
                    what: "MTR",
                    field: "previous record",
                    expected,
                    got: earlier.into(),
                });
            }
        }
        Ok(())
    }
}
