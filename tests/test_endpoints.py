"""Endpoints: cluster, reader, instance, custom."""

from __future__ import annotations

import collections
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


def names(endpoint: au.Endpoint, picks: int = 60) -> collections.Counter[str]:
    return collections.Counter(endpoint.pick().name for _ in range(picks))


def test_the_reader_falls_back_to_the_writer_and_shares_the_load(db: au.Cluster) -> None:
    assert names(db.reader) == {"instance-1": 60}
    for _ in range(3):
        db.add_replica()
    assert names(db.reader) == {"instance-2": 20, "instance-3": 20, "instance-4": 20}
    with db.reader.view(), db.reader.view():
        # Two of three have a connection.
        assert len(names(db.reader)) == 1
    db.create_table("readings", Reading)
    db._instance("instance-2")._crash()
    assert "instance-2" not in names(db.reader)


def test_an_instance_endpoint_stays_with_its_instance(db: au.Cluster) -> None:
    db.add_replica("r")
    assert names(db.instance("r")) == {"r": 60}
    db.failover("r")
    assert db.instance("r").pick().role == "writer"
    with pytest.raises(ex.UnknownInstance, match="expected one of r, instance-1, got none"):
        db.instance("x").view()


def test_custom_endpoints_by_list_and_by_exclusion(db: au.Cluster) -> None:
    for name in ("a", "b", "c"):
        db.add_replica(name)
    pair = db.endpoints.create("pair", static=["a", "b"])
    rest = db.endpoints.create("rest", exclude=["a"], kind="ANY")
    writer = db.endpoints.create("writer", exclude=(), kind="WRITER")
    assert set(names(pair)) == {"a", "b"}
    assert set(names(rest)) == {"instance-1", "b", "c"}
    assert set(names(writer)) == {"instance-1"}
    db.add_replica("d")
    assert set(names(pair)) == {"a", "b"}
    assert set(names(rest)) == {"instance-1", "b", "c", "d"}
    db.failover("a")
    assert set(names(pair)) == {"b"}  # A reader endpoint leaves its members out while they write.
    assert set(names(writer)) == {"a"}
    db.remove_replica("b")
    with pytest.raises(ex.UnknownInstance, match=r"endpoint .pair.: expected an instance of its list"):
        db.endpoints["pair"].view()
    assert list(db.endpoints) == ["pair", "rest", "writer"]
    assert db.endpoints.rule("pair").static == ("a", "b")
    db.endpoints.drop("pair")
    with pytest.raises(ex.UnknownEndpoint):
        db.endpoints["pair"]


def test_at_most_five_custom_endpoints_and_wrong_ones_are_refused(db: au.Cluster) -> None:
    db.add_replica("a")
    for n in range(5):
        db.endpoints.create(f"e{n}", static=["a"])
    with pytest.raises(ex.InvalidOption, match="expected at most 5, got 6"):
        db.endpoints.create("e5", static=["a"])
    db.endpoints.drop("e0")
    with pytest.raises(ex.UnknownInstance):
        db.endpoints.create("e5", static=["nobody"])
    for arguments, option in (
        ({"static": ["a"], "exclude": ["a"]}, "static"),
        ({"static": []}, "static"),
        ({"static": ["a"], "kind": "BOTH"}, "kind"),
    ):
        with pytest.raises(ex.InvalidOption) as refused:
            db.endpoints.create("e5", **arguments)  # type: ignore[arg-type]
        assert refused.value.option == option
    with pytest.raises(ex.InvalidOption):
        db.endpoints.create("e1", static=["a"])
