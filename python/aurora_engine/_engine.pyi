# ruff: noqa: PYI021 - the docstrings of the compiled part are here
"""The compiled part of aurora_engine. Import its names from ``aurora_engine``."""

import datetime as dt
import os
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias, TypeVar, final, overload

from typing_extensions import disjoint_base

from aurora_engine.isolation import Isolation, LockTimeout
from aurora_engine.rows import AnyRow, ArrowRows, RowInput

_R = TypeVar("_R", bound=AnyRow)
_R_co = TypeVar("_R_co", bound=AnyRow, covariant=True)
_T_co = TypeVar("_T_co", covariant=True)

__all__ = [
    "Agg",
    "Aio",
    "AsyncRowIterator",
    "AsyncSavepoint",
    "AsyncTransaction",
    "Batches",
    "Cluster",
    "Commit",
    "Expr",
    "Faults",
    "GroupBy",
    "Index",
    "Instance",
    "Ready",
    "RowIterator",
    "Savepoint",
    "Scan",
    "Schema",
    "Table",
    "TextFunctions",
    "TimeFunctions",
    "Transaction",
    "View",
    "__version__",
    "_case",
    "add_check",
    "add_column",
    "add_reference",
    "analyze",
    "backups",
    "coalesce",
    "col",
    "count",
    "create_index",
    "drop_column",
    "drop_constraint",
    "drop_index",
    "drop_not_null",
    "explain_restore",
    "lit",
    "rename_column",
    "rename_table",
    "set_not_null",
    "statistics",
    "truncate",
    "widen_column",
]

__version__: str

@final
class Schema:
    """Columns and key of a table."""

    def __new__(cls, columns: Sequence[tuple[str, str, bool]], key: Sequence[tuple[str, bool]]) -> Self:
        """Columns as (name, stored type, nullable), key columns as (name, descending).

        Raises:
            SchemaError: no table can have these.
        """
    @staticmethod
    def from_arrow(schema: Any, key: Sequence[tuple[str, bool]]) -> Schema:
        """The schema for an Arrow one: anything with ``__arrow_c_schema__``."""
    @property
    def columns(self) -> tuple[tuple[str, str, bool], ...]:
        """Each column's name, stored type, and whether it takes ``None``."""
    @property
    def key(self) -> tuple[tuple[str, bool], ...]:
        """Each key column's name, and whether its largest value comes first."""
    def __arrow_c_schema__(self) -> Any:
        """The schema as an Arrow PyCapsule."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Table(Generic[_R_co]):
    """A table of rows of one class. It belongs to the cluster that made or opened it."""

    @property
    def name(self) -> str:
        """The table's name."""
    @property
    def row(self) -> type[_R_co]:
        """The class of its rows."""
    @property
    def schema(self) -> Schema:
        """Its columns and key."""
    def _batches(self, kinds: list[str], rows: list[Any]) -> Batches: ...
    @property
    def indexes(self) -> tuple[Index[_R_co], ...]:
        """Its indexes as they are now, also those that are being built."""
    def index(self, name: str) -> Index[_R_co]:
        """Its index of a name, to read by: ``tx.range(table.index("by_owner"), "ann")``.

        Raises:
            UnknownIndex: there is none.
        """
    @classmethod
    def __class_getitem__(cls, key: Any) -> Any: ...

@final
class Index(Generic[_R_co]):
    """An index of a table. ``range`` gives its rows in the order of the index, ``get`` one row by a unique index.

    Bounds and prefixes are values of its first columns, a tuple of them for several. ``None`` comes before all other
    values, or after them in a column whose largest value comes first.
    """

    @property
    def name(self) -> str:
        """Its name."""
    @property
    def table(self) -> Table[_R_co]:
        """Its table."""
    @property
    def columns(self) -> tuple[tuple[str, bool], ...]:
        """Each column's name, or expression as it is written, and whether its largest value comes first."""
    @property
    def unique(self) -> bool:
        """Whether two rows may not have the same values, unless one of these is ``None``."""
    @property
    def ready(self) -> bool:
        """Whether it had every row, and was not still being built, when it was asked for."""
    @classmethod
    def __class_getitem__(cls, key: Any) -> Any: ...

def create_index(
    cluster: Cluster,
    table: Table[_R],
    name: str,
    columns: Sequence[tuple[str | Expr, bool]],
    unique: bool,
    exist_ok: bool,
    report: Callable[..., None],
) -> Index[_R]: ...
def drop_index(cluster: Cluster, table: Table[Any], name: str) -> None: ...

# What an expression is combined with: another one, or a value of a column.
_Operand: TypeAlias = Expr | float | Decimal | str | bytes | dt.date | dt.time | uuid.UUID | None

