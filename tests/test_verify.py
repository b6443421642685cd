"""A reader in plain Python gives the same rows as the engine, from the files of a closed cluster alone."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import hypothesis
import pyarrow as pa
import pytest
from hypothesis import strategies as st

import aurora_engine as au
from aurora_engine import exceptions as ex
from aurora_engine.__main__ import main

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Everything(au.Row, key=("part", au.desc("id"))):
    part: str
    id: int
    flag: bool | None
    tiny: au.Int8
    small: au.Int16 | None
    plain: au.Int32
    single: au.Float32
    double: float
    amount: Annotated[Decimal, au.precision(30, 4)]
    day: dt.date
    hour: dt.time | None
    at: dt.datetime
    instant: au.Instant
    name: str
    data: bytes | None
    token: uuid.UUID
    doc: au.Json


def everything(number: int, length: int = 20) -> Everything:
    """A row of values that follow from its number."""
    return Everything(
        part=f"part {number % 3}", id=number, flag=None if number % 5 == 0 else number % 2 == 0, tiny=number % 100 - 50,
        small=None if number % 7 == 0 else number - 300, plain=-number, single=number % 16 / 4, double=-number * 1.5,
        amount=Decimal(number * 7 - 100) / 100, day=dt.date(2000, 1, 1) + dt.timedelta(days=number),
        hour=None if number % 4 else dt.time(number % 24, number % 60), at=dt.datetime(2020, 1, 1, microsecond=number),
        instant=EPOCH + dt.timedelta(hours=number), name=f"Größe {number} " * (length // 8),
        data=None if number % 6 == 0 else bytes([number % 256]) * length,
        token=uuid.UUID(int=number * 12345678901234567890),
        doc={"a": [number, None, "x"]},
    )  # fmt: skip


def tables_of(db: au.Cluster, *names: str) -> dict[str, pa.Table]:
    """Tables as the engine gives them."""
    return {name: pa.table(db.scan(db.table(name))) for name in names}


def expect(report: Any, want: dict[str, pa.Table]) -> None:
    """The report is without problems, and its tables are these, to the last bit."""
    assert report.ok, report
    assert report.tables.keys() == want.keys()
    for name, table in want.items():
        got = report.table(name)
        assert got.schema == table.schema
        assert got.equals(table), name
        assert report.tables[name].rows == len(table)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A cluster with all types, long values, indexes, DDL, a bulk load, a snapshot, a backtrack and a clone."""
    home = tmp_path_factory.mktemp("grown")
    rng = random.Random(1)
    made: dict[str, Any] = {"home": home / "bank"}
    with au.open(home / "bank", segment_bytes=4 << 20, page_bytes=16384) as db:
        table = db.create_table("all", Everything)
        for start in range(0, 600, 200):
            with db.transaction() as tx:
                for number in range(start, start + 200):
                    tx.insert(table, everything(number, rng.choice([8, 200, 30000]) if number % 20 == 0 else 20))
        db.create_index(table, "by_day", "day", au.desc("plain"))
        db.create_index(table, "by_token", "token", unique=True)
        db.snapshot("early")
        made["early"] = tables_of(db, "all")
        with db.transaction() as tx:
            for number in range(0, 600, 3):
                tx.update(table, (f"part {number % 3}", number), name="x" * rng.choice([0, 300, 9000]), small=None)
            for number in range(1, 600, 6):
                tx.delete(table, (f"part {number % 3}", number))
        table = db.add_column(table, "mail", str | None)
        table = db.add_column(table, "rate", Annotated[Decimal, au.precision(10, 2)], default=Decimal("1.50"))
        for column, kind in {
            "tiny": au.Int32,
            "single": float,
            "amount": Annotated[Decimal, au.precision(36, 6)],
        }.items():
            table = db.alter_column(table, column, kind)
        table = db.drop_column(table, "double")
        table = db.rename_column(table, "name", "title")
        with db.transaction() as tx:
            for number in range(0, 60, 3):
                tx.update(table, (f"part {number % 3}", number), mail=f"mail {number}", tiny=1 << 20)
        loaded = db.create_table(
            "loaded", pa.schema([("id", pa.int64()), ("x", pa.string()), ("z", pa.float32())]), key="id"
        )
        columns = {
            "id": range(20000),
            "x": ["abc" * (n % 7) for n in range(20000)],
            "z": pa.array([0.5] * 20000, pa.float32()),
        }
        db.load(loaded, pa.table({name: pa.array(values) for name, values in columns.items()}))
        with db.transaction() as tx:
            tx.delete(loaded, 100)
        made["commit"], made["then"] = tx.committed, tables_of(db, "all", "loaded")
        with db.transaction() as tx:
            for number in range(300, 400):
                tx.delete(loaded, number)
        db.backtrack(to=made["commit"])
        with db.transaction() as tx:
            tx.insert(loaded, {"id": -1, "x": "after", "z": None})
            tx.insert_many(db.create_table("empty", pa.schema([("id", pa.int64())]), key="id"), [])
        dropped = db.create_table("dropped", pa.schema([("id", pa.int64())]), key="id")
        db.insert_many(dropped, [{"id": 1}])
        db.drop_table("dropped")
        made["now"] = tables_of(db, "all", "loaded", "empty")
        with db.clone(home / "clone") as clone:
            clone.insert_many(clone.table("loaded"), [{"id": -2, "x": "in the clone", "z": 1.0}])
            made["clone"] = tables_of(clone, "all", "loaded", "empty")
        made["clone home"] = home / "clone"
    return made


