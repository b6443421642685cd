"""Indexes through the public API: they agree with the table, are unique, and are built under load."""

import asyncio
import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import aurora_engine as au
from aurora_engine import exceptions as ex


class Account(
    au.Row,
    key="id",
    indexes=[au.index("by_owner", "owner", au.desc("n")), au.index("by_email", "email", unique=True)],
):
    id: int
    owner: str
    n: int | None
    email: str | None = None


class Plain(au.Row, key="id"):
    id: int
    group: int | None
    text: str = ""


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


def fill(db: au.Cluster, table: au.Table[Plain], count: int, groups: int = 7) -> None:
    with db.transaction() as tx:
        for i in range(count):
            tx.insert(table, Plain(i, i % groups if i % 5 else None, f"row {i}"))


def test_declared_indexes_are_kept_and_read(db: au.Cluster) -> None:
    accounts = db.create_table("accounts", Account)
    assert [(i.name, i.columns, i.unique, i.ready) for i in accounts.indexes] == [
        ("by_owner", (("owner", False), ("n", True)), False, True),
        ("by_email", (("email", False),), True, True),
    ]
    by_owner, by_email = accounts.index("by_owner"), accounts.index("by_email")
    assert repr(by_owner) == '<Index "by_owner" of table "accounts": owner, n desc>'
    rows = [Account(1, "ann", 5, "a@x"), Account(2, "bob", 1), Account(3, "ann", 9), Account(4, "ann", None, "d@x")]
    with db.transaction() as tx:
        for row in rows:
            tx.insert(accounts, row)
        # Its own changes are in the index before the commit; nulls come last where the largest comes first.
        assert [r.id for r in tx.range(by_owner)] == [3, 1, 4, 2]
        assert tx.get(by_email, "d@x") == rows[3]
    with db.view() as view:
        assert [r.id for r in view.range(by_owner, prefix="ann")] == [3, 1, 4]
        assert [r.id for r in view.range(by_owner, "ann", "bob", reverse=True, limit=2)] == [4, 1]
        assert [r.id for r in view.range(by_owner, ("ann", 7), ("ann", 1))] == [1]
        assert view.get(by_email, "a@x") == rows[0]
        assert view.get(by_email, "nobody") is None
    assert db.get(by_email, "d@x") == rows[3]
    with db.transaction() as tx:
        tx.update(accounts, 1, email=None)
        tx.delete(accounts, 4)
        tx.upsert(accounts, Account(2, "cid", 2, "a@x"))
    assert db.get(by_email, "a@x") == Account(2, "cid", 2, "a@x")
    with db.view() as view:
        assert [r.id for r in view.range(by_owner)] == [3, 1, 2]


def test_a_unique_value_is_there_once(db: au.Cluster) -> None:
    accounts = db.create_table("accounts", Account)
    with db.transaction() as tx:
        tx.insert(accounts, Account(1, "ann", 1, "a@x"))
        with pytest.raises(ex.DuplicateKey) as caught:
            tx.insert(accounts, Account(2, "bob", 1, "a@x"))
        assert (caught.value.table, caught.value.index, caught.value.key) == ("accounts", "by_email", '("a@x")')
        # The transaction goes on; nulls are all different.
        tx.insert(accounts, Account(2, "bob", 1))
        tx.insert(accounts, Account(3, "cid", 1))
        with pytest.raises(ex.DuplicateKey):
            tx.update(accounts, 2, email="a@x")
    one = db.transaction().__enter__()
    one.insert(accounts, Account(4, "dan", 1, "d@x"))
    with db.transaction() as two:
        two.insert(accounts, Account(5, "eve", 1, "d@x"))
    with pytest.raises(ex.WriteConflict):
        one.commit()
    found = db.get(accounts.index("by_email"), "d@x")
    assert found is not None
    assert found.id == 5


def test_an_index_is_built_over_rows_that_are_there(db: au.Cluster) -> None:
    table = db.create_table("plain", Plain)
    fill(db, table, 3000)
    old = db.view()
    index = db.create_index(table, "by_group", "group", au.desc("id"), show_progress=False)
    assert index.ready
    with db.view() as view:
        expected = sorted(view.range(table), key=lambda r: (r.group is not None, r.group or 0, -r.id))
        assert list(view.range(index)) == expected
    with pytest.raises(ex.UnknownIndex):
        next(old.range(index))
    old.close()
    with pytest.raises(ex.IndexExists):
        db.create_index(table, "by_group", "group")
    assert db.create_index(table, "by_group", "group", au.desc("id"), exist_ok=True).name == "by_group"
    with pytest.raises(ex.UnknownColumn):
        db.create_index(table, "other", "colour")
    with pytest.raises(ex.SchemaError):
        db.create_index(table, "other")
    db.drop_index(table, "by_group")
    assert table.indexes == ()
    with pytest.raises(ex.UnknownIndex):
        table.index("by_group")
    with pytest.raises(ex.UnknownIndex):
        db.drop_index(table, "by_group")
    with pytest.raises(ex.UnknownIndex), db.view() as view:
        list(view.range(index))


