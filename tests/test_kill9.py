"""A process that writes is killed with SIGKILL, again and again, and nothing that it acknowledged is ever lost.

`kill9_writer.py` is the process: threads and an event loop that commit single rows, transfers, rows of large values in
groups, and commits with tokens, and report each commit after it has returned. The test kills it at moments drawn from a
seed: while it opens (recovery runs then), shortly after, or in the middle of its work; now and then it takes a node's
directory away as well. The directory is the same throughout, so that it ages through flushes, compaction and growth.

After most kills, and at the end, the parent opens the cluster and holds it against all that was ever reported:

* every acknowledged commit is there, complete, with what it wrote;
* of each writer's commits the first k are there, k being what it reported or one more: nothing in between is missing,
  and nothing that was not acknowledged is half there;
* what was once found there stays, and what was not does not come back;
* transfers neither make nor lose money, and the journal explains every balance;
* a token answers yes exactly where its row is, and tried again does its work once;
* a later commit has a later time, and a view at the time of a commit is a view at its LSN.

`AURORA_KILL9_SEED=n` repeats a run's decisions, `AURORA_KILL9_KILLS=n` makes it longer.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

import aurora_engine as au
from tests import kill9_writer as w

pytestmark = pytest.mark.crash

SEED = int(os.environ.get("AURORA_KILL9_SEED", "20261"))
KILLS = int(os.environ.get("AURORA_KILL9_KILLS", "56"))
OPTIONS: dict[str, Any] = {"page_bytes": 16 << 10, "segment_bytes": 2 << 20, "cache_bytes": 8 << 20}
"""Small segments and a small cache, so that growth, eviction and reads from storage happen all the time."""
NODES = ["az1/node1", "az1/node2", "az2/node3", "az2/node4", "az3/node5", "az3/node6"]
PATIENCE_S = 60
"""A child that says nothing for so long hangs."""
TOKENS_ASKED = 60
"""How many of the last run's tokens, and how many of all, are asked for at each look."""
UTC_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Stream = tuple[str, int, int]
"""The commits of one writer: kind, run, writer. Hot rows go on from run to run; their run is 0."""


@dataclass
class Model:
    """All that was ever reported, and what was found of it."""

    known: Counter[Stream] = field(default_factory=Counter)
    """How many commits of a stream are known to be durable: acknowledged, or found."""
    settled: set[Stream] = field(default_factory=set)
    """Streams of dead writers that were looked at: they never change again."""
    commits: dict[int, int] = field(default_factory=dict)
    """The time of every acknowledged commit by its LSN."""
    tokens: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """The LSN of every acknowledged commit that had a token."""
    singles: list[tuple[int, int, int, int]] = field(default_factory=list)
    """LSN, run, writer and seq of the acknowledged single rows of the last run."""
    warnings: list[str] = field(default_factory=list)
    kills: int = 0

    def hear(self, line: str) -> None:
        """Takes one line of a child."""
        word, *rest = line.split(" ")
        if word == "A":
            self.acknowledged(rest[0], *map(int, rest[1:]))
        elif word == "O":
            kind, (run, writer, seq) = rest[0], map(int, rest[1:])
            self.found((kind, run, writer), seq)
        elif word == "W":
            self.warnings.append(line)
        elif word == "E":
            pytest.fail(f"after {self.kills} kills a writer failed: {line}")

    def acknowledged(self, kind: str, run: int, writer: int, seq: int, lsn: int, time_us: int) -> None:
        stream = (kind, run, writer)
        assert seq == self.known[stream], f"{stream}: expected commit {self.known[stream]} to be reported, got {seq}"
        assert lsn not in self.commits, f"{stream}: LSN {lsn} was given to two commits"
        self.known[stream] = seq + 1
        self.commits[lsn] = time_us
        if kind == w.TOKEN:
            self.tokens[run, writer, seq] = lsn
        if kind == w.SINGLE:
            self.singles.append((lsn, run, writer, seq))

    def found(self, stream: Stream, count: int) -> None:
        """A stream was found to have so many commits."""
        known = self.known[stream]
        assert count >= known, f"{stream}: {known} commits were acknowledged, only the first {count} are there"
        limit = known if stream in self.settled else known + 1
        assert count <= limit, f"{stream}: {known} commits were acknowledged or found, and now {count} are there"
        self.known[stream] = count

    def settle(self) -> None:
        """Every writer is dead and every stream was looked at. A token may be tried again; a hot row goes on."""
        self.settled.update(stream for stream in self.known if stream[0] not in (w.HOT, w.TOKEN))
        self.singles.clear()

    def streams(self, kind: str) -> Iterator[Stream]:
        return (stream for stream in self.known if stream[0] == kind)

    def unresolved(self) -> list[tuple[int, int, int]]:
        """The next commit of the latest token writers: tried again it does its work once, whatever happened to it."""
        latest = sorted(self.streams(w.TOKEN), key=lambda stream: stream[1])[-4:]
        return [(run, writer, self.known[kind, run, writer]) for kind, run, writer in latest]


