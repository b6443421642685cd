"""Ordered scans, to rows and to Arrow."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated

import polars as pl
import pyarrow as pa
import pytest

import aurora_engine as au
from aurora_engine import exceptions as ex


class Sample(au.Row, key="id"):
    id: int
    flag: bool
    price: Annotated[Decimal, au.precision(12, 2)]
    ratio: au.Float32
    day: dt.date
    hour: dt.time
    at: au.Instant
    name: str | None
    raw: bytes
    uid: uuid.UUID
    doc: au.Json


def sample(number: int) -> Sample:
    name = None if number % 7 == 0 else f"name {number}" * (number % 5)
    return Sample(
        number, number % 2 == 0, Decimal(number) / 4, number / 2, dt.date(2020, 1, 1) + dt.timedelta(number % 900),
        dt.time(number % 24), dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=number), name,
        bytes([number % 256]) * 3, uuid.UUID(int=number), {"n": number},
    )  # fmt: skip


@pytest.fixture(scope="module")
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        samples = cluster.create_table("samples", Sample)
        for first in range(0, 5_000, 1_000):
            with cluster.transaction() as tx:
                for number in range(first, first + 1_000):
                    tx.insert(samples, sample(number))
        yield cluster


@pytest.fixture
def samples(db: au.Cluster) -> au.Table[Sample]:
    return db.table("samples", Sample)


def test_rows_come_in_key_order(db: au.Cluster, samples: au.Table[Sample]) -> None:
    assert list(db.scan(samples)) == [sample(number) for number in range(5_000)]
    assert [row.id for row in db.scan(samples, 10, 13)] == [10, 11, 12]
    assert db.scan(samples).count() == 5_000
    assert db.scan(samples, 4_990).count() == 10


def test_a_scan_is_an_arrow_stream(db: au.Cluster, samples: au.Table[Sample]) -> None:
    table = pa.table(db.scan(samples))
    assert table.num_rows == 5_000
    assert table.schema.field("price").type == pa.decimal128(12, 2)
    assert table.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert not table.schema.field("id").nullable
    assert table.schema.field("name").nullable
    assert pa.schema(db.scan(samples)) == table.schema
    rows = table.select(["id", "flag", "price", "ratio", "day", "hour", "at", "name", "raw"]).to_pylist()
    for number in (0, 7, 4_999):
        expected = {name: value for name, value in au.asdict(sample(number)).items() if name in rows[number]}
        assert rows[number] == expected


def test_polars_reads_a_range(db: au.Cluster, samples: au.Table[Sample]) -> None:
    frame = pl.DataFrame(db.scan(samples, 100, 200))
    assert frame.height == 100
    assert frame["id"].to_list() == list(range(100, 200))
    assert frame["name"].null_count() == sum(number % 7 == 0 for number in range(100, 200))


def test_a_scan_is_as_of_when_it_was_made(db: au.Cluster, samples: au.Table[Sample]) -> None:
    scan = db.scan(samples, 4_000)
    with db.transaction() as tx:
        tx.insert(samples, sample(9_999))
    assert scan.count() == 1_000
    assert pl.DataFrame(scan).height == 1_000
    assert db.scan(samples, 4_000).count() == 1_001
    with db.transaction() as tx:
        tx.delete(samples, 9_999)


def test_an_empty_table_scans_to_an_empty_stream(db: au.Cluster) -> None:
    empty = db.create_table("empty", db.scan(db.table("samples")), key="id")
    assert list(db.scan(empty)) == []
    assert pa.table(db.scan(empty)).num_rows == 0
    assert pa.table(db.scan(empty)).schema == pa.table(db.scan(db.table("samples"))).schema


def test_a_table_from_an_arrow_schema(db: au.Cluster) -> None:
    schema = pa.schema([("region", pa.string()), ("at", pa.timestamp("ms")), ("n", pa.uint16()), ("v", pa.float64())])
    table = db.create_table("measurements", schema, key=("region", au.desc("at")))
    assert table.row.__name__ == "Measurements"
    assert table.schema.key == (("region", False), ("at", True))
    assert table.schema.columns[0] == ("region", "text", False)
    row = table.row("eu", dt.datetime(2020, 1, 1), 5, None)
    with db.transaction() as tx:
        tx.insert(table, row)
    assert db.get(table, ("eu", dt.datetime(2020, 1, 1))) == row
    assert repr(row) == "Measurements(region='eu', at=datetime.datetime(2020, 1, 1, 0, 0), n=5, v=None)"


@pytest.mark.parametrize(
    ("schema", "key", "message"),
    [
        (pa.schema([("x", pa.list_(pa.int8()))]), "x", 'column "x": expected .*, got List'),
        (pa.schema([("x", pa.int8())]), "y", "expected key columns among"),
        (pa.schema([]), (), "a table has 1 to 1024 columns, got 0"),
        (pa.schema([("x", pa.int8())]), None, "expected key= with the key columns"),
        (5, "x", "expected a Row class, a pydantic model or an Arrow schema, got int"),
    ],
)
def test_schemas_that_cannot_be(db: au.Cluster, schema: object, key: str, message: str) -> None:
    with pytest.raises(ex.SchemaError, match=message):
        db.create_table("never", schema, key=key)  # type: ignore[call-overload]
    assert "never" not in db.tables()
