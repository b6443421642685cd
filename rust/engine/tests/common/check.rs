//! Checks of a whole volume against its log: trees, extents, and the pages in memory.

use std::collections::{BTreeMap, BTreeSet};

use aurora_engine::Table;
use aurora_page::{
    ExtentRef, ExtentState, InnerRef, KeyBuf, LeafRef, Lsn, ObjectId, OverflowRef, OverflowView,
    PageId, PageKind, ValueRef,
};
use aurora_proto::Volume;

use super::Db;

/// Everything that must hold after any work.
pub fn everything(db: &Db) {
    cached_pages_are_what_the_log_says(db);
    extents_are_neither_leaked_nor_shared(db);
}

/// Every head in memory equals the page that the log gives [5].
pub fn cached_pages_are_what_the_log_says(db: &Db) {
    for head in db.engine.cached_heads() {
        let replayed = db.volume.page_at(head.id(), Lsn::MAX);
        assert_eq!(replayed.lsn(), head.lsn(), "{head:?} is not the newest");
        assert!(replayed == *head, "{head:?} differs from {replayed:?}");
    }
}

struct Walk<'d> {
    db: &'d Db,
    object: ObjectId,
    pages: BTreeSet<PageId>,
    rows: usize,
}

impl Walk<'_> {
    fn visit(&mut self, id: PageId, level: Option<u8>, low: Option<&[u8]>, high: Option<&[u8]>) {
        assert!(self.pages.insert(id), "page {id} is there twice");
        let page = self.db.volume.page_at(id, Lsn::MAX);
        assert_eq!(page.object(), self.object, "{page:?}");
        let within =
            |key: &[u8]| low.is_none_or(|low| low <= key) && high.is_none_or(|high| key < high);
        if page.kind() == PageKind::Leaf {
            assert!(
                level.is_none_or(|level| level == 0),
                "a leaf at level {level:?}"
            );
            let leaf = LeafRef::new(&page).unwrap();
            leaf.verify().unwrap();
            let keys: Vec<KeyBuf> = (0..leaf.len()).map(|rank| leaf.key_at(rank)).collect();
            assert!(
                keys.windows(2).all(|pair| pair[0] < pair[1]),
                "keys of {page:?}"
            );
            assert!(
                keys.iter().all(|key| within(key)),
                "keys of {page:?} are outside its separators"
            );
            self.rows += keys.len();
            for rank in 0..leaf.len() {
                for value in leaf.row_values(rank) {
                    if let ValueRef::Overflow(reference) = value {
                        self.chain(reference);
                    }
                }
            }
            return;
        }
        let inner = InnerRef::new(&page).unwrap();
        inner.verify().unwrap();
        assert!(level.is_none_or(|level| level == inner.level()), "{page:?}");
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
            self.visit(inner.child(pos), Some(inner.level() - 1), from, to);
        }
    }

    fn chain(&mut self, reference: OverflowRef) {
        let (mut next, mut len) = (reference.first, 0);
        while next != PageId(0) {
            assert!(self.pages.insert(next), "page {next} is there twice");
            let page = self.db.volume.page_at(next, Lsn::MAX);
            assert_eq!(page.object(), self.object, "{page:?}");
            let view = OverflowView::new(&page).unwrap();
            len += view.chunk().len() as u64;
            next = view.next();
        }
        assert_eq!(len, reference.len);
    }
}

fn walk(db: &Db, object: ObjectId, root: PageId) -> Walk<'_> {
    let mut walk = Walk {
        db,
        object,
        pages: BTreeSet::new(),
        rows: 0,
    };
    walk.visit(root, None, None, None);
    walk
}

/// Rows of a table's tree.
pub fn row_count(db: &Db, table: &Table) -> usize {
    walk(db, table.id, table.root).rows
}

/// Pages of a table.
pub fn page_count(db: &Db, table: &Table) -> usize {
    walk(db, table.id, table.root).pages.len()
}

/// Every used page belongs to exactly one object that reaches it, and every extent to a living object that lists it.
pub fn extents_are_neither_leaked_nor_shared(db: &Db) {
    let geometry = db.engine.geometry();
    let at = db.engine.published();
    let mut pages: BTreeMap<PageId, ObjectId> = BTreeMap::new();
    let mut roots = vec![];
    for id in 1..=4 {
        roots.push((ObjectId(id), PageId(geometry.page_range(id - 1).start)));
    }
    let mut tables = db.run(|engine| engine.tables(at)).unwrap();
    let trees: Vec<_> = tables
        .iter()
        .flat_map(|table| table.indexes.iter().map(|index| index.tree.clone()))
        .collect();
    tables.extend(trees);
    roots.extend(tables.iter().map(|table| (table.id, table.root)));
    for (object, root) in roots {
        for page in walk(db, object, root).pages {
            assert_eq!(
                pages.insert(page, object),
                None,
                "page {page} belongs to two objects"
            );
        }
    }
    let mut listed: BTreeMap<u64, ObjectId> = BTreeMap::new();
    for table in &tables {
        for run in db.run(|engine| engine.extents_of(table, at)).unwrap() {
            for extent in run.first..run.first + run.count {
                assert_eq!(
                    listed.insert(extent, table.id),
                    None,
                    "extent {extent} is listed twice"
                );
            }
        }
    }
    for segment in 0..db.volume.segments() {
        for (map, first, count) in geometry.map_layout(segment) {
            let page = db.volume.page_at(map, Lsn::MAX);
            if page.kind() == PageKind::Free {
                continue;
            }
            let entries = ExtentRef::new(&page).unwrap();
            for index in 0..u64::from(count) {
                let (extent, entry) = (first + index, entries.get(index as usize).unwrap());
                for (bit, page) in geometry.page_range(extent).enumerate() {
                    let used = entry.used >> bit & 1 == 1;
                    let owner = pages.remove(&PageId(page));
                    assert_eq!(
                        owner.is_some(),
                        used,
                        "page {page} of extent {extent}: {entry:?}, reached by {owner:?}"
                    );
                    assert!(
                        owner.is_none_or(|owner| owner == entry.owner),
                        "page {page}: {entry:?}, reached by {owner:?}"
                    );
                }
                match entry.state {
                    ExtentState::Free => assert_eq!((entry.owner, entry.used), (ObjectId(0), 0)),
                    _ => assert!(
                        entry.used != 0,
                        "extent {extent} has no page and is kept: {entry:?}"
                    ),
                }
                let listed = listed.remove(&extent);
                if entry.owner.0 >= 16 {
                    assert_eq!(listed, Some(entry.owner), "extent {extent}");
                } else {
                    assert_eq!(listed, None, "extent {extent}");
                }
            }
        }
    }
    assert!(pages.is_empty(), "pages outside the extents: {pages:?}");
    assert!(
        listed.is_empty(),
        "listed extents that do not exist: {listed:?}"
    );
}
