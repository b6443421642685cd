//! Mistakes that are built into a run, so that a checker can show that it sees them.
//!
//! Each stands for a line of the product that could be missing or wrong. Those of the shell are in this crate: there the simulator
//! does what a driver does. Those of the product are lines `planted::is(Fault::...)` in its crates, which are
//! `false` at compile time unless this crate is built: the feature `planted` of `aurora-page` turns them on, and nothing that is
//! shipped has it.

use aurora_page::planted::Fault;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Nodes acknowledge what is not yet on disk.
    AcknowledgeBeforeSync,
    /// A commit counts as durable with three copies.
    QuorumOfThree,
    /// A fence is promised and not written down.
    FenceNotPersisted,
    /// Old epochs are not refused.
    FenceIgnored,
    /// Nodes believe that everything happened: what a recovery cut off comes back by gossip.
    HistoryIgnored,
    /// A recovery goes on above its VDL without leaving out the window.
    WindowNotSkipped,
    /// A recovery is content with two copies.
    RecoveryFromTwo,
    /// A recovery opens without copying anything to a write quorum.
    NoReplication,
    /// A node that was created anew passes for the one that was lost.
    LostCopyNotNoticed,
    /// Some record is applied differently by one copy.
    CopyDiverges,
    /// The log is trimmed before the layers have it.
    TrimBeforeFlush,
    /// A commit is two MTRs.
    CommitInTwoParts,
    /// Pages are read from copies that may not have them yet.
    ReadAnywhere,
    /// A reference is logged when one copy has the blob.
    ReferenceBeforeQuorum,
    /// A copy takes a reference of the writer's whose blob it does not have.
    ReferenceWithoutBlob,
    /// Gossip and recoveries bring references without their blobs.
    GossipWithoutBlob,
    /// A replica becomes the writer before it has applied everything.
    PromotedBehind,
    /// Replicas get an MTR in two parts.
    RedoInParts,
    /// A mistake in the product itself.
    In(Fault),
}

impl Planted {
    /// Those of the shell.
    pub const SHELL: [Planted; 18] = [
        Planted::AcknowledgeBeforeSync,
        Planted::QuorumOfThree,
        Planted::FenceNotPersisted,
        Planted::FenceIgnored,
        Planted::HistoryIgnored,
        Planted::WindowNotSkipped,
        Planted::RecoveryFromTwo,
        Planted::NoReplication,
        Planted::LostCopyNotNoticed,
        Planted::CopyDiverges,
        Planted::TrimBeforeFlush,
        Planted::CommitInTwoParts,
        Planted::ReadAnywhere,
        Planted::ReferenceBeforeQuorum,
        Planted::ReferenceWithoutBlob,
        Planted::GossipWithoutBlob,
        Planted::PromotedBehind,
        Planted::RedoInParts,
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Planted> {
        let product = Fault::ALL.into_iter().map(Planted::In);
        Planted::SHELL.into_iter().chain(product)
    }

    /// Its name for a command line.
    pub fn name(self) -> String {
        match self {
            Planted::In(fault) => format!("{fault:?}"),
            shell => format!("{shell:?}"),
        }
    }
}
