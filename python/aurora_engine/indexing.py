"""Indexes of tables that are in use: built and dropped while others read and write."""

from __future__ import annotations

from typing import Any, TypeVar

from aurora_engine import _engine
from aurora_engine.progress import row_progress
from aurora_engine.rows import IndexColumn, Row, index_parts

A = TypeVar("A", bound=Row)


class Indexing(_engine.Cluster):
    """The part of a cluster that builds and drops indexes."""

    def create_index(
        self,
        table: _engine.Table[A],
        name: str,
        *columns: IndexColumn,
        unique: bool = False,
        exist_ok: bool = False,
        show_progress: bool | None = None,
    ) -> _engine.Index[A]:
        """Builds an index while others read and write.

        Every commit keeps the index from the beginning on; rows that are older are added a few at a time. It can be
        read when it has all of them. Ctrl-C, an error or a crash leaves nothing of it.

        Args:
            table: The table.
            name: The index's name, unique within the table.
            columns: Its columns, the most significant first: names, or expressions over the columns of a row, such as
                ``col("owner").str.to_lowercase()``. ``au.desc()`` turns one around.
            unique: Refuse two rows with the same values, unless one of these is ``None``. While it is built, commits
                that would add a duplicate are refused already.
            exist_ok: Take the index that is there, if it has these columns.
            show_progress: Draw a progress bar; by default where standard error is a terminal.

        Raises:
            DuplicateKey: two rows have the same values in a unique index; ``key`` says which.
            IndexExists: there is one of this name.
            KeyTooLong: the values of a row make no key.
            ValueOutOfRange: an expression has no value for a row, because of an overflow or a division by zero; ``key``
                says for which.
            UnknownColumn, SchemaError.
        """
        parts = index_parts(columns, f"index {name}")
        with row_progress(f"index {name}", shown=show_progress) as report:
            return _engine.create_index(self, table, name, parts, unique, exist_ok, report)

    def drop_index(self, table: _engine.Table[Any], name: str) -> None:
        """Drops an index and gives its space free. Views at an older LSN still read by it.

        Raises:
            UnknownIndex: there is none of this name.
            SchemaError: a foreign key needs it.
        """
        _engine.drop_index(self, table, name)
