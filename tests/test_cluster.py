"""Opening, closing, what is refused, and the processes around a cluster."""

from __future__ import annotations

import datetime as dt
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import aurora_engine as au
from aurora_engine import exceptions as ex


class Item(au.Row, key="id"):
    id: int
    name: str


class Other(au.Row, key="id"):
    id: int
    title: str


def fill(db: au.Cluster, count: int = 10) -> au.Table[Item]:
    items = db.create_table("items", Item, exist_ok=True)
    with db.transaction() as tx:
        for number in range(count):
            tx.upsert(items, Item(number, f"name {number}"))
    return items


def test_what_was_committed_is_there_after_reopening(cluster_dir: Path) -> None:
    with au.open(cluster_dir) as db:
        fill(db)
        assert db.path == str(cluster_dir)
        assert not db.closed
    assert db.closed
    with au.open(cluster_dir, create=False) as db:
        assert db.tables() == ["items"]
        assert db.get(db.table("items", Item), 3) == Item(3, "name 3")
        row = db.get(db.table("items"), 3)
        assert au.asdict(row) == {"id": 3, "name": "name 3"}


def test_tables(cluster_dir: Path) -> None:
    with au.open(cluster_dir) as db:
        items = fill(db)
        assert (items.name, items.row, items.schema) == ("items", Item, Item.__schema__)
        assert repr(items) == '<Table "items" of Item>'
        with pytest.raises(ex.TableExists, match='table "items"'):
            db.create_table("items", Item)
        differs = r'expected column "title" \(text\), got column "name" \(text\)'
        with pytest.raises(ex.SchemaMismatch, match=differs) as mismatch:
            db.create_table("items", Other, exist_ok=True)
        assert (mismatch.value.expected, mismatch.value.got) == (str(Other.__schema__), str(Item.__schema__))
        with pytest.raises(ex.SchemaMismatch, match=differs):
            db.table("items", Other)
        with pytest.raises(ex.UnknownTable, match='table "nothing"') as caught:
            db.table("nothing")
        assert caught.value.table == "nothing"
        for name in ("", "aurora.tables", "x" * 1000):
            with pytest.raises(ex.InvalidOption, match="table name: expected"):
                db.create_table(name, Item)
        db.drop_table("items")
        assert db.tables() == []
        with pytest.raises(ex.UnknownTable):
            db.drop_table("items")
        with pytest.raises(ex.UnknownTable), db.transaction() as tx:
            tx.insert(items, Item(1, "x"))
        again = fill(db, 3)
        assert db.scan(again).count() == 3


def test_a_row_class_without_key_makes_no_table() -> None:
    class Base(au.Row):
        id: int

    with (
        au.open(memory=True) as db,
        pytest.raises(ex.SchemaError, match=r"expected a key, as in class Base\(au.Row, key=...\)"),
    ):
        db.create_table("base", Base)


@pytest.mark.parametrize(
    ("columns", "key", "message"),
    [
        ({"id": int, "name": str | None}, "id", r'column "name" \(text \| None\), got column "name" \(text\)'),
        ({"id": int}, "id", r'expected no further column, got column "name" \(text\)'),
        ({"id": int, "name": str, "more": int}, "id", r'expected column "more" \(int64\), got no further column'),
        ({"id": int, "name": str}, au.desc("id"), r"expected the key \(id descending\), got \(id\)"),
        ({"id": int, "name": str}, ("id", "name"), r"expected the key \(id, name\), got \(id\)"),
    ],
)
def test_a_mismatch_says_in_what_the_schemas_differ(columns: dict[str, Any], key: Any, message: str) -> None:
    wanted = type(au.Row)("Wanted", (au.Row,), {"__annotations__": columns}, key=key)
    with au.open(memory=True) as db:
        db.create_table("items", Item)
        with pytest.raises(ex.SchemaMismatch, match=message):
            db.create_table("items", wanted, exist_ok=True)


