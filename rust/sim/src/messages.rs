//! What travels between instances and storage nodes, and what else can happen.

use std::sync::Arc;

use aurora_page::{Lsn, Page, PageId};
use aurora_proto::{Ack, Answer, Ask, Inventory, Job, NodeId, Summary};
use aurora_redo::{BlobId, History, PgBatch, PgId};
use aurora_store::Export;

use crate::blobs::Sealed;
use crate::database::TaskId;
use crate::reads::NoPage;
use crate::session::Response;

/// An instance: a writer, or one that recovers in order to become the writer. Several may be alive at once, which is
/// the point: only the newest may do anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId(pub u32);

impl std::fmt::Display for InstanceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "i{}", self.0)
    }
}

/// To a storage node. Answers go to the instance that comes with it.
#[derive(Clone, Debug)]
pub enum ToNode {
    /// Records from the writer.
    Batch(Arc<PgBatch>),
    /// What a peer has.
    Summary(Summary),
    /// A peer asks for records.
    Ask {
        /// Who asks.
        asker: NodeId,
        /// For what.
        ask: Ask,
    },
    /// Records that were asked for.
    Answer(Answer),
    /// Records and pages that were asked for, where records alone are not kept any more.
    Hydrate {
        /// Records.
        answer: Answer,
        /// Pages.
        exports: Arc<Vec<Export>>,
    },
    /// Promise this epoch.
    Fence {
        /// The group whose copy is meant.
        pg: PgId,
        /// The epoch.
        epoch: u64,
        /// Of the manifest that is being recovered.
        history: Arc<History>,
        /// Which making of the node is meant.
        incarnation: Option<u64>,
    },
    /// Send to `job.to` what it lacks, under the fence of `epoch`.
    Give {
        /// What and to whom.
        job: Job,
        /// The fence.
        epoch: u64,
    },
    /// What a job brings.
    Replicate {
        /// The job.
        job: Job,
        /// Its records.
        batch: Arc<PgBatch>,
        /// Its pages.
        exports: Arc<Vec<Export>>,
    },
    /// An epoch with its History, from a manifest that was written.
    Install {
        /// The epoch.
        epoch: u64,
        /// Its History.
        history: Arc<History>,
        /// Groups of which the node holds a copy.
        pgs: Vec<PgId>,
    },
    /// Store a blob of a bulk load.
    PutBlob {
        /// The blob.
        blob: Arc<Sealed>,
        /// The epoch of the load, or of the copying.
        epoch: u64,
    },
    /// A peer lacks a blob.
    WantBlob {
        /// Who asks.
        asker: NodeId,
        /// The group of its pages.
        pg: PgId,
        /// Which.
        blob: BlobId,
    },
    /// Send a page as of an LSN.
    Read {
        /// Which read.
        read: u64,
        /// The page.
        page: PageId,
        /// The read point.
        at: Lsn,
        /// The reader's epoch: a copy of another one does not answer.
        epoch: u64,
    },
}

impl ToNode {
    /// What it is, for the trace.
    pub fn name(&self) -> String {
        match self {
            ToNode::Batch(batch) => {
                format!("batch {} ..{} e{}", batch.pg, batch.last_lsn(), batch.epoch)
            }
            ToNode::Summary(summary) => format!(
                "summary {} scl {} from {}",
                summary.pg, summary.scl, summary.node
            ),
            ToNode::Ask { asker, ask } => format!(
                "{asker} asks {} {}..{}",
                ask.pg, ask.gap.after, ask.gap.upto
            ),
            ToNode::Answer(answer) => {
                format!("answer {} ..{}", answer.batch.pg, answer.complete_to)
            }
            ToNode::Hydrate { answer, .. } => {
                format!("hydrate {} ..{}", answer.batch.pg, answer.complete_to)
            }
            ToNode::Fence { pg, epoch, .. } => format!("fence {pg} e{epoch}"),
            ToNode::Give { job, epoch } => format!(
                "give {} to {} {}..{} e{epoch}",
                job.pg, job.to, job.after, job.upto
            ),
            ToNode::Replicate { job, batch, .. } => {
                let count = batch.records.len();
                format!(
                    "replicate {} {}..{} with {count} records e{}",
                    job.pg, job.after, job.upto, batch.epoch
                )
            }
            ToNode::Install { epoch, history, .. } => format!("install e{epoch} {history}"),
            ToNode::PutBlob { blob, epoch } => {
                format!("blob {} of {} e{epoch}", blob.id, blob.pg)
            }
            ToNode::WantBlob { asker, blob, .. } => format!("{asker} wants blob {blob}"),
            ToNode::Read { page, at, .. } => format!("read page {page} at {at}"),
        }
    }
}

/// To an instance.
#[derive(Clone, Debug)]
pub enum ToInstance {
    /// How far a copy is complete.
    Ack(Ack),
    /// The answer to a fence.
    Inventory(Inventory),
    /// A node has promised a later epoch.
    Stale {
        /// The epoch it has promised.
        epoch: u64,
    },
    /// A node has installed an epoch.
    Installed {
        /// The epoch.
        epoch: u64,
    },
    /// A node has not installed the epoch yet.
    NotInstalled,
    /// A blob is on disk.
    BlobStored {
        /// Which.
        blob: BlobId,
    },
    /// The answer to a read.
    Page {
        /// Which read.
        read: u64,
        /// The page, or why not.
        page: Result<Arc<Page>, NoPage>,
    },
}

/// What is to happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message arrives at a node.
    ToNode {
        /// The node.
        node: NodeId,
        /// Who gets the answer, if an instance asked.
        from: InstanceId,
        /// The message.
        message: ToNode,
    },
    /// A message arrives at an instance.
    ToInstance {
        /// The instance.
        to: InstanceId,
        /// From this node.
        node: NodeId,
        /// The message.
        message: ToInstance,
    },
    /// A machine writes and syncs what it has accepted.
    Sync {
        /// The machine.
        machine: usize,
        /// Since this start of it.
        boot: u64,
    },
    /// A machine starts.
    Boot {
        /// The machine.
        machine: usize,
    },
    /// An instance does its periodic work.
    Tick(InstanceId),
    /// A machine tends its layers and its nodes gossip.
    Tend {
        /// The machine.
        machine: usize,
        /// Since this start of it.
        boot: u64,
    },
    /// A client's wait is over.
    Wake {
        /// The client.
        task: TaskId,
        /// Which wait of it.
        ticket: u64,
        /// How it ended.
        response: Response,
    },
    /// A read was not answered: another copy is asked.
    AskAgain(u64),
    /// A blob was not stored by everybody: the others are asked again.
    StoreAgain(u64),
    /// A fault of this number ends.
    FaultEnds(u64),
    /// A replica of an instance, in this seat, looks for redo.
    Follow(InstanceId, usize),
    /// Something goes wrong.
    Chaos,
    /// The checkers look.
    Check,
}
