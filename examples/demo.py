"""The whole way: load, commit, lose a zone, kill the process, reopen - and nothing is lost.

1. generate TPC-H `orders` and `lineitem`                       4. delete the directories of one zone while they run
2. load both into a cluster of six copies, with progress        5. kill the process with SIGKILL
3. run transfers from threads, each acknowledged when durable   6. reopen and verify every row and every transfer

`make demo` runs it; `DEMO_ARGS="--scale 1 --seconds 10"` makes it larger.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

import aurora_engine as au
from aurora_engine import col

ACCOUNTS = 1_000
COINS = 1_000
THREADS = 16
LOST_ZONE = "az2"
KEYS = {"orders": "o_orderkey", "lineitem": ("l_orderkey", "l_linenumber")}
PRICES = {"orders": "o_totalprice", "lineitem": "l_extendedprice"}


class Account(au.Row, key="id"):
    """An account with whole coins."""

    id: int
    balance: int


class Transfer(au.Row, key="id"):
    """What a transfer did, written in the same transaction."""

    id: int
    source: int
    target: int
    coins: int


# ------------------------------------------------------------------------------- the process that is killed


def own(cluster: Path, data: Path) -> None:
    """Load the tables, then transfer coins until the end; say on standard output what is acknowledged."""
    with au.open(cluster) as db:
        for name, key in KEYS.items():
            source = pq.ParquetFile(data / f"{name}.parquet")
            table = db.create_table(name, source.schema_arrow, key=key)
            started = time.perf_counter()
            rows = db.load(table, pl.scan_parquet(data / f"{name}.parquet").collect())
            say(f"loaded {name} {rows} {time.perf_counter() - started}")
        accounts = db.create_table("accounts", Account)
        transfers = db.create_table("transfers", Transfer)
        with db.transaction() as tx:
            for number in range(ACCOUNTS):
                tx.insert(accounts, Account(number, COINS))
        say("ready")
        threads = [threading.Thread(target=transfer, args=(db, accounts, transfers, n)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def transfer(db: au.Cluster, accounts: au.Table[Account], transfers: au.Table[Transfer], thread: int) -> None:
    """Transfer coins for ever."""
    rng = random.Random(thread)
    number = thread
    while True:
        number += THREADS
        source, target = rng.sample(range(ACCOUNTS), 2)
        move = Transfer(number, source, target, rng.randint(1, 10))

        def work(tx: au.Transaction, move: Transfer = move) -> None:
            tx.update(accounts, move.source, balance=col("balance") - move.coins)
            tx.update(accounts, move.target, balance=col("balance") + move.coins)
            tx.insert(transfers, move)

        db.run(work)
        say(f"acknowledged {number}")


def say(line: str) -> None:
    """One line to the process that watches; a single write, so that lines of threads do not mix."""
    os.write(1, f"{line}\n".encode())


# ---------------------------------------------------------------------------------- the process that watches


class Owner:
    """The process that owns the cluster, and what it has said."""

    def __init__(self, cluster: Path, data: Path) -> None:
        command = [sys.executable, __file__, "--own", str(cluster), str(data)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.acknowledged: list[int] = []
        self.ready = threading.Event()
        self.ended = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, *rest = line.split()
            if word == "acknowledged":
                self.acknowledged.append(int(rest[0]))
            elif word == "loaded":
                name, rows, seconds = rest[0], int(rest[1]), float(rest[2])
                print(f"   {name}: {rows:,} rows in {seconds:.2f} s, {rows / seconds:,.0f} rows/s, six copies")
            elif word == "ready":
                self.ready.set()
        self.ended.set()
        self.ready.set()

    def watch(self, seconds: float) -> float:
        """How many transfers a second are acknowledged during a while."""
        before, started = len(self.acknowledged), time.perf_counter()
        if self.ended.wait(seconds):
            raise SystemExit("the owner ended before its time")
        return (len(self.acknowledged) - before) / (time.perf_counter() - started)

    def kill(self) -> None:
        """End it without any warning, as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.ended.wait()


def step(number: int, what: str) -> None:
    """Say what comes next."""
    print(f"\n{number}. {what}", flush=True)


