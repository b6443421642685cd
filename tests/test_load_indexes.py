"""Bulk loads into tables with indexes, checks and foreign keys: built in one pass, checked, all or nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex

MIB = 1 << 20


class Owner(au.Row, key="id"):
    id: int
    name: str


class Account(
    au.Row,
    key="id",
    indexes=[au.index("by_email", "email", unique=True), au.index("by_balance", au.desc("balance"))],
    constraints=[au.check("solvent", col("balance") >= 0), au.foreign_key("owner", parent="owners")],
):
    id: int
    owner: int | None
    email: str | None
    balance: int


class Node(au.Row, key="id", constraints=[au.foreign_key("up", parent="nodes")]):
    id: int
    up: int | None


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


OWNERS = 500


@pytest.fixture
def accounts(db: au.Cluster) -> au.Table[Account]:
    db.load(db.create_table("owners", Owner), [Owner(i, f"owner {i}") for i in range(OWNERS)])
    return db.create_table("accounts", Account)


def stream(ids: range, *, step: int = 1) -> pa.Table:
    """Rows in the order of their keys, or not."""
    order = [ids[i * step % len(ids)] for i in range(len(ids))]
    return pa.table({
        "id": order,
        "owner": [None if i % 9 == 0 else i % OWNERS for i in order],
        "email": [None if i % 5 == 0 else f"{i * 7919 % 1_000_003:07}@x" for i in order],
        "balance": [i % 1000 for i in order],
    })  # fmt: skip


def check(db: au.Cluster, table: au.Table[Account], ids: set[int]) -> None:
    """Table and indexes have the same rows, each index in its order."""
    got = pa.table(db.scan(table)).to_pylist()
    assert {row["id"] for row in got} == ids
    assert len(got) == len(ids)
    by_email = pa.table(db.scan(table.index("by_email"))).to_pylist()
    assert by_email == sorted(got, key=lambda row: (row["email"] is not None, row["email"] or "", row["id"]))
    by_balance = pa.table(db.scan(table.index("by_balance")).select("id")).to_pydict()["id"]
    assert by_balance == [row["id"] for row in sorted(got, key=lambda row: (-row["balance"], row["id"]))]
    by_owner = pa.table(db.scan(table.index("owner_fk")).select("id")).to_pydict()["id"]
    assert sorted(by_owner) == sorted(ids)


@pytest.mark.parametrize("step", [1, 7], ids=["in order", "in any order"])
@pytest.mark.parametrize("memory_bytes", [64 * MIB, 2 * MIB], ids=["in memory", "in files"])
def test_indexes_are_built_with_the_rows(
    db: au.Cluster, accounts: au.Table[Account], step: int, memory_bytes: int
) -> None:
    count = 60_001
    assert db.load(accounts, stream(range(count), step=step), memory_bytes=memory_bytes) == count
    check(db, accounts, set(range(count)))
    found = db.get(accounts.index("by_email"), f"{7919:07}@x")
    assert found is not None
    assert found.id == 1
    # Transactions go on with what was loaded.
    with db.transaction() as tx:
        tx.delete(accounts, 2)
        tx.insert(accounts, Account(count, 1, f"{2 * 7919:07}@x", 5))
        with pytest.raises(ex.DuplicateKey, match="by_email"):
            tx.update(accounts, 3, email=f"{7919:07}@x")
    check(db, accounts, set(range(count + 1)) - {2})
    with pytest.raises(ex.ForeignKeyViolation), db.transaction() as tx:
        tx.delete(db.table("owners", Owner), 1)


def test_a_table_with_rows_is_merged_and_its_indexes_built_anew(db: au.Cluster, accounts: au.Table[Account]) -> None:
    db.insert_many(accounts, stream(range(0, 4000, 2)))
    with db.transaction() as tx:
        tx.update(accounts, 8, balance=999)
    first = 130_001
    assert db.load(accounts, stream(range(1, first, 2), step=3)) == first // 2
    # More than one transaction takes, into a table with rows: merged.
    more = 260_001
    assert db.load(accounts, stream(range(first, more), step=7), memory_bytes=4 * MIB) == more - first
    check(db, accounts, set(range(0, 4000, 2)) | set(range(1, first, 2)) | set(range(first, more)))
    assert db.get(accounts, 8) == Account(8, 8, f"{8 * 7919:07}@x", 999)


BAD: list[tuple[dict[str, Any], type[ex.AuroraError], str]] = [
    ({"email": f"{7919:07}@x"}, ex.DuplicateKey, "row 70.*by_email"),
    ({"owner": OWNERS + 3}, ex.ForeignKeyViolation, f'row 70000: .*owners".*{OWNERS + 3}'),
    ({"balance": -1}, ex.CheckViolation, "row 70000: .*solvent.*balance = -1"),
]


@pytest.mark.parametrize("filled", [False, True], ids=["empty", "with rows"])
@pytest.mark.parametrize(("bad", "error", "message"), BAD, ids=["unique", "foreign key", "check"])
def test_one_bad_row_of_many_leaves_all_as_it_was(
    db: au.Cluster, accounts: au.Table[Account], filled: bool, bad: dict[str, Any], error: type[ex.AuroraError],
    message: str,
) -> None:  # fmt: skip
    before: set[int] = set()
    if filled:
        before = set(range(200_000, 200_100))
        db.insert_many(accounts, stream(range(200_000, 200_100)))
    rows = stream(range(120_000), step=7).to_pylist()
    rows[70_000].update(bad)
    with pytest.raises(error, match=message) as caught:
        db.load(accounts, rows)
    assert caught.value.details["row"] == 70_000 or bad.get("email")
    check(db, accounts, before)
    rows[70_000] = {"id": 150_000, "owner": 3, "email": None, "balance": 0}
    assert db.load(accounts, rows) == 120_000


def test_a_row_of_the_table_that_has_the_values_already_is_found(db: au.Cluster, accounts: au.Table[Account]) -> None:
    db.insert_many(accounts, [Account(-1, 1, f"{600 * 7919 % 1_000_003:07}@x", 1)])
    rows = stream(range(1, 120_002)).to_pylist()
    taken = next(row for row in rows if row["id"] == 601)
    taken["email"] = f"{600 * 7919 % 1_000_003:07}@x"
    with pytest.raises(ex.DuplicateKey, match='row 600: table "accounts", index "by_email"'):
        db.load(accounts, rows)
    check(db, accounts, {-1})


@pytest.mark.parametrize("filled", [False, True], ids=["empty", "with rows"])
def test_rows_of_one_load_may_refer_to_each_other(db: au.Cluster, filled: bool) -> None:
    nodes = db.create_table("nodes", Node)
    if filled:
        db.insert_many(nodes, [Node(-1, None)])
    count = 120_000
    tree = [Node(i, i // 2 if i else (-1 if filled else None)) for i in range(count)]
    tree[5] = Node(5, count - 1)
    lost = [*tree[:-1], Node(count + 7, 1)]
    with pytest.raises(ex.ForeignKeyViolation, match=f"row 5: .*{count - 1}"):
        db.load(nodes, lost)
    assert db.load(nodes, tree) == count
    assert pa.table(db.scan(nodes.index("up_fk"), prefix=count - 1).select("id")).to_pydict() == {"id": [5]}


@pytest.mark.slow
def test_commits_meanwhile_are_carried_over_into_the_indexes(db: au.Cluster, accounts: au.Table[Account]) -> None:
    owners = db.table("owners", Owner)
    db.load(accounts, stream(range(20_000)))
    began, stop = threading.Event(), threading.Event()
    changed: list[int] = []

    def rows() -> Iterator[Account]:
        for i in range(20_000, 150_000):
            if i == 20_010:
                began.set()
            yield Account(i, i % OWNERS, None, i % 1000)
        stop.set()

    def others() -> None:
        began.wait()
        number = 0
        while not stop.is_set() or len(changed) < 20:
            number += 1
            with db.transaction() as tx:
                tx.update(accounts, number % 3000, balance=5000 + number)
                tx.upsert(owners, Owner(number % OWNERS, f"again {number}"))
                if number % 7 == 0:
                    tx.delete(accounts, 3000 + number)
                    changed.append(3000 + number)

    thread = threading.Thread(target=others)
    thread.start()
    assert db.load(accounts, rows()) == 130_000
    thread.join()
    check(db, accounts, set(range(150_000)) - set(changed))


def test_a_unique_value_committed_meanwhile_is_found(db: au.Cluster, accounts: au.Table[Account]) -> None:
    db.load(accounts, stream(range(10)))

    def rows() -> Iterator[Account]:
        for i in range(200_000, 330_000):
            if i == 260_000:
                with db.transaction() as tx:
                    tx.insert(accounts, Account(20, 1, "new@x", 1))
            yield Account(i, None, "new@x" if i == 200_005 else None, 1)

    with pytest.raises(ex.DuplicateKey, match=r'row 5: .*index "by_email".*new@x'):
        db.load(accounts, rows())
    check(db, accounts, {*range(10), 20})


def test_an_index_that_comes_during_a_load_makes_it_begin_again(db: au.Cluster, accounts: au.Table[Account]) -> None:
    rows = stream(range(110_000), step=7)

    def batches() -> Iterator[pa.RecordBatch]:
        for place, batch in enumerate(rows.to_batches(max_chunksize=50_000)):
            if place == 1:
                db.create_index(accounts, "by_id", au.desc("id"))
            yield batch

    db.load(accounts, pa.RecordBatchReader.from_batches(rows.schema, batches()))
    check(db, accounts, set(range(110_000)))
    down = pa.table(db.scan(accounts.index("by_id")).select("id")).to_pydict()["id"]
    assert down == list(range(109_999, -1, -1))


ROWS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.none() | st.integers(0, 60)), max_size=40)


@settings(max_examples=40)
@given(there=ROWS, loaded=ROWS, on_conflict=st.sampled_from(["error", "replace", "skip"]))
def test_a_load_is_what_single_inserts_would_be(there: Any, loaded: Any, on_conflict: Any) -> None:
    class Item(au.Row, key="id", indexes=[au.index("by_n", "n"), au.index("by_code", "code", unique=True)]):
        id: int
        n: int
        code: int | None

    with au.open(memory=True) as db:
        table = db.create_table("items", Item)
        for row in there:
            try:
                db.insert_many(table, [Item(*row)])
            except ex.DuplicateKey:
                continue
        model = {row.id: row for row in db.scan(table)}
        before = dict(model)
        failed = False
        for row in (Item(*row) for row in loaded):
            if row.id in model and on_conflict != "replace":
                failed |= on_conflict == "error"
                continue
            model[row.id] = row
        codes = [row.code for row in model.values() if row.code is not None]
        failed |= len(codes) != len(set(codes))
        if before and not failed:
            # One transaction writes them in the order of their keys: what later ones give free comes too late.
            turn = dict(before)
            for key in sorted(key for key in model if model[key] != before.get(key)):
                turn[key] = model[key]
                others = {row.code for row in turn.values() if row.id != key and row.code is not None}
                failed |= model[key].code in others
        if failed:
            with pytest.raises(ex.DuplicateKey):
                db.load(table, [Item(*row) for row in loaded], on_conflict=on_conflict)
            model = before
        else:
            db.load(table, [Item(*row) for row in loaded], on_conflict=on_conflict)
        assert {row.id: row for row in db.scan(table)} == model
        with db.view() as view:
            by_n = sorted(model.values(), key=lambda row: (row.n, row.id))
            assert list(view.range(table.index("by_n"))) == by_n
            by_code = sorted((row for row in model.values() if row.code is not None), key=lambda row: row.code or 0)
            assert list(view.range(table.index("by_code"), 0)) == by_code


def test_what_was_loaded_survives_reopening(tmp_path: Path) -> None:
    with au.open(tmp_path / "db") as db:
        db.load(db.create_table("owners", Owner), [Owner(i, "") for i in range(OWNERS)])
        db.load(db.create_table("accounts", Account), stream(range(5000), step=7))
    with au.open(tmp_path / "db") as db:
        check(db, db.table("accounts", Account), set(range(5000)))
