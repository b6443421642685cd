"""Rows and digest of a table: what two clusters, or a cluster and a reader of its backup, compare.

The digest does not depend on the order of rows or on where they lie: the sum modulo 2^128 of the first 16 bytes of
SHA-256 of each row. How a row is written is in ``docs/design/backup.md``.
"""

from __future__ import annotations

import datetime as dt
import json
import struct
from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from aurora_engine.backup import TableDigest
from aurora_engine.rows import astuple

if TYPE_CHECKING:
    from aurora_engine import _engine
    from aurora_engine.cluster import Cluster

_EPOCH = dt.datetime(1970, 1, 1)
_EPOCH_UTC = _EPOCH.replace(tzinfo=dt.UTC)
_DAY = dt.date(1970, 1, 1)
_US = dt.timedelta(microseconds=1)


def _length(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def _time_us(value: dt.time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _decimal(scale: int) -> Callable[[Decimal], bytes]:
    def write(value: Decimal) -> bytes:
        sign, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            raise TypeError(f"expected a number, got {value}")
        unscaled: int = int("".join(map(str, digits))) * 10 ** (exponent + scale)
        return (-unscaled if sign else unscaled).to_bytes(16, "little", signed=True)

    return write


def _json(value: Any) -> bytes:
    return _length(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def _writer(kind: str) -> Callable[[Any], bytes]:
    """How a value of a stored type is written."""
    if kind.startswith("decimal"):
        return _decimal(int(kind.rstrip(")").rsplit(",", 1)[1]))
    if kind.startswith("int"):
        return struct.Struct("<q").pack
    return _WRITERS[kind]


_I64 = struct.Struct("<q").pack
_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "bool": struct.Struct("<?").pack,
    "float32": struct.Struct("<f").pack,
    "float64": struct.Struct("<d").pack,
    "date": lambda value: struct.pack("<i", (value - _DAY).days),
    "time": lambda value: _I64(_time_us(value)),
    "timestamp": lambda value: _I64((value - _EPOCH) // _US),
    "timestamp with zone": lambda value: _I64((value - _EPOCH_UTC) // _US),
    "text": lambda value: _length(value.encode()),
    "bytes": _length,
    "uuid": lambda value: value.bytes,
    "json": _json,
}


def digest_of(table: _engine.Table[Any], view: _engine.View) -> TableDigest:
    """Rows and digest of a table as a view sees it."""
    writers = [_writer(kind) for _, kind, _ in table.schema.columns]
    total = rows = 0
    for row in view.range(table):
        values = zip(writers, astuple(row), strict=True)
        content = b"".join(b"\0" if value is None else b"\1" + write(value) for write, value in values)
        total += int.from_bytes(sha256(content).digest()[:16], "little")
        rows += 1
    return TableDigest(table.name, rows, f"{total % 2**128:032x}")


def digests(cluster: Cluster, at: int | None = None) -> tuple[TableDigest, ...]:
    """Rows and digest of every table, now or at an LSN, by name."""
    with cluster.view() if at is None else cluster.view(at=at) as view:
        return tuple(digest_of(cluster.table(name), view) for name in sorted(cluster.tables()))
