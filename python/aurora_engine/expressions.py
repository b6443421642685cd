"""Expressions over the columns of one row, for ``tx.update``: ``balance=col("balance") + 5``.

Integers and decimals are computed exactly and never rounded unless ``.round(scale)`` says so; floats are floats, and
the two do not mix, as in Python. An expression is evaluated inside the transaction, on the row as it reads it.
"""

from __future__ import annotations

from aurora_engine._engine import Expr, col

__all__ = ["Expr", "col"]
