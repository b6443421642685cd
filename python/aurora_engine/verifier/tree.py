"""Walking a B+tree: its leaves in key order, with everything checked that a tree promises.

Separator ``i`` is the smallest key that child ``i + 1`` may hold, and above every key of child ``i``. All leaves are at
the same depth, every page belongs to the tree's object, and no page comes twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from aurora_engine.verifier.damage import check, damaged, within
from aurora_engine.verifier.inner import Inner
from aurora_engine.verifier.keys import keys_of
from aurora_engine.verifier.leaf import Leaf
from aurora_engine.verifier.overflow import Piece, read_chain
from aurora_engine.verifier.types import Overflow
from aurora_engine.verifier.volume import Volume


def walk(volume: Volume, root: int, owner: int) -> Iterator[Leaf]:
    """The leaves of an object's tree, in key order."""
    yield from _Walk(volume, owner).below(root, None, b"", None)


class _Walk:
    def __init__(self, volume: Volume, owner: int) -> None:
        self._volume, self._owner, self._seen = volume, owner, set[int]()

    def below(self, page_id: int, level: int | None, low: bytes, high: bytes | None) -> Iterator[Leaf]:
        """The leaves below a page, whose keys are at or above ``low`` and below ``high``."""
        page = self._volume.page(page_id)
        with within(f"page {page_id}"):
            check(page_id not in self._seen, "each page of a tree once", "it is there twice")
            self._seen.add(page_id)
            check(page.object == self._owner, f"a page of object {self._owner}", f"of object {page.object}")
            body = page.body
            if isinstance(body, Leaf):
                check(level in (None, 0), f"an inner page of level {level}", "a leaf")
                _check_keys(keys_of(body), low, high)
            elif isinstance(body, Inner):
                check(level in (None, body.level), f"level {level}", f"level {body.level}")
                _check_keys(body.keys, low, high)
            else:
                raise damaged("a leaf or an inner page", f"one of kind {page.kind}")
        if isinstance(body, Leaf):
            yield body
            return
        lows, highs = [low, *body.keys], [*body.keys, high]
        for child, child_low, child_high in zip(body.children, lows, highs, strict=True):
            yield from self.below(child, body.level - 1, child_low, child_high)


def _check_keys(keys: list[bytes], low: bytes, high: bytes | None) -> None:
    for before, key in zip([None, *keys], keys, strict=False):
        check(before is None or before < key, f"a key above {before!r}", f"{key!r}")
    check(not keys or keys[0] >= low, f"keys from {low!r} on", f"{keys[:1]}")
    check(not keys or high is None or keys[-1] < high, f"keys below {high!r}", f"{keys[-1:]}")


def long_value(volume: Volume, reference: Overflow, owner: int) -> bytes:
    """The bytes of a value that lies in overflow pages."""

    def piece_at(page_id: int) -> Piece:
        page = volume.page(page_id)
        with within(f"page {page_id}"):
            check(page.object == owner, f"a page of object {owner}", f"of object {page.object}")
            if not isinstance(page.body, Piece):
                raise damaged("an overflow page", f"one of kind {page.kind}")
        return page.body

    with within(f"page {reference.page}"):
        return read_chain(reference, piece_at)
