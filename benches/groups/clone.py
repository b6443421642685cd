"""Clones of a small and of a large volume, in memory and on disk, and what a test's fixture costs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import aurora_engine as au
from benches.measure import median
from benches.ours import Ours
from benches.report import Budget, Row
from benches.volumes import fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benches.groups import Context


def _clone_ms(db: au.Cluster, path: Path | None) -> tuple[float, float, float]:
    """Return how long the clone took, its first look-up, and its end."""
    start = time.perf_counter()
    clone = db.clone(memory=True) if path is None else db.clone(path)
    cloned = time.perf_counter()
    clone.get(clone.table(clone.tables()[0]), 1)
    looked = time.perf_counter()
    clone.close()
    return (cloned - start) * 1e3, (looked - cloned) * 1e3, (time.perf_counter() - looked) * 1e3


def _rows(name: str, db: au.Cluster, context: Context, folder: Path | None, limit: float) -> Iterator[Row]:
    taken = [_clone_ms(db, folder and folder / f"clone-{i}") for i in range(4 * context.rounds)]
    whole, look, end = (median(part) for part in zip(*taken, strict=True))
    note = f"first look-up {look:.1f} ms, closing {end:.1f} ms"
    yield Row("clone", f"clone {name}", whole, "ms", budget=Budget("<=", limit, "ours"), note=note)


def run(context: Context) -> Iterator[Row]:
    """Clone what is in memory, what is small on disk, and what is large."""
    ours = Ours(None, rows=10_000)
    yield from _rows("of 1 MB in memory, in memory", ours.db, context, None, 5)
    ours.close()
    ours = Ours(context.folder / "small", rows=10_000)
    yield from _rows("of 1 MB on disk, on disk", ours.db, context, context.folder, 50)
    yield from _rows("of 1 MB on disk, in memory", ours.db, context, None, 5)
    ours.close()
    large = context.folder / "large"
    fill(large, int(context.volume_gb * 1e9))
    with au.open(large) as db:
        name = f"of {context.volume_gb:g} GB on disk"
        yield from _rows(f"{name}, on disk", db, context, context.folder / "of-large", 50)
        yield from _rows(f"{name}, in memory", db, context, None, 5)
