"""A process that changes a table's definition is killed with SIGKILL: each change has happened whole or not at all.

The changes are numbered, and what the table is after so many of them is known beforehand. The child says each number
once the change has returned. After the kill the table must be what it is after that many changes, or one more.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aurora_engine as au

pytestmark = pytest.mark.crash

ROWS = 60
STEPS = 7
OPTIONS: dict[str, Any] = {"page_bytes": 16 << 10, "segment_bytes": 2 << 20, "cache_bytes": 8 << 20}


class Thing(au.Row, key="id"):
    id: int
    text: str


def step(db: au.Cluster, number: int) -> None:
    """Change number so much of the endless list."""
    match number % STEPS, f"c{number - number % STEPS}":
        case 0, name:
            db.add_column("things", name, au.Int16, default=7)
        case 1, name:
            table = db.table("things")
            with db.transaction() as tx:
                for key in range(0, ROWS, 5):
                    tx.update(table, key, **{name: key})
        case 2, name:
            db.alter_column("things", name, int)
        case 3, name:
            db.rename_column("things", name, f"{name} renamed")
        case 4, name if number // STEPS % 2:
            db.drop_column("things", f"{name} renamed")
        case 4, name:
            db.rename_column("things", f"{name} renamed", f"{name} kept")
        case 5, _:
            db.truncate("things")
        case 6, _:
            table = db.table("things")
            with db.transaction() as tx:
                for key in range(ROWS):
                    values = {name: "anew" if name == "text" else 1 for name in columns(number)}
                    tx.insert(table, table.row(**values, id=key))
        case other:
            raise AssertionError(other)


def columns(changes: int) -> list[str]:
    """The columns beside the key after so many changes."""
    names = ["text"]
    for number in range(changes):
        name = f"c{number - number % STEPS}"
        match number % STEPS:
            case 0:
                names.append(name)
            case 3:
                names[names.index(name)] = f"{name} renamed"
            case 4 if number // STEPS % 2:
                names.remove(f"{name} renamed")
            case 4:
                names[names.index(f"{name} renamed")] = f"{name} kept"
    return names


def check(db: au.Cluster, changes: int) -> None:
    """The table is what it is after so many changes: its columns, and what lies in them."""
    table = db.table("things")
    names = ["id", *columns(changes)]
    assert [column[0] for column in table.schema.columns] == names
    if changes % STEPS in (1, 2, 3):
        # Nothing else tells whether it was widened.
        assert table.schema.columns[-1][1] == ("int64" if changes % STEPS == 3 else "int16")
    empty = changes % STEPS == 6
    rows = [au.asdict(row) for row in db.scan(table)]
    assert [row["id"] for row in rows] == ([] if empty else list(range(ROWS)))
    name = f"c{changes - changes % STEPS}"
    for row in rows:
        if changes % STEPS == 1:
            assert row[name] == 7
        elif changes % STEPS in (2, 3):
            assert row[name] == (row["id"] if row["id"] % 5 == 0 else 7)
        assert row["text"] == (f"row {row['id']}" if changes < STEPS else "anew")


def child(path: str, first: int) -> None:
    with au.open(path, **OPTIONS) as db:
        number = first
        while True:
            step(db, number)
            number += 1
            print(number, flush=True)


def test_changes_of_a_definition_survive_kills(tmp_path: Path) -> None:
    dice, path = random.Random(4), tmp_path / "db"
    with au.open(path, **OPTIONS) as db:
        things = db.create_table("things", Thing)
        with db.transaction() as tx:
            for key in range(ROWS):
                tx.insert(things, Thing(key, f"row {key}"))
    changes = 0
    for _ in range(5):
        command = [sys.executable, "-c", f"from tests.test_alter_kill9 import child; child({str(path)!r}, {changes})"]
        root = Path(__file__).parents[1]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = changes
            for _ in range(dice.randrange(2, 3 * STEPS)):
                said = int(process.stdout.readline())
            process.kill()
            # What it managed to say before the kill counts as well.
            said = max([said, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
        with au.open(path, **OPTIONS) as db:
            try:
                check(db, said)
                changes = said
            except AssertionError:
                # It was done, and had not been said.
                check(db, said + 1)
                changes = said + 1
