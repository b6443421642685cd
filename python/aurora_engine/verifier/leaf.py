"""A leaf of a B+tree: rows in key order. As it is put together here, as it lies in a plain page, and what changes it.

A plain leaf stores its rows column by column (PAX). A row has a *slot* for life, and in each column its value lies at
that slot; the slot directory says which slot has which *rank*, the place in key order. Log records name ranks only, so
that neither slots nor the order of the heap matter to what a leaf means: here both are gone, and a leaf is a list of
cells for each column, by rank.

::

    page      header 64 | leaf header 24 | columns | key parts | zone maps | live bitmap | slots | values | heap
    header    columns u16, capacity u16, rows u16, key parts u16, heap low u32, heap live u32, heap start u32, zero u32
    column    id u16, type code u8, flags u8 (1 nullable), type parameter u16, zero u16, nulls at u16, values at u16
    key part  column u16, + 0x8000 if it descends
    zone map  smallest u64, largest u64                                    from here on regions begin at multiples of 8
    live      a bit per slot
    slots     a slot u16 per rank
    values    of fixed width in place; of varying length: offset u16, length u16, + 0x8000 for a reference in the heap

    layout    schema version u32, capacity u16, columns u16, key parts u16, the first 6 bytes of each column, key parts

The *layout* is what a record that formats a leaf carries: with it a leaf describes itself, and no catalogue is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aurora_engine.verifier.cursor import Cursor
from aurora_engine.verifier.damage import check
from aurora_engine.verifier.rowcodec import read_changes, read_row
from aurora_engine.verifier.types import Cell, DataType, Overflow, check_cells, widen, widens

HEADER_AT: Final = 64
_COLUMNS_AT: Final = HEADER_AT + 24
_DESCENDS: Final = 0x8000
_IN_OVERFLOW: Final = 0x8000


@dataclass(frozen=True, slots=True)
class LeafColumn:
    """A column as a leaf has it."""

    id: int
    type: DataType
    nullable: bool

    @classmethod
    def of(cls, data: bytes, offset: int) -> LeafColumn:
        """Reads the first bytes of a column's descriptor."""
        number, code, flags, param = struct.unpack_from("<HBBH", data, offset)
        return cls(number, DataType.of(code, param, offset + 2), bool(flags & 1))


@dataclass(frozen=True, slots=True)
class LeafKey:
    """A part of a leaf's key."""

    column: int
    descending: bool

    @classmethod
    def of(cls, raw: int, columns: int) -> LeafKey:
        """Reads a part."""
        check(raw & ~_DESCENDS < columns, f"a key column below {columns}", raw & ~_DESCENDS)
        return cls(raw & ~_DESCENDS, bool(raw & _DESCENDS))


@dataclass(frozen=True, slots=True)
class Layout:
    """What a leaf says of itself: schema version, capacity, columns, key."""

    version: int
    capacity: int
    columns: tuple[LeafColumn, ...]
    key: tuple[LeafKey, ...]

    @classmethod
    def read(cls, cursor: Cursor) -> Layout:
        """Reads one."""
        version, capacity, columns, parts = cursor.u32(), cursor.u16(), cursor.u16(), cursor.u16()
        check(capacity > 0 and columns > 0, "a leaf with columns and slots", f"{columns} columns, {capacity} slots")
        return cls(
            version,
            capacity,
            tuple(LeafColumn.of(cursor.take(6), 0) for _ in range(columns)),
            tuple(LeafKey.of(cursor.u16(), columns) for _ in range(parts)),
        )

    @property
    def types(self) -> list[DataType]:
        """The types of the columns."""
        return [column.type for column in self.columns]