@final
class Batches:
    """Record batches: hand them to anything that takes an Arrow stream."""

    def __arrow_c_schema__(self) -> Any:
        """The schema as an Arrow PyCapsule."""
    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The batches as an Arrow PyCapsule stream."""

@final
class Expr:
    """An expression over the columns of a row. Made by ``col``."""

    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __add__(self, other: _Operand, /) -> Expr: ...
    def __radd__(self, other: _Operand, /) -> Expr: ...
    def __sub__(self, other: _Operand, /) -> Expr: ...
    def __rsub__(self, other: _Operand, /) -> Expr: ...
    def __mul__(self, other: _Operand, /) -> Expr: ...
    def __rmul__(self, other: _Operand, /) -> Expr: ...
    def __truediv__(self, other: _Operand, /) -> Expr: ...
    def __rtruediv__(self, other: _Operand, /) -> Expr: ...
    def __floordiv__(self, other: _Operand, /) -> Expr: ...
    def __rfloordiv__(self, other: _Operand, /) -> Expr: ...
    def __mod__(self, other: _Operand, /) -> Expr: ...
    def __rmod__(self, other: _Operand, /) -> Expr: ...
    def __neg__(self) -> Expr: ...
    def __abs__(self) -> Expr: ...
    def __invert__(self) -> Expr: ...
    def __and__(self, other: _Operand, /) -> Expr: ...
    def __rand__(self, other: _Operand, /) -> Expr: ...
    def __or__(self, other: _Operand, /) -> Expr: ...
    def __ror__(self, other: _Operand, /) -> Expr: ...
    def __eq__(self, other: _Operand, /) -> Expr: ...  # type: ignore[override]
    def __ne__(self, other: _Operand, /) -> Expr: ...  # type: ignore[override]
    def __lt__(self, other: _Operand, /) -> Expr: ...
    def __le__(self, other: _Operand, /) -> Expr: ...
    def __gt__(self, other: _Operand, /) -> Expr: ...
    def __ge__(self, other: _Operand, /) -> Expr: ...
    def __bool__(self) -> bool: ...
    def is_null(self) -> Expr:
        """Whether there is no value."""
    def is_not_null(self) -> Expr:
        """Whether there is a value."""
    def is_in(self, values: Iterable[_Operand]) -> Expr:
        """Whether the value is one of these."""
    def is_between(self, lower: _Operand, upper: _Operand) -> Expr:
        """Whether the value lies between two others, both included."""
    def fill_null(self, value: _Operand) -> Expr:
        """The value, or another one where there is none."""
    def round(self, scale: int = 0) -> Expr:
        """Rounds to this many digits after the point, halves to the even neighbour."""
    def abs(self) -> Expr:
        """The number without its sign."""
    def cast(self, to: Any) -> Expr:
        """The value as another type: ``int``, ``Annotated[Decimal, precision(18, 2)]``, or a stored type's name."""
    def sum(self) -> Agg:
        """The sum of the values of a group."""
    def min(self) -> Agg:
        """The smallest value of a group."""
    def max(self) -> Agg:
        """The largest value of a group."""
    def mean(self) -> Agg:
        """The mean of a group, a float."""
    def count(self) -> Agg:
        """How many values of a group are not null."""
    def approx_n_unique(self) -> Agg:
        """Roughly how many different values a group has, null not counted: within 2 % two times of three."""
    def median(self) -> Agg:
        """The middle value of a group, a float; of an even number of values the mean of the middle two."""
    def quantile(
        self, quantile: float, interpolation: Literal["nearest", "lower", "higher", "midpoint", "linear"] = "nearest"
    ) -> Agg:
        """The value below which a share (0 to 1) of a group's values lie, a float. Keeps all values meanwhile.

        Raises:
            InvalidOption: a share that is not from 0 to 1, an interpolation of another name.
        """
    def approx_quantile(self, quantile: float) -> Agg:
        """The same within 1 % of the value, in memory that does not grow with the number of values.

        Infinity and NaN count as the largest float.

        Raises:
            InvalidOption: a share that is not from 0 to 1.
        """
    def n_unique(self) -> Agg:
        """How many different values a group has, null not counted."""
    def var(self) -> Agg:
        """The sample variance of a group, a float."""
    def std(self) -> Agg:
        """The sample standard deviation of a group, a float."""
    @property
    def str(self) -> TextFunctions:
        """Functions of texts."""
    @property
    def dt(self) -> TimeFunctions:
        """Functions of dates, times and timestamps."""

@final
class TextFunctions:
    """Functions of texts: ``col("name").str.starts_with("A")``."""

    def to_lowercase(self) -> Expr:
        """The text in lower case."""
    def to_uppercase(self) -> Expr:
        """The text in upper case."""
    def len_chars(self) -> Expr:
        """How many characters it has."""
    def strip_chars(self) -> Expr:
        """The text without spaces at its ends."""
    def starts_with(self, prefix: Expr | str) -> Expr:
        """Whether it begins with another text."""
    def ends_with(self, suffix: Expr | str) -> Expr:
        """Whether it ends with another text."""
    def contains(self, pattern: Expr | str, *, literal: bool = False) -> Expr:
        """Whether a regular expression, a constant, is found in it; with ``literal``, whether another text is."""
    def like(self, pattern: Expr | str) -> Expr:
        """Whether it is like a pattern: ``%`` is any run of characters, ``_`` any one, a backslash makes them plain."""
    def ilike(self, pattern: Expr | str) -> Expr:
        """The same whatever the case."""

@final
class TimeFunctions:
    """Functions of dates, times and timestamps: ``col("day").dt.year()``."""

    def year(self) -> Expr:
        """The year."""
    def quarter(self) -> Expr:
        """The quarter, 1 to 4."""
    def month(self) -> Expr:
        """The month, 1 to 12."""
    def day(self) -> Expr:
        """The day of the month, 1 to 31."""
    def weekday(self) -> Expr:
        """The day of the week, 1 (Monday) to 7."""
    def hour(self) -> Expr:
        """The hour, 0 to 23."""
    def minute(self) -> Expr:
        """The minute, 0 to 59."""
    def second(self) -> Expr:
        """The second, 0 to 59."""
    def date(self) -> Expr:
        """The date of a timestamp."""

