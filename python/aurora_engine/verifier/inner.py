"""An inner page of a B+tree: separators and children. A separator is the smallest key of the child to its right.

::

    page     header 64 | inner header 24 | entries | free | heap: the separators' bytes
    header   level u8, zero u8, separators u16, heap low u32, heap live u32, zero u32, leftmost child u64
    entry    child to the right of the separator u64, offset u16, length u16

Level 1 is above the leaves.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from aurora_engine.verifier.damage import check

_HEADER_AT: Final = 64
_ENTRIES_AT: Final = _HEADER_AT + 24
_ENTRY_BYTES: Final = 12


@dataclass(slots=True)
class Inner:
    """Separators in order, and one child more than there are separators."""

    level: int
    children: list[int]
    keys: list[bytes]

    def insert(self, position: int, key: bytes, child: int) -> None:
        """A separator comes in, with the child to its right."""
        check(position <= len(self.keys), f"a position up to {len(self.keys)}", position)
        self.keys.insert(position, key)
        self.children.insert(position + 1, child)

    def append(self, entries: list[tuple[bytes, int]]) -> None:
        """Separators follow the last one."""
        for key, child in entries:
            self.insert(len(self.keys), key, child)

    def remove(self, position: int) -> None:
        """A separator goes, and the child to its right."""
        check(position < len(self.keys), f"a position below {len(self.keys)}", position)
        del self.keys[position], self.children[position + 1]

    def truncate(self, position: int) -> None:
        """Separators from a position on go, each with the child to its right."""
        check(position <= len(self.keys), f"a position up to {len(self.keys)}", position)
        del self.keys[position:], self.children[position + 1 :]

    def set_child(self, position: int, child: int) -> None:
        """One child is replaced by another."""
        check(position < len(self.children), f"a position below {len(self.children)}", position)
        self.children[position] = child


def read_plain(page: bytes) -> Inner:
    """The inner page in the bytes of a plain one."""
    level, count = struct.unpack_from("<BxH", page, _HEADER_AT)
    check(level > 0, "a level of 1 or more", level, _HEADER_AT)
    end = _ENTRIES_AT + _ENTRY_BYTES * count
    check(end <= len(page), f"entries up to {len(page)}", end, _HEADER_AT + 2)
    inner = Inner(level, [struct.unpack_from("<Q", page, _HEADER_AT + 16)[0]], [])
    for at in range(_ENTRIES_AT, end, _ENTRY_BYTES):
        child, offset, length = struct.unpack_from("<QHH", page, at)
        check(offset + length <= len(page), "a separator within the page", f"{length} bytes at {offset}", at + 8)
        inner.children.append(child)
        inner.keys.append(page[offset : offset + length])
    return inner
