"""Rebuilding tables at a moment: rows, digest, and whether indexes and what the source recorded agree with them."""

from __future__ import annotations

from collections.abc import Iterable

from aurora_engine.exceptions import UnknownTable
from aurora_engine.verifier.catalogue import Index, Table
from aurora_engine.verifier.checked import Checks, Told
from aurora_engine.verifier.damage import Problem
from aurora_engine.verifier.digest import Digest
from aurora_engine.verifier.report import TableReport
from aurora_engine.verifier.rows import batches
from aurora_engine.verifier.volume import Volume

Recorded = dict[str, tuple[int, str]]
"""Rows and digest of tables, as the source wrote them down."""


class Rebuild:
    """Rebuilds the tables of one moment.

    Args:
        volume: The volume at the moment.
        catalogue: The tables that there were.
        checks: Where problems go.
        of: What the names of problems end with, where it is not the moment that is asked for.
    """

    def __init__(self, volume: Volume, catalogue: dict[str, Table], checks: Checks, of: str = "") -> None:
        self._volume, self._catalogue, self._checks, self._of = volume, catalogue, checks, of

    def all(self, names: Iterable[str] | None, recorded: Recorded, told: Told) -> dict[str, TableReport]:
        """The tables of these names, or all; what the source recorded is compared."""
        wanted = sorted(self._catalogue) if names is None else list(names)
        self._check_names(wanted)
        found = {}
        for done, name in enumerate(wanted):
            told(done, len(wanted), f"table {name}{self._of}")
            if name in self._catalogue:
                with self._checks.noting():
                    found[name] = self._one(self._catalogue[name], recorded.get(name))
        told(len(wanted), len(wanted), "tables")
        if names is None:
            for name in sorted(recorded.keys() - self._catalogue.keys()):
                self._problem(f"table {name}", f"{recorded[name][0]} rows, as the source recorded", "no table")
        return found

    def _check_names(self, wanted: list[str]) -> None:
        for name in wanted:
            if name not in self._catalogue and not self._checks.all_problems:
                there = ", ".join(sorted(self._catalogue)) or "none"
                raise UnknownTable(f"expected a table among {there}, got {name!r}", table=name)

    def _one(self, table: Table, recorded: tuple[int, str] | None) -> TableReport:
        indexes = [index for index in table.indexes if index.ready]
        rows = Digest([column.type for column in table.schema.columns])
        derived = [Digest([column.type for column in index.schema.columns]) for index in indexes]
        for batch in batches(self._volume, table):
            rows.add(batch)
            for index, digest in zip(indexes, derived, strict=True):
                digest.add([batch[column] for column in index.columns])
        for index, digest in zip(indexes, derived, strict=True):
            self._compare_index(table, index, digest)
        if recorded is not None and recorded != (rows.rows, rows.hex):
            expected = f"{recorded[0]} rows, digest {recorded[1]}, as the source recorded"
            self._problem(f"table {table.name}", expected, f"{rows.rows} rows, digest {rows.hex}")
        columns = tuple(str(column) for column in table.schema.columns)
        return TableReport(table.name, rows.rows, rows.hex, columns, tuple(i.name for i in indexes), recorded)

    def _compare_index(self, table: Table, index: Index, expected: Digest) -> None:
        """An index has an entry for each row, and no other."""
        got = Digest([column.type for column in index.schema.columns])
        with self._checks.noting():
            for batch in batches(self._volume, index):
                got.add(batch)
            if (got.rows, got.hex) != (expected.rows, expected.hex):
                wanted = f"the {expected.rows} entries that the rows make, digest {expected.hex}"
                self._problem(f"index {table.name}.{index.name}", wanted, f"{got.rows} entries, digest {got.hex}")

    def _problem(self, name: str, expected: str, got: str) -> None:
        self._checks.problems.append(Problem(f"{name}{self._of}", None, expected, got))