def col(name: str) -> Expr:
    """The value of the column of this name: ``balance=col("balance") + 5``."""

def lit(value: _Operand) -> Expr:
    """A constant as an expression."""

def coalesce(*values: _Operand) -> Expr:
    """The first of these values that is not null."""

def _case(branches: Sequence[tuple[Expr, _Operand]], otherwise: _Operand) -> Expr: ...
def add_column(cluster: Cluster, table: str, column: str, kind: str, nullable: bool, default: Any) -> None: ...
def drop_column(cluster: Cluster, table: str, column: str) -> None: ...
def add_check(cluster: Cluster, table: Table[Any], name: str, condition: Expr, report: Callable[..., None]) -> None: ...
def add_reference(
    cluster: Cluster,
    table: Table[Any],
    name: str,
    columns: Sequence[str],
    parent: str,
    on_delete: str,
    report: Callable[..., None],
) -> None: ...
def set_not_null(cluster: Cluster, table: Table[Any], column: str, report: Callable[..., None]) -> None: ...
def drop_not_null(cluster: Cluster, table: str, column: str) -> None: ...
def drop_constraint(cluster: Cluster, table: Table[Any], name: str) -> None: ...
def rename_column(cluster: Cluster, table: str, column: str, to: str) -> None: ...
def rename_table(cluster: Cluster, table: str, to: str) -> None: ...
def truncate(cluster: Cluster, table: str) -> None: ...
def backups(url: str, key: bytes | None) -> dict[str, Any]: ...
def explain_restore(url: str, key: bytes | None, at: Commit | int | str | dt.datetime | None) -> dict[str, Any]: ...
def analyze(cluster: Cluster, table: str) -> None: ...
def statistics(
    cluster: Cluster, table: str
) -> tuple[int | None, int, int, tuple[int, dt.datetime, list[tuple[str, int, int, Any, Any]]] | None]: ...
def widen_column(cluster: Cluster, table: str, column: str, kind: str) -> None: ...

@final
class Commit:
    """A durable commit."""

    @property
    def lsn(self) -> int:
        """Its place in the volume's history. For a transaction that changed nothing: the newest change it read."""
    @property
    def time(self) -> dt.datetime:
        """When it was made, in UTC; later than every commit before it."""
    @property
    def copies(self) -> int:
        """How many copies have it at the least."""
    @property
    def token(self) -> str | None:
        """The caller's token."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class RowIterator(Generic[_R_co]):
    """The rows of a range, in key order. It reads a leaf at a time, and needs its transaction or view to be open."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> _R_co: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exc: object) -> None: ...
    def close(self) -> None:
        """Ends the iteration and frees what it holds."""
    @classmethod
    def __class_getitem__(cls, key: Any) -> Any: ...

@final
class AsyncRowIterator(Generic[_R_co]):
    """The rows of a range, in key order, for ``async for``."""

    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[_R_co]: ...
    @classmethod
    def __class_getitem__(cls, key: Any) -> Any: ...

@final
class Agg:
    """What is computed from the rows of a group: ``col("total").sum()``."""

def count() -> Agg:
    """How many rows a group has."""

@final
class GroupBy:
    """Rows in groups, before it is said what is wanted of each."""

    def agg(self, **aggregates: Agg) -> Scan[Any]:
        """A row for each group: its keys, and what is computed from its rows."""

