"""The tables of `test_machine.py`, each as a row class and as the model's definition."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from machine_model import Column, Table

import aurora_engine as au
from aurora_engine import col


class Owner(au.Row, key="id", indexes=[au.index("by_name", "name", unique=True)]):
    id: int = au.auto()
    name: str | None = None


class Account(
    au.Row,
    key="id",
    indexes=[au.index("by_owner", "owner", au.desc("balance")), au.index("by_email", "email", unique=True)],
    constraints=[au.check("solvent", col("balance") >= 0)],
):
    id: int
    owner: int | None
    email: str | None
    balance: int


class Entry(au.Row, key=("account", au.desc("n"))):
    account: int
    n: int
    day: dt.date


class Log(au.Row, key="id"):
    id: int
    size: au.Int16 | None
    text: str


# Columns by numbers of their own, see `machine_model.py`.
TABLES: dict[str, tuple[type[au.Row], Callable[[], Table]]] = {
    "owners": (
        Owner,
        lambda: Table(
            "owners",
            {0: Column("id", int), 1: Column("name", str, nullable=True)},
            ((0, False),),
            unique={"by_name": (1,)},
            indexes={"by_name": ((1, False),)},
        ),
    ),
    "accounts": (
        Account,
        lambda: Table(
            "accounts",
            {
                0: Column("id", int),
                1: Column("owner", int, nullable=True),
                2: Column("email", str, nullable=True),
                3: Column("balance", int),
            },
            ((0, False),),
            unique={"by_email": (2,)},
            indexes={"by_owner": ((1, False), (3, True)), "by_email": ((2, False),), "owner_fk": ((1, False),)},
            positive=3,
        ),
    ),
    "entries": (
        Entry,
        lambda: Table(
            "entries",
            {0: Column("account", int), 1: Column("n", int), 2: Column("day", dt.date)},
            ((0, False), (1, True)),
            indexes={"account_fk": ((0, False),)},
        ),
    ),
    "logs": (
        Log,
        lambda: Table(
            "logs",
            {0: Column("id", int), 1: Column("size", au.Int16, nullable=True), 2: Column("text", str)},
            ((0, False),),
        ),
    ),
}
PARENTS = {"accounts": (1, "owners"), "entries": (0, "accounts")}
EXTRA_INDEXES: dict[str, tuple[str, tuple[tuple[int, bool], ...], bool]] = {
    "by_day": ("entries", ((2, True), (0, False)), False),
    "by_size": ("logs", ((1, True), (2, False)), False),
    "one_of_each": ("logs", ((2, False), (1, False)), True),
    "by_balance": ("accounts", ((3, True),), False),
}
