"""Replicas: what they show, what they refuse, how many there may be."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import aurora_engine as au
from aurora_engine import exceptions as ex


class Reading(au.Row, key="id"):
    id: int
    value: int


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True, replicas=2) as cluster:
        yield cluster


@pytest.fixture
def readings(db: au.Cluster) -> au.Table[Reading]:
    return db.create_table("readings", Reading)


def put(db: au.Cluster, table: au.Table[Reading], key: int, value: int) -> au.Commit:
    with db.transaction() as tx:
        tx.upsert(table, Reading(key, value))
    assert tx.committed is not None
    return tx.committed


def test_a_view_after_a_commit_reads_it(db: au.Cluster, readings: au.Table[Reading]) -> None:
    for value in range(100):
        commit = put(db, readings, value % 3, value)
        with db.reader.view(after=commit, timeout=10) as view:
            assert view.get(readings, value % 3) == Reading(value % 3, value)
            assert view.lsn >= commit.lsn
    assert all(status.cache.hits > 0 for status in db.status().instances)


def test_replicas_come_and_go(db: au.Cluster, readings: au.Table[Reading]) -> None:
    assert db.instances == ("instance-1", "instance-2", "instance-3")
    assert db.add_replica("reports", tier=9, instance_class="db.r6g.small") == "reports"
    assert db.status().instances[-1].instance_class == "small"
    commit = put(db, readings, 1, 1)
    with db.instance("reports").view(after=commit) as view:
        db.remove_replica("reports")
        put(db, readings, 1, 2)
        assert view.get(readings, 1) == Reading(1, 1)
    with pytest.raises(ex.UnknownInstance) as unknown:
        db.remove_replica("reports")
    assert unknown.value.there == ["instance-1", "instance-2", "instance-3"]
    assert [event.what for event in db.events()][-2:] == ["replica added", "replica removed"]
    with pytest.raises(ex.InvalidOption, match="fail over first"):
        db.remove_replica("instance-1")


def test_the_sixteenth_and_other_regions_are_refused_with_the_reason(db: au.Cluster) -> None:
    for _ in range(13):
        db.add_replica()
    with pytest.raises(ex.InvalidOption, match="expected at most 15 replicas of one volume, got 16"):
        db.add_replica()
    with pytest.raises(ex.RegionMismatch, match="lives in the region of its cluster"):
        db.add_replica(region="elsewhere")
    with pytest.raises(ex.InvalidOption, match="expected 0 to 15"):
        au.open(memory=True, replicas=16)
    db.remove_replica("instance-9")
    for arguments, message in (
        ({"tier": 16}, "expected 0 to 15"),
        ({"instance_class": "t2"}, "expected small, medium"),
        ({"name": "instance-2"}, "no instance of the cluster has"),
    ):
        with pytest.raises(ex.InvalidOption, match=message):
            db.add_replica(**arguments)  # type: ignore[arg-type]


def test_a_write_at_a_replica_names_the_writer(db: au.Cluster, readings: au.Table[Reading]) -> None:
    with (
        pytest.raises(ex.ReadOnlyInstance, match="the writer is instance-1") as refused,
        db.instance("instance-2").transaction(read_only=False),
    ):
        pass
    assert refused.value.writer == "instance-1"
    with db.instance("instance-2").transaction() as tx, pytest.raises(ex.ReadOnlyTransaction):
        tx.insert(readings, Reading(1, 1))
    with db.instance("instance-1").transaction(read_only=False) as tx:
        tx.insert(readings, Reading(1, 1))


def test_a_replica_that_stands_still_is_seen_and_stops_nobody(db: au.Cluster, readings: au.Table[Reading]) -> None:
    replica = db._instance("instance-2")
    replica._pause(True)
    commit = put(db, readings, 1, 1)
    with pytest.raises(ex.ReplicaLag) as late:
        db.instance("instance-2").view(after=commit, timeout=0.02)
    assert late.value.instance == "instance-2"
    assert late.value.expected == commit.lsn > late.value.got
    status = next(status for status in db.status().instances if status.name == "instance-2")
    assert status.lag_lsns > 0
    assert status.lag_ms > 0
    waiting = threading.Thread(target=lambda: db.instance("instance-2").get(readings, 1, after=commit))
    waiting.start()
    replica._pause(False)
    waiting.join()
    with db.instance("instance-2").view(after=commit) as view:
        assert view.get(readings, 1) == Reading(1, 1)
    assert "instance-2 (tier 1, large)" in str(db.status())


def test_a_reader_that_is_kept_never_goes_back(db: au.Cluster, readings: au.Table[Reading]) -> None:
    reader, last = db.reader, 0
    for value in range(50):
        put(db, readings, 1, value)
        with reader.view() as view:
            assert view.lsn >= last
            last = view.lsn
    commit = put(db, readings, 1, -1)
    assert reader.get(readings, 1, after=commit) == Reading(1, -1)
    assert reader.get_many(readings, [1, 2]) == [Reading(1, -1), None]


def test_scans_and_views_at_times_run_at_replicas(db: au.Cluster, readings: au.Table[Reading]) -> None:
    first = [put(db, readings, key, 0) for key in range(300)][-1]
    for key in range(300):
        put(db, readings, key, 1)
    endpoint = db.instance("instance-3")
    with endpoint.view(at=first) as view:
        assert sum(row.value for row in view.range(readings)) == 0
        assert view.scan(readings).count() == 300
    with endpoint.view(after=db.vdl) as view:
        assert sum(row.value for row in view.scan(readings)) == 300


def test_what_replicas_cost_is_shown(db: au.Cluster, readings: au.Table[Reading]) -> None:
    with db.reader.view(after=put(db, readings, 1, 1)):
        assert sum(status.connections for status in db.status().instances) == 1
    for name in db.instances[1:]:
        db.instance(name).get(readings, 1, after=db.vdl)
    replicas = db.status().instances[1:]
    assert all(status.role == "replica" for status in replicas)
    assert all(0 < status.shown_ms_p50 <= status.shown_ms_p99 for status in replicas)


def test_replicas_follow_a_backtrack(db: au.Cluster, readings: au.Table[Reading]) -> None:
    first = put(db, readings, 1, 1)
    left = put(db, readings, 1, 2)
    for name in db.instances[1:]:
        assert db.instance(name).get(readings, 1, after=left) == Reading(1, 2)
    db.backtrack(to=first)
    for name in db.instances:
        assert db.instance(name).get(readings, 1) == Reading(1, 1)
        with pytest.raises(ex.OutsideWindow):
            db.instance(name).view(after=left)
    commit = put(db, readings, 1, 3)
    added = db.add_replica()
    for name in (*db.instances[1:], added):
        assert db.instance(name).get(readings, 1, after=commit) == Reading(1, 3)
    db.failover(added)
    assert db.get(readings, 1) == Reading(1, 3)
    db.backtrack(to=first)
    assert db.reader.get(readings, 1) == Reading(1, 1)


def test_replicas_follow_changes_of_tables(db: au.Cluster, readings: au.Table[Reading]) -> None:
    put(db, readings, 1, 1)
    table = db.add_column("readings", "note", str | None)
    with db.transaction() as tx:
        tx.update(table, 1, note="n")
    for name in db.instances[1:]:
        row = db.instance(name).get(table, 1, after=tx.committed)
        assert row is not None
        assert (row.value, row.note) == (1, "n")
    db.failover()
    with db.transaction() as tx:
        tx.update(table, 1, note=None)
    row = db.get(table, 1)
    assert row is not None
    assert row.note is None


def test_replicas_of_a_cluster_on_disk(tmp_path: object) -> None:
    with au.open(f"{tmp_path}/c", replicas=1) as db:
        readings = db.create_table("readings", Reading)
        commit = put(db, readings, 1, 1)
        assert db.reader.get(readings, 1, after=commit) == Reading(1, 1)
    with au.open(f"{tmp_path}/c", read_only=True) as db:
        with pytest.raises(ex.ReadOnlyCluster):
            db.add_replica()
        assert db.reader.get(db.table("readings", Reading), 1) == Reading(1, 1)
