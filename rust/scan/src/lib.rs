//! The parallel-query kernel, and rows of pages as Arrow and back.
//!
//! ```text
//!   Plan (filter, then rows or groups) --bind(&Schema)--> BoundPlan --> Job
//!   Partial::new(job), fold_sealed | fold_leaf | fold_row ..., merge with those of other parts, finish --> rows
//! ```
//! [`expr`] is what rows are filtered by and computed from. Pages are folded as they lie: conditions on packed columns without
//! unpacking, on dictionaries once per entry; sums of integers and decimals exact, of floats too, rounded once; so one answer
//! comes back for any order of pages and any number of parts.
//!
//! With the feature `arrow`: schemas both ways ([`to_arrow_schema`], [`from_arrow_schema`]), record batches out of
//! leaves and rows ([`BatchBuilder`]), keys and encoded rows out of record batches ([`BatchRows`]). Nothing here does
//! I/O: pages, rows and the values of overflow chains are handed in. Needs only `aurora-page`.

#[cfg(feature = "arrow")]
mod arrow_column;
#[cfg(feature = "arrow")]
pub mod arrow_schema;
#[cfg(feature = "arrow")]
mod column_builder;
mod conditions;
pub mod decimal;
mod error;
pub mod expr;
mod filter;
mod float_sum;
mod fold;
#[cfg(feature = "arrow")]
mod from_arrow;
mod group;
mod on_row;
mod plan;
mod quantile;
mod state;
#[cfg(feature = "arrow")]
mod to_arrow;
mod vector;
mod view;

#[cfg(feature = "arrow")]
pub use crate::arrow_schema::{
    ArrowSchemaError, TIMESTAMP_ZONE, from_arrow_field, from_arrow_schema, to_arrow_field,
    to_arrow_schema, to_arrow_type,
};
pub use error::{ReadLong, ScanError};
pub use fold::{Counters, Job, Partial, TopN, sort_rows};
#[cfg(feature = "arrow")]
pub use from_arrow::{BatchRows, EncodedRow, FromArrowError};
pub use plan::{Aggregate, AggregateFunction, BoundPlan, Interpolation, Output, Plan, Share};
#[cfg(feature = "arrow")]
pub use to_arrow::{AppendError, BatchBuilder, ReadOverflow, ToArrowError};
pub use view::PageView;
