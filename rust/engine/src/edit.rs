//! An edit of the database: one MTR being made under the commit lock, with everything it may touch.

use std::sync::Arc;

use aurora_page::{ExtentRef, Geometry, Lsn, ObjectId, Page, PageId, PageKind};
use aurora_redo::Op;
use parking_lot::RwLock;
use rustc_hash::FxHashSet;

use crate::btree::Pages;
use crate::catalogue::Names;
use crate::error::{Attempt, EngineError};
use crate::space::Space;
use crate::table::System;
use crate::work::{PageRef, Work};

/// One MTR in the making. Trees, extents and the catalogue are changed through it.
pub(crate) struct Edit<'e> {
    pub work: Work<'e>,
    pub space: &'e mut Space,
    pub system: &'e System,
    pub names: &'e RwLock<Names>,
    pub geometry: Geometry,
    /// Segments of the volume.
    pub segments: u64,
    /// What the edit reads: everything that is numbered.
    pub at: Lsn,
    /// Rows that come and go, by table.
    pub counted: Vec<(ObjectId, i64)>,
    /// The time that the commit will have.
    pub time_us: i64,
    /// Which branch of the volume it changes.
    pub branch: u64,
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
    /// Refuses what was begun on another branch of the volume.
    pub fn check_branch(&self, begun: u64) -> Result<(), EngineError> {
        if begun == self.branch {
            Ok(())
        } else {
            Err(EngineError::Branched { at: self.at })
        }
    }

    /// Changes a page.
    pub fn change(&mut self, page: PageId, op: &Op<'_>) -> Attempt<()> {
        self.work.change(page, op)
    }

    /// Counts rows that come, or go.
    #[inline]
    pub fn count(&mut self, object: ObjectId, change: i64) {
        match self.counted.last_mut() {
            Some((last, total)) if *last == object => *total += change,
            _ => self.counted.push((object, change)),
        }
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

    /// The MTR will not happen: hints that were taken from its drafts are replaced by what the heads say. Forgetting
    /// them would not do: an MTR that needs several new segments would look into the old ones again at each attempt.
    pub fn abandon(self) {
        let mut owners = FxHashSet::default();
        for (draft, before) in self.work.drafted() {
            owners.insert(draft.object());
            if draft.kind() == PageKind::ExtentMap {
                let segment = self.geometry.segment_of(draft.id());
                let map_page = draft.id().0 - self.geometry.first_page(segment).0;
                let free = before.is_none_or(|before| {
                    ExtentRef::new(before).is_ok_and(|map| map.find_free().is_some())
                });
                match (free, self.geometry.map_pages()) {
                    (true, _) => self.space.has_free(segment, map_page),
                    (false, 1) => self.space.is_full(segment),
                    (false, _) => self.space.forget(segment),
                }
            }
        }
        owners
            .into_iter()
            .for_each(|owner| self.space.forget_object(owner));
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
