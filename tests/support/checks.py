"""Checks for several test files: the connections of a pool, and the commands that a client sent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import hiredis
import redis

from faults.proxy import FaultProxy
from redis_fastbatch.server import EmbeddedServer


def in_use(client: redis.Redis) -> int:
    """Return the number of connections borrowed from the client's pool."""
    pool = client.connection_pool
    if isinstance(pool, redis.BlockingConnectionPool):
        return len(pool._connections) - len([one for one in pool.pool.queue if one is not None])
    return len(pool._in_use_connections)


def commands(recorded: bytes) -> list[list[bytes]]:
    """Return the commands in the bytes that a client sent."""
    reader = hiredis.Reader()
    reader.feed(recorded)
    found = []
    while (command := reader.gets()) is not False:
        assert isinstance(command, list)
        found.append(command)
    assert not reader.has_data(), "the last command is incomplete"
    return found


@contextlib.contextmanager
def proxied(
    server: EmbeddedServer, *, record: bool = False, **options: Any
) -> Iterator[tuple[FaultProxy, redis.Redis]]:
    """Empty a server, put a proxy in front of it, and connect a client through the proxy.

    Args:
        server: the server.
        record: keep the bytes that pass.
        **options: options of the client.
    """
    with server.client() as direct:
        direct.flushall()
    with (
        FaultProxy(server.port, record=record) as proxy,
        redis.Redis(**{"host": proxy.host, "port": proxy.port, **options}) as client,
    ):
        yield proxy, client
