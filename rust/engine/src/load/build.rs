//! Building the pages of a tree from rows in key order, leaves first.

use std::collections::VecDeque;
use std::ops::Range;

use aurora_page::{
    InnerMut, InnerRef, KeyBuf, LeafMut, LeafRef, Lsn, OverflowRef, Page, PageId, chunk_capacity,
    format_inner, format_leaf, format_overflow, leaf_capacity, leaf_layout,
};

use crate::btree::{Root, first_layout, separator};
use crate::error::{Attempt, EngineError, Stop};
use crate::table::Table;

/// How full pages are made, of 100: later inserts find room.
const FILL_PERCENT: usize = 92;

/// Numbers of pages that a load may use, in ascending order.
#[derive(Default)]
pub(super) struct Ids {
    ranges: VecDeque<Range<u64>>,
}

impl From<Range<u64>> for Ids {
    fn from(range: Range<u64>) -> Ids {
        Ids {
            ranges: VecDeque::from([range]),
        }
    }
}

impl Ids {
    pub fn add(&mut self, range: Range<u64>) {
        self.ranges.push_back(range);
    }

    pub fn len(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    fn next(&mut self) -> Attempt<PageId> {
        while let Some(range) = self.ranges.front_mut() {
            if let Some(id) = range.next() {
                return Ok(PageId(id));
            }
            self.ranges.pop_front();
        }
        // Callers reserve before they build.
        Err(EngineError::corrupt(PageId::default(), Lsn::NONE, "a reserved page", "none").into())
    }
}

/// A page being filled.
struct Level {
    page: Page,
    /// The smallest key of its part of the tree.
    low: KeyBuf,
}

/// The pages being filled: the last of each level.
pub(super) struct Builder {
    page_bytes: usize,
    leaf: Option<Level>,
    /// Level 1 first.
    inner: Vec<Level>,
    layout: Vec<u8>,
    /// Bytes of texts per row that the layout was made for.
    mean: usize,
    last_key: KeyBuf,
}

impl Builder {
    pub fn new(table: &Table, page_bytes: usize) -> Attempt<Builder> {
        let layout = first_layout(table, page_bytes)?;
        let (leaf, inner, last_key) = (None, Vec::new(), KeyBuf::new());
        Ok(Builder {
            page_bytes,
            leaf,
            inner,
            layout,
            mean: usize::MAX,
            last_key,
        })
    }

    /// Pages that one more row, or the end, takes at the most: of each level one that is full and one more, and a new
    /// level.
    pub fn pages_needed(&self) -> usize {
        2 * self.inner.len() + 3
    }

    /// Adds a row after all others. `ids` gives numbers of new pages; finished pages go to `done`.
    pub fn push(
        &mut self,
        table: &Table,
        key: &KeyBuf,
        row: &[u8],
        ids: &mut Ids,
        done: &mut Vec<Page>,
    ) -> Attempt<()> {
        if let Some(leaf) = &self.leaf
            && is_full(&LeafRef::new(&leaf.page)?, row)
        {
            self.end_leaf(table, ids, done)?;
        }
        if self.leaf.is_none() {
            let mut page = Page::empty(ids.next()?, self.page_bytes);
            format_leaf(&mut page, table.id, &self.layout)?;
            self.leaf = Some(Level {
                page,
                low: separator(&self.last_key, key),
            });
        }
        if let Some(leaf) = &mut self.leaf {
            let rank = LeafRef::new(&leaf.page)?.len();
            LeafMut::new(&mut leaf.page)?.insert(rank, row)?;
        }
        self.last_key = key.clone();
        Ok(())
    }

