//! What a database engine sees of storage: numbers for its mini-transactions, and points to read at.

use aurora_page::{Geometry, Lsn, VolumeId};
use aurora_redo::Mtr;
use thiserror::Error;

use crate::quorum::NodeSet;

/// A volume as its writer sees it. No method blocks: durability is learnt from [`Volume::vdl`].
pub trait Volume: Send + Sync {
    /// The origin that new records carry.
    fn origin(&self) -> VolumeId;
    /// The volume durable LSN: read-only work reads here.
    fn vdl(&self) -> Lsn;
    /// The newest LSN that was given out and belongs to a whole MTR; the VDL of the opening before any was.
    fn numbered(&self) -> Lsn;
    /// No LSN at or below it will be given out: above [`Volume::numbered`] where the volume was branched and nothing was numbered
    /// since. Numbers that are made from it are new in every History.
    fn spent(&self) -> Lsn {
        self.numbered()
    }
    /// Sizes of pages, segments and extents.
    fn geometry(&self) -> Geometry;
    /// How many segments the volume has now.
    fn segments(&self) -> u64;
    /// Gives the records of an MTR their LSNs and hands them to the writer. They are durable once the VDL has reached
    /// the last of them. A refusal changes nothing.
    fn append(&self, mtr: Mtr) -> Result<Numbered, Refused>;
}

/// The LSNs of an appended MTR: its records have `base`, `base + 1`, ... `last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbered {
    /// LSN of the first record.
    pub base: Lsn,
    /// LSN of the last record, the CPL.
    pub last: Lsn,
}

/// Why an MTR was not taken. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refused {
    /// The durable point is too far behind: wait until it has moved.
    #[error(
        "back-pressure: the durable point is {vdl}, nothing above {lal} is given out, or too many bytes are in flight"
    )]
    BackPressure {
        /// The volume durable LSN.
        vdl: Lsn,
        /// The allocation limit.
        lal: Lsn,
    },
    /// Another writer has opened the volume: this one is finished.
    #[error("fenced: this writer has epoch {epoch}, the volume is at epoch {by}")]
    Fenced {
        /// The epoch of this writer.
        epoch: u64,
        /// The epoch that was seen.
        by: u64,
    },
    /// Too few copies are left to make anything durable.
    #[error("the write quorum is lost: missing {missing}")]
    QuorumLost {
        /// The nodes that are missing.
        missing: NodeSet,
    },
    /// The volume is going over to another branch: whoever began before it begins again.
    #[error("the volume is going over to another History")]
    Branching,
    /// A page lies beyond the last segment: the volume must grow first.
    #[error("the volume must grow by a segment first")]
    NeedSegment,
}