def generate(data: Path, scale: float) -> None:
    """TPC-H orders and lineitem as Parquet files, once."""
    data.mkdir(parents=True, exist_ok=True)
    tool = Path(sys.executable).with_name("tpchgen-cli")
    tables = ",".join(KEYS)
    command = [str(tool), "parquet", "-s", str(scale), "--tables", tables, "--output-dir", str(data)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def verify(db: au.Cluster, data: Path, acknowledged: list[int]) -> None:
    """Compare everything with what was loaded and acknowledged."""
    for name, price in PRICES.items():
        ours, theirs = pl.DataFrame(db.scan(db.table(name))), pl.read_parquet(data / f"{name}.parquet")
        check(f"{name}: {ours.height:,} rows", ours.height, theirs.height)
        total: Callable[[pl.DataFrame], Decimal] = lambda frame, price=price: frame[price].sum()  # noqa: E731
        check(f"{name}: sum of {price} {total(ours):,}", total(ours), total(theirs))
    transfers = list(db.scan(db.table("transfers", Transfer)))
    found = {row.id for row in transfers}
    lost = [number for number in acknowledged if number not in found]
    check(f"transfers: {len(acknowledged):,} acknowledged, {len(lost)} lost", len(lost), 0)
    print(f"   ok  transfers: {len(found) - len(acknowledged)} more were durable, but not yet acknowledged")
    expected = dict.fromkeys(range(ACCOUNTS), COINS)
    for row in transfers:
        expected[row.source] -= row.coins
        expected[row.target] += row.coins
    balances = {row.id: row.balance for row in db.scan(db.table("accounts", Account))}
    check(f"accounts: {sum(balances.values()):,} coins, every balance explained by its transfers", balances, expected)


def check(what: str, got: object, expected: object) -> None:
    """Stop at the first difference."""
    if got != expected:
        raise SystemExit(f"   LOST  {what}: expected {expected}, got {got}")
    print(f"   ok  {what}")


def demo(folder: Path, scale: float, seconds: float) -> None:
    """Run the demonstration in a folder."""
    began = time.perf_counter()
    cluster, data = folder / "cluster", folder / f"tpch-{scale}"
    shutil.rmtree(cluster, ignore_errors=True)

    step(1, f"generate TPC-H at scale factor {scale}")
    generate(data, scale)
    print(f"   {sum(file.stat().st_size for file in data.iterdir()) / 1e6:.1f} MB of Parquet in {data}")

    step(2, f"load it into a new cluster in {cluster}")
    owner = Owner(cluster, data)
    owner.ready.wait()

    step(3, f"transfer coins from {THREADS} threads")
    healthy = owner.watch(seconds)
    print(f"   {healthy:,.0f} transfers/s, each durable on four of six copies before it is acknowledged")

    step(4, f"delete {cluster / LOST_ZONE} and go on")
    shutil.rmtree(cluster / LOST_ZONE)
    wounded = owner.watch(seconds)
    print(f"   {wounded:,.0f} transfers/s on the four copies that are left ({wounded / healthy:.0%})")

    step(5, f"kill process {owner.process.pid} with SIGKILL")
    owner.kill()
    print(f"   it had acknowledged {len(owner.acknowledged):,} transfers")

    step(6, "reopen and verify")
    started = time.perf_counter()
    with au.open(cluster) as db:
        print(
            f"   open after {(time.perf_counter() - started) * 1000:,.0f} ms; "
            "what was not back yet of the lost zone is being rebuilt"
        )
        verify(db, data, owner.acknowledged)
        print(f"\n{db.status()}")
    print(f"\nNothing was lost. The whole way took {time.perf_counter() - began:.1f} s.")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="TPC-H scale factor (default: 0.1)")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long transfers run before and after the loss")
    parser.add_argument("--folder", type=Path, default=Path("demo-data"), help="where data goes (default: demo-data)")
    parser.add_argument("--own", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.own:
        own(*arguments.own)
    else:
        demo(arguments.folder, arguments.scale, arguments.seconds)


if __name__ == "__main__":
    main()
