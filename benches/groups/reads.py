"""Point reads of typed rows by one Python thread, warm, beside sqlite3; and a hundred keys at once."""

from __future__ import annotations

import random
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import aurora_engine as au
from benches.measure import interleave, median, paired_ratio
from benches.peers.sqlite_reads import SqliteReads
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benches.groups import Context

ROWS = 100_000
MANY = 100


class Plain(au.Row, key="id"):
    """A row of int, text and float."""

    id: int
    owner: str
    balance: int
    rate: float


class Exact(au.Row, key="id"):
    """A row with a decimal and a uuid."""

    id: int
    price: Annotated[Decimal, au.precision(18, 2)]
    reference: UUID


def rate(read: Callable[[Any], Any], arguments: Sequence[Any], seconds: float, each: int = 1) -> float:
    """Return rows per second, reading by each argument in turn."""
    reads, begin = 0, time.perf_counter()
    end = begin + seconds
    while True:
        for argument in arguments:
            read(argument)
        reads += len(arguments)
        now = time.perf_counter()
        if now >= end:
            return reads * each / (now - begin)


def _load(db: au.Cluster, name: str, row: type[au.Row], rows: list[tuple[Any, ...]]) -> Any:
    table = db.create_table(name, row)
    for first in range(0, len(rows), 5_000):
        with db.transaction() as tx:
            for values in rows[first : first + 5_000]:
                tx.insert(table, row(*values))
    return table


def run(context: Context) -> Iterator[Row]:
    """Read the same random keys from both, in turn."""
    rng = random.Random(1)
    plain = [(i, f"owner {i}", i * 7, i / 3) for i in range(ROWS)]
    exact = [(i, Decimal(i * 31) / 100, UUID(int=rng.getrandbits(128))) for i in range(ROWS)]
    keys = [rng.randrange(ROWS) for _ in range(2_000)]
    lists = [[rng.randrange(ROWS) for _ in range(MANY)] for _ in range(50)]
    peer = SqliteReads(context.folder / "sqlite", plain, exact)
    seconds = context.seconds / 2
    with au.open(context.folder / "ours") as db:
        plains, exacts = _load(db, "plain", Plain, plain), _load(db, "exact", Exact, exact)
        with db.view() as view:
            sqlite_plain, sqlite_exact, sqlite_many = peer.plain(), peer.exact(), peer.many(MANY)
            slots: dict[str, Callable[[], float]] = {
                "plain": lambda: rate(lambda key: view.get(plains, key), keys, seconds),
                "plain, sqlite3": lambda: rate(sqlite_plain, keys, seconds),
                "exact": lambda: rate(lambda key: view.get(exacts, key), keys, seconds),
                "exact, sqlite3": lambda: rate(sqlite_exact, keys, seconds),
                "many": lambda: rate(lambda some: view.get_many(plains, some), lists, seconds, MANY),
                "many, sqlite3": lambda: rate(sqlite_many, lists, seconds, MANY),
                "db.get": lambda: rate(lambda key: db.get(plains, key), keys, seconds),
            }
            results = interleave(slots, context.rounds)
    peer.close()
    for what, ours, other, name, budget in (
        ("point reads/s, typed row: int, text, float", "plain", "plain, sqlite3", "sqlite3", Budget(">=", 1.5)),
        ("point reads/s, typed row: decimal, uuid", "exact", "exact, sqlite3", "sqlite3", Budget(">=", 1.0)),
        (f"rows/s, {MANY} keys at once, beside one by one", "many", "plain, sqlite3", "sqlite3", Budget(">=", 4.0)),
        (f"rows/s, {MANY} keys at once, beside IN (...)", "many", "many, sqlite3", "sqlite3 IN", None),
        ("point reads/s, each at the newest LSN (db.get)", "db.get", "plain, sqlite3", "sqlite3", None),
    ):
        a, b = results[ours], results[other]
        yield Row("reads", what, median(a), "/s", name, median(b), paired_ratio(a, b), budget)
