"""Durable commits: one thread, 16 threads, 1,000 in flight."""

from __future__ import annotations

import asyncio

from benches.measure import fresh, run_threads

THREADS = 16
IN_FLIGHT = 1_000


def test_one_row_from_one_thread(benchmark, ours):
    commit, numbers = ours.committer(0, 1), iter(range(fresh(), 1 << 62))
    benchmark.pedantic(lambda: commit(next(numbers)), rounds=1_000, warmup_rounds=50)


def test_sixteen_threads_for_a_fifth_of_a_second(benchmark, ours):
    steps = [ours.committer(i, THREADS) for i in range(THREADS)]
    samples = []
    benchmark.pedantic(lambda: samples.append(run_threads(steps, 0.2)), rounds=5, warmup_rounds=1)
    benchmark.extra_info["commits_per_s"] = [round(sample.rate) for sample in samples]


def test_a_thousand_in_flight_ten_each(benchmark, ours):
    steps = [ours.async_committer(i, IN_FLIGHT) for i in range(IN_FLIGHT)]

    async def work(step) -> None:
        first = fresh()
        for n in range(first, first + 10):
            await step(n)

    async def everything() -> None:
        await asyncio.gather(*(work(step) for step in steps))

    benchmark.pedantic(lambda: asyncio.run(everything()), rounds=5, warmup_rounds=1)
