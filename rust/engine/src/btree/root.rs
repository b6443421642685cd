//! What a root page is to become: the content of another page, as the root page itself never moves.

use aurora_page::{InnerRef, KeyBuf, LeafRef, Page, PageId, PageKind};

use super::rows::{first_layout, format_op};
use crate::edit::Edit;
use crate::error::Attempt;
use crate::table::Table;

/// Content for a root page.
pub(crate) enum Root {
    Leaf {
        layout: Vec<u8>,
        rows: Vec<Vec<u8>>,
    },
    Inner {
        level: u8,
        leftmost: PageId,
        entries: Vec<(KeyBuf, PageId)>,
    },
}

impl Root {
    /// The content of this page.
    pub fn of(page: &Page) -> Attempt<Root> {
        if page.kind() == PageKind::Leaf {
            let leaf = LeafRef::new(page)?;
            let rows = (0..leaf.len()).map(|rank| leaf.row_bytes(rank)).collect();
            return Ok(Root::Leaf {
                layout: leaf.layout(),
                rows,
            });
        }
        let inner = InnerRef::new(page)?;
        let entries = inner
            .entries()
            .map(|(key, child)| (KeyBuf::from_slice(key), child))
            .collect();
        Ok(Root::Inner {
            level: inner.level(),
            leftmost: inner.child(0),
            entries,
        })
    }
}

impl Edit<'_> {
    /// Starts the root page's life anew without rows.
    pub fn empty_root(&mut self, table: &Table) -> Attempt<()> {
        let layout = first_layout(table, self.geometry.page_bytes)?;
        self.start(table.root, &format_op(table, &layout))
    }

    /// Starts the root page's life anew with this content.
    pub fn fill_root(&mut self, table: &Table, root: &Root) -> Attempt<()> {
        match root {
            Root::Leaf { layout, rows } => {
                self.start(table.root, &format_op(table, layout))?;
                self.append_rows(table.root, rows)
            }
            Root::Inner {
                level,
                leftmost,
                entries,
            } => self.make_inner(table, table.root, *level, *leftmost, entries),
        }
    }
}
