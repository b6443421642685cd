"""One cluster among threads, event loops, forks and signals.

* A fork is refused clearly, whatever is called on what it inherited, and ends without a trace in the parent.
* Threads and event loops share a cluster.
* Ctrl-C ends a call that takes long with `KeyboardInterrupt`, and the cluster goes on.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aurora_engine as au
from aurora_engine import col
from aurora_engine.exceptions import ForkedProcess

PATIENCE_S = 60


class Item(au.Row, key="id"):
    id: int
    n: int


# ----------------------------------------------------------------------------------------------------------- forks

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def in_fork(body: Callable[[], str]) -> str:
    """What a fork of this process answers; it ends as a process does that inherited things, with destructors."""
    out, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(to_parent, body().encode())
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    os.close(to_parent)
    answer = b""
    try:
        while select.select([out], [], [], PATIENCE_S)[0] and (data := os.read(out, 65536)):
            answer += data
        end = time.monotonic() + PATIENCE_S
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < end, f"the fork hangs; it said {answer!r}"
            time.sleep(0.005)
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(out)
    assert os.waitstatus_to_exitcode(ended[1]) == 0, answer
    return answer.decode()


def refusal(call: Callable[[], Any]) -> str:
    try:
        return f"answered {call()!r}"
    except ForkedProcess as error:
        parent = error.opened_by == os.getppid() and error.pid == os.getpid()
        return "refused" if parent and "spawn" in str(error) else f"refused with {error.details}"
    except BaseException as error:  # noqa: BLE001 - it goes to the parent
        return f"raised {error!r}"


@pytest.mark.parametrize("memory", [True, False])
def test_a_fork_is_refused_and_the_parent_goes_on(cluster_dir: Path, memory: bool):
    with au.open(memory=True) if memory else au.open(cluster_dir) as db:
        items = db.create_table("items", Item)
        with db.transaction() as tx:
            tx.insert(items, Item(1, 1))
        begun = db.transaction()
        begun.__enter__()
        begun.insert(items, Item(2, 2))
        view = db.view().__enter__()
        rows = view.range(items)
        calls: dict[str, Callable[[], Any]] = {
            "get": lambda: db.get(items, 1),
            "get_many": lambda: db.get_many(items, [1]),
            "view": lambda: db.view().__enter__(),
            "scan": lambda: db.scan(items).count(),
            "tables": db.tables,
            "table": lambda: db.table("items", Item),
            "create_table": lambda: db.create_table("more", Item),
            "status": db.status,
            "vdl": lambda: db.vdl,
            "transaction": lambda: db.transaction().__enter__(),
            "run": lambda: db.run(lambda tx: tx.get(items, 1)),
            "committed": lambda: db.committed("token"),
            "in a transaction": lambda: begun.get(items, 1),
            "insert": lambda: begun.insert(items, Item(3, 3)),
            "commit": begun.commit,
            "in a view": lambda: view.get(items, 1),
            "rows": lambda: next(rows),
            "asyncio": lambda: asyncio.run(one_commit(db, items, 9)),
        }
        answer = in_fork(lambda: "\n".join(f"{name}: {refusal(call)}" for name, call in calls.items()))
        assert answer.splitlines() == [f"{name}: refused" for name in calls]
        # Letting go of what was inherited is quiet, also by name.
        assert in_fork(lambda: refusal(db.close)) in ("answered None", "refused")
        assert in_fork(lambda: refusal(lambda: db.__exit__(None, None, None))) in ("answered None", "refused")
        assert next(rows) == Item(1, 1)
        view.close()
        begun.commit()
        assert db.get(items, 2) == Item(2, 2)
    if not memory:
        with au.open(cluster_dir) as again:
            assert list(again.scan(again.table("items", Item))) == [Item(1, 1), Item(2, 2)]


async def one_commit(db: au.Cluster, items: au.Table[Item], number: int) -> None:
    async with db.aio.transaction() as tx:
        await tx.insert(items, Item(number, 0))


def test_a_fork_may_open_a_cluster_of_its_own(tmp_path: Path):
    with au.open(tmp_path / "parent") as db:
        db.create_table("items", Item)

        def body() -> str:
            with au.open(tmp_path / "child") as own:
                items = own.create_table("items", Item)
                with own.transaction() as tx:
                    tx.insert(items, Item(1, 5))
                found = own.get(items, 1)
            try:
                au.open(tmp_path / "parent")
            except au.exceptions.AlreadyOpen as error:
                return f"{found} {error.pid == os.getppid()}"
            return "opened"

        assert in_fork(body) == "Item(id=1, n=5) True"
        assert db.tables() == ["items"]


def test_the_directory_is_free_when_the_parent_closes_though_a_fork_lives(cluster_dir: Path):
    """The fork has the lock file's descriptor too: closing in the parent must give the directory free all the same."""
    db = au.open(cluster_dir)
    stay, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(stay, 1)
        os._exit(0)
    os.close(stay)
    try:
        db.close()
        au.open(cluster_dir).close()
    finally:
        os.close(go)
        os.waitpid(child, 0)


