//! Record batches out of leaves, sealed leaves and rows.
//!
//! Works column by column: fixed-width values are copied as bytes, and where a leaf's rows lie in key order (as after a
//! bulk load) a column is one copy. A batch ends when it has its rows, or when a column of varying length has grown
//! so large that the next value could overflow Arrow's 32-bit offsets; so what is appended is counted in rows taken.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions, make_array};
use arrow_schema::{ArrowError, SchemaRef};
use aurora_page::{Columns, DataType, LeafRef, OverflowRef, Schema, SealedRef, ValueRef};
use thiserror::Error;

use crate::arrow_schema::to_arrow_field;
use crate::column_builder::{ColumnBuilder, Cut};

/// Bytes of varying length that one column of a batch may have; any single value is far smaller.
const VAR_BYTES_MAX: usize = 1 << 30;

/// Why rows cannot be appended, or a batch not be made.
#[derive(Debug, Error)]
pub enum ToArrowError {
    /// A projection names a column that is not there.
    #[error("expected column indexes below {columns}, got {got}")]
    NoSuchColumn {
        /// Columns of the table.
        columns: usize,
        /// The index.
        got: u16,
    },
    /// A page or row has other columns than the table.
    #[error("column {column}: expected {expected}, got {got}")]
    Column {
        /// Index of the column.
        column: usize,
        /// The table's type.
        expected: DataType,
        /// The page's type, or what the row has.
        got: String,
    },
    /// Arrow refuses the arrays: a text that is not UTF-8, from a damaged page.
    #[error("column {column:?}: {source}")]
    Array {
        /// Name of the column.
        column: String,
        /// What Arrow says.
        source: ArrowError,
    },
    /// Arrow refuses the batch.
    #[error(transparent)]
    Batch(ArrowError),
}

/// Why rows were not appended; the batch is as it was.
#[derive(Debug, Error)]
pub enum AppendError<E> {
    /// They are not rows of the table.
    #[error(transparent)]
    Rows(#[from] ToArrowError),
    /// A value in overflow pages could not be had.
    #[error("{0}")]
    Overflow(E),
}

/// Fetches the value that a reference stands for.
pub type ReadOverflow<'f, E> = &'f mut dyn FnMut(OverflowRef) -> Result<Vec<u8>, E>;

/// Collects rows into record batches. Batches of some 8,000 rows are made fastest: they stay in the processor's cache,
/// and their memory in the allocator.
pub struct BatchBuilder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    rows_max: usize,
    var_bytes_max: usize,
}

impl BatchBuilder {
    /// Batches of at most `rows_max` rows with all columns of the table, or those of a projection (column indexes, in
    /// the order wanted).
    pub fn new(
        schema: &Schema,
        projection: Option<&[u16]>,
        rows_max: usize,
    ) -> Result<BatchBuilder, ToArrowError> {
        let all: Vec<u16> = (0..schema.columns().len() as u16).collect();
        let indexes = projection.unwrap_or(&all);
        let columns = schema.columns();
        if let Some(got) = indexes
            .iter()
            .find(|index| usize::from(**index) >= columns.len())
        {
            return Err(ToArrowError::NoSuchColumn {
                columns: columns.len(),
                got: *got,
            });
        }
        let chosen = || {
            indexes
                .iter()
                .map(|index| (usize::from(*index), &columns[usize::from(*index)]))
        };
        let fields: Vec<_> = chosen().map(|(_, column)| to_arrow_field(column)).collect();
        Ok(BatchBuilder {
            schema: Arc::new(arrow_schema::Schema::new(fields)),
            columns: chosen()
                .map(|(index, column)| ColumnBuilder::new(index, column.data_type, rows_max))
                .collect(),
            rows: 0,
            rows_max: rows_max.max(1),
            var_bytes_max: VAR_BYTES_MAX,
        })
    }

