"""insert_many and upsert_many: many rows by one call, all of them or none; and rows in every form that is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import hypothesis.strategies as st
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given

import aurora_engine as au
from aurora_engine import exceptions as ex


class Account(au.Row, key="id"):
    id: int
    owner: str
    balance: Annotated[Decimal, au.precision(12, 2)] = Decimal(0)
    note: str | None = None


class Doc(au.Row, key="id"):
    id: int
    doc: au.Json


class Pair(NamedTuple):
    id: int
    owner: str
    balance: Decimal
    note: str | None


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


@pytest.fixture
def accounts(db: au.Cluster) -> au.Table[Account]:
    return db.create_table("accounts", Account)


def rows(*ids: int) -> list[Account]:
    return [Account(i, f"owner {i}") for i in ids]


def test_many_rows_by_one_call(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.transaction() as tx:
        assert tx.insert_many(accounts, (row for row in rows(3, 1, 2))) == 3
        assert tx.insert_many(accounts, []) == 0
        assert list(tx.range(accounts)) == rows(1, 2, 3)
    assert db.insert_many(accounts, rows(*range(10, 2_000))) == 1_990
    assert db.upsert_many(accounts, [Account(3, "Cid"), Account(5, "Eve"), Account(5, "Fay")]) == 3
    assert db.get_many(accounts, [3, 5, 1_999]) == [Account(3, "Cid"), Account(5, "Fay"), *rows(1_999)]
    assert db.scan(accounts).count() == 1_994


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_call_that_fails_leaves_the_transaction_as_it_was(
    db: au.Cluster, accounts: au.Table[Account], place: int
) -> None:
    db.insert_many(accounts, rows(7))
    bad = rows(1, 2)
    bad.insert(place, rows(7)[0])
    with db.transaction() as tx:
        tx.insert_many(accounts, rows(100, 101))
        with pytest.raises(ex.DuplicateKey) as caught:
            tx.insert_many(accounts, bad)
        assert (caught.value.table, caught.value.key) == ("accounts", "(7)")
        with pytest.raises(ex.DuplicateKey, match="accounts"):
            tx.insert_many(accounts, rows(1, 2, 1))
        with pytest.raises(ex.DuplicateKey, match="accounts"):
            tx.insert_many(accounts, rows(3, 101))
        tx.delete(accounts, 7)
        tx.insert_many(accounts, [Account(7, "again")])
    assert [row.id for row in db.scan(accounts)] == [7, 100, 101]
    assert db.get(accounts, 7) == Account(7, "again")


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (Account(2, None), ex.NullViolation, 'row 1: column "owner": expected text, got None'),
        ({"id": 2}, ex.NullViolation, 'row 1: column "owner": expected text, got no value'),
        ({"id": 2, "owner": "x", "size": 1}, ex.UnknownColumn, "row 1: .*expected a column among id, owner"),
        ((2, "x"), ex.TypeMismatch, r"row 1: .*expected 4 values \(id, owner, balance, note\), got 2 values"),
        ("abcd", ex.TypeMismatch, "row 1: .*expected a row: Account, a dict, a tuple or a pydantic model, got str"),
        ((2**64, "x", Decimal(0), None), ex.ValueOutOfRange, 'row 1: column "id"'),
        ((2, "x", Decimal("0.001"), None), ex.ValueOutOfRange, 'row 1: column "balance"'),
    ],
)
def test_the_first_bad_row_is_named(
    db: au.Cluster, accounts: au.Table[Account], bad: Any, error: type[ex.AuroraError], message: str
) -> None:
    with db.transaction() as tx:
        with pytest.raises(error, match=message) as caught:
            tx.insert_many(accounts, [*rows(1), bad])
        assert caught.value.details["row"] == 1
        tx.insert(accounts, rows(5)[0])
    assert [row.id for row in db.scan(accounts)] == [5]


@pytest.mark.parametrize("given_", [5, None, "text", b"bytes"])
def test_what_is_no_rows(db: au.Cluster, accounts: au.Table[Account], given_: Any) -> None:
    with pytest.raises(ex.TypeMismatch, match=r"expected an iterable of rows or an Arrow stream|expected a row"):
        db.insert_many(accounts, given_)


def test_more_than_a_transaction_holds(db: au.Cluster, accounts: au.Table[Account]) -> None:
    long = "x" * 1_000_000
    with db.transaction() as tx:
        tx.insert_many(accounts, rows(1))
        with pytest.raises(ex.TransactionTooLarge, match="bytes"):
            tx.insert_many(accounts, (Account(i, long) for i in range(10, 200)))
        # Each call fits by itself; the second does not beside the first, and none of it is there.
        tx.insert_many(accounts, (Account(i, long) for i in range(10, 90)))
        with pytest.raises(ex.TransactionTooLarge, match="bytes"):
            tx.upsert_many(accounts, (Account(i, long) for i in range(80, 160)))
        assert sum(1 for _ in tx.range(accounts, columns=["id"])) == 81
        tx.rollback()


FORMS: dict[str, Any] = {
    "typed": Account(1, "Ann", Decimal(5), "x"),
    "dict": {"id": 1, "owner": "Ann", "balance": Decimal(5), "note": "x"},
    "mapping": MappingProxyType({"note": "x", "balance": Decimal(5), "owner": "Ann", "id": 1}),
    "tuple": (1, "Ann", Decimal(5), "x"),
    "list": [1, "Ann", Decimal(5), "x"],
    "named tuple": Pair(1, "Ann", Decimal(5), "x"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", ["insert", "upsert", "insert_many", "upsert_many"])
def test_a_row_in_any_form(db: au.Cluster, accounts: au.Table[Account], form: str, way: str) -> None:
    row = FORMS[form]
    with db.transaction() as tx:
        getattr(tx, way)(accounts, [row] if way.endswith("many") else row)
    assert db.get(accounts, 1) == Account(1, "Ann", Decimal(5), "x")


def test_a_dict_may_leave_out_what_has_a_default(db: au.Cluster, accounts: au.Table[Account]) -> None:
    db.insert_many(accounts, [{"id": 1, "owner": "Ann"}])
    assert db.get(accounts, 1) == Account(1, "Ann")


@pytest.mark.parametrize("kind", ["pyarrow", "polars", "reader", "scan"])
def test_an_arrow_stream(db: au.Cluster, accounts: au.Table[Account], kind: str) -> None:
    source = pa.table({"id": range(500), "owner": [f"owner {i}" for i in range(500)], "balance": [0] * 500})
    data: Any = source
    if kind == "polars":
        data = pl.DataFrame(source)
    elif kind == "reader":
        data = pa.RecordBatchReader.from_batches(source.schema, source.to_batches(max_chunksize=64))
    elif kind == "scan":
        other = db.create_table("other", Account)
        db.insert_many(other, source)
        data = db.scan(other)
    assert db.insert_many(accounts, data) == 500
    assert list(db.scan(accounts)) == rows(*range(500))
    with pytest.raises(ex.ValueOutOfRange, match='row 1, column "id"') as caught:
        db.upsert_many(
            accounts, pa.table({"id": pa.array([1, 2**63], pa.uint64()), "owner": ["a", "b"], "balance": [0, 0]})
        )
    assert caught.value.row == 1


async def test_from_a_loop(db: au.Cluster, accounts: au.Table[Account]) -> None:
    assert await db.aio.insert_many(accounts, rows(1, 2)) == 2
    assert await db.aio.upsert_many(accounts, rows(2, 3)) == 2
    async with db.aio.transaction() as tx:
        assert await tx.insert_many(accounts, rows(4)) == 1
        assert await tx.upsert_many(accounts, [(5, "x", Decimal(0), None)]) == 1
        assert await tx.get(accounts, 5, columns=["owner"]) is not None
    assert [row.id for row in db.scan(accounts)] == [1, 2, 3, 4, 5]


IDS = st.integers(0, 30)
CALLS = st.lists(st.tuples(st.sampled_from(["insert", "upsert", "delete"]), st.lists(IDS, max_size=8)), max_size=12)


@given(st.lists(CALLS, max_size=4))
def test_calls_in_any_order_do_what_a_dict_does(transactions: list[Any]) -> None:
    with au.open(memory=True) as db:
        accounts = db.create_table("accounts", Account)
        stored: dict[int, Account] = {}
        serial = 0
        for calls in transactions:
            mine = dict(stored)
            with db.transaction() as tx:
                for what, ids in calls:
                    serial += 1
                    batch = [Account(i, f"{serial}.{place}") for place, i in enumerate(ids)]
                    if what == "delete":
                        for i in ids:
                            assert tx.delete(accounts, i) == (mine.pop(i, None) is not None)
                    elif what == "upsert":
                        tx.upsert_many(accounts, batch)
                        mine.update({row.id: row for row in batch})
                    elif len(set(ids)) < len(ids) or mine.keys() & set(ids):
                        with pytest.raises(ex.DuplicateKey):
                            tx.insert_many(accounts, batch)
                    else:
                        tx.insert_many(accounts, batch)
                        mine.update({row.id: row for row in batch})
                    assert list(tx.range(accounts)) == [mine[i] for i in sorted(mine)]
            stored = mine
            assert list(db.scan(accounts)) == [stored[i] for i in sorted(stored)]


@pytest.mark.parametrize(("kind", "cls"), [("dict", dict), ("tuple", tuple)])
def test_reading_gives_dicts_or_tuples(db: au.Cluster, kind: Any, cls: type) -> None:
    table = db.create_table("accounts", Account, rows=kind)
    assert table.row is cls
    long = "y" * 100_000
    db.insert_many(table, [*rows(1, 2), Account(3, "Cid", Decimal(1), long)])
    there: list[Any] = [au.asdict(row) for row in [*rows(1, 2), Account(3, "Cid", Decimal(1), long)]]
    if kind == "tuple":
        there = [tuple(row.values()) for row in there]
    else:
        assert list(db.get(table, 3)) == ["id", "owner", "balance", "note"]
    assert [type(row) for row in db.scan(table)] == [cls] * 3
    assert list(db.scan(table)) == there
    assert db.get_many(table, [2, 9]) == [there[1], None]
    with db.view() as view:
        part = view.get(table, 3, columns=["note", "id"])
        assert part == ({"note": long, "id": 3} if kind == "dict" else (long, 3))
    assert db.get(db.table("accounts", Account), 1) == rows(1)[0]
    assert db.get(db.table("accounts", rows=kind), 1) == there[0]
    assert db.get(db.table("accounts", Account, rows=kind), 1) == there[0]


def test_only_some_columns(db: au.Cluster, accounts: au.Table[Account]) -> None:
    db.insert_many(accounts, rows(*range(1_000)))
    part = db.get(accounts, 7, columns=["owner", "id"])
    assert (part.owner, part.id) == ("owner 7", 7)
    assert repr(part) == "Account(owner='owner 7', id=7)"
    assert not hasattr(part, "balance")
    assert type(db.get(accounts, 8, columns=("owner", "id"))) is type(part)
    with db.transaction() as tx:
        tx.update(accounts, 5, owner="Eve")
        assert [row.owner for row in tx.range(accounts, 4, 7, columns=["owner"])] == ["owner 4", "Eve", "owner 6"]
        assert [row.id for row in tx.range(accounts, 4, 7, columns=["id"], reverse=True, limit=2)] == [6, 5]
        assert [row and row.owner for row in tx.get_many(accounts, [5, -1], columns=["owner"])] == ["Eve", None]
        assert tx.get(accounts, -1, columns=["owner"]) is None


@pytest.mark.parametrize("columns", [[], "id", ["id", "id"], 5, [5]])
def test_columns_that_cannot_be_asked_for(db: au.Cluster, accounts: au.Table[Account], columns: Any) -> None:
    with pytest.raises(ex.InvalidOption, match="columns: expected names of columns, each once, got"):
        db.get(accounts, 1, columns=columns)
    with pytest.raises(ex.UnknownColumn, match="expected a column among id, owner, balance, note, got nothing"):
        db.get(accounts, 1, columns=["id", "nothing"])


@pytest.mark.parametrize("limit", [-1, 2.5, "3", True])
def test_limits_that_are_none(db: au.Cluster, accounts: au.Table[Account], limit: Any) -> None:
    with db.view() as view, pytest.raises(ex.InvalidOption, match="limit: expected a number of rows from 0 up"):
        view.range(accounts, limit=limit)


def test_keys_that_are_none(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with pytest.raises(ex.TypeMismatch, match=r"expected the value itself, of 1 key value \(id\), got tuple \(1,\)"):
        db.get(accounts, (1,))
    for keys in ("abc", 5):
        with pytest.raises(ex.TypeMismatch, match="expected an iterable of keys, got"):
            db.get_many(accounts, keys)


def test_row_kinds_that_are_none(db: au.Cluster) -> None:
    with pytest.raises(ex.InvalidOption, match='option rows: expected "dict", "tuple" or None, got list'):
        db.create_table("accounts", Account, rows="list")


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, {"x": -math.inf}]])
def test_json_has_no_nan(db: au.Cluster, value: Any) -> None:
    docs = db.create_table("docs", Doc)
    with db.transaction() as tx:
        with pytest.raises(ex.ValueOutOfRange, match='column "doc": expected what JSON can say'):
            tx.insert(docs, Doc(1, value))
        with pytest.raises(ex.TypeMismatch, match=r"expected what json\.dumps takes"):
            tx.insert(docs, Doc(1, object()))
        tx.insert(docs, Doc(1, {"ä": [1.5, None]}))
    row: Mapping[str, Any] = au.asdict(db.get(docs, 1) or Doc(0, None))
    assert row["doc"] == {"ä": [1.5, None]}


def test_an_iterator_says_what_it_is_over(db: au.Cluster, accounts: au.Table[Account]) -> None:
    with db.view() as view, view.range(accounts) as over:
        assert repr(over) == '<RowIterator over table "accounts">'
        over.close()
        assert repr(over) == '<RowIterator over table "accounts" (ended)>'


def test_pydantic_models_are_rows_and_describe_tables(db: au.Cluster, accounts: au.Table[Account]) -> None:
    pydantic = pytest.importorskip("pydantic", minversion="2.10")

    class User(pydantic.BaseModel):  # type: ignore[name-defined, misc]
        id: int
        owner: str
        balance: Annotated[Decimal, au.precision(12, 2)] = Decimal(0)
        note: str | None = None

    users = db.create_table("users", User, key="id")
    assert users.row is User
    assert users.schema == accounts.schema
    ann = User(id=1, owner="Ann", balance=Decimal("1.50"), note="y" * 50_000)
    with db.transaction() as tx:
        tx.insert(users, ann)
        tx.insert_many(users, [User(id=2, owner="Bob"), {"id": 3, "owner": "Cid", "balance": Decimal(0)}])
        tx.insert(accounts, ann)
    found = db.get(users, 1)
    assert found == ann
    assert type(found) is User
    assert found.model_fields_set == {"id", "owner", "balance", "note"}
    assert [user.owner for user in db.scan(db.table("users", User))] == ["Ann", "Bob", "Cid"]
    assert db.get(users, 2, columns=["owner"]) == {"owner": "Bob"}
    assert db.get(accounts, 1) == Account(1, "Ann", Decimal("1.50"), "y" * 50_000)

    class Other(pydantic.BaseModel):  # type: ignore[name-defined, misc]
        id: int
        owner: str
        balance: Annotated[Decimal, au.precision(12, 2)] = Decimal(0)
        size: int = 1

    with pytest.raises(ex.UnknownColumn, match="expected a column among id, owner, balance, note, got size"):
        db.insert_many(users, [Other(id=5, owner="x")])
    with pytest.raises(ex.SchemaMismatch, match='column "note"'):
        db.table("users", Other)
    with pytest.raises(ex.SchemaError, match="expected key= with the key columns of Other"):
        db.create_table("others", Other)
