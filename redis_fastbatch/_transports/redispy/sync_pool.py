"""Takes connections from redis-py's pools, and gives them back.

A pool's own get_connection() and release() take a sixth of a small batch's time: they dispatch events and record
metrics. Where none of that has an effect, a connection is moved between the pool's two collections here, under the
pool's lock. In all other cases the pool does it.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from redis.connection import ConnectionPool

from redis_fastbatch._transports.redispy import GET_CONNECTION_ARGUMENTS
from redis_fastbatch._transports.redispy.pools import has_own_methods, is_observed, is_settled, records_metrics
from redis_fastbatch._transports.redispy.sync import close_if_stale, known_socket, unlock
from redis_fastbatch._transports.sockets import has_arrived

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


def take_from_pool(pool: Any) -> tuple[Any, socket.socket | None]:
    """Take a connection from a pool, which is to be given back to it.

    Returns:
        The connection, and its socket. None in place of the socket if the pool has handed the connection out, and
        is to take it back.
    """
    try:
        return take_ready(pool) or (_ask_for(pool), None)
    except Exception:
        raise
    except BaseException:
        _unlock_pool(pool)
        raise


def give_back(pool: Any, connection: Any, *, handed_out: bool) -> None:
    """Give a connection back to its pool.

    Args:
        pool: the pool.
        connection: the connection.
        handed_out: the pool has handed it out, and is to take it back.
    """
    try:
        if handed_out or not _put_back(pool, connection):
            pool.release(connection)
    except Exception:
        raise
    except BaseException:
        _unlock_pool(pool)
        raise


def take_ready(pool: Any) -> tuple[Any, socket.socket] | None:
    """Take the connection that a pool would hand out next, if it is ready.

    Returns:
        The connection, and its socket, which may be used directly. None if the pool has to be asked.
    """
    kind: Any = type(pool)
    if not has_own_methods(kind, ConnectionPool, _METHODS) or pool.pid != os.getpid() or records_metrics(recorder):
        return None
    with pool._lock:
        available = pool._available_connections
        sock = _ready_socket(available[-1]) if available else None
        if sock is None:
            return None
        connection = available.pop()
        pool._in_use_connections.add(connection)
        return connection, sock


def _ask_for(pool: Any) -> Any:
    """Return a connection that a pool hands out."""
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


def _put_back(pool: Any, connection: Any) -> bool:
    """Put a connection back that take_ready() has taken. Return False if the pool has to take it back."""
    if pool.pid != os.getpid() or is_observed(pool, AfterConnectionReleasedEvent, ReAuthConnectionListener):
        return False
    with pool._lock:
        in_use = pool._in_use_connections
        if connection not in in_use or connection.pid != pool.pid or not is_settled(connection):
            return False
        in_use.remove(connection)
        pool._available_connections.append(connection)
        return True


def _unlock_pool(pool: Any) -> None:
    """Release the locks of a pool, and of its events, that this thread has. See unlock()."""
    for owner in (pool, getattr(pool, "_event_dispatcher", None)):
        for name in ("_lock", "_fork_lock"):
            unlock(getattr(owner, name, None))


def _ready_socket(connection: Any) -> socket.socket | None:
    """Return the socket of a connection that is open and over which nothing has arrived; else None."""
    sock = known_socket(connection)
    return None if sock is None or has_arrived(sock) else sock