    /// Lowers the bytes that a column of varying length may have in one batch.
    pub fn with_var_bytes_max(mut self, var_bytes_max: usize) -> BatchBuilder {
        self.var_bytes_max = var_bytes_max.clamp(1, VAR_BYTES_MAX);
        self
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether [`BatchBuilder::finish`] should come before more rows.
    pub fn is_full(&self) -> bool {
        self.rows >= self.rows_max
            || self
                .columns
                .iter()
                .any(|column| column.var_bytes() >= self.var_bytes_max)
    }

    /// Appends rows of a leaf by rank, in key order. Gives how many were taken: fewer than asked for if the batch is
    /// full now.
    pub fn append_leaf<E>(
        &mut self,
        leaf: &LeafRef<'_>,
        ranks: Range<usize>,
        overflow: ReadOverflow<'_, E>,
    ) -> Result<usize, AppendError<E>> {
        let room = self.rows_max - self.rows.min(self.rows_max);
        let end = ranks
            .end
            .min(leaf.len())
            .min(ranks.start.saturating_add(room));
        let slots: Vec<u16> = (ranks.start..end).map(|rank| leaf.slot(rank)).collect();
        self.append_slots(leaf, &slots, overflow)
    }

    /// Appends rows of a leaf by slot, in the order given. Gives how many were taken.
    pub fn append_slots<E>(
        &mut self,
        leaf: &LeafRef<'_>,
        slots: &[u16],
        overflow: ReadOverflow<'_, E>,
    ) -> Result<usize, AppendError<E>> {
        self.check(leaf)?;
        self.append(slots.len(), |column, taken, cut| {
            column.append_slots(leaf, &slots[..taken], cut, overflow)
        })
    }

    /// Appends rows of a sealed leaf by rank. Gives how many were taken.
    pub fn append_sealed<E>(
        &mut self,
        leaf: &SealedRef<'_>,
        ranks: Range<usize>,
        overflow: ReadOverflow<'_, E>,
    ) -> Result<usize, AppendError<E>> {
        self.check(leaf)?;
        let (start, end) = (ranks.start.min(leaf.len()), ranks.end.min(leaf.len()));
        self.append(end.saturating_sub(start), |column, taken, cut| {
            let packed = leaf.column(column.index);
            column.append_packed(&packed, start..start + taken, cut, overflow)
        })
    }

    /// Appends one row with a value for every column of the table. Gives whether it was taken.
    pub fn append_row<E>(
        &mut self,
        row: &[ValueRef<'_>],
        overflow: ReadOverflow<'_, E>,
    ) -> Result<bool, AppendError<E>> {
        let taken = self.append(1, |column, taken, cut| {
            if taken == 0 {
                return Ok(0);
            }
            let value = row.get(column.index).copied();
            column.append_value(value, cut, overflow)
        })?;
        Ok(taken == 1)
    }

    /// The batch; the builder goes on with an empty one.
    pub fn finish(&mut self) -> Result<RecordBatch, ToArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter_mut().zip(self.schema.fields()) {
            let data = column.finish(rows).map_err(|source| ToArrowError::Array {
                column: field.name().clone(),
                source,
            })?;
            arrays.push(make_array(data));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(ToArrowError::Batch)
    }

    fn check(&self, page: &impl Columns) -> Result<(), ToArrowError> {
        for ColumnBuilder {
            index, data_type, ..
        } in &self.columns
        {
            let got = (*index < page.column_count()).then(|| page.column_type(*index));
            if got != Some(*data_type) {
                let got = got.map_or_else(|| "no such column".to_owned(), |got| got.to_string());
                return Err(ToArrowError::Column {
                    column: *index,
                    expected: *data_type,
                    got,
                });
            }
        }
        Ok(())
    }

    /// Appends the same rows to every column: as many as the column that takes the fewest.
    fn append<E>(
        &mut self,
        count: usize,
        mut append: impl FnMut(&mut ColumnBuilder, usize, Cut) -> Result<usize, AppendError<E>>,
    ) -> Result<usize, AppendError<E>> {
        let start = self.rows;
        let mut taken = count.min(self.rows_max - start.min(self.rows_max));
        // The first value of a batch is always taken, or nothing would ever move.
        let cut = Cut {
            var_bytes_max: self.var_bytes_max,
            first: start == 0,
        };
        let mut failed = None;
        for column in &mut self.columns {
            match append(column, taken, cut) {
                Ok(appended) => taken = taken.min(appended),
                Err(error) => {
                    (failed, taken) = (Some(error), 0);
                    break;
                }
            }
        }
        self.columns
            .iter_mut()
            .for_each(|column| column.truncate(start + taken));
        self.rows = start + taken;
        match failed {
            Some(error) => Err(error),
            None => Ok(taken),
        }
    }
}
