"""The cluster for ``asyncio``: operations are awaitable, thousands of commits may be in flight.

An operation whose data is in memory completes without going through the event loop. A commit waits for its
durability without a thread: one wake-up of the loop covers every commit that one write to the log made durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from aurora_engine import _engine
from aurora_engine.exceptions import CommitUnknown, Retryable, TokenUsed

if TYPE_CHECKING:
    from aurora_engine.cluster import ArrowStream
    from aurora_engine.status import Status

T = TypeVar("T")

RETRIES = 50
"""How often ``run`` tries a transaction that meets others."""


class Aio(_engine.Aio):
    """The asynchronous side of a cluster: ``db.aio``."""

    @overload
    async def run(self, fn: Callable[[_engine.AsyncTransaction], Awaitable[T]], *, retries: int = RETRIES) -> T: ...
    @overload
    async def run(
        self, fn: Callable[[_engine.AsyncTransaction], Awaitable[T]], *, token: str, retries: int = RETRIES
    ) -> T | None: ...
    async def run(
        self,
        fn: Callable[[_engine.AsyncTransaction], Awaitable[T]],
        *,
        token: str | None = None,
        retries: int = RETRIES,
    ) -> T | None:
        """Runs ``await fn(tx)`` in a transaction and commits it, as ``Cluster.run`` does."""
        from aurora_engine.cluster import check_retries, pause_s  # noqa: PLC0415 - cluster imports this module

        check_retries(retries)
        for attempt in range(retries + 1):
            if token is not None and await asyncio.to_thread(self.cluster.committed, token) is not None:
                return None
            try:
                async with self.transaction(token=token) as tx:
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

    async def load(
        self, table: _engine.Table[Any], data: ArrowStream, *, sort: bool = False, show_progress: bool | None = None
    ) -> int:
        """Loads Arrow data in bulk, as ``Cluster.load`` does, in a thread of its own."""
        return await asyncio.to_thread(self.cluster.load, table, data, sort=sort, show_progress=show_progress)

    async def status(self) -> Status:
        """What ``Cluster.status`` reports."""
        return await asyncio.to_thread(self.cluster.status)

    def __repr__(self) -> str:
        return f"<Aio of {self.cluster!r}>"
