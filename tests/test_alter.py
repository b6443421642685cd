"""Tables that change while they are in use: columns come, go, get other names and wider types."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Annotated, Any

import pytest

import aurora_engine as au
from aurora_engine import exceptions


class Account(au.Row, key="id"):
    id: int
    owner: str
    visits: au.Int16


class Named(au.Row, key="id"):
    id: int
    owner: str
    visits: au.Int16
    mail: str | None


def filled(db: au.Cluster, rows: int = 300) -> au.Table[Account]:
    accounts = db.create_table("accounts", Account)
    with db.transaction() as tx:
        for number in range(rows):
            tx.insert(accounts, Account(number, f"owner {number}", number))
    return accounts


def test_a_new_column_is_there_at_once_in_every_row() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db)
        now = db.add_column(accounts, "mail", str | None)
        assert [column[0] for column in now.schema.columns] == ["id", "owner", "visits", "mail"]
        assert au.astuple(db.get(now, 7)) == (7, "owner 7", 7, None)
        typed = db.table("accounts", Named)
        with db.transaction() as tx:
            tx.insert(typed, Named(1000, "Ann", 1, "ann@x"))
            tx.update(typed, 7, mail="seven")
        assert db.get(typed, 7) == Named(7, "owner 7", 7, "seven")
        assert db.get(typed, 8) == Named(8, "owner 8", 8, None)
        assert [row.mail for row in db.scan(typed) if row.mail] == ["seven", "ann@x"]
        assert db.scan(typed).count() == 301


def test_rows_that_are_there_get_the_default() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db, 50)
        now = db.add_column(accounts, "balance", Annotated[Decimal, au.precision(10, 2)], default=Decimal("1.50"))
        assert db.get(now, 3).balance == Decimal("1.50")
        assert [row.balance for row in db.scan(now)] == [Decimal("1.50")] * 50
        with pytest.raises(exceptions.SchemaError, match="expected a default"):
            db.add_column(accounts, "more", int)
        with pytest.raises(exceptions.TypeMismatch):
            db.add_column(accounts, "more", int, default="text")
        with pytest.raises(exceptions.SchemaError, match="there twice"):
            db.add_column(accounts, "owner", int, default=1)


def test_columns_go_get_names_and_widen() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db)
        now = db.drop_column(accounts, "owner")
        assert au.astuple(db.get(now, 5)) == (5, 5)
        now = db.rename_column("accounts", "visits", "seen")
        now = db.alter_column(now, "seen", int)
        with db.transaction() as tx:
            tx.update(now, 5, seen=2**40)
        assert [row.seen for row in db.scan(now)][4:7] == [4, 2**40, 6]
        # A column of a name that was dropped is another one.
        now = db.add_column(now, "owner", str | None)
        assert db.get(now, 5).owner is None
        for wrong in (lambda: db.drop_column(now, "id"), lambda: db.alter_column(now, "id", au.Int64)):
            with pytest.raises(exceptions.SchemaError, match="key"):
                wrong()
        with pytest.raises(exceptions.SchemaError, match="holds every int64"):
            db.alter_column(now, "seen", au.Int8)
        with pytest.raises(exceptions.UnknownColumn) as unknown:
            db.drop_column(now, "nobody")
        assert unknown.value.got == "nobody"
        with pytest.raises(exceptions.UnknownTable):
            db.drop_column("nothing", "x")


def test_a_table_gets_another_name_and_handles_go_on() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db, 10)
        other = db.create_table("other", Account)
        with pytest.raises(exceptions.TableExists):
            db.rename_table(accounts, "other")
        db.rename_table(accounts, "people")
        assert accounts.name == "people"
        assert sorted(db.tables()) == ["other", "people"]
        assert db.get(accounts, 1) == Account(1, "owner 1", 1)
        with db.transaction() as tx:
            tx.update(accounts, 1, owner="Ann")
        assert db.get(db.table("people", Account), 1) == Account(1, "Ann", 1)
        with pytest.raises(exceptions.UnknownTable):
            db.table("accounts")
        assert db.get(other, 1) is None


def test_a_handle_goes_on_where_its_class_is_made_from_the_schema() -> None:
    with au.open(memory=True) as db:
        filled(db, 10)
        handle = db.table("accounts")
        before = handle.row
        db.add_column(handle, "mail", str | None)
        assert handle.row is not before
        assert db.get(handle, 1).mail is None
        with db.transaction() as tx:
            tx.insert(handle, handle.row(11, "Eve", 1, "eve@x"))
        assert db.get(handle, 11).mail == "eve@x"


def test_a_class_that_does_not_describe_the_table_any_more_is_refused() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db, 10)
        db.add_column(accounts, "mail", str | None)
        with pytest.raises(exceptions.SchemaMismatch, match=r"Account.*db\.table") as refused:
            db.get(accounts, 1)
        assert refused.value.table == "accounts"
        with pytest.raises(exceptions.SchemaMismatch), db.transaction() as tx:
            tx.insert(accounts, Account(100, "Ann", 1))
        db.drop_column("accounts", "mail")
        assert db.get(accounts, 1) == Account(1, "owner 1", 1)


def test_open_transactions_and_views_keep_what_they_saw() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db, 10)
        with db.view() as view:
            tx = db.transaction()
            tx.__enter__()
            tx.update(accounts, 1, owner="changed")
            late = db.transaction()
            late.__enter__()
            db.drop_column(accounts, "owner")
            assert view.get(accounts, 2) == Account(2, "owner 2", 2)
            assert [row.owner for row in view.scan(accounts)] == [f"owner {number}" for number in range(10)]
            assert late.get(accounts, 2) == Account(2, "owner 2", 2)
            with pytest.raises(exceptions.SchemaChanged) as changed:
                late.update(accounts, 2, owner="too late")
            assert isinstance(changed.value, au.Retryable)
            with pytest.raises(exceptions.SchemaChanged):
                tx.commit()
            late.rollback()
        assert db.get(db.table("accounts"), 1).visits == 1

        def again(tx: au.Transaction) -> None:
            tx.update(db.table("accounts"), 1, visits=5)

        db.run(again)
        assert db.get(db.table("accounts"), 1).visits == 5


def test_a_view_at_an_older_lsn_sees_the_older_schema() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db, 10)
        before = db.vdl
        now = db.drop_column(accounts, "owner")
        with db.transaction() as tx:
            tx.update(now, 1, visits=100)
        with db.view(at=before) as view:
            old = view.table("accounts")
            assert au.astuple(view.get(old, 1)) == (1, "owner 1", 1)
            # By the present definition: the older rows, as they would be now.
            assert au.astuple(view.get(now, 1)) == (1, 1)


def test_changes_survive_a_restart(tmp_path: Any) -> None:
    with au.open(tmp_path / "db") as db:
        accounts = filled(db)
        db.add_column(accounts, "mail", str | None)
        db.alter_column("accounts", "visits", au.Int32)
        db.rename_column("accounts", "owner", "name")
        with db.transaction() as tx:
            tx.update(db.table("accounts"), 10, mail="ten", visits=70_000)
    with au.open(tmp_path / "db") as db:
        table = db.table("accounts")
        assert au.astuple(db.get(table, 10)) == (10, "owner 10", 70_000, "ten")
        assert au.astuple(db.get(table, 250)) == (250, "owner 250", 250, None)
        assert db.scan(table).count() == 300


def test_mixed_versions_come_out_as_arrow() -> None:
    pa = pytest.importorskip("pyarrow")
    with au.open(memory=True) as db:
        accounts = filled(db, 2000)
        now = db.add_column(accounts, "mail", str | None, default="none")
        now = db.alter_column(now, "visits", int)
        with db.transaction() as tx:
            for number in range(0, 2000, 500):
                tx.update(now, number, mail=f"m{number}", visits=2**33 + number)
        table = pa.table(db.scan(now))
        assert table.column("id").to_pylist() == list(range(2000))
        expected = [f"m{number}" if number % 500 == 0 else "none" for number in range(2000)]
        assert table.column("mail").to_pylist() == expected
        assert table.schema.field("visits").type == pa.int64()
        assert table.column("visits").to_pylist()[499:502] == [499, 2**33 + 500, 501]


def test_writers_go_on_while_columns_come_and_go() -> None:
    with au.open(memory=True) as db:
        filled(db, 200)
        stop = threading.Event()
        failures: list[BaseException] = []
        done = [0, 0]

        def write(worker: int) -> None:
            def bump(tx: au.Transaction) -> None:
                table = db.table("accounts")
                for number in range(worker, 200, 40):
                    row = tx.get(table, number)
                    tx.update(table, number, visits=row.visits + 1)

            try:
                while not stop.is_set():
                    db.run(bump)
                    done[worker] += 1
            except BaseException as error:  # noqa: BLE001 - told by the main thread
                failures.append(error)

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(2)]
        for thread in threads:
            thread.start()
        for round_ in range(10):
            db.add_column("accounts", f"c{round_}", int | None)
            if round_ % 2:
                db.drop_column("accounts", f"c{round_ - 1}")
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        table = db.table("accounts")
        assert [column[0] for column in table.schema.columns][3:] == ["c1", "c3", "c5", "c7", "c9"]
        for worker in range(2):
            assert [db.get(table, number).visits - number for number in range(worker, 200, 40)] == [done[worker]] * 5


def test_truncate_empties_at_once_and_older_views_read_on() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db)
        before = db.vdl
        with db.view() as view:
            tx = db.transaction()
            tx.__enter__()
            tx.update(accounts, 1, owner="late")
            db.truncate(accounts)
            assert view.get(accounts, 2) == Account(2, "owner 2", 2)
            assert view.scan(accounts).count() == 300
            with pytest.raises(exceptions.SchemaChanged):
                tx.commit()
        # The handle goes on.
        assert db.get(accounts, 2) is None
        assert db.scan(accounts).count() == 0
        with db.transaction() as tx:
            tx.insert(accounts, Account(1, "anew", 1))
        assert list(db.scan(accounts)) == [Account(1, "anew", 1)]
        with db.view(at=before) as view:
            assert view.scan(view.table("accounts")).count() == 300
            # The handle of before the truncation as well.
            assert view.scan(accounts).count() == 300
        db.load(db.create_table("copy", Account), db.scan(accounts))
        db.truncate("copy")
        assert db.load(db.table("copy", Account), db.scan(accounts)) == 1
        with pytest.raises(exceptions.UnknownTable):
            db.truncate("nothing")


def test_statistics_say_what_analyze_has_found_and_commits_have_changed() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db, 1000)
        known = db.statistics(accounts)
        # Counted from the table's beginning.
        assert (known.rows, known.columns, known.analyzed) == (1000, {}, None)
        assert known.bytes > 0
        with db.transaction() as tx:
            for number in range(100):
                tx.delete(accounts, number)
        db.add_column(accounts, "mail", str | None)
        known = db.analyze("accounts")
        assert known.rows == 900
        assert (known.columns["id"].least, known.columns["id"].greatest) == (100, 999)
        assert known.columns["mail"] == au.ColumnStatistics(900, 0, None, None)
        assert known.columns["owner"].least == "owner 100"
        assert abs(known.columns["owner"].distinct - 900) < 900 * 0.07
        assert known.analyzed is not None
        db.rename_column("accounts", "owner", "name")
        assert list(db.statistics("accounts").columns) == ["id", "name", "visits", "mail"]
        db.truncate("accounts")
        assert db.statistics("accounts").rows == 0
        assert db.statistics("accounts").columns == {}
        with pytest.raises(exceptions.UnknownTable):
            db.analyze("nothing")


def test_statistics_survive_a_restart(tmp_path: Any) -> None:
    with au.open(tmp_path / "db") as db:
        filled(db, 50)
        db.analyze("accounts")
    with au.open(tmp_path / "db") as db:
        known = db.statistics("accounts")
        assert known.rows == 50
        assert (known.columns["visits"].least, known.columns["visits"].greatest) == (0, 49)
        with db.transaction() as tx:
            tx.insert(db.table("accounts", Account), Account(100, "Ann", 1))
        assert db.statistics("accounts").rows == 51


def test_a_column_that_an_index_uses_stays() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db, 10)
        db.create_index(accounts, "by_visits", "visits")
        for wrong in (lambda: db.drop_column(accounts, "visits"), lambda: db.alter_column(accounts, "visits", int)):
            with pytest.raises(exceptions.SchemaError, match=r"visits.*index"):
                wrong()


def test_columns_may_have_any_name() -> None:
    pa = pytest.importorskip("pyarrow")
    names = ["class", "my column", "größe", "self", "__init__", "column_1", "1st", "a.b", "__slots__", "🙂", "x" * 255]
    frame = pa.table({"id": [1, 2], **{name: [index, index + 100] for index, name in enumerate(names)}})
    with au.open(memory=True) as db:
        table = db.create_table("any", frame, key="id")
        db.load(table, frame)
        row = db.get(table, 2)
        assert [row[name] for name in names] == list(range(100, 100 + len(names)))
        assert row.größe == row["größe"] == 102
        assert au.asdict(row) == {"id": 2, **{name: index + 100 for index, name in enumerate(names)}}
        assert table.row(*au.astuple(row)) == row == table.row(**au.asdict(row))
        assert hash(au.replace(row, **{"my column": 7})) != hash(row)
        with db.transaction() as tx:
            tx.insert(table, table.row(3, *range(len(names))))
            tx.update(table, 2, **{"my column": 5, "class": au.col("__init__") + 1})
        assert (db.get(table, 2)["my column"], db.get(table, 2)["class"]) == (5, 105)
        assert pa.table(db.scan(table)).column_names == ["id", *names]
        table = db.rename_column(table, "my column", "its name")
        assert db.get(table, 2)["its name"] == 5
        with pytest.raises(KeyError):
            db.get(table, 2)["my column"]
        for wrong in ("", "y" * 256, "zero\0byte"):
            with pytest.raises(exceptions.SchemaError):
                db.add_column(table, wrong, int | None)
        with pytest.raises(TypeError, match=r"missing the column .class."):
            table.row(1)
        with pytest.raises(TypeError, match="nothing"):
            table.row(*au.astuple(row), nothing=1)


async def _alter_awaited(db: au.Cluster) -> None:
    now = await db.aio.add_column("accounts", "mail", str | None)
    assert (await db.aio.get(now, 1)).mail is None
    now = await db.aio.alter_column(await db.aio.rename_column(now, "visits", "seen"), "seen", int)
    now = await db.aio.drop_column(now, "owner")
    assert au.astuple(await db.aio.get(now, 1)) == (1, 1, None)
    await db.aio.rename_table(now, "people")
    assert (await db.aio.analyze("people")).rows == (await db.aio.statistics("people")).rows == 20
    await db.aio.truncate("people")
    assert await db.aio.get(now, 1) is None


def test_everything_can_be_awaited() -> None:
    with au.open(memory=True) as db:
        filled(db, 20)
        asyncio.run(_alter_awaited(db))


def test_after_a_backtrack_handles_are_of_the_branch_that_counts() -> None:
    with au.open(memory=True) as db:
        accounts = filled(db, 10)
        before = db.vdl
        changed = db.add_column(accounts, "mail", str | None)
        with db.transaction() as tx:
            tx.update(changed, 1, mail="one")
        emptied = db.create_table("emptied", Account)
        with db.transaction() as tx:
            tx.insert(emptied, Account(1, "x", 1))
        db.backtrack(to=before)
        for handle in (accounts, changed):
            assert au.astuple(db.get(handle, 1)) == (1, "owner 1", 1)
            with db.transaction() as tx:
                tx.update(handle, 1, owner="owner 1")
        with pytest.raises(exceptions.UnknownTable):
            db.get(emptied, 1)
        again = db.add_column(accounts, "mail", au.Int8, default=7)
        assert au.astuple(db.get(changed, 1)) == au.astuple(db.get(again, 1)) == (1, "owner 1", 1, 7)


def test_a_table_that_was_emptied_and_then_dropped_is_gone_for_those_who_have_it() -> None:
    """Its new number had a mark of its own that nothing set: readers went on and found no rows."""
    with au.open(memory=True) as db:
        accounts = filled(db, 3)
        db.truncate(accounts)
        emptied = db.table("accounts", Account)
        db.drop_table("accounts")
        for handle in (accounts, emptied):
            with pytest.raises(exceptions.TableDropped):
                db.get(handle, 1)
