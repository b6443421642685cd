"""A new cluster from a backup, and what proves that it is what was backed up."""

from __future__ import annotations

import os
from dataclasses import dataclass

from aurora_engine.backup import (
    BYTES_PER_S,
    RETENTION_DAYS,
    Key,
    Moment,
    RestorePlan,
    TableDigest,
    key_of,
    place_of,
    plan_of,
)
from aurora_engine.cluster import MIB, Cluster
from aurora_engine.digest import digests
from aurora_engine.exceptions import InvalidOption
from aurora_engine.history import plain


@dataclass(frozen=True, slots=True)
class TableProof:
    """A table as the source had counted it, and as it was restored."""

    name: str
    """Its name."""
    recorded: TableDigest | None
    """What the source had; ``None`` where it had no such table."""
    restored: TableDigest | None
    """What there is now; ``None`` where it is not there."""

    @property
    def holds(self) -> bool:
        """Whether they are the same."""
        return self.recorded == self.restored


@dataclass(frozen=True, slots=True)
class RestoreProof:
    """What a restored cluster is made from."""

    plan: RestorePlan
    """The commit, the range of log that it covers, and every object with its checksum: all were checked."""
    tables: tuple[TableProof, ...] | None
    """The tables, compared; ``None`` where the source had not counted them at this commit."""

    @property
    def holds(self) -> bool | None:
        """Whether every table is what the source had counted; ``None`` where it had not counted."""
        return None if self.tables is None else all(table.holds for table in self.tables)


class RestoredCluster(Cluster):
    """A cluster that began as a backup says that another one was."""

    _plan: RestorePlan
    _proof: RestoreProof | None = None

    @property
    def proof(self) -> RestoreProof:
        """What it is made from, and whether its tables are what the source had counted there.

        The tables are those of the moment that was restored. The first call reads every row where the source had
        counted them.
        """
        if self._proof is None:
            self._proof = RestoreProof(self._plan, _compare(self, self._plan))
        return self._proof


def restore(
    url: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    memory: bool = False,
    at: Moment | None = None,
    key: Key | None = None,
    cache_bytes: int = 256 * MIB,
    backup: str | os.PathLike[str] | None = None,
    backup_key: Key | None = None,
) -> RestoredCluster:
    """A new cluster as a backed-up one was at a moment. The source need not live.

    Args:
        url: Where the backup lies: a directory, or ``s3://bucket/prefix``.
        path: A new directory for the cluster.
        memory: In memory instead.
        at: A commit, an LSN, an aware time, a snapshot or its name; the latest commit by default.
        key: The key of an encrypted backup, or a function that gives it.
        cache_bytes: Budget of the buffer pool.
        backup: Where the new cluster is backed up; never where it came from.
        backup_key: The key of that.

    Raises:
        BackupFailed: there is no backup, or an object of it is missing or damaged: it is named.
        OutsideWindow, UnknownSnapshot: there is no such moment. NotACluster: the directory holds something.
    """
    if memory == (path is not None):
        got = "both" if memory else "neither"
        raise InvalidOption(
            f"restore: expected a path or memory=True, got {got}",
            option="path", expected="a path or memory=True", got=got,
        )  # fmt: skip
    place = os.fsdecode(url)
    cluster = RestoredCluster(
        None if path is None else os.fsdecode(path),
        cache_bytes=cache_bytes,
        restore_from=(place, key_of(key)),
        restore_at=None if at is None else plain(at),
        backup=place_of(backup, RETENTION_DAYS, backup_key, BYTES_PER_S),
    )
    raw = cluster._restored()  # noqa: SLF001 - made for this
    if raw is None:
        raise AssertionError("a restored cluster knows what it was restored from")
    cluster._plan = plan_of(place, raw)  # noqa: SLF001 - made for this
    return cluster


def _compare(cluster: Cluster, plan: RestorePlan) -> tuple[TableProof, ...] | None:
    if plan.tables is None:
        return None
    recorded = {table.name: table for table in plan.tables}
    restored = {table.name: table for table in digests(cluster, plan.lsn)}
    return tuple(TableProof(name, recorded.get(name), restored.get(name)) for name in sorted({*recorded, *restored}))
