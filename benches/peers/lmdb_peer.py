"""LMDB with its default of syncing at every commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lmdb

from benches.peers import PAYLOAD_BYTES, ROWS, own_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class LmdbPeer:
    """One environment; LMDB itself lets one writer in at a time."""

    name = "LMDB sync"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._env = lmdb.open(str(folder), map_size=1 << 30, sync=True, metasync=True)
        with self._env.begin(write=True) as txn:
            for i in range(ROWS):
                txn.put(i.to_bytes(8, "big"), bytes(PAYLOAD_BYTES))

    def committer(self, thread: int, threads: int) -> Callable[[int], None]:
        begin = self._env.begin

        def commit(n: int) -> None:
            key = own_row(thread, threads, n).to_bytes(8, "big")
            with begin(write=True) as txn:
                txn.put(key, n.to_bytes(PAYLOAD_BYTES, "big"))

        return commit

    def close(self) -> None:
        self._env.close()
