"""What a table has beside columns and key: indexes, checks, foreign keys, defaults, numbered columns.

.. code-block:: python

    class Account(
        au.Row,
        key="id",
        indexes=[au.index("by_owner", "owner", au.desc("opened")), au.index("by_email", "email", unique=True)],
        constraints=[
            au.check("solvent", col("balance") >= 0),
            au.foreign_key("owner", parent="owners", on_delete="cascade"),
        ],
    ):
        id: int = au.auto()
        owner: int
        email: str | None
        opened: au.Instant = au.default(au.now)
        balance: Annotated[Decimal, au.precision(18, 2)] = Decimal(0)
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aurora_engine.exceptions import SchemaError

if TYPE_CHECKING:
    from aurora_engine._engine import Expr, Table
    from aurora_engine.rows import IndexColumn

OnDelete = Literal["restrict", "cascade", "set null"]
"""What becomes of rows whose parent is deleted: the parent stays, they go too, or their columns become ``None``."""


@dataclass(frozen=True, slots=True)
class Default:
    """A default that is made anew for each row. Made by :func:`default` and :func:`auto`."""

    make: Callable[[], Any]
    is_auto: bool = False


def default(make: Callable[[], Any]) -> Any:
    """A column's default that is made for each row: ``opened: au.Instant = au.default(au.now)``.

    It is called where the row is made, before it is inserted: ``uuid.uuid4``, ``au.now``, ``list`` for ``Json``.
    """
    return Default(make)


def auto() -> Any:
    """Numbers a column: ``id: int = au.auto()``.

    A row that is made without the column has ``None`` there until it is inserted; ``tx.insert`` returns it numbered.
    Numbers ascend, have gaps, and are never given twice. A row that brings its own number moves the next one past it.
    """
    return Default(lambda: None, is_auto=True)


def now() -> dt.datetime:
    """The present moment in UTC, for ``au.default(au.now)`` in an ``Instant`` column."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class IndexOn:
    """An index that a table is to have. Made by :func:`index`."""

    name: str
    columns: tuple[IndexColumn, ...]
    unique: bool = False


def index(name: str, *columns: IndexColumn, unique: bool = False) -> IndexOn:
    """An index of a table: its name, its columns (:func:`desc` turns one around), and whether it is unique.

    A column may be an expression: ``au.index("by_owner", col("owner").str.to_lowercase(), "opened")``. It is evaluated
    when a row is written; look-ups give its value.

    In a unique index two rows may not have the same values, unless one of these is ``None``.
    """
    return IndexOn(name, columns, unique)


@dataclass(frozen=True, slots=True)
class Check:
    """A condition that no row may make false. Made by :func:`check`."""

    name: str
    condition: Expr


def check(name: str, condition: Expr) -> Check:
    """A condition that no row may make false: ``au.check("solvent", col("balance") >= 0)``.

    A row for which it is unknown, because a value is ``None``, passes, as in SQL.
    """
    return Check(name, condition)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Columns that hold the key of a row of another table. Made by :func:`foreign_key`."""

    name: str
    columns: tuple[str, ...]
    parent: str
    on_delete: OnDelete


def foreign_key(
    *columns: str, parent: Table[Any] | str, on_delete: OnDelete = "restrict", name: str | None = None
) -> ForeignKey:
    """Columns that hold the primary key of a row of ``parent``, or ``None``.

    Args:
        columns: The columns, in the order of the parent's key.
        parent: The table, or its name; a table may refer to itself.
        on_delete: What becomes of the rows when their parent is deleted: ``"restrict"`` refuses to delete it,
            ``"cascade"`` deletes them too, ``"set null"`` sets the columns to ``None``.
        name: The constraint's name, and that of the index by the columns that comes with it. By default the columns
            joined by ``_``, and ``_fk``.
    """
    return ForeignKey(
        name or "_".join(columns) + "_fk", columns, parent if isinstance(parent, str) else parent.name, on_delete
    )


Constraint = Check | ForeignKey


def extras(of: str, indexes: Sequence[IndexOn], constraints: Sequence[Constraint], auto: str | None) -> dict[str, Any]:
    """What the engine takes: plain lists."""
    from aurora_engine.rows import index_parts  # noqa: PLC0415 - rows imports this module

    for declared in indexes:
        if not isinstance(declared, IndexOn):
            raise _wrong(of, "indexes", "what au.index() makes", declared)
    for rule in constraints:
        if not isinstance(rule, Constraint):
            raise _wrong(of, "constraints", "what au.check() and au.foreign_key() make", rule)
    return {
        "indexes": [(one.name, index_parts(one.columns, f"index {one.name}"), one.unique) for one in indexes],
        "checks": [(one.name, one.condition) for one in constraints if isinstance(one, Check)],
        "references": [
            (one.name, list(one.columns), one.parent, one.on_delete)
            for one in constraints
            if isinstance(one, ForeignKey)
        ],
        "auto": auto,
    }


def _wrong(of: str, option: str, expected: str, got: object) -> SchemaError:
    shown = f"{type(got).__name__} {got!r}"
    return SchemaError(f"{of}: expected in {option} {expected}, got {shown}", expected=expected, got=shown)
