"""The rows of a table, and what an index has of them."""

from __future__ import annotations

from collections.abc import Iterator

from aurora_engine.verifier.catalogue import Index, Table
from aurora_engine.verifier.damage import within
from aurora_engine.verifier.schema import sources
from aurora_engine.verifier.tree import long_value, walk
from aurora_engine.verifier.types import Cell, Overflow, widen
from aurora_engine.verifier.volume import Volume

Batch = list[list[Cell]]
"""Rows of one leaf: a list of cells for each column of the table."""


def batches(volume: Volume, table: Table | Index) -> Iterator[Batch]:
    """All rows in key order, as rows of the table's present schema, with long values in full."""
    for leaf in walk(volume, table.root, table.id):
        with within(f"table {table.name}"):
            stored = [(column.id, column.type, column.nullable) for column in leaf.layout.columns]
            found = sources(table.schema, stored)
        batch: Batch = []
        for source in found:
            if source.column is None:
                batch.append([source.initial] * len(leaf))
            elif source.have != source.want:
                batch.append([widen(cell, source.have, source.want) for cell in leaf.columns[source.column]])
            else:
                batch.append(leaf.columns[source.column])
        for column, kind in zip(batch, table.schema.columns, strict=True):
            if kind.type.width is None:
                _fetch(volume, table.id, column)
        yield batch


def _fetch(volume: Volume, owner: int, column: list[Cell]) -> None:
    for row, cell in enumerate(column):
        if isinstance(cell, Overflow):
            column[row] = long_value(volume, cell, owner)
