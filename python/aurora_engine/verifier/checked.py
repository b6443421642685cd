"""What was checked, object by object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aurora_engine.exceptions import Damaged
from aurora_engine.verifier.damage import Problem

Told = Callable[[int, int, str], object]
"""Told of progress: how much is done, of how much, and of what."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One object: its name, what it is, its bytes as stored, and what is wrong with it."""

    name: str
    kind: str
    bytes: int
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.problems


@dataclass(slots=True)
class Checks:
    """What has been checked so far. ``problems`` are those that belong to no one object that is there."""

    objects: list[Checked] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, name: str, kind: str, size: int, problems: list[Problem]) -> bool:
        """Notes the result of an object; whether it is whole."""
        self.objects.append(Checked(name, kind, size, tuple(problems)))
        return not problems

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Damage inside becomes a problem, and what follows goes on."""
        try:
            yield
        except Damaged as error:
            self.problems.append(Problem.of(error))

    @property
    def all_problems(self) -> list[Problem]:
        """All problems, those of objects first."""
        return [problem for checked in self.objects for problem in checked.problems] + self.problems
