"""The pytest plugin: a database for every test, filled once a session.

.. code-block:: python

    # conftest.py
    @pytest.fixture(scope="session")
    def aurora_fill():
        def fill(db):
            accounts = db.create_table("accounts", Account)
            with db.transaction() as tx:
                tx.insert(accounts, Account(1, "Ann"))

        return fill


    # test_accounts.py
    def test_it(aurora_db):
        accounts = aurora_db.table("accounts", Account)

The template is made once a session, or once a worker of pytest-xdist; each test gets a clone of it, in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import aurora_engine as au


@pytest.fixture(scope="session")
def aurora_fill() -> Callable[[au.Cluster], object]:
    """What fills the template; replace it in ``conftest.py``. By default the template stays empty."""
    return lambda _db: None


@pytest.fixture(scope="session")
def aurora_template(aurora_fill: Callable[[au.Cluster], object]) -> Iterator[au.Cluster]:
    """The cluster that every test's is a clone of. Not to be changed by tests."""
    with au.open(memory=True, cache_bytes=16 << 20) as db:
        aurora_fill(db)
        yield db


@pytest.fixture
def aurora_db(aurora_template: au.Cluster) -> Iterator[au.Cluster]:
    """A cluster in memory for one test, which begins as the template."""
    with aurora_template.clone(memory=True, cache_bytes=16 << 20) as db:
        yield db
