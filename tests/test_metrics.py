"""Metrics under Aurora's names, and the endpoint that serves them."""

from __future__ import annotations

import urllib.request

import pytest

import aurora_engine as au


class Reading(au.Row, key="id"):
    id: int
    value: int


def test_metrics_have_auroras_names_and_units() -> None:
    with au.open(memory=True, replicas=2) as db:
        readings = db.create_table("readings", Reading)
        db._instance("instance-2")._pause(True)
        with db.transaction() as tx:
            tx.insert(readings, Reading(1, 1))
        db.instance("instance-3").get(readings, 1, after=tx.committed)
        db.failover("instance-3", force=True)
        found = {metric.name: metric for metric in db.metrics()}
        lag = found["AuroraReplicaLag"]
        assert lag.label == "DBInstanceIdentifier"
        assert set(lag.values) == {"instance-1", "instance-2"}
        assert found["AuroraReplicaLagMaximum"].values[""] >= found["AuroraReplicaLagMinimum"].values[""] >= 0
        assert set(found["BufferCacheHitRatio"].values) == {"instance-1", "instance-2", "instance-3"}
        assert all(0 <= ratio <= 100 for ratio in found["BufferCacheHitRatio"].values.values())
        assert found["VolumeBytesUsed"].values[""] > 0
        assert found["aurora_engine_failovers"].values == {"": 1.0}
        assert found["aurora_engine_vdl"].values == {"": float(db.vdl)}
        with db.instance("instance-1").view():
            open_now = {metric.name: metric for metric in db.metrics()}["DatabaseConnections"]
            assert open_now.values["instance-1"] == 1


def test_the_endpoint_serves_them_as_text() -> None:
    pytest.importorskip("prometheus_client")
    db = au.open(memory=True, replicas=1)
    with db.serve_metrics(0) as server:
        text = urllib.request.urlopen(server.url, timeout=10).read().decode()
        assert 'AuroraReplicaLag{DBInstanceIdentifier="instance-2"}' in text
        assert "# TYPE aurora_engine_vdl gauge" in text
        assert "127.0.0.1" in repr(server)
        db.close()
        closed = urllib.request.urlopen(server.url, timeout=10).read().decode()
        assert closed == ""
