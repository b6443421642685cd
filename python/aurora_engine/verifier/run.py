"""The verification itself: open what there is, find the moment, rebuild every table, compare with what was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from aurora_engine.exceptions import Damaged, OutsideWindow
from aurora_engine.verifier.backup import Backup, is_backup
from aurora_engine.verifier.catalogue import Table, tables
from aurora_engine.verifier.checked import Checks, Told
from aurora_engine.verifier.commits import Moment
from aurora_engine.verifier.damage import Problem
from aurora_engine.verifier.directory import Directory
from aurora_engine.verifier.objects import Key, open_store
from aurora_engine.verifier.rebuild import Rebuild, Recorded
from aurora_engine.verifier.report import Report, TableReport
from aurora_engine.verifier.volume import Volume


class Source(Protocol):
    """Something that has pages: a backup, or a node."""

    @property
    def recordings(self) -> list[tuple[int | str, Recorded]]:
        """Moments at which the source wrote down rows and digests of its tables, and these."""

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
        self._kind, self._source = self._open(key)

    def _open(self, key: Key) -> tuple[str, Source | None]:
        path = _local(self._url)
        if path is not None and not is_backup(path):
            directory = Directory(path, self._checks, self._told)
            best, behind = directory.best()
            if (path / "identity").is_file():
                return "node", best
            self._notes += [f"tables were rebuilt from node {best.name}", *behind]
            return "cluster", best
        try:
            backup = Backup(open_store(self._url), key, self._checks, self._told)
        except Damaged as error:
            self._checks.problems.append(Problem.of(error))
            return "backup", None
        self._close = backup.close
        self._notes += backup.notes
        return "backup", backup

    def run(self) -> Report:
        """Rebuilds the tables, and reports."""
        moment = volume = None
        catalogue: dict[str, Table] = {}
        found: dict[str, TableReport] = {}
        try:
            if self._source is not None:
                moment = self._source.moment(self._at)
                volume = self._source.volume(moment)
                catalogue = _catalogue(volume)
                found = self._rebuild(self._source, moment, volume, catalogue)
        except Damaged as error:
            self._checks.problems.append(Problem.of(error))
        except OutsideWindow as error:
            # A cluster without a commit has none to read at; with damage, that is the reason.
            if self._at is not None or not self._checks.all_problems:
                raise
            self._notes.append(str(error))
        return Report(
            self._url,
            self._kind,
            moment,
            self._checks.objects,
            found,
            list(dict.fromkeys(self._checks.all_problems)),
            self._notes,
            time.monotonic() - self._started,
            volume,
            catalogue,
            self._close,
        )

    def _rebuild(
        self, source: Source, moment: Moment, volume: Volume, catalogue: dict[str, Table]
    ) -> dict[str, TableReport]:
        """The tables at the moment; and, where nothing else was asked for, those at every moment that is recorded."""
        recorded: Recorded = {}
        others: list[tuple[int | str, Moment, Recorded]] = []
        for at, tables_then in source.recordings:
            try:
                then = source.moment(at)
            except OutsideWindow as error:
                self._notes.append(f"what the source recorded at {at} is not kept any more: {error}")
                continue
            if (then.lsn, then.history) == (moment.lsn, moment.history):
                recorded = tables_then
            elif self._at is None and self._names is None:
                others.append((at, then, tables_then))
        found = Rebuild(volume, catalogue, self._checks).all(self._names, recorded, self._told)
        for at, then, tables_then in others:
            self._prove(source, at, then, tables_then)
        return found

    def _prove(self, source: Source, at: int | str, then: Moment, recorded: Recorded) -> None:
        """Compares rows and digests at an earlier moment with what the source recorded."""
        of = f" at {f'snapshot {at}' if isinstance(at, str) else f'LSN {at}'}"
        before = len(self._checks.all_problems)
        with self._checks.noting():
            volume = source.volume(then)
            Rebuild(volume, _catalogue(volume), self._checks, of).all(None, recorded, self._told)
        if len(self._checks.all_problems) == before:
            count = f"{len(recorded)} table{'s' if len(recorded) != 1 else ''}"
            self._notes.append(f"{count}{of}: rows and digests are as the source recorded")


def _catalogue(volume: Volume) -> dict[str, Table]:
    return {table.name: table for table in tables(volume)}


def _local(url: str) -> Path | None:
    """The path of a local URL; ``None`` for any other."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return None if "://" in url else Path(url)
