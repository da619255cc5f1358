"""Calls all methods of FastBatch with one client, and looks at the client's pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.connection

from checks import in_use
from redis_fastbatch import BatchError, FastBatch
from redis_fastbatch._transports.sync import Lease

ROWS: dict[Any, Any] = {f"row:{i}": {"id": i, "tags": [i, "t"], "é": None} for i in range(1500)}


def exercise(client: redis.Redis, *, prefix: str = "") -> None:
    """Call all methods of FastBatch with one client, and check their results."""
    rows = {f"{prefix}{key}": value for key, value in ROWS.items()}
    fast = FastBatch(client)
    borrowed_before = in_use(client)
    for key in client.scan_iter(f"{prefix}row:*", count=1000):
        client.delete(key)
    for options in ({}, {"ex": 100}, {"atomic": True}, {"atomic": True, "px": 90_000}):
        assert fast.batch_set(rows, **options).written == len(rows)
        assert fast.batch_get(rows) == rows
    skipped = fast.batch_set({**rows, f"{prefix}new": 1}, nx=True)
    assert (skipped.written, skipped.skipped) == (1, len(rows))
    assert fast.batch_get([f"{prefix}new", f"{prefix}none"], default=0) == {f"{prefix}new": 1, f"{prefix}none": 0}
    assert dict(fast.batch_get_iter(rows, chunk_size=400)) == rows
    with pytest.raises(BatchError):
        fast.batch_set({f"{prefix}bad": object()})
    assert {text(key) for key in fast.scan(f"{prefix}row:*")} == set(rows)
    assert fast.batch_delete([*rows, f"{prefix}new"]) == len(rows) + 1
    assert in_use(client) == borrowed_before


def text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


def channel_of(client: redis.Redis) -> type:
    """Return the type of channel that batches use for the client's connections."""
    with Lease(client) as borrowed:
        return type(borrowed.channel())


@contextmanager
def pool_unchanged(client: redis.Redis) -> Iterator[None]:
    """Check that no connection is added or still borrowed, and that the client works."""
    client.ping()
    before = number_of_connections(client)
    yield
    assert number_of_connections(client) == before
    assert in_use(client) == 0
    assert client.ping()


def number_of_connections(client: redis.Redis) -> int:
    pool = client.connection_pool
    if isinstance(pool, redis.BlockingConnectionPool):
        return len(pool._connections)
    return len(pool._available_connections) + len(pool._in_use_connections)
