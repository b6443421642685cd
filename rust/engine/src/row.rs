//! Rows as they are read: where they lie in a page, or as a transaction has changed them.

use std::sync::Arc;

use aurora_page::{ColumnMap, LeafRef, Page, Value, ValueRef};

use crate::btree::column_map;
use crate::error::{Attempt, EngineError};
use crate::table::Table;

/// A row that was read. Cheap to clone; keeps its page version alive.
#[derive(Clone, Debug)]
pub struct RowView(Inner);

#[derive(Clone, Debug)]
enum Inner {
    /// At a slot of a leaf.
    Stored { page: Arc<Page>, slot: u16 },
    /// At a slot of a leaf of an earlier schema.
    Mapped {
        page: Arc<Page>,
        slot: u16,
        map: Arc<ColumnMap>,
    },
    /// Changed by the transaction that reads it.
    Own(Arc<[Value]>),
}

impl RowView {
    pub(crate) fn stored(page: Arc<Page>, slot: u16) -> RowView {
        RowView(Inner::Stored { page, slot })
    }

    /// A row of a leaf whose columns are those of the table, or become them by a map.
    pub(crate) fn mapped(page: Arc<Page>, slot: u16, map: Option<&Arc<ColumnMap>>) -> RowView {
        match map {
            None => RowView::stored(page, slot),
            Some(map) => RowView(Inner::Mapped {
                page,
                slot,
                map: map.clone(),
            }),
        }
    }

    /// The row at a slot, as the table's schema has it.
    #[inline]
    pub(crate) fn of(table: &Table, page: Arc<Page>, slot: u16) -> Attempt<RowView> {
        if page.schema_version() == table.schema.version {
            return Ok(RowView::stored(page, slot));
        }
        let map = column_map(table, &page, &LeafRef::new(&page)?)?.map(Arc::new);
        Ok(RowView::mapped(page, slot, map.as_ref()))
    }

    pub(crate) fn own(values: Vec<Value>) -> RowView {
        RowView(Inner::Own(values.into()))
    }

    /// The value of a column. One that lies in overflow pages is a reference: `Engine::read_overflow` fetches it.
    #[inline]
    pub fn value(&self, column: usize) -> Attempt<ValueRef<'_>> {
        match &self.0 {
            Inner::Stored { page, slot } => {
                let leaf = LeafRef::new(page)?;
                check_column(column, leaf.column_count(), page)?;
                Ok(leaf.value(*slot, column))
            }
            Inner::Mapped { page, slot, map } => {
                let leaf = LeafRef::new(page)?;
                check_column(column, map.len(), page)?;
                Ok(map.value(column, |at| leaf.value(*slot, at)))
            }
            Inner::Own(values) => Ok(values.get(column).map_or(ValueRef::Null, Value::as_ref)),
        }
    }

    /// Gives every value in the order of the columns. Faster than one [`RowView::value`] for each.
    #[inline]
    pub fn for_each<'r>(&'r self, mut with: impl FnMut(usize, ValueRef<'r>)) -> Attempt<()> {
        match &self.0 {
            Inner::Stored { page, slot } => {
                let leaf = LeafRef::new(page)?;
                (0..leaf.column_count()).for_each(|column| with(column, leaf.value(*slot, column)));
            }
            Inner::Mapped { page, slot, map } => {
                let leaf = LeafRef::new(page)?;
                (0..map.len())
                    .for_each(|column| with(column, map.value(column, |at| leaf.value(*slot, at))));
            }
            Inner::Own(values) => values
                .iter()
                .enumerate()
                .for_each(|(column, value)| with(column, value.as_ref())),
        }
        Ok(())
    }

    /// All values, owned.
    pub fn values(&self) -> Attempt<Vec<Value>> {
        let mut values = Vec::new();
        self.for_each(|_, value| values.push(value.to_owned()))?;
        Ok(values)
    }

    /// Whether the reading transaction has changed the row, so that it lies in no page.
    pub fn is_own(&self) -> bool {
        matches!(self.0, Inner::Own(_))
    }
}

fn check_column(column: usize, count: usize, page: &Page) -> Attempt<()> {
    if column < count {
        return Ok(());
    }
    let expected = format!("a column below {count}");
    Err(EngineError::corrupt(page.id(), page.lsn(), expected, column.to_string()).into())
}