class Child:
    """A writer process. It is started ahead, so that its imports cost no time, and waits for its task."""

    spare: ClassVar[Child | None] = None

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, w.PROGRAM]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.pending: deque[str] = deque()
        self.rest = b""

    def line(self, end: float) -> str | None:
        """What it says next; `None` at a moment, or when it has ended."""
        while not self.pending:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.stdout], [], [], left)[0]:
                return None
            data = os.read(self.stdout.fileno(), 1 << 16)
            if not data:
                return None
            *lines, self.rest = (self.rest + data).split(b"\n")
            self.pending.extend(line.decode() for line in lines)
        return self.pending.popleft()

    def hear(self, model: Model, limit_s: float, until: str | None = None) -> bool:
        """Listens for a time, or until it says a word; whether it said it."""
        end = time.monotonic() + limit_s
        while (line := self.line(end)) is not None:
            if line == until:
                return True
            model.hear(line)
        return False

    def expect(self, word: str, model: Model) -> None:
        if not self.hear(model, PATIENCE_S, until=word):
            pytest.fail(
                f"the child did not say {word} in {PATIENCE_S} s: it hangs, or ended with {self.process.poll()}"
            )

    @classmethod
    def take(cls) -> Child:
        """One that was started ahead; the next one is started at once."""
        child = cls.spare or cls()
        cls.spare = cls()
        return child

    def begin(self, task: w.Task, model: Model) -> None:
        self.expect("B", model)
        self.stdin.write(w.as_line(task))
        self.expect("G", model)

    def kill(self, model: Model) -> None:
        """Ends it without warning, and hears what it had said before."""
        ended = self.process.poll()
        self.process.send_signal(signal.SIGKILL)
        self.bury(model)
        assert ended is None, f"the child ended by itself with {ended}"

    def bury(self, model: Model) -> None:
        """It was killed: hears what it had said before."""
        self.hear(model, PATIENCE_S)
        code = self.process.wait(timeout=PATIENCE_S)
        self.discard()
        assert code == -signal.SIGKILL, f"expected the child to be killed, it ended with {code}"
        model.kills += 1

    def discard(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.stdin.close()
        self.stdout.close()


# ----------------------------------------------------------------------------------------------- what must hold


def check(db: au.Cluster, model: Model, dice: random.Random) -> None:
    """Holds an opened cluster, whose writers are all dead, against all that was reported."""
    tables = w.open_tables(db)
    with db.view() as view:
        check_singles(view, tables, model)
        check_hot(view, tables, model)
        check_transfers(view, tables, model)
        check_pieces(view, tables, model)
        check_tokens(db, view, tables, model, dice)
    check_times(db, tables, model, dice)
    model.settle()


def check_prefixes(kind: str, rows: Iterator[Any], model: Model, check_row: Callable[[Any], None]) -> None:
    """The rows of each stream, one a commit, are its first ones without a hole."""
    counts: Counter[Stream] = Counter()
    for row in rows:
        stream = (kind, row.run, row.writer)
        assert row.seq == counts[stream], f"{stream}: commit {counts[stream]} is missing, {row.seq} is there"
        counts[stream] += 1
        check_row(row)
    for stream in {*model.streams(kind), *counts}:
        model.found(stream, counts[stream])


def check_singles(view: au.View, tables: w.Tables, model: Model) -> None:
    def check_row(row: w.Single) -> None:
        assert row.proof == w.proof(row.run, row.writer, row.seq), row

    check_prefixes(w.SINGLE, view.range(tables.single), model, check_row)


def check_hot(view: au.View, tables: w.Tables, model: Model) -> None:
    counts = {row.writer: row.n for row in view.range(tables.hot)}
    assert counts.pop(w.TOKEN_COUNTER) == view.scan(tables.token).count(), "a token's work was done twice, or half"
    for stream in {*model.streams(w.HOT), *((w.HOT, 0, writer) for writer in counts)}:
        model.found(stream, counts.get(stream[2], 0))


def check_transfers(view: au.View, tables: w.Tables, model: Model) -> None:
    balances = dict.fromkeys(range(w.ACCOUNTS), w.OPENING_BALANCE)

    def move(row: w.Transfer) -> None:
        balances[row.source] -= row.amount
        balances[row.target] += row.amount

    check_prefixes(w.TRANSFER, view.range(tables.transfer), model, move)
    found = {row.id: row.balance for row in view.range(tables.account)}
    assert sum(found.values()) == w.ACCOUNTS * w.OPENING_BALANCE, f"money was made or lost: {found}"
    assert found == balances, "a transfer is in the journal and not in the accounts, or the other way round"


def check_pieces(view: au.View, tables: w.Tables, model: Model) -> None:
    """Each commit inserts a group and deletes an old one: of each stream the last few are there, all complete."""
    groups: dict[Stream, dict[int, list[int]]] = {}
    for row in view.range(tables.pieces):
        name = f"{row.run}/{row.writer}/{row.seq}/{row.part}"
        assert row.payload == w.payload_of(row.run, row.writer, row.seq, row.part), f"piece {name} has other bytes"
        assert row.parts == w.parts_of(row.run, row.writer, row.seq), f"piece {name}: {row.parts}"
        groups.setdefault((w.PIECES, row.run, row.writer), {}).setdefault(row.seq, []).append(row.part)
    for stream in {*model.streams(w.PIECES), *groups}:
        there = groups.get(stream, {})
        count = max(there) + 1 if there else 0
        model.found(stream, count)
        assert sorted(there) == list(range(max(0, count - w.GROUPS_KEPT), count)), f"{stream}: groups {sorted(there)}"
        for seq, parts in there.items():
            assert parts == list(range(w.parts_of(*stream[1:], seq))), f"{stream}: commit {seq} has only parts {parts}"


def check_tokens(db: au.Cluster, view: au.View, tables: w.Tables, model: Model, dice: random.Random) -> None:
    check_prefixes(w.TOKEN, view.range(tables.token), model, lambda row: None)
    newest = max((run for run, _, _ in model.tokens), default=0)
    new = [token for token in model.tokens if token[0] == newest]
    old = sorted(model.tokens)
    for token in {*some(dice, new), *some(dice, old)}:
        commit = db.committed(w.token_of(*token))
        assert commit is not None, f"token {token} was acknowledged and is not known"
        lsn = model.tokens[token]
        assert (commit.lsn, w.time_us(commit.time)) == (lsn, model.commits[lsn]), f"token {token}: {commit}"
    for _, run, writer in list(model.streams(w.TOKEN))[-6:]:
        count = model.known[w.TOKEN, run, writer]
        for seq, expected in ((count - 1, True), (count, False)):
            if seq >= 0:
                known = db.committed(w.token_of(run, writer, seq)) is not None
                assert known == expected, f"token {(run, writer, seq)}: row {expected}, token {known}"


def some(dice: random.Random, tokens: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    return dice.sample(tokens, min(TOKENS_ASKED, len(tokens)))


def check_times(db: au.Cluster, tables: w.Tables, model: Model, dice: random.Random) -> None:
    """LSN and time have the same order, for all commits of all runs, and either finds the commit."""
    lsns = sorted(model.commits)
    times = [model.commits[lsn] for lsn in lsns]
    for before, after, lsn in zip(times, times[1:], lsns[1:], strict=False):
        assert before < after, f"the commit at {lsn} has time {after}, one before it {before}"
    for lsn in dice.sample(lsns, min(10, len(lsns))):
        with db.view(at=UTC_EPOCH + dt.timedelta(microseconds=model.commits[lsn])) as view:
            assert view.lsn == lsn, f"the commit at {lsn} was the last at its time, the view there is at {view.lsn}"
    for lsn, run, writer, seq in dice.sample(model.singles, min(10, len(model.singles))):
        with db.view(at=lsn) as then:
            assert then.get(tables.single, (run, writer, seq)) is not None, f"the commit at {lsn} is not in its view"
            assert then.get(tables.single, (run, writer, seq + 1)) is None, f"the view at {lsn} sees a later commit"


# ----------------------------------------------------------------------------------------------- the chains of kills


def draw_wait(dice: random.Random) -> tuple[bool, float]:
    """When to kill: counted from before or from after the open, and how long from there."""
    kind = dice.random()
    if kind < 0.25:
        return False, dice.uniform(0, 0.04)
    if kind < 0.4:
        return True, dice.uniform(0, 0.03)
    return True, dice.uniform(0.05, 0.9)


class Chain:
    """One directory whose owner is killed again and again."""

    def __init__(self, path: Path, seed: int, options: dict[str, Any]) -> None:
        self.path = path
        self.dice = random.Random(seed)
        self.options = options
        self.model = Model()
        self.run = 0

    def kill_one(self, *, wait: tuple[bool, float] | None = None, takeover: bool = False) -> None:
        """Has a child write, and kills it; with `takeover`, by opening the cluster from here."""
        after_open, seconds = wait or draw_wait(self.dice)
        child = Child.take()
        self.run += 1
        seed = self.dice.getrandbits(32)
        task = w.Task(str(self.path), self.run, seed, options=self.options, unresolved=self.model.unresolved())
        try:
            child.begin(task, self.model)
            if after_open or takeover:
                child.expect("U", self.model)
            child.hear(self.model, seconds)
            if takeover:
                with au.open(self.path, takeover=True, cache_bytes=OPTIONS["cache_bytes"]) as db:
                    child.bury(self.model)
                    check(db, self.model, self.dice)
            else:
                child.kill(self.model)
        finally:
            child.discard()

    def look(self) -> au.Status:
        """Opens the cluster and checks everything."""
        with au.open(self.path, **self.options) as db:
            check(db, self.model, self.dice)
            return db.status()

    def lose(self, count: int) -> list[str]:
        """Takes directories of nodes away. Only after a look: what an open has finished is on four copies again."""
        gone = self.dice.sample(NODES, count)
        for node in gone:
            shutil.rmtree(self.path / node)
        return gone


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Callable[..., Chain]]:
    """Makes chains, and ends their processes."""
    made: list[Chain] = []

    def make(path: Path = tmp_path / "cluster", seed: int = SEED, **options: Any) -> Chain:
        made.append(Chain(path, seed, {**OPTIONS, **options}))
        return made[-1]

    yield make
    for one in made:
        shutil.rmtree(one.path, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    if Child.spare is not None:
        Child.spare.discard()


@pytest.mark.timeout(600)
def test_every_acknowledged_commit_survives_kills(chain: Callable[..., Chain]):
    one = chain()
    for _ in range(KILLS):
        one.kill_one(takeover=one.dice.random() < 0.1)
        if one.dice.random() < 0.6:
            one.look()
            if one.dice.random() < 0.25:
                one.lose(one.dice.choice((1, 2)))
    status = one.look()
    model = one.model
    report = f"{model.kills} kills, {len(model.commits):,} acknowledged commits\n{status}"
    print(report)
    assert model.kills == KILLS
    assert model.warnings == []
    assert status.segments > 5, report
    assert max(node.layers for node in status.nodes) > 0, report
    assert status.epoch > KILLS, report


def test_kills_with_nodes_on_several_devices(chain: Callable[..., Chain], tmp_path: Path):
    """Four logs and a thread for each: three nodes lie on another device, which now and then is not there."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second device at /dev/shm")
    device = Path(tempfile.mkdtemp(prefix="aurora-disk-", dir=shm))
    links = {tmp_path / name: device / name for name in ("node4", "node5", "node6")}
    elsewhere = {f"{zone}/{link.name}": str(link) for zone, link in zip(("az2", "az3", "az3"), links, strict=True)}
    nodes = [(node.split("/")[0], elsewhere.get(node, node)) for node in NODES]
    one = chain(nodes=nodes)
    try:
        for target in links.values():
            target.mkdir()
        for _ in range(10):
            absent = one.dice.sample(sorted(links), one.dice.choice((0, 0, 1, 2))) if one.model.kills else []
            for link, target in links.items():
                link.unlink(missing_ok=True)
                if link not in absent:
                    link.symlink_to(target)
            one.kill_one()
            if one.dice.random() < 0.6:
                one.look()
        one.look()
        assert one.model.warnings == []
    finally:
        shutil.rmtree(device)


def test_a_cluster_that_was_killed_while_it_was_made_can_be_made_again(chain: Callable[..., Chain], tmp_path: Path):
    """Nothing was in it yet, so what the making left behind must be in nobody's way."""
    dice = random.Random(SEED)
    for number in range(12):
        one = chain(tmp_path / f"made-{number}", SEED + number)
        one.kill_one(wait=(False, dice.uniform(0, 0.05)))
        one.look()
