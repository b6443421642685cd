//! A storage node's durable page store, and the hot log of the disk it lies on.
//!
//! ```text
//!   copies accept a batch --> LogDevice::append --> PersistedToken --> acknowledgement [8]
//!                                  |
//!                             NodeStore::ingest --> memory --flush--> delta layers --compact--> image layers
//!                                                                          |
//!                                     materialise(page, at, history) <-----+
//! ```
//!
//! | module | idea |
//! |---|---|
//! | [`disk`] | what is asked of a file system, and what is assumed of it |
//! | [`memdisk`] | a file system in memory: `memory=True`, and all faults for tests |
//! | [`logdev`] | one log for all nodes of a disk: one write and one sync for six copies |
//! | `layer` | immutable files of records or sealed pages |
//! | [`node`] | one node's memory, layers and identity; what its driver has to do |
//! | `materialise` | a page as of any LSN at or above the floor |
//! | `compact`, `collect` | fewer layers, images where they pay; nothing kept that no root needs |
//! | `scrub` | everything is read again; damage is mended from another copy |
//! | `transfer` | records and pages for other copies |
//!
//! No clock, threads or randomness: the shell calls, with a budget of bytes where work could be long. Bytes from disk are
//! never trusted: what fails its checksum is an error that says the file, the place, expected and got [7], and the shell
//! reads another copy. `docs/design/store.md` is the long form.

mod backup;
mod blob;
mod cache;
mod collect;
mod commits;
mod compact;
pub mod disk;
pub mod error;
mod fork;
pub mod identity;
mod inventory;
mod layer;
mod layermap;
pub mod logdev;
mod materialise;
pub mod memdisk;
mod memfile;
mod memlayer;
pub mod node;
mod scrub;
mod state;
mod token;
mod transfer;
pub mod types;

pub use backup::{LogRange, Sealed, SealedFile, blob_path, layer_path, replaced_by};
pub use disk::{Disk, DiskFile, OpenMode};
pub use error::{LogError, StoreError};
pub use fork::ForkTarget;
pub use identity::{IDENTITY_FILE, NodeIdentity};
pub use logdev::{Appended, LogConfig, LogDevice, LogEntry, Position, Replay, Ticket};
pub use materialise::ScanPage;
pub use memdisk::MemDisk;
pub use node::NodeStore;
pub use token::{PersistedBlob, PersistedToken};
pub use types::{
    CommitPoint, Damage, Export, Image, LayerInfo, LayerKind, NodeConfig, PageChain, Roots,
    ScrubReport,
};
