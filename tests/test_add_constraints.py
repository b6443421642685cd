"""Constraints that come to tables with rows, under load, and go: all rows are held against them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex


class Owner(au.Row, key="id"):
    id: int
    name: str | None


class Account(au.Row, key="id"):
    id: int
    owner: int | None
    balance: int | None


class Strict(au.Row, key="id"):
    id: int
    owner: int | None
    balance: int


ROWS = 5_000


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        owners = cluster.create_table("owners", Owner)
        accounts = cluster.create_table("accounts", Account)
        cluster.insert_many(owners, [Owner(i, f"owner {i}") for i in range(50)])
        cluster.insert_many(accounts, [Account(i, i % 50 if i % 3 else None, i) for i in range(ROWS)])
        yield cluster


@pytest.fixture
def accounts(db: au.Cluster) -> au.Table[Account]:
    return db.table("accounts", Account)


def test_a_check_holds_for_all_rows_from_then_on(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:
        tx.update(accounts, 4321, balance=-1)
        tx.update(accounts, 321, balance=-5)
    with pytest.raises(ex.CheckViolation, match=r"row with key \(321\): .*solvent.*got balance = -5") as caught:
        db.add_check(accounts, "solvent", col("balance") >= 0)
    assert caught.value.row_key == "(321)"
    with db.transaction() as tx:
        tx.update(accounts, 4321, balance=1)
        tx.update(accounts, 321, balance=None)  # unknown is not false
    with db.transaction() as tx:
        tx.update(accounts, 7, balance=-7)
        tx.rollback()
    db.add_check(accounts, "solvent", col("balance") >= 0)
    with db.transaction() as tx:
        with pytest.raises(ex.CheckViolation, match="solvent"):
            tx.update(accounts, 7, balance=-7)
        tx.update(accounts, 7, balance=0)
    with pytest.raises(ex.SchemaError, match="each name once"):
        db.add_check("accounts", "solvent", col("balance") >= 0)
    with pytest.raises(ex.SchemaError, match="condition"):
        db.add_check("accounts", "other", col("balance") + 1)
    db.drop_constraint(accounts, "solvent")
    with db.transaction() as tx:
        tx.update(accounts, 7, balance=-7)
    with pytest.raises(ex.UnknownConstraint, match='expected a constraint "solvent", got none'):
        db.drop_constraint(accounts, "solvent")


def test_an_open_transaction_that_has_written_before_is_run_again(db: au.Cluster, accounts: au.Table[Account]) -> None:
    tx = db.transaction().__enter__()
    tx.update(accounts, 1, balance=-1)
    db.add_check(accounts, "solvent", col("balance") >= 0)
    with pytest.raises(ex.SchemaChanged):
        tx.commit()
    assert db.get(accounts, 1) == Account(1, 1, 1)


def test_a_foreign_key_brings_its_index_and_goes_with_it(db: au.Cluster, accounts: au.Table[Account]) -> None:
    owners = db.table("owners", Owner)
    with db.transaction() as tx:
        tx.insert(accounts, Account(ROWS, 77, 0))
        tx.insert(accounts, Account(ROWS + 1, 99, 0))
    with pytest.raises(ex.ForeignKeyViolation, match=r"row with key \(5000\): .*owner_fk.*key \(77\)") as caught:
        db.add_foreign_key(accounts, "owner", parent=owners, on_delete="cascade")
    assert (caught.value.row_key, caught.value.parent) == ("(5000)", "owners")
    assert accounts.indexes == ()
    db.insert_many(owners, [Owner(77, None), Owner(99, None)])
    accounts = db.add_foreign_key(accounts, "owner", parent="owners", on_delete="cascade")
    assert [index.name for index in accounts.indexes] == ["owner_fk"]
    with pytest.raises(ex.ForeignKeyViolation), db.transaction() as tx:
        tx.insert(accounts, {"id": -1, "owner": 1234, "balance": 0})
    with pytest.raises(ex.TableReferenced):
        db.drop_table("owners")
    with db.transaction() as tx:
        tx.delete(owners, 77)
        assert tx.get(accounts, ROWS) is None
    db.drop_constraint(accounts, "owner_fk")
    assert accounts.indexes == ()
    with db.transaction() as tx:
        tx.insert(accounts, {"id": -1, "owner": 1234, "balance": 0})
    db.drop_table("owners")


def test_a_table_may_come_to_refer_to_itself(db: au.Cluster) -> None:
    class Node(au.Row, key="id"):
        id: int
        up: int | None

    nodes = db.create_table("nodes", Node)
    db.insert_many(nodes, [Node(1, None), Node(2, 1), Node(3, 9)])
    with pytest.raises(ex.ForeignKeyViolation, match=r"row with key \(3\)"):
        db.add_foreign_key(nodes, "up", parent=nodes)
    with db.transaction() as tx:
        tx.update(nodes, 3, up=2)
    db.add_foreign_key(nodes, "up", parent=nodes, name="to_up")
    with pytest.raises(ex.ForeignKeyViolation), db.transaction() as tx:
        tx.delete(nodes, 1)
    with pytest.raises(ex.SchemaError, match="int32"):
        db.add_foreign_key(db.create_table("odd", pa_schema(), key="id"), "up", parent="nodes")


def pa_schema() -> object:
    return pa.schema([("id", pa.int64()), ("up", pa.int32())])


def test_a_column_takes_none_no_more_and_takes_it_again(db: au.Cluster, accounts: au.Table[Account]) -> None:
    before = db.vdl
    db.create_index(accounts, "by_balance", "balance")
    with db.transaction() as tx:
        tx.update(accounts, 4000, balance=None)
    with pytest.raises(ex.NullViolation, match=r'row with key \(4000\): .*column "balance"') as caught:
        db.set_not_null(accounts, "balance")
    assert caught.value.row_key == "(4000)"
    with db.transaction() as tx:
        tx.update(accounts, 4000, balance=-4)
    changed = db.set_not_null(accounts, "balance")
    assert changed.schema.columns[2] == ("balance", "int64", False)
    strict = db.table("accounts", Strict)
    with db.transaction() as tx:
        with pytest.raises(ex.NullViolation):
            tx.update(strict, 1, balance=None)
        tx.update(strict, 1, balance=-1)
        tx.insert(strict, Strict(-1, None, -3))
    # The index is as it was, and goes on.
    with db.view() as view:
        assert [row.balance for row in view.range(strict.index("by_balance"), limit=4)] == [-4, -3, -1, 0]
        assert next(view.range(strict.index("by_balance"), -3)).id == -1
    with db.view(at=before) as view:
        assert view.get(view.table("accounts"), 4000).balance == 4000
    again = db.drop_not_null(strict, "balance")
    assert again.schema.columns[2] == ("balance", "int64", True)
    with db.transaction() as tx:
        tx.update(accounts, 2, balance=None)
    with db.view() as view:
        assert next(view.range(accounts.index("by_balance"))).id == 2
    with pytest.raises(ex.SchemaError, match="key"):
        db.drop_not_null(again, "id")
    with pytest.raises(ex.UnknownColumn):
        db.set_not_null(again, "nothing")


def test_a_column_of_a_new_index_stays_not_null(db: au.Cluster, accounts: au.Table[Account]) -> None:
    db.set_not_null(accounts, "balance")
    db.create_index(db.table("accounts"), "by_balance", "balance")
    with pytest.raises(ex.SchemaError, match='got one of index "by_balance"'):
        db.drop_not_null("accounts", "balance")


@pytest.mark.parametrize("kind", ["check", "foreign key", "not null"])
def test_what_comes_while_rows_are_looked_at_is_looked_at_too(
    db: au.Cluster, accounts: au.Table[Account], kind: str
) -> None:
    """Writers go on without a pause: a constraint that was added holds, and one that was refused names a row."""
    owners = db.table("owners", Owner)
    stop = threading.Event()
    breaking = threading.Event()
    failed: list[BaseException] = []

    # Rows as dicts: a class describes one definition only.
    plain = db.table("accounts", rows="dict")

    def write_one(number: int) -> None:
        key = number * 31 % ROWS
        with db.transaction() as tx:
            if breaking.is_set() and number % 50 == 0:
                bad = {"check": {"balance": -1}, "foreign key": {"owner": 1000}, "not null": {"balance": None}}
                tx.update(plain, key, **bad[kind])
            else:
                tx.update(plain, key, balance=number % 100, owner=number % 50)
            tx.update(owners, number % 50, name=str(number))

    def write(number: int) -> None:
        try:
            while not stop.is_set():
                number += 7
                with contextlib.suppress(ex.ConstraintViolation, ex.NullViolation, ex.Retryable):
                    write_one(number)
        except BaseException as error:  # noqa: BLE001 - raised by the test
            failed.append(error)

    def add() -> None:
        if kind == "check":
            db.add_check("accounts", "solvent", col("balance") >= 0)
        elif kind == "foreign key":
            db.add_foreign_key("accounts", "owner", parent="owners")
        else:
            db.set_not_null("accounts", "balance")

    def mend(tx: au.Transaction) -> None:
        for row in list(tx.range(accounts)):
            if row.owner == 1000 or row.balance is None or row.balance < 0:
                tx.update(accounts, row.id, owner=None, balance=0)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    breaking.set()
    named: list[str | None] = []
    for _ in range(6):
        try:
            add()
            break
        except (ex.ConstraintViolation, ex.NullViolation) as error:
            named.append(error.details["row_key"])
            db.run(mend)
    else:
        breaking.clear()
        db.run(mend)
        add()
    breaking.set()
    broken = [
        row for row in db.scan(db.table("accounts")) if row.owner == 1000 or row.balance is None or row.balance < 0
    ]
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert None not in named
    if kind == "check":
        assert [row for row in broken if row.balance is not None and row.balance < 0] == []
    elif kind == "foreign key":
        assert [row for row in broken if row.owner == 1000] == []
    else:
        assert [row for row in broken if row.balance is None] == []


def test_constraints_survive_reopening(tmp_path: Path) -> None:
    with au.open(tmp_path / "db") as db:
        owners = db.create_table("owners", Owner)
        accounts = db.create_table("accounts", Account)
        db.insert_many(owners, [Owner(1, None)])
        db.insert_many(accounts, [Account(i, 1, i) for i in range(100)])
        db.create_index(accounts, "by_balance", "balance")
        db.add_check(accounts, "solvent", col("balance") >= 0)
        db.add_foreign_key("accounts", "owner", parent="owners")
        db.set_not_null("accounts", "balance")
    with au.open(tmp_path / "db") as db:
        strict = db.table("accounts", Strict)
        for bad, error in (
            ({"balance": -1}, ex.CheckViolation), ({"owner": 2}, ex.ForeignKeyViolation),
            ({"balance": None}, ex.NullViolation),
        ):  # fmt: skip
            with pytest.raises(error), db.transaction() as tx:
                tx.update(strict, 5, **bad)
        with db.view() as view:
            assert [row.balance for row in view.range(strict.index("by_balance"), 97)] == [97, 98, 99]
