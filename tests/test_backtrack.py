"""Backtrack: the whole cluster at another moment, in place, and forward again, row by row against a model."""

from __future__ import annotations

import datetime as dt
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import aurora_engine as au
from aurora_engine import exceptions as ex


class Reading(au.Row, key="id"):
    id: int
    value: int


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


def put(db: au.Cluster, table: au.Table[Reading], rows: dict[int, int]) -> au.Commit:
    with db.transaction() as tx:
        for key, value in rows.items():
            tx.upsert(table, Reading(key, value))
    assert tx.committed is not None
    return tx.committed


def content(db: au.Cluster, table: au.Table[Reading]) -> dict[int, int]:
    return {row.id: row.value for row in db.scan(table)}


def test_back_and_forward_again(db: au.Cluster) -> None:
    table = db.create_table("readings", Reading)
    commits = [put(db, table, {1: n, n: n}) for n in range(10, 20)]
    done = db.backtrack(to=commits[3])
    assert (done.status, done.lsn, done.from_lsn) == ("completed", commits[3].lsn, commits[9].lsn)
    assert (done.backtrack_to, done.backtracked_from) == (commits[3].time, commits[9].time)
    assert done.backtrack_identifier.endswith(str(db.status().epoch))
    assert content(db, table) == {1: 13, **{n: n for n in range(10, 14)}}
    put(db, table, {5: 5})
    assert db.backtrack_window.abandoned == 1
    db.backtrack(to=done.backtracked_from)
    assert content(db, table) == {1: 19, **{n: n for n in range(10, 20)}}
    db.backtrack(to=commits[0].lsn)
    assert content(db, table) == {1: 10, 10: 10}


def test_random_walks_through_history(tmp_path: Path) -> None:
    random_walk = random.Random(7)
    path = tmp_path / "cluster"
    model: dict[int, int] = {}
    moments: list[tuple[au.Commit, dict[int, int]]] = []
    db = au.open(path)
    table = db.create_table("readings", Reading)
    for step in range(60):
        if moments and random_walk.random() < 0.3:
            commit, then = random_walk.choice(moments)
            db.backtrack(to=random_walk.choice([commit, commit.lsn, commit.time]))
            model = dict(then)
        elif random_walk.random() < 0.1:
            db.close()
            db = au.open(path)
            table = db.table("readings", Reading)
        else:
            changes = {random_walk.randrange(40): step for _ in range(5)}
            commit = put(db, table, changes)
            model = {**model, **changes}
            moments.append((commit, dict(model)))
        assert content(db, table) == model, step
    db.close()


def test_limits(db: au.Cluster) -> None:
    table = db.create_table("readings", Reading)
    put(db, table, {1: 1})
    now = dt.datetime.now(dt.UTC)
    for wrong in (now + dt.timedelta(hours=1), now - dt.timedelta(days=4), db.vdl + 1_000_000):
        with pytest.raises(ex.OutsideWindow, match=" to ") as caught:
            db.backtrack(to=wrong)
        assert caught.value.what in ("time", "LSN")
    with pytest.raises(ex.UnknownSnapshot):
        db.backtrack(to="never made")
    with pytest.raises(ex.InvalidOption, match="aware"):
        db.backtrack(to=dt.datetime(2024, 1, 1))
    with pytest.raises(ex.InvalidOption, match="a moment"):
        db.backtrack()
    with pytest.raises(ex.InvalidOption, match="72 hours"):
        db.set_backtrack_window(dt.timedelta(hours=73))
    db.set_backtrack_window(dt.timedelta(hours=1))
    assert db.backtrack_window.target == dt.timedelta(hours=1)
    done = db.backtrack(use_earliest=True)
    assert db.tables() == []
    db.backtrack(to=done.from_lsn)
    assert content(db, table) == {1: 1}


def test_open_transactions_are_told_to_begin_again(db: au.Cluster) -> None:
    table = db.create_table("readings", Reading)
    first = put(db, table, {1: 1})
    put(db, table, {1: 2})
    tx = db.transaction()
    tx.__enter__()
    tx.upsert(table, Reading(2, 2))
    db.backtrack(to=first)
    with pytest.raises(ex.HistoryChanged):
        tx.commit()
    assert content(db, table) == {1: 1}
    view = db.view()
    put(db, table, {1: 3})
    with db.view() as newer:
        db.backtrack(to=first)
        with pytest.raises(ex.HistoryChanged):
            newer.get(table, 1)
    assert view.get(table, 1) == Reading(1, 1)
    view.close()


def test_work_goes_on_while_it_happens(db: au.Cluster) -> None:
    table = db.create_table("readings", Reading)
    first = put(db, table, {0: 0})
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(key: int) -> None:
        def add(tx: au.Transaction) -> None:
            row = tx.get(table, key)
            tx.upsert(table, Reading(key, 1 if row is None else row.value + 1))

        try:
            while not stop.is_set():
                db.run(add)
                db.get(table, key)
                with db.view() as view:
                    try:
                        view.get(table, key)
                    except ex.HistoryChanged:
                        continue
        except BaseException as failure:  # noqa: BLE001 - shown by the test
            failures.append(failure)

    workers = [threading.Thread(target=work, args=(key,)) for key in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for _ in range(10):
        commit = db.run(lambda tx: tx.upsert(table, Reading(9, 9)))
        assert commit is None
        db.backtrack(to=first)
    stop.set()
    for worker in workers:
        worker.join()
    assert failures == []


def test_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "cluster"
    with au.open(path) as db:
        table = db.create_table("readings", Reading)
        put(db, table, {1: 1})
        before = db.snapshot("before")
        assert (before.name, before.lsn) == ("before", db.vdl)
        with pytest.raises(ex.SnapshotExists) as caught:
            db.snapshot("before")
        assert caught.value.name == "before"
        put(db, table, {1: 2})
    with au.open(path) as db:
        assert db.snapshots() == [before]
        table = db.table("readings", Reading)
        db.backtrack(to=before)
        assert content(db, table) == {1: 1}
        db.delete_snapshot("before")
        assert db.snapshots() == []
        with pytest.raises(ex.UnknownSnapshot):
            db.delete_snapshot("before")


KILLED = """
import sys
import aurora_engine as au

class Reading(au.Row, key="id"):
    id: int
    value: int

db = au.open(sys.argv[1])
table = db.table("readings", Reading)
first, last = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
while True:
    db.backtrack(to=first)
    db.backtrack(to=last)
"""


@pytest.mark.crash
def test_kill_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "cluster"
    with au.open(path) as db:
        table = db.create_table("readings", Reading)
        first = put(db, table, {1: 1})
        last = put(db, table, {1: 2, 2: 2})
    random_wait = random.Random(3)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(first.lsn), str(last.lsn)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        try:
            child.wait(timeout=random_wait.uniform(0.01, 0.2))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
        with child.stdout, au.open(path) as db:
            table = db.table("readings", Reading)
            assert content(db, table) in ({1: 1}, {1: 2, 2: 2})
            put(db, table, {3: 3})
            db.backtrack(to=last)
            assert content(db, table) == {1: 2, 2: 2}
            db.backtrack(to=first)
            assert content(db, table) == {1: 1}