@pytest.mark.parametrize("frame", [pl.DataFrame({"id": [1], "n": [2]}), pa.table({"id": [1], "n": [2]})])
def test_a_data_frame_makes_a_table(frame: Any) -> None:
    with au.open(memory=True) as db:
        table = db.create_table("frames", frame, key=["id"])
        assert db.load(table, frame) == 1
        assert au.astuple(db.get(table, 1)) == (1, 2)
        with pytest.raises(ex.SchemaError, match=r"expected as key .*, got int 3"):
            db.create_table("others", frame, key=3)  # type: ignore[call-overload]
        with pytest.raises(ex.SchemaError, match="expected a Row class, a pydantic model or an Arrow schema, got dict"):
            db.create_table("others", {"id": [1]}, key="id")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"cache_bytes": 1}, "cache_bytes"),
        ({"cache_bytes": -1}, "cache_bytes"),
        ({"cache_bytes": 2**70}, "cache_bytes"),
        ({"cache_bytes": "256 MiB"}, "cache_bytes"),
        ({"background_bytes_per_s": -1}, "background_bytes_per_s"),
        ({"window": 3600}, "window"),
        ({"nodes": "abc"}, "nodes"),
        ({"nodes": ["/disk1", "/disk2"]}, "nodes"),
        ({"path": "", "memory": False}, "path"),
        ({"page_bytes": 4096}, "page_bytes"),
        ({"segment_bytes": 5}, "segment_bytes"),
        ({"nodes": [("az1", "a")]}, "nodes"),
        ({"nodes": [("az1", "a")] * 6}, "nodes"),
        ({"window": dt.timedelta(seconds=-1)}, "window"),
        ({"background_bytes_per_s": 0}, "background_bytes_per_s"),
        ({"path": "x"}, "path"),
        ({"memory": False}, "path"),
        ({"path": "x\0y", "memory": False}, "path"),
        ({"path": "x", "memory": False, "read_only": True, "takeover": True}, "takeover"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], option: str) -> None:
    with pytest.raises(ex.InvalidOption, match=r"expected .*, got") as caught:
        au.open(**{"memory": True, **options})
    assert caught.value.option == option
    assert caught.value.expected


def test_nodes_are_fixed_when_the_cluster_is_made(cluster_dir: Path) -> None:
    nodes = [(f"az{number // 2}", f"disk{number}") for number in range(6)]
    with au.open(cluster_dir, nodes=nodes):
        assert (cluster_dir / "disk0").is_dir()
    with au.open(cluster_dir, nodes=[(az, cluster_dir / path) for az, path in nodes]) as db:
        fill(db)
    elsewhere = [(az, f"other-{path}") for az, path in nodes]
    with pytest.raises(ex.InvalidOption, match=r"nodes: expected .*disk0.*, fixed when .*, got .*other-disk0"):
        au.open(cluster_dir, nodes=elsewhere)
    with au.open(cluster_dir) as db:
        assert db.scan(db.table("items", Item)).count() == 10


