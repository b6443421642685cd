//! Inner pages of a B+tree: separators and children.
//!
//! ```text
//! header                                                                  64 bytes
//! inner header   level u8, zero u8, separators u16, heap low u32,
//!                heap live u32, zero u32, leftmost child u64              24
//! entries        per separator, in order: child to its right u64,
//!                heap offset u16, length u16                              12 each, grows up
//! --- free
//! heap           the separators' bytes; grows down from the page's end
//! ```
//! A child at position `p` holds the keys from separator `p - 1` (included) up to separator `p` (left out). Level 1 is above
//! the leaves.

use crate::bytes_at::{array_at, put, put_u16, put_u32, put_u64, slice_at, u16_at, u32_at, u64_at};
use crate::error::PageError;
use crate::header::HEADER_BYTES;
use crate::ids::{ObjectId, PageId};
use crate::page::{Page, PageKind};

const LEVEL_AT: usize = HEADER_BYTES;
const LEN_AT: usize = LEVEL_AT + 2;
const HEAP_LOW_AT: usize = LEN_AT + 2;
const HEAP_LIVE_AT: usize = HEAP_LOW_AT + 4;
const LEFTMOST_AT: usize = HEAP_LIVE_AT + 8;
const ENTRIES_AT: usize = LEFTMOST_AT + 8;
const ENTRY_BYTES: usize = 12;

const fn entry_at(pos: usize) -> usize {
    ENTRIES_AT + pos * ENTRY_BYTES
}

/// Starts the life of an inner page with one child and no separator.
pub fn format_inner(page: &mut Page, object: ObjectId, level: u8, leftmost: PageId) {
    page.reset(PageKind::Inner, object, 0);
    let page_bytes = page.bytes().len();
    let bytes = page.bytes_mut();
    bytes[LEVEL_AT] = level;
    put_u32(bytes, HEAP_LOW_AT, page_bytes as u32);
    put_u64(bytes, LEFTMOST_AT, leftmost.0);
}

/// A view of an inner page. A *position* counts separators, or children, from the left.
#[derive(Clone, Copy)]
pub struct InnerRef<'a> {
    page: &'a Page,
    bytes: &'a [u8],
    len: usize,
}

