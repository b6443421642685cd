"""Changing tables that are in use: columns come, go, get other names and wider types; constraints come and go.

A change of columns takes the same time whatever the table's size, because no row is touched: rows are read through what
has changed since they were written, and rewritten with the next change of their page. A constraint that comes is held
against every row first, while others read and write.
"""

from __future__ import annotations

from typing import Any

from aurora_engine import _engine
from aurora_engine.exceptions import SchemaError
from aurora_engine.progress import row_progress
from aurora_engine.rows import row_class
from aurora_engine.rules import OnDelete, foreign_key
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

    def add_check(
        self,
        table: _engine.Table[Any] | str,
        name: str,
        condition: _engine.Expr,
        *,
        show_progress: bool | None = None,
    ) -> _engine.Table[Any]:
        """Adds a condition that no row may make false: ``db.add_check(accounts, "solvent", col("balance") >= 0)``.

        The rows that are there are looked at while others read and write, and then those that were changed meanwhile.
        The check counts once all of them have passed; Ctrl-C, an error or a crash before leaves nothing of it.
        Transactions that have written to the table before get ``SchemaChanged``, which is ``Retryable``.

        Args:
            table: The table, or its name.
            name: The check's name, unique among the constraints of the table.
            condition: The condition.
            show_progress: Draw a progress bar; by default where standard error is a terminal.

        Raises:
            CheckViolation: a row that is there makes it false; ``row_key`` is the key of the first.
            SchemaError: the name is taken, or this is no condition on the table's columns.
            UnknownTable.
        """
        handle = self._as_it_is(table_name(table))
        with row_progress(f"check {name}", shown=show_progress) as report:
            _engine.add_check(self, handle, name, condition, report)
        return self._as_it_is(handle.name)

    def add_foreign_key(
        self,
        table: _engine.Table[Any] | str,
        *columns: str,
        parent: _engine.Table[Any] | str,
        on_delete: OnDelete = "restrict",
        name: str | None = None,
        show_progress: bool | None = None,
    ) -> _engine.Table[Any]:
        """Adds a foreign key: ``db.add_foreign_key(accounts, "owner", parent=owners)``.

        Its index is built first, unless the table has one of its name by these columns. Then the rows are looked at as
        ``add_check`` does it. An error leaves the table as it was.

        Args:
            table: The table, or its name.
            columns: The columns, in the order of the parent's key.
            parent: The table that they refer to, or its name; it may be the table itself.
            on_delete: What becomes of rows whose parent is deleted, as in ``au.foreign_key``.
            name: Its name, and that of its index; by default the columns joined by ``_``, and ``_fk``.
            show_progress: Draw a progress bar; by default where standard error is a terminal.

        Raises:
            ForeignKeyViolation: a row has no parent; ``row_key`` is the key of the first, ``key`` that of the parent.
            SchemaError: the name is taken, or the columns are not of the types of the parent's key.
            IndexExists: there is another index of its name.
            UnknownTable, UnknownColumn.
        """
        handle = self._as_it_is(table_name(table))
        rule = foreign_key(*columns, parent=parent, on_delete=on_delete, name=name)
        had = any(index.name == rule.name for index in handle.indexes)
        parts = [(column, False) for column in rule.columns]
        title = f"foreign key {rule.name}"
        with row_progress(title, shown=show_progress) as report:
            _engine.create_index(self, handle, rule.name, parts, False, True, report)
        try:
            with row_progress(title, shown=show_progress) as report:
                _engine.add_reference(self, handle, rule.name, rule.columns, rule.parent, rule.on_delete, report)
        except BaseException:
            if not had:
                _engine.drop_index(self, handle, rule.name)
            raise
        return self._as_it_is(handle.name)

    def set_not_null(
        self, table: _engine.Table[Any] | str, column: str, *, show_progress: bool | None = None
    ) -> _engine.Table[Any]:
        """Has a column take ``None`` no more, once the rows have been looked at as ``add_check`` does it.

        Returns:
            The table as it is now. For rows of a class of your own, open it with ``db.table(name, YourClass)``.

        Raises:
            NullViolation: a row has ``None`` there; ``row_key`` is the key of the first.
            SchemaError: the column is in the key, which takes no ``None`` as it is.
            UnknownTable, UnknownColumn.
        """
        handle = self._as_it_is(table_name(table))
        with row_progress(f"not null {column}", shown=show_progress) as report:
            _engine.set_not_null(self, handle, column, report)
        return self._as_it_is(handle.name)

    def drop_not_null(self, table: _engine.Table[Any] | str, column: str) -> _engine.Table[Any]:
        """Has a column take ``None`` from now on, at once.

        Raises:
            SchemaError: it is in the key, numbers itself, or is one of an index that was made when it took no ``None``.
            UnknownTable, UnknownColumn.
        """
        name = table_name(table)
        _engine.drop_not_null(self, name, column)
        return self._as_it_is(name)

    def drop_constraint(self, table: _engine.Table[Any] | str, name: str) -> _engine.Table[Any]:
        """Drops a check, or a foreign key with its index, at once.

        Raises:
            UnknownConstraint: the table has none of this name.
            UnknownTable.
        """
        handle = self._as_it_is(table_name(table))
        _engine.drop_constraint(self, handle, name)
        return self._as_it_is(handle.name)

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
