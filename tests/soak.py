"""The engine against a real disk, for as long as you like: workloads with checkers, injected faults, ``kill -9``.

``make soak MINUTES=30`` (or ``python tests/soak.py --minutes 30 --seed 7``): a child process has a cluster on disk open
and works on it from threads and an event loop while ``db.faults`` breaks nodes, disks and the writer; this process
kills it at random and starts it again, and each child checks what it finds. Everything random comes from the seed, but
threads, disks and kills meet differently in every run.

=========  ====================================================================================================
bank       transfers between accounts at several isolation levels: the sum never changes, for no reader
ring       rows that point at each other: always one ring of all of them, in both directions
register   counters, each counted by one writer with tokens: no step is lost and none happens twice
index      an index over the accounts: it has what the table has
=========  ====================================================================================================

The exit status is 0 when every check held, 1 when one did not; the verdict is the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import functools
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aurora_engine as au
from aurora_engine import col, faults
from aurora_engine import exceptions as ex

ACCOUNTS, OPENING_BALANCE, RING = 30, 1_000, 40
THREAD_WRITERS, TASK_WRITERS = 3, 3
STUCK_S = 60.0
"""Without a commit for so long, something is wrong: no injected fault lasts longer than a second or two."""
ISOLATION = ("snapshot", "serializable")


class Account(au.Row, key="id"):
    """What transfers move between."""

    id: int
    balance: int


class Link(au.Row, key="id"):
    """A member of the ring."""

    id: int
    before: int
    after: int


class Register(au.Row, key="writer"):
    """Counted by one writer."""

    writer: int
    n: int


@dataclass(slots=True)
class Task:
    """What a child is to do."""

    path: str
    run: int
    seed: int
    work_s: float
    acknowledged: dict[str, int] = field(default_factory=dict)
    """By writer: how many steps are known to be durable."""
    inject: bool = True


def say(kind: str, *words: object) -> None:
    """One line to the parent, in one write that no other thread's can split."""
    text = " ".join(map(str, words)).replace("\n", " | ")
    os.write(1, f"{kind} {text}\n".encode())


class CheckError(Exception):
    """A check that did not hold."""


# ------------------------------------------------------------------------------------------- the child


