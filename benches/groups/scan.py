"""Queries over TPC-H lineitem on the storage nodes, beside DuckDB on the same rows in the same run, both warm."""

from __future__ import annotations

import datetime as dt
import os
import random
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import aurora_engine as au
from aurora_engine import col
from benches.measure import median
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benches.groups import Context

SCALE = float(os.environ.get("BENCH_TPCH_SCALE", "1"))
CACHE_BYTES = 2 << 30

Query = tuple[str, float, str, "Callable[[Any], Any]"]


def _revenue(scan: Any) -> Any:
    return scan.filter(
        (col("l_shipdate") >= dt.date(1994, 1, 1)) & (col("l_shipdate") < dt.date(1995, 1, 1)),
        col("l_discount").is_between(Decimal("0.05"), Decimal("0.07")),
        col("l_quantity") < 24,
    ).agg(revenue=(col("l_extendedprice") * col("l_discount")).sum())


def _pricing(scan: Any) -> Any:
    net = col("l_extendedprice") * (1 - col("l_discount"))
    rows = scan.filter(col("l_shipdate") <= dt.date(1998, 9, 2)).group_by("l_returnflag", "l_linestatus")
    return rows.agg(
        qty=col("l_quantity").sum(),
        base=col("l_extendedprice").sum(),
        net=net.sum(),
        charge=(net * (1 + col("l_tax"))).sum(),
        avg_qty=col("l_quantity").mean(),
        avg_price=col("l_extendedprice").mean(),
        avg_disc=col("l_discount").mean(),
        n=au.count(),
    ).sort("l_returnflag", "l_linestatus")


QUERIES: tuple[Query, ...] = (
    (
        "Q6", 0.4,
        "select sum(l_extendedprice * l_discount) from t where l_shipdate >= date '1994-01-01' and l_shipdate < "
        "date '1995-01-01' and l_discount between 0.05 and 0.07 and l_quantity < 24",
        _revenue,
    ),
    (
        "Q1", 0.5,
        "select l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice), sum(l_extendedprice * (1 - "
        "l_discount)), sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)), avg(l_quantity), avg(l_extendedprice), "
        "avg(l_discount), count(*) from t where l_shipdate <= date '1998-09-02' group by all order by all",
        _pricing,
    ),
    (
        "selective string filter", 1,
        "select count(*) from t where l_shipmode = 'RAIL' and l_shipinstruct = 'NONE'",
        lambda s: s.filter(col("l_shipmode") == "RAIL", col("l_shipinstruct") == "NONE").agg(n=au.count()),
    ),
    (
        "LIKE", 1,
        "select count(*) from t where l_comment like '%special%requests%'",
        lambda s: s.filter(col("l_comment").str.like("%special%requests%")).agg(n=au.count()),
    ),
    (
        "group by 10,000 suppliers", 1,
        "select l_suppkey, sum(l_quantity) from t group by l_suppkey",
        lambda s: s.group_by("l_suppkey").agg(q=col("l_quantity").sum()),
    ),
    (
        "group by all orders", 1,
        "select l_orderkey, count(*) from t group by l_orderkey having count(*) > 6",
        lambda s: s.group_by("l_orderkey").agg(n=au.count()).filter(col("n") > 6),
    ),
    (
        "count distinct", 1,
        "select count(distinct l_partkey) from t",
        lambda s: s.agg(n=col("l_partkey").n_unique()),
    ),
    (
        "top 100", 1,
        "select l_orderkey, l_extendedprice from t where l_quantity = 50 order by l_extendedprice desc, l_orderkey "
        "desc limit 100",
        lambda s: s.filter(col("l_quantity") == 50).select("l_orderkey", "l_extendedprice")
        .sort("l_extendedprice", "l_orderkey", descending=True).limit(100),
    ),
    (
        "many columns", 1,
        "select min(l_partkey), max(l_suppkey), sum(l_quantity), sum(l_tax), min(l_shipdate), max(l_commitdate), "
        "max(l_receiptdate), avg(l_extendedprice) from t",
        lambda s: s.agg(
            a=col("l_partkey").min(), b=col("l_suppkey").max(), c=col("l_quantity").sum(), d=col("l_tax").sum(),
            e=col("l_shipdate").min(), f=col("l_commitdate").max(), g=col("l_receiptdate").max(),
            h=col("l_extendedprice").mean(),
        ),
    ),
    (
        "date arithmetic", 1,
        "select year(l_shipdate) as y, count(*) from t where l_receiptdate - l_commitdate > 30 group by y",
        lambda s: s.filter(col("l_receiptdate") - col("l_commitdate") > 30)
        .group_by(y=col("l_shipdate").dt.year()).agg(n=au.count()),
    ),
    (
        "semi-join with a list of keys", 1,
        "select sum(l_quantity) from t where l_suppkey in (select range * 97 from range(100))",
        lambda s: s.filter(col("l_suppkey").is_in(range(0, 9_700, 97))).agg(q=col("l_quantity").sum()),
    ),
    (
        "range of the key", 1,
        "select count(*), sum(l_quantity) from t where l_orderkey between 1000 and 2000",
        lambda s: s.filter(col("l_orderkey").is_between(1000, 2000)).agg(n=au.count(), q=col("l_quantity").sum()),
    ),
)  # fmt: skip


