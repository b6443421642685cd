"""A backup: what its manifests say, and the objects that count.

::

    format                                       JSON: whose backup it is, and how it is packed
    base/n<node>-<incarnation>/<file>-<crc>      a layer file of a node, unchanged
    blob/<id>                                    a blob file, unchanged
    log/<from>-<to>-<nonce>                      a delta layer of the records with an LSN in (from, to]
    manifests/<number>                           JSON: everything that counts; the highest number is the backup

A base is every layer that one complete node had at a moment. What is restored is a union of layers: those of a base,
and those of the log ranges from its LSN on. A record counts once, from however many objects it comes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from aurora_engine.exceptions import Damaged, InvalidOption, NewerFormat, NotACluster, OutsideWindow
from aurora_engine.verifier.backup_manifest import BackupManifest, Base, LogRange, Size, Tables, read_manifest
from aurora_engine.verifier.blob import Blob
from aurora_engine.verifier.checked import Checks, Told
from aurora_engine.verifier.commits import Moment, moment, newest_commit
from aurora_engine.verifier.content import Bytes, Content, File
from aurora_engine.verifier.crc import crc32c
from aurora_engine.verifier.damage import Problem, check, damaged, within
from aurora_engine.verifier.extents import Geometry
from aurora_engine.verifier.history import History
from aurora_engine.verifier.layer import DELTA, Layer
from aurora_engine.verifier.objects import Key, Store
from aurora_engine.verifier.packed import KEY_BYTES, hkdf, unpack
from aurora_engine.verifier.records import Commit
from aurora_engine.verifier.volume import Volume

FORMAT: Final = "format"
_MANIFESTS: Final = "manifests/"
_IN_MEMORY_BYTES: Final = 1 << 20
_KEY_INFO: Final = b"aurora-engine backup 1 key check"


def is_backup(path: Path) -> bool:
    """Whether a directory is that of a backup, and not of a cluster or a node."""
    return (path / FORMAT).exists() or (path / _MANIFESTS).is_dir()


class Backup:
    """A backup, checked object by object as it is opened. What is large is unpacked into a temporary directory.

    Args:
        store: Where the objects are.
        key: The key of an encrypted backup, or what gives it.
        checks: Where the results go.
        told: Told of progress.
    """

    def __init__(self, store: Store, key: Key, checks: Checks, told: Told) -> None:
        self._store, self._checks, self._told = store, checks, told
        self._names = store.names()
        self._unpacked: Path | None = None
        self.notes: list[str] = []
        self._layers: dict[str, Layer] = {}
        self._blobs: dict[int, Blob] = {}
        self._key = self._read_format(key)
        self.manifest = self._read_manifests()
        self._open_objects()
        self._check_log()

    def close(self) -> None:
        """Removes what was unpacked."""
        if self._unpacked is not None:
            shutil.rmtree(self._unpacked, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------ objects

    def _read_format(self, key: Key) -> bytes | None:
        if FORMAT not in self._names and any(name.startswith(_MANIFESTS) for name in self._names):
            raise damaged("an object", "none", None, FORMAT)
        if FORMAT not in self._names:
            expected = f"a backup: an object {FORMAT!r}"
            raise NotACluster(
                f"{self._store.url}: expected {expected}, got none", path=self._store.url, expected=expected
            )
        data, problems, found = self._store.get(FORMAT), [], None
        try:
            with within(FORMAT):
                found = _json(data)
                form, encryption = found.get("format"), found.get("encryption")
                check(isinstance(form, int) and form > 0, "a format number", form)
                if form != 1:
                    raise NewerFormat(f"{self._store.url}: expected format 1, got {form}", expected=1, got=form)
                check(encryption in (None, "aes-256-gcm"), "null or aes-256-gcm", encryption)
                self._cluster = int(str(found.get("cluster")), 16) if _is_hex(found.get("cluster"), 32) else None
                check(self._cluster is not None, "a cluster of 32 hex digits", found.get("cluster"))
                sizes = (found.get("page_bytes"), found.get("segment_pages"))
                check(all(isinstance(size, int) and size > 0 for size in sizes), "sizes of pages and segments", sizes)
        except Damaged as error:
            problems = [Problem.of(error)]
        self._format = found or {}
        self._checks.add(FORMAT, "format", len(data), problems)
        return self._find_key(key)

    def _find_key(self, key: Key) -> bytes | None:
        if self._format.get("encryption") is None:
            return None
        found = key() if callable(key) else key
        if found is None or len(found) != KEY_BYTES:
            got = "none" if found is None else f"{len(found)} bytes"
            raise _wrong_key(f"the {KEY_BYTES} bytes with which the backup is encrypted", got)
        if hkdf(found, b"", _KEY_INFO, 16).hex() != self._format.get("key_check"):
            raise _wrong_key("the key with which the backup is encrypted", "another one")
        return bytes(found)

    def _get(self, name: str, size: Size | None) -> bytes:
        """What an object holds. What a manifest says of it must be so."""
        with within(name):
            data = self._store.get(name)
            if size is not None:
                check(len(data) == size.bytes, f"{size.bytes} bytes", len(data))
            content, sha256 = unpack(data, name, self._key)
            if size is not None:
                check(sha256 == size.sha256, f"SHA-256 {size.sha256}", sha256, len(data) - 40)
                check(len(content) == size.raw, f"{size.raw} raw bytes", len(content), len(data) - 56)
            return content

    # ---------------------------------------------------------------------------------------------------- manifests

    def _read_manifests(self) -> BackupManifest:
        """The newest manifest, put together with the whole one that it is a change of. All are checked."""
        numbers = sorted(_numbers(self._names))
        if not numbers:
            expected = "a manifest of the backup"
            raise damaged(expected, "none", None, _MANIFESTS.rstrip("/"))
        read: dict[int, dict[str, Any]] = {}
        for number in range(numbers[0], numbers[-1] + 1):
            name = f"{_MANIFESTS}{number:020}"
            problems = []
            try:
                read[number] = self.one_manifest(number)
            except Damaged as error:
                problems = [Problem.of(error)]
            self._checks.add(name, "manifest", self._names.get(name, 0), problems)
        newest = numbers[-1]
        with within(f"{_MANIFESTS}{newest:020}"):
            return read_manifest(read, newest)

    def one_manifest(self, number: int) -> dict[str, Any]:
        """The manifest of a number as it is stored, checked."""
        name = f"{_MANIFESTS}{number:020}"
        with within(name):
            found = _json(self._get(name, None))
            self._check_manifest(found, number)
            return found

    def _check_manifest(self, found: dict[str, Any], number: int) -> None:
        form = found.get("format")
        if isinstance(form, int) and form > 1:
            raise NewerFormat(f"{self._store.url}: expected manifest format 1, got {form}", expected=1, got=form)
        check(form == 1, "manifest format 1", form)
        check(found.get("number") == number, f"manifest {number}", found.get("number"))
        check(found.get("cluster") == self._format.get("cluster"), f"cluster {self._format.get('cluster')}", "another")

    # ------------------------------------------------------------------------------------------- layers, blobs, log

    def _open_objects(self) -> None:
        names = sorted(self.manifest.objects)
        for done, name in enumerate(names):
            self._told(done, len(names), name)
            problems = self.open_object(name)
            self._checks.add(name, _kind(name), self._names.get(name, 0), problems)
        self._told(len(names), len(names), "objects")
        for name in sorted({name for base in self.manifest.bases for name in base.objects} - set(names)):
            self._checks.problems.append(Problem(name, None, "its length and SHA-256 in the manifest", "none"))
        known = {*names, FORMAT, *(name for name in self._names if name.startswith(_MANIFESTS))}
        remains = sorted(self._names.keys() - known)
        if remains:
            self.notes.append(f"{len(remains)} that no manifest names, as {remains[0]}: they mean nothing")

    def open_object(self, name: str) -> list[Problem]:
        """Opens a layer, a blob or a log range, and checks every byte of it."""
        try:
            with within(name):
                raw = self._get(name, self.manifest.objects[name])
                if _kind(name) == "layer":
                    got = f"{crc32c(raw[-512:]):08x}"
                    check(name.endswith(f"-{got}"), f"a name that ends with {got}", name)
        except Damaged as error:
            return [Problem.of(error)]
        try:
            self._open_content(name, self._keep(raw))
        except Damaged as error:
            # Its CRCs and its SHA-256 were right: what was wrong, was wrong when it was packed.
            place = "" if error.offset is None else f" at byte {error.offset:,} of what it holds"
            return [Problem(name, None, f"{error.expected}{place}", error.got)]
        return []

    def _open_content(self, name: str, content: Content) -> None:
        if _kind(name) == "blob":
            number = int(name.partition("/")[2], 16)
            self._blobs[number] = Blob(name, content, number)
            self._blobs[number].check()
        else:
            self._layers[name] = Layer(name, content)
            self._layers[name].check()

    def _keep(self, raw: bytes) -> Content:
        if len(raw) <= _IN_MEMORY_BYTES:
            return Bytes(raw)
        if self._unpacked is None:
            self._unpacked = Path(tempfile.mkdtemp(prefix="aurora-verify-"))
            # Whoever forgets to close a report leaves nothing behind all the same.
            weakref.finalize(self, shutil.rmtree, self._unpacked, ignore_errors=True)
        path = self._unpacked / str(len(self._layers) + len(self._blobs))
        path.write_bytes(raw)
        return File(path)

    def _check_log(self) -> None:
        """What the manifest says of a log range is what is in it."""
        for entry in self.manifest.log:
            layer = self._layers.get(entry.object)
            if layer is None:
                if entry.object not in self.manifest.objects:
                    self._checks.problems.append(Problem(entry.object, None, "a log range", "none"))
                continue
            with self._checks.noting(), within(entry.object):
                footer = layer.footer
                check(footer.kind == DELTA, "a delta layer", "one of images")
                check(footer.entries == entry.records, f"{entry.records} records", footer.entries)
                inside = not footer.entries or (entry.first < footer.first_lsn and footer.last_lsn <= entry.last)
                check(inside, f"LSNs in ({entry.first}, {entry.last}]", f"{footer.first_lsn} to {footer.last_lsn}")
                check(not set(layer.meta.blobs) - set(entry.blobs), "the blobs that the manifest says", "others")
                missing = [blob for blob in entry.blobs if blob not in self._blobs]
                check(not missing, f"blob {missing[0]:032x}" if missing else "", "none")

    # ------------------------------------------------------------------------------------------------------ moments

    def moment(self, at: Any) -> Moment:
        """The moment that ``at`` means, of those that can be restored."""
        floors = [base.floor_commit for base in self.manifest.bases]

        def newest(history: History, upto: int, upto_us: int) -> Commit | None:
            return newest_commit(self._layers.values(), floors, history, upto, upto_us)

        return moment(at, self.manifest.eras, self.manifest.snapshots, newest, self.manifest.covered)

    def volume(self, found: Moment) -> Volume:
        """The volume at a moment: a base that serves it, and the log ranges from there on."""
        usable = [base for base in self.manifest.bases if self._serves(base, found)]
        if not usable:
            expected = "a base, and log ranges from there on without a gap"
            raise OutsideWindow(
                f"LSN {found.lsn}: expected {expected}, got none",
                what=f"LSN {found.lsn}",
                expected=expected,
                got="none",
            )
        base = max(usable, key=lambda base: base.lsn)
        names = [*base.objects, *(entry.object for entry in self._ranges(base, found))]
        missing = [name for name in names if name not in self._layers]
        if missing:
            raise damaged("a layer that can be read", "damage", None, missing[0])
        geometry = Geometry(self.manifest.page_bytes, self.manifest.segment_pages)
        return Volume(geometry, found.history, [self._layers[name] for name in names], self._blobs)

    def _serves(self, base: Base, found: Moment) -> bool:
        history, upto = found.history, found.history.floor(min(found.lsn, base.lsn))
        has_all = any(
            kept.includes(history.clip(upto)) and (upto >= base.floor or upto == kept.end) for kept in base.histories
        )
        return has_all and _covers(list(self._ranges(base, found)), history, base.lsn)

    def _ranges(self, base: Base, found: Moment) -> Iterator[LogRange]:
        return (entry for entry in self.manifest.log if entry.last > base.lsn and entry.first < found.lsn)

    @property
    def recordings(self) -> list[tuple[int | str, Tables]]:
        """Moments at which the source wrote down rows and digests of its tables, and these: LSNs and snapshots."""
        found: list[tuple[int | str, Tables | None]] = [(base.lsn, base.tables) for base in self.manifest.bases]
        found += self.manifest.snapshot_tables.items()
        return [(at, tables) for at, tables in found if tables is not None]


def _kind(name: str) -> str:
    return {"base": "layer", "blob": "blob", "log": "log range"}.get(name.partition("/")[0], "object")


def _covers(ranges: list[LogRange], history: History, above: int) -> bool:
    """Whether ranges have every LSN of a History above one."""
    following = history.next_after(above)
    for entry in sorted(ranges, key=lambda entry: entry.first):
        if following is not None and entry.first < following <= entry.last:
            following = history.next_after(entry.last)
    return following is None


def _numbers(names: dict[str, int]) -> Iterator[int]:
    for name in names:
        number = name.removeprefix(_MANIFESTS)
        if name.startswith(_MANIFESTS) and len(number) == 20 and number.isdigit():
            yield int(number)


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise damaged("JSON", error) from error
    check(isinstance(found, dict), "a JSON object", type(found).__name__)
    return dict(found)


def _is_hex(value: Any, digits: int) -> bool:
    return isinstance(value, str) and len(value) == digits and all(digit in "0123456789abcdef" for digit in value)


def _wrong_key(expected: str, got: str) -> InvalidOption:
    return InvalidOption(f"option key: expected {expected}, got {got}", option="key", expected=expected, got=got)
