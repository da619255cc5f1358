"""Takes connections from redis.asyncio's pools, and gives them back.

A pool's own get_connection() and release() take longer than a small batch: they take a lock, dispatch events and
record metrics. Where none of that has an effect, a connection is moved between the pool's two collections here.
In all other cases the pool does it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import ConnectionPool

from redis_fastbatch._transports.redispy import GET_CONNECTION_ARGUMENTS
from redis_fastbatch._transports.redispy.asyncio import check_loop, ready_transport
from redis_fastbatch._transports.redispy.pools import has_own_methods, is_observed, is_settled, records_metrics

# Earlier versions of redis-py have no metrics, and still earlier ones no events.
try:
    from redis.asyncio.observability import recorder
except ImportError:
    recorder = None  # type: ignore[assignment]
try:
    from redis.event import AsyncAfterConnectionReleasedEvent, AsyncReAuthConnectionListener
except ImportError:
    AsyncAfterConnectionReleasedEvent = AsyncReAuthConnectionListener = None  # type: ignore[assignment, misc]

_METHODS = ("get_connection", "get_available_connection", "ensure_connection", "release")


def take_ready(pool: Any) -> tuple[Any, asyncio.Transport] | None:
    """Take the connection that a pool would give next, if it is connected and ready.

    Returns:
        The connection, and its transport, which may be used directly. None if the pool has to be asked.
    """
    if not _is_known(pool) or not pool._available_connections:
        return None
    connection = pool._available_connections[-1]
    transport = ready_transport(connection, asyncio.get_running_loop())
    if transport is None:
        return None
    pool._available_connections.pop()
    pool._in_use_connections.add(connection)
    return connection, transport


async def take_from_pool(pool: Any) -> Any:
    """Return a connection that a pool gives, and which is to be given back to it.

    Raises:
        RuntimeError: the connection belongs to another event loop.
    """
    connection = await pool.get_connection(*GET_CONNECTION_ARGUMENTS)
    try:
        check_loop(connection)
    except BaseException:
        await pool.release(connection)
        raise
    return connection


def give_back(pool: Any, connection: Any) -> bool:
    """Give a connection back that take_ready() has taken. Return False if the pool has to release it."""
    lock = getattr(pool, "_lock", None)
    if lock is not None and lock.locked():
        return False
    if is_observed(pool, AsyncAfterConnectionReleasedEvent, AsyncReAuthConnectionListener):
        return False
    if connection not in pool._in_use_connections or not is_settled(connection):
        return False
    pool._in_use_connections.remove(connection)
    pool._available_connections.append(connection)
    return True


def _is_known(pool: Any) -> bool:
    """Return whether the pool keeps its connections as redis-py does, and nothing else is to be done with them."""
    kind: Any = type(pool)
    if not has_own_methods(kind, ConnectionPool, _METHODS):
        return False
    lock = getattr(pool, "_lock", None)
    return not (lock is not None and lock.locked()) and not records_metrics(recorder)
