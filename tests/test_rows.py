"""Row classes: what they describe, and that their instances are values."""

from __future__ import annotations

import copy
import datetime as dt
import inspect
import pickle
import uuid
from decimal import Decimal
from typing import Annotated, Any, ClassVar

import pytest

import aurora_engine as au
from aurora_engine import exceptions as ex
from aurora_engine.rows import row_class


class Everything(au.Row, key=("region", au.desc("at"))):
    kind: ClassVar[str] = "not a column"
    region: str
    at: au.Instant
    flag: bool
    tiny: au.Int8
    small: au.Int16
    medium: au.Int32
    large: int
    single: au.Float32
    double: float
    price: Annotated[Decimal, au.precision(38, 4)]
    day: dt.date
    hour: dt.time
    local: dt.datetime
    raw: bytes
    id: uuid.UUID
    doc: au.Json
    note: str | None = None
    amount: Annotated[Decimal | None, au.precision(9)] = None


class Point(au.Row, key="x"):
    x: int
    y: int = 7


def test_annotations_become_columns() -> None:
    schema = Everything.__schema__
    assert schema is not None
    assert schema.columns == (
        ("region", "text", False),
        ("at", "timestamp with zone", False),
        ("flag", "bool", False),
        ("tiny", "int8", False),
        ("small", "int16", False),
        ("medium", "int32", False),
        ("large", "int64", False),
        ("single", "float32", False),
        ("double", "float64", False),
        ("price", "decimal(38, 4)", False),
        ("day", "date", False),
        ("hour", "time", False),
        ("local", "timestamp", False),
        ("raw", "bytes", False),
        ("id", "uuid", False),
        ("doc", "json", False),
        ("note", "text", True),
        ("amount", "decimal(9, 0)", True),
    )
    assert schema.key == (("region", False), ("at", True))
    assert Everything.kind == "not a column"


def test_rows_are_values() -> None:
    point = Point(1)
    assert point == Point(1, 7)
    assert point != Point(2, 7)
    assert hash(point) == hash(Point(1, 7))
    assert {point, Point(1, 7)} == {point}
    assert repr(point) == "Point(x=1, y=7)"
    assert au.astuple(point) == (1, 7)
    assert au.asdict(point) == {"x": 1, "y": 7}
    assert au.replace(point, y=8) == Point(1, 8)
    assert copy.copy(point) is point
    assert copy.deepcopy(point) is point
    assert pickle.loads(pickle.dumps(point)) == point
    match point:
        case Point(x, y):
            assert (x, y) == (1, 7)
    with pytest.raises(AttributeError, match=r"rows are values: Point\.y cannot be set"):
        point.y = 3
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del point.y
    assert point != "something else"


def test_another_class_with_the_same_columns_is_another_row() -> None:
    class Other(au.Row, key="x"):
        x: int
        y: int = 7

    assert Other(1) != Point(1)


def test_rows_have_no_dict_and_take_their_arguments_as_dataclasses_do() -> None:
    assert not hasattr(Point(1), "__dict__")
    assert Point(y=2, x=1) == Point(1, 2)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Point()
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        Point(1, z=3)


def test_columns_are_inherited() -> None:
    class Stamped(au.Row):
        created: au.Instant | None = None

    class Event(Stamped, key="name"):
        name: str = ""

    assert Stamped.__schema__ is None
    schema = Event.__schema__
    assert schema is not None
    assert [name for name, _, _ in schema.columns] == ["created", "name"]
    assert Event(None, "x") == Event(name="x")


def test_a_row_class_is_made_from_a_schema() -> None:
    schema = Everything.__schema__
    assert schema is not None
    made = row_class("all_of_them", schema)
    assert made.__name__ == "AllOfThem"
    assert made.__schema__ == schema
    assert row_class("all_of_them", schema) is made
    assert Point.__schema__ is not None
    assert row_class("2 odd name", Point.__schema__).__name__ == "Record"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("list[int]", r'column "x": expected bool, int, float, .*, got list\[int\]'),
        ("int | str", r'column "x": expected bool'),
        ("Decimal", r"expected Annotated\[Decimal, au.precision\(digits, scale\)\], got Decimal"),
        ("Annotated[str, au.zoned]", "expected a marker for str"),
        (
            "Annotated[Decimal, au.precision(39, 2)]",
            r"expected decimal\(1..38, scale <= precision\), got decimal\(39, 2\)",
        ),
        ("Annotated[Decimal, au.precision(4, 5)]", r"got decimal\(4, 5\)"),
        ("Nowhere", "name 'Nowhere' is not defined"),
    ],
)
def test_annotations_that_cannot_be_stored(annotation: str, message: str) -> None:
    with pytest.raises(ex.SchemaError, match=message):
        type(au.Row)("Bad", (au.Row,), {"__annotations__": {"x": annotation}, "__module__": __name__}, key="x")


def test_keys_that_cannot_be() -> None:
    with pytest.raises(ex.SchemaError, match=r'column "y": expected a key column among x, got y') as caught:

        class Absent(au.Row, key="y"):
            x: int

    assert (caught.value.column, caught.value.got) == ("y", "y")

    with pytest.raises(ex.SchemaError, match="key part 1: expected a column below 1 that is not yet in the key, got 0"):

        class Twice(au.Row, key=("x", "x")):
            x: int

    with pytest.raises(ex.SchemaError, match="a key has at least one column"):

        class Empty(au.Row, key=()):
            x: int


@pytest.mark.parametrize(("key", "got"), [(3, "int 3"), (("x", 3), "int 3"), (b"x", "bytes b'x'")])
def test_a_key_is_named_by_its_columns(key: Any, got: str) -> None:
    with pytest.raises(ex.SchemaError, match=f"row class Keyed: expected as key .*, got {got}"):
        type(au.Row)("Keyed", (au.Row,), {"__annotations__": {"x": int}}, key=key)


def test_help_shows_the_columns() -> None:
    assert str(inspect.signature(Point)) == "(x: 'int', y: 'int' = 7) -> None"
    assert Point.__doc__ == "Point(x: 'int', y: 'int' = 7)"

    class Documented(au.Row, key="x"):
        """A row."""

        x: int

    assert Documented.__doc__ == "A row."

    class Empty(au.Row):
        pass

    for without in (Empty, au.Row):
        with pytest.raises(ex.SchemaError, match=f"row class {without.__name__} has no columns"):
            without()


def test_columns_that_cannot_be() -> None:
    with pytest.raises(ex.SchemaError, match='column "y" has no default but follows "x"'):

        class Gap(au.Row, key="x"):
            x: int = 1
            y: int

    with pytest.raises(ex.SchemaError, match='column "__x"'):
        type(au.Row)("Bad", (au.Row,), {"__annotations__": {"__x": int}}, key="__x")

    with pytest.raises(ex.SchemaError, match="expected the arguments key, indexes and constraints, got keys"):

        class Misspelt(au.Row, keys="x"):
            x: int

    with pytest.raises(ex.SchemaError, match="row class Row has no columns"):
        au.Row()
