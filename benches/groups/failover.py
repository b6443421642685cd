"""Failover as a client sees it: the longest gap between two commits that succeeded, under load from several threads."""

from __future__ import annotations

import threading
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import aurora_engine as au
from benches.measure import median
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benches.groups import Context

THREADS = 4
ROWS = 2_000
SETTLE_S = 0.25
MS = 1e3


class Cell(au.Row, key="id"):
    """A row that is updated over and over."""

    id: int
    value: int


def _load(db: au.Cluster, table: au.Table[Cell], during: Callable[[], None]) -> tuple[list[float], int]:
    """When commits of all threads succeeded, while `during` runs; and how many were tried again."""
    stop, times, retried = threading.Event(), [[] for _ in range(THREADS)], [0] * THREADS  # type: ignore[var-annotated]
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        n = thread
        while not stop.is_set():
            n += THREADS
            try:
                with db.transaction() as tx:
                    tx.update(table, n % ROWS, value=n)
            except au.Retryable:
                retried[thread] += 1
                continue
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)
                return
            times[thread].append(time.perf_counter())

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(SETTLE_S)
    during()
    time.sleep(SETTLE_S)
    stop.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sorted(at for each in times for at in each), sum(retried)


def _gap_ms(times: list[float]) -> float:
    return max(b - a for a, b in pairwise(times)) * MS


def _volume(path: Path, groups: int) -> tuple[au.Cluster, au.Table[Cell]]:
    """A volume of so many protection groups and more, with two replicas that have read every row."""
    small = 1 << 20
    db = au.open(path, replicas=2, segment_bytes=small if groups > 1 else None)
    table = db.create_table("cells", Cell)
    with db.transaction() as tx:
        for n in range(ROWS):
            tx.insert(table, Cell(n, 0))
    if groups > 1:
        fill = db.create_table("fill", Text)
        body, n = "x" * 30_000, 0
        while db.status().segments < groups:
            with db.transaction() as tx:
                for _ in range(100):
                    tx.insert(fill, Text(n, body))
                    n += 1
    for name in db.instances[1:]:
        db.instance(name).get_many(table, range(ROWS), after=db.vdl)
    return db, table


class Text(au.Row, key="id"):
    """A row that takes a page."""

    id: int
    body: str


def _first_reads_ms(db: au.Cluster, table: au.Table[Cell]) -> float:
    """How long reading every row takes."""
    begin = time.perf_counter()
    db.get_many(table, range(ROWS))
    return (time.perf_counter() - begin) * MS


def _fail_over(db: au.Cluster, force: bool, inside: list[float]) -> None:
    inside.append(db.failover(force=force).gap_s)


def run(context: Context) -> Iterator[Row]:
    """Planned, forced, and none at all for comparison, at 1 and at 100 protection groups."""
    for groups, limit in ((1, 20.0), (100, 100.0)):
        db, table = _volume(context.folder / str(groups), groups)
        try:
            quiet = median([_gap_ms(_load(db, table, lambda: time.sleep(0.1))[0]) for _ in range(context.rounds)])
            for kind, force in (("planned", False), ("forced", True)):
                gaps, retried, inside = [], 0, list[float]()
                fail_over = partial(_fail_over, db, force, inside)
                for _ in range(context.rounds):
                    times, tried = _load(db, table, fail_over)
                    gaps.append(_gap_ms(times))
                    retried += tried
                what = f"{kind} failover, {groups} group{'s' if groups > 1 else ''}: longest gap between commits"
                note = (
                    f"{quiet:.1f} ms without one; nobody could write for {median(inside) * MS:.2f} ms; worst gap"
                    f" {max(gaps):.1f} ms; {retried} transactions were tried again; {db.status().segments} groups"
                )
                yield Row("failover", what, median(gaps), "ms", budget=Budget("<=", limit, "ours"), note=note)
            db.failover()
            warm = _first_reads_ms(db, table)
            while len(db.instances) > 1:
                db.remove_replica(db.instances[-1])
            db.failover(force=True)
            cold = _first_reads_ms(db, table)
            note = f"{warm:.1f} ms at a promoted replica, {cold:.1f} ms at a writer made anew"
            what = f"{ROWS:,} rows read first thing after a failover, {groups} group{'s' if groups > 1 else ''}"
            yield Row("failover", what, warm, "ms", "cold writer", cold, warm / cold, note=note)
        finally:
            db.close()