impl<'a> InnerRef<'a> {
    /// Views a page as an inner one.
    #[inline]
    pub fn new(page: &'a Page) -> Result<InnerRef<'a>, PageError> {
        page.expect_kind(PageKind::Inner)?;
        let bytes = page.bytes();
        let len = usize::from(u16_at(bytes, LEN_AT));
        if entry_at(len) > bytes.len() {
            let (expected, got) = (bytes.len() as u64, entry_at(len) as u64);
            return Err(PageError::Corrupt {
                page: page.id(),
                what: "end of an inner page's entries, at most",
                expected,
                got,
            });
        }
        Ok(InnerRef { page, bytes, len })
    }

    /// Height above the leaves: 1 if the children are leaves.
    pub fn level(&self) -> u8 {
        self.bytes[LEVEL_AT]
    }

    /// Separators; there is one child more.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no separator, only the leftmost child.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Position and page of the child that holds a key.
    #[inline]
    pub fn child_for(&self, key: &[u8]) -> (usize, PageId) {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) <= key {
                low = middle + 1
            } else {
                high = middle
            }
        }
        (low, self.child(low))
    }

    /// The child at a position from 0 to the number of separators.
    #[inline]
    pub fn child(&self, pos: usize) -> PageId {
        debug_assert!(pos <= self.len, "child {pos} of {}", self.len + 1);
        match pos.checked_sub(1) {
            None => PageId(u64_at(self.bytes, LEFTMOST_AT)),
            Some(entry) => PageId(u64_at(self.bytes, entry_at(entry))),
        }
    }

    /// The separator at a position.
    #[inline]
    pub fn key(&self, pos: usize) -> &'a [u8] {
        debug_assert!(pos < self.len, "separator {pos} of {}", self.len);
        let raw: [u8; 4] = array_at(self.bytes, entry_at(pos) + 8);
        let offset = u16::from_le_bytes([raw[0], raw[1]]);
        let len = u16::from_le_bytes([raw[2], raw[3]]);
        slice_at(self.bytes, usize::from(offset), usize::from(len))
    }

    /// Separators with the child to the right of each.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&'a [u8], PageId)> + use<'a> {
        let inner = *self;
        (0..inner.len).map(move |pos| (inner.key(pos), inner.child(pos + 1)))
    }

    fn heap_live(&self) -> usize {
        u32_at(self.bytes, HEAP_LIVE_AT) as usize
    }

    fn heap_low(&self) -> usize {
        u32_at(self.bytes, HEAP_LOW_AT) as usize
    }

    /// Bytes that the separators use, holes not counted.
    pub fn live_bytes(&self) -> usize {
        self.len * ENTRY_BYTES + self.heap_live()
    }

    /// Bytes that separators can use.
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.len() - ENTRIES_AT
    }

    /// Whether a separator of so many bytes fits. Only live content decides.
    pub fn fits(&self, key_len: usize) -> bool {
        self.has_room(1, key_len)
    }

    /// Whether so many separators of so many bytes in all fit.
    pub fn has_room(&self, separators: usize, key_bytes: usize) -> bool {
        self.live_bytes() + separators * ENTRY_BYTES + key_bytes <= self.capacity_bytes()
    }

    /// Whether the page is less than a quarter full, so that it should be merged with a sibling.
    pub fn is_underfull(&self) -> bool {
        self.live_bytes() * 4 < self.capacity_bytes()
    }

    /// Checks what the CRC cannot tell: separators lie in the heap and ascend, and the counts agree.
    pub fn verify(&self) -> Result<(), PageError> {
        let corrupt = |what, expected: usize, got: usize| {
            Err(PageError::Corrupt {
                page: self.page.id(),
                what,
                expected: expected as u64,
                got: got as u64,
            })
        };
        if self.level() == 0 {
            return corrupt("level of an inner page, at least", 1, 0);
        }
        if self.heap_low() < entry_at(self.len) || self.heap_low() > self.bytes.len() {
            return corrupt(
                "start of an inner page's heap, at least",
                entry_at(self.len),
                self.heap_low(),
            );
        }
        let mut live = 0;
        for pos in 0..self.len {
            let offset = usize::from(u16_at(self.bytes, entry_at(pos) + 8));
            let len = usize::from(u16_at(self.bytes, entry_at(pos) + 10));
            if len > 0 && (offset < self.heap_low() || offset + len > self.bytes.len()) {
                return corrupt("offset of a separator, at least", self.heap_low(), offset);
            }
            if pos > 0 && self.key(pos - 1) >= self.key(pos) {
                return corrupt(
                    "position of the first separator that does not ascend, none below",
                    self.len,
                    pos,
                );
            }
            live += len;
        }
        if live != self.heap_live() {
            return corrupt("live bytes of an inner page's heap", live, self.heap_live());
        }
        Ok(())
    }
}

/// Changes an inner page in place. Deterministic; a change that fails leaves the page as it was.
pub struct InnerMut<'a> {
    page: &'a mut Page,
    len: usize,
}

impl<'a> InnerMut<'a> {
    /// Takes a page as an inner one.
    pub fn new(page: &'a mut Page) -> Result<InnerMut<'a>, PageError> {
        let inner = InnerRef::new(page)?;
        let (low, len) = (inner.heap_low(), inner.len);
        if low < entry_at(len)
            || low > page.bytes().len()
            || inner.heap_live() > page.bytes().len() - low
        {
            let (what, expected) = (
                "low end of an inner page's heap, at least",
                entry_at(len) as u64,
            );
            return Err(PageError::Corrupt {
                page: page.id(),
                what,
                expected,
                got: low as u64,
            });
        }
        Ok(InnerMut { page, len })
    }

    /// The page as it is now.
    #[inline]
    pub fn view(&self) -> InnerRef<'_> {
        InnerRef {
            page: self.page,
            bytes: self.page.bytes(),
            len: self.len,
        }
    }

