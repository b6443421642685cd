"""The process that `test_kill9.py` kills: writers of several kinds that report every commit after it has returned.

Run as a program, it imports the package, says ``B``, waits for a line of JSON with a :class:`Task` on its standard
input, says ``G``, opens the cluster, says ``U``, and writes until it is killed. What it reports goes through one
unbuffered ``os.write`` a line, so that whatever the parent reads was acknowledged before the kill::

    O <kind> <run> <writer> <seq>                  found when it opened: seq commits of that writer are durable
    A <kind> <run> <writer> <seq> <lsn> <time us>  commit number seq (from 0) of that writer was acknowledged
    W <text>                                       something that should not happen in the background
    E <text>                                       a writer failed: the test fails

Every writer numbers its commits from 0 and has one in flight at a time. So after a crash the commits of a writer that
are there must be the first k, where k is the number it reported or one more.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
import os
import random
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aurora_engine as au
from aurora_engine import col

ACCOUNTS = 24
"""Accounts that transfers go between: few, so that they meet."""
OPENING_BALANCE = 1_000
GROUPS_KEPT = 3
"""A writer of pieces deletes, in the same transaction, the group that it wrote this many commits ago."""
ASYNC_TASKS = 12

SINGLE, HOT, TRANSFER, PIECES, TOKEN = "single", "hot", "transfer", "pieces", "token"
KINDS = (SINGLE, HOT, TRANSFER, PIECES, TOKEN)

_POOL = random.Random(9).randbytes(1 << 20)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Single(au.Row, key=("run", "writer", "seq")):
    """One row, one commit."""

    run: int
    writer: int
    seq: int
    proof: int


class Hot(au.Row, key="writer"):
    """A row that is updated all the time: ``n`` counts the commits."""

    writer: int
    n: int


class Account(au.Row, key="id"):
    """What transfers move between: the sum never changes."""

    id: int
    balance: int


class Transfer(au.Row, key=("run", "writer", "seq")):
    """The journal: written in the transaction that moves the money."""

    run: int
    writer: int
    seq: int
    source: int
    target: int
    amount: int


class Piece(au.Row, key=("run", "writer", "seq", "part")):
    """One of the rows that a commit of pieces inserts; values up to overflow pages."""

    run: int
    writer: int
    seq: int
    part: int
    parts: int
    payload: bytes


class Token(au.Row, key=("run", "writer", "seq")):
    """A row whose commit carried a token; the same transaction counts it in `Hot` row `TOKEN_COUNTER`."""

    run: int
    writer: int
    seq: int


TOKEN_COUNTER = -1
"""The row of `Hot` that counts tokens."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a child is to do."""

    path: str
    run: int
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    takeover: bool = False
    unresolved: list[tuple[int, int, int]] = field(default_factory=list)
    """Tokens whose commits have an unknown fate: (run, writer, seq)."""


def proof(run: int, writer: int, seq: int) -> int:
    """What a single row holds: a wrong or torn value does not pass."""
    return (run * 1_000_003 + writer * 7_919 + seq * 104_729) ^ 0x5AD0


def parts_of(run: int, writer: int, seq: int) -> int:
    """How many rows a commit of pieces inserts."""
    return 2 + (run + writer + seq) % 4


def payload_of(run: int, writer: int, seq: int, part: int) -> bytes:
    """What a piece holds: mostly some KiB, at times enough for overflow pages."""
    dice = random.Random(f"{run}/{writer}/{seq}/{part}")
    sizes = (60_000, 150_000) if dice.random() < 1 / 40 else (0, 1, 200, 700, 1_500, 3_000, 6_000, 9_000)
    size = dice.choice(sizes)
    start = dice.randrange(len(_POOL) - size)
    return _POOL[start : start + size]


def token_of(run: int, writer: int, seq: int) -> str:
    """The token of a commit."""
    return f"token-{run}-{writer}-{seq}"


