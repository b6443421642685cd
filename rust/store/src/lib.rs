//! A storage node's durable page store.

pub mod disk;
pub mod error;
pub mod identity;
pub mod logdev;
pub mod memdisk;
mod memfile;
pub mod node;
mod token;
pub mod types;

pub use disk::{Disk, DiskFile, OpenMode};
pub use error::{LogError, StoreError};
pub use identity::NodeIdentity;
pub use logdev::{Appended, LogConfig, LogDevice, LogEntry, Position, Replay, Ticket};
pub use memdisk::MemDisk;
pub use node::NodeStore;
pub use token::{PersistedBlob, PersistedToken};
pub use types::{
    CommitPoint, Damage, Export, Image, LayerInfo, LayerKind, NodeConfig, PageChain, Roots, ScrubReport,
};