def _generate(folder: Path) -> Path:
    tool = Path(sys.executable).with_name("tpchgen-cli")
    command = [str(tool), "parquet", "-s", str(SCALE), "--tables", "lineitem", "--output-dir", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder / "lineitem.parquet"


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _pairs(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Return our median, theirs, and the median of the ratios of runs that followed each other."""
    ours()
    theirs()
    times = [(_timed(ours), _timed(theirs)) for _ in range(rounds)]
    a, b = [t for t, _ in times], [t for _, t in times]
    return median(a), median(b), median([x / y for x, y in times])


def _changed(db: au.Cluster, table: au.Table[Any], keys: pa.Table, share: float) -> None:
    """Change the quantity of some rows, anywhere."""
    count = int(keys.num_rows * share)
    picked = keys.take(random.Random(7).sample(range(keys.num_rows), count)).to_pylist()
    for first in range(0, count, 2_000):
        with db.transaction() as tx:
            for row in picked[first : first + 2_000]:
                tx.update(table, (row["l_orderkey"], row["l_linenumber"]), l_quantity=col("l_quantity") + 1)


def run(context: Context) -> Iterator[Row]:
    """Load once; ask both; change rows and ask again."""
    file = _generate(context.folder)
    duck = duckdb.connect(config={"threads": 2})
    duck.execute(f"create table t as select * from '{file}' order by l_orderkey, l_linenumber")
    with au.open(context.folder / "cluster", cache_bytes=CACHE_BYTES) as db:
        lines = db.create_table("t", pq.ParquetFile(file).schema_arrow, key=("l_orderkey", "l_linenumber"))
        rows = db.load(lines, pq.read_table(file), sort=True, show_progress=False)
        before = db.status()
        for name, budget, sql, query in QUERIES:
            ours, theirs, ratio = _pairs(
                lambda query=query: query(db.scan(lines)).to_arrow(),
                lambda sql=sql: duck.execute(sql).to_arrow_table(),
                context.rounds,
            )
            what = f"{name}, {rows:,} rows, warm"
            yield Row("scan", what, ours * 1e3, "ms", "DuckDB", theirs * 1e3, ratio, Budget("<=", budget))
        arrow = pa.table(db.scan(lines).limit(500_000))
        took = _timed(lambda: [None for _ in pa.RecordBatchReader.from_stream(db.scan(lines))])
        per_s = arrow.nbytes / arrow.num_rows * rows / took
        yield Row("scan", "ordered scan to Arrow, one thread", per_s / 1e6, "MB/s", budget=Budget(">=", 1000, "ours"))
        per_row = sum(node.bytes for node in before.nodes) / len(before.nodes) / rows
        yield Row("scan", "sealed lineitem per row and copy", per_row, "B", budget=Budget("<=", 60, "ours"))
        keys = arrow.select(["l_orderkey", "l_linenumber"])
        for share in (0.01, 0.1):
            _changed(db, lines, keys, share)
            for name, _, sql, query in QUERIES[:2]:
                ours, theirs, ratio = _pairs(
                    lambda query=query: query(db.scan(lines)).to_arrow(),
                    lambda sql=sql: duck.execute(sql).to_arrow_table(),
                    context.rounds,
                )
                what = f"{name} after updates of {share:.0%} of the first {keys.num_rows:,} rows"
                yield Row("scan", what, ours * 1e3, "ms", "DuckDB", theirs * 1e3, ratio, Budget("<=", 1))
