"""A thousand rows by one call, durable, beside executemany of SQLite and DuckDB in one transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import aurora_engine as au
from benches.measure import interleave, median, paired_ratio
from benches.peers.load_peers import DuckdbInserts, SqliteInserts
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benches.groups import Context

MANY = 1_000


class Plain(au.Row, key="id"):
    """The row that is inserted, of the same columns as the peers'."""

    id: int
    owner: str
    balance: int
    rate: float


def rows_per_s(insert: Callable[[list[tuple[int, str, int, float]]], object], seconds: float) -> float:
    """Insert new rows, in the order of their ids, for so long."""
    done, took = 0, 0.0
    first = time.monotonic_ns()
    while took < seconds:
        rows = [(first + i, f"owner {i}", i * 7, i / 3) for i in range(MANY)]
        begin = time.perf_counter()
        insert(rows)
        took += time.perf_counter() - begin
        done, first = done + MANY, first + MANY
    return done / took


def run(context: Context) -> Iterator[Row]:
    """Commit a thousand rows at a time with each."""
    sqlite, duckdb = SqliteInserts(context.folder / "sqlite"), DuckdbInserts(context.folder / "duckdb")
    with au.open(context.folder / "ours") as db:
        table = db.create_table("plain", Plain)
        slots = {
            "tuples": lambda: rows_per_s(lambda rows: db.insert_many(table, rows), context.seconds),
            "typed": lambda: rows_per_s(
                lambda rows: db.insert_many(table, [Plain(*row) for row in rows]), context.seconds
            ),
            "sqlite": lambda: rows_per_s(sqlite.insert, context.seconds),
            "duckdb": lambda: rows_per_s(duckdb.insert, context.seconds),
        }
        results = interleave(slots, context.rounds)
    sqlite.close()
    duckdb.close()
    for what, name, peer, peer_name, budget in (
        (f"insert_many of {MANY:,} tuples, rows/s", "tuples", "sqlite", "SQLite FULL+WAL", Budget(">=", 1.0)),
        (f"insert_many of {MANY:,} tuples, rows/s, beside DuckDB", "tuples", "duckdb", "DuckDB", None),
        (
            f"insert_many of {MANY:,} typed rows that are made for it, rows/s",
            "typed",
            "sqlite",
            "SQLite FULL+WAL",
            None,
        ),
    ):
        a, b = results[name], results[peer]
        yield Row("insert_many", what, median(a), "/s", peer_name, median(b), paired_ratio(a, b), budget)
