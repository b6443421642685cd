"""Postcard, the form in which a cluster's manifest is stored: no names, no types, one value after another.

::

    u8             one byte                     u16 … u128   varint          i64     zigzag varint
    text, bytes    varint length | bytes        list, map    varint count | its values, or keys and values
    enumeration    varint number | its value    structure    its fields
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aurora_engine.verifier.cursor import Cursor, text_of

T = TypeVar("T")


class Postcard(Cursor):
    """Reads postcard from front to back."""

    __slots__ = ()

    def text(self) -> str:
        """A text."""
        at = self.at
        return text_of(self.sized(), self.what, at)

    def many(self, item: Callable[[], T]) -> list[T]:
        """A list of them."""
        return [item() for _ in range(self.varint())]
