"""A cluster's directory, when nobody has it open: the manifest, the hot logs, and the six nodes.

::

    <cluster>/owner.lock                  who has it open: an OS lock
    <cluster>/manifest-<version>          one of seven places
    <cluster>/log/                        the hot log of all nodes on this device
    <cluster>/az1/node1/ … az3/node6/     a storage node each
    <node>/log/                           the hot log of a node on a device of its own
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aurora_engine.exceptions import AlreadyOpen, Damaged, NotACluster
from aurora_engine.verifier.checked import Checks, Told
from aurora_engine.verifier.damage import Problem, within
from aurora_engine.verifier.hotlog import HotLog, name_below, read_log
from aurora_engine.verifier.manifest import PREFIX, Manifest, Node
from aurora_engine.verifier.node import NodeDirectory

_LOCK: Final = "owner.lock"
_PLACES: Final = 7


class Directory:
    """A cluster, or one node of it. Every file is checked as it is opened.

    Args:
        path: The directory of a cluster, or of a node.
        checks: Where the results go.
        told: Told of progress.
    """

    def __init__(self, path: Path, checks: Checks, told: Told) -> None:
        self._checks = checks
        found = _manifests(path)
        if not found:
            raise _not_one(path)
        is_node = (path / "identity").is_file()
        self.manifest = max(found, key=lambda manifest: manifest.version)
        self.home, wanted = (_home_of(path, self.manifest) if is_node else path), self.manifest.nodes
        if is_node:
            wanted = [node for node in wanted if (self.home / node.path).resolve() == path.resolve()]
        with _nobody_has_it_open(self.home):
            if not is_node:
                self._check_places()
            self._logs = self._read_logs({node.id for node in wanted})
            self.nodes = []
            for done, node in enumerate(wanted):
                told(done, len(wanted), f"node {node.path}")
                name = "" if is_node else node.path
                self.nodes.append(self._node(node, name))
            told(len(wanted), len(wanted), "nodes")

    def _node(self, node: Node, name: str) -> NodeDirectory:
        log = self._logs.get(node.id, HotLog())
        return NodeDirectory(self.home / node.path, name, node, manifest=self.manifest, log=log, checks=self._checks)

    def best(self) -> tuple[NodeDirectory, list[str]]:
        """The first node without damage of those that have the newest commits; and which nodes have not."""
        ends = {node.name: node.latest_lsn() for node in self.nodes}
        newest = max(ends.values())
        behind = [f"node {name} ends at LSN {lsn:,}: it is behind" for name, lsn in ends.items() if lsn < newest]
        best = max(self.nodes, key=lambda node: (node.sound, ends[node.name]))
        return best, behind

    def _check_places(self) -> None:
        """The manifest's files in the cluster's directory: those of the nodes are checked with the nodes."""
        holders = 0
        for place in [self.home, *(self.home / node.path for node in self.manifest.nodes)]:
            for path in sorted(place.glob(f"{PREFIX}*")):
                data, problems = path.read_bytes(), []
                try:
                    with within(name_below(self.home, path)):
                        holders += Manifest.decode(data).version == self.manifest.version
                except Damaged as error:
                    problems = [Problem.of(error)]
                if place == self.home:
                    self._checks.add(path.name, "manifest", len(data), problems)
        if holders <= _PLACES // 2:
            expected, got = f"manifest version {self.manifest.version} in four of {_PLACES} places", f"in {holders}"
            self._checks.problems.append(Problem("manifest", None, expected, got))

    def _read_logs(self, wanted: set[int]) -> dict[int, HotLog]:
        logs: dict[int, HotLog] = {}
        salt = self.manifest.cluster & (1 << 64) - 1
        for path, nodes in self.manifest.logs.items():
            if not wanted.isdisjoint(nodes):
                log = self._read_log(self.home / path, nodes, salt)
                logs |= dict.fromkeys(nodes, log)
        return logs

    def _read_log(self, path: Path, nodes: list[int], salt: int) -> HotLog:
        log, problems = HotLog(), []
        try:
            log = read_log(path, nodes, salt, self.home)
            problems = log.problems
        except Damaged as error:
            problems = [Problem.of(error)]
        by_file: dict[str, list[Problem]] = {}
        for problem in problems:
            by_file.setdefault(problem.object, []).append(problem)
        for file in sorted(path.glob("log-*")):
            name = name_below(self.home, file)
            self._checks.add(name, "log", file.stat().st_size, by_file.pop(name, []))
        self._checks.problems += [problem for rest in by_file.values() for problem in rest]
        return log


def _manifests(path: Path) -> list[Manifest]:
    """The manifests that can be read: in the directory itself, or two levels below it, where nodes lie by default."""
    found = []
    for file in [*path.glob(f"{PREFIX}*"), *path.glob(f"*/*/{PREFIX}*")]:
        try:
            found.append(Manifest.decode(file.read_bytes()))
        except Damaged:
            continue  # said again where this file is checked
    return found


def _home_of(path: Path, manifest: Manifest) -> Path:
    """The cluster's directory of a node's."""
    path = path.resolve()
    for node in manifest.nodes:
        parts = Path(node.path).parts
        if Path(node.path).is_absolute() and Path(node.path).resolve() == path:
            # On a disk of its own: its log is its own too.
            return path
        if not Path(node.path).is_absolute() and path.parts[-len(parts) :] == parts:
            return path.parents[len(parts) - 1]
    raise _not_one(path)


def _not_one(path: Path) -> NotACluster:
    expected = "the directory of a cluster, of a storage node, or of a backup"
    return NotACluster(f"{path}: expected {expected}, got none", path=str(path), expected=expected, got="none")


@contextmanager
def _nobody_has_it_open(home: Path) -> Iterator[None]:
    """Keeps writers out while files are read; many may read."""
    lock: Path = home / _LOCK
    if not lock.is_file():
        yield
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            text = lock.read_text(errors="replace").strip()
            pid = int(text) if text.isdigit() else None
            message = f"{home}: expected a cluster that nobody has open, got one that process {text or '?'} has"
            raise AlreadyOpen(message, path=str(home), pid=pid) from error
        yield
