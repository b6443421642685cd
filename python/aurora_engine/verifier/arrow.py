"""Rows as an Arrow table, or as Python values.

====================  =========================================  ============================
stored                Arrow                                      Python
====================  =========================================  ============================
bool                  bool                                       bool
int8 … int64          int8 … int64                               int
float32, float64      float32, float64                           float
decimal(p, s)         decimal128(p, s)                           Decimal
date                  date32                                     date
time                  time64(us)                                 time
timestamp             timestamp(us), with zone: UTC              datetime, with zone: aware
text, bytes           string, binary                             str, bytes
uuid                  extension arrow.uuid                       UUID
json                  extension arrow.json                       whatever json.loads gives
====================  =========================================  ============================
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

from aurora_engine.exceptions import MissingExtra
from aurora_engine.verifier.schema import Column, Schema
from aurora_engine.verifier.types import Cell, DataType, float_of, signed

_EPOCH: Final = dt.datetime(1970, 1, 1)
_EPOCH_UTC: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def value_of(kind: DataType) -> Callable[[Cell], Any]:
    """What makes a Python value of a cell that is not null."""
    width = kind.width or 0

    def number(cell: Any) -> int:
        return signed(cell, width)

    def micros(cell: Any) -> dt.timedelta:
        return dt.timedelta(microseconds=number(cell))

    made: dict[str, Callable[[Any], Any]] = {
        "bool": bool,
        "float32": lambda cell: float_of(cell, width),
        "float64": lambda cell: float_of(cell, width),
        "decimal": lambda cell: Decimal(number(cell)).scaleb(-kind.scale, _context()),
        "date": lambda cell: (_EPOCH + dt.timedelta(days=number(cell))).date(),
        "time": lambda cell: (_EPOCH + micros(cell)).time(),
        "timestamp": lambda cell: (_EPOCH_UTC if kind.zoned else _EPOCH) + micros(cell),
        "text": bytes.decode,
        "bytes": bytes,
        "uuid": lambda cell: uuid.UUID(bytes=cell.to_bytes(16, "little")),
        "json": json.loads,
    }
    return made.get(kind.name, number)


def _context() -> Any:
    import decimal  # noqa: PLC0415 - the context of 38 digits, and nothing of the caller's

    return decimal.Context(prec=40)


def rows_of(schema: Schema, batches: Iterable[Sequence[Sequence[Cell]]]) -> list[dict[str, Any]]:
    """Rows as dictionaries."""
    names = [column.name for column in schema.columns]
    makers = [value_of(column.type) for column in schema.columns]
    rows = []
    for batch in batches:
        columns = [
            [None if cell is None else make(cell) for cell in cells] for cells, make in zip(batch, makers, strict=True)
        ]
        rows += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows


def table_of(schema: Schema, batches: Iterable[Sequence[Sequence[Cell]]]) -> Any:
    """Rows as a ``pyarrow.Table``."""
    pa = _pyarrow()
    kinds = [_arrow_type(pa, column.type) for column in schema.columns]
    fields = [pa.field(column.name, kind, column.nullable) for column, kind in zip(schema.columns, kinds, strict=True)]
    arrow_schema = pa.schema(fields)
    made = [
        pa.record_batch(
            [_array(pa, column, kind, cells) for column, kind, cells in zip(schema.columns, kinds, batch, strict=True)],
            schema=arrow_schema,
        )
        for batch in batches
    ]
    return pa.Table.from_batches(made, arrow_schema)


def _pyarrow() -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional library
    except ImportError as error:
        expected = "pyarrow: pip install 'aurora-engine[files]'"
        raise MissingExtra(f"expected {expected}, got none", expected=expected) from error
    return pa


def _arrow_type(pa: Any, kind: DataType) -> Any:
    plain = {"bool": "bool_", "text": "string", "bytes": "binary", "date": "date32", "uuid": "uuid"}
    if kind.name == "decimal":
        return pa.decimal128(kind.precision, kind.scale)
    if kind.name == "time":
        return pa.time64("us")
    if kind.name == "timestamp":
        return pa.timestamp("us", tz="UTC" if kind.zoned else None)
    if kind.name == "json":
        return pa.json_(pa.string())
    return getattr(pa, plain.get(kind.name, kind.name))()


def _array(pa: Any, column: Column, kind: Any, cells: Sequence[Cell]) -> Any:
    """An array from the bytes of its values: what no Python value holds is kept, as a date after the year 9999."""
    width, count = column.type.width, len(cells)
    storage = getattr(kind, "storage_type", kind)
    if width is None:
        array = pa.array(cells, pa.binary()).cast(storage)
    elif column.type.name == "bool":
        array = pa.array([None if cell is None else bool(cell) for cell in cells], storage)
    else:
        nulls = [cell is not None for cell in cells]
        packed = b"".join((cell if isinstance(cell, int) else 0).to_bytes(width, "little") for cell in cells)
        validity = None if all(nulls) else pa.array(nulls).buffers()[1]
        array = pa.Array.from_buffers(storage, count, [validity, pa.py_buffer(packed)])
    return pa.ExtensionArray.from_storage(kind, array) if storage is not kind else array
