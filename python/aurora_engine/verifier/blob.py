"""A blob: the sealed pages of a bulk load, to which log records refer.

::

    blob    head, 64 | block of page 0 | block of page 1 | … | table
    head    magic "AUbl" | CRC-32C u32 of what follows | format u16 = 1 | zero u16 | pages u32 | id u128 | epoch u64
            | table offset u64 | table length u32 | digest u32 | zeros
    table   one block: offset u64, length u32 for each page

The digest is the CRC-32C of the sealed pages one after another.
"""

from __future__ import annotations

import struct
from typing import Final

from aurora_engine.verifier.blocks import read_block
from aurora_engine.verifier.content import Content
from aurora_engine.verifier.crc import crc32c, expect_crc
from aurora_engine.verifier.damage import check, within
from aurora_engine.verifier.page import Page
from aurora_engine.verifier.sealed import read_sealed

_HEAD: Final = struct.Struct("<4sIHHI16sQQII8s")
_ENTRY: Final = struct.Struct("<QI")


class Blob:
    """A blob, ready to be read."""

    def __init__(self, name: str, content: Content, blob_id: int) -> None:
        self.name, self._content = name, content
        with within(name):
            head = content.read(0, _HEAD.size)
            magic, crc, form, zero, pages, number, _, offset, length, self._digest, zeros = _HEAD.unpack(head)
            check(magic == b"AUbl", "magic AUbl", magic, 0)
            expect_crc(crc, head[8:], "a blob's head", 4)
            check(form == 1, "blob format 1", form, 8)
            check(zero == 0 and not any(zeros), "zeros", "others", 10)
            check(number == blob_id.to_bytes(16, "little"), f"blob {blob_id:032x}", number[::-1].hex(), 16)
        with within(name, offset, packed="the table"):
            table = read_block(content.read(offset, length))
            check(len(table) == _ENTRY.size * pages, f"a table of {pages} pages", f"{len(table)} bytes")
        self._table_end = offset + length
        self._places = list(_ENTRY.iter_unpack(table))

    def __len__(self) -> int:
        return len(self._places)

    def page(self, index: int, page_id: int) -> Page:
        """A page, which must have this number."""
        with within(self.name):
            check(index < len(self), f"a page below {len(self)}", index)
        with within(self.name, self._places[index][0], packed="the sealed page"):
            return read_sealed(self._sealed(index), page_id)

    def _sealed(self, index: int) -> bytes:
        return read_block(self._content.read(*self._places[index]))

    def check(self) -> None:
        """Reads every byte."""
        at, digest = _HEAD.size, 0
        for index, (offset, length) in enumerate(self._places):
            with within(self.name, offset, packed="the sealed page"):
                check(offset == at, f"a block at {at}", f"one at {offset}")
                sealed = self._sealed(index)
                # Its page's number is at byte 8; that it is the right one, the record that refers to it says.
                read_sealed(sealed, int.from_bytes(sealed[8:16], "little"))
            digest, at = crc32c(sealed, digest), offset + length
        with within(self.name):
            check(digest == self._digest, f"digest {self._digest:08x}", f"{digest:08x}", 52)
            check(self._table_end == self._content.size, f"{self._table_end} bytes", self._content.size)
