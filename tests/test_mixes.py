"""Two hundred threads and tasks in random mixes: every level, savepoints, locks, indexes, definitions that change.

What must hold meanwhile and in the end: the sum of all balances, every index being the table in another order, as many
entries in the journal as transactions said that they had committed, and no error but those that say "run it again".
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pyarrow as pa
import pytest

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex

Level = Literal["read committed", "snapshot", "serializable"]
LEVELS: tuple[Level, ...] = ("read committed", "read committed", "snapshot", "snapshot", "serializable")

ACCOUNTS = 400
EACH = 100
THREADS = 140
TASKS = 80
SECONDS = 12.0
RETRIES = 100_000


class Account(
    au.Row,
    key="id",
    indexes=[
        au.index("by_owner", "owner", au.desc("balance")),
        au.index("by_code", "code", unique=True),
        au.index("by_parity", col("balance") % 2),
    ],
    constraints=[au.check("solvent", col("balance") >= 0)],
):
    id: int
    owner: int
    code: str | None
    balance: int


class Entry(au.Row, key="id", constraints=[au.foreign_key("account", parent="accounts")]):
    id: int = au.auto()
    account: int = 0
    amount: int = 0


class Bank:
    """The tables, what was done, and what went wrong."""

    def __init__(self, db: au.Cluster) -> None:
        self.db = db
        self.accounts = db.create_table("accounts", Account)
        self.journal = db.create_table("journal", Entry)
        db.insert_many(self.accounts, [Account(i, i % 20, f"code {i}", EACH) for i in range(ACCOUNTS)])
        self.done: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self.until = time.monotonic() + SECONDS
        self.lock = threading.Lock()
        self.codes = itertools.count(ACCOUNTS)

    def going(self) -> bool:
        return time.monotonic() < self.until and not self.errors

    def count(self, what: str, by: int = 1) -> None:
        with self.lock:
            self.done[what] += by


def amount_of(dice: random.Random, row: Account | None) -> int:
    return 0 if row is None else dice.randint(0, row.balance)


# Each takes a transaction and dice, and returns how many entries it has put into the journal.


def transfer(bank: Bank, tx: au.Transaction, dice: random.Random) -> int:
    """Read two rows, write both: locked first at the lowest level, where a read is not kept."""
    a, b = dice.sample(range(ACCOUNTS), 2)
    locked = tx.isolation == "read committed" or dice.random() < 0.3
    first, second = tx.get(bank.accounts, a, for_update=locked), tx.get(bank.accounts, b, for_update=locked)
    assert first is not None
    assert second is not None
    amount = amount_of(dice, first)
    tx.update(bank.accounts, a, balance=first.balance - amount)
    tx.update(bank.accounts, b, balance=second.balance + amount)
    tx.insert(bank.journal, {"account": a, "amount": -amount})
    tx.insert(bank.journal, {"account": b, "amount": amount})
    return 2


def transfer_by_expressions(bank: Bank, tx: au.Transaction, dice: random.Random) -> int:
    """Computed under the locks; a balance below zero is refused, and taken back to a savepoint."""
    a, b = dice.sample(range(ACCOUNTS), 2)
    amount = dice.randint(1, 60)
    try:
        with tx.savepoint():
            tx.insert(bank.journal, {"account": a, "amount": -amount})
            tx.update(bank.accounts, a, balance=col("balance") - amount)
            tx.update(bank.accounts, b, balance=col("balance") + amount)
    except ex.CheckViolation:
        return 0
    return 1


def recode(bank: Bank, tx: au.Transaction, dice: random.Random) -> int:
    """Give an account another unique code; one that is taken is an error, and changes nothing."""
    tx.savepoint("before")
    code = f"code {dice.randrange(ACCOUNTS) if dice.random() < 0.5 else next(bank.codes)}"
    try:
        tx.update(bank.accounts, dice.randrange(ACCOUNTS), code=None if dice.random() < 0.2 else code)
        tx.insert(bank.journal, {"account": dice.randrange(ACCOUNTS), "amount": 0})
    except ex.DuplicateKey:
        tx.rollback_to("before")
        return 0
    if dice.random() < 0.3:
        tx.rollback_to("before")
        return 0
    return 1


def collect(bank: Bank, tx: au.Transaction, dice: random.Random) -> int:
    """Take one unit of each of an owner's free accounts and give them to one of them."""
    owner = dice.randrange(20)
    taken = 0
    with tx.range(bank.accounts, where=col("owner") == owner, for_update=True, skip_locked=True, limit=4) as rows:
        locked = list(rows)
    for row in locked:
        if row.balance > 0:
            tx.update(bank.accounts, row.id, balance=row.balance - 1)
            taken += 1
    if locked:
        tx.update(bank.accounts, locked[0].id, balance=col("balance") + taken)
    return 0


def look(bank: Bank, tx: au.Transaction, dice: random.Random) -> int:
    """What an index gives is what the table has; at "read committed" each call reads a later state."""
    owner = dice.randrange(20)
    if tx.isolation == "read committed":
        assert all(row.owner == owner for row in tx.range(bank.accounts.index("by_owner"), prefix=owner))
        return 0
    by_index = {row.id: row for row in tx.range(bank.accounts.index("by_owner"), prefix=owner)}
    by_key = {row.id: row for row in tx.range(bank.accounts, where=col("owner") == owner)}
    assert by_index == by_key
    row = next(iter(by_key.values()))
    if row.code is not None:
        assert tx.get(bank.accounts.index("by_code"), row.code) == row
    return 0


KINDS: tuple[Callable[[Bank, au.Transaction, random.Random], int], ...] = (
    transfer, transfer, transfer_by_expressions, recode, collect, look,
)  # fmt: skip


