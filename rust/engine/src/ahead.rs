//! Pages that a reader will want soon: the shell is told of them, and fetches them while the reader is at work.
//!
//! ```text
//!   a cursor that has met a leaf that was not in memory      the leaves that follow it, as the inner page above says
//!   rows of an index, or of many keys                        the leaves of all of them
//! ```
//! Only who had to wait for a page once looks ahead, so that a scan of what is in memory pays nothing. What is told here is a
//! hint: the reader asks for each page all the same, and is right whether it was fetched or not.

use std::sync::Arc;

use aurora_page::{InnerRef, KeyBuf, Lsn, PageId, PageKind};
use aurora_proto::Volume;
use smallvec::SmallVec;

use crate::btree::{Pages, tree_page};
use crate::engine::Engine;
use crate::error::Attempt;
use crate::readpoints::ReadPoint;
use crate::table::Table;

/// Leaves that a cursor looks ahead.
pub(crate) const LEAVES_AHEAD: usize = 8;
/// A tree of more levels is damaged.
const LEVELS_MAX: usize = 32;

/// Pages that are wanted soon.
pub(crate) type Coming = SmallVec<[PageId; LEAVES_AHEAD]>;

/// The shell's part: fetches pages that will be asked for.
pub trait Prefetch: Send + Sync {
    /// These pages are not in memory, and will be asked for as of `at`. Returns at once.
    fn prefetch(&self, pages: &[PageId], at: Lsn);
}

impl<V: Volume> Engine<V> {
    /// Says who fetches pages ahead. Before that, and without anybody, none are.
    pub fn set_prefetch(&self, prefetch: Arc<dyn Prefetch>) {
        // The first one stays: an engine has one shell.
        let _ = self.prefetch.set(prefetch);
    }

    /// Tells the shell of pages that will be read at a read point; those that are in memory are left out.
    pub(crate) fn want(&self, point: &ReadPoint, mut pages: Coming) {
        let Some(prefetch) = self.prefetch.get() else {
            return;
        };
        let at = point.at.min(self.volume.vdl());
        pages.retain(|page| !self.pool.has(*page, point.at));
        if !pages.is_empty() {
            prefetch.prefetch(&pages, at);
        }
    }

    /// Tells of the leaves of all these keys.
    pub(crate) fn want_rows(&self, point: &ReadPoint, table: &Table, keys: &[KeyBuf]) {
        if self.prefetch.get().is_none() {
            return;
        }
        let view = self.view_of(point);
        let mut leaves = Coming::new();
        for key in keys {
            let choose = |inner: &InnerRef<'_>| inner.child_for(key).0;
            // Inner pages that are missing come one after the other: nothing is known of what is below.
            if let Ok(Some((parent, pos))) = above_leaf(&view, table, choose)
                && let Ok(inner) = InnerRef::new(&parent)
            {
                leaves.push(inner.child(pos));
            }
        }
        leaves.sort_unstable();
        leaves.dedup();
        self.want(point, leaves);
    }
}

/// The inner page above the leaf that is chosen, and the leaf's position in it; `None` where the root is a leaf.
fn above_leaf<'a, P: Pages>(
    pages: &'a P,
    table: &Table,
    choose: impl Fn(&InnerRef<'_>) -> usize,
) -> Attempt<Option<(P::Ref<'a>, usize)>> {
    let mut id = table.root;
    for _ in 0..LEVELS_MAX {
        let page = tree_page(pages, table, id)?;
        if page.kind() == PageKind::Leaf {
            return Ok(None);
        }
        let inner = InnerRef::new(&page)?;
        let pos = choose(&inner);
        if inner.level() == 1 {
            return Ok(Some((page, pos)));
        }
        id = inner.child(pos);
    }
    Ok(None)
}

/// The leaves that follow the chosen one under the same inner page, in the direction of a range and within it, the nearest
/// first; the chosen one is not among them.
pub(crate) fn leaves_after<P: Pages>(
    pages: &P,
    table: &Table,
    choose: impl Fn(&InnerRef<'_>) -> usize,
    reverse: bool,
    end: Option<&KeyBuf>,
    count: usize,
) -> Attempt<Coming> {
    let mut coming = Coming::new();
    let Some((parent, pos)) = above_leaf(pages, table, choose)? else {
        return Ok(coming);
    };
    let inner = InnerRef::new(&parent)?;
    if reverse {
        // A child holds what is below the separator at its own position.
        let within = |pos: &usize| end.is_none_or(|low| inner.key(*pos) > &low[..]);
        let before = (0..pos).rev().take_while(within);
        coming.extend(before.take(count).map(|pos| inner.child(pos)));
    } else {
        let within = |pos: &usize| end.is_none_or(|high| inner.key(*pos - 1) < &high[..]);
        let after = (pos + 1..=inner.len()).take_while(within);
        coming.extend(after.take(count).map(|pos| inner.child(pos)));
    }
    Ok(coming)
}
