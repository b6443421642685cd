//! The shell: threads, files and clocks that drive the state machines of an embedded cluster.
//!
//! Everything below is pure: `proto` decides, `store` keeps pages over a disk that it is given, `engine` is a database whose steps
//! stop when they need something. Only this crate blocks, starts threads, reads the clock and opens files.
//!
//! ```text
//!   Cluster ── run / settle ──> Engine ── append ──> EmbeddedVolume ── round ──> Device (log) ──> NodeStore x 6
//!      │  a Stop asks for a page        │                │  the waiting thread leads      acks ──> VDL ──> waiters
//!      └──────── Fetcher <──────────────┘                └─ maintenance: flush, compact, collect, scrub, repair
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | [`Cluster`] | opening, closing, the loop that serves the engine's stops |
//! | `open`, `create`, `unfinished`, `recover`, `restore` | from a directory to a volume that has every acknowledged commit [11][13] |
//! | `volume`, `device`, `waiters` | the commit path: group commit without a hop [8][9] |
//! | `lockwait` | who waits for a row's lock |
//! | `threads` | those of an open cluster: all or none |
//! | `fetch` | one read from one copy, another when it fails |
//! | `branch`, `backtrack` | the same volume on another branch, while it is open [3] |
//! | `backup` | what is kept elsewhere, and a cluster that begins with it |
//! | `clone` | another cluster that begins as this one was |
//! | `readonly` | opening without leaving a trace |
//! | [`Instance`], `instances`, `stream` | the writer and its replicas, each with a cache of its own; the redo stream |
//! | `failover`, `events` | another instance becomes the writer; what has happened |
//! | `faults` | nodes, disks and the writer break when they are told to |
//! | [`Ingest`], `sort`, `stored` | rows in any order into any table: sorted, merged with those that are there |
//! | [`BulkLoad`] | rows in key order, as sealed pages stored at every copy |
//! | `scan`, `scan_cache`, `changes` | parallel query: plans on the storage nodes |
//! | `maintenance`, `repair`, `hydrate` | the background |
//! | `metastore`, `lock`, `layout` | the manifest in seven places, one owner, where things lie |
//!
//! Locks, in the order in which they may be taken: the manifest; the lead; a device's `io`; then one of: the writer, a node's copies,
//! the waiters of both kinds, the completions, the redo stream. A change of instances comes before all of them. Nothing is called
//! under the latter, and no reader takes the first three. A branch alone takes more than one: all devices', the engine's commit lock,
//! the replicas', the writer and under it each node's copies in turn.

mod backtrack;
mod backup;
mod branch;
mod changes;
mod clock;
mod clone;
mod cluster;
mod completions;
mod create;
mod device;
mod direct;
mod error;
mod events;
mod failover;
mod faults;
mod fetch;
mod hydrate;
mod ingest;
mod instance;
mod instances;
mod layout;
mod load;
mod lock;
mod lockwait;
mod maintenance;
mod members;
mod mend;
mod metastore;
mod node;
mod open;
mod options;
mod osdisk;
mod readonly;
mod rebuild;
mod recover;
mod removals;
mod repair;
mod restore;
mod scan;
mod scan_cache;
mod sort;
mod status;
mod stored;
mod stream;
mod threads;
mod unfinished;
mod volume;
mod waiters;

pub use aurora_control::{CLASSES, Candidate};
pub use backtrack::{Backtracked, SnapshotInfo, Target, WINDOW_MAX, Window};
pub use backup::{
    BackupKey, BackupList, BackupOptions, BackupSnapshot, BackupStatus, ObjectPlace, Pieces,
    PlaceError, PlaceFault, PlannedObject, RestoreAt, RestorePlan, TableProof,
};
pub use cluster::Cluster;
pub use completions::{Completion, CompletionQueue};
pub use error::Error;
pub use events::Event;
pub use failover::Failover;
pub use faults::{CommitCrash, Corruption, Fault, FaultInfo, NodeName};
pub use ingest::{Ingest, LoadOptions, LoadPhase, Loaded, OnConflict};
pub use instance::{Connection, Instance, InstanceSpec, Progress};
pub use instances::{Choose, REPLICAS_MAX, ReplicaSpec};
pub use load::BulkLoad;
pub use lock::release_in_fork;
pub use lockwait::LOCK_TIMEOUT_DEFAULT;
pub use options::{NodePlacement, OpenOptions};
pub use osdisk::OsDisk;
pub use scan::{NodeReport, PqStatus, ScanReport};
pub use status::{BackgroundStatus, CacheStatus, InstanceStatus, NodeState, NodeStatus, Status};
pub use volume::EmbeddedVolume;
