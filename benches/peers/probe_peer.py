"""The bare probe: the bytes of six copies, one write and one sync for a group, no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_bench_probe import Probe

from benches.peers import PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class ProbePeer:
    """A group commit in Rust, driven by the same Python threads as the engines."""

    name = "bare group commit"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._probe = Probe(folder / "probe.log")

    def committer(self, thread: int, threads: int) -> Callable[[int], None]:
        commit_bytes = self._probe.commit

        def commit(n: int) -> None:
            commit_bytes(n.to_bytes(PAYLOAD_BYTES, "big"))

        return commit

    def close(self) -> None:
        pass
