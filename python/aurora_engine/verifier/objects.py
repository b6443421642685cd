"""Where the objects of a backup are: a local directory, or S3 and what speaks its protocol."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from aurora_engine.exceptions import DiskFailed, InvalidOption, MissingExtra
from aurora_engine.verifier.damage import damaged

Key = bytes | Callable[[], bytes] | None
"""The key of a backup, or what gives it."""


class Store(Protocol):
    """Objects under names with slashes."""

    url: str

    def names(self) -> dict[str, int]:
        """All objects and their lengths."""

    def get(self, name: str) -> bytes:
        """A whole object; damage if there is none."""


class LocalStore:
    """Objects as files below a directory."""

    def __init__(self, home: Path) -> None:
        self.url, self._home = str(home), home

    def names(self) -> dict[str, int]:
        """All objects and their lengths."""
        found = {}
        for path in self._home.rglob("*"):
            # A writer may be at work: what it makes under another name first may be gone by now.
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    found[path.relative_to(self._home).as_posix()] = status.st_size
        return found

    def get(self, name: str) -> bytes:
        """A whole object."""
        try:
            return (self._home / name).read_bytes()
        except FileNotFoundError as error:
            raise damaged("an object", "none", None, name) from error
        except OSError as error:
            raise DiskFailed(f"{self._home / name}: {error}", path=str(self._home / name)) from error


class S3Store:
    """Objects below a prefix of a bucket: ``s3://bucket/prefix?endpoint=…&region=…``.

    Credentials come the usual ways of boto3, and so do region and endpoint where the URL does not say them.
    """

    def __init__(self, url: str) -> None:
        place, _, query = url.removeprefix("s3://").partition("?")
        bucket, _, prefix = place.partition("/")
        self.url, self._bucket = url, bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        settings = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
        if not bucket or settings.keys() - {"endpoint", "region"}:
            raise _not_a_url(url, "s3://bucket/prefix, with endpoint and region after a question mark")
        self._client = _client(settings)

    def names(self) -> dict[str, int]:
        """All objects and their lengths."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        found = (item for page in self._told(lambda: list(pages)) for item in page.get("Contents", ()))
        return {item["Key"].removeprefix(self._prefix): item["Size"] for item in found}

    def get(self, name: str) -> bytes:
        """A whole object."""
        try:
            body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"]
            return bytes(body.read())
        except self._client.exceptions.NoSuchKey as error:
            raise damaged("an object", "none", None, name) from error
        except Exception as error:
            raise self._failed(error) from error

    def _told(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> DiskFailed:
        return DiskFailed(f"{self.url}: {error}", path=self.url)


def _client(settings: dict[str, str]) -> Any:
    try:
        import boto3  # noqa: PLC0415 - an optional library
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
    except ImportError as error:
        expected = "boto3 to read s3:// with: pip install 'aurora-engine[verify]'"
        raise MissingExtra(f"expected {expected}, got none", expected=expected) from error
    try:
        return boto3.client("s3", endpoint_url=settings.get("endpoint"), region_name=settings.get("region"))
    except (BotoCoreError, ValueError) as error:
        raise DiskFailed(f"s3: {error}", path=None) from error


def open_store(url: str) -> Store:
    """The store at a URL: a path, ``file://`` or ``s3://bucket/prefix``."""
    if url.startswith("s3://"):
        return S3Store(url)
    if "://" in url and not url.startswith("file://"):
        raise _not_a_url(url, "a path, file:// or s3://")
    return LocalStore(Path(url.removeprefix("file://")))


def _not_a_url(url: str, expected: str) -> InvalidOption:
    return InvalidOption(f"option url: expected {expected}, got {url!r}", option="url", expected=expected, got=url)
