"""A disk without room, seen from Python: an error that names it, reads go on, and so do commits once there is room.

The disk is a tmpfs of 160 MB, for a quota or a loop device need more rights than it does. Where even that cannot be
mounted the test says so and does nothing; the same is tried on memory disks in `rust/runtime/tests/diskfull.rs`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import aurora_engine as au
from aurora_engine.exceptions import CommitUnknown, DiskFull

ITEM_BYTES = 40_000
OPTIONS = {"page_bytes": 16 << 10, "segment_bytes": 4 << 20, "cache_bytes": 4 << 20}


class Item(au.Row, key="id"):
    id: int
    payload: bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(db: au.Database, items: au.Table[Item], first: int) -> tuple[int, DiskFull]:
    """Inserts until there is no room; gives how many rows are acknowledged from 0 on, and the error."""
    for number in range(first, 100_000):
        try:
            with db.transaction() as tx:
                tx.upsert(items, Item(number, number.to_bytes(4, "big") * (ITEM_BYTES // 4)))
        except DiskFull as error:
            return number, error
        except CommitUnknown as error:
            if not isinstance(error.__cause__, DiskFull):
                raise
            return number, error.__cause__
    pytest.fail("the disk was never full")


def test_a_full_disk_is_named_and_nothing_acknowledged_is_lost(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(24 << 20))
    path = small_disk / "cluster"
    with au.open(path, **OPTIONS) as db:
        items = db.create_table("items", Item)
        count, error = fill(db, items, 0)
        assert count > 100, "there was room for more"
        assert str(small_disk) in str(error)
        # Reads go on.
        for number in (0, count // 2, count - 1):
            row = db.get(items, number)
            assert row is not None
            assert row.payload[:4] == number.to_bytes(4, "big")
        # With room again, so do commits.
        ballast.unlink()
        with db.transaction() as tx:
            tx.upsert(items, Item(count, b"after"))
    with au.open(path) as db:
        items = db.table("items", Item)
        with db.view() as view:
            ids = [row.id for row in view.range(items)]
            last = view.get(items, count)
        assert ids == list(range(count + 1))
        assert last == Item(count, b"after")
