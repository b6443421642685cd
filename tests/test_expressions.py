"""Expressions in updates: exact where Python is exact, never rounded by accident."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any

import pytest

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Item(au.Row, key="id"):
    id: int
    count: int
    tiny: au.Int8
    price: Annotated[Decimal, au.precision(12, 2)]
    ratio: float
    name: str
    maybe: int | None = None


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        items = cluster.create_table("items", Item)
        with cluster.transaction() as tx:
            tx.insert(items, Item(1, 10, 100, Decimal("19.99"), 0.5, "nut"))
        yield cluster


def update(db: au.Cluster, **changes: Any) -> Item:
    items = db.table("items", Item)
    with db.transaction() as tx:
        tx.update(items, 1, **changes)
    row = db.get(items, 1)
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("column", "expression", "expected"),
    [
        ("count", col("count") + 5, 15),
        ("count", 5 - col("count"), -5),
        ("count", -col("count") * 2, -20),
        ("count", col("count") * col("tiny") - 1, 999),
        ("price", col("price") + Decimal("0.01"), Decimal("20.00")),
        ("price", col("price") + 1, Decimal("20.99")),
        ("price", (col("price") * Decimal("1.05")).round(2), Decimal("20.99")),
        ("price", col("count") * 2, Decimal("20.00")),
        ("ratio", col("ratio") / 4, 0.125),
        ("ratio", col("count") / 4, 2.5),
        ("ratio", 1 - col("ratio"), 0.5),
        ("name", col("name") + "cracker", "nutcracker"),
        ("name", "wal" + col("name"), "walnut"),
        ("maybe", col("maybe") + 1, None),
        ("maybe", col("count") + 0, 10),
        ("maybe", None, None),
    ],
)
def test_results(db: au.Cluster, column: str, expression: Any, expected: Any) -> None:
    assert getattr(update(db, **{column: expression}), column) == expected


def test_every_expression_sees_the_row_as_it_was(db: au.Cluster) -> None:
    row = update(db, count=col("tiny") + 0, tiny=col("count") + 0)
    assert (row.count, row.tiny) == (100, 10)


def test_own_changes_are_seen(db: au.Cluster) -> None:
    items = db.table("items", Item)
    with db.transaction() as tx:
        for _ in range(3):
            tx.update(items, 1, count=col("count") + 1)
    row = db.get(items, 1)
    assert row is not None
    assert row.count == 13


@pytest.mark.parametrize(
    ("column", "expression", "error", "message"),
    [
        ("tiny", col("tiny") + 100, ex.ValueOutOfRange, "a result that fits int8, got an int outside its range"),
        ("count", col("count") * (2**62), ex.ValueOutOfRange, "more than 64 bits"),
        ("price", col("price") * Decimal("1.05"), ex.ValueOutOfRange, "more digits after the point"),
        ("price", col("price") * 10**9, ex.ValueOutOfRange, "more digits than the column has"),
        ("price", col("price") + 0.5, ex.TypeMismatch, "numbers of one kind to add, got decimal and float"),
        ("count", col("count") / 2, ex.TypeMismatch, "expected int64, got float"),
        ("ratio", col("ratio") / 0, ex.ValueOutOfRange, "a divisor that is not zero"),
        ("count", col("name") + 1, ex.TypeMismatch, "text and int"),
        ("count", col("nowhere") + 1, ex.UnknownColumn, 'no column "nowhere"'),
        ("count", col("maybe") + 1, ex.ValueOutOfRange, "got null"),
    ],
)
def test_results_that_do_not_fit(
    db: au.Cluster, column: str, expression: Any, error: type[ex.AuroraError], message: str
) -> None:
    with pytest.raises(error, match=message):
        update(db, **{column: expression})
    row = db.get(db.table("items", Item), 1)
    assert row == Item(1, 10, 100, Decimal("19.99"), 0.5, "nut")


def test_what_an_expression_is_not() -> None:
    assert repr((col("a") + 1) * Decimal("2.50")) == "((a + 1) * 2.5)"
    with pytest.raises(ex.TypeMismatch, match="has no truth value"):
        bool(col("a"))
    with pytest.raises(
        ex.TypeMismatch,
        match="expected a column, an int, float, Decimal or str, or another value of a column, got object",
    ):
        col("a") + object()  # type: ignore[operator]
    with pytest.raises(ex.TypeMismatch):
        col("a") + True


@pytest.mark.parametrize(
    ("column", "expression", "expected"),
    [
        ("count", au.when(col("count") > 5).then(1).when(col("count") > 50).then(2).otherwise(3), 1),
        ("count", au.when(col("maybe") > 5).then(1).otherwise(3), 3),
        ("count", au.coalesce(col("maybe"), col("count"), 0), 10),
        ("count", col("maybe").fill_null(7), 7),
        ("count", col("count") // 3, 3),
        ("count", col("count") % 3, 1),
        ("count", abs(-col("count")), 10),
        ("count", col("price").cast(int), 19),
        ("count", col("name").str.len_chars(), 3),
        ("name", col("name").str.to_uppercase() + "!", "NUT!"),
        ("name", col("price").cast(str), "19.99"),
        ("price", col("price").cast("decimal(12, 1)"), Decimal("20.00")),
        ("ratio", col("price").cast(float) / 2, 9.995),
        ("count", au.when((col("tiny") >= 100) & ~(col("name") == "bolt")).then(1).otherwise(0), 1),
        ("count", au.when(col("name").is_in(["bolt", "nut"]) | col("maybe").is_null()).then(1).otherwise(0), 1),
        ("count", au.when(col("price").is_between(1, Decimal("19.99"))).then(1).otherwise(0), 1),
        ("count", au.when(au.lit(True) & col("name").str.like("n_t")).then(1).otherwise(0), 1),
    ],
)
def test_conditions_and_functions(db: au.Cluster, column: str, expression: Any, expected: Any) -> None:
    assert getattr(update(db, **{column: expression}), column) == expected


def test_expressions_are_read_as_they_are_written() -> None:
    condition = (col("a") > 5) & ~col("b").is_in(["x", "it's"]) | col("c").is_not_null()
    assert repr(condition) == "(((a > 5) AND NOT (b IN ('x', 'it''s'))) OR (c IS NOT NULL))"
    assert repr(5 < col("a")) == "(a > 5)"  # noqa: SIM300
    with pytest.raises(TypeError):
        hash(col("a"))


def test_an_expression_is_not_nested_without_end() -> None:
    """A chain of 100,000 additions overflowed the stack when it was freed."""

    def chain() -> au.Expr:
        total = col("a")
        for _ in range(100_000):
            total = total + 1
        return total

    with pytest.raises(ex.InvalidOption, match="expression: expected at most 200 levels, got 201"):
        chain()
