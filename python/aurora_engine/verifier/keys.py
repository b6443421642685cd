"""Keys as bytes whose order is the order of the rows.

====================================  ==========================================================================
any, if the column is nullable        first 0 for null (and nothing more) or 1
bool                                  0 or 1
integers, date, times, decimal        big-endian, with the sign bit flipped
floats                                big-endian; a negative one with all bits inverted, any other with the sign bit
                                      flipped; -0 is 0, and every NaN is one value
text, bytes, json                     the bytes, 00 written as 00 FF, then 00 00
uuid                                  its 16 bytes
descending                            all bytes of the part inverted
====================================  ==========================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from aurora_engine.verifier.damage import damaged
from aurora_engine.verifier.leaf import Leaf
from aurora_engine.verifier.types import Cell, DataType, float_of

_INVERTED: Final = bytes(255 - byte for byte in range(256))
_NAN: Final = {4: 0x7FC00000, 8: 0x7FF8000000000000}


def keys_of(leaf: Leaf) -> list[bytes]:
    """The keys of a leaf's rows, by rank."""
    parts: list[Iterable[bytes]] = []
    for part in leaf.layout.key:
        column = leaf.layout.columns[part.column]
        encode = encoder(column.type, nullable=column.nullable, descending=part.descending)
        parts.append(map(encode, leaf.columns[part.column]))
    return [b"".join(pieces) for pieces in zip(*parts, strict=True)]


def encoder(kind: DataType, *, nullable: bool, descending: bool) -> Callable[[Cell], bytes]:
    """What makes a part of a key from a value."""

    def encode(cell: Cell) -> bytes:
        part = b"\0" if cell is None else (b"\1" if nullable else b"") + _plain(cell, kind)
        return part.translate(_INVERTED) if descending else part

    return encode


def _plain(cell: Cell, kind: DataType) -> bytes:
    width = kind.width
    if isinstance(cell, bytes):
        return cell.replace(b"\0", b"\0\xff") + b"\0\0"
    if not isinstance(cell, int) or width is None:
        raise damaged("a key value within the row", cell)
    if kind.name == "uuid":
        return cell.to_bytes(16, "little")
    if kind.name.startswith("float"):
        cell = _ordered(cell, width)
    elif kind.name != "bool":
        cell ^= 1 << (8 * width - 1)
    return cell.to_bytes(width, "big")


def _ordered(cell: int, width: int) -> int:
    value, sign = float_of(cell, width), 1 << (8 * width - 1)
    if math.isnan(value):
        cell = _NAN[width]
    elif value == 0.0:
        cell = 0
    return cell ^ (2 * sign - 1) if cell & sign else cell | sign
