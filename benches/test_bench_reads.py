"""Reads of typed rows, warm: by key, a hundred keys at once, a range."""

from __future__ import annotations

import itertools

import pytest

from benches.peers import ROWS

MANY = 100


@pytest.fixture
def view(ours):
    with ours.db.view() as opened:
        yield opened


def test_one_row_by_key(benchmark, ours, view):
    keys = itertools.cycle(range(0, ROWS, 7))
    assert benchmark(lambda: view.get(ours.accounts, next(keys)))


def test_a_hundred_rows_by_key(benchmark, ours, view):
    keys = list(range(0, ROWS, ROWS // MANY))
    assert len(benchmark(lambda: view.get_many(ours.accounts, keys))) == MANY


def test_all_rows_in_order(benchmark, ours, view):
    assert benchmark(lambda: sum(1 for _ in view.range(ours.accounts))) == ROWS
