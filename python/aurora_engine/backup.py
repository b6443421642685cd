"""Backups in an object store: where they go, how they do, what they give back.

The format of a backup is in ``docs/design/backup.md``.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aurora_engine import _engine
from aurora_engine.exceptions import InvalidOption
from aurora_engine.history import Snapshot, plain

if TYPE_CHECKING:
    from aurora_engine.cluster import Cluster

Key = bytes | Callable[[], bytes]
"""32 bytes with which a backup is encrypted, or what gives them."""

RETENTION_DAYS = 7
"""Days that a backup reaches back unless it is told otherwise."""
RETENTION_DAYS_MAX = 35
"""The most days that a backup reaches back, as in Aurora."""
BYTES_PER_S = 64 << 20
"""What the upload of a base may use per second."""
KEY_BYTES = 32
_TIMEOUT_S = 60.0

Moment = _engine.Commit | int | dt.datetime | Snapshot | str
"""A commit, an LSN, an aware time, a snapshot or its name."""


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """How the backup of a cluster is doing."""

    url: str
    """Where it lies."""
    state: Literal["starting", "running", "failing", "refused"]
    """``failing`` is tried again; ``refused`` is not: what lies there is not this cluster's, or the key is wrong."""
    last_error: str | None
    """What went wrong last, as long as it does."""
    restorable_lsn: int | None
    """The latest commit that can be restored."""
    latest_restorable_time: dt.datetime | None
    """The time of that commit."""
    earliest_restorable_time: dt.datetime | None
    """The time of the first commit that can be restored."""
    lag_s: float
    """For how long the newest commits have been waiting to be restorable, at most; 0 when all are."""
    uploaded_bytes: int
    """Bytes written into the object store since the cluster was opened."""
    stored_bytes: int
    """Bytes of everything that the backup consists of."""
    manifest: int
    """The number of the newest manifest."""
    retention_days: int
    """Days for which every commit can be restored."""
    base_in_progress: bool
    """Whether a base is on its way."""
    snapshots: list[str]
    """Snapshots that can be restored; others are still being copied."""

    def __str__(self) -> str:
        if self.state in ("failing", "refused"):
            return f"{self.url}: {self.state}: {self.last_error}"
        if self.latest_restorable_time is None:
            return f"{self.url}: {self.state}, the first base is on its way"
        return (
            f"{self.url}: restorable up to {self.latest_restorable_time:%Y-%m-%d %H:%M:%S}, {self.lag_s:.1f} s behind"
        )


@dataclass(frozen=True, slots=True)
class BackupSnapshot:
    """A snapshot in a backup."""

    name: str
    """Its name."""
    lsn: int
    """The commit that it ends with."""
    time: dt.datetime
    """The time of that commit."""
    created: dt.datetime
    """When it was made."""
    state: Literal["available", "copying"]
    """Whether everything that it needs is there."""


@dataclass(frozen=True, slots=True)
class Backups:
    """What a backup can give back."""

    cluster: str
    """The cluster that it is of."""
    earliest_lsn: int | None
    """The first commit that can be restored."""
    earliest: dt.datetime | None
    """Its time."""
    latest_lsn: int | None
    """The latest commit that can be restored."""
    latest: dt.datetime | None
    """Its time."""
    snapshots: tuple[BackupSnapshot, ...]
    """Snapshots, oldest first."""
    stored_bytes: int
    """Bytes of everything that it consists of."""
    manifest: int
    """The number of its newest manifest."""
    retention_days: int
    """Days that it reaches back."""
    encrypted: bool
    """Whether a key is needed."""


@dataclass(frozen=True, slots=True)
class BackupObject:
    """An object that a restore reads."""

    name: str
    """Its name."""
    bytes: int
    """Its bytes in the store."""
    raw_bytes: int
    """Bytes of its content."""
    sha256: str
    """Its checksum, as the manifest has it."""


