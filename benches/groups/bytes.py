"""Bytes that small updates cost per copy: in the hot log, and in everything that is written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from benches.groups.commit_async import IN_FLIGHT
from benches.ours import Ours
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_engine import Status
    from benches.groups import Context

ROWS = 100_000
COPIES = 6
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


def _device_bytes() -> int:
    """Return what this process has sent to block devices."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


def _layer_bytes(status: Status) -> int:
    return status.background.flushed_bytes + status.background.compacted_bytes


def run(context: Context) -> Iterator[Row]:
    """Count a short run that stays in the log, then a long one that is flushed and compacted meanwhile."""
    ours = Ours(context.folder, rows=ROWS)
    try:
        before = ours.db.status()
        asyncio.run(_update(ours, LOG_UPDATES, 0))
        after = ours.db.status()
        flushed = after.background.flushed_bytes != before.background.flushed_bytes
        log = float("nan") if flushed else (after.log_bytes - before.log_bytes) / COPIES / LOG_UPDATES
        device = _device_bytes()
        asyncio.run(_update(ours, context.updates, LOG_UPDATES // IN_FLIGHT))
        device = _device_bytes() - device
        end = ours.db.status()
    finally:
        ours.close()
    layers = _layer_bytes(end) - _layer_bytes(after)
    everything = log + layers / COPIES / context.updates
    yield Row("bytes", "hot log per copy and small update", log, "B", budget=Budget("<=", 120, "ours"))
    note = (
        f"{context.updates:,} of {FULL_UPDATES:,} updates of {ROWS:,} rows, one a transaction; "
        f"with what stripes pad and rewrite, the device saw {device / COPIES / context.updates:,.0f} B"
    )
    what = "log and layers per copy and small update"
    yield Row("bytes", what, everything, "B", budget=Budget("<=", 400, "ours"), note=note)
