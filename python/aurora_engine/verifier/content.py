"""The bytes of an object, wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from aurora_engine.verifier.damage import damaged


class Content(Protocol):
    """Bytes that can be read in pieces."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Some of them; damage if they are not there."""


class Bytes:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Some of them."""
        _check_within(offset, length, self.size)
        return self._data[offset : offset + length]


class File:
    """Bytes of a file, opened anew for each read: a node may have thousands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size

    @property
    def size(self) -> int:
        """How many there are."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Some of them."""
        _check_within(offset, length, self._size)
        with self._path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        _check_within(offset, length, offset + len(data))
        return data


def _check_within(offset: int, length: int, size: int) -> None:
    if offset + length > size:
        raise damaged(f"{length} bytes at {offset}", f"an object of {size}", None)
