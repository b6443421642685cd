"""Backup, delete everything, restore elsewhere, with proof.

    python examples/backup.py [DIRECTORY or s3://bucket/prefix]

The backup goes into a directory unless an address is given.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import aurora_engine as au


class Account(au.Row, key="id"):
    """An account of the bank."""

    id: int
    owner: str
    balance: int


def main(work: Path, place: str) -> None:
    """Makes a bank and its backup, deletes the bank, and restores it twice."""
    with au.open(work / "bank", backup=place) as db:
        accounts = db.create_table("accounts", Account)
        with db.transaction() as tx:
            for number in range(1_000):
                tx.insert(accounts, Account(number, f"owner {number}", 100))
        db.snapshot("before the mistake", proof=True)
        with db.transaction() as tx:
            for number in range(500):
                tx.delete(accounts, number)
        mistake = tx.committed
        db.backup_now()
        print("backup:", db.status().backup)

    shutil.rmtree(work / "bank")
    print("the cluster is gone:", not (work / "bank").exists())

    print(au.explain_restore(place, at="before the mistake"))
    with au.restore(place, work / "elsewhere", at="before the mistake") as restored:
        proof = restored.proof
        print(f"restored LSN {proof.plan.lsn} from {len(proof.plan.objects)} objects, each with its checksum")
        for table in proof.tables or ():
            rows = 0 if table.restored is None else table.restored.rows
            print(f"  {table.name}: {rows:,} rows, as the source had counted: {table.holds}")
        print("rows:", len(list(restored.scan(restored.table("accounts", Account)))))
    with au.restore(place, memory=True, at=mistake) as later:
        print("rows after the mistake:", len(list(later.scan(later.table("accounts", Account)))))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory), sys.argv[1] if len(sys.argv) > 1 else str(Path(directory) / "backup"))
