"""Endpoints: names behind which instances come and go, as in Aurora.

=================  ==========================================================================================
Endpoint           Who answers
=================  ==========================================================================================
the cluster itself the writer, whoever that is: ``db.transaction()``, ``db.run()``, ``db.get()``
``db.reader``      the replica with the fewest connections that keeps up; the writer where there is no replica
``db.instance(n)`` that instance, whatever its role
custom             those of a list, or all but those of a list: ``db.endpoints.create(...)``, at most 5
=================  ==========================================================================================
"""

# ruff: noqa: SLF001 - the cluster and its endpoints are one thing in two files
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from aurora_engine import _engine
from aurora_engine.exceptions import InstanceGone, InvalidOption, UnknownEndpoint, UnknownInstance
from aurora_engine.rows import Row

if TYPE_CHECKING:
    import datetime as dt

    from aurora_engine.cluster import Cluster

R = TypeVar("R", bound=Row)

Kind = Literal["READER", "WRITER", "ANY"]
ENDPOINTS_MAX = 5
"""Most custom endpoints of a cluster."""
_KINDS = ("READER", "WRITER", "ANY")


@dataclass(frozen=True, slots=True)
class Failover:
    """A failover that has happened."""

    source: str
    """Who wrote before."""
    target: str
    """Who writes now."""
    gap_s: float
    """For how long nobody could write."""


def failover_of(raw: tuple[str, str, float]) -> Failover:
    """A failover as the engine reports it."""
    return Failover(*raw)


class Endpoint:
    """Read-only work at one of some instances. One that you keep is a session: what it shows never goes back."""

    __slots__ = ("_cluster", "_names", "_seen", "name")

    def __init__(self, cluster: Cluster, name: str, names: Callable[[], list[str] | None]) -> None:
        self._cluster = cluster
        self._names = names
        self._seen = 0
        self.name = name

    def pick(self) -> _engine.Instance:
        """The instance that answers next: the one with the fewest connections among those that keep up."""
        return self._cluster._reader(self._names())

    def view(
        self,
        *,
        after: _engine.Commit | int | None = None,
        at: _engine.Commit | int | dt.datetime | None = None,
        timeout: float | None = None,
    ) -> _engine.View:
        """A consistent view at one of the instances.

        Args:
            after: Read your writes: waits until the instance shows this commit.
            at: Everything as it was at this LSN, commit or time instead.
            timeout: Seconds to wait for ``after``; for ever if it is not given.

        Raises:
            ReplicaLag: the instance does not show ``after`` in time.
        """
        while True:
            instance = self.pick()
            try:
                if at is not None:
                    return instance.view(at=at, after=after, timeout_s=timeout)
                wanted = after.lsn if isinstance(after, _engine.Commit) else after
                if wanted is None or isinstance(wanted, int):  # Anything else is refused below, with what was expected.
                    wanted = max(wanted or 0, self._seen)
                view = instance.view(after=wanted or None, timeout_s=timeout)
            except InstanceGone:
                continue  # It was removed while it was waited for: another one answers.
            self._seen = max(self._seen, view.lsn)
            return view

    def get(self, table: _engine.Table[R], key: Any, *, after: _engine.Commit | int | None = None) -> R | None:
        """The row of a key, or ``None``."""
        with self.view(after=after) as view:
            return view.get(table, key)

    def get_many(
        self, table: _engine.Table[R], keys: Iterable[Any], *, after: _engine.Commit | int | None = None
    ) -> list[R | None]:
        """The rows of many keys, all of one moment."""
        with self.view(after=after) as view:
            return view.get_many(table, keys)

    def transaction(self, *, read_only: bool = True, token: str | None = None) -> _engine.Transaction:
        """A transaction at one of the instances. A replica takes only ``read_only`` ones.

        Raises:
            ReadOnlyInstance: when it is entered, not ``read_only``, at a replica; it names the writer.
        """
        return self.pick().transaction(read_only=read_only, token=token)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self._cluster!r}>"


