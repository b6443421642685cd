"""The manifest of a cluster: the one record that says what the volume is.

::

    magic 8 "AURORAMF" | format u32 | body length u32 | body CRC-32C u32 | header CRC-32C u32 | body (postcard)

    body   cluster u128, version u64, epoch u64, state (recovering, open, closed), origin u64, History, since i64,
           abandoned: (History, since i64, until i64, complete: (node u16, incarnation u64)),
           snapshots: (name, History, LSN u64, created i64), region, page bytes u32, segment pages u64, window u64,
           nodes: (id u16, az, path, device u64, incarnation u64),
           groups, as runs of equal ones: (count u64, epoch u64, places: held (node u16) | moving (from u16, to u16)),
           collection floor u64, settings: map of texts, created i64

It lies in seven places, the cluster's directory and those of the six nodes, as ``manifest-`` and 20 digits. A version
counts when four of the seven have it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from aurora_engine.exceptions import NewerFormat
from aurora_engine.verifier.crc import expect_crc
from aurora_engine.verifier.damage import check
from aurora_engine.verifier.extents import Geometry
from aurora_engine.verifier.history import History
from aurora_engine.verifier.postcard import Postcard

PREFIX: Final = "manifest-"
_HEADER: Final = struct.Struct("<8sIIII")
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Node:
    """A storage node."""

    id: int
    az: str
    path: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment that is kept by name."""

    name: str
    history: History
    lsn: int


@dataclass(frozen=True, slots=True)
class Era:
    """A History, and when it was the present one: from ``since_us`` up to ``until_us``."""

    history: History
    since_us: int
    until_us: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a cluster is."""

    cluster: int
    version: int
    eras: list[Era]
    snapshots: list[Snapshot]
    geometry: Geometry
    nodes: list[Node]
    groups: int
    logs: dict[str, list[int]]

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Reads one."""
        check(len(data) >= _HEADER.size, f"{_HEADER.size} bytes or more", len(data), 0)
        magic, form, length, body_crc, header_crc = _HEADER.unpack_from(data)
        check(magic == b"AURORAMF", "magic AURORAMF", magic, 0)
        expect_crc(header_crc, data[:20], "a manifest's header", 20)
        if form > _FORMAT:
            raise NewerFormat(f"expected format {_FORMAT}, got {form}", path=None, expected=_FORMAT, got=form)
        check(_HEADER.size + length == len(data), f"{_HEADER.size + length} bytes", len(data), 12)
        expect_crc(body_crc, data[_HEADER.size :], "a manifest's body", 16)
        return cls._body(Postcard(data[_HEADER.size :], "a manifest"))

    @classmethod
    def _body(cls, body: Postcard) -> Manifest:
        number = body.varint
        cluster, version, _, _, _ = number(128), number(), number(), number(), number()
        present, since_us = History.decode(body.sized()), body.zigzag()
        eras = [*body.many(lambda: _abandoned(body)), Era(present, since_us, None)]
        snapshots = body.many(lambda: _snapshot(body))
        body.text()
        geometry = Geometry(number(32), number())
        number()  # the window
        nodes = body.many(lambda: _node(body))
        groups = sum(body.many(lambda: _group(body)))
        number()  # the collection floor
        settings = dict(body.many(lambda: (body.text(), body.text())))
        body.zigzag()  # when it was created
        body.end()
        logs = {
            key.removeprefix("log:"): [int(node) for node in value.split(",")]
            for key, value in settings.items()
            if key.startswith("log:")
        }
        return cls(cluster, version, eras, snapshots, geometry, nodes, groups, logs)

    @property
    def history(self) -> History:
        """The present History."""
        return self.eras[-1].history


def _abandoned(body: Postcard) -> Era:
    era = Era(History.decode(body.sized()), body.zigzag(), body.zigzag())
    body.many(lambda: (body.varint(16), body.varint()))
    return era


def _snapshot(body: Postcard) -> Snapshot:
    snapshot = Snapshot(body.text(), History.decode(body.sized()), body.varint())
    body.zigzag()
    return snapshot


def _node(body: Postcard) -> Node:
    number, az, path = body.varint(16), body.text(), body.text()
    body.varint()  # the device
    return Node(number, az, path, body.varint())


def _group(body: Postcard) -> int:
    """How many groups have these members."""
    count = body.varint()
    body.varint()
    body.many(lambda: [body.varint(16) for _ in range(1 + body.varint(1))])
    return count
