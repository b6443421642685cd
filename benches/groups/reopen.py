"""Time to open after `kill -9`: a process commits, is killed, and its files are dropped from the page cache."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import aurora_engine as au
from benches.measure import median
from benches.report import ROOT, Budget, Row, progress
from benches.volumes import fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benches.groups import Context

SMALL_BYTES = 10_000_000
COPIES = 6
SPARE_BYTES = 2_000_000_000


def _kill_while_committing(path: Path) -> None:
    command = [sys.executable, "-m", "benches.children", "hold", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            line = child.stdout.readline() if child.stdout else ""
        finally:
            child.send_signal(signal.SIGKILL)
    if line.strip() != "committing":
        raise RuntimeError(f"the child ended before it committed, having said {line!r}")


def _files_below(path: Path) -> Iterator[Path]:
    return (entry for entry in path.rglob("*") if entry.is_file())


def _drop_from_cache(path: Path) -> None:
    """Let the next open read from the disk."""
    for file in _files_below(path):
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def _open_s(path: Path) -> float:
    start = time.perf_counter()
    db = au.open(path)
    elapsed = time.perf_counter() - start
    try:
        if db.get(db.table("accounts"), 1) is None or db.get(db.table("notes"), 0) is None:
            raise RuntimeError("a row that was durable is gone")
    finally:
        db.close()
    return elapsed


def _bytes_below(path: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in _files_below(path))


def run(context: Context) -> Iterator[Row]:
    """Open a small and a big volume, each several times."""
    big = int(context.volume_gb * 1e9)
    room = (shutil.disk_usage(context.folder).free - SPARE_BYTES) // COPIES
    for data_bytes in (SMALL_BYTES, min(big, room)):
        path = context.folder / str(data_bytes)
        started = time.perf_counter()
        fill(path, data_bytes)
        progress(f"  filled {data_bytes / 1e6:,.0f} MB in {time.perf_counter() - started:.0f} s")
        times = []
        for _ in range(context.rounds):
            _kill_while_committing(path)
            _drop_from_cache(path)
            times.append(_open_s(path))
        size = f"{data_bytes / 1e6:,.0f} MB" if data_bytes < 1e9 else f"{data_bytes / 1e9:.3g} GB"
        note = f"{_bytes_below(path) / 1e9:.2f} GB on disk in {COPIES} copies; slowest {max(times):.3f} s"
        if data_bytes > SMALL_BYTES and data_bytes < 5_000_000_000:
            note += "; smaller than the 5 GB that the budget names"
        what = f"open after kill -9, {size}"
        yield Row("reopen", what, median(times), "s", budget=Budget("<=", 1.0, "ours"), note=note)
        shutil.rmtree(path)
