"""What a volume regards as having happened: intervals of LSNs, each of one origin.

A record counts if its (origin, LSN) lies in an interval. Crash recovery, backtrack, clone and restore all do the same:
they keep the History up to an LSN, and go on above every LSN that can have been given out.

::

    a new volume                          a[1..)
    after a crash at 104                  a[1..104] a[205..)          105..204 may have been given out: never again
    backtrack to 600                      a[1..104] a[205..600] a[1001..)
    a clone of it at 550, as volume b     a[1..104] a[205..550] b[651..)

    bytes   count | per interval: origin, first - end of the interval before, length (0 while it is open)     varints
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aurora_engine.verifier.cursor import U64_MAX, Cursor
from aurora_engine.verifier.damage import check


@dataclass(frozen=True, slots=True)
class Interval:
    """LSNs ``first`` to ``last`` of one origin; ``last`` is 2^64 - 1 while it is open."""

    origin: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class History:
    """Intervals, ascending and without overlap."""

    intervals: tuple[Interval, ...]

    @classmethod
    def of(cls, intervals: Sequence[Interval]) -> History:
        """Checks that they ascend."""
        above = 0
        for interval in intervals:
            check(above < interval.first <= interval.last, f"an interval above {above}", interval)
            above = interval.last
        return cls(tuple(intervals))

    @classmethod
    def decode(cls, data: bytes) -> History:
        """Reads the packed form."""
        cursor, above, intervals = Cursor(data, "a History"), 0, []
        for _ in range(cursor.varint()):
            origin, first, length = cursor.varint(), above + cursor.varint(), cursor.varint()
            above = first + length - 1 if length else U64_MAX
            intervals.append(Interval(origin, first, above))
        cursor.end()
        return cls.of(intervals)

    @classmethod
    def from_json(cls, value: Any) -> History:
        """Reads ``[[origin, first, last or null], …]``."""
        rows = value if isinstance(value, list) else [value]
        for row in rows:
            known = isinstance(row, list) and len(row) == 3 and all(isinstance(n, int) for n in row[:2])
            check(known and isinstance(row[2], int | None), "[origin, first LSN, last LSN]", row)
        return cls.of([Interval(origin, first, U64_MAX if last is None else last) for origin, first, last in rows])

    def contains(self, origin: int, lsn: int) -> bool:
        """Whether a record counts."""
        return any(i.first <= lsn <= i.last and i.origin == origin for i in self.intervals)

    def clip(self, upto: int) -> History:
        """The History up to and with an LSN."""
        kept = (i for i in self.intervals if i.first <= upto)
        return History(tuple(Interval(i.origin, i.first, min(i.last, upto)) for i in kept))

    def floor(self, lsn: int) -> int:
        """The highest LSN of the History that is at most this one; 0 if there is none."""
        return max((min(i.last, lsn) for i in self.intervals if i.first <= lsn), default=0)

    def next_after(self, lsn: int) -> int | None:
        """The lowest LSN of the History above this one."""
        return min((max(i.first, lsn + 1) for i in self.intervals if i.last > lsn), default=None)

    @property
    def end(self) -> int:
        """Its last LSN; 2^64 - 1 while it is open."""
        return self.intervals[-1].last if self.intervals else 0

    def includes(self, other: History) -> bool:
        """Whether every record of another History counts here too."""
        return all(
            any(i.origin == o.origin and i.first <= o.first and o.last <= i.last for i in self.intervals)
            for o in other.intervals
        )

    def __str__(self) -> str:
        ends = (f"{i.last}]" if i.last != U64_MAX else ")" for i in self.intervals)
        return " ".join(f"{i.origin:x}[{i.first}..{end}" for i, end in zip(self.intervals, ends, strict=True))
