"""A layer: an immutable file of records, or of sealed pages, sorted by page and LSN.

::

    layer    front footer, 512 | block | block | … | meta block | back footer
    footer   at the front:  length u32 | CRC-32C u32 | content | zeros up to 512
             at the back:   content | CRC-32C u32 | length u32
    content  magic "AUly" | format u16 = 1 | kind u8 (1 delta, 2 image) | then varints: entries, first page, pages,
             first LSN, LSNs, weight, floor, meta offset, meta length, count, count x number of a layer that it replaces
    meta     varints: count, count x (first page, pages, first LSN, LSNs, offset, length)                listing blocks
                      count, count x (first LSN, LSNs, first time zigzag, times zigzag, offset, length)  commit blocks
                      count, count x (page, bytes, first LSN, LSNs)                               pages with long chains
                      count, count x blob u128, 16 bytes;  length, filter                         blobs; a Bloom filter

A delta layer has blocks of records, then blocks of commits. An image layer has a block for each sealed page, then
blocks that list these: page - last page, LSN, origin, offset, length. Every number of "pages" or "LSNs" is the last
less the first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from aurora_engine.verifier import bloom
from aurora_engine.verifier.apply import REFERENCE
from aurora_engine.verifier.blocks import read_block
from aurora_engine.verifier.content import Content
from aurora_engine.verifier.crc import crc32c
from aurora_engine.verifier.cursor import Cursor, wrap64
from aurora_engine.verifier.damage import check, damaged, within
from aurora_engine.verifier.page import Page
from aurora_engine.verifier.records import Commit, Record, read_layer_commits, read_layer_records
from aurora_engine.verifier.sealed import read_sealed

FRONT_BYTES: Final = 512
DELTA, IMAGE = 1, 2


class Block(NamedTuple):
    """Where a block that lists records or images is, and what is in it."""

    first_page: int
    last_page: int
    first_lsn: int
    last_lsn: int
    offset: int
    length: int


class CommitBlock(NamedTuple):
    """Where a block of commits is."""

    first_lsn: int
    last_lsn: int
    first_us: int
    last_us: int
    offset: int
    length: int


class Image(NamedTuple):
    """Where a sealed page is: the page as of a record."""

    page: int
    lsn: int
    origin: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What a layer holds, in a few numbers."""

    kind: int
    entries: int
    first_page: int
    last_page: int
    first_lsn: int
    last_lsn: int
    floor: int
    meta_offset: int
    meta_length: int
    replaces: tuple[int, ...]

    @classmethod
    def decode(cls, content: bytes) -> Footer:
        """Reads the content of a footer, whose CRC was right."""
        cursor = Cursor(content, "a footer")
        magic, form, kind = cursor.take(4), cursor.u16(), cursor.u8()
        check(magic == b"AUly", "magic AUly", magic, 0)
        check(form == 1, "layer format 1", form, 4)
        check(kind in (DELTA, IMAGE), "kind 1 or 2", kind, 6)
        entries, page, pages, lsn, lsns, _, floor, offset, length, count = (cursor.varint() for _ in range(10))
        replaces = tuple(cursor.varint() for _ in range(count))
        cursor.end()
        return cls(kind, entries, page, wrap64(page + pages), lsn, wrap64(lsn + lsns), floor, offset, length, replaces)


@dataclass(frozen=True, slots=True)
class Meta:
    """Where things are in a layer."""

    blocks: list[Block]
    commits: list[CommitBlock]
    heavy: list[tuple[int, int, int, int]]
    blobs: list[int]
    filter: bytes

    @classmethod
    def decode(cls, data: bytes) -> Meta:
        """Reads the content of the meta block."""
        cursor = Cursor(data, "a layer's meta block")
        number, signed = cursor.varint, cursor.zigzag
        blocks, commits = [], []
        for _ in range(number()):
            page, pages, lsn, lsns, offset, length = (number() for _ in range(6))
            blocks.append(Block(page, wrap64(page + pages), lsn, wrap64(lsn + lsns), offset, length))
        for _ in range(number()):
            lsn, lsns, time, times, offset, length = number(), number(), signed(), signed(), number(), number()
            commits.append(CommitBlock(lsn, wrap64(lsn + lsns), time, time + times, offset, length))
        heavy = [(number(), number(), number(), number()) for _ in range(number())]
        blobs = [int.from_bytes(cursor.take(16), "little") for _ in range(number())]
        meta = cls(blocks, commits, heavy, blobs, cursor.sized())
        cursor.end()
        return meta


