"""Opening a cluster, and the policies on top of the engine: retries, commit tokens, progress, status.

The mechanism - transactions, pages, quorums - is compiled; what a user may want to read or change is here.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeVar, cast, overload

from aurora_engine import _engine
from aurora_engine.aio import Aio
from aurora_engine.exceptions import CommitUnknown, InvalidOption, Retryable, SchemaError, SchemaMismatch, TokenUsed
from aurora_engine.progress import progress, row_count
from aurora_engine.rows import Descending, Key, Row, RowType, row_class
from aurora_engine.status import Status, status_of

R = TypeVar("R", bound=Row)
T = TypeVar("T")

MIB = 1 << 20


class ArrowSchema(Protocol):
    """Anything that gives an Arrow schema: pyarrow's, polars's, a data frame."""

    def __arrow_c_schema__(self) -> object:
        """The schema as an Arrow PyCapsule."""


class ArrowStream(Protocol):
    """Anything that gives Arrow record batches: a table, a data frame, a reader, a query's result."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The record batches as an Arrow PyCapsule."""


RETRIES = 50
"""How often ``run`` tries a transaction that meets others."""
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
    cache_bytes: int = 256 * MIB,
    page_bytes: int | None = None,
    segment_bytes: int | None = None,
    window: dt.timedelta | None = None,
    nodes: Sequence[tuple[str, str | os.PathLike[str]]] | None = None,
    background_bytes_per_s: int = 64 * MIB,
) -> Cluster:
    """Opens the cluster in a directory, and makes it there if there is none.

    Args:
        path: The cluster's directory. Six node directories lie below it unless ``nodes`` says otherwise.
        memory: Keep everything in memory instead: the same code, gone at ``close()``.
        create: Make the cluster if the directory is missing or empty; otherwise raise ``NotACluster``.
        read_only: Take no ownership of the volume and refuse writes.
        takeover: End the process that has the directory open, wait for it to be gone, and open it.
        region: The region the cluster is made in, or is expected to be in.
        cache_bytes: Budget of the buffer pool.
        page_bytes: Page size of a new volume: 16, 32 (the default) or 64 KiB.
        segment_bytes: Segment size of a new volume, 10 GiB by default.
        window: How far back older versions are kept for ``view(at=...)``.
        nodes: Availability Zone and directory of the six nodes, two per zone: put them on six disks.
        background_bytes_per_s: What compaction and scrub may read and write per second.

    Raises:
        NotACluster, NewerFormat, AlreadyOpen, RegionMismatch, QuorumLost, ReadOnlyCluster, DiskFull, Corrupt:
            each says what was expected and what is there.
    """
    if memory == (path is not None):
        raise InvalidOption(
            "open: expected a path or memory=True, got " + ("both" if memory else "neither"),
            option="path", expected="a path or memory=True", got="both" if memory else "neither",
        )  # fmt: skip
    return Cluster(
        None if path is None else os.fspath(path),
        create=create,
        read_only=read_only,
        takeover=takeover,
        region=region,
        cache_bytes=cache_bytes,
        page_bytes=page_bytes,
        segment_bytes=segment_bytes,
        window_s=None if window is None else window.total_seconds(),
        nodes=None if nodes is None else [(az, os.fspath(node)) for az, node in nodes],
        background_bytes_per_s=background_bytes_per_s,
    )


