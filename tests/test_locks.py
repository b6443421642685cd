"""Row locks: who waits, for how long, in which order, and what becomes of circles. Savepoints, dropped tables."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Account(au.Row, key="id"):
    id: int
    balance: int = 0


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        accounts = cluster.create_table("accounts", Account)
        with cluster.transaction() as tx:
            for number in range(10):
                tx.insert(accounts, Account(number, 100))
        yield cluster


@pytest.fixture
def accounts(db: au.Cluster) -> au.Table[Account]:
    return db.table("accounts", Account)


def balance(db: au.Cluster, accounts: au.Table[Account], key: int) -> int:
    row = db.get(accounts, key)
    assert row is not None
    return row.balance


class Threads:
    """Threads whose errors are raised where they are joined."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again by the test's thread
                self._errors.append(error)

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=120)
            assert not thread.is_alive()
        if self._errors:
            raise self._errors[0]


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does; the test's own timeout ends it."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.001)


def stands_in_line(tx: au.Transaction) -> Callable[[], bool]:
    """Whether a transaction is inside an operation, which here means that it waits for a lock."""
    return lambda: "in use by another thread" in repr(tx)


def test_waiting_transactions_get_the_lock_in_their_order(db: au.Cluster, accounts: au.Table[Account]) -> None:
    order: list[int] = []
    threads = Threads()
    with db.transaction() as first:
        first.update(accounts, 1, balance=0)
        for number in range(5):
            waiting = db.transaction()

            def work(number: int = number, waiting: au.Transaction = waiting) -> None:
                with waiting as tx:
                    row = tx.get(accounts, 1, for_update=True)
                    assert row is not None
                    order.append(number)
                    # Each sees the one before it, though it began before that one had committed.
                    assert row.balance == number
                    tx.update(accounts, 1, balance=number + 1)

            threads.start(work)
            until(stands_in_line(waiting))
    threads.join()
    assert order == [0, 1, 2, 3, 4]


def test_a_lock_is_released_before_the_commit_is_durable(tmp_path: Any) -> None:
    """On a disk: whoever waited has the row when the commit has its place, not when the disk has answered."""
    with au.open(tmp_path / "cluster") as db:
        accounts = db.create_table("accounts", Account)
        with db.transaction() as tx:
            tx.insert(accounts, Account(1, 0))
        threads = Threads()

        def work() -> None:
            for _ in range(50):
                with db.transaction() as tx:
                    tx.update(accounts, 1, balance=col("balance") + 1)

        for _ in range(8):
            threads.start(work)
        threads.join()
        assert balance(db, accounts, 1) == 400


