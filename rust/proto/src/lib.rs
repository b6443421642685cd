//! The replication protocol of aurora-engine, without I/O, clock, threads or randomness.
//!
//! A volume is made of protection groups; each has six *copies* on six storage nodes. One writer gives LSNs to
//! log records, sends each to all copies of its group, and calls durable what a write quorum has on disk. Everything
//! here takes input and gives output; a shell, real or simulated, moves bytes, waits and remembers.
//!
//! | Module | What it decides |
//! |---|---|
//! | [`quorum`] | which sets of nodes are enough |
//! | [`membership`] | who holds the copies of a group, and how one is replaced without a pause [14] |
//! | [`points`] | the order of VDL, VCL, allocated and LAL [2] |
//! | [`writer`] | LSNs, batches, and from acknowledgements PGCL, VCL, VDL [9][10] |
//! | [`answer`] | what copies are told, and what they answer |
//! | [`copy`] | one copy: what to take, how far it is complete, when it may answer [8][12] |
//! | [`gossip`] | how copies fill each other's gaps |
//! | [`reads`] | which copy a read goes to |
//! | [`manifest`], [`codec`] | the one record whose compare-and-swap makes things happen [4] |
//! | [`replica`] | the redo stream from a writer to its replicas |
//! | [`recovery`] | from whatever a crash left to an open volume [11][12][13] |
//! | [`volume`] | what the database engine sees of all this |
//!
//! A commit, from left to right; every arrow is the driver's work:
//!
//! ```text
//!   Volume::append -> Writer::append -> Writer::poll_send -> Copy::receive -> log + sync -> Copy::persisted
//!                                       Writer::on_ack <- Ack <----------------------------------'
//!                                         `-> VDL >= the commit's LSN: acknowledged
//! ```
//!
//! The drivers' duties are numbered lists at the top of [`copy`], [`writer`], [`gossip`] and [`recovery`].

pub mod answer;
pub mod codec;
pub mod copy;
pub mod gossip;
mod group;
pub mod manifest;
pub mod membership;
pub mod points;
pub mod quorum;
pub mod reads;
pub mod recovery;
pub mod replica;
mod replicate;
pub mod volume;
pub mod writer;

pub use answer::{
    Accepted, Ack, CopyState, FenceTicket, Fresh, Gap, Inventory, Link, Persisted, Refuse,
};
pub use codec::ManifestError;
pub use copy::Copy;
pub use gossip::{Answer, Ask, Summary};
pub use manifest::{
    Abandoned, ClusterId, EditError, Manifest, MetaError, MetaStore, NewCluster, NodeInfo,
    Snapshot, VolumeState,
};
pub use membership::{Membership, MembershipError, Place};
pub use points::Points;
pub use quorum::{NodeId, NodeSet, Quorum};
pub use reads::ReadRouter;
pub use recovery::{Job, Plan, Recovery, RecoveryError, Replacement};
pub use replica::{Next, Redo, RedoLog};
pub use volume::{Numbered, Refused, Volume};
pub use writer::{PgStart, Writer, WriterStart};
