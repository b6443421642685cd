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
    """One connection for each thread; a lock of ours hands the turn on, which is faster than SQLite's busy handler."""

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
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        self._connections.append(connection)
        return connection

    def committer(self, thread: int, threads: int) -> Callable[[int], None]:
        execute, turn = self._connect().cursor().execute, self._turn

        def commit(n: int) -> None:
            row = own_row(thread, threads, n)
            with turn:
                execute("UPDATE accounts SET balance = ? WHERE id = ?", (n, row))

        return commit

    def close(self) -> None:
        for connection in self._connections:
            with suppress(sqlite3.Error):
                connection.close()
