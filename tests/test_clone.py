"""Clones: copy-on-write, of clones, at a moment, deleted in any order; and the fixture that tests get one from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import aurora_engine as au
from aurora_engine import exceptions as ex

pytest_plugins = ["pytester"]


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


def content(db: au.Cluster) -> dict[int, int]:
    return {row.id: row.value for row in db.scan(db.table("readings", Reading))}


def test_a_clone_goes_its_own_way(db: au.Cluster) -> None:
    table = db.create_table("readings", Reading)
    first = put(db, table, {1: 1})
    snapshot = db.snapshot("one")
    put(db, table, {1: 2})
    with (
        db.clone(memory=True) as now,
        db.clone(memory=True, at=first) as then,
        db.clone(memory=True, at=snapshot) as one,
    ):
        assert (content(now), content(then), content(one)) == ({1: 2}, {1: 1}, {1: 1})
        put(now, now.table("readings", Reading), {2: 2})
        with now.clone(memory=True) as again:
            db.close()
            now.close()
            assert content(again) == {1: 2, 2: 2}
            assert again.status().cluster != then.status().cluster
    with pytest.raises(ex.ClusterClosed):
        db.clone(memory=True)


def test_a_moment_that_a_backtrack_has_left(db: au.Cluster) -> None:
    table = db.create_table("readings", Reading)
    first = put(db, table, {1: 1})
    left = put(db, table, {1: 2, 2: 2})
    db.backtrack(to=first)
    put(db, table, {3: 3})
    with db.clone(memory=True, at=left) as then:
        assert content(then) == {1: 2, 2: 2}
    assert content(db) == {1: 1, 3: 3}


def test_on_disk(tmp_path: Path) -> None:
    home, other, third = (tmp_path / name for name in ("home", "other", "third"))
    db = au.open(home)
    table = db.create_table("readings", Reading)
    put(db, table, {n: n for n in range(100)})
    clone = db.clone(other)
    memory = db.clone(memory=True)
    with pytest.raises(ex.AlreadyOpen):
        db.clone(other)
    au.open(third).close()
    with pytest.raises(ex.NotACluster):
        db.clone(third)
    shutil.rmtree(third)
    with pytest.raises(ex.InvalidOption):
        db.clone()
    with pytest.raises(ex.InvalidOption, match="memory=True"):
        memory.clone(third)
    put(clone, clone.table("readings", Reading), {1000: 1})
    db.close()
    shutil.rmtree(home)
    assert len(content(memory)) == 100
    memory.close()
    clone.close()
    with au.open(other) as clone, clone.clone(third) as last:
        assert content(last) == content(clone) == {**{n: n for n in range(100)}, 1000: 1}
    shutil.rmtree(other)
    with au.open(third) as last:
        put(last, last.table("readings", Reading), {7: 70})
        assert content(last)[7] == 70


def test_changes_and_preview(db: au.Cluster) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = db.create_table("readings", Reading)
    first = put(db, table, {1: 1, 2: 2, 3: 3})
    with db.transaction() as tx:
        tx.delete(table, 1)
        tx.update(table, 2, value=20)
        tx.insert(table, Reading(4, 4))
    changes = db.changes(table, first)
    plain = [(c.kind, *(row and au.astuple(row) for row in (c.before, c.after))) for c in changes]
    assert set(plain) == {
        ("delete", (1, 1), None),
        ("update", (2, 2), (2, 20)),
        ("insert", None, (4, 4)),
    }  # fmt: skip
    arrow = pyarrow.table(changes)
    assert arrow.column_names == ["_change", "id", "value"]
    assert sorted(arrow.to_pylist(), key=str) == sorted(
        [
            {"_change": "delete", "id": 1, "value": 1},
            {"_change": "update_preimage", "id": 2, "value": 2},
            {"_change": "update_postimage", "id": 2, "value": 20},
            {"_change": "insert", "id": 4, "value": 4},
        ],
        key=str,
    )
    preview = db.preview_backtrack(first)
    assert {name: (c.count("insert"), c.count("update"), c.count("delete")) for name, c in preview.items()} == {
        "readings": (1, 1, 1)
    }
    assert len(db.changes(table, db.vdl)) == 0
    with pytest.raises(ex.UnknownTable):
        db.changes("none", first)


def test_rows_come_back_as_an_ordinary_transaction(db: au.Cluster) -> None:
    table = db.create_table("readings", Reading)
    before = put(db, table, {n: n for n in range(2_500)})
    with db.transaction() as tx:
        for n in range(0, 2_500, 2):
            tx.delete(table, n)
    put(db, table, {1: 100, 9_999: 1})
    with db.transaction() as tx:
        done = tx.restore_rows(table, from_=before, where=lambda row: row.id % 4 == 0)
    assert done == {"insert": 625, "update": 0, "delete": 0}
    with db.transaction() as tx:
        assert tx.restore_rows(table, from_=before) == {"insert": 625, "update": 1, "delete": 1}
    assert content(db) == {n: n for n in range(2_500)}
    with pytest.raises(ex.OutsideWindow), db.transaction() as tx:
        tx.restore_rows(table, from_=db.vdl + 1_000_000)


def test_a_dropped_cluster_leaves_a_final_snapshot(tmp_path: Path) -> None:
    home = tmp_path / "bank"
    with au.open(home) as db:
        put(db, db.create_table("readings", Reading), {1: 1})
        with pytest.raises(ex.InvalidOption, match="'bank'"):
            au.drop_cluster(home, name="bonk")
        with pytest.raises(ex.AlreadyOpen):
            au.drop_cluster(home, name="bank")
    kept = au.drop_cluster(home, name="bank")
    assert not home.exists()
    assert kept is not None
    assert list(tmp_path.iterdir()) == [kept]
    with au.open(kept) as db:
        assert content(db) == {1: 1}
    assert au.drop_cluster(kept, name=kept.name, skip_final_snapshot=True) is None
    assert list(tmp_path.iterdir()) == []


async def test_for_asyncio(db: au.Cluster) -> None:
    table = db.create_table("readings", Reading)
    first = put(db, table, {1: 1})
    await db.aio.snapshot("one")
    put(db, table, {1: 2})
    clone = await db.aio.clone(memory=True)
    with clone:
        assert content(clone) == {1: 2}
    assert len(await db.aio.changes(table, first)) == 1
    assert list(await db.aio.preview_backtrack("one")) == ["readings"]
    assert (await db.aio.backtrack("one")).lsn == first.lsn
    assert content(db) == {1: 1}


def test_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import aurora_engine as au
        import pytest

        class Account(au.Row, key="id"):
            id: int

        @pytest.fixture(scope="session")
        def aurora_fill():
            def fill(db):
                table = db.create_table("accounts", Account)
                with db.transaction() as tx:
                    tx.insert(table, Account(1))
            return fill
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("n", range(3))
        def test_each_has_its_own(aurora_db, n):
            table = aurora_db.table("accounts")
            assert [row.id for row in aurora_db.scan(table)] == [1]
            with aurora_db.transaction() as tx:
                tx.delete(table, 1)
        """
    )
    # An installed package brings it; where it is only on the path, it is named.
    brought = any(plugin.value == "aurora_engine.pytest_plugin" for plugin in entry_points(group="pytest11"))
    named = () if brought else ("-p", "aurora_engine.pytest_plugin")
    result = pytester.runpytest_subprocess(*named, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)
