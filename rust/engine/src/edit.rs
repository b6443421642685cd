//! An edit of the database: one MTR being made under the commit lock, with everything it may touch.

use std::sync::Arc;

use aurora_page::{Geometry, Lsn, ObjectId, Page, PageId, PageKind};
use aurora_redo::Op;

use crate::btree::Pages;
use crate::error::Attempt;
use crate::space::Space;
use crate::table::System;
use crate::work::{PageRef, Work};

/// One MTR in the making. Trees, extents and the catalogue are changed through it.
pub(crate) struct Edit<'e> {
    pub work: Work<'e>,
    pub space: &'e mut Space,
    pub system: &'e System,
    pub geometry: Geometry,
    /// Segments of the volume.
    pub segments: u64,
    /// What the edit reads: everything that is numbered.
    pub at: Lsn,
}

impl Pages for Edit<'_> {
    type Ref<'a>
        = PageRef<'a>
    where
        Self: 'a;

    #[inline]
    fn page(&self, id: PageId) -> Attempt<PageRef<'_>> {
        self.work.page(id)
    }

    fn at(&self) -> Lsn {
        self.at
    }
}

impl Edit<'_> {
    /// Changes a page.
    pub fn change(&mut self, page: PageId, op: &Op<'_>) -> Attempt<()> {
        self.work.change(page, op)
    }

    /// Starts a page's life.
    pub fn start(&mut self, page: PageId, op: &Op<'_>) -> Attempt<()> {
        self.work.start(page, op)
    }

    /// Ends a page's life and gives it back.
    pub fn free_page(&mut self, page: PageId) -> Attempt<()> {
        self.work.change(page, &Op::Free)?;
        self.release(page)
    }

    /// The MTR will not happen: hints that were taken from its drafts may be wrong.
    pub fn abandon(self) {
        let maps = self.work.drafted().filter(|page| page.kind() == PageKind::ExtentMap);
        let maps: Vec<PageId> = maps.map(Page::id).collect();
        let owners: Vec<ObjectId> = self.work.drafted().map(Page::object).collect();
        maps.into_iter().for_each(|map| self.space.forget(self.geometry.segment_of(map)));
        owners.into_iter().for_each(|owner| self.space.forget_object(owner));
    }
}

/// Pages as of one read point.
pub(crate) struct View<'v> {
    pub pool: &'v crate::pool::Pool,
    pub at: Lsn,
    pub vdl: Lsn,
}

impl Pages for View<'_> {
    type Ref<'a>
        = Arc<Page>
    where
        Self: 'a;

    #[inline]
    fn page(&self, id: PageId) -> Attempt<Arc<Page>> {
        self.pool.at(id, self.at, self.vdl)
    }

    fn at(&self) -> Lsn {
        self.at
    }
}