# --------------------------------------------------------------------------------------------- threads and event loops


def test_threads_and_event_loops_share_a_cluster(cluster_dir: Path):
    """Each adds to the same rows; nothing is lost, and nobody waits for ever."""
    threads, tasks, rounds, rows = 6, 20, 15, 5
    with au.open(cluster_dir, cache_bytes=4 << 20) as db:
        items = db.create_table("items", Item)
        with db.transaction() as tx:
            for number in range(rows):
                tx.insert(items, Item(number, 0))
        failures: list[BaseException] = []

        def add_from_thread(seed: int) -> None:
            try:
                for turn in range(rounds):
                    db.run(lambda tx, row=(seed + turn) % rows: tx.update(items, row, n=col("n") + 1), retries=100_000)
                    assert db.scan(items).count() == rows
            except BaseException as error:  # noqa: BLE001 - the test raises it
                failures.append(error)

        async def add(seed: int) -> None:
            for turn in range(rounds):

                async def once(tx: au.AsyncTransaction, row: int = (seed + turn) % rows) -> None:
                    await tx.update(items, row, n=col("n") + 1)

                await db.aio.run(once, retries=100_000)

        async def add_all() -> None:
            await asyncio.gather(*(add(seed) for seed in range(tasks)))

        def loop() -> None:
            try:
                asyncio.run(add_all())
            except BaseException as error:  # noqa: BLE001 - the test raises it
                failures.append(error)

        workers = [threading.Thread(target=add_from_thread, args=(seed,)) for seed in range(threads)]
        # Two event loops in threads, and one here.
        workers += [threading.Thread(target=loop) for _ in range(2)]
        for worker in workers:
            worker.start()
        loop()
        for worker in workers:
            worker.join(PATIENCE_S)
            assert not worker.is_alive(), "a worker hangs"
        assert failures == []
        assert sum(item.n for item in db.scan(items)) == (threads + 3 * tasks) * rounds


