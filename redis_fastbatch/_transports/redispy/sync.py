"""redis-py's private parts, as the synchronous transport uses them."""

from __future__ import annotations

import socket
import ssl
import threading
import weakref
from contextlib import AbstractContextManager
from typing import Any

from redis import Redis
from redis.connection import AbstractConnection
from redis.sentinel import SentinelManagedConnection

from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._transports import redispy
from redis_fastbatch._transports.sockets import has_arrived

_locks: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()


_SENDING = ("execute_command", "_execute_command", "parse_response", "get", "set")


def sends_as_usual(client: Any) -> bool:
    """Return whether a client's get() and set() are redis.Redis's own, so that others may send them for it."""
    if not isinstance(client, Redis) or not vars(client).keys().isdisjoint(_SENDING):
        return False
    own = all(getattr(type(client), name, None) is getattr(Redis, name, None) for name in _SENDING)
    return own and "GET" not in client.response_callbacks


def single_connection_lock(client: Any) -> AbstractContextManager[Any]:
    """Return the lock of a client with a single connection."""
    # redis-py has one of its own since 5.3.
    lock: AbstractContextManager[Any] | None = getattr(client, "single_connection_lock", None)
    return lock or _locks.setdefault(client, threading.RLock())


def unlock(lock: Any) -> None:
    """Release an RLock as often as this thread has it; do nothing with another lock. Call it after an interrupt.

    In Python 3.14, Ctrl-C within `with lock:` may leave the lock taken for good (CPython issue 148874).
    """
    is_owned = getattr(lock, "_is_owned", None)
    while is_owned is not None and is_owned():
        lock.release()


def close_if_stale(connection: Any) -> None:
    """Close an idle connection if the server has closed it or has sent a reply that was not asked for.

    Such a reply would be taken for the answer to the next command.
    """
    sock = getattr(connection, "_sock", None)
    if not isinstance(sock, socket.socket) or not has_arrived(sock):
        return
    try:
        # TLS has no way to peek.
        first = b"" if isinstance(sock, ssl.SSLSocket) else sock.recv(1, socket.MSG_PEEK)
    except OSError:
        first = b""
    # redis-py reads push messages, which begin with ">".
    if first != b">":
        connection.disconnect()


def connected(connection: Any) -> Any:
    """Connect if that is to be done, check the health if that is due, and return the connection.

    It may be wrapped by redis-py's client-side cache. Then what it wraps is returned. A batch bypasses the cache:
    its proxy would take our replies for the reply to the command that it saw last. The cache still receives its
    invalidation messages.
    """
    if getattr(connection, "_sock", None) is not None and not connection.health_check_interval:
        return connection
    connection.connect()
    connection.check_health()
    inner = getattr(connection, "_conn", None)
    if not isinstance(inner, AbstractConnection):
        return connection
    # Read the invalidation messages that have arrived: left in the parser, each would cost a level of recursion.
    while inner.can_read(timeout=0):
        inner.read_response(push_request=True)
    return inner


def known_socket(connection: Any) -> socket.socket | None:
    """Return the socket of a connection that may be used directly; None for any other connection.

    It may if the connection reads and writes as redis-py does, and its parser holds no received bytes.
    """
    kind = type(connection)
    if not isinstance(connection, AbstractConnection) or not isinstance(connection._sock, socket.socket):
        return None
    if kind.send_packed_command is not AbstractConnection.send_packed_command:
        return None
    if kind.read_response not in (
        AbstractConnection.read_response,
        SentinelManagedConnection.read_response,
    ):
        return None
    return connection._sock if redispy.parser_is_empty(connection._parser) else None


def restore_socket(connection: Any, sock: socket.socket) -> None:
    """Set the timeout that a connection expects of its socket, unless it has closed that."""
    if connection._sock is sock:
        sock.settimeout(connection.socket_timeout)


def explain(connection: Any, reply: ErrorReply) -> Exception:
    """Return the exception that redis-py makes of an error reply. See redispy.explain()."""
    return redispy.explain(connection, reply, SentinelManagedConnection)