@final
class Scan(Generic[_R_co]):
    """The rows of a table, or of a range of its keys or of an index, and what is asked of them.

    They are as they were when the scan was made.

    Each step gives a new scan, and nothing is read before it is wanted: iterate over it for rows, or hand it to
    anything that takes an Arrow stream: ``polars.DataFrame(scan)``, ``pyarrow.table(scan)``, ``duckdb.from_arrow``. It
    can be read more than once.
    """

    def __iter__(self) -> RowIterator[_R_co]: ...
    def filter(self, *conditions: Expr) -> Scan[_R_co]:
        """Rows for which all conditions are true; after ``agg``, groups.

        Raises:
            UnknownColumn, TypeMismatch: a condition makes no sense for the rows.
        """
    def select(self, *columns: Expr | str, **named: _Operand) -> Scan[Any]:
        """These columns, and expressions by name: ``select("id", total=col("price") * col("n"))``."""
    def with_columns(self, **named: _Operand) -> Scan[Any]:
        """The columns that there are, and expressions by name; one of a name that there is takes its place."""
    def group_by(self, *columns: Expr | str, **named: _Operand) -> GroupBy:
        """Rows in groups of equal values: ``group_by("owner", year=col("day").dt.year()).agg(...)``."""
    def agg(self, **aggregates: Agg) -> Scan[Any]:
        """One row of aggregates of all rows."""
    def sort(self, *columns: str, descending: bool = False) -> Scan[_R_co]:
        """The result in the order of these columns; with ``limit``, only the first rows are kept on the way."""
    def limit(self, rows: int) -> Scan[_R_co]:
        """At most so many rows."""
    def __arrow_c_schema__(self) -> Any:
        """The schema as an Arrow PyCapsule."""
    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The rows as an Arrow PyCapsule stream of record batches."""
    def count(self) -> int:
        """How many rows there are."""
    def to_arrow(self) -> Any:
        """The result as a ``pyarrow.Table``."""
    def to_polars(self) -> Any:
        """The result as a ``polars.DataFrame``."""
    def to_pandas(self) -> Any:
        """The result as a ``pandas.DataFrame``."""
    def to_dicts(self) -> list[dict[str, Any]]:
        """The result as dictionaries."""
    def explain(self, *, analyze: bool = False) -> str:
        """What the query does and where, as a text; with ``analyze`` it is run, and the text says what that took."""
    @classmethod
    def __class_getitem__(cls, key: Any) -> Any: ...

@final
class Transaction:
    """A transaction: ``with db.transaction() as tx``.

    Leaving the ``with`` statement commits it and returns when the commit is durable; an exception rolls it back. What
    it changes is seen by others when it has committed; what it sees of others depends on its isolation level. A row is
    locked when it is changed, until the commit has its place. Use it from one thread at a time.
    """

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]:
        """Commits, or rolls back if there is an exception.

        Raises:
            SerializationFailure, WriteConflict, SnapshotTooOld: nothing was changed; run it again, or use
                ``Cluster.run``.
            CommitUnknown: durability could not be confirmed.
        """
    @overload
    def get(
        self,
        table: Table[_R] | Index[_R],
        key: Any,
        *,
        columns: None = None,
        for_update: bool = False,
        nowait: bool = False,
        skip_locked: bool = False,
    ) -> _R | None: ...
    @overload
    def get(
        self,
        table: Table[Any] | Index[Any],
        key: Any,
        *,
        columns: Sequence[str],
        for_update: bool = False,
        nowait: bool = False,
        skip_locked: bool = False,
    ) -> Any:
        """The row of a key (a tuple for a key of several columns), or ``None``.

        Args:
            table: The table, or a unique index of it.
            key: The row's key.
            columns: Only these columns: the result is a part of a row.
            for_update: Lock the key first, whether there is a row or not: nobody else changes it before the commit.
                By the key only, not by an index.
            nowait: With ``for_update``: raise ``LockNotAvailable`` if another transaction has the lock.
            skip_locked: With ``for_update``: ``None`` if another transaction has the lock.

        Raises:
            LockTimeout, Deadlock: the lock did not come, or never would.
            WriteConflict: with ``for_update``: the row was changed since the transaction's snapshot.
        """

    @overload
    def get_many(self, table: Table[_R], keys: Iterable[Any], *, columns: None = None) -> list[_R | None]: ...
    @overload
    def get_many(self, table: Table[Any], keys: Iterable[Any], *, columns: Sequence[str]) -> list[Any]:
        """The rows of many keys in their order, ``None`` where there is none."""

    def insert(self, table: Table[_R], row: _R | RowInput) -> _R:
        """Adds a row, and returns it: numbered, if the table has an auto-increment column that it left out.

        As every change, it locks the key first.

        Raises:
            DuplicateKey: there is a row with its key, or with its values in a unique index.
            CheckViolation, ForeignKeyViolation: a constraint of the table refuses it.
            LockTimeout, Deadlock: the key's lock did not come, or never would.
            WriteConflict, SnapshotTooOld: the key was changed since the transaction's snapshot, or that is not known.
            TypeMismatch, ValueOutOfRange, NullViolation, KeyTooLong, RowTooLarge, TransactionTooLarge.
        """
    def upsert(self, table: Table[_R], row: _R | RowInput) -> None:
        """Adds a row, or replaces the one with its key."""
    def insert_many(self, table: Table[_R], rows: Iterable[_R | RowInput] | ArrowRows) -> int:
        """Adds rows, all of them or none, and returns how many: much cheaper than one call for each.

        All keys are locked first, in their order. Rows may refer to each other.

        Args:
            table: The table.
            rows: An iterable of rows, each a typed row, a dict, a tuple or a pydantic model; or an Arrow stream.

        Raises:
            DuplicateKey: there is a row with one of the keys, or two of the rows have one key; or a row has the values
                of another in a unique index.
            CheckViolation, ForeignKeyViolation: a constraint of the table refuses a row.
            LockTimeout, Deadlock: the lock of a key did not come, or never would.
            WriteConflict, SnapshotTooOld: a key was changed since the transaction's snapshot, or that is not known.
            TypeMismatch, ValueOutOfRange, NullViolation, KeyTooLong, RowTooLarge: ``row`` is the number of the row.
            TransactionTooLarge: ``Cluster.load`` is for so many rows.
        """
    def upsert_many(self, table: Table[_R], rows: Iterable[_R | RowInput] | ArrowRows) -> int:
        """Adds rows, or replaces those with their keys, and returns how many; of one key the last counts."""
    def update(self, table: Table[Any], key: Any, /, **changes: Any) -> None:
        """Sets columns of a row to values, or to expressions over its columns, which are evaluated under its lock.

        Raises:
            RowNotFound: there is no row with that key.
            KeyUpdate: a key column was named.
            UnknownColumn, TypeMismatch, ValueOutOfRange, NullViolation.
        """
    def delete(self, table: Table[Any], key: Any) -> bool:
        """Removes the row of a key; whether there was one."""
    @overload
    def range(
        self,
        table: Table[_R] | Index[_R],
        lo: Any = None,
        hi: Any = None,
        *,
        prefix: Any = None,
        limit: int | None = None,
        reverse: bool = False,
        columns: None = None,
        where: Expr | None = None,
        for_update: bool = False,
        nowait: bool = False,
        skip_locked: bool = False,
    ) -> RowIterator[_R]: ...
    @overload
    def range(
        self,
        table: Table[Any] | Index[Any],
        lo: Any = None,
        hi: Any = None,
        *,
        prefix: Any = None,
        limit: int | None = None,
        reverse: bool = False,
        columns: Sequence[str],
        where: Expr | None = None,
        for_update: bool = False,
        nowait: bool = False,
        skip_locked: bool = False,
    ) -> RowIterator[Any]:
        """The rows with ``lo <= key < hi`` in the order of the key, or all whose key begins with ``prefix``.

        For a key of several columns a bound is a tuple of its first values. It sees the changes that the transaction
        has made so far. Of the rows, those are given that meet ``where`` (``col("balance") > 100``), at most ``limit``,
        with the named ``columns`` only. With ``for_update`` these rows, and no others, are locked before they are
        given; ``nowait`` and ``skip_locked`` say what happens with those that others have locked, as in ``get``. Rows
        are locked in the order of the key, not of an index.
        """

    def scan(
        self,
        table: Table[_R] | Index[_R],
        lo: Any = None,
        hi: Any = None,
        *,
        prefix: Any = None,
        reverse: bool = False,
        parallel_query: Literal["off", "auto", "force"] | None = None,
    ) -> Scan[_R]:
        """The rows as the transaction sees them, its own changes among them, to iterate over or as an Arrow stream.

        What is read by an index is read while the transaction is open.
        """
    def savepoint(self, name: str | None = None) -> Savepoint:
        """Makes a place to which the transaction can be rolled back: ``with tx.savepoint()``.

        An exception in the block takes back what the block has changed, and goes on. With a name, ``rollback_to`` and
        ``release`` find it; one of the same name hides an earlier one.
        """
    def rollback_to(self, name: str) -> None:
        """Takes back what was changed since the newest savepoint of this name. It stays, and so do locks.

        Raises:
            UnknownSavepoint: there is none.
        """
    def release(self, name: str) -> None:
        """Forgets the newest savepoint of this name and those made after it; the changes stay.

        Raises:
            UnknownSavepoint: there is none.
        """
    @property
    def id(self) -> int | None:
        """Its number in messages about locks; ``None`` before it was entered."""
    @property
    def isolation(self) -> str:
        """Its isolation level."""
    def restore_rows(
        self,
        table: Table[_R],
        from_: Commit | int | str | dt.datetime,
        where: Callable[[_R], object] | None = None,
    ) -> dict[str, int]:
        """Makes the rows of a table what they were at a moment, as ordinary changes of this transaction.

        Rows that have gone since come back, rows that have changed are changed back, rows that have come since go.

        Args:
            table: The table.
            from_: A commit, an LSN, an aware time, or a snapshot's name.
            where: Only rows for which this is true, as they are now or as they were then.

        Returns:
            How many rows were put back (``insert``), changed back (``update``) and removed (``delete``).

        Raises:
            OutsideWindow: before the window, in the future, or in a history that a backtrack has left.
        """
    def rollback(self) -> None:
        """Gives up every change and ends the transaction."""
    def commit(self) -> Commit | None:
        """Commits now instead of at the end of the ``with`` statement."""
    @property
    def committed(self) -> Commit | None:
        """The commit, once it is durable."""
    def _on_loop_turn(self) -> None: ...

@final
class AsyncTransaction:
    """A transaction on an event loop: ``async with db.aio.transaction() as tx``. As ``Transaction``, but awaitable."""

    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Awaitable[None]: ...
    @overload
    def get(
        self,
        table: Table[_R] | Index[_R],
        key: Any,
        *,
        columns: None = None,
        for_update: bool = False,
        nowait: bool = False,
        skip_locked: bool = False,
    ) -> Awaitable[_R | None]: ...
    @overload
    def get(
        self,
        table: Table[Any] | Index[Any],
        key: Any,
        *,
        columns: Sequence[str],
        for_update: bool = False,
        nowait: bool = False,
        skip_locked: bool = False,
    ) -> Awaitable[Any]:
        """The row of a key (a tuple for a key of several columns), or ``None``; locked first with ``for_update``."""

    @overload
    def get_many(
        self, table: Table[_R], keys: Iterable[Any], *, columns: None = None
    ) -> Awaitable[list[_R | None]]: ...
    @overload
    def get_many(self, table: Table[Any], keys: Iterable[Any], *, columns: Sequence[str]) -> Awaitable[list[Any]]:
        """The rows of many keys in their order, ``None`` where there is none."""

    def insert(self, table: Table[_R], row: _R | RowInput) -> Awaitable[_R]:
        """Adds a row."""
    def upsert(self, table: Table[_R], row: _R | RowInput) -> Awaitable[None]:
        """Adds a row, or replaces the one with its key."""
    def insert_many(self, table: Table[_R], rows: Iterable[_R | RowInput] | ArrowRows) -> Awaitable[int]:
        """Adds rows, all of them or none; how many."""
    def upsert_many(self, table: Table[_R], rows: Iterable[_R | RowInput] | ArrowRows) -> Awaitable[int]:
        """Adds rows, or replaces those with their keys; how many."""
    def update(self, table: Table[Any], key: Any, /, **changes: Any) -> Awaitable[None]:
        """Sets columns of a row to values, or to expressions over its columns."""
    def delete(self, table: Table[Any], key: Any) -> Awaitable[bool]:
        """Removes the row of a key; whether there was one."""
    @overload
    def range(
        self,
        table: Table[_R] | Index[_R],
        lo: Any = None,
        hi: Any = None,
        *,
        prefix: Any = None,
        limit: int | None = None,
        reverse: bool = False,
        columns: None = None,
        where: Expr | None = None,
        for_update: bool = False,
        nowait: bool = False,
        skip_locked: bool = False,
    ) -> AsyncRowIterator[_R]: ...
    @overload
    def range(
        self,
        table: Table[Any] | Index[Any],
        lo: Any = None,
        hi: Any = None,
        *,
        prefix: Any = None,
        limit: int | None = None,
        reverse: bool = False,
        columns: Sequence[str],
        where: Expr | None = None,
        for_update: bool = False,
        nowait: bool = False,
        skip_locked: bool = False,
    ) -> AsyncRowIterator[Any]:
        """The rows of a range, for ``async for``."""

    def savepoint(self, name: str | None = None) -> AsyncSavepoint:
        """Makes a place to which the transaction can be rolled back: ``async with tx.savepoint()``."""
    def rollback_to(self, name: str) -> Awaitable[None]:
        """Takes back what was changed since the newest savepoint of this name."""
    def release(self, name: str) -> Awaitable[None]:
        """Forgets the newest savepoint of this name and those made after it; the changes stay."""
    @property
    def id(self) -> int | None:
        """Its number in messages about locks; ``None`` before it was entered."""
    @property
    def isolation(self) -> str:
        """Its isolation level."""
    def rollback(self) -> Awaitable[None]:
        """Gives up every change and ends the transaction."""
    def commit(self) -> Awaitable[None]:
        """Commits now instead of at the end of the ``async with`` statement."""
    @property
    def committed(self) -> Commit | None:
        """The commit, once it is durable."""

@final
class Savepoint:
    """A savepoint: ``with tx.savepoint()``. An exception takes back what the block has changed."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...
    def rollback(self) -> None:
        """Takes back what was changed since. The savepoint stays, and so do locks."""
    def release(self) -> None:
        """Forgets the savepoint; the changes stay."""
    @property
    def name(self) -> str | None:
        """Its name, if it has one."""

