"""A table's columns and key, and how rows of an earlier version are read.

::

    format u8 | version u32 | columns u16 | key parts u16
    per column    id u16 | type code u8 | type parameter u16 | nullable u8 | name length u8 | name
    per key part  column u16 | descending u8
    in format 2   next id u32 | initials u16
    per initial   column id u16 | bytes u32 | a row of this one value

Rows are not rewritten when columns change. A column keeps its id for life and a leaf says which ids and types its rows
have, so a leaf of any earlier version can be read: a column that it has is taken, or widened; one that it has not has
its *initial* value in every row; one that the table has no more is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aurora_engine.verifier.cursor import Cursor
from aurora_engine.verifier.damage import check, damaged
from aurora_engine.verifier.rowcodec import read_row
from aurora_engine.verifier.types import Cell, DataType, widens


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    id: int
    name: str
    type: DataType
    nullable: bool

    def __str__(self) -> str:
        return f"{self.name} {self.type}{' or null' if self.nullable else ''}"


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One column of the key, by its index."""

    column: int
    descending: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """Columns and key of a table, as of one version."""

    version: int
    columns: tuple[Column, ...]
    key: tuple[KeyPart, ...]
    initials: dict[int, Cell] = field(default_factory=dict)

    @classmethod
    def decode(cls, data: bytes) -> Schema:
        """Reads one."""
        cursor = Cursor(data, "a schema")
        form = cursor.u8()
        check(form in (1, 2), "schema format 1 or 2", form, 0)
        version, columns, parts = cursor.u32(), cursor.u16(), cursor.u16()
        schema = cls(
            version, tuple(_column(cursor) for _ in range(columns)), tuple(_part(cursor, columns) for _ in range(parts))
        )
        if form == 2:
            cursor.u32()  # the next id, for a column that is yet to come
            kinds = {column.id: column.type for column in schema.columns}
            for _ in range(cursor.u16()):
                at, of = cursor.at, cursor.u16()
                check(of in kinds, "the id of a column", of, at)
                (schema.initials[of],) = read_row(cursor.take(cursor.u32()), [kinds[of]])
        cursor.end()
        names, ids = {column.name for column in schema.columns}, {column.id for column in schema.columns}
        check(len(names) == len(ids) == columns > 0, "columns of different names and ids", f"{columns} columns", 7)
        check(parts > 0, "a key", "none", 7)
        return schema

    def column(self, name: str) -> int:
        """The index of the column of a name."""
        for index, column in enumerate(self.columns):
            if column.name == name:
                return index
        raise KeyError(name)


def _column(cursor: Cursor) -> Column:
    number = cursor.u16()
    at = cursor.at
    kind = DataType.of(cursor.u8(), cursor.u16(), at)
    nullable = cursor.flag()
    return Column(number, cursor.name(1), kind, nullable)


def _part(cursor: Cursor, columns: int) -> KeyPart:
    at = cursor.at
    column, descending = cursor.u16(), cursor.flag()
    check(column < columns, f"a column below {columns}", column, at)
    return KeyPart(column, descending)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the values of one column come from: a column of the leaf, or one value for every row."""

    column: int | None
    have: DataType
    want: DataType
    initial: Cell = None


def sources(schema: Schema, stored: list[tuple[int, DataType, bool]]) -> list[Source]:
    """How a leaf with these columns (id, type, nullable) is read as rows of a schema."""
    places = {number: place for place, (number, _, _) in enumerate(stored)}
    found = []
    for column in schema.columns:
        place = places.get(column.id)
        if place is None:
            initial = schema.initials.get(column.id)
            check(initial is not None or column.nullable, f"column {column}, or a value for it", "neither")
            found.append(Source(None, column.type, column.type, initial))
            continue
        _, have, nullable = stored[place]
        if have != column.type and not widens(have, column.type):
            raise damaged(f"column {column}, or what widens to it", have)
        check(column.nullable or not nullable, f"column {column}", "one that may be null")
        found.append(Source(place, have, column.type))
    return found
