//! What a seed decides before anything happens.

use crate::net::NetConfig;
pub use crate::planted::Planted;
use crate::rng::Rng;
use crate::workloads::Workload;

/// What is above the copies of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: random MTRs, page by page against a model.
    Pages,
    /// The database engine and its clients.
    Database(Workload),
}

impl Kind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Kind> {
        std::iter::once(Kind::Pages).chain(Workload::ALL.into_iter().map(Kind::Database))
    }

    /// Its name for a command line.
    pub fn name(self) -> String {
        match self {
            Kind::Pages => "pages".to_owned(),
            Kind::Database(workload) => format!("{workload:?}").to_lowercase(),
        }
    }
}

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// What is above the copies.
    pub kind: Kind,
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
    /// Bytes of records in one answer to a peer.
    pub give_bytes: u64,
    /// Bytes of an engine's pool.
    pub cache_bytes: u64,
    /// Bytes of an engine's memory of changed keys.
    pub conflict_bytes: u64,
    /// The network.
    pub net: NetConfig,
    /// How often something goes wrong.
    pub chaos_us: u64,
    /// How much slower than in a world of pages time goes for everything that is periodic, and for faults.
    pub pace: u64,
    /// When the faults end and the world comes to rest.
    pub end_us: u64,
    /// How many faults there are at the most. Shrinking makes it smaller.
    pub faults_max: u64,
    /// More may be lost than the volume promises to bear: it may stop, and must not lie.
    pub beyond: bool,
    /// What is built in.
    pub planted: Option<Planted>,
}

/// Storage nodes of a volume.
pub const NODES: u16 = 6;

impl Config {
    /// The world of bare pages of a seed.
    pub fn draw(seed: u64) -> Config {
        let mut rng = Rng::new(seed ^ 0x5eed);
        Config {
            seed,
            kind: Kind::Pages,
            machines: *rng.pick(&[1, 3, 6, 6]),
            page_bytes: *rng.pick(&[1024, 2048]),
            segment_pages: rng.between(2, 6),
            segments: rng.between(1, 3),
            window: *rng.pick(&[20, 100, 1000]),
            log_file_bytes: *rng.pick(&[64 << 10, 256 << 10]),
            flush_bytes: *rng.pick(&[4 << 10, 32 << 10, 256 << 10]),
            give_bytes: 2 << 10,
            cache_bytes: 0,
            conflict_bytes: 0,
            net: NetConfig {
                delay_us_min: 50,
                delay_us_max: *rng.pick(&[200, 1000, 3000]),
                loss: *rng.pick(&[0, 10, 100]),
                duplicates: *rng.pick(&[0, 20, 100]),
            },
            chaos_us: *rng.pick(&[20_000, 50_000, 120_000]),
            pace: 1,
            end_us: 600_000,
            faults_max: u64::MAX,
            beyond: false,
            planted: None,
        }
    }

    /// The world of a seed with a database and its clients: 60 virtual seconds.
    pub fn database(seed: u64, workload: Workload) -> Config {
        let mut rng = Rng::new(seed ^ 0xda7a);
        Config {
            kind: Kind::Database(workload),
            page_bytes: *rng.pick(&[1024, 2048, 4096]),
            segment_pages: *rng.pick(&[64, 64, 128]),
            segments: 1,
            window: *rng.pick(&[2_000, 10_000]),
            log_file_bytes: *rng.pick(&[256 << 10, 1 << 20]),
            flush_bytes: *rng.pick(&[16 << 10, 64 << 10, 256 << 10]),
            give_bytes: 128 << 10,
            cache_bytes: *rng.pick(&[32 << 10, 64 << 10, 1 << 20]),
            conflict_bytes: *rng.pick(&[512, 4 << 10, 1 << 20]),
            net: NetConfig {
                delay_us_min: 50,
                delay_us_max: *rng.pick(&[400, 1000, 3000]),
                loss: *rng.pick(&[0, 5, 40]),
                duplicates: *rng.pick(&[0, 20, 100]),
            },
            chaos_us: *rng.pick(&[500_000, 1_000_000, 3_000_000]),
            pace: 100,
            end_us: 60_000_000,
            ..Config::draw(seed)
        }
    }

    /// The world of a seed and a kind.
    pub fn of(seed: u64, kind: Kind) -> Config {
        match kind {
            Kind::Pages => Config::draw(seed),
            Kind::Database(workload) => Config::database(seed, workload),
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