def test_nowait_and_skip_locked(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as holder, db.transaction() as other:
        holder.get(accounts, 3, for_update=True)
        with pytest.raises(ex.LockNotAvailable) as caught:
            other.get(accounts, 3, for_update=True, nowait=True)
        error = caught.value
        assert isinstance(error, ex.Retryable)
        assert (error.table, error.key, error.holder) == ("accounts", "(3)", holder.id)
        expected = (
            f'table "accounts", key (3): expected the row\'s lock to be free, got one held by transaction {holder.id}'
        )
        assert str(error) == expected
        assert other.get(accounts, 3, for_update=True, skip_locked=True) is None
        rows = other.range(accounts, 2, for_update=True, skip_locked=True, limit=3)
        assert [row.id for row in rows] == [2, 4, 5]
        with pytest.raises(ex.LockNotAvailable):
            list(other.range(accounts, for_update=True, nowait=True))
        # Who has the lock is not in its own way, and who only reads needs none.
        assert holder.get(accounts, 3, for_update=True, nowait=True) == Account(3, 100)
        assert other.get(accounts, 3) == Account(3, 100)


def test_what_locks_cannot_be_asked_for(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:
        with pytest.raises(ex.InvalidOption, match="for_update: expected nowait or skip_locked, got both"):
            tx.get(accounts, 1, for_update=True, nowait=True, skip_locked=True)
        for options in ({"nowait": True}, {"skip_locked": True}):
            with pytest.raises(ex.InvalidOption, match="expected for_update=True beside them"):
                tx.get(accounts, 1, **options)
            with pytest.raises(ex.InvalidOption, match="expected for_update=True beside them"):
                tx.range(accounts, **options)
    for wrong in (-1, "soon", float("nan"), dt.timedelta(seconds=-1)):
        with pytest.raises(ex.InvalidOption, match="lock_timeout: expected seconds, a timedelta, or None"):
            db.transaction(lock_timeout=wrong)  # type: ignore[arg-type]
    for right in (0, 1.5, None, float("inf"), dt.timedelta(seconds=2)):
        db.transaction(lock_timeout=right)


@pytest.mark.parametrize("patience", [0, 0.02, dt.timedelta(milliseconds=20)])
def test_a_lock_that_does_not_come(db: au.Cluster, accounts: au.Table[Account], patience: Any) -> None:
    with db.transaction() as holder, db.transaction(lock_timeout=patience) as other:
        holder.delete(accounts, 3)
        with pytest.raises(ex.LockTimeout) as caught:
            other.update(accounts, 3, balance=1)
        error = caught.value
        assert isinstance(error, ex.Retryable)
        assert (error.table, error.key, error.holder) == ("accounts", "(3)", holder.id)
        assert str(error).endswith(f"transaction {holder.id} holds it")
        # It goes on: with other rows, and with this one when that is free.
        other.update(accounts, 4, balance=4)
        holder.rollback()
        other.update(accounts, 3, balance=3)
    assert (balance(db, accounts, 3), balance(db, accounts, 4)) == (3, 4)


def test_absent_keys_are_locked_too(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as first, db.transaction(lock_timeout=0) as other:
        assert first.get(accounts, 50, for_update=True) is None
        with pytest.raises(ex.LockTimeout):
            other.insert(accounts, Account(50, 2))
        first.insert(accounts, Account(50, 1))
        first.commit()
        with pytest.raises(ex.DuplicateKey):
            other.insert(accounts, Account(50, 2))
    assert balance(db, accounts, 50) == 1


def test_a_deadlock_names_its_circle(db: au.Cluster, accounts: au.Table[Account]) -> None:
    threads = Threads()
    first = db.transaction()
    with db.transaction() as second:
        second.update(accounts, 2, balance=0)
        locked = threading.Event()

        def work() -> None:
            with first as tx:
                tx.update(accounts, 1, balance=0)
                locked.set()
                tx.update(accounts, 2, balance=5)

        threads.start(work)
        locked.wait(timeout=60)
        until(stands_in_line(first))
        with pytest.raises(ex.Deadlock) as caught:
            second.update(accounts, 1, balance=0)
        a, b = first.id, second.id
        assert a is not None
        assert b is not None
        assert caught.value.cycle == [(b, "accounts", "(1)", a), (a, "accounts", "(2)", b)]
        assert str(caught.value) == (
            f'deadlock: transaction {b} waits for table "accounts", key (1), which transaction {a} holds; '
            f'transaction {a} waits for table "accounts", key (2), which transaction {b} holds'
        )
        assert isinstance(caught.value, ex.Retryable)
        second.rollback()
    threads.join()
    assert (balance(db, accounts, 1), balance(db, accounts, 2)) == (0, 5)


def test_deadlocks_are_run_again(db: au.Cluster, accounts: au.Table[Account]) -> None:
    """Transfers that lock two rows in either order: nothing is lost, and everybody comes through."""
    threads = Threads()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(40):
            source, target = rng.sample(range(10), 2)

            def move(tx: au.Transaction, source: int = source, target: int = target) -> None:
                tx.update(accounts, source, balance=col("balance") - 1)
                tx.update(accounts, target, balance=col("balance") + 1)

            db.run(move, isolation="read committed", retries=1000)

    for seed in range(12):
        threads.start(lambda seed=seed: work(seed))
    threads.join()
    assert sum(row.balance for row in db.scan(accounts)) == 1_000


def test_a_hot_row_from_sixteen_threads(db: au.Cluster, accounts: au.Table[Account]) -> None:
    """Nobody is refused: a first operation that locks reads behind the lock, so there is nothing to retry."""
    threads = Threads()

    def work() -> None:
        for _ in range(50):
            with db.transaction() as tx:
                tx.update(accounts, 1, balance=col("balance") + 1)

    for _ in range(16):
        threads.start(work)
    threads.join()
    assert balance(db, accounts, 1) == 100 + 16 * 50


async def test_a_hot_row_from_hundreds_of_tasks(db: au.Cluster, accounts: au.Table[Account]) -> None:
    """They wait without threads: a pool full of waiting tasks would leave none to whoever is to go on."""

    async def work() -> None:
        for _ in range(3):
            async with db.aio.transaction() as tx:
                await tx.update(accounts, 1, balance=col("balance") + 1)
                await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(300)))
    row = await db.aio.get(accounts, 1)
    assert row == Account(1, 100 + 900)


async def test_tasks_that_deadlock_are_run_again(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(3):
            source, target = rng.sample(range(10), 2)

            async def move(tx: au.AsyncTransaction, source: int = source, target: int = target) -> None:
                await tx.update(accounts, source, balance=col("balance") - 1)
                await asyncio.sleep(0)
                await tx.update(accounts, target, balance=col("balance") + 1)

            await db.aio.run(move, isolation="read committed", retries=1000)

    await asyncio.gather(*(work(seed) for seed in range(100)))
    assert sum(row.balance for row in db.scan(accounts)) == 1_000


def test_threads_and_loops_wait_for_each_other(db: au.Cluster, accounts: au.Table[Account]) -> None:
    threads = Threads()

    def blocking() -> None:
        for _ in range(60):
            with db.transaction() as tx:
                tx.update(accounts, 1, balance=col("balance") + 1)

    async def one() -> None:
        async with db.aio.transaction() as tx:
            await tx.update(accounts, 1, balance=col("balance") + 1)
            await asyncio.sleep(0)

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(60)))

    for _ in range(3):
        threads.start(blocking)
        threads.start(lambda: asyncio.run(many()))
    threads.join()
    assert balance(db, accounts, 1) == 100 + 6 * 60


