//! Decisions about a cluster, without I/O, clock, threads or randomness: the facts are handed in, a plan comes out.
//!
//! | Module | What it decides |
//! |---|---|
//! | [`repair`] | what to do about node directories that are gone: at opening, and while running |
//! | [`retention`] | below which LSN versions may be collected, and which abandoned Histories are kept |

pub mod repair;
pub mod retention;

pub use repair::{Opening, Policy, Seen, Step, opening, repair_steps};
pub use retention::{Roots, collection_floor, forget_before_us};
