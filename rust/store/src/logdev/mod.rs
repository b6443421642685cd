//! The hot log of a disk: what its nodes have accepted and not yet put into layers.
//!
//! ```text
//!   file, 16 MiB   | stripe | stripe | stripe | ...                      zero-filled when made, recycled when trimmed
//!   stripe         | block of node 0 | block of node 1 | ... | node k-1 |        k x 4 KiB, written by one write
//!   block          | header | fragment | fragment | ... | zeros          |        the same fragments in every block
//!   fragment       | header crc | body crc | length | flags | index | group | body
//! ```
//! One append is one *group*: its entries are encoded once, cut into fragments where a block ends, and the fragments are
//! copied into the block of every node. Groups are numbered without gaps and an append is synced before the next begins,
//! so the end of the log needs no mark: an incomplete group with nothing after it is a torn tail and is cut; an
//! incomplete group with a later one after it is damage. A fragment is good if it is good in any block of its stripe;
//! the other blocks are healed when the log is opened.
//!
//! A stripe that is not full is written again, whole, by the next append: headers stay, fragments are only added, so
//! every sector of the old content is the same in the new, and a torn write cannot hurt what was acknowledged.
//!
//! Checksums are seeded by the log's salt, the stripe's number, which never comes again, and the place in the block: the
//! remains of a recycled file and blocks of another log do not pass.

mod block;
mod device;
mod files;
mod frame;
mod replay;

pub use device::{Appended, LogConfig, LogDevice};
pub use frame::{LogEntry, Ticket};
pub use replay::Replay;

/// A place in the log, between two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The group that begins here: groups are numbered without gaps.
    pub(crate) group: u64,
    /// The stripe in which it begins, or in the next one when this is full.
    pub(crate) stripe: u64,
}

impl Position {
    pub(crate) const START: Position = Position {
        group: 1,
        stripe: 0,
    };

    /// How many groups there were before this place.
    pub fn groups(&self) -> u64 {
        self.group - 1
    }
}
