//! The check of a whole database at rest: trees and extents, from the pages that the log says, without the engine's code.
//!
//! Every page that is marked as used is reached from exactly one object, which owns its extent; every extent that an object lists
//! is its own; nothing else is marked.

use std::collections::{BTreeMap, BTreeSet};

use aurora_page::{
    ExtentRef, ExtentState, Geometry, InnerRef, KeyBuf, LeafRef, ObjectId, OverflowRef,
    OverflowView, Page, PageId, PageKind, ValueRef,
};

use crate::model::Content;
use crate::world::World;

/// Objects below this number are the engine's own; they list no extents.
const FIRST_USER_OBJECT: u64 = 16;
const SYSTEM_TABLES: u64 = 4;

impl World {
    /// Checks trees and extents at the newest durable point.
    pub(crate) fn check_structure(&mut self) {
        let Some(session) = self.session() else {
            return;
        };
        let Some(base) = &self.base else { return };
        let vdl = aurora_proto::Volume::vdl(&*session.volume);
        let page_bytes = self.config.page_bytes;
        let page_at = |id: PageId| match self.model.content(id, vdl, &session.history).1 {
            Content::Replayed(page) => *page,
            _ => Page::empty(id, page_bytes),
        };
        let tables = base.hub.tables.borrow();
        let mut roots: Vec<(ObjectId, PageId)> = Vec::new();
        let geometry = session.engine().geometry();
        for id in 1..=SYSTEM_TABLES {
            roots.push((ObjectId(id), PageId(geometry.page_range(id - 1).start)));
        }
        roots.extend(tables.iter().map(|(table, _)| (table.id, table.root)));
        let mut listed = BTreeMap::new();
        for (table, runs) in tables.iter() {
            for extent in runs.iter().flat_map(|run| run.first..run.first + run.count) {
                listed.insert(extent, table.id);
            }
        }
        let segments = aurora_proto::Volume::segments(&*session.volume);
        let checked = check(geometry, segments, &roots, listed, &page_at);
        drop(tables);
        if let Err(what) = checked {
            self.fail(format!("structure at {vdl}: {what}"));
        }
    }
}

struct Walk<'w> {
    object: ObjectId,
    page_at: &'w dyn Fn(PageId) -> Page,
    pages: BTreeSet<PageId>,
}

fn check(
    geometry: Geometry,
    segments: u64,
    roots: &[(ObjectId, PageId)],
    mut listed: BTreeMap<u64, ObjectId>,
    page_at: &dyn Fn(PageId) -> Page,
) -> Result<(), String> {
    let mut pages: BTreeMap<PageId, ObjectId> = BTreeMap::new();
    for (object, root) in roots {
        let mut walk = Walk {
            object: *object,
            page_at,
            pages: BTreeSet::new(),
        };
        walk.visit(*root, None, None, None)?;
        for page in walk.pages {
            if let Some(other) = pages.insert(page, *object) {
                return Err(format!(
                    "page {page} belongs to objects {object} and {other}"
                ));
            }
        }
    }
    for segment in 0..segments {
        for (map, first, count) in geometry.map_layout(segment) {
            let page = page_at(map);
            if page.kind() == PageKind::Free {
                continue;
            }
            let entries = ExtentRef::new(&page).map_err(|e| e.to_string())?;
            for index in 0..u64::from(count) {
                let extent = first + index;
                let entry = entries.get(index as usize).map_err(|e| e.to_string())?;
                for (bit, id) in geometry.page_range(extent).enumerate() {
                    let used = entry.used >> bit & 1 == 1;
                    let owner = pages.remove(&PageId(id));
                    if owner.is_some() != used || owner.is_some_and(|owner| owner != entry.owner) {
                        return Err(format!(
                            "page {id} of extent {extent} is reached from {owner:?}, and its extent's entry is {entry:?}"
                        ));
                    }
                }
                let lister = listed.remove(&extent);
                let expected = (entry.state != ExtentState::Free
                    && entry.owner.0 >= FIRST_USER_OBJECT)
                    .then_some(entry.owner);
                let empty = entry.used == 0 && entry.state != ExtentState::Free;
                if lister != expected || empty {
                    return Err(format!(
                        "extent {extent} is listed by {lister:?}, and its entry is {entry:?}"
                    ));
                }
            }
        }
    }
    match (pages.first_key_value(), listed.first_key_value()) {
        (None, None) => Ok(()),
        (page, extent) => Err(format!(
            "page {page:?} or extent {extent:?} lies outside of every extent map"
        )),
    }
}

impl Walk<'_> {
    fn visit(
        &mut self,
        id: PageId,
        level: Option<u8>,
        low: Option<&[u8]>,
        high: Option<&[u8]>,
    ) -> Result<(), String> {
        if !self.pages.insert(id) {
            return Err(format!("page {id} is twice in the tree of {}", self.object));
        }
        let page = (self.page_at)(id);
        if page.object() != self.object {
            return Err(format!("the tree of {} reaches {page:?}", self.object));
        }
        let damaged = |what: &str| format!("{what} of {page:?}");
        if page.kind() == PageKind::Leaf {
            let leaf = LeafRef::new(&page).map_err(|e| e.to_string())?;
            leaf.verify().map_err(|e| e.to_string())?;
            let keys: Vec<KeyBuf> = (0..leaf.len()).map(|rank| leaf.key_at(rank)).collect();
            let within =
                |key: &[u8]| low.is_none_or(|low| low <= key) && high.is_none_or(|high| key < high);
            let in_order = keys.windows(2).all(|pair| pair[0] < pair[1]);
            if !in_order || !keys.iter().all(|key| within(key)) || level.is_some_and(|l| l != 0) {
                return Err(damaged("the keys or the level"));
            }
            for rank in 0..leaf.len() {
                for value in leaf.row_values(rank) {
                    if let ValueRef::Overflow(reference) = value {
                        self.chain(reference)?;
                    }
                }
            }
            return Ok(());
        }
        let inner = InnerRef::new(&page).map_err(|e| e.to_string())?;
        inner.verify().map_err(|e| e.to_string())?;
        if level.is_some_and(|level| level != inner.level()) || inner.level() == 0 {
            return Err(damaged("the level"));
        }
        for pos in 0..=inner.len() {
            let from = if pos == 0 {
                low
            } else {
                Some(inner.key(pos - 1))
            };
            let to = if pos == inner.len() {
                high
            } else {
                Some(inner.key(pos))
            };
            self.visit(inner.child(pos), Some(inner.level() - 1), from, to)?;
        }
        Ok(())
    }

    fn chain(&mut self, reference: OverflowRef) -> Result<(), String> {
        let (mut next, mut len) = (reference.first, 0);
        while next != PageId(0) {
            if !self.pages.insert(next) {
                return Err(format!(
                    "page {next} is twice in the values of {}",
                    self.object
                ));
            }
            let page = (self.page_at)(next);
            if page.object() != self.object {
                return Err(format!("a value of {} reaches {page:?}", self.object));
            }
            let view = OverflowView::new(&page).map_err(|e| e.to_string())?;
            len += view.chunk().len() as u64;
            next = view.next();
        }
        match len == reference.len {
            true => Ok(()),
            false => Err(format!("a value of {} bytes has {len}", reference.len)),
        }
    }
}
