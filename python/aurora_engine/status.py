"""What ``Cluster.status()`` returns: plain data with a readable ``repr``."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from aurora_engine.backup import BackupStatus

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One storage node."""

    id: int
    """Its number, from 0."""
    az: str
    """Its Availability Zone."""
    path: str
    """Its directory."""
    device: int
    """The device it lies on: nodes of one device fail together."""
    state: str
    """``healthy``, ``repairing``, ``lost``, or ``unreachable`` while an injected fault keeps it away."""
    bytes: int
    """Bytes of its layers and blobs."""
    layers: int
    """How many layers it reads from."""
    complete_to: int
    """The LSN up to which it has every record."""
    progress: float | None
    """How much of what its peers have it has, from 0 to 1, while it is made anew and filled; otherwise ``None``."""


@dataclass(frozen=True, slots=True)
class Points:
    """LSNs of the volume: ``read floor <= vdl <= vcl <= allocated <= lal``."""

    vdl: int
    """Durable: what read-only work sees."""
    vcl: int
    """Complete: every record up to it has its write quorum."""
    allocated: int
    """The newest LSN that was given out."""
    lal: int
    """The limit up to which LSNs may be given out."""
    floor: int
    """The oldest LSN that can still be read."""


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """The buffer pool."""

    hits: int
    """Look-ups that found their page."""
    misses: int
    """Look-ups that asked storage."""
    bytes: int
    """Bytes of pages held."""
    bytes_max: int
    """The budget."""
    hit_ratio: float
    """Share of look-ups that found their page."""


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """The writer, or a replica."""

    name: str
    """Its name."""
    role: str
    """``writer``, ``replica``, ``fenced`` or ``crashed``."""
    tier: int
    """Its promotion tier: 0 is first."""
    instance_class: str
    """Its class; the larger, the larger its cache."""
    readable: int
    """What its readers see: everything up to this LSN."""
    lag_ms: float
    """The age of the oldest durable commit that it does not show."""
    lag_lsns: int
    """How many LSNs it is behind."""
    shown_ms_p50: float
    """From a commit's number to the moment at which this replica showed it, the middle of the latest 4096."""
    shown_ms_p99: float
    """The same for all but the slowest hundredth."""
    rejoins: int
    """How often it was too far behind, dropped its cache and went on from the newest change."""
    connections: int
    """Views and transactions open through its endpoints."""
    cache: CacheStatus
    """Its buffer pool."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to the cluster's instances or copies."""

    time: dt.datetime
    """When."""
    what: str
    """What: ``failover``, ``replica added``, ``node lost``, ``node repaired``, ``node repair failed``, ..."""
    who: str
    """The instance or node."""
    detail: str | None
    """More, in words."""
    took_s: float | None
    """How long it took; of a failover, for how long nobody could write; of a repair, since the node was lost."""


@dataclass(frozen=True, slots=True)
class BackgroundStatus:
    """Work in the background since the cluster was opened."""

    flushed_bytes: int
    """Bytes written to delta layers."""
    compacted_bytes: int
    """Bytes written by compaction."""
    scrubbed_bytes: int
    """Bytes read by scrub."""
    repaired_records: int
    """Records given to copies that lacked them."""
    last_error: str | None
    """The last thing that went wrong in the background."""


@dataclass(frozen=True, slots=True, repr=False)
class Status:
    """A cluster at one moment. ``print`` it."""

    cluster: str
    """The cluster's id."""
    path: str | None
    """Its directory; ``None`` in memory."""
    region: str
    """The one region it lives in."""
    state: str
    """``open``, or why not."""
    epoch: int
    """The volume epoch of this owner."""
    points: Points
    """The LSNs of the volume."""
    segments: int
    """Segments of the volume."""
    segment_bytes: int
    """Bytes of a segment."""
    page_bytes: int
    """Bytes of a page."""
    nodes: tuple[NodeStatus, ...]
    """The six storage nodes."""
    devices: int
    """How many devices the copies really lie on."""
    fault_domains: str
    """What that means, in a sentence."""
    log_bytes: int
    """Bytes of the hot logs that are not yet in layers."""
    cache: CacheStatus
    """The buffer pool."""
    instances: tuple[InstanceStatus, ...]
    """Writer and replicas, the writer first."""
    background: BackgroundStatus
    """Background work."""
    backup: BackupStatus | None
    """How the backup is doing; ``None`` is unprotected against the loss of every copy."""

    @property
    def missing(self) -> tuple[NodeStatus, ...]:
        """The nodes that hold nothing and acknowledge nothing."""
        return tuple(node for node in self.nodes if node.state == "lost")

    def __repr__(self) -> str:
        points, cache = self.points, self.cache
        lines = [
            f"cluster {self.cluster[:8]} in {self.path or 'memory'} (region {self.region}): {self.state}",
            f"  LSNs      vdl {points.vdl:,}  vcl {points.vcl:,}  allocated {points.allocated:,}  lal {points.lal:,}"
            f"  readable from {points.floor:,}  epoch {self.epoch}",
            f"  volume    {self.segments:,} segments of {size(self.segment_bytes)}, pages of {size(self.page_bytes)},"
            f" {size(self.log_bytes)} in the log",
            f"  cache     {size(cache.bytes)} of {size(cache.bytes_max)}, hit ratio {cache.hit_ratio:.1%}",
            f"  copies    {self.fault_domains}",
            f"  backup    {self.backup or 'none: unprotected against the loss of every copy'}",
        ]
        for instance in self.instances:
            behind = "" if instance.role == "writer" else f", {instance.lag_ms:.1f} ms behind"
            lines.append(
                f"  {instance.role:<8}  {instance.name} (tier {instance.tier}, {instance.instance_class})"
                f" shows {instance.readable:,}{behind}, {instance.connections} open"
            )
        width = max((len(f"{node.az} {node.path}") for node in self.nodes), default=0)
        for node in self.nodes:
            place = f"{node.az} {node.path}".ljust(width)
            filled = "" if node.progress is None else f", {node.progress:.0%} filled"
            lines.append(
                f"  node {node.id}    {place}  {node.state:<11}  {size(node.bytes):>10}"
                f" in {node.layers} layers, complete to {node.complete_to:,}{filled}"
            )
        return "\n".join(lines)


def status_of(raw: dict[str, Any]) -> Status:
    """The status that the engine reports as plain dictionaries."""
    return Status(
        **{
            **raw,
            "points": Points(**raw["points"]),
            "cache": CacheStatus(**raw["cache"]),
            "background": BackgroundStatus(**raw["background"]),
            "backup": None if raw["backup"] is None else BackupStatus(**raw["backup"]),
            "instances": tuple(
                InstanceStatus(**{**instance, "cache": CacheStatus(**instance["cache"])})
                for instance in raw["instances"]
            ),
            "nodes": tuple(NodeStatus(**node) for node in raw["nodes"]),
        }
    )


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} {_UNITS[-1]}"
