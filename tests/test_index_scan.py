"""Scans by an index: rows and Arrow, both ways, with conditions and columns, of more data than the cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Item(
    au.Row,
    key="id",
    indexes=[au.index("by_shelf", "shelf", au.desc("place")), au.index("by_name", "name", unique=True)],
):
    id: int
    shelf: int | None
    place: int
    name: str
    note: str | None = None


LONG = "x" * 20_000


def items(count: int) -> list[Item]:
    return [
        Item(i, None if i % 11 == 0 else i * 7 % 13, i * 31 % 97, f"n{i * 7919 % count:06}", LONG if i == 77 else None)
        for i in range(count)
    ]  # fmt: skip


def by_shelf(row: Item) -> tuple[Any, ...]:
    return (row.shelf is not None, row.shelf or 0, -row.place, row.id)


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[au.Cluster, au.Table[Item]]]:
    with au.open(memory=True) as db:
        table = db.create_table("items", Item)
        db.insert_many(table, items(1500))
        yield db, table


@given(
    lo=st.none() | st.integers(0, 13), hi=st.none() | st.integers(0, 13), reverse=st.booleans(),
    limit=st.none() | st.integers(0, 40), most=st.none() | st.integers(0, 97), part=st.booleans(),
)  # fmt: skip
def test_rows_and_arrow_agree_with_a_model(
    shop: tuple[au.Cluster, au.Table[Item]], lo: int | None, hi: int | None, reverse: bool, limit: int | None,
    most: int | None, part: bool,
) -> None:  # fmt: skip
    db, table = shop
    rows = sorted(items(1500), key=by_shelf)
    if lo is not None:
        rows = [row for row in rows if row.shelf is not None and row.shelf >= lo]
    if hi is not None:
        rows = [row for row in rows if row.shelf is None or row.shelf < hi]
    if reverse:
        rows.reverse()
    if most is not None:
        rows = [row for row in rows if row.place < most]
    rows = rows[:limit]
    index = table.index("by_shelf")
    scan = db.scan(index, lo, hi, reverse=reverse)
    if most is not None:
        scan = scan.filter(col("place") < most)
    if part:
        scan = scan.select("id", "note")
    if limit is not None:
        scan = scan.limit(limit)
    frame = pl.DataFrame(scan)
    assert frame["id"].to_list() == [row.id for row in rows]
    assert frame["note"].to_list() == [row.note for row in rows]
    assert scan.to_dicts() == frame.to_dicts()
    assert scan.count() == len(rows)
    with db.view() as view:
        where = None if most is None else col("place") < most
        columns = ["id", "note"] if part else None
        got = view.range(index, lo, hi, reverse=reverse, limit=limit, where=where, columns=columns)
        assert [(row.id, row.note) for row in got] == [(row.id, row.note) for row in rows]


def test_the_key_can_be_scanned_backwards_too(shop: tuple[au.Cluster, au.Table[Item]]) -> None:
    db, table = shop
    back = db.scan(table, 10, 900, reverse=True)
    ids = list(range(899, 9, -1))
    assert [row.id for row in back] == ids
    assert pa.table(back)["id"].to_pylist() == ids
    assert pa.table(back.filter(col("id") % 2 == 0).limit(3))["id"].to_pylist() == [898, 896, 894]
    assert [row["id"] for row in back.limit(4).to_dicts()] == ids[:4]
    assert repr(back) == '<Scan of table "items">'


def test_queries_by_an_index(shop: tuple[au.Cluster, au.Table[Item]]) -> None:
    db, table = shop
    index = table.index("by_shelf")
    scan = db.scan(index, prefix=5)
    model = sorted((row for row in items(1500) if row.shelf == 5), key=by_shelf)
    assert list(scan) == model
    total = scan.agg(places=col("place").sum(), rows=au.count()).to_dicts()
    assert total == [{"places": sum(row.place for row in model), "rows": len(model)}]
    assert [row["name"] for row in scan.sort("name").limit(2).to_dicts()] == sorted(row.name for row in model)[:2]
    assert 'by index "by_shelf"' in scan.explain(analyze=True)
    assert repr(scan) == '<Scan of table "items" by index "by_shelf">'
    with pytest.raises(ex.TypeMismatch, match="a table or an index"):
        db.scan("items")  # type: ignore[call-overload, arg-type]


def test_a_transaction_sees_its_own_changes_and_an_ended_one_none(db_items: tuple[au.Cluster, au.Table[Item]]) -> None:
    db, table = db_items
    by_name = table.index("by_name")
    with db.transaction() as tx:
        tx.update(table, 3, name="a first")
        tx.delete(table, 4)
        tx.insert(table, Item(1000, 1, 1, "b second"))
        names = pa.table(tx.scan(by_name).select("name"))["name"].to_pylist()
        assert names[:2] == ["a first", "b second"]
        assert len(names) == 100
        scan = tx.scan(by_name)
    with pytest.raises(ex.TransactionClosed):
        pa.table(scan)
    # Written from what is read by an index of the same transaction.
    copy = db.create_table("copy", Item)
    with db.transaction() as tx:
        assert tx.insert_many(copy, tx.scan(by_name, "a", "c")) == 2


@pytest.fixture
def db_items() -> Iterator[tuple[au.Cluster, au.Table[Item]]]:
    with au.open(memory=True) as db:
        table = db.create_table("items", Item)
        db.insert_many(table, items(100))
        yield db, table


def test_cold_scans_fetch_what_comes(tmp_path: Path) -> None:
    count = 40_000
    with au.open(tmp_path / "db") as db:
        table = db.create_table("items", Item)
        db.insert_many(table, items(count))
    with au.open(tmp_path / "db", cache_bytes=4 << 20) as db:
        table = db.table("items", Item)
        before = db.status().cache.prefetched
        assert pa.table(db.scan(table).select("id"))["id"].to_pylist() == list(range(count))
        keyed = db.status().cache.prefetched
        assert keyed > before
        scan = db.scan(table.index("by_name"), reverse=True).select("name").limit(2_000)
        names = pa.table(scan)["name"].to_pylist()
        assert names == [f"n{count - 1 - i:06}" for i in range(2_000)]
        assert db.status().cache.prefetched > keyed
