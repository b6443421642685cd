"""Commits/s with one availability zone's directories gone, beside a healthy cluster in the same run."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING

from benches.groups.commit16 import THREADS
from benches.measure import interleave, median, paired_ratio, run_threads
from benches.ours import Ours
from benches.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.groups import Context


def run(context: Context) -> Iterator[Row]:
    """Remove az3 under a running cluster, and compare it with one that has all its directories."""
    healthy, wounded = Ours(context.folder / "healthy"), Ours(context.folder / "wounded")
    try:
        shutil.rmtree(context.folder / "wounded" / "az3")
        slots = {
            name: partial(run_threads, [ours.committer(i, THREADS) for i in range(THREADS)], context.seconds)
            for name, ours in (("healthy", healthy), ("wounded", wounded))
        }
        results = interleave(slots, 2 * context.rounds)
    finally:
        healthy.close()
        wounded.close()
    a, b = ([sample.rate for sample in results[name]] for name in ("wounded", "healthy"))
    what = f"commits/s, {THREADS} threads, one AZ lost"
    yield Row("az_lost", what, median(a), "/s", "healthy", median(b), paired_ratio(a, b), Budget(">=", 0.9))
