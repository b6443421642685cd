"""Backups: into a directory and an S3 server, killed and resumed, restored to any moment and compared with a model."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aurora_engine as au
from aurora_engine import exceptions as ex

DATA = Path(__file__).parent / "data" / "backups"
KEY = bytes(range(32))


class Reading(au.Row, key="id"):
    id: int
    value: int


def put(db: au.Cluster, table: au.Table[Reading], rows: dict[int, int]) -> au.Commit:
    with db.transaction() as tx:
        for key, value in rows.items():
            tx.upsert(table, Reading(key, value))
    assert tx.committed is not None
    return tx.committed


def content(db: au.Cluster) -> dict[int, int]:
    return {row.id: row.value for row in db.scan(db.table("readings", Reading))}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a bucket on an S3 server of this process."""
    import boto3  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    before = {name: os.environ.get(name) for name in keys}
    os.environ.update(keys)
    try:
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="backups")
        yield f"http://{host}:{port}"
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        server.stop()


def test_everything_is_deleted_and_comes_back(tmp_path: Path) -> None:
    place = tmp_path / "backup"
    with au.open(tmp_path / "db", backup=place) as db:
        table = db.create_table("readings", Reading)
        first = put(db, table, {1: 1, 2: 1})
        snapshot = db.snapshot("one", proof=True)
        put(db, table, {1: 2})
        assert db.backup_now() == db.vdl
        status = db.status().backup
        assert status is not None
        assert (status.state, status.last_error, status.lag_s, status.restorable_lsn) == ("running", None, 0, db.vdl)
        assert status.snapshots == ["one"]
        assert status.uploaded_bytes >= status.stored_bytes > 0
        assert str(place) in repr(db.status())
        put(db, table, {3: 3})
    shutil.rmtree(tmp_path / "db")
    plan = au.explain_restore(place, first)
    assert plan.lsn == first.lsn
    assert plan.bytes == sum(found.bytes for found in plan.objects)
    assert [found.name for found in au.backups(place).snapshots] == ["one"]
    with (
        au.restore(place, tmp_path / "now") as now,
        au.restore(place, memory=True, at=first) as then,
        au.restore(place, memory=True, at=snapshot) as one,
    ):
        assert content(now) == {1: 2, 2: 1, 3: 3}, "closing uploads what came last"
        assert content(then) == content(one) == {1: 1, 2: 1}
        assert now.proof.plan.objects
        assert (now.proof.holds, one.proof.holds) == (None, True)
        counted = one.proof.tables
        assert counted is not None
        assert [(table.name, table.recorded.rows) for table in counted if table.recorded] == [("readings", 2)]
        put(now, now.table("readings", Reading), {4: 4})
    with au.open(tmp_path / "now") as db:
        assert content(db) == {1: 2, 2: 1, 3: 3, 4: 4}


def test_a_bucket(s3: str, tmp_path: Path) -> None:
    url = f"s3://backups/a/b?endpoint={s3}"
    with au.open(tmp_path / "db", backup=url, backup_key=lambda: KEY) as db:
        table = db.create_table("readings", Reading)
        db.load(table, [Reading(n, n) for n in range(2_000)])
        put(db, table, {1: 2})
        db.backup_now()
        db.backup.base()
    shutil.rmtree(tmp_path / "db")
    assert au.backups(url, key=KEY).encrypted
    with au.restore(url, memory=True, key=KEY) as restored:
        assert content(restored) == {n: 2 if n == 1 else n for n in range(2_000)}


def test_places_that_are_none_say_what_is_wrong(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, words in (
        (str(tmp_path / "nothing"), "no such bucket or directory"),
        (f"s3://missing/x?endpoint={s3}", "no such bucket or directory"),
        (f"s3://backups/nothing?endpoint={s3}", "found no object named format"),
    ):
        with pytest.raises(ex.BackupFailed, match=words):
            au.restore(url, memory=True)
        with pytest.raises(ex.BackupFailed, match=words):
            au.backups(url)
    with au.open(memory=True, backup=f"s3://missing/x?endpoint={s3}") as db:
        table = db.create_table("readings", Reading)
        put(db, table, {1: 1})
        with pytest.raises(ex.BackupFailed, match="no such bucket"):
            db.backup_now(timeout=0.5)
        put(db, table, {1: 2})
        assert any(event.what == "backup failed" for event in db.events())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ex.BackupFailed, match="credentials are missing, wrong"):
        au.restore(f"s3://backups/x?endpoint={s3}", memory=True)


