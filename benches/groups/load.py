"""Bulk load of TPC-H lineitem from Arrow, in key order and shuffled, beside DuckDB and SQLite, which write one copy."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

import aurora_engine as au
from benches.measure import median
from benches.peers.load_peers import duckdb_load, sqlite_load
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benches.groups import Context

KEY = ("l_orderkey", "l_linenumber")
SQLITE_ROWS = 500_000


def lineitem(folder: Path, scale: float) -> pl.DataFrame:
    """Make TPC-H's lineitem and read it, in the order of its key."""
    tool = Path(sys.executable).with_name("tpchgen-cli")
    command = [str(tool), "parquet", "-s", str(scale), "--tables", "lineitem", "--output-dir", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return pl.read_parquet(folder / "lineitem.parquet").sort(KEY)


def ours(folder: Path, data: pl.DataFrame) -> float:
    """Load into a new cluster of six copies on disk; return seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    with au.open(folder) as db:
        table = db.create_table("lineitem", data, key=KEY)
        begin = time.perf_counter()
        rows = db.load(table, data, show_progress=False)
        took = time.perf_counter() - begin
        if rows != data.height or db.scan(table).count() != data.height:
            raise RuntimeError(f"expected {data.height} rows, got {rows}")
    return took


def run(context: Context) -> Iterator[Row]:
    """Load the same rows with each engine in turn; the first round is a warm-up of the disk."""
    data = lineitem(context.folder, context.scale)
    shuffled = data.sample(fraction=1.0, shuffle=True, seed=1)
    some = data.head(SQLITE_ROWS)
    loads: dict[str, tuple[int, Callable[[], float]]] = {
        "ours": (data.height, lambda: ours(context.folder / "ours", data)),
        "ours, shuffled": (data.height, lambda: ours(context.folder / "ours", shuffled)),
        "DuckDB": (data.height, lambda: duckdb_load(context.folder / "duckdb", data)),
        "SQLite": (some.height, lambda: sqlite_load(context.folder / "sqlite", some)),
    }
    rounds = max(1, min(3, context.rounds))
    rates: dict[str, list[float]] = {name: [] for name in loads}
    for round_index in range(rounds):
        names = list(loads)
        random.Random(round_index).shuffle(names)
        for name in names:
            count, load = loads[name]
            rates[name].append(count / load())
    figures = {name: median(found) for name, found in rates.items()}
    scale = f"SF{context.scale:g}"
    for what, name, budget in (
        (f"load of lineitem {scale} from Arrow, six copies", "ours", Budget(">=", 500_000, "ours")),
        (f"load of lineitem {scale}, shuffled: sorted on the way", "ours, shuffled", None),
    ):
        for peer in ("DuckDB", "SQLite"):
            a, b = figures[name], figures[peer]
            limit = budget if peer == "DuckDB" else None
            yield Row("load", f"{what}, beside {peer}'s one", a, " rows/s", peer, b, a / b, limit)
