"""Batches make a span and redis-py's metrics, if redis-py's observability is on. Each test has its own process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from redis_fastbatch.server import EmbeddedServer

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("redis.observability")

SETUP = """
import asyncio, json, sys
import redis, redis.asyncio
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.observability.config import MetricGroup, OTelConfig
from redis.observability.providers import get_observability_instance
from redis_fastbatch import AsyncFastBatch, FastBatch

host, port = sys.argv[1], int(sys.argv[2])
spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
tracers = TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(MeterProvider([reader]))

def switch_on():
    groups = [MetricGroup.COMMAND, MetricGroup.RESILIENCY]
    get_observability_instance().init(OTelConfig(metric_groups=groups))

def show():
    print(json.dumps({"spans": [
        {"name": span.name, "status": span.status.status_code.name, "kind": span.kind.name, **span.attributes}
        for span in spans.get_finished_spans()
    ], "metrics": [
        {"metric": metric.name, "count": getattr(point, "count", None), **point.attributes}
        for found in (reader.get_metrics_data(),) if found is not None
        for resource in found.resource_metrics for scope in resource.scope_metrics
        for metric in scope.metrics for point in metric.data.data_points
    ]}))
"""


def run(server: EmbeddedServer, program: str) -> Any:
    """Return what a program recorded, as spans and metrics."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SETUP + program + "\nshow()", server.host, str(server.port)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_each_batch_is_a_span_and_a_measured_operation(valkey: EmbeddedServer) -> None:
    found = run(
        valkey,
        """
fb = FastBatch(redis.Redis(host=host, port=port))
fb.batch_set({"before": 1})
switch_on()
fb = FastBatch(redis.Redis(host=host, port=port))
fb.batch_set({f"k:{n}": n for n in range(3000)})
fb.batch_set(items=iter([("k:1", 1)]), ex=60)
fb.batch_get(["k:1", "k:2"])
fb.batch_get(keys=["k:1"])
list(fb.batch_get_iter(iter(["k:1", "k:2", "k:3"])))
next(fb.batch_get_iter(["k:1", "k:2", "k:3"]))
fb.batch_hset({"h": {"a": 1}})
fb.batch_hgetall(["h"])
fb.batch_execute([("INCR", "n")] * 5)
fb.batch_delete(["k:1", "k:2"])
""",
    )
    assert [(span["name"], span["db.operation.batch.size"]) for span in found["spans"]] == [
        ("MSET", 3000),
        ("MSET", 1),
        ("MGET", 2),
        ("MGET", 1),
        ("MGET", 3),
        ("MGET", 1),
        ("HSET", 1),
        ("HGETALL", 1),
        ("PIPELINE", 5),
        ("UNLINK", 2),
    ]
    assert found["spans"][0] == {
        "name": "MSET",
        "status": "UNSET",
        "kind": "CLIENT",
        "db.system.name": "redis",
        "db.operation.name": "MSET",
        "db.operation.batch.size": 3000,
        "db.namespace": "0",
        "server.address": valkey.host,
        "server.port": valkey.port,
    }
    durations = {
        point["db.operation.name"]: point["count"]
        for point in found["metrics"]
        if point["metric"] == "db.client.operation.duration"
    }
    assert durations == {"MSET": 2, "MGET": 4, "HSET": 1, "HGETALL": 1, "PIPELINE": 1, "UNLINK": 1}


def test_a_failed_batch_says_so(valkey: EmbeddedServer) -> None:
    found = run(
        valkey,
        """
from redis_fastbatch import BatchError
switch_on()
try:
    FastBatch(redis.Redis(host=host, port=port)).batch_set({"a": 1, "b": object()})
except BatchError:
    pass
try:
    FastBatch(redis.Redis(host=host, port=1)).batch_get(["a"])
except redis.ConnectionError:
    pass
""",
    )
    kinds = [(span["status"], span["error.type"], span.get("db.operation.batch.size")) for span in found["spans"]]
    assert kinds == [
        ("ERROR", "redis_fastbatch.errors.BatchError", 2),
        ("ERROR", "redis.exceptions.ConnectionError", None),
    ]
    errors = [point["error.type"] for point in found["metrics"] if point["metric"] == "redis.client.errors"]
    assert {"BatchError", "ConnectionError"} <= {name.rpartition(".")[2] for name in errors}


def test_batches_of_asyncio_are_recorded_too(valkey: EmbeddedServer) -> None:
    found = run(
        valkey,
        """
async def main():
    async with AsyncFastBatch(redis.asyncio.Redis(host=host, port=port)) as fb:
        await fb.batch_set({"a": 1, "b": 2})
        await fb.batch_get(keys=["a"])
        print([pair async for pair in fb.batch_get_iter(["a", "b"])])

switch_on()
asyncio.run(main())
""",
    )
    assert [(span["name"], span["db.operation.batch.size"]) for span in found["spans"]] == [
        ("MSET", 2),
        ("MGET", 1),
        ("MGET", 2),
    ]
    assert (
        sum(point["count"] for point in found["metrics"] if point["metric"] == "db.client.operation.duration") == 3
    )


def test_nothing_is_recorded_unless_it_is_switched_on(valkey: EmbeddedServer) -> None:
    found = run(valkey, 'FastBatch(redis.Redis(host=host, port=port)).batch_set({"a": 1})')
    assert found == {"spans": [], "metrics": []}