def test_directories_that_are_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    for name in ("file", "full"):
        with pytest.raises(ex.NotACluster, match="expected a directory with a manifest") as caught:
            au.open(tmp_path / name)
        assert Path(caught.value.path).name == name
    with pytest.raises(ex.NotACluster):
        au.open(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()
    assert (tmp_path / "full" / "letter.txt").read_text() == "dear"


def test_a_region_is_kept(cluster_dir: Path) -> None:
    with au.open(cluster_dir, region="north") as db:
        assert db.status().region == "north"
    with au.open(cluster_dir) as db:
        assert db.status().region == "north"
    with pytest.raises(ex.RegionMismatch, match="region: expected") as caught:
        au.open(cluster_dir, region="south")
    assert "south" in caught.value.got
    assert "north" in caught.value.expected
    with pytest.raises(ex.RegionMismatch, match="expected a name, got an empty one"):
        au.open(memory=True, region="")


def test_one_owner(cluster_dir: Path) -> None:
    with au.open(cluster_dir) as db:
        fill(db)
        with pytest.raises(ex.AlreadyOpen, match="already open in this process") as caught:
            au.open(cluster_dir)
        assert caught.value.pid == os.getpid()
        program = f"import aurora_engine as au\nau.open({str(cluster_dir)!r})"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert f"AlreadyOpen: {cluster_dir} is already open in process {os.getpid()}" in done.stderr


def test_a_takeover_ends_the_owner(cluster_dir: Path) -> None:
    program = textwrap.dedent(f"""
        import time, aurora_engine as au
        db = au.open({str(cluster_dir)!r})
        print("open", flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        with au.open(cluster_dir, takeover=True) as db:
            fill(db)
            assert owner.wait(10) == -signal.SIGKILL


def test_read_only_reads_and_refuses_writes(cluster_dir: Path) -> None:
    with au.open(cluster_dir) as db:
        fill(db)
    with au.open(cluster_dir, read_only=True) as db:
        items = db.table("items", Item)
        assert db.get(items, 3) == Item(3, "name 3")
        assert db.scan(items).count() == 10
        with db.transaction() as tx:
            assert tx.get(items, 4) is not None
        with pytest.raises(ex.ReadOnlyCluster) as caught, db.transaction() as tx:
            tx.delete(items, 1)
        assert caught.value.reason
        with pytest.raises(ex.ReadOnlyCluster):
            db.create_table("more", Item)
    with au.open(cluster_dir) as db:
        assert db.scan(db.table("items")).count() == 10


def test_everything_on_a_closed_cluster_says_so() -> None:
    db = au.open(memory=True)
    items = fill(db)
    view, tx, scan = db.view(), db.transaction(), db.scan(items)
    with tx:
        tx.delete(items, 1)
        tx.commit()
    db.close()
    db.close()
    assert repr(db) == "<Cluster in memory (closed)>"
    for call in (
        lambda: db.get(items, 1),
        lambda: view.get(items, 1),
        lambda: list(scan),
        lambda: db.create_table("x", Item),
        lambda: db.table("items"),
        lambda: db.transaction().__enter__(),
        db.view,
        lambda: db.vdl,
        db.tables,
        lambda: db.run(lambda tx: tx),
    ):
        with pytest.raises(ex.ClusterClosed, match="the cluster is closed"):
            call()
    assert "closed" in db.status().state


def test_a_cluster_that_is_forgotten_frees_its_directory(cluster_dir: Path) -> None:
    forgotten = au.open(cluster_dir)
    fill(forgotten)
    assert forgotten.aio.cluster is forgotten
    del forgotten
    gc.collect()
    with au.open(cluster_dir) as db:
        assert db.scan(db.table("items")).count() == 10


def _in_child(work: Any, results: Any) -> None:
    try:
        results.put(repr(work()))
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        results.put(f"{type(error).__name__}: {error}")


def test_a_fork_is_refused_clearly_and_leaves_the_parent_alone(cluster_dir: Path) -> None:
    with au.open(cluster_dir) as db:
        items = fill(db)
        view = db.view()
        rows = view.range(items)
        next(rows)
        context = multiprocessing.get_context("fork")
        works = [
            lambda: db.get(items, 1),
            lambda: view.get(items, 1),
            lambda: next(rows),
            lambda: db.transaction().__enter__(),
            db.status,
            db.close,
        ]
        for work in works:
            results = context.Queue()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = context.Process(target=_in_child, args=(work, results))
                child.start()
            answer = results.get(timeout=30)
            child.join(30)
            assert child.exitcode == 0
            if work is works[-1]:
                assert answer == "None"
            else:
                assert answer.startswith("ForkedProcess: the cluster was opened by process")
                assert "spawn" in answer
        assert db.get(items, 1) == Item(1, "name 1")
        with db.transaction() as tx:
            tx.delete(items, 1)


def test_destructors_in_a_fork_are_silent(cluster_dir: Path) -> None:
    program = textwrap.dedent(f"""
        import gc, os, aurora_engine as au
        db = au.open({str(cluster_dir)!r})
        view = db.view()
        tx = db.transaction().__enter__()
        pid = os.fork()
        if pid == 0:
            del db, view, tx
            gc.collect()
            raise SystemExit(0)
        assert os.waitpid(pid, 0)[1] == 0
        tx.rollback()
        view.close()
        db.close()
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_handler_runs_during_a_long_call() -> None:
    with au.open(memory=True) as db:
        items = fill(db, 2_000)
        seen = []
        previous = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
        try:
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            end = time.monotonic() + 10
            while not seen and time.monotonic() < end:
                db.scan(items).count()
        finally:
            signal.signal(signal.SIGUSR1, previous)
        assert seen


def test_what_a_prompt_shows(cluster_dir: Path) -> None:
    with au.open(cluster_dir) as db:
        assert repr(db.reader) == f"<Reader of <Cluster {cluster_dir}>>"
        assert repr(db.aio) == f"<Aio of <Cluster {cluster_dir}>>"
        tx = db.transaction()
        assert repr(tx) == "<Transaction not yet entered>"
        with tx:
            assert re.fullmatch(r"<Transaction open at LSN \d+>", repr(tx))
            tx.rollback()
        assert repr(tx) == "<Transaction ended>"
        items = fill(db)
        with db.transaction() as tx:
            tx.delete(items, 1)
        assert tx.committed is not None
        assert repr(tx) == f"<Transaction committed at LSN {tx.committed.lsn}>"
        with db.view(at=tx.committed) as view:
            assert repr(view) == f"<View at LSN {view.lsn}>"
        assert repr(view) == f"<View at LSN {view.lsn} (closed)>"
        assert repr(db.aio.transaction()) == "<AsyncTransaction not yet entered>"


def test_status_is_readable(cluster_dir: Path) -> None:
    with au.open(cluster_dir) as db:
        items = fill(db)
        db.get(items, 1)
        status = db.status()
        assert status.state == "open"
        assert status.path == str(cluster_dir)
        assert len(status.nodes) == 6
        assert [node.az for node in status.nodes] == ["az1", "az1", "az2", "az2", "az3", "az3"]
        assert status.missing == ()
        assert status.devices == 1
        assert "single point of failure" in status.fault_domains
        assert status.points.vdl <= status.points.vcl <= status.points.allocated <= status.points.lal
        assert 0 <= status.cache.hit_ratio <= 1
        assert status.backup is None
        text = repr(status)
        for word in (str(cluster_dir), "az3", "healthy", "vdl", "hit ratio", "unprotected", "single point of failure"):
            assert word in text
