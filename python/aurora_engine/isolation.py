"""What transactions are kept apart from, for type checkers. ``docs/transactions.md`` says what each level promises."""

from __future__ import annotations

import datetime as dt
from typing import Literal, TypeAlias

Isolation: TypeAlias = Literal["read committed", "snapshot", "repeatable read", "serializable"]
"""The isolation levels; ``"repeatable read"`` is another name of ``"snapshot"``, the default."""

LockTimeout: TypeAlias = float | dt.timedelta | None
"""For how long an operation waits for a row's lock: seconds, or ``None`` for ever."""

LOCK_TIMEOUT_S = 10.0
"""How long that is unless a transaction says otherwise."""
