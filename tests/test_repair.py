"""Copies that are lost while the cluster is open come back by themselves, and then count as before.

Directories are removed while threads commit; nobody opens the cluster again, nobody calls for a repair. What must hold:
`status()` goes from lost over repairing to healthy, `events()` says what was lost and how long the repair took, commits
and reads go on throughout, and what was made anew carries the cluster when the copies that it was made from are gone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import aurora_engine as au

NODES = ["az1/node1", "az1/node2", "az2/node3", "az2/node4", "az3/node5", "az3/node6"]
ZONES = {"az1": NODES[:2], "az2": NODES[2:4], "az3": NODES[4:]}
PATIENCE_S = 60


class Row(au.Row, key="id"):
    id: int
    payload: bytes


def payload_of(number: int) -> bytes:
    return number.to_bytes(8, "big") * 400


def remove(path: Path) -> None:
    """Removes a directory, also one in which files come and go meanwhile."""
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.005)
    return False


def happened(db: au.Cluster, what: str) -> list[str]:
    return [event.who for event in db.events() if event.what == what]


def whole(db: au.Cluster, *repaired: str) -> bool:
    """All six are healthy, and these were repaired."""
    done = happened(db, "node repaired")
    return all(node in done for node in repaired) and all(node.state == "healthy" for node in db.status().nodes)


def check(db: au.Cluster, count: int) -> None:
    table = db.table("rows", Row)
    found = {row.id: row.payload for row in db.scan(table)}
    assert {number: payload_of(number) for number in range(count)}.items() <= found.items()


class Writer:
    """A thread that commits one row after the other until it is told to stop."""

    def __init__(self, db: au.Cluster) -> None:
        self.db, self.table = db, db.create_table("rows", Row, exist_ok=True)
        self.count = 0
        self.error: Exception | None = None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self.stopped.is_set():
                with self.db.transaction() as tx:
                    tx.insert(self.table, Row(self.count, payload_of(self.count)))
                self.count += 1
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def goes_on(self) -> bool:
        target = self.count + 5
        return eventually(lambda: self.count >= target or self.error is not None) and self.error is None

    def stop(self) -> int:
        self.stopped.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "a commit hangs"
        assert self.error is None, self.error
        return self.count


@pytest.mark.parametrize("lost", [[NODES[0]], [NODES[3]], *ZONES.values()], ids="+".join)
def test_removed_copies_come_back_while_a_thread_commits(tmp_path: Path, lost: list[str]):
    path = tmp_path / "cluster"
    seen: set[tuple[str, str]] = set()
    with au.open(path, segment_bytes=4 << 20) as db:
        writer = Writer(db)
        assert writer.goes_on(), writer.error
        for node in lost:
            remove(path / node)

        def back() -> bool:
            seen.update((node.path, node.state) for node in db.status().nodes)
            return whole(db, *lost)

        assert eventually(back), db.status()
        assert writer.goes_on(), writer.error
        count = writer.stop()
        back()
        assert {(node, state) for node in lost for state in ("lost", "healthy")} <= seen
        assert not {(node, "lost") for node in NODES if node not in lost} & seen
        assert sorted(happened(db, "node lost")) == sorted(lost)
        for event in db.events():
            if event.what == "node repaired":
                assert event.took_s is not None
                assert 0 < event.took_s < PATIENCE_S
                assert event.detail is not None
                assert "bytes" in event.detail
        check(db, count)
    # The copies that these were made from go, but for as many as make three.
    stay = [*lost, *(node for node in NODES if node not in lost)][:3]
    for node in NODES:
        if node not in stay:
            remove(path / node)
    with au.open(path) as db:
        check(db, count)


def test_one_zone_after_the_other(tmp_path: Path):
    """Six directories are removed in all, and four were never missing."""
    path = tmp_path / "cluster"
    with au.open(path) as db:
        writer = Writer(db)
        for zone, nodes in ZONES.items():
            assert writer.goes_on(), writer.error
            remove(path / zone)
            assert eventually(lambda nodes=nodes: whole(db, *nodes)), db.status()
        count = writer.stop()
        check(db, count)
        lines = str(db.status()).splitlines()
        assert sum("healthy" in line for line in lines) == 6
    with au.open(path) as db:
        check(db, count)


def test_progress_is_shown(tmp_path: Path):
    path = tmp_path / "cluster"
    with au.open(path, background_bytes_per_s=2 << 20) as db:
        table = db.create_table("rows", Row)
        noise = os.urandom(1 << 20)
        for first in range(0, 640, 10):
            with db.transaction() as tx:
                for number in range(first, first + 10):
                    tx.insert(table, Row(number, noise[number * 40 : number * 40 + 60_000]))
        remove(path / NODES[5])
        shares: list[float] = []

        def filling() -> bool:
            node = db.status().nodes[5]
            if node.progress is not None:
                assert node.state == "repairing"
                assert 0 <= node.progress <= 1
                assert "filled" in str(db.status()) or db.status().nodes[5].progress is None
                shares.append(node.progress)
            return any(0 < share < 1 for share in shares)

        assert eventually(filling), db.status()
        assert shares == sorted(shares)


PROGRAM = """
    import sys, threading
    from pathlib import Path
    import aurora_engine as au
    sys.path.insert(0, {tests!r})
    from test_repair import Row, payload_of, remove, NODES

    path = Path({path!r})
    with au.open(path, segment_bytes=4 << 20) as db:
        table = db.create_table("rows", Row, exist_ok=True)
        number = sum(1 for _ in db.scan(table))
        begin = number
        while True:
            with db.transaction() as tx:
                tx.insert(table, Row(number, payload_of(number)))
            number += 1
            print(number, len([e for e in db.events() if e.what == "node repaired"]), flush=True)
            if number == begin + 40:
                remove(path / "az2")
"""


@pytest.mark.parametrize("delay_s", [0.9, 1.0, 1.05, 1.1, 1.2])
def test_killed_in_the_middle_of_a_repair(tmp_path: Path, delay_s: float):
    """SIGKILL about when the nodes are made anew. Then two of those that had everything go as well."""
    path = tmp_path / "cluster"
    program = textwrap.dedent(PROGRAM).format(tests=str(Path(__file__).parent), path=str(path))
    count = 0
    removed_at: float | None = None
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            count = int(line.split()[0])
            if count >= 41 and removed_at is None:
                removed_at = time.monotonic()
            if removed_at is not None and time.monotonic() > removed_at + delay_s:
                break
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split("\n")
    # The last line may be half of one.
    count = max([count, *(int(line.split()[0]) for line in rest[:-1])])
    with au.open(path) as db:
        check(db, count)
        assert eventually(lambda: whole(db)), db.status()
    for node in ("az1/node1", "az1/node2", "az3/node5"):
        remove(path / node)
    with au.open(path) as db:
        check(db, count)
        assert eventually(lambda: whole(db)), db.status()
        check(db, count)
