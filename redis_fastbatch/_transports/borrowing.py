"""Borrows a connection from a client for a batch, and gives it back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from redis_fastbatch._transports.async_source import acting_task
from redis_fastbatch._transports.redispy import asyncio as redispy_asyncio
from redis_fastbatch._transports.redispy import sync as redispy_sync
from redis_fastbatch.errors import FastBatchError

_lent: dict[int, Any] = {}
"""For each single connection that a batch is using, by its id: the thread or the task of that batch."""


def check_free(connection: Any, taker: Any) -> None:
    """Refuse a client's single connection to a thread or task whose batch is using it already.

    That happens when the source or a hook of the batch uses the same client.

    Args:
        connection: the single connection of a client, or None.
        taker: the thread or the task.

    Raises:
        FastBatchError: a command sent between those of the batch would get the replies to these.
    """
    if _lent.get(id(connection)) == taker:
        raise FastBatchError(
            "the client has a single connection, which a batch is using: its source and its hooks need another"
        )


@contextlib.contextmanager
def _lending(connection: Any, taker: Any) -> Iterator[None]:
    """Note, within the context, that a batch of `taker` is using a single connection."""
    _lent[id(connection)] = taker
    try:
        yield
    finally:
        _lent.pop(id(connection), None)


@contextlib.contextmanager
def borrow_single(client: Any) -> Iterator[Any]:
    """Borrow the single connection of a redis.Redis that has no pool to borrow from."""
    connection = client.connection
    taker = threading.get_ident()
    check_free(connection, taker)
    lock = redispy_sync.single_connection_lock(client)
    try:
        with lock, _lending(connection, taker):
            redispy_sync.close_if_stale(connection)
            yield connection
    except Exception:
        raise
    except BaseException:
        redispy_sync.unlock(lock)
        raise


def is_single(client: Any) -> bool:
    """Return whether a redis.asyncio.Redis has a single connection instead of those of its pool."""
    return client.connection is not None or bool(getattr(client, "single_connection_client", False))


@contextlib.asynccontextmanager
async def borrow_single_async(client: Any) -> AsyncIterator[Any]:
    """Borrow the single connection of a redis.asyncio.Redis."""
    taker = acting_task()
    # Before initialize(), which takes the lock of a single connection: this very task may hold that.
    check_free(client.connection, taker)
    await client.initialize()
    connection = client.connection
    async with redispy_asyncio.single_connection_lock(client):
        with _lending(connection, taker):
            redispy_asyncio.check_loop(connection)
            yield connection
