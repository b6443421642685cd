"""Ranges: conditions, columns and limits, forward and back, over more data than the cache holds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Item(au.Row, key=("shelf", "place")):
    shelf: int
    place: int
    name: str
    price: Annotated[Decimal, au.precision(8, 2)] = Decimal(0)
    note: str | None = None


LONG = "x" * 20_000


def items(shelves: int, places: int) -> list[Item]:
    return [
        Item(s, p, f"item {s}.{p}", Decimal(s * p) / 4, LONG if (s, p) == (3, 3) else f"n{p}" if p % 3 else None)
        for s in range(shelves)
        for p in range(places)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[au.Cluster, au.Table[Item]]]:
    with au.open(memory=True) as db:
        table = db.create_table("items", Item)
        db.load(table, items(20, 50))
        yield db, table


CONDITIONS: list[tuple[Any, Any]] = [
    (None, lambda row: True),
    (col("place") > 40, lambda row: row.place > 40),
    ((col("price") >= Decimal("7.5")) & (col("shelf") < 5), lambda row: row.price >= Decimal("7.5") and row.shelf < 5),
    (col("note").is_null(), lambda row: row.note is None),
    (col("note") == "n4", lambda row: row.note == "n4"),
    (col("note") == LONG, lambda row: row.note == LONG),
    (col("place") < 0, lambda row: False),
]


@given(
    condition=st.sampled_from(CONDITIONS),
    lo=st.none() | st.integers(0, 19), hi=st.none() | st.integers(0, 20),
    limit=st.none() | st.integers(0, 30), reverse=st.booleans(),
    columns=st.none() | st.lists(st.sampled_from(Item.__match_args__), min_size=1, unique=True),
    own=st.booleans(),
)  # fmt: skip
def test_a_range_is_what_filtering_a_list_gives(
    shop: tuple[au.Cluster, au.Table[Item]], condition: Any, lo: int | None, hi: int | None, limit: int | None,
    reverse: bool, columns: list[str] | None, own: bool,
) -> None:  # fmt: skip
    db, table = shop
    rows = {(row.shelf, row.place): row for row in items(20, 50)}
    with db.transaction() as tx:
        if own:
            for key in ((2, 7), (3, 3), (9, 49)):
                tx.delete(table, key)
                del rows[key]
            rows[2, 41] = Item(2, 41, "mine", Decimal(100), "n4")
            tx.upsert(table, rows[2, 41])
        test, met = condition
        expected = [rows[key] for key in sorted(rows, reverse=reverse)]
        expected = [row for row in expected if (lo is None or row.shelf >= lo) and (hi is None or row.shelf < hi)]
        expected = [row for row in expected if met(row)][:limit]
        found: list[Any] = list(
            tx.range(table, lo, hi, where=test, limit=limit, reverse=reverse, columns=columns)  # type: ignore[call-overload]
        )
        if columns is None:
            assert found == expected
        else:
            assert [au.astuple(row) for row in found] == [
                tuple(getattr(row, name) for name in columns) for row in expected
            ]
        tx.rollback()


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        (5, ex.TypeMismatch, r'where: expected a condition, as col\("n"\) > 3, got int 5'),
        (True, ex.TypeMismatch, "where: expected a condition"),
        (col("place") + 1, ex.TypeMismatch, "where="),
        (col("nowhere") > 1, ex.UnknownColumn, "nowhere"),
        (col("name") > 1, ex.TypeMismatch, "where="),
    ],
)
def test_what_is_no_condition(shop: Any, where: Any, error: type[ex.AuroraError], message: str) -> None:
    db, table = shop
    with db.view() as view, pytest.raises(error, match=message):
        view.range(table, where=where)


def test_a_condition_that_fails_on_a_row_says_so(shop: Any) -> None:
    db, table = shop
    with db.view() as view:
        over = view.range(table, where=col("place") / (col("place") - 3) > 1)
        with pytest.raises(ex.ValueOutOfRange, match="zero"):
            list(over)


async def test_a_condition_on_a_loop(shop: Any) -> None:
    db, table = shop
    async with db.aio.transaction(read_only=True) as tx:
        found = [row.place async for row in tx.range(table, 3, 4, where=col("place") >= 48)]
    assert found == [48, 49]


class Blob(au.Row, key="id"):
    id: int
    version: int
    text: str


def test_ten_times_the_cache_is_loaded_read_and_changed_within_its_budget(tmp_path: Path) -> None:
    cache = 4 << 20
    count = 40_000
    text = "".join(chr(33 + (i * i * 7 + i) % 90) for i in range(2_000))

    def row(i: int, version: int) -> Blob:
        start = i * 31 % 900
        return Blob(i, version, text[start : start + 1_000])

    with au.open(tmp_path / "db", cache_bytes=cache, window=dt.timedelta(0)) as db:
        table = db.create_table("blobs", Blob)
        assert db.load(table, (row(i, 0) for i in range(count)), memory_bytes=2 << 20) == count

        def check() -> None:
            used = db.status().cache.bytes
            assert used <= cache + (1 << 20), f"{used} bytes of a cache of {cache}"

        check()
        # Read through, in both directions, with a reader that keeps its place meanwhile.
        with db.view() as view:
            slow = view.range(table, columns=["id"])
            assert [next(slow).id for _ in range(3)] == [0, 1, 2]
            assert sum(1 for _ in view.range(table, columns=["id"])) == count
            check()
            back = view.range(table, reverse=True, columns=["id"])
            assert [one.id for one in back] == list(range(count - 1, -1, -1))
            # Rows all over the table change under the open view, which still sees what was there.
            for first in range(0, count, 1_000):
                db.upsert_many(table, [row(i, 1) for i in range(first, first + 125)])
                # What a commit changed stays in memory until it is durable; the next page to come makes room.
                assert db.get(table, (first * 7 + 500) % count) is not None
                check()
            assert view.get(table, 8) == row(8, 0)
            assert [one.id for one in slow] == list(range(3, count))
        check()
        assert db.get(table, 8) == row(8, 1)
        assert sum(one.version for one in db.scan(table)) == count // 8
        # Another load on top of it: merged, as it does not fit into the memory for sorting.
        more = (row(i, 2) for i in range(count - 10, count + 6_000))
        assert db.load(table, more, on_conflict="skip", memory_bytes=2 << 20) == 6_000
        check()
        assert db.scan(table).count() == count + 6_000
    with au.open(tmp_path / "db", cache_bytes=cache) as db:
        table = db.table("blobs", Blob)
        assert db.get_many(table, [0, 999, count, count + 5_999]) == [
            row(0, 1), row(999, 0), row(count, 2), row(count + 5_999, 2),
        ]  # fmt: skip
