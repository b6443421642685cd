"""Blocks: what layers and blobs are made of.

::

    block   raw length u32 | stored length u32 | codec u32 | CRC-32C of these three and of what is stored | stored
    codec   0 as it is, 1 LZ4 (its block format, without a frame)
"""

from __future__ import annotations

import struct
from typing import Final

import lz4.block

from aurora_engine.verifier.crc import crc32c, expect_crc
from aurora_engine.verifier.damage import check, damaged

FRAME_BYTES: Final = 16
_RAW_BYTES_MAX: Final = 256 << 20


def read_block(data: bytes) -> bytes:
    """What a block holds; ``data`` is the whole block."""
    check(len(data) >= FRAME_BYTES, f"a block of {FRAME_BYTES} bytes or more", len(data))
    raw, stored, codec, crc = struct.unpack_from("<IIII", data)
    expect_crc(crc, data[FRAME_BYTES:], "a block", 12, before=crc32c(data[:12]))
    check(stored == len(data) - FRAME_BYTES, f"{len(data) - FRAME_BYTES} stored bytes", stored, 4)
    check(raw <= _RAW_BYTES_MAX, f"a block of at most {_RAW_BYTES_MAX} bytes", raw, 0)
    content = data[FRAME_BYTES:] if codec == 0 else unpack_lz4(data[FRAME_BYTES:], raw, codec, 8)
    check(len(content) == raw, f"{raw} bytes", len(content), 0)
    return content


def unpack_lz4(data: bytes, raw: int, codec: int, codec_at: int) -> bytes:
    """What LZ4 has packed."""
    check(codec == 1, "codec 0 or 1", codec, codec_at)
    try:
        return bytes(lz4.block.decompress(data, uncompressed_size=raw))
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise damaged(f"{raw} bytes of LZ4", error) from error
