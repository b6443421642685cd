//! Building the pages of a tree from rows in key order, leaves first.

use std::collections::VecDeque;
use std::ops::Range;

use aurora_page::{
    InnerMut, InnerRef, KeyBuf, LeafRef, Lsn, OverflowRef, Page, PageError, PageId, chunk_capacity,
    fill_rows, format_inner, format_leaf, format_overflow, leaf_capacity, leaf_layout,
    row_heap_bytes,
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

/// An inner page being filled.
struct Level {
    page: Page,
    /// The smallest key of its part of the tree.
    low: KeyBuf,
}

/// The rows of a leaf: they are put into its page all at once, column by column, when it is known which they are.
struct Leaf {
    /// Formatted, and empty until the end.
    page: Page,
    low: KeyBuf,
    /// The rows, one after the other, and where each ends.
    rows: Vec<u8>,
    ends: Vec<usize>,
    heap: usize,
    /// What makes the leaf full.
    rows_full: usize,
    heap_full: usize,
    heap_max: usize,
}

impl Leaf {
    /// A leaf for the rows from `low` on; `rows` and `ends` are used again.
    fn new(page: Page, low: KeyBuf, (mut rows, mut ends): Buffers) -> Attempt<Leaf> {
        let leaf = LeafRef::new(&page)?;
        let (capacity, heap_max) = (leaf.capacity(), leaf.heap_capacity());
        rows.clear();
        ends.clear();
        Ok(Leaf {
            page,
            low,
            rows,
            ends,
            heap: 0,
            rows_full: (capacity * FILL_PERCENT)
                .div_ceil(100)
                .clamp(1, capacity.max(1)),
            heap_full: (heap_max * FILL_PERCENT).div_ceil(100),
            heap_max,
        })
    }

    /// Whether a row that needs so many bytes of the heap belongs into the next leaf.
    fn is_full(&self, heap: usize) -> bool {
        let heap_full = self.heap_max > 0 && self.heap >= self.heap_full;
        self.ends.len() >= self.rows_full || heap_full || self.heap + heap > self.heap_max
    }

    fn push(&mut self, row: &[u8], heap: usize) {
        self.rows.extend_from_slice(row);
        self.ends.push(self.rows.len());
        self.heap += heap;
    }

    /// The page with the rows in it.
    fn finish(mut self) -> Attempt<(Page, KeyBuf, Buffers)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges: Vec<Range<usize>> = starts.zip(&self.ends).map(|(a, b)| a..*b).collect();
        fill_rows(
            &mut self.page,
            ranges.into_iter().map(|range| &self.rows[range]),
        )?;
        Ok((self.page, self.low, (self.rows, self.ends)))
    }
}

type Buffers = (Vec<u8>, Vec<usize>);

/// The pages being filled: the last of each level.
pub(super) struct Builder {
    page_bytes: usize,
    leaf: Option<Leaf>,
    buffers: Buffers,
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
            buffers: Buffers::default(),
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
        let heap = row_heap_bytes(&table.schema, row).map_err(|source| PageError::Row {
            page: table.root,
            source,
        })?;
        if self.leaf.as_ref().is_some_and(|leaf| leaf.is_full(heap)) {
            self.end_leaf(table, ids, done)?;
        }
        let leaf = match &mut self.leaf {
            Some(leaf) => leaf,
            place => {
                let mut page = Page::empty(ids.next()?, self.page_bytes);
                format_leaf(&mut page, table.id, &self.layout)?;
                let low = separator(&self.last_key, key);
                let buffers = std::mem::take(&mut self.buffers);
                place.insert(Leaf::new(page, low, buffers)?)
            }
        };
        leaf.push(row, heap);
        self.last_key.clone_from(key);
        Ok(())
    }

    fn end_leaf(&mut self, table: &Table, ids: &mut Ids, done: &mut Vec<Page>) -> Attempt<()> {
        let Some(leaf) = self.leaf.take() else {
            return Ok(());
        };
        let mean = leaf.heap.div_ceil(leaf.ends.len().max(1));
        if mean != self.mean
            && let Ok(capacity) = leaf_capacity(&table.schema, self.page_bytes, mean)
        {
            self.layout = leaf_layout(&table.schema, capacity);
            self.mean = mean;
        }
        let (page, low, buffers) = leaf.finish()?;
        self.buffers = buffers;
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
            let Some(leaf) = self.leaf.take() else {
                return Ok(None);
            };
            return Root::of(&leaf.finish()?.0).map(Some);
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
