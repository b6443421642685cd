"""A filter over page ids: says "not here" for certain, "here" with about one error in a hundred.

Each page sets six bits; the first is a hash of its number, the next ones follow at a distance that the hash gives.
"""

from __future__ import annotations

from typing import Final

from aurora_engine.verifier.cursor import U64_MAX

_PROBES: Final = 6


def may_contain(bits: bytes, page: int) -> bool:
    """Whether a filter has a page, or may have."""
    count = len(bits) * 8
    hashed = _mix(page)
    step = hashed >> 32 | 1
    places = ((hashed + probe * step & U64_MAX) % count for probe in range(_PROBES)) if count else ()
    return all(bits[place // 8] >> place % 8 & 1 for place in places)


def _mix(page: int) -> int:
    mixed = page + 0x9E3779B97F4A7C15 & U64_MAX
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & U64_MAX
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & U64_MAX
    return mixed ^ mixed >> 31
