"""Values cross the border exactly, in both directions, and what does not fit is refused by name."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aurora_engine as au
from aurora_engine import exceptions as ex

UTC = dt.UTC
EAST = dt.timezone(dt.timedelta(hours=2))
WEST = dt.timezone(-dt.timedelta(hours=2))


class Value(au.Row, key="id"):
    id: int
    flag: bool | None = None
    tiny: au.Int8 | None = None
    small: au.Int16 | None = None
    medium: au.Int32 | None = None
    large: int | None = None
    single: au.Float32 | None = None
    double: float | None = None
    price: Annotated[Decimal | None, au.precision(38, 4)] = None
    day: dt.date | None = None
    hour: dt.time | None = None
    local: dt.datetime | None = None
    instant: au.Instant | None = None
    text: str | None = None
    raw: bytes | None = None
    uid: uuid.UUID | None = None
    doc: au.Json | None = None


@pytest.fixture(scope="module")
def db() -> Iterator[au.Cluster]:
    with au.open(memory=True) as cluster:
        cluster.create_table("values", Value)
        yield cluster


def round_trip(db: au.Cluster, row: Value) -> Value:
    table = db.table("values", Value)
    with db.transaction() as tx:
        tx.upsert(table, row)
        own = tx.get(table, row.id)
    stored = db.get(table, row.id)
    assert own == stored
    assert stored is not None
    return stored


int64 = st.integers(-(2**63), 2**63 - 1)
ROWS = st.builds(
    Value,
    id=int64,
    flag=st.none() | st.booleans(),
    tiny=st.none() | st.integers(-128, 127),
    small=st.none() | st.integers(-(2**15), 2**15 - 1),
    medium=st.none() | st.integers(-(2**31), 2**31 - 1),
    large=st.none() | int64,
    single=st.none() | st.floats(width=32, allow_nan=False),
    double=st.none() | st.floats(allow_nan=False),
    price=st.none()
    | st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**33), max_value=10**33),
    day=st.none() | st.dates(),
    hour=st.none() | st.times(),
    local=st.none() | st.datetimes(),
    instant=st.none() | st.datetimes(timezones=st.just(UTC)),
    text=st.none() | st.text(),
    raw=st.none() | st.binary(),
    uid=st.none() | st.uuids(),
    doc=st.none() | st.recursive(st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3)),
)


@given(row=ROWS)
def test_every_value_comes_back_equal(db: au.Cluster, row: Value) -> None:
    assert round_trip(db, row) == row


@pytest.mark.parametrize(
    ("column", "given_", "stored"),
    [
        ("large", np.int32(5), 5),
        ("large", enum.IntEnum("Colour", "RED").RED, 1),
        ("double", 3, 3.0),
        ("double", np.float32(0.5), 0.5),
        ("double", math.inf, math.inf),
        ("price", 12, Decimal("12.0000")),
        ("price", Decimal("1E+3"), Decimal("1000.0000")),
        ("price", Decimal("1.50000000"), Decimal("1.5000")),
        ("price", Decimal("-0"), Decimal("0.0000")),
        ("price", Decimal("9" * 34 + ".9999"), Decimal("9" * 34 + ".9999")),
        ("raw", bytearray(b"ab"), b"ab"),
        ("raw", memoryview(b"ab"), b"ab"),
        ("local", dt.datetime.min, dt.datetime.min),
        ("local", dt.datetime.max, dt.datetime.max),
        (
            "instant",
            dt.datetime(2020, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            dt.datetime(2020, 1, 1, 10, tzinfo=UTC),
        ),
        ("doc", {"a": [1, 2.5, None]}, {"a": [1, 2.5, None]}),
    ],
)
def test_what_a_column_takes_and_gives(db: au.Cluster, column: str, given_: Any, stored: Any) -> None:
    value = getattr(round_trip(db, Value(1, **{column: given_})), column)
    assert value == stored
    assert type(value) is type(stored)


def test_nan_is_kept(db: au.Cluster) -> None:
    value = round_trip(db, Value(1, double=1.0)).double
    assert value == 1.0
    table = db.table("values", Value)
    with db.transaction() as tx:
        tx.upsert(table, Value(1, double=math.nan))
    row = db.get(table, 1)
    assert row is not None
    assert math.isnan(row.double or 0)


@pytest.mark.parametrize(
    ("column", "value", "error", "message"),
    [
        ("flag", 1, ex.TypeMismatch, "expected bool or None .bool., got int 1"),
        ("large", True, ex.TypeMismatch, "expected int or None .int64., got bool True"),
        ("large", 1.0, ex.TypeMismatch, "got float 1.0"),
        ("large", "1", ex.TypeMismatch, "got str '1'"),
        ("large", 2**63, ex.ValueOutOfRange, "an int from -9223372036854775808 to 9223372036854775807"),
        ("tiny", 128, ex.ValueOutOfRange, "an int from -128 to 127, got int 128"),
        ("double", "1", ex.TypeMismatch, "expected float"),
        ("double", Decimal(1), ex.TypeMismatch, "expected float"),
        ("double", True, ex.TypeMismatch, "expected float"),
        ("single", 1e300, ex.ValueOutOfRange, "a float of 32 bits"),
        ("price", 1.5, ex.TypeMismatch, "expected Decimal"),
        ("price", True, ex.TypeMismatch, "expected Decimal"),
        ("price", Decimal("0.00001"), ex.ValueOutOfRange, "at most 4 digits after the point"),
        ("price", Decimal(10) ** 34, ex.ValueOutOfRange, "at most 34 digits before the point"),
        ("price", Decimal("NaN"), ex.ValueOutOfRange, "a finite Decimal"),
        ("day", dt.datetime(2020, 1, 1), ex.TypeMismatch, "expected date"),
        ("hour", dt.time(1, tzinfo=UTC), ex.ValueOutOfRange, "a time without tzinfo"),
        ("local", dt.datetime(2020, 1, 1, tzinfo=UTC), ex.ValueOutOfRange, "a naive datetime"),
        ("local", dt.date(2020, 1, 1), ex.TypeMismatch, "expected datetime"),
        ("instant", dt.datetime(2020, 1, 1), ex.ValueOutOfRange, "an aware datetime"),
        ("instant", dt.datetime.min.replace(tzinfo=EAST), ex.ValueOutOfRange, "within the years 1 to 9999 of UTC"),
        ("instant", dt.datetime.max.replace(tzinfo=WEST), ex.ValueOutOfRange, "within the years 1 to 9999 of UTC"),
        ("text", b"x", ex.TypeMismatch, "expected str"),
        ("text", "\ud800", ex.ValueOutOfRange, "without lone surrogates"),
        ("raw", "x", ex.TypeMismatch, "expected bytes"),
        ("uid", "00000000-0000-0000-0000-000000000000", ex.TypeMismatch, "expected uuid.UUID"),
        ("doc", object(), ex.TypeMismatch, "what json.dumps takes"),
        ("id", None, ex.NullViolation, "expected int64, got None"),
    ],
)
def test_what_a_column_refuses(
    db: au.Cluster, column: str, value: Any, error: type[ex.InvalidValue], message: str
) -> None:
    table = db.table("values", Value)
    row = Value(**{"id": 1, column: value})
    with pytest.raises(error, match=message) as caught, db.transaction() as tx:
        tx.insert(table, row)
    assert caught.value.column == column
    assert caught.value.expected
    assert caught.value.got


def test_a_row_of_another_class_is_refused(db: au.Cluster) -> None:
    class Other(au.Row, key="id"):
        id: int

    with pytest.raises(ex.TypeMismatch, match=r"expected a row: Value, a dict, .*, got Other"), db.transaction() as tx:
        tx.insert(db.table("values", Value), Other(1))  # type: ignore[arg-type]


def test_long_values_come_back(db: au.Cluster) -> None:
    text, raw = "äöü" * 100_000, bytes(range(256)) * 2_000
    row = Value(1, text=text, raw=raw, doc=[text])
    assert round_trip(db, row) == row
    assert db.get_many(db.table("values", Value), [1, 2**40, 1]) == [row, None, row]


def test_a_value_of_the_full_64_mib_comes_back_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    longest = bytes(range(256)) * (64 << 12)
    assert len(longest) == 64 << 20
    with au.open(tmp_path / "c", cache_bytes=8 << 20) as db:
        table = db.create_table("long", Value)
        with db.transaction() as tx:
            tx.insert(table, Value(1, raw=longest))
            with pytest.raises(ex.RowTooLarge, match="67108865"):
                tx.insert(table, Value(2, raw=longest + b"!"))
            assert tx.get(table, 2) is None
    with au.open(tmp_path / "c", cache_bytes=8 << 20) as db:
        row = db.get(db.table("long", Value), 1)
        assert row is not None
        assert row.raw == longest
