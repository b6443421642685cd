"""The hot log of a disk: what its nodes have accepted, and not yet put into layers.

::

    file       16 MiB of stripes; zero-filled when made, recycled when trimmed
    stripe     block of node 0 | block of node 1 | …           4 KiB each; the same fragments in every block
    block      header, 40 | fragment | fragment | … | zeros
    header     magic "AUlb" | CRC-32C u32 of the rest | format u16 | slot u8 | slots u8 | node u16 | zero u16
               | stripe u64 | trim group u64 | trim stripe u64            everything before the trim mark is in layers
    fragment   header CRC-32C u32 | body CRC-32C u32 | length u16 | flags u16 (1 last of its group) | index u32
               | group u64 | body
    group      entries, cut into fragments: kind u8 (1 batch, 2 fence, 3 install, 4 anew) | nodes varint, a bit each
               | length varint | content

The CRC of a block's header begins with that of the log's salt; those of a fragment with that of salt, stripe and place
in the block. So what a recycled file held before does not pass. Groups are numbered without gaps: the log ends with the
last complete one. An incomplete group with nothing after it is a torn tail, and never counted; one with a later group
after it is damage.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from aurora_engine.verifier.crc import crc32c
from aurora_engine.verifier.cursor import Cursor
from aurora_engine.verifier.damage import Problem, damaged, within
from aurora_engine.verifier.records import Batch, read_batch

BLOCK_BYTES: Final = 4096
_FILE_BYTES: Final = 16 << 20
_HEADER: Final = struct.Struct("<4sIHBBHHQQQ")
_FRAGMENT: Final = struct.Struct("<IIHHIQ")
_LAST: Final = 1
_BATCH, _FENCE, _INSTALL, _ANEW = 1, 2, 3, 4


class Entry(NamedTuple):
    """Something that nodes accepted: a batch, or what changes whom it is for."""

    kind: int
    nodes: frozenset[int]
    batch: Batch | None


class _Fragment(NamedTuple):
    group: int
    place: int
    last: bool
    body: bytes


class _Stripe(NamedTuple):
    file: Path
    offset: int
    number: int
    data: bytes


@dataclass(slots=True)
class HotLog:
    """What a log holds. ``problems`` are blocks that differ from what other nodes' blocks of their stripe have."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def batches_of(self, node: int) -> list[Batch]:
        """The batches for a node; when it was made anew, what came before was for the copy that was lost."""
        found: list[Batch] = []
        for entry in self.entries:
            if node in entry.nodes and entry.kind == _ANEW:
                found.clear()
            elif node in entry.nodes and entry.batch is not None:
                found.append(entry.batch)
        return found


def read_log(directory: Path, nodes: list[int], salt: int, name_of: Path) -> HotLog:
    """Reads the log in a directory; objects are named relative to ``name_of``."""
    return _Scan(nodes, salt, name_of).read(directory)