def time_us(time: dt.datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


@dataclass(slots=True)
class Tables:
    """The tables of the test."""

    single: au.Table[Single]
    hot: au.Table[Hot]
    account: au.Table[Account]
    transfer: au.Table[Transfer]
    pieces: au.Table[Piece]
    token: au.Table[Token]


def open_tables(db: au.Cluster) -> Tables:
    """Makes what is missing. The accounts come all at once, or not at all."""
    made = Tables(
        single=db.create_table("single", Single, exist_ok=True),
        hot=db.create_table("hot", Hot, exist_ok=True),
        account=db.create_table("account", Account, exist_ok=True),
        transfer=db.create_table("transfer", Transfer, exist_ok=True),
        pieces=db.create_table("pieces", Piece, exist_ok=True),
        token=db.create_table("token", Token, exist_ok=True),
    )
    with db.transaction() as tx:
        if tx.get(made.account, 0) is None:
            for number in range(ACCOUNTS):
                tx.insert(made.account, Account(number, OPENING_BALANCE))
            tx.insert(made.hot, Hot(TOKEN_COUNTER, 0))
    return made


def say(*words: object) -> None:
    """One line to the parent, in one write that no other thread's can split."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Writers:
    """All writers of one process."""

    def __init__(self, db: au.Cluster, task: Task) -> None:
        self.db = db
        self.task = task
        self.tables = open_tables(db)

    def start(self) -> list[threading.Thread]:
        jobs = [
            (self.single, 0),
            (self.single, 1),
            (self.hot, 0),
            (self.transfer, 0),
            (self.transfer, 1),
            (self.pieces, 0),
            (self.pieces, 1),
            (self.token, 0),
            (self.token, 1),
            (self.asynchronous, 0),
            (self.watch, 0),
        ]
        threads = [threading.Thread(target=self._run, args=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        return threads

    def _run(self, job: Any, writer: int) -> None:
        try:
            job(writer)
        except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
            say("E", job.__name__, writer, traceback.format_exc().replace("\n", " | ")[-3_000:])

    def _acknowledged(self, kind: str, writer: int, seq: int, commit: au.Commit | None, run: int | None = None) -> None:
        assert commit is not None, "a transaction that returned has its commit"
        say("A", kind, self.task.run if run is None else run, writer, seq, commit.lsn, time_us(commit.time))

    def single(self, writer: int) -> None:
        run = self.task.run
        for seq in range(1 << 30):
            with self.db.transaction() as tx:
                tx.insert(self.tables.single, Single(run, writer, seq, proof(run, writer, seq)))
            self._acknowledged(SINGLE, writer, seq, tx.committed)

    def hot(self, writer: int) -> None:
        found = self.db.get(self.tables.hot, writer)
        start = 0 if found is None else found.n
        say("O", HOT, 0, writer, start)
        for seq in range(start, 1 << 30):
            with self.db.transaction() as tx:
                tx.upsert(self.tables.hot, Hot(writer, seq + 1))
            self._acknowledged(HOT, writer, seq, tx.committed, run=0)

    def transfer(self, writer: int) -> None:
        run = self.task.run
        dice = random.Random(self.task.seed * 31 + writer)
        for seq in range(1 << 30):
            source, target = dice.sample(range(ACCOUNTS), 2)
            row = Transfer(run, writer, seq, source, target, dice.randint(1, 50))
            tx = self.db.run(functools.partial(self._move, row), retries=10_000)
            self._acknowledged(TRANSFER, writer, seq, tx.committed)

    def _move(self, row: Transfer, tx: au.Transaction) -> au.Transaction:
        accounts = self.tables.account
        tx.update(accounts, row.source, balance=col("balance") - row.amount)
        tx.update(accounts, row.target, balance=col("balance") + row.amount)
        tx.insert(self.tables.transfer, row)
        return tx

    def pieces(self, writer: int) -> None:
        table, run = self.tables.pieces, self.task.run
        dice = random.Random(self.task.seed * 37 + writer)
        for seq in range(1 << 30):
            # Six copies of every byte: without a pause this writer alone would fill the disk.
            time.sleep(dice.uniform(0, 0.02))
            parts = parts_of(run, writer, seq)
            with self.db.transaction() as tx:
                for part in range(parts):
                    payload = payload_of(run, writer, seq, part)
                    tx.insert(table, Piece(run, writer, seq, part, parts, payload))
                old = seq - GROUPS_KEPT
                for part in range(parts_of(run, writer, old) if old >= 0 else 0):
                    assert tx.delete(table, (run, writer, old, part)), "what this writer inserted is there"
            self._acknowledged(PIECES, writer, seq, tx.committed)

    def token(self, writer: int) -> None:
        run = self.task.run
        if writer == 0:
            for old_run, old_writer, old_seq in self.task.unresolved:
                self._with_token(old_run, old_writer, old_seq)
        for seq in range(1 << 30):
            self._with_token(run, writer, seq)

    def _with_token(self, run: int, writer: int, seq: int) -> None:
        """Counts a row and inserts it, exactly once, however often it is tried."""
        tables, token = self.tables, token_of(run, writer, seq)

        def count(tx: au.Transaction) -> au.Transaction:
            tx.insert(tables.token, Token(run, writer, seq))
            tx.update(tables.hot, TOKEN_COUNTER, n=col("n") + 1)
            return tx

        done = self.db.run(count, token=token, retries=10_000)
        # Nothing was done where the attempt before the crash went through: the token tells of that commit.
        commit = self.db.committed(token) if done is None else done.committed
        self._acknowledged(TOKEN, writer, seq, commit, run=run)

    def asynchronous(self, _writer: int) -> None:
        asyncio.run(self._asynchronous())

    async def _asynchronous(self) -> None:
        await asyncio.gather(*(self._asynchronous_single(100 + number) for number in range(ASYNC_TASKS)))

    async def _asynchronous_single(self, writer: int) -> None:
        run = self.task.run
        for seq in range(1 << 30):
            async with self.db.aio.transaction() as tx:
                await tx.insert(self.tables.single, Single(run, writer, seq, proof(run, writer, seq)))
            self._acknowledged(SINGLE, writer, seq, tx.committed)

    def watch(self, _writer: int) -> None:
        """Says what goes wrong in the background, where nobody would look."""
        seen = None
        while True:
            status = self.db.status()
            error = status.background.last_error
            if error not in (None, seen):
                seen = error
                say("W", error.replace("\n", " | ")[:3_000])
            if status.state != "open":
                say("E watch: the cluster is", status.state)
            time.sleep(0.1)


def main() -> None:
    """Waits for its task, opens and writes until it is killed."""
    say("B")
    task = Task(**json.loads(sys.stdin.readline()))
    say("G")
    try:
        db = au.open(task.path, takeover=task.takeover, **task.options)
        say("U")
        threads = Writers(db, task).start()
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
        say("E open", traceback.format_exc().replace("\n", " | ")[-3_000:])
        os._exit(1)
    for thread in threads:
        thread.join()
    os._exit(1)


def as_line(task: Task) -> bytes:
    """A task as a child reads it."""
    return json.dumps(asdict(task)).encode() + b"\n"


PROGRAM = str(Path(__file__).resolve())

if __name__ == "__main__":
    main()