    /// Inserts a separator at a position, and a child to its right. The separators around it are the caller's care:
    /// `key` lies between them.
    pub fn insert(&mut self, pos: usize, key: &[u8], child: PageId) -> Result<(), PageError> {
        self.check_pos(pos, self.len)?;
        if !self.view().fits(key.len()) {
            let free = self
                .view()
                .capacity_bytes()
                .saturating_sub(self.view().live_bytes());
            let needed = ENTRY_BYTES + key.len();
            return Err(PageError::Full {
                page: self.page.id(),
                what: "bytes",
                needed,
                free,
            });
        }
        if self.view().heap_low() < entry_at(self.len + 1) + key.len() {
            self.compact();
        }
        let low = self.view().heap_low().saturating_sub(key.len());
        let live = self.view().heap_live() + key.len();
        let end = entry_at(self.len);
        let bytes = self.page.bytes_mut();
        put(bytes, low, key);
        bytes.copy_within(entry_at(pos)..end, entry_at(pos + 1));
        put_u64(bytes, entry_at(pos), child.0);
        put_u16(
            bytes,
            entry_at(pos) + 8,
            if key.is_empty() { 0 } else { low as u16 },
        );
        put_u16(bytes, entry_at(pos) + 10, key.len() as u16);
        put_u32(bytes, HEAP_LOW_AT, low as u32);
        self.set_len(self.len + 1, live);
        Ok(())
    }

    /// Appends separators with the children to their right. All of them or, where one does not fit, none.
    pub fn append<'k>(
        &mut self,
        entries: impl IntoIterator<Item = (&'k [u8], PageId)>,
    ) -> Result<(), PageError> {
        let before = self.len;
        for (key, child) in entries {
            if let Err(error) = self.insert(self.len, key, child) {
                self.truncate(before)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes the separator at a position and the child to its right.
    pub fn remove(&mut self, pos: usize) -> Result<(), PageError> {
        match self.len.checked_sub(1) {
            Some(last) => self.check_pos(pos, last)?,
            None => return Err(self.out_of_range("a separator of none", 0, pos)),
        }
        let live = self
            .view()
            .heap_live()
            .saturating_sub(self.view().key(pos).len());
        let end = entry_at(self.len);
        self.page
            .bytes_mut()
            .copy_within(entry_at(pos + 1)..end, entry_at(pos));
        self.set_len(self.len - 1, live);
        Ok(())
    }

    /// Removes the separators from a position on, and the children to their right.
    pub fn truncate(&mut self, pos: usize) -> Result<(), PageError> {
        self.check_pos(pos, self.len)?;
        let dropped: usize = (pos..self.len).map(|pos| self.view().key(pos).len()).sum();
        let live = self.view().heap_live().saturating_sub(dropped);
        self.set_len(pos, live);
        Ok(())
    }

    /// Puts another child at a position from 0 to the number of separators.
    pub fn set_child(&mut self, pos: usize, child: PageId) -> Result<(), PageError> {
        self.check_pos(pos, self.len)?;
        let at = pos.checked_sub(1).map_or(LEFTMOST_AT, entry_at);
        put_u64(self.page.bytes_mut(), at, child.0);
        Ok(())
    }

    /// Rewrites the heap without holes, in order.
    fn compact(&mut self) {
        let mut heap = Vec::with_capacity(self.view().heap_live());
        (0..self.len).for_each(|pos| heap.extend_from_slice(self.view().key(pos)));
        let low = self.page.bytes().len() - heap.len().min(self.view().capacity_bytes());
        let mut offset = low;
        for pos in 0..self.len {
            let len = self.view().key(pos).len();
            let stored = if len == 0 { 0 } else { offset as u16 };
            put_u16(self.page.bytes_mut(), entry_at(pos) + 8, stored);
            offset += len;
        }
        put(self.page.bytes_mut(), low, &heap);
        put_u32(self.page.bytes_mut(), HEAP_LOW_AT, low as u32);
    }

    fn set_len(&mut self, len: usize, heap_live: usize) {
        self.len = len;
        let page_bytes = self.page.bytes().len();
        let bytes = self.page.bytes_mut();
        put_u16(bytes, LEN_AT, len as u16);
        put_u32(bytes, HEAP_LIVE_AT, heap_live as u32);
        if len == 0 {
            put_u32(bytes, HEAP_LOW_AT, page_bytes as u32);
        }
    }

    fn check_pos(&self, pos: usize, max: usize) -> Result<(), PageError> {
        if pos <= max {
            Ok(())
        } else {
            Err(self.out_of_range("a position", max, pos))
        }
    }

    fn out_of_range(&self, what: &'static str, max: usize, got: usize) -> PageError {
        PageError::OutOfRange {
            page: self.page.id(),
            what,
            max,
            got,
        }
    }
}
