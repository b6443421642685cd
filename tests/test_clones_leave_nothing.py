"""Clones for every test: safe beside one another under pytest-xdist, and a thousand of them leave nothing behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path

import pyarrow as pa
import pytest

import aurora_engine as au

CONFTEST = """
import pytest
import aurora_engine as au

class Account(au.Row, key="id"):
    id: int
    owner: str

@pytest.fixture(scope="session")
def aurora_fill():
    def fill(db):
        accounts = db.create_table("accounts", Account)
        db.insert_many(accounts, [Account(number, "Ann") for number in range(100)])
    return fill
"""

TESTS = """
import pytest
from conftest import Account

@pytest.mark.parametrize("number", range(40))
def test_each_has_its_own(aurora_db, number):
    accounts = aurora_db.table("accounts")
    assert [row.owner for row in aurora_db.scan(accounts)] == ["Ann"] * 100
    with aurora_db.transaction() as tx:
        tx.update(accounts, number, owner=f"test {number}")
        tx.delete(accounts, 99)
    assert aurora_db.create_table(f"of {number}", Account).name == f"of {number}"
    assert aurora_db.scan(accounts).count() == 99

def test_the_template_stays(aurora_template):
    assert aurora_template.scan(aurora_template.table("accounts")).count() == 100
"""


def test_clones_are_safe_under_xdist(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    package = str(Path(au.__file__).parents[1])
    # An installed package brings the plugin; where it is only on the path, it is named.
    brought = any(plugin.value == "aurora_engine.pytest_plugin" for plugin in entry_points(group="pytest11"))
    named = [] if brought else ["-p", "aurora_engine.pytest_plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *named, "-n", "2", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "41 passed" in done.stdout
    assert "2/2 workers" in done.stdout or "2 workers" in done.stdout


def held() -> tuple[Counter[str], int, int]:
    """What a process holds: open files, threads of the kernel, threads of Python."""
    gc.collect()
    names = Counter(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return names, len(list(Path("/proc/self/task").iterdir())), threading.active_count()


def settles(before: tuple[Counter[str], int, int]) -> bool:
    """Whether a process comes to hold no more than before: what has ended may still be on its way out."""
    ends = time.monotonic() + 20
    while (now := held()) != before and time.monotonic() < ends:
        threading.Event().wait(0.05)
    return now == before


def files_below(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*")}


def use(db: au.Cluster, *, write: bool) -> None:
    """Makes a clone, and drops it."""
    with db.clone(memory=True, cache_bytes=16 << 20) as clone:
        table = clone.table("t")
        if write:
            clone.insert_many(table, [{"id": -1, "x": "y"}])
            assert clone.scan(table).count() == 2001
        assert clone.get(table, 1999) is not None


@pytest.mark.parametrize(("on_disk", "clones"), [(False, 850), (True, 150)])
def test_a_thousand_clones_leave_nothing(tmp_path: Path, on_disk: bool, clones: int) -> None:
    source = au.open(tmp_path / "bank") if on_disk else au.open(memory=True, cache_bytes=16 << 20)
    with source as db:
        table = db.create_table("t", pa.schema([("id", pa.int64()), ("x", pa.string())]), key="id")
        db.load(table, pa.table({"id": list(range(2000)), "x": ["x"] * 2000}))
        for _ in range(20):  # until the source has opened what it will
            use(db, write=True)
        before, there = held(), files_below(tmp_path)
        for number in range(clones):
            use(db, write=number % 50 == 0)
        assert settles(before), (before, held())
        assert files_below(tmp_path) == there
        assert db.scan(table).count() == 2000
