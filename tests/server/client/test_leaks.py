"""Many batches, failed ones too, take no more memory than a few. `python -m soak` is a longer run."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from typing import Any

import pytest
import redis
import redis.asyncio

from redis_fastbatch import FastBatch, MsgpackCodec
from redis_fastbatch.async_client import AsyncFastBatch
from servers import Cluster
from soak.rounds import ROWS, blocks, resident, rounds

BATCHES = 20
NAMES = [
    "MSET", "MSETEX or SET", "SET NX", "atomic", "toolkit", "MGET", "iter", "UNLINK", "unwritable",
    "unwritable, reported", "source that raises", "unreadable", "unreadable, reported", "hook that raises",
    "wrong type", "too large", "lost connection",
]  # fmt: skip


def test_every_kind_of_batch_has_a_test(valkey_client: redis.Redis) -> None:
    assert list(rounds(valkey_client)) == NAMES


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_batches_leave_no_object_behind(
    valkey_client: redis.Redis, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    # pytest keeps what is logged.
    caplog.set_level(logging.CRITICAL, "redis_fastbatch")
    run = rounds(valkey_client)[name]
    for _ in range(12):
        run()
    # redis-py keeps some replies of a new connection's handshake.
    allowed = 5 * BATCHES if name == "lost connection" else BATCHES - 5
    left: list[int] = []
    while len(left) < 6 and not (left and left[-1] < allowed):
        before = blocks()
        for _ in range(BATCHES):
            run()
        left.append(blocks() - before)
    assert left[-1] < allowed, left


def test_values_have_no_extra_references(valkey_client: redis.Redis) -> None:
    fast = FastBatch(valkey_client)
    value: Any = {"list": [1], "text": "a text of its own", "number": 2.5}
    items = {f"k{i}": value for i in range(500)}
    watched = [value, value["list"], value["text"], value["number"], next(iter(items)), None, True]
    before = [sys.getrefcount(one) for one in watched[:5]]
    for options in ({}, {"ex": 100}, {"nx": True}, {"atomic": True}):
        fast.batch_set(items, **options)
    assert [sys.getrefcount(one) for one in watched[:5]] == before
    found = fast.batch_get(items)
    # Newer versions of Python lend the reference of a name to the call, so compare with a dict of our own.
    ours: Any = {"k7": {"list": [1]}}
    one, own = found["k7"], ours["k7"]
    assert sys.getrefcount(one) == sys.getrefcount(own)
    inner, own_inner = one["list"], own["list"]
    assert sys.getrefcount(inner) == sys.getrefcount(own_inner)


def test_resident_memory_does_not_grow(valkey_client: redis.Redis) -> None:
    if not resident():
        pytest.skip("the memory of a process is read from /proc")
    fast, codec = FastBatch(valkey_client), MsgpackCodec()
    data = codec.dumps(list(ROWS.values()))

    def some() -> None:
        for _ in range(150):
            fast.batch_set(ROWS)
            fast.batch_get(ROWS)
            codec.loads(data)

    some()
    some()
    # Repeat it, because memory of earlier tests may change too. A leak would appear every time.
    grown: list[int] = []
    while len(grown) < 6 and not (grown and grown[-1] < 3_000_000):
        before = resident()
        for _ in range(3):
            some()
        grown.append(resident() - before)
    assert grown[-1] < 3_000_000, grown


def test_a_cluster_client_is_freed(cluster: Cluster) -> None:
    def used() -> weakref.ref[redis.RedisCluster]:
        with cluster.client() as client:
            FastBatch(client).batch_set({"a": 1, "b": 2})
            assert FastBatch(client).batch_get(["a", "b"]) == {"a": 1, "b": 2}
            return weakref.ref(client)

    client = used()
    gc.collect()
    assert client() is None


def test_an_asyncio_cluster_client_is_freed(cluster: Cluster) -> None:
    async def used() -> weakref.ref[redis.asyncio.RedisCluster]:
        first = cluster.masters[0]
        async with redis.asyncio.RedisCluster(host=first.host, port=first.port) as client:
            assert (await AsyncFastBatch(client).batch_set({"a": 1, "b": 2})).written == 2
            return weakref.ref(client)

    client = asyncio.run(used())
    gc.collect()
    assert client() is None
