"""The types of columns, and what the bytes of a value mean.

====  =======================================  ================================================  ==========
code  type                                     value in a page, little-endian                    parameter
====  =======================================  ================================================  ==========
1     bool                                     1 byte, 0 or 1                                    0
2-5   int8, int16, int32, int64                1, 2, 4, 8 bytes, two's complement                0
6-7   float32, float64                         IEEE 754                                          0
8     decimal(precision, scale)                16 bytes, the value times ten to the scale        p + 256 s
9     date                                     4 bytes, days since 1970-01-01                    0
10    time                                     8 bytes, microseconds since midnight              0
11    timestamp                                8 bytes, microseconds since 1970-01-01 00:00      1 if zoned
12    text                                     UTF-8                                             0
13    bytes                                    any                                               0
14    uuid                                     16 bytes, in the order in which they are written  0
15    json                                     UTF-8                                             0
====  =======================================  ================================================  ==========

While pages are put together a value is a *cell*: ``None`` for null, an ``int`` for a type of fixed width (its bytes as
one unsigned number), ``bytes`` for a type of varying length, an :class:`Overflow` where these lie in other pages.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from aurora_engine.verifier.damage import check, damaged

DAY_US: Final = 24 * 60 * 60 * 1_000_000
PRECISION_MAX: Final = 38

_NAMES: Final = (
    "?", "bool", "int8", "int16", "int32", "int64", "float32", "float64", "decimal", "date", "time", "timestamp",
    "text", "bytes", "uuid", "json",
)  # fmt: skip
_WIDTHS: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 4, 7: 8, 8: 16, 9: 4, 10: 8, 11: 8, 14: 16}
_CHECKED: Final = frozenset(("bool", "text", "json", "time"))
_SIGNED: Final = frozenset((2, 3, 4, 5, 8, 9, 10, 11))


class Overflow(NamedTuple):
    """Where the bytes of a long value are: the first page of a chain, and how many bytes there are in all."""

    page: int
    length: int

    @classmethod
    def of(cls, data: bytes) -> Overflow:
        """Reads one: page u64, length u64."""
        check(len(data) == 16, "16 bytes of a reference to overflow pages", len(data))
        return cls(*struct.unpack("<QQ", data))


Cell = int | bytes | Overflow | None


@dataclass(frozen=True, slots=True)
class DataType:
    """The type of a column."""

    code: int
    param: int = 0

    @classmethod
    def of(cls, code: int, param: int, offset: int | None = None) -> DataType:
        """The type of a code and its parameter, if there is one."""
        found = cls(code, param)
        check(found.exists(), "a type: codes 1 to 15", f"code {code}, parameter {param}", offset)
        return found

    def exists(self) -> bool:
        """Whether there is such a type."""
        if self.name == "decimal":
            return 1 <= self.precision <= PRECISION_MAX and self.scale <= self.precision
        return 1 <= self.code < len(_NAMES) and self.param <= (1 if self.name == "timestamp" else 0)

    @property
    def name(self) -> str:
        """Its name, without parameters."""
        return _NAMES[self.code] if self.code < len(_NAMES) else "?"

    @property
    def precision(self) -> int:
        """Digits of a decimal."""
        return self.param & 0xFF

    @property
    def scale(self) -> int:
        """Digits of a decimal behind the point."""
        return self.param >> 8

    @property
    def zoned(self) -> bool:
        """Whether a timestamp is an instant."""
        return self.param == 1

    @property
    def width(self) -> int | None:
        """Bytes of a value; ``None`` where they vary."""
        return _WIDTHS.get(self.code)

    @property
    def signed(self) -> bool:
        """Whether the bytes of a value are a signed number."""
        return self.code in _SIGNED

    def __str__(self) -> str:
        if self.name == "decimal":
            return f"decimal({self.precision}, {self.scale})"
        return "timestamp with zone" if self.name == "timestamp" and self.zoned else self.name


def signed(cell: int, width: int) -> int:
    """The signed number whose bytes are those of ``cell``."""
    half = 1 << (8 * width - 1)
    return (cell ^ half) - half


def unsigned(value: int, width: int) -> int:
    """The cell of a signed number."""
    return value & ((1 << 8 * width) - 1)


def float_of(cell: int, width: int) -> float:
    """The float whose bytes are those of ``cell``."""
    value: float = struct.unpack("<f" if width == 4 else "<d", cell.to_bytes(width, "little"))[0]
    return value


def check_cells(cells: Sequence[Cell], kind: DataType, *, nullable: bool) -> None:
    """What the form of cells does not guarantee: null only where there may be one, a bool 0 or 1, texts UTF-8."""
    if kind.name in _CHECKED:
        for cell in cells:
            _check_cell(cell, kind)
    if not nullable and None in cells:
        raise damaged(f"a value of type {kind}", "null")


def _check_cell(cell: Cell, kind: DataType) -> None:
    if cell is None:
        return
    if kind.name == "bool":
        check(cell in (0, 1), "0 or 1 for a bool", cell)
    elif kind.name in ("text", "json") and isinstance(cell, bytes):
        try:
            cell.decode()
        except UnicodeDecodeError as error:
            raise damaged(f"UTF-8 in a {kind.name}", f"byte {cell[error.start]:02x} at {error.start}") from error
    elif kind.name == "time" and isinstance(cell, int):
        check(cell < DAY_US, "a time below 24 hours", f"{cell} microseconds")


def widens(have: DataType, want: DataType) -> bool:
    """Whether every value of one type is one of the other: then a column may change, and its rows stay as they are."""
    integers = ("int8", "int16", "int32", "int64")
    if have.name in integers and want.name in integers:
        return have.code < want.code
    if have.name == want.name == "decimal":
        digits_kept = want.precision - want.scale >= have.precision - have.scale
        return have != want and want.scale >= have.scale and digits_kept
    return (have.name, want.name) == ("float32", "float64")


def widen(cell: Cell, have: DataType, want: DataType) -> Cell:
    """A value of one type as one of a wider type."""
    if not isinstance(cell, int) or have == want:
        return cell
    have_width, want_width = have.width or 0, want.width or 0
    if have.name == "float32":
        return int.from_bytes(struct.pack("<d", float_of(cell, 4)), "little")
    value = signed(cell, have_width)
    if have.name == "decimal":
        value *= 10 ** (want.scale - have.scale)
    return unsigned(value, want_width)
