"""An overflow page: a piece of a value too long for a leaf. The pieces of a value are a chain.

::

    page   header 64 | next page u64, 0 ends the chain | bytes u32 | zero u32 | the bytes of this piece
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from aurora_engine.verifier.damage import check
from aurora_engine.verifier.types import Overflow


@dataclass(slots=True)
class Piece:
    """A piece, and the page of the next one."""

    next: int
    data: bytes


def read_plain(page: bytes) -> Piece:
    """The piece in the bytes of a plain page."""
    following, length = struct.unpack_from("<QI", page, 64)
    check(80 + length <= len(page), f"a piece of at most {len(page) - 80} bytes", length, 72)
    return Piece(following, page[80 : 80 + length])


def read_chain(reference: Overflow, piece_at: Callable[[int], Piece]) -> bytes:
    """The whole value that a reference stands for; ``piece_at`` gives the piece of a page."""
    value, page, seen = bytearray(), reference.page, set[int]()
    while page:
        check(page not in seen, "a chain of overflow pages that ends", f"page {page} twice")
        seen.add(page)
        piece = piece_at(page)
        value += piece.data
        check(len(value) <= reference.length, f"a chain of {reference.length} bytes", f"{len(value)} or more")
        page = piece.next
    check(len(value) == reference.length, f"a chain of {reference.length} bytes", len(value))
    return bytes(value)
