"""Every error of aurora-engine, in one tree grouped by what the caller does next.

========================  ==========================================================================
Group                     What to do
========================  ==========================================================================
:class:`Retryable`        Run the whole transaction again. ``Cluster.run`` does it for you.
:class:`OutcomeUnknown`   The commit may or may not have happened: ask by its token, then decide.
:class:`UsageError`       Change the program or its input: a retry gives the same answer.
:class:`EnvironmentFault` Look at the machine: disks, directories, other processes, configuration.
========================  ==========================================================================

Each error carries what its message says as attributes, so that no caller parses text.
"""

# ruff: noqa: N818 - an error is named after what happened
from __future__ import annotations

import datetime as dt
import inspect
from typing import Any


class AuroraError(Exception):
    """The root of the tree. ``details`` holds every attribute by name."""

    details: dict[str, Any]

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details
        for name in _attributes(type(self)):
            setattr(self, name, details.get(name))

    @property
    def message(self) -> str:
        """The text of the error."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details)


def _attributes(cls: type) -> list[str]:
    """The names of the attributes that a class and its bases declare."""
    names: list[str] = []
    for base in cls.__mro__:
        names += [name for name in inspect.get_annotations(base) if name != "details"]
    return names


def _rebuild(cls: type[AuroraError], message: str, details: dict[str, Any]) -> AuroraError:
    return cls(message, **details)


# ------------------------------------------------------------------------------------------- retry


class Retryable(AuroraError):
    """Nothing was changed. The same transaction, run again from its start, may succeed."""


class WriteConflict(Retryable):
    """Another transaction committed a change of the row after this one's snapshot."""

    table: str
    key: str
    snapshot: int
    by: int


class HistoryChanged(Retryable):
    """A backtrack has left what the transaction or view read: begin it again on the present history."""

    lsn: int | None


class SerializationFailure(Retryable):
    """Another transaction committed a change of what this serializable one has read. ``what`` is the key or range."""

    table: str
    what: str
    snapshot: int
    by: int


class Deadlock(Retryable):
    """Transactions wait for each other in a circle, and this one closed it.

    ``cycle`` has an edge for each: who waits, for which table and key, and who holds that. The transaction goes on if
    the error is caught, with the locks that it had.
    """

    cycle: list[tuple[int, str, str, int]]


class LockNotAvailable(Retryable):
    """Another transaction has locked the row, and ``nowait`` was said."""

    table: str
    key: str
    holder: int


class LockTimeout(Retryable):
    """The row's lock did not come within ``lock_timeout``. ``holder`` is the transaction that has it."""

    table: str
    key: str
    holder: int
    waited_s: float


class SnapshotTooOld(Retryable):
    """What the read point needs is no longer kept; a new transaction or view reads at a newer one."""

    snapshot: int
    floor: int


class LoadConflict(Retryable):
    """Rows came into the table while it was being loaded."""

    table: str


class SchemaChanged(Retryable):
    """A table was altered or emptied while a transaction was using it. Run again, it uses the table as it is now."""

    table: str
    since: int
    by: int


class WriterMoved(Retryable):
    """The instance does not write any more: another one has taken its place, or is about to."""

    writer: str | None


class ReplicaLag(Retryable):
    """A replica did not show a commit within the timeout of ``view(after=...)``."""

    instance: str
    expected: int
    got: int


class InstanceGone(Retryable):
    """The instance was removed; another one can be asked."""

    instance: str


class BackPressure(Retryable):
    """The volume takes no more changes until the copies have caught up."""


# ----------------------------------------------------------------------------------------- unknown


class OutcomeUnknown(AuroraError):
    """The operation may have taken effect. Reading it back, or its token, tells."""


class CommitUnknown(OutcomeUnknown):
    """The commit was numbered, but its durability was not confirmed.

    ``Cluster.run(fn, token=...)`` resolves it by the token once the cluster can be asked.
    """

    lsn: int
    token: str | None


# ------------------------------------------------------------------------------------------- usage


class UsageError(AuroraError):
    """The call or its data is wrong: change it."""


class InvalidOption(UsageError, ValueError):
    """An argument has a value that is not accepted."""

    option: str
    expected: str
    got: Any


