"""The small files of a storage node's directory.

::

    identity     magic "AUid" | CRC-32C u32 of what follows | format u16 | node u16 | zero u32 | incarnation u64
                 | cluster u128
    state        magic "AUst" | CRC-32C u32 of what follows | format u16 | then varints: floor,
                 0 or 1 x (LSN, origin, time) of the newest commit at or below it, Histories, each: length, bytes;
                 copies, each: group, node, epoch, installed, History, SCL, VDL hint; the quiet LSN where there is one
    layers.list  magic "AUll" | CRC-32C u32 of what follows | format u16 | varints: count, each layer's number less the
                 one before

A layer that the list names is there, or one that is there says that it replaces it. So a layer file that somebody took
away is noticed, and does not leave older rows that look right.
"""

from __future__ import annotations

from typing import NamedTuple

from aurora_engine.verifier.crc import expect_crc
from aurora_engine.verifier.cursor import Cursor
from aurora_engine.verifier.damage import check
from aurora_engine.verifier.history import History
from aurora_engine.verifier.records import Commit


class Identity(NamedTuple):
    """Whose directory it is."""

    node: int
    incarnation: int
    cluster: int


class State(NamedTuple):
    """Below the floor versions may be gone; its commit is the newest at or below it."""

    floor: int
    floor_commit: Commit | None


def read_identity(data: bytes) -> Identity:
    """Reads ``identity``."""
    cursor = _opened(data, b"AUid", "an identity")
    node, _, incarnation, cluster = cursor.u16(), cursor.u32(), cursor.u64(), cursor.number(16)
    cursor.end()
    return Identity(node, incarnation, cluster)


def read_state(data: bytes) -> State:
    """Reads ``state``."""
    cursor = _opened(data, b"AUst", "a node's state")
    number = cursor.varint
    floor, commit = number(), None
    if number():
        commit = Commit(number(), number(), cursor.zigzag())
    histories = [History.decode(cursor.sized()) for _ in range(number())]
    for _ in range(number()):
        _, _, _, _, history, _, _ = (number() for _ in range(7))
        check(history < len(histories), f"a History below {len(histories)}", history)
    if cursor:
        number()
    cursor.end()
    return State(floor, commit)


def read_layer_list(data: bytes) -> list[int]:
    """Reads ``layers.list``."""
    cursor = _opened(data, b"AUll", "a list of layers")
    numbers, last = [], 0
    for _ in range(cursor.varint()):
        last += cursor.varint()
        numbers.append(last)
    cursor.end()
    return numbers


def _opened(data: bytes, magic: bytes, what: str) -> Cursor:
    cursor = Cursor(data, what)
    got, crc = cursor.take(4), cursor.u32()
    check(got == magic, f"magic {magic.decode()}", got, 0)
    expect_crc(crc, data[8:], what, 4)
    form = cursor.u16()
    check(form == 1, f"format 1 of {what}", form, 8)
    return cursor
