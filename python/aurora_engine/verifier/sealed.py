"""A page in sealed form: what image layers and bulk loads keep.

::

    frame   magic "ASP1" | format u16 | kind u8 | codec of the body u8: 0 as it is, 1 LZ4
            | page id u64 | object id u64 | origin u64 | LSN u64 | LSN before it u64 | schema version u32
            | bytes of the plain page u32 | bytes of the body before compression u32
            | CRC-32C of the bytes before it, followed by the stored body | stored body, to the end

    body of a leaf   rows u32, columns u16, capacity u16, layout bytes u32, zero u32 | entries | layout | arrays
    entry            type code u8, encoding u8, width u8, offset width u8, type parameter u16, column id u16,
                     data at u32, nulls at u32, overflow at u32, dictionary at u32, dictionary length u32, bytes at u32,
                     bytes u32, zero u32, smallest u64, largest u64, base i128               offsets are in the body
    encodings        0 packed: value = base + number of `width` bytes       1 dictionary: value = values[code]
                     2 varying: bytes[offset[i]..offset[i + 1]]             3 a dictionary of these
    body of others   that of the plain page, without the zeros at its end

In a sealed leaf rows lie in key order, and every column is packed on its own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from aurora_engine.verifier.blocks import unpack_lz4
from aurora_engine.verifier.crc import crc32c, expect_crc
from aurora_engine.verifier.cursor import Cursor
from aurora_engine.verifier.damage import check
from aurora_engine.verifier.leaf import Layout, Leaf
from aurora_engine.verifier.page import LEAF, Page, is_page_bytes, read_body
from aurora_engine.verifier.types import Cell, DataType, Overflow, check_cells

_FRAME: Final = struct.Struct("<4sHBBQQQQQIIII")
_CRC_AT: Final = 60
_HEAD: Final = struct.Struct("<IHHII")
_ENTRY: Final = struct.Struct("<BBBBHHIIIIIIIIQQ16s")
_BODY_PAGES_MAX: Final = 8
_PACKED, _DICTIONARY, _VARYING, _VARYING_DICTIONARY = range(4)
_WIDTHS: Final = {
    _PACKED: (0, 1, 2, 4, 8, 16),
    _DICTIONARY: (0, 1, 2),
    _VARYING: (2, 4),
    _VARYING_DICTIONARY: (0, 1, 2),
}


def read_sealed(data: bytes, page_id: int) -> Page:
    """The page in its sealed form, with everything checked that can be."""
    check(len(data) >= _FRAME.size, f"a sealed page of {_FRAME.size} bytes or more", len(data), 0)
    magic, form, kind, codec, number, owner, origin, lsn, prev_lsn, version, size, raw, crc = _FRAME.unpack_from(data)
    check(magic == b"ASP1", "magic ASP1", magic, 0)
    check(form == 1, "sealed format 1", form, 4)
    expect_crc(crc, data[_FRAME.size :], "a sealed page", _CRC_AT, before=crc32c(data[:_CRC_AT]))
    check(number == page_id, f"page {page_id}", f"page {number}", 8)
    check(is_page_bytes(size), "page bytes, a power of two from 1024 to 65536", size, 52)
    check(raw <= _BODY_PAGES_MAX * size, f"a body of at most {_BODY_PAGES_MAX * size} bytes", raw, 56)
    body = data[_FRAME.size :] if codec == 0 else unpack_lz4(data[_FRAME.size :], raw, codec, 7)
    check(len(body) == raw, f"a body of {raw} bytes", len(body), 56)
    page = Page(page_id, size, owner, origin, lsn, prev_lsn)
    if kind == LEAF:
        page.body = _read_leaf(body)
        check(page.body.layout.version == version, f"schema version {version}", page.body.layout.version, 48)
    else:
        check(len(body) <= size - 64, f"a body of at most {size - 64} bytes", len(body), 56)
        page.body = read_body(kind, bytes(64) + body + bytes(size - 64 - len(body)), version)
    return page


def _read_leaf(body: bytes) -> Leaf:
    check(len(body) >= _HEAD.size, f"a body of {_HEAD.size} bytes or more", len(body))
    rows, columns, capacity, layout_bytes, _ = _HEAD.unpack_from(body)
    layout_at = _HEAD.size + _ENTRY.size * columns
    check(layout_at + layout_bytes <= len(body), "a layout within the body", layout_at + layout_bytes)
    cursor = Cursor(body[layout_at : layout_at + layout_bytes], "a layout")
    layout = Layout.read(cursor)
    cursor.end()
    check(layout.capacity == capacity, f"capacity {layout.capacity}", capacity, 6)
    check(len(layout.columns) == columns, f"{len(layout.columns)} columns", columns, 4)
    check(rows <= capacity, f"at most {capacity} rows", rows, 0)
    leaf = Leaf.empty(layout)
    for index, column in enumerate(layout.columns):
        packed = _Packed.read(body, _HEAD.size + _ENTRY.size * index, rows)
        check((packed.id, packed.type) == (column.id, column.type), f"column {column.id} {column.type}", packed.type)
        leaf.columns[index] = packed.cells()
        check_cells(leaf.columns[index], column.type, nullable=column.nullable)
    return leaf


@dataclass(frozen=True, slots=True)
class _Packed:
    """One column of a sealed leaf."""

    body: bytes
    rows: int
    type: DataType
    encoding: int
    width: int
    offset_width: int
    id: int
    data_at: int
    nulls_at: int
    overflow_at: int
    dictionary_at: int
    dictionary_length: int
    bytes_at: int
    bytes_length: int
    base: int

    @classmethod
    def read(cls, body: bytes, at: int, rows: int) -> _Packed:
        """Reads a column's entry."""
        code, encoding, width, offset_width, param, number, *rest = _ENTRY.unpack_from(body, at)
        kind = DataType.of(code, param, at)
        check(encoding in _WIDTHS, "an encoding from 0 to 3", encoding, at + 1)
        check((kind.width is None) == (encoding >= _VARYING), "an encoding for the type", encoding, at + 1)
        check(width in _WIDTHS[encoding], f"a width of {_WIDTHS[encoding]}", width, at + 2)
        data, nulls, overflow, values, length, bytes_at, bytes_length, _, _, _, base = rest
        check(bytes_at + bytes_length <= len(body), "bytes within the body", bytes_at + bytes_length, at + 28)
        return cls(
            body, rows, kind, encoding, width, offset_width, number, data, nulls, overflow, values, length, bytes_at,
            bytes_length, int.from_bytes(base, "little", signed=True),
        )  # fmt: skip

    def cells(self) -> list[Cell]:
        """The values by rank. What is stored for a null is any value, also one that there cannot be."""
        if self._is_dictionary and self.dictionary_length == 0:
            check(bool(self._bits(self.nulls_at).all()), "nulls only, without a dictionary", "values")
            return [None] * self.rows
        values = self._fixed() if self.type.width is not None else self._varying()
        for rank in np.flatnonzero(self._bits(self.nulls_at)):
            values[rank] = None
        return values

    @property
    def _is_dictionary(self) -> bool:
        return self.encoding in (_DICTIONARY, _VARYING_DICTIONARY)

    def _fixed(self) -> list[Cell]:
        native = self.type.width or 0
        if self.encoding == _DICTIONARY:
            codes = self._array(self.data_at, self.rows, self.width)
            if native == 16:
                wide = self._wide(self.dictionary_at, self.dictionary_length)
                return [wide[code] for code in self._codes(codes)]
            known: list[Cell] = self._array(self.dictionary_at, self.dictionary_length, native)[
                self._codes(codes)
            ].tolist()
            return known
        mask = (1 << 8 * native) - 1
        if self.width == 16:
            return [self.base + number & mask for number in self._wide(self.data_at, self.rows)]
        offsets = self._array(self.data_at, self.rows, self.width)
        if native == 16:
            return [self.base + number & mask for number in offsets.tolist()]
        # Unsigned numbers of 64 bits go round, as they do where they were packed.
        values: list[Cell] = ((offsets + np.uint64(self.base & (1 << 64) - 1)) & np.uint64(mask)).tolist()
        return values

    def _varying(self) -> list[Cell]:
        if self.encoding == _VARYING:
            ends = self._array(self.data_at, self.rows + 1, self.width)
            pieces = self._pieces(ends)
        else:
            check(self.offset_width in (2, 4), "an offset width of 2 or 4", self.offset_width)
            known = self._pieces(self._array(self.dictionary_at, self.dictionary_length + 1, self.offset_width))
            pieces = [known[code] for code in self._codes(self._array(self.data_at, self.rows, self.width))]
        values: list[Cell] = list(pieces)
        for rank in np.flatnonzero(self._bits(self.overflow_at)):
            values[rank] = Overflow.of(pieces[rank])
        return values

    def _pieces(self, ends: npt.NDArray[np.uint64]) -> list[bytes]:
        places = ends.tolist()
        check(
            places == sorted(places) and places[-1] <= self.bytes_length, "offsets that ascend", "others", self.data_at
        )
        run = self.body[self.bytes_at : self.bytes_at + self.bytes_length]
        return [run[start:end] for start, end in pairwise(places)]

    def _codes(self, codes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        codes = np.where(self._bits(self.nulls_at), np.uint64(0), codes)
        highest = int(codes.max(initial=0))
        check(highest < self.dictionary_length, f"codes below {self.dictionary_length}", highest)
        return codes

    def _array(self, at: int, count: int, width: int) -> npt.NDArray[np.uint64]:
        """Unsigned numbers of 0 to 8 bytes; of width 0 all are 0."""
        if width == 0:
            return np.zeros(count, np.uint64)
        check(at + count * width <= len(self.body), "an array within the body", at + count * width)
        return np.frombuffer(self.body, f"<u{width}", count, at).astype(np.uint64)

    def _wide(self, at: int, count: int) -> list[int]:
        """Unsigned numbers of 16 bytes."""
        check(at + count * 16 <= len(self.body), "an array within the body", at + count * 16)
        return [int.from_bytes(self.body[place : place + 16], "little") for place in range(at, at + 16 * count, 16)]

    def _bits(self, at: int) -> npt.NDArray[np.uint8]:
        """A bit per row; none are set where there is no bitmap."""
        if at == 0:
            return np.zeros(self.rows, np.uint8)
        length = (self.rows + 7) // 8
        check(at + length <= len(self.body), "a bitmap within the body", at + length)
        packed = np.frombuffer(self.body, np.uint8, length, at)
        return np.unpackbits(packed, count=self.rows, bitorder="little")