def work(bank: Bank, seed: int) -> None:
    dice = random.Random(seed)
    while bank.going():
        kind, level = dice.choice(KINDS), dice.choice(LEVELS)
        try:
            made = bank.db.run(lambda tx, kind=kind: kind(bank, tx, dice), isolation=level, retries=RETRIES)
        except ex.DuplicateKey:
            # A code that another transaction has, of another level: the commit tells.
            continue
        bank.count("entries", made)
        bank.count(kind.__name__)


async def work_async(bank: Bank, seed: int) -> None:
    dice = random.Random(seed)

    async def move(tx: au.AsyncTransaction) -> int:
        a, b = dice.sample(range(ACCOUNTS), 2)
        async with tx.savepoint():
            first = await tx.get(bank.accounts, a, for_update=True)
            assert first is not None
            amount = amount_of(dice, first)
            await tx.update(bank.accounts, a, balance=first.balance - amount)
            await tx.update(bank.accounts, b, balance=col("balance") + amount)
        await tx.insert(bank.journal, {"account": b, "amount": amount})
        return 1

    async def look_again(tx: au.AsyncTransaction) -> int:
        owner = dice.randrange(20)
        rows = [row async for row in tx.range(bank.accounts.index("by_owner"), prefix=owner)]
        assert [row.balance for row in rows] == sorted((row.balance for row in rows), reverse=True)
        return 0

    while bank.going():
        kind, level = dice.choice((move, move, look_again)), dice.choice(LEVELS)
        bank.count("entries", await bank.db.aio.run(kind, isolation=level, retries=RETRIES))
        bank.count(kind.__name__)


def define(bank: Bank, seed: int) -> None:
    """Definitions change all the time: an index, a check, a foreign key, tables that come and go."""
    dice = random.Random(seed)
    db, name = bank.db, f"extra_{seed}"
    again: list[Callable[[], object]] = []

    def until_done(change: Callable[[], object]) -> None:
        # The other one's change came between, as it does to any transaction.
        while True:
            try:
                change()
            except ex.Retryable:
                again.append(change)
            else:
                return

    while bank.going():
        match dice.randrange(4):
            case 0:
                length = col("code").str.len_chars()
                until_done(lambda of=length: db.create_index(bank.accounts, name, au.desc("balance"), of))
                until_done(lambda: db.drop_index(bank.accounts, name))
            case 1:
                rule = (col("balance") >= 0) & (col("owner") < 20)
                until_done(lambda of=rule: db.add_check(bank.accounts, name, of))
                until_done(lambda: db.drop_constraint(bank.accounts, name))
            case 2:
                table = db.create_table(name, Entry)
                db.insert_many(table, [{"account": dice.randrange(ACCOUNTS), "amount": 1} for _ in range(20)])
                db.drop_table(name)
                assert table.name == name
            case _:
                until_done(lambda: db.analyze(bank.accounts))
        bank.count("definitions")


def watch(bank: Bank) -> None:
    """At every moment the sum is what it was, and each index is the table in another order."""
    while bank.going():
        with bank.db.view() as view:
            try:
                whole = pa.table(view.scan(bank.accounts))
                orders = {
                    name: pa.table(view.scan(bank.accounts.index(name)).select("id"))["id"].to_pylist()
                    for name in ("by_owner", "by_code", "by_parity")
                }
            except ex.SchemaChanged:
                # A check came or went between the view's beginning and the handle's next look.
                continue
        assert sum(whole["balance"].to_pylist()) == ACCOUNTS * EACH
        for ids in orders.values():
            assert sorted(ids) == whole["id"].to_pylist()
        bank.count("views")


def kept(bank: Bank, do: Callable[..., None], *args: Any) -> Callable[[], None]:
    """What a thread runs: an error ends all of them and is raised by the test."""

    def run() -> None:
        try:
            do(bank, *args)
        except BaseException as error:  # noqa: BLE001 - raised by the test
            bank.errors.append(error)

    return run


def run_tasks(bank: Bank) -> None:
    async def tasks() -> None:
        await asyncio.gather(*(work_async(bank, 10_000 + seed) for seed in range(TASKS)))

    asyncio.run(tasks())


@pytest.fixture
def bank() -> Iterator[Bank]:
    with au.open(memory=True, conflict_bytes=64 << 20) as db:
        yield Bank(db)


def test_hundreds_of_threads_and_tasks_leave_everything_in_order(bank: Bank) -> None:
    jobs = [kept(bank, work, seed) for seed in range(THREADS)]
    jobs += [kept(bank, define, seed) for seed in range(2)]
    jobs += [kept(bank, watch), kept(bank, run_tasks)]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if bank.errors:
        raise bank.errors[0]
    db, done = bank.db, bank.done
    rows = {row.id: row for row in db.scan(bank.accounts)}
    assert sum(row.balance for row in rows.values()) == ACCOUNTS * EACH
    assert db.scan(bank.journal).count() == done["entries"]
    for index in bank.accounts.indexes:
        assert {row.id: row for row in db.scan(index)} == rows
    codes = [row.code for row in rows.values() if row.code is not None]
    assert len(codes) == len(set(codes))
    by_account = Counter(row.account for row in db.scan(bank.journal))
    for account in dice_sample(rows):
        assert db.scan(bank.journal.index("account_fk"), prefix=account).count() == by_account[account]
    # Everything had its turn.
    for kind in ("transfer", "transfer_by_expressions", "recode", "collect", "look", "move", "look_again", "views"):
        assert done[kind] > 0, done
    assert done["definitions"] > 0


def dice_sample(rows: dict[int, Account]) -> list[int]:
    return random.Random(1).sample(sorted(rows), 20)
