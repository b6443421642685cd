//! What a seed decides before anything happens, and the faults that can be planted.

use crate::net::NetConfig;
use crate::rng::Rng;

/// A mistake that is built into a run, so that a checker can show that it sees it. None of them exists in the product;
/// each stands for a line of it that could be missing.
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
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 11] = [
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
    ];
}

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// Machines, each with one disk and one log; the six nodes are spread over them. One is the embedded case.
    pub machines: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Pages of a segment.
    pub segment_pages: u64,
    /// Segments at the start.
    pub segments: u64,
    /// The LAL window.
    pub window: u64,
    /// Bytes of a log file.
    pub log_file_bytes: u64,
    /// Unflushed bytes of a node at which its machine flushes.
    pub flush_bytes: u64,
    /// The network.
    pub net: NetConfig,
    /// How often something goes wrong.
    pub chaos_us: u64,
    /// When the faults end and the world comes to rest.
    pub end_us: u64,
    /// What is built in.
    pub planted: Option<Planted>,
}

/// Storage nodes of a volume.
pub const NODES: u16 = 6;

impl Config {
    /// The world of a seed.
    pub fn draw(seed: u64) -> Config {
        let mut rng = Rng::new(seed ^ 0x5eed);
        Config {
            seed,
            machines: *rng.pick(&[1, 3, 6, 6]),
            page_bytes: *rng.pick(&[1024, 2048]),
            segment_pages: rng.between(2, 6),
            segments: rng.between(1, 3),
            window: *rng.pick(&[20, 100, 1000]),
            log_file_bytes: *rng.pick(&[64 << 10, 256 << 10]),
            flush_bytes: *rng.pick(&[4 << 10, 32 << 10, 256 << 10]),
            net: NetConfig {
                delay_us_min: 50,
                delay_us_max: *rng.pick(&[200, 1000, 3000]),
                loss: *rng.pick(&[0, 10, 100]),
                duplicates: *rng.pick(&[0, 20, 100]),
            },
            chaos_us: *rng.pick(&[20_000, 50_000, 120_000]),
            end_us: 600_000,
            planted: None,
        }
    }

    /// The same world with a mistake built in.
    pub fn with(mut self, planted: Planted) -> Config {
        self.planted = Some(planted);
        self
    }

    /// Is this mistake built in?
    pub fn has(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }
}