class Reader(Endpoint):
    """The reader endpoint: ``db.reader``."""

    __slots__ = ()

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, "reader", lambda: None)

    def __repr__(self) -> str:
        return f"<Reader of {self._cluster!r}>"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which instances a custom endpoint has."""

    kind: Kind
    """``READER`` for replicas only, ``WRITER`` for the writer only, ``ANY`` for both."""
    static: tuple[str, ...] | None
    """These, and no others."""
    exclude: tuple[str, ...]
    """Or all but these, those added later among them."""

    def names(self, instances: Iterable[_engine.Instance]) -> list[str]:
        """The names of those that belong to it now."""
        listed = [i for i in instances if (i.name in self.static if self.static else i.name not in self.exclude)]
        roles = {"READER": ("replica",), "WRITER": ("writer",), "ANY": ("writer", "replica")}[self.kind]
        return [instance.name for instance in listed if instance.role in roles]


class Endpoints(Mapping[str, Endpoint]):
    """The custom endpoints of a cluster: ``db.endpoints["reports"].view()``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._rules: dict[str, Rule] = {}

    def create(
        self,
        name: str,
        *,
        static: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
        kind: Kind = "READER",
    ) -> Endpoint:
        """Makes an endpoint of these instances, or of all but some.

        Args:
            name: Its name.
            static: Its instances. One that is added to the cluster later does not belong to it.
            exclude: Everybody but these; who is added later belongs to it.
            kind: ``READER``, ``WRITER`` or ``ANY``: which of them answer, by their role at the moment.

        Raises:
            InvalidOption: it would be the sixth, there is one of this name, both lists were given, the kind is none.
            UnknownInstance: an instance of the list is not there.
        """
        if kind not in _KINDS:
            raise _refused("kind", " or ".join(_KINDS), repr(kind))
        if not isinstance(name, str) or not name or name in self._rules:
            raise _refused("name", "a name that no endpoint has", repr(name))
        if len(self._rules) >= ENDPOINTS_MAX:
            raise _refused("endpoints", f"at most {ENDPOINTS_MAX}", str(ENDPOINTS_MAX + 1))
        members = None if static is None else tuple(static)
        excluded = tuple(exclude)
        if (members is not None and excluded) or members == ():
            got = "both" if members else "an empty list"
            raise _refused("static", "a list of instances, or exclude= with one", got)
        for member in (members or ()) + excluded:
            self._cluster._instance(member)
        self._rules[name] = Rule(kind, members, excluded)
        return self[name]

    def drop(self, name: str) -> None:
        """Removes an endpoint; its instances stay."""
        self._rule(name)
        del self._rules[name]

    def rule(self, name: str) -> Rule:
        """Which instances it has."""
        return self._rule(name)

    def _rule(self, name: str) -> Rule:
        if name not in self._rules:
            there = ", ".join(self._rules) or "none at all"
            raise UnknownEndpoint(f"endpoint {name!r}: expected one of {there}, got none of this name", endpoint=name)
        return self._rules[name]

    def _members(self, name: str) -> list[str]:
        names = self._rule(name).names(self._cluster._instances())
        if not names:
            there = [instance.name for instance in self._cluster._instances()]
            raise UnknownInstance(
                f"endpoint {name!r}: expected an instance of its list, got none that is there and has the role",
                instance=name, there=there,
            )  # fmt: skip
        return names

    def __getitem__(self, name: str) -> Endpoint:
        self._rule(name)
        return Endpoint(self._cluster, name, lambda: self._members(name))

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._rules))

    def __len__(self) -> int:
        return len(self._rules)

    def __repr__(self) -> str:
        return f"<Endpoints {', '.join(self._rules) or 'none'}>"


def _refused(option: str, expected: str, got: str) -> InvalidOption:
    return InvalidOption(f"option {option}: expected {expected}, got {got}", option=option, expected=expected, got=got)
