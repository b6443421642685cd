"""SQLite with synchronous=FULL and a write-ahead log: durable at every commit."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from benches.peers import ROWS, own_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class SqlitePeer:
    """One connection for each thread; who finds the file locked waits by SQLite's busy handler."""

    name = "SQLite FULL+WAL"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "bank.sqlite"
        self._turn = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        connection = self._connect()
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT, balance INTEGER)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO accounts VALUES (?, ?, 0)", ((i, f"owner {i}") for i in range(ROWS)))
        connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=60)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        self._connections.append(connection)
        return connection

    def committer(self, thread: int, threads: int) -> Callable[[int], None]:
        execute = self._connect().cursor().execute

        def commit(n: int) -> None:
            execute("UPDATE accounts SET balance = ? WHERE id = ?", (n, own_row(thread, threads, n)))

        return commit

    def adder(self, row: int) -> Callable[[int], None]:
        """Return a step that adds one to a row, on a connection of its own."""
        execute = self._connect().cursor().execute

        def add(_n: int) -> None:
            execute("UPDATE accounts SET balance = balance + 1 WHERE id = ?", (row,))

        return add

    def close(self) -> None:
        for connection in self._connections:
            with suppress(sqlite3.Error):
                connection.close()


class SqliteTurnsPeer(SqlitePeer):
    """The same, but a lock hands the turn on: the busy handler is faster on a quiet machine, this on a busy one."""

    name = "SQLite FULL+WAL, turns"

    def committer(self, thread: int, threads: int) -> Callable[[int], None]:
        write, turn = super().committer(thread, threads), self._turn

        def commit(n: int) -> None:
            with turn:
                write(n)

        return commit

    def adder(self, row: int) -> Callable[[int], None]:
        write, turn = super().adder(row), self._turn

        def add(n: int) -> None:
            with turn:
                write(n)

        return add
