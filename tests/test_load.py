"""Bulk load: rows in any order and form into any table, all visible at once or not at all."""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aurora_engine as au
from aurora_engine import exceptions as ex


class Line(au.Row, key=("number", "line")):
    number: int
    line: au.Int32
    price: Annotated[Decimal, au.precision(12, 2)]
    note: str | None = None


ROWS = 20_000


def lines(count: int = ROWS) -> pa.Table:
    numbers = range(count)
    return pa.table(
        {
            "number": pa.array([n // 4 for n in numbers], pa.int64()),
            "line": pa.array([n % 4 for n in numbers], pa.int32()),
            "price": pa.array([Decimal(n) / 100 for n in numbers], pa.decimal128(12, 2)),
            "note": pa.array([None if n % 3 else f"note {n}" for n in numbers], pa.string()),
        }
    )


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


@pytest.fixture
def table(db: au.Cluster) -> au.Table[Line]:
    return db.create_table("lines", Line)


def test_rows_are_all_there_after_a_load(db: au.Cluster, table: au.Table[Line]) -> None:
    assert db.load(table, lines()) == ROWS
    assert db.scan(table).count() == ROWS
    assert pa.table(db.scan(table)).equals(pa.table(lines()).cast(pa.schema(db.scan(table))))
    assert db.get(table, (1_234, 2)) == Line(1_234, 2, Decimal("49.38"), "note 4938")
    with db.transaction() as tx:
        tx.update(table, (0, 0), price=Decimal(1))
        tx.insert(table, Line(-1, 0, Decimal(0)))
        tx.delete(table, (0, 1))
    assert [row.price for row in db.scan(table, hi=(0, 3))] == [Decimal(0), Decimal(1), Decimal("0.02")]


@pytest.mark.parametrize("kind", ["reader", "polars", "scan", "generator"])
def test_anything_with_an_arrow_stream_is_taken(db: au.Cluster, table: au.Table[Line], kind: str) -> None:
    source = lines(1_000)
    data: Any = source
    if kind == "reader":
        data = pa.RecordBatchReader.from_batches(source.schema, source.to_batches(max_chunksize=64))
    elif kind == "generator":
        data = pa.RecordBatchReader.from_batches(
            source.schema, (batch for batch in source.to_batches(max_chunksize=64))
        )
    elif kind == "polars":
        data = pl.DataFrame(source)
    elif kind == "scan":
        other = db.create_table("other", Line)
        db.load(other, source)
        data = db.scan(other)
    assert db.load(table, data) == 1_000
    assert db.scan(table).count() == 1_000


def test_columns_are_matched_by_name_and_missing_nullable_ones_are_null(db: au.Cluster, table: au.Table[Line]) -> None:
    db.load(table, lines(10).select(["price", "line", "number"]))
    assert db.get(table, (0, 3)) == Line(0, 3, Decimal("0.03"))


def test_rows_out_of_order_are_sorted_unless_they_must_not_be(db: au.Cluster, table: au.Table[Line]) -> None:
    backwards = lines(1_000).take(list(reversed(range(1_000))))
    with pytest.raises(ex.LoadOrder, match="expected rows in ascending key order") as caught:
        db.load(table, backwards, sort=False)
    assert (caught.value.last, caught.value.got) == ("(249, 3)", "(249, 2)")
    assert db.load(table, backwards) == 1_000
    assert [row.line for row in db.scan(table, hi=1)] == [0, 1, 2, 3]
    other = db.create_table("other", Line)
    with pytest.raises(ex.DuplicateKey, match=r"row 5: expected no row with key \(0, 0\), got row 0") as twice:
        db.load(other, pa.concat_tables([lines(5), lines(5)]))
    assert (twice.value.row, twice.value.key) == (5, "(0, 0)")
    assert db.scan(other).count() == 0


def test_order_that_ends_after_the_first_rows(db: au.Cluster, table: au.Table[Line]) -> None:
    source = pa.concat_tables([lines(60_000), lines(4)])
    with pytest.raises(ex.LoadOrder):
        db.load(table, source)
    assert db.scan(table).count() == 0
    assert db.load(table, source, sort=True, on_conflict="skip") == 60_000


@pytest.mark.parametrize("memory", [True, False])
def test_what_does_not_fit_into_memory_is_sorted_in_files_that_are_gone(tmp_path: Path, memory: bool) -> None:
    source = lines(30_000)
    shuffled = source.take(random.Random(1).sample(range(30_000), 30_000))
    with au.open(memory=True) if memory else au.open(tmp_path / "db") as db:
        table = db.create_table("lines", Line)
        assert db.load(table, shuffled, memory_bytes=100_000) == 30_000
        assert pa.table(db.scan(table)).equals(source.cast(pa.schema(db.scan(table))))
        assert db.load(table, shuffled, memory_bytes=100_000, on_conflict="skip") == 0
        with pytest.raises(ex.DuplicateKey):
            db.load(table, shuffled, memory_bytes=100_000)
        assert list(tmp_path.glob("db/sort/*")) == []
    if not memory:
        (tmp_path / "db" / "sort").mkdir(exist_ok=True)
        (tmp_path / "db" / "sort" / "run-1-1").write_bytes(b"of a process that was killed")
        with au.open(tmp_path / "db") as db:
            assert not (tmp_path / "db" / "sort").exists()
            assert db.scan(db.table("lines", Line)).count() == 30_000


def test_a_table_with_rows_takes_more(db: au.Cluster, table: au.Table[Line]) -> None:
    assert db.load(table, lines(10)) == 10
    with pytest.raises(
        ex.DuplicateKey, match=r"row 3: expected no row with key \(0, 3\), got one in the table"
    ) as caught:
        db.load(table, lines(20).slice(0, 20).take([18, 17, 16, 3, 19]))
    assert (caught.value.table, caught.value.row) == ("lines", 3)
    assert db.scan(table).count() == 10
    assert db.load(table, lines(20).slice(10)) == 10
    changed = [Line(0, 0, Decimal(7)), Line(9, 9, Decimal(8)), Line(9, 9, Decimal(9))]
    assert db.load(table, changed, on_conflict="skip") == 1
    assert db.get_many(table, [(0, 0), (9, 9)]) == [Line(0, 0, Decimal(0), "note 0"), changed[1]]
    assert db.load(table, changed, on_conflict="replace") == 2
    assert db.get_many(table, [(0, 0), (9, 9)]) == [changed[0], changed[2]]
    assert db.scan(table).count() == 21


ROW_IDS = st.lists(st.integers(0, 60), max_size=40)


@given(
    before=ROW_IDS,
    loads=st.lists(st.tuples(ROW_IDS, st.sampled_from(["error", "replace", "skip"]), st.booleans()), max_size=3),
    large=st.booleans(),
)
@settings(max_examples=15)
def test_loads_do_what_a_dict_does(before: list[int], loads: list[Any], large: bool) -> None:
    def row(serial: int, place: int, number: int) -> Line:
        note = "x" * 20_000 if (number + serial) % 7 == 0 else f"{serial}.{place}"
        return Line(number, 0, Decimal(serial), note)

    # Rows that make a load too large for one transaction, so that it is merged; they sort after the others.
    filler = [Line(100, n, Decimal(0)) for n in range(100_001)] if large else []
    with au.open(memory=True) as db:
        table = db.create_table("lines", Line)
        db.upsert_many(table, [row(0, place, number) for place, number in enumerate(before)])
        model = {row_.number: row_ for row_ in (row(0, place, number) for place, number in enumerate(before))}
        for serial, (numbers, on_conflict, shuffle) in enumerate(loads, 1):
            given_ = [row(serial, place, number) for place, number in enumerate(numbers)]
            if shuffle:
                random.Random(serial).shuffle(given_)
            after = dict(model)
            clash = False
            for one in given_:
                if one.number in after:
                    clash = True
                    if on_conflict == "skip":
                        continue
                after[one.number] = one
            extra = filler if serial == 1 else []
            if clash and on_conflict == "error":
                with pytest.raises(ex.DuplicateKey):
                    db.load(table, [*given_, *extra])
            else:
                db.load(table, [*given_, *extra], on_conflict=on_conflict)
                model = after
            assert list(db.scan(table, hi=100)) == [model[number] for number in sorted(model)]


def test_rows_may_come_from_work_on_the_table_itself(db: au.Cluster, table: au.Table[Line]) -> None:
    db.load(table, lines(1_000))

    def rows() -> Iterator[Line]:
        yield from (Line(1_000 + n, 0, Decimal(1)) for n in range(100_001))
        with db.transaction() as tx:
            tx.update(table, (0, 0), price=Decimal(77))
            tx.delete(table, (0, 1))
            tx.insert(table, Line(-1, 0, Decimal(5)))

    assert db.load(table, rows()) == 100_001
    assert db.scan(table).count() == 1_000 + 100_001
    assert [row.price for row in db.scan(table, hi=(0, 2))] == [Decimal(5), Decimal(77)]


def test_a_writer_beside_a_merge_loses_nothing(db: au.Cluster, table: au.Table[Line]) -> None:
    db.load(table, lines(100))
    stop, written = threading.Event(), []

    def write() -> None:
        number = 0
        while not stop.is_set() and number < 5_000:
            number += 1
            db.run(lambda tx, n=number: tx.insert(table, Line(-n, 0, Decimal(n))))
            written.append(-number)

    thread = threading.Thread(target=write)
    thread.start()
    db.load(table, (Line(1_000 + n, 0, Decimal(1)) for n in range(120_000)))
    stop.set()
    thread.join()
    assert sorted(written) == [row.number for row in db.scan(table, hi=0)]
    assert db.scan(table).count() == 100 + 120_000 + len(written)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.append_column("extra", pa.array(range(10))), ex.UnknownColumn, 'got "extra"'),
        (lambda t: t.drop_columns(["price"]), ex.NullViolation, 'expected column "price"'),
        (
            lambda t: t.set_column(2, "price", pa.array(["x"] * 10)),
            ex.TypeMismatch,
            'column "price": expected Arrow values',
        ),
        (
            lambda t: t.set_column(2, "price", pa.array([None] * 10, pa.decimal128(12, 2))),
            ex.NullViolation,
            "row 0, column",
        ),
        (lambda t: t.set_column(1, "line", pa.array([2**40] * 10)), ex.ValueOutOfRange, 'row 0, column "line"'),
        (lambda _: 5, ex.TypeMismatch, "expected an Arrow stream, an iterable of rows, or paths of files, got int 5"),
    ],
)
def test_data_that_does_not_fit(
    db: au.Cluster, table: au.Table[Line], change: Any, error: type[ex.AuroraError], message: str
) -> None:
    with pytest.raises(error, match=message):
        db.load(table, change(lines(10)))
    assert db.scan(table).count() == 0
    db.load(table, lines(10))
    assert db.scan(table).count() == 10


