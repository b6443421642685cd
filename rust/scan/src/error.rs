//! Why a scan fails, and how it asks for what lies outside its pages.

use aurora_page::{MapError, OverflowRef};
use thiserror::Error;

use crate::expr::EvalError;

/// Why rows could not be computed with.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ScanError {
    /// A row that an expression has no value for.
    #[error("{expression}: {source}")]
    Eval {
        /// The expression.
        expression: String,
        /// Why.
        source: EvalError,
    },
    /// A value in overflow pages could not be had.
    #[error("{0}")]
    Long(String),
    /// A page that cannot be read as rows of the table.
    #[error(transparent)]
    Page(#[from] MapError),
    /// Groups or rows take more memory than they may.
    #[error("expected groups and rows of at most {limit} bytes in memory, got {got}")]
    Memory {
        /// What they may take.
        limit: usize,
        /// What they took when it was seen.
        got: usize,
    },
}

/// Fetches a value that lies in overflow pages.
pub type ReadLong<'f> = &'f mut dyn FnMut(OverflowRef) -> Result<Vec<u8>, String>;
