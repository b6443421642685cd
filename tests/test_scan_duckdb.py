"""Random queries over random rows: what the head gives, what the storage nodes give, and what DuckDB gives."""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aurora_engine as au
from aurora_engine import col

CASES = int(os.environ.get("SCAN_CASES", "300"))


class Sample(au.Row, key="id"):
    id: int
    small: au.Int16
    money: Annotated[Decimal, au.precision(12, 2)] | None
    ratio: float | None
    day: dt.date
    name: str | None
    flag: bool | None


INTS = st.sampled_from([-32768, -1, 0, 1, 2, 3, 255, 256, 32767])
MONEY = st.none() | st.sampled_from([Decimal(n) / 100 for n in (-9_999_999_999, -1, 0, 1, 5, 100, 9_999_999_999)])
RATIO = st.none() | st.sampled_from([0.0, -0.0, 0.5, -1.25, 1e300, -1e300, math.inf, -math.inf, math.nan])
DAYS = st.sampled_from([dt.date(1970, 1, 1), dt.date(1969, 12, 31), dt.date(2020, 2, 29), dt.date(9999, 12, 31)])
NAMES = st.none() | st.sampled_from(["", "a", "ab", "ä漢", "a%b", "A", "a" * 40])
FLAGS = st.none() | st.booleans()
ROWS = st.lists(st.tuples(INTS, MONEY, RATIO, DAYS, NAMES, FLAGS), min_size=1, max_size=120)

COMPARISONS = {"=": "__eq__", "<>": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}


def sql_of(value: Any) -> str:
    """A value as DuckDB reads it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dt.date():
            return f"date '{value}'"
        case float():
            return f"'{value}'::double"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case _:
            return str(value)


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> tuple[str, Any]:
    """A condition twice: as SQL and as an expression."""
    if depth and draw(st.integers(0, 2)) == 0:
        (left_sql, left), (right_sql, right) = draw(conditions(depth - 1)), draw(conditions(depth - 1))
        match draw(st.integers(0, 2)):
            case 0:
                return f"({left_sql} and {right_sql})", left & right
            case 1:
                return f"({left_sql} or {right_sql})", left | right
            case _:
                return f"(not {left_sql})", ~left
    name, values = draw(
        st.sampled_from(
            [("small", INTS), ("money", MONEY), ("ratio", RATIO), ("day", DAYS), ("name", NAMES), ("flag", FLAGS)]
        )
    )
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return f"({name} is null)", col(name).is_null()
    if kind == 1:
        listed = [value for value in draw(st.lists(values, max_size=3)) if value is not None]
        if listed:
            return f"({name} in ({', '.join(map(sql_of, listed))}))", col(name).is_in(listed)
    if kind == 2 and name == "name":
        pattern = draw(st.sampled_from(["%", "a%", "%b", "_", "%ä%", "a_b"]))
        return f"(name like '{pattern}')", col("name").str.like(pattern)
    if kind == 3 and name == "name":
        pattern = draw(st.sampled_from(["a", "^a", "b$", "[ab]{2}", "a|ä", "^.b", r"\\d", ""]))
        return f"regexp_matches(name, '{pattern}')", col("name").str.contains(pattern)
    value = draw(values)
    operator = draw(st.sampled_from(list(COMPARISONS)))
    return f"({name} {operator} {sql_of(value)})", getattr(col(name), COMPARISONS[operator])(value)


KEYS: list[tuple[str, Any]] = [
    ("small", col("small")), ("name", col("name")), ("flag", col("flag")), ("day", col("day")),
    ("money", col("money")), ("ratio", col("ratio")), ("year(day)", col("day").dt.year()),
    ("coalesce(name, 'none')", au.coalesce(col("name"), "none")), ("length(name)", col("name").str.len_chars()),
]  # fmt: skip
AGGREGATES: list[tuple[str, Any]] = [
    ("count(*)", au.count()), ("count(money)", col("money").count()), ("sum(small)", col("small").sum()),
    ("sum(money)", col("money").sum()), ("sum(money * small)", (col("money") * col("small")).sum()),
    ("sum(small::bigint + 1)", (col("small") + 1).sum()), ("min(day)", col("day").min()), ("max(name)", col("name").max()),  # noqa: E501
    ("min(money)", col("money").min()), ("max(ratio)", col("ratio").max()), ("avg(small)", col("small").mean()),
    ("count(distinct name)", col("name").n_unique()), ("count(distinct small)", col("small").n_unique()),
    ("var_samp(small)", col("small").var()), ("median(small)", col("small").median()),
    ("quantile_cont(small, 0.3)", col("small").quantile(0.3, "linear")),
    ("quantile_cont(money::double, 0.9)", col("money").quantile(0.9, "linear")),
    ("count(distinct day)", col("day").approx_n_unique()),
    ("sum(case when flag then 1 else 0 end)", au.when(col("flag")).then(1).otherwise(0).sum()),
]  # fmt: skip


@pytest.fixture(scope="module")
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


def plain(value: Any) -> Any:
    """A value that can be compared: floats roughly, as sums of them are in DuckDB; integers and decimals alike."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else float(f"{value + 0.0:.9e}")
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(Fraction(value))
    return value


def table_of(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(repr([plain(value) for value in row.values()]) for row in rows)


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=ROWS, filters=st.lists(conditions(), max_size=2), changes=st.integers(0, 5), bulk=st.booleans(),
    keys=st.lists(st.sampled_from(range(len(KEYS))), max_size=2, unique=True),
    picked=st.lists(st.sampled_from(range(len(AGGREGATES))), min_size=1, max_size=4, unique=True),
)  # fmt: skip
def test_random_queries(
    db: au.Cluster,
    rows: list[tuple[Any, ...]],
    filters: list[tuple[str, Any]],
    keys: list[int],
    picked: list[int],
    changes: int,
    bulk: bool,
) -> None:
    samples = [Sample(number, *row) for number, row in enumerate(rows)]
    if "samples" in db.tables():
        db.drop_table("samples")
    table = db.create_table("samples", Sample)
    if bulk:
        columns = {name: [getattr(row, name) for row in samples] for name in Sample.__annotations__}
        db.load(table, pa.table(columns, schema=pa.schema(db.scan(table))), show_progress=False)
    with db.transaction() as tx:
        if not bulk:
            for row in samples:
                tx.insert(table, row)
        for number in range(min(changes, len(samples))):
            tx.update(table, number, small=number)
        if changes > 3:
            tx.delete(table, 0)
    t = pa.table(db.scan(table))  # noqa: F841 - the query names it
    names = [f"k{n}" for n in range(len(keys))]
    select = [f"{KEYS[key][0]} as {name}" for key, name in zip(keys, names, strict=True)]
    select += [f"{AGGREGATES[n][0]} as a{n}" for n in picked]
    where = " and ".join(sql for sql, _ in filters) or "true"
    sql = f"select {', '.join(select)} from t where {where}" + (" group by all" if keys else "")
    expected = table_of(duckdb.sql(sql).to_arrow_table().to_pylist())
    for mode in ("off", "force"):
        scan = db.scan(table, parallel_query=mode).filter(*(expr for _, expr in filters))  # type: ignore[arg-type]
        aggregates = {f"a{n}": AGGREGATES[n][1] for n in picked}
        grouped = scan.group_by(**{name: KEYS[key][1] for key, name in zip(keys, names, strict=True)})
        result = grouped.agg(**aggregates) if keys else scan.agg(**aggregates)
        assert table_of(result.to_arrow().to_pylist()) == expected, f"{mode}: {sql}"
