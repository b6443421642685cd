//! The rows of a table as of one LSN, in key order, to be merged with those of a load.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use aurora_engine::{Cursor, EngineError, OverflowReader, RangeSpec, RowView, Table, Txn};
use aurora_page::{DataType, KeyBuf, LeafRef, Lsn, Page, Value, ValueRef};

use crate::Error;
use crate::cluster::Cluster;
use crate::load::BulkLoad;

/// The rows of the table at the base.
pub(crate) struct Stored<'c> {
    cluster: &'c Cluster,
    table: &'c Table,
    cursor: Cursor,
    /// Rows that are behind.
    pub passed: u64,
    at: Lsn,
    rows: Rows,
    key: Option<KeyBuf>,
}

/// Rows that were read, the next one first.
enum Rows {
    /// Of a leaf of the table's schema.
    Leaf(Arc<Page>, Range<usize>),
    /// Of one of an earlier schema.
    Mapped(VecDeque<Vec<Value>>),
}

impl<'c> Stored<'c> {
    pub fn new(
        cluster: &'c Cluster,
        txn: &Txn,
        table: &'c Arc<Table>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Stored<'c>, Error> {
        let cursor = cluster.run(interrupt, |engine| {
            engine.range(txn, table, RangeSpec::default())
        })?;
        let mut stored = Stored {
            cluster,
            table,
            cursor,
            passed: 0,
            at: txn.snapshot(),
            rows: Rows::Mapped(VecDeque::new()),
            key: None,
        };
        stored.find_key(interrupt)?;
        Ok(stored)
    }

    /// The key of the row that is next.
    pub fn key(&self) -> Option<&KeyBuf> {
        self.key.as_ref()
    }

    /// Goes past the row that is next.
    pub fn next(&mut self, interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        self.passed += 1;
        match &mut self.rows {
            Rows::Leaf(_, ranks) => ranks.start += 1,
            Rows::Mapped(rows) => drop(rows.pop_front()),
        }
        self.find_key(interrupt)
    }

    fn find_key(&mut self, interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        loop {
            self.key = match &self.rows {
                Rows::Leaf(page, ranks) if !ranks.is_empty() => {
                    let leaf = LeafRef::new(page).map_err(EngineError::from)?;
                    Some(leaf.key_at(ranks.start))
                }
                Rows::Leaf(..) => None,
                Rows::Mapped(rows) => {
                    let row = rows.front();
                    row.map(|row| self.table.key_of(row)).transpose()?
                }
            };
            if self.key.is_some() || !self.read(interrupt)? {
                return Ok(());
            }
        }
    }

    /// Reads the next block; false at the end.
    fn read(&mut self, interrupt: &dyn Fn() -> bool) -> Result<bool, Error> {
        let (cluster, cursor) = (self.cluster, &mut self.cursor);
        let block = cluster.run(interrupt, |engine| cursor.next_block(engine))?;
        let Some(block) = block else {
            return Ok(false);
        };
        self.rows = match block.leaf() {
            Some((page, ranks)) => Rows::Leaf(page.clone(), ranks),
            None => {
                let rows = cluster.run(interrupt, |_| {
                    block.rows()?.iter().map(RowView::values).collect()
                })?;
                Rows::Mapped(rows)
            }
        };
        Ok(true)
    }

    /// Gives the rows below a key to the load, all that are left if there is none.
    pub fn push_below(
        &mut self,
        key: Option<&KeyBuf>,
        load: &mut BulkLoad,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        while let Some(own) = &self.key
            && key.is_none_or(|key| own < key)
        {
            let outside = |value: &Value| matches!(value, Value::Overflow(_));
            match &self.rows {
                Rows::Leaf(page, ranks) => {
                    let leaf = LeafRef::new(page).map_err(EngineError::from)?;
                    let rank = ranks.start;
                    let long = |value: ValueRef<'_>| matches!(value, ValueRef::Overflow(_));
                    if leaf.row_values(rank).any(long) {
                        let row = self.whole(leaf.row(rank), interrupt)?;
                        load.push_row(&row, None, interrupt)?;
                    } else {
                        load.push_encoded_row(own, &leaf.row_bytes(rank), None, interrupt)?;
                    }
                }
                Rows::Mapped(rows) => {
                    let mut values = rows.front().cloned().unwrap_or_default();
                    if values.iter().any(outside) {
                        values = self.whole(values, interrupt)?;
                    }
                    load.push_row(&values, None, interrupt)?;
                }
            }
            self.next(interrupt)?;
        }
        Ok(())
    }

    /// The values of a row with those that lie in overflow pages.
    fn whole(
        &self,
        mut values: Vec<Value>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Vec<Value>, Error> {
        for (value, column) in values.iter_mut().zip(self.table.schema.columns()) {
            let Value::Overflow(reference) = value else {
                continue;
            };
            let mut reader = OverflowReader::new(*reference, self.at);
            let bytes = self
                .cluster
                .run(interrupt, |engine| engine.read_overflow_on(&mut reader))?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            *value = match column.data_type {
                DataType::Bytes => Value::Bytes(bytes),
                DataType::Json => Value::Json(text(&bytes)),
                _ => Value::Text(text(&bytes)),
            };
        }
        Ok(values)
    }
}