class Layer:
    """A layer, ready to be read. What it gives was checked block by block; :meth:`check` reads every byte."""

    def __init__(self, name: str, content: Content) -> None:
        self.name, self._content = name, content
        self.footer, self._back_bytes = self._read_footer()
        offset, length = self.footer.meta_offset, self.footer.meta_length
        with within(name, offset, packed="the block"):
            self.meta = Meta.decode(read_block(content.read(offset, length)))

    def _read_footer(self) -> tuple[Footer, int]:
        """The footer at the back, and the bytes that it takes."""
        size, name = self._content.size, self.name
        if size < FRONT_BYTES:
            raise damaged(f"a layer of {FRONT_BYTES} bytes or more", size, 0, name)
        crc, length = struct.unpack("<II", self._content.read(size - 8, 8))
        at = size - 8 - length
        if at < FRONT_BYTES:
            raise damaged(f"a footer of at most {FRONT_BYTES - 8} bytes", length, size - 4, name)
        content = self._content.read(at, length)
        got = crc32c(content)
        if got != crc:
            raise damaged(f"a footer with CRC {crc:08x}", f"{got:08x}", at, name)
        with within(name, at):
            return Footer.decode(content), length + 8

    # ------------------------------------------------------------------------------------------------ what is in it

    def records(self, block: Block) -> Iterator[Record]:
        """The records of a listing block of a delta layer."""
        with within(self.name, block.offset, packed="the block"):
            yield from read_layer_records(read_block(self._content.read(block.offset, block.length)))

    def commits(self, block: CommitBlock) -> Iterator[Commit]:
        """The commits of a block of them."""
        with within(self.name, block.offset, packed="the block"):
            yield from read_layer_commits(read_block(self._content.read(block.offset, block.length)))

    def images(self, block: Block) -> Iterator[Image]:
        """The images that a listing block of an image layer lists."""
        with within(self.name, block.offset, packed="the block"):
            cursor, page = Cursor(read_block(self._content.read(block.offset, block.length)), "a list of images"), 0
            while cursor:
                page = wrap64(page + cursor.varint())
                yield Image(page, cursor.varint(), cursor.varint(), cursor.varint(), cursor.varint(32))

    def page(self, image: Image) -> Page:
        """The page of an image."""
        with within(self.name, image.offset, packed="the sealed page"):
            page = read_sealed(read_block(self._content.read(image.offset, image.length)), image.page)
            expected, got = (image.lsn, image.origin), (page.lsn, page.origin)
            check(expected == got, f"page {image.page} at LSN {image.lsn} of {image.origin:x}", got)
            return page

    def overlaps(self, page: int, above: int, upto: int) -> bool:
        """Whether it may have something of a page in LSNs ``(above, upto]``."""
        footer = self.footer
        in_pages = footer.first_page <= page <= footer.last_page
        return (
            in_pages
            and footer.first_lsn <= upto
            and footer.last_lsn > above
            and bloom.may_contain(self.meta.filter, page)
        )

    # ------------------------------------------------------------------------------------------ whether it is whole

    def check(self) -> None:
        """Reads every byte: both footers, each block, and that they say the same of what there is."""
        self._check_front()
        delta = self.footer.kind == DELTA
        places = self._check_records() if delta else self._check_images()
        places += [(block.offset, block.length) for block in self.meta.commits]
        places += [(self.footer.meta_offset, self.footer.meta_length)]
        at = FRONT_BYTES
        for offset, length in sorted(places):
            self._expect(offset == at, f"a block at {at}", f"one at {offset}", at)
            at = offset + length
        end = self._content.size - self._back_bytes
        self._expect(at == end, f"blocks up to {end}", f"up to {at}", at)

    def _check_front(self) -> None:
        front = self._content.read(0, FRONT_BYTES)
        back = self._content.read(self._content.size - self._back_bytes, self._back_bytes - 8)
        expected = struct.pack("<II", len(back), crc32c(back)) + back
        self._expect(len(expected) <= FRONT_BYTES, f"a footer of at most {FRONT_BYTES - 8} bytes", len(back), 0)
        expected += bytes(FRONT_BYTES - len(expected))
        at = next((at for at in range(FRONT_BYTES) if front[at] != expected[at]), None)
        self._expect(at is None, "the footer at the back once more", "another one", at)

    def _check_records(self) -> list[tuple[int, int]]:
        last, entries, blobs, pages = (-1, 0, 0), 0, set[int](), set[int]()
        commits = [commit for block in self.meta.commits for commit in self._commits_of(block)]
        for block in self.meta.blocks:
            records = list(self.records(block))
            self._check_span(block, [(record.page, record.lsn) for record in records])
            for record in records:
                key = (record.page, record.lsn, record.origin)
                self._expect(key > last, f"a record after {last}", key, block.offset)
                last = key
                if record.op[0] == REFERENCE:
                    blobs.add(int.from_bytes(record.op[-16:], "little"))
            entries += len(records)
            pages.update(record.page for record in records)
        self._expect(commits == sorted(commits), "commits that ascend", "others", self.footer.meta_offset)
        listed = set(self.meta.blobs)
        self._expect(
            blobs == listed, f"the {len(blobs)} blobs that records refer to", len(listed), self.footer.meta_offset
        )
        self._check_counts(entries, pages)
        return [(block.offset, block.length) for block in self.meta.blocks]

    def _commits_of(self, block: CommitBlock) -> list[Commit]:
        commits = list(self.commits(block))
        span = (commits[0].lsn, commits[-1].lsn, min(c.time_us for c in commits), max(c.time_us for c in commits))
        self._expect(span == block[:4], f"commits of {block[:4]}", span, block.offset)
        return commits

    def _check_images(self) -> list[tuple[int, int]]:
        last, entries, pages = (-1, 0, 0), 0, set[int]()
        places = [(block.offset, block.length) for block in self.meta.blocks]
        for block in self.meta.blocks:
            images = list(self.images(block))
            self._check_span(block, [(image.page, image.lsn) for image in images])
            for image in images:
                self._expect(image[:3] > last, f"an image after {last}", image[:3], block.offset)
                last = image[:3]
                self.page(image)
                places.append((image.offset, image.length))
            entries += len(images)
            pages.update(image.page for image in images)
        self._check_counts(entries, pages)
        return places

    def _check_span(self, block: Block, entries: list[tuple[int, int]]) -> None:
        self._expect(len(entries) > 0, "entries in a listing block", "none", block.offset)
        pages, lsns = zip(*entries, strict=True)
        span = (min(pages), max(pages), min(lsns), max(lsns))
        self._expect(span == block[:4], f"pages and LSNs of {block[:4]}", span, block.offset)

    def _check_counts(self, entries: int, pages: set[int]) -> None:
        footer, blocks = self.footer, self.meta.blocks
        self._expect(entries == footer.entries, f"{footer.entries} entries", entries, footer.meta_offset)
        hidden = [page for page in pages if not bloom.may_contain(self.meta.filter, page)]
        self._expect(not hidden, "a filter that has every page", f"one without page {hidden[:1]}", footer.meta_offset)
        if blocks:
            span = (
                min(block.first_page for block in blocks), max(block.last_page for block in blocks),
                min(block.first_lsn for block in blocks), max(block.last_lsn for block in blocks),
            )  # fmt: skip
            said = (footer.first_page, footer.last_page, footer.first_lsn, footer.last_lsn)
            self._expect(span == said, f"pages and LSNs of {said}", span, footer.meta_offset)

    def _expect(self, holds: bool, expected: object, got: object, offset: int | None) -> None:
        if not holds:
            raise damaged(expected, got, offset, self.name)