def test_a_cluster_may_be_closed_under_its_users(cluster_dir: Path):
    """Whoever is in the middle of something gets an error that says so, and nobody waits for ever."""
    db = au.open(cluster_dir)
    items = db.create_table("items", Item)
    ends: list[BaseException] = []
    acknowledged: set[int] = set()

    def write(base: int) -> None:
        try:
            for number in range(base, base + 1_000_000):
                with db.transaction() as tx:
                    tx.insert(items, Item(number, 0))
                acknowledged.add(number)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            ends.append(error)

    workers = [threading.Thread(target=write, args=(base * 1_000_000,)) for base in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(0.2)
    db.close()
    for worker in workers:
        worker.join(PATIENCE_S)
        assert not worker.is_alive(), "a commit hangs after close"
    assert len(ends) == 4
    for end in ends:
        assert isinstance(end, au.exceptions.ClusterClosed | au.exceptions.CommitUnknown), repr(end)
    with au.open(cluster_dir) as again:
        there = {item.id for item in again.scan(again.table("items", Item))}
    assert acknowledged <= there
    assert len(there - acknowledged) <= 4


# ------------------------------------------------------------------------------------------------------------- Ctrl-C

PROGRAM = """
import sys, os, signal, threading, time
import aurora_engine as au

class Item(au.Row, key="id"):
    id: int
    n: int

class Big(au.Row, key="id"):
    id: int
    data: bytes

db = au.open(sys.argv[1], cache_bytes=4 << 20)
items = db.create_table("items", Item, exist_ok=True)
with db.transaction() as tx:
    tx.upsert(items, Item(1, 0))

{prepare}

def ready():
    os.write(1, b"ready\\n")

interrupted = False
try:
    ready()
    while True:
        {call}
except KeyboardInterrupt:
    interrupted = True
assert interrupted
signal.signal(signal.SIGINT, signal.SIG_IGN)
db.run(lambda tx: tx.update(items, 1, n=au.col("n") + 1))
assert db.get(items, 1).n >= 1
{after}
db.close()
os.write(1, b"usable\\n")
"""

CALLS = {
    "commits": ("", "db.run(lambda tx: tx.update(items, 1, n=au.col('n') + 1))", ""),
    "a scan": (
        """
with db.transaction() as tx:
    for number in range(2, 60_000):
        tx.insert(items, Item(number, number))
""",
        "db.scan(items).count()",
        "assert db.scan(items).count() == 59_999",
    ),
    "rows": (
        """
with db.transaction() as tx:
    for number in range(2, 60_000):
        tx.insert(items, Item(number, number))
""",
        "sum(item.n for item in db.scan(items))",
        "assert db.scan(items).count() == 59_999",
    ),
    "large values": (
        "big = db.create_table('big', Big, exist_ok=True)\nnumber = 0",
        "number += 1; db.run(lambda tx: tx.insert(big, Big(number, bytes(3_000_000))))",
        "assert db.scan(big).count() in (number - 1, number)",
    ),
    "a load": (
        """
import pyarrow as pa
loaded = db.create_table("loaded", Item, exist_ok=True)
schema = pa.schema([pa.field("id", pa.int64(), False), pa.field("n", pa.int64(), False)])
numbers = pa.array(range(4_000_000), pa.int64())
table = pa.table([numbers, numbers], schema=schema)
""",
        "db.load(loaded, table, show_progress=False)",
        "assert db.scan(loaded).count() == 0",
    ),
}


@pytest.mark.parametrize("what", CALLS)
def test_ctrl_c_ends_a_long_call(cluster_dir: Path, what: str):
    if what == "a load":
        pytest.importorskip("pyarrow")
    prepare, call, after = CALLS[what]
    program = textwrap.dedent(PROGRAM).format(prepare=prepare, call=call, after=after)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(cluster_dir)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n", child.communicate()[1].decode()
        time.sleep(0.7)
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE_S)
        took = time.monotonic() - sent
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0, err.decode()
    assert out == b"usable\n"
    assert took < 20, f"Ctrl-C took {took:.1f} s"


def test_ctrl_c_at_any_moment_of_a_commit(cluster_dir: Path):
    """Between two statements, in a commit, in a wait for its durability: the token tells what came of it."""
    program = """
    import os, signal, sys, threading
    import aurora_engine as au

    class Item(au.Row, key="id"):
        id: int
        n: int

    db = au.open(sys.argv[1])
    items = db.create_table("items", Item)
    ends = 0
    for turn in range(200):
        timer = threading.Timer(0.0005 * (turn % 8), signal.raise_signal, [signal.SIGINT])
        try:
            timer.start()
            while timer.is_alive():
                db.run(lambda tx: tx.upsert(items, Item(turn, turn)), token=f"turn-{turn}")
            timer.join()
        except KeyboardInterrupt:
            ends += 1
        # What was numbered before the interrupt becomes durable with whatever is committed next.
        db.run(lambda tx: tx.upsert(items, Item(-1, turn)))
        row, done = db.get(items, turn), db.committed(f"turn-{turn}")
        assert (row is None) == (done is None), (turn, row, done)
    print(ends)
    db.close()
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(cluster_dir)],
        capture_output=True, text=True, timeout=PATIENCE_S, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
