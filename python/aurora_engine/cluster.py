"""Opening a cluster, and the policies on top of the engine: retries, commit tokens, progress, status.

The mechanism - transactions, pages, quorums - is compiled; what a user may want to read or change is here.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar, overload

from aurora_engine import _engine
from aurora_engine.aio import Aio
from aurora_engine.backup import BYTES_PER_S, RETENTION_DAYS, Backup, place_of
from aurora_engine.backup import Key as BackupKey
from aurora_engine.definitions import Definitions
from aurora_engine.digest import digests
from aurora_engine.endpoints import Endpoint, Endpoints, Failover, Reader, failover_of
from aurora_engine.exceptions import CommitUnknown, InvalidOption, Retryable, SchemaError, SchemaMismatch, TokenUsed
from aurora_engine.faults import Faults
from aurora_engine.history import (
    Backtrack,
    BacktrackWindow,
    Changes,
    Snapshot,
    backtrack_of,
    changes_between,
    plain,
    window_of,
)
from aurora_engine.indexing import Indexing
from aurora_engine.instances import instance
from aurora_engine.isolation import LOCK_TIMEOUT_S, Isolation, LockTimeout
from aurora_engine.metrics import Metric, MetricsServer, metrics_of
from aurora_engine.progress import progress
from aurora_engine.rows import (
    AnyRow,
    ArrowRows,
    Key,
    Model,
    Row,
    RowInput,
    RowType,
    desc,
    is_model,
    key_parts,
    model_schema,
    row_class,
)
from aurora_engine.rules import Constraint, IndexOn, extras
from aurora_engine.sources import StrPath, source_of
from aurora_engine.status import Event, Status, status_of

R = TypeVar("R", bound=Row)
A = TypeVar("A", bound=AnyRow)
M = TypeVar("M", bound=Model)
T = TypeVar("T")

MIB = 1 << 20
REPLICAS_MAX = 15
"""Most replicas of a cluster."""
TIER_MAX = 15
"""The last promotion tier."""
DETECTION = dt.timedelta(seconds=1)
"""A writer that is silent for so long is taken for dead."""
DETECTION_MIN = dt.timedelta(milliseconds=10)
"""A shorter silence happens to the living."""


class ArrowSchema(Protocol):
    """Anything that gives an Arrow schema: pyarrow's, polars's, that of a table here."""

    def __arrow_c_schema__(self) -> object:
        """The schema as an Arrow PyCapsule."""


class HasArrowSchema(Protocol):
    """Anything whose ``schema`` is an Arrow schema: a data frame of polars, a table or reader of pyarrow."""

    @property
    def schema(self) -> ArrowSchema:
        """The Arrow schema."""


ArrowStream = ArrowRows

AnySchema = type[Row] | type[Model] | ArrowSchema | HasArrowSchema
"""What describes a table."""

LoadSource = ArrowRows | Iterable[AnyRow | RowInput] | StrPath | Sequence[StrPath]
"""What ``load`` takes."""

RowKind = Literal["dict", "tuple"]
"""What reading gives instead of objects of a class."""

RETRIES = 50
"""How often ``run`` tries a transaction that meets others."""
_BYTES_MAX = 2**63 - 1
_PAUSE_S = 0.000_2
_PAUSE_S_MAX = 0.05


def open(  # noqa: A001 - `au.open` reads like the built-in it is modelled on
    path: str | os.PathLike[str] | None = None,
    *,
    memory: bool = False,
    create: bool = True,
    read_only: bool = False,
    takeover: bool = False,
    region: str | None = None,
    cache_bytes: int | None = None,
    page_bytes: int | None = None,
    segment_bytes: int | None = None,
    window: dt.timedelta | None = None,
    nodes: Sequence[tuple[str, str | os.PathLike[str]]] | None = None,
    background_bytes_per_s: int = 64 * MIB,
    parallel_query: Literal["off", "auto", "force"] = "auto",
    instance_class: str | None = None,
    replicas: int = 0,
    detection: dt.timedelta = DETECTION,
    conflict_bytes: int = 16 * MIB,
    backup: str | os.PathLike[str] | None = None,
    backup_retention_days: int = RETENTION_DAYS,
    backup_key: BackupKey | None = None,
    backup_bytes_per_s: int = BYTES_PER_S,
) -> Cluster:
    """Opens the cluster in a directory, and makes it there if there is none.

    Args:
        path: The cluster's directory. Six node directories lie below it unless ``nodes`` says otherwise.
        memory: Keep everything in memory instead: the same code, gone at ``close()``.
        create: Make the cluster if the directory is missing or empty; otherwise raise ``NotACluster``.
        read_only: Take no ownership of the volume and refuse writes.
        takeover: End the process that has the directory open, wait for it to be gone, and open it.
        region: The region the cluster is made in, or is expected to be in.
        cache_bytes: Budget of the buffer pool, 256 MiB by default. Queries may keep as much again of what they scan.
        page_bytes: Page size of a new volume: 16, 32 (the default) or 64 KiB.
        segment_bytes: Segment size of a new volume, 10 GiB by default.
        window: How far back older versions are kept for ``view(at=...)``.
        nodes: Availability Zone and directory of the six nodes, two per zone: put them on six disks. A relative
            directory is one below ``path``. They are fixed when the cluster is made, and need not be given again.
        background_bytes_per_s: What compaction and scrub may read and write per second.
        parallel_query: Whether the storage nodes run queries: never, when it pays, or always.
        instance_class: What the instance is, such as ``db.r6g.large``: it gives ``cache_bytes`` unless that is given,
            and ``db.t2`` and ``db.t3`` run no parallel query.
        replicas: How many replicas to begin with, up to 15; see ``Cluster.add_replica``.
        detection: A writer that is silent for so long is taken for dead, and a replica takes its place.
        conflict_bytes: Budget for remembering which keys were changed since the oldest transaction began; over it, old
            transactions that write get ``SnapshotTooOld``.
        backup: Where the cluster is backed up continuously: a directory, or ``s3://bucket/prefix``. The object store is
            never waited for: what goes wrong there is in ``status().backup`` and in the events.
        backup_retention_days: For how many days every commit can be restored, 1 to 35.
        backup_key: 32 bytes with which the backup is encrypted, or a function that gives them.
        backup_bytes_per_s: What the upload of a base may use.

    Raises:
        InvalidOption, NotACluster, NewerFormat, AlreadyOpen, RegionMismatch, QuorumLost, ReadOnlyCluster, DiskFull,
        Corrupt: each says what was expected and what is there.
    """
    if memory == (path is not None):
        raise InvalidOption(
            "open: expected a path or memory=True, got " + ("both" if memory else "neither"),
            option="path", expected="a path or memory=True", got="both" if memory else "neither",
        )  # fmt: skip
    directory = None if path is None else os.fsdecode(path)
    if directory == "":
        raise _refused("path", "a directory", "an empty one")
    cluster_class = None if instance_class is None else instance(instance_class)
    if parallel_query not in ("off", "auto", "force"):
        raise _refused("parallel_query", '"off", "auto" or "force"', parallel_query)
    if cache_bytes is None:
        cache_bytes = 256 * MIB if cluster_class is None else cluster_class.cache_bytes
    for option, size in (
        ("cache_bytes", cache_bytes), ("page_bytes", page_bytes), ("segment_bytes", segment_bytes),
        ("background_bytes_per_s", background_bytes_per_s), ("conflict_bytes", conflict_bytes),
        ("backup_bytes_per_s", backup_bytes_per_s),
    ):  # fmt: skip
        _check_size(option, size)
    if window is not None and not isinstance(window, dt.timedelta):
        raise _refused("window", "a datetime.timedelta", window)
    if not isinstance(detection, dt.timedelta) or detection < DETECTION_MIN:
        raise _refused("detection", f"a datetime.timedelta of at least {DETECTION_MIN}", repr(detection))
    if not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 <= replicas <= REPLICAS_MAX:
        raise _refused("replicas", f"0 to {REPLICAS_MAX}", repr(replicas))
    placed = None if nodes is None else _placements(nodes)
    cluster = Cluster(
        directory,
        create=create,
        read_only=read_only,
        takeover=takeover,
        region=region,
        cache_bytes=cache_bytes,
        page_bytes=page_bytes,
        segment_bytes=segment_bytes,
        window_s=None if window is None else window.total_seconds(),
        nodes=placed,
        background_bytes_per_s=background_bytes_per_s,
        replicas=replicas,
        detection_s=detection.total_seconds(),
        conflict_bytes=conflict_bytes,
        backup=place_of(backup, backup_retention_days, backup_key, backup_bytes_per_s),
    )
    cluster.set_parallel_query(parallel_query, instance_class)
    if placed is not None:
        there = [(node.az, node.path) for node in cluster.status().nodes]
        if _resolved(directory, there) != _resolved(directory, placed):
            cluster.close()
            raise _refused("nodes", f"{there}, fixed when the cluster was made", placed)
    return cluster


class Cluster(Indexing, Definitions):
    """An open cluster. Use it as a context manager, from as many threads and event loops as you like."""

    _aio: Aio | None = None
    _endpoints: Endpoints | None = None
    _faults: Faults | None = None

    @property
    def parallel_query(self) -> str:
        """Whether the storage nodes run queries that do not say otherwise: ``"off"``, ``"auto"`` or ``"force"``."""
        return self._parallel_query()[0]

    @property
    def instance_class(self) -> str | None:
        """The class of the instance, such as ``db.r6g.large``, if it was given one."""
        return self._parallel_query()[1]

    def set_parallel_query(self, mode: Literal["off", "auto", "force"], instance_class: str | None = None) -> None:
        """Sets where queries run that do not say otherwise, and the class of the instance (by default as it was)."""
        if instance_class is not None:
            instance(instance_class)
        self._set_parallel_query(mode, instance_class or self.instance_class)

    def parallel_query_counters(self) -> dict[str, int]:
        """How often queries ran on the storage nodes, and how often not and why, by Aurora's names."""
        return {f"Aurora_pq_{name}": count for name, count in self._pq_counters().items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @overload
    def create_table(
        self,
        name: str,
        row: type[R],
        *,
        exist_ok: bool = False,
        indexes: Sequence[IndexOn] = (),
        constraints: Sequence[Constraint] = (),
    ) -> _engine.Table[R]: ...
    @overload
    def create_table(
        self,
        name: str,
        row: type[M],
        *,
        key: Key,
        exist_ok: bool = False,
        indexes: Sequence[IndexOn] = (),
        constraints: Sequence[Constraint] = (),
    ) -> _engine.Table[M]: ...
    @overload
    def create_table(
        self,
        name: str,
        row: AnySchema,
        *,
        rows: Literal["dict"],
        key: Key | None = None,
        exist_ok: bool = False,
        indexes: Sequence[IndexOn] = (),
        constraints: Sequence[Constraint] = (),
    ) -> _engine.Table[dict[str, Any]]: ...
    @overload
    def create_table(
        self,
        name: str,
        row: AnySchema,
        *,
        rows: Literal["tuple"],
        key: Key | None = None,
        exist_ok: bool = False,
        indexes: Sequence[IndexOn] = (),
        constraints: Sequence[Constraint] = (),
    ) -> _engine.Table[tuple[Any, ...]]: ...
    @overload
    def create_table(
        self,
        name: str,
        row: ArrowSchema | HasArrowSchema,
        *,
        key: Key,
        exist_ok: bool = False,
        indexes: Sequence[IndexOn] = (),
        constraints: Sequence[Constraint] = (),
    ) -> _engine.Table[Any]: ...
    def create_table(
        self,
        name: str,
        row: AnySchema,
        *,
        key: Key | None = None,
        rows: RowKind | None = None,
        exist_ok: bool = False,
        indexes: Sequence[IndexOn] = (),
        constraints: Sequence[Constraint] = (),
    ) -> _engine.Table[Any]:
        """Makes a table for the rows of a class, or for an Arrow schema.

        Args:
            name: The table's name, unique in the cluster.
            row: A ``Row`` class; a pydantic model; or anything with ``__arrow_c_schema__``, or with a ``schema`` that
                has it, as data frames do. For the latter ``key`` names the key columns.
            key: The key columns for a model or an Arrow schema.
            rows: What reading gives: rows of the class (for an Arrow schema, of one made from it), or ``"dict"`` or
                ``"tuple"``. Writing takes any of them.
            exist_ok: Open the table if it is there already with this schema, these indexes and constraints.
            indexes: Indexes, made by ``au.index``, beside those that a ``Row`` class declares.
            constraints: Constraints, made by ``au.check`` and ``au.foreign_key``, beside those of a ``Row`` class.

        Raises:
            TableExists: there is such a table (and not ``exist_ok``).
            SchemaMismatch: there is one with another schema.
            SchemaError: no table can have this schema, an index or a constraint.
            UnknownTable: a foreign key's parent is not there.
        """
        schema, cls = _schema_and_class(name, row, key)
        made = _row_kind(rows) or cls or row_class(name, schema)
        try:
            rules = extras(
                f"table {name}",
                (*getattr(row, "__indexes__", ()), *indexes),
                (*getattr(row, "__constraints__", ()), *constraints),
                getattr(row, "__auto__", None),
            )
            return self._create_table(name, schema, made, exist_ok, rules)
        except SchemaMismatch:
            there = self._table_schema(name)
            if there == schema:
                raise
            # The engine says that they differ; the columns say in what.
            raise _mismatch(name, schema, there) from None

    @overload
    def table(self, name: str) -> _engine.Table[Any]: ...
    @overload
    def table(
        self, name: str, row: type[R] | None = None, *, rows: Literal["dict"]
    ) -> _engine.Table[dict[str, Any]]: ...
    @overload
    def table(
        self, name: str, row: type[R] | None = None, *, rows: Literal["tuple"]
    ) -> _engine.Table[tuple[Any, ...]]: ...
    @overload
    def table(self, name: str, row: type[R]) -> _engine.Table[R]: ...
    @overload
    def table(self, name: str, row: type[M]) -> _engine.Table[M]: ...
    def table(self, name: str, row: type[Any] | None = None, *, rows: RowKind | None = None) -> _engine.Table[Any]:
        """Opens a table. Without a class, its rows get one made from the schema.

        Args:
            name: The table's name.
            row: The ``Row`` class or pydantic model of its rows.
            rows: ``"dict"`` or ``"tuple"``: what reading gives instead of objects of a class.

        Raises:
            UnknownTable: there is none of this name.
            SchemaMismatch: the class describes another schema.
        """
        schema = self._table_schema(name)
        made = _row_kind(rows)
        if row is None:
            return self._open_table(name, made or row_class(name, schema))
        wanted = model_schema(row, _key_of(schema)) if is_model(row) else _class_schema(row)
        if wanted != schema:
            raise _mismatch(name, wanted, schema)
        return self._open_table(name, made or row)

    def insert_many(self, table: _engine.Table[A], rows: Iterable[A | RowInput] | ArrowRows) -> int:
        """Adds rows in a transaction of its own, all of them or none, and returns how many.

        Args:
            table: The table.
            rows: An iterable of rows, each a typed row, a dict, a tuple or a pydantic model; or an Arrow stream.

        Raises:
            DuplicateKey: a row with one of the keys is there, or two of the rows have one key; or a row has the values
                of another in a unique index.
            CheckViolation, ForeignKeyViolation: a constraint of the table refuses a row.
            InvalidValue: a value does not fit; ``row`` is the number of its row.
            TransactionTooLarge: use ``load``.
        """
        return self._write_many(lambda tx, rows: tx.insert_many(table, rows), rows)

    def upsert_many(self, table: _engine.Table[A], rows: Iterable[A | RowInput] | ArrowRows) -> int:
        """Adds rows, or replaces those with their keys, in a transaction of its own; how many.

        Of several rows with one key the last counts.
        """
        return self._write_many(lambda tx, rows: tx.upsert_many(table, rows), rows)

    def _write_many(self, write: Callable[[_engine.Transaction, Any], int], rows: Any) -> int:
        if hasattr(rows, "__arrow_c_stream__"):
            # A stream may be read once only, so a conflict is raised and not tried again.
            with self.transaction() as tx:
                return write(tx, rows)
        again = rows if isinstance(rows, (list, tuple)) or not hasattr(rows, "__iter__") else list(rows)
        return self.run(lambda tx: write(tx, again))

    @overload
    def run(
        self,
        fn: Callable[[_engine.Transaction], T],
        *,
        isolation: Isolation = "snapshot",
        lock_timeout: LockTimeout = LOCK_TIMEOUT_S,
        retries: int = RETRIES,
    ) -> T: ...
    @overload
    def run(
        self,
        fn: Callable[[_engine.Transaction], T],
        *,
        token: str,
        isolation: Isolation = "snapshot",
        lock_timeout: LockTimeout = LOCK_TIMEOUT_S,
        retries: int = RETRIES,
    ) -> T | None: ...
    def run(
        self,
        fn: Callable[[_engine.Transaction], T],
        *,
        token: str | None = None,
        isolation: Isolation = "snapshot",
        lock_timeout: LockTimeout = LOCK_TIMEOUT_S,
        retries: int = RETRIES,
    ) -> T | None:
        """Runs ``fn(tx)`` in a transaction and commits it; again from the start when it meets another one.

        With a ``token`` the work is done exactly once, whoever runs it however often: a commit whose fate is unknown
        is looked up by it, and a token that was used returns ``None`` without running ``fn`` to its end again.
        Tokens are kept for 24 hours.

        Args:
            fn: What to do. It may run several times, so what it does beside the transaction should bear that.
            token: A name for the work, of at most 64 bytes.
            isolation: The isolation level of each try.
            lock_timeout: For how long an operation waits for a row's lock, as in ``transaction``.
            retries: How often it is tried again before the error is raised.

        Raises:
            Retryable: the last try met another transaction too.
            CommitUnknown: the fate of a commit without a token is unknown, or the token cannot be looked up.
        """
        check_retries(retries)
        for attempt in range(retries + 1):
            # Asked first: what fn finds once its work is done may well make it fail, as an insert of the same key does.
            if token is not None and self.committed(token) is not None:
                return None
            try:
                with self.transaction(token=token, isolation=isolation, lock_timeout=lock_timeout) as tx:
                    return fn(tx)
            except TokenUsed as used:
                if used.token != token:
                    raise
                return None
            except Retryable:
                if attempt == retries:
                    raise
                time.sleep(pause_s(attempt))
            except CommitUnknown:
                if token is None:
                    raise
                if self.committed(token) is not None:
                    return None
        raise AssertionError("every attempt returns, raises or goes on")  # pragma: no cover

    def load(
        self,
        table: _engine.Table[Any],
        source: LoadSource,
        *,
        on_conflict: Literal["error", "replace", "skip"] = "error",
        sort: bool | None = None,
        memory_bytes: int = 64 * MIB,
        show_progress: bool | None = None,
    ) -> int:
        """Loads rows in bulk, all of them or none, and returns how many were put into the table.

        Into an empty table they go past the log, as sealed pages, and are invisible until the last one is there. A
        table that has rows is merged with those of the load and built anew, or takes them by one transaction if they
        are few; commits to it go on meanwhile. A table with indexes or foreign keys takes what one transaction holds.
        Rows that leave out an auto-increment column are numbered.

        Args:
            table: The table.
            source: Anything with ``__arrow_c_stream__`` (a pyarrow, polars or pandas table, a DuckDB result, a reader);
                an iterable of rows, each a typed row, dict, tuple or pydantic model; a path, a folder or a pattern of
                Parquet or CSV files, or a list of them (read by pyarrow or polars: ``aurora-engine[files]``). Columns
                are matched by name.
            on_conflict: What becomes of a row whose key is taken, in the table or by an earlier row of the load: an
                error that ends the load, the new row in its place, or the new one is left out.
            sort: Whether to put the rows into the order of the key first; what does not fit into ``memory_bytes`` is
                sorted in files in the cluster's directory. By default the first rows tell whether it is needed.
            memory_bytes: Memory for sorting.
            show_progress: Draw a progress bar; by default where standard error is a terminal.

        Raises:
            DuplicateKey: a key is taken; ``row`` is the number of the row, counted from 0. Or a row has the values of
                another in a unique index, and ``index`` is its name.
            CheckViolation, ForeignKeyViolation: a constraint of the table refuses a row.
            TableIndexed: a table with indexes does not take so many rows at a time.
            InvalidValue: a value does not fit; ``row`` and ``column`` say which.
            LoadOrder: rows were taken to be in order and are not.
            LoadConflict: others kept changing the same rows.
            StreamFailed, MissingExtra, UnknownColumn.
        """
        _check_size("memory_bytes", memory_bytes)
        if not isinstance(sort, bool | None):
            raise _refused("sort", "True, False or None", sort)
        found = source_of(source, table.schema)
        with progress(f"load {table.name}", found, shown=show_progress) as report:
            rows, _replaced, _skipped = self._load(table, found.parts, report, sort, on_conflict, memory_bytes)
        return rows

    def backtrack(
        self, to: _engine.Commit | int | dt.datetime | Snapshot | str | None = None, *, use_earliest: bool = False
    ) -> Backtrack:
        """Takes the whole cluster back to a moment, in place, in a time that does not depend on how much that undoes.

        What is left is kept for the window: going to one of its moments is going forward again. A time means the
        history that was active then. Commits in flight become durable first; transactions that are open raise
        ``HistoryChanged``, which ``run`` takes as a reason to begin again.

        Args:
            to: A commit, an LSN, an aware time, a snapshot or its name: the newest commit at or before it.
            use_earliest: Take the earliest moment there is where ``to`` lies before it, or is not given.

        Raises:
            OutsideWindow: a time in the future, or before the window; the message names the limits.
            UnknownSnapshot: there is none of this name.
        """
        if to is None:
            if not use_earliest:
                raise _refused("to", "a moment, or use_earliest=True", "neither")
            to = 0
        return backtrack_of(self.status().cluster, self._backtrack(plain(to), use_earliest))

    @property
    def backtrack_window(self) -> BacktrackWindow:
        """How far back the cluster can go now, and how far it should."""
        return window_of(self._window())

    def set_backtrack_window(self, window: dt.timedelta) -> None:
        """Sets how far back the cluster shall reach from now on: 0 to 72 hours. Kept with the cluster."""
        if not isinstance(window, dt.timedelta):
            raise _refused("window", "a datetime.timedelta", window)
        self._set_window(window.total_seconds())

    @property
    def backup(self) -> Backup:
        """The backup of a cluster that was opened with ``backup=``: how it is doing, and waiting for it."""
        return Backup(self)

    def backup_now(self, *, timeout: float = 60.0) -> int:
        """Waits until every commit that is durable now can be restored; gives the LSN of the last one.

        Raises:
            BackupFailed: it takes longer than ``timeout`` seconds, or can never be; with what went wrong last.
        """
        return self.backup.wait(timeout=timeout)

    def snapshot(self, name: str, *, proof: bool = False) -> Snapshot:
        """Keeps the present moment under a name, until it is deleted: at once, and without copying anything.

        With a backup it is then also there, and can be restored by its name, for as long as it is not deleted.

        Args:
            name: Its name.
            proof: Count the rows of every table and take their digest, into the backup: a restore compares them. That
                reads every row.

        Raises:
            SnapshotExists: there is one of this name.
            InvalidOption: there is no backup that could keep the proof.
        """
        if proof:
            self.backup.status()
        made = Snapshot(**self._snapshot(name))
        if proof:
            counted = digests(self, made.lsn)
            self._record_tables(name, [(table.name, table.rows, table.digest) for table in counted])
        return made

    def clone(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        memory: bool = False,
        at: _engine.Commit | int | dt.datetime | Snapshot | str | None = None,
        cache_bytes: int = 64 * MIB,
    ) -> Self:
        """A cluster of its own that begins as this one is, or was at a moment; copy-on-write.

        Nothing is copied: a clone on disk has second names (hard links) of the same files, one in memory reads the same
        files. Either may be changed, cloned again, or deleted first.

        Args:
            path: A new directory on the same file system.
            memory: In memory instead; also of a cluster on disk.
            at: A commit, an LSN, an aware time, a snapshot or its name, also of a history that a backtrack has left.
            cache_bytes: Budget of the clone's buffer pool.

        Raises:
            OutsideWindow, UnknownSnapshot: there is no such moment.
            NotACluster: the directory holds something. DiskFailed: it is on another file system.
        """
        if memory == (path is not None):
            raise _refused("path", "a path or memory=True", "both" if memory else "neither")
        return type(self)(
            None if path is None else os.fsdecode(path),
            cache_bytes=cache_bytes,
            clone_of=self,
            clone_at=None if at is None else plain(at),
        )

    def changes(
        self,
        table: _engine.Table[Any] | str,
        since: _engine.Commit | int | dt.datetime | Snapshot | str,
        until: _engine.Commit | int | dt.datetime | Snapshot | str | None = None,
    ) -> Changes:
        """What became of the rows of a table between two moments; ``until`` is now by default.

        Raises:
            OutsideWindow, UnknownSnapshot: there is no such moment. UnknownTable: the table is there at neither.
        """
        return changes_between(self, table if isinstance(table, str) else table.name, since, until)

    def preview_backtrack(self, to: _engine.Commit | int | dt.datetime | Snapshot | str) -> dict[str, Changes]:
        """What a backtrack would do, by table: rows that would come back, change and go.

        Tables of which no row would change are left out.

        Raises:
            OutsideWindow, UnknownSnapshot: as ``backtrack``.
        """
        with self.clone(memory=True, at=to) as then:
            names = sorted({*self.tables(), *then.tables()})
        now = self.vdl
        found = {name: changes_between(self, name, now, to) for name in names}
        return {name: changes for name, changes in found.items() if len(changes)}

    def snapshots(self) -> list[Snapshot]:
        """The snapshots, oldest first."""
        return [Snapshot(**raw) for raw in self._snapshots()]

    def status(self) -> Status:
        """Nodes, LSNs, real fault domains, bytes and cache. ``print`` it."""
        return status_of(self._status())

    @property
    def aio(self) -> Aio:
        """The side for ``asyncio``: awaitable transactions, ``run``, ``get``, ``get_many``, ``load``, ``status``."""
        if self._aio is None:
            self._aio = Aio(self)
        return self._aio

    @property
    def reader(self) -> Reader:
        """The endpoint for read-only work: the replica with the fewest connections that keeps up, or the writer.

        A reader that you keep is a session: what it shows never goes back.
        """
        return Reader(self)

    def instance(self, name: str) -> Endpoint:
        """The endpoint of one instance, whatever its role.

        Raises:
            UnknownInstance: there is none of this name.
        """
        return Endpoint(self, name, lambda: [self._instance(name).name])

    @property
    def endpoints(self) -> Endpoints:
        """The custom endpoints."""
        if self._endpoints is None:
            self._endpoints = Endpoints(self)
        return self._endpoints

    def add_replica(
        self,
        name: str | None = None,
        *,
        tier: int = 1,
        instance_class: str = "large",
        region: str | None = None,
    ) -> str:
        """Adds a replica and returns its name: a reader with a cache of its own over the same storage.

        Args:
            name: A name that no instance has; ``instance-N`` if none is given.
            tier: Its promotion tier: at a failover 0 comes first, 15 last.
            instance_class: ``small``, ``medium``, ``large`` (a cache as large as ``cache_bytes``), ``xlarge`` (twice
                that), up to ``16xlarge``. Of equal tiers the larger class is promoted.
            region: Where it is to be; a replica lives in its cluster's region.

        Raises:
            InvalidOption: it would be the sixteenth, the name is taken, the tier or class is none.
            RegionMismatch: it would be in another region.
        """
        if not isinstance(tier, int) or isinstance(tier, bool) or not 0 <= tier <= TIER_MAX:
            raise _refused("tier", f"0 to {TIER_MAX}", repr(tier))
        # The classes of Amazon are known by their size: db.r6g.large is large.
        size = instance(instance_class).name.rsplit(".", 1)[1] if instance_class.startswith("db.") else instance_class
        return self._add_replica(name, tier, size, region).name

    @property
    def instances(self) -> tuple[str, ...]:
        """The names of all instances, the writer first."""
        return tuple(instance.name for instance in self._instances())

    def failover(self, to: str | None = None, *, force: bool = False) -> Failover:
        """Has another instance write.

        Planned, commits that are under way become durable first, nothing is lost, and transactions that are open go
        on at the new writer without an error. Forced, the old writer is not asked: it is fenced, and a transaction
        that cannot know whether a row has changed meanwhile gets a ``Retryable``. Without a replica the writer is made
        anew.

        Args:
            to: The replica that is to write; otherwise policy chooses (``set_choose``): by default the lowest tier,
                then the larger class.
            force: Do not ask the old writer.

        Raises:
            UnknownInstance: there is no ``to``.
            ReplicaLag: the target does not catch up; the old writer goes on.
        """
        return failover_of(self._failover(to, force))

    def set_choose(self, choose: Callable[[list[dict[str, Any]]], str | None] | None) -> None:
        """Sets the policy that chooses which replica becomes the writer.

        ``choose(candidates)`` gets a dictionary for each (``name``, ``tier``, ``instance_class``, ``lsn``) and returns
        a name. No answer within 100 ms, an exception or ``None``, and the built-in rule decides.
        """
        if choose is not None and not callable(choose):
            raise _refused("choose", "a function", choose)
        self._set_choose(choose)

    @property
    def faults(self) -> Faults:
        """What can be broken on purpose, for tests: nodes, disks, the writer."""
        if self._faults is None:
            self._faults = Faults(self)
        return self._faults

    def metrics(self) -> list[Metric]:
        """Every metric as it is now, under Aurora's names where Aurora has one."""
        return metrics_of(self)

    def serve_metrics(self, port: int = 9187, *, address: str = "127.0.0.1") -> MetricsServer:
        """Serves the metrics to Prometheus, until what is returned is closed. Needs ``aurora-engine[metrics]``.

        Args:
            port: Where to listen; 0 for any free port.
            address: At which address; by default for this machine only.

        Raises:
            InvalidOption: ``prometheus-client`` is not installed.
        """
        return MetricsServer(self, port, address)

    def events(self) -> list[Event]:
        """What happened to instances and copies since the cluster was opened, the oldest first: the latest 1,000."""
        return [Event(**event) for event in self._events()]

    def __repr__(self) -> str:
        return f"<Cluster {self.path or 'in memory'}{' (closed)' if self.closed else ''}>"


def pause_s(attempt: int) -> float:
    """How long to wait before a transaction is tried again: longer each time, never the same for two."""
    return random.uniform(0, min(_PAUSE_S_MAX, _PAUSE_S * 2**attempt))


def check_retries(retries: int) -> None:
    """Refuses a number of retries that is none."""
    if not isinstance(retries, int) or retries < 0:
        raise _refused("retries", "a whole number from 0 up", retries)


def _refused(option: str, expected: str, got: object) -> InvalidOption:
    said = got if isinstance(got, str) else f"{type(got).__name__} {got!r}"
    return InvalidOption(f"option {option}: expected {expected}, got {said}", option=option, expected=expected, got=got)


def _check_size(option: str, size: object) -> None:
    if size is None:
        return
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _BYTES_MAX:
        raise _refused(option, "a number of bytes", size)


def _placements(nodes: Any) -> list[tuple[str, str]]:
    """The nodes as pairs of zone and directory."""
    placed = []
    for node in nodes:
        pair = node if isinstance(node, (tuple, list)) else ()
        if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], (str, os.PathLike)):
            raise _refused("nodes", 'pairs of zone and directory, as ("az1", "/disk1")', repr(node))
        placed.append((pair[0], os.fspath(pair[1])))
    return placed


