"""redis-py's private parts, as the asyncio transport uses them."""

from __future__ import annotations

import asyncio
import functools
from contextlib import AbstractAsyncContextManager
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelManagedConnection

from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._transports import redispy
from redis_fastbatch._transports.sockets import has_arrived_below


def single_connection_lock(client: Any) -> AbstractAsyncContextManager[Any]:
    """Return the lock of a client with a single connection."""
    lock: AbstractAsyncContextManager[Any] = client._single_conn_lock
    return lock


def check_loop(connection: Any) -> None:
    """Refuse a connection of another event loop, whose replies would never arrive.

    Raises:
        RuntimeError: it belongs to another loop.
    """
    loop = getattr(connection._writer, "_loop", None)
    if loop is not None and loop is not asyncio.get_running_loop():
        raise RuntimeError(
            "the client's connection belongs to another event loop, as after a second asyncio.run(): "
            "make the client within the loop that uses it, or close it before the loop ends"
        )


async def close_if_stale(connection: Any) -> None:
    """Close an idle connection if the server has closed it or has sent a reply that was not asked for.

    Such a reply would be taken for the answer to the next command.
    """
    if not connection.is_connected or not _has_streams(connection):
        return
    if not _has_arrived(connection):
        return
    # The first sleep ends in the same round of the event loop, after this task's turn. In the second one the loop
    # reads the socket.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if _is_unusable(connection):
        await connection.disconnect(nowait=True)


def known_transport(connection: Any) -> asyncio.Transport | None:
    """Return the asyncio transport of a connection that may be used directly; None for any other connection.

    It may if the connection reads and writes as redis-py does, and neither its stream nor its parser holds
    received bytes.
    """
    kind: Any = type(connection)
    if not _uses_streams(kind):
        return None
    stream, writer = connection._reader, connection._writer
    if type(stream) is not asyncio.StreamReader or type(writer) is not asyncio.StreamWriter:
        return None
    transport: asyncio.Transport = writer.transport  # type: ignore[assignment]
    if transport.is_closing() or getattr(stream, "_buffer", None):
        return None
    return transport if redispy.parser_is_empty(connection._parser) else None


@functools.lru_cache(maxsize=64)
def _uses_streams(kind: Any) -> bool:
    """Return whether a class of connections reads and writes as redis-py does."""
    if not issubclass(kind, AbstractConnection):
        return False
    if kind.send_packed_command is not AbstractConnection.send_packed_command:
        return False
    return kind.read_response in (
        AbstractConnection.read_response,
        SentinelManagedConnection.read_response,
    )


def ready_transport(connection: Any, loop: asyncio.AbstractEventLoop) -> asyncio.Transport | None:
    """Return the asyncio transport of a connection that may be used directly, now.

    Args:
        connection: the connection.
        loop: the running event loop.

    Returns:
        The transport. None also if something has arrived over the connection, or a health check may be due: then
        close_if_stale(), connect() and check_health() make it ready.
    """
    transport = known_transport(connection)
    if transport is None or connection._reader.at_eof() or connection._writer._loop is not loop:
        return None
    if connection.health_check_interval or getattr(connection, "_should_reconnect", False):
        return None
    sock = transport.get_extra_info("socket")
    return None if sock is None or has_arrived_below(sock) else transport


def is_closing(connection: Any) -> bool:
    """Return whether the connection's stream is being closed, or is closed."""
    is_closing = getattr(getattr(connection, "_writer", None), "is_closing", None)
    return is_closing is not None and bool(is_closing())


def explain(connection: Any, reply: ErrorReply) -> Exception:
    """Return the exception that redis-py makes of an error reply. See redispy.explain()."""
    return redispy.explain(connection, reply, SentinelManagedConnection)


def _has_streams(connection: Any) -> bool:
    """Return whether it reads and writes through asyncio's streams, as redis-py's own connections do."""
    reader, writer = getattr(connection, "_reader", None), getattr(connection, "_writer", None)
    return isinstance(reader, asyncio.StreamReader) and isinstance(writer, asyncio.StreamWriter)


def _has_arrived(connection: Any) -> bool:
    """Return whether something has arrived over an idle connection: in its socket, its stream or its parser."""
    if is_closing(connection) or getattr(connection._reader, "_buffer", None) or _parser_holds(connection):
        return True
    sock = connection._writer.get_extra_info("socket")
    return sock is not None and has_arrived_below(sock)


def _is_unusable(connection: Any) -> bool:
    """Return whether an idle connection has ended, or holds a reply. A push message is redis-py's to read."""
    stream = connection._reader
    if stream is None or stream.at_eof() or is_closing(connection) or _parser_holds(connection):
        return True
    held = bytes(getattr(stream, "_buffer", b""))
    return bool(held) and not held.startswith(b">")


def _parser_holds(connection: Any) -> bool:
    parser: Any = getattr(connection, "_parser", None)
    return bool(parser._reader.has_data() if hasattr(parser, "_reader") else getattr(parser, "_buffer", None))
