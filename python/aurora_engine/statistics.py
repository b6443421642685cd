"""What is known of a table's rows."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from aurora_engine import _engine


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """What the last ``analyze`` has found in a column."""

    nulls: int
    """Rows in which it is ``None``."""
    distinct: int
    """How many different values there are, within about 2%. Values in overflow pages all count as different."""
    least: Any
    """The smallest value; texts and bytes of more than 64 bytes, and json, are left out."""
    greatest: Any
    """The largest value; texts and bytes of more than 64 bytes, and json, are left out."""


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """Figures of a table: its size as it is now, its columns as the last ``analyze`` has found them."""

    rows: int | None
    """Rows, counted by ``analyze`` and kept up to date by commits since; ``None`` if they were never counted."""
    bytes: int
    """Bytes of the extents that the table has."""
    index_bytes: int
    """Bytes of the extents that its indexes have."""
    analyzed_lsn: int | None
    """The LSN that the last ``analyze`` has read."""
    analyzed: dt.datetime | None
    """When that was."""
    columns: dict[str, ColumnStatistics]
    """By name, in the table's order; empty before the first ``analyze``."""


def statistics_of(cluster: _engine.Cluster, name: str) -> TableStatistics:
    """The figures of a table."""
    rows, size, index_size, analyzed = _engine.statistics(cluster, name)
    lsn, time, columns = analyzed if analyzed is not None else (None, None, [])
    return TableStatistics(
        rows, size, index_size, lsn, time, {name: ColumnStatistics(*figures) for name, *figures in columns}
    )
