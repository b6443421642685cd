"""Reading bytes from front to back: fixed numbers, little-endian, and numbers of varying length.

A varint has seven bits a byte, the low ones first, and the top bit set on all but its last byte. A signed one is folded
first, so that small ones of either sign are short: 0, -1, 1, -2 become 0, 1, 2, 3. Every number has one form only: the
shortest.
"""

from __future__ import annotations

from typing import Final

from aurora_engine.verifier.damage import check, damaged

U64_MAX: Final = (1 << 64) - 1
_VARINT_BYTES_MAX: Final = 19  # of 128 bits


class Cursor:
    """A place in some bytes. Whatever is read is checked to be there first."""

    __slots__ = ("at", "data", "what")

    def __init__(self, data: bytes, what: str, at: int = 0) -> None:
        self.data, self.what, self.at = data, what, at

    def __bool__(self) -> bool:
        """Whether bytes are left."""
        return self.at < len(self.data)

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.at + count
        if end > len(self.data):
            raise damaged(f"{count} bytes of {self.what}", f"{len(self.data) - self.at}", self.at)
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.data) - self.at)

    def number(self, width: int) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.take(width), "little")

    def u8(self) -> int:
        """An unsigned number of one byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """An unsigned number of two bytes."""
        return self.number(2)

    def u32(self) -> int:
        """An unsigned number of four bytes."""
        return self.number(4)

    def u64(self) -> int:
        """An unsigned number of eight bytes."""
        return self.number(8)

    def flag(self) -> bool:
        """A byte that is 0 or 1."""
        value = self.u8()
        check(value <= 1, f"0 or 1 in {self.what}", value, self.at - 1)
        return value == 1

    def varint(self, bits: int = 64) -> int:
        """An unsigned number of varying length."""
        data, at, value, shift = self.data, self.at, 0, 0
        if at < len(data) and data[at] < 0x80:
            self.at = at + 1
            return data[at]
        while at < len(data):
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                check(byte > 0 or shift == 0, f"the shortest form of a number in {self.what}", "a longer one", self.at)
                check(value >> bits == 0, f"a number of {bits} bits in {self.what}", value, self.at)
                self.at = at
                return value
            shift += 7
            if shift >= 7 * _VARINT_BYTES_MAX:
                raise damaged(f"the end of a number in {self.what}", "more bytes", self.at)
        raise damaged(f"the end of a number in {self.what}", "the end of the bytes", self.at)

    def zigzag(self) -> int:
        """A signed number of varying length."""
        folded = self.varint()
        return (folded >> 1) ^ -(folded & 1)

    def sized(self) -> bytes:
        """Bytes behind their length."""
        return self.take(self.varint())

    def name(self, length_bytes: int) -> str:
        """UTF-8 behind its length, a number of so many bytes."""
        at = self.at
        return text_of(self.take(self.number(length_bytes)), self.what, at)

    def end(self) -> None:
        """Raises if bytes are left."""
        left = len(self.data) - self.at
        check(left == 0, f"the end of {self.what}", f"{left} bytes more", self.at)


def text_of(data: bytes, what: str, offset: int = 0) -> str:
    """UTF-8 as text."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise damaged(f"UTF-8 in {what}", f"byte {data[error.start]:02x}", offset + error.start) from error


def wrap64(value: int) -> int:
    """The low 64 bits: distances between numbers may go round."""
    return value & U64_MAX