def test_a_duplicate_ends_the_build_and_is_named(db: au.Cluster) -> None:
    table = db.create_table("plain", Plain)
    fill(db, table, 600, groups=1000)
    with db.transaction() as tx:
        tx.insert(table, Plain(1000, 433))
    with pytest.raises(ex.DuplicateKey) as caught:
        db.create_index(table, "by_group", "group", unique=True)
    assert (caught.value.index, caught.value.key) == ("by_group", "(433)")
    assert table.indexes == ()
    db.create_index(table, "by_group", "group")


def test_wrong_uses_say_what_was_expected(db: au.Cluster) -> None:
    accounts = db.create_table("accounts", Account)
    by_owner = accounts.index("by_owner")
    with db.transaction() as tx:
        with pytest.raises(ex.InvalidOption, match="expected a unique index"):
            tx.get(by_owner, ("ann", 1))
        with pytest.raises(ex.TypeMismatch, match="a tuple of 2 values"):
            tx.get(by_owner, "ann")
        with pytest.raises(ex.TypeMismatch, match="a table or an index"):
            tx.range("accounts")  # type: ignore[arg-type]
        with pytest.raises(ex.KeyTooLong) as caught:
            tx.insert(accounts, Account(1, "o" * 2000, 1))
        assert caught.value.limit == 1024
        tx.insert(accounts, Account(1, "o", 1))
    db.create_table("plain", Plain)
    with pytest.raises(ex.SchemaMismatch, match="by_group"):
        db.create_table("plain", Plain, exist_ok=True, indexes=[au.index("by_group", "group")])


def test_writers_go_on_while_an_index_is_built(db: au.Cluster) -> None:
    table = db.create_table("plain", Plain)
    fill(db, table, 4000)
    done = threading.Event()
    failed: list[BaseException] = []

    def write(seed: int) -> None:
        n = seed
        try:
            while not done.is_set():
                n += 7
                db.run(lambda tx, n=n: tx.upsert(table, Plain(n % 5000, n % 11, str(n))))
                db.run(lambda tx, n=n: tx.delete(table, (n * 3) % 5000))
        except BaseException as error:  # noqa: BLE001 - reported by the test's thread
            failed.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    index = db.create_index(table, "by_group", "group")
    done.set()
    for thread in threads:
        thread.join()
    assert not failed
    with db.view() as view:
        expected = sorted(view.range(table), key=lambda r: (r.group is not None, r.group or 0, r.id))
        assert list(view.range(index)) == expected


def test_an_event_loop_reads_by_indexes() -> None:
    async def main() -> None:
        with au.open(memory=True) as db:
            accounts = db.create_table("accounts", Account)
            async with db.aio.transaction() as tx:
                await tx.insert(accounts, Account(1, "ann", 5, "a@x"))
                await tx.insert(accounts, Account(2, "ann", 6))
                assert [row.id async for row in tx.range(accounts.index("by_owner"))] == [2, 1]
            found = await db.aio.get(accounts.index("by_email"), "a@x")
            assert found is not None
            assert found.id == 1
            index = await db.aio.create_index(accounts, "by_n", "n", unique=True)
            async with db.aio.transaction(read_only=True) as tx:
                assert await tx.get(index, 6) == Account(2, "ann", 6)
            await db.aio.drop_index(accounts, "by_n")

    asyncio.run(main())


_BUILD = """
import sys
import aurora_engine as au

class Plain(au.Row, key="id"):
    id: int
    group: int | None
    text: str = ""

db = au.open(sys.argv[1])
table = db.table("plain", Plain)
def report(rows):
    if rows > 2000:
        print("half", flush=True)
        sys.stdin.read()
from aurora_engine import _engine
_engine.create_index(db, table, "by_group", [("group", False)], False, False, report)
"""