@dataclass(frozen=True, slots=True)
class TableDigest:
    """The rows of a table at one commit."""

    name: str
    """Its name."""
    rows: int
    """How many there are."""
    digest: str
    """The sum of the digests of its rows, as ``docs/design/backup.md`` says."""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a restore to a moment reads."""

    url: str
    """From where."""
    lsn: int
    """The commit that the moment means."""
    time: dt.datetime
    """Its time."""
    base_lsn: int
    """Up to where the base has everything."""
    base_node: int
    """The node that the base was taken from."""
    log: tuple[tuple[int, int], ...]
    """Stretches of log on top of it, each above its first LSN and up to its second."""
    objects: tuple[BackupObject, ...]
    """Everything that is read."""
    tables: tuple[TableDigest, ...] | None
    """What the source has counted at this commit: of snapshots that were made with ``proof=True``."""

    @property
    def bytes(self) -> int:
        """Bytes that are read."""
        return sum(found.bytes for found in self.objects)

    def __str__(self) -> str:
        return (
            f"restore {self.url} to LSN {self.lsn} of {self.time:%Y-%m-%d %H:%M:%S}: {len(self.objects)} objects,"
            f" {self.bytes:,} bytes; base of node {self.base_node} up to {self.base_lsn}, {len(self.log)} log ranges"
        )


class Backup:
    """The backup of an open cluster: ``db.backup``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def status(self) -> BackupStatus:
        """How it is doing."""
        return status_of(self._cluster._backup_status())  # noqa: SLF001 - made for this

    def wait(self, commit: _engine.Commit | int | None = None, *, timeout: float = _TIMEOUT_S) -> int:
        """Waits until a commit can be restored; without one, every commit that is durable now. Gives its LSN.

        Raises:
            BackupFailed: it takes longer than ``timeout`` seconds, or can never be; with what went wrong last.
        """
        lsn = commit.lsn if isinstance(commit, _engine.Commit) else commit
        return self._cluster._backup_wait(lsn, timeout)  # noqa: SLF001 - made for this

    def base(self, *, timeout: float = _TIMEOUT_S) -> int:
        """Takes a base now, so that later restores read less log, and waits until it is there. Gives its LSN.

        Raises:
            BackupFailed: as ``wait``.
        """
        return self._cluster._backup_base(timeout)  # noqa: SLF001 - made for this

    def __repr__(self) -> str:
        return f"<Backup {self.status()}>"


def status_of(raw: dict[str, Any] | None) -> BackupStatus:
    """The status that the engine reports."""
    if raw is None:
        raise InvalidOption(
            "backup: expected a cluster that was opened with backup=..., got one without",
            option="backup", expected="a cluster that was opened with backup=...", got="one without",
        )  # fmt: skip
    return BackupStatus(**raw)


def place_of(
    url: str | os.PathLike[str] | None, retention_days: int, key: Key | None, bytes_per_s: int
) -> tuple[str, int, bytes | None, int] | None:
    """Where backups go, as the engine takes it."""
    if not isinstance(retention_days, int) or not 1 <= retention_days <= RETENTION_DAYS_MAX:
        expected = f"1 to {RETENTION_DAYS_MAX} days"
        raise InvalidOption(
            f"backup_retention_days: expected {expected}, got {retention_days!r}",
            option="backup_retention_days", expected=expected, got=repr(retention_days),
        )  # fmt: skip
    if url is None:
        return None
    return os.fsdecode(url), retention_days, key_of(key), bytes_per_s


def key_of(key: Key | None) -> bytes | None:
    """The bytes of a key."""
    found = key() if callable(key) else key
    if found is not None and (not isinstance(found, bytes) or len(found) != KEY_BYTES):
        got = f"{len(found)} bytes" if isinstance(found, bytes) else type(found).__name__
        raise InvalidOption(
            f"backup_key: expected {KEY_BYTES} bytes, got {got}",
            option="backup_key", expected=f"{KEY_BYTES} bytes", got=got,
        )  # fmt: skip
    return found


def backups(url: str | os.PathLike[str], *, key: Key | None = None) -> Backups:
    """What a backup can give back: the window in which every commit can be restored, and snapshots.

    Raises:
        BackupFailed: there is none, it cannot be read, or the key is wrong.
    """
    raw = _engine.backups(os.fsdecode(url), key_of(key))
    return Backups(**{**raw, "snapshots": tuple(BackupSnapshot(**found) for found in raw["snapshots"])})


def explain_restore(url: str | os.PathLike[str], at: Moment | None = None, *, key: Key | None = None) -> RestorePlan:
    """What a restore to a moment would read, and from where. Nothing is restored.

    Raises:
        OutsideWindow, UnknownSnapshot: there is no such moment. BackupFailed: the backup cannot be read.
    """
    place = os.fsdecode(url)
    return plan_of(place, _engine.explain_restore(place, key_of(key), None if at is None else plain(at)))


def plan_of(url: str, raw: dict[str, Any]) -> RestorePlan:
    """What the engine says that a restore reads."""
    objects = tuple(BackupObject(*found) for found in raw["objects"])
    tables = None if raw["tables"] is None else tuple(TableDigest(*found) for found in raw["tables"])
    return RestorePlan(**{**raw, "url": url, "log": tuple(raw["log"]), "objects": objects, "tables": tables})
