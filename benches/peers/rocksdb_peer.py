"""RocksDB through rocksdict, every write synced.

rocksdict holds the GIL while RocksDB syncs, so that RocksDB's own group commit never sees two Python threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rocksdict import Options, Rdict, WriteOptions

from benches.peers import PAYLOAD_BYTES, ROWS, own_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class RocksdbPeer:
    """Raw bytes, no column families, the library's defaults otherwise."""

    name = "RocksDB sync"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(folder), options=Options(raw_mode=True))
        self._synced = WriteOptions()
        self._synced.sync = True
        for i in range(ROWS):
            self._db.put(i.to_bytes(8, "big"), bytes(PAYLOAD_BYTES))

    def committer(self, thread: int, threads: int) -> Callable[[int], None]:
        put, synced = self._db.put, self._synced

        def commit(n: int) -> None:
            key = own_row(thread, threads, n).to_bytes(8, "big")
            put(key, n.to_bytes(PAYLOAD_BYTES, "big"), write_opt=synced)

        return commit

    def close(self) -> None:
        self._db.close()
