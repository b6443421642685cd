"""Metrics under the names that Aurora's users know, in one registry, and a Prometheus endpoint that is off by default.

A metric is read when it is asked for; nothing is counted beside what ``Cluster.status()`` knows. Names that begin with
``aurora_engine_`` are this library's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

from aurora_engine.exceptions import InvalidOption

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from aurora_engine.cluster import Cluster

INSTANCE = "DBInstanceIdentifier"
"""The label that names an instance."""
_VOLUME_BYTES_MAX = 128 << 40


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its present values."""

    name: str
    """Its name."""
    help: str
    """What it says, and in which unit."""
    label: str | None
    """What tells its values apart; ``None`` where there is one."""
    values: dict[str, float]
    """The values by label; under the empty one where there is none."""
    total: bool = False
    """Whether it only ever rises."""


def metrics_of(cluster: Cluster) -> list[Metric]:
    """Every metric of a cluster at this moment."""
    status, events = cluster.status(), Counter(event.what for event in cluster.events())
    replicas = [instance for instance in status.instances if instance.role == "replica"]
    lags = {instance.name: instance.lag_ms for instance in replicas}
    used = max((node.bytes for node in status.nodes), default=0) + status.log_bytes

    def one(name: str, text: str, value: float, *, total: bool = False) -> Metric:
        return Metric(name, text, None, {"": value}, total)

    found = [
        Metric("AuroraReplicaLag", "Age of the oldest durable commit that it does not show, ms", INSTANCE, lags),
        one("AuroraReplicaLagMaximum", "The largest lag of all replicas, ms", max(lags.values(), default=0.0)),
        one("AuroraReplicaLagMinimum", "The smallest lag of all replicas, ms", min(lags.values(), default=0.0)),
        Metric(
            "BufferCacheHitRatio", "Share of page look-ups that found their page in memory, percent", INSTANCE,
            {instance.name: 100 * instance.cache.hit_ratio for instance in status.instances},
        ),
        Metric(
            "DatabaseConnections", "Views and transactions open through the instance's endpoints", INSTANCE,
            {instance.name: float(instance.connections) for instance in status.instances},
        ),
        one("VolumeBytesUsed", "Bytes of one copy: the largest node's layers, and the log", float(used)),
        one("AuroraVolumeBytesLeftTotal", "Bytes that the volume may grow", float(max(0, _VOLUME_BYTES_MAX - used))),
        Metric(
            "aurora_engine_replica_rejoins", "How often a replica was too far behind and dropped its cache", INSTANCE,
            {instance.name: float(instance.rejoins) for instance in replicas}, total=True,
        ),
        Metric(
            "aurora_engine_replica_shown_ms_p99", "Commit's number to shown, but for the slowest 1%, ms", INSTANCE,
            {instance.name: instance.shown_ms_p99 for instance in replicas},
        ),
        one("aurora_engine_failovers", "Failovers among the latest 1,000 events", float(events["failover"])),
        one("aurora_engine_nodes_lost", "Storage nodes that hold nothing", float(len(status.missing))),
        one("aurora_engine_vdl", "The volume durable LSN", float(status.points.vdl)),
        one("aurora_engine_log_bytes", "Bytes of the hot logs that are not yet in layers", float(status.log_bytes)),
        one(
            "aurora_engine_repaired_records", "Records given to copies that lacked them",
            float(status.background.repaired_records), total=True,
        ),
    ]  # fmt: skip
    return [metric for metric in found if metric.values]


class _Collector:
    """A cluster's metrics as a Prometheus registry asks for them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def collect(self) -> Iterator[Any]:
        """Every metric as it is now; none once the cluster is closed."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - optional

        if self._cluster.closed:
            return
        for metric in metrics_of(self._cluster):
            family = (CounterMetricFamily if metric.total else GaugeMetricFamily)(
                metric.name, metric.help, labels=[metric.label] if metric.label else []
            )
            for value_label, value in metric.values.items():
                family.add_metric([value_label] if metric.label else [], value)
            yield family


def registry_of(cluster: Cluster) -> Any:
    """A registry of ``prometheus_client`` with the cluster's metrics, to be served beside a program's own.

    Raises:
        InvalidOption: ``prometheus_client`` is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - optional
    except ModuleNotFoundError as missing:
        raise InvalidOption(
            "metrics: expected prometheus-client to be installed (pip install aurora-engine[metrics]), got none",
            option="metrics", expected="prometheus-client", got=None,
        ) from missing  # fmt: skip
    registry = CollectorRegistry()
    registry.register(_Collector(cluster))
    return registry


class MetricsServer:
    """A Prometheus endpoint: ``GET /metrics`` in the text format. Close it, or use it in a ``with`` statement."""

    def __init__(self, cluster: Cluster, port: int, address: str) -> None:
        registry = registry_of(cluster)
        from prometheus_client import start_http_server  # noqa: PLC0415 - optional

        self._server: WSGIServer
        self._thread: Thread
        self._server, self._thread = start_http_server(port, addr=address, registry=registry)

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/metrics"

    def close(self) -> None:
        """Ends the endpoint."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MetricsServer at {self.url}>"
