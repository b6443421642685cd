"""Single operations, 1 and 16 threads, data in the cache and ten times the cache, beside SQLite, LMDB and RocksDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aurora_engine as au
from benches.measure import Sample, interleave, median, paired_ratio, run_one, run_threads
from benches.peers.mix_peers import PAYLOAD, PEERS, RANGE, Keys, MixPeer, Steps, tag_of
from benches.report import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benches.groups import Context

ROW_BYTES = 200
"""About what a row takes, with its entry of the index."""
SMALL_CACHE_BYTES = 4 << 20
"""The least that our buffer pool takes."""
CASES = (
    ("in the cache", 20_000, 256 << 20),
    ("ten times the cache", 10 * SMALL_CACHE_BYTES // ROW_BYTES, SMALL_CACHE_BYTES),
)
"""What, rows, bytes of the cache."""
OPERATIONS = {
    "insert": "inserts",
    "update": "updates",
    "delete": "deletes, each followed by the same insert",
    "get": "gets",
    "range": f"ranges of {RANGE}",
    "index": "look-ups by an index",
}
THREADS = (1, 16)


class Mix(au.Row, key="id", indexes=[au.index("by_tag", "tag")]):
    """The row, of the same columns as the peers'."""

    id: int
    tag: int
    payload: str


class OurMix:
    """A cluster of six copies on disk."""

    name = "aurora-engine"

    def __init__(self, folder: Path, rows: int, cache_bytes: int) -> None:
        self._rows = rows
        self._db = au.open(folder, cache_bytes=cache_bytes)
        self._table = self._db.create_table("mix", Mix)
        self._db.load(self._table, (Mix(i, tag_of(i), PAYLOAD) for i in range(rows)), show_progress=False)
        self._index = self._table.index("by_tag")

    def steps(self, thread: int, threads: int) -> Steps:
        """Return a thread's operations."""
        db, table, index, keys = self._db, self._table, self._index, Keys(self._rows, thread, threads)

        def insert(n: int) -> None:
            key = keys.new(n)
            with db.transaction() as tx:
                tx.insert(table, Mix(key, tag_of(key), PAYLOAD))

        def update(n: int) -> None:
            with db.transaction() as tx:
                tx.update(table, keys.own(), payload=f"{PAYLOAD}{n}")

        def again(_n: int) -> None:
            key = keys.own()
            with db.transaction() as tx:
                tx.delete(table, key)
            with db.transaction() as tx:
                tx.insert(table, Mix(key, tag_of(key), PAYLOAD))

        def in_order(_n: int) -> object:
            with db.view() as view:
                return list(view.range(table, keys.start(), limit=RANGE))

        def look_up(_n: int) -> object:
            with db.view() as view:
                return next(view.range(index, prefix=tag_of(keys.any()), limit=1), None)

        return {
            "insert": insert, "update": update, "delete": again, "range": in_order, "index": look_up,
            "get": lambda _n: db.get(table, keys.any()),
        }  # fmt: skip

    def close(self) -> None:
        """Close the cluster."""
        self._db.close()


def slot(engine: MixPeer, operation: str, threads: int, seconds: float) -> Callable[[], Sample]:
    """Return what measures one operation of one engine."""
    steps = [engine.steps(thread, threads)[operation] for thread in range(threads)]
    if threads == 1:
        return lambda: run_one(steps[0], seconds)
    return lambda: run_threads(steps, seconds)


def run(context: Context, rows: int | None = None) -> Iterator[Row]:
    """Measure each operation with each engine in turn; ``rows`` makes the tables smaller, to try it out."""
    for case, (what, most, cache_bytes) in enumerate(CASES):
        count = most if rows is None else min(most, rows)
        engines = [made(context.folder / f"{case}-{made.name}", count, cache_bytes) for made in (OurMix, *PEERS)]
        try:
            for operation, plural in OPERATIONS.items():
                for threads in THREADS:
                    slots = {engine.name: slot(engine, operation, threads, context.seconds) for engine in engines}
                    results = interleave(slots, context.rounds)
                    rates = {name: [sample.rate for sample in samples] for name, samples in results.items()}
                    ours = rates[OurMix.name]
                    many = "1 thread" if threads == 1 else f"{threads} threads"
                    for peer in PEERS:
                        yield Row(
                            "mixes", f"{plural}, {many}, data {what}", median(ours), "/s", peer.name,
                            median(rates[peer.name]), paired_ratio(ours, rates[peer.name]), None,
                        )  # fmt: skip
        finally:
            for engine in engines:
                engine.close()
