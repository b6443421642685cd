"""Durable commits of one row from one thread, against the bare probe and SQLite."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benches.measure import interleave, median, paired_ratio, run_one
from benches.ours import Ours
from benches.peers.probe_peer import ProbePeer
from benches.peers.sqlite_peer import SqlitePeer
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.groups import Context


def run(context: Context) -> Iterator[Row]:
    """Compare latency with the probe and rate with SQLite."""
    engines = [Ours(context.folder / "ours"), ProbePeer(context.folder), SqlitePeer(context.folder)]
    try:
        steps = {engine.name: engine.committer(0, 1) for engine in engines}
        slots = {name: partial(run_one, step, context.seconds) for name, step in steps.items()}
        results = interleave(slots, context.rounds)
    finally:
        for engine in engines:
            engine.close()
    ours, probe, sqlite = (results[engine.name] for engine in engines)
    for what, field, budget in (
        ("p50", "p50_us", Budget("<=", 1.25)),
        ("p99", "p99_us", Budget("<=", 2.0)),
    ):
        a, b = ([getattr(sample, field) for sample in samples] for samples in (ours, probe))
        name = f"commit, 1 thread, six copies, {what}"
        yield Row("commit1", name, median(a), "us", ProbePeer.name, median(b), paired_ratio(a, b), budget)
    a, b = ([sample.rate for sample in samples] for samples in (ours, sqlite))
    what = "commits/s, 1 thread"
    yield Row("commit1", what, median(a), "/s", SqlitePeer.name, median(b), paired_ratio(a, b), Budget(">=", 0.9))
