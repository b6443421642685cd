"""What a record does to its page.

::

    op   tag u8 | small fields as varints | one payload, to the end

    1   format leaf         object, schema version | layout         16  insert a row     rank | row
    2   format inner        object, level, leftmost child           17  update a row     rank | changes
    3   format overflow     object, next page | bytes               18  delete a row     rank
    4   format extent map   first extent, count                     19  truncate rows    rank
    5   reference           object, index | blob id, 16 bytes       20  append rows      | each: length, row
                                                                    21  upgrade rows     | layout, row of initial values
    32  insert separator    position, child | key
    33  remove separator    position                                48  set extents      first, count, owner, load,
                                                                                         state
    34  truncate            position                                49  use a page       extent, page
    35  append separators   | each: length, key, child              50  release a page   extent, page
    36  set child           position, child                         64  free the page

A record says which record of its page is the one before it. So what was lost in between, or comes twice, is noticed
here, at the first record and not at the first wrong row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from aurora_engine.verifier.cursor import Cursor
from aurora_engine.verifier.damage import check, damaged
from aurora_engine.verifier.extents import Extent, ExtentMap
from aurora_engine.verifier.inner import Inner
from aurora_engine.verifier.leaf import Layout, Leaf
from aurora_engine.verifier.overflow import Piece
from aurora_engine.verifier.page import Page
from aurora_engine.verifier.records import Record

FORMAT_LEAF, FORMAT_INNER, FORMAT_OVERFLOW, FORMAT_EXTENT_MAP, REFERENCE = range(1, 6)
_LEAF_INSERT, _LEAF_UPDATE, _LEAF_DELETE, _LEAF_TRUNCATE, _LEAF_APPEND, _LEAF_UPGRADE = range(16, 22)
_INNER_INSERT, _INNER_REMOVE, _INNER_TRUNCATE, _INNER_APPEND, _INNER_SET_CHILD = range(32, 37)
_EXTENT_SET, _EXTENT_USE, _EXTENT_RELEASE = range(48, 51)
_FREE: Final = 64

BlobPage = Callable[[int, int, int], Page]
"""Gives the page of a blob: the blob's id, the index in it, and the number that the page must have."""

_B = TypeVar("_B", Leaf, Inner, ExtentMap)


def apply(page: Page, record: Record, blob_page: BlobPage) -> Page:
    """The page after a record."""
    check(page.id == record.page, f"a record of page {page.id}", f"one of page {record.page}")
    if record.starts_life:
        check(record.prev_page == 0, f"no record before LSN {record.lsn}", f"LSN {record.prev_page}")
    else:
        check(page.lsn == record.prev_page, f"LSN {record.prev_page} before LSN {record.lsn}", f"LSN {page.lsn}")
    changed = _apply_op(page, record, blob_page)
    before = 0 if record.starts_life else page.lsn
    changed.origin, changed.lsn, changed.prev_lsn = record.origin, record.lsn, before
    return changed


def _apply_op(page: Page, record: Record, blob_page: BlobPage) -> Page:
    cursor = Cursor(record.op, f"the op of LSN {record.lsn}")
    tag = cursor.u8()
    if tag <= REFERENCE:
        page = _start_life(page, tag, cursor, blob_page)
    elif _LEAF_INSERT <= tag <= _LEAF_UPGRADE:
        _change_leaf(_body(page, Leaf), tag, cursor)
    elif _INNER_INSERT <= tag <= _INNER_SET_CHILD:
        _change_inner(_body(page, Inner), tag, cursor)
    elif _EXTENT_SET <= tag <= _EXTENT_RELEASE:
        _change_extents(_body(page, ExtentMap), tag, cursor)
    elif tag == _FREE:
        page.object, page.body = 0, None
    else:
        raise damaged("a known op", f"tag {tag}", 0)
    cursor.end()
    return page


def _body(page: Page, kind: type[_B]) -> _B:
    if not isinstance(page.body, kind):
        raise damaged(f"a page of kind {kind.__name__.lower()}", page.kind)
    return page.body


def _start_life(page: Page, tag: int, cursor: Cursor, blob_page: BlobPage) -> Page:
    fresh = Page(page.id, page.page_bytes)
    if tag == FORMAT_EXTENT_MAP:
        first, count = cursor.varint(), cursor.varint(32)
        fresh.body = ExtentMap(first, [Extent()] * count)
        return fresh
    fresh.object = cursor.varint()
    if tag == FORMAT_LEAF:
        version, layout = cursor.varint(32), Layout.read(cursor)
        check(layout.version == version, f"schema version {version}", layout.version)
        fresh.body = Leaf.empty(layout)
    elif tag == FORMAT_INNER:
        fresh.body = Inner(cursor.varint(8), [cursor.varint()], [])
    elif tag == FORMAT_OVERFLOW:
        fresh.body = Piece(cursor.varint(), cursor.rest())
    elif tag == REFERENCE:
        return _refer(fresh, cursor, blob_page)
    else:
        raise damaged("a known op", f"tag {tag}", 0)
    return fresh


def _refer(fresh: Page, cursor: Cursor, blob_page: BlobPage) -> Page:
    """The page of a blob was sealed before it had an LSN, for this page and this owner."""
    index, blob = cursor.varint(32), int.from_bytes(cursor.take(16), "little")
    content = blob_page(blob, index, fresh.id)
    check(content.object == fresh.object, f"a page of object {fresh.object}", f"of {content.object}")
    check(content.page_bytes == fresh.page_bytes, f"a page of {fresh.page_bytes} bytes", content.page_bytes)
    check(content.lsn == 0, "a page without an LSN", f"LSN {content.lsn}")
    return content


def _change_leaf(leaf: Leaf, tag: int, cursor: Cursor) -> None:
    if tag == _LEAF_APPEND:
        rows = []
        while cursor:
            rows.append(cursor.sized())
        leaf.append(rows)
    elif tag == _LEAF_UPGRADE:
        leaf.upgrade(cursor.rest())
    else:
        rank = cursor.varint(16)
        if tag == _LEAF_INSERT:
            leaf.insert(rank, cursor.rest())
        elif tag == _LEAF_UPDATE:
            leaf.update(rank, cursor.rest())
        elif tag == _LEAF_DELETE:
            leaf.delete(rank)
        else:
            leaf.truncate(rank)


def _change_inner(inner: Inner, tag: int, cursor: Cursor) -> None:
    if tag == _INNER_APPEND:
        entries = []
        while cursor:
            entries.append((cursor.sized(), cursor.varint()))
        inner.append(entries)
        return
    position = cursor.varint(16)
    if tag == _INNER_INSERT:
        child = cursor.varint()
        inner.insert(position, cursor.rest(), child)
    elif tag == _INNER_REMOVE:
        inner.remove(position)
    elif tag == _INNER_TRUNCATE:
        inner.truncate(position)
    else:
        inner.set_child(position, cursor.varint())


def _change_extents(extents: ExtentMap, tag: int, cursor: Cursor) -> None:
    first = cursor.varint(32)
    if tag == _EXTENT_SET:
        count, owner, load, state = cursor.varint(32), cursor.varint(), cursor.varint(32), cursor.varint(8)
        extents.set(first, count, Extent(owner, 0, load, state))
    else:
        extents.mark(first, cursor.varint(8), used=tag == _EXTENT_USE)
