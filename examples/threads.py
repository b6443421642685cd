"""Threads share one cluster: transfers between accounts, retried when two meet, and no cent is lost.

The commits of all threads that wait at the same time become durable with one write to the log.
"""

from __future__ import annotations

import random
import sys
import threading
import time

import aurora_engine as au
from aurora_engine import col

ACCOUNTS = 1_000
THREADS = 16
START = 1_000


class Account(au.Row, key="id"):
    """An account with whole coins."""

    id: int
    balance: int


def transfer(db: au.Cluster, accounts: au.Table[Account], rng: random.Random) -> None:
    """Move some coins from one account to another, if the first has them."""
    source, target = rng.sample(range(ACCOUNTS), 2)
    amount = rng.randint(1, 10)

    def move(tx: au.Transaction) -> None:
        row = tx.get(accounts, source)
        if row is not None and row.balance >= amount:
            tx.update(accounts, source, balance=col("balance") - amount)
            tx.update(accounts, target, balance=col("balance") + amount)

    db.run(move)


def main(path: str | None = None, seconds: float = 1.0) -> None:
    """Run transfers from many threads for a while, then count the coins."""
    with au.open(path, memory=path is None) as db:
        accounts = db.create_table("accounts", Account, exist_ok=True)
        with db.transaction() as tx:
            for number in range(ACCOUNTS):
                tx.upsert(accounts, Account(number, START))

        done = [0] * THREADS
        end = time.monotonic() + seconds

        def work(thread: int) -> None:
            rng = random.Random(thread)
            while time.monotonic() < end:
                transfer(db, accounts, rng)
                done[thread] += 1

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        total = sum(row.balance for row in db.scan(accounts))
        print(f"{sum(done):,} transfers from {THREADS} threads, {sum(done) / seconds:,.0f} per second")
        print(f"coins: {total:,}, expected {ACCOUNTS * START:,}")
        assert total == ACCOUNTS * START


if __name__ == "__main__":
    main(*sys.argv[1:2])
