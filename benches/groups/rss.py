"""Resident memory of a process that reads, scans and updates more than its cache holds."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benches.report import ROOT, Budget, Row
from benches.volumes import fill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.groups import Context

CACHE_BYTES = 64_000_000
DATA_BYTES = 300_000_000


def run(context: Context) -> Iterator[Row]:
    """Fill a cluster, then let a process of its own work on it and say what it used."""
    path = context.folder / "cluster"
    rows = fill(path, DATA_BYTES)
    command = [sys.executable, "-m", "benches.children", "rss", str(path), str(CACHE_BYTES), str(rows)]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    used = {name: float(mb) for name, mb in (line.split() for line in output.splitlines())}
    what = f"resident memory over a cache of {CACHE_BYTES / 1e6:.0f} MB, peak"
    note = f"all of the process, Python too: {used['opened']:.0f} MB opened, {used['peak']:.0f} MB at the peak"
    yield Row("rss", what, used["peak"] - CACHE_BYTES / 1e6, "MB", budget=Budget("<=", 100, "ours"), note=note)
