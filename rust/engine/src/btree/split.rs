//! Pages that are full: leaves and inner pages are divided, and the root grows.

use std::ops::Range;

use aurora_page::planted::{self, Fault};
use aurora_page::{InnerRef, KeyBuf, LeafRef, PageId, PageKind};
use aurora_redo::{EntriesRef, Op, RowsRef};

use super::descend::path_to;
use super::insert::Found;
use super::rows::{Rows, format_op};
use crate::btree::Pages;
use crate::edit::Edit;
use crate::error::Attempt;
use crate::table::Table;

/// Rows for one leaf, with the layout it needs.
pub(super) struct Group {
    pub range: Range<usize>,
    pub layout: Vec<u8>,
}

/// The shortest key that is above `left` and not above `right`: separators need tell no more.
pub(crate) fn separator(left: &[u8], right: &[u8]) -> KeyBuf {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    KeyBuf::from_slice(&right[..right.len().min(common + 1)])
}

impl Edit<'_> {
    /// Divides a leaf that has no room for one more row, `row` at `rank`.
    pub(super) fn split_leaf(
        &mut self,
        table: &Table,
        key: &[u8],
        found: &Found,
        rank: usize,
        row: &[u8],
    ) -> Attempt<()> {
        let (rows, keys) = self.rows_with(table, found.leaf, rank, row, key)?;
        let rightmost = rank + 1 == rows.rows.len() && self.is_rightmost(found)?;
        let groups = self.groups(table, &rows, rightmost)?;
        let bounds: Vec<KeyBuf> = groups[1..]
            .iter()
            .map(|group| separator(&keys[group.range.start - 1], &keys[group.range.start]))
            .collect();
        if found.leaf == table.root {
            return self.root_leaf_becomes_inner(table, &rows, &groups, &bounds);
        }
        self.keep_first_group(table, found.leaf, &rows, &groups[0], rank)?;
        for (group, bound) in groups[1..].iter().zip(&bounds) {
            let page = self.new_leaf(table, found.leaf, &rows, group)?;
            self.insert_separator(table, 1, bound, page)?;
        }
        Ok(())
    }

    fn rows_with(
        &self,
        table: &Table,
        leaf: PageId,
        rank: usize,
        row: &[u8],
        key: &[u8],
    ) -> Attempt<(Rows, Vec<KeyBuf>)> {
        let page = self.page(leaf)?;
        let leaf = LeafRef::new(&page)?;
        let mut rows: Vec<Vec<u8>> = (0..leaf.len()).map(|rank| leaf.row_bytes(rank)).collect();
        let mut keys: Vec<KeyBuf> = (0..leaf.len()).map(|rank| leaf.key_at(rank)).collect();
        rows.insert(rank, row.to_vec());
        keys.insert(rank, KeyBuf::from_slice(key));
        Ok((Rows::new(&table.schema, rows)?, keys))
    }

    /// Whether the way to the leaf took the last child everywhere.
    fn is_rightmost(&self, found: &Found) -> Attempt<bool> {
        for turn in &found.path {
            if turn.pos < InnerRef::new(&*self.page(turn.page)?)?.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Divides rows into groups that fit a leaf each: two halves, or more where rows are very unequal. Rows that come in
    /// ascending order leave the leaves before them full.
    pub(super) fn groups(
        &self,
        table: &Table,
        rows: &Rows,
        ascending: bool,
    ) -> Attempt<Vec<Group>> {
        let count = rows.rows.len();
        let middle = if ascending {
            count - 1
        } else {
            rows.middle(0..count)
        };
        let mut groups = Vec::new();
        let mut pending = vec![middle..count, 0..middle];
        while let Some(range) = pending.pop() {
            match rows.layout(table, range.clone(), self.geometry.page_bytes)? {
                Some(layout) => groups.push(Group { range, layout }),
                None => {
                    let middle = rows.middle(range.clone());
                    pending.extend([middle..range.end, range.start..middle]);
                }
            }
        }
        Ok(groups)
    }

    /// The leaf keeps the first rows: what is in it stays, what goes is cut off, and a new row among them comes in.
    fn keep_first_group(
        &mut self,
        table: &Table,
        leaf: PageId,
        rows: &Rows,
        group: &Group,
        rank: usize,
    ) -> Attempt<()> {
        let end = group.range.end;
        let new_row = rank < end;
        let kept = end - usize::from(new_row);
        if LeafRef::new(&*self.page(leaf)?)?.len() > kept {
            self.change(leaf, &Op::LeafTruncate { rank: kept as u16 })?;
        }
        if !new_row {
            return Ok(());
        }
        let row = &rows.rows[rank];
        if LeafRef::new(&*self.page(leaf)?)?.fits(row) {
            return self.change(
                leaf,
                &Op::LeafInsert {
                    rank: rank as u16,
                    row,
                },
            );
        }
        self.start(leaf, &format_op(table, &group.layout))?;
        self.append_rows(leaf, &rows.rows[group.range.clone()])
    }

    pub(super) fn new_leaf(
        &mut self,
        table: &Table,
        near: PageId,
        rows: &Rows,
        group: &Group,
    ) -> Attempt<PageId> {
        let page = self.allocate(table.id, near)?;
        self.start(page, &format_op(table, &group.layout))?;
        let mut range = group.range.clone();
        range.end -= usize::from(planted::is(Fault::SplitLosesRow) && range.len() > 1);
        self.append_rows(page, &rows.rows[range])?;
        Ok(page)
    }

    pub(super) fn append_rows(&mut self, leaf: PageId, rows: &[Vec<u8>]) -> Attempt<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let bytes = RowsRef::encode(rows);
        self.change(
            leaf,
            &Op::LeafAppend {
                rows: RowsRef::parse(&bytes)?,
            },
        )
    }

    pub(super) fn root_leaf_becomes_inner(
        &mut self,
        table: &Table,
        rows: &Rows,
        groups: &[Group],
        bounds: &[KeyBuf],
    ) -> Attempt<()> {
        let mut pages = Vec::with_capacity(groups.len());
        for group in groups {
            pages.push(self.new_leaf(table, table.root, rows, group)?);
        }
        let entries: Vec<_> = bounds
            .iter()
            .cloned()
            .zip(pages[1..].iter().copied())
            .collect();
        self.make_inner(table, table.root, 1, pages[0], &entries)
    }

    /// Makes `page` an inner page with these children.
    pub(super) fn make_inner(
        &mut self,
        table: &Table,
        page: PageId,
        level: u8,
        leftmost: PageId,
        entries: &[(KeyBuf, PageId)],
    ) -> Attempt<()> {
        self.start(
            page,
            &Op::FormatInner {
                object: table.id,
                level,
                leftmost,
            },
        )?;
        if entries.is_empty() {
            return Ok(());
        }
        let bytes = EntriesRef::encode(entries.iter().map(|(key, child)| (key, *child)));
        self.change(
            page,
            &Op::InnerAppend {
                entries: EntriesRef::parse(&bytes)?,
            },
        )
    }

    /// Puts a separator and the child to its right into the page of `level` that holds the key.
    pub(super) fn insert_separator(
        &mut self,
        table: &Table,
        level: u8,
        key: &[u8],
        child: PageId,
    ) -> Attempt<()> {
        let (_, id) = path_to(self, table, key, level)?;
        let page = self.page(id)?;
        if page.kind() != PageKind::Inner {
            let expected = format!("an inner page of level {level}");
            return Err(crate::error::EngineError::wrong_owner(
                &page, self.at, table.id, &expected,
            )
            .into());
        }
        let inner = InnerRef::new(&page)?;
        let pos = inner.child_for(key).0;
        if inner.fits(key.len()) {
            drop(page);
            return self.change(
                id,
                &Op::InnerInsert {
                    pos: pos as u16,
                    key,
                    child,
                },
            );
        }
        let leftmost = inner.child(0);
        let mut entries: Vec<(KeyBuf, PageId)> = inner
            .entries()
            .map(|(key, child)| (KeyBuf::from_slice(key), child))
            .collect();
        drop(page);
        entries.insert(pos, (KeyBuf::from_slice(key), child));
        self.split_inner(table, id, level, leftmost, &entries, pos)
    }

    /// Divides an inner page; `entries` are its separators with the new one at `new`.
    fn split_inner(
        &mut self,
        table: &Table,
        id: PageId,
        level: u8,
        leftmost: PageId,
        entries: &[(KeyBuf, PageId)],
        new: usize,
    ) -> Attempt<()> {
        let middle = inner_middle(entries, new + 1 == entries.len());
        let (bound, right_leftmost) = &entries[middle];
        let near = id;
        let right = self.allocate(table.id, near)?;
        self.make_inner(table, right, level, *right_leftmost, &entries[middle + 1..])?;
        if id == table.root {
            let left = self.allocate(table.id, near)?;
            self.make_inner(table, left, level, leftmost, &entries[..middle])?;
            return self.make_inner(table, id, level + 1, left, &[(bound.clone(), right)]);
        }
        // The left half stays: cut off what went, and put the new separator in if it is on this side.
        let kept = middle - usize::from(new < middle);
        self.change(id, &Op::InnerTruncate { pos: kept as u16 })?;
        if new < middle {
            let (key, child) = &entries[new];
            self.change(
                id,
                &Op::InnerInsert {
                    pos: new as u16,
                    key,
                    child: *child,
                },
            )?;
        }
        self.insert_separator(table, level + 1, bound, right)
    }
}

/// Which separator goes up: the one in the middle by bytes or, where keys come in ascending order, the last but one,
/// so that the left page stays full.
fn inner_middle(entries: &[(KeyBuf, PageId)], ascending: bool) -> usize {
    let last = entries.len() - 2;
    if ascending {
        return last;
    }
    let weight = |(key, _): &(KeyBuf, PageId)| key.len() + 12;
    let total: usize = entries.iter().map(weight).sum();
    let mut sum = 0;
    let middle = entries.iter().position(|entry| {
        sum += weight(entry);
        sum * 2 >= total
    });
    middle.unwrap_or(last).max(1).min(last)
}
