"""Big tables for the benchmarks, made as Arrow batches on the way into `db.load`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pyarrow as pa

import aurora_engine as au

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTE_BYTES = 1_000
BATCH_ROWS = 10_000
SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("note", pa.string(), nullable=False)])


class Note(au.Row, key="id"):
    """About a kilobyte of text that does not compress."""

    id: int
    note: str


def batches(rows: int, seed: int = 1) -> Iterator[pa.RecordBatch]:
    """Make the rows: cuts of one long random text, so that making them costs little."""
    rng = random.Random(seed)
    text = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=1 << 20))
    for first in range(0, rows, BATCH_ROWS):
        ids = range(first, min(first + BATCH_ROWS, rows))
        starts = (rng.randrange(len(text) - NOTE_BYTES) for _ in ids)
        yield pa.record_batch([pa.array(ids, pa.int64()), pa.array([text[s : s + NOTE_BYTES] for s in starts])], SCHEMA)


def fill(path: Path, data_bytes: int, **options: int) -> int:
    """Make a cluster with one loaded table of so many bytes, and return its number of rows."""
    rows = max(1, data_bytes // (NOTE_BYTES + 8))
    with au.open(path, **options) as db:
        db.load(db.create_table("notes", Note), pa.RecordBatchReader.from_batches(SCHEMA, batches(rows)))
    return rows
