"""Other engines, each behind the same few methods, so that one driver measures all of them alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 10_000
PAYLOAD_BYTES = 100


class CommitPeer(Protocol):
    """An engine that commits one small row durably."""

    name: str

    def committer(self, thread: int, threads: int) -> Callable[[int], None]:
        """Return what one thread calls: it changes row `n` of those that belong to the thread, durably."""
        ...

    def close(self) -> None:
        """Release files and threads."""
        ...


def own_row(thread: int, threads: int, n: int) -> int:
    """Return the n-th row of a thread: threads never meet on a row, so that no engine pays for conflicts."""
    return (n * threads + thread) % (ROWS - ROWS % threads)
