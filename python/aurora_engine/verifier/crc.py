"""CRC-32C (Castagnoli), the one checksum of everything that is stored. Check value: ``123456789`` gives E3069283."""

from __future__ import annotations

import crcmod.predefined

from aurora_engine.verifier.damage import check

_crc = crcmod.predefined.mkPredefinedCrcFun("crc-32c")


def crc32c(data: bytes, before: int = 0) -> int:
    """The CRC of some bytes, or of what had the CRC ``before`` followed by them."""
    return int(_crc(data, before))


def expect_crc(stored: int, data: bytes, what: str, offset: int | None = None, *, before: int = 0) -> None:
    """Raises unless the bytes have the CRC that is stored with them."""
    got = crc32c(data, before)
    check(got == stored, f"{what} with CRC {stored:08x}", f"{got:08x}", offset)
