"""A database as plain Python: what `test_machine.py` compares the engine with.

Columns have numbers of their own, so that a column that gets another name is the same one. Rows are dictionaries by
these numbers and never changed; a state is all rows of all tables, by table and key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aurora_engine import exceptions as ex

Row = dict[int, Any]
Key = tuple[Any, ...]
Rows = dict[Key, Row]
State = dict[str, Rows]
Place = tuple[str, Key]
Changes = dict[Place, Row | None]


@dataclass
class Column:
    """A column: its name and type as they are now."""

    name: str
    kind: Any
    nullable: bool = False


@dataclass
class Table:
    """A table's definition. `name` is its name now; the model knows it by another that stays."""

    name: str
    columns: dict[int, Column]
    key: tuple[tuple[int, bool], ...]
    unique: dict[str, tuple[int, ...]] = field(default_factory=dict)
    indexes: dict[str, tuple[tuple[int, bool], ...]] = field(default_factory=dict)
    positive: int | None = None
    """The column that a check keeps from being negative."""
    parent: tuple[int, str, str] | None = None
    """Column, parent table, and what happens on delete."""

    def key_of(self, row: Row) -> Key:
        """The key of a row."""
        return tuple(row[column] for column, _ in self.key)

    def shown(self, row: Row) -> dict[str, Any]:
        """A row as the engine shows it."""
        return {column.name: row[number] for number, column in self.columns.items()}

    def order(self, rows: Iterable[Row], by: tuple[tuple[int, bool], ...] = ()) -> list[dict[str, Any]]:
        """Rows in the order of an index or of the key, as the engine shows them."""
        ordered = list(rows)
        for number, descending in reversed((*by, *self.key)):
            ordered.sort(key=lambda row: _place(row[number]), reverse=descending)
        return [self.shown(row) for row in ordered]

    def fixed(self) -> set[int]:
        """Columns that cannot be dropped: something else is made of them."""
        used = {number for number, _ in self.key} | {self.positive} | ({self.parent[0]} if self.parent else set())
        return {n for n in used if n is not None} | {n for by in self.indexes.values() for n, _ in by}


def _place(value: Any) -> tuple[Any, ...]:
    return (False,) if value is None else (True, value)


def copy(state: State) -> State:
    """The same rows, to go on from."""
    return {table: dict(rows) for table, rows in state.items()}


def overlaid(state: State, changes: Changes) -> State:
    """A state with changes made to it."""
    result = copy(state)
    for (table, key), row in changes.items():
        if row is None:
            result[table].pop(key, None)
        else:
            result[table][key] = row
    return result


def broken(tables: dict[str, Table], state: State) -> set[type[Exception]]:
    """What a state breaks."""
    found: set[type[Exception]] = set()
    for name, table in tables.items():
        rows = state[name].values()
        for columns in table.unique.values():
            values = [value for row in rows if None not in (value := tuple(row[column] for column in columns))]
            if len(values) > len(set(values)):
                found.add(ex.DuplicateKey)
        if any((row[table.positive] or 0) < 0 for row in rows if table.positive is not None):
            found.add(ex.CheckViolation)
        if table.parent is not None:
            column, parent, _ = table.parent
            if any(row[column] is not None and (row[column],) not in state[parent] for row in rows):
                found.add(ex.ForeignKeyViolation)
    return found


def put(table: str, definition: Table, state: State, rows: list[Row], *, replace: bool) -> tuple[Changes, set[Any]]:
    """Rows inserted or upserted by one call: what changes, and the errors it meets by keys alone."""
    changes: Changes = {}
    errors: set[Any] = set()
    for row in rows:
        key = definition.key_of(row)
        if not replace and (key in state[table] or (table, key) in changes):
            errors.add(ex.DuplicateKey)
        changes[table, key] = row
    return changes, errors


def on_the_way(table: Table, before: Rows, rows: list[Row]) -> set[Any]:
    """What rows of one call may break before it has come to its end, where the last of them is right."""
    if len(rows) == 1:
        return set()
    found: set[Any] = set()
    if table.positive is not None and any((row[table.positive] or 0) < 0 for row in rows):
        found.add(ex.CheckViolation)
    for columns in table.unique.values():
        values = [tuple(row[column] for column in columns) for row in (*before.values(), *rows)]
        if len(values) > len(set(values)):
            found.add(ex.DuplicateKey)
    return found


def remove(tables: dict[str, Table], state: State, table: str, key: Key) -> tuple[Changes, set[Any]]:
    """A row deleted, with what that does to the rows that refer to it."""
    if key not in state[table]:
        return {}, set()
    changes: Changes = {(table, key): None}
    errors: set[Any] = set()
    for name, child in tables.items():
        if child.parent is None or child.parent[1] != table:
            continue
        column, _, on_delete = child.parent
        for child_key, row in state[name].items():
            if (row[column],) != key:
                continue
            if on_delete == "restrict":
                errors.add(ex.ForeignKeyViolation)
            elif on_delete == "cascade":
                more, wrong = remove(tables, state, name, child_key)
                changes |= more
                errors |= wrong
            else:
                changes[name, child_key] = {**row, column: None}
    return changes, errors


def touched(tables: dict[str, Table], before: State, changes: Changes) -> set[Any]:
    """What changes meet beside the rows themselves: values of unique indexes, and rows of parents."""
    found: set[Any] = set()
    for (name, key), after in changes.items():
        table = tables[name]
        found.add(("row", name, key))
        for row in (before[name].get(key), after):
            if row is None:
                continue
            for index, columns in table.unique.items():
                found.add(("unique", name, index, tuple(row[column] for column in columns)))
            if table.parent is not None and row[table.parent[0]] is not None:
                found.add(("row", table.parent[1], (row[table.parent[0]],)))
    return found
