//! Entries, and the body of a group: the entries of one append.
//!
//! ```text
//!   body    entry, entry, ...
//!   entry   kind u8 | nodes varint | length varint | content
//!   content batch: as aurora-redo packs it;  fence and install: epoch varint | history;  anew: incarnation varint
//! ```

use std::sync::Arc;

use aurora_proto::{NodeId, NodeSet};
use aurora_redo::varint::{Reader, put_u64};
use aurora_redo::{History, PgBatch, PgId, RedoError};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::token::PersistedToken;

/// What a copy gave out when it accepted something; it acknowledges when it gets the ticket back as a
/// [`PersistedToken`] [8]. Tickets are not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The node.
    pub node: NodeId,
    /// The protection group.
    pub pg: PgId,
    /// The copy's number for what it accepted.
    pub number: u64,
}

/// Something that nodes of this device accepted and that must be durable before they say so.
#[derive(Clone, Debug)]
pub enum LogEntry {
    /// Records for the copies of a protection group.
    Batch {
        /// The nodes that accepted it.
        nodes: NodeSet,
        /// One ticket per node; empty in what a replay gives.
        tickets: SmallVec<[Ticket; 6]>,
        /// The records.
        batch: Arc<PgBatch>,
    },
    /// The nodes refuse older epochs from now on, and take over the History that is being recovered.
    Fence {
        /// The nodes.
        nodes: NodeSet,
        /// Tickets, one for each copy that waits.
        tickets: SmallVec<[Ticket; 6]>,
        /// The new epoch.
        epoch: u64,
        /// The History before it.
        history: History,
    },
    /// The nodes regard this History as what happened, from this epoch on.
    Install {
        /// The nodes.
        nodes: NodeSet,
        /// Tickets, one for each copy that waits.
        tickets: SmallVec<[Ticket; 6]>,
        /// The epoch.
        epoch: u64,
        /// Its History.
        history: History,
    },
    /// A node was made anew while the log went on: what is before this and says that it is for the node is for the copy that was lost.
    Anew {
        /// The node.
        node: NodeId,
        /// The making of it that begins here.
        incarnation: u64,
    },
}

const BATCH: u8 = 1;
const FENCE: u8 = 2;
const INSTALL: u8 = 3;
const ANEW: u8 = 4;

impl LogEntry {
    /// A batch with the tickets of the copies that accepted it.
    pub fn batch(batch: Arc<PgBatch>, tickets: impl IntoIterator<Item = Ticket>) -> LogEntry {
        let tickets: SmallVec<[Ticket; 6]> = tickets.into_iter().collect();
        LogEntry::Batch {
            nodes: nodes_of(&tickets),
            tickets,
            batch,
        }
    }

    /// The nodes that it is for.
    pub fn nodes(&self) -> NodeSet {
        match self {
            LogEntry::Batch { nodes, .. }
            | LogEntry::Fence { nodes, .. }
            | LogEntry::Install { nodes, .. } => *nodes,
            LogEntry::Anew { node, .. } => NodeSet::EMPTY.with(*node),
        }
    }

    fn tickets(&self) -> &[Ticket] {
        match self {
            LogEntry::Batch { tickets, .. }
            | LogEntry::Fence { tickets, .. }
            | LogEntry::Install { tickets, .. } => tickets,
            LogEntry::Anew { .. } => &[],
        }
    }

    /// Turns tickets into tokens; only the device does, after its sync.
    pub(super) fn redeem(&self, out: &mut Vec<PersistedToken>) {
        out.extend(self.tickets().iter().map(PersistedToken::new));
    }

    pub(super) fn encode_into(&self, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        scratch.clear();
        let kind = match self {
            LogEntry::Batch { batch, .. } => {
                batch.encode_into(scratch);
                BATCH
            }
            LogEntry::Fence { epoch, history, .. } => {
                put_epoch(scratch, *epoch, history);
                FENCE
            }
            LogEntry::Install { epoch, history, .. } => {
                put_epoch(scratch, *epoch, history);
                INSTALL
            }
            LogEntry::Anew { incarnation, .. } => {
                put_u64(scratch, *incarnation);
                ANEW
            }
        };
        out.push(kind);
        put_u64(out, self.nodes().0);
        put_u64(out, scratch.len() as u64);
        out.extend_from_slice(scratch);
    }
}

fn put_epoch(out: &mut Vec<u8>, epoch: u64, history: &History) {
    put_u64(out, epoch);
    out.extend_from_slice(&history.encode());
}

fn take_epoch(what: &'static str, content: &[u8]) -> Result<(u64, History), RedoError> {
    let mut content = Reader::new(what, content);
    let epoch = content.u64()?;
    Ok((epoch, History::decode(content.rest())?))
}

fn nodes_of(tickets: &[Ticket]) -> NodeSet {
    tickets
        .iter()
        .fold(NodeSet::EMPTY, |set, t| set.with(t.node))
}

/// Reads the body of a group; records share its memory.
pub(super) fn decode_group(body: &Bytes, out: &mut Vec<LogEntry>) -> Result<(), RedoError> {
    let mut reader = Reader::new("log group", body);
    while reader.remaining() > 0 {
        let kind = reader.u8()?;
        let nodes = NodeSet(reader.u64()?);
        let len = reader.length()?;
        let start = reader.position();
        let content = reader.bytes(len)?;
        out.push(match kind {
            BATCH => {
                let batch = Arc::new(PgBatch::decode(body.slice(start..start + len))?);
                LogEntry::Batch {
                    nodes,
                    tickets: SmallVec::new(),
                    batch,
                }
            }
            FENCE => {
                let (epoch, history) = take_epoch("fence", content)?;
                LogEntry::Fence {
                    nodes,
                    tickets: SmallVec::new(),
                    epoch,
                    history,
                }
            }
            INSTALL => {
                let (epoch, history) = take_epoch("install", content)?;
                LogEntry::Install {
                    nodes,
                    tickets: SmallVec::new(),
                    epoch,
                    history,
                }
            }
            ANEW => {
                let incarnation = Reader::new("anew", content).u64()?;
                let Some(node) = nodes.iter().next().filter(|_| nodes.len() == 1) else {
                    return Err(RedoError::Unknown {
                        what: "log group",
                        field: "nodes of a node made anew",
                        expected: "one",
                        got: nodes.len() as u64,
                    });
                };
                LogEntry::Anew { node, incarnation }
            }
            got => {
                let expected = "batch, fence, install or anew";
                return Err(RedoError::Unknown {
                    what: "log group",
                    field: "kind",
                    expected,
                    got: got.into(),
                });
            }
        });
    }
    Ok(())
}
