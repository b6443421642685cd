"""The progress bar of long calls: shown on a terminal, silent elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress(title: str, total: int | None, *, shown: bool | None) -> Iterator[Callable[[int], None]]:
    """Yields the function that is told how many rows are done in all.

    ``shown`` is ``None`` for "where standard error is a terminal".
    """
    if shown is False or (shown is None and not sys.stderr.isatty()):
        yield lambda _done: None
        return
    from tqdm import tqdm  # noqa: PLC0415 - imported where a bar is drawn, as it takes 30 ms

    with tqdm(total=total, desc=title, unit=" rows", unit_scale=True, dynamic_ncols=True) as bar:
        yield lambda done: _set(bar, done)


def _set(bar: Any, done: int) -> None:
    bar.update(done - bar.n)


def row_count(data: Any) -> int | None:
    """How many rows an Arrow object holds, if it says so."""
    for name in ("num_rows", "height"):
        count = getattr(data, name, None)
        if isinstance(count, int):
            return count
    return None
