"""Durable updates of one row by 16 Python threads, beside SQLite: each adds one, and nothing may be lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aurora_engine import col
from benches.measure import interleave, median, paired_ratio, run_threads
from benches.ours import Ours
from benches.peers.sqlite_peer import SqlitePeer, SqliteTurnsPeer
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benches.groups import Context

THREADS = 16
HOT = 7


def ours_step(ours: Ours) -> Callable[[int], None]:
    """Add one to the hot row, in a transaction of its own."""
    transaction, accounts = ours.db.transaction, ours.accounts

    def step(_n: int) -> None:
        with transaction() as tx:
            tx.update(accounts, HOT, balance=col("balance") + 1)

    return step


def run(context: Context) -> Iterator[Row]:
    """Compare the rates, then check that every update counts."""
    ours = Ours(context.folder / "ours")
    peers = [kind(context.folder / kind.__name__) for kind in (SqlitePeer, SqliteTurnsPeer)]
    try:
        slots = {ours.name: partial(run_threads, [ours_step(ours)] * THREADS, context.seconds)}
        for peer in peers:
            slots[peer.name] = partial(run_threads, [peer.adder(HOT) for _ in range(THREADS)], context.seconds)
        before = ours.db.vdl
        results = interleave(slots, context.rounds)
        row = ours.db.get(ours.accounts, HOT)
    finally:
        ours.close()
        for peer in peers:
            peer.close()
    counted = sum(sample.count for sample in results[ours.name])
    if row is None or row.balance < counted:
        raise AssertionError(f"expected at least {counted} updates in the row, got {row} (from LSN {before})")
    rates = {name: [sample.rate for sample in samples] for name, samples in results.items()}
    mine = rates.pop(ours.name)
    best = max(rates, key=lambda name: median(rates[name]))
    for name, peer_rates in rates.items():
        budget = Budget(">=", 10.0) if name == best else None
        what = f"updates/s of one row, {THREADS} threads, beside {name}"
        ratio = paired_ratio(mine, peer_rates)
        yield Row("hot_row", what, median(mine), "/s", "", median(peer_rates), ratio, budget)
