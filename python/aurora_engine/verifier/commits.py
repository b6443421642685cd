"""Commits and moments: which LSN a time is, and what counted then.

A time means the History that was active then (its *era*), and in that the newest commit at or before the time. Times
ascend with LSNs within a History.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aurora_engine.exceptions import InvalidOption, OutsideWindow, UnknownSnapshot
from aurora_engine.verifier.cursor import U64_MAX
from aurora_engine.verifier.history import History
from aurora_engine.verifier.layer import Layer
from aurora_engine.verifier.manifest import Era, Snapshot
from aurora_engine.verifier.records import Commit, Record

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FOREVER_US: Final = (1 << 63) - 1

Newest = Callable[[History, int, int], Commit | None]
"""The newest commit of a History up to an LSN and up to a time, of those that are known."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A commit to read at. The History ends with it."""

    lsn: int
    time_us: int | None
    history: History

    @property
    def time(self) -> dt.datetime | None:
        """When the commit was."""
        return None if self.time_us is None else _EPOCH + dt.timedelta(microseconds=self.time_us)


def newest_commit(
    layers: Iterable[Layer], others: Iterable[Commit | None], history: History, upto: int, upto_us: int
) -> Commit | None:
    """The newest commit of a History, of those in the layers and the others."""

    def wanted(commit: Commit) -> bool:
        in_time = commit.lsn <= upto and commit.time_us <= upto_us
        return in_time and history.contains(commit.origin, commit.lsn)

    newest = max((commit for commit in others if commit and wanted(commit)), default=None)
    for layer in layers:
        for block in reversed(layer.meta.commits):
            if block.last_lsn > _lsn(newest) and block.first_lsn <= upto and block.first_us <= upto_us:
                newest = max(
                    (newest, *filter(wanted, layer.commits(block))), key=lambda commit: commit.lsn if commit else 0
                )
    return newest


def _lsn(commit: Commit | None) -> int:
    return commit.lsn if commit else 0


def commits_of(records: Iterable[Record]) -> list[Commit]:
    """The commits that records end."""
    return [Commit(record.lsn, record.origin, record.time_us) for record in records if record.time_us is not None]


def moment(at: Any, eras: Sequence[Era], snapshots: Sequence[Snapshot], newest: Newest, upto: int) -> Moment:
    """The moment that ``at`` means: ``None`` for the latest, an LSN, an aware time, a commit, a snapshot or its name.

    Args:
        at: What was asked for.
        eras: Which History was active when, oldest first.
        snapshots: What is kept by name.
        newest: Finds commits.
        upto: The latest LSN that can be read.
    """
    if at is None:
        present = eras[-1].history
        return _at(present, newest(present, upto, _FOREVER_US), "the latest commit")
    if isinstance(at, dt.datetime):
        return _at_time(at, eras, newest, upto)
    if isinstance(at, str):
        for snapshot in snapshots:
            if snapshot.name == at:
                return _at(snapshot.history, newest(snapshot.history, snapshot.lsn, _FOREVER_US), f"snapshot {at!r}")
        known = [snapshot.name for snapshot in snapshots]
        raise UnknownSnapshot(f"expected the name of a snapshot among {known}, got {at!r}", name=at)
    lsn = at if isinstance(at, int) else getattr(at, "lsn", None)
    if not isinstance(lsn, int) or isinstance(at, bool) or not 0 < lsn < U64_MAX:
        expected = "an LSN, an aware datetime, a commit, a snapshot or its name"
        raise InvalidOption(f"option at: expected {expected}, got {at!r}", option="at", expected=expected, got=at)
    for era in reversed(eras):
        if era.history.floor(lsn) == lsn and lsn <= upto:
            return _at(era.history, newest(era.history, lsn, _FOREVER_US), f"LSN {lsn}")
    raise _outside(f"LSN {lsn}", f"an LSN of {' or '.join(str(era.history) for era in eras)}, at most {upto}")


def _at_time(at: dt.datetime, eras: Sequence[Era], newest: Newest, upto: int) -> Moment:
    if at.utcoffset() is None:
        expected = "an aware datetime (with tzinfo)"
        raise InvalidOption(f"option at: expected {expected}, got {at!r}", option="at", expected=expected, got=at)
    time_us = (at - _EPOCH) // dt.timedelta(microseconds=1)
    era = next((era for era in reversed(eras) if era.since_us <= time_us), eras[0])
    return _at(era.history, newest(era.history, upto, time_us), str(at))


def _at(history: History, commit: Commit | None, what: str) -> Moment:
    if commit is None:
        raise _outside(what, "a moment at or after the first commit that is there")
    return Moment(commit.lsn, commit.time_us, history.clip(commit.lsn))


def _outside(what: str, expected: str) -> OutsideWindow:
    return OutsideWindow(f"{what}: expected {expected}", what=what, expected=expected, got=what)
