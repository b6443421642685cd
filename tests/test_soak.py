"""A short run of `tests/soak.py`: it is clean, it kills, and it would say so if a check did not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

import aurora_engine as au
from tests import soak


@pytest.mark.slow
@pytest.mark.crash
def test_half_a_minute_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--minutes", "0.5", "--seed", "11", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "clean: " in out
    assert "with seed 11" in out


@pytest.mark.crash
def test_a_check_that_does_not_hold_is_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = soak.Soak(tmp_path, seed=3, minutes=0.01, quiet=True)
    assert run.run()
    assert run.acknowledged
    with au.open(tmp_path / "cluster") as db:
        accounts = db.table("accounts", soak.Account)
        with db.transaction() as tx:
            tx.update(accounts, 0, balance=0)
    assert not run.run()
    out = capsys.readouterr().out
    assert "problem: child" in out
    assert "bank: 30 accounts with" in out
    # And a step that was acknowledged and is gone.
    with au.open(tmp_path / "cluster") as db:
        db.drop_table("accounts")
        with db.transaction() as tx:
            tx.delete(db.table("registers", soak.Register), 0)
            for number in range(soak.RING):
                tx.delete(db.table("ring", soak.Link), number)
    again = soak.Soak(tmp_path, seed=3, minutes=0.01, quiet=True, acknowledged=dict(run.acknowledged))
    assert not again.run()
    assert "register 0: " in capsys.readouterr().out
