"""A page: its header, what it holds, and its plain form.

::

    offset  bytes  field
         0      4  magic "APG1"
         4      2  format version, 1
         6      1  kind: 0 free, 1 leaf, 2 inner, 3 overflow, 4 extent map
         7      1  zero
         8      8  page id
        16      8  object id: the table or index
        24      8  origin: the volume in which the newest record was written
        32      8  LSN of the newest record applied
        40      8  LSN of the record before it
        48      4  schema version
        52      4  page bytes
        56      4  zero
        60      4  CRC-32C of bytes 0..60 followed by bytes 64..end
        64         body
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from aurora_engine.verifier import extents, inner, leaf, overflow
from aurora_engine.verifier.crc import crc32c, expect_crc
from aurora_engine.verifier.damage import check

HEADER_BYTES: Final = 64
_HEADER: Final = struct.Struct("<4sHBBQQQQQIIII")
_CRC_AT: Final = 60
FREE, LEAF, INNER, OVERFLOW, EXTENT_MAP = range(5)

Body = leaf.Leaf | inner.Inner | overflow.Piece | extents.ExtentMap | None


@dataclass(slots=True)
class Page:
    """A page as of some record: its ``lsn``, written in the volume ``origin``."""

    id: int
    page_bytes: int
    object: int = 0
    origin: int = 0
    lsn: int = 0
    prev_lsn: int = 0
    body: Body = None

    @property
    def kind(self) -> str:
        """What it holds."""
        return "free" if self.body is None else type(self.body).__name__.lower()


def is_page_bytes(count: int) -> bool:
    """Whether pages may have so many bytes."""
    return 1024 <= count <= 65536 and count & (count - 1) == 0


def read_plain(data: bytes, page_id: int) -> Page:
    """A page in its plain form, with everything checked that can be."""
    check(len(data) >= HEADER_BYTES, f"a page of {HEADER_BYTES} bytes or more", len(data), 0)
    magic, form, kind, _, number, owner, origin, lsn, prev_lsn, version, size, _, crc = _HEADER.unpack_from(data)
    check(magic == b"APG1", "magic APG1", magic, 0)
    check(form == 1, "page format 1", form, 4)
    expect_crc(crc, data[HEADER_BYTES:], "a page", _CRC_AT, before=crc32c(data[:_CRC_AT]))
    check(number == page_id, f"page {page_id}", f"page {number}", 8)
    check(is_page_bytes(size) and size == len(data), f"a page of {size} bytes", len(data), 52)
    return Page(page_id, size, owner, origin, lsn, prev_lsn, read_body(kind, data, version))


def read_body(kind: int, data: bytes, version: int) -> Body:
    """What the bytes of a plain page of a kind hold."""
    check(kind <= EXTENT_MAP, "a kind from 0 to 4", kind, 6)
    if kind == LEAF:
        return leaf.read_plain(data, version)
    if kind == INNER:
        return inner.read_plain(data)
    if kind == OVERFLOW:
        return overflow.read_plain(data)
    return extents.read_plain(data) if kind == EXTENT_MAP else None
