"""The engine under test behind the peers' methods, and the few things that only it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aurora_engine as au
from benches.peers import ROWS, own_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Account(au.Row, key="id"):
    """The row that is updated, of the same columns as SQLite's."""

    id: int
    owner: str
    balance: int


class Ours:
    """A cluster of six copies with a table of accounts."""

    name = "aurora-engine"

    def __init__(self, folder: Path | None, rows: int = ROWS, **options: Any) -> None:
        self.db = au.open(memory=True, **options) if folder is None else au.open(folder, **options)
        self.accounts = self.db.create_table("accounts", Account, exist_ok=True)
        for first in range(0, rows, 1_000):
            with self.db.transaction() as tx:
                for i in range(first, min(first + 1_000, rows)):
                    tx.insert(self.accounts, Account(i, f"owner {i}", 0))

    def committer(self, thread: int, threads: int) -> Callable[[int], None]:
        transaction, accounts = self.db.transaction, self.accounts

        def commit(n: int) -> None:
            row = own_row(thread, threads, n)
            with transaction() as tx:
                tx.update(accounts, row, balance=n)

        return commit

    def async_committer(self, task: int, tasks: int, rows: int = ROWS) -> Callable[[int], Awaitable[None]]:
        """Return what one asyncio task awaits: it changes one of the task's own rows."""
        transaction, accounts, own = self.db.aio.transaction, self.accounts, rows // tasks

        async def commit(n: int) -> None:
            row = task * own + n % own
            async with transaction() as tx:
                await tx.update(accounts, row, balance=n)

        return commit

    def close(self) -> None:
        self.db.close()
