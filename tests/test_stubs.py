"""The stubs say what the binary has, and type checkers see what people write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import aurora_engine

ROOT = Path(__file__).parents[1]
PROGRAM = """
from decimal import Decimal
from typing import Annotated, Any, assert_type

import aurora_engine as au


class Account(au.Row, key="id"):
    id: int
    owner: str
    balance: Annotated[Decimal, au.precision(18, 2)] = Decimal(0)


db = au.open(memory=True)
accounts = db.create_table("accounts", Account)
assert_type(accounts, au.Table[Account])
with db.transaction() as tx:
    tx.insert(accounts, Account(1, "Ann"))
    assert_type(tx.get(accounts, 1), Account | None)
    tx.update(accounts, 1, balance=au.col("balance") + 5)
    for row in tx.range(accounts, 1, 5):
        assert_type(row, Account)
assert_type(tx.committed, au.Commit | None)
assert_type(db.run(lambda tx: 5), int)
assert_type(db.run(lambda tx: 5, token="t"), int | None)


async def main() -> None:
    async with db.aio.transaction() as atx:
        assert_type(await atx.get(accounts, 1), Account | None)
        async for row in atx.range(accounts):
            assert_type(row, Account)
    assert_type(await db.aio.get_many(accounts, [1]), list[Account | None])


Account(1)  # E: missing
Account(1, "Ann").owner = "Bob"  # E: read-only
tx.insert(accounts, 5)  # E: not a row
tx.insert(accounts, {"id": 1, "owner": "Ann"})
tx.insert_many(accounts, [Account(1, "Ann"), (2, "Bob", Decimal(0))])
assert_type(db.table("accounts", rows="dict"), au.Table[dict[str, Any]])
assert_type(tx.get(db.table("accounts", rows="tuple"), 1), tuple[Any, ...] | None)
for part in tx.range(accounts, columns=["owner"]):
    print(part.owner)
"""


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    package = str(Path(aurora_engine.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd, env={"MYPYPATH": package, "PYTHONPATH": package, "PATH": ""}, capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip


def test_stub_and_binary_are_equal(tmp_path: Path) -> None:
    done = run("mypy.stubtest", "aurora_engine._engine", "--concise", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_name_of_the_package_is_documented() -> None:
    undocumented = [
        name
        for name in aurora_engine.__all__
        if callable(value := getattr(aurora_engine, name)) and isinstance(value, type) and not value.__doc__
    ]
    assert undocumented == []


def test_a_type_checker_sees_rows_as_they_are(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = run(
        "mypy", "--strict", "--no-incremental", "--cache-dir", str(tmp_path / "cache"), str(program), cwd=tmp_path
    )
    lines = PROGRAM.splitlines()
    expected = {number for number, line in enumerate(lines, 1) if "# E:" in line}
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert found == expected, done.stdout + done.stderr
