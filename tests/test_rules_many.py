"""Rows written many at a time, and loads, into tables with indexes, constraints, defaults and numbers."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Owner(au.Row, key="id"):
    id: int = au.auto()
    name: str = "nobody"


class Account(
    au.Row,
    key="id",
    indexes=[au.index("by_owner", "owner", au.desc("balance")), au.index("by_iban", "iban", unique=True)],
    constraints=[au.check("solvent", col("balance") >= 0), au.foreign_key("owner", parent="owners")],
):
    id: int = au.auto()
    owner: int | None = None
    iban: str | None = None
    balance: Annotated[Decimal, au.precision(18, 2)] = Decimal(0)
    token: uuid.UUID = au.default(uuid.uuid4)
    tags: au.Json = au.default(list)


class Node(au.Row, key="id", constraints=[au.foreign_key("above", parent="nodes")]):
    id: int
    above: int | None = None


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        owners = cluster.create_table("owners", Owner)
        cluster.insert_many(owners, [{"name": f"owner {i}"} for i in range(5)])
        yield cluster


@pytest.fixture
def accounts(db: au.Cluster) -> au.Table[Account]:
    return db.create_table("accounts", Account)


def write(db: au.Cluster, way: str, table: au.Table[Any], rows: Any) -> int:
    return int(getattr(db, way)(table, rows))


WAYS = ["insert_many", "upsert_many", "load"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("filled", [False, True])
def test_rows_are_numbered_and_get_defaults(
    db: au.Cluster, accounts: au.Table[Account], way: str, *, filled: bool
) -> None:
    if filled:
        db.insert_many(accounts, [Account(owner=1)])
    given_: list[Any] = [
        {"owner": 1},
        Account(owner=2),
        {"id": None, "owner": 3},
        (None, 4, None, Decimal(1), uuid.UUID(int=4), []),
        {"id": 5_000},
    ]
    assert write(db, way, accounts, given_) == 5
    assert (
        write(
            db, way, accounts, pa.table({"owner": [5, 5], "balance": [0, 0], "tags": ["[]", "[]"], "token": _uuids(2)})
        )
        == 2
    )
    rows = list(db.scan(accounts))
    assert [row.owner for row in rows[filled:]] == [1, 2, 3, 4, None, 5, 5]
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    assert rows[-1].id == 5_002
    assert len({row.token for row in rows}) == len(rows)
    assert rows[filled].tags == []
    with db.transaction() as tx:
        assert tx.insert(accounts, {"iban": "x"}) == tx.get(accounts.index("by_iban"), "x")


def _uuids(count: int) -> Any:
    return pa.array([uuid.uuid4().bytes for _ in range(count)], pa.binary(16))


BAD: list[tuple[Any, type[Exception], str]] = [
    ({"owner": 99}, ex.ForeignKeyViolation, "owner_fk"),
    ({"balance": Decimal(-1)}, ex.CheckViolation, "balance = -1"),
    ({"iban": "taken"}, ex.DuplicateKey, "by_iban"),
    ({"iban": "DE2"}, ex.DuplicateKey, "by_iban"),
]
TAKEN = ({"id": 1}, ex.DuplicateKey, r"accounts.*\(1\)")


@pytest.mark.parametrize(
    ("way", "bad", "error", "message"),
    [*((way, *bad) for way in WAYS for bad in BAD), ("insert_many", *TAKEN), ("load", *TAKEN)],
)
def test_one_bad_row_and_none_is_there(
    db: au.Cluster, accounts: au.Table[Account], way: str, bad: Any, error: type[Exception], message: str
) -> None:
    db.insert_many(accounts, [Account(1, 1, "taken")])
    before = list(db.scan(accounts))
    for place in range(4):
        rows: list[Any] = [{"id": 10 + i, "owner": 1 + i, "iban": f"DE{i}"} for i in range(3)]
        rows.insert(place, bad)
        with pytest.raises(error, match=message):
            write(db, way, accounts, rows)
        with db.transaction() as tx:
            assert list(tx.range(accounts.index("by_owner"))) == before
            assert tx.get(accounts.index("by_iban"), "DE1") is None
    assert list(db.scan(accounts)) == before


@pytest.mark.parametrize("way", WAYS)
def test_rows_may_refer_to_each_other(db: au.Cluster, way: str) -> None:
    nodes = db.create_table("nodes", Node)
    assert write(db, way, nodes, [Node(1, 9), Node(5, 1), Node(9, None), Node(7, 7)]) == 4
    with pytest.raises(ex.ForeignKeyViolation):
        write(db, way, nodes, [Node(20, 21), Node(22, 20)])
    assert [node.id for node in db.scan(nodes)] == [1, 5, 7, 9]


def test_a_loaded_child_finds_its_parent_gone(db: au.Cluster, accounts: au.Table[Account]) -> None:
    owners = db.table("owners", Owner)
    with db.transaction() as tx:
        assert tx.delete(owners, 5)
        with pytest.raises(ex.ForeignKeyViolation):
            tx.insert_many(accounts, [{"owner": 5}])
        db.insert_many(accounts, [{"owner": 5}])
        with pytest.raises(ex.Retryable):
            tx.commit()
    assert db.get(owners, 5) is not None
    assert db.load(owners, [Owner(5, "again"), Owner(None, "new")], on_conflict="replace") == 2
    assert [owner.name for owner in db.scan(owners)][-2:] == ["again", "new"]


BALANCES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), max_size=30)


@given(rows=BALANCES, least=st.integers(0, 9), limit=st.none() | st.integers(0, 12), reverse=st.booleans())
def test_an_index_is_read_by_condition_columns_and_limit(
    rows: list[tuple[int, int]], least: int, limit: int | None, *, reverse: bool
) -> None:
    with au.open(memory=True) as db:
        db.insert_many(db.create_table("owners", Owner), [{} for _ in range(5)])
        accounts = db.create_table("accounts", Account)
        db.insert_many(accounts, [{"owner": owner, "balance": Decimal(balance)} for owner, balance in rows])
        there = sorted(db.scan(accounts), key=lambda row: (row.owner, -row.balance, row.id), reverse=reverse)
        expected = [(row.owner, row.id) for row in there if 2 <= (row.owner or 0) < 5 and row.balance >= least][:limit]
        options: dict[str, Any] = {
            "where": col("balance") >= least, "columns": ["owner", "id"], "limit": limit, "reverse": reverse,
        }  # fmt: skip
        index = accounts.index("by_owner")
        with db.view() as view, db.transaction() as tx:
            for reader in (view, tx):
                assert [au.astuple(row) for row in reader.range(index, 2, 5, **options)] == expected


async def test_an_index_is_read_by_column_from_everywhere(db: au.Cluster, accounts: au.Table[Account]) -> None:
    db.insert_many(accounts, [Account(1, 1, "DE1")])
    index = accounts.index("by_iban")
    with db.view() as view, db.transaction() as tx:
        for reader in (db, view, tx, db.aio):
            got = reader.get(index, "DE1", columns=["owner"])
            part: Any = await got if reader is db.aio else got
            assert au.asdict(part) == {"owner": 1}
        for options in ({}, {"columns": ["id"]}, {"where": col("id") > 0}):
            with pytest.raises(ex.InvalidOption, match="for_update: expected a table, got an index"):
                tx.range(index, for_update=True, **options)
        with pytest.raises(ex.InvalidOption, match="for_update"):
            tx.get(index, "DE1", columns=["id"], for_update=True)
        with pytest.raises(ex.UnknownColumn):
            tx.get(index, "DE1", columns=["nothing"])
    async with db.aio.transaction() as atx:
        assert [row.id async for row in atx.range(index, where=col("owner") == 1, columns=["id"])] == [1]


def test_rows_that_do_not_meet_the_condition_stay_free(db: au.Cluster) -> None:
    class Job(au.Row, key="id"):
        id: int
        state: str
        text: str = ""

    jobs = db.create_table("jobs", Job)
    long = "x" * 50_000
    db.insert_many(jobs, [Job(i, "new" if i % 3 == 0 else "done", long + str(i)) for i in range(300)])
    wanted = (col("state") == "new") & (col("text") != long + "3")

    def claim(tx: au.Transaction) -> list[int]:
        options: dict[str, Any] = {"for_update": True, "skip_locked": True, "limit": 2, "columns": ["id"]}
        return [row.id for row in tx.range(jobs, where=wanted, **options)]

    with db.transaction() as one, db.transaction() as two:
        assert claim(one) == [0, 6]
        assert claim(two) == [9, 12]
        with db.transaction() as tx:
            for free in (1, 2, 3, 4, 5, 7, 8):
                assert tx.get(jobs, free, for_update=True, nowait=True) is not None
            for locked in (0, 6, 9, 12):
                with pytest.raises(ex.LockNotAvailable):
                    tx.get(jobs, locked, for_update=True, nowait=True)
        one.update(jobs, 0, state="done")
    assert db.get(jobs, 0, columns=["state"]).state == "done"


@pytest.mark.parametrize("isolation", ["read committed", "snapshot", "serializable"])
def test_calls_from_threads_add_up(db: au.Cluster, isolation: Any) -> None:
    class Count(au.Row, key="id", indexes=[au.index("by_n", "n")]):
        id: int
        n: int

    counts = db.create_table("counts", Count)
    db.load(counts, [Count(i, 0) for i in range(40)])
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        ids = [(seed * 7 + i * 3) % 40 for i in range(12)]

        def add(tx: au.Transaction) -> None:
            found = [tx.get(counts, i, for_update=True) for i in sorted(set(ids))]
            tx.upsert_many(counts, [Count(row.id, row.n + 1) for row in reversed(found) if row])

        try:
            for _ in range(10):
                db.run(add, isolation=isolation)
        except BaseException as error:  # noqa: BLE001 - told by the test's thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sum(row.n for row in db.scan(counts)) == 4 * 10 * 12
    with db.view() as view:
        assert sorted(row.n for row in db.scan(counts)) == [row.n for row in view.range(counts.index("by_n"))]


@pytest.mark.parametrize("filled", [False, True])
def test_of_rows_with_one_key_only_the_last_is_held_against_the_rules(
    db: au.Cluster, accounts: au.Table[Account], filled: bool
) -> None:
    """``upsert_many`` raised what the earlier of two rows with one key broke, although the later takes its place."""
    if filled:
        db.insert_many(accounts, [Account(1, 1, "there")])
    bad, good = {"id": 1, "owner": 99, "balance": Decimal(-1), "iban": "a"}, {"id": 1, "owner": 2, "iban": "b"}
    assert db.upsert_many(accounts, [bad, good]) == 2
    assert [(row.id, row.owner, row.iban) for row in db.scan(accounts)] == [(1, 2, "b")]
    with pytest.raises(ex.ConstraintViolation):
        db.upsert_many(accounts, [good, bad])
    assert [(row.id, row.owner) for row in db.scan(accounts.index("by_iban"), "a", "z")] == [(1, 2)]
