"""The figures of on_chunk, and the OpenTelemetry recipe of docs/monitoring.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from faults.proxy import FaultProxy
from faults.streams import Direction
from redis_fastbatch import BatchError, FastBatch
from redis_fastbatch._engine.flight import COMMAND_BYTES, WINDOW_BYTES
from redis_fastbatch.report import ChunkStats
from redis_fastbatch.server import EmbeddedServer
from servers import AclUser

DOCUMENT = Path(__file__).parents[3] / "docs" / "monitoring.md"


def pairs(count: int) -> Iterator[tuple[str, int]]:
    return ((f"key:{i}", i) for i in range(count))


@pytest.mark.parametrize("options", [{}, {"ex": 100}, {"nx": True}, {"atomic": True}], ids=str)
def test_the_figures_of_all_chunks_add_up(valkey: EmbeddedServer, options: dict[str, Any]) -> None:
    chunks: list[ChunkStats] = []
    with valkey.client() as direct:
        direct.flushall()
    with FaultProxy(valkey.port) as proxy, redis.Redis(host=proxy.host, port=proxy.port) as client:
        client.ping()
        FastBatch(client).batch_set(pairs(1), ex=1)
        before = proxy.seen(Direction.TO_SERVER)
        report = FastBatch(client).batch_set(pairs(20_000), on_chunk=chunks.append, **options)
        sent = proxy.seen(Direction.TO_SERVER) - before
    assert report.written + report.skipped == sum(stats.items for stats in chunks) == 20_000
    assert report.bytes_sent == sent
    # MULTI and EXEC have no items.
    overhead = len(b"*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nEXEC\r\n") if options.get("atomic") else 0
    assert sent - overhead <= sum(stats.bytes for stats in chunks) <= sent
    assert all(stats.seconds > 0 for stats in chunks)
    assert sum(stats.seconds for stats in chunks) <= report.seconds * len(chunks)
    assert all(0 <= stats.in_flight <= WINDOW_BYTES + 2 * COMMAND_BYTES for stats in chunks)
    assert chunks[-1].in_flight <= overhead


def test_bytes_in_flight_over_a_cluster_are_reported(cluster_client: redis.RedisCluster) -> None:
    chunks: list[ChunkStats] = []
    FastBatch(cluster_client).batch_set(pairs(20_000), chunk_size=100, on_chunk=chunks.append)
    assert any(stats.in_flight for stats in chunks)
    assert all(stats.in_flight >= 0 for stats in chunks)
    assert chunks[-1].in_flight == 0


def test_items_of_a_refused_command_are_counted_once(acl_server: AclUser) -> None:
    chunks: list[ChunkStats] = []
    items = {f"{'allowed' if i % 2 else 'forbidden'}:{i}": i for i in range(3000)}
    with acl_server.client() as client:
        report = FastBatch(client).batch_set(items, on_error="report", on_chunk=chunks.append, chunk_size=1000)
    assert (report.written, report.failed) == (1500, 1500)
    assert [stats.items for stats in chunks] == [0, 0, 0, 1000, 1000, 1000]
    assert sum(stats.bytes for stats in chunks) == report.bytes_sent


@pytest.fixture
def recipe() -> dict[str, Any]:
    """Run the recipe with in-memory exporters, and return its names."""
    metrics = pytest.importorskip("opentelemetry.sdk.metrics")
    metrics_export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    trace_export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    code = next(block for block in blocks if block.startswith('"""telemetry.py'))
    reader, exporter = metrics_export.InMemoryMetricReader(), memory.InMemorySpanExporter()
    meters = metrics.MeterProvider([reader])
    tracers = trace.TracerProvider()
    tracers.add_span_processor(trace_export.SimpleSpanProcessor(exporter))
    # A program sets its providers only once, so each test gets its own.
    code = code.replace("metrics.get_meter(", "meters.get_meter(").replace(
        "trace.get_tracer(", "tracers.get_tracer("
    )
    names: dict[str, Any] = {"meters": meters, "tracers": tracers, "reader": reader, "exporter": exporter}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    return names


def metrics_of(recipe: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the data points of each metric, by name."""
    (resource,) = recipe["reader"].get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "redis_fastbatch"
    return {metric.name: list(metric.data.data_points) for metric in scope.metrics}


def test_the_documented_recipe_exports_metrics_and_a_span(
    valkey_client: redis.Redis, recipe: dict[str, Any]
) -> None:
    report = recipe["traced_batch_set"](FastBatch(valkey_client), pairs(20_000), name="import", ex=100)
    assert report.written == 20_000
    points = metrics_of(recipe)
    outcomes = {point.attributes["fastbatch.outcome"]: point.value for point in points["fastbatch.items"]}
    assert outcomes == {"written": 20_000, "skipped": 0, "failed": 0}
    assert [point.value for point in points["fastbatch.sent"]] == [report.bytes_sent]
    (duration,), (in_flight,) = points["fastbatch.chunk.duration"], points["fastbatch.in_flight"]
    assert duration.count == in_flight.count >= 20
    assert duration.sum > 0
    assert in_flight.min == 0
    (span,) = recipe["exporter"].get_finished_spans()
    assert span.name == "import"
    assert span.attributes["fastbatch.written"] == span.attributes["fastbatch.confirmed_prefix"] == 20_000
    assert span.status.is_ok


def test_the_documented_recipe_exports_failed_items(valkey_client: redis.Redis, recipe: dict[str, Any]) -> None:
    items = {"good": 1, "bad": object()}
    with pytest.raises(BatchError):
        recipe["traced_batch_set"](FastBatch(valkey_client), items)
    outcomes = {p.attributes["fastbatch.outcome"]: p.value for p in metrics_of(recipe)["fastbatch.items"]}
    assert outcomes == {"written": 1, "skipped": 0, "failed": 1}
    (span,) = recipe["exporter"].get_finished_spans()
    assert not span.status.is_ok
    assert span.attributes["fastbatch.failed"] == 1
    assert any(event.name == "exception" for event in span.events)


def test_the_documented_recipe_exports_an_error_of_the_source(
    valkey_client: redis.Redis, recipe: dict[str, Any]
) -> None:
    def items() -> Iterator[tuple[str, int]]:
        yield from pairs(3000)
        raise LookupError("the database is gone")

    with pytest.raises(LookupError):
        recipe["traced_batch_set"](FastBatch(valkey_client), items())
    outcomes = {p.attributes["fastbatch.outcome"]: p.value for p in metrics_of(recipe)["fastbatch.items"]}
    assert outcomes["written"] == 3000
    (span,) = recipe["exporter"].get_finished_spans()
    assert not span.status.is_ok
    assert span.attributes["fastbatch.confirmed_prefix"] == 3000
