"""Makes the backups in ``tests/data/backups``: so that later releases, and other readers, read earlier backups.

``python tests/make_backups.py DIRECTORY`` writes ``plain/``, ``encrypted/`` and ``expected.json`` there: for moments
of the backup (LSNs and a snapshot) which ``state`` each table was in, and the rows of each state as text.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import aurora_engine as au

KEY = bytes(range(32))


class Account(au.Row, key="id"):
    """A table of every type."""

    id: int
    active: bool | None
    small: au.Int8 | None
    price: Annotated[Decimal, au.precision(18, 2)] | None
    ratio: float | None
    single: au.Float32 | None
    day: dt.date | None
    clock: dt.time | None
    at: dt.datetime | None
    instant: au.Instant | None
    name: str | None
    data: bytes | None
    tag: uuid.UUID | None
    extra: au.Json | None


class Event(au.Row, key=("day", "number")):
    """A table with a key of two columns, loaded in bulk."""

    day: int
    number: int
    text: str


def account(number: int) -> Account:
    """A row made from its number; every fifth has nulls."""
    if number % 5 == 0:
        return Account(number, *[None] * 13)
    moment = dt.datetime(2026, 1, 1 + number % 28, number % 24, 5, 6, number)
    return Account(
        number, number % 2 == 0, number % 100 - 50, Decimal(number) / 4, number * 0.5, number * 0.25, moment.date(),
        moment.time(), moment, moment.replace(tzinfo=dt.UTC), f"name {number} ä", bytes([number % 256]) * (number % 7),
        uuid.UUID(int=number), {"n": number},
    )  # fmt: skip


States = list[list[list[str]]]


def rows_of(db: au.Cluster, name: str) -> list[list[str]]:
    """Every row of a table, each value as its ``repr``, in key order."""
    with db.view() as view:
        return [[repr(value) for value in au.astuple(row)] for row in view.range(db.table(name))]


def moment(db: au.Cluster, states: States) -> dict[str, int]:
    """The state of each table, which is added to those that are known."""
    found = {}
    for name in db.tables():
        rows = rows_of(db, name)
        if rows not in states:
            states.append(rows)
        found[name] = states.index(rows)
    return found


def make(place: Path, key: bytes | None) -> dict[str, Any]:
    """One backup, and what it should give back."""
    states: States = []
    expected: dict[str, Any] = {"states": states, "lsn": {}, "snapshot": {}}
    with au.open(memory=True, backup=place, backup_key=key, page_bytes=16384) as db:
        accounts = db.create_table("accounts", Account)
        events = db.create_table("events", Event)
        db.backup_now()

        def keep() -> None:
            expected["lsn"][str(db.vdl)] = moment(db, states)

        with db.transaction() as tx:
            for number in range(60):
                tx.insert(accounts, account(number))
        keep()
        db.load(events, [Event(1, number, "x" * (number % 20)) for number in range(120)])
        keep()
        with db.transaction() as tx:
            for number in range(0, 60, 3):
                tx.delete(accounts, number)
            for number in range(1, 60, 3):
                tx.update(accounts, number, name="changed", price=None)
        db.snapshot("monday")
        keep()
        expected["snapshot"]["monday"] = moment(db, states)
        db.backup_now()
        db.backup.base()
        left = db.vdl
        with db.transaction() as tx:
            tx.insert(accounts, account(1000))
            tx.insert(accounts, au.replace(account(1005), id=1001, name="long " * 3500))
        keep()
        db.backup_now()
        db.backtrack(to=left)
        with db.transaction() as tx:
            tx.insert(accounts, account(2000))
        keep()
        db.backup_now()
        expected["latest"] = db.vdl
    return expected


def main(directory: Path) -> None:
    """Makes both."""
    shutil.rmtree(directory, ignore_errors=True)
    expected = {
        "key": KEY.hex(),
        "plain": make(directory / "plain", None),
        "encrypted": make(directory / "encrypted", KEY),
    }
    (directory / "expected.json").write_text(json.dumps(expected, ensure_ascii=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
