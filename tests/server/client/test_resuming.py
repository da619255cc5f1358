"""Batches that end early, and resume at the confirmed prefix."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from faults.proxy import FaultProxy
from faults.streams import Direction, Fault, Then
from redis_fastbatch import BatchError, FastBatch
from redis_fastbatch.report import ChunkStats
from redis_fastbatch.server import EmbeddedServer
from servers import wait_until

pytestmark = pytest.mark.timeout(60)


def pairs(count: int, size: int = 100) -> Iterator[tuple[str, bytes]]:
    return ((f"key:{i}", b"%0*d" % (size, i)) for i in range(count))


def connect(proxy: FaultProxy) -> redis.Redis:
    """Connect through the proxy, without retries."""
    return redis.Redis(host=proxy.host, port=proxy.port, retry=Retry(NoBackoff(), 0))


def failing(error: BaseException, count: int) -> Iterator[tuple[str, bytes]]:
    yield from pairs(count)
    raise error


@pytest.mark.parametrize("error", [ValueError("row 5000"), KeyboardInterrupt(), SystemExit(3)])
def test_items_before_an_error_of_the_source_are_written(valkey_client: redis.Redis, error: BaseException) -> None:
    """This holds for Ctrl-C in the source too. The connection returns to the pool clean."""
    with redis.Redis.from_pool(
        redis.ConnectionPool(max_connections=1, **valkey_client.connection_pool.connection_kwargs)
    ) as client:
        before = client.client_id()
        with pytest.raises(type(error)) as caught:
            FastBatch(client).batch_set(failing(error, 5000))
        assert caught.value is error
        report = error.report  # type: ignore[union-attr]
        assert (report.written, report.confirmed_prefix, report.failed) == (5000, 5000, 0)
        assert client.dbsize() == 5000
        assert client.client_id() == before


def test_an_error_of_the_source_leaves_an_atomic_batch_unwritten(valkey_client: redis.Redis) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        FastBatch(valkey_client).batch_set(failing(KeyboardInterrupt(), 500), atomic=True)
    assert caught.value.report.written == valkey_client.dbsize() == 0  # type: ignore[attr-defined]


SCRIPT = """
import itertools, json, sys
import redis
from redis_fastbatch import FastBatch

def produce():
    for i in itertools.count():
        if i == 20_000:
            print("go", flush=True)
        yield f"key:{i}", i

items = produce()
if sys.argv[2] == "iterator":
    items = zip(map("key:{}".format, itertools.count()), itertools.count())
    print("go", flush=True)
try:
    FastBatch(redis.Redis(port=int(sys.argv[1]))).batch_set(items, workers=int(sys.argv[3]))
except KeyboardInterrupt as interrupt:
    report = interrupt.report
    print(json.dumps([report.written, report.failed, report.confirmed_prefix]))
"""


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("source", ["generator", "iterator"])
def test_ctrl_c_ends_a_batch_with_a_right_report(valkey: EmbeddedServer, source: str, workers: int) -> None:
    """The signal arrives in the source or in the package's code. The report is right."""
    with valkey.client() as client:
        client.flushall()
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(valkey.port), source, str(workers)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            wait_until(lambda: client.dbsize() > 30_000, "the batch is running")
            process.send_signal(signal.SIGINT)
            written, failed, prefix = json.loads(process.stdout.read())
        assert process.returncode == 0
        wait_until(lambda: not writing_connections(client), "the script's connections are gone")
        size = client.dbsize()
        assert written <= size <= written + failed
        assert 0 < prefix <= size
        assert all(client.exists(*(f"key:{i}" for i in some)) == len(some) for some in rounds(prefix))


def writing_connections(client: redis.Redis) -> list[Any]:
    return [each for each in client.client_list() if each["cmd"] in ("mset", "multi", "set")]


def rounds(count: int) -> Iterator[range]:
    return (range(start, min(start + 5000, count)) for start in range(0, count, 5000))


# Resuming where a batch stopped