async def test_awaitable_locks(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async with db.aio.transaction() as holder, db.aio.transaction(lock_timeout=0.02) as other:
        assert await holder.get(accounts, 3, for_update=True) == Account(3, 100)
        with pytest.raises(ex.LockTimeout) as caught:
            await other.update(accounts, 3, balance=1)
        assert caught.value.holder == holder.id
        with pytest.raises(ex.LockNotAvailable):
            await other.get(accounts, 3, for_update=True, nowait=True)
        assert await other.get(accounts, 3, for_update=True, skip_locked=True) is None
        rows = other.range(accounts, 2, for_update=True, skip_locked=True, limit=2)
        assert [row.id async for row in rows] == [2, 4]
        with pytest.raises(ex.LockTimeout):
            [row async for row in other.range(accounts, 3, for_update=True)]
        await holder.rollback()
        await other.update(accounts, 3, balance=1)
    assert await db.aio.get(accounts, 3) == Account(3, 1)


async def test_a_cancelled_wait_gives_its_place_up(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async with db.aio.transaction() as holder:
        await holder.update(accounts, 1, balance=1)

        async def wait(to: int) -> None:
            async with db.aio.transaction() as tx:
                await tx.update(accounts, 1, balance=col("balance") * 10 + to)

        tasks = [asyncio.create_task(wait(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        for task in tasks[1::2]:
            task.cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [False, True, False, True, False]
    assert await db.aio.get(accounts, 1) == Account(1, 1135)


async def test_a_caught_cancellation_leaves_the_transaction_usable(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async with db.aio.transaction() as holder, db.aio.transaction() as other:
        await holder.update(accounts, 1, balance=1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(other.update(accounts, 1, balance=2), timeout=0.01)
        await other.update(accounts, 2, balance=2)
        await holder.rollback()
        await other.update(accounts, 1, balance=3)
    assert [row and row.balance for row in db.get_many(accounts, [1, 2])] == [3, 2]


async def test_gathered_operations_of_one_transaction_keep_their_order(
    db: au.Cluster, accounts: au.Table[Account]
) -> None:
    async with db.aio.transaction() as holder:
        await holder.update(accounts, 1, balance=0)

        async def work() -> None:
            async with db.aio.transaction() as tx:
                operations = (
                    tx.update(accounts, 1, balance=col("balance") + 1),
                    tx.update(accounts, 1, balance=col("balance") * 10),
                    tx.get(accounts, 1),
                    tx.update(accounts, 2, balance=7),
                )
                assert (await asyncio.gather(*operations))[2] == Account(1, 10)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
    await task
    assert [row and row.balance for row in db.get_many(accounts, [1, 2])] == [10, 7]


async def test_what_is_not_awaited_is_refused_at_the_end(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async with db.aio.transaction() as holder:
        await holder.update(accounts, 1, balance=0)
        with pytest.raises(ex.AsyncMisuse, match="not awaited before its end"):
            async with db.aio.transaction() as tx:
                forgotten = tx.update(accounts, 1, balance=5)
        with pytest.raises(ex.AsyncMisuse, match="to have been awaited"):  # noqa: PT012 - it takes two steps
            async with db.aio.transaction() as tx:
                forgotten_too = tx.update(accounts, 1, balance=5)
                tx.savepoint()
    for future in (forgotten, forgotten_too):
        with pytest.raises(ex.TransactionClosed):
            await asyncio.wait_for(future, timeout=60)


def test_a_transaction_belongs_to_its_event_loop(db: au.Cluster, accounts: au.Table[Account]) -> None:
    tx = db.aio.transaction()

    async def begin() -> None:
        await tx.__aenter__()
        assert await tx.get(accounts, 1) == Account(1, 100)

    async def go_on() -> None:
        expected = "expected that one to be running, got another one"
        with pytest.raises(ex.AsyncMisuse, match=expected):
            await tx.get(accounts, 1)
        with pytest.raises(ex.AsyncMisuse, match=expected):
            await tx.commit()
        with pytest.raises(ex.AsyncMisuse, match=expected):
            tx.savepoint()
        with pytest.raises(ex.AsyncMisuse, match=expected):
            [row async for row in tx.range(accounts)]

    asyncio.run(begin())
    asyncio.run(go_on())
    with pytest.raises(ex.AsyncMisuse, match="got none"):
        tx.get(accounts, 1)


def test_closing_the_cluster_ends_every_wait(db: au.Cluster, accounts: au.Table[Account]) -> None:
    holder, waiting = db.transaction(), db.transaction(lock_timeout=None)
    holder.__enter__()
    holder.update(accounts, 1, balance=0)
    threads = Threads()

    def block() -> None:
        with pytest.raises(ex.ClusterClosed), waiting as tx:
            tx.update(accounts, 1, balance=1)

    async def wait() -> None:
        with pytest.raises(ex.ClusterClosed):  # noqa: PT012 - it takes two steps
            async with db.aio.transaction(lock_timeout=None) as tx:
                operation = tx.update(accounts, 1, balance=1)
                registered.set()
                await operation

    registered = threading.Event()
    threads.start(block)
    until(stands_in_line(waiting))
    threads.start(lambda: asyncio.run(wait()))
    registered.wait(timeout=60)
    db.close()
    threads.join()


def test_a_queue_of_jobs_with_skip_locked(db: au.Cluster) -> None:
    """Every job is done once, whichever level the workers use; nobody waits for another's job."""
    for level in ("read committed", "snapshot"):
        jobs = db.create_table(f"jobs {level}", Account)
        with db.transaction() as tx:
            for number in range(100):
                tx.insert(jobs, Account(number))
        done: list[int] = []
        threads = Threads()

        def work(level: Any = level, jobs: au.Table[Account] = jobs, done: list[int] = done) -> None:
            def take(tx: au.Transaction) -> int | None:
                job = next(tx.range(jobs, for_update=True, skip_locked=True, limit=1), None)
                if job is None:
                    return None
                tx.delete(jobs, job.id)
                return job.id

            while (number := db.run(take, isolation=level, retries=0)) is not None:
                done.append(number)

        for _ in range(8):
            threads.start(work)
        threads.join()
        assert sorted(done) == list(range(100))
        assert db.scan(jobs).count() == 0


def test_savepoints(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:
        tx.update(accounts, 1, balance=1)
        with pytest.raises(ZeroDivisionError), tx.savepoint():  # noqa: PT012 - the changes before it count
            tx.update(accounts, 1, balance=2)
            tx.insert(accounts, Account(50))
            tx.delete(accounts, 2)
            raise ZeroDivisionError
        assert tx.get_many(accounts, [1, 50, 2]) == [Account(1, 1), None, Account(2, 100)]
        with tx.savepoint() as outer:
            tx.update(accounts, 3, balance=3)
            with tx.savepoint("inner"):
                tx.update(accounts, 3, balance=4)
            outer.rollback()
            tx.update(accounts, 4, balance=4)
            assert outer.name is None
        with pytest.raises(ex.UnknownSavepoint):
            outer.rollback()
        tx.savepoint("a")
        tx.delete(accounts, 5)
        tx.savepoint("b")
        tx.delete(accounts, 6)
        tx.rollback_to("a")
        with pytest.raises(ex.UnknownSavepoint, match='savepoint "b": expected one of this transaction') as caught:
            tx.rollback_to("b")
        assert caught.value.name == '"b"'
        tx.delete(accounts, 7)
        tx.release("a")
        with pytest.raises(ex.UnknownSavepoint):
            tx.release("a")
    rows = db.get_many(accounts, range(1, 8))
    assert [row and row.balance for row in rows] == [1, 100, 100, 4, 100, 100, None]


def test_locks_stay_when_a_savepoint_is_rolled_back(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx, db.transaction(lock_timeout=0) as other:
        savepoint = tx.savepoint()
        tx.update(accounts, 1, balance=1)
        savepoint.rollback()
        with pytest.raises(ex.LockTimeout):
            other.update(accounts, 1, balance=2)


def test_an_error_in_a_savepoint_can_be_survived(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:
        for number in range(8, 12):
            try:
                with tx.savepoint():
                    tx.update(accounts, 0, balance=col("balance") + 1)
                    tx.insert(accounts, Account(number, 1))
            except ex.DuplicateKey:
                pass
    assert balance(db, accounts, 0) == 102
    assert db.scan(accounts).count() == 12


def test_a_savepoint_does_not_outlive_its_transaction(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx, tx.savepoint() as savepoint:
        tx.delete(accounts, 1)
        tx.commit()
    with pytest.raises(ex.TransactionClosed):
        savepoint.rollback()
    assert db.get(accounts, 1) is None


async def test_awaitable_savepoints(db: au.Cluster, accounts: au.Table[Account]) -> None:
    async with db.aio.transaction() as tx:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the change before it counts
            async with tx.savepoint():
                await tx.delete(accounts, 1)
                raise ZeroDivisionError
        async with tx.savepoint("s") as savepoint:
            await tx.delete(accounts, 2)
            await savepoint.rollback()
            await tx.delete(accounts, 3)
            await tx.rollback_to("s")
            await tx.delete(accounts, 4)
            await tx.release("s")
        with pytest.raises(ex.UnknownSavepoint):
            await savepoint.release()
        assert savepoint.name == "s"
    gone = [number for number, row in enumerate(db.get_many(accounts, range(10))) if row is None]
    assert gone == [4]


def test_a_dropped_table_says_so(db: au.Cluster, accounts: au.Table[Account]) -> None:
    """Reads through the handle of a dropped table gave its old rows, until its pages were used again."""
    with db.transaction() as tx:
        assert tx.get(accounts, 1) == Account(1, 100)
        with db.transaction(isolation="read committed") as other:
            other.update(accounts, 2, balance=2)
            before = db.vdl
            db.drop_table("accounts")
            with pytest.raises(ex.TableDropped):
                other.get(accounts, 2)
            with pytest.raises(ex.TableDropped):
                other.commit()
        # The snapshot still has it, but it is not to be changed any more.
        assert tx.get(accounts, 1) == Account(1, 100)
        with pytest.raises(ex.TableDropped, match='table "accounts": expected one, got one that was dropped at LSN'):
            tx.update(accounts, 1, balance=1)
    reads: list[Callable[[], object]] = [
        lambda: db.get(accounts, 1),
        lambda: db.get_many(accounts, [1]),
        lambda: list(db.scan(accounts)),
        lambda: db.scan(accounts).count(),
        lambda: db.run(lambda tx: tx.get(accounts, 1)),
        lambda: db.run(lambda tx: list(tx.range(accounts))),
        lambda: db.run(lambda tx: tx.insert(accounts, Account(1))),
        lambda: db.run(lambda tx: tx.get(accounts, 1, for_update=True)),
        lambda: db.view().get(accounts, 1),
        lambda: asyncio.run(_get(db, accounts)),
    ]
    for read in reads:
        with pytest.raises(ex.TableDropped) as caught:
            read()
        assert isinstance(caught.value, ex.UnknownTable)
        assert caught.value.table == "accounts"
        assert before < caught.value.dropped <= db.vdl
    # As of a moment at which it was there, it can be read.
    with db.view(at=before) as view:
        assert view.get(accounts, 1) == Account(1, 100)
    again = db.create_table("accounts", Account)
    assert db.get(again, 1) is None
    with pytest.raises(ex.TableDropped):
        db.get(accounts, 1)


async def _get(db: au.Cluster, accounts: au.Table[Account]) -> Account | None:
    return await db.aio.get(accounts, 1)


class Coded(au.Row, key="id", indexes=[au.index("by_code", "code", unique=True)]):
    id: int
    code: str | None


def test_at_read_committed_a_unique_value_is_waited_for_and_then_a_duplicate() -> None:
    """As PostgreSQL does it: the second waits for the first to end, and its statement says what there is then."""
    with au.open(memory=True) as db:
        coded = db.create_table("coded", Coded)
        db.insert_many(coded, [Coded(9, "nine")])
        for ending in ("commit", "rollback"):
            threads = Threads()
            first = db.transaction(isolation="read committed").__enter__()
            first.insert(coded, Coded(1, "one"))
            second = db.transaction(isolation="read committed")
            heard: list[str] = []

            def work(second: au.Transaction = second, heard: list[str] = heard) -> None:
                with second as tx:
                    try:
                        tx.insert(coded, Coded(2, "one"))
                    except ex.DuplicateKey as error:
                        heard.append(str(error))
                    tx.upsert(coded, Coded(3, None))

            threads.start(work)
            until(stands_in_line(second))
            getattr(first, ending)()
            threads.join()
            if ending == "commit":
                assert heard == ['table "coded", index "by_code": expected no row with key ("one"), got one']
                assert [row.id for row in db.scan(coded)] == [1, 3, 9]
            else:
                assert heard == []
                assert [row.id for row in db.scan(coded)] == [2, 3, 9]
            with db.transaction() as tx:
                for key in (1, 2, 3):
                    tx.delete(coded, key)


def test_two_that_wait_for_each_other_for_unique_values_are_a_deadlock() -> None:
    with au.open(memory=True) as db:
        coded = db.create_table("coded", Coded)
        threads = Threads()
        with db.transaction(isolation="read committed") as first, db.transaction(isolation="read committed") as second:
            first.insert(coded, Coded(1, "one"))
            second.insert(coded, Coded(2, "two"))

            def work() -> None:
                first.insert(coded, Coded(3, "two"))

            threads.start(work)
            until(stands_in_line(first))
            with pytest.raises(ex.Deadlock, match=r'coded\.by_code.*"two"|coded\.by_code.*"one"'):
                second.insert(coded, Coded(4, "one"))
            second.rollback()
            threads.join()
        assert [row.id for row in db.scan(coded)] == [1, 3]


def test_a_value_that_does_not_change_is_not_waited_for() -> None:
    with au.open(memory=True) as db:
        coded = db.create_table("coded", Coded)
        db.insert_many(coded, [Coded(1, "one"), Coded(2, None)])
        with db.transaction(isolation="read committed", lock_timeout=0) as first:
            first.upsert(coded, Coded(1, "one"))
            with db.transaction(isolation="read committed", lock_timeout=0) as second:
                second.upsert(coded, Coded(2, None))
                second.insert(coded, Coded(3, "three"))
                with pytest.raises(ex.DuplicateKey):
                    second.insert(coded, Coded(4, "one"))
