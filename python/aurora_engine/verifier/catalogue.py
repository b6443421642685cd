"""Which tables there are: rows of ``aurora.tables``, a tree whose root is the first page of the first extent.

::

    aurora.tables   name text, id int64, root int64, state int8, schema bytes, version int64, definition bytes,
                    since int64
                    state 1: a table; 2: one that was dropped and whose pages are still being given back
    objects         1 aurora.tables, 2 aurora.tokens, 3 aurora.extents, 4 aurora.sequences; tables, indexes from 16 on

    definition      format u8 = 1 | sections: tag u8 | length u32 | content
    tag 1           an index: id u64 | root u64 | unique u8 | state u8 | ready after u64 | name | parts u16
                    | per part: column id u16 | descending u8
    other tags      checks, the auto-increment column, foreign keys, statistics: nothing that rows depend on
    name            length u16 | UTF-8

An index is a tree of its own. Its columns are those that it is by and then those of the table's key that it lacks; all
of them are its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aurora_engine.verifier.cursor import Cursor, text_of
from aurora_engine.verifier.damage import check, damaged, within
from aurora_engine.verifier.schema import Column, KeyPart, Schema
from aurora_engine.verifier.tree import long_value, walk
from aurora_engine.verifier.types import Cell, Overflow, signed
from aurora_engine.verifier.volume import Volume

TABLES: Final = 1
FIRST_USER_OBJECT: Final = 16
_LIVE: Final = 1
_INDEX: Final = 1
_KNOWN_TAGS: Final = frozenset((1, 2, 3, 4, 5, 32))
_COLUMNS: Final = 8


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table. ``columns`` are the places in the table of its columns."""

    name: str
    id: int
    root: int
    unique: bool
    ready: bool
    columns: tuple[int, ...]
    schema: Schema


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was at the moment."""

    name: str
    id: int
    root: int
    schema: Schema
    indexes: tuple[Index, ...]


def tables(volume: Volume) -> list[Table]:
    """The tables that there are, by name."""
    found = []
    for name, number, root, state, schema, _, definition, _ in _rows(volume):
        if signed(_number(state), 1) != _LIVE or _number(number) < FIRST_USER_OBJECT:
            continue
        text = text_of(_bytes(name), "a table's name")
        with within(f"table {text}"):
            decoded = Schema.decode(_value(volume, schema))
            indexes = _indexes(decoded, _value(volume, definition))
        found.append(Table(text, _number(number), _number(root), decoded, indexes))
    return sorted(found, key=lambda table: table.name)


def _rows(volume: Volume) -> Iterator[list[Cell]]:
    for leaf in walk(volume, volume.geometry.first_page(TABLES - 1), TABLES):
        with within("table aurora.tables"):
            check(len(leaf.columns) == _COLUMNS, f"{_COLUMNS} columns", len(leaf.columns))
        yield from (leaf.row(rank) for rank in range(len(leaf)))


def _number(cell: Cell) -> int:
    if not isinstance(cell, int):
        raise damaged("a number", cell, None, "table aurora.tables")
    return cell


def _bytes(cell: Cell) -> bytes:
    if not isinstance(cell, bytes):
        raise damaged("a text", cell, None, "table aurora.tables")
    return cell


def _value(volume: Volume, cell: Cell) -> bytes:
    return long_value(volume, cell, TABLES) if isinstance(cell, Overflow) else _bytes(cell)


def _indexes(schema: Schema, data: bytes) -> tuple[Index, ...]:
    cursor, found = Cursor(data, "a definition"), []
    form = cursor.u8()
    check(form == 1, "definition format 1", form, 0)
    while cursor:
        at, tag = cursor.at, cursor.u8()
        content = cursor.take(cursor.u32())
        check(tag in _KNOWN_TAGS, "a known tag", tag, at)
        if tag == _INDEX:
            found.append(_index(schema, Cursor(content, "an index")))
    return tuple(found)


def _index(schema: Schema, cursor: Cursor) -> Index:
    number, root, unique, ready, _ = cursor.u64(), cursor.u64(), cursor.flag(), cursor.flag(), cursor.u64()
    name = cursor.name(2)
    places = {column.id: place for place, column in enumerate(schema.columns)}
    parts = []
    for _ in range(cursor.u16()):
        of, descending = cursor.u16(), cursor.flag()
        check(of in places, "the id of a column", of)
        parts.append(KeyPart(places[of], descending))
    cursor.end()
    by = [part.column for part in parts]
    parts += [part for part in schema.key if part.column not in by]
    columns = tuple(part.column for part in parts)
    named = enumerate(schema.columns[column] for column in columns)
    own = tuple(Column(place, column.name, column.type, column.nullable) for place, column in named)
    key = tuple(KeyPart(place, part.descending) for place, part in enumerate(parts))
    return Index(name, number, root, unique, ready, columns, Schema(1, own, key))
