"""Backups that an independent reader verifies: whole ones, and ones in which any byte is not what it was."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import aurora_engine as au
from aurora_engine import exceptions as ex
from aurora_engine.digest import digests
from aurora_engine.verifier.backup import Backup
from aurora_engine.verifier.checked import Checks
from aurora_engine.verifier.packed import unpack
from tests import make_backups
from tests.backup_writer import BackupWriter, pack

KEY = bytes(range(32))
GOLDEN = Path(__file__).parent / "data" / "backups"


class Account(au.Row, key="id"):
    id: int
    owner: str
    balance: float | None


def make_cluster(home: Path) -> dict[str, object]:
    """A small closed cluster, and the rows of its table."""
    with au.open(home, page_bytes=16384) as db:
        accounts = db.create_table("accounts", Account)
        with db.transaction() as tx:
            for number in range(40):
                tx.insert(accounts, Account(number, f"owner {number}", None if number % 3 else number / 4))
        with db.transaction() as tx:
            tx.delete(accounts, 7)
            tx.update(accounts, 9, owner="Ann")
        return {row.id: au.astuple(row) for row in db.scan(accounts)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, object]]:
    """A cluster, a backup of it, and its rows."""
    home = tmp_path_factory.mktemp("verify")
    rows = make_cluster(home / "cluster")
    BackupWriter(home / "backup").backup(home / "cluster")
    return home / "cluster", home / "backup", rows


@pytest.fixture
def backup(made: tuple[Path, Path, dict[str, object]], tmp_path: Path) -> Path:
    """A copy of the backup, to be damaged."""
    return Path(shutil.copytree(made[1], tmp_path / "backup"))


def test_rows_are_rebuilt_from_the_bytes(made: tuple[Path, Path, dict[str, object]]) -> None:
    with au.verify(made[1]) as report:
        assert report.ok, report
        assert {row["id"]: tuple(row.values()) for row in report.rows("accounts")} == made[2]
        assert [checked.kind for checked in report.objects] == ["format", "manifest", "log range"]
        assert report.table("accounts").num_rows == 39
        assert "everything is as it was written" in str(report)
    cluster = au.verify(made[0])
    assert cluster.tables["accounts"].digest == report.tables["accounts"].digest


def test_what_the_source_recorded_is_compared(made: tuple[Path, Path, dict[str, object]], tmp_path: Path) -> None:
    """A base at the latest LSN says which rows there were: a wrong digest is a problem, the right one is none."""
    digest = au.verify(made[1]).tables["accounts"].digest
    for recorded, ok in ((digest, True), ("0" * 32, False)):
        home = tmp_path / recorded
        writer = BackupWriter(home)
        body = writer.backup(made[0], [{"name": "accounts", "rows": 39, "digest": recorded}])
        body["bases"][0]["lsn"] = body["restorable"]["lsn"]
        body["bases"][0]["objects"] = [body["log"][0]["object"]]
        writer.put("manifests/" + "1".zfill(20), json.dumps(body).encode())
        found = au.verify(home)
        names = [checked.name for checked in found.objects if not checked.ok]
        assert not names or not ok
        table = found.tables["accounts"]
        assert (table.recorded == (table.rows, table.digest)) is ok
        assert any(problem.object == "table accounts" for problem in found.problems) is not ok


def test_what_the_source_counted_at_a_snapshot_is_what_is_found(tmp_path: Path) -> None:
    """Two programs that share no code count every type: the rows that the engine gives, and the bytes of the backup."""
    with au.open(tmp_path / "c", backup=tmp_path / "b", page_bytes=16384) as db:
        accounts = db.create_table("accounts", make_backups.Account)
        db.insert_many(accounts, [make_backups.account(number) for number in range(60)])
        db.snapshot("counted", proof=True)
        with db.transaction() as tx:
            tx.delete(accounts, 7)
        db.backup_now()
        now = digests(db)
    report = au.verify(tmp_path / "b")
    assert report.ok, report
    assert "1 table at snapshot counted: rows and digests are as the source recorded" in report.notes
    assert [(table.name, table.rows, table.digest) for table in now] == [
        (table.name, table.rows, table.digest) for table in report.tables.values()
    ]
    then = au.verify(tmp_path / "b", at="counted").tables["accounts"]
    assert then.recorded == (then.rows, then.digest) == (60, then.digest)


class Objects:
    """Objects in memory, one of which may be exchanged for another."""

    url = "memory"

    def __init__(self, home: Path) -> None:
        files = (path for path in home.rglob("*") if path.is_file())
        self.held = {path.relative_to(home).as_posix(): path.read_bytes() for path in files}

    def names(self) -> dict[str, int]:
        return {name: len(data) for name, data in self.held.items()}

    def get(self, name: str) -> bytes:
        return self.held[name]


@pytest.mark.parametrize(("name", "key"), [("plain", None), ("encrypted", KEY)], ids=["plain", "encrypted"])
def test_every_byte_of_a_backup_counts(name: str, key: bytes | None) -> None:
    """Each byte of each object of a real backup is flipped in turn, and the object is named."""
    store = Objects(GOLDEN / name)
    assert sum(store.names().values()) <= 64 * 1024
    backup = Backup(store, key, Checks(), lambda *_: None)
    assert all(not backup.open_object(name) for name in backup.manifest.objects)
    for name, whole in store.held.items():
        if name == "format":
            continue
        for at in range(len(whole)):
            store.held[name] = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
            if name.startswith("manifests/"):
                with pytest.raises(ex.Damaged) as raised:
                    backup.one_manifest(int(name.removeprefix("manifests/")))
                assert raised.value.object == name
            else:
                (problem,) = backup.open_object(name)
                assert problem.object == name
                assert problem.offset is not None
        store.held[name] = whole


@pytest.mark.parametrize("name", ["plain", "encrypted"])
def test_a_backup_of_the_engine_gives_what_was_backed_up(name: str) -> None:
    """Every moment of the backups in ``tests/data``: commits before and after a backtrack, and a snapshot."""
    known = json.loads((GOLDEN / "expected.json").read_text())
    key, expected = bytes.fromhex(known["key"]) if name == "encrypted" else None, known[name]
    moments: list[tuple[Any, dict[str, int]]] = [(int(lsn), tables) for lsn, tables in expected["lsn"].items()]
    moments += [*expected["snapshot"].items(), (None, expected["lsn"][str(expected["latest"])])]
    for at, tables in moments:
        with au.verify(GOLDEN / name, key, at=at) as report:
            assert report.ok, report
            assert report.tables.keys() == tables.keys()
            for table, state in tables.items():
                rows = [[repr(value) for value in row.values()] for row in report.rows(table)]
                assert rows == expected["states"][state], (at, table)


def test_an_open_cluster_is_backed_up_so_that_it_can_be_verified(tmp_path: Path) -> None:
    """A real backup with a load, an index, long values, growth and a backtrack, verified while the cluster is open."""
    with au.open(tmp_path / "c", backup=tmp_path / "b", segment_bytes=4 << 20, page_bytes=16384) as db:
        table = db.create_table("t", pa.schema([("id", pa.int64()), ("n", pa.int32()), ("x", pa.string())]), key="id")
        columns = {"id": list(range(20000)), "n": pa.array([n % 77 for n in range(20000)], pa.int32())}
        db.load(table, pa.table(columns | {"x": ["abc" * (n % 9) for n in range(20000)]}))
        db.create_index(table, "by_n", "n")
        db.snapshot("loaded")
        loaded = pa.table(db.scan(table))
        for number in range(5):
            with db.transaction() as tx:
                for row in range(number, 20000, 250):
                    tx.update(table, row, n=-number, x="y" * 3000 * (number + 1))
            if number == 1:
                db.backup_now()
                db.backup.base()
        table = db.add_column(table, "z", int, default=7)
        kept = db.vdl
        then = pa.table(db.scan(table))
        with db.transaction() as tx:
            tx.delete(table, 1)
        left, undone = db.vdl, pa.table(db.scan(table))
        db.backup_now()
        db.backtrack(to=kept)
        db.upsert_many(table, [{"id": -1, "n": None, "x": None, "z": 1}])
        now = pa.table(db.scan(table))
        lsn = db.backup_now()
        report = au.verify(tmp_path / "b")
        assert report.ok, report
        assert report.lsn == lsn
        assert report.table("t").equals(now)
        assert report.tables["t"].indexes == ("by_n",)
        assert {checked.kind for checked in report.objects} == {"format", "manifest", "layer", "blob", "log range"}
        for at, want in ((kept, then), (left, undone), ("loaded", loaded)):
            assert au.verify(tmp_path / "b", at=at).table("t").equals(want), at
    closed = au.verify(tmp_path / "c")
    assert closed.tables["t"].digest == report.tables["t"].digest
    with au.restore(tmp_path / "b", tmp_path / "r") as restored:
        assert pa.table(restored.scan(restored.table("t"))).equals(now)
    assert au.verify(tmp_path / "r").tables["t"].digest == report.tables["t"].digest


def test_a_flipped_byte_is_named_with_its_object(backup: Path) -> None:
    """The same through the public call, at places all over the backup."""
    rng = random.Random(5)
    for path in sorted(path for path in backup.rglob("*") if path.is_file()):
        name, whole = path.relative_to(backup).as_posix(), path.read_bytes()
        if name == "format":
            continue
        for at in {0, len(whole) - 1, len(whole) - 60, *rng.sample(range(len(whole)), 12)}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            report = au.verify(backup)
            assert {problem.object for problem in report.problems} == {name}, (at, report)
            with pytest.raises(ex.Damaged, match=name):
                report.raise_for_problems()
        path.write_bytes(whole)
    assert au.verify(backup).ok


def test_every_byte_of_the_format_object_counts_or_means_nothing(backup: Path) -> None:
    """It is plain JSON: a flipped byte is an error, or changes nothing that is read."""
    whole = (backup / "format").read_bytes()
    digest = au.verify(backup).tables["accounts"].digest
    for at in range(len(whole)):
        (backup / "format").write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            report = au.verify(backup)
        except (ex.NewerFormat, ex.InvalidOption):
            continue
        assert report.problems or report.tables["accounts"].digest == digest, at


@pytest.mark.parametrize("kind", ["log", "manifests", "format"])
def test_a_missing_object_is_named(backup: Path, kind: str) -> None:
    path = next(path for path in backup.rglob("*") if path.is_file() and path.relative_to(backup).parts[0] == kind)
    name = path.relative_to(backup).as_posix()
    path.unlink()
    report = au.verify(backup)
    assert {problem.object for problem in report.problems} == {"manifests" if kind == "manifests" else name}
    assert report.tables == {}
    assert report.problems[0].got == "none"


def test_an_object_cut_short_or_exchanged_is_named(backup: Path) -> None:
    path = next((backup / "log").iterdir())
    whole = path.read_bytes()
    name = f"log/{path.name}"
    for other in (whole[:-1], whole + b"\0", b"", pack(b"another content", name)):
        path.write_bytes(other)
        assert name in {problem.object for problem in au.verify(backup).problems}


def test_encrypted_backups(made: tuple[Path, Path, dict[str, object]], tmp_path: Path) -> None:
    home = tmp_path / "encrypted"
    BackupWriter(home, KEY).backup(made[0])
    report = au.verify(home, lambda: KEY)
    assert report.ok, report
    assert len(report.rows("accounts")) == 39
    with pytest.raises(ex.InvalidOption, match="option key: expected the 32 bytes"):
        au.verify(home)
    with pytest.raises(ex.InvalidOption, match="got another one"):
        au.verify(home, bytes(32))
    # An object under another's name does not open.
    path = next((home / "log").iterdir())
    data = path.read_bytes()
    with pytest.raises(ex.Damaged, match="what this key and this name encrypt"):
        unpack(data, "log/another", KEY)
    path.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    assert au.verify(home, KEY).problems[0].object == f"log/{path.name}"


def test_objects_that_nothing_names_mean_nothing(backup: Path) -> None:
    (backup / "log" / "remains").write_bytes(b"anything")
    report = au.verify(backup)
    assert report.ok
    assert "1 that no manifest names" in report.notes[0]


def test_a_format_of_the_future_is_refused(backup: Path) -> None:
    described = json.loads((backup / "format").read_bytes())
    (backup / "format").write_text(json.dumps(described | {"format": 2}))
    with pytest.raises(ex.NewerFormat, match="expected format 1, got 2"):
        au.verify(backup)
