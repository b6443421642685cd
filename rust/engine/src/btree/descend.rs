//! The way from the root to a leaf.

use std::ops::Deref;

use aurora_page::{InnerRef, KeyBuf, LeafRef, Lsn, Page, PageId, PageKind};
use smallvec::SmallVec;

use crate::error::{Attempt, EngineError, Stop};
use crate::table::Table;

/// A tree of more levels than this is damaged: even the smallest pages branch more than that.
const LEVELS_MAX: usize = 32;

/// Where pages come from: a snapshot, or an MTR in the making.
pub(crate) trait Pages {
    /// A page, held.
    type Ref<'a>: Deref<Target = Page>
    where
        Self: 'a;

    /// The page as this source has it.
    fn page(&self, id: PageId) -> Attempt<Self::Ref<'_>>;

    /// The read point, for messages and to tell a table that is not there yet.
    fn at(&self) -> Lsn;
}

/// An inner page on the way down, and which child was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub page: PageId,
    pub pos: usize,
}

/// The inner pages from the root to the parent of the page that was reached.
pub(crate) type Path = SmallVec<[Turn; 6]>;

/// The keys that a leaf may hold, as the separators say: from `lower` on, and below `upper`.
#[derive(Clone, Default, Debug)]
pub(crate) struct Fences {
    pub lower: Option<KeyBuf>,
    pub upper: Option<KeyBuf>,
}

/// The page of a tree, checked to belong to it.
pub(crate) fn tree_page<'a, P: Pages>(
    pages: &'a P,
    table: &Table,
    id: PageId,
) -> Attempt<P::Ref<'a>> {
    let page = pages.page(id)?;
    if page.object() == table.id && matches!(page.kind(), PageKind::Leaf | PageKind::Inner) {
        return Ok(page);
    }
    let at = pages.at();
    if id == table.root {
        // Before the table came to be, or after it was dropped, its root was or is something else.
        return Err(EngineError::UnknownTable {
            table: table.name.clone(),
            at,
        }
        .into());
    }
    Err(EngineError::wrong_owner(&page, at, table.id, "a page of the tree").into())
}

/// The leaf that holds `key`, or would. `newest` is raised to the newest change on the way.
#[inline]
pub(crate) fn descend<'a, P: Pages>(
    pages: &'a P,
    table: &Table,
    key: &[u8],
    newest: &mut Lsn,
) -> Attempt<P::Ref<'a>> {
    table.check_kept(pages.at())?;
    let mut id = table.root;
    for _ in 0..LEVELS_MAX {
        let page = tree_page(pages, table, id)?;
        *newest = (*newest).max(page.lsn());
        if page.kind() == PageKind::Leaf {
            return Ok(page);
        }
        id = InnerRef::new(&page)?.child_for(key).1;
    }
    Err(too_deep(table, pages.at()))
}

/// The leaf for a position, with its fences.
pub(crate) fn descend_with<'a, P: Pages>(
    pages: &'a P,
    table: &Table,
    choose: impl Fn(&InnerRef<'_>) -> usize,
    newest: &mut Lsn,
) -> Attempt<(P::Ref<'a>, Fences)> {
    table.check_kept(pages.at())?;
    let mut fences = Fences::default();
    let mut id = table.root;
    for _ in 0..LEVELS_MAX {
        let page = tree_page(pages, table, id)?;
        *newest = (*newest).max(page.lsn());
        if page.kind() == PageKind::Leaf {
            return Ok((page, fences));
        }
        let inner = InnerRef::new(&page)?;
        let pos = choose(&inner);
        if pos > 0 {
            fences.lower = Some(KeyBuf::from_slice(inner.key(pos - 1)));
        }
        if pos < inner.len() {
            fences.upper = Some(KeyBuf::from_slice(inner.key(pos)));
        }
        id = inner.child(pos);
    }
    Err(too_deep(table, pages.at()))
}

/// The path to the page of `level` that holds `key`; level 0 is the leaf. Also the page itself.
pub(crate) fn path_to<P: Pages>(
    pages: &P,
    table: &Table,
    key: &[u8],
    level: u8,
) -> Attempt<(Path, PageId)> {
    let mut path = Path::new();
    let mut id = table.root;
    for _ in 0..LEVELS_MAX {
        let page = tree_page(pages, table, id)?;
        if page.kind() == PageKind::Leaf {
            return Ok((path, id));
        }
        let inner = InnerRef::new(&page)?;
        if inner.level() == level {
            return Ok((path, id));
        }
        let (pos, child) = inner.child_for(key);
        path.push(Turn { page: id, pos });
        id = child;
    }
    Err(too_deep(table, pages.at()))
}

/// The last row whose key is below `key`: its key, and its leaf.
pub(crate) fn descend_below<'a, P: Pages>(
    pages: &'a P,
    table: &Table,
    key: &[u8],
) -> Attempt<Option<(P::Ref<'a>, usize)>> {
    let mut bound = KeyBuf::from_slice(key);
    loop {
        let choose = |inner: &InnerRef<'_>| child_below(inner, &bound);
        let (page, fences) = descend_with(pages, table, choose, &mut Lsn::default())?;
        let rank = LeafRef::new(&page)?.lower_bound(key);
        if rank > 0 {
            return Ok(Some((page, rank - 1)));
        }
        match fences.lower {
            Some(lower) => bound = lower,
            None => return Ok(None),
        }
    }
}

/// The child that holds the largest keys below `bound`.
pub(crate) fn child_below(inner: &InnerRef<'_>, bound: &[u8]) -> usize {
    let (pos, _) = inner.child_for(bound);
    // A child that begins with the bound itself has none below it.
    if pos > 0 && inner.key(pos - 1) == bound {
        pos - 1
    } else {
        pos
    }
}

fn too_deep(table: &Table, at: Lsn) -> Stop {
    let expected = format!("a tree of at most {LEVELS_MAX} levels");
    EngineError::corrupt(table.root, at, expected, "more: its pages form a circle").into()
}
