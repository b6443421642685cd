"""Loading and inserting many rows with DuckDB and SQLite."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl


def _fresh(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(path.name + "*"):
        old.unlink()
    return path


def duckdb_load(folder: Path, data: pl.DataFrame) -> float:
    """Create a table from Arrow in a file, with a checkpoint; return seconds."""
    path = _fresh(folder / "load.duckdb")
    arrow = data.to_arrow()
    with duckdb.connect(str(path)) as db:
        db.register("source", arrow)
        begin = time.perf_counter()
        db.execute("CREATE TABLE lineitem AS SELECT * FROM source")
        db.execute("CHECKPOINT")
        return time.perf_counter() - begin


def sqlite_load(folder: Path, data: pl.DataFrame) -> float:
    """Insert into a table without rowid by executemany in one transaction; return seconds."""
    path = _fresh(folder / "load.sqlite")
    columns = [f"c{i}" for i in range(data.width)]
    texts = data.with_columns(data[name].cast(str) for name, kind in data.schema.items() if not kind.is_integer())
    rows = texts.rows()
    key = ", ".join(f"c{data.columns.index(name)}" for name in ("l_orderkey", "l_linenumber"))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(f"CREATE TABLE lineitem ({', '.join(columns)}, PRIMARY KEY ({key})) WITHOUT ROWID")
    begin = time.perf_counter()
    db.execute("BEGIN")
    db.executemany(f"INSERT INTO lineitem VALUES ({', '.join('?' * len(columns))})", rows)
    db.execute("COMMIT")
    took = time.perf_counter() - begin
    db.close()
    return took


class SqliteInserts:
    """A table that takes rows by executemany, one durable transaction each."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(_fresh(folder / "many.sqlite"), isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, owner TEXT, balance INTEGER, rate REAL)")

    def insert(self, rows: list[tuple[Any, ...]]) -> None:
        """Insert all, or none."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO plain VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class DuckdbInserts:
    """The same with DuckDB."""

    def __init__(self, folder: Path) -> None:
        self._db = duckdb.connect(str(_fresh(folder / "many.duckdb")))
        self._db.execute("CREATE TABLE plain (id BIGINT PRIMARY KEY, owner VARCHAR, balance BIGINT, rate DOUBLE)")

    def insert(self, rows: list[tuple[Any, ...]]) -> None:
        """Insert all, or none."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO plain VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        with suppress(duckdb.Error):
            self._db.close()
