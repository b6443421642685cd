"""Loading from what people have: Arrow and Polars in memory, Parquet and CSV files, rows from anywhere.

Run it with a directory to keep the data in, or without to keep it in memory. It needs polars and pyarrow.
"""

from __future__ import annotations

import datetime as dt
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pyarrow as pa

import aurora_engine as au
from aurora_engine import col


class Trade(au.Row, key=("symbol", "number")):
    """Trades are kept in the order of symbol and number, whatever order they come in."""

    symbol: str
    number: int
    day: dt.date
    price: Annotated[Decimal, au.precision(12, 2)]
    note: str | None = None


def trades(first: int, count: int) -> pl.DataFrame:
    """Some trades as a data frame, not sorted."""
    numbers = pl.int_range(first, first + count, eager=True)
    return pl.DataFrame(
        {
            "symbol": (numbers % 7).replace_strict(
                dict(enumerate(["AMD", "ARM", "IBM", "INTC", "NVDA", "SAP", "TSM"]))
            ),
            "number": numbers,
            "day": pl.Series([dt.date(2024, 1, 1)]).repeat_by(count).explode().dt.offset_by("3d"),
            "price": (numbers * 37 % 10_000).cast(pl.Decimal(12, 2)),
        }
    )


def from_elsewhere(first: int, count: int) -> Iterator[dict[str, Any]]:
    """Rows as another program has them: one dict after the other."""
    for number in range(first, first + count):
        yield {"symbol": "SAP", "number": number, "day": dt.date(2024, 2, 1), "price": Decimal(number % 100)}


def main(path: str | None = None) -> None:
    """Load the same table from one source after the other."""
    with au.open(path, memory=path is None) as db, tempfile.TemporaryDirectory() as folder:
        table = db.create_table("trades", Trade)

        # A data frame, by polars or anything else that speaks Arrow. It is sorted on the way in.
        print("from polars:", db.load(table, trades(0, 50_000)))

        # Files, by path, folder or pattern. Columns are matched by name; a CSV is read as the table's types.
        trades(50_000, 10_000).write_parquet(Path(folder) / "part-1.parquet")
        trades(60_000, 10_000).write_parquet(Path(folder) / "part-2.parquet")
        trades(70_000, 5_000).write_csv(Path(folder) / "late.csv")
        print("from Parquet:", db.load(table, Path(folder) / "*.parquet"))
        print("from CSV:", db.load(table, Path(folder) / "late.csv"))

        # Any iterable of rows: typed rows, dicts, tuples.
        print("from dicts:", db.load(table, from_elsewhere(100_000, 1_000)))

        # All or nothing: one row that is there already, and nothing of the load stays, unless you say what to do.
        again = pl.concat([trades(74_000, 1_000), trades(200_000, 1_000)])
        try:
            db.load(table, again)
        except au.exceptions.DuplicateKey as error:
            print("refused:", error)
        print("the new ones only:", db.load(table, again, on_conflict="skip"))

        # And back: as Arrow, without a copy through Python objects, or row by row.
        frame = pl.DataFrame(db.scan(table))
        print(frame.group_by("symbol").agg(pl.len(), pl.col("price").max()).sort("symbol"))
        print("as pyarrow:", pa.table(db.scan(table, "IBM", "INTC")).num_rows, "rows")
        with db.view() as view:
            dear = view.range(table, prefix="SAP", where=col("price") > Decimal(9_990), columns=["number", "price"])
            print("dear:", [(row.number, row.price) for row in dear][:3])


if __name__ == "__main__":
    main(*sys.argv[1:2])
