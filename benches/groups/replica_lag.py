"""From a commit's number to the moment at which a replica shows it, at a given rate and number of replicas."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aurora_engine as au
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benches.groups import Context

ROWS = 10_000
TICK_S = 0.005
LAG_MS_MAX = 20.0


class Cell(au.Row, key="id"):
    """A row that is updated over and over."""

    id: int
    value: int


async def _commits(db: au.Cluster, table: au.Table[Cell], rate: int, seconds: float) -> float:
    """One-row commits at a rate, each begun at its time whatever became of the ones before; gives the rate reached."""

    async def one(n: int) -> None:
        async with db.aio.transaction() as tx:
            await tx.update(table, n % ROWS, value=n)

    begin, n, pending = time.perf_counter(), 0, set[asyncio.Task[None]]()
    while (elapsed := time.perf_counter() - begin) < seconds:
        due = int(elapsed * rate)
        for _ in range(min(due - n, 2_000)):
            task = asyncio.create_task(one(n))
            pending.add(task)
            task.add_done_callback(pending.discard)
            n += 1
        await asyncio.sleep(TICK_S)
    await asyncio.gather(*pending)
    return n / (time.perf_counter() - begin)


def _measure(path: Path, replicas: int, rate: int, seconds: float) -> tuple[float, float, float]:
    """The worst replica's median and 99th percentile in milliseconds, and the rate that was reached."""
    with au.open(path, replicas=replicas) as db:
        table = db.create_table("cells", Cell)
        with db.transaction() as tx:
            for n in range(ROWS):
                tx.insert(table, Cell(n, 0))
        for name in db.instances[1:]:
            db.instance(name).get_many(table, range(ROWS), after=tx.committed)
        reached = asyncio.run(_commits(db, table, rate, seconds))
        status = db.status().instances[1:]
        return max(s.shown_ms_p50 for s in status), max(s.shown_ms_p99 for s in status), reached


def run(context: Context) -> Iterator[Row]:
    """1,000 and 10,000 commits/s, with 1 and with 15 replicas, whose caches hold every row that changes."""
    for rate in (1_000, 10_000):
        for replicas in (1, 15):
            path = context.folder / f"{rate}-{replicas}"
            p50, p99, reached = _measure(path, replicas, rate, max(2.0, context.seconds))
            what = f"replica lag p99, {rate:,} commits/s, {replicas} replica{'s' if replicas > 1 else ''}"
            note = f"p50 {p50:.2f} ms; {reached:,.0f} commits/s reached; the slowest replica; the sync is in it"
            yield Row("replica_lag", what, p99, "ms", budget=Budget("<=", LAG_MS_MAX, "ours"), note=note)
