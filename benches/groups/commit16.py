"""Durable commits from 16 Python threads, one row each, against a bare group commit and the other engines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benches.measure import interleave, median, paired_ratio, run_threads
from benches.ours import Ours
from benches.peers.lmdb_peer import LmdbPeer
from benches.peers.probe_peer import ProbePeer
from benches.peers.rocksdb_peer import RocksdbPeer
from benches.peers.sqlite_peer import SqlitePeer, SqliteTurnsPeer
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.groups import Context

THREADS = 16


def run(context: Context) -> Iterator[Row]:
    """Compare the rate with the probe's, and with that of the fastest engine."""
    kinds = (Ours, ProbePeer, LmdbPeer, RocksdbPeer, SqlitePeer, SqliteTurnsPeer)
    engines = [kind(context.folder / kind.__name__) for kind in kinds]
    try:
        steps = {engine.name: [engine.committer(i, THREADS) for i in range(THREADS)] for engine in engines}
        slots = {name: partial(run_threads, each, context.seconds) for name, each in steps.items()}
        results = interleave(slots, context.rounds)
    finally:
        for engine in engines:
            engine.close()
    rates = {name: [sample.rate for sample in samples] for name, samples in results.items()}
    ours = rates.pop(Ours.name)
    best = max((name for name in rates if name != ProbePeer.name), key=lambda name: median(rates[name]))
    budgets = {ProbePeer.name: Budget(">=", 0.8), best: Budget(">=", 3.0)}
    for name, peer in rates.items():
        what = f"commits/s, {THREADS} threads, beside {name}" + (" (the best engine)" if name == best else "")
        note = f"p99 {median([sample.p99_us for sample in results[Ours.name]]):,.0f} us" if name == best else ""
        row = Row("commit16", what, median(ours), "/s", "", median(peer), paired_ratio(ours, peer), budgets.get(name))
        yield Row(**{**vars(row), "note": note})
