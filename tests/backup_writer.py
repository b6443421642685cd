"""A small writer of the backup format, from its drawing alone: a second opinion about what the drawing says.

It makes a backup of what a closed cluster's node has: its layers as the base, and one log range of the records that are
in the hot log.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crcmod.predefined
import zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aurora_engine.verifier.checked import Checks
from aurora_engine.verifier.directory import Directory
from aurora_engine.verifier.records import Record

crc32c = crcmod.predefined.mkPredefinedCrcFun("crc-32c")
CHUNK = 262144


def derived(key: bytes, salt: bytes, info: str, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt or None, info.encode()).derive(key)


def pack(raw: bytes, name: str, key: bytes | None = None, salt: bytes = bytes(32), chunk: int = CHUNK) -> bytes:
    """An object that holds ``raw``."""
    head = struct.pack("<4sHH32sI", b"AUbk", 1, key is not None, salt, chunk)
    out = head + struct.pack("<I", crc32c(head))
    box = AESGCM(derived(key, salt, f"aurora-engine backup 1 {name}", 32)) if key else None
    table = b""
    for index, at in enumerate(range(0, len(raw), chunk)):
        piece = raw[at : at + chunk]
        stored = zstandard.ZstdCompressor().compress(piece)
        if box:
            stored = box.encrypt(struct.pack("<Q4x", index), stored, None)
        table += struct.pack("<III", len(stored), len(piece), crc32c(stored))
        out += stored
    out += table
    tail = struct.pack("<QII32s", len(raw), len(table) // 12, crc32c(table), hashlib.sha256(out).digest())
    return out + tail + struct.pack("<I4s", crc32c(tail), b"kbUA")


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def zigzag(value: int) -> bytes:
    return varint((value << 1) ^ (value >> 63))


def block(raw: bytes) -> bytes:
    head = struct.pack("<III", len(raw), len(raw), 0)
    return head + struct.pack("<I", crc32c(head + raw)) + raw


def delta_layer(records: list[Record]) -> bytes:
    """A delta layer with one block of records and one of commits; no link, page or origin is left away."""
    records = sorted(records, key=lambda r: (r.page, r.lsn, r.origin))
    listing, page, lsn, time = b"", 0, 0, 0
    for r in records:
        flags = (
            32 | (1 if r.time_us is not None else 0) | (2 if not r.prev_page else 0) | (4 if not r.prev_group else 0)
        )
        listing += bytes([flags]) + varint(r.page - page) + zigzag(r.lsn - lsn) + varint(r.origin)
        listing += varint(r.lsn - r.prev_page) if r.prev_page else b""
        listing += varint(r.lsn - r.prev_group) if r.prev_group else b""
        if r.time_us is not None:
            listing += zigzag(r.time_us - time)
            time = r.time_us
        listing += varint(len(r.op)) + r.op
        page, lsn = r.page, r.lsn
    commits = sorted((r.lsn, r.origin, r.time_us) for r in records if r.time_us is not None)
    packed, last = b"", (0, 0, 0)
    for commit in commits:
        packed += varint(commit[0] - last[0]) + zigzag(signed64(commit[1] - last[1])) + zigzag(commit[2] - last[2])
        last = commit
    pages, lsns = [r.page for r in records], [r.lsn for r in records]
    first, second = block(listing), block(packed)
    meta = b"\x01" + b"".join(map(varint, (min(pages), max(pages) - min(pages), min(lsns), max(lsns) - min(lsns), 512)))
    meta += varint(len(first)) + b"\x01"
    meta += varint(commits[0][0]) + varint(commits[-1][0] - commits[0][0]) + zigzag(commits[0][2])
    meta += zigzag(commits[-1][2] - commits[0][2]) + varint(512 + len(first)) + varint(len(second)) + b"\0\0"
    bits = b"\xff" * 8
    meta_block = block(meta + varint(len(bits)) + bits)
    numbers = (
        len(records), min(pages), max(pages) - min(pages), min(lsns), max(lsns) - min(lsns), 0, 0,
        512 + len(first) + len(second), len(meta_block), 0,
    )  # fmt: skip
    content = b"AUly" + struct.pack("<HB", 1, 1) + b"".join(map(varint, numbers))
    front = (struct.pack("<II", len(content), crc32c(content)) + content).ljust(512, b"\0")
    return front + first + second + meta_block + content + struct.pack("<II", crc32c(content), len(content))


def signed64(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


@dataclass
class BackupWriter:
    """Writes the objects of one backup."""

    home: Path
    key: bytes | None = None
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)

    def put(self, name: str, raw: bytes, salt: bytes = bytes(32)) -> None:
        data = pack(raw, name, self.key, hashlib.sha256(name.encode()).digest() if self.key else salt)
        self.write(name, data)
        if not name.startswith("manifests/"):
            digest = data[-40:-8].hex()
            self.objects[name] = {"bytes": len(data), "raw": len(raw), "sha256": digest}

    def write(self, name: str, data: bytes) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def backup(self, cluster: Path, tables: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Writes a whole backup of a cluster's first node; gives its manifest."""
        directory = Directory(cluster, Checks(), lambda *_: None)
        manifest, node = directory.manifest, directory.nodes[0]
        cluster_hex = f"{manifest.cluster:032x}"
        check = derived(self.key, b"", "aurora-engine backup 1 key check", 16).hex() if self.key else None
        described = {
            "format": 1, "cluster": cluster_hex, "page_bytes": manifest.geometry.page_bytes,
            "segment_pages": manifest.geometry.segment_pages, "created_us": 1, "compression": "zstd",
            "encryption": "aes-256-gcm" if self.key else None, "key_check": check,
        }  # fmt: skip
        self.write("format", json.dumps(described).encode())
        latest = node.moment(None)
        base_lsn = max((layer.footer.last_lsn for layer in node.layers if layer.footer.kind == 1), default=0)
        layers = [self.layer(cluster, layer.name) for layer in node.layers]
        blobs = [self.blob(path) for path in sorted((cluster / "az1/node1/blobs").glob("blob-*"))]
        recent = {r.lsn: r for r in node.recent if manifest.history.contains(r.origin, r.lsn) and r.lsn <= latest.lsn}
        log = []
        if recent:
            name = f"log/{base_lsn:020}-{latest.lsn:020}-{1:016x}"
            above = [r for r in recent.values() if r.lsn > base_lsn]
            self.put(name, delta_layer(above))
            log = [{
                "object": name, "from": base_lsn, "to": latest.lsn, "first_us": 0, "last_us": 0, "records": len(above),
                "commits": 0, "level": 0, "blobs": [],
            }]  # fmt: skip
        history = [[i.origin, i.first, i.last if i.last < 1 << 63 else None] for i in manifest.history.intervals]
        body = {
            "format": 1, "number": 1, "nonce": "0" * 16, "on": None, "cluster": cluster_hex, "epoch": 1,
            "written_us": 1, "engine": "0", "retention_days": 7,
            "volume": {"page_bytes": manifest.geometry.page_bytes, "segment_pages": manifest.geometry.segment_pages},
            "eras": [{"history": history, "since_us": 0, "until_us": None}], "snapshots": [],
            "restorable": {"from_lsn": 1, "from_us": 1, "lsn": latest.lsn, "time_us": latest.time_us},
            "bases": [{
                "id": 1, "node": 0, "incarnation": 1, "lsn": base_lsn, "time_us": 0, "taken_us": 0, "floor": 0,
                "floor_commit": None, "histories": [history], "segments": 1, "objects": layers, "blobs": blobs,
                "tables": tables,
            }],
            "log": log, "objects": self.objects, "gone": {"bases": [], "log": [], "objects": []},
        }  # fmt: skip
        self.put("manifests/" + "1".zfill(20), json.dumps(body).encode())
        return body

    def layer(self, cluster: Path, name: str) -> str:
        data = (cluster / name).read_bytes()
        named = f"base/n0-1/{Path(name).name}-{crc32c(data[-512:]):08x}"
        self.put(named, data)
        return named

    def blob(self, path: Path) -> str:
        number = path.name.removeprefix("blob-")
        self.put(f"blob/{number}", path.read_bytes())
        return f"blob/{number}"
