//! Pages that are nearly empty: merged with a sibling, given back, and the root shrinks.

use aurora_page::{ColumnMap, InnerRef, KeyBuf, LeafRef, PageId, PageKind};
use aurora_redo::Op;

use super::descend::{Path, Turn};
use super::root::Root;
use super::rows::{Rows, first_layout, format_op, is_empty_leaf};
use super::upgrade::{column_map, dropped_values, rows_of};
use crate::btree::Pages;
use crate::edit::Edit;
use crate::error::Attempt;
use crate::table::Table;

/// The sibling of a child, and where they hang.
struct Pair {
    parent: PageId,
    /// Position of the left one among the parent's children; also that of the separator between them.
    pos: usize,
    left: PageId,
    right: PageId,
}

impl Edit<'_> {
    /// A leaf has become nearly empty, and is not the root.
    pub(super) fn shrink_leaf(&mut self, table: &Table, path: &Path, leaf: PageId) -> Attempt<()> {
        if is_empty_leaf(&*self.page(leaf)?) {
            self.free_page(leaf)?;
            return self.remove_child(table, path);
        }
        let Some(pair) = self.sibling(path)? else {
            return Ok(());
        };
        if self.merge_leaves(table, &pair)? {
            self.remove_right(table, path, &pair)?;
        }
        Ok(())
    }

    /// The right sibling under the same parent, else the left one.
    fn sibling(&self, path: &Path) -> Attempt<Option<Pair>> {
        let Some(&Turn { page: parent, pos }) = path.last() else {
            return Ok(None);
        };
        let page = self.page(parent)?;
        let inner = InnerRef::new(&page)?;
        if inner.is_empty() {
            return Ok(None);
        }
        let pos = if pos < inner.len() { pos } else { pos - 1 };
        Ok(Some(Pair {
            parent,
            pos,
            left: inner.child(pos),
            right: inner.child(pos + 1),
        }))
    }

    /// Moves the right leaf's rows into the left one, if the two leave a quarter of a leaf free.
    fn merge_leaves(&mut self, table: &Table, pair: &Pair) -> Attempt<bool> {
        let (left, right) = (self.page(pair.left)?, self.page(pair.right)?);
        let (a, b) = (LeafRef::new(&left)?, LeafRef::new(&right)?);
        let usable = self.geometry.page_bytes * 3 / 4;
        if a.live_bytes() + b.live_bytes() > usable {
            return Ok(false);
        }
        let (map_a, map_b) = (
            column_map(table, &left, &a)?,
            column_map(table, &right, &b)?,
        );
        let is_old = |map: &Option<ColumnMap>, leaf: &LeafRef<'_>| {
            map.is_some() && !dropped_values(table, leaf).is_empty()
        };
        if is_old(&map_a, &a) || is_old(&map_b, &b) {
            // Values of dropped columns are freed by the upgrade that a change of the leaf begins with.
            return Ok(false);
        }
        let moved = rows_of(table, &b, map_b.as_ref());
        let has_room = map_a.is_none() && map_b.is_none() && a.has_room(b.len(), b.heap_live());
        if has_room {
            drop((left, right));
            self.append_rows(pair.left, &moved)?;
            return Ok(true);
        }
        // The left one has room for other rows than these, or is of an earlier schema: it is laid out anew.
        let mut all = rows_of(table, &a, map_a.as_ref());
        drop((left, right));
        all.extend(moved);
        let rows = Rows::new(&table.schema, all)?;
        let Some(layout) = rows.layout(table, 0..rows.rows.len(), self.geometry.page_bytes)? else {
            return Ok(false);
        };
        self.start(pair.left, &format_op(table, &layout))?;
        self.append_rows(pair.left, &rows.rows)?;
        Ok(true)
    }

    /// The right page of a pair has been emptied into the left one.
    fn remove_right(&mut self, table: &Table, path: &Path, pair: &Pair) -> Attempt<()> {
        self.free_page(pair.right)?;
        self.change(
            pair.parent,
            &Op::InnerRemove {
                pos: pair.pos as u16,
            },
        )?;
        self.shrink_inner(table, &path[..path.len() - 1], pair.parent)
    }

    /// The child that the path ends with is gone.
    fn remove_child(&mut self, table: &Table, path: &[Turn]) -> Attempt<()> {
        let Some((&Turn { page: parent, pos }, above)) = path.split_last() else {
            return Ok(());
        };
        let (separators, second) = {
            let page = self.page(parent)?;
            let inner = InnerRef::new(&page)?;
            (
                inner.len(),
                if inner.is_empty() {
                    PageId::default()
                } else {
                    inner.child(1)
                },
            )
        };
        if separators == 0 {
            // It was the only child.
            if parent == table.root {
                let layout = first_layout(table, self.geometry.page_bytes)?;
                return self.start(parent, &format_op(table, &layout));
            }
            self.free_page(parent)?;
            return self.remove_child(table, above);
        }
        if pos == 0 {
            self.change(
                parent,
                &Op::InnerSetChild {
                    pos: 0,
                    child: second,
                },
            )?;
        }
        self.change(
            parent,
            &Op::InnerRemove {
                pos: pos.saturating_sub(1) as u16,
            },
        )?;
        self.shrink_inner(table, above, parent)
    }

    /// An inner page has lost a separator.
    fn shrink_inner(&mut self, table: &Table, above: &[Turn], id: PageId) -> Attempt<()> {
        if id == table.root {
            return self.shrink_root(table);
        }
        if !InnerRef::new(&*self.page(id)?)?.is_underfull() {
            return Ok(());
        }
        let above = Path::from_slice(above);
        let Some(pair) = self.sibling(&above)? else {
            return Ok(());
        };
        if self.merge_inner(&pair)? {
            self.remove_right(table, &above, &pair)?;
        }
        Ok(())
    }

    /// Moves the right inner page's children into the left one, if the two leave a quarter of a page free.
    fn merge_inner(&mut self, pair: &Pair) -> Attempt<bool> {
        let bound = KeyBuf::from_slice(InnerRef::new(&*self.page(pair.parent)?)?.key(pair.pos));
        let (left, right) = (self.page(pair.left)?, self.page(pair.right)?);
        let (a, b) = (InnerRef::new(&left)?, InnerRef::new(&right)?);
        let live = a.live_bytes() + b.live_bytes() + bound.len();
        let key_bytes = bound.len() + b.entries().map(|(key, _)| key.len()).sum::<usize>();
        if live * 4 > a.capacity_bytes() * 3 || !a.has_room(b.len() + 1, key_bytes) {
            return Ok(false);
        }
        let first = (bound, b.child(0));
        let rest = b
            .entries()
            .map(|(key, child)| (KeyBuf::from_slice(key), child));
        let moved: Vec<(KeyBuf, PageId)> = std::iter::once(first).chain(rest).collect();
        drop((left, right));
        let bytes = aurora_redo::EntriesRef::encode(moved.iter().map(|(key, child)| (key, *child)));
        self.change(
            pair.left,
            &Op::InnerAppend {
                entries: aurora_redo::EntriesRef::parse(&bytes)?,
            },
        )?;
        Ok(true)
    }

    /// While the root has one child only, it takes over what the child is.
    fn shrink_root(&mut self, table: &Table) -> Attempt<()> {
        loop {
            let child = {
                let page = self.page(table.root)?;
                if page.kind() != PageKind::Inner {
                    return Ok(());
                }
                let inner = InnerRef::new(&page)?;
                if !inner.is_empty() {
                    return Ok(());
                }
                inner.child(0)
            };
            self.take_over(table, child)?;
        }
    }

    fn take_over(&mut self, table: &Table, child: PageId) -> Attempt<()> {
        let root = Root::of(&*self.page(child)?)?;
        self.fill_root(table, &root)?;
        self.free_page(child)
    }
}
