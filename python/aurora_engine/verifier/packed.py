"""A packed object: how layers, blobs and manifests lie in a backup.

::

    object   head, 48 | chunk 0 | chunk 1 | … | table, 12 x chunks | tail, 56
    head     magic "AUbk" | format u16 = 1 | flags u16: bit 0 = encrypted | salt, 32 bytes: zeros where not encrypted
             | raw bytes of a chunk u32 | CRC-32C u32 of bytes 0..44
    chunk    a zstd frame of at most that many raw bytes; where encrypted, AES-256-GCM of it, 16 bytes of tag behind it
    table    for each chunk: stored length u32 | raw length u32 | CRC-32C u32 of the stored bytes
    tail     raw length of the whole u64 | chunks u32 | CRC-32C u32 of the table | SHA-256 of everything before the tail
             | CRC-32C u32 of tail bytes 0..48 | magic "kbUA"

The key of an object is HKDF-SHA256 of the backup's key with the head's salt and the info ``aurora-engine backup 1`` and
the object's name; the nonce of chunk *i* is *i* as u64 and four zero bytes.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Final

from aurora_engine.exceptions import MissingExtra
from aurora_engine.verifier.crc import expect_crc
from aurora_engine.verifier.damage import check, damaged

_HEAD: Final = struct.Struct("<4sHH32sII")
_ENTRY: Final = struct.Struct("<III")
_TAIL: Final = struct.Struct("<QII32sI4s")
_ENCRYPTED: Final = 1
_TAG_BYTES: Final = 16
KEY_BYTES: Final = 32


def unpack(data: bytes, name: str, key: bytes | None) -> tuple[bytes, str]:
    """What an object holds, and the SHA-256 in its tail. Every byte is checked."""
    least = _HEAD.size + _TAIL.size
    check(len(data) >= least, f"an object of {least} bytes or more", len(data), 0)
    magic, form, flags, salt, chunk_bytes, crc = _HEAD.unpack_from(data)
    check(magic == b"AUbk", "magic AUbk", magic, 0)
    expect_crc(crc, data[: _HEAD.size - 4], "an object's head", 44)
    check(form == 1, "object format 1", form, 4)
    check(flags <= _ENCRYPTED, "flags 0 or 1", flags, 6)
    tail_at = len(data) - _TAIL.size
    raw, chunks, table_crc, digest, tail_crc, end = _TAIL.unpack_from(data, tail_at)
    check(end == b"kbUA", "magic kbUA", end, tail_at + 52)
    expect_crc(tail_crc, data[tail_at : tail_at + 48], "an object's tail", tail_at + 48)
    table_at = tail_at - _ENTRY.size * chunks
    check(table_at >= _HEAD.size, f"a table of {chunks} chunks", f"an object of {len(data)} bytes", tail_at + 8)
    expect_crc(table_crc, data[table_at:tail_at], "an object's table", table_at)
    box = _box(key, salt, name) if flags & _ENCRYPTED else None
    content = _chunks(data, table_at, chunks, chunk_bytes, box)
    check(len(content) == raw, f"{raw} bytes", len(content), tail_at)
    got = hashlib.sha256(data[:tail_at]).digest()
    check(got == digest, f"SHA-256 {digest.hex()}", got.hex(), tail_at + 16)
    check(flags & _ENCRYPTED or not any(salt), "a salt of zeros", salt.hex(), 8)
    return content, digest.hex()


def _chunks(data: bytes, table_at: int, chunks: int, chunk_bytes: int, box: Any) -> bytes:
    entries = [_ENTRY.unpack_from(data, table_at + _ENTRY.size * index) for index in range(chunks)]
    content, at = bytearray(), _HEAD.size
    for index, (stored, raw, crc) in enumerate(entries):
        check(at + stored <= table_at, f"chunks up to byte {table_at}", at + stored, at)
        check(raw <= chunk_bytes, f"a chunk of at most {chunk_bytes} bytes", raw, table_at + _ENTRY.size * index + 4)
        expect_crc(crc, data[at : at + stored], f"chunk {index}", at)
        frame = data[at : at + stored] if box is None else _decrypt(box, index, data[at : at + stored], at)
        content += _decompress(frame, raw, at)
        at += stored
    check(at == table_at, f"chunks up to byte {table_at}", at, at)
    return bytes(content)


def _decompress(frame: bytes, raw: int, offset: int) -> bytes:
    try:
        import zstandard  # noqa: PLC0415 - an optional library
    except ImportError as error:
        raise _missing("zstandard") from error
    try:
        reader = zstandard.ZstdDecompressor().decompressobj()
        content = reader.decompress(frame)
    except zstandard.ZstdError as error:
        raise damaged(f"a zstd frame of {raw} bytes", error, offset) from error
    check(len(content) == raw and reader.eof and not reader.unused_data, f"{raw} bytes", len(content), offset)
    return bytes(content)


def _decrypt(box: Any, index: int, stored: bytes, offset: int) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an optional library

    check(len(stored) >= _TAG_BYTES, f"{_TAG_BYTES} bytes or more", len(stored), offset)
    try:
        return bytes(box.decrypt(index.to_bytes(8, "little") + bytes(4), stored, None))
    except InvalidTag as error:
        raise damaged("what this key and this name encrypt", "a tag that does not fit", offset) from error


def _box(key: bytes | None, salt: bytes, name: str) -> Any:
    """What opens an object: a key of its own, from the backup's."""
    if key is None:
        raise damaged("an object that is not encrypted", "one that is", 6)
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an optional library
    except ImportError as error:
        raise _missing("cryptography") from error
    return AESGCM(hkdf(key, salt, f"aurora-engine backup 1 {name}".encode(), KEY_BYTES))


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF with SHA-256 (RFC 5869)."""
    import hmac  # noqa: PLC0415 - of encrypted backups only

    extracted = hmac.digest(salt or bytes(32), key, "sha256")
    block, out, counter = b"", b"", 0
    while len(out) < length:
        counter += 1
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        out += block
    return out[:length]


def _missing(library: str) -> MissingExtra:
    expected = f"{library}: pip install 'aurora-engine[verify]'"
    return MissingExtra(f"expected {expected}, got none", expected=expected)