    fn end_leaf(&mut self, table: &Table, ids: &mut Ids, done: &mut Vec<Page>) -> Attempt<()> {
        let Some(Level { page, low }) = self.leaf.take() else {
            return Ok(());
        };
        let leaf = LeafRef::new(&page)?;
        let mean = leaf.heap_live().div_ceil(leaf.len().max(1));
        if mean != self.mean
            && let Ok(capacity) = leaf_capacity(&table.schema, self.page_bytes, mean)
        {
            self.layout = leaf_layout(&table.schema, capacity);
            self.mean = mean;
        }
        let id = page.id();
        done.push(page);
        self.add(table, 0, low, id, ids, done)
    }

    /// Adds a finished page to the level above: `level` counts inner levels from the bottom.
    fn add(
        &mut self,
        table: &Table,
        level: usize,
        low: KeyBuf,
        child: PageId,
        ids: &mut Ids,
        done: &mut Vec<Page>,
    ) -> Attempt<()> {
        let page_bytes = self.page_bytes;
        let mut start = |low: KeyBuf| {
            let mut page = Page::empty(ids.next()?, page_bytes);
            format_inner(&mut page, table.id, level as u8 + 1, child);
            Ok::<_, Stop>(Level { page, low })
        };
        let Some(open) = self.inner.get_mut(level) else {
            self.inner.push(start(low)?);
            return Ok(());
        };
        let inner = InnerRef::new(&open.page)?;
        let len = inner.len();
        let over = (inner.live_bytes() + low.len()) * 100 > inner.capacity_bytes() * FILL_PERCENT;
        if len == 0 || (!over && inner.fits(low.len())) {
            InnerMut::new(&mut open.page)?.insert(len, &low, child)?;
            return Ok(());
        }
        let full = std::mem::replace(open, start(low)?);
        let id = full.page.id();
        done.push(full.page);
        self.add(table, level + 1, full.low, id, ids, done)
    }

    /// Ends all pages. The last one of the highest level is not a page of its own: it is what the root becomes.
    pub fn finish(
        &mut self,
        table: &Table,
        ids: &mut Ids,
        done: &mut Vec<Page>,
    ) -> Attempt<Option<Root>> {
        if self.inner.is_empty() {
            return self
                .leaf
                .take()
                .map(|leaf| Root::of(&leaf.page))
                .transpose();
        }
        self.end_leaf(table, ids, done)?;
        let mut level = 0;
        while level + 1 < self.inner.len() {
            let empty = Page::empty(PageId::default(), self.page_bytes);
            let last = std::mem::replace(
                &mut self.inner[level],
                Level {
                    page: empty,
                    low: KeyBuf::new(),
                },
            );
            let id = last.page.id();
            done.push(last.page);
            self.add(table, level + 1, last.low, id, ids, done)?;
            level += 1;
        }
        self.inner.pop().map(|top| Root::of(&top.page)).transpose()
    }
}

fn is_full(leaf: &LeafRef<'_>, row: &[u8]) -> bool {
    let rows = leaf.len() * 100 >= leaf.capacity() * FILL_PERCENT;
    let heap =
        leaf.heap_capacity() > 0 && leaf.heap_live() * 100 >= leaf.heap_capacity() * FILL_PERCENT;
    rows || heap || !leaf.fits(row)
}

/// The overflow pages of a value.
pub(super) fn chain(
    table: &Table,
    bytes: &[u8],
    page_bytes: usize,
    ids: &mut Ids,
    done: &mut Vec<Page>,
) -> Attempt<OverflowRef> {
    let chunks: Vec<&[u8]> = bytes.chunks(chunk_capacity(page_bytes)).collect();
    let pages = chunks
        .iter()
        .map(|_| ids.next())
        .collect::<Attempt<Vec<PageId>>>()?;
    for (at, chunk) in chunks.iter().enumerate() {
        let next = pages.get(at + 1).copied().unwrap_or_default();
        let mut page = Page::empty(pages[at], page_bytes);
        format_overflow(&mut page, table.id, next, chunk)?;
        done.push(page);
    }
    Ok(OverflowRef {
        first: pages.first().copied().unwrap_or_default(),
        len: bytes.len() as u64,
    })
}
