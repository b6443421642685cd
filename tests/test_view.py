"""Views: everything as it was at one LSN, one commit, one time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

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


def put(db: au.Cluster, table: au.Table[Reading], value: int) -> au.Commit:
    with db.transaction() as tx:
        tx.upsert(table, Reading(1, value))
    assert tx.committed is not None
    return tx.committed


def value_at(db: au.Cluster, table: au.Table[Reading], at: au.Commit | int | dt.datetime) -> int:
    with db.view(at=at) as view:
        row = view.get(table, 1)
    assert row is not None
    return row.value


def test_a_view_sees_one_moment(db: au.Cluster) -> None:
    readings = db.create_table("readings", Reading)
    commits = [put(db, readings, value) for value in range(5)]
    for value, commit in enumerate(commits):
        assert value_at(db, readings, commit) == value
        assert value_at(db, readings, commit.lsn) == value
        assert value_at(db, readings, commit.time) == value
    between = commits[1].time + (commits[2].time - commits[1].time) / 2
    assert value_at(db, readings, between) in (1, 2)
    with db.view() as view:
        put(db, readings, 99)
        assert view.get_many(readings, [1, 2]) == [Reading(1, 4), None]
        assert list(view.range(readings)) == [Reading(1, 4)]
        assert list(view.scan(readings)) == [Reading(1, 4)]
        assert view.lsn == commits[-1].lsn


def test_a_view_after_a_commit_includes_it(db: au.Cluster) -> None:
    readings = db.create_table("readings", Reading)
    commit = put(db, readings, 7)
    with db.reader.view(after=commit) as view:
        assert view.lsn >= commit.lsn
        assert view.get(readings, 1) == Reading(1, 7)
    with db.view(after=commit.lsn) as view:
        assert view.lsn >= commit.lsn


def test_times_and_places_that_are_not(db: au.Cluster) -> None:
    readings = db.create_table("readings", Reading)
    put(db, readings, 1)
    now = dt.datetime.now(dt.UTC)
    with pytest.raises(ex.OutsideWindow, match="is outside the window"):
        db.view(at=now - dt.timedelta(days=10_000))
    with pytest.raises(ex.InvalidOption, match="an aware datetime"):
        db.view(at=now.replace(tzinfo=None))
    with pytest.raises(ex.InvalidOption, match="a Commit, an LSN or an aware datetime"):
        db.view(at="noon")  # type: ignore[arg-type]
    with pytest.raises(ex.InvalidOption, match="a Commit or an LSN"):
        db.view(after=now)  # type: ignore[arg-type]
    with pytest.raises(ex.InvalidOption, match="at or after"):
        db.view(at=1, after=1)


def test_a_closed_view_says_so(db: au.Cluster) -> None:
    readings = db.create_table("readings", Reading)
    view = db.view()
    view.close()
    view.close()
    with pytest.raises(ex.TransactionClosed):
        view.get(readings, 1)


def test_lsns_that_are_not_here(db: au.Cluster) -> None:
    with pytest.raises(ex.OutsideWindow) as caught:
        db.view(at=db.vdl + 1_000_000)
    assert caught.value.what == "LSN"
