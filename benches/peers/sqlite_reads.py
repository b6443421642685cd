"""Point reads of sqlite3: one connection, inside a read transaction, statements cached."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path


class SqliteReads:
    """A table of plain columns and one with a decimal and a uuid, of the same rows as ours."""

    name = "sqlite3"

    def __init__(self, folder: Path, plain: Iterable[tuple[Any, ...]], exact: Iterable[tuple[Any, ...]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(folder / "reads.sqlite", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA cache_size=-262144")
        self._db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, owner TEXT, balance INTEGER, rate REAL)")
        self._db.execute("CREATE TABLE exact (id INTEGER PRIMARY KEY, price TEXT, reference BLOB)")
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO plain VALUES (?, ?, ?, ?)", plain)
        stored = ((i, str(price), reference.bytes) for i, price, reference in exact)
        self._db.executemany("INSERT INTO exact VALUES (?, ?, ?)", stored)
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def plain(self) -> Callable[[int], tuple[Any, ...]]:
        """Return a function that reads one row as a tuple."""
        execute = self._db.cursor().execute
        return lambda key: execute("SELECT id, owner, balance, rate FROM plain WHERE id = ?", (key,)).fetchone()

    def exact(self) -> Callable[[int], tuple[Any, ...]]:
        """Return a function that reads one row and makes Decimal and UUID of what is stored."""
        execute = self._db.cursor().execute

        def read(key: int) -> tuple[Any, ...]:
            row = execute("SELECT id, price, reference FROM exact WHERE id = ?", (key,)).fetchone()
            return row[0], Decimal(row[1]), UUID(bytes=row[2])

        return read

    def many(self, count: int) -> Callable[[Sequence[int]], list[tuple[Any, ...]]]:
        """Return a function that reads so many rows by one statement."""
        execute = self._db.cursor().execute
        sql = f"SELECT id, owner, balance, rate FROM plain WHERE id IN ({','.join('?' * count)})"
        return lambda keys: execute(sql, keys).fetchall()

    def close(self) -> None:
        self._db.close()
