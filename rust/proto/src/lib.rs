//! The replication protocol, sans I/O.
pub mod codec;
pub mod copy;
pub mod manifest;
pub mod membership;
pub mod points;
pub mod quorum;
pub mod volume;
pub mod writer;

pub use codec::ManifestError;
pub use copy::{
    Accepted, Ack, Copy, CopyState, FenceTicket, Fresh, Gap, Inventory, Link, Persisted, Refuse, batch_ticket,
    fence_ticket,
};
pub use manifest::{Abandoned, ClusterId, EditError, Manifest, MetaError, MetaStore, NewCluster, NodeInfo, VolumeState};
pub use membership::{Membership, MembershipError, Place};
pub use points::Points;
pub use quorum::{NodeId, NodeSet, Quorum};
pub use volume::{Numbered, Refused, Volume};
pub use writer::{PgStart, Writer, WriterStart};
