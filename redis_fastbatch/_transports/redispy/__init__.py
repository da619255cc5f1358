"""Everything that touches redis-py's private parts. Nothing else in the package does.

This module has what clients of both kinds share. `sync` and `asyncio` know the connections of the two kinds, and
`cluster` knows the nodes of a RedisCluster. A connection that they do not know is used through its public methods.
"""

from __future__ import annotations

import codecs
import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

import hiredis
from redis import ConnectionPool
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError
from redis.utils import HIREDIS_AVAILABLE

from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader

logger = logging.getLogger("redis_fastbatch")

# Before redis-py 5.3 a pool requires the name of the command. Since then it warns when it is given one.
_takes_name = (
    inspect.signature(ConnectionPool.get_connection).parameters["command_name"].default is inspect.Parameter.empty
)
GET_CONNECTION_ARGUMENTS = ("MSET",) if _takes_name else ()


def is_cluster(client: Any) -> bool:
    """Return whether this is a client of a cluster, synchronous or asyncio."""
    return hasattr(client, "nodes_manager")


reply_reader = functools.partial(ReplyReader, make_parser=hiredis.Reader, protocol_error=InvalidResponse)
"""Returns a reader of replies that parses with hiredis and raises redis-py's InvalidResponse.

Args:
    max_value_size: longer values are refused, in bytes; 0, the default, for no limit.
"""


def connection_counts(pool: Any) -> tuple[int, int, int]:
    """Return how many connections a pool has made, how many of them are free, and how many are in use."""
    free, in_use = len(pool._available_connections), len(pool._in_use_connections)
    return getattr(pool, "_created_connections", free + in_use), free, in_use


def explain(connection: Any, reply: ErrorReply, sentinel_managed: type[Any]) -> Exception:
    """Return the exception that redis-py makes of an error reply.

    Args:
        connection: received the reply.
        reply: the error.
        sentinel_managed: the class of the connections that Sentinel's clients make.

    Raises:
        redis.exceptions.ConnectionError: Sentinel's master has become a replica. As in redis-py, the connection
            is closed then, and the next one asks Sentinel for the new master.
    """
    error: Exception = connection._parser.parse_error(str(reply))
    is_master = isinstance(connection, sentinel_managed) and bool(connection.connection_pool.is_master)
    if is_master and isinstance(error, ReadOnlyError):
        raise ConnectionError("The previous master is now a slave") from error
    return error


def push_handler(connection: Any) -> Callable[[Any], Any] | None:
    """Return what handles the RESP3 push messages of a connection: redis-py's handler, or the user's.

    Returns:
        The handler, which is a coroutine function on an asyncio connection. None where this redis-py has none.
    """
    handle: Callable[[Any], Any] | None = getattr(connection._parser, "handle_push_response", None)
    if handle is None or "push_request" in inspect.signature(handle).parameters:
        logger.debug("push messages are ignored: this version of redis-py has no handlers for them")
        return None
    return handle


def parser_is_empty(parser: Any) -> bool:
    """Return whether a connection's parser holds no received bytes, as far as its kind is known."""
    if hasattr(parser, "_reader"):
        return not parser._reader.has_data()
    buffer: Any = getattr(parser, "_buffer", None)
    if hasattr(buffer, "unread_bytes"):
        return not buffer.unread_bytes()
    return buffer is not None and not buffer


@functools.lru_cache(maxsize=16)
def is_utf8(encoding: str) -> bool:
    """Return whether this is a name of UTF-8."""
    return codecs.lookup(encoding).name == "utf-8"


def key_encoding(client: Any) -> tuple[str, str]:
    """Return how redis-py turns the str keys of a client's commands into bytes.

    Batches do the same, so that redis-py's own commands find their keys.

    Args:
        client: a redis-py client, of one server or of a cluster, synchronous or asyncio.

    Returns:
        The encoding and its error handler. Where hiredis packs the commands, this is UTF-8, whatever the client's
        `encoding` says.
    """
    if _packs_by_hiredis(client):
        return "utf-8", "strict"
    encoder = client.get_encoder()
    return encoder.encoding, encoder.encoding_errors


def reply_decoding(client: Any) -> tuple[str | None, str]:
    """Return how redis-py decodes the strings of a client's replies.

    Returns:
        The encoding, or None where strings stay bytes, and the encoding's error handler.
    """
    encoder = client.get_encoder()
    return encoder.encoding if encoder.decode_responses else None, encoder.encoding_errors


def _packs_by_hiredis(client: Any) -> bool:
    if hasattr(client, "__aenter__"):
        # redis.asyncio packs commands in Python, even where hiredis reads the replies.
        return False
    pool = getattr(client, "connection_pool", None)
    packer = getattr(pool, "connection_kwargs", {}).get("command_packer")
    return HIREDIS_AVAILABLE if packer is None else isinstance(packer, HiredisRespSerializer)
