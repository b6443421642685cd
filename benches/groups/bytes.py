"""Bytes that small updates cost per copy: in the hot log, and in everything that is written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from benches.groups.commit_async import IN_FLIGHT
from benches.ours import Ours
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aurora_engine import Status
    from benches.groups import Context

ROWS = 100_000
COPIES = 6
LONE_UPDATES = 2_000
LOG_UPDATES = 20_000
FULL_UPDATES = 10_000_000


async def _update(ours: Ours, updates: int, first: int) -> None:
    """Commit so many one-row updates, each a transaction, 1,000 of them in flight."""
    each = updates // IN_FLIGHT

    async def work(task: int) -> None:
        commit = ours.async_committer(task, IN_FLIGHT, ROWS)
        for n in range(first, first + each):
            await commit(n)

    await asyncio.gather(*(work(task) for task in range(IN_FLIGHT)))


def _written_bytes() -> int:
    """Return what this process has given to write(2): `write_bytes` would count whole folios of the page cache."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def _layer_bytes(status: Status) -> int:
    return status.background.flushed_bytes + status.background.compacted_bytes


def _log_bytes(ours: Ours, updates: int, work: Callable[[], None]) -> float:
    """Return the bytes that the work adds to each copy's log; NaN if some went into layers meanwhile."""
    before = ours.db.status()
    work()
    after = ours.db.status()
    if after.background.flushed_bytes != before.background.flushed_bytes:
        return float("nan")
    return (after.log_bytes - before.log_bytes) / COPIES / updates


def _one_at_a_time(ours: Ours) -> None:
    commit = ours.committer(0, 1)
    for n in range(1, LONE_UPDATES + 1):
        commit(n)


def run(context: Context) -> Iterator[Row]:
    """Count two short runs that stay in the log, then a long one that is flushed and compacted meanwhile."""
    ours = Ours(context.folder, rows=ROWS)
    try:
        lone = _log_bytes(ours, LONE_UPDATES, lambda: _one_at_a_time(ours))
        grouped = _log_bytes(ours, LOG_UPDATES, lambda: asyncio.run(_update(ours, LOG_UPDATES, 0)))
        layers, written = ours.db.status(), _written_bytes()
        asyncio.run(_update(ours, context.updates, LOG_UPDATES // IN_FLIGHT))
        end, written = ours.db.status(), _written_bytes() - written
    finally:
        ours.close()
    budget = Budget("<=", 120, "ours")
    yield Row("bytes", "hot log per copy and small update, one at a time", lone, "B", budget=budget)
    yield Row("bytes", f"hot log per copy and small update, {IN_FLIGHT:,} in flight", grouped, "B", budget=budget)
    # What is still in the log at the end has not reached the layers: it is not among the updates they are divided by.
    flushed = context.updates - end.log_bytes / COPIES / grouped
    in_layers = _layer_bytes(end) - _layer_bytes(layers)
    everything = grouped + in_layers / COPIES / flushed if in_layers and flushed > 0 else float("nan")
    note = (
        f"{context.updates:,} of {FULL_UPDATES:,} updates of {ROWS:,} rows, one a transaction; "
        f"with what stripes pad and rewrite, {written / COPIES / context.updates:,.0f} B were written"
    )
    what = "log and layers per copy and small update"
    yield Row("bytes", what, everything, "B", budget=Budget("<=", 400, "ours"), note=note)
