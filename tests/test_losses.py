"""Copies are taken away or damaged, and the cluster has everything.

Every node's directory, every pair (a zone is one of them), and every zone with one node more is removed, or every file
in it is damaged, before the cluster is opened and while a thread commits. What must hold:

* everything that was acknowledged can be read, from the copies that are left;
* commits go on wherever four copies remain; otherwise `QuorumLost` names the nodes, and reads are still answered;
* after the next open the copies are rebuilt, and later losses may take those that they were rebuilt from.

The cases run one after the other on one directory, so that each has to live with what the ones before it left.
"""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aurora_engine as au
from aurora_engine.exceptions import CommitUnknown, QuorumLost, ReadOnlyCluster

NODES = ["az1/node1", "az1/node2", "az2/node3", "az2/node4", "az3/node5", "az3/node6"]
SINGLES = [(node,) for node in NODES]
PAIRS = list(itertools.combinations(NODES, 2))
ZONES_AND_ONE = [
    (*zone, other) for zone in zip(NODES[::2], NODES[1::2], strict=True) for other in NODES if other not in zone
]

OPTIONS: dict[str, Any] = {"page_bytes": 16 << 10, "segment_bytes": 4 << 20, "cache_bytes": 4 << 20}
"""The cache is smaller than the data: reads come from the copies."""
ITEMS, ITEM_BYTES = 360, 24_000
"""Enough that the log is put into layers, so that there is something to damage."""
PATIENCE_S = 60
_POOL = random.Random(4).randbytes(1 << 20)


class Item(au.Row, key="id"):
    id: int
    payload: bytes


class Count(au.Row, key="writer"):
    writer: int
    n: int


def payload_of(number: int) -> bytes:
    start = number * 7_919 % (len(_POOL) - ITEM_BYTES)
    return _POOL[start : start + ITEM_BYTES]


def remove(path: Path) -> None:
    """Removes a directory, also one in which files come and go meanwhile."""
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)


def damage(path: Path) -> None:
    """Flips a bit in every page of every file."""
    for file in path.rglob("*"):
        if file.is_file():
            content = bytearray(file.read_bytes())
            for at in range(len(content) // 2 % 4096, len(content), 4096):
                content[at] ^= 0x40
            # In place: an open file is the same one.
            with file.open("r+b") as out:
                out.write(content)


LOSSES: dict[str, Callable[[Path], None]] = {"removed": remove, "damaged": damage}


class Writer:
    """A thread that commits one row after the other until it is told to stop, or a commit fails."""

    def __init__(self, db: au.Cluster, start: int) -> None:
        self.db = db
        self.table = db.table("counts", Count)
        self.acknowledged = start
        self.error: Exception | None = None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self.stopped.is_set():
                with self.db.transaction() as tx:
                    tx.upsert(self.table, Count(0, self.acknowledged + 1))
                self.acknowledged += 1
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def goes_on(self) -> bool:
        """Whether commits that begin now are acknowledged."""
        target = self.acknowledged + 5
        return eventually(lambda: self.acknowledged >= target or self.error is not None) and self.error is None

    def stop(self) -> int:
        self.stopped.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "a commit hangs"
        return self.acknowledged


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.005)
    return False


