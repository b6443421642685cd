"""A service on an event loop: a thousand requests in flight, each one durable before it is answered.

No thread waits for a commit: one wake-up of the loop covers every commit that one write to the log made durable.
"""

from __future__ import annotations

import asyncio
import sys
import time

import aurora_engine as au
from aurora_engine import col

CLIENTS = 1_000
COUNTERS = 10_000


class Counter(au.Row, key="name"):
    """How often a page was seen."""

    name: str
    hits: int = 0


class Service:
    """What a web framework would call, one coroutine for each request."""

    def __init__(self, db: au.Cluster) -> None:
        self.db = db
        self.counters = db.create_table("counters", Counter, exist_ok=True)

    async def prepare(self) -> None:
        """Make the counters."""
        async with self.db.aio.transaction() as tx:
            for number in range(COUNTERS):
                await tx.upsert(self.counters, Counter(f"/page/{number}"))

    async def hit(self, name: str) -> None:
        """Count one request. It is durable when this returns; a conflict with another request is retried."""

        async def count(tx: au.AsyncTransaction) -> None:
            await tx.update(self.counters, name, hits=col("hits") + 1)

        await self.db.aio.run(count)

    async def hits(self, name: str) -> int:
        """Answer how often a page was seen."""
        row = await self.db.aio.get(self.counters, name)
        return row.hits if row else 0


async def serve(service: Service, requests: int) -> float:
    """Let many clients send their requests at the same time; the seconds that it took."""
    await service.prepare()

    async def client(number: int) -> None:
        for request in range(number, requests, CLIENTS):
            await service.hit(f"/page/{request % COUNTERS}")

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return time.perf_counter() - started


def main(path: str | None = None, requests: int = 20_000) -> None:
    """Serve, and check that every request was counted."""
    with au.open(path, memory=path is None) as db:
        service = Service(db)
        took = asyncio.run(serve(service, requests))
        counted = sum(row.hits for row in db.scan(service.counters))
        print(
            f"{requests:,} durable requests from {CLIENTS:,} clients in {took:.2f} s: {requests / took:,.0f} per second"
        )
        print(f"counted: {counted:,}; /page/7 was seen {asyncio.run(service.hits('/page/7'))} times")
        assert counted == requests


if __name__ == "__main__":
    main(*sys.argv[1:2])
