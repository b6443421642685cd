"""A service under load whose writer dies, then a whole zone: commits per 10 ms, and the gap.

With matplotlib the picture is saved as ``failover.png``; without it, it is printed.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import itertools
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import aurora_engine as au
from aurora_engine import col

THREADS = 4
BIN_S = 0.01


class Account(au.Row, key="id"):
    """An account with whole coins."""

    id: int
    balance: int


def serve(db: au.Cluster, accounts: au.Table[Account], thread: int, end: float, told: list[float]) -> None:
    """Add a coin to an account of this thread's, exactly once each time, until the end."""

    def add(tx: au.Transaction) -> None:
        tx.update(accounts, thread, balance=col("balance") + 1)

    while time.monotonic() < end:
        db.run(add, token=f"{thread}-{len(told)}")
        told.append(time.monotonic())


def picture(times: list[float], marks: dict[str, float], path: Path) -> None:
    """Draw how many commits succeeded in each 10 ms."""
    bins = [0] * (int(max(times) / BIN_S) + 1)
    for at in times:
        bins[int(at / BIN_S)] += 1
    if importlib.util.find_spec("matplotlib") is None:
        width = max(bins)
        for first in range(0, len(bins), 10):
            label = next((name for name, at in marks.items() if first <= at / BIN_S < first + 10), "")
            bar = "#" * round(40 * sum(bins[first : first + 10]) / (10 * width))
            print(f"{first * BIN_S:5.1f} s  {bar:<40} {label}")
        return
    from matplotlib.figure import Figure  # noqa: PLC0415 - the picture is optional, and so is its library

    figure = Figure(figsize=(10, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.step([n * BIN_S for n in range(len(bins))], bins, where="post", linewidth=0.8)
    for name, at in marks.items():
        axes.axvline(at, color="tab:red", linewidth=0.8)
        axes.annotate(name, (at, max(bins)), rotation=90, va="top", ha="right", fontsize=8)
    axes.set(xlabel="seconds", ylabel="commits per 10 ms", ylim=(0, None))
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def main(seconds: float = 3.0) -> None:
    """Run the service, end its writer, ask for a planned failover, remove a zone's disks; then count."""
    with (
        tempfile.TemporaryDirectory() as folder,
        au.open(folder, replicas=2, detection=dt.timedelta(milliseconds=200)) as db,
    ):
        accounts = db.create_table("accounts", Account)
        with db.transaction() as tx:
            for thread in range(THREADS):
                tx.insert(accounts, Account(thread, 0))
        told: list[list[float]] = [[] for _ in range(THREADS)]
        begin = time.monotonic()
        end = begin + seconds
        threads = [
            threading.Thread(target=serve, args=(db, accounts, thread, end, told[thread])) for thread in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        marks = {}
        time.sleep(seconds / 4)
        marks["the writer crashes"] = time.monotonic() - begin
        db._instance(db.instances[0])._crash()  # noqa: SLF001 - there is no polite way to do this
        time.sleep(seconds / 4)
        marks["planned failover"] = time.monotonic() - begin
        db.failover()
        time.sleep(seconds / 4)
        marks["a zone's disks are gone"] = time.monotonic() - begin
        shutil.rmtree(Path(folder) / "az3")
        for thread in threads:
            thread.join()

        times = sorted(at - begin for each in told for at in each)
        gap = max(b - a for a, b in itertools.pairwise(times))
        picture(times, marks, Path("failover.png"))
        for event in db.events():
            if event.what == "failover":
                print(f"{event.detail}, {(event.took_s or 0) * 1000:.1f} ms without a writer")
        # A second after that they are made anew and filled from the others.
        lost = [event.who for event in db.events() if event.what == "node lost"]
        print(f"{len(times):,} commits, longest gap {gap * 1000:.0f} ms (detection 200 ms); lost {', '.join(lost)}")
        for thread in range(THREADS):
            row = db.get(accounts, thread)
            assert row is not None
            assert row.balance == len(told[thread]), "every commit once"
        print("every acknowledged commit is there, exactly once")


if __name__ == "__main__":
    main(*(float(argument) for argument in sys.argv[1:2]))