def test_a_stream_that_breaks_off_loads_nothing(db: au.Cluster, table: au.Table[Line]) -> None:
    source = lines(1_000)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from source.to_batches(max_chunksize=100)
        raise OSError("the wire was cut")

    with pytest.raises(ex.StreamFailed, match="the wire was cut"):
        db.load(table, pa.RecordBatchReader.from_batches(source.schema, batches()))
    assert db.scan(table).count() == 0
    assert db.load(table, source) == 1_000


def test_an_empty_stream_loads_nothing(db: au.Cluster, table: au.Table[Line]) -> None:
    assert db.load(table, lines(0)) == 0
    assert db.load(table, lines(1)) == 1


def test_progress_is_drawn_where_it_is_asked_for(
    db: au.Cluster, table: au.Table[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    db.load(table, lines(), show_progress=True)
    assert "load lines: 100%" in screen.getvalue()
    assert "20.0k/20.0k" in screen.getvalue()
    screen.truncate(0)
    db.load(db.create_table("quiet", Line), lines(10))
    assert screen.getvalue().strip("\0") == ""


def test_ctrl_c_ends_a_load(db: au.Cluster, table: au.Table[Line]) -> None:
    source = lines(50_000)

    # Far more than comes before the key is pressed, and not so much that a press without effect takes all memory.
    def many() -> Iterator[pa.RecordBatch]:
        batch = source.to_batches()[0]
        for shift in range(50_000, 5_000_000, 50_000):
            moved = pa.array([value + shift for value in range(batch.num_rows)], pa.int64())
            yield batch.set_column(0, "number", moved)

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises((KeyboardInterrupt, ex.StreamFailed)):
        db.load(table, pa.RecordBatchReader.from_batches(source.schema, many()))
    timer.join()
    assert db.scan(table).count() == 0


async def test_a_load_from_a_loop(db: au.Cluster, table: au.Table[Line]) -> None:
    assert await db.aio.load(table, lines(100)) == 100
