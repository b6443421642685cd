"""The cluster for ``asyncio``: operations are awaitable, thousands of commits may be in flight.

An operation whose data is in memory completes without going through the event loop. A commit waits for its
durability without a thread: one wake-up of the loop covers every commit that one write to the log made durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from aurora_engine import _engine
from aurora_engine.exceptions import CommitUnknown, Retryable, TokenUsed
from aurora_engine.isolation import LOCK_TIMEOUT_S, Isolation, LockTimeout
from aurora_engine.rows import AnyRow, ArrowRows, RowInput

if TYPE_CHECKING:
    import datetime as dt
    import os

    from aurora_engine.cluster import Cluster, LoadSource
    from aurora_engine.endpoints import Failover
    from aurora_engine.history import Backtrack, Changes, Snapshot
    from aurora_engine.rows import IndexColumn
    from aurora_engine.statistics import TableStatistics
    from aurora_engine.status import Status

    Moment = _engine.Commit | int | dt.datetime | Snapshot | str

A = TypeVar("A", bound=AnyRow)
T = TypeVar("T")

RETRIES = 50
"""How often ``run`` tries a transaction that meets others."""


class Aio(_engine.Aio):
    """The asynchronous side of a cluster: ``db.aio``."""

    @overload
    async def run(
        self,
        fn: Callable[[_engine.AsyncTransaction], Awaitable[T]],
        *,
        isolation: Isolation = "snapshot",
        lock_timeout: LockTimeout = LOCK_TIMEOUT_S,
        retries: int = RETRIES,
    ) -> T: ...
    @overload
    async def run(
        self,
        fn: Callable[[_engine.AsyncTransaction], Awaitable[T]],
        *,
        token: str,
        isolation: Isolation = "snapshot",
        lock_timeout: LockTimeout = LOCK_TIMEOUT_S,
        retries: int = RETRIES,
    ) -> T | None: ...
    async def run(
        self,
        fn: Callable[[_engine.AsyncTransaction], Awaitable[T]],
        *,
        token: str | None = None,
        isolation: Isolation = "snapshot",
        lock_timeout: LockTimeout = LOCK_TIMEOUT_S,
        retries: int = RETRIES,
    ) -> T | None:
        """Runs ``await fn(tx)`` in a transaction and commits it, as ``Cluster.run`` does."""
        from aurora_engine.cluster import check_retries, pause_s  # noqa: PLC0415 - cluster imports this module

        check_retries(retries)
        for attempt in range(retries + 1):
            if token is not None and await asyncio.to_thread(self.cluster.committed, token) is not None:
                return None
            try:
                async with self.transaction(token=token, isolation=isolation, lock_timeout=lock_timeout) as tx:
                    return await fn(tx)
            except TokenUsed as used:
                if used.token != token:
                    raise
                return None
            except Retryable:
                if attempt == retries:
                    raise
                await asyncio.sleep(pause_s(attempt))
            except CommitUnknown:
                if token is None:
                    raise
                if await asyncio.to_thread(self.cluster.committed, token) is not None:
                    return None
        raise AssertionError("every attempt returns, raises or goes on")  # pragma: no cover

    async def insert_many(self, table: _engine.Table[A], rows: Iterable[A | RowInput] | ArrowRows) -> int:
        """Adds rows in a transaction of its own, all of them or none; how many."""
        return await self._write_many(lambda tx, rows: tx.insert_many(table, rows), rows)

    async def upsert_many(self, table: _engine.Table[A], rows: Iterable[A | RowInput] | ArrowRows) -> int:
        """Adds rows, or replaces those with their keys, in a transaction of its own; how many."""
        return await self._write_many(lambda tx, rows: tx.upsert_many(table, rows), rows)

    async def _write_many(self, write: Callable[[_engine.AsyncTransaction, Any], Awaitable[int]], rows: Any) -> int:
        if hasattr(rows, "__arrow_c_stream__"):
            # A stream may be read once only, so a conflict is raised and not tried again.
            async with self.transaction() as tx:
                return await write(tx, rows)
        again = rows if isinstance(rows, (list, tuple)) or not hasattr(rows, "__iter__") else list(rows)
        return await self.run(lambda tx: write(tx, again))

    async def load(
        self,
        table: _engine.Table[Any],
        source: LoadSource,
        *,
        on_conflict: Literal["error", "replace", "skip"] = "error",
        sort: bool | None = None,
        memory_bytes: int = 64 << 20,
        show_progress: bool | None = None,
    ) -> int:
        """Loads rows in bulk, as ``Cluster.load`` does, in a thread of its own."""
        return await asyncio.to_thread(
            self.cluster.load,
            table,
            source,
            on_conflict=on_conflict,
            sort=sort,
            memory_bytes=memory_bytes,
            show_progress=show_progress,
        )

    async def add_column(
        self, table: _engine.Table[Any] | str, column: str, kind: Any, *, default: Any = None
    ) -> _engine.Table[Any]:
        """As ``Cluster.add_column``."""
        return await self._definition("add_column", table, column, kind, default=default)

    async def drop_column(self, table: _engine.Table[Any] | str, column: str) -> _engine.Table[Any]:
        """As ``Cluster.drop_column``."""
        return await self._definition("drop_column", table, column)

    async def rename_column(self, table: _engine.Table[Any] | str, column: str, new_name: str) -> _engine.Table[Any]:
        """As ``Cluster.rename_column``."""
        return await self._definition("rename_column", table, column, new_name)

    async def alter_column(self, table: _engine.Table[Any] | str, column: str, kind: Any) -> _engine.Table[Any]:
        """As ``Cluster.alter_column``."""
        return await self._definition("alter_column", table, column, kind)

    async def rename_table(self, table: _engine.Table[Any] | str, new_name: str) -> _engine.Table[Any]:
        """As ``Cluster.rename_table``."""
        return await self._definition("rename_table", table, new_name)

    async def truncate(self, table: _engine.Table[Any] | str) -> None:
        """As ``Cluster.truncate``."""
        await asyncio.to_thread(self.cluster.truncate, table)

    async def analyze(self, table: _engine.Table[Any] | str) -> TableStatistics:
        """As ``Cluster.analyze``: the table is read in a thread of its own."""
        return await asyncio.to_thread(self.cluster.analyze, table)

    async def statistics(self, table: _engine.Table[Any] | str) -> TableStatistics:
        """As ``Cluster.statistics``."""
        return await asyncio.to_thread(self.cluster.statistics, table)

    async def _definition(self, change: str, *args: Any, **options: Any) -> _engine.Table[Any]:
        """A change of a definition waits for its durability in a thread: there are few of them."""
        changed: _engine.Table[Any] = await asyncio.to_thread(getattr(self.cluster, change), *args, **options)
        return changed

    async def failover(self, to: str | None = None, *, force: bool = False) -> Failover:
        """Has another instance write, as ``Cluster.failover`` does."""
        return await asyncio.to_thread(self.cluster.failover, to, force=force)

    async def backtrack(self, to: Moment | None = None, *, use_earliest: bool = False) -> Backtrack:
        """Takes the cluster to another moment, as ``Cluster.backtrack`` does."""
        return await asyncio.to_thread(self.cluster.backtrack, to, use_earliest=use_earliest)

    async def snapshot(self, name: str) -> Snapshot:
        """Keeps the present moment, as ``Cluster.snapshot`` does."""
        return await asyncio.to_thread(self.cluster.snapshot, name)

    async def clone(
        self, path: str | os.PathLike[str] | None = None, *, memory: bool = False, at: Moment | None = None
    ) -> Cluster:
        """A cluster that begins as this one is or was, as ``Cluster.clone`` gives."""
        return await asyncio.to_thread(self.cluster.clone, path, memory=memory, at=at)

    async def changes(self, table: _engine.Table[Any] | str, since: Moment, until: Moment | None = None) -> Changes:
        """What became of the rows of a table, as ``Cluster.changes`` does."""
        return await asyncio.to_thread(self.cluster.changes, table, since, until)

    async def preview_backtrack(self, to: Moment) -> dict[str, Changes]:
        """What a backtrack would do, as ``Cluster.preview_backtrack`` does."""
        return await asyncio.to_thread(self.cluster.preview_backtrack, to)

    async def create_index(
        self,
        table: _engine.Table[A],
        name: str,
        *columns: IndexColumn,
        unique: bool = False,
        exist_ok: bool = False,
        show_progress: bool | None = None,
    ) -> _engine.Index[A]:
        """Builds an index while others read and write, as ``Cluster.create_index`` does, in a thread of its own."""
        return await asyncio.to_thread(
            self.cluster.create_index,
            table,
            name,
            *columns,
            unique=unique,
            exist_ok=exist_ok,
            show_progress=show_progress,
        )

    async def drop_index(self, table: _engine.Table[Any], name: str) -> None:
        """Drops an index, as ``Cluster.drop_index`` does."""
        await asyncio.to_thread(self.cluster.drop_index, table, name)

    async def status(self) -> Status:
        """What ``Cluster.status`` reports."""
        return await asyncio.to_thread(self.cluster.status)

    def __repr__(self) -> str:
        return f"<Aio of {self.cluster!r}>"