def test_all_types_definitions_loads_and_branches(grown: dict[str, Any]) -> None:
    report = au.verify(grown["home"])
    expect(report, grown["now"])
    assert report.tables["all"].indexes == ("by_day", "by_token")
    assert {checked.kind for checked in report.objects} >= {"identity", "state", "blob", "log", "manifest"}
    assert all(checked.ok for checked in report.objects)


@pytest.mark.parametrize("moment", ["commit", "lsn", "time", "snapshot"])
def test_earlier_moments(grown: dict[str, Any], moment: str) -> None:
    commit = grown["commit"]
    at = {"commit": commit, "lsn": commit.lsn, "time": commit.time, "snapshot": "early"}[moment]
    expect(au.verify(grown["home"], at=at), grown["early"] if moment == "snapshot" else grown["then"])


def test_a_clone_and_a_single_node(grown: dict[str, Any]) -> None:
    expect(au.verify(grown["clone home"]), grown["clone"])
    report = au.verify(grown["home"] / "az2" / "node3")
    expect(report, grown["now"])
    assert report.kind == "node"


def test_every_node_has_the_same(grown: dict[str, Any]) -> None:
    nodes = sorted(grown["home"].glob("az*/node*"))
    digests = {au.verify(node, tables=["all"]).tables["all"].digest for node in nodes}
    assert len(digests) == 1


def test_layers_with_images(tmp_path: Path) -> None:
    """So much is written that the records go to layers, and pages whose records are many get images."""
    with au.open(tmp_path / "c", page_bytes=65536, window=dt.timedelta(0)) as db:
        table = db.create_table("t", pa.schema([("id", pa.int64()), ("body", pa.string())]), key="id")
        rng = random.Random(2)
        db.insert_many(table, [{"id": number, "body": "a" * 500} for number in range(200)])
        ends = time.monotonic() + 60
        while not images_in(tmp_path / "c" / "az1" / "node1"):
            assert time.monotonic() < ends, "no image was made"
            with db.transaction() as tx:
                for number in range(200):
                    tx.update(table, number, body=rng.choice("abc") * rng.randrange(7900))
        want = tables_of(db, "t")
    expect(au.verify(tmp_path / "c" / "az1" / "node1"), want)


def images_in(node: Path) -> bool:
    """Whether one of a node's layers is one of images: byte 6 of the footer, behind its length and CRC."""
    return any(layer.read_bytes()[14:15] == b"\2" for layer in node.glob("layers/layer-*"))


def test_python_values(grown: dict[str, Any]) -> None:
    rows = au.verify(grown["home"], at="early").rows("all")
    lengths = {row["id"]: len(row["name"]) for row in rows}
    for row in rows:
        want = everything(row["id"], len(row["data"] or b"") or 20)
        for name in ("part", "flag", "tiny", "amount", "day", "hour", "at", "instant", "token", "doc", "single"):
            assert row[name] == getattr(want, name), name
        assert row["instant"].tzinfo is not None
    assert max(lengths.values()) > 20000


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no second device")
def test_nodes_on_another_disk_have_a_log_of_their_own(tmp_path: Path) -> None:
    other = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        nodes = [(f"az{n // 2 + 1}", other / f"node{n}" if n % 2 else f"node{n}") for n in range(6)]
        with au.open(tmp_path / "c", nodes=nodes) as db:
            table = db.create_table("t", pa.schema([("id", pa.int64())]), key="id")
            db.insert_many(table, [{"id": number} for number in range(100)])
            want = tables_of(db, "t")
        report = au.verify(tmp_path / "c")
        expect(report, want)
        assert {Path(checked.name).parent.name for checked in report.objects if checked.kind == "log"} == {"log"}
        assert sum(checked.name.startswith(str(other)) for checked in report.objects) > 3
        expect(au.verify(other / "node3"), want)
    finally:
        shutil.rmtree(other)


