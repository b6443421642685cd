//! Leaves of an earlier schema: read as rows of the present one, and upgraded before they are changed.

use aurora_page::{
    ColumnMap, KeyBuf, LeafRef, OverflowRef, PageId, ValueRef, encode_row_from, leaf_upgrade,
};
use aurora_redo::Op;

use super::insert::Found;
use super::rows::{Rows, first_layout, format_op};
use super::split::separator;
use crate::btree::Pages;
use crate::edit::Edit;
use crate::error::{Attempt, EngineError};
use crate::overflow::Chains;
use crate::table::Table;

/// How a leaf's columns become those of the table, if they are not the same.
pub(crate) fn column_map(
    table: &Table,
    page: &aurora_page::Page,
    leaf: &LeafRef<'_>,
) -> Attempt<Option<ColumnMap>> {
    ColumnMap::needed(&table.schema, leaf).map_err(|error| {
        if leaf.schema_version() > table.schema.version {
            return crate::alter::schema_changed(table, page.lsn()).into();
        }
        EngineError::corrupt(page.id(), page.lsn(), error.expected, error.got).into()
    })
}

/// The rows of a leaf as the table's schema has them.
pub(super) fn rows_of(table: &Table, leaf: &LeafRef<'_>, map: Option<&ColumnMap>) -> Vec<Vec<u8>> {
    let Some(map) = map else {
        return (0..leaf.len()).map(|rank| leaf.row_bytes(rank)).collect();
    };
    let row = |rank: usize| {
        let values = (0..map.len()).map(|column| map.value(column, |at| leaf.value_at(rank, at)));
        encode_row_from(&table.schema, values)
    };
    (0..leaf.len()).map(row).collect()
}

/// The overflow values of columns that the table has no more.
pub(super) fn dropped_values(table: &Table, leaf: &LeafRef<'_>) -> Vec<OverflowRef> {
    let dropped = |column: &usize| {
        let id = leaf.column_id(*column);
        leaf.column_type(*column).fixed_width().is_none()
            && table.schema.columns().iter().all(|have| have.id != id)
    };
    let mut values = Vec::new();
    for column in (0..leaf.column_count()).filter(dropped) {
        values.extend(
            (0..leaf.len()).filter_map(|rank| match leaf.value_at(rank, column) {
                ValueRef::Overflow(reference) => Some(reference),
                _ => None,
            }),
        );
    }
    values
}

/// What the upgrade of a leaf needs to know of it.
struct Old {
    rows: Rows,
    keys: Vec<KeyBuf>,
    dropped: Vec<OverflowRef>,
}

impl Edit<'_> {
    /// The place of a key, in a leaf that is of the table's schema: one that is not is upgraded first.
    #[inline]
    pub fn upgraded(
        &mut self,
        table: &Table,
        key: &[u8],
        found: Found,
        chains: &mut Chains,
    ) -> Attempt<Found> {
        if self.page(found.leaf)?.schema_version() == table.schema.version {
            return Ok(found);
        }
        self.upgrade_leaf(table, found.leaf, chains)?;
        self.find(table, key)
    }

    /// Brings a leaf to the table's schema by one record. Where its rows no longer fit, they are divided as in a split.
    fn upgrade_leaf(&mut self, table: &Table, leaf: PageId, chains: &mut Chains) -> Attempt<()> {
        let old = self.old_leaf(table, leaf)?;
        let count = old.rows.rows.len();
        let layout = if count == 0 {
            Some(first_layout(table, self.geometry.page_bytes)?)
        } else {
            old.rows.layout(table, 0..count, self.geometry.page_bytes)?
        };
        match layout {
            Some(layout) => {
                let content = leaf_upgrade(&table.schema, capacity_of(&layout));
                self.change(leaf, &Op::LeafUpgrade { content: &content })?;
            }
            None => self.divide_leaf(table, leaf, &old)?,
        }
        old.dropped
            .into_iter()
            .try_for_each(|value| self.free_value(value, chains))
    }

    fn old_leaf(&self, table: &Table, leaf: PageId) -> Attempt<Old> {
        let page = self.page(leaf)?;
        let leaf = LeafRef::new(&page)?;
        let map = column_map(table, &page, &leaf)?;
        Ok(Old {
            rows: Rows::new(&table.schema, rows_of(table, &leaf, map.as_ref()))?,
            keys: (0..leaf.len()).map(|rank| leaf.key_at(rank)).collect(),
            dropped: dropped_values(table, &leaf),
        })
    }

    /// The rows, wider now, need more than one leaf.
    fn divide_leaf(&mut self, table: &Table, leaf: PageId, old: &Old) -> Attempt<()> {
        let (rows, keys) = (&old.rows, &old.keys);
        let groups = self.groups(table, rows, false)?;
        let bounds: Vec<KeyBuf> = groups[1..]
            .iter()
            .map(|group| separator(&keys[group.range.start - 1], &keys[group.range.start]))
            .collect();
        if leaf == table.root {
            return self.root_leaf_becomes_inner(table, rows, &groups, &bounds);
        }
        self.start(leaf, &format_op(table, &groups[0].layout))?;
        self.append_rows(leaf, &rows.rows[groups[0].range.clone()])?;
        for (group, bound) in groups[1..].iter().zip(&bounds) {
            let page = self.new_leaf(table, leaf, rows, group)?;
            self.insert_separator(table, 1, bound, page)?;
        }
        Ok(())
    }
}

/// The capacity in the bytes of a layout.
fn capacity_of(layout: &[u8]) -> u16 {
    match layout.get(4..6) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => 0,
    }
}
