"""Injected faults: what each does to reads, commits and copies, and that all of it ends."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aurora_engine as au
from aurora_engine import col, faults
from aurora_engine import exceptions as ex

SECOND = dt.timedelta(seconds=1)


class Counter(au.Row, key="id"):
    id: int
    value: int


def opened(path: Path | None, **options: Any) -> au.Cluster:
    options = {"detection": dt.timedelta(milliseconds=30), **options}
    return au.open(memory=True, **options) if path is None else au.open(path, **options)


@pytest.fixture(params=["memory", "disk"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[au.Cluster]:
    with opened(None if request.param == "memory" else tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
def counters(db: au.Cluster) -> au.Table[Counter]:
    table = db.create_table("counters", Counter)
    put(db, table, 1, 0)
    return table


def put(db: au.Cluster, table: au.Table[Counter], key: int, value: int) -> au.Commit:
    with db.transaction() as tx:
        tx.upsert(table, Counter(key, value))
    assert tx.committed is not None
    return tx.committed


def states(db: au.Cluster) -> list[str]:
    return [node.state for node in db.status().nodes]


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)


def caught_up(db: au.Cluster) -> bool:
    status = db.status()
    return all(node.state == "healthy" and node.complete_to == status.points.vdl for node in status.nodes)


# ------------------------------------------------------------------------------------------- nodes


def test_a_node_that_is_down_is_not_missed_and_catches_up(db: au.Cluster, counters: au.Table[Counter]) -> None:
    assert db.faults.nodes == ("az1-a", "az1-b", "az2-a", "az2-b", "az3-a", "az3-b")
    assert db.faults.zones == ("az1", "az2", "az3")
    before = db.vdl
    with db.faults.node_down("az1-a") as fault:
        assert repr(db.faults) == "<Faults: node down at az1-a>"
        for n in range(20):
            put(db, counters, 1, n)
        status = db.status()
        assert [node.state for node in status.nodes] == ["unreachable", *["healthy"] * 5]
        assert status.nodes[0].complete_to <= before
    assert fault.ended
    assert repr(db.faults) == "<Faults: none is on>"
    eventually(lambda: caught_up(db))
    events = [(event.what, event.who) for event in db.events()]
    assert events == [("fault started", "az1-a"), ("fault ended", "az1-a")]


def test_a_zone_may_go_and_one_node_more_stops_commits_until_it_is_back(
    db: au.Cluster, counters: au.Table[Counter]
) -> None:
    with db.faults.az_down("az1"):
        put(db, counters, 1, 5)
        with db.faults.partition("az3/node5"):
            with pytest.raises(ex.QuorumLost, match="injected faults") as lost:
                put(db, counters, 1, 6)
            assert lost.value.missing == ["az1/node1", "az1/node2", "az3/node5"]
            assert db.get(counters, 1) == Counter(1, 5), "a read quorum is left"
        put(db, counters, 1, 7)
    eventually(lambda: caught_up(db))
    assert db.get(counters, 1) == Counter(1, 7)


def test_each_copy_that_was_away_can_serve_alone_afterwards(db: au.Cluster, counters: au.Table[Counter]) -> None:
    for az in db.faults.zones:
        with db.faults.partition(az):
            put(db, counters, 1, int(az[-1]))
    eventually(lambda: caught_up(db))
    with db.faults.node_down("az1"), db.faults.node_down("az2"), db.faults.node_down("az3-a"), db.view() as view:
        assert view.get(counters, 1) == Counter(1, 3)


def test_faults_overlap_and_end_in_any_order(db: au.Cluster, counters: au.Table[Counter]) -> None:
    first = db.faults.node_down("az2-a")
    second = db.faults.partition("az2")
    first.end()
    first.end()
    assert states(db)[2:4] == ["unreachable", "unreachable"]
    assert db.faults.active == ("partition at az2",)
    second.end()
    put(db, counters, 1, 1)
    eventually(lambda: caught_up(db))


def test_who_is_paused_is_waited_for(db: au.Cluster, counters: au.Table[Counter]) -> None:
    begun = time.monotonic()
    pause = db.faults.pause(interval=dt.timedelta(milliseconds=300))
    put(db, counters, 1, 1)
    assert time.monotonic() - begun >= 0.3
    assert pause.ended
    with db.faults.pause("az1", interval=60 * SECOND):
        begun = time.monotonic()
        put(db, counters, 1, 2)
        assert time.monotonic() - begun < 10, "four others have it"
    eventually(lambda: caught_up(db))


def test_an_interval_ends_by_itself(db: au.Cluster, counters: au.Table[Counter]) -> None:
    fault = db.faults.node_down("az1-b", interval=dt.timedelta(milliseconds=100))
    eventually(lambda: fault.ended and db.faults.active == ())
    put(db, counters, 1, 1)
    eventually(lambda: caught_up(db))


# ------------------------------------------------------------------------------------------- disks


def test_slow_disks_are_felt_from_the_third_node_on(db: au.Cluster, counters: au.Table[Counter]) -> None:
    numbers = itertools.count(1)

    def took() -> float:
        begun = time.monotonic()
        put(db, counters, 1, next(numbers))
        return time.monotonic() - begun

    with db.faults.disk_congestion(200, 300, node="az1"):
        assert min(took() for _ in range(5)) < 0.2
        with db.faults.disk_congestion(200, 300, node="az2-b"):
            assert took() >= 0.2
    with db.faults.disk_congestion(50, 60):
        assert took() >= 0.05
    eventually(lambda: caught_up(db))


def test_commits_go_through_failing_disks(db: au.Cluster, counters: au.Table[Counter]) -> None:
    db.faults.seed(3)
    with db.faults.disk_failure(40):
        for n in range(10):
            put(db, counters, 1, n)
    with db.faults.disk_failure(100, node="az1"):
        put(db, counters, 1, 10)
    eventually(lambda: caught_up(db))
    assert db.get(counters, 1) == Counter(1, 10)
    assert "lost" not in states(db)


def test_a_full_disk_is_said_and_passes(db: au.Cluster, counters: au.Table[Counter]) -> None:
    with db.faults.disk_full("az1-a"):
        put(db, counters, 1, 1)
    with db.faults.disk_full():
        with pytest.raises((ex.DiskFull, ex.CommitUnknown)):
            db.run(lambda tx: tx.update(counters, 1, value=col("value") + 1), token="once")
        with pytest.raises(ex.DiskFull):
            put(db, counters, 2, 2)
        assert db.get(counters, 1) in (Counter(1, 1), Counter(1, 2))
    db.run(lambda tx: tx.update(counters, 1, value=col("value") + 1), token="once")
    assert db.get(counters, 1) == Counter(1, 2)
    eventually(lambda: caught_up(db))


def test_a_page_that_rots_is_read_elsewhere_and_mended(db: au.Cluster, counters: au.Table[Counter]) -> None:
    for n in range(2_000):
        put(db, counters, n, n)
    for node in ("az1-a", "az2-b", "az3-a"):
        spoilt = db.faults.corrupt_page(node)
        assert spoilt.bytes > 0
    with db.view() as view:
        assert [row.value for row in view.range(counters)] == list(range(2_000))
    eventually(lambda: caught_up(db))
    assert [event.who for event in db.events() if event.what == "page corrupted"] == ["az1-a", "az2-b", "az3-a"]


# ------------------------------------------------------------------------------------------- the writer


def test_a_crash_takes_what_was_open_and_nothing_that_was_acknowledged(
    db: au.Cluster, counters: au.Table[Counter]
) -> None:
    put(db, counters, 1, 1)
    with db.view() as view:
        with pytest.raises(ex.Retryable), db.transaction() as tx:  # noqa: PT012 - it is refused at its end, or before
            tx.update(counters, 1, value=2)
            db.faults.crash_writer()
            tx.upsert(counters, Counter(2, 2))
        assert view.get(counters, 1) == Counter(1, 1), "what is durable can still be read"
    put(db, counters, 2, 2)  # Waits for the next writer.
    assert db.get(counters, 1) == Counter(1, 1)
    assert [event.what for event in db.events()] == ["writer crashed", "failover"]


@pytest.mark.parametrize("outcome", ["lost", "kept"])
def test_a_crash_during_a_commit_leaves_it_to_the_token(
    db: au.Cluster, counters: au.Table[Counter], outcome: Any
) -> None:
    db.faults.crash_writer(during_commit=outcome)
    assert db.faults.active == ("a writer crash during the next commit",)
    with pytest.raises(ex.CommitUnknown) as unknown, db.transaction(token="t") as tx:
        tx.update(counters, 1, value=1)
    assert unknown.value.token == "t"
    assert isinstance(unknown.value.__cause__, ex.WriterMoved)
    assert db.faults.active == ()
    commit = db.committed("t")
    assert (commit is not None) == (outcome == "kept")
    assert db.get(counters, 1) == Counter(1, int(outcome == "kept"))
    # Run with a token, neither is noticed.
    db.faults.crash_writer(during_commit=outcome)
    db.run(lambda tx: tx.update(counters, 1, value=col("value") + 10), token="u")
    assert db.get(counters, 1) == Counter(1, 10 + int(outcome == "kept"))
    assert db.faults.active == ()


@pytest.mark.parametrize("outcome", ["lost", "kept"])
def test_an_event_loop_hears_of_the_crash(db: au.Cluster, counters: au.Table[Counter], outcome: Any) -> None:
    async def main() -> None:
        db.faults.crash_writer(during_commit=outcome)
        with pytest.raises(ex.CommitUnknown):
            async with db.aio.transaction(token="t") as tx:
                await tx.update(counters, 1, value=1)

        async def add(tx: au.AsyncTransaction) -> None:
            await tx.update(counters, 1, value=col("value") + 1)

        await db.aio.run(add, token="u")

    asyncio.run(main())
    assert (db.committed("t") is not None) == (outcome == "kept")
    assert db.get(counters, 1) == Counter(1, 1 + int(outcome == "kept"))


def test_a_crash_that_was_called_off_does_not_come(db: au.Cluster, counters: au.Table[Counter]) -> None:
    db.faults.crash_writer(during_commit="lost")
    with db.transaction() as tx:
        tx.get(counters, 1)  # Nothing to make durable: the crash waits for a commit that has.
    db.faults.end_all()
    put(db, counters, 1, 1)
    assert [event.what for event in db.events()] == []


def test_tables_and_indexes_survive_crashes_at_every_moment(db: au.Cluster) -> None:
    for n in range(5):
        crash = threading.Thread(target=db.faults.crash_writer)
        crash.start()
        with contextlib.suppress(ex.Retryable, ex.OutcomeUnknown, ex.TableExists):
            db.create_table(f"t{n}", Counter, indexes=[au.index("by_value", "value")])
        crash.join()
        table = db.create_table(f"t{n}", Counter, exist_ok=True, indexes=[au.index("by_value", "value")])
        put(db, table, 1, n)
        with db.view() as view:
            assert list(view.range(table.index("by_value"))) == list(view.range(table)) == [Counter(1, n)]


def test_threads_that_count_with_tokens_survive_many_crashes(tmp_path: Path) -> None:
    with opened(tmp_path / "c", replicas=2, detection=dt.timedelta(milliseconds=10)) as db:
        counters = db.create_table("counters", Counter)
        done, stop = [0] * 4, threading.Event()
        problems: list[BaseException] = []

        def work(thread: int) -> None:
            try:
                while not stop.is_set():
                    step = done[thread] + 1
                    db.run(lambda tx: tx.upsert(counters, Counter(thread, step)), token=f"{thread}/{step}")  # noqa: B023
                    done[thread] = step
            except BaseException as error:  # noqa: BLE001 - whatever a thread meets, the test reports it
                problems.append(error)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        steps = [faults.CrashWriter(), faults.CrashWriter(None, "lost"), faults.CrashWriter(None, "kept")]
        schedule = db.faults.schedule(steps, seed=1, gap=(0.02, 0.06), count=40).start()
        assert schedule.join(60)
        stop.set()
        for thread in threads:
            thread.join()
        assert problems == []
        assert len(schedule.done) == 40
        assert [db.get(counters, thread) for thread in range(4)] == [Counter(n, done[n]) for n in range(4)]
        assert min(done) > 10
    with opened(tmp_path / "c") as db:
        assert [db.get(db.table("counters", Counter), n) for n in range(4)] == [Counter(n, done[n]) for n in range(4)]


def test_a_replica_that_hears_nothing_stays_behind(tmp_path: Path) -> None:
    with opened(tmp_path / "c", replicas=1) as db:
        counters = db.create_table("counters", Counter)
        put(db, counters, 1, 1)
        replica = db.instance("instance-2")
        with db.faults.replica_failure("instance-2"):
            commit = put(db, counters, 1, 2)
            with pytest.raises(ex.ReplicaLag):
                replica.view(after=commit, timeout=0.1)
        assert replica.get(counters, 1, after=commit) == Counter(1, 2)
        db.faults.crash_replica("instance-2")
        eventually(lambda: any(event.what == "replica restarted" for event in db.events()))
        with pytest.raises(ex.InvalidOption, match="which is the writer"):
            db.faults.crash_replica("instance-1")
        with pytest.raises(ex.UnknownInstance):
            db.faults.replica_failure("nobody")


# ------------------------------------------------------------------------------------------- schedules, ends, errors


def test_a_seed_gives_one_sequence(db: au.Cluster, counters: au.Table[Counter]) -> None:
    steps = [faults.NodeDown(), faults.Partition("az1"), faults.DiskCongestion("az2", 1, 5), faults.CrashWriter()]
    plan = db.faults.schedule(steps, seed=5).plan(50)
    assert plan == db.faults.schedule(steps, seed=5).plan(50)
    assert plan != db.faults.schedule(steps, seed=6).plan(50)
    assert {step.fault.kind for step in plan} == {"node_down", "partition", "disk_congestion", "crash_writer"}
    assert len({step.fault.node for step in plan if step.fault.kind == "node_down"}) > 3
    with db.faults.schedule(steps, seed=5, gap=(0, 0.01), lasting=(0, 0.02), count=8) as schedule:
        for n in range(20):
            db.run(lambda tx, n=n: tx.update(counters, 1, value=n), token=f"t{n}")  # type: ignore[misc]
        assert schedule.join(30)
    assert [step.fault for step in schedule.done] == [step.fault for step in plan[:8]]
    assert db.faults.active == ()
    eventually(lambda: caught_up(db))


def test_faults_end_with_the_cluster(tmp_path: Path) -> None:
    db = opened(tmp_path / "c")
    counters = db.create_table("counters", Counter)
    put(db, counters, 1, 1)
    long = db.faults.node_down("az1", interval=60 * SECOND)
    db.faults.disk_full()
    db.faults.crash_writer(during_commit="lost")
    schedule = db.faults.schedule([faults.NodeDown()], gap=(0, 0), lasting=(0, 0.01)).start()
    db.close()
    assert schedule.join(10)
    long.end()
    assert db.faults.active == ()
    with opened(tmp_path / "c") as db:
        assert db.get(db.table("counters", Counter), 1) == Counter(1, 1)
        assert states(db) == ["healthy"] * 6


def test_what_cannot_be_is_refused(db: au.Cluster) -> None:
    here = "one of az1-a, az1-b, az2-a, az2-b, az3-a, az3-b, az1, az2, az3"
    for call in (db.faults.node_down, db.faults.partition, db.faults.disk_full, db.faults.corrupt_page):
        with pytest.raises(ex.InvalidOption, match="node") as refused:
            call("az9")
        assert (refused.value.option, refused.value.expected) == ("node", here)
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: db.faults.az_down("az1-a"), "az"),
        (lambda: db.faults.disk_failure(101), "percent"),
        (lambda: db.faults.disk_failure(-1), "percent"),
        (lambda: db.faults.disk_failure(True), "percent"),
        (lambda: db.faults.disk_congestion(30, 20), "max_ms"),
        (lambda: db.faults.disk_congestion(-1, 20), "min_ms"),
        (lambda: db.faults.disk_congestion(0, 1e9), "max_ms"),
        (lambda: db.faults.disk_congestion(0, float("nan")), "max_ms"),
        (lambda: db.faults.node_down("az1", interval=dt.timedelta(0)), "interval"),
        (lambda: db.faults.pause("az1", interval=None), "interval"),  # type: ignore[arg-type]
        (lambda: db.faults.crash_writer(during_commit="half"), "during_commit"),  # type: ignore[arg-type]
        (lambda: db.faults.start(faults.CrashWriter()), "spec"),
        (lambda: db.faults.start(faults.NodeDown()), "node"),
        (lambda: db.faults.schedule([]), "steps"),
        (lambda: db.faults.schedule([faults.NodeDown()], gap=(2, 1)), "gap"),
    ]
    for call_it, option in wrong:
        with pytest.raises(ex.InvalidOption) as refused:
            call_it()
        assert refused.value.option == option
    assert db.faults.active == ()
    db.close()
    with pytest.raises(ex.ClusterClosed):
        db.faults.node_down("az1")
    with pytest.raises(ex.ClusterClosed):
        db.faults.crash_writer()


def test_a_reader_of_a_cluster_cannot_crash_its_writer(tmp_path: Path) -> None:
    opened(tmp_path / "c").close()
    with opened(tmp_path / "c", read_only=True) as db, pytest.raises(ex.ReadOnlyCluster):
        db.faults.crash_writer()


def test_a_fork_leaves_the_faults_of_its_parent_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as db, db.faults.node_down("az1") as fault:
        child = multiprocessing.get_context("fork").Process(target=fault.end)
        child.start()
        child.join()
        assert child.exitcode == 0
        assert db.faults.active == ("node down at az1",)


def test_a_backtrack_reaches_who_was_away(db: au.Cluster, counters: au.Table[Counter]) -> None:
    first = put(db, counters, 1, 1)
    with db.faults.node_down("az1"):
        put(db, counters, 1, 2)
        db.backtrack(first)
        assert db.get(counters, 1) == Counter(1, 1)
        put(db, counters, 1, 3)
    eventually(lambda: caught_up(db))
    with db.faults.node_down("az2"), db.faults.node_down("az3"):
        assert db.get(counters, 1) == Counter(1, 3)
