"""The digest of a table's rows: the same whatever pages they lie in, and in whatever order they come.

It is the sum, modulo 2^128, over all rows of the first 16 bytes (a little-endian number) of SHA-256 of the row, written
as 32 hex digits. A row is its columns in the order of the table's schema at that moment:

::

    null                             00
    bool                             01 | u8
    int8 … int64                     01 | i64
    float32, float64                 01 | f32 or f64, as it is stored
    decimal                          01 | i128, unscaled
    date                             01 | i32, days since 1970
    time, timestamp, timestamp zone  01 | i64, microseconds
    text, bytes                      01 | length u32 | bytes
    json                             01 | length u32 | the value as ASCII, keys sorted, without spaces
    uuid                             01 | 16 bytes
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from aurora_engine.verifier.types import Cell, DataType, Overflow, signed, unsigned


class Digest:
    """The digest of rows that are added column by column, a leaf at a time."""

    def __init__(self, kinds: Sequence[DataType]) -> None:
        self._kinds, self._sum, self.rows = list(kinds), 0, 0

    def add(self, columns: Sequence[Sequence[Cell]]) -> None:
        """Adds rows: the cells of each column, by row, long values in full."""
        encoded = [_column(cells, kind) for cells, kind in zip(columns, self._kinds, strict=True)]
        for row in zip(*encoded, strict=True):
            self._sum += int.from_bytes(hashlib.sha256(b"".join(row)).digest()[:16], "little")
            self.rows += 1

    @property
    def hex(self) -> str:
        """The digest of what was added."""
        return f"{self._sum & (1 << 128) - 1:032x}"


def _column(cells: Sequence[Cell], kind: DataType) -> list[bytes]:
    width = kind.width
    if width is None:
        plain = _json if kind.name == "json" else _varying
        return [b"\0" if cell is None else plain(cell) for cell in cells]
    if not kind.name.startswith("int"):
        return [b"\0" if cell is None else b"\1" + _fixed(cell, width) for cell in cells]
    # An integer of any width as one of 64 bits.
    return [b"\0" if cell is None else b"\1" + _fixed(_long(cell, width), 8) for cell in cells]


def _long(cell: Cell, width: int) -> int:
    return unsigned(signed(_int(cell), width), 8)


def _fixed(cell: Cell, width: int) -> bytes:
    return _int(cell).to_bytes(width, "little")


def _int(cell: Cell) -> int:
    if not isinstance(cell, int):
        raise TypeError(f"expected a number, got {cell!r}")
    return cell


def _json(cell: Cell) -> bytes:
    """The value, however it was written; what is not JSON as it is."""
    content = _varying(cell)[5:]
    try:
        value = json.loads(content)
    except ValueError:
        return _varying(cell)
    return _varying(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def _varying(cell: Cell) -> bytes:
    if isinstance(cell, int | Overflow) or cell is None:
        raise TypeError(f"expected bytes, got {cell!r}")
    return b"\1" + len(cell).to_bytes(4, "little") + cell