def test_a_batch_can_resume_at_the_confirmed_prefix(valkey: EmbeddedServer) -> None:
    items = list(pairs(30_000))
    with valkey.client() as direct:
        direct.flushall()
    with FaultProxy(valkey.port) as proxy, connect(proxy) as client:
        proxy.inject(Fault(Direction.TO_SERVER, after_bytes=1_500_000, then=Then.CUT))
        with pytest.raises(redis.ConnectionError) as caught:
            FastBatch(client, "raw").batch_set(iter(items))
        report = caught.value.report  # type: ignore[attr-defined]
        done = report.confirmed_prefix
        assert 0 < done < 30_000
        assert done == report.written
        with valkey.client() as direct:
            assert all(direct.exists(*(key for key, _ in items[i : i + 1])) for i in range(0, done, 7))
            assert direct.exists(items[done - 1][0])
        assert FastBatch(client, "raw").batch_set(items[done:]).written == 30_000 - done
        assert dict(items) == FastBatch(client, "raw").batch_get([key for key, _ in items])


@pytest.fixture
def recipe() -> dict[str, Any]:
    """Run resume.py of docs/streams.md and return its names, with a small SEGMENT."""
    text = (Path(__file__).parents[3] / "docs" / "streams.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if block.startswith('"""resume.py')), names)
    names["SEGMENT"] = 4000
    return names


@pytest.mark.parametrize("count", [0, 1, 4000, 12_000, 12_001])
def test_the_documented_recipe_resumes_a_finished_load(
    valkey_client: redis.Redis, recipe: dict[str, Any], tmp_path: Path, count: int
) -> None:
    checkpoint = tmp_path / "done"
    fb = FastBatch(valkey_client, "raw")
    assert recipe["load"](fb, pairs(count), checkpoint) == count
    assert valkey_client.dbsize() == count
    assert int(checkpoint.read_text()) == count
    valkey_client.flushall()
    assert recipe["load"](fb, pairs(count), checkpoint) == count
    assert valkey_client.dbsize() == 0


def test_the_documented_recipe_resumes_after_errors(
    valkey: EmbeddedServer, recipe: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "done"
    with valkey.client() as direct:
        direct.flushall()
    with FaultProxy(valkey.port) as proxy, connect(proxy) as client:
        fb = FastBatch(client, "raw")
        proxy.inject(Fault(Direction.TO_SERVER, after_bytes=1_500_000, then=Then.CUT))
        with pytest.raises(redis.ConnectionError):
            recipe["load"](fb, pairs(20_000), checkpoint)
        assert 4000 < int(checkpoint.read_text()) < 20_000
        with pytest.raises(KeyboardInterrupt):
            recipe["load"](fb, failing(KeyboardInterrupt(), 15_000), checkpoint)
        assert checkpoint.read_text() == "15000"
        assert recipe["load"](fb, pairs(20_000), checkpoint) == 20_000
        assert fb.batch_get([key for key, _ in pairs(20_000)]) == dict(pairs(20_000))


def test_failed_items_are_in_the_confirmed_prefix(valkey_client: redis.Redis) -> None:
    """Failed items are settled, because the report and the hook name them."""
    items = [(f"key:{i}", object() if i == 10 else i) for i in range(5000)]
    with pytest.raises(BatchError) as caught:
        FastBatch(valkey_client).batch_set(items)
    assert (caught.value.report.confirmed_prefix, caught.value.report.written) == (5000, 4999)


def raise_at_chunk(count: int) -> Callable[[ChunkStats], None]:
    """Return an on_chunk hook that raises from its `count`-th call on, as soon as other chunks are in flight."""
    calls = itertools.count(1)

    def hook(stats: ChunkStats) -> None:
        if next(calls) >= count and stats.in_flight:
            raise RuntimeError("the monitor is down")

    return hook


def test_a_hook_that_raises_ends_the_batch_with_a_right_report(valkey_client: redis.Redis) -> None:
    with pytest.raises(RuntimeError, match="the monitor is down") as caught:
        FastBatch(valkey_client, "raw").batch_set(pairs(50_000), on_chunk=raise_at_chunk(20))
    report = caught.value.report  # type: ignore[attr-defined]
    assert 0 < report.written == report.confirmed_prefix < 50_000
    assert valkey_client.exists(*(f"key:{i}" for i in range(report.written))) == report.written
    assert report.failed > 0
    assert not set(report.failures) & {f"key:{i}" for i in range(report.written)}
    assert valkey_client.ping()
