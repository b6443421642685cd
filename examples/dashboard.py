"""A service takes orders while a dashboard asks about the very same rows, without an export in between.

    python examples/dashboard.py [FOLDER]

One thread writes orders, each commit durable on four of six copies. Meanwhile the dashboard's query runs again and
again on the storage nodes, each time at one LSN: its sums always agree with each other, whatever is written meanwhile.
"""

from __future__ import annotations

import datetime as dt
import random
import sys
import threading
from decimal import Decimal
from typing import Annotated

import aurora_engine as au
from aurora_engine import col

CITIES = ("Berlin", "Lagos", "Lima", "Osaka")
ORDERS = 5_000
REFRESHES = 5


class Order(au.Row, key="id"):
    """One order."""

    id: int
    city: str
    day: dt.date
    total: Annotated[Decimal, au.precision(12, 2)]


def write(db: au.Cluster, orders: au.Table[Order], done: threading.Event) -> None:
    """Take orders, ten in a transaction."""
    random_order = random.Random(7)
    for first in range(0, ORDERS, 10):
        with db.transaction() as tx:
            for number in range(first, first + 10):
                city, cents = random_order.choice(CITIES), random_order.randint(100, 50_000)
                day = dt.date(2026, 1, 1) + dt.timedelta(number % 90)
                tx.insert(orders, Order(number, city, day, Decimal(cents) / 100))
    done.set()


def dashboard(db: au.Cluster, orders: au.Table[Order]) -> int:
    """Show revenue by city, all of one moment; return how many orders there were."""
    with db.view() as view:
        by_city = view.scan(orders, parallel_query="force").group_by("city").agg(
            orders=au.count(), revenue=col("total").sum(), largest=col("total").max()
        ).sort("revenue", descending=True).to_dicts()  # fmt: skip
        everything = view.scan(orders).agg(orders=au.count(), revenue=col("total").sum()).to_dicts()[0]
    if sum(row["orders"] for row in by_city) != everything["orders"]:
        raise SystemExit("the groups do not add up to the whole")
    for row in by_city:
        print(f"  {row['city']:<8} {row['orders']:>6,} orders {row['revenue']:>14,} largest {row['largest']:>7,}")
    return int(everything["orders"])


def main() -> None:
    """Run writer and dashboard side by side."""
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    with au.open(folder, memory=folder is None) as db:
        orders = db.create_table("orders", Order)
        done = threading.Event()
        writer = threading.Thread(target=write, args=(db, orders, done))
        writer.start()
        refresh = 0
        while not done.is_set() or refresh < REFRESHES:
            refresh += 1
            print(f"{dashboard(db, orders):,} orders")
        writer.join()
        print(f"at the end: {dashboard(db, orders):,} orders")
        march = db.scan(orders).filter(col("day") >= dt.date(2026, 3, 1)).group_by("city").agg(n=au.count())
        print(march.explain())


if __name__ == "__main__":
    main()
