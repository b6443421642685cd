"""Open a new embedded cluster, ready for commits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import aurora_engine as au
from benches.measure import median
from benches.ours import Account
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.groups import Context


def _open_ms(*args: Any, **options: Any) -> tuple[float, float]:
    """Return how long open() took, and how long until the first row was durable."""
    start = time.perf_counter()
    db = au.open(*args, **options)
    opened = time.perf_counter()
    try:
        accounts = db.create_table("accounts", Account)
        with db.transaction() as tx:
            tx.insert(accounts, Account(1, "Ann", 0))
        return (opened - start) * 1e3, (time.perf_counter() - start) * 1e3
    finally:
        db.close()


def run(context: Context) -> Iterator[Row]:
    """Open new clusters, a fresh directory each."""
    disk, memory = [], []
    for i in range(2 * context.rounds):
        disk.append(_open_ms(context.folder / str(i)))
        memory.append(_open_ms(memory=True))
    for where, opened, limit in (("disk", disk, 500), ("memory", memory, 20)):
        ours = median([open_ms for open_ms, _ in opened])
        first = median([first_ms for _, first_ms in opened])
        note = f"with a table and its first durable row {first:.1f} ms"
        yield Row("open", f"open a new cluster, {where}", ours, "ms", budget=Budget("<=", limit, "ours"), note=note)
