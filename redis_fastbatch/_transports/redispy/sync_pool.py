"""Takes connections from redis-py's pools, and gives them back.

A pool's own get_connection() and release() take a sixth of a small batch's time: they dispatch events and record
metrics. Where none of that has an effect, a connection is moved between the pool's two collections here, under the
pool's lock. In all other cases the pool does it.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from redis.connection import ConnectionPool

from redis_fastbatch._transports.redispy import GET_CONNECTION_ARGUMENTS
from redis_fastbatch._transports.redispy.pools import is_observed, is_settled, records_metrics
from redis_fastbatch._transports.redispy.sync import close_if_stale, known_socket
from redis_fastbatch._transports.waiting import wait_for

# Earlier versions of redis-py have no metrics, and still earlier ones no events.
try:
    from redis.observability import recorder
except ImportError:
    recorder = None  # type: ignore[assignment]
try:
    from redis.event import AfterConnectionReleasedEvent, ReAuthConnectionListener
except ImportError:
    AfterConnectionReleasedEvent = ReAuthConnectionListener = None  # type: ignore[assignment, misc]

_METHODS = ("get_connection", "release", "owns_connection", "_checkpid")


def take_from_pool(pool: Any) -> Any:
    """Return a connection of a pool, which is to be given back to it."""
    connection = _take(pool)
    if connection is not None:
        return connection
    try:
        connection = pool.get_connection(*GET_CONNECTION_ARGUMENTS)
        # With RESP3 redis-py 8 does not, as what has arrived may be a push message.
        close_if_stale(connection)
        return connection
    except Exception:
        raise
    except BaseException:
        # After Ctrl-C while it connects, redis-py puts the connection back. Replies may still come over it.
        pool.disconnect(inuse_connections=False)
        raise


def give_back(pool: Any, connection: Any) -> None:
    """Give a connection back to the pool from which it was taken."""
    if not _give_back(pool, connection):
        pool.release(connection)


def _take(pool: Any) -> Any:
    """Take the connection that the pool would give next, if it is connected and ready; else return None."""
    if not _is_known(pool):
        return None
    with pool._lock:
        available = pool._available_connections
        if not available or not _is_ready(available[-1]):
            return None
        connection = available.pop()
        pool._in_use_connections.add(connection)
    return connection


def _is_ready(connection: Any) -> bool:
    """Return whether a connection is open and nothing has arrived over it."""
    sock = known_socket(connection)
    return sock is not None and not wait_for(sock, False, 0.0)[0]


def _give_back(pool: Any, connection: Any) -> bool:
    """Give a connection back; return False if the pool has more to do."""
    if not _is_known(pool) or is_observed(pool, AfterConnectionReleasedEvent, ReAuthConnectionListener):
        return False
    with pool._lock:
        in_use = pool._in_use_connections
        if connection not in in_use or connection.pid != pool.pid or not is_settled(connection):
            return False
        in_use.remove(connection)
        pool._available_connections.append(connection)
    return True


def _is_known(pool: Any) -> bool:
    """Return whether the pool keeps its connections as redis-py does, and nothing else is to be done with them."""
    kind: Any = type(pool)
    return _has_own_methods(kind) and pool.pid == os.getpid() and not records_metrics(recorder)


@functools.lru_cache(maxsize=64)
def _has_own_methods(kind: Any) -> bool:
    """Return whether a class of pools takes and gives back connections as redis-py's ConnectionPool does."""
    return issubclass(kind, ConnectionPool) and all(
        getattr(kind, name, None) is getattr(ConnectionPool, name, NotImplemented) for name in _METHODS
    )
