"""Connections that are lost at every place, in both directions, for every kind of batch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.retry
from redis.backoff import NoBackoff
from redis.retry import Retry

from faults.bench import (
    DELETE,
    MSET,
    MSETEX,
    READS,
    TO_CLIENT,
    WRITES,
    Bench,
    Operation,
    bench,
    check_read,
    check_written,
    fill,
    read,
    write,
)
from faults.matrix import DIRECTIONS, KINDS, RETRIES, ending, places
from faults.proxy import FaultProxy
from faults.streams import Direction, Fault, Then
from redis_fastbatch import AsyncFastBatch, FastBatch
from redis_fastbatch.server import EmbeddedServer

SMALL = 6
LARGE = 1000  # the number of failures that a report keeps


@pytest.fixture
def ready(request: pytest.FixtureRequest, operation: Operation, kind: str, retries: int) -> Iterator[Bench]:
    server: EmbeddedServer = request.getfixturevalue(operation.server)
    with bench(server, kind=kind, retries=retries) as made:
        yield made


def check_write_cut(ready: Bench, operation: Operation, keys: list[str], fault: Fault, chunk_size: int) -> None:
    ready.inject(fault)
    written = write(ready, operation, keys, chunk_size)
    check_written(ready, operation, keys, written)
    if ready.retries and operation.repeatable:
        assert written.error is None
        assert written.report.written == len(keys)
    ready.check_connection()


@pytest.mark.parametrize("operation", WRITES, ids=str)
@KINDS
@RETRIES
@DIRECTIONS
def test_a_write_cut_at_any_place_is_reported_right(
    ready: Bench, operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    traffic = ready.traffic(lambda: write(ready, operation, ready.keys(SMALL)))
    for place in places(traffic, direction, kind, retries):
        fault = Fault(direction, after_bytes=place, then=ending(place))
        check_write_cut(ready, operation, ready.keys(SMALL), fault, chunk_size=2)


@pytest.mark.full
@pytest.mark.parametrize("operation", WRITES, ids=str)
@KINDS
@RETRIES
@DIRECTIONS
def test_a_large_write_cut_at_random_is_reported_right(
    ready: Bench, operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    stream = ready.traffic(lambda: write(ready, operation, ready.keys(LARGE), 100))[direction]
    for place in random.Random(len(stream)).sample(range(len(stream)), 3):
        fault = Fault(direction, after_bytes=place, then=ending(place))
        check_write_cut(ready, operation, ready.keys(LARGE), fault, chunk_size=100)


@pytest.mark.parametrize("operation", READS, ids=str)
@KINDS
@RETRIES
@DIRECTIONS
@pytest.mark.parametrize("count", [SMALL, pytest.param(LARGE, marks=pytest.mark.full)])
def test_a_read_cut_at_any_place_returns_right_values(
    ready: Bench, operation: Operation, kind: str, retries: int, direction: Direction, count: int
) -> None:
    keys = ready.keys(count)
    fill(ready, keys)
    traffic = ready.traffic(lambda: read(ready, operation, keys))
    wanted = places(traffic, direction, kind, retries)
    if count == LARGE:
        length = len(traffic[direction])
        wanted = random.Random(length).sample(range(length), 4)
    for place in wanted:
        ready.inject(Fault(direction, after_bytes=place, then=ending(place)))
        found, error = read(ready, operation, keys)
        check_read(keys, found, error)
        assert error is None or not retries
        ready.check_connection()


@pytest.mark.parametrize("operation", [DELETE], ids=str)
@KINDS
@RETRIES
@DIRECTIONS
def test_a_delete_cut_at_any_place_deletes_only_its_keys(
    ready: Bench, operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    traffic = ready.traffic(lambda: ready.batch.batch_delete(ready.keys(SMALL)))
    for place in places(traffic, direction, kind, retries):
        keys, others = ready.keys(SMALL), ready.keys(2)
        fill(ready, keys + others)
        ready.inject(Fault(direction, after_bytes=place, then=ending(place)))
        try:
            count = ready.batch.batch_delete(keys)
        except redis.ConnectionError:
            assert not retries
        else:
            assert not any(ready.stored(keys))
            # Keys counted by a lost reply are not counted again.
            assert count in (0, len(keys))
        assert all(ready.stored(others))
        ready.check_connection()


@pytest.mark.parametrize("operation", [MSET, MSETEX], ids=str)
@pytest.mark.parametrize("retries", [1])
@KINDS
def test_a_second_cut_while_connecting_is_reported_right(ready: Bench, operation: Operation, kind: str) -> None:
    """Items sent over the first connection may be stored, so they must not be reported as not sent."""
    for place in range(0, 40, 5):
        keys = ready.keys(SMALL)
        ready.inject(Fault(TO_CLIENT, after_bytes=place, then=Then.CUT))
        ready.proxy.inject(Fault(TO_CLIENT, after_bytes=0, then=Then.CUT))
        written = write(ready, operation, keys)
        ready.proxy.clear()
        check_written(ready, operation, keys, written)
        ready.check_connection()


@pytest.mark.parametrize("operation", [MSETEX], ids=str)
@KINDS
def test_a_cut_while_the_server_is_asked_for_its_commands_is_retried(
    operation: Operation, valkey: EmbeddedServer, kind: str
) -> None:
    for place in (0, 10, 40):
        with bench(valkey, kind=kind, retries=1) as new:
            keys = new.keys(SMALL)
            new.inject(Fault(TO_CLIENT, after_bytes=place, then=Then.CUT))
            written = write(new, operation, keys)
            check_written(new, operation, keys, written)
            assert written.report.written == SMALL


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
@pytest.mark.parametrize("operation", ["batch_get", "batch_get_iter", "atomic"])
def test_retries_end_if_every_connection_is_cut_at_the_same_place(
    valkey: EmbeddedServer, kind: str, operation: str
) -> None:
    """Values read again and commands queued again are not progress, so retries must end."""
    items = {f"key:{i}": b"x" * 1000 for i in range(100)}
    with valkey.client() as observer:
        FastBatch(observer, "raw").batch_set(items)
    with FaultProxy(valkey.port) as proxy:
        direction = Direction.TO_SERVER if operation == "atomic" else Direction.TO_CLIENT
        proxy.inject(Fault(direction, after_bytes=40_000, then=Then.CUT), connections=None)

        def run(batch: Any) -> Any:
            if operation == "atomic":
                return batch.batch_set(items, atomic=True, chunk_size=10)
            return getattr(batch, operation)(list(items))

        async def run_async() -> None:
            retry = redis.asyncio.retry.Retry(NoBackoff(), 3)
            async with redis.asyncio.Redis(host=proxy.host, port=proxy.port, retry=retry) as client:
                running = run(AsyncFastBatch(client, "raw"))
                if operation != "batch_get_iter":
                    await running
                else:
                    async for _ in running:
                        pass

        def run_sync() -> None:
            with redis.Redis(host=proxy.host, port=proxy.port, retry=Retry(NoBackoff(), 3)) as client:
                list(run(FastBatch(client, "raw")))

        with pytest.raises(redis.ConnectionError):
            asyncio.run(run_async()) if kind == "asyncio" else run_sync()
        assert proxy.connections <= 6
