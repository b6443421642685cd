"""The verification itself: open what there is, find the moment, rebuild every table, compare with what was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from aurora_engine.exceptions import Damaged, OutsideWindow, UnknownTable
from aurora_engine.verifier.backup import Backup, is_backup
from aurora_engine.verifier.catalogue import Index, Table, tables
from aurora_engine.verifier.checked import Checks, Told
from aurora_engine.verifier.commits import Moment
from aurora_engine.verifier.damage import Problem
from aurora_engine.verifier.digest import Digest
from aurora_engine.verifier.directory import Directory
from aurora_engine.verifier.objects import Key, open_store
from aurora_engine.verifier.report import Report, TableReport
from aurora_engine.verifier.rows import batches
from aurora_engine.verifier.volume import Volume

Recorded = dict[str, tuple[int, str]]


class Source(Protocol):
    """Something that has pages: a backup, or a node."""

    def moment(self, at: Any) -> Moment:
        """The moment that ``at`` means."""

    def volume(self, found: Moment) -> Volume:
        """The volume at it."""


class Verification:
    """One verification, step by step.

    Args:
        url: What is verified.
        key: The key of an encrypted backup.
        at: The moment at which tables are rebuilt.
        names: The tables to rebuild; all where it is ``None``.
        told: Told of progress.
    """

    def __init__(self, url: str, key: Key, at: Any, names: Iterable[str] | None, told: Told) -> None:
        self._started = time.monotonic()
        self._url, self._at, self._told = url, at, told
        self._names = None if names is None else list(names)
        self._checks = Checks()
        self._notes: list[str] = []
        self._close: Callable[[], object] = lambda: None
        self._kind, self._source, self._recorded = self._open(key)

    def _open(self, key: Key) -> tuple[str, Source | None, Callable[[int], Recorded]]:
        path = _local(self._url)
        if path is not None and not is_backup(path):
            directory = Directory(path, self._checks, self._told)
            kind = "node" if (path / "identity").is_file() else "cluster"
            best = directory.best()
            if kind == "cluster":
                self._notes.append(f"tables were rebuilt from node {best.name}")
            return kind, best, lambda _lsn: {}
        try:
            backup = Backup(open_store(self._url), key, self._checks, self._told)
        except Damaged as error:
            self._checks.problems.append(Problem.of(error))
            return "backup", None, lambda _lsn: {}
        self._close = backup.close
        self._notes += backup.notes
        return "backup", backup, backup.recorded

    def run(self) -> Report:
        """Rebuilds the tables, and reports."""
        moment = volume = None
        catalogue: dict[str, Table] = {}
        found: dict[str, TableReport] = {}
        try:
            if self._source is not None:
                moment = self._source.moment(self._at)
                volume = self._source.volume(moment)
                catalogue = {table.name: table for table in tables(volume)}
        except Damaged as error:
            self._checks.problems.append(Problem.of(error))
        except OutsideWindow as error:
            # A cluster without a commit has none to read at; with damage, that is the reason.
            if self._at is not None or not self._checks.all_problems:
                raise
            self._notes.append(str(error))
        if volume is not None and moment is not None:
            found = self._rebuild(volume, catalogue, self._recorded(moment.lsn))
        problems = list(dict.fromkeys(self._checks.all_problems))
        seconds = time.monotonic() - self._started
        return Report(
            self._url,
            self._kind,
            moment,
            self._checks.objects,
            found,
            problems,
            self._notes,
            seconds,
            volume,
            catalogue,
            self._close,
        )

    def _rebuild(self, volume: Volume, catalogue: dict[str, Table], recorded: Recorded) -> dict[str, TableReport]:
        names = sorted(catalogue) if self._names is None else self._names
        for name in names:
            if name not in catalogue and not self._checks.all_problems:
                there = ", ".join(sorted(catalogue)) or "none"
                raise UnknownTable(f"expected a table among {there}, got {name!r}", table=name)
        found = {}
        for done, name in enumerate(names):
            self._told(done, len(names), f"table {name}")
            if name in catalogue:
                with self._checks.noting():
                    found[name] = self._rebuild_one(volume, catalogue[name], recorded.get(name))
        self._told(len(names), len(names), "tables")
        if self._names is None:
            for name in sorted(recorded.keys() - catalogue.keys()):
                problem = Problem(
                    f"table {name}", None, f"{recorded[name][0]} rows, as the source recorded", "no table"
                )
                self._checks.problems.append(problem)
        return found

    def _rebuild_one(self, volume: Volume, table: Table, recorded: tuple[int, str] | None) -> TableReport:
        indexes = [index for index in table.indexes if index.ready]
        rows = Digest([column.type for column in table.schema.columns])
        derived = [Digest([column.type for column in index.schema.columns]) for index in indexes]
        for batch in batches(volume, table):
            rows.add(batch)
            for index, digest in zip(indexes, derived, strict=True):
                digest.add([batch[column] for column in index.columns])
        for index, digest in zip(indexes, derived, strict=True):
            self._compare_index(volume, table, index, digest)
        if recorded is not None and recorded != (rows.rows, rows.hex):
            expected = f"{recorded[0]} rows, digest {recorded[1]}, as the source recorded"
            got = f"{rows.rows} rows, digest {rows.hex}"
            self._checks.problems.append(Problem(f"table {table.name}", None, expected, got))
        columns = tuple(str(column) for column in table.schema.columns)
        return TableReport(table.name, rows.rows, rows.hex, columns, tuple(i.name for i in indexes), recorded)

    def _compare_index(self, volume: Volume, table: Table, index: Index, expected: Digest) -> None:
        """An index has an entry for each row, and no other."""
        name = f"index {table.name}.{index.name}"
        got = Digest([column.type for column in index.schema.columns])
        with self._checks.noting():
            for batch in batches(volume, index):
                got.add(batch)
            if (got.rows, got.hex) != (expected.rows, expected.hex):
                wanted = f"the {expected.rows} entries that the rows make, digest {expected.hex}"
                self._checks.problems.append(Problem(name, None, wanted, f"{got.rows} entries, digest {got.hex}"))


def _local(url: str) -> Path | None:
    """The path of a local URL; ``None`` for any other."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return None if "://" in url else Path(url)
