"""A database of six copies in a directory: a table, transactions, reads at a point in time.

Run it with a directory to keep the data in, or without to keep it in memory.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Annotated

import aurora_engine as au
from aurora_engine import col


class Account(au.Row, key="id"):
    """A row class describes a table: its columns, their types, its key."""

    id: int
    owner: str
    balance: Annotated[Decimal, au.precision(18, 2)] = Decimal(0)


def main(path: str | None = None) -> None:
    """Walk through what a program needs on its first day."""
    with au.open(path, memory=path is None) as db:
        accounts = db.create_table("accounts", Account, exist_ok=True)

        # A transaction commits when its block ends: then four of six copies have it on disk.
        with db.transaction() as tx:
            tx.upsert(accounts, Account(1, "Ann", Decimal(100)))
            tx.upsert(accounts, Account(2, "Bob", Decimal(50)))
        before = tx.committed
        assert before is not None
        print("committed:", before)

        # It sees its own changes and one snapshot of everybody else's.
        with db.transaction() as tx:
            tx.update(accounts, 1, balance=col("balance") - 30)
            tx.update(accounts, 2, balance=col("balance") + 30)
            print("within the transaction:", tx.get(accounts, 1))

        # An exception rolls it back.
        try:
            with db.transaction() as tx:
                tx.delete(accounts, 1)
                raise RuntimeError("changed my mind")
        except RuntimeError as error:
            print("rolled back:", error)

        # `run` tries again when two transactions meet; a token makes it happen once, whatever fails.
        def pay(tx: au.Transaction) -> None:
            tx.update(accounts, 1, balance=col("balance") - 5)

        db.run(pay, token="pay-42")
        db.run(pay, token="pay-42")
        print("paid once:", db.get(accounts, 1))

        # Rows come in key order. A view shows everything as it was.
        for row in db.scan(accounts):
            print("row:", row)
        with db.view(at=before) as view:
            print("before the transfer:", view.get(accounts, 1))
        print(db.status())


if __name__ == "__main__":
    main(*sys.argv[1:2])
