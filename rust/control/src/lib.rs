//! Decisions about a cluster, without I/O, clock, threads or randomness: the facts are handed in, a plan comes out.
//!
//! | Module | What it decides |
//! |---|---|
//! | [`backup`] | which objects of a backup a moment needs, and which may be deleted |
//! | [`balance`] | which instance a reader's connection goes to |
//! | [`promotion`] | who is silent for too long, and who becomes the writer |
//! | [`repair`] | what to do about node directories that are gone: at opening, and while running |
//! | [`retention`] | below which LSN versions may be collected, and which abandoned Histories are kept |

pub mod backup;
pub mod balance;
pub mod promotion;
pub mod repair;
pub mod retention;

pub use promotion::{CLASSES, Candidate, Detector, TIER_MAX, choose, class_rank};
pub use repair::{Opening, Policy, Seen, Step, opening, renewals, repair_steps};
pub use retention::{Roots, collection_floor, forget_before_us};
