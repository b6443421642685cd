"""Changing tables that are in use: columns come, go, get other names and wider types.

Each change takes the same time whatever the table's size, because no row is touched: rows are read through what has
changed since they were written, and rewritten with the next change of their page.
"""

from __future__ import annotations

from typing import Any

from aurora_engine import _engine
from aurora_engine.exceptions import SchemaError
from aurora_engine.rows import row_class
from aurora_engine.statistics import TableStatistics, statistics_of
from aurora_engine.types import stored_type


def table_name(table: _engine.Table[Any] | str) -> str:
    """The name of a table that is given by its handle or its name."""
    return table if isinstance(table, str) else table.name


class Definitions(_engine.Cluster):
    """The part of a cluster that changes the definitions of tables."""

    def add_column(
        self, table: _engine.Table[Any] | str, column: str, kind: Any, *, default: Any = None
    ) -> _engine.Table[Any]:
        """Adds a column, the last.

        Args:
            table: The table, or its name.
            column: The new column's name.
            kind: Its type, as a row class would annotate it: ``str | None``, ````au.Int16``.
            default: Its value in the rows that are there; needed where ``kind`` does not take ``None``.

        Returns:
            The table as it is now. For rows of a class of your own, open it with ``db.table(name, YourClass)``.

        Raises:
            SchemaError: there is such a column, a default is missing, or the rows would be too wide for a page.
            UnknownTable, TypeMismatch, ValueOutOfRange.
        """
        stored, nullable = stored_type(kind, column)
        name = table_name(table)
        _engine.add_column(self, name, column, stored, nullable, default)
        return self._as_it_is(name)

    def drop_column(self, table: _engine.Table[Any] | str, column: str) -> _engine.Table[Any]:
        """Removes a column; one of the key cannot go. Views at an older LSN still see it.

        Raises:
            SchemaError: it is in the key, or the only one.
            UnknownTable, UnknownColumn.
        """
        name = table_name(table)
        _engine.drop_column(self, name, column)
        return self._as_it_is(name)

    def rename_column(self, table: _engine.Table[Any] | str, column: str, new_name: str) -> _engine.Table[Any]:
        """Gives a column another name.

        Raises:
            SchemaError: there is a column of that name.
            UnknownTable, UnknownColumn.
        """
        name = table_name(table)
        _engine.rename_column(self, name, column, new_name)
        return self._as_it_is(name)

    def alter_column(self, table: _engine.Table[Any] | str, column: str, kind: Any) -> _engine.Table[Any]:
        """Gives a column a wider type, which holds every value that the present one holds.

        An integer may get more bits, a ``Float32`` may become a ``float``, a decimal may get more digits before and
        after the point. Whether it takes ``None`` stays as it is.

        Raises:
            SchemaError: the type is not wider, or the column is in the key.
            UnknownTable, UnknownColumn.
        """
        name = table_name(table)
        stored, nullable = stored_type(kind, column)
        there = next((part for part in self._table_schema(name).columns if part[0] == column), None)
        if nullable and there is not None and not there[2]:
            raise SchemaError(
                f'table "{name}", column "{column}": expected a type without None, as the column is, got {kind}',
                column=column, expected="a type without None", got=str(kind),
            )  # fmt: skip
        _engine.widen_column(self, name, column, stored)
        return self._as_it_is(name)

    def rename_table(self, table: _engine.Table[Any] | str, new_name: str) -> _engine.Table[Any]:
        """Gives a table another name. Handles of it go on to work.

        Raises:
            UnknownTable: there is none of the old name.
            TableExists: there is one of the new name.
        """
        _engine.rename_table(self, table_name(table), new_name)
        return self._as_it_is(new_name)

    def truncate(self, table: _engine.Table[Any] | str) -> None:
        """Removes every row and gives the space free, at once whatever the table's size. All or nothing.

        Views at an older LSN still see the rows. Open transactions that have changed the table get ``SchemaChanged``.

        Raises:
            UnknownTable: there is none of this name.
        """
        _engine.truncate(self, table_name(table))

    def analyze(self, table: _engine.Table[Any] | str) -> TableStatistics:
        """Reads the whole table once, at a snapshot, and keeps what it finds beside the table's definition.

        Raises:
            UnknownTable: there is none of this name.
        """
        name = table_name(table)
        _engine.analyze(self, name)
        return statistics_of(self, name)

    def statistics(self, table: _engine.Table[Any] | str) -> TableStatistics:
        """What is known of a table: rows, bytes, and its columns as of the last ``analyze``. Reads no rows.

        Raises:
            UnknownTable: there is none of this name.
        """
        return statistics_of(self, table_name(table))

    def _as_it_is(self, name: str) -> _engine.Table[Any]:
        return self._open_table(name, row_class(name, self._table_schema(name)))
