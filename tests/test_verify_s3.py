"""A backup in a bucket of a real S3 protocol server, verified from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

import aurora_engine as au
from aurora_engine import exceptions as ex
from tests.backup_writer import BackupWriter


class Account(au.Row, key="id"):
    id: int
    owner: str


@pytest.fixture(scope="module")
def bucket() -> Iterator[object]:
    """An empty bucket ``bank``; credentials, region and endpoint are in the environment."""
    server = ThreadedMotoServer(port=0)
    server.start()
    monkeypatch = pytest.MonkeyPatch()
    try:
        _, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bank", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client
        client.close()
    finally:
        monkeypatch.undo()
        server.stop()


def test_a_backup_in_a_bucket(bucket: object, tmp_path: Path) -> None:
    with au.open(tmp_path / "c", page_bytes=16384) as db:
        db.insert_many(db.create_table("accounts", Account), [Account(number, "Ann") for number in range(50)])
    BackupWriter(tmp_path / "b").backup(tmp_path / "c")
    paths = [path for path in (tmp_path / "b").rglob("*") if path.is_file()]
    for path in paths:
        bucket.put_object(Bucket="bank", Key=f"a/prefix/{path.relative_to(tmp_path / 'b')}", Body=path.read_bytes())
    with au.verify("s3://bank/a/prefix") as report:
        assert report.ok, report
        assert len(report.rows("accounts")) == 50
        assert report.bytes == sum(path.stat().st_size for path in paths)
    log = next(name for name in (f"{path.relative_to(tmp_path / 'b')}" for path in paths) if name.startswith("log/"))
    bucket.put_object(Bucket="bank", Key=f"a/prefix/{log}", Body=b"something else")
    assert {problem.object for problem in au.verify("s3://bank/a/prefix").problems} == {log}
    bucket.delete_object(Bucket="bank", Key=f"a/prefix/{log}")
    assert {problem.object for problem in au.verify("s3://bank/a/prefix").problems} == {log}
    with pytest.raises(ex.NotACluster, match="s3://bank/elsewhere: expected a backup"):
        au.verify("s3://bank/elsewhere")
    with pytest.raises(ex.DiskFailed, match=r"s3://nowhere/x: .*NoSuchBucket"):
        au.verify("s3://nowhere/x")


def test_a_cluster_is_backed_up_into_a_bucket_and_verified_from_there(bucket: object, tmp_path: Path) -> None:
    endpoint = bucket.meta.endpoint_url
    url = f"s3://bank/live?endpoint={endpoint}&region=eu-central-1"
    with au.open(memory=True, backup=url, backup_key=bytes(32), page_bytes=16384) as db:
        accounts = db.create_table("accounts", Account)
        db.insert_many(accounts, [Account(number, "Ann") for number in range(50)])
        lsn = db.backup_now()
        with au.verify(url, bytes(32)) as report:
            assert report.ok, report
            assert report.lsn == lsn
            assert report.rows("accounts")[49] == {"id": 49, "owner": "Ann"}
    for wrong in ("s3:///prefix", "s3://bank/live?secret=1"):
        with pytest.raises(ex.InvalidOption, match="option url: expected s3://bucket/prefix"):
            au.verify(wrong)
