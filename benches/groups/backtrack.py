"""Backtrack of few and of many commits, and the way forward again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.measure import median
from benches.ours import Ours
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.groups import Context

COMMITS = (1, 10_000, 1_000_000)


def run(context: Context) -> Iterator[Row]:
    """Undo so many commits and come forward again, a few times each."""
    ours = Ours(context.folder / "backtrack")
    commit, done = ours.committer(0, 1), 0
    try:
        for wanted in COMMITS:
            first = ours.db.vdl
            # As many as the whole run may take: the last size is that of `--updates` if that is less.
            count = min(wanted, max(1, context.updates // 2))
            for _ in range(count):
                commit(done)
                done += 1
            back, forward = [], []
            for _ in range(context.rounds):
                last = ours.db.backtrack(to=first)
                back.append(last.seconds * 1e3)
                forward.append(ours.db.backtrack(to=last.from_lsn).seconds * 1e3)
            note = f"forward again {median(forward):.1f} ms"
            budget = Budget("<=", 20, "ours")
            yield Row("backtrack", f"backtrack of {count:,} commits", median(back), "ms", budget=budget, note=note)
    finally:
        ours.close()
