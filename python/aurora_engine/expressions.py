"""Expressions over the columns of one row: one language for updates, filters, constraints and aggregates.

.. code-block:: python

    tx.update(accounts, 1, balance=col("balance") + 5)
    db.scan(orders).filter((col("status") == "open") & (col("total") > Decimal("99.50")))

Integers and decimals are computed exactly and never rounded unless ``.round(scale)`` says so; floats are floats, and
decimals do not mix with them. Logic is three-valued, as in SQL: a comparison with ``None`` is neither true nor false.
An update's expressions are evaluated under the row's lock, on the row as nobody else can change it before the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_engine._engine import Expr, _case, coalesce, col, lit

if TYPE_CHECKING:
    from aurora_engine._engine import _Operand

__all__ = ["Expr", "coalesce", "col", "lit", "when"]


class Then:
    """A chain of conditions and values: ``.when(...)`` adds one, ``.otherwise(...)`` ends it."""

    def __init__(self, branches: list[tuple[Expr, _Operand]]) -> None:
        """Use ``when(condition).then(value)``."""
        self._branches = branches

    def when(self, condition: Expr) -> When:
        """Another condition, for rows in which those before are not true."""
        return When(condition, self._branches)

    def otherwise(self, value: _Operand) -> Expr:
        """The value where no condition is true."""
        return _case(self._branches, value)


class When:
    """A condition that waits for its value."""

    def __init__(self, condition: Expr, before: list[tuple[Expr, _Operand]]) -> None:
        """Use ``when(condition)``."""
        self._condition = condition
        self._before = before

    def then(self, value: _Operand) -> Then:
        """The value where the condition is true."""
        return Then([*self._before, (self._condition, value)])


def when(condition: Expr) -> When:
    """A value that depends: ``when(col("n") > 0).then("some").otherwise("none")``."""
    return When(condition, [])