@final
class AsyncSavepoint:
    """A savepoint on an event loop: ``async with tx.savepoint()``."""

    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Awaitable[None]: ...
    def rollback(self) -> Awaitable[None]:
        """Takes back what was changed since. The savepoint stays, and so do locks."""
    def release(self) -> Awaitable[None]:
        """Forgets the savepoint; the changes stay."""
    @property
    def name(self) -> str | None:
        """Its name, if it has one."""

@final
class Ready(Generic[_T_co]):
    """An awaitable that is complete: awaiting it does not go through the event loop."""

    def __await__(self) -> Generator[Any, None, _T_co]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    @classmethod
    def __class_getitem__(cls, key: Any) -> Any: ...

@final
class View:
    """Everything as it was at one LSN. Close it, or use it in a ``with`` statement: it keeps old versions alive."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_exc: object) -> None: ...
    def close(self) -> None:
        """Ends the view."""
    @property
    def lsn(self) -> int:
        """What the view sees: everything up to this LSN."""
    def table(self, name: str) -> Table[Any]:
        """A table as it was then: its columns of that time, under its name of that time.

        Raises:
            UnknownTable: there was none of this name.
        """
    @overload
    def get(self, table: Table[_R] | Index[_R], key: Any, *, columns: None = None) -> _R | None: ...
    @overload
    def get(self, table: Table[Any] | Index[Any], key: Any, *, columns: Sequence[str]) -> Any:
        """The row of a key (a tuple for a key of several columns), or ``None``; with ``columns``, these only."""

    @overload
    def get_many(self, table: Table[_R], keys: Iterable[Any], *, columns: None = None) -> list[_R | None]: ...
    @overload
    def get_many(self, table: Table[Any], keys: Iterable[Any], *, columns: Sequence[str]) -> list[Any]:
        """The rows of many keys in their order, ``None`` where there is none."""

    @overload
    def range(
        self,
        table: Table[_R] | Index[_R],
        lo: Any = None,
        hi: Any = None,
        *,
        prefix: Any = None,
        limit: int | None = None,
        reverse: bool = False,
        columns: None = None,
        where: Expr | None = None,
    ) -> RowIterator[_R]: ...
    @overload
    def range(
        self,
        table: Table[Any] | Index[Any],
        lo: Any = None,
        hi: Any = None,
        *,
        prefix: Any = None,
        limit: int | None = None,
        reverse: bool = False,
        columns: Sequence[str],
        where: Expr | None = None,
    ) -> RowIterator[Any]:
        """The rows with ``lo <= key < hi`` in the order of the key, or all whose key begins with ``prefix``."""

    def scan(
        self,
        table: Table[_R] | Index[_R],
        lo: Any = None,
        hi: Any = None,
        *,
        prefix: Any = None,
        reverse: bool = False,
        parallel_query: Literal["off", "auto", "force"] | None = None,
    ) -> Scan[_R]:
        """The rows of a range, as rows or as an Arrow stream, or what a query makes of them."""

@final
class Faults:
    """The faults of one cluster; ``aurora_engine.faults`` gives them their shape."""

    def __new__(cls, cluster: Cluster) -> Self: ...
    def nodes(self) -> list[tuple[str, str, str]]:
        """Name, Availability Zone and directory of every storage node."""
    def start(
        self, kind: str, node: str | None, *, percent: int = 100, least_ms: float = 0.0, most_ms: float = 0.0
    ) -> tuple[int, str]:
        """Has something break; gives its number and what it is in words."""
    def end(self, number: int) -> bool:
        """Has it work again; False when it does already."""
    def end_all(self) -> None:
        """Ends every fault."""
    def active(self) -> list[tuple[int, str]]:
        """What is on: number and words."""
    @property
    def crash_is_armed(self) -> bool:
        """Whether a crash waits for the next commit."""
    def crash_writer(self, during_commit: str | None = None) -> None:
        """Ends the writer as a crash would: now, or with ``"lost"`` or ``"kept"`` during the next commit."""
    def crash_replica(self, name: str) -> None:
        """Ends a replica as a crash would."""
    def corrupt_page(self, node: str) -> tuple[str, int, int]:
        """Spoils a sector on a node's disk; gives the file, the offset and the number of bytes."""
    def seed(self, seed: int) -> None:
        """Has all dice fall from a seed on."""

