"""Log records: where a change stands, and the two forms in which many of them are packed.

A record changes one page. Its name for ever is (origin, LSN): the volume whose writer numbered it, and the number.

::

    in a layer   flags u8 | [page - last page] | LSN, zigzag from the last | [origin] | [LSN - previous of the page]
                 | [LSN - previous of the group] | [time, zigzag from the last] | op length | op
                 flags: 1 time follows, 2 no previous of the page, 4 no previous of the group, 8 page as before,
                        16 the record before it is its previous of the page, 32 origin follows

    in a batch   format u8 = 1 | group | epoch | VDL | count | records
    record       flags u8 | [LSN - last LSN] | [origin] | [page, zigzag from the last] | [LSN - previous of the page]
                 | [LSN - previous of the group] | [time, zigzag from the last] | op length | op
                 flags: 1 time follows, 2 no previous of the page, 4 no previous of the group, 8 the record before it is
                        its previous of the group, 16 LSN one above the last, 32 page as before, 64 origin follows

All other numbers are varints. Each block, and each batch, starts from zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from aurora_engine.verifier.cursor import Cursor, wrap64
from aurora_engine.verifier.damage import check

_TIME, _NO_PREV_PAGE, _NO_PREV_GROUP = 1, 2, 4
_LAYER_SAME_PAGE, _LAYER_CHAINED, _LAYER_ORIGIN = 8, 16, 32
_BATCH_CHAINED, _BATCH_DENSE, _BATCH_SAME_PAGE, _BATCH_ORIGIN = 8, 16, 32, 64
_LAST_STARTING_LIFE: Final = 5


class Record(NamedTuple):
    """A change of one page, with its place. ``time_us`` is there on the last record of a commit."""

    lsn: int
    origin: int
    page: int
    prev_page: int
    prev_group: int
    time_us: int | None
    op: bytes

    @property
    def starts_life(self) -> bool:
        """Whether the page begins anew with it: what was before does not matter, and it has no previous."""
        return 1 <= self.op[0] <= _LAST_STARTING_LIFE


class Commit(NamedTuple):
    """The last record of a commit, and when that was."""

    lsn: int
    origin: int
    time_us: int


def read_layer_records(block: bytes) -> Iterator[Record]:
    """The records of a delta layer's block."""
    cursor = Cursor(block, "a layer's records")
    page = lsn = origin = time = 0
    while cursor:
        at, flags = cursor.at, cursor.u8()
        check(flags < 64, "flags below 64", flags, at)
        before = lsn
        if not flags & _LAYER_SAME_PAGE:
            page = wrap64(page + cursor.varint())
        lsn = wrap64(lsn + cursor.zigzag())
        if flags & _LAYER_ORIGIN:
            origin = cursor.varint()
        prev_page = before if flags & _LAYER_CHAINED else 0
        if not flags & (_NO_PREV_PAGE | _LAYER_CHAINED):
            prev_page = wrap64(lsn - cursor.varint())
        prev_group = 0 if flags & _NO_PREV_GROUP else wrap64(lsn - cursor.varint())
        if flags & _TIME:
            time += cursor.zigzag()
        op = cursor.sized()
        check(len(op) > 0, "an op", "none", at)
        yield Record(lsn, origin, page, prev_page, prev_group, time if flags & _TIME else None, op)


def read_layer_commits(block: bytes) -> Iterator[Commit]:
    """The commits of a delta layer's block: LSN - last LSN, origin and time as zigzag from the last."""
    cursor = Cursor(block, "a layer's commits")
    lsn = origin = time = 0
    while cursor:
        lsn = wrap64(lsn + cursor.varint())
        origin = wrap64(origin + cursor.zigzag())
        time += cursor.zigzag()
        yield Commit(lsn, origin, time)


class Batch(NamedTuple):
    """Records of one protection group, as the writer sends them."""

    group: int
    epoch: int
    vdl: int
    records: list[Record]


def read_batch(data: bytes) -> Batch:
    """A batch of the hot log."""
    cursor = Cursor(data, "a batch")
    form = cursor.u8()
    check(form == 1, "batch format 1", form, 0)
    group, epoch, vdl, count = (cursor.varint() for _ in range(4))
    records: list[Record] = []
    page = lsn = origin = time = 0
    for _ in range(count):
        at, flags = cursor.at, cursor.u8()
        leans = _BATCH_CHAINED | _BATCH_DENSE | _BATCH_SAME_PAGE
        check(flags < 128 and (bool(records) or not flags & leans), "flags that agree", flags, at)
        before = lsn
        lsn += 1 if flags & _BATCH_DENSE else cursor.varint()
        check(lsn > before, f"an LSN above {before}", lsn, at)
        if flags & _BATCH_ORIGIN:
            origin = cursor.varint()
        if not flags & _BATCH_SAME_PAGE:
            page = wrap64(page + cursor.zigzag())
        prev_page = 0 if flags & _NO_PREV_PAGE else lsn - cursor.varint()
        prev_group = before if flags & _BATCH_CHAINED else 0
        if not flags & (_NO_PREV_GROUP | _BATCH_CHAINED):
            prev_group = lsn - cursor.varint()
        if flags & _TIME:
            time += cursor.zigzag()
        check(0 <= prev_page < lsn and 0 <= prev_group < lsn, "links that point down", (prev_page, prev_group), at)
        op = cursor.sized()
        check(len(op) > 0, "an op", "none", at)
        records.append(Record(lsn, origin, page, prev_page, prev_group, time if flags & _TIME else None, op))
    cursor.end()
    return Batch(group, epoch, vdl, records)
