//! Single-row changes of a tree.

use aurora_page::{LeafRef, PageId, encode_row};
use aurora_redo::Op;

use super::descend::{Path, path_to};
use crate::btree::Pages;
use crate::edit::Edit;
use crate::error::{Attempt, EngineError, Stop};
use crate::table::Table;

/// A row that was looked for at the head.
pub(crate) struct Found {
    pub path: Path,
    pub leaf: PageId,
    /// Its rank, or the one it would have.
    pub rank: Result<usize, usize>,
    /// The newest change of the leaf before this MTR; `Lsn::MAX` if that is not known.
    pub seen: aurora_page::Lsn,
}

impl Edit<'_> {
    /// Looks for a key.
    #[inline]
    pub fn find(&self, table: &Table, key: &[u8]) -> Attempt<Found> {
        let (path, leaf) = path_to(self, table, key, 0)?;
        let page = self.page(leaf)?;
        let rank = LeafRef::new(&page)?.search(key);
        let seen = self.work.seen(leaf, &page);
        Ok(Found {
            path,
            leaf,
            rank,
            seen,
        })
    }

    /// Inserts a row whose key is not there.
    pub fn insert_row(&mut self, table: &Table, key: &[u8], row: &[u8]) -> Attempt<()> {
        let found = self.find(table, key)?;
        match found.rank {
            Err(rank) => self.insert_at(table, key, &found, rank, row),
            Ok(_) => Err(self.unexpected(table, key, &found, "no row", "one")),
        }
    }

    /// Inserts a row where [`Edit::find`] has found that it belongs.
    pub fn insert_at(
        &mut self,
        table: &Table,
        key: &[u8],
        found: &Found,
        rank: usize,
        row: &[u8],
    ) -> Attempt<()> {
        if LeafRef::new(&*self.page(found.leaf)?)?.fits(row) {
            return self.change(
                found.leaf,
                &Op::LeafInsert {
                    rank: rank as u16,
                    row,
                },
            );
        }
        self.split_leaf(table, key, found, rank, row)
    }

    /// Changes a row that is there.
    pub fn update_row(&mut self, table: &Table, key: &[u8], changes: &[u8]) -> Attempt<()> {
        let found = self.find(table, key)?;
        match found.rank {
            Ok(rank) => self.update_at(table, key, &found, rank, changes),
            Err(_) => Err(self.unexpected(table, key, &found, "a row", "none")),
        }
    }

    /// Changes the row at a rank.
    pub fn update_at(
        &mut self,
        table: &Table,
        key: &[u8],
        found: &Found,
        rank: usize,
        changes: &[u8],
    ) -> Attempt<()> {
        let page = self.page(found.leaf)?;
        let leaf = LeafRef::new(&page)?;
        if leaf.fits_changes(rank, changes) {
            drop(page);
            return self.change(
                found.leaf,
                &Op::LeafUpdate {
                    rank: rank as u16,
                    changes,
                },
            );
        }
        // The longer row does not fit beside its neighbours: it leaves and comes in again, which may split the leaf.
        let mut values = leaf.row(rank);
        for change in aurora_page::read_changes(changes) {
            let change = change.map_err(|source| aurora_page::PageError::Row {
                page: found.leaf,
                source,
            })?;
            let value = change
                .value()
                .map_err(|source| aurora_page::PageError::Row {
                    page: found.leaf,
                    source,
                })?;
            values[change.column] = value.to_owned();
        }
        drop(page);
        let row = encode_row(&table.schema, &values);
        self.change(found.leaf, &Op::LeafDelete { rank: rank as u16 })?;
        self.insert_at(table, key, found, rank, &row)
    }

    /// Deletes a row that is there.
    pub fn delete_row(&mut self, table: &Table, key: &[u8]) -> Attempt<()> {
        let found = self.find(table, key)?;
        match found.rank {
            Ok(rank) => self.delete_at(table, &found, rank),
            Err(_) => Err(self.unexpected(table, key, &found, "a row", "none")),
        }
    }

    /// Deletes the row at a rank, and the leaf or half of its emptiness with it.
    pub fn delete_at(&mut self, table: &Table, found: &Found, rank: usize) -> Attempt<()> {
        self.change(found.leaf, &Op::LeafDelete { rank: rank as u16 })?;
        if found.path.is_empty() || !LeafRef::new(&*self.page(found.leaf)?)?.is_underfull() {
            return Ok(());
        }
        self.shrink_leaf(table, &found.path, found.leaf)
    }

    fn unexpected(
        &self,
        table: &Table,
        key: &[u8],
        found: &Found,
        expected: &str,
        got: &str,
    ) -> Stop {
        let expected = format!(
            "table {:?}, key {}: {expected}",
            table.name,
            table.show_key(key)
        );
        EngineError::corrupt(found.leaf, self.at, expected, got).into()
    }
}
