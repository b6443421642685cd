"""An extent map: which runs of pages belong to which table or index. And where such maps and extents lie.

::

    segment   map page ... | extent 0: pages | extent 1: pages | ... | rest, unused
    map page  header 64 | first extent u64, entries u32, zero u32 | entries
    entry     owner u64, used pages u64 (bitmap), load u32, state u8 (0 free, 1 loading, 2 linked), zero
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from aurora_engine.verifier.damage import check

_ENTRIES_AT: Final = 80
_ENTRY_BYTES: Final = 24
_EXTENT_PAGES_MAX: Final = 64
FREE, LOADING, LINKED = range(3)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a map says of one extent."""

    owner: int = 0
    used: int = 0
    load: int = 0
    state: int = FREE


@dataclass(slots=True)
class ExtentMap:
    """The extents from ``first`` on."""

    first: int
    entries: list[Extent]

    def set(self, first: int, count: int, extent: Extent) -> None:
        """Extents change owner, load and state. Which of their pages are in use stays as long as the owner does."""
        check(first + count <= len(self.entries), f"extents below {len(self.entries)}", first + count - 1)
        check(extent.state <= LINKED, "a state from 0 to 2", extent.state)
        for index in range(first, first + count):
            before = self.entries[index]
            stays = before.owner == extent.owner and extent.state != FREE
            self.entries[index] = replace(extent, used=before.used if stays else 0)

    def mark(self, index: int, page: int, *, used: bool) -> None:
        """A page of an extent is taken, or given back."""
        check(index < len(self.entries), f"an extent below {len(self.entries)}", index)
        check(page < _EXTENT_PAGES_MAX, f"a page below {_EXTENT_PAGES_MAX}", page)
        before, bit = self.entries[index], 1 << page
        self.entries[index] = replace(before, used=before.used | bit if used else before.used & ~bit)


def read_plain(page: bytes) -> ExtentMap:
    """The map in the bytes of a plain page."""
    first, count = struct.unpack_from("<QI", page, 64)
    check(count <= per_map_page(len(page)), f"at most {per_map_page(len(page))} extents", count, 72)
    entries = (struct.unpack_from("<QQIB", page, _ENTRIES_AT + _ENTRY_BYTES * index) for index in range(count))
    return ExtentMap(first, [Extent(*entry) for entry in entries])


def per_map_page(page_bytes: int) -> int:
    """Extents that one map page describes."""
    return (page_bytes - _ENTRIES_AT) // _ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a volume is divided into segments and extents."""

    page_bytes: int
    segment_pages: int

    @property
    def extent_pages(self) -> int:
        """Pages of an extent: a sixteenth of a segment, 1 to 64."""
        return min(max(self.segment_pages // 16, 1), _EXTENT_PAGES_MAX)

    @property
    def map_pages(self) -> int:
        """Map pages at the start of each segment: as few as describe all the extents after them."""
        per_map = per_map_page(self.page_bytes) * self.extent_pages + 1
        return -(-max(self.segment_pages + 1 - self.extent_pages, 0) // per_map)

    @property
    def extents(self) -> int:
        """Extents of each segment."""
        return (self.segment_pages - self.map_pages) // self.extent_pages

    def first_page(self, extent: int) -> int:
        """The first page of an extent."""
        segment, index = divmod(extent, self.extents)
        return segment * self.segment_pages + self.map_pages + index * self.extent_pages

    def extent_of(self, page: int) -> int | None:
        """The extent that a page lies in; ``None`` for maps and what is unused."""
        segment, place = divmod(page, self.segment_pages)
        index = (place - self.map_pages) // self.extent_pages
        return segment * self.extents + index if 0 <= index < self.extents else None

    def map_place(self, extent: int) -> tuple[int, int]:
        """The map page that describes an extent, and the extent's index in it."""
        segment, place = divmod(extent, self.extents)
        page, index = divmod(place, per_map_page(self.page_bytes))
        return segment * self.segment_pages + page, index