class SchemaError(UsageError):
    """A row class or an Arrow schema does not describe a table."""

    column: str | None
    expected: str | None
    got: str | None


class SchemaMismatch(SchemaError):
    """The table exists with another schema than the one asked for."""

    table: str


class UnknownColumn(SchemaError, LookupError):
    """The table has no column of that name."""

    table: str | None


class UnknownTable(UsageError, LookupError):
    """No table of that name at the read point."""

    table: str


class TableDropped(UnknownTable):
    """The table was dropped: its handle is of no use any more. ``dropped`` is the LSN at which that happened."""

    dropped: int


class TableExists(UsageError):
    """A table of that name is there already; ``exist_ok=True`` opens it."""

    table: str


class UnknownIndex(UsageError, LookupError):
    """The table has no index of that name that has every row at the read point."""

    table: str
    index: str


class UnknownConstraint(UsageError, LookupError):
    """The table has no check or foreign key of that name."""

    table: str
    constraint: str


class IndexExists(UsageError):
    """The table has an index of that name already; ``exist_ok=True`` takes it."""

    table: str
    index: str


class QueryTooLarge(UsageError):
    """A query's groups, or the rows that it sorts, need more memory than they may take."""

    limit: int
    got: int


class ParallelQueryRefused(UsageError):
    """The instance is of a class that runs no parallel query."""

    instance_class: str


class InvalidValue(UsageError):
    """A value cannot be stored in its column. ``row`` is its number where many rows were given, counted from 0.

    ``row_key`` is the row's key where a column is to take ``None`` no more.
    """

    row: int | None
    row_key: str | None
    column: str | None
    expected: str | None
    got: str | None


class TypeMismatch(InvalidValue, TypeError):
    """A value has another type than its column."""


class ValueOutOfRange(InvalidValue, ValueError):
    """A value has the type of its column, but not its range or precision; or an expression has no value for a row.

    For an expression of an index, ``index`` names that, and ``key`` is the row's key.
    """

    index: str | None
    key: str | None


class NullViolation(InvalidValue, ValueError):
    """``None`` for a column that is not nullable."""


class KeyTooLong(InvalidValue, ValueError):
    """The encoded key is longer than a key may be."""

    limit: int


class RowTooLarge(InvalidValue, ValueError):
    """A row, or one value of it, is larger than may be stored."""

    limit: int


class DuplicateKey(UsageError):
    """A row with that key is there already, or one with the same values of a unique index.

    ``index`` names the index; it is ``None`` for the primary key. ``seen`` is the LSN at which the row was found; for a
    load, ``row`` is the number of the row that has the key.
    """

    table: str
    index: str | None
    key: str
    seen: int | None
    row: int | None


class ConstraintViolation(UsageError):
    """A row does not meet a constraint of its table. The transaction goes on without the change.

    ``row_key`` is the row's key where a constraint is added to rows that are there, ``row`` its number in a load.
    """

    table: str
    constraint: str
    key: str
    expected: str
    got: str
    row_key: str | None
    row: int | None


class CheckViolation(ConstraintViolation, ValueError):
    """A row makes a check false. ``expected`` is the condition, ``got`` the values that it reads."""


class ForeignKeyViolation(ConstraintViolation):
    """A row refers to a parent that is not there, or a parent is to be deleted while rows refer to it.

    ``table`` has the foreign key, ``parent`` the rows that it refers to; ``key`` is the parent's key.
    """

    parent: str


class TableReferenced(UsageError):
    """The table cannot be dropped, emptied or renamed: a foreign key links it to the table ``by``."""

    table: str
    by: str


class RowNotFound(UsageError, LookupError):
    """No row with that key."""

    table: str
    key: Any


class ReadOnlyInstance(UsageError):
    """A read-write transaction at a replica. ``writer`` is the instance that takes it."""

    writer: str


class UnknownInstance(UsageError, LookupError):
    """There is no instance of that name. ``there`` names those that there are."""

    instance: str
    there: list[str]


class UnknownEndpoint(UsageError, LookupError):
    """There is no custom endpoint of that name."""

    endpoint: str


class KeyUpdate(UsageError):
    """An update names a key column: delete the row and insert another."""

    table: str
    column: str


class TransactionTooLarge(UsageError):
    """A transaction holds more than one may; ``Cluster.load`` is for bulk data."""

    what: str
    limit: int
    got: int


