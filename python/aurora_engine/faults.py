"""Faults on an embedded cluster, for tests: nodes, disks and the writer break when told to, and work again.

.. code-block:: python

    with db.faults.az_down("az1"):          # an Availability Zone is gone
        service.transfer(...)               # and the service does not notice
    db.faults.crash_writer(during_commit="lost")
    service.transfer(...)                   # retries what the crash took

The words are those of Aurora's fault injection queries where it has them: ``ALTER SYSTEM CRASH``, ``ALTER SYSTEM
SIMULATE ... PERCENT DISK FAILURE``, ``... DISK CONGESTION BETWEEN ... AND ... MILLISECONDS``, ``... READ REPLICA
FAILURE``, each ``FOR INTERVAL ...``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from aurora_engine import _engine
from aurora_engine.exceptions import AuroraError, ClusterClosed, ForkedProcess, InvalidOption

SECONDS_MAX = threading.TIMEOUT_MAX
"""The longest interval."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """What was spoilt on a disk."""

    path: str
    """The file."""
    offset: int
    """Where in it."""
    bytes: int
    """How many bytes."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A fault, described: for ``Faults.start`` and ``Faults.schedule``."""

    kind: ClassVar[str]
    draws: ClassVar[bool] = False
    """Whether a schedule draws a node where none is named."""
    node: str | None = None
    """A storage node such as ``az1-a`` (or its directory), or an Availability Zone; ``None`` is all."""


@dataclass(frozen=True, slots=True)
class NodeDown(Spec):
    """The process of a node is gone: it takes nothing and answers nobody, until it is started again."""

    kind: ClassVar[str] = "node_down"
    draws: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Partition(Spec):
    """A node is cut off: nothing reaches it, nothing comes from it; it catches up by gossip."""

    kind: ClassVar[str] = "partition"
    draws: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Pause(Spec):
    """A node stands still, and nobody takes it for gone."""

    kind: ClassVar[str] = "pause"
    draws: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class DiskCongestion(Spec):
    """A slow disk: each I/O takes between ``min_ms`` and ``max_ms`` longer."""

    kind: ClassVar[str] = "disk_congestion"
    min_ms: float = 0.0
    max_ms: float = 20.0


@dataclass(frozen=True, slots=True)
class DiskFailure(Spec):
    """A failing disk: so many percent of its I/Os fail."""

    kind: ClassVar[str] = "disk_failure"
    percent: int = 10


@dataclass(frozen=True, slots=True)
class DiskFull(Spec):
    """A disk without room."""

    kind: ClassVar[str] = "disk_full"


@dataclass(frozen=True, slots=True)
class ReplicaFailure(Spec):
    """Nothing of the writer reaches a replica; ``node`` is the replica's name, ``None`` all of them."""

    kind: ClassVar[str] = "replica_failure"


@dataclass(frozen=True, slots=True)
class CrashWriter(Spec):
    """The writer dies: over in a moment, it needs no end."""

    kind: ClassVar[str] = "crash_writer"
    during_commit: Literal["lost", "kept"] | None = None


@dataclass(frozen=True, slots=True)
class CorruptPage(Spec):
    """A page rots on one node's disk: it needs no end, reads and scrub have it rebuilt."""

    kind: ClassVar[str] = "corrupt_page"
    draws: ClassVar[bool] = True