def test_a_node_that_is_behind_is_not_taken(tmp_path: Path) -> None:
    with au.open(tmp_path / "c") as db:
        table = db.create_table("t", pa.schema([("id", pa.int64())]), key="id")
        db.insert_many(table, [{"id": 1}])
    with au.open(tmp_path / "c") as db:
        db.insert_many(db.table("t"), [{"id": 2}])
        with db.clone(tmp_path / "d") as clone:
            clone.insert_many(clone.table("t"), [{"id": 3}])
    # A node whose layers are gone has only what the log has, which is less.
    shutil.rmtree(tmp_path / "d" / "az1" / "node1" / "layers")
    (tmp_path / "d" / "az1" / "node1" / "layers").mkdir()
    report = au.verify(tmp_path / "d")
    assert [row["id"] for row in report.rows("t")] == [1, 2, 3]
    assert "tables were rebuilt from node az1/node2" in report.notes


# ------------------------------------------------------------------------------------------------- random histories

VALUES = st.one_of(st.none(), st.text(max_size=20), st.text("ab", min_size=3000, max_size=6000))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.lists(st.tuples(st.integers(-50, 50), VALUES), min_size=1, max_size=40)),
        st.tuples(st.just("delete"), st.lists(st.integers(-50, 50), min_size=1, max_size=40, unique=True)),
        st.tuples(st.just("add"), st.none()),
        st.tuples(st.just("drop"), st.none()),
        st.tuples(st.just("truncate"), st.none()),
        st.tuples(st.just("back"), st.integers(0, 20)),
        st.tuples(st.just("reopen"), st.none()),
    ),
    min_size=1,
    max_size=12,
)


@hypothesis.given(STEPS)
@hypothesis.settings(max_examples=8, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_random_histories(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]) -> None:
    """A model of what happened: the rows at each step. Read from a node's files, and from a backup."""
    home = tmp_path_factory.mktemp("random")
    moments: list[tuple[int, pa.Table]] = []
    db = au.open(home / "c", page_bytes=16384, backup=home / "b")
    db.create_table("t", pa.schema([("id", pa.int64()), ("v", pa.string())]), key="id")
    for number, (step, argument) in enumerate(steps):
        table = db.table("t")
        added = [column[0] for column in table.schema.columns if column[0].startswith("c")]
        if step == "upsert":
            db.upsert_many(table, [{"id": key, "v": value, **dict.fromkeys(added, 7)} for key, value in argument])
        elif step == "delete":
            with db.transaction() as tx:
                for key in argument:
                    if tx.get(table, key) is not None:
                        tx.delete(table, key)
        elif step == "add":
            db.add_column(table, f"c{number}", int, default=number)
        elif step == "drop" and added:
            db.drop_column(table, added[0])
        elif step == "truncate":
            db.truncate(table)
        elif step == "back" and moments:
            del moments[argument % len(moments) + 1 :]
            db.backtrack(to=moments[-1][0])
        elif step == "reopen":
            db.close()
            db = au.open(home / "c", backup=home / "b")
        snapshot = db.snapshot(f"s{number}")
        moments.append((snapshot.lsn, pa.table(db.scan(db.table("t")))))
    table = db.table("t")
    last = {name: None if name == "v" else 7 for name, *_ in table.schema.columns}
    db.upsert_many(table, [last | {"id": 1000}])
    moments.append((db.backup_now(), pa.table(db.scan(table))))
    db.close()
    for lsn, want in [*moments[-3:], moments[0]]:
        expect(au.verify(home / "c", at=lsn), {"t": want})
    # What came before the first base of a backup is not in it.
    expect(au.verify(home / "b"), {"t": moments[-1][1]})
    for lsn, want in moments:
        with contextlib.suppress(ex.OutsideWindow):
            expect(au.verify(home / "b", at=lsn), {"t": want})
    shutil.rmtree(home)


# ------------------------------------------------------------------------------------------------------------ damage


