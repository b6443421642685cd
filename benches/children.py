"""Processes of their own: one to be killed while it commits, one whose memory is measured.

Run as `python -m benches.children hold PATH` or `python -m benches.children rss PATH CACHE_BYTES ROWS`. Neither imports
more than the engine, so that the memory is ours.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from pathlib import Path

from benches.ours import Account, Ours


def hold(path: Path) -> None:
    """Commit from four threads until killed; print a line once commits have gone on for a while."""
    ours = Ours(path, rows=0)
    with ours.db.transaction() as tx:
        for i in range(1_000):
            tx.upsert(ours.accounts, Account(i, f"owner {i}", 0))
    warm = threading.Semaphore(0)

    def commit_forever(thread: int) -> None:
        n = 0
        while True:
            with ours.db.transaction() as tx:
                tx.update(ours.accounts, (n * 4 + thread) % 1_000, balance=n)
            n += 1
            if n == 500:
                warm.release()

    for thread in range(4):
        threading.Thread(target=commit_forever, args=(thread,), daemon=True).start()
    for _ in range(4):
        warm.acquire()
    print("committing", flush=True)
    threading.Event().wait()


def memory_mb(field: str) -> float:
    """Read a field of this process's status: VmRSS is resident now, VmHWM the most it ever was."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


async def _updates(ours: Ours, tasks: int, each: int) -> None:
    async def work(task: int) -> None:
        commit = ours.async_committer(task, tasks)
        for n in range(each):
            await commit(n)

    await asyncio.gather(*(work(task) for task in range(tasks)))


def rss(path: Path, cache_bytes: int, rows: int) -> None:
    """Read at random, scan in order and commit, over more data than the cache holds; print memory as it goes."""
    rng = random.Random(1)
    ours = Ours(path, cache_bytes=cache_bytes)
    print(f"opened {memory_mb('VmRSS'):.1f}", flush=True)
    table = ours.db.table("notes")
    with ours.db.view() as view:
        for _ in range(100_000):
            if view.get(table, rng.randrange(rows)) is None:
                raise SystemExit("a loaded row is missing")
        scanned = sum(1 for _ in view.range(table))
    if scanned != rows:
        raise SystemExit(f"expected {rows} rows in order, got {scanned}")
    asyncio.run(_updates(ours, 1_000, 100))
    print(f"now {memory_mb('VmRSS'):.1f}")
    print(f"peak {memory_mb('VmHWM'):.1f}", flush=True)
    ours.close()


def main() -> None:
    """Do what the command line says."""
    what, path, *rest = sys.argv[1:]
    {"hold": hold, "rss": rss}[what](Path(path), *map(int, rest))


if __name__ == "__main__":
    main()
