"""Pages as an independent reader sees them: the header's offsets and the CRC-32C, by crcmod and struct alone."""

from __future__ import annotations

import struct
from pathlib import Path

import crcmod.predefined
import pytest

GOLDEN = Path(__file__).parent.parent / "rust" / "page" / "tests" / "golden"
HEADER = struct.Struct("<4sHBxQQQQQII4xI")  # as drawn in docs/design/page.md
CRC_AT = 60
KINDS = {"leaf": 1, "inner": 2, "overflow": 3, "extent-map": 4}

crc32c = crcmod.predefined.mkPredefinedCrcFun("crc-32c")


def page_crc(page: bytes) -> int:
    return crc32c(page[:CRC_AT] + page[HEADER.size :])


def test_the_polynomial_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
    ("name", "page_id", "owner", "schema_version"),
    [("leaf", 42, 5, 7), ("inner", 7, 5, 0), ("overflow", 99, 5, 0), ("extent-map", 0, 0, 0)],
)
def test_header_and_crc_of_golden_pages(name: str, page_id: int, owner: int, schema_version: int) -> None:
    page = (GOLDEN / f"{name}-v1.bin").read_bytes()
    assert HEADER.unpack_from(page) == (
        b"APG1",
        1,
        KINDS[name],
        page_id,
        owner,
        0x0A0B,  # origin
        1234,  # LSN
        1000,  # the LSN before
        schema_version,
        len(page),
        page_crc(page),
    )


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_bit_anywhere_changes_the_crc(name: str) -> None:
    page = bytearray((GOLDEN / f"{name}-v1.bin").read_bytes())
    stored = struct.unpack_from("<I", page, CRC_AT)[0]
    assert page_crc(page) == stored
    for at in [*range(CRC_AT), *range(HEADER.size, len(page))]:
        page[at] ^= 0x10
        assert page_crc(page) != stored, f"byte {at}"
        page[at] ^= 0x10


def test_a_leaf_is_readable_from_its_drawing() -> None:
    """The int64 keys of the golden leaf, found through descriptor, slot directory and column as they are drawn."""
    page = (GOLDEN / "leaf-v1.bin").read_bytes()
    columns, capacity, rows, key_parts = struct.unpack_from("<4H", page, 64)
    assert (columns, capacity, rows, key_parts) == (15, 16, 3, 1)
    descriptors_at = 88
    key_parts_at = descriptors_at + 12 * columns
    key_column = struct.unpack_from("<H", page, key_parts_at)[0]
    column_id, type_code, flags, _param, _zero, _nulls_at, values_at = struct.unpack_from(
        "<HBBHHHH", page, descriptors_at + 12 * key_column
    )
    assert (column_id, type_code, flags) == (1, 5, 0)
    zones_at = (key_parts_at + 2 * key_parts + 7) // 8 * 8
    live_at = zones_at + 16 * columns
    slots_at = live_at + ((capacity + 7) // 8 + 7) // 8 * 8
    slots = struct.unpack_from(f"<{rows}H", page, slots_at)
    assert [struct.unpack_from("<q", page, values_at + 8 * slot)[0] for slot in slots] == [10, 20, 40]
    assert sorted(slots) == [slot for slot in range(capacity) if page[live_at + slot // 8] >> slot % 8 & 1]
    low, high = struct.unpack_from("<QQ", page, zones_at + 16 * key_column)
    assert (low - 2**63, high - 2**63) == (10, 40)
