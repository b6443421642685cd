"""aurora-engine: Aurora's architecture as a library.

.. code-block:: python

    import aurora_engine as au

    class Account(au.Row, key="id"):
        id: int
        owner: str

    with au.open("data/bank") as db:
        accounts = db.create_table("accounts", Account, exist_ok=True)
        with db.transaction() as tx:
            tx.insert(accounts, Account(1, "Ann"))
        print(db.get(accounts, 1), tx.committed)
"""

from __future__ import annotations

from aurora_engine import exceptions, faults
from aurora_engine._engine import (
    Agg,
    AsyncSavepoint,
    AsyncTransaction,
    Commit,
    Expr,
    GroupBy,
    Index,
    RowIterator,
    Savepoint,
    Scan,
    Schema,
    Table,
    Transaction,
    View,
    __version__,
    coalesce,
    col,
    count,
    lit,
)
from aurora_engine.aio import Aio
from aurora_engine.backup import (
    Backups,
    BackupSnapshot,
    BackupStatus,
    RestorePlan,
    TableDigest,
    backups,
    explain_restore,
)
from aurora_engine.cluster import Cluster, open  # noqa: A004 - `au.open` is meant
from aurora_engine.drop import drop_cluster
from aurora_engine.endpoints import Endpoint, Failover, Reader
from aurora_engine.exceptions import AuroraError, EnvironmentFault, OutcomeUnknown, Retryable, UsageError
from aurora_engine.expressions import when
from aurora_engine.history import Backtrack, BacktrackWindow, Change, Changes, Snapshot
from aurora_engine.restore import RestoredCluster, RestoreProof, TableProof, restore
from aurora_engine.rows import Row, asdict, astuple, desc, replace
from aurora_engine.rules import auto, check, default, foreign_key, index, now
from aurora_engine.statistics import ColumnStatistics, TableStatistics
from aurora_engine.status import Event, InstanceStatus, NodeStatus, Status
from aurora_engine.types import (
    Float32,
    Float64,
    Instant,
    Int8,
    Int16,
    Int32,
    Int64,
    Json,
    precision,
    zoned,
)
from aurora_engine.verification import verify

__all__ = [
    "Agg",
    "Aio",
    "AsyncSavepoint",
    "AsyncTransaction",
    "AuroraError",
    "Backtrack",
    "BacktrackWindow",
    "BackupSnapshot",
    "BackupStatus",
    "Backups",
    "Change",
    "Changes",
    "Cluster",
    "ColumnStatistics",
    "Commit",
    "Endpoint",
    "EnvironmentFault",
    "Event",
    "Expr",
    "Failover",
    "Float32",
    "Float64",
    "GroupBy",
    "Index",
    "InstanceStatus",
    "Instant",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Json",
    "NodeStatus",
    "OutcomeUnknown",
    "Reader",
    "RestorePlan",
    "RestoreProof",
    "RestoredCluster",
    "Retryable",
    "Row",
    "RowIterator",
    "Savepoint",
    "Scan",
    "Schema",
    "Snapshot",
    "Status",
    "Table",
    "TableDigest",
    "TableProof",
    "TableStatistics",
    "Transaction",
    "UsageError",
    "View",
    "__version__",
    "asdict",
    "astuple",
    "auto",
    "backups",
    "check",
    "coalesce",
    "col",
    "count",
    "default",
    "desc",
    "drop_cluster",
    "exceptions",
    "explain_restore",
    "faults",
    "foreign_key",
    "index",
    "lit",
    "now",
    "open",
    "precision",
    "replace",
    "restore",
    "verify",
    "when",
    "zoned",
]
