"""What load takes beside Arrow: rows in every form, Parquet and CSV files by path, folder and pattern."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import aurora_engine as au
from aurora_engine import exceptions as ex
from aurora_engine import sources


class Sale(au.Row, key="id"):
    id: int
    at: dt.datetime
    shop: str
    price: Annotated[Decimal, au.precision(10, 2)]
    day: dt.date | None = None
    paid: bool | None = None
    note: str | None = None
    reference: uuid.UUID | None = None
    seen: au.Instant | None = None
    size: float | None = None
    opens: dt.time | None = None


def sales(*ids: int) -> list[Sale]:
    moment = dt.datetime(2024, 5, 17, 8, 30)
    return [
        Sale(
            i, moment + dt.timedelta(seconds=i), f"shop {i}" if i % 2 else "", Decimal(i) / 4, dt.date(2024, 5, 1),
            i % 3 == 0, f'a "note", {i}' if i % 2 else None, uuid.UUID(int=i), moment.replace(tzinfo=dt.UTC),
            i / 3, dt.time(8, 30, i % 60),
        )
        for i in ids
    ]  # fmt: skip


@pytest.fixture
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        yield cluster


@pytest.fixture
def table(db: au.Cluster) -> au.Table[Sale]:
    return db.create_table("sales", Sale)


@pytest.fixture(params=["pyarrow", "polars"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Files are read by this library, as if the other were not installed."""
    wanted: str = request.param
    monkeypatch.setattr(
        sources.importlib.util, "find_spec", lambda name: object() if name == wanted else None, raising=True
    )
    return wanted


def frame(rows: list[Sale]) -> pa.Table:
    with au.open(memory=True) as db:
        table = db.create_table("sales", Sale)
        db.insert_many(table, rows)
        return pa.table(db.scan(table))


def write_parquet(path: Path, *ids: int) -> Path:
    data = frame(sales(*ids))
    plain = pa.schema([(field.name, getattr(field.type, "storage_type", field.type)) for field in data.schema])
    pq.write_table(data.cast(plain), path)
    return path


def write_csv(path: Path, *ids: int, delimiter: str = ",") -> Path:
    def field(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, dt.datetime):
            return value.isoformat(" ").replace("+00:00", "Z")
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if '"' in text or delimiter in text else text

    lines = [delimiter.join(Sale.__match_args__)]
    lines += [delimiter.join(field(value) for value in au.astuple(row)) for row in sales(*ids)]
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_rows_of_every_form_at_once(db: au.Cluster, table: au.Table[Sale]) -> None:
    one, two, three = sales(1, 2, 3)
    assert db.load(table, iter([three, au.astuple(two), au.asdict(one)])) == 3
    assert list(db.scan(table)) == [one, two, three]
    with pytest.raises(ex.NullViolation, match='row 4097: column "at"') as caught:
        db.load(
            table,
            (row if row.id < 5_097 else (row.id, None, *au.astuple(row)[2:]) for row in sales(*range(1_000, 6_000))),
        )
    assert caught.value.row == 4097
    assert db.scan(table).count() == 3


def test_frames_that_are_lazy_and_datasets(db: au.Cluster, table: au.Table[Sale], tmp_path: Path) -> None:
    data = frame(sales(1, 2))
    assert db.load(table, pl.LazyFrame(pl.DataFrame(data).drop("reference"))) == 2
    path = write_parquet(tmp_path / "a.parquet", 3, 4)
    assert db.load(table, pyarrow.dataset.dataset(path)) == 2
    assert [row.id for row in db.scan(table)] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "csv.gz"])
def test_a_file(db: au.Cluster, table: au.Table[Sale], tmp_path: Path, library: str, kind: str) -> None:
    path = tmp_path / f"sales.{kind}"
    ids = (3, 1, 2)
    if kind == "parquet":
        write_parquet(path, *ids)
    else:
        write_csv(path, *ids, delimiter="\t" if kind == "tsv" else ",")
    assert db.load(table, path if kind == "csv" else str(path)) == 3
    assert list(db.scan(table)) == sales(1, 2, 3)


def test_many_files(db: au.Cluster, table: au.Table[Sale], tmp_path: Path, library: str) -> None:
    for number in range(3):
        write_parquet(tmp_path / f"part-{number}.parquet", *range(number * 100, number * 100 + 100))
    write_csv(tmp_path / "more.csv", 1_000, 1_001)
    (tmp_path / "README").write_text("no data")
    assert db.load(table, tmp_path / "part-*.parquet") == 300
    assert db.load(table, [tmp_path / "more.csv"]) == 2
    assert db.load(table, tmp_path, on_conflict="replace") == 302
    other = db.create_table("other", Sale)
    assert db.load(other, [str(tmp_path / "part-2.parquet"), tmp_path / "part-0.parquet"]) == 200
    assert [row.id for row in db.scan(other)] == [*range(100), *range(200, 300)]


async def test_a_file_from_a_loop(db: au.Cluster, table: au.Table[Sale], tmp_path: Path) -> None:
    assert await db.aio.load(table, write_parquet(tmp_path / "a.parquet", 1), on_conflict="skip") == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "nowhere.parquet",
            "expected a file, a folder of files, or a pattern that matches some, got .*nowhere.parquet",
        ),
        ("*.parquet", "expected a file, a folder of files, or a pattern that matches some"),
        ("notes.txt", r"expected a name that ends in \.parquet, \.pq, \.csv"),
        ("empty", "expected a file, a folder of files"),
    ],
)
def test_paths_that_are_no_source(
    db: au.Cluster, table: au.Table[Sale], tmp_path: Path, source: str, message: str
) -> None:
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ex.InvalidOption, match=message):
        db.load(table, tmp_path / source)


def test_the_extra_is_named_where_no_library_is_installed(
    db: au.Cluster, table: au.Table[Sale], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(tmp_path / "a.csv", 1)
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ex.MissingExtra, match=r'pip install "aurora-engine\[files\]"') as caught:
        db.load(table, path)
    assert isinstance(caught.value, ImportError)


def test_a_bad_file_says_row_and_column_or_what_the_library_says(
    db: au.Cluster, table: au.Table[Sale], tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "a.csv", *range(100))
    text = path.read_text().replace("\n57,", "\n,")
    path.write_text(text)
    with pytest.raises(ex.NullViolation, match='row 57, column "id"') as caught:
        db.load(table, path)
    assert (caught.value.row, caught.value.column) == (57, "id")
    path.write_text(text.replace("\n,", "\nx,"))
    with pytest.raises(ex.StreamFailed, match="'x'"):
        db.load(table, path)
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(ex.StreamFailed, match=r"b\.parquet"):
        db.load(table, tmp_path / "b.parquet")
    path.write_text("id,extra\n1,2\n")
    with pytest.raises(ex.UnknownColumn, match="extra"):
        db.load(table, path)
    assert db.scan(table).count() == 0


def test_progress_tells_rows_or_bytes(
    db: au.Cluster, table: au.Table[Sale], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    db.load(table, write_parquet(tmp_path / "a.parquet", *range(2_000)), show_progress=True)
    assert "load sales: 100%" in screen.getvalue()
    assert "2.00k/2.00k" in screen.getvalue()
    screen.truncate(0)
    other = db.create_table("other", Sale)
    path = write_csv(tmp_path / "a.csv", *range(2_000))
    db.load(other, path, show_progress=True)
    assert "load other: 100%" in screen.getvalue()
    assert "2,000 rows" in screen.getvalue()
