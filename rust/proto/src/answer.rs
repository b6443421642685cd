//! What copies are told and what they answer.

use std::sync::Arc;

use aurora_page::{Lsn, VolumeId};
use aurora_redo::{History, PgId, Record};
use thiserror::Error;

use crate::quorum::NodeId;

/// The answer to a batch: how far this copy is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// The protection group.
    pub pg: PgId,
    /// The node.
    pub node: NodeId,
    /// The epoch that the copy has promised. A writer of an older one does not count it [12].
    pub epoch: u64,
    /// Every record of the group at or below it is durable here.
    pub scl: Lsn,
}

/// Proof that something is on disk. Only the store implements it, on a token whose constructor is its own [8].
pub trait Persisted {
    /// The number that the copy gave out for what was persisted.
    fn ticket(&self) -> u64;
}

/// What the protocol knows of a record: its place and its link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its LSN.
    pub lsn: Lsn,
    /// The record before it in its group.
    pub prev: Lsn,
    /// Its origin.
    pub origin: VolumeId,
    /// Does it end an MTR?
    pub cpl: bool,
}

impl From<&Record> for Link {
    fn from(record: &Record) -> Link {
        Link {
            lsn: record.lsn,
            prev: record.prev_pg,
            origin: record.origin,
            cpl: record.is_cpl(),
        }
    }
}

/// What of an accepted batch was not there before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fresh {
    /// Every record, as nearly always.
    All,
    /// These records, by their index in the batch; possibly none.
    Some(Vec<usize>),
}

/// A batch was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// What the store's token must name.
    pub ticket: u64,
    /// Which records are new here.
    pub fresh: Fresh,
}

impl Accepted {
    /// Is there nothing to persist that was not on its way before?
    pub fn is_duplicate(&self) -> bool {
        matches!(&self.fresh, Fresh::Some(indices) if indices.is_empty())
    }
}

/// Why a batch, fence or install was not taken. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refuse {
    /// The sender belongs to the past.
    #[error("stale epoch: this copy has promised epoch {have}, the sender has {got}")]
    StaleEpoch {
        /// The epoch promised.
        have: u64,
        /// The sender's.
        got: u64,
    },
    /// The epoch's History must be installed first.
    #[error("epoch {got} is not installed: this copy has installed epoch {have}")]
    NotInstalled {
        /// The epoch installed.
        have: u64,
        /// The sender's.
        got: u64,
    },
    /// The copy has its History already; the message is for one that is being recovered.
    #[error("epoch {epoch} is open here: not under a fence")]
    NotFenced {
        /// The epoch.
        epoch: u64,
    },
    /// A record that did not happen.
    #[error("record {lsn} of volume {origin} is not in the history")]
    NotInHistory {
        /// The record's origin.
        origin: VolumeId,
        /// The record's LSN.
        lsn: Lsn,
    },
    /// A batch for another group.
    #[error("batch for another group: expected {expected}, got {got}")]
    WrongPg {
        /// The group of this copy.
        expected: PgId,
        /// The group of the batch.
        got: PgId,
    },
    /// LSNs or links that do not ascend.
    #[error("malformed batch: record {lsn} follows {after}, and links to {prev}")]
    Malformed {
        /// The record.
        lsn: Lsn,
        /// The record before it in the batch.
        after: Lsn,
        /// Its link.
        prev: Lsn,
    },
}

/// What a copy answers to a fence, and only the answer to the fence of the recovery's own epoch counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inventory {
    /// The protection group.
    pub pg: PgId,
    /// The node.
    pub node: NodeId,
    /// The epoch promised.
    pub epoch: u64,
    /// Every record of the group at or below it is here.
    pub scl: Lsn,
    /// The highest VDL that this copy has heard of.
    pub vdl_hint: Lsn,
    /// Every durable record above the lower of the two, as (LSN, previous LSN in the group, is a CPL), ascending.
    pub records: Vec<(Lsn, Lsn, bool)>,
}

/// A promise that was made and must be persisted before the inventory is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FenceTicket {
    /// What the store's token must name.
    pub ticket: u64,
}

/// What a store keeps of a copy besides records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyState {
    /// The protection group.
    pub pg: PgId,
    /// The node.
    pub node: NodeId,
    /// The epoch promised.
    pub epoch: u64,
    /// The epoch whose History is installed.
    pub installed: u64,
    /// What counts as having happened.
    pub history: Arc<History>,
    /// Every record of the group at or below it is durable here.
    pub scl: Lsn,
    /// The highest VDL that this copy has heard of.
    pub vdl_hint: Lsn,
}

/// A stretch of the group's records that exists and is not here: above `after`, up to and with `upto`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The last LSN before it.
    pub after: Lsn,
    /// The last LSN in it.
    pub upto: Lsn,
}
