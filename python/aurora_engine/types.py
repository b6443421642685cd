"""Column types as Python annotations: which annotation means which stored type, and back.

==============================================  ===========================
Annotation                                      Stored type
==============================================  ===========================
``bool``, ``str``, ``bytes``, ``float``         bool, text, bytes, float64
``int``                                         int64
``Int8``, ``Int16``, ``Int32``, ``Float32``     the narrower type
``Annotated[Decimal, precision(18, 2)]``        decimal(18, 2)
``date``, ``time``, ``uuid.UUID``               date, time, uuid
``datetime``                                    timestamp (no zone)
``Annotated[datetime, zoned]`` or ``Instant``   timestamp with zone (UTC)
``Json``                                        json
``X | None``                                    X, nullable
==============================================  ===========================
"""

from __future__ import annotations

import datetime as dt
import re
import types
import typing
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from aurora_engine.exceptions import SchemaError


@dataclass(frozen=True, slots=True)
class Stored:
    """The marker of an annotation that names its stored type."""

    type: str


@dataclass(frozen=True, slots=True)
class Precision:
    """The digits of a decimal column: all of them, and those after the point."""

    digits: int
    scale: int


def precision(digits: int, scale: int = 0) -> Precision:
    """Marks a ``Decimal`` column: all of its digits (at most 38), and those after the point."""
    return Precision(digits, scale)


zoned = Stored("timestamp with zone")
"""Marks a ``datetime`` column of instants: ``Annotated[datetime, zoned]``. Values are aware, and come back in UTC."""

Int8 = Annotated[int, Stored("int8")]
"""A signed integer of 8 bits."""
Int16 = Annotated[int, Stored("int16")]
"""A signed integer of 16 bits."""
Int32 = Annotated[int, Stored("int32")]
"""A signed integer of 32 bits."""
Int64 = Annotated[int, Stored("int64")]
"""A signed integer of 64 bits: what ``int`` is by itself."""
Float32 = Annotated[float, Stored("float32")]
"""A float of 32 bits."""
Float64 = Annotated[float, Stored("float64")]
"""A float of 64 bits: what ``float`` is by itself."""
Instant = Annotated[dt.datetime, zoned]
"""A moment in time: an aware ``datetime``."""
Json = Annotated[Any, Stored("json")]
"""Whatever ``json.dumps`` takes."""

_PLAIN: dict[Any, str] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "text",
    bytes: "bytes",
    dt.date: "date",
    dt.time: "time",
    dt.datetime: "timestamp",
    uuid.UUID: "uuid",
}

_STORABLE_AS: dict[Any, tuple[str, ...]] = {
    int: ("int8", "int16", "int32", "int64"),
    float: ("float32", "float64"),
    dt.datetime: ("timestamp", "timestamp with zone"),
}

_ANNOTATIONS: dict[str, Any] = {
    **{name: kind for kind, name in _PLAIN.items()},
    "int8": Int8,
    "int16": Int16,
    "int32": Int32,
    "float32": Float32,
    "timestamp with zone": Instant,
    "json": Json,
}

_DECIMAL = re.compile(r"decimal\((\d+), (\d+)\)")


def stored_type(annotation: Any, column: str) -> tuple[str, bool]:
    """The stored type of an annotation, and whether it takes ``None``.

    Raises:
        SchemaError: nothing is stored as such an annotation; the message names the column.
    """
    inner, markers, nullable = _unwrap(annotation)
    if nullable and inner is None:
        raise _unknown(column, annotation)
    named = [marker for marker in markers if isinstance(marker, Stored | Precision)]
    if len(named) > 1:
        raise SchemaError(
            f'column "{column}": expected one marker of its stored type, got {len(named)}',
            column=column, expected="one marker", got=repr(named),
        )  # fmt: skip
    if inner is Decimal:
        return _decimal(named, column), nullable
    if named:
        return _marked(inner, named[0], column), nullable
    if inner not in _PLAIN:
        raise _unknown(column, annotation)
    return _PLAIN[inner], nullable


def annotation_of(stored: str, *, nullable: bool) -> Any:
    """The annotation of a stored type: the inverse of :func:`stored_type`."""
    match = _DECIMAL.fullmatch(stored)
    kind = Annotated[Decimal, precision(int(match[1]), int(match[2]))] if match else _ANNOTATIONS[stored]
    return typing.Optional[kind] if nullable else kind  # noqa: UP045 - built at run time


def _unwrap(annotation: Any) -> tuple[Any, list[Any], bool]:
    """Takes ``Annotated`` and ``| None`` off, in whatever order they were put on."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *markers = typing.get_args(annotation)
        kind, more, nullable = _unwrap(inner)
        return kind, [*more, *markers], nullable
    if origin in (typing.Union, types.UnionType):
        rest = [arg for arg in typing.get_args(annotation) if arg is not types.NoneType]
        if len(rest) == 1:
            kind, markers, _ = _unwrap(rest[0])
            return kind, markers, True
        return None, [], True
    return annotation, [], False


def _decimal(named: list[Any], column: str) -> str:
    if not named or not isinstance(named[0], Precision):
        expected = "Annotated[Decimal, au.precision(digits, scale)]"
        raise SchemaError(
            f'column "{column}": expected {expected}, got Decimal without precision',
            column=column, expected=expected, got="Decimal",
        )  # fmt: skip
    return f"decimal({named[0].digits}, {named[0].scale})"


def _marked(inner: Any, marker: Any, column: str) -> str:
    """The type a marker names, if it belongs to the annotation it stands on."""
    if isinstance(marker, Stored) and (marker.type == "json" or marker.type in _STORABLE_AS.get(inner, ())):
        return marker.type
    name = getattr(inner, "__name__", repr(inner))
    raise SchemaError(
        f'column "{column}": expected a marker for {name}, got {marker}',
        column=column, expected=f"a marker for {name}", got=repr(marker),
    )  # fmt: skip


def _unknown(column: str, annotation: Any) -> SchemaError:
    expected = "bool, int, float, str, bytes, Decimal, date, time, datetime, UUID, au.Json, or one of them | None"
    got = annotation.__name__ if isinstance(annotation, type) else repr(annotation)
    return SchemaError(f'column "{column}": expected {expected}, got {got}', column=column, expected=expected, got=got)
