"""The cluster on an event loop: every operation awaitable, commits in flight, misuse refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Account(au.Row, key="id"):
    id: int
    owner: str
    balance: int = 0


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        accounts = cluster.create_table("accounts", Account)
        with cluster.transaction() as tx:
            for number in range(100):
                tx.insert(accounts, Account(number, f"owner {number}", 100))
        yield cluster


@pytest.fixture
def accounts(db: au.Cluster) -> au.Table[Account]:
    return db.table("accounts", Account)


async def test_every_operation_is_awaitable(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async with db.aio.transaction() as tx:
        await tx.insert(accounts, Account(200, "Ann"))
        await tx.upsert(accounts, Account(1, "Bob", 5))
        await tx.update(accounts, 2, balance=col("balance") + 1)
        assert await tx.delete(accounts, 3) is True
        assert await tx.delete(accounts, 3) is False
        assert await tx.get(accounts, 200) == Account(200, "Ann")
        assert await tx.get_many(accounts, [1, 3]) == [Account(1, "Bob", 5), None]
        assert [row.id async for row in tx.range(accounts, 2, 6)] == [2, 4, 5]
        assert tx.committed is None
    assert tx.committed is not None
    assert await db.aio.get(accounts, 2) == Account(2, "owner 2", 101)
    assert await db.aio.get_many(accounts, [200, 3]) == [Account(200, "Ann"), None]
    assert (await db.aio.status()).points.vdl >= tx.committed.lsn


async def test_errors_roll_back(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the change before it counts
        async with db.aio.transaction() as tx:
            await tx.delete(accounts, 1)
            raise ZeroDivisionError
    with pytest.raises(ex.DuplicateKey):
        async with db.aio.transaction() as tx:
            await tx.insert(accounts, Account(1, "again"))
    assert await db.aio.get(accounts, 1) == Account(1, "owner 1", 100)


async def test_a_thousand_commits_are_in_flight_at_once(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async def work(number: int) -> au.Commit | None:
        async with db.aio.transaction() as tx:
            await tx.insert(accounts, Account(1_000 + number, "x"))
        return tx.committed

    commits = await asyncio.gather(*(work(number) for number in range(1_000)))
    assert all(commit is not None for commit in commits)
    assert len({commit.lsn for commit in commits if commit}) == 1_000
    assert db.scan(accounts).count() == 1_100


async def test_operations_of_one_transaction_may_be_gathered(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async with db.aio.transaction() as tx:
        rows = await asyncio.gather(*(tx.get(accounts, number) for number in range(10)))
        await asyncio.wait_for(tx.delete(accounts, 1), timeout=5)
    assert [row.id for row in rows if row] == list(range(10))


async def test_run_tries_again_and_tokens_make_it_once(db: au.Cluster, accounts: au.Table[Account]) -> None:
    tries = []

    async def add(tx: au.AsyncTransaction) -> str:
        tries.append(1)
        await tx.get(accounts, 1)
        if len(tries) == 1:
            async with db.aio.transaction() as other:
                await other.update(accounts, 1, balance=0)
        await tx.update(accounts, 1, balance=col("balance") + 1)
        return "done"

    assert await db.aio.run(add) == "done"
    assert len(tries) == 2
    assert await db.aio.run(add, token="t-1") == "done"
    assert await db.aio.run(add, token="t-1") is None
    row = await db.aio.get(accounts, 1)
    assert row is not None
    assert row.balance == 2


async def test_a_cancelled_commit_does_not_harm_the_others(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async def work(number: int) -> None:
        async with db.aio.transaction() as tx:
            await tx.update(accounts, number, balance=1)

    tasks = [asyncio.create_task(work(number)) for number in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
    assert all(result is None for result in results[1::2])


async def test_the_loop_runs_while_a_commit_waits(db: au.Cluster, accounts: au.Table[Account]) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(turn())
    for number in range(20):
        async with db.aio.transaction() as tx:
            await tx.update(accounts, number, balance=1)
    task.cancel()
    assert turns > 0


def test_loops_in_several_threads_share_a_cluster(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async def work(first: int) -> None:
        async def one(number: int) -> None:
            async with db.aio.transaction() as tx:
                await tx.insert(accounts, Account(number, "x"))

        await asyncio.gather(*(one(number) for number in range(first, first + 200)))

    threads = [threading.Thread(target=lambda n=n: asyncio.run(work(1_000 * n))) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.scan(accounts).count() == 900


class SlowLoop(asyncio.SelectorEventLoop):
    """A loop that lets other threads go on whenever it is asked whether it is closed."""

    def is_closed(self) -> bool:
        time.sleep(0.001)
        return super().is_closed()


def test_loops_that_come_at_the_same_time_do_not_dead_lock(db: au.Cluster, accounts: au.Table[Account]) -> None:
    """A loop's first commit asks those before it whether they are closed, and did so with their list locked.

    Asking is Python, which may let another thread go on; when that had its first commit too, it waited for the list
    with the interpreter in its hands, and the first thread for the interpreter.
    """

    async def work(number: int) -> None:
        async with db.aio.transaction() as tx:
            await tx.update(accounts, number, balance=number)

    def run(number: int) -> None:
        with asyncio.Runner(loop_factory=SlowLoop) as runner:
            runner.run(work(number))

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert [row.balance for row in db.scan(accounts, 0, 24)] == list(range(24))


def test_one_cluster_serves_loop_after_loop(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async def work(number: int) -> None:
        async with db.aio.transaction() as tx:
            await tx.update(accounts, 1, balance=number)

    for number in range(5):
        asyncio.run(work(number))
    row = db.get(accounts, 1)
    assert row is not None
    assert row.balance == 4


def test_a_transaction_without_a_loop_still_answers(db: au.Cluster, accounts: au.Table[Account]) -> None:
    """What needs no waiting is complete without a loop."""
    tx = db.aio.transaction()
    with pytest.raises(StopIteration):
        next(iter(tx.__aenter__().__await__()))
    with pytest.raises(StopIteration) as answer:
        next(iter(tx.get(accounts, 1).__await__()))
    assert answer.value.value == Account(1, "owner 1", 100)
    with pytest.raises(StopIteration):
        next(iter(tx.rollback().__await__()))


async def test_a_closed_cluster_says_so(db: au.Cluster, accounts: au.Table[Account]) -> None:
    db.close()
    with pytest.raises(ex.ClusterClosed):
        await db.aio.get(accounts, 1)
    with pytest.raises(ex.ClusterClosed):
        async with db.aio.transaction():
            pass
