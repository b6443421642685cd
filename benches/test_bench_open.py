"""Opening clusters: new ones, on disk and in memory, and one that is there."""

from __future__ import annotations

import itertools

import aurora_engine as au


def test_a_new_cluster_on_disk(benchmark, tmp_path):
    numbers = itertools.count()
    benchmark.pedantic(lambda: au.open(tmp_path / str(next(numbers))).close(), rounds=10, warmup_rounds=1)


def test_a_new_cluster_in_memory(benchmark):
    benchmark.pedantic(lambda: au.open(memory=True).close(), rounds=20, warmup_rounds=1)


def test_a_cluster_that_was_closed(benchmark, ours, tmp_path):
    ours.close()
    benchmark.pedantic(lambda: au.open(tmp_path / "cluster").close(), rounds=10, warmup_rounds=1)
