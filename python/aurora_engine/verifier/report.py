"""What a verification found: every object with its check, every table with its rows and digest, every problem."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aurora_engine.exceptions import UnknownTable
from aurora_engine.verifier import arrow
from aurora_engine.verifier.catalogue import Table
from aurora_engine.verifier.checked import Checked
from aurora_engine.verifier.commits import Moment
from aurora_engine.verifier.damage import Problem
from aurora_engine.verifier.rows import batches
from aurora_engine.verifier.volume import Volume


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table as it was rebuilt."""

    name: str
    rows: int
    """How many rows it has."""
    digest: str
    """The digest of its rows, whatever their order: 32 hex digits."""
    columns: tuple[str, ...]
    """Its columns: name, type, whether null is allowed."""
    indexes: tuple[str, ...]
    """Indexes whose entries were compared with the rows."""
    recorded: tuple[int, str] | None
    """Rows and digest that the source wrote down at this LSN, where it did."""


@dataclass(frozen=True)
class Report:
    """What :func:`aurora_engine.verify` found.

    ``report.ok`` says whether all is well; ``print(report)`` shows everything at a glance; ``report.table(name)`` gives
    the rows of a table, rebuilt from the bytes alone.
    """

    url: str
    """What was verified."""
    kind: str
    """``backup``, ``cluster`` or ``node``."""
    moment: Moment | None
    """The commit at which tables were rebuilt; ``None`` where damage left none."""
    objects: list[Checked]
    """Every object, with its check."""
    tables: dict[str, TableReport]
    """The tables that were rebuilt, by name."""
    problems: list[Problem]
    """Everything that is wrong."""
    notes: list[str]
    """What is worth knowing and is not wrong."""
    seconds: float
    """How long it took."""
    _volume: Volume | None = field(repr=False)
    _catalogue: dict[str, Table] = field(repr=False)
    _close: Callable[[], object] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def lsn(self) -> int | None:
        """The LSN at which tables were rebuilt."""
        return self.moment.lsn if self.moment else None

    @property
    def time(self) -> dt.datetime | None:
        """The time of that commit."""
        return self.moment.time if self.moment else None

    @property
    def bytes(self) -> int:
        """Bytes that were read, as they are stored."""
        return sum(checked.bytes for checked in self.objects)

    def raise_for_problems(self) -> None:
        """Raises the first problem as :class:`aurora_engine.exceptions.Damaged`, if there is one."""
        for problem in self.problems:
            raise problem.error()

    def table(self, name: str) -> Any:
        """A table's rows as a ``pyarrow.Table``, in key order.

        Raises:
            UnknownTable: there is none of this name. Damaged: what it is made of is not whole.
        """
        volume, table = self._find(name)
        return arrow.table_of(table.schema, batches(volume, table))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A table's rows as dictionaries, in key order; needs no Arrow.

        Raises:
            UnknownTable: there is none of this name. Damaged: what it is made of is not whole.
        """
        volume, table = self._find(name)
        return arrow.rows_of(table.schema, batches(volume, table))

    def close(self) -> None:
        """Removes what was unpacked to be read. Tables cannot be asked for afterwards."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self, name: str) -> tuple[Volume, Table]:
        table = self._catalogue.get(name)
        if table is None or self._volume is None:
            names = ", ".join(sorted(self._catalogue)) or "none"
            raise UnknownTable(f"expected a table among {names}, got {name!r}", table=name)
        return self._volume, table

    def __str__(self) -> str:
        lines = [f"{self.kind} {self.url}: {self._verdict()}", *self._objects()]
        if self.moment is not None:
            time = f", {self.time:%Y-%m-%d %H:%M:%S.%f} UTC" if self.time else ""
            lines += [f"  at LSN {self.moment.lsn:,}{time}", f"  history {self.moment.history}"]
        lines += self._tables()
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  problem: {problem}" for problem in self.problems]
        return "\n".join(lines)

    __repr__ = __str__

    def _verdict(self) -> str:
        count = len(self.problems)
        return "everything is as it was written" if not count else f"{count} problem{'s' if count > 1 else ''}"

    def _objects(self) -> list[str]:
        kinds: dict[str, list[Checked]] = {}
        for checked in self.objects:
            kinds.setdefault(checked.kind, []).append(checked)
        lines = []
        for kind, some in sorted(kinds.items()):
            damaged = sum(not checked.ok for checked in some)
            size = sum(checked.bytes for checked in some)
            state = "all whole" if not damaged else f"{damaged} damaged"
            lines.append(f"  {kind:<16} {len(some):>7,}   {size:>15,} bytes   {state}")
        return lines

    def _tables(self) -> list[str]:
        width = max((len(name) for name in self.tables), default=0)
        lines = []
        for name, table in self.tables.items():
            proof = "" if table.recorded is None else ", as the source recorded"
            if table.recorded not in (None, (table.rows, table.digest)):
                proof = ", not what the source recorded"
            lines.append(f"  table {name:<{width}} {table.rows:>12,} rows   digest {table.digest}{proof}")
        return lines
