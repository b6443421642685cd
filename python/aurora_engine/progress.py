"""The progress bar of long calls: shown on a terminal, silent elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aurora_engine.sources import Source

Report = Callable[[str, int, int], None]
"""Told the phase (``"read"`` or ``"write"``), rows and bytes that are done."""


@contextmanager
def progress(title: str, source: Source, *, shown: bool | None) -> Iterator[Report]:
    """Yields the function that is told how much is done.

    The bar counts rows where it is known how many there are, else the bytes of the files that are read; from either
    follows when it will be done. ``shown`` is ``None`` for "where standard error is a terminal".
    """
    if shown is False or (shown is None and not sys.stderr.isatty()):
        yield lambda _phase, _rows, _bytes: None
        return
    bar = _Bar(title, source)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def row_progress(title: str, *, shown: bool | None) -> Iterator[Callable[[int], None]]:
    """Yields the function that is told how many rows are done in all, of nobody knows how many."""
    with progress(title, Source([]), shown=shown) as report:
        yield lambda rows: report("read", rows, 0)


class _Bar:
    """One bar for reading, and one for writing what had to be sorted first."""

    def __init__(self, title: str, source: Source) -> None:
        self._title, self._source = title, source
        self._phase = "read"
        self._rows = 0
        by_bytes = source.rows is None and source.bytes is not None
        self._bar = self._open(title, source.bytes if by_bytes else source.rows, "B" if by_bytes else " rows")
        self._by_bytes = by_bytes

    @staticmethod
    def _open(title: str, total: int | None, unit: str) -> Any:
        from tqdm import tqdm  # noqa: PLC0415 - imported where a bar is drawn, as it takes 30 ms

        return tqdm(total=total, desc=title, unit=unit, unit_scale=True, dynamic_ncols=True)

    def __call__(self, phase: str, rows: int, size: int) -> None:
        if phase != self._phase:
            self._phase, self._by_bytes = phase, False
            self._bar.close()
            self._bar = self._open(f"{self._title}, sorted", self._rows, " rows")
        elif phase == "read":
            self._rows = rows
        bar, position = self._bar, self._source.position
        if size:
            shown = f"{rows:,} rows, {size / 1e6:,.0f} MB" if self._by_bytes else f"{size / 1e6:,.0f} MB"
            bar.set_postfix_str(shown, refresh=False)
        done = position() if self._by_bytes and position is not None else rows
        bar.update(done - bar.n)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
