"""Undo a wrong DELETE three ways: take the whole cluster back, compare with a clone, put single rows back.

Run it: python examples/undo.py
"""

from __future__ import annotations

import aurora_engine as au


class Account(au.Row, key="id"):
    """An account."""

    id: int
    owner: str


def wrong_delete(db: au.Cluster, accounts: au.Table[Account], of: str) -> au.Commit:
    """Fills the table, deletes too much of it, and gives the last good commit."""
    with db.transaction() as tx:
        for n in range(10):
            tx.upsert(accounts, Account(n, f"owner {n} of {of}"))
    good = tx.committed
    assert good is not None
    with db.transaction() as tx:
        for n in range(5, 10):
            tx.delete(accounts, n)
    return good


def main() -> None:
    """Undoes the same mistake three times."""
    with au.open(memory=True) as db:
        accounts = db.create_table("accounts", Account)

        # 1. The whole cluster, in place. What is left can be gone forward to again.
        good = wrong_delete(db, accounts, "one")
        print("a backtrack would do:", db.preview_backtrack(good))
        done = db.backtrack(to=good)
        print(f"backtrack: {done.status} in {done.seconds * 1000:.1f} ms, {db.scan(accounts).count()} rows")
        db.backtrack(to=done.from_lsn)
        print(f"forward again: {db.scan(accounts).count()} rows")

        # 2. A clone as of then, to look at and to compare with, while this one goes on.
        good = wrong_delete(db, accounts, "two")
        with db.clone(memory=True, at=good) as then:
            old = then.table("accounts", Account)
            missing = [row for row in then.scan(old) if db.get(accounts, row.id) is None]
            with db.transaction() as tx:
                for row in missing:
                    tx.insert(accounts, row)
        print(f"clone and compare: {len(missing)} rows put back")

        # 3. Only some rows, as an ordinary transaction.
        good = wrong_delete(db, accounts, "three")
        with db.transaction() as tx:
            counts = tx.restore_rows(accounts, from_=good, where=lambda row: row.id in (5, 6))
        print(f"selective: {counts}, {db.scan(accounts).count()} rows")
        print("since then:", db.changes(accounts, good))


if __name__ == "__main__":
    main()
