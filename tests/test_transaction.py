"""Transactions in threads: what they see, how they end, what they refuse."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Account(au.Row, key="id"):
    id: int
    owner: str
    balance: int = 0


class Entry(au.Row, key=("book", au.desc("page"), "line")):
    book: str
    page: int
    line: int
    text: str = ""


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


@pytest.fixture
def accounts(db: au.Cluster) -> au.Table[Account]:
    table = db.create_table("accounts", Account)
    with db.transaction() as tx:
        for number in range(10):
            tx.insert(table, Account(number, f"owner {number}", 100))
    return table


def test_a_transaction_commits_when_its_block_ends(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:
        tx.insert(accounts, Account(100, "Ann"))
        assert tx.get(accounts, 100) == Account(100, "Ann")
        assert db.get(accounts, 100) is None
        assert tx.committed is None
    assert db.get(accounts, 100) == Account(100, "Ann")
    commit = tx.committed
    assert commit is not None
    assert commit.lsn <= db.vdl
    assert commit.copies >= 4
    assert commit.time.tzinfo is not None
    assert commit.token is None


def test_an_error_rolls_back(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction() as tx:  # noqa: PT012 - the change before it counts
        tx.delete(accounts, 1)
        raise ZeroDivisionError
    assert db.get(accounts, 1) is not None
    assert tx.committed is None


def test_every_kind_of_change(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:
        tx.update(accounts, 1, owner="Bob", balance=col("balance") - 1)
        tx.upsert(accounts, Account(2, "Cid", 1))
        tx.upsert(accounts, Account(200, "Dee", 2))
        assert tx.delete(accounts, 3) is True
        assert tx.delete(accounts, 3) is False
        assert tx.delete(accounts, 999) is False
    rows = db.get_many(accounts, [1, 2, 200, 3])
    assert rows == [Account(1, "Bob", 99), Account(2, "Cid", 1), Account(200, "Dee", 2), None]


def test_refused_changes(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with (
        pytest.raises(ex.DuplicateKey, match=r'table "accounts": expected no row with key \(1\), got one') as caught,
        db.transaction() as tx,
    ):
        tx.insert(accounts, Account(1, "Ann"))
    assert (caught.value.table, caught.value.key) == ("accounts", "(1)")
    assert caught.value.seen > 0
    with pytest.raises(ex.RowNotFound, match=r"expected a row with key \(77\)"), db.transaction() as tx:
        tx.update(accounts, 77, balance=1)
    with pytest.raises(ex.KeyUpdate, match="a column outside the key"), db.transaction() as tx:
        tx.update(accounts, 1, id=5)
    with pytest.raises(ex.UnknownColumn, match="a column among id, owner, balance, got salary"), db.transaction() as tx:
        tx.update(accounts, 1, salary=5)
    with pytest.raises(ex.InvalidOption, match="at least one column to change"), db.transaction() as tx:
        tx.update(accounts, 1)
    assert db.scan(accounts).count() == 10


def test_the_first_committer_wins(db: au.Cluster, accounts: au.Table[Account]) -> None:
    slow = db.transaction()
    with pytest.raises(ex.WriteConflict) as caught, slow as tx:  # noqa: PT012 - two transactions at once
        tx.get(accounts, 1)
        with db.transaction() as other:
            other.update(accounts, 1, balance=2)
        tx.update(accounts, 1, balance=1)
    assert isinstance(caught.value, ex.Retryable)
    assert caught.value.table == "accounts"
    assert caught.value.by > caught.value.snapshot
    row = db.get(accounts, 1)
    assert row is not None
    assert row.balance == 2


def test_a_snapshot_does_not_move(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction(read_only=True) as reader, db.transaction() as tx:
        tx.update(accounts, 1, balance=5)
        tx.commit()
        row = reader.get(accounts, 1)
        assert row is not None
        assert row.balance == 100
    assert reader.committed is not None


def test_a_read_only_transaction_refuses_writes(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with pytest.raises(ex.ReadOnlyTransaction), db.transaction(read_only=True) as tx:
        tx.delete(accounts, 1)


def test_a_transaction_is_used_inside_its_block_only(db: au.Cluster, accounts: au.Table[Account]) -> None:
    tx = db.transaction()
    with pytest.raises(ex.TransactionClosed, match="has not been entered"):
        tx.get(accounts, 1)
    with tx:
        rows = tx.range(accounts)
        next(rows)
    with pytest.raises(ex.TransactionClosed, match="has ended"):
        tx.get(accounts, 1)
    with pytest.raises(ex.TransactionClosed, match="has ended"):
        list(rows)
    with pytest.raises(ex.TransactionClosed, match="entered once"), tx:
        pass


def test_commit_and_rollback_by_hand(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:
        tx.delete(accounts, 1)
        commit = tx.commit()
        assert commit == tx.committed
    with db.transaction() as tx:
        tx.delete(accounts, 2)
        tx.rollback()
    assert db.get_many(accounts, [1, 2]) == [None, Account(2, "owner 2", 100)]


def test_compound_keys(db: au.Cluster) -> None:
    entries = db.create_table("entries", Entry)
    with db.transaction() as tx:
        for book in ("a", "b"):
            for page in (1, 2, 3):
                for line in (1, 2):
                    tx.insert(entries, Entry(book, page, line))
        assert tx.get(entries, ("a", 2, 1)) == Entry("a", 2, 1)
        places = [(row.page, row.line) for row in tx.range(entries, prefix="a")]
    assert places == [(3, 1), (3, 2), (2, 1), (2, 2), (1, 1), (1, 2)]
    with db.view() as view:
        assert [row.page for row in view.range(entries, ("b", 3), ("b", 1))] == [3, 3, 2, 2]
        assert [row.line for row in view.range(entries, prefix=("b", 2), reverse=True)] == [2, 1]
    for wrong in ("a", ("a",), ("a", 1, 1, 1)):
        with pytest.raises(ex.TypeMismatch, match=r"a tuple of 3 key values \(book, page, line\)"):
            db.get(entries, wrong)
    with pytest.raises(ex.TypeMismatch, match="at most 3 key values"), db.view() as view:
        view.range(entries, ())
    with pytest.raises(ex.InvalidOption, match="lo and hi, or a prefix"), db.view() as view:
        view.range(entries, "a", prefix="b")


def test_ranges_are_half_open_and_see_own_changes(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:
        tx.delete(accounts, 4)
        tx.insert(accounts, Account(15, "new"))
        tx.update(accounts, 5, balance=7)
        assert [row.id for row in tx.range(accounts, 3, 7)] == [3, 5, 6]
        assert [row.id for row in tx.range(accounts, 8)] == [8, 9, 15]
        assert [row.id for row in tx.range(accounts, hi=2)] == [0, 1]
        assert [row.id for row in tx.range(accounts, reverse=True, limit=3)] == [15, 9, 8]
        assert list(tx.range(accounts, 7, 3)) == []
        assert [row.balance for row in tx.range(accounts, 5, 6)] == [7]
        with tx.range(accounts) as rows:
            assert next(rows).id == 0
            rows.close()
            assert list(rows) == []


def test_keys_that_cannot_be(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with pytest.raises(ex.TypeMismatch, match="expected int"):
        db.get(accounts, "1")
    with pytest.raises(ex.NullViolation):
        db.get(accounts, None)
    names = db.create_table("names", type("Name", (au.Row,), {"__annotations__": {"name": str}}, key="name"))
    with pytest.raises(ex.KeyTooLong, match="at most 1024 bytes") as caught, db.transaction() as tx:
        tx.insert(names, names.row("x" * 2000))
    assert caught.value.limit == 1024
    with pytest.raises(ex.KeyTooLong):
        db.get(names, "x" * 2000)


def test_tokens_make_a_commit_happen_once(db: au.Cluster, accounts: au.Table[Account]) -> None:
    def pay(tx: au.Transaction) -> str:
        tx.update(accounts, 1, balance=col("balance") - 10)
        return "paid"

    assert db.committed("pay-42") is None
    assert db.run(pay, token="pay-42") == "paid"
    assert db.run(pay, token="pay-42") is None
    row = db.get(accounts, 1)
    assert row is not None
    assert row.balance == 90
    commit = db.committed("pay-42")
    assert commit is not None
    assert commit.token == "pay-42"
    with pytest.raises(ex.TokenUsed) as caught, db.transaction(token="pay-42") as tx:
        pay(tx)
    assert caught.value.token == "pay-42"
    assert str(caught.value).endswith(f"got one that was committed at {caught.value.time}")
    for bad in ("", "x" * 1000):
        with pytest.raises(ex.InvalidOption, match="commit token: expected 1 to"), db.transaction(token=bad) as tx:
            pay(tx)


def test_run_tries_again_after_a_conflict(db: au.Cluster, accounts: au.Table[Account]) -> None:
    tries = []

    def add(tx: au.Transaction) -> None:
        tries.append(1)
        tx.get(accounts, 1)
        if len(tries) == 1:
            with db.transaction() as other:
                other.update(accounts, 1, balance=0)
        tx.update(accounts, 1, balance=col("balance") + 1)

    db.run(add)
    assert len(tries) == 2
    row = db.get(accounts, 1)
    assert row is not None
    assert row.balance == 1

    def always(tx: au.Transaction) -> None:
        tx.get(accounts, 1)
        with db.transaction() as other:
            other.update(accounts, 1, balance=2)
        tx.update(accounts, 1, balance=1)

    with pytest.raises(ex.WriteConflict):
        db.run(always, retries=2)
    with pytest.raises(ZeroDivisionError):
        db.run(lambda _tx: 1 / 0)


def test_threads_share_a_cluster(db: au.Cluster, accounts: au.Table[Account]) -> None:
    def transfer(seed: int) -> None:
        for step in range(50):
            source, target = (seed + step) % 10, (seed + 3 * step + 1) % 10
            if source == target:
                continue

            def move(tx: au.Transaction, source: int = source, target: int = target) -> None:
                tx.update(accounts, source, balance=col("balance") - 1)
                tx.update(accounts, target, balance=col("balance") + 1)

            db.run(move, retries=1000)

    threads = [threading.Thread(target=transfer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(row.balance for row in db.scan(accounts)) == 1000


def test_one_transaction_used_by_many_threads_does_not_dead_lock(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:

        def work(first: int) -> None:
            for number in range(first, first + 100):
                tx.insert(accounts, Account(number, "x"))
                tx.get(accounts, number)

        threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert db.scan(accounts).count() == 410


@pytest.mark.parametrize("retries", [-1, None, 1.5])
def test_retries_that_cannot_be(db: au.Cluster, retries: Any) -> None:
    with pytest.raises(ex.InvalidOption, match=r"option retries: expected a whole number from 0 up, got "):
        db.run(lambda tx: None, retries=retries)
    with pytest.raises(ex.InvalidOption, match=r"option retries"):
        asyncio.run(db.aio.run(lambda tx: asyncio.sleep(0), retries=retries))


def test_an_unknown_isolation_is_refused(db: au.Cluster) -> None:
    expected = (
        r'isolation: expected "read committed", "snapshot" \(also called "repeatable read"\) or "serializable", got '
    )
    for wrong in ("chaos", "read uncommitted", ""):
        with pytest.raises(ex.InvalidOption, match=expected + f'"{wrong}"'):
            db.transaction(isolation=wrong)  # type: ignore[arg-type]
        with pytest.raises(ex.InvalidOption, match=expected):
            db.aio.transaction(isolation=wrong)  # type: ignore[arg-type]
    names = {"read committed", "READ COMMITTED", "snapshot", "repeatable read", "REPEATABLE_READ", "serializable"}
    levels = {db.transaction(isolation=name).isolation for name in names}  # type: ignore[arg-type]
    assert levels == {"read committed", "snapshot", "serializable"}


async def test_awaiting_inside_a_blocking_transaction_raises(db: au.Cluster, accounts: au.Table[Account]) -> None:
    message = "awaited something inside a blocking transaction"
    with pytest.raises(ex.AsyncMisuse, match=message), db.transaction() as tx:  # noqa: PT012 - it takes two steps
        tx.delete(accounts, 1)
        await asyncio.sleep(0)
        tx.delete(accounts, 2)
    with pytest.raises(ex.AsyncMisuse, match=message), db.transaction() as tx:  # noqa: PT012 - it takes two steps
        tx.delete(accounts, 1)
        await asyncio.sleep(0)
    assert db.scan(accounts).count() == 10
    with db.transaction() as tx:
        tx.delete(accounts, 1)
    await asyncio.sleep(0)
    assert db.scan(accounts).count() == 9
