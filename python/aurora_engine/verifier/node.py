"""A storage node's directory: its layers, its blobs, and what the hot log has for it.

::

    identity | state | layers.list | manifest-<version> | layers/layer-<16 digits> | blobs/blob-<32 hex digits>
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from aurora_engine.exceptions import Damaged, OutsideWindow
from aurora_engine.verifier.backup_manifest import Tables
from aurora_engine.verifier.blob import Blob
from aurora_engine.verifier.checked import Checks
from aurora_engine.verifier.commits import Moment, commits_of, moment, newest_commit
from aurora_engine.verifier.content import File
from aurora_engine.verifier.cursor import U64_MAX
from aurora_engine.verifier.damage import Problem, check, damaged, within
from aurora_engine.verifier.hotlog import HotLog
from aurora_engine.verifier.layer import DELTA, Layer
from aurora_engine.verifier.manifest import PREFIX, Manifest, Node
from aurora_engine.verifier.nodefiles import State, read_identity, read_layer_list, read_state
from aurora_engine.verifier.records import Record
from aurora_engine.verifier.volume import Volume

_LAYER: Final = "layer-"
_BLOB: Final = "blob-"


class NodeDirectory:
    """A node, checked file by file as it is opened.

    Args:
        home: The node's directory.
        name: What the names of its objects begin with.
        node: The node, as the manifest has it.
        manifest: The cluster's manifest.
        log: The hot log that has its newest records.
        checks: Where the results go.
    """

    def __init__(self, home: Path, name: str, node: Node, *, manifest: Manifest, log: HotLog, checks: Checks) -> None:
        self._home, self.name, self._node, self._manifest, self._checks = home, name, node, manifest, checks
        self._state = State(0, None)
        before = len(checks.all_problems)
        if not home.is_dir():
            checks.problems.append(Problem(name or ".", None, "the directory of a node", "none"))
        else:
            self._check_identity()
            self._file("state", "state", self._read_state)
        self.layers = self._layers()
        self._blobs = self._open_blobs()
        self._recent = [record for batch in log.batches_of(node.id) for record in batch.records]
        self.sound = len(checks.all_problems) == before

    # ------------------------------------------------------------------------------------------------------- files

    def _path_name(self, *parts: str) -> str:
        return "/".join((self.name, *parts)) if self.name else "/".join(parts)

    def _file(self, kind: str, file: str, read: Callable[[bytes], object]) -> None:
        path, name, problems = self._home / file, self._path_name(file), []
        data = b""
        try:
            with within(name):
                check(path.is_file(), f"a file of kind {kind}", "none")
                data = path.read_bytes()
                read(data)
        except Damaged as error:
            problems = [Problem.of(error)]
        self._checks.add(name, kind, len(data), problems)

    def _check_identity(self) -> None:
        def read(data: bytes) -> None:
            identity = read_identity(data)
            expected = (self._node.id, self._node.incarnation, self._manifest.cluster)
            check(tuple(identity) == expected, f"node, incarnation and cluster {expected}", tuple(identity))

        self._file("identity", "identity", read)
        for path in sorted(self._home.glob(f"{PREFIX}*")):
            self._file("manifest", path.name, Manifest.decode)

    def _read_state(self, data: bytes) -> None:
        self._state = read_state(data)

    def _layers(self) -> list[Layer]:
        """The layers that count: all but those that one which is there replaces."""
        found: dict[int, Layer] = {}
        for path in sorted((self._home / "layers").glob(f"{_LAYER}*")):
            layer = self._layer(path)
            if layer is not None:
                found[int(path.name.removeprefix(_LAYER))] = layer
        replaced = {number for layer in found.values() for number in layer.footer.replaces}
        if self._home.is_dir():
            self._file("list of layers", "layers.list", lambda data: self._check_list(data, replaced))
        return [layer for number, layer in found.items() if number not in replaced]

    def _check_list(self, data: bytes, replaced: set[int]) -> None:
        for number in read_layer_list(data):
            name = f"{_LAYER}{number:016}"
            if number not in replaced and not (self._home / "layers" / name).is_file():
                raise damaged("a layer", "none", None, self._path_name("layers", name))

    def _layer(self, path: Path) -> Layer | None:
        name, content = self._path_name("layers", path.name), File(path)
        layer = None
        problems = []
        try:
            with within(name):
                layer = Layer(name, content)
                layer.check()
        except Damaged as error:
            problems = [Problem.of(error)]
        self._checks.add(name, "layer", content.size, problems)
        return layer

    def _open_blobs(self) -> dict[int, Blob]:
        found: dict[int, Blob] = {}
        for path in sorted((self._home / "blobs").glob(f"{_BLOB}*")):
            name, content, problems = self._path_name("blobs", path.name), File(path), []
            number = int(path.name.removeprefix(_BLOB), 16)
            try:
                with within(name):
                    found[number] = Blob(name, content, number)
                    found[number].check()
            except Damaged as error:
                problems = [Problem.of(error)]
            self._checks.add(name, "blob", content.size, problems)
        return found

    # ------------------------------------------------------------------------------------------------------ moments

    def moment(self, at: Any) -> Moment:
        """The moment that ``at`` means, of those that the node can give."""
        recent = [*commits_of(self._recent), self._state.floor_commit]

        def newest(history: Any, upto: int, upto_us: int) -> Any:
            return newest_commit(self.layers, recent, history, upto, upto_us)

        found = moment(at, self._manifest.eras, self._manifest.snapshots, newest, self._complete_upto())
        floor = max([self._state.floor, *(layer.footer.floor for layer in self.layers)])
        following = found.history.next_after(found.lsn) if found.lsn < floor else None
        if following is not None and following <= floor:
            expected = f"LSN {floor} or above: older versions may be gone"
            raise OutsideWindow(f"{at}: expected {expected}", what=str(at), expected=expected, got=str(found.lsn))
        return found

    def latest_lsn(self) -> int:
        """The newest commit that it can give; 0 where there is none."""
        try:
            return self.moment(None).lsn
        except (Damaged, OutsideWindow):
            return 0

    def _complete_upto(self) -> int:
        """The highest LSN up to which no record is missing, as far as the log can tell.

        LSNs are dense within an interval of the History. A crash may leave some of the newest records and not all: then
        what is below the first hole counts. Records that the log lacks because they are in a layer already are no hole.
        """
        history = self._manifest.history
        lsns = sorted({record.lsn for record in self._recent if history.contains(record.origin, record.lsn)})
        for before, lsn in pairwise(lsns):
            first = history.next_after(before)
            if first != lsn and not self._in_layers(range(first or 0, lsn)):
                return before
        return U64_MAX

    def _in_layers(self, lsns: range) -> bool:
        missing = {lsn for lsn in lsns if self._manifest.history.floor(lsn) == lsn}
        for layer in self.layers:
            for block in layer.meta.blocks if layer.footer.kind == DELTA else ():
                if block.first_lsn < lsns.stop and block.last_lsn >= lsns.start:
                    missing.difference_update(record.lsn for record in layer.records(block))
        return not missing

    def volume(self, found: Moment) -> Volume:
        """The volume at a moment."""
        return Volume(self._manifest.geometry, found.history, self.layers, self._blobs, self._recent)

    @property
    def recent(self) -> list[Record]:
        """Records of the hot log that are for this node."""
        return self._recent

    @property
    def recordings(self) -> list[tuple[int | str, Tables]]:
        """A node writes down nothing of what its rows should be."""
        return []