class Cluster(_engine.Cluster):
    """An open cluster. Use it as a context manager, from as many threads and event loops as you like."""

    _aio: Aio | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @overload
    def create_table(self, name: str, row: type[R], *, exist_ok: bool = False) -> _engine.Table[R]: ...
    @overload
    def create_table(self, name: str, row: ArrowSchema, *, key: Key, exist_ok: bool = False) -> _engine.Table[Any]: ...
    def create_table(
        self, name: str, row: type[Row] | ArrowSchema, *, key: Key | None = None, exist_ok: bool = False
    ) -> _engine.Table[Any]:
        """Makes a table for the rows of a class, or for anything with ``__arrow_c_schema__``.

        Args:
            name: The table's name, unique in the cluster.
            row: A ``Row`` class; or an Arrow schema, whose key columns ``key`` names.
            key: The key columns for an Arrow schema.
            exist_ok: Open the table if it is there already with this schema.

        Raises:
            TableExists: there is such a table (and not ``exist_ok``).
            SchemaMismatch: there is one with another schema.
            SchemaError: no table can have this schema.
        """
        schema, cls = _schema_and_class(name, row, key)
        return self._create_table(name, schema, cls, exist_ok)

    @overload
    def table(self, name: str) -> _engine.Table[Any]: ...
    @overload
    def table(self, name: str, row: type[R]) -> _engine.Table[R]: ...
    def table(self, name: str, row: type[Row] | None = None) -> _engine.Table[Any]:
        """Opens a table. Without a class, its rows get one made from the schema.

        Raises:
            UnknownTable: there is none of this name.
            SchemaMismatch: the class describes another schema.
        """
        schema = self._table_schema(name)
        if row is None:
            return self._open_table(name, row_class(name, schema))
        wanted = _class_schema(row)
        if wanted != schema:
            raise SchemaMismatch(
                f"table {name!r}: expected {wanted}, got {schema}", table=name, expected=str(wanted), got=str(schema)
            )
        return self._open_table(name, row)

    @overload
    def run(self, fn: Callable[[_engine.Transaction], T], *, retries: int = RETRIES) -> T: ...
    @overload
    def run(self, fn: Callable[[_engine.Transaction], T], *, token: str, retries: int = RETRIES) -> T | None: ...
    def run(
        self, fn: Callable[[_engine.Transaction], T], *, token: str | None = None, retries: int = RETRIES
    ) -> T | None:
        """Runs ``fn(tx)`` in a transaction and commits it; again from the start when it meets another one.

        With a ``token`` the work is done exactly once, whoever runs it however often: a commit whose fate is unknown
        is looked up by it, and a token that was used returns ``None`` without running ``fn`` to its end again.
        Tokens are kept for 24 hours.
        """
        for attempt in range(retries + 1):
            # Asked first: what fn finds once its work is done may well make it fail, as an insert of the same key does.
            if token is not None and self.committed(token) is not None:
                return None
            try:
                with self.transaction(token=token) as tx:
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
        self, table: _engine.Table[Any], data: ArrowStream, *, sort: bool = False, show_progress: bool | None = None
    ) -> int:
        """Loads Arrow data in bulk into an empty table and returns the number of rows.

        ``data`` is anything with ``__arrow_c_stream__``: a pyarrow or polars table, a DuckDB result, a reader of
        files. Columns are matched by name. The rows are invisible until all of them are there, then all visible.

        Args:
            table: An empty table.
            data: The rows, in ascending order of the key.
            sort: Put them into that order first; all of them are in memory then.
            show_progress: Draw a progress bar; by default where standard error is a terminal.

        Raises:
            TableNotEmpty, LoadConflict, LoadOrder, StreamFailed, TypeMismatch, NullViolation, ValueOutOfRange.
        """
        with progress(f"load {table.name}", row_count(data), shown=show_progress) as report:
            return self._load(table, data, report, sort)

    def status(self) -> Status:
        """Nodes, LSNs, real fault domains, bytes and cache. ``print`` it."""
        return status_of(self._status())

    @property
    def aio(self) -> Aio:
        """The same operations for ``asyncio``: every one awaitable."""
        if self._aio is None:
            self._aio = Aio(self)
        return self._aio

    @property
    def reader(self) -> Reader:
        """The endpoint for read-only work."""
        return Reader(self)

    def __repr__(self) -> str:
        return f"<Cluster {self.path or 'in memory'}{' (closed)' if self.closed else ''}>"


class Reader:
    """The endpoint for read-only work; replicas answer here once a cluster has some."""

    __slots__ = ("_cluster",)

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def view(self, *, after: _engine.Commit | int | None = None) -> _engine.View:
        """A consistent view at the newest durable LSN, or at one that includes the commit ``after``."""
        return self._cluster.view(after=after)


def pause_s(attempt: int) -> float:
    """How long to wait before a transaction is tried again: longer each time, never the same for two."""
    return random.uniform(0, min(_PAUSE_S_MAX, _PAUSE_S * 2**attempt))


def _schema_and_class(name: str, row: Any, key: Key | None) -> tuple[_engine.Schema, type[Row]]:
    if isinstance(row, RowType):
        if key is not None:
            raise SchemaError(f"table {name!r}: the key of {row.__name__} is given by its class, not by key=")
        return _class_schema(row), cast("type[Row]", row)
    if not hasattr(row, "__arrow_c_schema__"):
        got = row.__name__ if isinstance(row, type) else type(row).__name__
        expected = "a Row class or an Arrow schema"
        raise SchemaError(f"table {name!r}: expected {expected}, got {got}", expected=expected, got=got)
    if key is None:
        raise SchemaError(f"table {name!r}: expected key= with the key columns of the Arrow schema, got none")
    parts = tuple(key) if isinstance(key, (tuple, list)) else (key,)
    named = [(part.column, True) if isinstance(part, Descending) else (part, False) for part in parts]
    schema = _engine.Schema.from_arrow(row, named)
    return schema, row_class(name, schema)


def _class_schema(row: Any) -> _engine.Schema:
    if not isinstance(row, RowType):
        raise SchemaError(f"expected a Row class, got {row!r}", expected="a Row class", got=repr(row))
    schema = row.__schema__
    if schema is None:
        raise SchemaError(f"row class {row.__name__}: expected a key, as in class {row.__name__}(au.Row, key=...)")
    return schema
