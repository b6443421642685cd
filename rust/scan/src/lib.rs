//! The parallel-query kernel: [`expr`] is what rows are filtered by and computed from. And rows of pages as Arrow, Arrow as
//! rows.
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
pub mod decimal;
pub mod expr;
#[cfg(feature = "arrow")]
mod from_arrow;
#[cfg(feature = "arrow")]
mod to_arrow;

#[cfg(feature = "arrow")]
pub use crate::arrow_schema::{
    ArrowSchemaError, TIMESTAMP_ZONE, from_arrow_field, from_arrow_schema, to_arrow_field,
    to_arrow_schema, to_arrow_type,
};
#[cfg(feature = "arrow")]
pub use from_arrow::{BatchRows, EncodedRow, FromArrowError};
#[cfg(feature = "arrow")]
pub use to_arrow::{AppendError, BatchBuilder, ReadOverflow, ToArrowError};
