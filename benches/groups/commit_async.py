"""Durable commits from asyncio, 1,000 in flight."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benches.measure import Sample, fresh, median
from benches.ours import Ours
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from benches.groups import Context

IN_FLIGHT = 1_000


async def in_flight(steps: list[Callable[[int], Awaitable[None]]], seconds: float) -> Sample:
    """Let every task commit one after the other for so long; the latency is that of each await."""
    clock = time.perf_counter_ns
    latencies: list[int] = []
    begin = clock()
    end = begin + int(seconds * 1e9)

    async def work(step: Callable[[int], Awaitable[None]]) -> None:
        n, before = fresh(), clock()
        while before < end:
            await step(n)
            after = clock()
            latencies.append(after - before)
            before, n = after, n + 1

    await asyncio.gather(*(work(step) for step in steps))
    return Sample.of(latencies, (clock() - begin) / 1e9)


def run(context: Context) -> Iterator[Row]:
    """Report the rate and its latency; the first round warms up."""
    ours = Ours(context.folder)
    try:
        steps = [ours.async_committer(i, IN_FLIGHT) for i in range(IN_FLIGHT)]
        samples = [asyncio.run(in_flight(steps, 2 * context.seconds)) for _ in range(context.rounds + 1)][1:]
    finally:
        ours.close()
    what = f"commits/s, asyncio, {IN_FLIGHT:,} in flight"
    rate, p50, p99 = (median([getattr(s, field) for s in samples]) for field in ("rate", "p50_us", "p99_us"))
    yield Row("commit_async", what, rate, "/s", budget=Budget(">=", 40_000, "ours"))
    yield Row("commit_async", f"{what}: p99", p99 / 1e3, "ms", note=f"p50 {p50 / 1e3:.1f} ms")