def test_options_are_checked(tmp_path: Path) -> None:
    for days in (0, 36, True, "7"):
        if days is not True:
            with pytest.raises(ex.InvalidOption) as caught:
                au.open(memory=True, backup=tmp_path, backup_retention_days=days)  # type: ignore[arg-type]
            assert caught.value.option == "backup_retention_days"
    for key in (b"short", "text"):
        with pytest.raises(ex.InvalidOption):
            au.open(memory=True, backup=tmp_path, backup_key=key)  # type: ignore[arg-type]
    with pytest.raises(ex.InvalidOption):
        au.open(memory=True, backup="gs://bucket/x")
    with au.open(memory=True) as db:
        assert db.status().backup is None
        with pytest.raises(ex.InvalidOption, match="one without"):
            db.backup_now()


def test_what_cannot_be_restored_says_why(tmp_path: Path) -> None:
    place = tmp_path / "backup"
    with au.open(memory=True, backup=place) as db:
        put(db, db.create_table("readings", Reading), {1: 1})
        db.backup_now()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(ex.NotACluster):
        au.restore(place, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]
    with pytest.raises(ex.UnknownSnapshot):
        au.restore(place, memory=True, at="never")
    with pytest.raises(ex.OutsideWindow):
        au.restore(place, memory=True, at=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    with pytest.raises(ex.BackupFailed, match="expected no key"):
        au.restore(place, memory=True, key=KEY)
    with pytest.raises(ex.InvalidOption):
        au.restore(place)
    with au.open(memory=True, backup=place) as other:
        with pytest.raises(ex.BackupFailed, match="got that of cluster"):
            other.backup_now()
        status = other.status().backup
        assert status is not None
        assert status.state == "refused"


def test_every_byte_of_a_backup_counts(tmp_path: Path) -> None:
    place = tmp_path / "backup"
    with au.open(memory=True, backup=place) as db:
        put(db, db.create_table("readings", Reading), {1: 1})
        db.backup_now()
    number = au.backups(place).manifest
    names = [found.name for found in au.explain_restore(place).objects] + [f"manifests/{number:020}"]
    for name in names:
        sound = (place / name).read_bytes()
        for at in range(0, len(sound), 11):
            (place / name).write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
            with pytest.raises(ex.BackupFailed, match=name):
                au.restore(place, memory=True)
        (place / name).unlink()
        if not name.startswith("manifests"):
            with pytest.raises(ex.BackupFailed, match=name):
                au.restore(place, memory=True)
        (place / name).write_bytes(sound)
    with au.restore(place, memory=True) as restored:
        assert content(restored) == {1: 1}


@pytest.mark.parametrize("seed", range(3))
def test_restores_to_random_points_are_what_a_model_says(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    place = tmp_path / "backup"
    model: dict[int, int] = {}
    moments: dict[int, dict[int, int]] = {}
    for _ in range(3):
        with au.open(tmp_path / "db", backup=place, segment_bytes=4 << 20) as db:
            table = db.create_table("readings", Reading, exist_ok=True)
            if not moments:
                db.backup_now()
            for _ in range(40):
                rows = {chance.randrange(30): chance.randrange(1000) for _ in range(chance.randrange(1, 5))}
                lsn = put(db, table, rows).lsn
                model = model | rows
                moments[lsn] = dict(model)
                match chance.randrange(12):
                    case 0:
                        db.backup_now()
                    case 1:
                        db.backup.base()
                    case 2:
                        back = chance.choice(sorted(moments))

                        db.backtrack(to=back)
                        model = dict(moments[back])
    for lsn in chance.sample(sorted(moments), 12):
        with au.restore(place, memory=True, at=lsn) as restored:
            assert content(restored) == moments[lsn], lsn
    with au.restore(place, memory=True) as restored:
        assert content(restored) == model


WRITER = """
import sys
import aurora_engine as au

class Reading(au.Row, key="id"):
    id: int
    value: int

with au.open(sys.argv[1], backup=sys.argv[2], backup_bytes_per_s=100_000) as db:
    table = db.create_table("readings", Reading, exist_ok=True)
    value = len(list(db.scan(table)))
    while True:
        with db.transaction() as tx:
            tx.insert(table, Reading(value, value))
        print(value, db.status().backup.restorable_lsn is not None, flush=True)
        value += 1
"""


def test_an_uploader_that_is_killed_goes_on(tmp_path: Path) -> None:
    chance = random.Random(5)
    directory, place = tmp_path / "db", tmp_path / "backup"
    last = -1
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), str(place)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        wanted = chance.randrange(50, 400)
        for line in process.stdout:
            last = int(line.split()[0])
            wanted -= 1
            if wanted <= 0:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with au.open(directory, backup=place) as db:
        db.backup_now()
        values = content(db)
    assert set(range(last + 1)) <= set(values)
    with au.restore(place, memory=True) as restored:
        assert content(restored) == values


def test_earlier_backups_are_read() -> None:
    expected = json.loads((DATA / "expected.json").read_text())
    states = {"plain": expected["plain"]["states"], "encrypted": expected["encrypted"]["states"]}
    for kind, key in (("plain", None), ("encrypted", bytes.fromhex(expected["key"]))):
        moments = [(int(lsn), tables) for lsn, tables in expected[kind]["lsn"].items()]
        moments += list(expected[kind]["snapshot"].items())
        for at, tables in moments:
            with au.restore(DATA / kind, memory=True, at=at, key=key) as db, db.view() as view:
                assert sorted(db.tables()) == sorted(tables)
                for name, state in tables.items():
                    rows = [[repr(value) for value in au.astuple(row)] for row in view.range(db.table(name))]
                    assert rows == states[kind][state], (kind, at, name)


def test_a_backup_that_was_waited_for_has_the_history_that_counts(tmp_path: Path) -> None:
    """After a backtrack the newest LSN lies below what is covered: what was undone came back (the reader found it)."""
    for turn in range(4):
        place = tmp_path / f"backup{turn}"
        with au.open(tmp_path / f"cluster{turn}", backup=place) as db:
            table = db.create_table("readings", Reading)
            keep = put(db, table, {1: 1})
            put(db, table, {2: 2})
            db.backup_now()
            db.backtrack(keep)
            if turn % 2:
                db.backup_now()
        with au.restore(place, memory=True) as restored:
            assert content(restored) == {1: 1}


def test_what_is_not_the_backups_is_left_alone(tmp_path: Path) -> None:
    """The address may hold other things, also below names that backups use. A cluster's own directory is no address."""
    place = tmp_path / "shared"
    for name in ("log/syslog", "base/readme", "blob/photo"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("mine")
    with au.open(tmp_path / "cluster", backup=place) as db:
        put(db, db.create_table("readings", Reading), {1: 1})
        db.backup_now()
        db.backup.base()
        put(db, db.table("readings", Reading), {2: 2})
        db.backup_now()
    with au.restore(place, memory=True) as restored:
        assert content(restored) == {1: 1, 2: 2}
    for name in ("log/syslog", "base/readme", "blob/photo"):
        assert (place / name).read_text() == "mine"
    cluster = tmp_path / "other"
    for wrong in (cluster, cluster / "backups", tmp_path):
        with pytest.raises(ex.InvalidOption, match="apart from the cluster"):
            au.open(cluster, backup=wrong)
    assert not cluster.exists()


def test_a_proof_is_that_of_its_own_snapshot(tmp_path: Path) -> None:
    """A snapshot that took the name of a deleted one had the other's counts: a sound one looked wrong."""
    with au.open(tmp_path / "cluster", backup=tmp_path / "backup") as db:
        table = db.create_table("readings", Reading)
        put(db, table, {1: 1})
        db.snapshot("a", proof=True)
        db.backup_now()
        db.delete_snapshot("a")
        put(db, table, {2: 2})
        db.snapshot("a")
        db.backup_now()
    with au.restore(tmp_path / "backup", memory=True, at="a") as restored:
        assert content(restored) == {1: 1, 2: 2}
        assert restored.proof is not None
        assert restored.proof.holds is not False
