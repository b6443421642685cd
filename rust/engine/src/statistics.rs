//! What is known of a table's rows: how many there are, how much room they take, and what their columns look like.
//!
//! | figure | how it is kept |
//! |---|---|
//! | bytes | read when asked for, from the list of the table's extents |
//! | rows | counted by an analysis; commits add and subtract in memory, for nothing. After opening, what changed since the last analysis before is not known |
//! | nulls, distinct values, least and greatest | by an analysis: one read of the table at a snapshot, a leaf at a time |
//!
//! The result of an analysis lies in the catalogue, with the table's definition. Distinct values are estimated by a HyperLogLog
//! sketch of 2^12 registers (standard error 1.6%), whose hash is fixed, so the same rows give the same figure everywhere.

use std::sync::Arc;

use aurora_page::{
    DataType, KeyBuf, Lsn, ObjectId, Value, ValueRef, decode_value, encode_part, encode_value,
};
use aurora_proto::Volume;
use datasketches::hll::{HllSketch, HllType};
use rustc_hash::FxHashMap;

use crate::cursor::{Cursor, RangeSpec};
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError};
use crate::overflow::{Chains, var_bytes};
use crate::table::Table;
use crate::txn::{Commit, Txn};

/// Registers of a sketch, as a power of two.
const SKETCH_LG: u8 = 12;
/// Longer texts and bytes are not compared for the least and the greatest value.
const BOUND_BYTES_MAX: usize = 64;

/// What an analysis has found out about one column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnStatistics {
    /// The column's id.
    pub column: u16,
    /// Its type at the time.
    pub data_type: DataType,
    /// Rows in which it is null.
    pub nulls: u64,
    /// Different values, about; null is none. Values in overflow pages all count as different.
    pub distinct: u64,
    /// Smallest and largest value, encoded; texts and bytes of more than 64 bytes are left out.
    pub(crate) bounds: (Vec<u8>, Vec<u8>),
}

impl ColumnStatistics {
    /// The smallest value, null if there is none. Texts and bytes of more than 64 bytes, and json, are left out.
    pub fn least(&self) -> Value {
        decode_value(self.data_type, &self.bounds.0).unwrap_or(Value::Null)
    }

    /// The largest value, null if there is none. Texts and bytes of more than 64 bytes, and json, are left out.
    pub fn greatest(&self) -> Value {
        decode_value(self.data_type, &self.bounds.1).unwrap_or(Value::Null)
    }
}

/// What an analysis has found out about a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// The state that was read.
    pub at: Lsn,
    /// When that was, in microseconds since 1970.
    pub time_us: i64,
    /// Rows.
    pub rows: u64,
    /// Its columns, those that have come since left out.
    pub columns: Vec<ColumnStatistics>,
}

/// How large a table is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableSize {
    /// Rows, about; `None` if they were never counted.
    pub rows: Option<u64>,
    /// Bytes of its extents.
    pub bytes: u64,
    /// Bytes of the extents of its indexes.
    pub index_bytes: u64,
}

/// Rows that came and went since the engine began, by table.
#[derive(Default)]
pub(crate) struct RowCounts(FxHashMap<ObjectId, RowCount>);

#[derive(Clone, Copy, Default)]
struct RowCount {
    /// Rows that came, less those that went.
    change: i64,
    /// What `change` was at the last analysis.
    analysed: i64,
    /// There were no rows when the counting began.
    from_none: bool,
}

impl RowCounts {
    pub fn add(&mut self, counted: &[(ObjectId, i64)]) {
        for (object, change) in counted {
            self.0.entry(*object).or_default().change += change;
        }
    }

    /// A table without rows has been made.
    pub fn begin(&mut self, object: ObjectId) {
        let begun = RowCount {
            from_none: true,
            ..RowCount::default()
        };
        self.0.insert(object, begun);
    }

    fn change(&self, object: ObjectId) -> i64 {
        self.0.get(&object).map_or(0, |count| count.change)
    }

    fn analysed(&mut self, object: ObjectId, change: i64) {
        self.0.entry(object).or_default().analysed = change;
    }

    fn rows(&self, table: &Table) -> Option<u64> {
        let count = self.0.get(&table.id).copied().unwrap_or_default();
        if count.from_none {
            return Some(count.change.max(0) as u64);
        }
        let base = table.definition.statistics.as_ref()?.rows;
        Some(base.saturating_add_signed(count.change - count.analysed))
    }
}

/// A read of a whole table that counts.
pub struct Analysis {
    table: Arc<Table>,
    cursor: Cursor,
    rows: u64,
    columns: Vec<Counter>,
    /// Rows that had come and gone when it began.
    change: i64,
}

struct Counter {
    data_type: DataType,
    nulls: u64,
    sketch: HllSketch,
    /// Keys of the smallest and the largest value, with the values.
    bounds: Option<[(KeyBuf, Value); 2]>,
    key: KeyBuf,
}

