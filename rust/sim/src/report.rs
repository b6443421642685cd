//! What a run came to.

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash of everything that happened.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// MTRs that were numbered.
    pub numbered: usize,
    /// MTRs that were acknowledged.
    pub acknowledged: usize,
    /// Recoveries that opened the volume.
    pub opened: u64,
    /// Starts of machines after crashes.
    pub boots: u64,
    /// Page versions that were compared with the model.
    pub compared: u64,
    /// Things that went wrong with the world by design.
    pub faults: u64,
    /// Commits that clients were told of, those of which they never knew, and whole tables that they read.
    pub clients: [u64; 3],
    /// Waits for locks that came, and those that were given up: too late, or a circle.
    pub locks: [u64; 2],
    /// Events, those of which the trace says nothing too, and pages that were given from node to node.
    pub effort: [u64; 2],
    /// Virtual time at the end.
    pub now_us: u64,
    /// What went wrong.
    pub failure: Option<String>,
    /// What happened, line by line, if it was kept.
    pub trace: String,
}

impl Report {
    /// Of a world in which nothing has happened.
    pub(crate) fn blank(seed: u64) -> Report {
        Report {
            seed,
            hash: 0,
            events: 0,
            numbered: 0,
            acknowledged: 0,
            opened: 0,
            boots: 0,
            compared: 0,
            faults: 0,
            clients: [0; 3],
            locks: [0; 2],
            effort: [0; 2],
            now_us: 0,
            failure: None,
            trace: String::new(),
        }
    }
}
