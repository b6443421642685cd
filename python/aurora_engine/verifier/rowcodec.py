"""Rows and changes of rows as log records carry them.

::

    row      null bitmap, one bit per column | per column that is not null, in their order:
               fixed width         the value, little-endian
               text, bytes, json   varint 2 * length, the bytes
               in overflow pages   varint 2 * 16 + 1, first page u64, length u64
    changes  per changed column, ascending:
               varint column index | type code (+ 0x40 in overflow pages, + 0x80 null) | the value:
               fixed width         as above
               text, bytes, json   varint length, the bytes
               in overflow pages   first page u64, length u64

A row is read with the types of the leaf's columns at hand. Changes carry type codes, so they are read alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from aurora_engine.verifier.cursor import Cursor
from aurora_engine.verifier.damage import check
from aurora_engine.verifier.types import Cell, DataType, Overflow

_CODE = 0x3F
_OVERFLOW = 0x40
_NULL = 0x80
_REFERENCE_BYTES = 16


def read_row(data: bytes, kinds: Sequence[DataType]) -> list[Cell]:
    """The cells of a row."""
    cursor = Cursor(data, "a row")
    nulls = int.from_bytes(cursor.take((len(kinds) + 7) // 8), "little")
    cells = [None if nulls >> column & 1 else _row_cell(cursor, kind) for column, kind in enumerate(kinds)]
    cursor.end()
    return cells


def _row_cell(cursor: Cursor, kind: DataType) -> Cell:
    if kind.width is not None:
        return cursor.number(kind.width)
    tagged = cursor.varint()
    if not tagged & 1:
        return cursor.take(tagged >> 1)
    check(tagged >> 1 == _REFERENCE_BYTES, "a reference of 16 bytes", tagged >> 1, cursor.at)
    return Overflow.of(cursor.take(_REFERENCE_BYTES))


class Change(NamedTuple):
    """One changed column of a row."""

    column: int
    code: int
    cell: Cell


def read_changes(data: bytes) -> Iterator[Change]:
    """The changes of a row."""
    cursor, last = Cursor(data, "changes"), -1
    while cursor:
        at, column = cursor.at, cursor.varint(16)
        check(column > last, f"a column above {last}", column, at)
        last, tag = column, cursor.u8()
        kind = DataType(tag & _CODE, 1 if tag & _CODE == 8 else 0)  # a decimal has a precision; it does not matter here
        check(kind.exists(), "a type code", tag, cursor.at - 1)
        check(not tag & _OVERFLOW or (kind.width is None and not tag & _NULL), "flags that agree", tag, cursor.at - 1)
        yield Change(column, kind.code, _change_cell(cursor, kind, tag))


def _change_cell(cursor: Cursor, kind: DataType, tag: int) -> Cell:
    if tag & _NULL:
        return None
    if tag & _OVERFLOW:
        return Overflow.of(cursor.take(_REFERENCE_BYTES))
    return cursor.sized() if kind.width is None else cursor.number(kind.width)