class Child:
    """The process that works and is killed."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.stop = threading.Event()
        self.db = au.open(
            task.path,
            takeover=True,
            replicas=1,
            segment_bytes=4 << 20,
            detection=dt.timedelta(milliseconds=100),
            window=dt.timedelta(seconds=20),
        )
        self.accounts = self.db.create_table(
            "accounts", Account, exist_ok=True, indexes=[au.index("by_balance", "balance")]
        )
        self.ring = self.db.create_table("ring", Link, exist_ok=True)
        self.registers = self.db.create_table("registers", Register, exist_ok=True)
        with self.db.transaction() as tx:
            if tx.get(self.accounts, 0) is None:
                for number in range(ACCOUNTS):
                    tx.insert(self.accounts, Account(number, OPENING_BALANCE))
                for number in range(RING):
                    tx.insert(self.ring, Link(number, (number - 1) % RING, (number + 1) % RING))
        self.counts = {}
        for writer in range(THREAD_WRITERS + TASK_WRITERS):
            self.counts[writer] = self.find_register(writer)
            # From here on the parent counts on it, too.
            say("S", writer, self.counts[writer])

    def find_register(self, writer: int) -> int:
        """What a register has, checked against what was acknowledged and what its tokens say."""
        told = self.task.acknowledged.get(str(writer), 0)
        row = self.db.get(self.registers, writer)
        n = 0 if row is None else row.n
        if n not in (told, told + 1):
            raise CheckError(f"register {writer}: {told} steps were acknowledged, {n} are there")
        for step in (told, told + 1):
            known = self.db.committed(f"{writer}/{step}") is not None
            if step > 0 and known != (step <= n):
                raise CheckError(f"register {writer} is {n}, and the token of step {step} says {known}")
        return n

    # ------------------------------------------------------------------------------- workloads

    def transfer(self, thread: int) -> None:
        dice = random.Random(f"{self.task.seed}/{self.task.run}/bank/{thread}")
        while not self.stop.is_set():
            source, target = dice.sample(range(ACCOUNTS), 2)
            amount, isolation = dice.randint(1, 50), dice.choice(ISOLATION)

            def move(tx: au.Transaction, source: int = source, target: int = target, amount: int = amount) -> None:
                tx.update(self.accounts, source, balance=col("balance") - amount)
                tx.update(self.accounts, target, balance=col("balance") + amount)

            if self.endure(functools.partial(self.db.run, move, isolation=isolation)):  # type: ignore[arg-type]
                say("C", "bank")

    def relink(self, thread: int) -> None:
        """Takes a member out of the ring and puts it elsewhere."""
        dice = random.Random(f"{self.task.seed}/{self.task.run}/ring/{thread}")

        def move(tx: au.Transaction, moved: int, behind: int) -> None:
            def read(number: int) -> Link:
                found = tx.get(self.ring, number)
                if found is None:
                    raise CheckError(f"ring: member {number} is gone")
                return found

            one, place = read(moved), read(behind)
            if moved == behind or one.before == behind:
                return
            after = place.after
            tx.update(self.ring, one.before, after=one.after)
            tx.update(self.ring, one.after, before=one.before)
            tx.update(self.ring, behind, after=moved)
            tx.update(self.ring, after, before=moved)
            tx.update(self.ring, moved, before=behind, after=after)

        while not self.stop.is_set():
            moved, behind = dice.sample(range(RING), 2)
            # Serializable: what a move reads of its neighbours it does not always write.
            work = functools.partial(move, moved=moved, behind=behind)
            if self.endure(functools.partial(self.db.run, work, isolation="serializable")):
                say("C", "ring")

    def count(self, writer: int) -> None:
        while not self.stop.is_set():
            step = self.counts[writer] + 1

            def add(tx: au.Transaction, step: int = step) -> None:
                tx.upsert(self.registers, Register(writer, step))

            if self.endure(functools.partial(self.db.run, add, token=f"{writer}/{step}")):
                self.counts[writer] = step
                say("A", writer, step)

    def count_in_a_loop(self, _thread: int) -> None:
        async def count(writer: int) -> None:
            while not self.stop.is_set():
                step = self.counts[writer] + 1

                async def add(tx: au.AsyncTransaction, step: int = step) -> None:
                    await tx.upsert(self.registers, Register(writer, step))

                try:
                    await self.db.aio.run(add, token=f"{writer}/{step}")
                except (ex.Retryable, ex.OutcomeUnknown, ex.QuorumLost, ex.DiskFull):
                    await asyncio.sleep(0.01)
                else:
                    self.counts[writer] = step
                    say("A", writer, step)

        async def count_all() -> None:
            writers = range(THREAD_WRITERS, THREAD_WRITERS + TASK_WRITERS)
            await asyncio.gather(*(count(writer) for writer in writers))

        asyncio.run(count_all())

    def look(self, thread: int) -> None:
        """Reads what must hold for every reader, here and at the replica."""
        dice = random.Random(f"{self.task.seed}/{self.task.run}/look/{thread}")
        while not self.stop.is_set():
            time.sleep(dice.uniform(0, 0.05))
            try:
                with self.db.view() if dice.random() < 0.5 else self.db.reader.view() as view:
                    self.check_view(view)
            except (ex.Retryable, ex.OutcomeUnknown):
                continue  # The writer crashed, and the view with it.
            except (ex.QuorumLost, ex.Corrupt):
                if not self.db.faults.active:
                    raise

    def endure(self, work: Callable[[], object]) -> bool:
        """Does what a service does with errors that pass; True when it went through."""
        try:
            work()
        except (ex.Retryable, ex.OutcomeUnknown):
            return False
        except (ex.QuorumLost, ex.DiskFull):
            time.sleep(0.01)
            return False
        return True

    # ------------------------------------------------------------------------------- checkers

    def check_view(self, view: au.View) -> None:
        rows = list(view.range(self.accounts))
        total = sum(row.balance for row in rows)
        if (len(rows), total) != (ACCOUNTS, ACCOUNTS * OPENING_BALANCE):
            raise CheckError(f"bank: {len(rows)} accounts with {total} at LSN {view.lsn}")
        indexed = {row.id: row.balance for row in view.range(self.accounts.index("by_balance"))}
        if indexed != {row.id: row.balance for row in rows}:
            raise CheckError(f"index: it differs from its table at LSN {view.lsn}")
        links = {row.id: row for row in view.range(self.ring)}
        if sorted(links) != list(range(RING)):
            raise CheckError(f"ring: members {sorted(links)} at LSN {view.lsn}")
        for direction in ("after", "before"):
            seen, at = [], 0
            while at not in seen and at in links:
                seen.append(at)
                at = getattr(links[at], direction)
            if len(seen) != RING or at != 0:
                raise CheckError(f"ring: {direction} leads through {seen} to {at} at LSN {view.lsn}")

    def check_copies(self) -> None:
        """Every copy gets everything, once nothing is broken any more."""
        deadline = time.monotonic() + 60
        while True:
            status = self.db.status()
            behind = [node for node in status.nodes if node.state != "healthy" or node.complete_to < status.points.vdl]
            if not behind:
                return
            if time.monotonic() > deadline:
                raise CheckError(f"copies do not catch up: {behind}; {status.background.last_error}")
            time.sleep(0.1)

    # ------------------------------------------------------------------------------- one life

    def live(self) -> None:
        with self.db.view() as view:
            self.check_view(view)
        say("U")
        jobs: list[tuple[Callable[[int], None], int]] = [(self.count, writer) for writer in range(THREAD_WRITERS)]
        jobs += [(self.transfer, 0), (self.transfer, 1), (self.relink, 0), (self.relink, 1)]
        jobs += [(self.look, 0), (self.count_in_a_loop, 0)]
        threads = [threading.Thread(target=self.guard, args=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        schedule = self.db.faults.schedule(
            STEPS, seed=self.task.seed * 1_000 + self.task.run, gap=(0.0, 0.3), lasting=(0.02, 0.6)
        )
        if self.task.inject:
            schedule.start()
        end, told = time.monotonic() + self.task.work_s, 0
        while time.monotonic() < end:
            time.sleep(0.1)
            for step in schedule.done[told:]:
                say("F", step.fault.kind)
                told += 1
        schedule.stop()
        self.db.faults.end_all()
        self.stop.set()
        for thread in threads:
            thread.join(timeout=STUCK_S)
            if thread.is_alive():
                raise CheckError(f"{thread.name} does not come to an end: {self.db.status()}")
        for step, error in schedule.failures:
            if not isinstance(error, (ex.QuorumLost, ex.DiskFull, ex.Retryable, ex.InvalidOption)):
                say("N", f"{step.fault} could not happen: {error!r}")
        with self.db.view() as view:
            self.check_view(view)
        for writer, step in self.counts.items():
            row = self.db.get(self.registers, writer)
            if row is None or row.n not in (step, step + 1):
                raise CheckError(f"register {writer}: {step} steps were acknowledged, {row} is there")
        self.check_copies()
        self.db.close()
        say("E")

    def guard(self, job: Callable[[int], None], number: int) -> None:
        try:
            job(number)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            say("P", f"{job.__name__} {number}:", report(error))


def report(error: BaseException) -> str:
    """An error for the parent: the check that failed, or all of the traceback."""
    return str(error) if isinstance(error, CheckError) else traceback.format_exc()[-4_000:]


STEPS = (
    faults.NodeDown(),
    faults.NodeDown("az1"),
    faults.Partition(),
    faults.Partition("az3"),
    faults.Pause(),
    faults.Pause("az2"),
    faults.DiskCongestion(None, 0, 20),
    faults.DiskCongestion("az2", 10, 60),
    faults.DiskFailure(None, 10),
    faults.DiskFailure("az1", 60),
    faults.DiskFull("az3-a"),
    faults.DiskFull(),
    faults.ReplicaFailure(),
    faults.CorruptPage(),
    faults.CrashWriter(),
    faults.CrashWriter(),
    faults.CrashWriter(during_commit="lost"),
    faults.CrashWriter(during_commit="kept"),
)


def child() -> None:
    """Waits for its task, and does it until it is killed or done."""
    task = Task(**json.loads(sys.stdin.readline()))
    try:
        Child(task).live()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        say("P", report(error))
        os._exit(1)
    os._exit(0)


# ------------------------------------------------------------------------------------------- the parent


@dataclass(slots=True)
class Soak:
    """What has happened so far."""

    folder: Path
    seed: int
    minutes: float
    quiet: bool = False
    acknowledged: dict[str, int] = field(default_factory=dict)
    commits: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    opens: int = 0
    kills: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self) -> bool:
        """All of it; true when every check held."""
        dice = random.Random(self.seed)
        begun = time.monotonic()
        end, next_line = begun + self.minutes * 60, begun + 10
        while time.monotonic() < end and not self.problems:
            left = end - time.monotonic()
            life = min(dice.uniform(1, 12), max(left, 1.0))
            # One life in four ends in good order, with all that is checked then; the others, at any moment.
            ordered = dice.random() < 0.25
            self.live(life if ordered else 3600, kill_after=None if ordered else life)
            if not self.quiet and time.monotonic() >= next_line:
                next_line = time.monotonic() + 10
                self.progress(time.monotonic() - begun)
        if not self.problems:
            self.live(0.5, kill_after=None, inject=False)
        for note in self.notes:
            print("note:", note)
        for problem in self.problems:
            print("problem:", problem)
        self.progress(time.monotonic() - begun)
        if self.problems:
            print(f"FAILED: seed {self.seed}; what is left is in {self.folder}")
        else:
            print(f"clean: {sum(self.commits.values()):,} commits, {sum(self.faults.values()):,} faults, "
                  f"{self.kills} kills in {self.minutes:g} minutes with seed {self.seed}")  # fmt: skip
        return not self.problems

    def progress(self, seconds: float) -> None:
        """One line."""
        commits = ", ".join(f"{name} {count:,}" for name, count in sorted(self.commits.items()))
        print(f"{seconds:6.0f} s: {self.opens} opens, {self.kills} kills, {sum(self.faults.values()):,} faults; "
              f"commits: {commits}", flush=True)  # fmt: skip

    def live(self, work_s: float, *, kill_after: float | None, inject: bool = True) -> None:
        """One life of a child."""
        task = Task(str(self.folder / "cluster"), self.opens, self.seed, work_s, dict(self.acknowledged), inject)
        self.opens += 1
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        process.stdin.flush()
        lines: queue.Queue[bytes | None] = queue.Queue()
        stdout = process.stdout

        def read() -> None:
            for line in stdout:
                lines.put(line)
            lines.put(None)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            self.watch(lines, process, kill_after)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
            reader.join()
            # What it said before it died counts.
            while not lines.empty():
                self.hear(lines.get())
            process.stdin.close()
            stdout.close()

    def watch(
        self, lines: queue.Queue[bytes | None], process: subprocess.Popen[bytes], kill_after: float | None
    ) -> None:
        """Listens to a child until it ends, is to be killed, or is stuck."""
        heard, deadline = time.monotonic(), None
        while True:
            try:
                line = lines.get(timeout=0.05)
            except queue.Empty:
                line = b""
            if line is None:
                if process.wait() != 0 and not self.problems:
                    self.problems.append(f"child {self.opens}: it ended with status {process.returncode}")
                return
            now = time.monotonic()
            if line:
                self.hear(line)
                heard = now
                if line.startswith(b"U") and kill_after is not None:
                    deadline = now + kill_after
            if self.problems:
                return
            if deadline is not None and now >= deadline:
                self.kills += 1
                return
            # Closing and checking take their time too.
            if now - heard > 2 * STUCK_S:
                self.problems.append(f"child {self.opens}: nothing was heard of it for {2 * STUCK_S:.0f} s")
                return

    def hear(self, line: bytes | None) -> None:
        """What a child says; a line that a kill cut off says nothing."""
        if line is None or not line.endswith(b"\n"):
            return
        kind, _, rest = line.decode().rstrip("\n").partition(" ")
        if kind in ("A", "S"):
            writer, step = rest.split()
            self.acknowledged[writer] = int(step)
            self.commits["register"] += kind == "A"
        elif kind == "C":
            self.commits[rest] += 1
        elif kind == "F":
            self.faults[rest] += 1
        elif kind == "N":
            self.notes.append(rest)
        elif kind == "P":
            self.problems.append(f"child {self.opens}: {rest}")


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Workloads, checkers, faults and kill -9 against a cluster on disk.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="by default another each time; it is printed")
    parser.add_argument("--folder", type=Path, default=None, help="by default a temporary one")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options: Any = parser.parse_args(arguments)
    if options.child:
        child()
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="aurora-soak-")) if options.folder is None else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    print(f"soak: {options.minutes:g} minutes, seed {seed}, in {folder}", flush=True)
    clean = Soak(folder, seed, options.minutes).run()
    if clean and options.folder is None:
        au.drop_cluster(folder / "cluster", name="cluster", skip_final_snapshot=True)
        shutil.rmtree(folder)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
