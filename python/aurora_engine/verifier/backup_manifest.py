"""What a backup's manifest says. docs/design/backup.md has the meaning of each field.

A manifest whose ``on`` is null is whole. Any other is a change to the whole one of that number: what it lists came
since then, what ``gone`` lists went, and everything else it says in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aurora_engine.exceptions import Damaged
from aurora_engine.verifier.damage import check, damaged
from aurora_engine.verifier.history import History
from aurora_engine.verifier.manifest import Era, Snapshot
from aurora_engine.verifier.records import Commit

T = TypeVar("T")
Tables = dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Size:
    """What an object must be: its length, its raw length, the SHA-256 in its tail."""

    bytes: int
    raw: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Base:
    """Every layer that one complete node had at a moment."""

    id: int
    lsn: int
    floor: int
    floor_commit: Commit | None
    histories: list[History]
    objects: list[str]
    blobs: list[int]
    tables: Tables | None


@dataclass(frozen=True, slots=True)
class LogRange:
    """A delta layer of the records with an LSN in ``(first, last]``."""

    object: str
    first: int
    last: int
    records: int
    blobs: list[int]


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """Everything that counts."""

    number: int
    page_bytes: int
    segment_pages: int
    eras: list[Era]
    snapshots: list[Snapshot]
    snapshot_tables: dict[str, Tables | None]
    covered: int
    """The LSN up to which everything is there."""
    bases: list[Base]
    log: list[LogRange]
    objects: dict[str, Size]


def read_manifest(found: dict[int, dict[str, Any]], number: int) -> BackupManifest:
    """The manifest of a number, put together from those that were found."""
    check(number in found, f"manifest {number}, whole", "damage or nothing")
    try:
        return _read(found, number)
    except Damaged:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise damaged("a manifest with every field", f"{type(error).__name__}: {error}") from error


def _read(found: dict[int, dict[str, Any]], number: int) -> BackupManifest:
    newest = found[number]
    on = newest["on"]
    check(on is None or on in found, f"manifest {on}, of which {number} is a change", "damage or nothing")
    whole = newest if on is None else found[on]
    check(whole["on"] is None, f"a whole manifest {on}", f"a change to {whole['on']}")
    bases = {raw["id"]: raw for raw in whole["bases"]}
    log = {raw["object"]: raw for raw in whole["log"]}
    objects = dict(whole["objects"])
    if on is not None:
        gone = newest["gone"]
        bases = {key: raw for key, raw in bases.items() if key not in gone["bases"]}
        log = {key: raw for key, raw in log.items() if key not in gone["log"]}
        objects = {key: raw for key, raw in objects.items() if key not in gone["objects"]}
        bases |= {raw["id"]: raw for raw in newest["bases"]}
        log |= {raw["object"]: raw for raw in newest["log"]}
        objects |= newest["objects"]
    volume = newest["volume"]
    return BackupManifest(
        number,
        volume["page_bytes"],
        volume["segment_pages"],
        _each(newest["eras"], _era),
        _each(newest["snapshots"], lambda raw: Snapshot(raw["name"], History.from_json(raw["history"]), raw["lsn"])),
        {raw["name"]: _tables(raw["tables"]) for raw in newest["snapshots"]},
        max([0, *(raw["lsn"] for raw in bases.values()), *(raw["to"] for raw in log.values())]),
        _each(list(bases.values()), _base),
        _each(list(log.values()), _log_range),
        {name: Size(raw["bytes"], raw["raw"], raw["sha256"]) for name, raw in objects.items()},
    )


def _each(raw: list[Any], read: Callable[[Any], T]) -> list[T]:
    return [read(item) for item in raw]


def _era(raw: dict[str, Any]) -> Era:
    return Era(History.from_json(raw["history"]), raw["since_us"], raw["until_us"])


def _base(raw: dict[str, Any]) -> Base:
    commit = raw["floor_commit"]
    return Base(
        raw["id"],
        raw["lsn"],
        raw["floor"],
        None if commit is None else Commit(*commit),
        _each(raw["histories"], History.from_json),
        list(raw["objects"]),
        _blobs(raw["blobs"]),
        _tables(raw["tables"]),
    )


def _log_range(raw: dict[str, Any]) -> LogRange:
    return LogRange(raw["object"], raw["from"], raw["to"], raw["records"], _blobs(raw["blobs"]))


def _blobs(raw: list[str]) -> list[int]:
    """The ids of blobs from the names of their objects."""
    return [int(name.removeprefix("blob/"), 16) for name in raw]


def _tables(raw: list[dict[str, Any]] | None) -> Tables | None:
    return None if raw is None else {table["name"]: (table["rows"], table["digest"]) for table in raw}