class Fault:
    """A fault that is on, until its ``with`` block, its interval, ``end()`` or the cluster ends it."""

    def __init__(self, faults: _engine.Faults, number: int, text: str, interval: dt.timedelta | None) -> None:
        self._faults = faults
        self._number = number
        self._text = text
        self._ended = False
        self._timer: threading.Timer | None = None
        if interval is not None:
            self._timer = threading.Timer(interval.total_seconds(), self.end)
            self._timer.daemon = True
            self._timer.start()

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._ended

    def end(self) -> None:
        """Has the thing work again. Ending what has ended is nothing."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        # In a fork: the parent's cluster, and the parent's fault.
        with contextlib.suppress(ForkedProcess):
            self._faults.end(self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.end()

    def __repr__(self) -> str:
        return f"<Fault {self._text}{' (ended)' if self._ended else ''}>"


class Faults:
    """What can be broken: ``Cluster.faults``. ``print`` it for what is.

    What lasts begins at the call, returns a ``Fault`` for a ``with`` block, and may be given an ``interval``.
    """

    def __init__(self, cluster: _engine.Cluster) -> None:
        self._raw = _engine.Faults(cluster)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the storage nodes: zone and letter."""
        return tuple(name for name, _, _ in self._raw.nodes())

    @property
    def zones(self) -> tuple[str, ...]:
        """The Availability Zones."""
        return tuple(dict.fromkeys(az for _, az, _ in self._raw.nodes()))

    @property
    def active(self) -> tuple[str, ...]:
        """What is on, in words, the oldest first."""
        armed = ("a writer crash during the next commit",) if self._raw.crash_is_armed else ()
        return (*(text for _, text in self._raw.active()), *armed)

    def node_down(self, node: str, *, interval: dt.timedelta | None = None) -> Fault:
        """Kills a storage node, and starts it again at the end: it takes nothing and answers nobody meanwhile.

        What it had on disk it has again; what it missed it gets from its peers.

        Args:
            node: One of ``nodes``, its directory, or an Availability Zone.
            interval: For how long; otherwise until ``end()``.

        Raises:
            InvalidOption: there is no such node; the message names those that there are.
        """
        return self.start(NodeDown(node), interval=interval)

    def az_down(self, az: str, *, interval: dt.timedelta | None = None) -> Fault:
        """Kills every storage node of an Availability Zone, and starts them again at the end."""
        zones = self.zones
        if az not in zones:
            raise _refused("az", f"one of {', '.join(zones)}", az)
        return self.start(NodeDown(az), interval=interval)

    def partition(self, node: str, *, interval: dt.timedelta | None = None) -> Fault:
        """Cuts a node or an Availability Zone off: it gets nothing, and catches up by gossip at the end."""
        return self.start(Partition(node), interval=interval)

    def pause(self, node: str | None = None, *, interval: dt.timedelta) -> Fault:
        """Has a node, a zone or all of them stand still for a while. Nobody takes them for gone: commits wait."""
        return self.start(Pause(node), interval=interval)

    def disk_congestion(
        self, min_ms: float, max_ms: float, *, node: str | None = None, interval: dt.timedelta | None = None
    ) -> Fault:
        """``SIMULATE ... DISK CONGESTION BETWEEN min AND max MILLISECONDS``: a node's disk is slow, or all are."""
        return self.start(DiskCongestion(node, min_ms, max_ms), interval=interval)

    def disk_failure(self, percent: int, *, node: str | None = None, interval: dt.timedelta | None = None) -> Fault:
        """``SIMULATE percent PERCENT DISK FAILURE``: so many I/Os of a node's disk fail, or of all disks."""
        return self.start(DiskFailure(node, percent), interval=interval)

    def disk_full(self, node: str | None = None, *, interval: dt.timedelta | None = None) -> Fault:
        """A node's disk has no room; without a node none has: commits raise ``DiskFull``, or wait until there is."""
        return self.start(DiskFull(node), interval=interval)

    def replica_failure(self, to: str | None = None, *, interval: dt.timedelta | None = None) -> Fault:
        """``SIMULATE 100 PERCENT READ REPLICA FAILURE TO ...``: a replica, or all of them, hears nothing of the writer.

        Raises:
            UnknownInstance: there is no such instance.
        """
        return self.start(ReplicaFailure(to), interval=interval)

    def crash_writer(self, *, during_commit: Literal["lost", "kept"] | None = None) -> None:
        """``ALTER SYSTEM CRASH``: what the writer had in memory is gone, and the next one takes over.

        Transactions that are open raise a ``Retryable``, commits that were under way ``CommitUnknown``. A replica takes
        over after the ``detection`` time, without a replica the writer is made anew; what begins meanwhile waits.

        Args:
            during_commit: Not now, but during the next commit of a transaction, whose caller gets ``CommitUnknown``:
                ``"lost"``, it never reached storage; ``"kept"``, it is durable. Only a token tells which.
        """
        self._raw.crash_writer(during_commit)

    def crash_replica(self, name: str) -> None:
        """Ends a replica as a crash would; it is made anew after the ``detection`` time.

        Raises:
            UnknownInstance: there is no such instance. InvalidOption: it is the writer.
        """
        self._raw.crash_replica(name)

    def corrupt_page(self, node: str) -> Corruption:
        """Spoils a sector of a page on a node's disk. Reads take another copy; the node's is rebuilt from one."""
        return Corruption(*self._raw.corrupt_page(node))

    def start(self, spec: Spec, *, interval: dt.timedelta | None = None) -> Fault:
        """Begins a fault that lasts, from its description."""
        if isinstance(spec, (CrashWriter, CorruptPage)) or not isinstance(spec, Spec):
            raise _refused("spec", "a fault that lasts", spec)
        if interval is not None and not (
            isinstance(interval, dt.timedelta) and dt.timedelta(0) < interval < dt.timedelta(seconds=SECONDS_MAX)
        ):
            raise _refused("interval", "a datetime.timedelta above 0", interval)
        if interval is None and isinstance(spec, Pause):
            raise _refused("interval", "a datetime.timedelta above 0, for who waits for a paused node waits", None)
        percent, least, most = 100, 0.0, 0.0
        if isinstance(spec, DiskFailure):
            percent = spec.percent
            if not isinstance(percent, int) or isinstance(percent, bool) or not 0 <= percent <= 100:
                raise _refused("percent", "a whole number from 0 to 100", percent)
        if isinstance(spec, DiskCongestion):
            least, most = spec.min_ms, spec.max_ms
        number, text = self._raw.start(spec.kind, spec.node, percent=percent, least_ms=least, most_ms=most)
        return Fault(self._raw, number, text, interval)

    def schedule(
        self,
        steps: Sequence[Spec],
        *,
        seed: int = 0,
        gap: tuple[float, float] = (0.05, 0.3),
        lasting: tuple[float, float] = (0.05, 0.5),
        count: int | None = None,
    ) -> Schedule:
        """A sequence of faults drawn from a seed: the same seed gives the same faults in the same order.

        Args:
            steps: What is drawn from. A ``NodeDown``, ``Partition``, ``Pause`` or ``CorruptPage`` without a node gets
                one that is drawn too.
            seed: Of all that is drawn.
            gap: Seconds between the end of one fault and the next, at least and at most.
            lasting: Seconds that a fault lasts, at least and at most.
            count: How many faults; otherwise until it is stopped.

        Nothing happens before ``Schedule.start()``, or a ``with`` block over it.
        """
        return Schedule(self, steps, seed=seed, gap=gap, lasting=lasting, count=count)

    def seed(self, seed: int) -> None:
        """Has the dice of failing and slow disks, and of what is corrupted, fall from a seed on."""
        self._raw.seed(seed)

    def end_all(self) -> None:
        """Ends every fault, also a crash that waits for a commit."""
        self._raw.end_all()

    def __repr__(self) -> str:
        return f"<Faults: {', '.join(self.active) or 'none is on'}>"


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a schedule."""

    gap_s: float
    """Seconds before it."""
    fault: Spec
    """What breaks."""
    lasting_s: float
    """Seconds that it lasts; 0 for what is over in a moment."""


class Schedule:
    """Faults that come and go by themselves, drawn from a seed. Made by ``Faults.schedule``."""

    def __init__(
        self,
        faults: Faults,
        steps: Sequence[Spec],
        *,
        seed: int,
        gap: tuple[float, float],
        lasting: tuple[float, float],
        count: int | None,
    ) -> None:
        self._faults = faults
        self._steps = tuple(steps)
        if not self._steps or not all(isinstance(step, Spec) for step in self._steps):
            raise _refused("steps", "faults such as faults.NodeDown()", steps)
        for option, span in (("gap", gap), ("lasting", lasting)):
            if len(span) != 2 or not 0 <= span[0] <= span[1]:
                raise _refused(option, "seconds at least and at most", span)
        self._seed, self._gap, self._lasting, self._count = seed, gap, lasting, count
        self._nodes = faults.nodes
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.done: list[Step] = []
        """What has happened so far."""
        self.failures: list[tuple[Step, AuroraError]] = []
        """Faults that the cluster refused: a crash that finds no room on the disk, for example."""

    def plan(self, count: int) -> list[Step]:
        """The first faults, without having them happen."""
        drawn = self._draw()
        return [next(drawn) for _ in range(count)]

    def start(self) -> Self:
        """Begins, in a thread of its own."""
        if self._thread is not None:
            raise _refused("schedule", "one that was not started before", "one that was")
        self._thread = threading.Thread(target=self._run, name="aurora-faults", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends the fault that is on, and the schedule."""
        self._stop.set()
        self.join()

    def join(self, timeout: float | None = None) -> bool:
        """Waits until all faults have come and gone; False when that takes longer than ``timeout`` seconds."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        names = ", ".join(step.kind for step in self._steps)
        return f"<Schedule of {names}, seed {self._seed}: {len(self.done)} faults so far>"

    def _draw(self) -> Iterator[Step]:
        dice = random.Random(self._seed)
        while True:
            gap_s, spec, lasting_s = dice.uniform(*self._gap), dice.choice(self._steps), dice.uniform(*self._lasting)
            if spec.draws and spec.node is None:
                spec = replace(spec, node=dice.choice(self._nodes))
            if isinstance(spec, (CrashWriter, CorruptPage)):
                lasting_s = 0.0
            yield Step(gap_s, spec, lasting_s)

    def _run(self) -> None:
        for number, step in enumerate(self._draw()):
            if number == self._count or self._stop.wait(step.gap_s):
                return
            try:
                self._happen(step)
            except ClusterClosed:
                return
            except AuroraError as error:
                self.failures.append((step, error))
            else:
                self.done.append(step)

    def _happen(self, step: Step) -> None:
        spec = step.fault
        if isinstance(spec, CrashWriter):
            self._faults.crash_writer(during_commit=spec.during_commit)
        elif isinstance(spec, CorruptPage):
            self._faults.corrupt_page(spec.node or self._nodes[0])
        else:
            # The interval is only for who is paused: the end comes from here.
            interval = dt.timedelta(seconds=step.lasting_s + 60)
            with self._faults.start(spec, interval=interval):
                self._stop.wait(step.lasting_s)


def _refused(option: str, expected: str, got: object) -> InvalidOption:
    return InvalidOption(f"{option}: expected {expected}, got {got!r}", option=option, expected=expected, got=got)


__all__ = [
    "CorruptPage",
    "Corruption",
    "CrashWriter",
    "DiskCongestion",
    "DiskFailure",
    "DiskFull",
    "Fault",
    "Faults",
    "NodeDown",
    "Partition",
    "Pause",
    "ReplicaFailure",
    "Schedule",
    "Spec",
    "Step",
]