@pytest.fixture
def copied(grown: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of the clone, to be damaged: it has layers, where its parent still has everything in the log."""
    return Path(shutil.copytree(grown["clone home"], tmp_path / "bank"))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x20
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["identity", "state", "layers.list", "manifest-*", "layers/layer-*", "blobs/blob-*"])
def test_a_flipped_byte_is_named_by_object(copied: Path, kind: str) -> None:
    rng = random.Random(kind)
    path = sorted((copied / "az2" / "node4").glob(kind))[0]
    whole, name = path.read_bytes(), path.relative_to(copied).as_posix()
    for at in [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(3))]:
        flip(path, at)
        report = au.verify(copied / "az2" / "node4", tables=[])
        named = {problem.object for problem in report.problems}
        assert path.relative_to(copied / "az2" / "node4").as_posix() in named, at
        path.write_bytes(whole)
    flip(path, len(whole) // 2)
    report = au.verify(copied, tables=["empty"])
    assert name in {problem.object for problem in report.problems}
    assert report.tables["empty"].rows == 0, "another node has everything"
    with pytest.raises(ex.Damaged) as raised:
        report.raise_for_problems()
    assert raised.value.object is not None


def test_a_block_of_the_log_that_differs_is_named(grown: dict[str, Any], tmp_path: Path) -> None:
    with au.open(tmp_path / "c") as db:
        table = db.create_table("t", pa.schema([("id", pa.int64()), ("x", pa.string())]), key="id")
        for number in range(20):
            db.insert_many(table, [{"id": number, "x": "y" * 3000}])
    log = sorted((tmp_path / "c" / "log").glob("log-*"))[0]
    data = log.read_bytes()
    at = data.index(b"y" * 100, 7 * 4096)
    flip(log, at)
    report = au.verify(tmp_path / "c")
    (problem,) = report.problems
    assert (problem.object, problem.offset) == (f"log/{log.name}", at)
    assert report.tables["t"].rows == 20, "the other blocks of the stripe have it"


def test_what_is_missing_is_named(copied: Path) -> None:
    node = copied / "az3" / "node5"
    layer = sorted(node.glob("layers/layer-*"))[-1]
    layer.unlink()
    report = au.verify(node)
    assert f"layers/{layer.name}" in {problem.object for problem in report.problems}
    shutil.rmtree(copied / "az1" / "node1")
    report = au.verify(copied, tables=["empty"])
    assert "az1/node1" in {problem.object for problem in report.problems}
    assert report.tables["empty"].rows == 0


def test_a_process_that_was_killed_leaves_what_it_acknowledged(tmp_path: Path) -> None:
    program = """
import sys, pyarrow as pa, aurora_engine as au
db = au.open(sys.argv[1])
table = db.create_table("t", pa.schema([("id", pa.int64())]), key="id")
number = 0
while True:
    db.insert_many(table, [{"id": number}])
    print(number, flush=True)
    number += 1
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "c"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().splitlines()]
    rows = {row["id"] for row in au.verify(tmp_path / "c").rows("t")}
    assert rows >= set(acknowledged)
    assert rows <= {*acknowledged, max(acknowledged) + 1}


# ---------------------------------------------------------------------------------------------------- asking wrongly


def test_an_open_cluster_is_left_alone(tmp_path: Path) -> None:
    with au.open(tmp_path / "c"), pytest.raises(ex.AlreadyOpen, match="that nobody has open"):
        au.verify(tmp_path / "c")
    assert au.verify(tmp_path / "c").tables == {}


def test_clear_errors(grown: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ex.NotACluster, match="expected the directory of a cluster"):
        au.verify(tmp_path)
    with pytest.raises(ex.UnknownSnapshot, match="'early'"):
        au.verify(grown["home"], at="late")
    with pytest.raises(ex.UnknownTable, match="all, empty, loaded"):
        au.verify(grown["home"], tables=["accounts"])
    with pytest.raises(ex.InvalidOption, match="aware datetime"):
        au.verify(grown["home"], at=dt.datetime(2026, 1, 1))
    with pytest.raises(ex.InvalidOption, match="option at"):
        au.verify(grown["home"], at=object())  # type: ignore[arg-type]
    with pytest.raises(ex.OutsideWindow):
        au.verify(grown["home"], at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(ex.InvalidOption, match="a path, file:// or s3://"):
        au.verify("gs://bucket/prefix")


def test_progress_and_the_command(grown: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    au.verify(grown["home"], tables=["empty"], progress=lambda _done, _total, what: told.append(what))
    assert {"node az1/node1", "table empty"} <= set(told)
    with pytest.raises(SystemExit):
        main(["verify"])
    assert main(["verify", str(grown["home"]), "--at", "nothing", "--quiet"]) == 2
    assert "UnknownSnapshot" in capsys.readouterr().err
    assert main(["verify", str(grown["home"] / "az1" / "node1"), "--table", "loaded", "--quiet"]) == 0
    assert "table loaded" in capsys.readouterr().out