class _Scan:
    def __init__(self, nodes: list[int], salt: int, name_of: Path) -> None:
        self._nodes, self._name_of = sorted(nodes), name_of
        self._stripe_bytes = BLOCK_BYTES * len(nodes)
        self._stripes_per_file = max(_FILE_BYTES // self._stripe_bytes, 1)
        self._salted = crc32c(salt.to_bytes(8, "little"))
        self._log = HotLog()

    def read(self, directory: Path) -> HotLog:
        """Follows the chain of groups from the newest trim mark on."""
        stripes, group, first = self._stripes(directory)
        index, body, highest, broken = 0, b"", 0, False
        chain: list[tuple[_Stripe, list[bytes]]] = []
        for stripe in stripes[first:]:
            pieces: list[bytes] = []
            for fragment in self._fragments(stripe):
                if fragment.group < group:
                    pieces.append(fragment.body)
                    continue
                if broken or (fragment.group, fragment.place) != (group, index):
                    highest, broken = max(highest, fragment.group), True
                    continue
                body, index = body + fragment.body, index + 1
                pieces.append(fragment.body)
                if fragment.last:
                    with within(self._name(stripe.file), stripe.offset, packed=f"group {group}"):
                        self._log.entries += _entries(body)
                    body, index, group = b"", 0, group + 1
            if pieces:
                chain.append((stripe, pieces))
        if broken and highest > group:
            last = chain[-1][0] if chain else stripes[first]
            raise damaged(f"group {group}", f"group {highest} after it", last.offset, self._name(last.file))
        self._compare_blocks([stripe for stripe, _ in chain[:-1]])
        return self._log

    def _stripes(self, directory: Path) -> tuple[list[_Stripe], int, int]:
        """All stripes in order, the group of the newest trim mark, and where in the list its stripe is."""
        found: list[_Stripe] = []
        trim = (1, 0)
        for file in sorted(directory.glob("log-*")):
            data = file.read_bytes()
            for index in range(min(len(data) // self._stripe_bytes, self._stripes_per_file)):
                offset = index * self._stripe_bytes
                stripe = data[offset : offset + self._stripe_bytes]
                headers = [header for slot in range(len(self._nodes)) if (header := self._header(stripe, slot))]
                ours = [header for header in headers if header[0] % self._stripes_per_file == index]
                if ours:
                    trim = max(trim, *(header[1] for header in ours))
                    found.append(_Stripe(file, offset, ours[0][0], stripe))
        if not found and not any(directory.glob("log-*")):
            raise damaged("files of the hot log", "none", None, self._name(directory))
        found.sort(key=lambda stripe: stripe.number)
        first = next((at for at, stripe in enumerate(found) if stripe.number >= trim[1]), len(found))
        return found, trim[0], first

    def _header(self, stripe: bytes, slot: int) -> tuple[int, tuple[int, int]] | None:
        """Stripe and trim mark of a block, if its header is whole."""
        block = stripe[slot * BLOCK_BYTES : (slot + 1) * BLOCK_BYTES]
        magic, crc, _, of, slots, node, _, number, group, trimmed = _HEADER.unpack_from(block)
        if magic != b"AUlb" or crc32c(block[8 : _HEADER.size], self._salted) != crc:
            return None
        if (of, slots, node) != (slot, len(self._nodes), self._nodes[slot]):
            return None
        return number, (group, trimmed)

    def _fragments(self, stripe: _Stripe) -> Iterator[_Fragment]:
        """The fragments of a stripe: each from the first block that has it whole."""
        at = _HEADER.size
        while True:
            copies = (self._fragment(stripe, slot, at) for slot in range(len(self._nodes)))
            fragment = next((copy for copy in copies if copy is not None), None)
            if fragment is None:
                return
            yield fragment
            at += _FRAGMENT.size + len(fragment.body)

    def _fragment(self, stripe: _Stripe, slot: int, at: int) -> _Fragment | None:
        start = slot * BLOCK_BYTES + at
        if at + _FRAGMENT.size > BLOCK_BYTES:
            return None
        header_crc, body_crc, length, flags, index, group = _FRAGMENT.unpack_from(stripe.data, start)
        seed = crc32c(at.to_bytes(2, "little"), crc32c(stripe.number.to_bytes(8, "little"), self._salted))
        if crc32c(stripe.data[start + 4 : start + _FRAGMENT.size], seed) != header_crc:
            return None
        body = stripe.data[start + _FRAGMENT.size : start + _FRAGMENT.size + length]
        if at + _FRAGMENT.size + length > BLOCK_BYTES or crc32c(body, seed) != body_crc:
            return None
        return _Fragment(group, index, bool(flags & _LAST), body)

    def _compare_blocks(self, stripes: list[_Stripe]) -> None:
        """Says which blocks differ from those of the other nodes. The last stripe may have been under way."""
        for stripe in stripes:
            contents = [
                stripe.data[slot * BLOCK_BYTES + _HEADER.size : (slot + 1) * BLOCK_BYTES]
                for slot in range(len(self._nodes))
            ]
            usual = max(contents, key=contents.count)
            for slot, content in enumerate(contents):
                if content != usual or self._header(stripe.data, slot) is None:
                    at = next((at for at, byte in enumerate(content) if byte != usual[at]), -_HEADER.size)
                    offset = stripe.offset + slot * BLOCK_BYTES + _HEADER.size + at
                    expected = f"what other nodes have of stripe {stripe.number}"
                    got = f"another block of node {self._nodes[slot]}"
                    self._log.problems.append(Problem(self._name(stripe.file), offset, expected, got))

    def _name(self, path: Path) -> str:
        return name_below(self._name_of, path)


def name_below(home: Path, path: Path) -> str:
    """The name of a file: relative to the cluster's directory, unless it lies on another disk."""
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


def _entries(body: bytes) -> Iterator[Entry]:
    cursor = Cursor(body, "a group of the log")
    while cursor:
        at, kind, nodes, content = cursor.at, cursor.u8(), cursor.varint(), cursor.sized()
        if kind not in (_BATCH, _FENCE, _INSTALL, _ANEW):
            raise damaged("an entry of kind 1 to 4", kind, at)
        members = frozenset(node for node in range(64) if nodes >> node & 1)
        yield Entry(kind, members, read_batch(content) if kind == _BATCH else None)
