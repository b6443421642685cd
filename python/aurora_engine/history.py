"""Moments of a cluster: what going back to one did, what is kept by name, how far back there is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from aurora_engine.rows import astuple

if TYPE_CHECKING:
    from aurora_engine import _engine
    from aurora_engine.cluster import Cluster

_AT_ONCE = 1_000
"""Rows that are looked up together."""


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


Kind = Literal["insert", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one row between two moments."""

    kind: Kind
    """``insert``, ``update`` or ``delete``."""
    before: Any
    """The row at the first moment; ``None`` for an insert."""
    after: Any
    """The row at the second moment; ``None`` for a delete."""


class Changes:
    """What became of the rows of a table between two moments. Held in memory.

    Iterate over it for ``Change`` objects, or hand it to anything that takes an Arrow stream: the rows of the table
    with a first column ``_change`` that says ``insert``, ``delete``, ``update_preimage`` or ``update_postimage``.
    """

    def __init__(self, table: _engine.Table[Any], changes: Iterable[Change]) -> None:
        self._table = table
        self._changes = list(changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)

    def __len__(self) -> int:
        return len(self._changes)

    def count(self, kind: Kind) -> int:
        """How many rows were inserted, updated or deleted."""
        return sum(change.kind == kind for change in self._changes)

    def __arrow_c_schema__(self) -> Any:
        """The schema as an Arrow PyCapsule."""
        return self._table._batches([], []).__arrow_c_schema__()  # noqa: SLF001 - made for this

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The changed rows as an Arrow PyCapsule stream."""
        kinds, rows = [], []
        for change in self._changes:
            images = (
                (("update_preimage", change.before), ("update_postimage", change.after))
                if change.kind == "update"
                else ((change.kind, change.after or change.before),)
            )
            for kind, row in images:
                kinds.append(kind)
                rows.append(self._table.row(*astuple(row)))
        return self._table._batches(kinds, rows).__arrow_c_stream__(requested_schema)  # noqa: SLF001 - made for this

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.count(kind)} {kind}s" for kind in ("insert", "update", "delete"))
        return f"<Changes of {self._table.name}: {counts}>"


def differences(
    before: tuple[Any, _engine.Table[Any]] | None, after: tuple[Any, _engine.Table[Any]] | None
) -> Iterator[Change]:
    """The changes from one state of a table to another: each a view or transaction, and its handle of the table."""
    if before is not None:
        reader, table = before
        for rows in _batches(reader.range(table)):
            found = [None] * len(rows) if after is None else after[0].get_many(after[1], _keys(table, rows))
            for row, now in zip(rows, found, strict=True):
                if now is None:
                    yield Change("delete", row, None)
                elif astuple(row) != astuple(now):
                    yield Change("update", row, now)
    if after is not None:
        reader, table = after
        for rows in _batches(reader.range(table)):
            found = [None] * len(rows) if before is None else before[0].get_many(before[1], _keys(table, rows))
            for row, was in zip(rows, found, strict=True):
                if was is None:
                    yield Change("insert", None, row)


def changes_between(cluster: Cluster, name: str, since: Any, until: Any) -> Changes:
    """What became of the rows of a table between two moments, each in whatever history it lies."""
    with cluster.clone(memory=True, at=since) as first, cluster.clone(memory=True, at=until) as second:
        states = [(one, one.table(name)) if name in one.tables() else None for one in (first, second)]
        views = [None if state is None else (state[0].view(), state[1]) for state in states]
        shown = states[1] or states[0]
        if shown is None:
            cluster.table(name)  # raises: there is none at either moment
            raise AssertionError("the table is there now, at neither moment")
        # The handle outlives the clone it came from: only its class and schema are used.
        return Changes(shown[1], differences(*views))


def put_back(
    tx: _engine.Transaction,
    table: _engine.Table[Any],
    then: _engine.View,
    where: Callable[[Any], object] | None,
) -> dict[str, int]:
    """Makes rows what they were in a view: what ``Transaction.restore_rows`` does."""

    def meant(change: Change) -> bool:
        return where is None or any(where(row) for row in (change.before, change.after) if row is not None)

    with then:
        changes = [change for change in differences((tx, table), (then, table)) if meant(change)]
    counts = {"insert": 0, "update": 0, "delete": 0}
    for change in changes:
        counts[change.kind] += 1
        if change.after is None:
            tx.delete(table, _keys(table, [change.before])[0])
        else:
            tx.upsert(table, change.after)
    return counts


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _AT_ONCE)):
        yield batch


def _keys(table: _engine.Table[Any], rows: list[Any]) -> list[Any]:
    names = [name for name, _ in table.schema.key]
    if len(names) == 1:
        return [getattr(row, names[0]) for row in rows]
    return [tuple(getattr(row, name) for name in names) for row in rows]