def _resolved(directory: str | None, nodes: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(az, os.path.realpath(Path(directory or "") / path)) for az, path in nodes]


def _mismatch(name: str, wanted: _engine.Schema, there: _engine.Schema) -> SchemaMismatch:
    return SchemaMismatch(
        f'table "{name}" has another schema: {_difference(wanted, there)}',
        table=name, expected=str(wanted), got=str(there),
    )  # fmt: skip


def _difference(wanted: _engine.Schema, there: _engine.Schema) -> str:
    """The first thing in which two schemas differ, as expected and got."""
    for index in range(max(len(wanted.columns), len(there.columns))):
        expected, got = (
            f'column "{part[0]}" ({part[1]}{" | None" if part[2] else ""})' if part else "no further column"
            for part in (next(iter(schema.columns[index : index + 1]), None) for schema in (wanted, there))
        )
        if expected != got:
            return f"expected {expected}, got {got}"
    expected, got = (
        ", ".join(f"{column} descending" if descending else column for column, descending in schema.key)
        for schema in (wanted, there)
    )
    return f"expected the key ({expected}), got ({got})"


def _schema_and_class(name: str, row: Any, key: Key | None) -> tuple[_engine.Schema, type[Any] | None]:
    if isinstance(row, RowType):
        if key is not None:
            raise SchemaError(f'table "{name}": the key of {row.__name__} is given by its class, not by key=')
        return _class_schema(row), row
    if is_model(row):
        if key is None:
            raise SchemaError(f'table "{name}": expected key= with the key columns of {row.__name__}, got none')
        return model_schema(row, key), row
    arrow = row if hasattr(row, "__arrow_c_schema__") else getattr(row, "schema", None)
    if not hasattr(arrow, "__arrow_c_schema__"):
        got = row.__name__ if isinstance(row, type) else type(row).__name__
        expected = "a Row class, a pydantic model or an Arrow schema"
        raise SchemaError(f'table "{name}": expected {expected}, got {got}', expected=expected, got=got)
    if key is None:
        raise SchemaError(f'table "{name}": expected key= with the key columns of the Arrow schema, got none')
    return _engine.Schema.from_arrow(arrow, key_parts(key, f'table "{name}"')), None


def _row_kind(rows: Any) -> type[Any] | None:
    kinds: dict[Any, type[Any] | None] = {None: None, "dict": dict, "tuple": tuple}
    if not isinstance(rows, str | None) or rows not in kinds:
        raise _refused("rows", '"dict", "tuple" or None', rows)
    return kinds[rows]


def _key_of(schema: _engine.Schema) -> Key:
    return tuple(desc(column) if descending else column for column, descending in schema.key)


def _class_schema(row: Any) -> _engine.Schema:
    if not isinstance(row, RowType):
        expected = "a Row class or a pydantic model"
        raise SchemaError(f"expected {expected}, got {row!r}", expected=expected, got=repr(row))
    schema = row.__schema__
    if schema is None:
        raise SchemaError(f"row class {row.__name__}: expected a key, as in class {row.__name__}(au.Row, key=...)")
    return schema
