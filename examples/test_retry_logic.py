"""A service that takes money, and the tests that prove its retry logic: ``pytest examples/test_retry_logic.py``.

Each test runs the same order through another accident, and then asks what a customer asks: was I charged, and once?
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator

import pytest

import aurora_engine as au
from aurora_engine import col, faults


class Account(au.Row, key="owner"):
    """What a customer has."""

    owner: str
    balance: int


class Order(au.Row, key="number"):
    """What a customer has bought."""

    number: str
    owner: str
    price: int


class Shop:
    """The service. Its retry logic is one argument: ``token``, the order's number."""

    def __init__(self, db: au.Cluster) -> None:
        self.db = db
        self.accounts = db.create_table("accounts", Account, exist_ok=True)
        self.orders = db.create_table("orders", Order, exist_ok=True)
        self.between: Callable[[], None] = lambda: None
        """What happens between the two statements of an order, for tests."""

    def order(self, number: str, owner: str, price: int) -> None:
        """Charge a customer and keep the order: both or neither, and once, however often this is called."""

        def charge(tx: au.Transaction) -> None:
            tx.update(self.accounts, owner, balance=col("balance") - price)
            self.between()
            tx.insert(self.orders, Order(number, owner, price))

        self.db.run(charge, token=f"order/{number}")

    def order_carelessly(self, number: str, owner: str, price: int) -> None:
        """The same without a token, by somebody who takes every error for a reason to try again."""
        while True:
            try:
                with self.db.transaction() as tx:
                    tx.update(self.accounts, owner, balance=col("balance") - price)
                    tx.upsert(self.orders, Order(number, owner, price))
            except (au.Retryable, au.OutcomeUnknown):
                continue
            return


@pytest.fixture(params=["memory", "disk"])
def shop(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Shop]:
    """A shop with one customer, on a cluster that finds a dead writer within 50 ms."""
    detection = dt.timedelta(milliseconds=50)
    where = {"memory": True} if request.param == "memory" else {"path": tmp_path}
    with au.open(**where, detection=detection, replicas=1) as db:  # type: ignore[arg-type]
        shop = Shop(db)
        with db.transaction() as tx:
            tx.insert(shop.accounts, Account("Ann", 100))
        yield shop


def is_charged_once(shop: Shop) -> bool:
    """Whether order 1 is there, and its price of 30 was taken once."""
    order, account = shop.db.get(shop.orders, "1"), shop.db.get(shop.accounts, "Ann")
    return order == Order("1", "Ann", 30) and account == Account("Ann", 70)


def test_the_writer_dies_between_two_statements(shop: Shop) -> None:
    """The transaction is refused as a Retryable, and ``run`` does it again at the next writer."""
    crashed = threading.Event()

    def crash_once() -> None:
        if not crashed.is_set():
            crashed.set()
            shop.db.faults.crash_writer()

    shop.between = crash_once
    shop.order("1", "Ann", 30)
    assert is_charged_once(shop)
    assert "failover" in [event.what for event in shop.db.events()]


@pytest.mark.parametrize("outcome", ["lost", "kept"])
def test_the_writer_dies_during_the_commit(shop: Shop, outcome: str) -> None:
    """The caller cannot know whether it was charged. The token knows."""
    shop.db.faults.crash_writer(during_commit="lost" if outcome == "lost" else "kept")
    shop.order("1", "Ann", 30)
    assert is_charged_once(shop)
    shop.order("1", "Ann", 30)  # The customer presses the button again.
    assert is_charged_once(shop)


def test_without_a_token_a_customer_is_charged_twice(shop: Shop) -> None:
    """What the tests above would find in a service that is careless."""
    shop.db.faults.crash_writer(during_commit="kept")
    shop.order_carelessly("1", "Ann", 30)
    assert shop.db.get(shop.accounts, "Ann") == Account("Ann", 40)


def test_an_availability_zone_and_slow_disks_are_not_noticed(shop: Shop) -> None:
    """Four of six copies are enough; a commit waits for the fourth."""
    with shop.db.faults.az_down("az1"), shop.db.faults.disk_congestion(1, 5, node="az2-a"):
        shop.order("1", "Ann", 30)
    assert is_charged_once(shop)


def test_a_quorum_that_is_lost_is_said_and_nothing_is_charged(shop: Shop) -> None:
    """A zone and one node more: reads go on, orders do not, until one of them is back."""
    with shop.db.faults.az_down("az1"), shop.db.faults.node_down("az2-a"):
        with pytest.raises(au.EnvironmentFault, match="3 of 6 copies left"):
            shop.order("1", "Ann", 30)
        assert shop.db.get(shop.accounts, "Ann") == Account("Ann", 100)
    shop.order("1", "Ann", 30)
    assert is_charged_once(shop)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_orders_through_many_accidents(shop: Shop, seed: int) -> None:
    """Customers in threads, accidents from a seed; at the end the books balance."""
    with shop.db.transaction() as tx:
        tx.update(shop.accounts, "Ann", balance=1_000)
    accidents = [
        faults.CrashWriter(),
        faults.CrashWriter(during_commit="lost"),
        faults.CrashWriter(during_commit="kept"),
        faults.NodeDown(),
        faults.Partition("az2"),
        faults.DiskFailure(percent=20),
    ]

    def customer(number: int) -> None:
        for order in range(10):
            shop.order(f"{number}/{order}", "Ann", 1)

    with shop.db.faults.schedule(accidents, seed=seed, gap=(0.01, 0.05), lasting=(0.01, 0.1)) as schedule:
        threads = [threading.Thread(target=customer, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with shop.db.view() as view:
        orders = list(view.range(shop.orders))
        assert view.get(shop.accounts, "Ann") == Account("Ann", 1_000 - len(orders))
    assert len(orders) == 40, f"after {schedule.done}"
