//! Proofs that something is on disk: only this crate can make them, so that acknowledging early does not compile [8].

use aurora_proto::{NodeId, Persisted};
use aurora_redo::{BlobId, PgId};

use crate::logdev::Ticket;

/// What the log device gives for a ticket after the sync that covers it.
#[derive(Debug, PartialEq, Eq)]
pub struct PersistedToken {
    node: NodeId,
    pg: PgId,
    number: u64,
}

impl PersistedToken {
    pub(crate) fn new(ticket: &Ticket) -> PersistedToken {
        PersistedToken {
            node: ticket.node,
            pg: ticket.pg,
            number: ticket.number,
        }
    }

    /// The node whose ticket it was.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The protection group of the copy.
    pub fn pg(&self) -> PgId {
        self.pg
    }
}

impl Persisted for PersistedToken {
    fn ticket(&self) -> u64 {
        self.number
    }
}

/// What a node store gives for a blob once its pages and digest are on disk.
#[derive(Debug, PartialEq, Eq)]
pub struct PersistedBlob {
    node: NodeId,
    blob: BlobId,
}

impl PersistedBlob {
    pub(crate) fn new(node: NodeId, blob: BlobId) -> PersistedBlob {
        PersistedBlob { node, blob }
    }

    /// The node that holds it.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The blob.
    pub fn blob(&self) -> BlobId {
        self.blob
    }
}
