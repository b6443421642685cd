"""Indexes on expressions: kept with every change, unique, built under load, and clear about rows without a value."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Account(
    au.Row,
    key="id",
    indexes=[
        au.index("by_mail", col("mail").str.to_lowercase(), unique=True),
        au.index("by_total", au.desc(col("price") * col("count")), "owner"),
    ],
):
    id: int
    owner: str
    mail: str | None
    price: Annotated[Decimal, au.precision(10, 2)] = Decimal(0)
    count: int = 1
    note: str | None = None


class Plain(au.Row, key="id"):
    id: int
    n: int
    text: str


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


def test_rows_are_found_by_what_is_computed(db: au.Cluster) -> None:
    accounts = db.create_table("accounts", Account)
    by_mail, by_total = accounts.index("by_mail"), accounts.index("by_total")
    assert by_mail.columns == (("mail.to_lowercase()", False),) or by_mail.columns[0][0]
    assert by_total.columns[0][1] is True
    assert by_total.columns[1] == ("owner", False)
    assert "desc" in repr(by_total)
    with db.transaction() as tx:
        tx.insert(accounts, Account(1, "ann", "Ann@X", Decimal("2.50"), 4))
        tx.insert(accounts, Account(2, "bob", None, Decimal("1.00"), 3))
        # Its own changes are there before the commit.
        found = tx.get(by_mail, "ann@x")
        assert found is not None
        assert found.id == 1
        with pytest.raises(ex.DuplicateKey, match=r'index "by_mail": expected no row with key \("ann@x"\)'):
            tx.insert(accounts, Account(3, "cid", "aNN@x"))
        tx.insert(accounts, Account(3, "cid", None, Decimal("2.00"), 5))
    with db.view() as view:
        assert [row.id for row in view.range(by_total)] == [1, 3, 2]
        assert [row.id for row in view.range(by_total, prefix=Decimal("10.00"))] == [1, 3]
        assert [row.id for row in view.range(by_total, prefix=(Decimal(10), "cid"))] == [3]
    with db.transaction() as tx:
        tx.update(accounts, 1, mail="ANNA@x", count=1)
        tx.delete(accounts, 2)
    assert db.get(by_mail, "ann@x") is None
    assert db.get(by_mail, "anna@x") == Account(1, "ann", "ANNA@x", Decimal("2.50"), 1)
    assert pa.table(db.scan(by_total).select("id"))["id"].to_pylist() == [3, 1]


def test_an_index_is_built_on_rows_that_are_there_and_survives_reopening(tmp_path: Path) -> None:
    with au.open(tmp_path / "db") as db:
        plain = db.create_table("plain", Plain)
        db.insert_many(plain, [Plain(i, i % 10, f"Text {i % 7}") for i in range(1000)])
        index = db.create_index(plain, "by_both", col("n") % 3, col("text").str.to_uppercase())
        assert db.create_index(plain, "by_both", col("n") % 3, col("text").str.to_uppercase(), exist_ok=True)
        with pytest.raises(ex.IndexExists):
            db.create_index(plain, "by_both", col("n") % 4, exist_ok=True)
        with db.view() as view:
            rows = list(view.range(index, prefix=(2, "TEXT 5")))
        assert [row.id for row in rows] == [i for i in range(1000) if i % 10 % 3 == 2 and i % 7 == 5]
        db.rename_column(plain, "n", "number")
        with pytest.raises(ex.SchemaError, match='index "by_both"'):
            db.drop_column("plain", "number")
    with au.open(tmp_path / "db") as db:
        table = db.table("plain")
        assert "number" in table.index("by_both").columns[0][0]
        assert db.scan(table.index("by_both"), prefix=(2, "TEXT 5")).count() == len(rows)
        with db.transaction() as tx:
            tx.update(table, 5, number=2, text="text 5")
        with db.view() as view:
            assert 5 in [row.id for row in view.range(table.index("by_both"), prefix=(2, "TEXT 5"))]


def test_a_row_without_a_value_is_refused_and_named(db: au.Cluster) -> None:
    plain = db.create_table("plain", Plain)
    db.insert_many(plain, [Plain(i, i + 1, "") for i in range(500)])
    db.create_index(plain, "by_share", 1000 // col("n"))
    with db.transaction() as tx:
        with pytest.raises(ex.ValueOutOfRange, match=r'index "by_share", key \(7\).*divisor') as caught:
            tx.update(plain, 7, n=0)
        assert (caught.value.index, caught.value.key) == ("by_share", "(7)")
        with pytest.raises(ex.ValueOutOfRange):
            tx.insert(plain, Plain(1000, 0, ""))
        tx.insert(plain, Plain(1001, 5, ""))
    db.drop_index(plain, "by_share")
    with db.transaction() as tx:
        tx.update(plain, 300, n=2**62)
    with pytest.raises(ex.ValueOutOfRange, match=r"key \(300\)"):
        db.create_index(plain, "by_double", (col("n") * 4).cast(int))
    assert plain.indexes == ()
    db.create_index(plain, "by_share", 1000 // col("n"))
    with pytest.raises(ex.ValueOutOfRange, match=r'index "by_share", key \(2001\)'):
        db.load(plain, [Plain(2000, 1, ""), Plain(2001, 0, "")])


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ((col("nothing") + 1,), ex.UnknownColumn),
        ((col("n") + col("text"),), ex.TypeMismatch),
        ((au.lit(5),), ex.SchemaError),
        ((col("n") + 1, col("n") + 1), ex.SchemaError),
        ((5,), ex.SchemaError),
        ((), ex.SchemaError),
    ],
)
def test_what_is_no_expression_of_an_index(db: au.Cluster, columns: Any, error: type[ex.AuroraError]) -> None:
    plain = db.create_table("plain", Plain)
    with pytest.raises(error):
        db.create_index(plain, "bad", *columns)
    assert plain.indexes == ()


def test_a_bare_column_is_a_column_and_long_texts_may_be_computed_from(db: au.Cluster) -> None:
    plain = db.create_table("plain", Plain)
    assert db.create_index(plain, "by_n", col("n")).columns == (("n", False),)
    by_length = db.create_index(plain, "by_length", col("text").str.len_chars())
    with db.transaction() as tx:
        tx.insert(plain, Plain(1, 1, "x" * 100_000))
        tx.insert(plain, Plain(2, 2, "y" * 7))
    with db.transaction() as tx:
        tx.update(plain, 1, text="z" * 90_000)
    with db.view() as view:
        assert [row.id for row in view.range(by_length, 8)] == [1]
        assert [row.id for row in view.range(by_length, prefix=90_000)] == [1]


def test_a_load_builds_them_too(db: au.Cluster) -> None:
    accounts = db.create_table("accounts", Account)
    rows = [Account(i, f"o{i % 5}", f"Mail{i}@X", Decimal(i % 100), i % 3) for i in range(70_000)]
    assert db.load(accounts, rows[::-1]) == len(rows)
    assert db.get(accounts.index("by_mail"), "mail69999@x") == rows[-1]
    totals = pa.table(db.scan(accounts.index("by_total")).select("id"))["id"].to_pylist()
    expected = sorted(rows, key=lambda row: (-row.price * row.count, row.owner, row.id))
    assert totals == [row.id for row in expected]
    with pytest.raises(ex.DuplicateKey, match="by_mail"):
        db.load(accounts, [Account(100_000, "o", "mAIL5@x")])


CHANGES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(-5, 5), st.sampled_from(["a", "A", "b", "B", "bB"]), st.booleans()),
    max_size=40,
)


@settings(max_examples=30)
@given(changes=CHANGES, build_at=st.integers(0, 40))
def test_index_and_table_agree(changes: list[tuple[int, int, str, bool]], build_at: int) -> None:
    with au.open(memory=True) as db:
        plain = db.create_table("plain", Plain)

        def build() -> None:
            db.create_index(plain, "computed", au.desc(abs(col("n"))), col("text").str.to_lowercase())

        model: dict[int, Plain] = {}
        for place, (key, n, text, gone) in enumerate(changes):
            if place == build_at:
                build()
            with db.transaction() as tx:
                if gone:
                    tx.delete(plain, key)
                    model.pop(key, None)
                else:
                    model[key] = Plain(key, n, text)
                    tx.upsert(plain, model[key])
        if build_at >= len(changes):
            build()
        with db.view() as view:
            expected = sorted(model.values(), key=lambda row: (-abs(row.n), row.text.lower(), row.id))
            assert list(view.range(plain.index("computed"))) == expected
