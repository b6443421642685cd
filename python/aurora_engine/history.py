"""Moments of a cluster: what going back to one did, what is kept by name, how far back there is."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from aurora_engine import _engine


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment that is kept under a name until it is deleted."""

    name: str
    """Its name."""
    lsn: int
    """The commit that it ends with."""
    time: dt.datetime
    """The time of that commit."""
    created: dt.datetime
    """When the snapshot was made."""


@dataclass(frozen=True, slots=True)
class Backtrack:
    """What a backtrack did, in the words of Aurora."""

    backtrack_identifier: str
    """Names this backtrack of this cluster."""
    backtrack_to: dt.datetime
    """The time of the commit that is the newest now."""
    backtracked_from: dt.datetime
    """The time of the commit that was the newest before: ``backtrack(to=...)`` it to go forward again."""
    backtrack_request_creation_time: dt.datetime
    """When it was asked for."""
    status: Literal["applying", "completed", "failed", "pending"]
    """How far it is: when ``Cluster.backtrack`` returns, ``completed``."""
    lsn: int
    """The commit that is the newest now."""
    from_lsn: int
    """The commit that was the newest before."""
    seconds: float
    """How long it took, the commits that were in flight included."""


@dataclass(frozen=True, slots=True)
class BacktrackWindow:
    """How far back a cluster can go."""

    target: dt.timedelta
    """How far it should reach."""
    allowed: dt.timedelta
    """How far it will reach with the room that there is on the disk: less than the target under disk pressure only."""
    earliest: dt.datetime
    """The earliest moment that there is now."""
    abandoned: int
    """How many histories were left by backtracks and can be gone back to."""

    @property
    def actual(self) -> dt.timedelta:
        """How far it reaches now."""
        return dt.datetime.now(dt.UTC) - self.earliest


def plain(moment: _engine.Commit | int | dt.datetime | Snapshot | str) -> _engine.Commit | int | dt.datetime | str:
    """A moment as the compiled part takes it."""
    return moment.name if isinstance(moment, Snapshot) else moment


def backtrack_of(cluster: str, raw: dict[str, Any]) -> Backtrack:
    """The result of a backtrack that has ended."""
    return Backtrack(
        backtrack_identifier=f"{cluster[:8]}-{raw['epoch']}",
        backtrack_to=raw["to"],
        backtracked_from=raw["from"],
        backtrack_request_creation_time=raw["requested"],
        status="completed",
        lsn=raw["to_lsn"],
        from_lsn=raw["from_lsn"],
        seconds=raw["took_s"],
    )


def window_of(raw: dict[str, Any]) -> BacktrackWindow:
    """The window that the engine reports."""
    return BacktrackWindow(
        target=dt.timedelta(seconds=raw["target_s"]),
        allowed=dt.timedelta(seconds=raw["allowed_s"]),
        earliest=raw["earliest"],
        abandoned=raw["abandoned"],
    )
