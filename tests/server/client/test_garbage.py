"""A batch frees its objects at once. None of them are in cycles that wait for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
import redis.asyncio

from aio import gathered
from redis_fastbatch import AsyncFastBatch, FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster

N = 3000
ITEMS = {f"key:{n}": {"id": n, "tags": [n]} for n in range(N)}
KEYS = list(ITEMS)

SYNC: dict[str, Callable[[FastBatch], Any]] = {
    "set": lambda fb: fb.batch_set(ITEMS, ex=100),
    "set, workers": lambda fb: fb.batch_set(ITEMS, workers=2),
    "set, failures": lambda fb: fb.batch_set({**ITEMS, "bad": object()}, on_error="report"),
    "get": lambda fb: fb.batch_get(KEYS),
    "get, workers": lambda fb: fb.batch_get(KEYS, workers=2),
    "iter": lambda fb: list(fb.batch_get_iter(KEYS)),
    "delete": lambda fb: fb.batch_delete(KEYS),
}
ASYNC: dict[str, Callable[[AsyncFastBatch], Awaitable[Any]]] = {
    "set": lambda fb: fb.batch_set(ITEMS, ex=100),
    "get": lambda fb: fb.batch_get(KEYS),
    "iter": lambda fb: gathered(fb.batch_get_iter(KEYS)),
    "delete": lambda fb: fb.batch_delete(KEYS),
}


@contextmanager
def no_garbage() -> Iterator[None]:
    """Check that the code leaves no cyclic garbage for its items."""
    gc.collect()
    gc.disable()
    try:
        yield
        # An event loop and redis-py may leave a few objects, but none for each item.
        assert gc.collect() < N / 10
    finally:
        gc.enable()


@pytest.mark.parametrize("name", SYNC)
def test_batches_on_one_server_leave_no_garbage(valkey_client: redis.Redis, name: str) -> None:
    fb = FastBatch(valkey_client)
    SYNC[name](fb)
    with no_garbage():
        SYNC[name](fb)


@pytest.mark.full
@pytest.mark.parametrize("name", SYNC)
def test_batches_on_a_cluster_leave_no_garbage(cluster: Cluster, name: str) -> None:
    with cluster.client() as client:
        fb = FastBatch(client)
        SYNC[name](fb)
        with no_garbage():
            SYNC[name](fb)


@pytest.mark.parametrize("name", ASYNC)
def test_batches_on_asyncio_leave_no_garbage(valkey: EmbeddedServer, name: str) -> None:
    check_asyncio(redis.asyncio.Redis(host=valkey.host, port=valkey.port), ASYNC[name])


@pytest.mark.full
@pytest.mark.parametrize("name", ASYNC)
def test_batches_on_an_asyncio_cluster_leave_no_garbage(cluster: Cluster, name: str) -> None:
    first = cluster.masters[0]
    check_asyncio(redis.asyncio.RedisCluster(host=first.host, port=first.port), ASYNC[name])


def check_asyncio(client: Any, run: Callable[[AsyncFastBatch], Awaitable[Any]]) -> None:
    async def work() -> None:
        async with AsyncFastBatch(client) as fb:
            await run(fb)
            with no_garbage():
                await run(fb)
        await client.aclose()

    asyncio.run(work())
