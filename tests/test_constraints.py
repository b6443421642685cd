"""Checks, foreign keys, defaults and numbered columns through the public API."""

import asyncio
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex
from aurora_engine.rules import OnDelete


class Owner(au.Row, key="id"):
    id: int = au.auto()
    name: str = "nobody"


class Account(
    au.Row,
    key="id",
    constraints=[
        au.check("solvent", col("balance") >= 0),
        au.foreign_key("owner", parent="owners"),
    ],
):
    id: int = au.auto()
    owner: int | None = None
    balance: Annotated[Decimal, au.precision(18, 2)] | None = None
    token: uuid.UUID = au.default(uuid.uuid4)
    opened: au.Instant = au.default(au.now)


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


def test_defaults_are_made_for_each_row() -> None:
    one, two = Account(), Account()
    assert one.token != two.token
    assert one.opened.tzinfo is not None
    assert (one.id, one.owner) == (None, None)
    assert Account(5).id == 5
    with pytest.raises(ex.SchemaError, match=r"at most one column with au.auto\(\), got a, b"):

        class Twice(au.Row, key="a"):
            a: int = au.auto()
            b: int = au.auto()


def test_numbers_are_given_and_come_back(db: au.Cluster) -> None:
    owners = db.create_table("owners", Owner)
    with db.transaction() as tx:
        first = tx.insert(owners, Owner(name="ann"))
        assert first == Owner(1, "ann")
        assert tx.insert(owners, Owner(name="bob")).id == 2
        mine = Owner(10, "cid")
        assert tx.insert(owners, mine) is mine
        assert tx.insert(owners, Owner()).id == 11
        tx.upsert(owners, Owner(name="dan"))
    with db.view() as view:
        assert [row.id for row in view.range(owners)] == [1, 2, 10, 11, 12]

    async def main() -> int:
        async with db.aio.transaction() as tx:
            return (await tx.insert(owners, Owner(name="eve"))).id

    assert asyncio.run(main()) == 13


def test_numbers_are_not_given_again_after_opening(tmp_path: Path) -> None:
    given: list[int] = []
    for _ in range(3):
        with au.open(tmp_path / "db") as db:
            owners = db.create_table("owners", Owner, exist_ok=True)
            for commit in (True, False):
                tx = db.transaction().__enter__()
                given.append(tx.insert(owners, Owner()).id)
                if commit:
                    tx.commit()
                else:
                    tx.rollback()
    assert len(set(given)) == len(given)
    assert given == sorted(given)


def test_a_check_names_the_condition_and_the_values(db: au.Cluster) -> None:
    db.create_table("owners", Owner)
    accounts = db.create_table("accounts", Account)
    with db.transaction() as tx:
        row = tx.insert(accounts, Account(balance=Decimal("1.50")))
        with pytest.raises(ex.CheckViolation) as caught:
            tx.update(accounts, row.id, balance=col("balance") - Decimal(2))
        error = caught.value
        assert (error.table, error.constraint, error.key) == ("accounts", "solvent", f"({row.id})")
        assert (error.expected, error.got) == ("balance >= 0", "balance = -0.50")
        with pytest.raises(ex.CheckViolation):
            tx.insert(accounts, Account(balance=Decimal(-1)))
        # Null is not false; and the transaction goes on.
        tx.update(accounts, row.id, balance=None)
    stored = db.get(accounts, row.id)
    assert stored is not None
    assert stored.balance is None


def test_a_foreign_key_names_both_tables(db: au.Cluster) -> None:
    owners = db.create_table("owners", Owner)
    accounts = db.create_table("accounts", Account)
    with db.transaction() as tx:
        owner = tx.insert(owners, Owner(name="ann"))
        tx.insert(accounts, Account(owner=owner.id))
        with pytest.raises(ex.ForeignKeyViolation) as caught:
            tx.insert(accounts, Account(owner=99))
        error = caught.value
        assert (error.table, error.parent, error.constraint, error.key) == ("accounts", "owners", "owner_fk", "(99)")
        with pytest.raises(ex.ForeignKeyViolation) as caught:
            tx.delete(owners, owner.id)
        assert (caught.value.table, caught.value.key) == ("accounts", "(1)")
    with db.view() as view:
        assert [row.owner for row in view.range(accounts.index("owner_fk"), prefix=owner.id)] == [owner.id]
    with pytest.raises(ex.TableReferenced) as referenced:
        db.drop_table("owners")
    assert (referenced.value.table, referenced.value.by) == ("owners", "accounts")
    with pytest.raises(ex.SchemaError):
        db.drop_index(accounts, "owner_fk")
    db.drop_table("accounts")
    db.drop_table("owners")


