"""A new cluster from a backup, and what proves that it is what was backed up."""

from __future__ import annotations

import os
from dataclasses import dataclass

from aurora_engine.backup import Key, Moment, RestorePlan, key_of, place_of, plan_of
from aurora_engine.cluster import MIB, Cluster
from aurora_engine.exceptions import InvalidOption
from aurora_engine.history import plain


@dataclass(frozen=True, slots=True)
class RestoreProof:
    """What a restored cluster is made from."""

    plan: RestorePlan
    """The commit, the range of log that it covers, and every object with its checksum: all were checked."""


class RestoredCluster(Cluster):
    """A cluster that began as a backup says that another one was."""

    _proof: RestoreProof

    @property
    def proof(self) -> RestoreProof:
        """What it is made from."""
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
        backup=place_of(backup, 7, backup_key, 64 * MIB),
    )
    raw = cluster._restored()  # noqa: SLF001 - made for this
    if raw is None:
        raise AssertionError("a restored cluster knows what it was restored from")
    cluster._proof = RestoreProof(plan_of(place, raw))  # noqa: SLF001 - made for this
    return cluster
