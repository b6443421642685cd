"""Verifying a backup, or a cluster that nobody has open, with a reader that shares no code with the writer."""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aurora_engine.exceptions import MissingExtra

if TYPE_CHECKING:
    from aurora_engine._engine import Commit
    from aurora_engine.history import Snapshot
    from aurora_engine.verifier import Report

Told = Callable[[int, int, str], object]


def verify(
    url: str | os.PathLike[str],
    key: bytes | Callable[[], bytes] | None = None,
    *,
    at: Commit | int | dt.datetime | Snapshot | str | None = None,
    tables: Iterable[str] | None = None,
    progress: bool | Told | None = None,
) -> Report:
    """Checks every object and rebuilds every table, from the bytes alone.

    .. code-block:: python

        report = au.verify("s3://bucket/bank")
        print(report)                       # every kind of object, every table, every problem
        report.raise_for_problems()
        report.table("accounts")            # its rows, as a pyarrow.Table

    It is written in plain Python for this one purpose, and reads the formats as they are documented: see
    ``aurora_engine.verifier``. Nothing is changed. What is damaged is named by object and offset in
    ``report.problems``, and does not end the verification.

    Args:
        url: A backup (a path, ``file://`` or ``s3://bucket/prefix``), or the directory of a cluster or of one storage
            node. Nobody may have the cluster open.
        key: The 32 bytes with which a backup is encrypted, or what gives them.
        at: The moment at which tables are rebuilt: a commit, an LSN, an aware time, a snapshot or its name; the latest
            by default.
        tables: The tables to rebuild; all by default. None are with ``[]``.
        progress: Whether to show a bar; by default where standard error is a terminal. Or a function that is told how
            much is done, of how much, and of what.

    Raises:
        NotACluster: there is nothing to verify. AlreadyOpen: somebody has the cluster open.
        OutsideWindow, UnknownSnapshot: there is no such moment. UnknownTable: there is no such table.
        InvalidOption: the key is missing or another one. NewerFormat: it was written by a newer version.
        MissingExtra: a library is missing, of ``pip install 'aurora-engine[verify]'``.
    """
    try:
        from aurora_engine.verifier.run import Verification  # noqa: PLC0415 - of the extra "verify"
    except ModuleNotFoundError as error:
        expected = f"{error.name}: pip install 'aurora-engine[verify]'"
        raise MissingExtra(f"expected {expected}, got none", expected=expected) from error
    with _told(progress) as told:
        return Verification(os.fspath(url), key, at, tables, told).run()


@contextmanager
def _told(progress: bool | Told | None) -> Iterator[Told]:
    if callable(progress):
        yield progress
    elif progress or (progress is None and sys.stderr.isatty()):
        bar = _Bar()
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield lambda _done, _total, _what: None


class _Bar:
    """One bar after another: for objects, then for tables."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, done: int, total: int, what: str) -> None:
        if self._bar is None:
            from tqdm import tqdm  # noqa: PLC0415 - imported where a bar is drawn, as it takes 30 ms

            self._bar = tqdm(total=total, desc="verify", dynamic_ncols=True)
        self._bar.set_postfix_str(what, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
