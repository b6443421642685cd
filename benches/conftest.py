"""Fixtures of the pytest-benchmark suites: fixed rounds, because what is timed waits for a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benches.ours import Ours

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Ours]:
    """A cluster on disk with a table of accounts."""
    cluster = Ours(tmp_path / "cluster")
    yield cluster
    cluster.close()
