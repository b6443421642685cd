"""Everything at once through the public API, against a model in plain Python (`machine_model.py`).

Up to two transactions at a time, of any level, and single calls beside them: each call either does what the model does,
or raises what the model expects. An error that two transactions may get of each other is expected where the model says
that it must come, allowed where they meet at all, and a mistake everywhere else.
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import machine_model as model
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machine_model import Changes, Column, Place, Row, State, Table
from machine_tables import EXTRA_INDEXES, PARENTS, TABLES

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex

SMALL = st.integers(0, 4)
NAMES = st.none() | st.sampled_from(["", "a", "a\0", "é"])
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: SMALL | st.integers(-2, -1),
    au.Int16: st.integers(-3, 3),
    au.Int32: st.sampled_from([-(2**31), 0, 1, 2**31 - 1]),
    str: st.sampled_from(["", "a", "b", "a\0", "é"]),
    dt.date: st.dates(dt.date(1969, 12, 30), dt.date(1970, 1, 2)),
}
WIDER = {au.Int16: au.Int32, au.Int32: int}
LEVELS = st.sampled_from(["snapshot", "snapshot", "read committed", "serializable"])


@dataclass
class Open:
    """A transaction, and what the model knows of it."""

    tx: au.Transaction
    level: str
    base: State
    since: int
    changes: Changes = field(default_factory=dict)
    locks: set[Place] = field(default_factory=set)
    maybe_locked: set[Place] = field(default_factory=set)
    touched: set[Any] = field(default_factory=set)
    savepoints: list[tuple[str, Changes]] = field(default_factory=list)


@dataclass
class Done:
    """What a commit changed for certain, and what it may have changed or met."""

    changed: set[Place]
    touched: set[Any]


class Machine(RuleBasedStateMachine):
    """One cluster, and the model of it."""

    on_disk = False

    @initialize(
        accounts=st.sampled_from(["restrict", "cascade", "set null"]), entries=st.sampled_from(["restrict", "cascade"])
    )
    def open_cluster(self, accounts: str, entries: str) -> None:
        self.folder = tempfile.mkdtemp() if self.on_disk else None
        self.db = self.opened()
        self.on_delete = {"accounts": accounts, "entries": entries}
        self.tables: dict[str, Table] = {}
        self.state: State = {}
        self.handles: dict[str, au.Table[Any]] = {}
        self.commits: list[Done] = []
        self.open: list[Open] = []
        self.moments: list[tuple[int, dict[str, Table], State]] = []
        self.numbered: set[int] = set()
        self.next_column = 100
        for name in TABLES:
            self.create(name)
        self.state["owners"] = {(n,): {0: n, 1: None} for n in (1, 2)}
        self.state["accounts"] = {(n,): {0: n, 1: n, 2: None, 3: n} for n in (1, 2)}
        self.state["entries"] = {(n, n): {0: n, 1: n, 2: dt.date(1970, 1, n)} for n in (1, 2)}
        for name, table in self.tables.items():
            self.db.load(self.handles[name], [table.shown(row) for row in self.state[name].values()])

    def opened(self) -> au.Cluster:
        return au.open(memory=True) if self.folder is None else au.open(f"{self.folder}/db")

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            if self.folder is not None:
                shutil.rmtree(self.folder)

    # What the rules are made of.

    def create(self, name: str) -> None:
        row, definition = TABLES[name]
        table = definition()
        rules = []
        if name in PARENTS:
            column, parent = PARENTS[name]
            table.parent = (column, parent, self.on_delete[name])
            rules.append(au.foreign_key(table.columns[column].name, parent=parent, on_delete=self.on_delete[name]))
        self.db.create_table(name, row, constraints=rules)
        self.tables[name], self.state[name] = table, {}
        self.handles[name] = self.db.table(name, rows="dict")

    def seen(self, of: Open) -> State:
        return model.overlaid(self.state if of.level == "read committed" else of.base, of.changes)

    def draw_row(self, data: st.DataObject, name: str) -> Row:
        table = self.tables[name]
        row: Row = {}
        for number, column in table.columns.items():
            if table.parent is not None and number == table.parent[0]:
                there = sorted(key[0] for key in self.state[table.parent[1]])
                values = st.sampled_from([*there, 4]) if there else st.just(4)
            elif name == "owners" and number == 0:
                values = st.sampled_from([*sorted(key[0] for key in self.state["owners"]), 1, 2, 3])
            elif (number, False) in table.key:
                values = SMALL
            else:
                values = VALUES[column.kind]
            row[number] = data.draw(st.none() | values if column.nullable else values)
        return row

    def draw_key(self, data: st.DataObject, name: str) -> model.Key:
        row = self.draw_row(data, name)
        there = sorted(self.state[name])
        return data.draw(st.sampled_from([*there, self.tables[name].key_of(row)]))

    def key(self, key: model.Key) -> Any:
        return key if len(key) > 1 else key[0]

    def begin(self, level: str) -> Open:
        tx = self.db.transaction(isolation=level, lock_timeout=0).__enter__()  # type: ignore[arg-type]
        tx.get(self.handles["owners"], -1)  # Its snapshot is taken now.
        return Open(tx, level, model.copy(self.state), len(self.commits))

    def within(self, which: int | None, write: Callable[[Open], None]) -> None:
        """In one of the open transactions, or in one that commits at once."""
        if which is not None and which < len(self.open):
            write(self.open[which])
            return
        alone = self.begin("snapshot")
        write(alone)
        self.end(alone, commit=True)

    def attempt(
        self,
        of: Open,
        places: set[Place],
        changes: Changes,
        errors: set[Any],
        call: Callable[[], Any],
        want: Any = None,
        may: frozenset[Any] = frozenset(),
    ) -> Any:
        """A call that writes, with all that it may meet."""
        before = self.seen(of)
        # At "read committed" it may see what others have committed beside what will not agree with it in the end.
        already = model.broken(self.tables, before)
        after = model.broken(self.tables, model.overlaid(before, changes))
        must, may = errors | (after - already), may | already
        all_places = places | set(changes)
        meets = model.touched(self.tables, before, changes)
        for other in self.open:
            if other is of:
                continue
            if all_places & other.locks:
                must.add(ex.LockTimeout)
            elif all_places & other.maybe_locked or meets & other.touched:
                may |= {ex.LockTimeout}
        if of.level != "read committed":
            for done in self.commits[of.since :]:
                if places & done.changed:
                    must.add(ex.WriteConflict)
                elif meets & done.touched or {("row", *place) for place in all_places} & done.touched:
                    may |= {ex.WriteConflict}
        of.touched |= meets
        try:
            got = call()
        except tuple(must | may):
            of.maybe_locked |= all_places
            return None
        assert not must, f"{must} expected"
        of.locks |= all_places
        of.changes |= changes
        assert want is None or got == want
        return got

    def end(self, of: Open, *, commit: bool) -> None:
        if of in self.open:
            self.open.remove(of)
        if not commit:
            of.tx.rollback()
            return
        after = model.overlaid(self.state, of.changes)
        changed = {place for place, row in of.changes.items() if self.state[place[0]].get(place[1]) != row}
        since = self.commits[of.since :]
        must = bool(model.broken(self.tables, after))
        may = must or any(of.touched & done.touched for done in since)
        if of.level == "serializable" and of.changes:
            may = may or bool(since)
            # Every invariant has read all of it.
            must = must or (of.level == "serializable" and bool(changed) and any(done.changed for done in since))
        # At "read committed" a value that another has taken meanwhile is no conflict, but a duplicate.
        taken = (ex.DuplicateKey,) if of.level == "read committed" else ()
        try:
            of.tx.commit()
        except (ex.WriteConflict, ex.SerializationFailure, *taken):
            assert may
            return
        assert not must
        self.state = after
        maybe = {("row", *place) for place in of.locks | of.maybe_locked}
        self.commits.append(Done(changed, of.touched | maybe))

    # Transactions.

    @precondition(lambda self: not self.open)
    @rule(first=LEVELS, second=LEVELS)
    def begin_two(self, first: str, second: str) -> None:
        self.open = [self.begin(first), self.begin(second)]

    @precondition(lambda self: len(self.open) < 2)
    @rule(level=LEVELS)
    def begin_one(self, level: str) -> None:
        self.open.append(self.begin(level))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 1), commit=st.sampled_from([True, True, False]))
    def end_one(self, which: int, commit: bool) -> None:
        self.end(self.open[which % len(self.open)], commit=commit)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 1), name=st.sampled_from("ab"))
    def savepoint(self, which: int, name: str) -> None:
        of = self.open[which % len(self.open)]
        of.tx.savepoint(name)
        of.savepoints.append((name, dict(of.changes)))

    @precondition(lambda self: any(of.savepoints for of in self.open))
    @rule(which=st.integers(0, 1), name=st.sampled_from("ab"), back=st.sampled_from([True, True, False]))
    def leave_savepoint(self, which: int, name: str, back: bool) -> None:
        of = self.open[which % len(self.open)]
        places = [place for place, (there, _) in enumerate(of.savepoints) if there == name]
        call = of.tx.rollback_to if back else of.tx.release
        if not places:
            with pytest.raises(ex.UnknownSavepoint):
                call(name)
            return
        call(name)
        if back:
            of.changes = dict(of.savepoints[places[-1]][1])
        del of.savepoints[places[-1] + back :]

    # Rows.

    WHICH = st.sampled_from([0, 0, 1, None])
    TABLE = st.sampled_from(["owners", "accounts", "accounts", "entries", "logs"])

    @rule(data=st.data(), which=WHICH, name=TABLE, replace=st.booleans(), count=st.integers(1, 3))
    def write(self, data: st.DataObject, which: int | None, name: str, replace: bool, count: int) -> None:
        rows = [self.draw_row(data, name) for _ in range(count)]
        table, handle = self.tables[name], self.handles[name]
        given = [table.shown(row) for row in rows]

        def run(of: Open) -> None:
            changes, errors = model.put(name, table, self.seen(of), rows, replace=replace)
            tx, want = of.tx, count
            many, one = (tx.upsert_many, tx.upsert) if replace else (tx.insert_many, tx.insert)

            def call() -> Any:
                return one(handle, given[0]) if count == 1 else many(handle, given)

            if count == 1:
                want = None if replace else given[0]
            may = frozenset(model.on_the_way(table, self.seen(of)[name], rows))
            self.attempt(of, set(changes), changes, errors, call, want, may)

        self.within(which, run)

    @precondition(lambda self: len(self.open) == 2)
    @rule(data=st.data(), how=st.sampled_from(["unique", "unique", "family", "family", "row"]), turn=st.booleans())
    def meet(self, data: st.DataObject, how: str, turn: bool) -> None:
        """Two transactions that are each right by themselves, and then both want to commit."""
        one, two = reversed(self.open) if turn else self.open
        owner, account = data.draw(st.sampled_from([1, 2])), data.draw(SMALL)
        if how == "family":
            self.put_row(one, "accounts", {**self.plain_row("accounts"), 0: account, 1: owner, 2: None, 3: 1})
            self.delete_row(two, "owners", (owner,))
        else:
            name = data.draw(st.sampled_from(["a", "z"]))
            self.put_row(one, "owners", {0: owner, 1: name})
            self.put_row(two, "owners", {0: owner if how == "row" else 5, 1: name})
        for of in data.draw(st.permutations([one, two])):
            self.end(of, commit=True)

    def plain_row(self, name: str) -> Row:
        zero = {int: 0, au.Int16: 0, au.Int32: 0, str: ""}
        return {number: zero[column.kind] for number, column in self.tables[name].columns.items()}

    def put_row(self, of: Open, name: str, row: Row) -> None:
        changes, errors = model.put(name, self.tables[name], self.seen(of), [row], replace=True)
        given = self.tables[name].shown(row)
        self.attempt(of, set(changes), changes, errors, lambda: of.tx.upsert(self.handles[name], given))

    def delete_row(self, of: Open, name: str, key: model.Key) -> None:
        changes, errors = model.remove(self.tables, self.seen(of), name, key)
        call: Callable[[], Any] = lambda: of.tx.delete(self.handles[name], self.key(key))  # noqa: E731
        self.attempt(of, {(name, key)}, changes, errors, call, bool(changes))

    @rule(which=WHICH, name=NAMES)
    def insert_numbered(self, which: int | None, name: str | None) -> None:
        def run(of: Open) -> None:
            taken = {row[1] for row in self.seen(of)["owners"].values()} - {None}
            errors = {ex.DuplicateKey} if name in taken else set()
            met = {("unique", "owners", "by_name", (name,))}
            may: list[type[Exception]] = []
            if any(met & other.touched for other in self.open if other is not of):
                may.append(ex.LockTimeout)
            if any(met & done.touched for done in self.commits[of.since :]):
                may.append(ex.WriteConflict)
            of.touched |= met
            try:
                got = of.tx.insert(self.handles["owners"], {"name": name})
            except (*may, *errors):
                return
            assert not errors
            new = got["id"]
            assert got == {"id": new, "name": name}
            assert new not in self.numbered
            assert all(new > key[0] for state in (self.state, self.seen(of)) for key in state["owners"])
            self.numbered.add(new)
            place = ("owners", (new,))
            of.changes[place] = {0: new, 1: name}
            of.locks.add(place)
            of.touched.add(("row", *place))

        self.within(which, run)

    @rule(data=st.data(), which=WHICH, name=TABLE)
    def delete(self, data: st.DataObject, which: int | None, name: str) -> None:
        key = self.draw_key(data, name)
        self.within(which, lambda of: self.delete_row(of, name, key))

    @rule(data=st.data(), which=WHICH, name=TABLE)
    def update(self, data: st.DataObject, which: int | None, name: str) -> None:
        table = self.tables[name]
        key, row = self.draw_key(data, name), self.draw_row(data, name)
        free = [number for number in table.columns if number not in {n for n, _ in table.key}]
        column = data.draw(st.sampled_from(free))
        is_sum = table.columns[column].kind in (int, au.Int16) and column != 1
        given = {table.columns[column].name: col(table.columns[column].name) + 1 if is_sum else row[column]}

        def run(of: Open) -> None:
            old = self.seen(of)[name].get(key)
            changes: Changes = {}
            if old is not None:
                value = row[column]
                if is_sum:
                    value = None if old[column] is None else old[column] + 1
                changes[name, key] = {**old, column: value}
            call: Callable[[], Any] = lambda: of.tx.update(self.handles[name], self.key(key), **given)  # noqa: E731
            self.attempt(of, {(name, key)}, changes, set() if changes else {ex.RowNotFound}, call)

        self.within(which, run)

    @rule(data=st.data(), which=WHICH, name=TABLE)
    def lock(self, data: st.DataObject, which: int | None, name: str) -> None:
        key = self.draw_key(data, name)

        def run(of: Open) -> None:
            call: Callable[[], Any] = lambda: of.tx.get(  # noqa: E731
                self.handles[name], self.key(key), for_update=True
            )
            row = self.seen(of)[name].get(key)
            self.attempt(of, {(name, key)}, {}, set(), call, row and self.tables[name].shown(row))

        self.within(which, run)

    @precondition(lambda self: not self.open)
    @rule(data=st.data(), name=TABLE, on_conflict=st.sampled_from(["error", "replace", "skip"]), n=st.integers(1, 5))
    def load(self, data: st.DataObject, name: str, on_conflict: Any, n: int) -> None:
        table = self.tables[name]
        rows = [self.draw_row(data, name) for _ in range(n)]
        given = [table.shown(row) for row in rows]
        if on_conflict == "skip":
            first: dict[Any, Row] = {}
            for row in rows:
                if table.key_of(row) not in self.state[name]:
                    first.setdefault(table.key_of(row), row)
            rows = list(first.values())
        changes, errors = model.put(name, table, self.state, rows, replace=on_conflict == "replace")
        after = model.overlaid(self.state, changes)
        errors |= model.broken(self.tables, after)
        may = model.on_the_way(table, self.state[name], rows)
        try:
            loaded = self.db.load(self.handles[name], given, on_conflict=on_conflict)
        except (*errors, *may):
            return
        assert not errors
        assert loaded == len(changes) if on_conflict != "replace" else len(rows)
        self.state = after

    # Definitions.

    def defined(self, name: str, before: Table) -> None:
        """After a change of a table's definition: what becomes of the transactions that are open."""
        for of in list(self.open):
            self.open.remove(of)
            if any(place[0] == name for place in of.changes):
                with pytest.raises(ex.SchemaChanged):
                    of.tx.commit()
            elif not any(place[0] == name for place in of.locks | of.maybe_locked) and of.level != "read committed":
                rows = self.seen(of)[name]
                assert list(of.tx.range(self.handles[name])) == before.order(rows.values())
                with pytest.raises(ex.SchemaChanged):
                    of.tx.delete(self.handles[name], self.key(next(iter(rows), (0,) * len(before.key))))
            of.tx.rollback()
        self.handles[name] = self.db.table(self.tables[name].name, rows="dict")

    @rule(data=st.data(), name=st.sampled_from(["accounts", "logs"]))
    def alter(self, data: st.DataObject, name: str) -> None:
        ways = (self.add_column, self.drop_column, self.rename_column, self.widen_column, self.truncate)
        data.draw(st.sampled_from(ways))(data, name)

    def add_column(self, data: st.DataObject, name: str) -> None:
        table, before = self.tables[name], deepcopy(self.tables[name])
        if len(table.columns) > 6:
            return
        kind, nullable = data.draw(st.sampled_from([au.Int16, str])), data.draw(st.booleans())
        default = data.draw(st.none() | VALUES[kind] if nullable else VALUES[kind])
        number, self.next_column = self.next_column, self.next_column + 1
        self.db.add_column(self.handles[name], f"c{number}", kind | None if nullable else kind, default=default)
        self.defined(name, before)
        table.columns[number] = Column(f"c{number}", kind, nullable)
        self.state[name] = {key: {**row, number: default} for key, row in self.state[name].items()}

    def drop_column(self, data: st.DataObject, name: str) -> None:
        table, before = self.tables[name], deepcopy(self.tables[name])
        number = data.draw(st.sampled_from(sorted(table.columns)))
        if number in table.fixed():
            with pytest.raises(ex.SchemaError):
                self.db.drop_column(self.handles[name], table.columns[number].name)
            return
        if name == "logs" and number < 100:
            return  # The extra indexes are made of it.
        self.db.drop_column(self.handles[name], table.columns[number].name)
        self.defined(name, before)
        del table.columns[number]
        self.state[name] = {key: {n: v for n, v in row.items() if n != number} for key, row in self.state[name].items()}

    def rename_column(self, data: st.DataObject, name: str) -> None:
        table, before = self.tables[name], deepcopy(self.tables[name])
        number = data.draw(st.sampled_from(sorted(table.columns)))
        new = f"c{self.next_column}"
        self.next_column += 1
        self.db.rename_column(self.handles[name], table.columns[number].name, new)
        self.defined(name, before)
        table.columns[number].name = new

    def widen_column(self, data: st.DataObject, name: str) -> None:
        table, before = self.tables[name], deepcopy(self.tables[name])
        narrow = [number for number, column in table.columns.items() if column.kind in WIDER]
        if not narrow:
            return
        number = data.draw(st.sampled_from(narrow))
        column = table.columns[number]
        if number in table.fixed():
            with pytest.raises(ex.SchemaError):
                self.db.alter_column(self.handles[name], column.name, WIDER[column.kind])
            return
        self.db.alter_column(self.handles[name], column.name, WIDER[column.kind])
        self.defined(name, before)
        column.kind = WIDER[column.kind]

    def truncate(self, data: st.DataObject, name: str) -> None:
        if name == "accounts":
            with pytest.raises(ex.TableReferenced):
                self.db.truncate(self.handles[name])
            return
        before = deepcopy(self.tables[name])
        self.db.truncate(self.handles[name])
        self.defined(name, before)
        self.state[name] = {}

    @precondition(lambda self: not self.open)
    @rule(name=st.sampled_from(["accounts", "entries", "logs", "logs", None]))
    def replace_table(self, name: str | None) -> None:
        if name is None:
            self.rename_table()
            return
        if name == "accounts":
            with pytest.raises(ex.TableReferenced):
                self.db.drop_table("accounts")
            return
        self.db.drop_table(self.tables[name].name)
        with pytest.raises(ex.UnknownTable), self.db.transaction() as tx:
            tx.delete(self.handles[name], self.key((0,) * len(self.tables[name].key)))
        self.create(name)

    def rename_table(self) -> None:
        self.next_column += 1
        self.tables["logs"].name = f"logs{self.next_column}"
        self.db.rename_table(self.handles["logs"], self.tables["logs"].name)
        with pytest.raises(ex.TableReferenced):
            self.db.rename_table(self.handles["owners"], "people")

    @precondition(lambda self: not self.open)
    @rule(name=st.sampled_from(sorted(EXTRA_INDEXES)))
    def create_or_drop_index(self, name: str) -> None:
        on, columns, unique = EXTRA_INDEXES[name]
        table = self.tables[on]
        if name in table.indexes:
            self.db.drop_index(self.handles[on], name)
            del table.indexes[name]
            table.unique.pop(name, None)
            return
        if unique:
            table.unique[name] = tuple(number for number, _ in columns)
        parts = [au.desc(table.columns[n].name) if down else table.columns[n].name for n, down in columns]
        if model.broken(self.tables, self.state):
            del table.unique[name]
            with pytest.raises(ex.DuplicateKey):
                self.db.create_index(self.handles[on], name, *parts, unique=unique)
            return
        self.db.create_index(self.handles[on], name, *parts, unique=unique)
        table.indexes[name] = columns

    # Time.

    @precondition(lambda self: not self.open and len(self.moments) < 3)
    @rule()
    def remember(self) -> None:
        self.moments.append((self.db.vdl, deepcopy(self.tables), model.copy(self.state)))

    @precondition(lambda self: self.moments)
    @rule(which=st.integers(0, 2))
    def look_back(self, which: int) -> None:
        lsn, tables, state = self.moments[which % len(self.moments)]
        with self.db.view(at=lsn) as view:
            for name, table in tables.items():
                rows = [au.asdict(row) for row in view.range(view.table(table.name))]
                assert rows == table.order(state[name].values())

    @precondition(lambda self: self.moments and not self.open)
    @rule(which=st.integers(0, 2))
    def put_back(self, which: int) -> None:
        lsn, tables, state = self.moments[which % len(self.moments)]
        self.db.backtrack(to=lsn)
        self.moments = [moment for moment in self.moments if moment[0] <= lsn]
        self.tables, self.state = deepcopy(tables), model.copy(state)
        self.numbered.clear()
        self.handles = self.opened_tables()

    @precondition(lambda self: self.on_disk)
    @rule()
    def reopen(self) -> None:
        self.db.close()
        for of in self.open:
            with pytest.raises(ex.AuroraError):
                of.tx.get(self.handles["owners"], 1)
        self.open.clear()
        self.db = self.opened()
        self.handles = self.opened_tables()

    def opened_tables(self) -> dict[str, au.Table[Any]]:
        return {name: self.db.table(table.name, rows="dict") for name, table in self.tables.items()}

    # What always holds.

    @invariant()
    def everything_agrees(self) -> None:
        with self.db.view() as view:
            self.agrees(view, self.state)
        for of in self.open:
            self.agrees(of.tx, self.seen(of))

    def agrees(self, reader: Any, state: State) -> None:
        for name, table in self.tables.items():
            handle, rows = self.handles[name], list(state[name].values())
            assert list(reader.range(handle)) == table.order(rows)
            assert {index.name for index in handle.indexes} == set(table.indexes)
            for index, by in table.indexes.items():
                ordered = table.order(rows, by)
                assert list(reader.range(handle.index(index))) == ordered
                assert list(reader.range(handle.index(index), reverse=True, limit=2)) == ordered[::-1][:2]
                if rows:
                    first = rows[0][by[0][0]]
                    expected = [row for row in ordered if row[table.columns[by[0][0]].name] == first]
                    assert list(reader.range(handle.index(index), prefix=(first,))) == expected
            for index, columns in table.unique.items():
                for row in rows:
                    values = tuple(row[column] for column in columns)
                    same = [table.shown(r) for r in rows if tuple(r[column] for column in columns) == values]
                    if None not in values:
                        assert reader.get(handle.index(index), self.key(values)) in same
        balance = self.tables["accounts"].columns[3].name
        balances = [row[3] for row in state["accounts"].values() if row[3] > 1]
        query = reader.scan(self.handles["accounts"]).filter(col(balance) > 1)
        found = query.agg(total=col(balance).sum(), n=au.count()).to_dicts()
        assert found == [{"total": sum(balances) if balances else None, "n": len(balances)}]


class OnDisk(Machine):
    """The same in a directory, which is closed and opened again."""

    on_disk = True


EXAMPLES = settings.default.max_examples if settings.default is not None else 50
TestInMemory = Machine.TestCase
TestInMemory.settings = settings(max_examples=EXAMPLES // 2, stateful_step_count=40, deadline=None)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(max_examples=EXAMPLES // 16, stateful_step_count=40, deadline=None)
