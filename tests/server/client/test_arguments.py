"""Arguments that FastBatch and AsyncFastBatch refuse: other objects than clients, and numbers out of range."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.asyncio
import redis.sentinel

from redis_fastbatch import AsyncFastBatch, FastBatch


@pytest.mark.parametrize("kind", [FastBatch, AsyncFastBatch])
def test_other_objects_than_clients_are_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}.from_url\(\) takes a URL"):
        kind("redis://localhost")
    clients = {FastBatch: redis.Redis, AsyncFastBatch: redis.asyncio.Redis}
    right_client = clients.pop(kind)
    (wrong_client,) = clients.values()
    with pytest.raises(
        TypeError, match=rf"{kind.__name__} takes a client such as redis\..*, not {wrong_client.__module__}"
    ):
        kind(wrong_client())
    for thing in (None, right_client().connection_pool, redis.sentinel.Sentinel([])):
        with pytest.raises(TypeError, match="takes a client such as redis"):
            kind(thing)
    fork = pytest.importorskip("valkey")
    with pytest.raises(TypeError, match=r"takes a client such as redis.*, not valkey\."):
        kind((fork.Valkey if kind is FastBatch else fork.asyncio.Valkey)())
    with pytest.raises(TypeError, match="takes a client, not its pipeline"):
        kind(right_client().pipeline())
    kind(right_client())


@pytest.mark.parametrize("name", ["chunk_size", "workers"])
def test_chunk_size_and_workers_must_be_at_least_1(name: str) -> None:
    fast = FastBatch(redis.Redis())
    calls: dict[str, list[Any]] = {
        "chunk_size": [fast.batch_set, lambda keys, **more: list(fast.batch_get_iter(keys, **more))],
        "workers": [fast.batch_set, fast.batch_get],
    }
    for call in calls[name]:
        for number in (0, -1):
            with pytest.raises(ValueError, match=f"^{name} must be at least 1, got {number}$"):
                call({"a": 1}, **{name: number})
        with pytest.raises(TypeError, match=f"^{name} must be an int, got str "):
            call({"a": 1}, **{name: "1"})


def test_max_value_size_must_not_be_negative() -> None:
    for kind, client in ((FastBatch, redis.Redis()), (AsyncFastBatch, redis.asyncio.Redis())):
        with pytest.raises(ValueError, match="max_value_size must be at least 0, got -1"):
            kind(client, max_value_size=-1)
        with pytest.raises(TypeError, match="max_value_size must be an int, got str"):
            kind(client, max_value_size="1")


def test_chunk_size_may_be_huge(valkey_client: redis.Redis) -> None:
    assert FastBatch(valkey_client).batch_set({"a": 1, "b": 2}, chunk_size=2**70).written == 2
