"""Engines behind the operations of the mixes: one row at a time, each change durable when the call returns."""

from __future__ import annotations

import random
import sqlite3
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

PAYLOAD = "p" * 160
RANGE = 100
"""Rows of a range."""

Steps = dict[str, "Callable[[int], object]"]
"""What one thread calls, by operation."""


def tag_of(key: int) -> int:
    """Return what a row is looked up by: of another order than the keys, and of one row only."""
    return key * 2_654_435_761 & 0xFFFF_FFFF_FFFF


class MixPeer(Protocol):
    """An engine with a table of rows - key, tag, payload - and an index by tag."""

    name: str

    def steps(self, thread: int, threads: int) -> Steps:
        """Return a thread's operations; keys that threads change never meet."""
        ...

    def close(self) -> None:
        """Release files and threads."""
        ...


class Keys:
    """Which keys a thread reads and changes."""

    def __init__(self, rows: int, thread: int, threads: int) -> None:
        self._rows, self._thread, self._threads = rows, thread, threads
        self._dice = random.Random(thread)

    def any(self) -> int:
        """Return a key that is there, at random."""
        return self._dice.randrange(self._rows)

    def start(self) -> int:
        """Return where a range of rows begins."""
        return self._dice.randrange(self._rows - RANGE)

    def own(self) -> int:
        """Return one of the rows that only this thread changes."""
        return self._dice.randrange(self._rows // self._threads) * self._threads + self._thread

    def new(self, n: int) -> int:
        """Return a key that was never there."""
        return self._rows + n * self._threads + self._thread


class SqliteMix:
    """One connection for each thread; writers take turns by a lock, which is faster than the busy handler."""

    name = "SQLite FULL+WAL"

    def __init__(self, folder: Path, rows: int, cache_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._rows, self._cache_bytes = folder / "mix.sqlite", rows, cache_bytes
        self._turn = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        connection = self._connect()
        connection.execute("CREATE TABLE mix (id INTEGER PRIMARY KEY, tag INTEGER, payload TEXT)")
        connection.execute("BEGIN")
        filled = ((i, tag_of(i), PAYLOAD) for i in range(rows))
        connection.executemany("INSERT INTO mix VALUES (?, ?, ?)", filled)
        connection.execute("CREATE INDEX by_tag ON mix (tag)")
        connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=60)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{self._cache_bytes >> 10}")
        self._connections.append(connection)
        return connection

    def steps(self, thread: int, threads: int) -> Steps:
        execute, keys, turn = self._connect().cursor().execute, Keys(self._rows, thread, threads), self._turn

        def write(sql: str, values: tuple[Any, ...]) -> None:
            with turn:
                execute(sql, values)

        def again(_n: int) -> None:
            key = keys.own()
            write("DELETE FROM mix WHERE id = ?", (key,))
            write("INSERT INTO mix VALUES (?, ?, ?)", (key, tag_of(key), PAYLOAD))

        def insert(n: int) -> None:
            key = keys.new(n)
            write("INSERT INTO mix VALUES (?, ?, ?)", (key, tag_of(key), PAYLOAD))

        return {
            "insert": insert,
            "update": lambda n: write("UPDATE mix SET payload = ? WHERE id = ?", (f"{PAYLOAD}{n}", keys.own())),
            "delete": again,
            "get": lambda _n: execute("SELECT id, tag, payload FROM mix WHERE id = ?", (keys.any(),)).fetchone(),
            "range": lambda _n: execute(
                "SELECT id, tag, payload FROM mix WHERE id >= ? ORDER BY id LIMIT ?", (keys.start(), RANGE)
            ).fetchall(),
            "index": lambda _n: execute(
                "SELECT id, tag, payload FROM mix WHERE tag = ?", (tag_of(keys.any()),)
            ).fetchone(),
        }

    def close(self) -> None:
        for connection in self._connections:
            with suppress(sqlite3.Error):
                connection.close()


def packed(key: int, payload: str) -> bytes:
    """Return a row as the stores of keys and values have it."""
    return tag_of(key).to_bytes(8, "big") + payload.encode()


def unpacked(key: bytes, value: bytes) -> tuple[int, int, str]:
    """Return the row of a key and a value."""
    return int.from_bytes(key, "big"), int.from_bytes(value[:8], "big"), value[8:].decode()


class LmdbMix:
    """LMDB, syncing at every commit; a second database is the index. It has no cache: the system caches its file."""

    name = "LMDB sync"

    def __init__(self, folder: Path, rows: int, _cache_bytes: int) -> None:
        import lmdb  # noqa: PLC0415 - only where the peers are installed

        folder.mkdir(parents=True, exist_ok=True)
        self._rows = rows
        self._env = lmdb.open(str(folder), map_size=8 << 30, max_dbs=2, max_readers=512, sync=True, metasync=True)
        self._table, self._index = self._env.open_db(b"mix"), self._env.open_db(b"by_tag")
        with self._env.begin(write=True) as txn:
            for i in range(rows):
                self._put(txn, i, PAYLOAD)

    def _put(self, txn: Any, key: int, payload: str) -> None:
        at = key.to_bytes(8, "big")
        txn.put(at, packed(key, payload), db=self._table)
        txn.put(tag_of(key).to_bytes(8, "big"), at, db=self._index)

    def steps(self, thread: int, threads: int) -> Steps:
        begin, keys, table, index = self._env.begin, Keys(self._rows, thread, threads), self._table, self._index

        def insert(n: int) -> None:
            with begin(write=True) as txn:
                self._put(txn, keys.new(n), PAYLOAD)

        def update(n: int) -> None:
            with begin(write=True) as txn:
                key = keys.own()
                txn.put(key.to_bytes(8, "big"), packed(key, f"{PAYLOAD}{n}"), db=table)

        def again(_n: int) -> None:
            key = keys.own()
            with begin(write=True) as txn:
                txn.delete(key.to_bytes(8, "big"), db=table)
                txn.delete(tag_of(key).to_bytes(8, "big"), db=index)
            with begin(write=True) as txn:
                self._put(txn, key, PAYLOAD)

        def get(_n: int) -> object:
            key = keys.any().to_bytes(8, "big")
            with begin() as txn:
                value = txn.get(key, db=table)
            return value and unpacked(key, value)

        def in_order(_n: int) -> object:
            with begin() as txn, txn.cursor(db=table) as cursor:
                cursor.set_range(keys.start().to_bytes(8, "big"))
                found = zip(range(RANGE), cursor.iternext(), strict=False)
                return [unpacked(*pair) for _, pair in found]

        def look_up(_n: int) -> object:
            with begin() as txn:
                key = txn.get(tag_of(keys.any()).to_bytes(8, "big"), db=index)
                value = key and txn.get(key, db=table)
            return value and unpacked(key, value)

        return {
            "insert": insert, "update": update, "delete": again, "get": get, "range": in_order, "index": look_up,
        }  # fmt: skip

    def close(self) -> None:
        self._env.close()


class RocksdbMix:
    """RocksDB through rocksdict, every write synced; keys of the index begin with an i, those of rows with an r."""

    name = "RocksDB sync"

    def __init__(self, folder: Path, rows: int, cache_bytes: int) -> None:
        import rocksdict  # noqa: PLC0415 - only where the peers are installed

        folder.mkdir(parents=True, exist_ok=True)
        self._rows = rows
        options = rocksdict.Options(raw_mode=True)
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_block_cache(rocksdict.Cache(cache_bytes))
        options.set_block_based_table_factory(blocks)
        self._batch = rocksdict.WriteBatch
        self._db = rocksdict.Rdict(str(folder), options=options)
        self._synced = rocksdict.WriteOptions()
        self._synced.sync = True
        for first in range(0, rows, 1_000):
            self._write([(i, PAYLOAD) for i in range(first, min(first + 1_000, rows))])

    def _write(self, rows: Iterable[tuple[int, str]], gone: Iterable[int] = ()) -> None:
        batch = self._batch(raw_mode=True)
        for key, payload in rows:
            at = key.to_bytes(8, "big")
            batch.put(b"r" + at, packed(key, payload))
            batch.put(b"i" + tag_of(key).to_bytes(8, "big"), at)
        for key in gone:
            batch.delete(b"r" + key.to_bytes(8, "big"))
            batch.delete(b"i" + tag_of(key).to_bytes(8, "big"))
        self._db.write(batch, write_opt=self._synced)

    def steps(self, thread: int, threads: int) -> Steps:
        db, keys = self._db, Keys(self._rows, thread, threads)

        def again(_n: int) -> None:
            key = keys.own()
            self._write((), (key,))
            self._write([(key, PAYLOAD)])

        def get(_n: int) -> object:
            key = keys.any().to_bytes(8, "big")
            value = db.get(b"r" + key)
            return value and unpacked(key, value)

        def in_order(_n: int) -> object:
            items = db.items(from_key=b"r" + keys.start().to_bytes(8, "big"))
            return [unpacked(key[1:], value) for _, (key, value) in zip(range(RANGE), items, strict=False)]

        def look_up(_n: int) -> object:
            key = db.get(b"i" + tag_of(keys.any()).to_bytes(8, "big"))
            value = key and db.get(b"r" + key)
            return value and unpacked(key, value)

        return {
            "insert": lambda n: self._write([(keys.new(n), PAYLOAD)]),
            "update": lambda n: self._write([(keys.own(), f"{PAYLOAD}{n}")]),
            "delete": again, "get": get, "range": in_order, "index": look_up,
        }  # fmt: skip

    def close(self) -> None:
        self._db.close()


PEERS = (SqliteMix, LmdbMix, RocksdbMix)