class TokenUsed(UsageError):
    """A commit with this token has happened: what the transaction was to do is done.

    ``Cluster.run`` takes it as success.
    """

    token: str
    time: dt.datetime


class TransactionClosed(UsageError):
    """The transaction or view has ended, or has not been entered."""


class UnknownSavepoint(UsageError, LookupError):
    """The transaction has no such savepoint: it was released, or rolled back over."""

    name: str


class ReadOnlyTransaction(UsageError):
    """A write inside a read-only transaction or view."""


class TableNotEmpty(UsageError):
    """A sealed bulk load goes into an empty table."""

    table: str


class LoadOrder(UsageError, ValueError):
    """The rows of a bulk load with ``sort=False`` are not in ascending key order.

    So it is where the first rows were in order, and later ones are not: ``sort=True`` sorts them.
    """

    table: str
    last: str
    got: str


class MissingExtra(UsageError, ImportError):
    """A library is needed that is not installed: the message names the extra that brings it."""

    expected: str


class StreamFailed(UsageError):
    """The Arrow stream that was to be loaded broke off. Nothing was loaded."""


class AsyncMisuse(UsageError, RuntimeError):
    """A transaction was used in a way that would stop an event loop, or on another loop than its own."""


class UnknownSnapshot(UsageError, LookupError):
    """No snapshot of that name."""

    name: str


class SnapshotExists(UsageError):
    """A snapshot of that name is there already."""

    name: str


class OutsideWindow(UsageError, LookupError):
    """The asked LSN or time is before the window of kept versions, or is not yet here."""

    what: str
    expected: str
    got: str


# ------------------------------------------------------------------------------------- environment


class EnvironmentFault(AuroraError):
    """The program is right, what it runs on is not: a person or an operator acts."""


class AlreadyOpen(EnvironmentFault):
    """Another owner holds the directory. ``takeover=True`` ends it first."""

    path: str
    pid: int | None


class NotACluster(EnvironmentFault):
    """The directory is not a cluster, or a node directory belongs to another one."""

    path: str
    expected: str | None
    got: str | None


class NewerFormat(EnvironmentFault):
    """Written by a newer version of aurora-engine."""

    path: str | None
    expected: int
    got: int


class RegionMismatch(EnvironmentFault):
    """A cluster lives in one region."""

    expected: str
    got: str


class ReadOnlyCluster(EnvironmentFault):
    """The cluster was opened read-only, or has become so; ``reason`` says why."""

    reason: str


class QuorumLost(EnvironmentFault):
    """Too few copies are left to write. Reads are still answered where they can be."""

    have: int
    of: int
    need: int
    missing: list[str]
    hint: str


class DiskFull(EnvironmentFault):
    """No space is left on a device of the cluster."""

    path: str | None


class VolumeFull(EnvironmentFault):
    """The volume has its largest size, and all of it is in use."""

    bytes_max: int


class DiskFailed(EnvironmentFault):
    """The operating system refused a file operation."""

    path: str | None


class BackupFailed(EnvironmentFault):
    """A backup cannot be written, read or used: the message names the object, what was expected and what is there."""

    url: str


class LogFailed(EnvironmentFault):
    """The log could not be written and is not tried again: open the cluster again to go on."""


class Corrupt(EnvironmentFault):
    """Stored bytes are not what was written, on every copy that could be asked."""


class Damaged(Corrupt):
    """An object of a backup or of a cluster's directory is missing, or is not what was written.

    ``offset`` is in bytes of the object as it is stored; it is ``None`` where no one place is to blame.
    """

    object: str | None
    offset: int | None
    expected: str
    got: str


class Fenced(EnvironmentFault):
    """Another owner has taken a newer volume epoch: this one may write no more."""

    by: int


class ClusterClosed(EnvironmentFault):
    """The cluster has been closed."""


class ForkedProcess(EnvironmentFault):
    """The cluster was opened in the parent of this process.

    Its threads, locks and files did not come along. Open it in the child, or start workers with
    ``multiprocessing.set_start_method("spawn")``.
    """

    opened_by: int
    pid: int


class InternalError(EnvironmentFault):
    """A defect in aurora-engine: please report it with the message."""