@final
class Instance:
    """An instance of a cluster, as an endpoint sees it."""

    @property
    def name(self) -> str:
        """Its name."""
    @property
    def role(self) -> str:
        """``writer``, ``replica``, ``fenced`` or ``crashed``."""
    @property
    def tier(self) -> int:
        """Its promotion tier: 0 is first."""
    @property
    def instance_class(self) -> str:
        """Its class."""
    @property
    def lsn(self) -> int:
        """What its readers see: everything up to this LSN."""
    @property
    def connections(self) -> int:
        """Views and transactions that are open here."""
    def view(self, *, at: Any = None, after: Commit | int | None = None, timeout_s: float | None = None) -> View:
        """A consistent view here."""
    def transaction(
        self,
        *,
        isolation: Isolation = "snapshot",
        read_only: bool = True,
        token: str | None = None,
        lock_timeout: LockTimeout = ...,
    ) -> Transaction:
        """A transaction here; one that writes is refused by all but the writer."""
    @overload
    def get(self, table: Table[_R] | Index[_R], key: Any, *, columns: None = None) -> _R | None: ...
    @overload
    def get(self, table: Table[Any] | Index[Any], key: Any, *, columns: Sequence[str]) -> Any:
        """The row of a key as this instance shows it now, or ``None``; with ``columns``, these only."""

    @overload
    def get_many(self, table: Table[_R], keys: Iterable[Any], *, columns: None = None) -> list[_R | None]: ...
    @overload
    def get_many(self, table: Table[Any], keys: Iterable[Any], *, columns: Sequence[str]) -> list[Any]:
        """The rows of many keys as this instance shows them now."""

    def _crash(self) -> None: ...
    def _pause(self, paused: bool) -> None: ...

