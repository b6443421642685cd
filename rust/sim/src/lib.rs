//! The other shell: a world with a seed, which runs the production state machines and breaks what surrounds them.
//!
//! The protocol (`aurora-proto`), the storage node (`aurora-store`) and the log (`aurora-redo`) do no I/O of their own, know
//! no clock and draw no random numbers. The product's shell gives them threads, files and time; this one gives them one thread, a
//! queue of events, memory disks that lose what was not synced, and one generator. The same seed gives the same run,
//! event by event, so that every failure can be looked at again.
//!
//! | module | part |
//! |---|---|
//! | [`config`] | what a seed decides, and the faults that can be planted |
//! | [`world`] | the event loop; `transport` messages, `work` what goes right, `chaos` what goes wrong, `check` what must hold |
//! | [`effort`], [`report`] | how much a world may do, and what it came to |
//! | [`machine`], [`node`], [`accept`], `peers`, `repair` | a machine with its disk, log and nodes: the driver of copies and stores |
//! | [`instance`], [`volume`] | the driver of recovery and writer |
//! | `database`, `engines`, [`reads`], [`blobs`], `appended`, [`session`] | the driver of engines: what clients wait for, and clients |
//! | [`members`], `switch` | replicas of an engine, and who becomes the writer |
//! | [`workloads`] | what clients do, and what must hold for them; `structure` trees and extents |
//! | [`model`], [`workload`] | what must be there |
//! | [`planted`] | mistakes that can be built in, to see the checkers notice |
//! | [`shrink`] | a failing world with fewer faults |
//! | [`net`], [`disk`], [`meta`], [`queue`], [`rng`], [`trace`] | the surroundings |
//!
//! `docs/design/simulation.md` says what is checked, and how it is known that the checks can fail.

pub mod accept;
mod appended;
pub mod blobs;
mod chaos;
mod check;
pub mod config;
pub mod database;
pub mod disk;
pub mod effort;
mod engines;
mod faults;
pub mod instance;
pub mod machine;
pub mod members;
pub mod messages;
pub mod meta;
pub mod model;
pub mod net;
pub mod node;
mod peers;
pub mod planted;
pub mod queue;
pub mod reads;
mod repair;
pub mod report;
pub mod rng;
pub mod session;
pub mod shrink;
mod structure;
mod switch;
pub mod trace;
mod transport;
pub mod volume;
mod work;
pub mod workload;
pub mod workloads;
pub mod world;

pub use config::{Config, Kind, Planted};
pub use report::Report;
pub use workloads::Workload;
pub use world::World;
