"""What is wrong with an object: where, what should be there, what is there.

Readers of formats raise :class:`Damaged` with an offset in the bytes that they were given. Whoever gave the bytes knows
whose they are and where they began, and adds both (:func:`within`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aurora_engine.exceptions import Damaged


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. ``offset`` is in bytes of the object as it is stored, where one place is to blame."""

    object: str
    offset: int | None
    expected: str
    got: str

    def __str__(self) -> str:
        place = "" if self.offset is None else f", byte {self.offset:,}"
        return f"{self.object}{place}: expected {self.expected}, got {self.got}"

    @classmethod
    def of(cls, error: Damaged) -> Problem:
        """The problem that an error tells of."""
        return cls(error.object or "?", error.offset, error.expected, error.got)

    def error(self) -> Damaged:
        """The problem as an error."""
        return damaged(self.expected, self.got, self.offset, self.object)


def damaged(expected: object, got: object, offset: int | None = None, name: str | None = None) -> Damaged:
    """The error of bytes that are not what they should be."""
    problem = Problem(name or "?", offset, str(expected), str(got))
    return Damaged(str(problem), object=name, offset=offset, expected=problem.expected, got=problem.got)


def check(holds: bool, expected: object, got: object, offset: int | None = None) -> None:
    """Raises :class:`Damaged` unless it holds."""
    if not holds:
        raise damaged(expected, got, offset)


@contextmanager
def within(name: str, base: int = 0, *, packed: str | None = None) -> Iterator[None]:
    """Says of damage found inside whose it is, and where that begins in it.

    Args:
        name: The object.
        base: Where in it the bytes begin that are read inside.
        packed: What is read was compressed or encrypted: its offsets are not those of the object, so the damage is said
            to be at ``base``, and this says of what the other offset is.
    """
    try:
        yield
    except Damaged as error:
        if error.object is not None:
            raise
        if packed is None or error.offset is None:
            offset, expected = base + (error.offset or 0), error.expected
        else:
            offset, expected = base, f"{error.expected} at byte {error.offset:,} of {packed}"
        raise damaged(expected, error.got, offset, name) from error