@dataclass(slots=True)
class Leaf:
    """Rows in key order, a list of cells for each column."""

    layout: Layout
    columns: list[list[Cell]] = field(default_factory=list)

    @classmethod
    def empty(cls, layout: Layout) -> Leaf:
        """A leaf that was just formatted."""
        return cls(layout, [[] for _ in layout.columns])

    def __len__(self) -> int:
        return len(self.columns[0])

    def row(self, rank: int) -> list[Cell]:
        """The cells of a row."""
        return [column[rank] for column in self.columns]

    # ------------------------------------------------------------------------------------- what records do to it

    def insert(self, rank: int, data: bytes) -> None:
        """A row comes in at a rank."""
        check(rank <= len(self), f"a rank up to {len(self)}", rank)
        check(len(self) < self.layout.capacity, f"fewer than {self.layout.capacity} rows", len(self))
        cells = read_row(data, self.layout.types)
        for column, cell, values in zip(self.layout.columns, cells, self.columns, strict=True):
            check_cells((cell,), column.type, nullable=column.nullable)
            values.insert(rank, cell)

    def append(self, rows: Sequence[bytes]) -> None:
        """Rows follow the last one."""
        for row in rows:
            self.insert(len(self), row)

    def update(self, rank: int, data: bytes) -> None:
        """Columns of a row change; those of the key may be named, and stay what they are."""
        self._check_rank(rank)
        key = {part.column for part in self.layout.key}
        for change in read_changes(data):
            check(change.column < len(self.columns), f"a column below {len(self.columns)}", change.column)
            column, values = self.layout.columns[change.column], self.columns[change.column]
            check(change.code == column.type.code, f"a value of type {column.type}", f"type code {change.code}")
            check_cells((change.cell,), column.type, nullable=column.nullable)
            check(change.column not in key or values[rank] == change.cell, "a key that stays", f"{change.cell!r}")
            values[rank] = change.cell

    def delete(self, rank: int) -> None:
        """A row goes."""
        self._check_rank(rank)
        for values in self.columns:
            del values[rank]

    def truncate(self, rank: int) -> None:
        """Rows from a rank on go."""
        check(rank <= len(self), f"a rank up to {len(self)}", rank)
        for values in self.columns:
            del values[rank:]

    def upgrade(self, data: bytes) -> None:
        """The rows become rows of a later schema.

        The record has its layout, and a row with a value for each column that the leaf may not have. Columns stay by
        their id; what the layout has not goes, and what it has wider is widened.
        """
        cursor = Cursor(data, "a leaf's upgrade")
        layout = Layout.read(cursor)
        initials = read_row(cursor.rest(), layout.types)
        check(_key_of(layout) == _key_of(self.layout), "the key as it was", "another one")
        check(len(self) <= layout.capacity, f"at most {layout.capacity} rows", len(self))
        have = {column.id: place for place, column in enumerate(self.layout.columns)}
        fresh: list[list[Cell]] = []
        for column, initial in zip(layout.columns, initials, strict=True):
            place = have.get(column.id)
            if place is None:
                check_cells((initial,), column.type, nullable=column.nullable or not len(self))
                fresh.append([initial] * len(self))
                continue
            was = self.layout.columns[place].type
            check(was == column.type or widens(was, column.type), f"what {was} widens to", column.type)
            fresh.append([widen(cell, was, column.type) for cell in self.columns[place]])
        self.layout, self.columns = layout, fresh

    def _check_rank(self, rank: int) -> None:
        check(rank < len(self), f"a rank below {len(self)}", rank)


def _key_of(layout: Layout) -> list[tuple[int, DataType, bool, bool]]:
    parts = ((layout.columns[part.column], part.descending) for part in layout.key)
    return [(column.id, column.type, column.nullable, descending) for column, descending in parts]


# --------------------------------------------------------------------------------------------- the plain form


def read_plain(page: bytes, version: int) -> Leaf:
    """The leaf in a plain page, whose header names the schema version."""
    columns, capacity, rows, parts, _, _, heap_start, _ = struct.unpack_from("<HHHHIIII", page, HEADER_AT)
    check(rows <= capacity, f"at most {capacity} rows", rows, HEADER_AT + 4)
    parts_at = _COLUMNS_AT + 12 * columns
    live_at = _align8(parts_at + 2 * parts) + 16 * columns
    slots_at = live_at + _align8((capacity + 7) // 8)
    values_at = slots_at + _align8(2 * capacity)
    check(columns > 0 and values_at <= heap_start <= len(page), "regions within the page", values_at, HEADER_AT)
    layout = Layout(
        version,
        capacity,
        tuple(LeafColumn.of(page, _COLUMNS_AT + 12 * column) for column in range(columns)),
        tuple(LeafKey.of(raw, columns) for raw in struct.unpack_from(f"<{parts}H", page, parts_at)),
    )
    slots = struct.unpack_from(f"<{rows}H", page, slots_at)
    live = [slot for slot in range(capacity) if _bit(page, live_at, slot)]
    check(sorted(slots) == live, "a rank for each live slot, and no other", f"slots {slots}", slots_at)
    leaf = Leaf.empty(layout)
    for index, (column, values) in enumerate(zip(layout.columns, leaf.columns, strict=True)):
        nulls_at, values_at = struct.unpack_from("<HH", page, _COLUMNS_AT + 12 * index + 8)
        values.extend(_plain_cell(page, column, nulls_at, values_at, slot) for slot in slots)
    return leaf


def _plain_cell(page: bytes, column: LeafColumn, nulls_at: int, values_at: int, slot: int) -> Cell:
    if column.nullable and _bit(page, nulls_at, slot):
        return None
    width = column.type.width
    if width is not None:
        return int.from_bytes(page[values_at + width * slot : values_at + width * (slot + 1)], "little")
    offset, length = struct.unpack_from("<HH", page, values_at + 4 * slot)
    in_overflow, length = bool(length & _IN_OVERFLOW), length & ~_IN_OVERFLOW
    check(offset + length <= len(page), "a value within the page", f"{length} bytes at {offset}", values_at + 4 * slot)
    value = page[offset : offset + length]
    return Overflow.of(value) if in_overflow else value


def _bit(data: bytes, at: int, index: int) -> bool:
    return bool(data[at + index // 8] >> index % 8 & 1)


def _align8(count: int) -> int:
    return (count + 7) // 8 * 8
