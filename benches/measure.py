"""Timing that survives a noisy machine: ours and the peers in turn, several rounds, medians of paired ratios."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """What one slot of one round saw."""

    rate: float
    p50_us: float
    p99_us: float
    count: int

    @classmethod
    def of(cls, latencies_ns: list[int], elapsed_s: float) -> Sample:
        """Summarise the latencies of everything that finished within `elapsed_s`."""
        latencies_ns.sort()
        count = len(latencies_ns)
        if not count:
            return cls(0.0, float("inf"), float("inf"), 0)
        p50, p99 = latencies_ns[count // 2], latencies_ns[min(count - 1, count * 99 // 100)]
        return cls(count / elapsed_s, p50 / 1e3, p99 / 1e3, count)


def fresh() -> int:
    """Return where to count on from, so that no step repeats a value: an update to the same value may write nothing."""
    return time.monotonic_ns() // 1_000


def run_one(step: Callable[[int], object], seconds: float) -> Sample:
    """Call `step(n)` with n rising, in this thread, for so long."""
    clock, latencies, n = time.perf_counter_ns, [], fresh()
    begin = before = clock()
    end = begin + int(seconds * 1e9)
    while before < end:
        step(n)
        after = clock()
        latencies.append(after - before)
        before, n = after, n + 1
    return Sample.of(latencies, (before - begin) / 1e9)


def run_threads(steps: Sequence[Callable[[int], object]], seconds: float) -> Sample:
    """Call each step in a thread of its own for so long, at least once; all begin together. An error is raised here."""
    clock = time.perf_counter_ns
    latencies: list[list[int]] = [[] for _ in steps]
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(steps) + 1)
    deadline = [0]

    def work(index: int, step: Callable[[int], object]) -> None:
        mine, n = latencies[index], fresh()
        barrier.wait()
        end, before = deadline[0], clock()
        try:
            while not mine or before < end:
                step(n)
                after = clock()
                mine.append(after - before)
                before, n = after, n + 1
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(steps)]
    for thread in threads:
        thread.start()
    begin = clock()
    deadline[0] = begin + int(seconds * 1e9)
    barrier.wait()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Sample.of([ns for mine in latencies for ns in mine], (clock() - begin) / 1e9)


def interleave(slots: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every slot once a round, each round beginning with another one; the first round is a warm-up."""
    results: dict[str, list[T]] = {name: [] for name in slots}
    names = list(slots)
    for round_index in range(rounds + 1):
        shift = round_index % len(names)
        for name in names[shift:] + names[:shift]:
            result = slots[name]()
            if round_index:
                results[name].append(result)
    return results


def median(values: Sequence[float]) -> float:
    """Return the median; of nothing, NaN."""
    return statistics.median(values) if values else float("nan")


def paired_ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """Return the median over the rounds of ours / peer, each taken within one round."""
    return median([a / b for a, b in zip(ours, peer, strict=True) if b])