def test_a_process_that_is_killed_in_the_middle_of_a_build_leaves_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with au.open(path) as db:
        fill(db, db.create_table("plain", Plain), 12_000)
    child = subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "half\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    child.stdin.close()
    with au.open(path) as db:
        table = db.table("plain", Plain)
        # Whether or not the background has come to it: the name is free, and the new build is whole.
        index = db.create_index(table, "by_group", "group")
        with db.view() as view:
            assert [r.id for r in view.range(index, prefix=3)] == [r.id for r in view.range(table) if r.group == 3]


class Entry(au.Row, key="id"):
    id: int
    a: int | None
    b: str
    at: dt.date


KEYS = st.integers(0, 30)
ROWS = st.builds(
    Entry,
    id=KEYS,
    a=st.none() | st.integers(-3, 3),
    b=st.sampled_from(["", "a", "ab", "b\0", "é"]),
    at=st.dates(dt.date(1969, 1, 1), dt.date(1971, 1, 1)),
)
INDEXES = {
    "by_a": (("a", au.desc("b")), False),
    "by_at": ((au.desc("at"),), False),
    "by_ab": (("a", "b", "at"), True),
}


class Agreement(RuleBasedStateMachine):
    """An index scan equals the table, filtered and sorted, whatever was done before."""

    @initialize()
    def open(self) -> None:
        self.db = au.open(memory=True)
        self.table = self.db.create_table("entries", Entry)
        self.rows: dict[int, Entry] = {}
        self.tx: au.Transaction | None = None
        self.within: dict[int, Entry] = {}

    def teardown(self) -> None:
        if hasattr(self, "db"):
            if self.tx is not None:
                self.tx.rollback()
            self.db.close()

    def seen(self) -> dict[int, Entry]:
        return self.rows if self.tx is None else self.within

    def is_taken(self, row: Entry) -> bool:
        unique = any(index.unique and index.ready for index in self.table.indexes) and row.a is not None
        others = (other for other in self.seen().values() if other.id != row.id)
        return unique and any((o.a, o.b, o.at) == (row.a, row.b, row.at) for o in others)

    @rule()
    def begin(self) -> None:
        if self.tx is None:
            self.tx, self.within = self.db.transaction().__enter__(), dict(self.rows)

    @rule(commit=st.booleans())
    def end(self, commit: bool) -> None:
        if self.tx is not None:
            if commit:
                self.tx.commit()
                self.rows = self.within
            else:
                self.tx.rollback()
            self.tx = None

    @rule(row=ROWS)
    def upsert(self, row: Entry) -> None:
        def write(tx: au.Transaction) -> None:
            tx.upsert(self.table, row)

        if self.is_taken(row):
            with pytest.raises(ex.DuplicateKey) as caught:
                write(self.tx) if self.tx is not None else self.db.run(write)
            assert caught.value.index == "by_ab"
            return
        write(self.tx) if self.tx is not None else self.db.run(write)
        self.seen()[row.id] = row

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        if self.tx is not None:
            self.tx.delete(self.table, key)
        else:
            self.db.run(lambda tx: tx.delete(self.table, key))
        self.seen().pop(key, None)

    @rule(name=st.sampled_from(sorted(INDEXES)))
    def create(self, name: str) -> None:
        if self.tx is not None:
            return
        columns, unique = INDEXES[name]
        values = [(row.a, row.b, row.at) for row in self.rows.values() if row.a is not None]
        try:
            self.db.create_index(self.table, name, *columns, unique=unique, exist_ok=True)
        except ex.DuplicateKey:
            assert unique
            assert len(values) > len(set(values))
        else:
            assert not unique or len(values) == len(set(values))

    @rule(name=st.sampled_from(sorted(INDEXES)))
    def drop(self, name: str) -> None:
        if self.tx is None and any(index.name == name for index in self.table.indexes):
            self.db.drop_index(self.table, name)

    @invariant()
    def scans_agree(self) -> None:
        rows = list(self.seen().values())
        orders = {
            "by_a": lambda r: (r.a is not None, r.a or 0, [-ord(c) for c in r.b] + [1], r.id),
            "by_at": lambda r: (-r.at.toordinal(), r.id),
            "by_ab": lambda r: (r.a is not None, r.a or 0, r.b.encode(), r.at, r.id),
        }
        with self.db.view() as view:
            reader = view if self.tx is None else self.tx
            for index in self.table.indexes:
                expected = sorted(rows, key=orders[index.name])
                assert list(reader.range(index)) == expected
                assert list(reader.range(index, reverse=True, limit=3)) == expected[::-1][:3]
                if index.name == "by_a":
                    assert list(reader.range(index, prefix=2)) == [row for row in expected if row.a == 2]


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