impl Counter {
    fn new(data_type: DataType) -> Attempt<Counter> {
        let sketch = HllSketch::new(SKETCH_LG, HllType::Hll8).map_err(|error| {
            EngineError::corrupt(
                Default::default(),
                Lsn::NONE,
                "a sketch of 2^12 registers",
                error.to_string(),
            )
        })?;
        Ok(Counter {
            data_type,
            nulls: 0,
            sketch,
            bounds: None,
            key: KeyBuf::new(),
        })
    }

    fn count(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.nulls += 1,
            ValueRef::Overflow(reference) => self.sketch.update(reference.to_bytes()),
            value => {
                self.key.clear();
                encode_part(&mut self.key, self.data_type, value, false, false);
                self.sketch.update(&*self.key);
                self.bound(value);
            }
        }
    }

    fn bound(&mut self, value: ValueRef<'_>) {
        let is_long = var_bytes(value).is_some_and(|bytes| bytes.len() > BOUND_BYTES_MAX);
        if is_long || self.data_type == DataType::Json {
            return;
        }
        let owned = || (self.key.clone(), value.to_owned());
        match &mut self.bounds {
            None => self.bounds = Some([owned(), owned()]),
            Some([least, greatest]) => {
                if self.key < least.0 {
                    *least = owned();
                }
                if self.key > greatest.0 {
                    *greatest = owned();
                }
            }
        }
    }

    fn finish(&self, column: u16) -> ColumnStatistics {
        let bound = |which: usize| match &self.bounds {
            Some(bounds) => encode_value(self.data_type, bounds[which].1.as_ref()),
            None => encode_value(self.data_type, ValueRef::Null),
        };
        ColumnStatistics {
            column,
            data_type: self.data_type,
            nulls: self.nulls,
            distinct: self.sketch.estimate().round() as u64,
            bounds: (bound(0), bound(1)),
        }
    }
}

impl<V: Volume> Engine<V> {
    /// Begins an analysis of the table of this name, as the transaction sees it.
    pub fn begin_analysis(&self, txn: &Txn, name: &str) -> Attempt<Analysis> {
        let table = self
            .table_in(txn, name)?
            .ok_or_else(|| EngineError::UnknownTable {
                table: name.to_owned(),
                at: txn.snapshot(),
            })?;
        let columns = table.schema.columns().iter();
        Ok(Analysis {
            columns: columns
                .map(|column| Counter::new(column.data_type))
                .collect::<Attempt<_>>()?,
            cursor: self.range(txn, &table, RangeSpec::default())?,
            rows: 0,
            change: self.committing.lock().counts.change(table.id),
            table,
        })
    }

    /// Counts the rows of the next leaf; whether there was one. A stop loses nothing.
    pub fn analysis_step(&self, analysis: &mut Analysis) -> Attempt<bool> {
        let Some(block) = analysis.cursor.next_block(self)? else {
            return Ok(false);
        };
        for row in block.rows()? {
            let columns = &mut analysis.columns;
            row.for_each(|column, value| columns[column].count(value))?;
        }
        analysis.rows += block.len() as u64;
        Ok(true)
    }

    /// Puts the result of an analysis that has come to its end into the catalogue.
    pub fn keep_analysis(
        &self,
        analysis: &Analysis,
        now_us: i64,
    ) -> Attempt<(Arc<Table>, Option<Commit>)> {
        let columns = analysis.table.schema.columns().iter();
        let statistics = Statistics {
            at: analysis.cursor.at(),
            time_us: now_us,
            rows: analysis.rows,
            columns: columns
                .zip(&analysis.columns)
                .map(|(column, counter)| counter.finish(column.id))
                .collect(),
        };
        let id = analysis.table.id;
        let keep = |_: &mut Edit<'_>, head: &Table, _: &mut Chains| {
            if head.id != id {
                // Emptied since it was read.
                return Ok((None, ()));
            }
            let mut definition = head.definition.clone();
            definition.statistics = Some(statistics.clone());
            Ok((Some(head.clone().defined(head.version, definition)?), ()))
        };
        let ((), table, commit) = self.redefine(&analysis.table, now_us, keep)?;
        self.committing.lock().counts.analysed(id, analysis.change);
        Ok((table, commit))
    }

    /// How large a table is at a read point.
    pub fn table_size(&self, table: &Table, at: Lsn) -> Attempt<TableSize> {
        let bytes = |tree: &Table| -> Attempt<u64> {
            let extents: u64 = self.extents_of(tree, at)?.iter().map(|run| run.count).sum();
            Ok(extents * self.geometry.extent_pages * self.geometry.page_bytes as u64)
        };
        let mut index_bytes = 0;
        for index in &table.indexes {
            index_bytes += bytes(&index.tree)?;
        }
        Ok(TableSize {
            rows: self.committing.lock().counts.rows(table),
            bytes: bytes(table)?,
            index_bytes,
        })
    }
}
