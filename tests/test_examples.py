"""Every example runs, and says what it is meant to show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    tested = {
        "quickstart.py",
        "job_queue.py",
        "threads.py",
        "asyncio_service.py",
        "fastapi_service.py",
        "dashboard.py",
        "demo.py",
        "failover.py",
        "undo.py",
        "backup.py",
        "loading.py",
        "typed_rows.py",
        "test_retry_logic.py",
    }
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_quickstart_in_memory_and_on_disk(tmp_path: Path) -> None:
    for arguments in ((), ("bank",)):
        out = run("quickstart.py", *arguments, cwd=tmp_path)
        assert "paid once: Account(id=1, owner='Ann', balance=Decimal('65.00'))" in out
        assert "before the transfer: Account(id=1, owner='Ann', balance=Decimal('100.00'))" in out
    assert (tmp_path / "bank" / "az3").is_dir()


def test_backup(tmp_path: Path) -> None:
    out = run("backup.py", cwd=tmp_path)
    assert "the cluster is gone: True" in out
    assert "accounts: 1,000 rows, as the source had counted: True" in out
    assert "rows: 1000" in out
    assert "rows after the mistake: 500" in out


def test_failover(tmp_path: Path) -> None:
    out = run("failover.py", "1.2", cwd=tmp_path)
    assert "every acknowledged commit is there, exactly once" in out
    assert "was silent for" in out
    assert "lost az3/node5, az3/node6" in out


@pytest.mark.parametrize("path", [(), ("accounts",)])
def test_threads(tmp_path: Path, path: tuple[str, ...]) -> None:
    assert "coins: 1,000,000, expected 1,000,000" in run("threads.py", *path, cwd=tmp_path)


@pytest.mark.parametrize("path", [(), ("queue",)])
def test_job_queue(tmp_path: Path, path: tuple[str, ...]) -> None:
    assert "jobs done: 200 of 200, each once; left: 0" in run("job_queue.py", *path, cwd=tmp_path)


@pytest.mark.parametrize("path", [(), ("counters",)])
def test_asyncio_service(tmp_path: Path, path: tuple[str, ...]) -> None:
    out = run("asyncio_service.py", *path, cwd=tmp_path)
    assert "counted: 20,000; /page/7 was seen 2 times" in out


@pytest.mark.parametrize("path", [(), ("bank",)])
def test_fastapi_service(tmp_path: Path, path: tuple[str, ...]) -> None:
    out = run("fastapi_service.py", *path, cwd=tmp_path)
    assert 'taken: table "accounts", index "by_owner"' in out
    assert "transfers: 200 of 400 requests, each once" in out
    assert 'refused: table "accounts", check "solvent"' in out
    assert "money: 3000.00; jobs: 200" in out


@pytest.mark.parametrize("path", [(), ("orders",)])
def test_dashboard(tmp_path: Path, path: tuple[str, ...]) -> None:
    out = run("dashboard.py", *path, cwd=tmp_path)
    assert "at the end: 5,000 orders" in out
    assert "filter: (day >= DATE '2026-03-01')" in out


def test_undo(tmp_path: Path) -> None:
    out = run("undo.py", cwd=tmp_path)
    assert "<Changes of accounts: 5 inserts, 0 updates, 0 deletes>" in out
    assert "10 rows" in out
    assert "forward again: 5 rows" in out
    assert "clone and compare: 5 rows put back" in out
    assert "selective: {'insert': 2, 'update': 0, 'delete': 0}, 7 rows" in out


@pytest.mark.parametrize("path", [(), ("trades",)])
def test_loading(tmp_path: Path, path: tuple[str, ...]) -> None:
    out = run("loading.py", *path, cwd=tmp_path)
    for line in (
        "from polars: 50000",
        "from Parquet: 20000",
        "from CSV: 5000",
        "from dicts: 1000",
        "new ones only: 1000",
    ):
        assert line in out
    assert 'refused: table "trades": row' in out


@pytest.mark.parametrize("path", [(), ("orders",)])
def test_typed_rows(tmp_path: Path, path: tuple[str, ...]) -> None:
    out = run("typed_rows.py", *path, cwd=tmp_path)
    assert "typed: Ann 19.90 [{'sku': 1}]" in out
    assert "dict: {'customer': 'Bob', 'total': Decimal('0.00')}" in out
    assert 'refused: row 1: column "total"' in out


def test_retry_logic(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_retry_logic.py")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "18 passed" in done.stdout


@pytest.mark.crash
def test_demo(tmp_path: Path) -> None:
    out = run("demo.py", "--scale", "0.01", "--seconds", "1", "--folder", str(tmp_path), cwd=tmp_path)
    assert "lineitem: 60,175 rows" in out
    assert "0 lost" in out
    assert "Nothing was lost." in out
