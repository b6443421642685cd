"""Queries over scans: the same answers at the head and on the storage nodes, and as DuckDB's."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex

ROWS = 20_000


class Order(au.Row, key="id"):
    id: int
    customer: int
    status: str
    total: Annotated[Decimal, au.precision(15, 2)]
    discount: Annotated[Decimal, au.precision(15, 2)]
    weight: float
    day: dt.date
    note: str | None


def order(n: int) -> Order:
    note = None if n % 3 == 0 else f"note {n % 11}" * (n % 4)
    return Order(
        n, n * 7919 % 500, ("open", "paid", "sent")[n % 3], Decimal(n * 37 % 100_000) / 100, Decimal(n % 11) / 100,
        (n % 1000) / 8, dt.date(2020, 1, 1) + dt.timedelta(n % 800), note,
    )  # fmt: skip


@pytest.fixture(scope="module")
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        orders = cluster.create_table("orders", Order)
        columns = {name: [getattr(order(n), name) for n in range(ROWS)] for name in Order.__annotations__}
        cluster.load(orders, pa.table(columns, schema=pa.schema(cluster.scan(orders))), show_progress=False)
        yield cluster


@pytest.fixture
def orders(db: au.Cluster) -> au.Table[Order]:
    return db.table("orders", Order)


QUERIES: list[tuple[str, Any]] = [
    (
        "select sum(total * discount) as revenue from t where day >= date '2020-03-01' and day < date '2021-01-01' "
        "and discount between 0.05 and 0.07 and weight < 24",
        lambda s: s.filter(
            (col("day") >= dt.date(2020, 3, 1)) & (col("day") < dt.date(2021, 1, 1)),
            col("discount").is_between(Decimal("0.05"), Decimal("0.07")),
            col("weight") < 24,
        ).agg(revenue=(col("total") * col("discount")).sum()),
    ),
    (
        "select status, sum(total) as s, sum(total * (1 - discount)) as d, avg(weight) as a, count(*) as n from t "
        "group by status order by status",
        lambda s: s.group_by("status").agg(
            s=col("total").sum(), d=(col("total") * (1 - col("discount"))).sum(), a=col("weight").mean(), n=au.count()
        ).sort("status"),
    ),
    (
        "select customer, count(*) as n from t group by customer order by customer",
        lambda s: s.group_by("customer").agg(n=au.count()).sort("customer"),
    ),
    (
        "select note, count(*) as n, count(note) as c, count(distinct customer) as u from t group by note order by note nulls first",  # noqa: E501
        lambda s: s.group_by("note").agg(n=au.count(), c=col("note").count(), u=col("customer").n_unique()).sort("note"),  # noqa: E501
    ),
    (
        "select year(day) as y, month(day) as m, max(total) as x, min(note) as k from t where note like '%1' "
        "group by all having count(*) > 100 order by y, m",
        lambda s: s.filter(col("note").str.like("%1"))
        .group_by(y=col("day").dt.year(), m=col("day").dt.month())
        .agg(x=col("total").max(), k=col("note").min(), n=au.count())
        .filter(col("n") > 100)
        .sort("y", "m"),
    ),
    (
        "select id, total from t where status in ('open', 'sent') order by total desc, id desc limit 100",
        lambda s: s.filter(col("status").is_in(["open", "sent"])).select("id", "total")
        .sort("total", "id", descending=True).limit(100),
    ),
    (
        "select var_samp(weight) as v, stddev_samp(weight) as s, avg(total) as a from t where customer <> 7",
        lambda s: s.filter(col("customer") != 7).agg(v=col("weight").var(), s=col("weight").std(), a=col("total").mean()),  # noqa: E501
    ),
    (
        "select count(*) as n from t where note is null or (weight > 100 and not status = 'open')",
        lambda s: s.filter(col("note").is_null() | (col("weight") > 100) & ~(col("status") == "open")).agg(n=au.count()),  # noqa: E501
    ),
    (
        "select id from t where id >= 500 and id < 510 order by id",
        lambda s: s.filter(col("id").is_between(500, 509)).select("id").sort("id"),
    ),
    (
        "select case when weight > 60 then 'heavy' else status end as k, sum(id) as s from t group by k order by k",
        lambda s: s.group_by(k=au.when(col("weight") > 60).then("heavy").otherwise(col("status")))
        .agg(s=col("id").sum()).sort("k"),
    ),
]  # fmt: skip


def same(ours: pl.DataFrame, theirs: pl.DataFrame) -> None:
    theirs = theirs.select(ours.columns if set(ours.columns) <= set(theirs.columns) else theirs.columns)
    ours = ours.select(theirs.columns)
    assert ours.height == theirs.height
    for name in theirs.columns:
        for a, b in zip(ours[name].to_list(), theirs[name].to_list(), strict=True):
            if isinstance(b, float) or isinstance(a, float):
                assert float(a) == pytest.approx(float(b), rel=1e-9), name
            else:
                assert a == b, name


@pytest.mark.parametrize("mode", ["off", "auto", "force"])
@pytest.mark.parametrize(("sql", "query"), QUERIES, ids=range(len(QUERIES)))
def test_answers_are_duckdbs(db: au.Cluster, orders: au.Table[Order], sql: str, query: Any, mode: Any) -> None:
    t = pa.table(db.scan(orders))  # noqa: F841 - the query names it
    theirs = duckdb.sql(sql).pl()
    same(query(db.scan(orders, parallel_query=mode)).to_polars(), theirs)


def test_changed_pages_count_as_they_are(db: au.Cluster, orders: au.Table[Order]) -> None:
    """Sealed pages, pages with records since, and pages kept by the scan cache while they change."""

    def query(mode: Any) -> au.Scan[Any]:
        return db.scan(orders, parallel_query=mode).agg(n=au.count(), s=col("total").sum(), i=col("id").sum())

    before = db.vdl
    first = query("force").to_dicts()
    for changed in range(5):
        with db.transaction() as tx:
            tx.update(orders, changed * 3001, total=col("total") + 1)
            tx.insert(orders, order(ROWS + changed))
            tx.delete(orders, 17 + changed)
        assert query("force").to_dicts() == query("off").to_dicts() != first
    assert (
        db.scan(orders, at=before, parallel_query="force")
        .agg(n=au.count(), s=col("total").sum(), i=col("id").sum())
        .to_dicts()
        == first
    )
    assert db.scan(orders, at=before).count() == ROWS
    with db.transaction() as tx:
        for changed in range(5):
            tx.upsert(orders, order(changed * 3001))
            tx.delete(orders, ROWS + changed)
            tx.insert(orders, order(17 + changed))
    assert query("force").to_dicts() == first


def test_a_transaction_sees_its_own_changes(db: au.Cluster, orders: au.Table[Order]) -> None:
    with db.transaction() as tx:
        big = tx.scan(orders, parallel_query="force").filter(col("total") > 99_999_999)
        assert big.count() == 0
        tx.update(orders, 5, total=Decimal("100000000"))
        tx.delete(orders, 6)
        assert [row["id"] for row in big.to_dicts()] == [5]
        assert tx.scan(orders).count() == ROWS - 1
        assert "own" in tx.scan(orders, parallel_query="force").agg(n=au.count()).explain()
        assert db.scan(orders).count() == ROWS
        tx.rollback()


def test_rows_stream_in_the_order_of_the_key(db: au.Cluster, orders: au.Table[Order]) -> None:
    scan = db.scan(orders).filter(col("status") == "paid").select("id", twice=col("total") * 2)
    frame = scan.to_polars()
    assert frame["id"].to_list() == list(range(1, ROWS, 3))
    assert frame["twice"][1] == order(4).total * 2
    assert scan.limit(3).to_dicts() == [{"id": n, "twice": order(n).total * 2} for n in (1, 4, 7)]
    assert scan.limit(3).to_arrow().num_rows == 3
    assert scan.count() == len(range(1, ROWS, 3))
    assert scan.limit(10).count() == 10
    assert db.scan(orders).limit(7).to_polars().height == 7
    assert [row.id for row in db.scan(orders).limit(2)] == [0, 1]
    assert db.scan(orders, 10, 20).filter(col("id") % 2 == 0).to_polars()["id"].to_list() == [10, 12, 14, 16, 18]
    wider = (
        db.scan(orders).with_columns(net=col("total") - col("discount"), note=au.lit("x")).filter(col("note") == "x")
    )
    assert wider.limit(1).to_polars().columns == [*Order.__annotations__, "net"]
    assert pa.schema(wider).field("net").type == pa.decimal128(38, 2)
    assert wider.count() == ROWS


def test_pandas_gets_a_data_frame(db: au.Cluster, orders: au.Table[Order]) -> None:
    pytest.importorskip("pandas")
    assert db.scan(orders).to_pandas().shape == (ROWS, 8)


def test_groups_of_nothing(db: au.Cluster, orders: au.Table[Order]) -> None:
    none = db.scan(orders, parallel_query="force").filter(col("id") < 0)
    assert none.agg(n=au.count(), s=col("id").sum(), x=col("day").max(), m=col("weight").mean()).to_dicts() == [
        {"n": 0, "s": None, "x": None, "m": None}
    ]
    assert none.group_by("status").agg(n=au.count()).to_dicts() == []
    assert none.group_by("status").agg(n=au.count()).to_arrow().schema.names == ["status", "n"]


def test_long_values_are_fetched(db: au.Cluster) -> None:
    class Page(au.Row, key="id"):
        id: int
        text: str

    pages = db.create_table("pages", Page)
    with db.transaction() as tx:
        for n in range(20):
            tx.insert(pages, Page(n, str(n % 3) * (50_000 if n % 2 else 10)))
    for mode in ("off", "force"):
        scan = db.scan(pages, parallel_query=mode)
        assert scan.filter(col("text").str.starts_with("1")).count() == 7
        assert scan.agg(n=col("text").str.len_chars().sum()).to_dicts() == [{"n": 500_100}]
        assert scan.agg(u=col("text").n_unique(), m=col("text").max()).to_dicts()[0]["u"] == 6
    assert db.scan(pages).filter(col("id") == 1).select("text").to_dicts() == [{"text": "1" * 50_000}]


def test_explain_says_where_and_why(db: au.Cluster, orders: au.Table[Order]) -> None:
    def query(mode: Any) -> au.Scan[Any]:
        rows = db.scan(orders, parallel_query=mode).filter(col("id") < 100)
        return rows.group_by("status").agg(n=au.count())

    text = query("force").explain()
    assert "Using parallel query (2 columns, 1 filters, 0 exprs; 0 extra)" in text
    assert "filter: (id < 100)" in text
    assert "group by: status" in text
    analyzed = query("force").explain(analyze=True)
    assert "100 passed the filter, 3 returned" in analyzed
    assert "skipped by zone maps" in analyzed
    assert "node az1/" in analyzed
    assert 'Not using parallel query: parallel_query is "off"' in query("off").explain()
    assert "found by the tree" in db.scan(orders, 5, 9, parallel_query="force").agg(n=au.count()).explain()


def test_counters_and_instance_classes(db: au.Cluster, orders: au.Table[Order]) -> None:
    before = db.parallel_query_counters()
    db.scan(orders, parallel_query="force").agg(n=au.count()).to_dicts()
    db.scan(orders, parallel_query="off").agg(n=au.count()).to_dicts()
    after = db.parallel_query_counters()
    assert after["Aurora_pq_request_executed"] == before["Aurora_pq_request_executed"] + 1
    assert after["Aurora_pq_pages_pushed_down"] > before["Aurora_pq_pages_pushed_down"]
    assert after["Aurora_pq_request_not_chosen_off"] == before.get("Aurora_pq_request_not_chosen_off", 0) + 1
    with au.open(memory=True, instance_class="db.t3.medium") as small:
        table = small.create_table("t", Order)
        assert small.scan(table).agg(n=au.count()).to_dicts() == [{"n": 0}]
        assert "instance class db.t3.medium does not allow it" in small.scan(table).agg(n=au.count()).explain()
        with pytest.raises(ex.ParallelQueryRefused, match=r"such as db\.r6g\.large, got db\.t3\.medium") as refused:
            small.scan(table, parallel_query="force").count()
        assert refused.value.instance_class == "db.t3.medium"
        small.set_parallel_query("force", "db.r6g.large")
        assert (small.parallel_query, small.instance_class) == ("force", "db.r6g.large")
        assert small.scan(table).count() == 0
    with pytest.raises(ex.InvalidOption, match=r"instance_class: expected db\.FAMILY\.SIZE"):
        au.open(memory=True, instance_class="huge")
    with pytest.raises(ex.InvalidOption, match="parallel_query"):
        au.open(memory=True, parallel_query="sometimes")  # type: ignore[arg-type]
    with pytest.raises(ex.InvalidOption, match="parallel_query"):
        db.scan(orders, parallel_query="sometimes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        (lambda s: s.filter(col("nope") == 1), ex.UnknownColumn, 'no column "nope"'),
        (lambda s: s.filter(col("total") > 0.5), ex.TypeMismatch, "write the number as a Decimal"),
        (lambda s: s.filter(col("id") + 1), ex.TypeMismatch, "expected a condition"),
        (lambda s: s.filter("id > 5"), ex.InvalidOption, "expected a condition"),
        (lambda s: s.select(), ex.InvalidOption, "at least one column"),
        (lambda s: s.select(col("id") + 1), ex.InvalidOption, "a name for what is computed"),
        (lambda s: s.select("id", id=col("id")), ex.TypeMismatch, "columns of different names"),
        (lambda s: s.select("id").filter(col("total") > 1), ex.UnknownColumn, 'no column "total", but id'),
        (lambda s: s.agg(n=5), ex.InvalidOption, "an aggregate"),
        (lambda s: s.agg(n=col("status").sum()), ex.TypeMismatch, "values to take the sum of, got text"),
        (lambda s: s.limit(5).filter(col("id") > 1), ex.InvalidOption, "filter before limit"),
        (lambda s: s.agg(n=au.count()).select("n"), ex.InvalidOption, "select before agg"),
        (lambda s: s.agg(n=au.count()).sort("id"), ex.UnknownColumn, 'no column "id", but n'),
        (lambda s: iter(s.filter(col("id") > 1)), ex.InvalidOption, "use to_dicts"),
        (lambda s: s.agg(n=(col("id") // 0).sum()).to_dicts(), ex.ValueOutOfRange, "a divisor that is not zero"),
        (lambda s: s.agg(n=(col("id") * 2**62 * 4).sum()).to_dicts(), ex.ValueOutOfRange, "more than 64 bits"),
    ],
)
def test_queries_that_make_no_sense(
    db: au.Cluster, orders: au.Table[Order], query: Any, error: type[ex.AuroraError], message: str
) -> None:
    with pytest.raises(error, match=message):
        query(db.scan(orders))


def test_pages_of_an_earlier_definition(db: au.Cluster) -> None:
    """A column that was added has its default in old pages, a widened one its old values, a dropped one is gone."""
    schema = pa.schema([("id", pa.int64()), ("a", pa.int16()), ("b", pa.decimal128(8, 2)), ("gone", pa.string())])
    table = db.create_table("changing", schema, key="id")
    columns = [
        list(range(3_000)),
        [n % 300 for n in range(3_000)],
        [Decimal(n) / 4 for n in range(3_000)],
        ["x"] * 3_000,
    ]
    db.load(table, pa.table(columns, schema=schema), show_progress=False)
    db.drop_column(table, "gone")
    table = db.alter_column(db.table("changing"), "b", Annotated[Decimal, au.precision(12, 4)])
    table = db.add_column(db.table("changing"), "c", int, default=7)
    for mode in ("off", "force"):
        scan = db.scan(table, parallel_query=mode)
        assert scan.agg(s=col("c").sum(), b=col("b").sum(), a=col("a").max()).to_dicts() == [
            {"s": 21_000, "b": Decimal(3_000 * 2_999 // 2) / 4, "a": 299}
        ]
        assert scan.filter(col("c") == 7, col("a") < 10).count() == 100
        assert scan.filter(col("b") > Decimal("749.4999")).select("id", "c").sort("id").to_dicts() == [
            {"id": 2998, "c": 7}, {"id": 2999, "c": 7}
        ]  # fmt: skip


def test_a_look_back_leaves_nothing_stale(tmp_path: Path) -> None:
    """A scan of a moment before the cluster was opened kept pages, and a scan of now took them for unchanged."""
    with au.open(tmp_path / "c") as db:
        table = db.create_table("orders", Order)
        with db.transaction() as tx:
            for n in range(3_000):
                tx.insert(table, order(n))
        before = tx.committed
        with db.transaction() as tx:
            for n in range(0, 3_000, 100):
                tx.delete(table, n)
    with au.open(tmp_path / "c") as db:
        table = db.table("orders", Order)
        for at, expected in ((before, 3_000), (None, 2_970), (before, 3_000), (None, 2_970)):
            scan = db.scan(table, at=at, parallel_query="force")
            assert scan.agg(n=au.count()).to_dicts() == [{"n": expected}]


def test_patterns_and_quantiles(db: au.Cluster, orders: au.Table[Order]) -> None:
    scan = db.scan(orders)
    paid = scan.filter(col("status") == "paid").count()
    assert scan.filter(col("status").str.contains("^p.i[d-f]$")).count() == paid > 0
    assert scan.filter(col("status").str.contains("p.id", literal=True)).count() == 0
    assert scan.filter(col("status").str.contains("ai", literal=True)).count() >= paid
    for wrong in ("(", "[z-a]", "a{1000}{1000}{10}"):
        with pytest.raises(ex.TypeMismatch, match="regular expression"):
            scan.filter(col("status").str.contains(wrong)).count()
    with pytest.raises(ex.TypeMismatch, match="that is a constant"):
        scan.filter(col("status").str.contains(col("note"))).count()
    ids = {"middle": col("id").median(), "low": col("id").quantile(0.1), "about": col("id").approx_quantile(0.5)}
    for mode in ("off", "force"):
        row = db.scan(orders, parallel_query=mode).agg(**ids, u=col("id").approx_n_unique()).to_dicts()[0]  # type: ignore[arg-type]
        assert row["middle"] == (ROWS - 1) / 2
        assert abs(row["low"] - 0.1 * (ROWS - 1)) <= 1
        assert abs(row["about"] - row["middle"]) <= 0.011 * ROWS
        assert abs(row["u"] - ROWS) <= 0.08 * ROWS
    with pytest.raises(ex.InvalidOption, match=r"a number from 0 to 1, got 1\.5"):
        col("id").quantile(1.5)
    with pytest.raises(ex.InvalidOption, match="nearest"):
        col("id").quantile(0.5, "best")  # type: ignore[arg-type]
    with pytest.raises(ex.TypeMismatch):
        scan.agg(m=col("status").median()).to_dicts()