def test_constraints_that_cannot_be_are_refused(db: au.Cluster) -> None:
    with pytest.raises(ex.UnknownTable):
        db.create_table("accounts", Account)
    with pytest.raises(ex.SchemaError, match="colour"):
        db.create_table("owners", Owner, constraints=[au.check("odd", col("colour") == 1)])
    with pytest.raises(ex.SchemaError, match="a condition"):
        db.create_table("owners", Owner, constraints=[au.check("odd", col("id") + 1)])
    with pytest.raises(ex.UnknownColumn, match="colour"):
        db.create_table("owners", Owner, indexes=[au.index("by_colour", "colour")])
    with pytest.raises(ex.SchemaError, match=r"what au.index\(\) makes"):
        db.create_table("owners", Owner, indexes=["name"])  # type: ignore[list-item]
    with pytest.raises(ex.InvalidOption, match="on_delete"):
        db.create_table("owners", Owner, constraints=[au.foreign_key("id", parent="owners", on_delete="explode")])  # type: ignore[arg-type]
    assert db.tables() == []


def test_a_load_keeps_checks_and_numbers(db: au.Cluster) -> None:
    class Item(au.Row, key="id", constraints=[au.check("small", col("size") < 5)]):
        id: int = au.auto()
        size: int = 0

    items = db.create_table("items", Item)
    with pytest.raises(ex.CheckViolation, match="size = 7"):
        db.load(items, pa.table({"id": [1, 2], "size": [1, 7]}))
    assert db.load(items, pa.table({"id": [1, 2000], "size": [1, 2]})) == 2
    with db.transaction() as tx:
        assert tx.insert(items, Item(size=1)).id == 2001


class Parent(au.Row, key="id"):
    id: int


class Child(au.Row, key="id"):
    id: int
    parent: int | None
    size: int


KEYS = st.integers(0, 4)


class Family(RuleBasedStateMachine):
    """Parents and children against dictionaries, for each thing that may happen on delete."""

    @initialize(on_delete=st.sampled_from(["restrict", "cascade", "set null"]))
    def open(self, on_delete: OnDelete) -> None:
        self.on_delete = on_delete
        self.db = au.open(memory=True)
        self.parents = self.db.create_table("parents", Parent)
        rules = [
            au.foreign_key("parent", parent=self.parents, on_delete=on_delete),
            au.check("small", col("size") < 5),
        ]
        self.children = self.db.create_table("children", Child, constraints=rules)
        self.ids: set[int] = set()
        self.rows: dict[int, Child] = {}

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()

    @rule(key=KEYS)
    def add_parent(self, key: int) -> None:
        self.db.run(lambda tx: tx.upsert(self.parents, Parent(key)))
        self.ids.add(key)

    @rule(key=KEYS)
    def delete_parent(self, key: int) -> None:
        orphans = [row for row in self.rows.values() if row.parent == key]
        if self.on_delete == "restrict" and orphans:
            with pytest.raises(ex.ForeignKeyViolation):
                self.db.run(lambda tx: tx.delete(self.parents, key))
            return
        assert self.db.run(lambda tx: tx.delete(self.parents, key)) == (key in self.ids)
        self.ids.discard(key)
        for row in orphans:
            if self.on_delete == "cascade":
                del self.rows[row.id]
            else:
                self.rows[row.id] = au.replace(row, parent=None)

    @rule(row=st.builds(Child, id=KEYS, parent=st.none() | KEYS, size=st.integers(3, 6)))
    def put_child(self, row: Child) -> None:
        fits = row.size < 5 and (row.parent is None or row.parent in self.ids)
        if not fits:
            with pytest.raises(ex.ConstraintViolation):
                self.db.run(lambda tx: tx.upsert(self.children, row))
            return
        self.db.run(lambda tx: tx.upsert(self.children, row))
        self.rows[row.id] = row

    @rule(key=KEYS)
    def delete_child(self, key: int) -> None:
        assert self.db.run(lambda tx: tx.delete(self.children, key)) == (key in self.rows)
        self.rows.pop(key, None)

    @invariant()
    def both_agree(self) -> None:
        with self.db.view() as view:
            assert {row.id for row in view.range(self.parents)} == self.ids
            assert {row.id: row for row in view.range(self.children)} == self.rows


TestFamily = Family.TestCase
TestFamily.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
