"""Instance classes: how much an instance keeps in memory, and whether it runs parallel query.

The names and memory are those of Amazon's classes; three quarters of the memory are the buffer pool, as there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aurora_engine.exceptions import InvalidOption

GIB = 1 << 30

_SIZES_GIB = {
    "small": 2, "medium": 4, "large": 16, "xlarge": 32, "2xlarge": 64, "4xlarge": 128, "8xlarge": 256, "12xlarge": 384,
    "16xlarge": 512, "24xlarge": 768,
}  # fmt: skip
_BURSTABLE_GIB = {"small": 2, "medium": 4, "large": 8}
_FAMILIES = ("r3", "r4", "r5", "r6g", "r6i", "r7g", "r8g", "x2g")
_BURSTABLE = ("t2", "t3", "t4g")
_NO_PARALLEL_QUERY = ("t2", "t3")


@dataclass(frozen=True, slots=True)
class InstanceClass:
    """A class of instances."""

    name: str
    cache_bytes: int
    parallel_query: bool


def instance(name: str) -> InstanceClass:
    """The class of this name.

    Raises:
        InvalidOption: there is no such class.
    """
    match = re.fullmatch(r"db\.(\w+)\.(\w+)", name)
    family, size = (match[1], match[2]) if match else ("", "")
    sizes = _BURSTABLE_GIB if family in _BURSTABLE else _SIZES_GIB
    if family not in (*_FAMILIES, *_BURSTABLE) or size not in sizes:
        expected = f"db.FAMILY.SIZE with a family of {', '.join((*_FAMILIES, *_BURSTABLE))}, such as db.r6g.large"
        raise InvalidOption(
            f"instance_class: expected {expected}, got {name}", option="instance_class", expected=expected, got=name
        )
    return InstanceClass(name, sizes[size] * GIB * 3 // 4, family not in _NO_PARALLEL_QUERY)