@disjoint_base
class Aio:
    """The asynchronous side of a cluster. ``aurora_engine.Aio`` adds the policies."""

    def __new__(cls, cluster: Cluster) -> Self: ...
    @property
    def cluster(self) -> Any:
        """The cluster."""
    def transaction(
        self,
        *,
        isolation: Isolation = "snapshot",
        read_only: bool = False,
        token: str | None = None,
        lock_timeout: LockTimeout = ...,
    ) -> AsyncTransaction:
        """A transaction: ``async with db.aio.transaction() as tx``."""
    @overload
    def get(self, table: Table[_R] | Index[_R], key: Any, *, columns: None = None) -> Awaitable[_R | None]: ...
    @overload
    def get(self, table: Table[Any] | Index[Any], key: Any, *, columns: Sequence[str]) -> Awaitable[Any]:
        """The row of a key as it is durable now, or ``None``; with ``columns``, these only."""

    @overload
    def get_many(
        self, table: Table[_R], keys: Iterable[Any], *, columns: None = None
    ) -> Awaitable[list[_R | None]]: ...
    @overload
    def get_many(self, table: Table[Any], keys: Iterable[Any], *, columns: Sequence[str]) -> Awaitable[list[Any]]:
        """The rows of many keys as they are durable now."""

@disjoint_base
class Cluster:
    """An open cluster. ``aurora_engine.Cluster`` adds the policies."""

    def __new__(
        cls,
        path: str | None,
        *,
        create: bool = True,
        read_only: bool = False,
        takeover: bool = False,
        region: str | None = None,
        cache_bytes: int | None = None,
        page_bytes: int | None = None,
        segment_bytes: int | None = None,
        window_s: float | None = None,
        nodes: Sequence[tuple[str, str | os.PathLike[str]]] | None = None,
        background_bytes_per_s: int | None = None,
        replicas: int = 0,
        detection_s: float | None = None,
        conflict_bytes: int | None = None,
        clone_of: Cluster | None = None,
        clone_at: Commit | int | str | dt.datetime | None = None,
        backup: tuple[str, int, bytes | None, int] | None = None,
        restore_from: tuple[str, bytes | None] | None = None,
        restore_at: Commit | int | str | dt.datetime | None = None,
    ) -> Self: ...
    def close(self) -> None:
        """Ends the cluster and gives its directory free. Commits that were acknowledged are durable already."""
    @property
    def closed(self) -> bool:
        """Whether the cluster was closed."""
    @property
    def path(self) -> str | None:
        """The cluster's directory; ``None`` in memory."""
    @property
    def vdl(self) -> int:
        """The volume durable LSN: what read-only work sees."""
    def drop_table(self, name: str) -> None:
        """Removes a table and gives its space free.

        Raises:
            UnknownTable: there is none of this name.
        """
    def tables(self) -> list[str]:
        """The names of the tables."""
    def transaction(
        self,
        *,
        isolation: Isolation = "snapshot",
        read_only: bool = False,
        token: str | None = None,
        lock_timeout: LockTimeout = ...,
    ) -> Transaction:
        """A transaction: ``with db.transaction() as tx``.

        Args:
            isolation: What it is kept apart from: ``"read committed"``, ``"snapshot"`` (or ``"repeatable read"``) or
                ``"serializable"``.
            read_only: Read what is durable, and refuse writes.
            token: A name for the commit, kept for 24 hours: ``committed(token)`` tells whether it happened.
            lock_timeout: For how long an operation waits for a row's lock before it raises ``LockTimeout``: seconds
                (10 by default) or a ``timedelta``; 0 does not wait, ``None`` waits for ever.
        """
    @overload
    def get(self, table: Table[_R] | Index[_R], key: Any, *, columns: None = None) -> _R | None: ...
    @overload
    def get(self, table: Table[Any] | Index[Any], key: Any, *, columns: Sequence[str]) -> Any:
        """The row of a key as it is durable now, or ``None``; with ``columns``, these only."""

    @overload
    def get_many(self, table: Table[_R], keys: Iterable[Any], *, columns: None = None) -> list[_R | None]: ...
    @overload
    def get_many(self, table: Table[Any], keys: Iterable[Any], *, columns: Sequence[str]) -> list[Any]:
        """The rows of many keys as they are durable now, all at one moment."""

    def view(self, *, at: Commit | int | dt.datetime | None = None, after: Commit | int | None = None) -> View:
        """A consistent view.

        Args:
            at: An LSN, a commit, or an aware time: everything as it was then.
            after: A commit, or its LSN: at the newest durable LSN that includes it.

        Raises:
            OutsideWindow: no longer kept, or not yet here.
        """
    def scan(
        self,
        table: Table[_R] | Index[_R],
        lo: Any = None,
        hi: Any = None,
        *,
        prefix: Any = None,
        reverse: bool = False,
        at: Commit | int | dt.datetime | None = None,
        parallel_query: Literal["off", "auto", "force"] | None = None,
    ) -> Scan[_R]:
        """The rows of a table or of a range of its keys, as rows or as an Arrow stream, or what a query makes of them.

        Args:
            table: The table, or an index of it: the rows come in the order of the index, and bounds are its values.
            lo: Where the range begins, included.
            hi: Where it ends, left out.
            prefix: The first values of the keys, instead of ``lo`` and ``hi``.
            reverse: From the end to the beginning.
            at: An LSN, a commit, or an aware time: everything as it was then.
            parallel_query: Whether the storage nodes run the query; by default as the cluster is set.

        Raises:
            OutsideWindow: ``at`` is no longer kept, or not yet here.
        """
    def committed(self, token: str) -> Commit | None:
        """The commit that was made with a token, if one was in the last 24 hours."""
    def _create_table(
        self, name: str, schema: Schema, row: type[Any], exist_ok: bool, extras: dict[str, Any]
    ) -> Table[Any]: ...
    def _table_schema(self, name: str) -> Schema: ...
    def _open_table(self, name: str, row: type[Any]) -> Table[Any]: ...
    def _load(
        self,
        table: Table[Any],
        parts: Iterable[Any],
        report: Callable[[str, int, int], None],
        sort: bool | None,
        on_conflict: str,
        memory_bytes: int,
    ) -> tuple[int, int, int]: ...
    def _backtrack(self, to: Commit | int | str | dt.datetime, use_earliest: bool) -> dict[str, Any]: ...
    def _find(self, to: Commit | int | str | dt.datetime) -> tuple[int, dt.datetime]: ...
    def _backup_status(self) -> dict[str, Any] | None: ...
    def _backup_wait(self, lsn: int | None, seconds: float) -> int: ...
    def _backup_base(self, seconds: float) -> int: ...
    def _record_tables(self, snapshot: str, tables: list[tuple[str, int, str]]) -> None: ...
    def _restored(self) -> dict[str, Any] | None: ...
    def _snapshot(self, name: str) -> dict[str, Any]: ...
    def _snapshots(self) -> list[dict[str, Any]]: ...
    def delete_snapshot(self, name: str) -> None:
        """Keeps the moment of a snapshot no longer.

        Raises:
            UnknownSnapshot: there is none of this name.
        """
    def _window(self) -> dict[str, Any]: ...
    def _set_window(self, seconds: float) -> None: ...
    def _set_parallel_query(self, mode: str, instance_class: str | None) -> None: ...
    def _parallel_query(self) -> tuple[str, str | None]: ...
    def _pq_counters(self) -> dict[str, int]: ...
    def _status(self) -> dict[str, Any]: ...
    def _add_replica(
        self, name: str | None, tier: int | None, instance_class: str | None, region: str | None
    ) -> Instance: ...
    def remove_replica(self, name: str) -> None:
        """Removes a replica; what is open there can still be read."""
    def _instances(self) -> list[Instance]: ...
    def _instance(self, name: str) -> Instance: ...
    def _reader(self, names: list[str] | None = None) -> Instance: ...
    def _failover(self, to: str | None, forced: bool) -> tuple[str, str, float]: ...
    def _set_choose(self, choose: Callable[[list[dict[str, Any]]], str | None] | None) -> None: ...
    def _events(self) -> list[dict[str, Any]]: ...
