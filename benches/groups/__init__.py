"""The groups of `make bench`, each a module with `run(context)` that yields rows of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

GROUPS = (
    "open",
    "commit1",
    "commit16",
    "hot_row",
    "commit_async",
    "reads",
    "load",
    "insert_many",
    "mixes",
    "bytes",
    "reopen",
    "rss",
    "az_lost",
    "scan",
    "replica_lag",
    "failover",
    "backtrack",
    "clone",
)


@dataclass(frozen=True)
class Context:
    """What a group may use: an empty folder on the measured disk, and how much to do."""

    folder: Path
    rounds: int
    seconds: float
    updates: int
    volume_gb: float
    scale: float