class Site:
    """A cluster with data in its layers, and the number of commits that it must have."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.options = {**OPTIONS, **options}
        self.count = 0
        with self.open() as db:
            items = db.create_table("items", Item)
            counts = db.create_table("counts", Count)
            for first in range(0, ITEMS, 12):
                with db.transaction() as tx:
                    for number in range(first, first + 12):
                        tx.insert(items, Item(number, payload_of(number)))
            self.commit(db, counts)
            # Logs of several devices are put into layers much later.
            shared = db.status().devices == 1
            assert not shared or eventually(lambda: all(node.layers for node in db.status().nodes)), db.status()

    def open(self, **options: Any) -> au.Cluster:
        return au.open(self.path, **{**self.options, **options})

    def commit(self, db: au.Cluster, counts: au.Table[Count] | None = None) -> None:
        with db.transaction() as tx:
            tx.upsert(counts or db.table("counts", Count), Count(0, self.count + 1))
        self.count += 1

    def check(self, db: au.Cluster) -> None:
        """Everything is there."""
        expected = 0
        for item in db.scan(db.table("items", Item)):
            assert item.id == expected
            assert item.payload == payload_of(expected)
            expected += 1
        assert expected == ITEMS
        found = db.get(db.table("counts", Count), 0)
        assert found is not None
        # One commit may have been in flight when a writer failed.
        assert found.n in (self.count, self.count + 1)
        self.count = found.n

    def rebuilt(self, db: au.Cluster) -> None:
        """Every copy becomes whole again."""

        def healthy() -> bool:
            return all(node.state == "healthy" for node in db.status().nodes)

        assert eventually(healthy), db.status()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    path = Path(tempfile.mkdtemp(prefix="aurora-losses-"))
    yield Site(path / "cluster")
    shutil.rmtree(path)


def name_of(nodes: tuple[str, ...]) -> str:
    return "+".join(node[-1] for node in nodes)


@pytest.mark.parametrize("nodes", [*SINGLES, *PAIRS, *ZONES_AND_ONE], ids=name_of)
@pytest.mark.parametrize("how", LOSSES)
def test_lost_before_open(site: Site, nodes: tuple[str, ...], how: str):
    for node in nodes:
        LOSSES[how](site.path / node)
    with site.open() as db:
        site.check(db)
        site.commit(db)
        site.rebuilt(db)
        site.check(db)


@pytest.mark.parametrize("nodes", [*SINGLES, *PAIRS], ids=name_of)
@pytest.mark.parametrize("how", LOSSES)
def test_lost_while_running_with_four_left(site: Site, nodes: tuple[str, ...], how: str):
    with site.open() as db:
        writer = Writer(db, site.count)
        assert writer.goes_on(), writer.error
        for node in nodes:
            LOSSES[how](site.path / node)
        assert writer.goes_on(), writer.error
        if how == "removed":
            # They may be on their way back already.
            assert eventually(lambda: {event.who for event in db.events() if event.what == "node lost"} == set(nodes))
        site.count = writer.stop()
        assert writer.error is None
        site.check(db)
    with site.open() as db:
        site.check(db)
        site.rebuilt(db)
        site.check(db)


@pytest.mark.parametrize("nodes", ZONES_AND_ONE, ids=name_of)
def test_removed_while_running_with_three_left(site: Site, nodes: tuple[str, ...]):
    with site.open() as db:
        writer = Writer(db, site.count)
        assert writer.goes_on(), writer.error
        for node in nodes:
            remove(site.path / node)
        assert eventually(lambda: writer.error is not None), "a commit was acknowledged on three copies, or hangs"
        site.count = writer.stop()
        # The commit that was under way cannot know its fate; the next one is refused at once.
        assert isinstance(writer.error, CommitUnknown | QuorumLost), writer.error
        with pytest.raises(QuorumLost) as refused:
            site.commit(db)
        assert set(refused.value.missing) == set(nodes)
        assert (refused.value.have, refused.value.of, refused.value.need) == (3, 6, 4)
        assert refused.value.hint
        site.check(db)
    with site.open() as db:
        site.check(db)
        site.commit(db)
        site.rebuilt(db)
        site.check(db)


@pytest.mark.parametrize("nodes", ZONES_AND_ONE, ids=name_of)
def test_damaged_while_running_with_three_left(site: Site, nodes: tuple[str, ...]):
    """Damaged copies still take commits; what they have in layers is read from the others."""
    with site.open() as db:
        writer = Writer(db, site.count)
        for node in nodes:
            damage(site.path / node)
        writer.goes_on()
        site.count = writer.stop()
        site.check(db)
    with site.open() as db:
        site.check(db)
        site.commit(db)
        site.rebuilt(db)
        site.check(db)


@pytest.mark.parametrize("count", [4, 5, 6])
@pytest.mark.parametrize("how", LOSSES)
def test_too_few_copies_to_open(site: Site, tmp_path: Path, count: int, how: str):
    """It says which are missing, and spoils nothing: with them it opens again."""
    nodes = NODES[6 - count :]
    kept = {node: shutil.copytree(site.path / node, tmp_path / node.replace("/", "-")) for node in nodes}
    for node in nodes:
        LOSSES[how](site.path / node)
    for read_only in (False, True):
        with pytest.raises(QuorumLost) as refused:
            site.open(read_only=read_only).close()
        assert set(refused.value.missing) == set(nodes)
        assert (refused.value.have, refused.value.of) == (6 - count, 6)
    for node, copy in kept.items():
        shutil.rmtree(site.path / node, ignore_errors=True)
        shutil.copytree(copy, site.path / node)
    with site.open() as db:
        site.check(db)
        site.commit(db)
        site.rebuilt(db)


def test_all_removed_while_running(tmp_path: Path):
    site = Site(tmp_path / "cluster")
    with site.open() as db:
        writer = Writer(db, site.count)
        assert writer.goes_on(), writer.error
        for node in NODES:
            remove(site.path / node)
        assert eventually(lambda: writer.error is not None)
        writer.stop()
        assert eventually(lambda: {node.path for node in db.status().missing} == set(NODES)), db.status()
        with pytest.raises(QuorumLost) as refused:
            site.commit(db)
        assert set(refused.value.missing) == set(NODES)


# ------------------------------------------------------------------------------------- disks that come and go


class Disks:
    """Nodes on another device, each behind a link that can be taken away, as a mount can."""

    def __init__(self, path: Path, nodes: list[str]) -> None:
        self.path = path
        self.device = Path(tempfile.mkdtemp(prefix="aurora-disk-", dir="/dev/shm"))
        self.nodes = nodes
        for node in nodes:
            (self.device / node).mkdir(parents=True)
        self.mount()

    def mount(self) -> None:
        for node in self.nodes:
            link = self.path / node
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(self.device / node)

    def unmount(self, *nodes: str) -> None:
        for node in nodes:
            (self.path / node).unlink()


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[..., tuple[Site, Disks]]]:
    made: list[Disks] = []

    def make(*nodes: str) -> tuple[Site, Disks]:
        if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("needs a second device at /dev/shm")
        disks = Disks(tmp_path / "disks", list(nodes))
        made.append(disks)
        placed = [(node.split("/")[0], disks.path / node if node in nodes else node) for node in NODES]
        return Site(tmp_path / "cluster", nodes=placed), disks

    yield make
    for disks in made:
        shutil.rmtree(disks.device)


def test_unmounted_disks_are_waited_for(disks: Callable[..., tuple[Site, Disks]]):
    """A device that is not there may come back with its copy: it is not rebuilt elsewhere, and catches up later."""
    site, other = disks("az3/node5", "az3/node6")
    with site.open() as db:
        assert db.status().devices == 2
        site.check(db)
    for _ in range(2):
        other.unmount("az3/node5", "az3/node6")
        with site.open() as db:
            site.check(db)
            for _ in range(20):
                site.commit(db)
            assert len(db.status().missing) == 2, db.status()
        other.mount()
        with site.open() as db:
            site.check(db)
            site.commit(db)
            site.rebuilt(db)
    # Now they are as good as the others.
    for node in ("az1/node1", "az1/node2", "az2/node3"):
        remove(site.path / node)
    with site.open() as db:
        site.check(db)
        site.rebuilt(db)


def test_three_unmounted_disks_leave_a_cluster_to_read(disks: Callable[..., tuple[Site, Disks]]):
    gone = ("az2/node4", "az3/node5", "az3/node6")
    site, other = disks(*gone)
    other.unmount(*gone)
    with site.open() as db:
        site.check(db)
        with pytest.raises((QuorumLost, ReadOnlyCluster)) as refused:
            site.commit(db)
        for node in gone:
            assert node in str(refused.value)
        site.check(db)
    other.mount()
    with site.open() as db:
        site.check(db)
        site.commit(db)
        site.rebuilt(db)


def test_a_device_that_is_gone_while_running(disks: Callable[..., tuple[Site, Disks]]):
    site, other = disks("az3/node5", "az3/node6")
    with site.open() as db:
        writer = Writer(db, site.count)
        assert writer.goes_on(), writer.error
        shutil.rmtree(other.device / "az3")
        assert writer.goes_on(), writer.error
        site.count = writer.stop()
        site.check(db)
        assert eventually(lambda: len(db.status().missing) == 2), db.status()
    for node in other.nodes:
        (other.device / node).mkdir(parents=True)
    with site.open() as db:
        site.check(db)
        site.commit(db)
        site.rebuilt(db)
