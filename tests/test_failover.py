"""Failover as clients see it: planned, forced, after crashes, hundreds in a row, every acknowledged commit checked."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Counter(au.Row, key="id"):
    id: int
    value: int


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True, replicas=2, detection=dt.timedelta(milliseconds=50)) as cluster:
        yield cluster


@pytest.fixture
def counters(db: au.Cluster) -> au.Table[Counter]:
    return db.create_table("counters", Counter)


def put(db: au.Cluster, table: au.Table[Counter], key: int, value: int) -> au.Commit:
    with db.transaction() as tx:
        tx.upsert(table, Counter(key, value))
    assert tx.committed is not None
    return tx.committed


def test_a_planned_failover_disturbs_no_open_transaction(db: au.Cluster, counters: au.Table[Counter]) -> None:
    put(db, counters, 1, 1)
    with db.transaction() as tx, db.view() as view:
        tx.update(counters, 1, value=2)
        done = db.failover("instance-3")
        assert (done.source, done.target) == ("instance-1", "instance-3")
        assert tx.get(counters, 1) == Counter(1, 2)
        assert view.get(counters, 1) == Counter(1, 1)
    assert db.get(counters, 1) == Counter(1, 2)
    assert [status.role for status in db.status().instances] == ["writer", "replica", "replica"]
    event = db.events()[-1]
    assert (event.what, event.who, event.took_s) == ("failover", "instance-3", done.gap_s)
    with pytest.raises(ex.InvalidOption, match="which is the writer"):
        db.failover("instance-3")
    with pytest.raises(ex.UnknownInstance):
        db.failover("nobody")
    commit = put(db, counters, 1, 3)
    assert db.instance("instance-1").get(counters, 1, after=commit) == Counter(1, 3)


def test_a_crash_is_found_and_work_goes_on(db: au.Cluster, counters: au.Table[Counter]) -> None:
    put(db, counters, 1, 1)
    db._instance("instance-1")._crash()
    put(db, counters, 1, 2)  # Waits for the new writer.
    assert db.instances[0] != "instance-1"
    event = next(event for event in db.events() if event.what == "failover")
    assert "instance-1 was silent for" in str(event.detail)
    # The crashed one is made anew and follows.
    commit = put(db, counters, 1, 3)
    deadline = time.monotonic() + 10
    while "instance-1" not in db.instances and time.monotonic() < deadline:
        time.sleep(0.01)
    assert db.instance("instance-1").get(counters, 1, after=commit) == Counter(1, 3)


def test_without_a_replica_the_writer_is_made_anew() -> None:
    with au.open(memory=True, detection=dt.timedelta(milliseconds=20)) as db:
        counters = db.create_table("counters", Counter)
        put(db, counters, 1, 1)
        db._instance("instance-1")._crash()
        put(db, counters, 1, 2)
        assert db.get(counters, 1) == Counter(1, 2)
        assert db.instances == ("instance-1",)


def test_the_policy_chooses_within_a_tenth_of_a_second(db: au.Cluster, counters: au.Table[Counter]) -> None:
    db.add_replica("last", tier=15)
    seen: list[dict[str, Any]] = []

    def by_name(candidates: list[dict[str, Any]]) -> str:
        seen.extend(candidates)
        return "last"

    db.set_choose(by_name)
    assert db.failover().target == "last"
    assert {candidate["name"] for candidate in seen} == {"instance-2", "instance-3", "last"}
    assert {candidate["instance_class"] for candidate in seen} == {"large"}
    release = threading.Event()
    db.set_choose(lambda _candidates: str(release.wait(10)))
    assert db.failover().target == "instance-1"  # Nobody waits for a policy that stands still.
    release.set()
    db.set_choose(lambda _candidates: "nobody")
    assert db.failover().target in {"instance-2", "instance-3"}
    assert any(event.what == "policy ignored" for event in db.events())
    db.set_choose(None)
    put(db, counters, 1, 1)


def test_a_python_thread_that_stands_still_causes_no_failover(db: au.Cluster, counters: au.Table[Counter]) -> None:
    put(db, counters, 1, 1)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:  # The interpreter is never given free for as long as several detection times.
        sum(range(100_000))
    with db.transaction() as tx:
        tx.update(counters, 1, value=2)
        time.sleep(0.2)
    assert [event.what for event in db.events() if event.what == "failover"] == []


def test_200_failovers_in_a_row_lose_no_acknowledged_commit(db: au.Cluster, counters: au.Table[Counter]) -> None:
    threads, stop = 3, threading.Event()
    told: list[dict[int, int]] = [{} for _ in range(threads)]
    failures: list[BaseException] = []
    added = [0] * threads
    put(db, counters, 999_999, 0)

    def work(thread: int) -> None:
        n = 0
        try:
            while not stop.is_set():
                n += 1
                key = thread * 1_000 + n % 20
                db.run(lambda tx, key=key, n=n: tx.upsert(counters, Counter(key, n)))  # type: ignore[misc]
                told[thread][key] = n
                db.run(
                    lambda tx: tx.update(counters, 999_999, value=col("value") + 1), token=f"{thread}-{n}", retries=500
                )
                added[thread] += 1
        except BaseException as error:  # noqa: BLE001 - whatever a thread meets, the test reports it
            failures.append(error)

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for n in range(200):
        if n % 20 == 19:
            writer = db.instances[0]
            db._instance(writer)._crash()
            deadline = time.monotonic() + 20
            while (db.instances[0] == writer or writer not in db.instances) and time.monotonic() < deadline:
                time.sleep(0.005)
        else:
            db.failover(force=n % 2 == 1)
    stop.set()
    for worker in workers:
        worker.join()
    assert failures == []
    failovers = [event for event in db.events() if event.what == "failover"]
    assert len(failovers) >= 200
    for rows in told:
        assert rows
        for key, n in rows.items():
            row = db.get(counters, key)
            assert row is not None
            # The last one may have been made and not told.
            assert row.value >= n
    total = db.get(counters, 999_999)
    assert total is not None
    assert total.value == sum(added)  # Each exactly once.
    with db.reader.view(after=db.vdl) as view:
        assert view.get(counters, 999_999) == total


def test_transactions_on_an_event_loop_follow(db: au.Cluster, counters: au.Table[Counter]) -> None:
    async def work(n: int) -> int:
        done = 0
        for value in range(15):

            async def change(tx: au.AsyncTransaction, value: int = value) -> None:
                await tx.upsert(counters, Counter(n, value))

            await db.aio.run(change)
            done += 1
        return done

    async def main() -> None:
        tasks = [asyncio.create_task(work(n)) for n in range(20)]
        for n in range(10):
            done = await db.aio.failover(force=n % 2 == 1)
            assert done.source != done.target
        assert sum(await asyncio.gather(*tasks)) == 300

    asyncio.run(main())
    assert [row.value for row in db.scan(counters)] == [14] * 20
