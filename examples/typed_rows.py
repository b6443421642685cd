"""Rows as you like them: typed rows that editors and mypy understand, dicts, tuples, pydantic models.

Run it with a directory to keep the data in, or without to keep it in memory.
"""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from decimal import Decimal
from typing import Annotated

import aurora_engine as au
from aurora_engine import col


class Stamped(au.Row):
    """A base without a key: its columns come first in the classes made from it."""

    id: uuid.UUID
    created: au.Instant


class Order(Stamped, key="id"):
    """A table of orders. To an editor this is a frozen dataclass; in memory it is one slot per column."""

    customer: str
    total: Annotated[Decimal, au.precision(12, 2)] = Decimal(0)
    lines: au.Json | None = None
    shipped: dt.date | None = None


def order(number: int, customer: str, total: str) -> Order:
    """An order with a number that can be told again."""
    created = dt.datetime(2024, 3, 1, 12, number, tzinfo=dt.UTC)
    return Order(uuid.UUID(int=number), created, customer, Decimal(total), [{"sku": number}])


def main(path: str | None = None) -> None:
    """Write rows of every kind and read them back as typed rows, dicts and tuples."""
    with au.open(path, memory=path is None) as db:
        orders = db.create_table("orders", Order)  # Table[Order]

        # Many rows by one call: all of them, or none. Typed rows, dicts and tuples may be mixed.
        now = dt.datetime(2024, 3, 2, tzinfo=dt.UTC)
        with db.transaction() as tx:
            tx.insert_many(
                orders,
                [
                    order(1, "Ann", "19.90"),
                    {"id": uuid.UUID(int=2), "created": now, "customer": "Bob", "lines": []},
                    (uuid.UUID(int=3), now, "Cid", Decimal(5), None, None),
                ],
            )
            tx.upsert_many(orders, [order(3, "Cid", "7.00"), order(4, "Dan", "120.00")])

        # What is read is typed: `Order | None`.
        first = db.get(orders, uuid.UUID(int=1))
        assert first is not None
        print("typed:", first.customer, first.total, first.lines)
        print("changed copy:", au.replace(first, customer="Eve").customer)
        match first:
            case Order(customer="Ann", total=total):
                print("matched:", total)

        # The same table, read as dicts or tuples; whole, or some columns of it.
        print("dict:", db.get(db.table("orders", rows="dict"), uuid.UUID(int=2), columns=["customer", "total"]))
        print("tuple:", db.get(db.table("orders", rows="tuple"), uuid.UUID(int=2), columns=["customer", "total"]))
        with db.view() as view:
            for part in view.range(orders, where=col("total") > 5, columns=["customer", "total"]):
                print("part:", part.customer, part.total)

        # A value that does not fit is refused before anything is written, and the error says where.
        try:
            db.insert_many(orders, [order(5, "Fay", "1.00"), order(6, "Gus", "1.005")])
        except au.exceptions.ValueOutOfRange as error:
            print("refused:", error)
        pydantic_rows(db)


def pydantic_rows(db: au.Cluster) -> None:
    """A pydantic model describes a table as well as a row class does."""
    try:
        from pydantic import BaseModel  # noqa: PLC0415 - the example runs without it
    except ImportError:
        print("pydantic is not installed")
        return

    class Customer(BaseModel):
        name: str
        points: au.Int32 = 0

    customers = db.create_table("customers", Customer, key="name")  # Table[Customer]
    db.insert_many(customers, [Customer(name="Ann", points=7), {"name": "Bob", "points": 1}])
    print("model:", repr(db.get(customers, "Ann")))


if __name__ == "__main__":
    main(*sys.argv[1:2])
